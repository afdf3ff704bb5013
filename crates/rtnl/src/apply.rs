//! Applies events to [`Tables`], and tracks what changed and what the kernel does not announce.

use crate::decode::Event;
use crate::route::{Route, RouteKey};
use crate::tables::Tables;
use crate::types::Link;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What changed in a call of [`crate::Mirror::poll`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Some link changed, appeared or vanished.
    pub links: bool,
    /// Some address changed, appeared or vanished.
    pub addrs: bool,
    /// Some route changed, appeared or vanished; `prefixes` says which.
    pub routes: bool,
    /// Destinations of the routes that changed, each once, in order.
    pub prefixes: Vec<IpNet>,
    /// Neighbours (interface, address) that changed, each once, in order.
    pub neighbors: Vec<(u32, IpAddr)>,
    /// Notifications were lost and all tables were read again. The other fields hold the difference.
    pub resynced: bool,
    /// More messages wait: call again before sleeping.
    pub more: bool,
}

impl Changes {
    /// Whether anything changed or more waits.
    pub fn any(&self) -> bool {
        self.links || self.addrs || self.routes || !self.neighbors.is_empty() || self.resynced || self.more
    }
}

/// Changes as they are collected.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    pub links: bool,
    pub addrs: bool,
    pub prefixes: BTreeSet<IpNet>,
    pub neighbors: BTreeSet<(u32, IpAddr)>,
    nexthops: BTreeSet<u32>,
    /// The kernel has changed routes without an announcement, or in a way that notifications do not express:
    /// they must be read again.
    pub reread_routes: bool,
}

impl Tracker {
    /// The result. Routes whose nexthop object changed count as changed.
    pub fn finish(mut self, tables: &Tables) -> Changes {
        if !self.nexthops.is_empty() {
            let touched = tables.with_groups(&self.nexthops);
            let uses = |r: &&Route| r.nexthop_id.is_some_and(|id| touched.contains(&id));
            self.prefixes.extend(tables.routes.values().filter(uses).map(|r| r.dst));
        }
        Changes {
            links: self.links,
            addrs: self.addrs,
            routes: !self.prefixes.is_empty(),
            prefixes: self.prefixes.into_iter().collect(),
            neighbors: self.neighbors.into_iter().collect(),
            resynced: false,
            more: false,
        }
    }

    pub fn apply(&mut self, tables: &mut Tables, event: Event) {
        match event {
            Event::Link(link) => {
                let old = tables.links.get(&link.ifindex);
                if old != Some(&link) {
                    self.links = true;
                    // IPv4 routes and nexthop objects of a link that goes down vanish unannounced,
                    // and the dead and linkdown flags of all others come and go likewise.
                    let state = old.map(|l| (l.up, l.running));
                    self.reread_routes |= state.is_some_and(|s| s != (link.up, link.running));
                    pair_up(tables, &link);
                    tables.insert_link(link);
                }
            }
            Event::LinkGone(ifindex) => self.link_gone(tables, ifindex),
            Event::Address(address) => {
                let key = (address.ifindex, address.addr, address.prefix_len);
                if tables.addresses.get(&key) != Some(&address) {
                    self.addrs = true;
                    tables.insert_address(address);
                }
            }
            Event::AddressGone(address) => {
                let key = (address.ifindex, address.addr, address.prefix_len);
                self.addrs |= tables.remove_address(&key);
                // Routes that prefer the address as their source go with it, unannounced.
                self.reread_routes |= address.addr.is_ipv4();
            }
            Event::Neighbor(neighbor) => {
                let key = (neighbor.ifindex, neighbor.ip);
                if tables.neighbors.get(&key) != Some(&neighbor) {
                    self.neighbors.insert(key);
                    tables.neighbors.insert(key, neighbor);
                }
            }
            Event::NeighborGone(ifindex, ip) => {
                if tables.neighbors.remove(&(ifindex, ip)).is_some() {
                    self.neighbors.insert((ifindex, ip));
                }
            }
            Event::Nexthop(object) => {
                if tables.nexthops.get(&object.id) != Some(&object) {
                    self.nexthops.insert(object.id);
                    tables.insert_nexthop(object);
                }
            }
            Event::NexthopGone(id) => {
                if tables.nexthops.contains_key(&id) {
                    // Routes through the object fall with it, IPv4 ones unannounced.
                    let fallen = tables.with_groups(&BTreeSet::from([id]));
                    let uses = |r: &Route| r.nexthop_id.is_some_and(|id| fallen.contains(&id));
                    self.reread_routes |= tables.routes.values().any(uses);
                    self.nexthops.insert(id);
                    tables.nexthops.remove(&id);
                }
            }
            Event::Route { route, replace } if route.dst.addr().is_ipv4() => {
                self.put_v4(tables, route, replace)
            }
            Event::Route { route, replace } => self.put_v6(tables, route, replace),
            Event::RouteGone(route) if route.dst.addr().is_ipv4() => self.drop_v4(tables, &route),
            Event::RouteGone(route) => self.drop_v6(tables, &route),
            // No part of the tables.
            Event::Setting => {}
        }
    }

    fn link_gone(&mut self, tables: &mut Tables, ifindex: u32) {
        if tables.links.remove(&ifindex).is_none() {
            return;
        }
        self.links = true;
        self.reread_routes = true;
        // What is left behind of it (a veth whose other end moved away) is not announced again.
        for link in tables.links.values_mut().filter(|l| l.parent == Some(ifindex)) {
            link.parent = None;
        }
        let addresses: Vec<_> =
            tables.addresses_of(ifindex).map(|a| (a.ifindex, a.addr, a.prefix_len)).collect();
        self.addrs |= !addresses.is_empty();
        for key in addresses {
            tables.remove_address(&key);
        }
        let gone: Vec<_> = tables.neighbors.keys().filter(|k| k.0 == ifindex).copied().collect();
        for key in gone {
            tables.neighbors.remove(&key);
            self.neighbors.insert(key);
        }
    }

    fn set_route(&mut self, tables: &mut Tables, key: RouteKey, route: Route) {
        if tables.routes.get(&key) != Some(&route) {
            self.prefixes.insert(route.dst);
            tables.routes.insert(key, route);
        }
    }

    fn add_route(&mut self, tables: &mut Tables, route: Route) {
        self.prefixes.insert(route.dst);
        tables.insert_route(route);
    }

    /// IPv4: one route to a key is the rule, further ones stand in a queue behind the first
    /// (`append`) or before it (`prepend`); the message does not say where.
    fn put_v4(&mut self, tables: &mut Tables, route: Route, replace: bool) {
        let mut known = tables.routes_like(&route);
        match (known.next(), known.next()) {
            (None, _) => {
                drop(known);
                self.add_route(tables, route);
            }
            (Some((first, old)), other) => {
                let (same, alone) = (*old == route, other.is_none());
                drop(known);
                if replace && alone {
                    self.set_route(tables, first, route);
                } else if !(same && alone) {
                    self.reread_routes = true;
                }
            }
        }
    }

    fn drop_v4(&mut self, tables: &mut Tables, route: &Route) {
        let mut known = tables.routes_like(route);
        let (first, other) = (known.next(), known.next());
        match first.map(|(key, old)| (key, old.same_path(route))) {
            None => {}
            Some((key, true)) if other.is_none() => {
                drop(known);
                tables.routes.remove(&key);
                self.prefixes.insert(route.dst);
            }
            Some(_) => self.reread_routes = true,
        }
    }

    /// IPv6: every message about a route with several nexthops carries them all, except when one of
    /// them is deleted.
    fn put_v6(&mut self, tables: &mut Tables, route: Route, replace: bool) {
        let known: Vec<(RouteKey, bool)> =
            tables.routes_like(&route).map(|(k, r)| (k, r.same_siblings(&route))).collect();
        let ours = known.iter().find(|k| k.1).map(|k| k.0);
        match (ours, &known[..]) {
            (Some(key), _) if replace => self.set_route(tables, key, route),
            // One more nexthop: the message describes the route by it, while the rest stays.
            (Some(key), _) => {
                let nexthops = route.nexthops.clone();
                let grown = tables.routes.get(&key).map_or(route, |old| Route { nexthops, ..old.clone() });
                self.set_route(tables, key, grown);
            }
            (None, [(only, _)]) if replace => self.set_route(tables, *only, route),
            (None, others) => {
                self.reread_routes |= replace && !others.is_empty();
                self.add_route(tables, route);
            }
        }
    }

    fn drop_v6(&mut self, tables: &mut Tables, route: &Route) {
        let Some(key) = tables.routes_like(route).find(|(_, r)| r.same_siblings(route)).map(|(k, _)| k)
        else {
            return;
        };
        self.prefixes.insert(route.dst);
        if let Some(old) = tables.routes.get_mut(&key) {
            old.nexthops.retain(|leg| !route.nexthops.iter().any(|gone| gone.same_leg(leg)));
            if old.nexthops.is_empty() || route.nexthop_id.is_some() {
                tables.routes.remove(&key);
            }
        }
    }

    /// Puts the result of a dump in the place of a whole table and notes the differences.
    pub fn replace_routes(&mut self, tables: &mut Tables, new: Tables) {
        let changed = difference(&tables.routes, &new.routes);
        self.prefixes.extend(changed.into_iter().map(|k| k.dst));
        tables.routes = new.routes;
    }

    pub fn replace_nexthops(&mut self, tables: &mut Tables, new: Tables) {
        self.nexthops.extend(difference(&tables.nexthops, &new.nexthops));
        tables.nexthops = new.nexthops;
    }

    pub fn replace_links(&mut self, tables: &mut Tables, new: Tables) {
        self.links |= tables.links != new.links;
        tables.links = new.links;
    }

    pub fn replace_addresses(&mut self, tables: &mut Tables, new: Tables) {
        self.addrs |= tables.replace_addresses(new);
    }

    pub fn replace_neighbors(&mut self, tables: &mut Tables, new: Tables) {
        self.neighbors.extend(difference(&tables.neighbors, &new.neighbors));
        tables.neighbors = new.neighbors;
    }
}

/// The first end of a veth pair is announced before it has another end, and not again after.
fn pair_up(tables: &mut Tables, link: &Link) {
    if link.kind.as_deref() != Some("veth") {
        return;
    }
    if let Some(other) = link.parent.and_then(|p| tables.links.get_mut(&p)) {
        other.parent = Some(link.ifindex);
    }
}

/// Keys whose values differ between two maps.
fn difference<K: Ord + Copy, V: PartialEq>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Vec<K> {
    let gone = old.keys().filter(|k| !new.contains_key(k));
    let changed = new.iter().filter(|(k, v)| old.get(k) != Some(v)).map(|(k, _)| k);
    gone.chain(changed).copied().collect()
}
