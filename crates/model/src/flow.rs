//! The flow record as the daemon sees it: plain atomics over memory that the XDP program reads and
//! counts in at the same time. The layout's only definition is `bpf/include/gw_abi.h`; the `bpf`
//! crate asserts these offsets against it at compile time.
//!
//! Protocol (docs/abi.md): a record is filled while nothing points at it, then published by storing
//! its index word; it is taken back by clearing the index word and reused only after every reader
//! that may have seen the word has gone on. Fields that change while a record is live change by one
//! store each: the action word, then the epoch.

use crate::ids::Zone;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Records of one direction that lie side by side: a page of IPv4's. Where traffic goes one way, its records
/// then share neither pages nor pairs of cache lines, which processors fetch together, with those of the other.
pub const RECORD_BLOCK: u32 = 1 << RECORD_BLOCK_BITS;
const RECORD_BLOCK_BITS: u32 = 6;

/// Number of a flow record. [`RECORD_BLOCK`] sessions have their forward directions side by side, and behind
/// them their reverse directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordNo(pub u32);

impl RecordNo {
    /// The record of the forward direction: that of the packet which began the session.
    pub const fn forward(session: u32) -> RecordNo {
        let (block, at) = (session >> RECORD_BLOCK_BITS, session & (RECORD_BLOCK - 1));
        RecordNo(block << (RECORD_BLOCK_BITS + 1) | at)
    }

    /// The record of the reverse direction: that of the replies.
    pub const fn reverse(session: u32) -> RecordNo {
        RecordNo::forward(session).peer()
    }

    /// Both records of a session: forward, reverse.
    pub const fn both(session: u32) -> [RecordNo; 2] {
        [RecordNo::forward(session), RecordNo::reverse(session)]
    }

    /// The other direction of the same session.
    pub const fn peer(self) -> RecordNo {
        RecordNo(self.0 ^ RECORD_BLOCK)
    }

    /// Number of the session, from 1.
    pub const fn session(self) -> u32 {
        self.0 >> (RECORD_BLOCK_BITS + 1) << RECORD_BLOCK_BITS | self.0 & (RECORD_BLOCK - 1)
    }

    /// 0: forward; 1: reverse.
    pub const fn direction(self) -> usize {
        (self.0 >> RECORD_BLOCK_BITS & 1) as usize
    }

    /// Records of a table for so many sessions, whose numbers begin at 1.
    pub const fn needed(sessions: u32) -> u32 {
        (sessions + 1).next_multiple_of(RECORD_BLOCK) * 2
    }

    /// As an index of the table.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Bits of an index word that hold the record number; the rest is the tag.
pub const RECORD_BITS: u32 = 24;
/// Words in an index bucket (one cache line).
pub const BUCKET_WORDS: usize = 16;

/// Key of an IPv4 flow, as two words (see `struct gw_flow4`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key4 {
    /// Source address below, destination address above, each as loaded from the packet.
    pub addrs: u64,
    /// [`l4_word`].
    pub l4: u64,
}

/// Key of an IPv6 flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key6 {
    /// Source address, as loaded.
    pub src: [u64; 2],
    /// Destination address, as loaded.
    pub dst: [u64; 2],
    /// [`l4_word`].
    pub l4: u64,
}

/// The transport half of a key. Ports are in network byte order, as loaded from the packet.
#[inline]
pub const fn l4_word(sport_be: u16, dport_be: u16, proto: u8, zone: Zone) -> u64 {
    sport_be as u64 | (dport_be as u64) << 16 | (proto as u64) << 32 | (zone as u64) << 40
}

/// Multipliers of the flow hash; the XDP program uses the same (odd, well mixed constants).
pub const HASH_M1: u64 = 0x9E37_79B9_7F4A_7C15;
/// See [`HASH_M1`].
pub const HASH_M2: u64 = 0xD6E8_FEB8_6659_FD93;

#[inline]
const fn mix(h: u64, word: u64, m: u64) -> u64 {
    let h = (h ^ word).wrapping_mul(m);
    h ^ (h >> 32)
}

/// The direction of a packet (from the LAN, or from outside) chooses between pages of the index (64 buckets):
/// bit 6 for the first bucket, bit 30, inverted, for the second. Where traffic flows in one direction, the index
/// words of the other take no cache.
#[inline]
const fn partition_by_direction(h: u64, l4: u64) -> u64 {
    let [first, second] = [1 << 6, 1 << 30];
    (h & !(first | second)) | if l4 >> 41 & 1 != 0 { first } else { second }
}

impl Key4 {
    /// 64 bits; [`Probe::new`] uses all of them.
    #[inline]
    pub const fn hash(&self, seed: u64) -> u64 {
        let h = mix(mix(seed, self.addrs, HASH_M1), self.l4, HASH_M2);
        partition_by_direction(mix(h, 0, HASH_M1), self.l4)
    }
}

impl Key6 {
    /// 64 bits; [`Probe::new`] uses all of them.
    #[inline]
    pub const fn hash(&self, seed: u64) -> u64 {
        let h = mix(mix(seed, self.src[0], HASH_M1), self.src[1], HASH_M2);
        let h = mix(mix(h, self.dst[0], HASH_M1), self.dst[1], HASH_M2);
        partition_by_direction(mix(mix(h, self.l4, HASH_M1), 0, HASH_M2), self.l4)
    }
}

/// Where a hash looks: two buckets of the live index, and the tag of its word.
///
/// The second bucket follows from the first and the tag, never from the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The first bucket.
    pub first: u32,
    /// The second bucket.
    pub second: u32,
    /// Eight bits that the index word has above the record number.
    pub tag: u32,
    /// The word of a bucket that is tried first, by readers and when a place is sought.
    pub slot: usize,
}

impl Probe {
    /// For an index of `mask + 1` buckets.
    #[inline]
    pub const fn new(hash: u64, mask: u32) -> Probe {
        let tag = (hash >> 56) as u32;
        let first = hash as u32 & mask;
        let second = (hash >> 24) as u32 & mask;
        let slot = (hash >> 52) as usize & (BUCKET_WORDS - 1);
        Probe { first, second, tag, slot }
    }
}

/// The number of the epoch in [`FlowRecord::epoch`]; the other bits are marks. A record with a mark is
/// not of that epoch: XDP uses its stale action for the moment.
pub const EPOCH_NUMBER: u32 = 0x3FFF_FFFF;
/// Mark of a worker: the session is judged under this epoch, the route of this direction is not renewed yet.
pub const EPOCH_SESSION: u32 = 1 << 30;
/// Mark of XDP and workers: a revalidation of the flow is under way to a worker.
pub const EPOCH_REVALIDATING: u32 = 1 << 31;

/// The epoch after this one; 0 is never one.
pub const fn next_epoch(epoch: u32) -> u32 {
    match epoch.wrapping_add(1) & EPOCH_NUMBER {
        0 => 1,
        next => next,
    }
}

/// Where an index lies in the memory for indexes: its first bucket, and its number of buckets less one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// First bucket.
    pub base: u32,
    /// Number of buckets less one.
    pub mask: u32,
}

impl Geometry {
    /// An index of `buckets` buckets, a power of two, lies at offset `buckets`: every size has its place.
    pub const fn sized(buckets: u32) -> Geometry {
        Geometry { base: buckets, mask: buckets - 1 }
    }

    /// Words that it has.
    pub const fn words(self) -> u64 {
        (self.mask as u64 + 1) * BUCKET_WORDS as u64
    }

    /// As one word.
    #[inline]
    pub const fn to_word(self) -> u64 {
        self.base as u64 | (self.mask as u64) << 32
    }

    /// From one word.
    #[inline]
    pub const fn from_word(w: u64) -> Geometry {
        Geometry { base: w as u32, mask: (w >> 32) as u32 }
    }

    /// Number of buckets.
    pub const fn buckets(self) -> u32 {
        self.mask.saturating_add(1)
    }
}

/// `enum gw_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowAct {
    /// Hand to a worker.
    Punt = 0,
    /// Rewrite and send.
    Forward = 1,
    /// Drop; `nexthop` is the reason.
    Drop = 2,
}

/// The source is translated.
pub const FLOW_SNAT: u8 = 1 << 0;
/// The destination is translated.
pub const FLOW_DNAT: u8 = 1 << 1;
/// The packet passes the meter group `meter`.
pub const FLOW_METER: u8 = 1 << 2;
/// Every packet goes to a worker.
pub const FLOW_PUNT_ALL: u8 = 1 << 3;

/// Outside addresses of NAT that XDP can tell the ports of (`gw_nat_ports`).
pub const NAT_SLOTS: usize = 64;
/// Words of a slot: a bit for every port of TCP, then of UDP.
pub const NAT_SLOT_WORDS: usize = 2 * 65536 / 64;

/// Where the bit of an outside port is among the words of all slots: the word, and the bit in it.
#[inline]
pub const fn nat_port_bit(slot: u8, udp: bool, port: u16) -> (usize, u64) {
    let proto = if udp { NAT_SLOT_WORDS / 2 } else { 0 };
    (slot as usize * NAT_SLOT_WORDS + proto + port as usize / 64, 1 << (port % 64))
}

/// The action word of a record: what is stored with one store when a flow is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    /// Index of the next hop, or the drop reason.
    pub nexthop: u16,
    /// Number of the meter group; 0: none.
    pub meter: u16,
    /// What is done.
    pub act: FlowAct,
    /// `FLOW_SNAT` and the others.
    pub flags: u8,
    /// Number of the tunnel; 0: none.
    pub tunnel: u8,
    /// Generation of the next hop; a next hop of another generation sends the packet to a worker.
    pub nh_gen: u8,
}

impl Action {
    /// Hand to a worker.
    pub const PUNT: Action =
        Action { nexthop: 0, meter: 0, act: FlowAct::Punt, flags: 0, tunnel: 0, nh_gen: 0 };

    /// As one word.
    #[inline]
    pub const fn to_word(self) -> u64 {
        self.nexthop as u64
            | (self.meter as u64) << 16
            | (self.act as u64) << 32
            | (self.flags as u64) << 40
            | (self.tunnel as u64) << 48
            | (self.nh_gen as u64) << 56
    }

    /// From one word.
    #[inline]
    pub const fn from_word(w: u64) -> Action {
        let act = match (w >> 32) as u8 {
            1 => FlowAct::Forward,
            2 => FlowAct::Drop,
            _ => FlowAct::Punt,
        };
        Action {
            nexthop: w as u16,
            meter: (w >> 16) as u16,
            act,
            flags: (w >> 40) as u8,
            tunnel: (w >> 48) as u8,
            nh_gen: (w >> 56) as u8,
        }
    }
}

/// `struct gw_flow4`.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct FlowRecord4 {
    /// [`Key4::addrs`].
    pub key_addrs: AtomicU64,
    /// [`l4_word`].
    pub key_l4: AtomicU64,
    /// `new_saddr | new_daddr << 32`
    pub new_addrs: AtomicU64,
    /// `new_sport | new_dport << 16 | l3_delta << 32 | l4_delta << 48`
    pub new_ports: AtomicU64,
    /// [`Action::to_word`].
    pub action: AtomicU64,
    /// Number and marks, see [`EPOCH_NUMBER`].
    pub epoch: AtomicU32,
    /// [`Tick`](crate::time::Tick) of the last packet.
    pub last_seen: AtomicU32,
    /// Packets so far.
    pub packets: AtomicU64,
    /// IP bytes so far.
    pub bytes: AtomicU64,
}

/// `struct gw_flow6`.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct FlowRecord6 {
    /// Source address, as loaded.
    pub src: [AtomicU64; 2],
    /// Destination address, as loaded.
    pub dst: [AtomicU64; 2],
    /// [`l4_word`].
    pub key_l4: AtomicU64,
    /// [`Action::to_word`].
    pub action: AtomicU64,
    /// Number and marks, see [`EPOCH_NUMBER`].
    pub epoch: AtomicU32,
    /// [`Tick`](crate::time::Tick) of the last packet.
    pub last_seen: AtomicU32,
    /// Unused.
    pub pad0: AtomicU64,
    /// Packets so far.
    pub packets: AtomicU64,
    /// IP bytes so far.
    pub bytes: AtomicU64,
    /// Source address after translation.
    pub new_src: [AtomicU64; 2],
    /// Destination address after translation.
    pub new_dst: [AtomicU64; 2],
    /// `new_sport | new_dport << 16 | l4_delta << 32`
    pub new_ports: AtomicU64,
    /// Unused.
    pub pad2: AtomicU64,
}

/// `struct gw_bucket`.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Bucket {
    /// Index words: tag above [`RECORD_BITS`], record number below; 0: free.
    pub word: [AtomicU32; BUCKET_WORDS],
}

/// `struct gw_nexthop` as four words, each written by one store.
#[repr(C, align(32))]
#[derive(Debug, Default)]
pub struct NextHopRecord {
    /// dmac in bytes 0..6, vlan (host order) above
    pub dmac_vlan: AtomicU64,
    /// smac in bytes 0..6, MTU above
    pub smac_mtu: AtomicU64,
    /// `ifindex | dev << 32 | port << 40 | gen << 48 | flags << 56`
    pub dev: AtomicU64,
    /// Unused.
    pub pad: AtomicU64,
}

/// The next hop is resolved.
pub const NH_VALID: u8 = 1 << 0;

/// `struct gw_revalidation_queue`: packets of a receive queue that are sent to a worker for a new verdict.
#[repr(C, align(16))]
#[derive(Debug, Default)]
pub struct RevalidationQueue {
    /// Revalidations that XDP has sent; written by XDP.
    pub sent: AtomicU32,
    /// Revalidations that the worker of the queue has taken; written by the worker.
    pub taken: AtomicU32,
    /// Tick of the last one sent.
    pub since: AtomicU32,
    /// Unused.
    pub pad: AtomicU32,
}

/// `struct gw_control`.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct ControlBlock {
    /// Version of the layout; XDP and daemon must agree.
    pub abi_version: AtomicU32,
    /// Number of the current epoch.
    pub epoch: AtomicU32,
    /// Seed of the flow hash.
    pub seed: AtomicU64,
    /// [`Geometry`] of the live index.
    pub index4: AtomicU64,
    /// [`Geometry`] of the live IPv6 index.
    pub index6: AtomicU64,
    /// XDP action for packets that need a worker while there is none: 1 drop, 2 pass.
    pub fail_action: AtomicU32,
    /// 0: established flows go to the workers, too.
    pub fast_path: AtomicU32,
    /// Flood guard: nanoseconds for one packet without a record; 0: no limit.
    pub guard_interval: AtomicU32,
    /// Flood guard: nanoseconds that may come at once.
    pub guard_burst: AtomicU32,
    /// Revalidations of a receive queue that may be under way; 0: every packet of an older epoch is a worker's.
    pub revalidation_credit: AtomicU32,
    /// Tick at which the epoch began.
    pub epoch_since: AtomicU32,
    /// Where the next hops of the daemon that has the epoch begin; 0: not known.
    pub nexthops_from: AtomicU32,
    /// How many tunnels there are.
    pub tunnels: AtomicU32,
}

impl FlowRecord4 {
    /// The key.
    #[inline]
    pub fn key(&self) -> Key4 {
        Key4 { addrs: self.key_addrs.load(Ordering::Relaxed), l4: self.key_l4.load(Ordering::Relaxed) }
    }

    /// Whether the record is of this key.
    #[inline]
    pub fn matches(&self, key: &Key4) -> bool {
        self.key_addrs.load(Ordering::Relaxed) == key.addrs && self.key_l4.load(Ordering::Relaxed) == key.l4
    }
}

impl FlowRecord6 {
    /// The key.
    #[inline]
    pub fn key(&self) -> Key6 {
        let two = |w: &[AtomicU64; 2]| [w[0].load(Ordering::Relaxed), w[1].load(Ordering::Relaxed)];
        Key6 { src: two(&self.src), dst: two(&self.dst), l4: self.key_l4.load(Ordering::Relaxed) }
    }

    /// Whether the record is of this key.
    #[inline]
    pub fn matches(&self, key: &Key6) -> bool {
        self.key() == *key
    }
}

/// Parts common to records of both families, so that table code is written once.
pub trait FlowRecord: Default + Send + Sync + 'static {
    /// Addresses, ports, protocol and zone.
    type Key: Copy + Eq + std::fmt::Debug + Send;

    /// Hash of a key.
    fn hash(key: &Self::Key, seed: u64) -> u64;
    /// The key.
    fn key(&self) -> Self::Key;
    /// Whether the record is of this key.
    fn matches(&self, key: &Self::Key) -> bool;
    /// Stores the key; nothing may point at the record.
    fn set_key(&self, key: &Self::Key);
    /// [`Action::to_word`].
    fn action(&self) -> &AtomicU64;
    /// Number and marks, see [`EPOCH_NUMBER`].
    fn epoch(&self) -> &AtomicU32;
    /// [`Tick`](crate::time::Tick) of the last packet.
    fn last_seen(&self) -> &AtomicU32;
    /// Packets so far.
    fn packets(&self) -> &AtomicU64;
    /// IP bytes so far.
    fn bytes(&self) -> &AtomicU64;
}

macro_rules! flow_record {
    ($rec:ty, $key:ty, |$r:ident, $k:ident| $set:block) => {
        impl FlowRecord for $rec {
            type Key = $key;

            #[inline]
            fn hash(key: &$key, seed: u64) -> u64 {
                key.hash(seed)
            }
            #[inline]
            fn key(&self) -> $key {
                <$rec>::key(self)
            }
            #[inline]
            fn matches(&self, key: &$key) -> bool {
                <$rec>::matches(self, key)
            }
            #[inline]
            fn set_key(&self, $k: &$key) {
                let $r = self;
                $set
            }
            #[inline]
            fn action(&self) -> &AtomicU64 {
                &self.action
            }
            #[inline]
            fn epoch(&self) -> &AtomicU32 {
                &self.epoch
            }
            #[inline]
            fn last_seen(&self) -> &AtomicU32 {
                &self.last_seen
            }
            #[inline]
            fn packets(&self) -> &AtomicU64 {
                &self.packets
            }
            #[inline]
            fn bytes(&self) -> &AtomicU64 {
                &self.bytes
            }
        }
    };
}

flow_record!(FlowRecord4, Key4, |r, k| {
    r.key_addrs.store(k.addrs, Ordering::Relaxed);
    r.key_l4.store(k.l4, Ordering::Relaxed);
});

flow_record!(FlowRecord6, Key6, |r, k| {
    for i in 0..2 {
        r.src[i].store(k.src[i], Ordering::Relaxed);
        r.dst[i].store(k.dst[i], Ordering::Relaxed);
    }
    r.key_l4.store(k.l4, Ordering::Relaxed);
});

const _: () = {
    assert!(size_of::<FlowRecord4>() == 64);
    assert!(size_of::<FlowRecord6>() == 128);
    assert!(size_of::<Bucket>() == 64);
    assert!(size_of::<NextHopRecord>() == 32);
    assert!(size_of::<ControlBlock>() == 64);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn action_word_round_trip() {
        let a = Action { nexthop: 0xBEEF, meter: 7, act: FlowAct::Drop, flags: 5, tunnel: 9, nh_gen: 255 };
        assert_eq!(Action::from_word(a.to_word()), a);
        assert_eq!(Action::from_word(0), Action::PUNT);
    }

    #[test]
    fn hash_spreads_sequential_ports() {
        let mut buckets = [0u32; 64];
        for p in 0..6400u16 {
            let k =
                Key4 { addrs: 0x0a00_0001_0a00_0002, l4: l4_word(p.to_be(), 80u16.to_be(), 17, Zone::Lan) };
            buckets[Probe::new(k.hash(1), 63).first as usize] += 1;
        }
        let (min, max) = (buckets.iter().min().unwrap(), buckets.iter().max().unwrap());
        assert!(*min > 50 && *max < 150, "uneven: {min}..{max}");
    }
}
