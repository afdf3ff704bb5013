//! Static routes, and the tunnels of a network with the routes by them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sag_model::Role;
use sag_southbound::{Effect, RouteOrigin};
use toml::Value;

use super::isolation::Object;
use super::{Compiler, PortAddress, in_force, optional, port_name, same_net, table};
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
            let strategy = desired.distributions.iter().find(|d| {
                d.source_type == Some(RouteOrigin::Local)
                    && d.source == "STATIC"
                    && same_net(&d.destination, &r.destination)
            });
            if strategy.is_some_and(|s| !in_force(s, self.health)) {
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
        // The address that the WAN port will have, or has.
        let wan =
            self.ports.iter().find(|(_, _, role)| *role == Role::Wan).map(|(_, device, _)| device.clone());
        let planned = addresses.iter().find(|a| Some(&a.device) == wan.as_ref()).map(|a| a.address.addr());
        let present = endpoint.addresses.iter().find(|(d, _)| Some(d) == wan.as_ref()).map(|(_, a)| a.addr());
        let Some(local) = planned.or(present) else {
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
                if desired.distributions.iter().find(of).is_some_and(|s| !in_force(s, self.health)) {
                    continue;
                }
                let entry = table! { "destination": block, "tunnel": &t.name, "metric": t.metric };
                self.push("route", entry, Object::Block(gateway.clone(), block.clone()));
            }
            self.tunnels.push(t);
        }
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
