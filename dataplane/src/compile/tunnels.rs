//! Tunnels: numbers that stay the same, the runtime state behind them, and the headers that they add.

use ipnet::IpNet;
use sag_model::MacAddr;
use sag_model::config::{self, Config, TunnelIdx};
use sag_packet::encap::{Encap, Template};
use sag_pipeline::snapshot::{Route, Snapshot};
use sag_pipeline::tunnel::{Tunnel, TunnelNo, TunnelState, Tunnels};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// What one tunnel was at the last compilation.
#[derive(Debug)]
struct Known {
    no: TunnelNo,
    was: config::Tunnel,
    state: Arc<TunnelState>,
}

/// Keeps numbers and state of tunnels for the daemon's life.
#[derive(Debug, Default)]
pub struct TunnelCompiler {
    by_name: HashMap<String, Known>,
}

impl TunnelCompiler {
    pub fn compile(&mut self, config: &Config) -> Tunnels {
        self.by_name.retain(|name, _| config.tunnels.iter().any(|t| t.name == *name));
        let mut out = Vec::new();
        for t in &config.tunnels {
            let Some(encap) = encap(t) else { continue };
            let free = || (1..=TunnelNo::MAX).find(|n| !self.by_name.values().any(|k| k.no == *n));
            let no = self.by_name.get(&t.name).map(|k| k.no).or_else(free);
            let Some(no) = no else {
                tracing::error!(tunnel = t.name, "more tunnels than there are numbers for: left out");
                continue;
            };
            let known = self.by_name.entry(t.name.clone()).or_insert_with(|| Known {
                no,
                was: t.clone(),
                state: Arc::default(),
            });
            // Another peer or another way to speak with it: nothing that was learned holds.
            let same = |a: &config::Tunnel, b: &config::Tunnel| {
                (a.local, a.remote, &a.encap) == (b.local, b.remote, &b.encap)
            };
            if !same(&known.was, t) {
                known.state = Arc::default();
            }
            known.was = t.clone();
            out.push(tunnel(t, no, encap, known.state.clone()));
        }
        Tunnels::new(out)
    }

    /// The number of a `[[tunnel]]`; `None`: it is not enforced.
    pub fn number(&self, config: &Config, idx: TunnelIdx) -> Option<TunnelNo> {
        self.by_name.get(&config.tunnels.get(idx.index())?.name).map(|k| k.no)
    }
}

fn encap(t: &config::Tunnel) -> Option<Encap> {
    Some(match t.encap {
        config::Encap::Vxlan { vni, port, mac, remote_mac, .. } => Encap::Vxlan {
            vni,
            port,
            mac: mac.unwrap_or_else(|| mac_inside(t.local, vni)),
            remote_mac: remote_mac.unwrap_or_else(|| mac_inside(t.remote, vni)),
        },
        config::Encap::Gre { key, checksum, sequence } => Encap::Gre { key, checksum, sequence },
        config::Encap::Ipip => Encap::Ipip,
        config::Encap::Esp { .. } => return None,
    })
}

fn tunnel(t: &config::Tunnel, no: TunnelNo, encap: Encap, state: Arc<TunnelState>) -> Tunnel {
    let v4 = |n: &IpNet| match n {
        IpNet::V4(n) => Some((n.addr(), n.prefix_len())),
        IpNet::V6(_) => None,
    };
    let v6 = |n: &IpNet| match n {
        IpNet::V6(n) => Some((n.addr(), n.prefix_len())),
        IpNet::V4(_) => None,
    };
    let (udp_checksum, learns) = match t.encap {
        config::Encap::Vxlan { udp_checksum, remote_mac, .. } => (udp_checksum, remote_mac.is_none()),
        _ => (false, false),
    };
    Tunnel {
        no,
        name: t.name.clone(),
        local: t.local,
        remote: t.remote,
        template: Template::new(t.local, t.remote, t.ttl, encap),
        df: t.df,
        dscp: t.dscp,
        fragment: t.fragment,
        mss_clamp: t.mss_clamp,
        udp_checksum,
        learns_mac: learns,
        mtu: t.mtu,
        addrs4: t.addresses.iter().filter_map(v4).collect(),
        addrs6: t.addresses.iter().filter_map(v6).collect(),
        state,
    }
}

/// An end's Ethernet address inside a VXLAN tunnel, unless it is told: locally administered, the low
/// byte of the VNI, and the last four bytes of the outer address (of IPv6, all its words together).
/// Both ends come to the same.
pub fn mac_inside(outer: IpAddr, vni: u32) -> MacAddr {
    let [a, b, c, d] = match outer {
        IpAddr::V4(a) => a.octets(),
        IpAddr::V6(a) => {
            let bits = a.to_bits();
            ((bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32).to_be_bytes()
        }
    };
    MacAddr([0x02, vni as u8, a, b, c, d])
}

/// Tells the tunnels what their paths carry, as far as the gateway's own links go.
pub fn settle(snap: &Snapshot) {
    for t in snap.tunnels.iter() {
        let Some(Route::Via(members)) = snap.route(t.remote) else { continue };
        let carries = |m: &sag_pipeline::snapshot::Member| {
            let port = snap.port(m.port).filter(|_| m.tunnel == 0)?;
            Some(if m.mtu != 0 { m.mtu.min(port.mtu) } else { port.mtu })
        };
        if let Some(mtu) = members.iter().filter_map(carries).min() {
            t.state.set_link_mtu(mtu);
        }
    }
}
