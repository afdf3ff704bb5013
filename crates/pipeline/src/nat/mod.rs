//! Network address translation of IPv4 (RFC 4787, 5382, 5508, 7857), and from IPv6 to it (RFC 6146).
//!
//! [`NatPolicy`] is what the configuration wants: part of the snapshot, immutable. [`NatState`] is what
//! is allocated: bindings of inside endpoints to external ports, shared by all workers without a lock and
//! preserved over every change of the configuration. A session's translation itself is in its two flow
//! records; the session holds its bindings, and the last session gives a binding back.

mod blocks;

mod event;
mod hairpin;
mod hosts6;
mod identification;
mod mapped;
mod nat64;
mod npt;
mod pairs;
mod policy;
mod pool;
mod pool_plan;
mod prefix;
mod share;
mod spec;
mod wan;

pub use event::{Event, Events, Released, SessionTuple};
pub use hosts6::is_number;
pub use identification::Identifications;
pub use mapped::{AdmitError, HoldError, PeerPrefix, PortRequest};
pub use nat64::{Nat64, Nat64Spec, Refused64};
pub use pairs::{Held, Pooling, SnatEntry};
pub use policy::{
    Behavior, DnatTarget, EntryHits, External, Forward, Forwards, Limits, NatPolicy, OneToOne, Snat, Source,
    Towards,
};
pub use pool::{BindingNo, Endpoint, InsideHost, NatProtocol, POOL_WORDS, POOLS, Pool};
pub use pool_plan::PoolPlan;
pub use prefix::{StaticPrefix, Translated6};
pub use spec::{Kind, NatConfigError, NatSpec, PoolSnat, Service, StaticDnat, WanAddr, WanSnat};
pub use wan::{Hairpin, WanSources};

pub use crate::ref_count::RefCountTable;
use crate::table::{Clash, HostCounts, Index, prefetch};
use blocks::Blocks;
use hosts6::Hosts6;
use mapped::PeerLists;
use pairs::Pairs;
use pool::Acquired;
use sag_model::flow::{BUCKET_WORDS, Bucket, Geometry, HASH_M1, HASH_M2, RecordNo};
use share::port_key;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Inside hosts whose sessions are counted.
const HOSTS: usize = 128 * 1024;

/// A random number for each call; one per worker, seeded by the process.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// What is allocated at the moment.
#[derive(Debug)]
pub struct NatState {
    pools: [OnceLock<Arc<Pool>>; POOLS],
    /// Binding numbers by inside endpoint.
    index: Index,
    /// Sessions of each inside host that are translated.
    hosts: RefCountTable<26>,
    /// Ports of each inside host, by pool and protocol.
    ports: HostCounts,
    /// Remote addresses to which a binding has sent (address-dependent filtering, RFC 4787 5).
    filter_entries: RefCountTable<9>,
    /// The address that each host has of several.
    pairs: Pairs,
    /// Who may send to ports that hosts have asked for.
    peer_lists: PeerLists,
    /// IPv6 hosts; made when NAT64 is first configured.
    hosts6: OnceLock<Hosts6>,
    sessions: u32,
    xdp_port_bitmap: &'static [AtomicU64],
    seed: u64,
    /// What translated datagrams are numbered by.
    pub identifications: Identifications,
    /// Counters of NAT as a whole.
    pub totals: Totals,
}

/// Counters of NAT as a whole, added to by all workers when sessions come and go.
#[derive(Debug, Default)]
pub struct Totals {
    /// Bindings in use.
    pub bindings: AtomicU64,
    /// Sessions refused because their host had as many as it may.
    pub host_refused: AtomicU64,
    /// Sessions between LAN hosts by an external address.
    pub hairpinned: AtomicU64,
    /// Sessions ended early to make room, by what they were worth ([`crate::session::Worth`]).
    pub evicted: [AtomicU64; 3],
    /// A host or a permit that did not fit its table: it goes uncounted.
    pub uncounted: AtomicU64,
}

/// Why no port was allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPort {
    /// No port of the source is free for this protocol.
    Exhausted,
    /// Few are, and the host has its share of them.
    HostShare,
}

/// A port that was allocated to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The external port, in host order.
    pub port: u16,
    /// The binding that the session holds.
    pub binding: BindingNo,
    /// Other sessions hold it too.
    pub shared: bool,
    /// The port pool has just passed its warning mark.
    pub warn: bool,
    /// The session's first port of a block that the host did not have.
    pub new_block: Option<u16>,
}

impl NatState {
    /// For so many sessions. `xdp_port_bitmap` is the map in which XDP looks up ports: [`POOL_WORDS`] for each
    /// of [`POOLS`]. `identifications` draws from the counters that XDP draws from.
    pub fn new(
        sessions: u32,
        xdp_port_bitmap: &'static [AtomicU64],
        identifications: Identifications,
        seed: u64,
    ) -> NatState {
        let words = sessions as usize * 2;
        let buckets = words.div_ceil(BUCKET_WORDS).next_power_of_two();
        // Lives as long as the process, like the flow table.
        let memory: &'static [Bucket] = Vec::leak((0..buckets).map(|_| Bucket::default()).collect());
        NatState {
            pools: std::array::from_fn(|_| OnceLock::new()),
            index: Index::new(memory, Geometry { base: 0, mask: buckets as u32 - 1 }),
            hosts: RefCountTable::new(HOSTS.min(sessions as usize * 2)),
            ports: HostCounts::new(sessions, seed),
            filter_entries: RefCountTable::new(sessions as usize),
            pairs: Pairs::new(),
            peer_lists: PeerLists::default(),
            hosts6: OnceLock::new(),
            sessions,
            xdp_port_bitmap,
            seed,
            identifications,
            totals: Totals::default(),
        }
    }

    /// Without XDP.
    pub fn private(sessions: u32) -> NatState {
        const SEED: u64 = 0x5EED;
        NatState::new(sessions, &[], Identifications::private(SEED), SEED)
    }

    /// Every pool there is.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.iter().filter_map(|p| p.get())
    }

    /// The pool of an address, if there is one.
    pub fn pool_of(&self, addr: Ipv4Addr) -> Option<&Arc<Pool>> {
        self.pools().find(|p| p.addr() == addr)
    }

    fn pool_no(&self, b: BindingNo) -> Option<&Pool> {
        self.pools[b.pool()].get().map(|p| &**p)
    }

    /// Ports of a binding's address and protocol: how many are free, of how many. `None`: it is no binding.
    pub fn room(&self, b: BindingNo, limits: &Limits) -> Option<(u32, u32)> {
        let pool = self.pool_no(b).filter(|_| b.0 != 0)?;
        let used = pool.uses[b.protocol() as usize].used.load(Ordering::Relaxed);
        let all = limits.capacity(b.protocol()) as u32;
        Some((all.saturating_sub(used), all))
    }

    /// Bytes of pools and tables.
    pub fn memory(&self) -> usize {
        let pools: usize = self.pools().map(|p| p.memory()).sum();
        pools
            + size_of_val(self.index.all())
            + self.hosts.memory()
            + self.ports.memory()
            + self.filter_entries.memory()
            + self.pairs.memory()
            + self.hosts6.get().map_or(0, Hosts6::memory)
    }

    /// Translated sessions by inside host, as [`InsideHost::word`] has it.
    pub fn hosts(&self) -> &RefCountTable<26> {
        &self.hosts
    }

    /// Filter entries by binding and remote address.
    pub fn filter_entries(&self) -> &RefCountTable<9> {
        &self.filter_entries
    }

    fn hash(&self, pool: u8, protocol: NatProtocol, inside: u64, remote: u64) -> u64 {
        let mix = |h: u64, w: u64, m: u64| {
            let h = (h ^ w).wrapping_mul(m);
            h ^ h >> 32
        };
        let tail = remote << 16 | u64::from(pool) << 8 | protocol as u64;
        mix(mix(mix(self.seed, inside, HASH_M1), tail, HASH_M2), 0, HASH_M1)
    }

    /// Whether a binding number stands for this inside endpoint, be it in the making or live.
    fn is(&self, no: RecordNo, pool: u8, protocol: NatProtocol, inside: u64, remote: u64) -> bool {
        let b = BindingNo(no.0);
        b.pool() == usize::from(pool)
            && b.protocol() == protocol
            && self.pool_no(b).and_then(|p| p.slot(protocol, b.port())).is_some_and(|s| {
                s.refs.load(Ordering::Acquire) != 0
                    && s.inside.load(Ordering::Relaxed) == inside
                    && s.remote.load(Ordering::Relaxed) == remote
            })
    }

    /// A lease like this may be needed soon: brings what it looks at into the cache. Most endpoints
    /// have their own port number outside too, or get it.
    pub fn prefetch_lease(
        &self,
        source: &Source,
        protocol: NatProtocol,
        (inside, remote): (Endpoint, Endpoint),
    ) {
        let pool = &*source.pool;
        let probe = self.index.probe(self.hash(pool.no, protocol, inside.word(), source.scope(remote)));
        prefetch(self.index.bucket(probe.first));
        prefetch(self.index.bucket(probe.second));
        pool.prefetch_slot(protocol, inside.port);
        self.prefetch_filter_entry(BindingNo::new(pool.no, protocol, inside.port), remote.addr);
    }

    /// The same of [`NatState::add_filter_entry`].
    pub fn prefetch_filter_entry(&self, binding: BindingNo, remote: Ipv4Addr) {
        self.filter_entries.prefetch(filter_key(binding, remote));
    }

    /// The external port of an inside endpoint towards a remote one: the one that it has, or a new
    /// one. The session that asks holds the binding from now on.
    ///
    /// # Errors
    ///
    /// Why there is no port.
    pub fn lease(
        &self,
        source: &Source,
        limits: &Limits,
        protocol: NatProtocol,
        (inside, remote): (Endpoint, Endpoint),
        random: &mut Random,
        tick: u32,
    ) -> Result<Lease, NoPort> {
        let remote = source.scope(remote);
        let choose = |pool: &Pool| self.choose(pool, limits, protocol, (inside, remote), random, tick);
        let lease = self.lease_by(source, limits, protocol, (inside, remote), choose);
        if lease == Err(NoPort::Exhausted) {
            source.pool.exhausted.fetch_add(1, Ordering::Relaxed);
        }
        lease
    }

    /// The same; a new port is what `choose` claims.
    fn lease_by(
        &self,
        source: &Source,
        limits: &Limits,
        protocol: NatProtocol,
        (inside, remote): (Endpoint, u64),
        mut choose: impl FnMut(&Pool) -> Option<(u16, Option<u16>)>,
    ) -> Result<Lease, NoPort> {
        let pool = &*source.pool;
        let key = inside.word();
        let probe = self.index.probe(self.hash(pool.no, protocol, key, remote));
        let shared = |port| Lease {
            port,
            binding: BindingNo::new(pool.no, protocol, port),
            shared: true,
            warn: false,
            new_block: None,
        };
        // Another worker may be making or taking back the same binding: look a few times.
        for _ in 0..16 {
            if let Some(no) = self.index.find(&probe, |no| self.is(no, pool.no, protocol, key, remote)) {
                match pool.acquire(protocol, no.0 as u16, key, remote) {
                    Acquired::Yes => return Ok(shared(no.0 as u16)),
                    Acquired::Stray => {
                        self.release(BindingNo(no.0));
                    }
                    Acquired::No => std::hint::spin_loop(),
                }
                continue;
            }
            if self.has_port_share(pool, limits, protocol, inside.host()) {
                return Err(NoPort::HostShare);
            }
            let Some((port, new_block)) = choose(pool) else { return Err(NoPort::Exhausted) };
            let binding = BindingNo::new(pool.no, protocol, port);
            let is = |no| self.is(no, pool.no, protocol, key, remote);
            match self.index.publish(&probe, RecordNo(binding.0), is) {
                Ok(()) => {
                    pool.opened(protocol, port);
                    self.ports.begun(port_key(pool, protocol, inside.host()), true);
                    self.totals.bindings.fetch_add(1, Ordering::Relaxed);
                    let warn = self.warns(pool, limits, protocol);
                    return Ok(Lease { port, binding, shared: false, warn, new_block });
                }
                Err(clash) => {
                    self.give_back_block(pool, port);
                    pool.unclaim(protocol, port);
                    if clash == Clash::Full {
                        return Err(NoPort::Exhausted);
                    }
                }
            }
        }
        Err(NoPort::Exhausted)
    }

    /// True once when the pool's use passes the mark; again after it fell well below.
    fn warns(&self, pool: &Pool, limits: &Limits, protocol: NatProtocol) -> bool {
        let u = &pool.uses[protocol as usize];
        let used = u64::from(u.used.load(Ordering::Relaxed)) * 100;
        let mark = limits.capacity(protocol) * u64::from(limits.warn_percent);
        if used >= mark {
            return u.warned.swap(1, Ordering::Relaxed) == 0;
        }
        if used * 10 < mark * 9 && u.warned.load(Ordering::Relaxed) != 0 {
            u.warned.store(0, Ordering::Relaxed);
        }
        false
    }

    /// Claims a port: the inside one if it is free (RFC 4787 4.2.1), else a random one of its range
    /// and parity.
    fn choose(
        &self,
        pool: &Pool,
        limits: &Limits,
        protocol: NatProtocol,
        (inside, remote): (Endpoint, u64),
        random: &mut Random,
        tick: u32,
    ) -> Option<(u16, Option<u16>)> {
        let key = inside.word();
        let range = limits.range_for(protocol, inside.port);
        if let Some(size) = limits.port_block {
            let blocks = pool.blocks.get_or_init(|| Blocks::new(size));
            return self.choose_in_block(pool, (blocks, &range), protocol, inside, random, tick);
        }
        if limits.may_keep(protocol, inside.port) && pool.claim(protocol, inside.port, key, remote, tick) {
            return Some((inside.port, None));
        }
        for _ in 0..64 {
            let port = pool.free_port(protocol, &range, inside.port, random.draw()).or_else(|| {
                // Parity is recommended, a port is needed.
                pool.free_port(protocol, &range, inside.port ^ 1, random.draw())
            })?;
            if pool.claim(protocol, port, key, remote, tick) {
                return Some((port, None));
            }
        }
        None
    }

    /// One more session for the binding of an external port, if it is still that endpoint's.
    pub fn share(&self, binding: BindingNo, inside: Endpoint) -> bool {
        let Some(pool) = self.pool_no(binding) else { return false };
        let (protocol, port) = (binding.protocol(), binding.port());
        let Some(remote) = pool.slot(protocol, port).map(|s| s.remote.load(Ordering::Relaxed)) else {
            return false;
        };
        match pool.acquire(protocol, port, inside.word(), remote) {
            Acquired::Yes => true,
            Acquired::No => false,
            Acquired::Stray => {
                self.release(binding);
                false
            }
        }
    }

    /// A session gives its binding back. Returns what became of it.
    pub fn release(&self, binding: BindingNo) -> Released {
        let Some(pool) = self.pool_no(binding) else { return Released::default() };
        let (protocol, port) = (binding.protocol(), binding.port());
        let mut released = Released::default();
        released.binding = pool.let_go(protocol, port, |inside, remote| {
            let probe = self.index.probe(self.hash(pool.no, protocol, inside, remote));
            self.index.withdraw(&probe, RecordNo(binding.0));
            self.totals.bindings.fetch_sub(1, Ordering::Relaxed);
            if self.give_back_block(pool, port) {
                released.block = pool.blocks.get().map(|b| b.of(port));
            }
            let inside = Endpoint::from_word(inside);
            self.ports.ended(port_key(pool, protocol, inside.host()), true);
            released.inside = Some(inside);
        });
        released
    }

    /// A block was allocated to a host, or has come back.
    pub fn block_event(&self, binding: BindingNo, block: u16, host: InsideHost, allocated: bool) -> Event {
        let pool = self.pool_no(binding);
        let external = pool.map_or(Ipv4Addr::UNSPECIFIED, Pool::addr);
        let ports = pool.and_then(|p| p.blocks.get()).map_or(0..=0, |b| b.ports(block));
        let (first, last) = ports.into_inner();
        let (host, vrf) = (self.host_address(host.addr), host.vrf);
        match allocated {
            true => Event::BlockAllocated { host, vrf, external, first, last },
            false => Event::BlockReleased { host, vrf, external, first, last },
        }
    }

    /// Takes a binding over that an earlier daemon allocated: the session of these endpoints holds it.
    pub(crate) fn adopt(
        &self,
        pool: &Pool,
        protocol: NatProtocol,
        (inside, outside): (Endpoint, u16),
        remote: u64,
        port_block: Option<u16>,
        tick: u32,
    ) -> Option<BindingNo> {
        let binding = BindingNo::new(pool.no, protocol, outside);
        let key = inside.word();
        match pool.acquire(protocol, outside, key, remote) {
            Acquired::Yes => return Some(binding),
            Acquired::Stray => {
                self.release(binding);
                return None;
            }
            Acquired::No => {}
        }
        if !pool.claim(protocol, outside, key, remote, tick) {
            return None;
        }
        let probe = self.index.probe(self.hash(pool.no, protocol, key, remote));
        let is = |no| self.is(no, pool.no, protocol, key, remote);
        if self.index.publish(&probe, RecordNo(binding.0), is).is_err() {
            pool.unclaim(protocol, outside);
            return None;
        }
        if let Some(size) = port_block {
            let blocks = pool.blocks.get_or_init(|| Blocks::new(size));
            blocks.take(blocks.of(outside), inside.host());
        }
        pool.opened(protocol, outside);
        self.ports.begun(port_key(pool, protocol, inside.host()), true);
        self.totals.bindings.fetch_add(1, Ordering::Relaxed);
        Some(binding)
    }

    /// Counts a translated session of a host. False: no room to count it.
    pub fn host_session_started(&self, host: InsideHost) -> bool {
        let ok = self.hosts.increment(host.word());
        if !ok {
            self.totals.uncounted.fetch_add(1, Ordering::Relaxed);
        }
        ok
    }

    /// Translated sessions of a host.
    pub fn host_sessions(&self, host: InsideHost) -> u64 {
        self.hosts.get(host.word())
    }

    /// A translated session of a host has ended.
    pub fn host_session_ended(&self, host: InsideHost) {
        self.hosts.decrement(host.word());
    }

    /// Notes that a binding sent to an address. False: no room to note it.
    pub fn add_filter_entry(&self, binding: BindingNo, remote: Ipv4Addr) -> bool {
        let ok = self.filter_entries.increment(filter_key(binding, remote));
        if !ok {
            self.totals.uncounted.fetch_add(1, Ordering::Relaxed);
        }
        ok
    }

    /// Takes back what [`NatState::add_filter_entry`] noted.
    pub fn remove_filter_entry(&self, binding: BindingNo, remote: Ipv4Addr) {
        self.filter_entries.decrement(filter_key(binding, remote));
    }

    /// Whether a binding has sent to an address (RFC 4787 section 5).
    pub fn filter_admits(&self, binding: BindingNo, remote: Ipv4Addr) -> bool {
        self.filter_entries.get(filter_key(binding, remote)) > 0
    }
}

fn filter_key(b: BindingNo, remote: Ipv4Addr) -> u64 {
    // Pool, protocol (TCP or UDP) and port: 23 bits.
    let short = u64::from(b.0 >> 18) << 17 | (b.protocol() as u64 & 1) << 16 | u64::from(b.port());
    u64::from(remote.to_bits()) << 23 | short
}
