//! A connection as the others see it: what it is doing, and what it keeps.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::Limits;

/// An IPv4 address, or the 64 bits of an IPv6 address that one customer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(IpAddr);

impl Source {
    pub(crate) fn of(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V6(a) => Source(IpAddr::V6((a.to_bits() >> 64 << 64).into())),
            v4 => Source(v4),
        }
    }
}

/// What is done for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Its body is read.
    Reading,
    /// It runs; the connection is not cut off.
    Working,
    /// Its answer is written.
    Writing,
}

impl Phase {
    const COUNT: usize = 3;
}

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Protocol {
    /// Too little was sent to know it.
    Unknown,
    Http1,
    Http2,
}

/// Calls of HTTP/2 that a client may take back while they run, beside as many as it let end.
const TAKEN_BACK: u32 = 100;

/// A connection as the others see it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) source: Source,
    /// How many calls there are in each phase.
    calls: [AtomicUsize; Phase::COUNT],
    /// When the last of them changed, in microseconds of the gate's clock.
    since: AtomicU64,
    /// Bytes that it keeps; changed under the gate's lock.
    pub(crate) held: AtomicUsize,
    cut: AtomicBool,
    pub(crate) notify: Notify,
    protocol: AtomicU8,
    /// Calls that were taken back, and those that were answered.
    ended: [AtomicU32; 2],
    /// Answers of HTTP/2 that are being written.
    pub(crate) outgoing: Outgoings,
}

impl Slot {
    pub(crate) fn new(source: Source, now: u64) -> Slot {
        Slot {
            source,
            calls: Default::default(),
            since: AtomicU64::new(now),
            held: AtomicUsize::new(0),
            cut: AtomicBool::new(false),
            notify: Notify::new(),
            protocol: AtomicU8::new(Protocol::Unknown as u8),
            ended: Default::default(),
            outgoing: Outgoings::default(),
        }
    }

    /// Calls in any phase.
    pub(crate) fn calls(&self) -> usize {
        self.calls.iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn begin(&self, phase: Phase, now: u64) {
        if let Some(n) = self.calls.get(phase as usize) {
            n.fetch_add(1, Ordering::Relaxed);
        }
        self.changed(now);
    }

    /// A call ends in this phase: answered, if its answer was handed over.
    pub(crate) fn end(&self, phase: u8, now: u64) {
        if let Some(n) = self.calls.get(usize::from(phase)) {
            n.fetch_sub(1, Ordering::Relaxed);
        }
        let answered = phase == Phase::Writing as u8;
        if let Some(n) = self.ended.get(usize::from(answered)) {
            n.fetch_add(1, Ordering::Relaxed);
        }
        self.changed(now);
    }

    pub(crate) fn change(&self, before: u8, after: u8, now: u64) {
        if let Some(n) = self.calls.get(usize::from(after)) {
            n.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(n) = self.calls.get(usize::from(before)) {
            n.fetch_sub(1, Ordering::Relaxed);
        }
        self.since.store(now, Ordering::Relaxed);
    }

    fn changed(&self, now: u64) {
        self.since.store(now, Ordering::Relaxed);
        if !self.is(Protocol::Http1) {
            self.outgoing.changed.notify_one();
        }
    }

    pub(crate) fn is(&self, protocol: Protocol) -> bool {
        self.protocol.load(Ordering::Relaxed) == protocol as u8
    }

    pub(crate) fn speaks(&self, protocol: Protocol) {
        self.protocol.store(protocol as u8, Ordering::Relaxed);
        self.outgoing.changed.notify_one();
    }

    pub(crate) fn may_be_cut(&self) -> bool {
        let [_, working, _] = &self.calls;
        working.load(Ordering::Relaxed) == 0 && !self.cut.load(Ordering::Relaxed)
    }

    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        self.notify.notify_one();
    }

    /// Those that have waited longest come first, before those that read or write.
    pub(crate) fn rank(&self) -> (bool, u64) {
        (self.calls() > 0, self.since.load(Ordering::Relaxed))
    }

    /// Since when it has no call, in microseconds of the gate's clock; none: it has one.
    pub(crate) fn idle_since(&self) -> Option<u64> {
        (self.calls() == 0).then(|| self.since.load(Ordering::Relaxed))
    }

    /// Whether its client takes back what it has begun, again and again: that costs the server work, and nobody else.
    pub(crate) fn takes_back(&self) -> bool {
        let [taken_back, answered] = &self.ended;
        let most = answered.load(Ordering::Relaxed).saturating_add(TAKEN_BACK);
        self.is(Protocol::Http2) && taken_back.load(Ordering::Relaxed) > most
    }

    pub(crate) fn charge(&self) -> usize {
        charge(self.held.load(Ordering::Relaxed))
    }
}

/// What counts of the bytes that a connection keeps.
pub(crate) fn charge(held: usize) -> usize {
    held.saturating_sub(Limits::FREE)
}

/// Answers that are being written: each stream of HTTP/2 has a reader's pace of its own.
#[derive(Debug, Default)]
pub(crate) struct Outgoings {
    all: Mutex<(u64, HashMap<u64, Progress>)>,
    /// One more or less, or a call began or ended.
    pub(crate) changed: Notify,
}

#[derive(Debug)]
struct Progress {
    began: Instant,
    /// When a part was last taken.
    last: Instant,
    bytes: u64,
}

/// Until when something must be taken of an answer that began so, and of which so many bytes were taken.
pub(crate) fn write_deadline(began: Instant, last: Instant, taken: u64, patience: Duration) -> Instant {
    let whole = began + 2 * patience + Duration::from_secs(taken / Limits::RATE);
    whole.min(last + patience)
}

impl Outgoings {
    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<u64, Progress>)> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self) -> u64 {
        let now = Instant::now();
        let mut all = self.lock();
        all.0 += 1;
        let number = all.0;
        all.1.insert(number, Progress { began: now, last: now, bytes: 0 });
        drop(all);
        self.changed.notify_one();
        number
    }

    pub(crate) fn taken(&self, number: u64, bytes: usize) {
        if let Some(p) = self.lock().1.get_mut(&number) {
            (p.last, p.bytes) = (Instant::now(), p.bytes.saturating_add(bytes as u64));
        }
    }

    pub(crate) fn end(&self, number: u64) {
        self.lock().1.remove(&number);
        self.changed.notify_one();
    }

    /// When the first of them is overdue.
    pub(crate) fn deadline(&self, patience: Duration) -> Option<Instant> {
        let all = self.lock();
        all.1.values().map(|p| write_deadline(p.began, p.last, p.bytes, patience)).min()
    }
}
