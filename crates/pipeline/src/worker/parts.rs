//! The parts of a worker's pipeline: what each of them holds, and what it does alone.

use super::fec::Fec;
use super::{BATCH, BatchEntry, NO_ENTRY};
use crate::counters::Counters;
use crate::fragments::Fragments;
use crate::ids::TunnelNo;
use crate::nat::Events;
use crate::originate::{LINK_ROOM, Limiter};
use crate::pending::{self, Arrival, PendingPacket, PendingQueue};
use crate::resolution::{RequestLimits, RequestRates};
use crate::session::{Ending, Sweeper};
use crate::snapshot::{NeighborKey, Snapshot};
use crate::table::DeferredFree;
use crate::tables::Tables;
use crate::tunnel::{Keepalive, Monitor, Reassembler};
use sag_model::{DropReason, Nanos, PortIdx};
use sag_packet::Family;
use std::net::IpAddr;

/// Refused flows that a worker remembers by their hash.
pub(super) const REFUSED: usize = 1024;
/// Next hops that one worker asks for between two collections.
const MAX_REQUESTS: usize = 64;
/// How far apart the workers begin to look for sessions that make room.
const HAND_DISTANCE: u32 = 4096;
/// Sessions swept per millisecond, at the least and at the most.
const SWEEP: std::ops::RangeInclusive<u64> = 32..=128;

/// The batch that is being worked on.
#[derive(Debug)]
pub(super) struct Batch {
    pub entries: Vec<BatchEntry>,
    pub changes: Changes,
    /// Frames with partial checksums have come in.
    pub partial_checksums: bool,
}

impl Batch {
    pub fn new() -> Batch {
        Batch { entries: vec![NO_ENTRY; BATCH], changes: Changes::default(), partial_checksums: false }
    }
}

/// What became of the session table in this batch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Changes {
    /// A session ended: its record may carry another key by now.
    pub ended: bool,
    /// A bit for the hash of each key that was stored.
    made: [u64; 16],
}

impl Changes {
    #[inline]
    const fn place(hash: u64) -> (usize, u64) {
        ((hash >> 6) as usize & 15, 1 << (hash & 63))
    }

    #[inline]
    pub fn made(&mut self, hash: u64) {
        let (word, bit) = Changes::place(hash);
        self.made[word] |= bit;
    }

    #[inline]
    pub fn may_have_made(&self, hash: u64) -> bool {
        let (word, bit) = Changes::place(hash);
        self.made[word] & bit != 0
    }
}

/// What a worker does for sessions beside forwarding: removed ones, ageing, room in a full table, events.
#[derive(Debug)]
pub(super) struct Sessions {
    pub deferred4: DeferredFree,
    pub deferred6: DeferredFree,
    sweep4: Sweeper,
    sweep6: Sweeper,
    swept: Nanos,
    pub events: Events,
    /// Sessions refused because the table was full.
    pub table_full: u64,
    /// Sessions refused because their host had its share.
    pub host_refused: u64,
    /// Where the look for a session that makes room goes on, of IPv4 and of IPv6.
    pub evict_at: [u32; 2],
    /// Marks of a session in the making that counts for its rule's limit; 0: nothing is counted that no session has.
    pub rule_marks: u32,
    /// Hashes of flows that were refused: a second packet makes a record, so a scan makes none.
    pub refused_once: Box<[u32]>,
}

impl Sessions {
    pub fn new(worker: u32, workers: u32) -> Sessions {
        Sessions {
            deferred4: DeferredFree::default(),
            deferred6: DeferredFree::default(),
            sweep4: Sweeper::new(worker, workers),
            sweep6: Sweeper::new(worker, workers),
            swept: Nanos::ZERO,
            events: Events::default(),
            table_full: 0,
            host_refused: 0,
            // Workers look at different places.
            evict_at: [worker.wrapping_mul(HAND_DISTANCE); 2],
            rule_marks: 0,
            refused_once: vec![0; REFUSED].into_boxed_slice(),
        }
    }

    /// Where removed sessions of a family wait, and who hears of the end of one.
    pub fn ending<'w>(&'w mut self, family: Family, tables: &'w Tables) -> Ending<'w> {
        let deferred = match family {
            Family::V4 => &mut self.deferred4,
            Family::V6 => &mut self.deferred6,
        };
        Ending { deferred, events: &mut self.events, nat: &tables.nat }
    }

    /// Ages a share of the sessions, in proportion to the time since the last call.
    pub fn sweep(&mut self, tables: &Tables, counters: &Counters, snap: &Snapshot, now: Nanos) {
        let elapsed_ms = now.saturating_sub(self.swept).0 / 1_000_000;
        if elapsed_ms == 0 {
            return;
        }
        self.swept = now;
        let (tick, elapsed_ms) = (now.tick(), elapsed_ms.min(100));
        let budget = |used: u32| {
            (u64::from(used) * elapsed_ms / 500).clamp(SWEEP.start() * elapsed_ms, SWEEP.end() * elapsed_ms)
                as u32
        };
        let (t4, t6) = (&tables.v4, &tables.v6);
        let ending = Ending { deferred: &mut self.deferred4, events: &mut self.events, nat: &tables.nat };
        self.sweep4.step(t4, ending, snap, tick, budget(t4.used()), counters);
        let ending = Ending { deferred: &mut self.deferred6, events: &mut self.events, nat: &tables.nat };
        self.sweep6.step(t6, ending, snap, tick, budget(t6.used()), counters);
    }
}

/// Which flow fragments belong to.
#[derive(Debug)]
pub(super) struct FragmentFollower {
    pub datagrams: Fragments,
    /// No other worker gets fragments.
    pub alone: bool,
}

/// Next hops that are not resolved: the packets that wait for them, and the requests to the kernel.
#[derive(Debug)]
pub(super) struct Neighbors {
    pub pending: PendingQueue<NeighborKey>,
    pub requests: Vec<NeighborKey>,
    pub limits: RequestLimits,
}

/// A packet whose next hop is not resolved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unresolved {
    pub key: NeighborKey,
    /// Who sends the packet.
    pub src: IpAddr,
    /// The next hop is a router or the far end of a session, and not an address that the sender may have made up.
    pub established: bool,
}

impl Neighbors {
    pub fn new(workers: u32) -> Neighbors {
        Neighbors {
            pending: PendingQueue::default(),
            requests: Vec::with_capacity(MAX_REQUESTS),
            limits: RequestLimits::new(workers),
        }
    }

    /// Requests a next hop for the gateway's own packets, unless that has been done. False: there is no room for the request.
    pub fn request(&mut self, key: NeighborKey) -> bool {
        if self.is_requested(key) {
            return true;
        }
        let room = self.requests.len() < MAX_REQUESTS;
        if room {
            self.requests.push(key);
        }
        room
    }

    fn is_requested(&self, key: NeighborKey) -> bool {
        self.requests.contains(&key) || self.pending.waits_for(key)
    }

    /// Requests the next hop of a packet, and keeps a copy of it until the answer has come.
    pub fn hold(
        &mut self,
        (now, rates): (Nanos, RequestRates),
        u: &Unresolved,
        mut arrival: Arrival,
        frame: &[u8],
    ) -> Result<(), DropReason> {
        let from = &mut arrival.from;
        if !self.is_requested(u.key) {
            if self.requests.len() >= MAX_REQUESTS {
                return Err(DropReason::NeighborQueueFull);
            }
            let request = (u.src, u.key.1);
            if !u.established && !self.limits.allow((now, rates), (arrival.ingress, from), request) {
                return Err(DropReason::NeighborRateLimit);
            }
            self.requests.push(u.key);
        }
        let from = *from;
        if !self.limits.has_room(from) || !self.pending.push(u.key, arrival, frame) {
            return Err(DropReason::NeighborQueueFull);
        }
        self.limits.waits(from);
        Ok(())
    }

    /// Takes the oldest packet for which `ready` holds out of the queue.
    pub fn take(
        &mut self,
        to: &mut [u8],
        ready: impl FnMut(&PendingPacket<NeighborKey>) -> bool,
    ) -> Option<PendingPacket<NeighborKey>> {
        let held = self.pending.take(to, ready)?;
        self.limits.went(held.arrival.from);
        Some(held)
    }
}

/// What a worker does for tunnels: outer packets in fragments, error correction, and, in one of the workers, probes
/// and keepalives.
#[derive(Debug)]
pub(super) struct TunnelWork {
    pub reassembler: Reassembler,
    pub fec: Fec,
    /// This worker probes the far ends.
    pub probes: bool,
    pub monitors: Vec<Option<Monitor>>,
    pub keepalives: Box<[Keepalive]>,
    /// When the next look at all tunnels is due.
    pub due: Nanos,
    /// A tunnel has gone down or come up.
    pub changed: bool,
    /// How much of each tunnel goes to the kernel.
    pub to_kernel: Box<[Limiter]>,
}

impl TunnelWork {
    pub fn new(worker: u32) -> TunnelWork {
        TunnelWork {
            reassembler: Reassembler::default(),
            fec: Fec::new(worker),
            probes: worker == 0,
            monitors: Vec::new(),
            keepalives: vec![Keepalive::default(); usize::from(TunnelNo::MAX) + 1].into_boxed_slice(),
            due: Nanos::ZERO,
            changed: false,
            to_kernel: vec![Limiter::default(); usize::from(TunnelNo::MAX) + 1].into_boxed_slice(),
        }
    }
}

/// How many ICMP errors each port may send.
#[derive(Debug)]
pub(super) struct IcmpLimiter(Box<[Limiter]>);

impl IcmpLimiter {
    pub fn new() -> IcmpLimiter {
        IcmpLimiter(vec![Limiter::default(); PortIdx::MAX].into_boxed_slice())
    }

    /// The limiter of a port; numbers beyond the table share the last one.
    pub fn port(&mut self, port: PortIdx) -> &mut Limiter {
        &mut self.0[port.index().min(PortIdx::MAX - 1)]
    }
}

/// Buffers for packets in the making, so that none is allocated on the way.
#[derive(Debug)]
pub(super) struct Buffers {
    /// A packet that the gateway makes, or a fragment.
    pub scratch: Box<[u8]>,
    /// An outer packet that has been put together.
    pub reassembled: Box<[u8]>,
    /// A copy that has waited and goes on.
    pub released: Box<[u8]>,
}

impl Buffers {
    pub fn new() -> Buffers {
        Buffers {
            scratch: vec![0; LINK_ROOM + usize::from(u16::MAX)].into_boxed_slice(),
            reassembled: vec![0; pending::SLOT_BYTES].into_boxed_slice(),
            released: vec![0; pending::SLOT_BYTES].into_boxed_slice(),
        }
    }
}
