//! An external address and its ports. A slot is one external port of one
//! protocol: who has it inside, and how many sessions use it. Found by number, without a search.

use crate::table::prefetch;
use sag_model::VrfNo;
use sag_packet::proto::{ICMP, TCP, UDP};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// External addresses with ports to allocate at one time: the numbers of XDP's port maps.
pub const POOLS: usize = 64;
/// Words of one protocol's ports.
pub const PORT_WORDS: usize = 65536 / 64;
/// Words of one pool in the map of the ports whose packets XDP gives to workers: TCP, then UDP.
pub const POOL_WORDS: usize = 2 * PORT_WORDS;

/// Protocols with ports or identifiers to allocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum NatProtocol {
    /// TCP ports.
    Tcp = 0,
    /// UDP ports.
    Udp = 1,
    /// Identifiers of ICMP queries.
    Icmp = 2,
}

impl NatProtocol {
    /// All of them, by number.
    pub const ALL: [NatProtocol; 3] = [NatProtocol::Tcp, NatProtocol::Udp, NatProtocol::Icmp];

    /// Of an IP protocol; `None`: it has nothing to allocate.
    pub const fn of(proto: u8) -> Option<NatProtocol> {
        match proto {
            TCP => Some(NatProtocol::Tcp),
            UDP => Some(NatProtocol::Udp),
            ICMP => Some(NatProtocol::Icmp),
            _ => None,
        }
    }

    /// Its IP protocol.
    pub const fn proto(self) -> u8 {
        match self {
            NatProtocol::Tcp => TCP,
            NatProtocol::Udp => UDP,
            NatProtocol::Icmp => ICMP,
        }
    }

    /// Its word in events and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            NatProtocol::Tcp => "tcp",
            NatProtocol::Udp => "udp",
            NatProtocol::Icmp => "icmp",
        }
    }
}

/// An address and a port (or identifier) in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address.
    pub addr: Ipv4Addr,
    /// Port or identifier.
    pub port: u16,
    /// The VRF in which the address is. Of an external endpoint it does not count: its address is in one alone.
    pub vrf: VrfNo,
}

impl Endpoint {
    /// In the default VRF.
    pub const fn new(addr: Ipv4Addr, port: u16) -> Endpoint {
        Endpoint { addr, port, vrf: VrfNo::DEFAULT }
    }

    /// Its host.
    pub const fn host(self) -> InsideHost {
        InsideHost { addr: self.addr, vrf: self.vrf }
    }

    /// All of an endpoint inside.
    pub(super) const fn word(self) -> u64 {
        (self.vrf.get() as u64) << 48 | self.outside_word()
    }

    /// Address and port of an endpoint outside.
    pub(super) const fn outside_word(self) -> u64 {
        (self.addr.to_bits() as u64) << 16 | self.port as u64
    }

    pub(super) const fn from_word(w: u64) -> Endpoint {
        let vrf = match VrfNo::new((w >> 48) as u8) {
            Some(vrf) => vrf,
            None => VrfNo::DEFAULT,
        };
        Endpoint { addr: Ipv4Addr::from_bits((w >> 16) as u32), port: w as u16, vrf }
    }
}

/// A host inside: hosts of two VRFs may have the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InsideHost {
    /// The address.
    pub addr: Ipv4Addr,
    /// The VRF in which it is.
    pub vrf: VrfNo,
}

impl InsideHost {
    /// In the default VRF.
    pub const fn new(addr: Ipv4Addr) -> InsideHost {
        InsideHost { addr, vrf: VrfNo::DEFAULT }
    }

    /// Both in 38 bits.
    pub const fn word(self) -> u64 {
        (self.vrf.get() as u64) << 32 | self.addr.to_bits() as u64
    }

    /// From such a word; `None`: it is none.
    pub const fn from_word(w: u64) -> Option<InsideHost> {
        match VrfNo::new((w >> 32) as u8) {
            Some(vrf) => Some(InsideHost { addr: Ipv4Addr::from_bits(w as u32), vrf }),
            None => None,
        }
    }
}

/// Number of a binding: pool, protocol and port. Never 0, since port 0 is never allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BindingNo(pub u32);

impl BindingNo {
    pub(crate) const fn new(pool: u8, protocol: NatProtocol, port: u16) -> BindingNo {
        BindingNo((pool as u32) << 18 | (protocol as u32) << 16 | port as u32)
    }

    /// Index of the pool in [`super::NatState::pools`].
    pub const fn pool(self) -> usize {
        (self.0 >> 18) as usize % POOLS
    }

    /// The protocol of the port.
    pub const fn protocol(self) -> NatProtocol {
        match self.0 >> 16 & 3 {
            0 => NatProtocol::Tcp,
            1 => NatProtocol::Udp,
            _ => NatProtocol::Icmp,
        }
    }

    /// The external port, in host order.
    pub const fn port(self) -> u16 {
        self.0 as u16
    }
}

/// [`PortSlot::refs`] while one worker makes or takes back the binding.
pub(super) const LOCKED: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(super) struct PortSlot {
    /// Inside endpoint.
    pub inside: AtomicU64,
    /// Remote endpoint of a mapping that depends on it, as far as it does; else 0.
    pub remote: AtomicU64,
    /// Sessions that use it; 0 = free.
    pub refs: AtomicU32,
    /// Tick at which it was allocated.
    pub since: AtomicU32,
}

/// What became of an attempt to share a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acquired {
    Yes,
    No,
    /// It became another one's meanwhile: to be let go again.
    Stray,
}

/// Use of one protocol's ports.
#[derive(Debug, Default)]
pub struct Use {
    pub used: AtomicU32,
    pub peak: AtomicU32,
    /// An event has reported that few are left.
    pub warned: AtomicU32,
}

/// The ports of one external address.
#[derive(Debug)]
pub struct Pool {
    /// Its number, below [`POOLS`].
    pub no: u8,
    /// Changes only while nobody else knows the pool.
    addr: AtomicU32,
    /// Made when the address first allocates ports.
    slots: OnceLock<Box<[PortSlot]>>,
    /// A bit for each port that is allocated, to find a free one.
    taken: Box<[AtomicU64]>,
    /// Ports of static forwards: never allocated.
    fixed: Box<[AtomicU64]>,
    /// Ports on which the gateway itself listens: not allocated.
    reserved: Box<[AtomicU64]>,
    /// Ports at which the gateway's tunnels end.
    tunnels: Box<[AtomicU64]>,
    /// XDP's copy: in use or forwarded.
    xdp_port_bitmap: &'static [AtomicU64],
    /// Use of ports, by [`NatProtocol`].
    pub uses: [Use; 3],
    /// Sessions refused because no port was free.
    pub exhausted: AtomicU64,
    /// Packets that no binding, entry or filter admitted.
    pub filtered: AtomicU64,
    pub(super) blocks: OnceLock<super::blocks::Blocks>,
    /// Who may send to a port that a host has asked for, by TCP and UDP port; made with the first one.
    pub(super) admitted: OnceLock<Box<[AtomicU16]>>,
}

fn words(n: usize) -> Box<[AtomicU64]> {
    (0..n).map(|_| AtomicU64::new(0)).collect()
}

impl Pool {
    pub(super) fn new(no: u8, addr: Ipv4Addr, xdp_port_bitmap: &'static [AtomicU64]) -> Pool {
        Pool {
            no,
            addr: AtomicU32::new(addr.to_bits()),
            slots: OnceLock::new(),
            taken: words(3 * PORT_WORDS),
            fixed: words(POOL_WORDS),
            reserved: words(POOL_WORDS),
            tunnels: words(POOL_WORDS),
            xdp_port_bitmap,
            uses: Default::default(),
            exhausted: AtomicU64::new(0),
            filtered: AtomicU64::new(0),
            blocks: OnceLock::new(),
            admitted: OnceLock::new(),
        }
    }

    /// Shows XDP no port of it. For a pool that nobody else knows yet.
    pub(super) fn clear_xdp_ports(&self) {
        self.xdp_port_bitmap.iter().for_each(|w| w.store(0, Ordering::Relaxed));
    }

    /// The external address.
    pub fn addr(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.addr.load(Ordering::Relaxed))
    }

    /// Whether nothing is in use.
    pub(super) fn idle(&self) -> bool {
        self.uses.iter().all(|u| u.used.load(Ordering::Acquire) == 0)
    }

    /// Makes an idle pool, which nobody else knows, that of another address.
    pub(super) fn become_another(&self, addr: Ipv4Addr) {
        self.addr.store(addr.to_bits(), Ordering::Relaxed);
        for u in &self.uses {
            u.peak.store(0, Ordering::Relaxed);
            u.warned.store(0, Ordering::Relaxed);
        }
        self.exhausted.store(0, Ordering::Relaxed);
        self.filtered.store(0, Ordering::Relaxed);
        self.reserve(&[]);
        self.fix(&[0; POOL_WORDS]);
    }

    /// Makes the ports on which the gateway itself listens exactly these: bits as in `xdp_port_bitmap`.
    /// What is allocated already stays so.
    pub fn reserve(&self, wanted: &[u64]) {
        for (i, r) in self.reserved.iter().enumerate() {
            r.store(wanted.get(i).copied().unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// Makes the ports at which the gateway's tunnels end exactly these. What is allocated already stays so: its session ends
    /// when it is evaluated again.
    pub(super) fn leave_to_tunnels(&self, wanted: &[u64]) {
        for (t, want) in self.tunnels.iter().zip(wanted) {
            t.store(*want, Ordering::Relaxed);
        }
    }

    /// Ports of static forwards, as in `xdp_port_bitmap`.
    pub fn forwarded(&self) -> Vec<u64> {
        self.fixed.iter().map(|w| w.load(Ordering::Relaxed)).collect()
    }

    /// Makes room for allocations. Called by the control thread before a snapshot uses the pool so.
    pub fn allocate_slots(&self) {
        self.slots.get_or_init(|| (0..3 * 65536).map(|_| PortSlot::default()).collect());
    }

    /// Whether ports can be allocated.
    pub fn has_slots(&self) -> bool {
        self.slots.get().is_some()
    }

    /// Bytes of the pool.
    pub fn memory(&self) -> usize {
        let slots = self.slots.get().map_or(0, |s| size_of_val(&**s));
        slots + size_of_val(&*self.taken) + size_of_val(&*self.fixed) + size_of_val(self.xdp_port_bitmap)
    }

    pub(super) fn slot(&self, protocol: NatProtocol, port: u16) -> Option<&PortSlot> {
        self.slots.get().map(|s| &s[(protocol as usize) << 16 | usize::from(port)])
    }

    /// This port is needed soon: brings its slot into the cache.
    pub(super) fn prefetch_slot(&self, protocol: NatProtocol, port: u16) {
        if let Some(slot) = self.slot(protocol, port) {
            // It may lie across two lines.
            prefetch(&slot.inside);
            prefetch(&slot.since);
        }
    }

    /// Who inside has an external port, if it is allocated: by its binding.
    pub fn inside(&self, protocol: NatProtocol, port: u16) -> Option<(Endpoint, BindingNo)> {
        let slot = self.slot(protocol, port)?;
        let live = |n| n != 0 && n != LOCKED;
        let before = slot.refs.load(Ordering::Acquire);
        let inside = slot.inside.load(Ordering::Acquire);
        let after = slot.refs.load(Ordering::Acquire);
        (live(before) && live(after))
            .then(|| (Endpoint::from_word(inside), BindingNo::new(self.no, protocol, port)))
    }

    /// One more session for a live binding, if it still is what the caller takes it for.
    pub(super) fn acquire(&self, protocol: NatProtocol, port: u16, inside: u64, remote: u64) -> Acquired {
        let Some(slot) = self.slot(protocol, port) else { return Acquired::No };
        let mut n = slot.refs.load(Ordering::Acquire);
        while n != 0 && n < LOCKED - 1 {
            match slot.refs.compare_exchange_weak(n, n + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let same = slot.inside.load(Ordering::Relaxed) == inside
                        && slot.remote.load(Ordering::Relaxed) == remote;
                    return if same { Acquired::Yes } else { Acquired::Stray };
                }
                Err(now) => n = now,
            }
        }
        Acquired::No
    }

    /// Claims a free port; it is found by others only when [`Pool::opened`] was called.
    pub(super) fn claim(
        &self,
        protocol: NatProtocol,
        port: u16,
        inside: u64,
        remote: u64,
        tick: u32,
    ) -> bool {
        if port == 0 || self.is_fixed(protocol, port) || self.is_reserved(protocol, port) {
            return false;
        }
        let Some(slot) = self.slot(protocol, port) else { return false };
        if slot.refs.compare_exchange(0, LOCKED, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        slot.inside.store(inside, Ordering::Relaxed);
        slot.remote.store(remote, Ordering::Relaxed);
        slot.since.store(tick, Ordering::Relaxed);
        true
    }

    /// The claimed port is allocated: for one session, for now.
    pub(super) fn opened(&self, protocol: NatProtocol, port: u16) {
        let bit = 1 << (port % 64);
        self.taken[word_of(protocol, port)].fetch_or(bit, Ordering::Relaxed);
        self.show(protocol, port);
        let u = &self.uses[protocol as usize];
        let used = u.used.fetch_add(1, Ordering::Relaxed) + 1;
        if u.peak.load(Ordering::Relaxed) < used {
            u.peak.fetch_max(used, Ordering::Relaxed);
        }
        if let Some(s) = self.slot(protocol, port) {
            s.refs.store(1, Ordering::Release);
        }
    }

    /// Gives the claimed port back unused.
    pub(super) fn unclaim(&self, protocol: NatProtocol, port: u16) {
        if let Some(s) = self.slot(protocol, port) {
            s.refs.store(0, Ordering::Release);
        }
    }

    /// One session less. With the last one the port is free again, after `last` has run with the
    /// inside and remote words. True: it was the last.
    pub(super) fn let_go(&self, protocol: NatProtocol, port: u16, last: impl FnOnce(u64, u64)) -> bool {
        let Some(slot) = self.slot(protocol, port) else { return false };
        let mut n = slot.refs.load(Ordering::Acquire);
        loop {
            let new = match n {
                0 | LOCKED => return false,
                1 => LOCKED,
                more => more - 1,
            };
            match slot.refs.compare_exchange_weak(n, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if new != LOCKED => return false,
                Ok(_) => break,
                Err(now) => n = now,
            }
        }
        last(slot.inside.load(Ordering::Relaxed), slot.remote.load(Ordering::Relaxed));
        self.taken[word_of(protocol, port)].fetch_and(!(1 << (port % 64)), Ordering::Relaxed);
        if !self.is_fixed(protocol, port) {
            self.hide(protocol, port);
        }
        self.uses[protocol as usize].used.fetch_sub(1, Ordering::Relaxed);
        slot.refs.store(0, Ordering::Release);
        true
    }

    fn show(&self, protocol: NatProtocol, port: u16) {
        if let Some(w) = self.xdp_port_bitmap.get(word_of(protocol, port)) {
            w.fetch_or(1 << (port % 64), Ordering::Release);
        }
    }

    fn hide(&self, protocol: NatProtocol, port: u16) {
        if let Some(w) = self.xdp_port_bitmap.get(word_of(protocol, port)) {
            w.fetch_and(!(1 << (port % 64)), Ordering::Relaxed);
        }
    }

    pub(crate) fn is_fixed(&self, protocol: NatProtocol, port: u16) -> bool {
        self.fixed
            .get(word_of(protocol, port))
            .is_some_and(|w| w.load(Ordering::Relaxed) >> (port % 64) & 1 == 1)
    }

    pub(crate) fn is_reserved(&self, protocol: NatProtocol, port: u16) -> bool {
        [&self.reserved, &self.tunnels].into_iter().any(|bits| {
            bits.get(word_of(protocol, port))
                .is_some_and(|w| w.load(Ordering::Relaxed) >> (port % 64) & 1 == 1)
        })
    }

    /// Makes the ports of static forwards exactly these: bits as in `xdp_port_bitmap`.
    pub fn fix(&self, wanted: &[u64]) {
        for (i, (f, want)) in self.fixed.iter().zip(wanted).enumerate() {
            f.store(*want, Ordering::Relaxed);
            let Some(bitmap) = self.xdp_port_bitmap.get(i) else { continue };
            // The bit of a port that is in use stays set all the while. A port is noted as taken before its bit in the bitmap is set.
            let cleared = bitmap.load(Ordering::Acquire);
            let cleared = cleared & !(want | self.taken[i].load(Ordering::Acquire));
            bitmap.fetch_or(*want, Ordering::Relaxed);
            bitmap.fetch_and(!cleared, Ordering::Relaxed);
            bitmap.fetch_or(self.taken[i].load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// A port of the range that is free, of the same parity as `like`, from a random place on.
    pub(super) fn free_port(
        &self,
        protocol: NatProtocol,
        range: &RangeInclusive<u16>,
        like: u16,
        random: u64,
    ) -> Option<u16> {
        let parity: u64 = match protocol {
            NatProtocol::Icmp => u64::MAX,
            // RFC 4787 REQ-4: RTP uses pairs of an even and an odd port.
            _ if like & 1 == 1 => 0xAAAA_AAAA_AAAA_AAAA,
            _ => 0x5555_5555_5555_5555,
        };
        let (lo, hi) = (usize::from(*range.start()), usize::from(*range.end()));
        let start = lo + (random as usize >> 8) % (hi - lo + 1);
        let base = (protocol as usize) * PORT_WORDS;
        let words = hi / 64 - lo / 64 + 1;
        for n in 0..=words {
            let w = lo / 64 + (start / 64 - lo / 64 + n) % words;
            let mut free = !self.taken[base + w].load(Ordering::Relaxed) & parity;
            for excluded in [&self.fixed, &self.reserved, &self.tunnels] {
                free &= !excluded.get(base + w).map_or(0, |f| f.load(Ordering::Relaxed));
            }
            if w == lo / 64 {
                free &= u64::MAX << (lo % 64);
            }
            if w == hi / 64 {
                free &= u64::MAX >> (63 - hi % 64);
            }
            if n == 0 {
                // From the start on; what is before it in this word comes last.
                free &= u64::MAX << (start % 64);
            }
            if free != 0 {
                return Some((w * 64) as u16 + free.trailing_zeros() as u16);
            }
        }
        None
    }

    /// The number of a port's binding.
    pub fn binding_no(&self, protocol: NatProtocol, port: u16) -> BindingNo {
        BindingNo::new(self.no, protocol, port)
    }

    /// Every live binding of a protocol, with its sessions and those who hold it without one.
    pub fn bindings(&self, protocol: NatProtocol) -> impl Iterator<Item = (u16, Endpoint, u32)> {
        let slots = self.slots.get().map(|s| &s[(protocol as usize) << 16..][..65536]).unwrap_or(&[]);
        slots.iter().zip(0..=u16::MAX).filter_map(|(s, port)| {
            let n = s.refs.load(Ordering::Acquire);
            (n != 0 && n != LOCKED).then(|| (port, Endpoint::from_word(s.inside.load(Ordering::Relaxed)), n))
        })
    }
}

/// The word of a port's bit: TCP and UDP in front.
const fn word_of(protocol: NatProtocol, port: u16) -> usize {
    protocol as usize * PORT_WORDS + port as usize / 64
}
