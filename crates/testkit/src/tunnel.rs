//! Tunnels from the branch to a peer, and what the peer sends.

use crate::{GATEWAY_MACS, Net, WAN};
use sag_model::MacAddr;
use sag_model::config::{FragmentAt, OuterDf, OuterDscp, Probing, ReversePath};
use sag_packet::Family;
use sag_packet::encap::{Encap, Fields, Template};
use sag_pipeline::snapshot::{Member, Route};
use sag_pipeline::stages::ethertype;
use sag_pipeline::tunnel::{Tunnel, TunnelNo};
use std::net::IpAddr;

/// Ethernet addresses of a VXLAN tunnel's ends: the gateway's and the peer's.
pub const TUNNEL_MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0xAA, 1]), MacAddr([2, 0, 0, 0, 0xAA, 2])];

/// Outer addresses by family: the gateway's and the peer's.
pub const TUNNEL_ENDS: [(&str, &str); 2] =
    [("203.0.113.2", "198.51.100.9"), ("2001:db8:2::2", "2001:db8:9::9")];

/// VXLAN with the addresses above.
pub fn vxlan(vni: u32) -> Encap {
    Encap::Vxlan { vni, port: 4789, mac: TUNNEL_MACS[0], remote_mac: TUNNEL_MACS[1] }
}

/// A tunnel's number.
pub fn tunnel_no(n: u8) -> TunnelNo {
    TunnelNo::new(n).expect("a tunnel number")
}

/// From [`Net::branch`] by its WAN port, everything else as it is without configuration.
pub fn test_tunnel(no: u8, encap: Encap, outer: Family) -> Tunnel {
    let no = tunnel_no(no);
    let (local, remote) = TUNNEL_ENDS[usize::from(outer == Family::V6)];
    let (local, remote): (IpAddr, IpAddr) =
        (local.parse().expect("address"), remote.parse().expect("address"));
    Tunnel {
        no,
        name: "pop1".into(),
        local,
        remote,
        template: Template::new(local, remote, 64, encap),
        df: OuterDf::Set,
        dscp: OuterDscp::Copy,
        fragment: FragmentAt::Inner,
        mss_clamp: true,
        udp_checksum: false,
        learns_mac: false,
        proxy_arp: true,
        mtu: None,
        addrs4: vec![("10.255.0.1".parse().expect("address"), 30)],
        addrs6: vec![("fd00::1".parse().expect("address"), 64)],
        device: false,
        device_rate: 1_000,
        device_sources: Default::default(),
        sources: None,
        reverse_path: ReversePath::Feasible,
        vrf: sag_model::VrfNo::DEFAULT,
        ingress: u64::MAX,
        line: None,
        state: Default::default(),
        probing: Probing { interval: 0, loss: 3, target: None },
        keepalive: 0,
        fec: None,
        esp: Default::default(),
    }
}

/// The frame in which the peer sends a packet.
pub fn frame_from_peer(tunnel: &Tunnel, inner: &[u8], tos: u8, dont_fragment: bool) -> Vec<u8> {
    let encap = match tunnel.template.encap {
        Encap::Vxlan { vni, port, mac, remote_mac } => {
            Encap::Vxlan { vni, port, mac: remote_mac, remote_mac: mac }
        }
        other => other,
    };
    let back = Template::new(tunnel.remote, tunnel.local, 64, encap);
    let mut out = vec![0; 14 + usize::from(back.len)];
    out.extend_from_slice(inner);
    let v6 = inner.first().is_some_and(|b| b >> 4 == 6);
    let inner = if v6 { Family::V6 } else { Family::V4 };
    let fields = Fields { inner, tos, dont_fragment, id: 9, hash: 77, sequence: 3 };
    assert!(back.write(&mut out[14..], &fields, false), "room for the header");
    out[..6].copy_from_slice(&GATEWAY_MACS[WAN.index()].0);
    out[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    out[12..14].copy_from_slice(&ethertype(back.outer).to_be_bytes());
    out
}

impl Net {
    /// Adds a tunnel with the routes to 10.30.0.0/16 and 2001:db8:30::/48.
    pub fn tunnel(&mut self, t: Tunnel) -> &mut Net {
        for to in ["10.30.0.0/16", "2001:db8:30::/48"] {
            self.route(to, Route::Via(vec![Member::tunnel(t.no, 1)]));
        }
        self.tunnels.push(t);
        self
    }
}
