//! Who is connected, and what each keeps.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::Limits;
use crate::slot::{Phase, Slot, Source};

/// How long somebody waits for what another one, who was cut off, gives back.
pub(crate) const RELEASE: Duration = Duration::from_millis(200);

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
    /// The client took back what it had begun, again and again.
    Resets,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 9] = [
        Reason::Connections,
        Reason::Source,
        Reason::Buffers,
        Reason::Descriptors,
        Reason::Handshake,
        Reason::Head,
        Reason::Body,
        Reason::Write,
        Reason::Resets,
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
            Reason::Resets => "resets",
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) sources: HashMap<Source, Vec<Arc<Slot>>>,
    pub(crate) open: usize,
    /// Calls beside the first of each connection.
    more_calls: usize,
    pub(crate) buffered: usize,
    /// Fewer connections than the bound, until then: the process has run out of descriptors.
    ceiling: Option<(usize, Instant)>,
}

impl Inner {
    /// Connections that may be open now.
    pub(crate) fn most(&mut self, limit: usize) -> usize {
        if self.ceiling.is_some_and(|(_, until)| until < Instant::now()) {
            self.ceiling = None;
        }
        self.ceiling.map_or(limit, |(most, _)| most.min(limit))
    }

    pub(crate) fn of(&self, source: Source) -> &[Arc<Slot>] {
        self.sources.get(&source).map_or(&[], Vec::as_slice)
    }

    /// Who makes room for one more connection of a source that has `mine`: the oldest idle one of the source with most.
    pub(crate) fn widest(&self, source: Source, mine: usize) -> Option<&Arc<Slot>> {
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
    pub(crate) fn heaviest(&self, me: &Slot, wanted: usize) -> Option<&Arc<Slot>> {
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
    pub(crate) freed: Notify,
    ended: [AtomicU64; Reason::ALL.len()],
    pub(crate) accepted: AtomicU64,
    pub(crate) began: Instant,
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

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The instant of a time of the gate's clock.
    pub(crate) fn at(&self, micros: u64) -> Instant {
        self.began + Duration::from_micros(micros)
    }

    /// A connection is gone.
    pub(crate) fn leave(&self, slot: &Arc<Slot>) {
        let mut inner = self.lock();
        if let Some(all) = inner.sources.get_mut(&slot.source) {
            all.retain(|s| !Arc::ptr_eq(s, slot));
            if all.is_empty() {
                inner.sources.remove(&slot.source);
            }
        }
        inner.open -= 1;
        drop(inner);
        self.freed.notify_waiters();
    }

    /// A call begins, unless its connection has others and there are too many: beside the first of each connection, calls
    /// count like connections.
    pub(crate) fn begin_call(&self, slot: &Slot) -> bool {
        let mut inner = self.lock();
        if slot.calls() > 0 {
            let mine = inner.of(slot.source);
            let of_source = mine.len() + mine.iter().map(|s| s.calls().saturating_sub(1)).sum::<usize>();
            let reason = if of_source >= self.limits.per_source {
                Reason::Source
            } else if inner.open + inner.more_calls >= self.limits.connections {
                Reason::Connections
            } else {
                inner.more_calls += 1;
                slot.begin(Phase::Working, self.now());
                return true;
            };
            drop(inner);
            self.count(reason);
            return false;
        }
        slot.begin(Phase::Working, self.now());
        true
    }

    /// A call is answered, or its client is gone.
    pub(crate) fn end_call(&self, slot: &Slot, phase: u8) {
        let mut inner = self.lock();
        if slot.calls() > 1 {
            inner.more_calls = inner.more_calls.saturating_sub(1);
        }
        slot.end(phase, self.now());
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
