//! Counters of ports: XDP's and the workers' together.
//!
//! They hold the packet accounting invariant: every received packet is forwarded, handed to the kernel, held, or dropped
//! with a reason.

use super::publisher::Publisher;
use super::telemetry::Telemetry;
use super::workers::Workers;
use sag_bpf::{PortStats, PuntReason};
use sag_model::{DropReason, PortIdx};
use std::sync::atomic::Ordering;

/// The counters of one port since the daemon has started.
#[derive(Debug, Clone, Copy)]
pub struct PortCounters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub forwarded: u64,
    /// Of these, by XDP alone.
    pub fast: u64,
    /// Handed to a worker.
    pub punted: u64,
    pub to_kernel: u64,
    pub held: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Sent by the gateway of its own accord, such as ICMP errors.
    pub originated: u64,
    /// By [`DropReason::index`].
    pub drops: [u64; DropReason::COUNT],
}

/// The counters of a port.
pub fn port_counters(
    idx: PortIdx,
    publisher: &Publisher,
    workers: &Workers,
    telemetry: &Telemetry,
) -> PortCounters {
    let now = publisher.gateway.stats(idx).unwrap_or_default();
    let base = telemetry.xdp_base(idx);
    let since = |f: fn(&PortStats) -> u64| f(&now).saturating_sub(f(&base));
    let mut c = PortCounters {
        rx_packets: since(|s| s.rx_packets),
        rx_bytes: since(|s| s.rx_bytes),
        forwarded: since(|s| s.fast),
        fast: since(|s| s.fast),
        to_kernel: since(|s| s.to_kernel),
        punted: since(|s| s.punted),
        held: 0,
        tx_packets: since(|s| s.tx_packets),
        tx_bytes: since(|s| s.tx_bytes),
        originated: since(|s| s.originated),
        drops: [0; DropReason::COUNT],
    };
    for r in DropReason::ALL {
        c.drops[r.index()] += now.drops(*r).saturating_sub(base.drops(*r));
    }
    for w in workers.shared() {
        let of_worker = w.counters.port(idx);
        c.forwarded += of_worker.forwarded.get();
        c.to_kernel += of_worker.to_kernel.get();
        c.held += of_worker.held.get();
        c.tx_packets += of_worker.tx_packets.get();
        c.tx_bytes += of_worker.tx_bytes.get();
        c.originated += of_worker.originated.get();
        for r in DropReason::ALL {
            c.drops[r.index()] += of_worker.drops[r.index()].get();
        }
    }
    let dev = publisher.snapshot.port(idx).map(|p| p.dev);
    let lost = dev.map_or(0, |dev| lost_before_workers((idx, dev), c.punted, workers, telemetry));
    c.drops[DropReason::RxRingFull.index()] += lost;
    c
}

/// Packets that XDP handed over and no worker saw, as far as they are known to be lost: counted
/// by a socket's full rings, or left in the rings of a socket that was closed.
fn lost_before_workers(
    (idx, dev): (PortIdx, u8),
    punted: u64,
    workers: &Workers,
    telemetry: &Telemetry,
) -> u64 {
    let rings = workers.shared().filter_map(|w| w.rx_lost.get(usize::from(dev)));
    let rings: u64 = rings.map(|n| n.load(Ordering::Relaxed)).sum();
    not_received(idx, punted, workers).min(rings + telemetry.lost_in_closed_sockets(idx))
}

/// Packets that XDP handed over and no worker has received, yet or ever.
pub fn not_received(idx: PortIdx, punted: u64, workers: &Workers) -> u64 {
    let received: u64 = workers.shared().map(|w| w.counters.port(idx).rx_packets.get()).sum();
    punted.saturating_sub(received)
}

/// Packets of a port that were handed to a worker, by reason in the order of [`PuntReason::ALL`].
pub fn punts_by_reason(idx: PortIdx, publisher: &Publisher, telemetry: &Telemetry) -> Vec<u64> {
    let now = publisher.gateway.stats(idx).unwrap_or_default();
    let base = telemetry.xdp_base(idx);
    PuntReason::ALL.iter().map(|r| now.punts(*r).saturating_sub(base.punts(*r))).collect()
}
