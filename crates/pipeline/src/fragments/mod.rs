//! Virtual reassembly: which flow the fragments of a datagram belong to, in whatever order they come
//! (RFC 4787 REQ-14), and whether they fit together (RFC 5722). Nothing is put together: fragments
//! are forwarded one by one, with the ports of their first.
//!
//! What is ahead of its first fragment waits for it, copied; see [`Fragments::keep`]. All memory is
//! taken at the start, about 3.2 MB per worker (see [`BYTES`]): 2 KiB per datagram for the map of what
//! was seen (module `cover`) and 4 KiB per frame that waits.

mod cover;
mod first_fragments;
mod span;
#[cfg(test)]
mod tests;

pub use crate::flow_ports::FlowPorts;
use crate::pending::{self, Arrival, PendingPacket, PendingQueue};
use cover::{Cover, Fit, WORDS, Word};
use sag_model::ids::VrfZone;
use sag_model::{DropReason, Nanos};
use sag_packet::{Family, Fragment, Parsed};
use std::net::IpAddr;
use std::time::Duration;

pub use first_fragments::FirstFragmentCache;
pub use span::Span;

/// Datagrams in fragments at one time. The one that was quiet for longest makes room.
pub const ENTRIES: usize = 1024;
const WAYS: usize = 4;
/// Time for all fragments of a datagram. Hosts wait up to 60 s (RFC 1122 3.3.2, RFC 8200 4.5).
pub const LIFETIME: Duration = Duration::from_secs(30);
/// Time for the first fragment, once another is there.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// A fragment that does not fit a datagram which has been quiet for this long belongs to another one:
/// a busy IPv4 sender uses its 65536 numbers up in a few seconds (RFC 4963).
pub const QUIET: Duration = TIMEOUT;
/// Memory of one worker.
pub const BYTES: usize = ENTRIES * (size_of::<Entry>() + size_of::<[Word; WORDS]>()) + pending::BYTES;

/// What identifies a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramKey {
    /// Source address; one of IPv4 as its number.
    pub src: u128,
    /// Destination address, likewise.
    pub dst: u128,
    /// The identification that the sender chose.
    pub id: u32,
    /// Of IPv4. Zero with IPv6, whose later fragments may name a header that the first one got past.
    pub proto: u8,
    /// The zone and VRF from which it arrived.
    pub zone: u8,
}

impl DatagramKey {
    /// The datagram of a fragment that arrived `from` there.
    pub fn of(p: &Parsed, frame: &[u8], from: VrfZone) -> DatagramKey {
        let wide = |a: IpAddr| match a {
            IpAddr::V4(a) => u128::from(a.to_bits()),
            IpAddr::V6(a) => a.to_bits(),
        };
        let id = match p.fragment {
            Fragment::First { id } | Fragment::Later { id, .. } => id,
            Fragment::Whole => 0,
        };
        let proto = if p.family == Family::V4 { p.proto } else { 0 };
        DatagramKey { src: wide(p.src(frame)), dst: wide(p.dst(frame)), id, proto, zone: from.byte() }
    }
}

/// A datagram that is being followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryNo(u16);

/// What is to be done with a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// A first one. It goes its way, what waits for it follows, then [`Fragments::finish`].
    First(EntryNo),
    /// A later one of a flow with these ports.
    Later(FlowPorts),
    /// Ahead of its first one: [`Fragments::keep`] it.
    Early(EntryNo),
    /// It is dropped for this reason.
    Refused(DropReason),
    /// It contradicts what was seen: it and all that waits are dropped.
    Poisoned(EntryNo),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    /// Only later fragments were seen; they wait.
    Headless,
    Following,
    /// Its fragments contradict each other: all that come are dropped.
    Poisoned,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: DatagramKey,
    ports: FlowPorts,
    state: State,
    since: Nanos,
    /// When the last fragment came.
    seen: Nanos,
    cover: Cover,
}

const NO_KEY: DatagramKey = DatagramKey { src: 0, dst: 0, id: 0, proto: 0, zone: 0 };
const NO_ENTRY: Entry = Entry {
    key: NO_KEY,
    ports: FlowPorts { proto: 0, sport: 0, dport: 0, message: 0, new_id: 0 },
    state: State::Free,
    since: Nanos::ZERO,
    seen: Nanos::ZERO,
    cover: Cover::NONE,
};

/// The datagrams of which a worker has seen fragments, and the fragments that wait for their first one.
#[derive(Debug)]
pub struct Fragments {
    /// Sets of [`WAYS`].
    entries: Box<[Entry]>,
    /// [`WORDS`] for each entry.
    maps: Box<[Word]>,
    waiting: PendingQueue<EntryNo>,
}

impl Default for Fragments {
    fn default() -> Self {
        Fragments {
            entries: vec![NO_ENTRY; ENTRIES].into_boxed_slice(),
            maps: vec![[0; 2]; ENTRIES * WORDS].into_boxed_slice(),
            waiting: PendingQueue::default(),
        }
    }
}

impl Fragments {
    /// Where the entry of a datagram may be.
    fn set(&self, key: &DatagramKey) -> std::ops::Range<usize> {
        let h =
            (key.src ^ key.dst.rotate_left(64)) as u64 ^ (key.src >> 64) as u64 ^ (u64::from(key.id) << 17);
        let h = h.wrapping_mul(sag_model::flow::HASH_M1) >> 32;
        let at = h as usize % (ENTRIES / WAYS) * WAYS;
        at..at + WAYS
    }

    fn find(&self, key: &DatagramKey, now: Nanos) -> Option<EntryNo> {
        let live = |e: &Entry| e.state != State::Free && e.key == *key && now - e.since < LIFETIME;
        self.set(key).find(|&i| live(&self.entries[i])).map(|i| EntryNo(i as u16))
    }

    /// An entry for a new datagram. None: everything that could make room has fragments waiting.
    fn open(&mut self, key: &DatagramKey, now: Nanos) -> Option<EntryNo> {
        let age = |i: &usize| match self.entries[*i].state {
            State::Free => None,
            _ => Some(self.entries[*i].seen),
        };
        // Free ones come first.
        let i = self.set(key).filter(|&i| self.entries[i].state != State::Headless).min_by_key(age)?;
        let no = EntryNo(i as u16);
        self.start(no, key, now);
        Some(no)
    }

    fn start(&mut self, no: EntryNo, key: &DatagramKey, now: Nanos) {
        debug_assert!(!self.waits_for(no));
        let i = usize::from(no.0);
        self.entries[i].cover.clear(map(&mut self.maps, i));
        self.entries[i] = Entry { key: *key, since: now, seen: now, state: State::Headless, ..NO_ENTRY };
    }

    fn free(&mut self, no: EntryNo) {
        debug_assert!(!self.waits_for(no));
        self.entries[usize::from(no.0)].state = State::Free;
    }

    /// Notes a fragment; a first one says what the `ports` are. Call [`Fragments::overdue`] before,
    /// so that no datagram waits for longer than [`TIMEOUT`].
    pub fn follow(&mut self, key: &DatagramKey, span: &Span, ports: FlowPorts, now: Nanos) -> Followed {
        let full = Followed::Refused(DropReason::FragmentTableFull);
        let no = match self.find(key, now) {
            Some(no) => no,
            None if !span.is_first() && self.waiting.is_full() => return full,
            None => match self.open(key, now) {
                Some(no) => no,
                None => return full,
            },
        };
        let i = usize::from(no.0);
        let mut fit = match self.entries[i].state {
            State::Poisoned => Fit::Contradiction,
            _ => self.entries[i].cover.fit(map(&mut self.maps, i), span),
        };
        if fit != Fit::New && now - self.entries[i].seen > QUIET {
            self.start(no, key, now);
            fit = Fit::New;
        }
        let e = &mut self.entries[i];
        e.seen = now;
        match fit {
            Fit::Duplicate => Followed::Refused(DropReason::FragmentOverlap),
            Fit::Contradiction => {
                e.state = State::Poisoned;
                Followed::Poisoned(no)
            }
            Fit::New if span.is_first() => {
                (e.state, e.ports) = (State::Following, ports);
                e.cover.add(map(&mut self.maps, i), span);
                Followed::First(no)
            }
            Fit::New if e.state == State::Following => {
                let ports = e.ports;
                e.cover.add(map(&mut self.maps, i), span);
                self.finish(no);
                Followed::Later(ports)
            }
            Fit::New => Followed::Early(no),
        }
    }

    /// Keeps a copy of a fragment until its first one comes; false if there is no room for it.
    pub fn keep(&mut self, no: EntryNo, span: &Span, arrival: Arrival, frame: &[u8]) -> bool {
        let stored = self.waiting.push(no, arrival, frame);
        if stored {
            let i = usize::from(no.0);
            self.entries[i].cover.add(map(&mut self.maps, i), span);
        } else if !self.waits_for(no) {
            self.free(no);
        }
        stored
    }

    /// The first fragment has come to another worker: those that wait may be taken, others follow.
    pub fn begin(&mut self, no: EntryNo, ports: FlowPorts) {
        let e = &mut self.entries[usize::from(no.0)];
        (e.state, e.ports) = (State::Following, ports);
    }

    /// Notes a fragment that is not stored, of a datagram that has begun.
    pub fn passed(&mut self, no: EntryNo, span: &Span) {
        let i = usize::from(no.0);
        self.entries[i].cover.add(map(&mut self.maps, i), span);
    }

    /// A datagram that waits for its first fragment, of which `begun` knows.
    pub fn begun<T>(&self, mut begun: impl FnMut(&DatagramKey) -> Option<T>) -> Option<(EntryNo, T)> {
        self.waiting.iter().find_map(|h| {
            let e = &self.entries[usize::from(h.key.0)];
            Some((h.key, begun(&e.key)?))
        })
    }

    /// The datagram is forgotten if nothing of it is missing: its number may be used again.
    pub fn finish(&mut self, no: EntryNo) {
        if self.entries[usize::from(no.0)].cover.complete() {
            self.free(no);
        }
    }

    /// Whether fragments wait for the first one of this datagram.
    pub fn waits_for(&self, no: EntryNo) -> bool {
        self.waiting.waits_for(no)
    }

    /// Takes what waits for the first fragment of this datagram, in order of arrival. The frame is
    /// copied to `to`, at [`pending::HEADROOM`].
    pub fn take(&mut self, no: EntryNo, to: &mut [u8]) -> Option<PendingPacket<EntryNo>> {
        self.waiting.take(to, |h| h.key == no)
    }

    /// A datagram whose first fragment did not come in time. What waits is to be taken, then
    /// [`Fragments::give_up`].
    pub fn overdue(&self, now: Nanos) -> Option<EntryNo> {
        self.waiting.oldest().filter(|h| now - h.arrival.since > TIMEOUT).map(|h| h.key)
    }

    /// Forgets a datagram and gives its entry back.
    pub fn give_up(&mut self, no: EntryNo) {
        self.free(no);
    }
}

/// The map of entry `i`.
fn map(maps: &mut [Word], i: usize) -> &mut [Word] {
    &mut maps[i * WORDS..(i + 1) * WORDS]
}
