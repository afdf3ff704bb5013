//! Tunnels: headers to put in front, ends to recognise, counters.

use crate::error::MapError;
use crate::gateway::Gateway;
use crate::maps;
use crate::skel::types::gw_tunnel_counts;
use crate::stats::{per_cpu, word};
use sag_model::tunnel::{TunnelEnd, TunnelRecord};
use std::mem::offset_of;

/// What XDP has sent and received through a tunnel: packets inside, and their IP bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TunnelStats {
    /// Packets received.
    pub rx_packets: u64,
    /// IP bytes of those.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// IP bytes of those.
    pub tx_bytes: u64,
}

impl Gateway {
    /// Tunnels by number.
    pub fn tunnels(&self) -> &'static [TunnelRecord] {
        self.mapped.tunnels
    }

    /// Makes the ends that XDP knows exactly these; those whose packets are for the workers alone, or
    /// carry the VNI or key of nobody, have number 0. True if one of them was not there.
    ///
    /// # Errors
    /// [`MapError::Map`] if the kernel refuses an entry: the map is full.
    pub fn replace_tunnel_ends(&self, ends: &[(TunnelEnd, u8)]) -> Result<bool, MapError> {
        let entries: Vec<_> = ends.iter().map(|(e, no)| (e.key().to_vec(), u32::from(*no))).collect();
        maps::replace(&self.maps.tunnel_ends, "gw_tunnel_ends", &entries)
    }

    /// Counters of a tunnel, summed over the CPUs.
    ///
    /// # Errors
    /// [`MapError::Map`] if the kernel does not let them be read.
    pub fn tunnel_stats(&self, no: u8) -> Result<TunnelStats, MapError> {
        let mut sum = TunnelStats::default();
        for cpu in per_cpu(&self.maps.tunnel_stats, "gw_tunnel_stats", no)? {
            sum.rx_packets += word(&cpu, offset_of!(gw_tunnel_counts, rx_packets));
            sum.rx_bytes += word(&cpu, offset_of!(gw_tunnel_counts, rx_bytes));
            sum.tx_packets += word(&cpu, offset_of!(gw_tunnel_counts, tx_packets));
            sum.tx_bytes += word(&cpu, offset_of!(gw_tunnel_counts, tx_bytes));
        }
        Ok(sum)
    }
}
