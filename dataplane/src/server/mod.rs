//! The interfaces to the outside: the control socket (`sagctl`, the agent) and the metrics
//! endpoint (Prometheus). Neither touches a packet.
//!
//! The control socket is driven by the daemon's control thread through its `mio::Poll`: nothing in
//! here blocks on a client. The messages are those of `sag_model::control`.

mod bind;
mod client;
mod diff;
mod dispatch;
mod metrics;
mod scrape;
mod time;

#[cfg(test)]
mod tests;

pub use metrics::{MetricsSnapshot, NextHopUse};
pub use sag_model::control::PortPunt;
pub use scrape::MetricsServer;
pub use time::{rfc3339, rfc3339_millis};

use client::{Client, Turn};
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use sag_model::control::{self, Error};
use std::io::{self, ErrorKind};
use std::path::Path;

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
    /// Validates a document as `config_apply` would, changes nothing, and returns the warnings.
    fn config_check(&mut self, text: &str, name: &str) -> Result<Vec<String>, Error>;
    fn config_apply(&mut self, text: &str, name: &str) -> Result<control::ConfigApplied, Error>;
    /// Reads the configuration file again.
    fn reload(&mut self) -> Result<control::ConfigApplied, Error>;

    /// What applying a document would change.
    fn config_diff(&mut self, text: &str, name: &str) -> Result<control::ConfigDiff, Error> {
        let warnings = self.config_check(text, name)?;
        let running = self.config_show()?;
        let changes =
            diff::changes(&running.text, text).map_err(|e| Error::invalid_config(format!("{name}: {e}")))?;
        Ok(control::ConfigDiff { changes, warnings })
    }
}

/// Clients at once. One more takes the place of the one that has been silent longest.
const MAX_CLIENTS: usize = 64;

/// Clients that may be in the middle of sending a large configuration at once.
const MAX_LARGE: usize = 4;

/// Tokens that a [`Server`] uses, from its base token on.
pub const TOKENS: usize = 1 + MAX_CLIENTS;

/// The control socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    /// Removes the socket's file when the server goes.
    _file: bind::SocketFile,
    base: usize,
    clients: Vec<Option<Client>>,
    /// Counts events; orders clients by their last one without asking a clock.
    turn: u64,
}

impl Server {
    /// Listens on `path`. A socket file there on which nobody answers is replaced; one on which
    /// somebody does is `AddrInUse`. Missing parent directories are made.
    pub fn bind(path: &Path) -> io::Result<Server> {
        let (listener, file) = bind::listen(path)?;
        let clients = std::iter::repeat_with(|| None).take(MAX_CLIENTS).collect();
        Ok(Server { listener: UnixListener::from_std(listener), _file: file, base: 0, clients, turn: 0 })
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

    /// Does what an event calls for, as far as it goes without waiting.
    pub fn handle(&mut self, registry: &Registry, token: Token, handler: &mut dyn Handler) {
        self.turn += 1;
        match token.0.checked_sub(self.base) {
            Some(0) => self.accept(registry),
            Some(n) if n < TOKENS => self.serve(registry, n - 1, handler),
            _ => {}
        }
    }

    fn accept(&mut self, registry: &Registry) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(registry, stream),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    // Out of descriptors: the connection stays in the backlog, and no further
                    // event announces it. Close an idle client and retry, or give up.
                    tracing::warn!(%error, "control socket: cannot accept a client");
                    match self.quietest() {
                        Some(n) => self.close(registry, n),
                        None => return,
                    }
                }
            }
        }
    }

    fn admit(&mut self, registry: &Registry, mut stream: UnixStream) {
        let slot = match self.clients.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                let Some(n) = self.quietest() else { return };
                tracing::warn!(
                    limit = MAX_CLIENTS,
                    "control socket: too many clients, the quietest one goes"
                );
                self.close(registry, n);
                n
            }
        };
        let token = Token(self.base + 1 + slot);
        match registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE) {
            Ok(()) => self.clients[slot] = Some(Client::new(stream, self.turn)),
            Err(error) => tracing::warn!(%error, "control socket: cannot watch a client"),
        }
    }

    fn serve(&mut self, registry: &Registry, slot: usize, handler: &mut dyn Handler) {
        let others = self.clients.iter().enumerate().filter(|(n, _)| *n != slot);
        let large = others.filter(|(_, c)| c.as_ref().is_some_and(Client::is_large)).count();
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

    fn close(&mut self, registry: &Registry, slot: usize) {
        if let Some(mut client) = self.clients.get_mut(slot).and_then(Option::take) {
            // Closing the descriptor ends the watch in any case.
            let _ = registry.deregister(client.stream());
        }
    }

    fn quietest(&self) -> Option<usize> {
        let turns = self.clients.iter().enumerate().filter_map(|(n, c)| Some((c.as_ref()?.last_turn, n)));
        turns.min().map(|(_, n)| n)
    }
}
