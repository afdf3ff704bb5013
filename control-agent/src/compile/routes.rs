//! Static routes, and the tunnels of a network with the routes by them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sag_model::Role;
use sag_southbound::{Effect, RouteOrigin};
use toml::Value;

use super::isolation::Object;
use super::ports::{WAN_PRIORITY, by_name};
use super::{Compiler, PortAddress, optional, port_name, publishes, same_net, table};
use crate::desired::Distribution;
use crate::overlay::{self, LocalEndpoint, Own};

impl Compiler<'_> {
    pub(super) fn routes(&mut self) {
        let desired = self.desired;
        for (n, r) in desired.routes.iter().enumerate() {
            let object = Object::Route(n);
            if self.is_left_out(&object) {
                continue;
            }
            let port = port_name(&r.port, r.vlan);
            if !self.ports.iter().any(|(name, ..)| *name == port) {
                let wired = self.wiring.contains_key(&r.port);
                let why = match wired {
                    true => format!("port {port} is not in force"),
                    false => {
                        format!("port {port} has no network device here; wire it in [ports] of agent.toml")
                    }
                };
                self.deviate(&object, Effect::LeftOut, why);
                continue;
            }
            // What the branch's own routes are published for is the cloud's business. A route by a leased line leads to a
            // border router, which is in the cloud.
            let line = self.ports.iter().any(|(name, _, role)| *name == port && *role == Role::Express);
            let of_line = |d: &&Distribution| {
                d.source_type == Some(RouteOrigin::Cloud)
                    && d.source.starts_with("vbr-")
                    && same_net(&d.destination, &r.destination)
            };
            let strategy = desired.distributions.iter().find(of_line).filter(|_| line);
            if strategy.is_some_and(|s| !publishes(s, self.health)) {
                continue;
            }
            self.static_routes.push((r.destination.clone(), port.clone()));
            let entry = table! { "destination": &r.destination, "next_hop": &r.next_hop, "port": &port };
            self.push("route", entry, object);
        }
    }

    /// Tunnels to the other members of the cloud connect network, and the routes by them.
    pub(super) fn overlay(&mut self, addresses: &[PortAddress]) {
        let desired = self.desired;
        let Some(ccn) = &desired.ccn else { return };
        let Some(endpoint) = self.endpoint else {
            self.notices
                .push(format!("network {}: this gateway has no tunnels; it needs a leased line", ccn.id));
            return;
        };
        let Some(local) = self.tunnel_end(addresses, endpoint) else {
            self.notices.push(format!("network {}: no WAN port has an address for its tunnels", ccn.id));
            return;
        };
        self.local = Some(local);
        let own = self.own(local, endpoint, addresses);
        let plan = overlay::plan(ccn, endpoint, &own, &self.excluded.members);
        self.notices.extend(plan.notices);
        self.refused = plan.refused;
        for t in plan.tunnels {
            let mut entry = table! {
                "name": &t.name, "kind": "esp", "keying": "agreed", "local": &local.to_string(),
                "remote": &t.remote.to_string(),
            };
            entry.insert("udp_encap".into(), Value::Boolean(true));
            if endpoint.fec {
                entry.insert("fec".into(), Value::Boolean(true));
            }
            self.push("tunnel", entry, Object::Device(t.peer.sn.clone()));
            for (block, gateway) in &t.blocks {
                let of = |d: &&Distribution| {
                    d.source_type == Some(RouteOrigin::Cloud)
                        && d.source == *gateway
                        && same_net(&d.destination, block)
                };
                if desired.distributions.iter().find(of).is_some_and(|s| !publishes(s, self.health)) {
                    continue;
                }
                let entry = table! { "destination": block, "tunnel": &t.name, "metric": t.metric };
                self.member_routes.push(block.clone());
                self.push("route", entry, Object::Block(gateway.clone(), block.clone()));
            }
            self.tunnels.push(t);
        }
    }

    /// Where the tunnels end: at the address that a WAN port will have, or has. The first one by priority that frames can
    /// pass is taken, so with its link the tunnels move to another.
    fn tunnel_end(&self, addresses: &[PortAddress], endpoint: &LocalEndpoint) -> Option<Ipv4Addr> {
        let wans = self.ports.iter().filter(|(_, _, role)| *role == Role::Wan);
        let mut ends: Vec<_> = wans
            .filter_map(|(name, device, _)| {
                let planned = addresses.iter().find(|a| a.device == *device).map(|a| a.address.addr());
                let present = endpoint.addresses.iter().find(|(d, _)| d == device).map(|(_, a)| a.addr());
                let down = !endpoint.running.contains(device);
                let priority = self.desired.wans.get(name).and_then(|w| w.priority);
                Some(((down, priority.unwrap_or(WAN_PRIORITY), by_name(name)), planned.or(present)?))
            })
            .collect();
        ends.sort();
        ends.first().map(|(_, address)| *address)
    }

    /// What of this gateway no member of the network may touch: its addresses, the networks of its ports, its static routes
    /// as far as they are in force, and its blocks.
    fn own(&self, local: Ipv4Addr, endpoint: &LocalEndpoint, planned: &[PortAddress]) -> Own {
        let mut own = Own { local: Some(local), ..Own::default() };
        let planned = planned.iter().map(|a| (a.device.as_str(), a.address));
        let present = endpoint.addresses.iter().map(|(device, address)| (device.as_str(), *address));
        for (device, address) in planned.chain(present) {
            own.addresses.insert(address.addr());
            // Devices that are no ports, such as those of containers, are none of the gateway's business.
            let Some((port, _, role)) = self.ports.iter().find(|(_, d, _)| d == device) else { continue };
            let network = (address.trunc(), format!("the network of port {port}"));
            if *role == Role::Lan && !own.inside.contains(&network) {
                own.inside.push(network.clone());
            }
            if !own.networks.contains(&network) {
                own.networks.push(network);
            }
        }
        for (destination, port) in &self.static_routes {
            if let Ok(net) = destination.parse::<Ipv4Net>().map(|n| n.trunc()) {
                own.networks.push((net, format!("the static route by port {port} to")));
            }
        }
        for block in &self.desired.blocks {
            if let Ok(net) = block.parse::<Ipv4Net>().map(|n| n.trunc()) {
                own.networks.push((net, "this gateway's own block".to_owned()));
            }
        }
        own
    }
}
