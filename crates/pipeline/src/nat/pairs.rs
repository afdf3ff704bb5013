//! Which of a pool's addresses a host has (RFC 4787 REQ-2, paired pooling): by its hash, so that hosts are spread evenly and
//! keep their address over a restart, and by memory, so that they keep it while addresses are added to the pool.

use super::NatState;
use super::policy::{EntryHits, NatPolicy};
use super::pool::{Endpoint, NatProtocol, POOLS};
use sag_fib::Fib;
use sag_model::flow::{HASH_M1, HASH_M2};
use sag_model::{PortIdx, Zone};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Hosts that are remembered, four to a bucket.
const BUCKETS: usize = 32 * 1024;
/// The pool number in a word of the table; the key is above it.
const POOL_MASK: u64 = POOLS as u64 - 1;
/// [`SnatEntry::via`] of an entry for all WAN ports.
const ANY_WAN: u8 = 0xFE;
/// That of an entry for overlay and leased line.
const INTRANET: u8 = 0xFF;
/// That of NAT64.
const NAT64: u8 = 0xFD;

/// What of an inside endpoint decides about its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The host: it has one address (RFC 4787 REQ-2, RFC 7857 section 4).
    Paired,
    /// Host, port and protocol: a host has many.
    Arbitrary,
}

/// A source NAT entry of the policy: what it translates to.
#[derive(Debug, Clone)]
pub struct SnatEntry {
    /// The sources of its addresses; none: a static entry, which has an address for each inside one.
    pub sources: Vec<u16>,
    /// How hosts share the addresses.
    pub pooling: Pooling,
    /// Who finds no port at its address gets one at another.
    pub overflow: bool,
    /// Where it holds: a number for each WAN port, for all of them, and for overlay and leased line.
    via: u8,
    /// Sessions by the entry.
    pub hits: Arc<EntryHits>,
}

impl SnatEntry {
    /// `wan`: for WAN ports, one or all; `None`: towards overlay and leased line.
    pub(super) fn new(
        sources: Vec<u16>,
        (pooling, overflow): (Pooling, bool),
        wan: Option<Option<PortIdx>>,
        hits: Arc<EntryHits>,
    ) -> SnatEntry {
        let via = match wan {
            None => INTRANET,
            Some(None) => ANY_WAN,
            Some(Some(port)) => port.0,
        };
        SnatEntry { sources, pooling, overflow, via, hits }
    }

    /// Of an entry that has an address for each inside one.
    pub(super) fn fixed(hits: Arc<EntryHits>) -> SnatEntry {
        SnatEntry::new(Vec::new(), (Pooling::Paired, false), None, hits)
    }

    /// Of NAT64: a host has one of the addresses, whatever the way out.
    pub(super) fn for_nat64(sources: Vec<u16>, hits: Arc<EntryHits>) -> SnatEntry {
        SnatEntry { sources, pooling: Pooling::Paired, overflow: false, via: NAT64, hits }
    }

    /// The other sources, for who finds no port at one of them.
    pub(crate) fn others(&self, than: Option<u16>) -> impl Iterator<Item = u16> + '_ {
        let at = self.sources.iter().position(|s| Some(*s) == than).unwrap_or(0);
        let after = self.sources.get(at + 1..).unwrap_or(&[]);
        after.iter().chain(self.sources.get(..at).unwrap_or(&[])).copied().filter(|_| self.overflow)
    }

    /// Under which an inside endpoint is remembered; the pool's number has room below.
    fn key(&self, inside: Endpoint, proto: u8) -> u64 {
        let (port, protocol) = match (self.pooling, NatProtocol::of(proto)) {
            (Pooling::Arbitrary, Some(p)) => (inside.port, p as u64),
            _ => (0, 3),
        };
        // Two ports of a host may be remembered as one, two hosts may not.
        let port = port ^ u16::from(inside.vrf.get()) << 10;
        let host = u64::from(inside.addr.to_bits()) << 16 | u64::from(port);
        (host << 2 | protocol) << 14 | u64::from(self.via) << 6
    }
}

/// By which entry the source of a session is translated: the longest prefix that it is in.
#[derive(Debug, Default)]
pub(super) struct EntryLookup {
    /// Towards overlay and leased line.
    pub intranet: Option<Fib<u32>>,
    /// Towards the Internet, by these WAN ports.
    pub by_port: Vec<(PortIdx, Fib<u32>)>,
    /// And by all others.
    pub internet: Option<Fib<u32>>,
}

impl EntryLookup {
    /// The entry for a source on its way to a zone by a port.
    pub fn entry(&self, to: Zone, port: PortIdx, src: Ipv4Addr) -> Option<u16> {
        let of_port = || self.by_port.iter().find(|(p, _)| *p == port).map(|(_, f)| f);
        let entries = match to {
            Zone::Lan => None,
            Zone::Overlay => self.intranet.as_ref(),
            Zone::Wan => of_port().or(self.internet.as_ref()),
        };
        entries?.lookup(src.to_bits()).map(|no| no as u16)
    }
}

/// What source translation looks at beside the policy.
#[derive(Debug, Clone, Copy)]
pub struct Held<'s> {
    /// What is allocated.
    pub state: &'s NatState,
    /// The external address of the live session that is evaluated again.
    pub addr: Option<Ipv4Addr>,
}

/// The pool that each host was last given.
#[derive(Debug)]
pub(super) struct Pairs(Box<[[AtomicU64; 4]]>);

impl Pairs {
    pub fn new() -> Pairs {
        Pairs((0..BUCKETS).map(|_| Default::default()).collect())
    }

    pub fn memory(&self) -> usize {
        size_of_val(&*self.0)
    }

    fn bucket(&self, key: u64) -> Option<&[AtomicU64; 4]> {
        self.0.get(mix(key, 0) as usize % BUCKETS)
    }

    fn find(&self, key: u64) -> Option<u8> {
        let words = self.bucket(key)?.iter().map(|w| w.load(Ordering::Relaxed));
        words.into_iter().find(|w| w & !POOL_MASK == key).map(|w| (w & POOL_MASK) as u8)
    }

    fn note(&self, key: u64, pool: u8) {
        let Some(bucket) = self.bucket(key) else { return };
        let word = |w: &&AtomicU64| w.load(Ordering::Relaxed);
        let same = bucket.iter().find(|w| word(w) & !POOL_MASK == key);
        let free = || bucket.iter().find(|w| word(w) == 0);
        // Who makes room is found by its hash: the same address, unless the pool has changed since it was given.
        let other = || bucket.get(mix(key, 1) as usize % bucket.len());
        if let Some(w) = same.or_else(free).or_else(other) {
            w.store(key | u64::from(pool) & POOL_MASK, Ordering::Relaxed);
        }
    }
}

/// The same in every process: hosts have the same addresses after a restart.
fn mix(key: u64, with: u64) -> u64 {
    let h = (key ^ with.wrapping_mul(HASH_M1)).wrapping_mul(HASH_M2);
    let h = (h ^ h >> 32).wrapping_mul(HASH_M1);
    h ^ h >> 29
}

impl NatPolicy {
    /// The source of an entry that an inside endpoint gets. Of several the one that its live session has, that which it
    /// was given before as long as it has sessions, else the one of the highest rank (rendezvous hashing: an address that
    /// is added or removed moves none but the hosts that it gets or had).
    pub(super) fn choose_source(&self, entry: u16, src: Endpoint, proto: u8, held: Held<'_>) -> Option<u16> {
        let e = self.entries.get(usize::from(entry))?;
        let (first, rest) = e.sources.split_first()?;
        if rest.is_empty() {
            return Some(*first);
        }
        let with = |is: &dyn Fn(&super::Source) -> bool| {
            e.sources.iter().copied().find(|no| self.source(*no).is_some_and(is))
        };
        if let Some(no) = held.addr.and_then(|addr| with(&|s| s.addr == addr)) {
            return Some(no);
        }
        let key = e.key(src, proto);
        let given = || held.state.pairs.find(key).and_then(|pool| with(&|s| s.pool.no == pool));
        if held.state.host_sessions(src.host()) > 0
            && let Some(no) = given()
        {
            return Some(no);
        }
        let rank = |no: &u16| self.source(*no).map(|s| mix(key, u64::from(s.addr.to_bits()) | 1 << 32));
        e.sources.iter().copied().max_by_key(rank)
    }

    /// An inside endpoint has this source of the entry from now on.
    pub(crate) fn remember_source(
        &self,
        state: &NatState,
        entry: u16,
        src: Endpoint,
        proto: u8,
        source: u16,
    ) {
        let (Some(e), Some(s)) = (self.entries.get(usize::from(entry)), self.source(source)) else { return };
        if e.sources.len() > 1 {
            state.pairs.note(e.key(src, proto), s.pool.no);
        }
    }

    /// The same for a session of an earlier daemon, by every entry that may have made it.
    pub(crate) fn remember_adopted(&self, state: &NatState, src: Endpoint, proto: u8, external: Ipv4Addr) {
        for (no, e) in (0u16..).zip(&self.entries) {
            let is = |s: &&u16| self.source(**s).is_some_and(|s| s.addr == external);
            if let Some(source) = e.sources.iter().find(is) {
                self.remember_source(state, no, src, proto, *source);
            }
        }
    }
}
