//! Counters of one worker. One thread writes, others read: plain loads and stores, no locked
//! instruction. Every packet given to the pipeline ends in exactly one of `forwarded`, `to_kernel`,
//! `dropped` or (for a while) `held`, counted at the port where it arrived.

use crate::ids::TunnelNo;
use sag_model::{DropReason, PortIdx};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that one thread writes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes `n` away: of a gauge.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// The value; any thread may read it.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one port, written by one worker.
#[derive(Debug)]
#[repr(align(64))]
pub struct PortCounters {
    /// Packets that arrived here.
    pub rx_packets: Counter,
    /// Frame bytes that arrived here.
    pub rx_bytes: Counter,
    /// Arrived here and left by some port.
    pub forwarded: Counter,
    /// Arrived here and given to the kernel.
    pub to_kernel: Counter,
    /// Arrived here and wait for a neighbour or for their first fragment (a gauge).
    pub held: Counter,
    /// Packets that left here.
    pub tx_packets: Counter,
    /// Frame bytes that left here.
    pub tx_bytes: Counter,
    /// Of these, made by the gateway: ICMP errors, second and later fragments.
    pub originated: Counter,
    /// ICMP errors not sent because of the rate limit.
    pub icmp_suppressed: Counter,
    /// Arrived here with a partial checksum, which was completed.
    pub partial_checksums: Counter,
    /// Arrived here and dropped, by [`DropReason::index`].
    pub drops: [Counter; DropReason::COUNT],
}

impl Default for PortCounters {
    fn default() -> Self {
        PortCounters {
            rx_packets: Counter::default(),
            rx_bytes: Counter::default(),
            forwarded: Counter::default(),
            to_kernel: Counter::default(),
            held: Counter::default(),
            tx_packets: Counter::default(),
            tx_bytes: Counter::default(),
            originated: Counter::default(),
            icmp_suppressed: Counter::default(),
            partial_checksums: Counter::default(),
            drops: std::array::from_fn(|_| Counter::default()),
        }
    }
}

/// Counters of one tunnel, written by one worker: packets inside and their IP bytes.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct TunnelCounters {
    /// Packets that came out of the tunnel.
    pub rx_packets: Counter,
    /// Their IP bytes.
    pub rx_bytes: Counter,
    /// Packets that were sent into the tunnel.
    pub tx_packets: Counter,
    /// Their IP bytes.
    pub tx_bytes: Counter,
    /// Packets dropped at the tunnel.
    pub drops: Counter,
    /// NAT keepalives sent.
    pub keepalives: Counter,
    /// Repairs sent.
    pub fec_repairs: Counter,
    /// Bytes of repairs and of the headers of error correction.
    pub fec_overhead: Counter,
    /// Packets recovered.
    pub fec_recovered: Counter,
    /// Windows with packets that are lost for good.
    pub fec_unrecoverable: Counter,
    /// The machine's own traffic, by the kernel's device.
    pub device: DeviceCounters,
}

/// Why what the kernel sends by the device of a tunnel is dropped; anything else is a packet that is malformed.
pub const DEVICE_DROPS: [DropReason; 8] = [
    DropReason::TunnelDown,
    DropReason::TunnelSource,
    DropReason::MtuExceeded,
    DropReason::NeighborFailed,
    DropReason::TxRingFull,
    DropReason::EspNoKeys,
    DropReason::EspExhausted,
    DropReason::EspUnreserved,
];

/// Packets of the machine itself, by the kernel's device of a tunnel. They are among those of the tunnel.
#[derive(Debug, Default)]
pub struct DeviceCounters {
    /// Given to the kernel.
    pub rx_packets: Counter,
    /// Sent through the tunnel.
    pub tx_packets: Counter,
    /// Sent by the kernel and dropped, in the order of [`DEVICE_DROPS`].
    pub drops: [Counter; DEVICE_DROPS.len()],
    /// The same, malformed.
    pub malformed: Counter,
}

impl DeviceCounters {
    /// Counts a packet of the kernel's that is dropped.
    pub fn dropped(&self, reason: DropReason) {
        let at = DEVICE_DROPS.iter().position(|r| *r == reason);
        at.and_then(|i| self.drops.get(i)).unwrap_or(&self.malformed).add(1);
    }
}

impl TunnelCounters {
    /// Counts a packet of `ip_len` bytes that was sent into the tunnel.
    #[inline]
    pub fn sent(&self, ip_len: usize) {
        self.tx_packets.add(1);
        self.tx_bytes.add(ip_len as u64);
    }

    /// Counts a packet of `ip_len` bytes that came out of the tunnel.
    #[inline]
    pub fn received(&self, ip_len: usize) {
        self.rx_packets.add(1);
        self.rx_bytes.add(ip_len as u64);
    }
}

/// Everything that one worker counts.
#[derive(Debug)]
pub struct Counters {
    ports: Box<[PortCounters]>,
    tunnels: Box<[TunnelCounters]>,
    /// Sessions that this worker has created.
    pub sessions_created: Counter,
    /// Sessions that this worker has ended.
    pub sessions_ended: Counter,
    /// Batches with packets.
    pub batches: Counter,
    /// Packets in these batches.
    pub packets: Counter,
    /// Time spent on batches with packets, for the busy percentage.
    pub busy_ns: Counter,
}

impl Counters {
    /// All at zero, for every port and tunnel there may be.
    pub fn new() -> Arc<Counters> {
        Arc::new(Counters {
            ports: (0..PortIdx::MAX).map(|_| PortCounters::default()).collect(),
            tunnels: (0..=TunnelNo::MAX).map(|_| TunnelCounters::default()).collect(),
            sessions_created: Counter::default(),
            sessions_ended: Counter::default(),
            batches: Counter::default(),
            packets: Counter::default(),
            busy_ns: Counter::default(),
        })
    }

    /// Counters of a port; indices beyond the table share the last one.
    #[inline]
    pub fn port(&self, port: PortIdx) -> &PortCounters {
        &self.ports[port.index().min(PortIdx::MAX - 1)]
    }

    /// Counters of a tunnel.
    #[inline]
    pub fn tunnel(&self, no: TunnelNo) -> &TunnelCounters {
        &self.tunnels[no.index()]
    }

    /// Counts a packet from `port` that is dropped.
    #[inline]
    pub fn count_drop(&self, port: PortIdx, reason: DropReason) {
        self.port(port).drops[reason.index() % DropReason::COUNT].add(1);
    }
}

impl PortCounters {
    /// Packets dropped, for whatever reason.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(Counter::get).sum()
    }

    /// In equals out plus drops plus kernel plus waiting.
    pub fn balanced(&self) -> bool {
        self.rx_packets.get()
            == self.forwarded.get() + self.to_kernel.get() + self.dropped() + self.held.get()
    }
}
