//! The flow table: records and their index, shared by all workers and (in the daemon) by the XDP
//! program. Lock-free: sessions are published, found and taken back by single atomic words.
//!
//! Sessions come dense from the front of the slab (last freed, first reused), so cache and TLB cost
//! follows the live sessions and not the capacity. A removed session rests in the [`DeferredFree`] of
//! the worker that removed it until every reader that may have seen it has gone on ([`Grace`]).

mod changes;
pub(crate) use changes::is_within_wait;
mod fill;
mod hosts;
mod index;
mod recycle;
mod resize;
mod restore;
mod state;

pub use hosts::{HostCounts, HostUse, UNQUESTIONED, over_share};
pub use recycle::{DeferredFree, Grace};
pub use resize::Resizer;
pub use restore::Restored;
pub use state::{ANSWERED, State, Worth};

use crate::syn_cookie::Proxied;
pub(crate) use index::{Clash, Index};
use sag_model::flow::{BUCKET_WORDS, Bucket, FlowRecord, Geometry, RecordNo};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Memory of one family's table. In the daemon this is mapped BPF array memory; it lives as long as
/// the process.
#[derive(Debug)]
pub struct TableMemory<R: 'static> {
    /// Flow records: two for each session.
    pub records: &'static [R],
    /// Sessions that it may hold; there are at least [`RecordNo::needed`] records for them.
    pub sessions: u32,
    /// The index.
    pub buckets: &'static [Bucket],
    /// By session number, what its sequence numbers are translated by ([`Proxied`]).
    pub sequences: &'static [AtomicU64],
}

// By hand: a derive would ask for records that can be copied.
impl<R> Clone for TableMemory<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for TableMemory<R> {}

impl<R: FlowRecord> TableMemory<R> {
    /// Memory of its own, for shells without XDP. Never given back: one table per process.
    pub fn private(sessions: u32) -> Self {
        let buckets = index_buckets(sessions) as usize;
        TableMemory {
            sessions,
            records: Vec::leak((0..RecordNo::needed(sessions)).map(|_| R::default()).collect()),
            buckets: Vec::leak((0..buckets).map(|_| Bucket::default()).collect()),
            sequences: Vec::leak((0..=sessions).map(|_| AtomicU64::default()).collect()),
        }
    }

    /// One index that takes all of the memory for indexes, which must be a power of two.
    pub fn whole(&self) -> Geometry {
        Geometry { base: 0, mask: (self.buckets.len() as u32).saturating_sub(1) }
    }
}

/// Buckets of an index for so many sessions: two words a session, half of the words free.
pub const fn index_buckets(sessions: u32) -> u32 {
    let n = (sessions as u64 * 4).div_ceil(BUCKET_WORDS as u64);
    let n = n.next_power_of_two();
    if n > 1 << 30 { 1 << 30 } else { n as u32 }
}

/// What only the daemon knows of a session.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct SessionMeta {
    /// 0 = free; see [`crate::session`].
    pub state: AtomicU32,
    /// [`CONFIRMED`] once both directions are in the index to stay; of a session that is none, the next one in the free
    /// or deferred list.
    link: AtomicU32,
    /// Tick of creation.
    pub created: AtomicU32,
    /// Rule slot + 1 that admitted it, 0 = none.
    pub rule: AtomicU32,
    /// The same of the rule that admitted the answers; [`SAME_RULE`] if they passed as answers.
    pub reply_rule: AtomicU32,
    /// Ingress port | egress port << 8 | flags ([`crate::session::NAT_HOST`] and the like).
    pub ports: AtomicU32,
    /// The upper halves of both sides' first TCP sequence numbers, the initiator's in the low half.
    pub isn: AtomicU32,
    /// A sequence number of another TCP connection of the same addresses and ports ([`crate::session::Numbers`]).
    pub other: AtomicU32,
    /// NAT bindings that the session holds, for its source and its destination; 0 = none.
    pub bindings: [AtomicU32; 2],
    /// What of the two records' counters is already added to the rules'.
    pub counted_packets: [AtomicU32; 2],
    /// The same of bytes.
    pub counted_bytes: [AtomicU64; 2],
}

/// [`SessionMeta::reply_rule`] of a session whose answers passed with it.
pub const SAME_RULE: u32 = u32::MAX;

/// [`SessionMeta::link`] of a session that others may use. No session has this number.
const CONFIRMED: u32 = u32::MAX;

const _: () = assert!(size_of::<SessionMeta>() == 64);

impl SessionMeta {
    pub(crate) fn is_confirmed(&self) -> bool {
        self.link.load(Ordering::SeqCst) == CONFIRMED
    }
}

/// Why a session was not created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCreated {
    /// No session or index word is free.
    Full,
    /// Another worker was first: this record carries the key.
    Exists(RecordNo),
    /// Another worker is at it and has not finished (it lost its processor): the packet can go
    /// without a session, the next one will find it.
    Contended,
}

/// Brings the cache line in; other work goes on meanwhile.
#[inline(always)]
pub(crate) fn prefetch<T>(at: &T) {
    #[cfg(target_arch = "x86_64")]
    safe_arch::prefetch_t0(at);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Sessions of one family: records and index, which XDP shares, and what only the daemon knows of them.
#[derive(Debug)]
pub struct FlowTable<R: FlowRecord> {
    mem: TableMemory<R>,
    meta: Box<[SessionMeta]>,
    seed: u64,
    /// Whether there was ever a session with translated sequence numbers: without, none is looked for.
    any_proxied: AtomicBool,
    /// [`Geometry`] of the index in which is looked.
    live: AtomicU64,
    /// The indexes into which every session is written: one, or two while the other one takes over
    /// ([`Resizer`]). 0 = none.
    written: [AtomicU64; 2],
    /// First session number that was never used.
    fresh: AtomicU32,
    /// Free list: ABA count << 32 | session.
    free: AtomicU64,
    sessions: AtomicU32,
    /// Those of them that only drop ([`State::Denied`]).
    denied: AtomicU32,
    /// Removed sessions that cannot be used again yet.
    resting: AtomicU32,
    /// Sessions from which on a worker wakes the thread that makes a larger index; `u32::MAX`: it knows.
    alarm: AtomicU32,
    /// Sessions from which on an operator is warned; `u32::MAX`: that has been done.
    warn_at: AtomicU32,
    /// Sessions of each host.
    pub(crate) hosts: HostCounts,
    /// The same of each network, in a family that has any.
    pub(crate) networks: HostCounts,
    grace: Arc<Grace>,
    changes: changes::Changes,
}

impl<R: FlowRecord> FlowTable<R> {
    /// A table over `mem` with this index.
    pub fn new(mem: TableMemory<R>, seed: u64, index: Geometry, grace: Arc<Grace>) -> Self {
        let end = u64::from(index.base) + u64::from(index.mask);
        assert!(end < mem.buckets.len() as u64, "index lies inside its memory");
        assert!(mem.records.len() as u32 >= RecordNo::needed(mem.sessions), "a record for every session");
        let table = FlowTable {
            mem,
            meta: (0..=mem.sessions).map(|_| SessionMeta::default()).collect(),
            seed,
            any_proxied: AtomicBool::new(mem.sequences.iter().any(|w| w.load(Ordering::Relaxed) != 0)),
            live: AtomicU64::new(index.to_word()),
            written: [AtomicU64::new(index.to_word()), AtomicU64::new(0)],
            fresh: AtomicU32::new(1),
            free: AtomicU64::new(0),
            sessions: AtomicU32::new(0),
            denied: AtomicU32::new(0),
            resting: AtomicU32::new(0),
            alarm: AtomicU32::new(u32::MAX),
            warn_at: AtomicU32::new(u32::MAX),
            hosts: HostCounts::new(mem.sessions, seed),
            networks: HostCounts::new(mem.sessions, seed.rotate_left(32)),
            grace,
            changes: changes::Changes::default(),
        };
        table.rearm_warning();
        table.alarm.store(table.crowd(), Ordering::Relaxed);
        table
    }

    /// A table of its own memory for one process without XDP.
    pub fn private(sessions: u32, grace: Arc<Grace>) -> Self {
        let mem = TableMemory::private(sessions);
        FlowTable::new(mem, 0x5EED, mem.whole(), grace)
    }

    /// The index in which is looked.
    #[inline]
    pub fn geometry(&self) -> Geometry {
        Geometry::from_word(self.live.load(Ordering::Acquire))
    }

    #[inline]
    fn index(&self) -> Index {
        Index::new(self.mem.buckets, self.geometry())
    }

    /// All indexes into which sessions are written, the second one first: it goes only after the first
    /// one has taken its place.
    #[inline]
    fn written(&self) -> impl Iterator<Item = Geometry> + '_ {
        let words = self.written.iter().rev().map(|w| w.load(Ordering::Acquire));
        words.filter(|w| *w != 0).map(Geometry::from_word)
    }

    /// The record of a number.
    #[inline]
    pub fn record(&self, no: RecordNo) -> &R {
        &self.mem.records[no.index() % self.mem.records.len()]
    }

    /// What the daemon knows of a session.
    #[inline]
    pub fn meta(&self, session: u32) -> &SessionMeta {
        &self.meta[session as usize % self.meta.len()]
    }

    /// What is remembered of a session that was opened for a client with a SYN cookie; `None`: its numbers are its own.
    #[inline]
    pub fn proxied(&self, session: u32) -> Option<Proxied> {
        if !self.any_proxied.load(Ordering::Acquire) {
            return None;
        }
        Proxied::from_word(self.sequence(session)?.load(Ordering::Acquire))
    }

    /// Remembers this of a session.
    pub fn set_proxied(&self, session: u32, to: Option<Proxied>) {
        if to.is_some() {
            self.any_proxied.store(true, Ordering::Release);
        }
        if let Some(word) = self.sequence(session) {
            word.store(to.map_or(0, Proxied::to_word), Ordering::Release);
            self.mark_changed(session);
        }
    }

    #[inline]
    fn sequence(&self, session: u32) -> Option<&AtomicU64> {
        self.mem.sequences.get(session as usize)
    }

    /// Sessions that fit.
    pub fn capacity(&self) -> u32 {
        self.meta.len() as u32 - 1
    }

    /// Sessions, without the denied flows that are remembered.
    pub fn live(&self) -> u32 {
        self.occupied().saturating_sub(self.denied())
    }

    /// The same with the denied flows that are remembered.
    pub fn occupied(&self) -> u32 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Flows that are only remembered in order to be dropped.
    pub fn denied(&self) -> u32 {
        self.denied.load(Ordering::Relaxed)
    }

    /// Session numbers ever used are `1..used()`.
    pub fn used(&self) -> u32 {
        self.fresh.load(Ordering::Relaxed).min(self.meta.len() as u32)
    }

    /// Bytes of records, index and daemon-side state.
    pub fn memory(&self) -> usize {
        let own =
            size_of_val(&*self.meta) + self.hosts.memory() + self.networks.memory() + self.changes_memory();
        size_of_val(self.mem.records) + size_of_val(self.mem.buckets) + own
    }

    /// What hashes of this table begin with.
    #[inline]
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// The hash of a key, by the table's seed.
    #[inline]
    pub fn hash(&self, key: &R::Key) -> u64 {
        R::hash(key, self.seed)
    }

    /// A look for this hash comes soon: brings the line where it starts into the cache, or the record
    /// if it is known.
    #[inline]
    pub fn prefetch(&self, hash: u64, known: Option<RecordNo>) {
        match known {
            Some(no) => self.prefetch_record(no),
            None => {
                let index = self.index();
                prefetch(index.bucket(index.probe(hash).first));
            }
        }
    }

    #[inline]
    fn prefetch_record(&self, no: RecordNo) {
        let r = self.record(no);
        prefetch(r);
        if size_of::<R>() > 64 {
            prefetch(r.bytes());
        }
    }

    /// A session with this key may be made soon: brings both its index lines into the cache.
    #[inline]
    pub fn prefetch_new(&self, key: &R::Key) {
        let index = self.index();
        let p = index.probe(self.hash(key));
        prefetch(index.bucket(p.first));
        prefetch(index.bucket(p.second));
    }

    /// The record that a look for this hash will likely end at, brought into the cache too. Its key
    /// is still to be compared.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<RecordNo> {
        let index = self.index();
        let no = index.guess(&index.probe(hash))?;
        self.prefetch_record(no);
        Some(no)
    }

    /// The record whose key this is.
    #[inline]
    pub fn find(&self, key: &R::Key, hash: u64) -> Option<RecordNo> {
        let index = self.index();
        index.find(&index.probe(hash), |no| self.record(no).matches(key))
    }

    /// The same where [`FlowTable::guess`] has found nothing, and no session with this hash was made
    /// since by this worker.
    #[inline]
    pub fn find_unlikely(&self, key: &R::Key, hash: u64) -> Option<RecordNo> {
        let index = self.index();
        index.find_second(&index.probe(hash), |no| self.record(no).matches(key))
    }

    /// Creates a session. `fill` completes both records (their keys are set) and must store a state
    /// other than 0 in the session's [`SessionMeta`].
    ///
    /// # Errors
    ///
    /// Why there is no new session; the packet may go on by another one ([`NotCreated::Exists`]) or without.
    pub fn create(
        &self,
        forward: &R::Key,
        reverse: &R::Key,
        deferred: &mut DeferredFree,
        fill: impl Fn(&R, &R, &SessionMeta),
    ) -> Result<RecordNo, NotCreated> {
        // Two workers that see each other both step back; the second try almost always succeeds.
        for _ in 0..8 {
            match self.try_create(forward, reverse, deferred, &fill) {
                Err(Clash::Full) => return Err(NotCreated::Full),
                Err(Clash::Twin(no)) => {
                    if self.wait_confirmed(no) {
                        return Err(NotCreated::Exists(no));
                    }
                }
                Ok(no) => return Ok(no),
            }
        }
        Err(NotCreated::Contended)
    }

    /// Waits for a record in the making: true if it stays, false if its worker took it back.
    fn wait_confirmed(&self, no: RecordNo) -> bool {
        for _ in 0..1000 {
            let meta = self.meta(no.session());
            if meta.is_confirmed() {
                return true;
            }
            if meta.state.load(Ordering::Acquire) == 0 {
                return false;
            }
            std::hint::spin_loop();
        }
        false
    }

    fn try_create(
        &self,
        forward: &R::Key,
        reverse: &R::Key,
        deferred: &mut DeferredFree,
        fill: &impl Fn(&R, &R, &SessionMeta),
    ) -> Result<RecordNo, Clash> {
        let session = self.allocate(deferred).ok_or(Clash::Full)?;
        let (fwd, rev) = (RecordNo::forward(session), RecordNo::reverse(session));
        self.blank(fwd, forward);
        self.blank(rev, reverse);
        let meta = self.meta(session);
        self.blank_meta(meta);
        // Most were never anything else: nothing is written then.
        if self.proxied(session).is_some() {
            self.set_proxied(session, None);
        }
        fill(self.record(fwd), self.record(rev), meta);
        let published = self.publish(forward, fwd).and_then(|()| {
            self.publish(reverse, rev).map_err(|clash| {
                self.withdraw(forward, fwd);
                match clash {
                    // The record of this packet is the other direction of the one that was found.
                    Clash::Twin(no) => Clash::Twin(no.peer()),
                    full => full,
                }
            })
        });
        if let Err(clash) = published {
            meta.state.store(0, Ordering::Release);
            self.retire(session, deferred);
            return Err(clash);
        }
        meta.link.store(CONFIRMED, Ordering::Release);
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.mark_changed(session);
        Ok(fwd)
    }

    /// A record that drops the packets of one direction, if there is room. `fill` completes it.
    pub fn create_denied(
        &self,
        key: &R::Key,
        deferred: &mut DeferredFree,
        fill: impl Fn(&R, &SessionMeta),
    ) -> Option<RecordNo> {
        // Refused flows do not take the room of others.
        if self.denied() >= self.capacity() / 16 || self.occupied() >= self.capacity() / 8 * 7 {
            return None;
        }
        let session = self.allocate(deferred)?;
        let no = RecordNo::forward(session);
        self.blank(no, key);
        // What answers counted in a session that had this place is none of the new rule's.
        self.blank(no.peer(), &R::default().key());
        let meta = self.meta(session);
        self.blank_meta(meta);
        fill(self.record(no), meta);
        meta.state.store(State::Denied as u32, Ordering::Release);
        if self.publish(key, no).is_err() {
            meta.state.store(0, Ordering::Release);
            self.retire(session, deferred);
            return None;
        }
        meta.link.store(CONFIRMED, Ordering::Release);
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.denied.fetch_add(1, Ordering::Relaxed);
        Some(no)
    }

    fn blank(&self, no: RecordNo, key: &R::Key) {
        let r = self.record(no);
        r.set_key(key);
        r.packets().store(0, Ordering::Relaxed);
        r.bytes().store(0, Ordering::Relaxed);
    }

    fn blank_meta(&self, meta: &SessionMeta) {
        meta.counted_packets.iter().for_each(|c| c.store(0, Ordering::Relaxed));
        meta.counted_bytes.iter().for_each(|c| c.store(0, Ordering::Relaxed));
        meta.bindings.iter().for_each(|b| b.store(0, Ordering::Relaxed));
    }

    fn publish(&self, key: &R::Key, no: RecordNo) -> Result<(), Clash> {
        let hash = self.hash(key);
        // First into what is not looked in yet or no more, then store and look in the other one: of
        // two racing workers at least one sees the other, whichever each of them looks in.
        let live = self.geometry();
        for other in self.written().filter(|g| *g != live) {
            let other = Index::new(self.mem.buckets, other);
            if !other.place(&other.probe(hash), no) {
                return Err(Clash::Full);
            }
        }
        let index = Index::new(self.mem.buckets, live);
        let published = index.publish(&index.probe(hash), no, |other| self.record(other).matches(key));
        if published.is_err() {
            self.withdraw(key, no);
        }
        published
    }

    fn withdraw(&self, key: &R::Key, no: RecordNo) {
        let hash = self.hash(key);
        for index in self.written().map(|g| Index::new(self.mem.buckets, g)) {
            index.withdraw(&index.probe(hash), no);
        }
    }

    /// Takes a session out of the table. False if another worker did.
    pub fn remove(&self, session: u32, deferred: &mut DeferredFree) -> bool {
        let meta = self.meta(session);
        let state = meta.state.load(Ordering::Acquire);
        if session == 0
            || state == 0
            || meta.state.compare_exchange(state, 0, Ordering::SeqCst, Ordering::Relaxed).is_err()
        {
            return false;
        }
        for no in RecordNo::both(session) {
            let key = self.record(no).key();
            self.withdraw(&key, no);
        }
        self.sessions.fetch_sub(1, Ordering::Relaxed);
        if state == State::Denied as u32 {
            self.denied.fetch_sub(1, Ordering::Relaxed);
        }
        self.mark_changed(session);
        self.retire(session, deferred);
        true
    }
}

#[cfg(test)]
mod tests;
