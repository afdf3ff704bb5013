//! Static routes, and the tunnels of a network with the routes by them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use sag_model::Role;
use sag_southbound::{Effect, Line, MAX_LINES, RouteOrigin};
use toml::Value;

use super::isolation::Object;
use super::ports::{WAN_PRIORITY, WAN_WEIGHT, by_name};
use super::{Compiler, PortAddress, StaticRoute, optional, port_name, publishes, same_net, table};
use crate::desired::Distribution;
use crate::overlay::{self, LocalEndpoint, Own};

/// What is added to the metric of a route by a tunnel that stands in for a leased line.
const BACKUP_METRIC: i64 = 1000;
/// What is added to the priority of a line that leads nowhere: more than the API has.
const LAST: i64 = 1000;

/// A WAN port at which tunnels can end.
struct WanEnd {
    name: String,
    address: Ipv4Addr,
    /// Frames cannot pass.
    down: bool,
    /// It was found to lead nowhere: by health checks, or by tunnels.
    failed: bool,
    unfit: bool,
    priority: i64,
    weight: i64,
}

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
            let net = r.destination.parse::<Ipv4Net>().map(|n| n.trunc()).ok();
            // Of a line without carrier the destinations are the overlay's, as far as it has them.
            let down = line && !self.has_carrier(&port);
            if down && net.is_some_and(|n| self.is_within_a_block(n)) {
                continue;
            }
            if let Some(net) = net.filter(|_| !down) {
                self.static_routes.push(StaticRoute { net, port: port.clone(), leased: line });
            }
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
        self.lines.clone_from(&own.lines);
        let plan = overlay::plan(ccn, endpoint, &own, &self.excluded.members);
        self.notices.extend(plan.notices);
        self.refused = plan.refused;
        let inside = self.address_inside(addresses, endpoint);
        for t in plan.tunnels {
            let mut entry = table! {
                "name": &t.name, "kind": "esp", "keying": "agreed", "local": &t.local.to_string(),
                "remote": &t.remote.to_string(), "device": &t.device,
            };
            // The machine itself may be answered from there whether there is a route or not: health checks decide about that.
            let blocks = t.blocks.iter().map(|(block, _)| Value::String(block.clone()));
            entry.insert("device_sources".into(), Value::Array(blocks.collect()));
            if let Some(address) = inside {
                let own = Ipv4Net::from(address).to_string();
                entry.insert("addresses".into(), Value::Array(vec![Value::String(own)]));
            }
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
                // A leased line comes first while it is up.
                let leased =
                    self.static_routes.iter().any(|r| r.leased && same_net(&r.net.to_string(), block));
                let metric = t.metric + if leased { BACKUP_METRIC } else { 0 };
                let mut entry = table! { "destination": block, "tunnel": &t.name, "metric": metric };
                if t.several {
                    entry.insert("weight".into(), Value::Integer(t.weight));
                }
                self.member_routes.push(block.clone());
                self.push("route", entry, Object::Block(gateway.clone(), block.clone()));
            }
            self.tunnels.push(t);
        }
    }

    /// Whether frames can pass a port, as far as that is known.
    fn has_carrier(&self, port: &str) -> bool {
        let device = self.ports.iter().find(|(name, ..)| name == port).map(|(_, device, _)| device);
        self.endpoint.is_none_or(|e| device.is_some_and(|d| e.running.contains(d)))
    }

    /// Whether another member of the network has a larger block around a network.
    fn is_within_a_block(&self, net: Ipv4Net) -> bool {
        let members = self.desired.ccn.iter().flat_map(|ccn| &ccn.members).flat_map(|m| &m.blocks);
        let mut blocks = members.filter_map(|b| b.parse::<Ipv4Net>().ok());
        blocks.any(|b| b.prefix_len() < net.prefix_len() && b.contains(&net))
    }

    /// The WAN ports with the address that each will have, or has.
    fn wan_ends(&self, addresses: &[PortAddress], endpoint: &LocalEndpoint) -> Vec<WanEnd> {
        let wans = self.ports.iter().filter(|(_, _, role)| *role == Role::Wan);
        let mut ends: Vec<_> = wans
            .filter_map(|(name, device, _)| {
                let planned = addresses.iter().find(|a| a.device == *device).map(|a| a.address.addr());
                let present = endpoint.addresses.iter().find(|(d, _)| d == device).map(|(_, a)| a.addr());
                let wan = self.desired.wans.get(name);
                Some(WanEnd {
                    down: !endpoint.running.contains(device),
                    failed: self.failed.contains(name),
                    unfit: endpoint.unfit.contains(device),
                    priority: wan.and_then(|w| w.priority).unwrap_or(WAN_PRIORITY).clamp(0, 50_000),
                    weight: wan.and_then(|w| w.weight).unwrap_or(WAN_WEIGHT).clamp(1, 100),
                    name: name.clone(),
                    address: planned.or(present)?,
                })
            })
            .collect();
        ends.sort_by_key(|e| by_name(&e.name));
        ends
    }

    /// Where tunnels end to devices that do not announce lines. The first one by priority and weight that frames can
    /// pass and that leads somewhere is taken, so the tunnels move with what is known of the lines.
    fn tunnel_end(&self, addresses: &[PortAddress], endpoint: &LocalEndpoint) -> Option<Ipv4Addr> {
        let ends = self.wan_ends(addresses, endpoint);
        let rank = |e: &WanEnd| (e.down, e.failed || e.unfit, e.priority, -e.weight, by_name(&e.name));
        ends.into_iter().min_by_key(rank).map(|e| e.address)
    }

    /// The lines at which tunnels end, in the order of their names. One that leads nowhere is kept, so that its tunnels
    /// are there when it is back, and comes last.
    fn overlay_lines(&self, addresses: &[PortAddress], endpoint: &LocalEndpoint) -> Vec<Line> {
        let line = |e: WanEnd| {
            let last = if e.down || e.failed { LAST } else { 0 };
            Line::new(&e.name, e.address.into(), e.priority + last, e.weight).ok()
        };
        let mut lines: Vec<Line> = Vec::new();
        for l in self.wan_ends(addresses, endpoint).into_iter().filter_map(line) {
            if lines.len() < MAX_LINES && !lines.iter().any(|other| other.address == l.address) {
                lines.push(l);
            }
        }
        lines
    }

    /// What the machine's own packets through the tunnels have for a source: an address of a LAN port in one of the
    /// gateway's blocks, since the other members accept nothing else.
    fn address_inside(&self, planned: &[PortAddress], endpoint: &LocalEndpoint) -> Option<Ipv4Addr> {
        let blocks: Vec<Ipv4Net> = self.desired.blocks.iter().filter_map(|b| b.parse().ok()).collect();
        let mut lans: Vec<_> = self.ports.iter().filter(|(_, _, role)| *role == Role::Lan).collect();
        lans.sort_by_key(|(name, ..)| by_name(name));
        lans.into_iter().find_map(|(_, device, _)| {
            let planned = planned.iter().filter(|a| a.device == *device).map(|a| a.address.addr());
            let present = endpoint.addresses.iter().filter(|(d, _)| d == device).map(|(_, a)| a.addr());
            // Addresses that the file gives to a port cannot be given to a tunnel, too.
            let fits = |a: &Ipv4Addr| blocks.iter().any(|b| b.contains(a)) && !self.is_in_file(*a);
            planned.chain(present).find(fits)
        })
    }

    /// Whether the document gives the address to a port.
    fn is_in_file(&self, address: Ipv4Addr) -> bool {
        let ports = self.out.get("port").and_then(Value::as_array).into_iter().flatten();
        let given = ports.filter_map(|p| p.get("addresses")?.as_array()).flatten().filter_map(Value::as_str);
        given.filter_map(|net| net.split('/').next()?.parse::<Ipv4Addr>().ok()).any(|own| own == address)
    }

    /// What of this gateway no member of the network may touch: its addresses, the networks of its ports, its static routes
    /// as far as they are in force, and its blocks.
    fn own(&self, local: Ipv4Addr, endpoint: &LocalEndpoint, planned: &[PortAddress]) -> Own {
        let lines = self.overlay_lines(planned, endpoint);
        let mut own = Own { local: Some(local), lines, cloud: endpoint.cloud, ..Own::default() };
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
        for r in &self.static_routes {
            own.networks.push((r.net, format!("the static route by port {} to", r.port)));
            if r.leased {
                own.backed_up.insert(r.net);
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
