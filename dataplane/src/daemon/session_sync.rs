//! The thread that keeps the sessions of two gateways in step (`[ha]`, docs/ha.md): the socket, the clock and the limit of
//! the rate. What is said and what becomes of it is of `sag-ha`.
//!
//! One connection joins the two: the gateway of the lower address connects, the other one listens. While the thread has the
//! tables, the control thread ends no grace period ([`SessionSync::start`] gets the lock of both).

mod connection;
mod settings;
mod state;

use connection::{Connection, connect};
pub use settings::{Settings, settings};
pub use state::State;

use super::journal::Journal;
use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use sag_ha::{Context as Tabled, Engine, Link, MAX_FRAME, Meters, Names};
use sag_model::Nanos;
use sag_model::meter::Meter;
use sag_model::time::Tick;
use sag_pipeline::Tables;
use sag_pipeline::nat::Events as NatEvents;
use sag_pipeline::snapshot::Snapshot;
use sag_xsk::sys;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Changes are sent this often.
const ROUND: Duration = Duration::from_millis(10);
/// The thread looks this often for what is due while there is no link.
const IDLE_ROUND: Duration = Duration::from_millis(100);
/// The peer hears this often that this end is alive, and of the levels of meters, however many sessions change.
const ALIVE: Duration = Duration::from_secs(1);
/// The peer is gone if it has said nothing for so long.
const SILENCE: Duration = Duration::from_secs(3);
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes that wait for a slow peer; what changes beyond them waits in the table.
const MAX_WAITING: usize = 512 * 1024;
/// Bytes that may be sent at once.
const BURST: u64 = MAX_FRAME as u64;
/// Sessions that get their ports late in one hold of the lock.
const LATE_CHUNK: u32 = 4096;

const WAKE: Token = Token(0);
const LISTENER: Token = Token(1);
/// Tokens of connections count up from here.
const FIRST_CONNECTION: usize = 2;

enum Order {
    Settings(Option<Box<Settings>>),
    Refused(String),
    Names(Names),
    Snapshot(Arc<Snapshot>),
    Stop,
}

/// The control thread's end.
#[derive(Debug)]
pub struct SessionSync {
    tables: Arc<Tables>,
    orders: Sender<Order>,
    waker: Waker,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
    names: Names,
}

/// The state, even if the other thread has panicked.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SessionSync {
    /// Starts the thread, without a peer. `writer`: whoever has it may change the tables while no grace period ends.
    pub fn start(
        (tables, meters): (Arc<Tables>, &'static [Meter]),
        snapshot: Arc<Snapshot>,
        writer: Arc<Mutex<()>>,
        journal: Journal,
    ) -> io::Result<SessionSync> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let (orders, inbox) = unbounded();
        let state = Arc::new(Mutex::new(State::default()));
        let mut follower = Follower {
            poll,
            inbox,
            tables: tables.clone(),
            meters,
            snapshot,
            writer,
            journal,
            state: state.clone(),
            settings: None,
            names: Names::default(),
            engine: None,
            listener: None,
            current: None,
            candidate: None,
            next_token: FIRST_CONNECTION,
            tried: None,
            credit: 0,
            counted: Instant::now(),
            out: Vec::with_capacity(MAX_FRAME),
        };
        let thread = std::thread::Builder::new().name("session-sync".into()).spawn(move || follower.run())?;
        Ok(SessionSync { tables, orders, waker, state, thread: Some(thread), names: Names::default() })
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_err() || self.waker.wake().is_err() {
            tracing::error!("the thread that sends sessions to the peer has ended; restart the daemon");
        }
    }

    /// Follows these settings from now on. Of wrong ones the report has the error, and there is no link.
    pub fn configure(&self, settings: Result<Option<Settings>, String>) {
        match settings {
            Ok(settings) => self.order(Order::Settings(settings.map(Box::new))),
            Err(error) => {
                tracing::error!("ha: {error}; sessions do not follow to the peer");
                self.order(Order::Refused(error));
            }
        }
    }

    /// The numbers of VRFs and ports.
    pub fn set_names(&mut self, names: Names) {
        if self.names != names {
            self.names = names.clone();
            self.order(Order::Names(names));
        }
    }

    /// What workers forward by from now on.
    pub fn send_snapshot(&self, snapshot: &Arc<Snapshot>) {
        self.order(Order::Snapshot(snapshot.clone()));
    }

    /// To be called before workers translate to other addresses. While there is a peer, sessions of the old ones may go there
    /// with them: they do not end at once.
    pub fn addresses_move(&self, at: Tick) {
        if lock(&self.state).linked {
            self.tables.v4.set_addresses_moved(Some(at));
            self.tables.v6.set_addresses_moved(Some(at));
        }
    }

    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// Ends the thread. The peer takes over.
    pub fn stop(&mut self) {
        self.order(Order::Stop);
        if let Some(t) = self.thread.take()
            && t.join().is_err()
        {
            tracing::error!("the thread that sends sessions to the peer had panicked");
        }
    }
}

/// The thread.
struct Follower {
    poll: Poll,
    inbox: Receiver<Order>,
    tables: Arc<Tables>,
    meters: &'static [Meter],
    snapshot: Arc<Snapshot>,
    writer: Arc<Mutex<()>>,
    journal: Journal,
    state: Arc<Mutex<State>>,
    settings: Option<Box<Settings>>,
    names: Names,
    engine: Option<Engine>,
    listener: Option<TcpListener>,
    /// The connection by which sessions go.
    current: Option<Connection>,
    /// One whose other end has not proved its key yet.
    candidate: Option<Connection>,
    next_token: usize,
    tried: Option<Instant>,
    /// Bytes that may be sent now.
    credit: u64,
    counted: Instant,
    out: Vec<u8>,
}

impl Follower {
    fn run(&mut self) {
        let mut events = Events::with_capacity(16);
        loop {
            let timeout = match (&self.settings, &self.current) {
                (None, _) => None,
                (Some(_), None) => Some(IDLE_ROUND),
                (Some(_), Some(_)) => Some(ROUND),
            };
            if let Err(e) = self.poll.poll(&mut events, timeout)
                && e.kind() != ErrorKind::Interrupted
            {
                tracing::error!(error = %e, "session synchronisation: poll failed");
                return;
            }
            while let Ok(order) = self.inbox.try_recv() {
                match order {
                    Order::Stop => return,
                    Order::Settings(settings) => self.set(settings, None),
                    Order::Refused(error) => self.set(None, Some(error)),
                    Order::Names(names) => {
                        self.names = names.clone();
                        if let Some(e) = &mut self.engine {
                            e.set_names(names);
                        }
                    }
                    Order::Snapshot(snapshot) => self.follow(snapshot),
                }
            }
            if self.settings.is_some() {
                self.accept();
                self.try_to_connect();
                self.serve_candidate();
                self.serve_current();
            }
            self.publish();
        }
    }

    /// Begins to follow other settings.
    fn set(&mut self, settings: Option<Box<Settings>>, error: Option<String>) {
        if settings.is_some() && settings == self.settings {
            return;
        }
        self.drop_current("the configuration has changed");
        (self.candidate, self.listener, self.tried) = (None, None, None);
        if let Some(mut engine) = self.engine.take() {
            self.with_tables(|cx, _| engine.stop(cx));
        }
        self.settings = settings;
        let mut state = lock(&self.state);
        *state = State { last_error: error, since: Some(Instant::now()), ..State::default() };
        state.addresses = self.settings.as_ref().map(|s| (s.listen, s.peer));
        drop(state);
        if let Some(s) = &self.settings {
            let mut engine = Engine::new(&self.tables, s.connects());
            engine.set_names(self.names.clone());
            self.engine = Some(engine);
        }
    }

    fn with_tables<T>(&self, work: impl FnOnce(&Tabled<'_>, &mut NatEvents) -> T) -> T {
        let mut events = NatEvents::default();
        let held = lock(&self.writer);
        let now = Nanos(sys::now());
        let meters = Meters { all: self.meters, now };
        let cx = Tabled { tables: &self.tables, snap: &self.snapshot, now: now.tick(), meters };
        let done = work(&cx, &mut events);
        drop(held);
        self.journal.take(&mut events);
        done
    }

    /// Another snapshot: if an address has come, the peer's sessions get their ports.
    fn follow(&mut self, snapshot: Arc<Snapshot>) {
        let same = snapshot.nat.same_addresses(&self.snapshot.nat);
        self.snapshot = snapshot;
        if same {
            return;
        }
        let Some(mut engine) = self.engine.take() else { return };
        let mut from = 0;
        while self.with_tables(|cx, events| engine.bind_late(cx, from, LATE_CHUNK, events)) {
            from += LATE_CHUNK;
        }
        self.engine = Some(engine);
    }

    fn report(&self, error: String) {
        let mut state = lock(&self.state);
        if state.last_error.as_ref() != Some(&error) {
            tracing::warn!("ha: {error}");
            state.last_error = Some(error);
        }
    }

    /// Takes connections of the peer; nobody else's.
    fn accept(&mut self) {
        let Some(settings) = &self.settings else { return };
        if settings.connects() {
            return;
        }
        if self.listener.is_none() {
            if self.tried.is_some_and(|t| t.elapsed() < RETRY) {
                return;
            }
            self.tried = Some(Instant::now());
            match TcpListener::bind(settings.listen) {
                Ok(mut listener) => {
                    if let Err(error) =
                        self.poll.registry().register(&mut listener, LISTENER, Interest::READABLE)
                    {
                        return self.report(format!("cannot listen: {error}"));
                    }
                    self.listener = Some(listener);
                }
                Err(error) => return self.report(format!("cannot listen on {}: {error}", settings.listen)),
            }
        }
        let peer = settings.peer.ip();
        let key = settings.key.clone();
        loop {
            let Some(Ok((stream, from))) = self.listener.as_ref().map(TcpListener::accept) else { return };
            if from.ip() != peer {
                self.report(format!("{} is not the peer and was refused", from.ip()));
                continue;
            }
            let busy = self.candidate.as_ref().is_some_and(|c| c.since.elapsed() < RETRY);
            if !busy {
                self.begin_candidate(stream, Link::accepting(&key));
            }
        }
    }

    fn try_to_connect(&mut self) {
        let Some(settings) = self.settings.as_ref().filter(|s| s.connects()) else { return };
        let waits = self.tried.is_some_and(|t| t.elapsed() < RETRY);
        if self.current.is_some() || self.candidate.is_some() || waits {
            return;
        }
        self.tried = Some(Instant::now());
        let (peer, key) = (settings.peer, settings.key.clone());
        match connect(settings.listen, peer) {
            Ok(stream) => self.begin_candidate(stream, Link::connecting(&key)),
            Err(error) => self.report(format!("cannot connect to {peer}: {error}")),
        }
    }

    fn begin_candidate(&mut self, mut stream: TcpStream, link: Result<Link, sag_ha::LinkError>) {
        let token = Token(self.next_token);
        self.next_token += 1;
        let registered =
            self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE);
        match (registered, link) {
            (Ok(()), Ok(link)) => self.candidate = Some(Connection::new(stream, link)),
            (Err(error), _) => self.report(format!("cannot wait for the peer: {error}")),
            (_, Err(error)) => self.report(error.to_string()),
        }
    }

    fn serve_candidate(&mut self) {
        let Some(mut c) = self.candidate.take() else { return };
        let done = c.exchange().and_then(|()| c.next_frame());
        match done {
            Err(error) => self.report(error),
            Ok(_) if c.since.elapsed() > SILENCE => {
                self.report("the peer does not answer".into());
            }
            Ok(frame) if frame.is_some() || c.link.is_proved() => {
                self.drop_current("the peer has connected anew");
                if let Some(mut engine) = self.engine.take() {
                    self.with_tables(|cx, _| engine.begin(cx));
                    self.engine = Some(engine);
                }
                let mut state = lock(&self.state);
                (state.linked, state.since, state.last_error) = (true, Some(Instant::now()), None);
                drop(state);
                tracing::info!("ha: linked with the peer");
                self.current = Some(c);
                if let Some(frame) = frame {
                    self.hear(&frame);
                }
            }
            Ok(_) => self.candidate = Some(c),
        }
    }

    /// The link is gone.
    fn drop_current(&mut self, why: &str) {
        if self.current.take().is_none() {
            return;
        }
        let before = self.engine.as_ref().map_or(0, |e| e.totals.released);
        let was_complete = self.engine.as_ref().is_some_and(Engine::has_all);
        if let Some(mut engine) = self.engine.take() {
            self.with_tables(|cx, _| engine.end(cx));
            self.engine = Some(engine);
        }
        let taken = self.engine.as_ref().map_or(0, |e| e.totals.released) - before;
        tracing::warn!(
            sessions = taken,
            "ha: the link to the peer is lost: {why}; its sessions are taken over"
        );
        let mut state = lock(&self.state);
        (state.linked, state.since, state.last_error) = (false, Some(Instant::now()), Some(why.to_owned()));
        state.was_complete = was_complete;
    }

    fn hear(&mut self, frame: &[u8]) {
        let Some(mut engine) = self.engine.take() else { return };
        let heard = self.with_tables(|cx, _| engine.hear(frame, cx));
        self.engine = Some(engine);
        if let Err(refused) = heard {
            self.drop_current(&refused.to_string());
        }
    }

    fn serve_current(&mut self) {
        let received = loop {
            let Some(c) = &mut self.current else { return };
            match c.exchange().and_then(|()| c.next_frame()) {
                Ok(Some(frame)) => self.hear(&frame),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = received {
            return self.drop_current(&error);
        }
        if self.current.as_ref().is_some_and(|c| c.heard.elapsed() > SILENCE) {
            return self.drop_current("nothing was heard of it for 3 s");
        }
        if let Err(error) = self.send() {
            self.drop_current(&error);
        }
    }

    /// Sends what has changed, no faster than is allowed.
    fn send(&mut self) -> Result<(), String> {
        let (Some(settings), Some(mut engine)) = (&self.settings, self.engine.take()) else { return Ok(()) };
        let elapsed = self.counted.elapsed();
        self.counted += elapsed;
        let earned = u128::from(settings.bytes_per_second) * elapsed.as_nanos() / 1_000_000_000;
        let most = BURST.max(settings.bytes_per_second / 50);
        self.credit = most.min(self.credit.saturating_add(u64::try_from(earned).unwrap_or(u64::MAX)));
        let mut sent = Ok(());
        while let Some(c) = &mut self.current {
            let waiting = c.link.outgoing().len();
            let limit = usize::try_from(self.credit).unwrap_or(MAX_FRAME).min(MAX_FRAME);
            let limit = if waiting > MAX_WAITING { 0 } else { limit };
            let alive = c.alive_said.elapsed() >= ALIVE;
            if alive {
                c.alive_said = Instant::now();
            }
            self.out.clear();
            let mut out = std::mem::take(&mut self.out);
            self.with_tables(|cx, _| engine.collect(cx, alive, limit, &mut out));
            self.out = out;
            if self.out.is_empty() {
                break;
            }
            self.credit = self.credit.saturating_sub(self.out.len() as u64);
            let Some(c) = &mut self.current else { break };
            sent = c.send(&self.out);
            if sent.is_err() || self.out.len() < limit / 2 {
                break;
            }
        }
        self.engine = Some(engine);
        sent
    }

    fn publish(&self) {
        let mut state = lock(&self.state);
        if let Some(e) = &self.engine {
            (state.has_all, state.peer_has_all, state.totals) = (e.has_all(), e.peer_has_all(), e.totals);
        }
        if let Some(c) = &self.current {
            state.heard = Some(c.heard);
            state.bytes_sent += c.take_sent();
            state.bytes_received += c.take_received();
        }
    }
}
