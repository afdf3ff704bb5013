//! Counters of a port.

use crate::abi::PuntReason;
use crate::error::MapError;
use crate::maps::Maps;
use crate::skel::types::{gw_counts, gw_reasons, gw_stats};
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
    /// Frames received.
    pub rx_packets: u64,
    /// Frame bytes.
    pub rx_bytes: u64,
    /// Forwarded by XDP; counted where they came in.
    pub fast: u64,
    /// Passed to the kernel's stack.
    pub to_kernel: u64,
    /// Handed to a worker.
    pub punted: u64,
    /// Sent out of this port by XDP.
    pub tx_packets: u64,
    /// Frame bytes of those.
    pub tx_bytes: u64,
    /// Of those, made by XDP itself: answers with SYN cookies.
    pub originated: u64,
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
            originated: 0,
            drops: [0; DropReason::COUNT],
            punts: [0; PUNTS],
        }
    }
}

impl PortStats {
    /// Frames that XDP dropped for a reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason.index()]
    }

    /// Frames that XDP dropped.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Frames that XDP handed to a worker for a reason.
    pub fn punts(&self, reason: PuntReason) -> u64 {
        self.punts[reason as usize]
    }

    /// Every received frame has exactly one outcome. Holds whenever no packet is in flight.
    pub fn balanced(&self) -> bool {
        self.rx_packets == self.fast + self.to_kernel + self.punted + self.dropped()
            && self.punted == self.punts.iter().sum::<u64>()
    }

    pub(crate) fn read(maps: &Maps, port: PortIdx) -> Result<PortStats, MapError> {
        let mut sum = PortStats::default();
        let counts = offset_of!(gw_stats, port) + port.index() * size_of::<gw_counts>();
        for cpu in per_cpu(&maps.stats, "gw_stats", 0)? {
            sum += PortStats::counts(cpu.get(counts..).unwrap_or_default());
        }
        for cpu in per_cpu(&maps.reasons, "gw_reasons", port.0)? {
            sum += PortStats::reasons(&cpu);
        }
        Ok(sum)
    }

    fn counts(b: &[u8]) -> PortStats {
        PortStats {
            rx_packets: word(b, offset_of!(gw_counts, rx_packets)),
            rx_bytes: word(b, offset_of!(gw_counts, rx_bytes)),
            fast: word(b, offset_of!(gw_counts, fast)),
            to_kernel: word(b, offset_of!(gw_counts, to_kernel)),
            punted: word(b, offset_of!(gw_counts, punted)),
            tx_packets: word(b, offset_of!(gw_counts, tx_packets)),
            tx_bytes: word(b, offset_of!(gw_counts, tx_bytes)),
            originated: word(b, offset_of!(gw_counts, originated)),
            ..PortStats::default()
        }
    }

    fn reasons(b: &[u8]) -> PortStats {
        PortStats {
            drops: std::array::from_fn(|i| word(b, offset_of!(gw_reasons, drops) + 8 * i)),
            punts: std::array::from_fn(|i| word(b, offset_of!(gw_reasons, punts) + 8 * i)),
            ..PortStats::default()
        }
    }
}

pub(crate) fn per_cpu(map: &MapHandle, name: &'static str, key: u8) -> Result<Vec<Vec<u8>>, MapError> {
    map.lookup_percpu(&u32::from(key).to_ne_bytes(), MapFlags::ANY)
        .map(Option::unwrap_or_default)
        .map_err(|source| MapError::Map { map: name, what: "cannot read the counters".to_owned(), source })
}

pub(crate) fn word(b: &[u8], at: usize) -> u64 {
    b.get(at..).and_then(|b| b.first_chunk()).map_or(0, |w| u64::from_ne_bytes(*w))
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
        self.originated += o.originated;
        for (a, b) in self.drops.iter_mut().zip(o.drops) {
            *a += b;
        }
        for (a, b) in self.punts.iter_mut().zip(o.punts) {
            *a += b;
        }
    }
}
