//! Tunnels: numbers that stay the same, the runtime state behind them, and the headers that they add.

use super::esp::{EspKeeper, same_but_keys};
use ipnet::IpNet;
use sag_model::MacAddr;
use sag_model::config::{self, Config, TunnelIdx};
use sag_packet::encap::{Encap, Template};
use sag_pipeline::snapshot::{Route, Snapshot};
use sag_pipeline::tunnel::{EspSaTable, Tunnel, TunnelNo, TunnelState, Tunnels};
use sag_tunnel::group::{Group, Member, MemberState};
use sag_tunnel::keys::Lifetime;
use sag_xsk::sys;
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
    pub esp: EspKeeper,
    /// Whose turn it is where several lead to one place.
    turns: Group,
    turns_of: Vec<TunnelNo>,
    now: u64,
    /// By what flows have chosen their routes.
    chosen_by: Vec<u32>,
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
                let encap = a.encap == b.encap || same_but_keys(&a.encap, &b.encap);
                encap && (a.local, a.remote) == (b.local, b.remote)
            };
            if !same(&known.was, t) {
                known.state = Arc::default();
            }
            known.was = t.clone();
            out.push(tunnel(t, no, encap, known.state.clone(), &self.esp.book));
        }
        let (time, bytes) = (config.dataplane.rekey_time, config.dataplane.rekey_bytes);
        self.esp
            .live_for(Lifetime { time: u64::from(time) * 1_000_000_000, bytes: bytes.max(0).unsigned_abs() });
        self.esp.configure(config.tunnels.iter().filter_map(|t| Some((self.by_name.get(&t.name)?.no, t))));
        let numbers: Vec<_> = out.iter().map(|t| t.no).collect();
        if numbers != self.turns_of {
            self.turns = Group::new(numbers.iter().map(|_| Member { priority: 0, weight: 1 }));
            self.chosen_by = vec![0; numbers.len()];
            self.turns_of = numbers;
        }
        self.take_turns(&out);
        Tunnels::new(out)
    }

    /// Looks which tunnels are up. True: routes are to be chosen anew.
    pub fn look(&mut self, tunnels: &Tunnels) -> bool {
        self.take_turns(tunnels.iter());
        let standings: Vec<_> = self.turns_of.iter().map(|no| self.standing(*no)).collect();
        let changed = standings != self.chosen_by;
        self.chosen_by = standings;
        changed
    }

    fn take_turns<'t>(&mut self, tunnels: impl IntoIterator<Item = &'t Tunnel>) {
        let now = sys::now();
        for t in tunnels {
            if let Some(i) = self.turns_of.iter().position(|no| *no == t.no) {
                self.turns.set(i, t.state.is_up(), now);
            }
        }
        self.now = now;
    }

    /// What is added to the metric of routes through a tunnel: one that is down comes last, and one
    /// that has just come back waits for its turn.
    pub fn standing(&self, no: TunnelNo) -> u32 {
        let at = self.turns_of.iter().position(|n| *n == no);
        match at.map(|i| self.turns.state(i, self.now)) {
            None | Some(MemberState::Ready) => 0,
            Some(MemberState::HoldDown) => 1 << 30,
            Some(MemberState::Down) => 1 << 31,
        }
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
        config::Encap::Esp { udp_port, .. } => Encap::Esp { udp: udp_port },
    })
}

fn tunnel(
    t: &config::Tunnel,
    no: TunnelNo,
    encap: Encap,
    state: Arc<TunnelState>,
    esp: &Arc<EspSaTable>,
) -> Tunnel {
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
        probing: t.probing.clone(),
        keepalive: t.keepalive,
        fec: t.fec,
        esp: esp.clone(),
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
