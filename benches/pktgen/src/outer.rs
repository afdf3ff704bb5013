//! The header of a tunnel in front of what is sent, as the far end of the tunnel puts it there.

use clap::{Args, ValueEnum};
use sag_model::MacAddr;
use sag_packet::checksum;
use sag_packet::encap::{Encap, Template};
use std::net::Ipv4Addr;

/// Kinds of tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OuterKind {
    /// VXLAN (RFC 7348), UDP port 4789, without UDP checksum
    Vxlan,
    /// GRE (RFC 2784) without a key
    Gre,
    /// IP in IP (RFC 2003)
    Ipip,
}

/// A tunnel over IPv4.
#[derive(Debug, Clone, Args)]
pub struct Outer {
    /// Send the frames as out of a tunnel over IPv4. Sizes are those of the frames without its headers
    #[arg(long, value_enum)]
    pub encap: Option<OuterKind>,
    /// Address of the tunnel's far end, which sends
    #[arg(long, default_value = "203.0.113.1")]
    pub outer_src: Ipv4Addr,
    /// Address of its near end, the gateway
    #[arg(long, default_value = "203.0.113.2")]
    pub outer_dst: Ipv4Addr,
    /// VXLAN network identifier
    #[arg(long, default_value_t = 77)]
    pub vni: u32,
    /// VXLAN: the gateway's Ethernet address inside
    #[arg(long, default_value = "02:00:00:00:00:4c")]
    pub inner_mac: MacAddr,
}

/// Bytes of `pg_fixed.outer`.
const ROOM: usize = 56;

impl Outer {
    /// From the outer IP header on; nothing without a tunnel. Length, source port and checksum are open.
    pub fn header(&self) -> Vec<u8> {
        let encap = match self.encap {
            None => return Vec::new(),
            Some(OuterKind::Vxlan) => {
                // From the far end to the gateway.
                let mac = MacAddr([2, 0, 0, 0, 0, 0x4D]);
                Encap::Vxlan { vni: self.vni, port: 4789, mac, remote_mac: self.inner_mac }
            }
            Some(OuterKind::Gre) => Encap::Gre { key: None, checksum: false, sequence: false },
            Some(OuterKind::Ipip) => Encap::Ipip,
        };
        let template = Template::new(self.outer_src.into(), self.outer_dst.into(), 64, encap);
        let mut bytes = template.bytes[..usize::from(template.len)].to_vec();
        const IP4: [u8; 2] = 0x0800u16.to_be_bytes();
        match self.encap {
            Some(OuterKind::Vxlan) => bytes[48..50].copy_from_slice(&IP4),
            Some(OuterKind::Gre) => bytes[22..24].copy_from_slice(&IP4),
            _ => {}
        }
        bytes
    }

    /// The last fields of `struct pg_fixed`: length, header, and the sum of its IP header.
    pub(crate) fn fixed(&self) -> Vec<u8> {
        let header = self.header();
        let ip = header.get(..20).unwrap_or_default();
        let sum = u64::from(checksum::fold(checksum::sum(ip)));
        let mut out = (header.len() as u32).to_ne_bytes().to_vec();
        out.extend(&header);
        out.resize(4 + ROOM, 0);
        out.extend(sum.to_ne_bytes());
        out
    }
}
