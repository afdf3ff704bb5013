//! The books of the ports: XDP's counters and the workers', put together so that they balance.

use super::Daemon;
use sag_bpf::{PortStats, PuntReason};
use sag_model::{DropReason, PortIdx};
use std::sync::atomic::Ordering;

/// The books of one port: XDP's and all workers' together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Books {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub forwarded: u64,
    pub fast: u64,
    pub punted: u64,
    pub to_kernel: u64,
    pub held: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub originated: u64,
    pub drops: [u64; DropReason::COUNT],
}

impl Daemon {
    pub(super) fn books(&self, idx: PortIdx) -> Books {
        let now = self.gateway.stats(idx).unwrap_or_default();
        let base = self.base.get(idx.index()).copied().unwrap_or_default();
        let since = |f: fn(&PortStats) -> u64| f(&now).saturating_sub(f(&base));
        let mut b = Books {
            rx_packets: since(|s| s.rx_packets),
            rx_bytes: since(|s| s.rx_bytes),
            forwarded: since(|s| s.fast),
            fast: since(|s| s.fast),
            to_kernel: since(|s| s.to_kernel),
            punted: since(|s| s.punted),
            held: 0,
            tx_packets: since(|s| s.tx_packets),
            tx_bytes: since(|s| s.tx_bytes),
            originated: 0,
            drops: [0; DropReason::COUNT],
        };
        for r in DropReason::ALL {
            b.drops[r.index()] += now.drops(*r).saturating_sub(base.drops(*r));
        }
        for w in &self.workers {
            let c = w.shared.counters.port(idx);
            b.forwarded += c.forwarded.get();
            b.to_kernel += c.to_kernel.get();
            b.held += c.held.get();
            b.tx_packets += c.tx_packets.get();
            b.tx_bytes += c.tx_bytes.get();
            b.originated += c.originated.get();
            for r in DropReason::ALL {
                b.drops[r.index()] += c.drops[r.index()].get();
            }
        }
        b.drops[DropReason::RxRingFull.index()] += self.lost_before_workers(idx, b.punted);
        b
    }

    /// Packets that XDP handed over and no worker saw, as far as they are known to be lost: counted
    /// by a socket's full rings, or left in the rings of a socket that was closed.
    pub(super) fn lost_before_workers(&self, idx: PortIdx, punted: u64) -> u64 {
        let Some(p) = self.snapshot.port(idx) else { return 0 };
        let rings: u64 = self
            .workers
            .iter()
            .filter_map(|w| w.shared.rx_lost.get(usize::from(p.dev)))
            .map(|n| n.load(Ordering::Relaxed))
            .sum();
        let closed = self.closed_loss.get(&idx).copied().unwrap_or(0);
        self.unseen(idx, punted).min(rings + closed)
    }

    pub(super) fn unseen(&self, idx: PortIdx, punted: u64) -> u64 {
        let seen: u64 = self.workers.iter().map(|w| w.shared.counters.port(idx).rx_packets.get()).sum();
        punted.saturating_sub(seen)
    }

    /// Called when a device has no socket: what XDP handed over until now and nobody saw is lost.
    pub(super) fn write_off(&mut self, dev: u8) {
        let ports: Vec<PortIdx> = self.bindings.iter().filter(|b| b.port.dev == dev).map(|b| b.idx).collect();
        for idx in ports {
            let punted = self.books(idx).punted;
            self.closed_loss.insert(idx, self.unseen(idx, punted));
        }
    }

    /// Punts of a port by reason, in the order of [`PuntReason::ALL`].
    pub(super) fn punts(&self, idx: PortIdx) -> Vec<u64> {
        let now = self.gateway.stats(idx).unwrap_or_default();
        let base = self.base.get(idx.index()).copied().unwrap_or_default();
        PuntReason::ALL.iter().map(|r| now.punts(*r).saturating_sub(base.punts(*r))).collect()
    }
}
