//! Counters of a port.

use crate::abi::PuntReason;
use crate::error::MapError;
use crate::skel::types::gw_port_stats;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use sag_model::{DropReason, PortIdx};
use std::mem::offset_of;
use std::ops::AddAssign;

/// Number of punt counters of the C side.
const PUNTS: usize = 16;

/// What became of the frames of one port. Every received frame is in exactly one of `fast`,
/// `to_kernel`, `punted` and `drops`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortStats {
    pub rx_packets: u64,
    /// Frame bytes.
    pub rx_bytes: u64,
    /// Forwarded by XDP; counted where they came in.
    pub fast: u64,
    pub to_kernel: u64,
    /// Handed to a worker.
    pub punted: u64,
    /// Sent out of this port by XDP.
    pub tx_packets: u64,
    pub tx_bytes: u64,
    drops: [u64; DropReason::COUNT],
    punts: [u64; PUNTS],
}

impl Default for PortStats {
    fn default() -> PortStats {
        PortStats {
            rx_packets: 0,
            rx_bytes: 0,
            fast: 0,
            to_kernel: 0,
            punted: 0,
            tx_packets: 0,
            tx_bytes: 0,
            drops: [0; DropReason::COUNT],
            punts: [0; PUNTS],
        }
    }
}

impl PortStats {
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason.index()]
    }

    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    pub fn punts(&self, reason: PuntReason) -> u64 {
        self.punts[reason as usize]
    }

    /// Every received frame has exactly one outcome. Holds whenever no packet is in flight.
    pub fn balanced(&self) -> bool {
        self.rx_packets == self.fast + self.to_kernel + self.punted + self.dropped()
            && self.punted == self.punts.iter().sum::<u64>()
    }

    pub(crate) fn read(map: &MapHandle, port: PortIdx) -> Result<PortStats, MapError> {
        let failed = |source| MapError::Map {
            map: "gw_stats",
            what: format!("cannot read the counters of port {}", port.0),
            source,
        };
        let key = u32::from(port.0).to_ne_bytes();
        let cpus = map.lookup_percpu(&key, MapFlags::ANY).map_err(failed)?.unwrap_or_default();
        let mut sum = PortStats::default();
        for cpu in &cpus {
            sum += PortStats::parse(cpu);
        }
        Ok(sum)
    }

    fn parse(b: &[u8]) -> PortStats {
        let at = |off: usize| {
            b.get(off..).and_then(|b| b.first_chunk::<8>()).map_or(0, |w| u64::from_ne_bytes(*w))
        };
        PortStats {
            rx_packets: at(offset_of!(gw_port_stats, rx_packets)),
            rx_bytes: at(offset_of!(gw_port_stats, rx_bytes)),
            fast: at(offset_of!(gw_port_stats, fast)),
            to_kernel: at(offset_of!(gw_port_stats, to_kernel)),
            punted: at(offset_of!(gw_port_stats, punted)),
            tx_packets: at(offset_of!(gw_port_stats, tx_packets)),
            tx_bytes: at(offset_of!(gw_port_stats, tx_bytes)),
            drops: std::array::from_fn(|i| at(offset_of!(gw_port_stats, drops) + 8 * i)),
            punts: std::array::from_fn(|i| at(offset_of!(gw_port_stats, punts) + 8 * i)),
        }
    }
}

impl AddAssign for PortStats {
    fn add_assign(&mut self, o: PortStats) {
        self.rx_packets += o.rx_packets;
        self.rx_bytes += o.rx_bytes;
        self.fast += o.fast;
        self.to_kernel += o.to_kernel;
        self.punted += o.punted;
        self.tx_packets += o.tx_packets;
        self.tx_bytes += o.tx_bytes;
        for (a, b) in self.drops.iter_mut().zip(o.drops) {
            *a += b;
        }
        for (a, b) in self.punts.iter_mut().zip(o.punts) {
            *a += b;
        }
    }
}
