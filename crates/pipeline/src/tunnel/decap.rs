//! Packets on their way out of a tunnel: whose they are and where the packet inside begins.

use super::{End, Tunnel, TunnelNo, Tunnels};
use sag_model::DropReason;
use sag_model::config::OuterDscp;
use sag_packet::encap;
use sag_packet::proto::*;
use sag_packet::{L4, Parsed, ecn};

/// What a received packet is to the tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decapsulated {
    /// No tunnel's.
    NotOurs,
    /// Of the tunnel; a packet of this EtherType begins at `l3` of the frame.
    Inside {
        /// The tunnel that it came through.
        tunnel: TunnelNo,
        /// EtherType of the packet inside.
        ethertype: u16,
        /// First byte of the packet inside.
        l3: usize,
    },
    /// For a tunnel, but not acceptable for this reason.
    Drop(DropReason),
}

/// Looks at a whole packet that has been parsed.
#[inline]
pub fn decapsulate(tunnels: &Tunnels, p: &Parsed, frame: &[u8]) -> Decapsulated {
    let (proto, port) = match p.proto {
        UDP if p.l4 == L4::Udp && tunnels.has_port(p.ports().1) => (UDP, p.ports().1),
        GRE => (GRE, 0),
        IPIP | IPV6_IN_IP => (IPIP, 0),
        _ => return Decapsulated::NotOurs,
    };
    let end = End { local: p.dst(frame), remote: p.src(frame), proto, port };
    let Some(list) = tunnels.at(&end) else { return Decapsulated::NotOurs };
    let at = usize::from(p.l4_at);
    let Some(d) = frame.get(at..usize::from(p.l3) + usize::from(p.ip_len)) else {
        return Decapsulated::Drop(DropReason::TunnelBadHeader);
    };
    let pick = |id: Option<u32>| list.iter().find(|(own, _)| *own == id).map(|(_, no)| *no);
    let unknown = Decapsulated::Drop(DropReason::TunnelUnknown);
    let bad = Decapsulated::Drop(DropReason::TunnelBadHeader);
    match proto {
        UDP => {
            let Some(vni) = d.get(UDP_LEN..).and_then(encap::vxlan) else { return bad };
            let Some(tunnel) = pick(Some(vni)) else { return unknown };
            let eth = UDP_LEN + encap::VXLAN_LEN;
            let Some(h) = d.get(eth..).and_then(|d| d.first_chunk::<ETH_LEN>()) else { return bad };
            // A tag inside belongs to nobody (RFC 7348 6.1).
            let ethertype = u16::from_be_bytes([h[12], h[13]]);
            let ours = tunnels.get(tunnel).and_then(Tunnel::mac).is_some_and(|m| m.0 == h[..6]);
            if ethertype == ETHERTYPE_VLAN || !(ours || h[0] & 1 != 0) {
                return bad;
            }
            Decapsulated::Inside { tunnel, ethertype, l3: at + eth + ETH_LEN }
        }
        GRE => {
            let Some(h) = encap::gre(d) else { return bad };
            match pick(h.key) {
                Some(_) if !matches!(h.ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6) => bad,
                Some(tunnel) => Decapsulated::Inside { tunnel, ethertype: h.ethertype, l3: at + h.len },
                None => unknown,
            }
        }
        _ => match pick(None) {
            Some(tunnel) => {
                let ethertype = if p.proto == IPIP { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
                Decapsulated::Inside { tunnel, ethertype, l3: at }
            }
            None => unknown,
        },
    }
}

impl Tunnel {
    /// The traffic class that a packet has after the tunnel (RFC 6040 4.2, RFC 2983).
    ///
    /// # Errors
    ///
    /// [`DropReason::TunnelEcn`]: congestion was marked on a packet that does not carry such marks.
    #[inline]
    pub fn tos_after(&self, inner: u8, outer: u8) -> Result<u8, DropReason> {
        let mark = ecn::decapsulate(inner, outer).map_err(|_| DropReason::TunnelEcn)?;
        let dscp = if self.dscp == OuterDscp::Uniform { outer } else { inner };
        Ok(dscp & !ecn::ECN | mark)
    }
}
