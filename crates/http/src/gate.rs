//! Who is connected, and what each keeps.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::limits::Limits;

/// How long somebody waits for what another one, who was cut off, gives back.
const RELEASE: Duration = Duration::from_millis(200);

/// How long there are fewer connections after the process has run out of descriptors.
const SHORTAGE: Duration = Duration::from_secs(60);

/// Why a connection was refused or closed by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// All connections are in use.
    Connections,
    /// The source has as many as it may.
    Source,
    /// More bytes are kept than may be.
    Buffers,
    /// The process has no descriptor left.
    Descriptors,
    /// No TLS handshake in time.
    Handshake,
    /// No request in time.
    Head,
    /// No whole body in time.
    Body,
    /// The answer was not read in time.
    Write,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 8] = [
        Reason::Connections,
        Reason::Source,
        Reason::Buffers,
        Reason::Descriptors,
        Reason::Handshake,
        Reason::Head,
        Reason::Body,
        Reason::Write,
    ];

    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Connections => "connections",
            Reason::Source => "source",
            Reason::Buffers => "buffers",
            Reason::Descriptors => "descriptors",
            Reason::Handshake => "handshake-timeout",
            Reason::Head => "head-timeout",
            Reason::Body => "body-timeout",
            Reason::Write => "write-timeout",
        }
    }
}

/// An IPv4 address, or the 64 bits of an IPv6 address that one customer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source(IpAddr);

impl Source {
    fn of(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V6(a) => Source(IpAddr::V6((a.to_bits() >> 64 << 64).into())),
            v4 => Source(v4),
        }
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// For a handshake or a request.
    Waiting,
    /// The body of a request.
    Reading,
    /// The call runs; it is not cut off.
    Working,
    /// The answer.
    Writing,
}

/// A connection as the others see it.
#[derive(Debug)]
struct Slot {
    source: Source,
    phase: AtomicU8,
    /// When the phase began, in microseconds of the gate's clock.
    since: AtomicU64,
    /// Bytes that it keeps; changed under the gate's lock.
    held: AtomicUsize,
    cut: AtomicBool,
    notify: Notify,
}

impl Slot {
    fn may_be_cut(&self) -> bool {
        self.phase.load(Ordering::Relaxed) != Phase::Working as u8 && !self.cut.load(Ordering::Relaxed)
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        self.notify.notify_one();
    }

    /// Those that have waited longest come first, before those that read or write.
    fn rank(&self) -> (bool, u64) {
        let waiting = self.phase.load(Ordering::Relaxed) == Phase::Waiting as u8;
        (!waiting, self.since.load(Ordering::Relaxed))
    }

    fn charge(&self) -> usize {
        charge(self.held.load(Ordering::Relaxed))
    }
}

fn charge(held: usize) -> usize {
    held.saturating_sub(Limits::FREE)
}

#[derive(Debug, Default)]
struct Inner {
    sources: HashMap<Source, Vec<Arc<Slot>>>,
    open: usize,
    buffered: usize,
    /// Fewer connections than the bound, until then: the process has run out of descriptors.
    ceiling: Option<(usize, Instant)>,
}

impl Inner {
    /// Connections that may be open now.
    fn most(&mut self, limit: usize) -> usize {
        if self.ceiling.is_some_and(|(_, until)| until < Instant::now()) {
            self.ceiling = None;
        }
        self.ceiling.map_or(limit, |(most, _)| most.min(limit))
    }

    fn of(&self, source: Source) -> &[Arc<Slot>] {
        self.sources.get(&source).map_or(&[], Vec::as_slice)
    }

    /// Who makes room for one more connection of a source that has `mine`: the oldest idle one of the source with most.
    fn widest(&self, source: Source, mine: usize) -> Option<&Arc<Slot>> {
        let sizes: BTreeSet<usize> = self.sources.values().map(Vec::len).collect();
        let of_size = |n: usize| {
            let slots =
                self.sources.iter().filter(move |(s, all)| all.len() == n && (n > mine || **s == source));
            slots.flat_map(|(_, all)| all).filter(|s| s.may_be_cut()).min_by_key(|s| s.rank())
        };
        // As a rule the first has one; else the connections of the largest sources all run calls.
        sizes.into_iter().rev().find_map(of_size)
    }

    /// Who gives back bytes, so that a connection of `source` may keep `wanted`: the largest of the source that keeps most.
    fn heaviest(&self, me: &Slot, wanted: usize) -> Option<&Arc<Slot>> {
        let sum = |slots: &[Arc<Slot>]| slots.iter().map(|s| s.charge()).sum::<usize>();
        let mine = sum(self.of(me.source)) - me.charge() + wanted;
        let fair = |(source, slots): (&Source, &'_ Vec<Arc<Slot>>)| {
            let total = sum(slots);
            (*source == me.source || total > mine).then_some((total, *source))
        };
        let mut sources: Vec<(usize, Source)> = self.sources.iter().filter_map(fair).collect();
        sources.sort_unstable_by_key(|(total, _)| std::cmp::Reverse(*total));
        sources.into_iter().find_map(|(_, source)| {
            let least = if source == me.source { wanted } else { 0 };
            let others = self.of(source).iter().filter(|s| !std::ptr::eq(&***s, me) && s.may_be_cut());
            others.filter(|s| s.charge() > least).max_by_key(|s| s.charge())
        })
    }
}

/// The bounds of a server, and who is within them.
#[derive(Debug)]
pub struct Gate {
    pub(crate) limits: Limits,
    inner: Mutex<Inner>,
    /// Somebody has left, or keeps less.
    freed: Notify,
    ended: [AtomicU64; Reason::ALL.len()],
    accepted: AtomicU64,
    began: Instant,
}

impl Gate {
    /// A gate through which nobody has come yet.
    pub fn new(limits: Limits) -> Arc<Gate> {
        Arc::new(Gate {
            limits,
            inner: Mutex::default(),
            freed: Notify::new(),
            ended: Default::default(),
            accepted: AtomicU64::new(0),
            began: Instant::now(),
        })
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.lock().open
    }

    /// Counted bytes that are kept.
    pub fn buffered(&self) -> usize {
        self.lock().buffered
    }

    /// Connections that were let in since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections and calls that were refused or ended by the server since the start.
    pub fn ended(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(&self.ended).map(|(reason, n)| (reason, n.load(Ordering::Relaxed)))
    }

    pub(crate) fn count(&self, reason: Reason) {
        if let Some((_, n)) = Reason::ALL.iter().zip(&self.ended).find(|(r, _)| **r == reason) {
            n.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Lets a connection in, if need be in the place of another one.
    pub(crate) async fn admit(self: &Arc<Gate>, peer: SocketAddr) -> Result<Conn, Reason> {
        let source = Source::of(peer.ip());
        let until = Instant::now() + RELEASE;
        let mut made_room = false;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            let reason = {
                let mut inner = self.lock();
                let mine = inner.of(source).len();
                let reason = if mine >= self.limits.per_source {
                    Reason::Source
                } else if inner.open >= inner.most(self.limits.connections) {
                    Reason::Connections
                } else {
                    return Ok(self.enter(&mut inner, source, peer));
                };
                if !made_room {
                    let oldest = match reason {
                        Reason::Source => {
                            inner.of(source).iter().filter(|s| s.may_be_cut()).min_by_key(|s| s.rank())
                        }
                        _ => inner.widest(source, mine),
                    };
                    self.count(reason);
                    let Some(slot) = oldest else { return Err(reason) };
                    slot.cut();
                    made_room = true;
                }
                reason
            };
            if timeout_at(until, freed).await.is_err() {
                return Err(reason);
            }
        }
    }

    fn enter(self: &Arc<Gate>, inner: &mut Inner, source: Source, peer: SocketAddr) -> Conn {
        let slot = Arc::new(Slot {
            source,
            phase: AtomicU8::new(Phase::Waiting as u8),
            since: AtomicU64::new(self.now()),
            held: AtomicUsize::new(0),
            cut: AtomicBool::new(false),
            notify: Notify::new(),
        });
        inner.sources.entry(source).or_default().push(slot.clone());
        inner.open += 1;
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Conn { place: Arc::new(Place { gate: self.clone(), slot, answer: Mutex::default() }), peer }
    }

    /// The process has no descriptor left. Those who wait longest have to go, so that files can be opened too, and for a
    /// while there are no more connections than then.
    pub(crate) fn out_of_descriptors(&self) {
        self.count(Reason::Descriptors);
        let mut inner = self.lock();
        let most = (inner.open - inner.open / 4).max(1);
        if inner.ceiling.is_none_or(|(old, _)| most < old) {
            inner.ceiling = Some((most, Instant::now() + SHORTAGE));
        }
        for _ in most..inner.open {
            let Some(largest) = inner.sources.iter().max_by_key(|(_, all)| all.len()) else { return };
            match inner.widest(*largest.0, 0) {
                Some(slot) => slot.cut(),
                None => return,
            }
        }
    }
}

/// A connection's place; it is free again when nobody has the connection any more.
#[derive(Debug)]
struct Place {
    gate: Arc<Gate>,
    slot: Arc<Slot>,
    /// The answer, until it is written.
    answer: Mutex<Option<Hold>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.gate.lock();
        if let Some(all) = inner.sources.get_mut(&self.slot.source) {
            all.retain(|s| !Arc::ptr_eq(s, &self.slot));
            if all.is_empty() {
                inner.sources.remove(&self.slot.source);
            }
        }
        inner.open -= 1;
        drop(inner);
        self.gate.freed.notify_waiters();
    }
}

/// A connection, for whoever answers its calls.
#[derive(Debug, Clone)]
pub struct Conn {
    place: Arc<Place>,
    /// The other end.
    pub peer: SocketAddr,
}

impl Conn {
    pub(crate) fn gate(&self) -> &Gate {
        &self.place.gate
    }

    pub(crate) fn phase(&self) -> u8 {
        self.place.slot.phase.load(Ordering::Relaxed)
    }

    pub(crate) fn begin(&self, phase: Phase) {
        self.place.slot.phase.store(phase as u8, Ordering::Relaxed);
        self.place.slot.since.store(self.gate().now(), Ordering::Relaxed);
    }

    /// Somebody else needs the place.
    pub(crate) async fn cut(&self) {
        self.place.slot.notify.notified().await;
    }

    /// Counts bytes that the connection keeps from now on.
    pub(crate) async fn hold(&self, bytes: usize) -> Result<Hold, Reason> {
        let mut hold = Hold { gate: self.place.gate.clone(), slot: self.place.slot.clone(), bytes: 0 };
        hold.grow(bytes).await?;
        Ok(hold)
    }

    /// The answer is handed over: its bytes count until they are written.
    pub(crate) fn answering(&self, hold: Hold) {
        *self.place.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(hold);
        self.begin(Phase::Writing);
    }

    /// The answer is written.
    pub(crate) fn answered(&self) {
        if self.phase() == Phase::Writing as u8 {
            *self.place.answer.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.begin(Phase::Waiting);
        }
    }
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    gate: Arc<Gate>,
    slot: Arc<Slot>,
    bytes: usize,
}

impl Hold {
    /// Counts more bytes, if need be instead of those of another connection.
    pub(crate) async fn grow(&mut self, more: usize) -> Result<(), Reason> {
        let until = Instant::now() + RELEASE;
        loop {
            let mut freed = std::pin::pin!(self.gate.freed.notified());
            freed.as_mut().enable();
            {
                let mut inner = self.gate.lock();
                let held = self.slot.held.load(Ordering::Relaxed) + more;
                let buffered = inner.buffered - self.slot.charge() + charge(held);
                if buffered <= self.gate.limits.buffered || charge(held) == 0 {
                    inner.buffered = buffered;
                    self.slot.held.store(held, Ordering::Relaxed);
                    self.bytes += more;
                    return Ok(());
                }
                let heaviest = inner.heaviest(&self.slot, charge(held));
                self.gate.count(Reason::Buffers);
                match heaviest {
                    Some(slot) => slot.cut(),
                    None => return Err(Reason::Buffers),
                }
            }
            if timeout_at(until, freed).await.is_err() {
                return Err(Reason::Buffers);
            }
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut inner = self.gate.lock();
        let before = self.slot.charge();
        let held = self.slot.held.load(Ordering::Relaxed).saturating_sub(self.bytes);
        self.slot.held.store(held, Ordering::Relaxed);
        inner.buffered -= before - charge(held);
        drop(inner);
        if before > 0 {
            self.gate.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 1000))
    }

    fn gate(connections: usize, per_source: usize, buffered: usize) -> Arc<Gate> {
        Gate::new(Limits { connections, per_source, buffered, ..Limits::default() })
    }

    /// A connection as the server drives it: gone once it is cut off.
    async fn opened(gate: &Arc<Gate>, host: u8) -> Result<Conn, Reason> {
        let conn = gate.admit(peer(host)).await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok(conn)
    }

    fn driven(conn: Conn) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move { conn.cut().await })
    }

    fn count(gate: &Gate, reason: Reason) -> u64 {
        gate.ended().find(|(r, _)| *r == reason).map_or(0, |(_, n)| n)
    }

    #[test]
    fn sources() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[tokio::test]
    async fn a_source_displaces_its_own_and_the_largest_makes_room_for_others() {
        let gate = gate(4, 3, 0);
        let mut of_one = Vec::new();
        for _ in 0..3 {
            of_one.push(driven(opened(&gate, 1).await.unwrap()));
        }
        let other = driven(opened(&gate, 2).await.unwrap());
        // The bound of the source: its oldest goes.
        of_one.push(driven(opened(&gate, 1).await.unwrap()));
        assert!(of_one[0].is_finished() && !of_one[1].is_finished() && !other.is_finished());
        assert_eq!((gate.open(), count(&gate, Reason::Source)), (4, 1));
        // The bound of all: the source with most gives one.
        let third = driven(opened(&gate, 3).await.unwrap());
        assert!(of_one[1].is_finished() && !of_one[2].is_finished() && !other.is_finished());
        let more = driven(opened(&gate, 3).await.unwrap());
        assert_eq!((gate.open(), count(&gate, Reason::Connections)), (4, 2));
        assert!(!other.is_finished(), "who has one keeps it");
        for task in [other, third, more].into_iter().chain(of_one) {
            task.abort();
        }
    }

    #[tokio::test]
    async fn calls_that_run_are_not_cut_off() {
        let gate = gate(2, 2, 0);
        let conns = [opened(&gate, 1).await.unwrap(), opened(&gate, 1).await.unwrap()];
        conns.iter().for_each(|c| c.begin(Phase::Working));
        assert_eq!(gate.admit(peer(1)).await.unwrap_err(), Reason::Source);
        assert_eq!(gate.admit(peer(2)).await.unwrap_err(), Reason::Connections);
        drop(conns);
        assert_eq!(gate.open(), 0);
        assert!(gate.admit(peer(2)).await.is_ok());
    }

    #[tokio::test]
    async fn descriptors_are_left_to_others_when_they_run_out() {
        let gate = gate(100, 100, 0);
        let mut tasks = Vec::new();
        for _ in 0..8 {
            tasks.push(driven(opened(&gate, 1).await.unwrap()));
        }
        gate.out_of_descriptors();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!((gate.open(), count(&gate, Reason::Descriptors)), (6, 1));
        tasks.push(driven(opened(&gate, 2).await.unwrap()));
        assert_eq!(gate.open(), 6, "no more than then");
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn bytes_are_counted_and_given_back() {
        let gate = gate(10, 10, 100);
        let conn = opened(&gate, 1).await.unwrap();
        let small = conn.hold(Limits::FREE).await.unwrap();
        assert_eq!(gate.buffered(), 0, "the number of connections bounds these");
        let mut more = conn.hold(60).await.unwrap();
        more.grow(40).await.unwrap();
        assert_eq!(gate.buffered(), 100);
        assert_eq!(more.grow(1).await.unwrap_err(), Reason::Buffers);
        drop(small);
        assert_eq!(gate.buffered(), 0);
        drop(more);
        let hold = conn.hold(Limits::FREE + 50).await.unwrap();
        conn.answering(hold);
        assert_eq!(gate.buffered(), 50);
        conn.answered();
        assert_eq!((gate.buffered(), conn.phase()), (0, Phase::Waiting as u8));
    }

    #[tokio::test]
    async fn the_source_that_keeps_most_gives_back() {
        let gate = gate(10, 10, 100);
        let mut tasks = Vec::new();
        for _ in 0..2 {
            let conn = opened(&gate, 1).await.unwrap();
            let hold = conn.hold(Limits::FREE + 50).await.unwrap();
            tasks.push(tokio::spawn(async move {
                conn.cut().await;
                drop((hold, conn));
            }));
        }
        let conn = opened(&gate, 2).await.unwrap();
        let hold = conn.hold(Limits::FREE + 30).await.unwrap();
        assert_eq!(gate.buffered(), 80);
        // More than the other keeps: no fair exchange.
        assert_eq!(conn.hold(60).await.unwrap_err(), Reason::Buffers);
        assert_eq!(tasks.iter().filter(|t| t.is_finished()).count(), 1);
        drop((hold, conn));
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
