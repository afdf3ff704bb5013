//! Shared words beside the flows: next hops, revalidation queues, the control block.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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
    /// [`Geometry`](super::Geometry) of the live index.
    pub index4: AtomicU64,
    /// [`Geometry`](super::Geometry) of the live IPv6 index.
    pub index6: AtomicU64,
    /// XDP action for packets that need a worker while there is none: 1 drop, 2 pass.
    pub fail_action: AtomicU32,
    /// [`FAST_PATH_ON`], [`FAST_PATH_SUMS`] and [`FAST_PATH_NAT64`].
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

/// In [`ControlBlock::fast_path`]: XDP forwards established flows; else they go to the workers, too.
pub const FAST_PATH_ON: u32 = 1 << 0;
/// In [`ControlBlock::fast_path`]: some sender leaves checksums to an offload, so XDP looks for partial ones. Workers and XDP set it.
pub const FAST_PATH_SUMS: u32 = 1 << 1;
/// In [`ControlBlock::fast_path`]: IPv4 packets without a session may be of one in the table of IPv6.
pub const FAST_PATH_NAT64: u32 = 1 << 2;

impl ControlBlock {
    /// Whether XDP forwards established flows from now on.
    pub fn switch_fast_path(&self, on: bool) {
        self.switch(FAST_PATH_ON, on);
    }

    /// Whether XDP looks for NAT64 sessions of IPv4 packets from now on.
    pub fn switch_nat64(&self, on: bool) {
        self.switch(FAST_PATH_NAT64, on);
    }

    fn switch(&self, bit: u32, on: bool) {
        if on {
            self.fast_path.fetch_or(bit, Ordering::Release);
        } else {
            self.fast_path.fetch_and(!bit, Ordering::Release);
        }
    }

    /// A partial checksum was seen: XDP looks at all from now on. Stays, since flows outlive the daemon.
    pub fn look_for_partial_checksums(&self) {
        if self.fast_path.load(Ordering::Relaxed) & FAST_PATH_SUMS == 0 {
            self.fast_path.fetch_or(FAST_PATH_SUMS, Ordering::Release);
        }
    }
}

/// `struct gw_syn_control`: what XDP and workers make SYN cookies by, and which services answer with them.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct SynCookieControl {
    /// SipHash keys of the two time slots.
    pub secret: [[AtomicU64; 2]; 2],
    /// Bit by service: XDP answers its SYNs.
    pub active: AtomicU64,
    /// The slot of the cookies made now.
    pub slot: AtomicU32,
    /// How many services there are; 0: XDP looks at no packet.
    pub services: AtomicU32,
    /// The segment size that SYN-ACKs of IPv4 announce.
    pub mss4: AtomicU32,
    /// The same of IPv6.
    pub mss6: AtomicU32,
    /// Unused.
    pub pad: AtomicU64,
}

impl SynCookieControl {
    /// Whether the SYNs of a service are answered with cookies.
    pub fn is_active(&self, service: u8) -> bool {
        self.active.load(Ordering::Relaxed) >> (service % SYN_SERVICES as u8) & 1 != 0
    }
}

/// Services that SYN cookies can protect.
pub const SYN_SERVICES: usize = 64;

const _: () = {
    assert!(size_of::<SynCookieControl>() == 64);
    assert!(size_of::<NextHopRecord>() == 32);
    assert!(size_of::<ControlBlock>() == 64);
};
