//! What routes are decided by, apart from the kernel's own routes.

use super::file::networks_of;
use super::{Sources, TunnelDevices};
use crate::kernel_vrfs::kernel_tables;
use crate::ports::PortBinding;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sag_model::VrfNo;
use sag_model::config::{self, RouteTarget, TunnelIdx};
use sag_pipeline::tunnel::TunnelNo;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// As long as these are the same, a change of the kernel's routes to a prefix changes nothing but that prefix, and routes
/// of the file whose next hop is looked for among the routes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inputs {
    ports: Vec<config::Port>,
    routes: Vec<config::Route>,
    tunnels: Vec<TunnelInput>,
    vrfs: Vec<(String, VrfNo)>,
    bindings: Vec<PortBinding>,
    /// The kernel's tables that are those of VRFs.
    kernel_tables: BTreeMap<u32, String>,
    /// The kernel's devices of tunnels, with whether they are up.
    devices: BTreeMap<u32, (TunnelNo, bool)>,
    /// Routes of the file whose next hop is looked for.
    searched: Searched,
}

/// Routes of the file whose next hop is looked for among the routes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Searched {
    /// Destinations by next hop.
    by_hop: BTreeMap<IpAddr, BTreeSet<IpNet>>,
    /// Next hops by destination.
    by_destination: BTreeMap<IpNet, BTreeSet<IpAddr>>,
}

/// Prefixes that are decided, and what they are decided by.
#[derive(Debug, Default)]
pub(crate) struct Only {
    /// Those that are decided.
    pub prefixes: BTreeSet<IpNet>,
    /// Those by which the next hops of some of them are found.
    towards: BTreeSet<IpNet>,
}

impl Only {
    /// Whether routes of this prefix are looked at.
    pub fn has(&self, dst: &IpNet) -> bool {
        self.prefixes.contains(dst) || self.towards.contains(dst)
    }

    /// The prefixes whose routes are looked at, in order.
    pub fn iter(&self) -> impl Iterator<Item = &IpNet> {
        self.prefixes.union(&self.towards)
    }
}

/// What is to be decided anew.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Affected {
    /// Prefixes of which the file says something, or has said something, and default routes.
    pub prefixes: BTreeSet<IpNet>,
    /// Interfaces whose routes in the kernel's tables may be decided otherwise.
    pub interfaces: BTreeSet<u32>,
}

/// What routes depend on of a tunnel.
#[derive(Debug, PartialEq, Eq)]
struct TunnelInput {
    name: String,
    no: Option<TunnelNo>,
    vrf: Option<String>,
    addresses: Vec<IpNet>,
    penalty: u32,
    down: bool,
}

impl Inputs {
    pub fn of(from: Sources<'_>) -> Inputs {
        let Sources { config, tables, bindings, tunnels, vrfs, .. } = from;
        let tunnel = |(i, t): (usize, &config::Tunnel)| {
            let no = tunnels.number(config, TunnelIdx(i as u16));
            TunnelInput {
                name: t.name.clone(),
                no,
                vrf: t.vrf.clone(),
                addresses: t.addresses.clone(),
                penalty: no.map_or(0, |no| tunnels.metric_penalty(no)),
                down: no.is_some_and(|no| tunnels.is_down(no)),
            }
        };
        let devices = TunnelDevices::of(config, tables, tunnels).by_ifindex;
        let is_up = |ifindex| tables.link(ifindex).is_some_and(|l| l.up);
        Inputs {
            ports: config.ports.clone(),
            routes: config.routes.clone(),
            tunnels: config.tunnels.iter().enumerate().map(tunnel).collect(),
            vrfs: config.vrfs.iter().map(|v| (v.name.clone(), vrfs.number(Some(&v.name)))).collect(),
            bindings: bindings.to_vec(),
            kernel_tables: kernel_tables(config, tables),
            devices: devices.into_iter().map(|(ifindex, no)| (ifindex, (no, is_up(ifindex)))).collect(),
            searched: Searched::of(&config.routes),
        }
    }

    /// These prefixes, the routes of the file whose next hop is looked for among them, and what is needed for that. No such
    /// route's next hop is found by another one.
    pub fn only(&self, changed: impl Iterator<Item = IpNet>) -> Only {
        let mut prefixes: BTreeSet<IpNet> = changed.collect();
        let Searched { by_hop, by_destination } = &self.searched;
        if by_hop.is_empty() {
            return Only { prefixes, ..Only::default() };
        }
        // The default route is none of those by which next hops are found.
        let hops =
            |p: &IpNet| by_hop.range(p.network()..=p.broadcast()).flat_map(|(_, to)| to.iter().copied());
        let found: Vec<IpNet> = prefixes.iter().filter(|p| p.prefix_len() > 0).flat_map(hops).collect();
        prefixes.extend(found);
        let next_hops = prefixes.iter().filter_map(|p| by_destination.get(p)).flatten().copied();
        let covering = |hop: IpAddr| {
            let longest = IpNet::from(hop);
            (1..=longest.prefix_len()).filter_map(move |len| Some(IpNet::new(hop, len).ok()?.trunc()))
        };
        let towards = next_hops.flat_map(covering).collect();
        Only { prefixes, towards }
    }

    /// What is to be decided anew if these inputs become `new`; `None`: everything, since numbers may stand for other VRFs,
    /// ports or tunnels than before. `used`: a route leads into the tunnel of this number.
    pub fn affected_by(&self, new: &Inputs, used: impl Fn(TunnelNo) -> bool) -> Option<Affected> {
        let which = |p: &config::Port| (p.name.clone(), p.device.clone(), p.vlan, p.vrf.clone(), p.role);
        let same_ports = self.ports.iter().map(which).eq(new.ports.iter().map(which));
        // A tunnel that is gone may have routes that are not decided anew yet: its number is not another one's.
        let known = |t: &TunnelInput| self.tunnels.iter().any(|old| (old.no, &old.name) == (t.no, &t.name));
        let takes_over = |t: &TunnelInput| !known(t) && t.no.is_some_and(&used);
        if self.vrfs != new.vrfs
            || self.kernel_tables != new.kernel_tables
            || !same_ports
            || new.tunnels.iter().any(takes_over)
        {
            return None;
        }
        let mut interfaces = BTreeSet::new();
        let state = |b: &PortBinding| (b.l3_ifindex, b.port.up, b.port.failed);
        for (a, b) in self.bindings.iter().zip(&new.bindings).filter(|(a, b)| state(a) != state(b)) {
            interfaces.extend(a.l3_ifindex.into_iter().chain(b.l3_ifindex));
        }
        let device = |i: &Inputs, ifindex: u32| {
            let (no, up) = *i.devices.get(&ifindex)?;
            Some((no, up, i.tunnels.iter().any(|t| t.no == Some(no) && t.down)))
        };
        let known = self.devices.keys().chain(new.devices.keys()).copied();
        interfaces.extend(known.filter(|ifindex| device(self, *ifindex) != device(new, *ifindex)));
        let prefixes = self.of_file().chain(new.of_file()).collect();
        Some(Affected { prefixes, interfaces })
    }

    /// The prefixes of which the file says something, and default routes.
    fn of_file(&self) -> impl Iterator<Item = IpNet> + '_ {
        let routes = self.routes.iter().map(|r| r.destination);
        let networks = self.ports.iter().flat_map(|p| &p.addresses).copied();
        let inside = self.tunnels.iter().flat_map(|t| &t.addresses).copied();
        let attached = self.bindings.iter().flat_map(networks_of);
        let default = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())].into_iter();
        default.chain(routes).chain(networks).chain(inside).chain(attached).map(|n| n.trunc())
    }
}

impl Searched {
    fn of(routes: &[config::Route]) -> Searched {
        let mut all = Searched::default();
        for r in routes {
            if let RouteTarget::Via { next_hop, port: None } = r.target {
                let destination = r.destination.trunc();
                all.by_hop.entry(next_hop).or_default().insert(destination);
                all.by_destination.entry(destination).or_default().insert(next_hop);
            }
        }
        all
    }
}
