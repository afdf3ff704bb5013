//! Every key of the file, declared once; [`super::schema`] says what follows from a declaration.
//!
//! Adding a key: `docs/how-to/add-a-configuration-key.md`.

mod group;
mod ha;
mod nat;
mod overlay;
mod policy;
mod port;
mod port_mapping;
mod program;

pub use group::Group;
pub use ha::Ha;
pub use nat::{Dnat, Nat, Nat64, Snat, StaticNat, SynCookies};
pub use overlay::{FlowLog, Tunnel};
pub use policy::{Acl, AclRule, Qos, QosCar, QosPolicy};
pub use port::{Neighbor, Port, Route, Vrf};
pub use port_mapping::PortMapping;
pub use program::{Bandwidth, Dataplane, Timeouts};

pub(crate) use group::RawGroup;
pub(crate) use ha::RawHa;
pub(crate) use nat::{DNAT_PORTS, RawDnat, RawNat, RawNat64, RawSnat, RawStaticNat, RawSynCookies, ReadNat};
pub(crate) use overlay::{RawFlowLog, RawTunnel, TunnelKeys};
pub(crate) use policy::{RawAcl, RawAclRule, RawQos, RawQosCar, RawQosPolicy};
pub(crate) use port::{RawNeighbor, RawPort, RawRoute, RawVrf};
pub(crate) use port_mapping::RawPortMapping;
pub(crate) use program::{RawBandwidth, RawDataplane, RawTimeouts};

use super::schema::sections;
use super::types::{RouteTarget, TunnelIdx};
use crate::ids::PortIdx;

sections! {
    pub(crate) struct RawConfig {
        dataplane: Option<RawDataplane>,
        timeouts: Option<RawTimeouts>,
        bandwidth: Option<RawBandwidth>,
        vrf: Vec<RawVrf>,
        port: Vec<RawPort>,
        neighbor: Vec<RawNeighbor>,
        route: Vec<RawRoute>,
        group: Vec<RawGroup>,
        acl: Vec<RawAcl>,
        qos: Vec<RawQos>,
        nat: Option<RawNat>,
        snat: Vec<RawSnat>,
        dnat: Vec<RawDnat>,
        static_nat: Vec<RawStaticNat>,
        nat64: Vec<RawNat64>,
        port_mapping: Option<RawPortMapping>,
        syn_cookies: Vec<RawSynCookies>,
        tunnel: Vec<RawTunnel>,
        ha: Option<RawHa>,
        flow_log: Option<RawFlowLog>,
    }
    pub const SECTIONS: [
        one "dataplane" RawDataplane,
        one "timeouts" RawTimeouts,
        one "bandwidth" RawBandwidth,
        many "vrf" RawVrf,
        many "port" RawPort,
        many "neighbor" RawNeighbor,
        many "route" RawRoute,
        many "group" RawGroup,
        many "acl" RawAcl,
        many "acl.rule" RawAclRule,
        many "qos" RawQos,
        many "qos.car" RawQosCar,
        many "qos.policy" RawQosPolicy,
        one "nat" RawNat,
        many "snat" RawSnat,
        many "dnat" RawDnat,
        many "static_nat" RawStaticNat,
        many "nat64" RawNat64,
        one "port_mapping" RawPortMapping,
        many "syn_cookies" RawSynCookies,
        many "tunnel" RawTunnel,
        one "ha" RawHa,
        one "flow_log" RawFlowLog,
    ]
}

/// One device's whole configuration. The default has no port, which a file may not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// The program.
    pub dataplane: Dataplane,
    /// How long sessions live without traffic.
    pub timeouts: Timeouts,
    /// Bandwidth of the device.
    pub bandwidth: Bandwidth,
    /// VRFs beside the default one.
    pub vrfs: Vec<Vrf>,
    /// Ports. The position is the port's [`PortIdx`]: that in the file, unless [`Config::keep_numbers`] has given it another.
    pub ports: Vec<Port>,
    /// Static entries of the neighbour table.
    pub neighbors: Vec<Neighbor>,
    /// Static routes.
    pub routes: Vec<Route>,
    /// Named sets of networks and ports.
    pub groups: Vec<Group>,
    /// Access control lists, all in force together.
    pub acls: Vec<Acl>,
    /// CARs and policies.
    pub qos: Vec<Qos>,
    /// What all translations have in common.
    pub nat: Nat,
    /// Private source NAT.
    pub snat: Vec<Snat>,
    /// Destination NAT.
    pub dnat: Vec<Dnat>,
    /// Networks that are translated address by address.
    pub static_nat: Vec<StaticNat>,
    /// Prefixes behind which IPv6 hosts reach IPv4 ones.
    pub nat64: Vec<Nat64>,
    /// What hosts behind ports with `port_mapping` may ask for.
    pub port_mapping: PortMapping,
    /// Services that SYN cookies protect.
    pub syn_cookies: Vec<SynCookies>,
    /// Tunnels; the position is the [`TunnelIdx`].
    pub tunnels: Vec<Tunnel>,
    /// The peer to which sessions follow.
    pub ha: Option<Ha>,
    /// Export of flow records.
    pub flow_log: Option<FlowLog>,
}

impl Config {
    /// The port of an index.
    pub fn port(&self, idx: PortIdx) -> Option<&Port> {
        self.ports.get(idx.index())
    }

    /// The index of the port of a name.
    pub fn port_by_name(&self, name: &str) -> Option<PortIdx> {
        self.ports().find(|(_, p)| p.name == name).map(|(i, _)| i)
    }

    /// All ports with their indexes, those of role `mgmt` included.
    pub fn ports(&self) -> impl Iterator<Item = (PortIdx, &Port)> {
        (0..=u8::MAX).map(PortIdx).zip(&self.ports)
    }

    /// The tunnel of an index.
    pub fn tunnel(&self, idx: TunnelIdx) -> Option<&Tunnel> {
        self.tunnels.get(idx.index())
    }

    /// Gives each port the number that it had until now, so that what was counted or remembered under
    /// a number stays that port's. Ports that are new, or whose number is beyond the last one, get those
    /// that are left, in the order of the file.
    pub fn keep_numbers(&mut self, until_now: impl Fn(&Port) -> Option<PortIdx>) {
        let mut places: Vec<Option<usize>> = vec![None; self.ports.len()];
        let mut new_number = vec![None; self.ports.len()];
        for (i, p) in self.ports.iter().enumerate() {
            if let Some(number) = until_now(p)
                && let Some(place @ None) = places.get_mut(number.index())
            {
                *place = Some(i);
                new_number[i] = Some(number);
            }
        }
        let mut left = places.iter().enumerate().filter(|(_, p)| p.is_none()).map(|(n, _)| n);
        for number in new_number.iter_mut().filter(|n| n.is_none()) {
            *number = left.next().and_then(|n| u8::try_from(n).ok()).map(PortIdx);
        }
        let number = |old: PortIdx| new_number.get(old.index()).copied().flatten().unwrap_or(old);
        let mut ports: Vec<_> = (0..=u8::MAX).map(PortIdx).zip(std::mem::take(&mut self.ports)).collect();
        ports.sort_by_key(|(old, _)| number(*old));
        self.ports = ports.into_iter().map(|(_, p)| p).collect();
        for n in &mut self.neighbors {
            n.port = number(n.port);
        }
        for s in &mut self.snat {
            s.port = s.port.map(number);
        }
        for s in &mut self.static_nat {
            s.port = s.port.map(number);
        }
        for r in &mut self.routes {
            if let RouteTarget::Via { port: Some(port), .. } | RouteTarget::OnLink(port) = &mut r.target {
                *port = number(*port);
            }
        }
    }

    /// The keys, as `dataplane.flows`, that differ from `new` and that the daemon reads at its start only.
    pub fn needs_restart(&self, new: &Config) -> Vec<String> {
        let sections = [
            ("dataplane", self.dataplane.at_start_changes(&new.dataplane)),
            ("timeouts", self.timeouts.at_start_changes(&new.timeouts)),
            ("bandwidth", self.bandwidth.at_start_changes(&new.bandwidth)),
            ("nat", self.nat.at_start_changes(&new.nat)),
            ("port_mapping", self.port_mapping.at_start_changes(&new.port_mapping)),
        ];
        let keys = |(section, keys): (&str, Vec<&str>)| {
            keys.into_iter().map(move |key| format!("{section}.{key}")).collect::<Vec<_>>()
        };
        sections.into_iter().flat_map(keys).collect()
    }
}
