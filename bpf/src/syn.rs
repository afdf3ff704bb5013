//! Services that SYN cookies protect, and their counters.

use crate::error::MapError;
use crate::gateway::Gateway;
use crate::maps;
use crate::skel::types::gw_syn_counts;
use crate::stats::{per_cpu, word};
use std::mem::offset_of;
use std::net::IpAddr;

/// What XDP has done for a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SynCounts {
    /// SYNs without a session.
    pub syns: u64,
    /// Of these, answered with a cookie.
    pub sent: u64,
    /// Packets without a session that acknowledge a valid cookie.
    pub accepted: u64,
    /// Packets without a session that acknowledge none, while cookies were sent.
    pub refused: u64,
}

impl Gateway {
    /// Makes the services that XDP knows exactly these: address and port as clients know them, and the service's number. True
    /// if one of them was not there.
    ///
    /// # Errors
    /// [`MapError::Map`] if the kernel refuses an entry: the map is full.
    pub fn replace_syn_services(&self, services: &[(IpAddr, u16, u8)]) -> Result<bool, MapError> {
        let entries: Vec<_> = services.iter().map(|(a, port, no)| (key(*a, *port), u32::from(*no))).collect();
        maps::replace(&self.maps.syn_services, "gw_syn_services", &entries)
    }

    /// Counters of a service, summed over the CPUs.
    ///
    /// # Errors
    /// [`MapError::Map`] if the kernel does not let them be read.
    pub fn syn_counts(&self, service: u8) -> Result<SynCounts, MapError> {
        let mut sum = SynCounts::default();
        for cpu in per_cpu(&self.maps.syn_stats, "gw_syn_stats", service)? {
            sum.syns += word(&cpu, offset_of!(gw_syn_counts, syns));
            sum.sent += word(&cpu, offset_of!(gw_syn_counts, sent));
            sum.accepted += word(&cpu, offset_of!(gw_syn_counts, accepted));
            sum.refused += word(&cpu, offset_of!(gw_syn_counts, refused));
        }
        Ok(sum)
    }
}

/// `struct gw_syn_service`.
fn key(addr: IpAddr, port: u16) -> Vec<u8> {
    let octets = match addr {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    };
    [&octets[..], &port.to_be_bytes(), &[0, 0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_in_the_packet() {
        let v4 = key("192.0.2.1".parse().unwrap(), 443);
        assert_eq!(v4, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 1, 1, 0xBB, 0, 0]);
        let v6 = key("2001:db8::7".parse().unwrap(), 80);
        assert_eq!((v6.len(), &v6[..4], &v6[15..]), (20, &[0x20, 1, 0x0D, 0xB8][..], &[7, 0, 80, 0, 0][..]));
    }
}
