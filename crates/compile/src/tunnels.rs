//! Tunnels: numbers that stay the same, the runtime state behind them, and the headers that they add.

use crate::problem::Problem;
use crate::vrfs::VrfNumbers;
use ipnet::IpNet;
use sag_model::config::{self, Config, TunnelIdx};
use sag_model::{MacAddr, Nanos, VrfNo};
use sag_packet::encap::{Encap, Template};
use sag_pipeline::networks::Networks;
use sag_pipeline::tunnel::{EspSaTable, Tunnel, TunnelNo, TunnelState, Tunnels};
use sag_tunnel::group::{Group, Member, MemberState};
use sag_tunnel::keys::Lifetime;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The tunnels of a configuration as far as keys are concerned.
#[derive(Debug, Clone, Default)]
pub struct EspPlan {
    /// How long a key by agreement is in use.
    pub lifetime: Lifetime,
    /// Every enforced tunnel and its number. Tunnels of other kinds than ESP are among them.
    pub tunnels: Vec<(TunnelNo, config::Tunnel)>,
}

/// What is added to the metric of routes through a tunnel that is down.
const DOWN: u32 = 1 << 31;

/// What one tunnel was at the last compilation.
#[derive(Debug)]
struct Known {
    no: TunnelNo,
    config: config::Tunnel,
    state: Arc<TunnelState>,
}

/// Keeps numbers and state of tunnels for the daemon's life.
#[derive(Debug)]
pub struct TunnelCompiler {
    by_name: HashMap<String, Known>,
    esp: Arc<EspSaTable>,
    /// Which tunnels may carry traffic: one that has come back waits before it takes over.
    group: Group,
    /// The tunnels of the group, by position.
    members: Vec<TunnelNo>,
    /// When the group was last updated, in nanoseconds.
    updated: u64,
    /// The metric penalties with which the routes were last compiled.
    penalties: Vec<u32>,
}

impl TunnelCompiler {
    pub(crate) fn new(esp: Arc<EspSaTable>) -> TunnelCompiler {
        TunnelCompiler {
            by_name: HashMap::new(),
            esp,
            group: Group::default(),
            members: Vec::new(),
            updated: 0,
            penalties: Vec::new(),
        }
    }

    pub(crate) fn compile(
        &mut self,
        config: &Config,
        vrfs: &VrfNumbers,
        now: Nanos,
        problems: &mut Vec<Problem>,
    ) -> (Tunnels, EspPlan) {
        // XDP and workers go by the numbers of removed tunnels until all of the plan is published: a new tunnel gets another
        // one as long as there are any.
        let in_use: Vec<TunnelNo> = self.by_name.values().map(|k| k.no).collect();
        self.by_name.retain(|name, _| config.tunnels.iter().any(|t| t.name == *name));
        let mut out = Vec::new();
        for t in &config.tunnels {
            let Some(encap) = encap(t) else { continue };
            let unused = |n: &TunnelNo| !self.by_name.values().any(|k| k.no == *n);
            let fresh = |n: &TunnelNo| unused(n) && !in_use.contains(n);
            let all = || (1..=TunnelNo::MAX).filter_map(TunnelNo::new);
            let free = || all().find(fresh).or_else(|| all().find(unused));
            let no = self.by_name.get(&t.name).map(|k| k.no).or_else(free);
            let Some(no) = no else {
                problems.push(Problem::TooManyTunnels { name: t.name.clone() });
                continue;
            };
            let known = self.by_name.entry(t.name.clone()).or_insert_with(|| Known {
                no,
                config: t.clone(),
                state: Arc::default(),
            });
            // What was learned of the path and the peer does not hold for another peer or another encapsulation.
            let same = |a: &config::Tunnel, b: &config::Tunnel| {
                let encap = a.encap == b.encap || same_but_keys(&a.encap, &b.encap);
                encap && (a.local, a.remote) == (b.local, b.remote)
            };
            if !same(&known.config, t) {
                known.state = Arc::default();
            }
            known.config = t.clone();
            let vrf = vrfs.number(t.vrf.as_deref());
            out.push(Tunnel { vrf, ..tunnel(t, no, encap, known.state.clone(), &self.esp) });
        }
        let (time, bytes) = (config.dataplane.rekey_time, config.dataplane.rekey_bytes);
        let esp = EspPlan {
            lifetime: Lifetime { time: u64::from(time) * 1_000_000_000, bytes: bytes.max(0).unsigned_abs() },
            tunnels: config
                .tunnels
                .iter()
                .filter_map(|t| Some((self.by_name.get(&t.name)?.no, t.clone())))
                .collect(),
        };
        let numbers: Vec<_> = out.iter().map(|t| t.no).collect();
        if numbers != self.members {
            self.group = Group::new(numbers.iter().map(|_| Member { priority: 0, weight: 1 }));
            self.penalties = vec![0; numbers.len()];
            self.members = numbers;
        }
        self.update_group(&out, now);
        (Tunnels::new(out), esp)
    }

    /// Looks which tunnels are up. `true`: routes have to be compiled again, because a tunnel has gone down, come back, or may
    /// take over.
    pub fn poll(&mut self, tunnels: &Tunnels, now: Nanos) -> bool {
        self.update_group(tunnels.iter(), now);
        let penalties: Vec<_> = self.members.iter().map(|no| self.metric_penalty(*no)).collect();
        let changed = penalties != self.penalties;
        self.penalties = penalties;
        changed
    }

    fn update_group<'t>(&mut self, tunnels: impl IntoIterator<Item = &'t Tunnel>, now: Nanos) {
        for t in tunnels {
            if let Some(i) = self.members.iter().position(|no| *no == t.no) {
                self.group.set(i, t.state.is_up(), now.0);
            }
        }
        self.updated = now.0;
    }

    /// What is added to the metric of routes through a tunnel: one that is down comes last, and one
    /// that has just come back waits before it takes over.
    pub(crate) fn metric_penalty(&self, no: TunnelNo) -> u32 {
        let at = self.members.iter().position(|n| *n == no);
        match at.map(|i| self.group.state(i, self.updated)) {
            None | Some(MemberState::Ready) => 0,
            Some(MemberState::HoldDown) => 1 << 30,
            Some(MemberState::Down) => DOWN,
        }
    }

    /// Whether the far end of a tunnel does not answer any more.
    pub(crate) fn is_down(&self, no: TunnelNo) -> bool {
        self.metric_penalty(no) == DOWN
    }

    /// The number of a `[[tunnel]]`; `None`: it is not enforced.
    pub(crate) fn number(&self, config: &Config, idx: TunnelIdx) -> Option<TunnelNo> {
        self.by_name.get(&config.tunnels.get(idx.index())?.name).map(|k| k.no)
    }
}

fn networks<'n>(nets: impl Iterator<Item = &'n IpNet>) -> Arc<Networks> {
    Arc::new(Networks::new(nets.map(|n| (n.addr(), n.prefix_len()))))
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
        proxy_arp: t.proxy_arp,
        mtu: t.mtu,
        addrs4: t.addresses.iter().filter_map(v4).collect(),
        addrs6: t.addresses.iter().filter_map(v6).collect(),
        device: t.device.is_some(),
        device_rate: t.device_rate,
        device_sources: networks(t.device_sources.iter()),
        sources: (!t.sources.is_empty()).then(|| networks(t.addresses.iter().chain(&t.sources))),
        reverse_path: t.reverse_path,
        vrf: VrfNo::DEFAULT,
        ingress: u64::MAX,
        line: None,
        state,
        probing: t.probing.clone(),
        keepalive: t.keepalive,
        fec: t.fec,
        esp: esp.clone(),
    }
}

/// The Ethernet address of an end inside a VXLAN tunnel, unless the configuration names one: locally administered, the low
/// byte of the VNI, and the last four bytes of the outer address (of IPv6, the XOR of its words).
/// Both ends derive the same.
fn mac_inside(outer: IpAddr, vni: u32) -> MacAddr {
    let [a, b, c, d] = match outer {
        IpAddr::V4(a) => a.octets(),
        IpAddr::V6(a) => {
            let bits = a.to_bits();
            ((bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32).to_be_bytes()
        }
    };
    MacAddr([0x02, vni as u8, a, b, c, d])
}

/// Whether two encapsulations with manual keys differ in nothing but the keys.
pub fn same_but_keys(a: &config::Encap, b: &config::Encap) -> bool {
    let without_keys = |e: &config::Encap| match e {
        config::Encap::Esp { cipher, esn, replay_window, udp_port, manual: Some(_) } => {
            Some((*cipher, *esn, *replay_window, *udp_port))
        }
        _ => None,
    };
    without_keys(a).is_some() && without_keys(a) == without_keys(b)
}
