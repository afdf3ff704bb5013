//! NAT: from the configuration and the current addresses of the ports to what the pipeline translates.

use crate::ports::PortBinding;
use crate::problem::Problem;
use crate::routing_tables::RoutingTables;
use crate::vrfs::VrfNumbers;
use ipnet::IpNet;
use sag_model::config::{
    self, ClosedPorts, Config, DnatService, DnatType, NatBehavior, NatLog, NatPooling, WanSessions, WhenFull,
};
use sag_model::ids::Role;
use sag_model::{PortIdx, VrfNo};
use sag_packet::nat64::Prefix64;
use sag_pipeline::nat::{
    Behavior, EntryHits, InsideHost, Kind, Limits, Nat64Spec, NatSpec, PoolSnat, Pooling, Service,
    StaticDnat, StaticPrefix, WanAddr, WanSnat,
};
use sag_pipeline::snapshot::{AddrSet, Route};
use sag_rtnl::{Scope, Tables};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Keeps the counters of NAT entries over the daemon's life.
#[derive(Debug, Default)]
pub struct NatCompiler {
    hits: HashMap<String, Arc<EntryHits>>,
}

impl NatCompiler {
    /// What is to be translated, while the ports and the gateway have these addresses.
    pub(crate) fn compile(
        &mut self,
        config: &Config,
        (tables, bindings): (&Tables, &[PortBinding]),
        routes: &RoutingTables,
        (local, vrfs): (&BTreeMap<VrfNo, AddrSet>, &VrfNumbers),
        problems: &mut Vec<Problem>,
    ) -> NatSpec {
        self.forget_removed(config);
        let is_local = |vrf: VrfNo, addr| local.get(&vrf).is_some_and(|l| l.contains(&IpAddr::V4(addr)));
        let preferred = preferred_sources(routes, |port, addr| {
            bindings.get(port.index()).is_some_and(|b| is_local(b.port.vrf, addr))
        });
        let addrs = |idx: PortIdx| match bindings.get(idx.index()) {
            Some(b) => wan_addrs(tables, b, preferred.get(&idx).map_or(&[], |l| l)),
            None => Vec::new(),
        };
        let wans = || config.ports().filter(|(_, p)| p.role == Role::Wan);
        let own = |(idx, _): (PortIdx, &config::Port)| {
            let of_port = bindings.get(idx.index()).map_or(&[][..], |b| &b.port.addrs4);
            of_port.iter().map(|a| a.0).filter(|a| !a.is_link_local())
        };
        let snat_ports: Vec<_> = wans().filter(|(_, p)| p.snat).collect();
        let wan = snat_ports
            .into_iter()
            .map(|(port, p)| WanSnat {
                port,
                addrs: addrs(port),
                default: default_route(routes, port),
                mapping: behavior(p.snat_behavior.mapping),
                filtering: behavior(p.snat_behavior.filtering),
                hits: self.hits(&format!("port {}", p.name)),
            })
            .collect();
        let pools = config
            .snat
            .iter()
            .flat_map(|e| {
                let v4 = |net: &IpNet| match net {
                    IpNet::V4(net) => Some((net.network(), net.prefix_len())),
                    IpNet::V6(_) => None,
                };
                e.cidr_block.networks().iter().filter_map(v4).map(move |prefix| (e, prefix))
            })
            .map(|(e, prefix)| PoolSnat {
                kind: kind(e.r#type),
                port: e.port,
                prefix,
                addrs: e.addresses(),
                pooling: match e.pooling {
                    NatPooling::Paired => Pooling::Paired,
                    NatPooling::Arbitrary => Pooling::Arbitrary,
                },
                overflow: e.when_full == WhenFull::AnotherAddress,
                mapping: behavior(e.behavior.mapping),
                filtering: behavior(e.behavior.filtering),
                hits: self.hits(&e.id),
            })
            .collect();
        let prefixes = config
            .static_nat
            .iter()
            .map(|s| StaticPrefix {
                kind: kind(s.r#type),
                port: s.port,
                inside: (s.internal.network(), s.internal.prefix_len()),
                external: (s.external.network(), s.external.prefix_len()),
                vrf: vrfs.number(s.vrf.as_deref()),
                hits: self.hits(&s.id),
            })
            .collect();
        let nat64 = config
            .nat64
            .iter()
            .filter_map(|n| {
                let network = n.network();
                Some(Nat64Spec {
                    prefix: Prefix64::new(network.network(), network.prefix_len())?,
                    addrs: n.addresses(),
                    mapping: Behavior::EndpointIndependent,
                    filtering: behavior(n.filtering),
                    hits: self.hits(&n.id),
                })
            })
            .collect();
        let to_self = dnat_to_self(config, |vrf, addr| is_local(vrfs.number(vrf), addr));
        let left_out: HashSet<_> = to_self.iter().map(|(id, _)| *id).collect();
        let in_force = config.dnat.iter().filter(|d| !left_out.contains(d.id.as_str()));
        let dnat = in_force.flat_map(|d| self.dnat(d, vrfs)).collect();
        problems
            .extend(to_self.iter().map(|(id, addr)| Problem::DnatToSelf { id: (*id).into(), addr: *addr }));
        NatSpec {
            wan,
            pools,
            prefixes,
            dnat,
            wan_addrs: wans().flat_map(own).collect(),
            hairpin: config.nat.hairpin,
            drops_unsolicited: config.nat.closed_ports == ClosedPorts::Drop,
            nat64,
            tunnel_ports: Vec::new(),
            limits: limits(config),
            local: local
                .values()
                .flat_map(|own| own.iter())
                .filter_map(|a| match a {
                    IpAddr::V4(a) => Some(*a),
                    IpAddr::V6(_) => None,
                })
                .collect(),
        }
    }

    /// The counters of entries that are gone go with them.
    fn forget_removed(&mut self, config: &Config) {
        let ports: HashSet<_> = config.ports.iter().map(|p| format!("port {}", p.name)).collect();
        let entries =
            config.snat.iter().map(|e| e.id.as_str()).chain(config.dnat.iter().map(|d| d.id.as_str()));
        let entries = entries.chain(config.static_nat.iter().map(|s| s.id.as_str()));
        let entries = entries.chain(config.nat64.iter().map(|n| n.id.as_str()));
        let entries: HashSet<&str> = entries.collect();
        self.hits.retain(|id, _| entries.contains(id.as_str()) || ports.contains(id));
    }

    /// What an entry forwards, range by range.
    fn dnat(&mut self, d: &config::Dnat, vrfs: &VrfNumbers) -> Vec<StaticDnat> {
        let hits = self.hits(&d.id);
        let entry = |service| StaticDnat {
            kind: kind(d.kind),
            external: d.external_ip.into_iter().collect(),
            inside: InsideHost { addr: d.internal_ip, vrf: vrfs.number(d.vrf.as_deref()) },
            service,
            own_address: d.external_ip.is_some(),
            hits: hits.clone(),
        };
        if d.service == DnatService::Any {
            return vec![entry(Service::Any)];
        }
        let of_range = |(proto, external, internal): (u8, config::PortRange, config::PortRange)| {
            entry(Service::Port {
                proto,
                external: external.first..=external.last,
                inside_first: internal.first,
            })
        };
        d.service.ranges().into_iter().map(of_range).collect()
    }

    fn hits(&mut self, id: &str) -> Arc<EntryHits> {
        let new = || Arc::new(EntryHits { id: id.to_owned(), ..EntryHits::default() });
        self.hits.entry(id.to_owned()).or_insert_with(new).clone()
    }

    /// Sessions that an entry has made since the daemon started.
    pub fn sessions_made(&self, id: &str) -> u64 {
        self.hits.get(id).map_or(0, |h| h.sessions.load(std::sync::atomic::Ordering::Relaxed))
    }
}

/// Static entries that forward to an address of the gateway itself: what its own sockets answer passes no translation.
pub fn dnat_to_self(config: &Config, own: impl Fn(Option<&str>, Ipv4Addr) -> bool) -> Vec<(&str, Ipv4Addr)> {
    let to_self = config.dnat.iter().filter(|d| own(d.vrf.as_deref(), d.internal_ip));
    to_self.map(|d| (d.id.as_str(), d.internal_ip)).collect()
}

/// Next hop and preferred source of the default route of IPv4 by a port.
fn default_route(routes: &RoutingTables, port: PortIdx) -> Option<(Option<IpAddr>, Option<Ipv4Addr>)> {
    let rows: Vec<_> = routes.default_routes().filter(|r| r.dst.addr().is_ipv4()).collect();
    let mut members = rows.iter().flat_map(|row| {
        let used = match &row.route {
            Route::Via(members) => members.as_slice(),
            _ => &[],
        };
        used.iter().chain(&row.unused)
    });
    members.find(|m| m.tunnel.is_none() && m.port == port).map(|m| (m.via, m.source))
}

/// Sources that routes prefer, by the port by which they lead: addresses of the gateway, of whatever interface. Those of
/// default routes come first.
fn preferred_sources(
    routes: &RoutingTables,
    is_local: impl Fn(PortIdx, Ipv4Addr) -> bool,
) -> HashMap<PortIdx, Vec<Ipv4Addr>> {
    let default: Vec<_> = routes.default_routes().collect();
    let of_default = default.iter().filter_map(|row| match &row.route {
        Route::Via(members) => Some(members.iter().filter(|m| m.tunnel.is_none())),
        _ => None,
    });
    let first = of_default.flatten().filter_map(|m| Some((m.port, m.source?)));
    let mut out: HashMap<PortIdx, Vec<Ipv4Addr>> = HashMap::new();
    for (port, addr) in first.chain(routes.preferred_sources()) {
        let of_port = out.entry(port).or_default();
        if !of_port.contains(&addr) && is_local(port, addr) {
            of_port.push(addr);
        }
    }
    out
}

/// The addresses of a WAN port, in the order in which the kernel takes them as sources, then those that routes prefer. What
/// is valid on the link alone comes last: nobody beyond it can answer.
fn wan_addrs(tables: &Tables, b: &PortBinding, preferred: &[Ipv4Addr]) -> Vec<WanAddr> {
    let of_link = |addr: &Ipv4Addr| {
        let a = tables.addresses_of(b.l3_ifindex?).find(|a| a.addr == IpAddr::V4(*addr))?;
        let network = match a.peer {
            Some(IpAddr::V4(peer)) => peer,
            _ => *addr,
        };
        // What is valid on the link alone is a choice for who routes prefer it, or if there is no other.
        Some((!a.secondary && a.scope == Scope::Global).then_some((network, a.prefix_len)))
    };
    let mut out: Vec<WanAddr> = Vec::new();
    for &(addr, len) in &b.port.addrs4 {
        if out.iter().all(|o| o.addr != addr) {
            // An address of the file, not the kernel's.
            let network = of_link(&addr).unwrap_or(Some((addr, len)));
            out.push(WanAddr { addr, network, in_use: false });
        }
    }
    out.sort_by_key(|o| (o.addr.is_link_local(), o.network.is_none()));
    for &addr in preferred {
        if out.iter().all(|o| o.addr != addr) {
            out.push(WanAddr { addr, network: None, in_use: false });
        }
    }
    for (i, o) in out.iter_mut().enumerate() {
        let has_hosts = o.network.is_some_and(|(network, len)| len < 32 || network != o.addr);
        o.in_use = i == 0 || has_hosts || preferred.contains(&o.addr);
    }
    out
}

fn kind(of: DnatType) -> Kind {
    match of {
        DnatType::Internet => Kind::Internet,
        DnatType::Intranet => Kind::Intranet,
    }
}

fn behavior(b: NatBehavior) -> Behavior {
    match b {
        NatBehavior::EndpointIndependent => Behavior::EndpointIndependent,
        NatBehavior::AddressDependent => Behavior::AddressDependent,
        NatBehavior::AddressAndPortDependent => Behavior::AddressAndPortDependent,
    }
}

fn limits(config: &Config) -> Limits {
    let n = &config.nat;
    Limits {
        range: n.port_range.first..=n.port_range.last,
        host_sessions: n.host_sessions,
        host_share: config.dataplane.host_share,
        warn_percent: n.warn_percent,
        port_block: n.port_block,
        log_sessions: n.log == NatLog::Sessions,
        log_blocks: n.log == NatLog::Blocks,
        sticky_lines: n.wan_sessions == WanSessions::Sticky,
    }
}
