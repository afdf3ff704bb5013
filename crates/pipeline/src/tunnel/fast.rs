//! Tunnels as the XDP program needs them.

use super::{Tunnel, Tunnels};
use sag_model::config::{OuterDf, OuterDscp};
use sag_model::tunnel::*;
use sag_packet::encap::Encap;
use sag_packet::proto::{ESP, UDP};
use sag_packet::{Family, checksum};
use std::net::IpAddr;

impl Tunnel {
    /// What the XDP program is to know.
    pub fn entry(&self) -> TunnelEntry {
        let t = self.template_now();
        let (kind, mac) = match t.encap {
            Encap::Vxlan { mac, .. } => (TUNNEL_VXLAN, mac.0),
            Encap::Gre { .. } => (TUNNEL_GRE, [0; 6]),
            // What is encrypted is the workers' anyway.
            Encap::Ipip | Encap::Esp { .. } => (TUNNEL_IPIP, [0; 6]),
        };
        let (mut flags, mut tos, mut sum) = (TUNNEL_ON, 0, 0);
        match t.outer {
            Family::V4 => sum = checksum::fold(checksum::sum(&t.bytes[..usize::from(t.ip)])),
            Family::V6 => flags |= TUNNEL_V6,
        }
        flags |= match self.df {
            OuterDf::Set => 0,
            OuterDf::Copy => TUNNEL_DF_COPY,
            OuterDf::Clear => TUNNEL_DF_CLEAR,
        };
        match self.dscp {
            OuterDscp::Copy => {}
            OuterDscp::Uniform => flags |= TUNNEL_UNIFORM,
            OuterDscp::Fixed(n) => {
                flags |= TUNNEL_DSCP;
                tos = n << 2;
            }
        }
        // Workers send to the peer's Ethernet address as soon as they have heard it, before it is written here.
        let unheard = self.learns_mac && self.state.peer_mac().is_none();
        if !self.is_plain() || !self.state.is_up() || unheard {
            flags |= TUNNEL_WORKER;
        }
        let mut header = t.bytes;
        if let (Encap::Vxlan { .. }, true) = (t.encap, self.udp_checksum) {
            flags |= TUNNEL_SUM;
            t.preset_udp_checksum(&mut header);
        }
        let (mtu, ingress) = (self.whole_mtu(), self.ingress);
        TunnelEntry { header, mac, len: t.len, kind, mtu, flags, tos, sum, ingress, side: self.side() }
    }
}

impl Tunnels {
    /// How received packets find their tunnels.
    pub fn xdp_ends(&self) -> Vec<(TunnelEnd, u8)> {
        let mut out = Vec::new();
        for (end, list) in self.ends() {
            let with =
                |id| TunnelEnd { local: end.local, remote: end.remote, proto: end.proto, port: end.port, id };
            out.push((with(EndId::Any), 0));
            out.extend(list.iter().map(|(id, no)| (with(id.map_or(EndId::None, EndId::Id)), no.get())));
        }
        for (local, port) in self.esp_ends.iter() {
            // Whose it is the keys say, whatever address it comes from.
            let remote = match local {
                IpAddr::V4(_) => IpAddr::from([0; 4]),
                IpAddr::V6(_) => IpAddr::from([0; 16]),
            };
            let proto = if port == 0 { ESP } else { UDP };
            out.push((TunnelEnd { local, remote, proto, port, id: EndId::Any }, 0));
        }
        out
    }

    /// Whether received packets find the same tunnels as in another configuration.
    pub fn same_ends(&self, other: &Tunnels) -> bool {
        self.ends == other.ends && self.esp_ends == other.esp_ends
    }

    /// Whether some tunnel ends at an address of the gateway.
    pub fn end_at(&self, local: IpAddr) -> bool {
        self.iter().any(|t| t.local == local)
    }
}
