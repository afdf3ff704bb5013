//! The interfaces to the outside: the control socket (`sagctl`, the agent) and the metrics
//! endpoint (Prometheus). Neither touches a packet.
//!
//! The control socket is driven by the daemon's control thread through its `mio::Poll`: nothing in
//! here blocks on a client. The messages are those of `sag_model::control`.

mod bind;
mod client;
mod counts;
mod dispatch;
mod metrics;
mod roles;
mod scrape;
mod time;

#[cfg(test)]
mod tests;

pub use counts::Counts;
pub use metrics::{LimitedRule, MetricsSnapshot, NextHopUse, PortMappingUse};
pub use roles::Roles;
pub use sag_model::control::PortPunt;
pub use scrape::MetricsServer;
pub use time::{rfc3339, rfc3339_millis};

use client::{Client, Turn};
use counts::Ended;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use sag_model::control::{self, Access, Error};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the daemon answers, one method an operation. Called on the control thread.
pub trait Handler {
    fn status(&mut self) -> Result<control::Status, Error>;
    fn ports(&mut self) -> Result<control::Ports, Error>;
    fn drops(&mut self) -> Result<control::Drops, Error>;
    fn acl(&mut self, query: &control::AclQuery) -> Result<control::AclReport, Error>;
    fn routes(&mut self, query: &control::RouteQuery) -> Result<control::Routes, Error>;
    fn sessions(&mut self, query: &control::SessionQuery) -> Result<control::Sessions, Error>;
    /// The filter is empty only where the client asked for all.
    fn sessions_flush(&mut self, filter: &control::SessionFilter) -> Result<control::Flushed, Error>;
    fn top(&mut self, query: &control::TopQuery) -> Result<control::Top, Error>;
    fn nat(&mut self) -> Result<control::Nat, Error>;
    fn nat_bindings(&mut self, query: &control::NatBindingQuery) -> Result<control::NatBindings, Error>;
    fn ha(&mut self, query: &control::HaQuery) -> Result<control::Ha, Error>;
    fn nat_mappings(&mut self) -> Result<control::NatMappings, Error>;
    fn qos(&mut self) -> Result<control::Qos, Error>;
    fn tunnels(&mut self) -> Result<control::Tunnels, Error>;
    fn explain(&mut self, query: &control::ExplainQuery) -> Result<control::Explain, Error>;
    fn tunnels_rekey(&mut self, _query: &control::TunnelRekey) -> Result<control::Rekeyed, Error> {
        Err(Error::not_enforced("rekeying of tunnels"))
    }
    fn tunnels_confirm(&mut self, _query: &control::TunnelConfirm) -> Result<control::Rekeyed, Error> {
        Err(Error::not_enforced("keys of tunnels"))
    }
    fn tunnels_key(&mut self, _query: &control::TunnelKeyQuery) -> Result<control::PublicKey, Error> {
        Err(Error::not_enforced("agreement of keys"))
    }
    fn tunnels_peers(&mut self, _query: &control::TunnelPeers) -> Result<control::Rekeyed, Error> {
        Err(Error::not_enforced("agreement of keys"))
    }
    fn config_show(&mut self) -> Result<control::ConfigShow, Error>;
    /// What applying a document would change; nothing is changed.
    fn config_diff(&mut self, text: &str, name: &str) -> Result<control::ConfigDiff, Error>;
    /// Shows in `status` what the controller says of the document in force.
    fn config_deviations(
        &mut self,
        deviations: control::ConfigDeviations,
    ) -> Result<control::DeviationsKept, Error>;
    fn config_apply(&mut self, text: &str, name: &str) -> Result<control::ConfigApplied, Error>;
    /// Reads the configuration file again.
    fn reload(&mut self) -> Result<control::ConfigApplied, Error>;
}

/// Clients at once. One more takes the place of the one that has been silent longest, of the user with most clients.
const MAX_CLIENTS: usize = 64;

/// Clients at once that may only read, so that they cannot keep an administrator out.
const MAX_READERS: usize = MAX_CLIENTS / 2;

/// Clients that may be in the middle of sending a large configuration at once.
const MAX_LARGE: usize = 4;

/// Bytes of answers that all clients together may leave unread; beyond it the one with most goes.
const MAX_UNREAD: usize = 64 << 20;

/// Connections taken before the other clients have their turn.
const ACCEPTS_PER_TURN: usize = 16;

/// Descriptors that are set aside for clients, whatever else the daemon has open.
const SPARE: usize = 8;

/// How often clients are looked at that do nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the log says that clients had to go.
const SAID_AGAIN: Duration = Duration::from_secs(10);

/// Tokens that a [`Server`] uses, from its base token on.
pub const TOKENS: usize = 1 + MAX_CLIENTS;

/// The control socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    roles: Roles,
    /// Removes the socket's file when the server goes.
    _file: bind::SocketFile,
    base: usize,
    clients: Vec<Option<Client>>,
    /// Counts events; orders clients by their last one without asking a clock.
    turn: u64,
    spare: Vec<OwnedFd>,
    /// Somebody waits for whom there was no descriptor.
    starved: bool,
    looked: Instant,
    said: Option<Instant>,
    counts: Arc<Counts>,
}

impl Server {
    /// Listens on `path`. A socket file there on which nobody answers is replaced; one on which
    /// somebody does is `AddrInUse`. Missing parent directories are made.
    pub fn bind(path: &Path, roles: Roles) -> io::Result<Server> {
        let (listener, file) = bind::listen(path, roles.has_others())?;
        let clients = std::iter::repeat_with(|| None).take(MAX_CLIENTS).collect();
        let mut server = Server {
            listener: UnixListener::from_std(listener),
            roles,
            _file: file,
            base: 0,
            clients,
            turn: 0,
            spare: Vec::new(),
            starved: false,
            looked: Instant::now(),
            said: None,
            counts: Arc::default(),
        };
        server.set_aside();
        Ok(server)
    }

    /// Takes the tokens from `base` on, [`TOKENS`] of them.
    pub fn register(&mut self, registry: &Registry, base: Token) -> io::Result<()> {
        self.base = base.0;
        registry.register(&mut self.listener, base, Interest::READABLE)
    }

    /// Whether an event with this token is for [`Server::handle`].
    pub fn owns(&self, token: Token) -> bool {
        (self.base..self.base + TOKENS).contains(&token.0)
    }

    /// Who is connected, and who was sent away, for the metrics.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Does what an event calls for, as far as it goes without waiting.
    pub fn handle(&mut self, registry: &Registry, token: Token, handler: &mut dyn Handler) {
        self.turn += 1;
        match token.0.checked_sub(self.base) {
            Some(0) => self.accept(registry),
            Some(n) if n < TOKENS => self.serve(registry, n - 1, handler),
            _ => {}
        }
    }

    /// Closes clients that neither read nor finish what they send. To be called now and then.
    pub fn tick(&mut self, registry: &Registry) {
        let now = Instant::now();
        if now.duration_since(self.looked) < LOOK_EVERY {
            return;
        }
        self.looked = now;
        for slot in 0..self.clients.len() {
            if let Some(why) = self.clients[slot].as_ref().and_then(|c| c.overdue(now)) {
                self.send_away(registry, slot, why);
            }
        }
        self.set_aside();
        if std::mem::take(&mut self.starved) {
            self.accept(registry);
        }
    }

    /// Opens descriptors for clients that are still to come.
    fn set_aside(&mut self) {
        while self.spare.len() < SPARE {
            // Any will do: it is its number that counts.
            let Ok(one) = io::stderr().as_fd().try_clone_to_owned() else { return };
            self.spare.push(one);
        }
    }

    fn accept(&mut self, registry: &Registry) {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(registry, stream),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    // Out of descriptors: the connection stays in the backlog, and no further
                    // event announces it. One of the spare ones is for it, or that of an idle client.
                    if self.spare.pop().is_some() {
                        continue;
                    }
                    tracing::warn!(%error, "control socket: cannot accept a client");
                    match self.quietest(Access::Admin) {
                        Some(n) => self.send_away(registry, n, Ended::Descriptors),
                        None => {
                            self.starved = true;
                            return;
                        }
                    }
                }
            }
        }
        // Events are edge-triggered; registering again brings one for who waits already, after those of the clients.
        let token = Token(self.base);
        if let Err(error) = registry.reregister(&mut self.listener, token, Interest::READABLE) {
            tracing::warn!(%error, "control socket: cannot watch for clients");
            self.starved = true;
        }
    }

    fn admit(&mut self, registry: &Registry, mut stream: UnixStream) {
        let access = match roles::peer_of(&stream) {
            Ok(peer) => self.roles.access_of(&peer),
            Err(e) => Err(Error::internal(format!("cannot tell who connects: {e}"))),
        };
        let access = match access {
            Ok(access) => access,
            Err(refusal) => {
                // It fits the empty buffer of a new socket, or the client does without.
                let mut out = Vec::new();
                dispatch::refuse(0, refusal, &mut out);
                let _ = stream.write(&out);
                return;
            }
        };
        let free = self.clients.iter().position(Option::is_none);
        let readers = self.clients.iter().flatten().filter(|c| c.access() == Access::Read).count();
        let slot = match free {
            Some(free) if access == Access::Admin || readers < MAX_READERS => free,
            _ => {
                let Some(n) = self.quietest(access) else { return };
                self.send_away(registry, n, Ended::Clients);
                n
            }
        };
        let token = Token(self.base + 1 + slot);
        match registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE) {
            Ok(()) => {
                self.clients[slot] = Some(Client::new(stream, access, self.turn));
                self.counts.opened();
            }
            Err(error) => tracing::warn!(%error, "control socket: cannot watch a client"),
        }
    }

    fn serve(&mut self, registry: &Registry, slot: usize, handler: &mut dyn Handler) {
        let others = self.clients.iter().enumerate().filter(|(n, _)| *n != slot);
        let others = others.filter_map(|(n, c)| Some((n, c.as_ref()?)));
        let large = others.clone().filter(|(_, c)| c.is_large()).count();
        let unread: usize = others.clone().map(|(_, c)| c.unread()).sum();
        if unread > MAX_UNREAD
            && let Some((most, _)) = others.max_by_key(|(_, c)| c.unread())
        {
            self.send_away(registry, most, Ended::Unread);
        }
        let Some(Some(client)) = self.clients.get_mut(slot) else { return };
        client.last_turn = self.turn;
        match client.run(large < MAX_LARGE, handler) {
            Turn::Wait => {}
            // Events are edge-triggered; registering again brings one for what is ready already,
            // after those of the other clients.
            Turn::Again => {
                let token = Token(self.base + 1 + slot);
                let interest = Interest::READABLE | Interest::WRITABLE;
                if registry.reregister(client.stream(), token, interest).is_err() {
                    self.close(registry, slot);
                }
            }
            Turn::Close => self.close(registry, slot),
        }
    }

    /// Closes a client that would have stayed.
    fn send_away(&mut self, registry: &Registry, slot: usize, why: Ended) {
        self.counts.ended(why);
        if self.said.is_none_or(|at| at.elapsed() > SAID_AGAIN) {
            self.said = Some(Instant::now());
            tracing::warn!(reason = why.name(), limit = MAX_CLIENTS, "control socket: a client is closed");
        }
        self.close(registry, slot);
    }

    fn close(&mut self, registry: &Registry, slot: usize) {
        if let Some(mut client) = self.clients.get_mut(slot).and_then(Option::take) {
            // Closing the descriptor ends the watch in any case.
            let _ = registry.deregister(client.stream());
            self.counts.closed();
        }
    }

    /// Who has been silent longest, among the clients of the user that has most of them: one user's programs cannot send
    /// those of another away.
    /// With `access` to read, among clients that may only read.
    fn quietest(&self, access: Access) -> Option<usize> {
        let may_go = move |c: &Client| access == Access::Admin || c.access() == Access::Read;
        let all = || self.clients.iter().enumerate().filter_map(|(n, c)| Some((n, c.as_ref()?)));
        let clients = || all().filter(|(_, c)| may_go(c));
        let mut of_user: HashMap<u32, usize> = HashMap::new();
        clients().for_each(|(_, c)| *of_user.entry(c.user).or_default() += 1);
        let most = of_user.values().max()?;
        let candidates = clients().filter(|(_, c)| of_user.get(&c.user) == Some(most));
        candidates.min_by_key(|(_, c)| c.last_turn).map(|(n, _)| n)
    }
}
