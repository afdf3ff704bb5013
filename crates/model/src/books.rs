//! The books of a port: what one worker counts there. One thread writes, others read: plain loads
//! and stores, no locked instruction.
//!
//! In the daemon the books lie in a pinned map (`struct gw_books` in `bpf/include/gw_abi.h`), so that
//! they go on over a restart as XDP's own counters do.

use crate::DropReason;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that one thread writes.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one port, written by one worker.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct PortCounters {
    /// Packets and frame bytes that arrived here.
    pub rx_packets: Counter,
    pub rx_bytes: Counter,
    /// Arrived here and left by some port.
    pub forwarded: Counter,
    pub to_kernel: Counter,
    /// Arrived here and wait for a neighbour (a gauge).
    pub held: Counter,
    /// Packets and frame bytes that left here.
    pub tx_packets: Counter,
    pub tx_bytes: Counter,
    /// Of these, made by the gateway: ICMP errors, second and later fragments.
    pub originated: Counter,
    /// ICMP errors not sent because of the rate limit.
    pub icmp_suppressed: Counter,
    pub spare: [Counter; 7],
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
            spare: std::array::from_fn(|_| Counter::default()),
            drops: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl PortCounters {
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(Counter::get).sum()
    }

    /// In equals out plus drops plus kernel plus waiting.
    pub fn balanced(&self) -> bool {
        self.rx_packets.get()
            == self.forwarded.get() + self.to_kernel.get() + self.dropped() + self.held.get()
    }
}

const _: () = assert!(size_of::<PortCounters>() == 8 * (16 + DropReason::COUNT));
