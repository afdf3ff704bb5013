//! BGP and OSPF, as far as the cloud's configuration says it: what FRR shall do. What the machine adds (networks of its
//! ports, neighbors and keys of its own file) comes later, in `routing`.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use sag_frr as frr;
use sag_model::Role;
use sag_southbound::{Effect, RouteOrigin, RouteProtocol};

use super::isolation::deviation;
use super::{Compiler, Verdict, port_name, publishes};
use crate::desired::{Desired, PortProtocol};
use std::collections::BTreeMap;

/// Defaults of the API's console, for documents without the value.
const HOLD_TIME: i64 = 9;
const KEEP_ALIVE: i64 = 3;
const HELLO_TIME: i64 = 10;
const DEAD_TIME: i64 = 40;

/// Whether the branch may announce the network: a strategy for it, or for the block that it is in, decides.
pub fn announced(desired: &Desired, health: &BTreeMap<String, Verdict>, net: &IpNet) -> bool {
    let IpNet::V4(net) = net else { return true };
    let block = |text: &str| text.parse::<Ipv4Net>().ok().map(|b| b.trunc());
    let own = desired.distributions.iter().filter(|d| d.source_type == Some(RouteOrigin::Local));
    // The strategy of the longest block is the nearest.
    let nearest = own
        .filter_map(|d| Some((block(&d.destination).filter(|b| b.contains(&net.trunc()))?, d)))
        .max_by_key(|(b, _)| b.prefix_len());
    nearest.is_none_or(|(_, d)| publishes(d, health))
}

impl Compiler<'_> {
    /// What FRR shall do by the cloud's configuration.
    pub(super) fn protocols(&mut self) -> frr::Settings {
        let desired = self.desired;
        let mut out = frr::Settings::default();
        match &desired.route_protocol {
            Some(RouteProtocol::Bgp) => out.bgp = self.bgp(),
            Some(RouteProtocol::Ospf) => out.ospf = self.ospf(),
            Some(RouteProtocol::Unknown(word)) => {
                let why =
                    format!("{word:?} is unknown to this version, so routes are static; update sag-agent");
                self.left_out("RouteProtocol", "routing protocol of the device", why);
            }
            None | Some(RouteProtocol::Static) => {}
        }
        out.vrrp = self.virtual_address();
        out
    }

    /// The virtual address of a LAN port. The number of the virtual router is the address's last one: the same on both
    /// devices, without being told.
    fn virtual_address(&mut self) -> Option<frr::Vrrp> {
        let desired = self.desired;
        let ha = desired.ha.as_ref()?;
        let object = format!("virtual address {} on port {}", ha.virtual_ip, ha.port);
        let Ok(address) = ha.virtual_ip.parse::<Ipv4Addr>() else {
            self.left_out("Ha", object, format!("VirtualIp {:?} is no IPv4 address", ha.virtual_ip));
            return None;
        };
        let found = self.ports.iter().find(|(name, _, role)| *name == ha.port && *role == Role::Lan);
        let Some((port, device, _)) = found else {
            self.left_out("Ha", object, "the virtual address is for a LAN port that is in force");
            return None;
        };
        let router = Some(address.octets()[3]).filter(|n| *n != 0).unwrap_or(255);
        // The rest is of the device's own file.
        let (port, device, priority) = (port.clone(), device.clone(), 0);
        Some(frr::Vrrp { port, device, address, router, priority, virtual_mac: false, ipv6: Vec::new() })
    }

    fn left_out(&mut self, section: &str, object: impl Into<String>, why: impl Into<String>) {
        self.deviations.push(deviation(section, object, Effect::LeftOut, why));
    }

    /// A number of the document that must fit its field.
    fn fitting<T: TryFrom<i64>>(
        &mut self,
        of: (&str, &str),
        name: &str,
        value: Option<i64>,
        default: i64,
    ) -> Option<T> {
        let value = value.unwrap_or(default);
        let fits = T::try_from(value).ok();
        if fits.is_none() {
            self.left_out(of.0, of.1, format!("{name} {value} is out of range"));
        }
        fits
    }

    fn router_id(&mut self, of: (&str, &str), text: &str) -> Option<Ipv4Addr> {
        let id = text.parse().ok();
        if id.is_none() {
            self.left_out(of.0, of.1, format!("RouterId {text:?} is no IPv4 address"));
        }
        id
    }

    fn bgp(&mut self) -> Option<frr::Bgp> {
        const OF: (&str, &str) = ("Bgp", "BGP");
        let desired = self.desired;
        // The protocol is chosen before its parameters are set: no mistake, but nothing to do either.
        let set = desired.bgp.as_ref()?;
        let router_id = self.router_id(OF, &set.router_id)?;
        let local_as = self.fitting(OF, "LocalAs", set.local_as, 0)?;
        let hold_time = self.fitting(OF, "HoldTime", set.hold_time, HOLD_TIME)?;
        let keepalive = self.fitting(OF, "KeepAlive", set.keep_alive, KEEP_ALIVE)?;
        let mut neighbors = Vec::new();
        for p in desired.port_protocols.iter().filter(|p| p.protocol == Some(RouteProtocol::Bgp)) {
            neighbors.extend(self.bgp_neighbor(p));
        }
        self.other_protocols(&RouteProtocol::Bgp);
        Some(frr::Bgp {
            router_id,
            local_as,
            hold_time,
            keepalive,
            max_prefixes: 0,
            neighbors,
            branch: self.own_networks(),
            beyond: self.beyond().into_iter().map(IpNet::V4).collect(),
        })
    }

    /// The neighbor on a port, if the port is in force.
    fn bgp_neighbor(&mut self, p: &PortProtocol) -> Option<frr::Neighbor> {
        let port = port_name(&p.port, p.vlan);
        let object = format!("BGP neighbor {} of port {port}", p.remote_ip);
        let Ok(address) = p.remote_ip.parse::<IpAddr>() else {
            self.left_out("PortProtocols", object, format!("RemoteIp {:?} is no address", p.remote_ip));
            return None;
        };
        let Ok(remote_as) = p.remote_as.parse::<u32>() else {
            self.left_out("PortProtocols", object, format!("RemoteAs {:?} is no AS number", p.remote_as));
            return None;
        };
        let Some((_, _, role)) = self.ports.iter().find(|(name, ..)| *name == port) else {
            self.left_out("PortProtocols", object, format!("port {port} is not in force"));
            return None;
        };
        let side = if *role == Role::Lan { frr::Side::Inside } else { frr::Side::Outside };
        Some(frr::Neighbor { port, address, remote_as, key: None, side, hops: 1 })
    }

    fn ospf(&mut self) -> Option<frr::Ospf> {
        const OF: (&str, &str) = ("Ospf", "OSPF");
        let desired = self.desired;
        let set = desired.ospf.as_ref()?;
        let router_id = self.router_id(OF, &set.router_id)?;
        let area = self.fitting(OF, "AreaId", set.area_id, 0)?;
        let hello = self.fitting(OF, "HelloTime", set.hello_time, HELLO_TIME)?;
        let dead = self.fitting(OF, "DeadTime", set.dead_time, DEAD_TIME)?;
        let key = |secret: &sag_southbound::Secret| frr::Key::new(secret.reveal());
        // A word that is not known may ask for anything: without authentication nobody is talked to by mistake.
        let authentication = match set.authentication.as_str() {
            "NONE" | "" => frr::Authentication::None,
            "CLEARTEXT" => frr::Authentication::Password(key(&set.password)),
            "MD5" => {
                let id: u8 = self.fitting(OF, "Md5KeyId", set.md5_key_id, 0)?;
                frr::Authentication::Md5 { id, key: key(&set.md5_key) }
            }
            word => {
                let why = format!("AuthenticationType {word:?} is unknown to this version; update sag-agent");
                self.left_out(OF.0, OF.1, why);
                return None;
            }
        };
        let mut interfaces = Vec::new();
        for p in desired.port_protocols.iter().filter(|p| p.protocol == Some(RouteProtocol::Ospf)) {
            let found = self.ports.iter().find(|(name, _, role)| *name == p.port && *role == Role::Lan);
            match found {
                Some((port, device, _)) if p.vlan == 0 => {
                    interfaces.push(frr::Interface { port: port.clone(), device: device.clone() });
                }
                _ => {
                    let port = port_name(&p.port, p.vlan);
                    let why = "OSPF is for LAN ports that are in force";
                    self.left_out("PortProtocols", format!("OSPF on port {port}"), why);
                }
            }
        }
        self.other_protocols(&RouteProtocol::Ospf);
        let speaks = |device: &String| interfaces.iter().any(|i| i.device == *device);
        let lans = self.ports.iter().filter(|(_, _, role)| *role == Role::Lan).map(|(_, device, _)| device);
        let passive = lans.filter(|d| !speaks(d)).cloned().collect();
        let beyond = self.beyond();
        Some(frr::Ospf { router_id, area, hello, dead, authentication, interfaces, passive, beyond })
    }

    /// Ports whose protocol is not that of the device.
    fn other_protocols(&mut self, device: &RouteProtocol) {
        let desired = self.desired;
        for p in &desired.port_protocols {
            let Some(protocol) = &p.protocol else { continue };
            if protocol == device || *protocol == RouteProtocol::Static {
                continue;
            }
            let object = format!("{protocol} on port {}", port_name(&p.port, p.vlan));
            self.left_out("PortProtocols", object, format!("the device's protocol is {device}"));
        }
    }

    /// The branch's blocks, and networks behind its LAN ports.
    fn own_networks(&self) -> Vec<IpNet> {
        let lan = |port: &str| self.ports.iter().any(|(name, _, role)| name == port && *role == Role::Lan);
        let behind = self.static_routes.iter().filter(|r| lan(&r.port)).map(|r| r.net);
        let blocks = self.desired.blocks.iter().filter_map(|b| b.parse::<Ipv4Net>().ok()).map(|n| n.trunc());
        // A default route by a LAN port stays the branch's own.
        let mut out: Vec<IpNet> =
            blocks.chain(behind).filter(|n| n.prefix_len() > 0).map(IpNet::V4).collect();
        out.retain(|n| announced(self.desired, self.health, n));
        out.sort();
        out.dedup();
        out
    }

    /// Blocks of other members of the network to which the gateway has routes.
    fn beyond(&self) -> Vec<Ipv4Net> {
        let mut out: Vec<Ipv4Net> =
            self.member_routes.iter().filter_map(|b| b.parse::<Ipv4Net>().ok()).map(|n| n.trunc()).collect();
        out.sort();
        out.dedup();
        out
    }
}

#[cfg(test)]
#[path = "protocols_tests.rs"]
mod tests;
