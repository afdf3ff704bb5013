//! Applies events to [`Tables`], and tracks what changed and what the kernel does not announce.

use crate::decode::Event;
use crate::route::{Route, RouteAttributes, RouteKey};
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
    /// Nexthop objects that have changed: so have the routes that use them.
    pub nexthops: BTreeSet<u32>,
    /// Announcements were lost, and not everything has been read again since: what is known may be older than what is
    /// announced.
    pub unsure: bool,
    /// The kernel has changed routes without an announcement, or in a way that notifications do not express:
    /// they must be read again.
    pub reread_routes: bool,
}

impl Tracker {
    /// The result.
    pub fn finish(self) -> Changes {
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
                    self.reread_routes |= fallen.iter().any(|id| tables.routes.uses(*id));
                    self.nexthops.insert(id);
                    tables.nexthops.remove(&id);
                }
            }
            Event::Route { route, replace, append } => {
                tables.routes.speak_of(route.key());
                match route.dst {
                    IpNet::V4(_) => self.put_v4(tables, route, replace, append),
                    IpNet::V6(_) => self.put_v6(tables, route, replace, append),
                }
            }
            Event::RouteGone(route) => {
                tables.routes.speak_of(route.key());
                match route.dst {
                    IpNet::V4(_) => self.drop_v4(tables, &route),
                    IpNet::V6(_) => self.drop_v6(tables, &route),
                }
            }
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
        let dst = route.dst;
        if tables.routes.set(key, route) {
            self.prefixes.insert(dst);
        }
    }

    fn add_route(&mut self, tables: &mut Tables, route: Route) {
        self.prefixes.insert(route.dst);
        tables.routes.append(route);
    }

    /// Whether the tables may be behind what is announced, or, where they are being read, ahead of it.
    fn is_unsure(&self, tables: &Tables) -> bool {
        self.unsure || tables.routes.is_read()
    }

    /// Puts a route in the place of all under its key, of which it cannot be said how they stand to it.
    fn put_alone(&mut self, tables: &mut Tables, route: Route) {
        self.reread_routes = true;
        self.prefixes.insert(route.dst);
        let key = route.key();
        while tables.routes.remove(&key) {}
        tables.routes.append(route);
    }

    /// IPv4: one route to a key is the rule, further ones stand in a queue behind the first
    /// (`append`) or before it (`prepend`); the message does not say where.
    fn put_v4(&mut self, tables: &mut Tables, route: Route, replace: bool, append: bool) {
        let known: Vec<bool> =
            tables.routes.like(route.key()).map(|(_, old)| *old == route.attributes).collect();
        match known[..] {
            [] => self.add_route(tables, route),
            [same] if replace || same => self.set_route(tables, route.key(), route),
            [_] if !append && self.is_unsure(tables) => self.put_alone(tables, route),
            _ => self.reread_routes = true,
        }
    }

    fn drop_v4(&mut self, tables: &mut Tables, route: &Route) {
        let known: Vec<bool> =
            tables.routes.like(route.key()).map(|(_, old)| old.same_path(&route.attributes)).collect();
        match known[..] {
            [] => {}
            // If another one took its place, that has been read already, and is announced again.
            [same] if same || self.is_unsure(tables) => {
                tables.routes.remove(&route.key());
                self.prefixes.insert(route.dst);
            }
            _ => self.reread_routes = true,
        }
    }

    /// IPv6: every message about a route with several nexthops carries them all, except when one of
    /// them is deleted.
    fn put_v6(&mut self, tables: &mut Tables, route: Route, replace: bool, append: bool) {
        let (ours, others) = siblings(tables, &route);
        match ours {
            Some((key, _)) if replace => self.set_route(tables, key, route),
            // One more nexthop: the message describes the route by it, while the rest stays.
            Some((key, mut grown)) => {
                grown.nexthops = route.attributes.nexthops;
                self.set_route(tables, key, Route { dst: route.dst, attributes: grown });
            }
            None if replace && others == 1 => self.set_route(tables, route.key(), route),
            None if others > 0 && !append && self.is_unsure(tables) => self.put_alone(tables, route),
            None => {
                self.reread_routes |= replace && others > 0;
                self.add_route(tables, route);
            }
        }
    }

    fn drop_v6(&mut self, tables: &mut Tables, route: &Route) {
        let (key, mut rest) = match siblings(tables, route) {
            (Some(ours), _) => ours,
            // As for IPv4.
            (None, 1) if self.is_unsure(tables) => {
                tables.routes.remove(&route.key());
                self.prefixes.insert(route.dst);
                return;
            }
            (None, others) => {
                self.reread_routes |= others > 1 && self.is_unsure(tables);
                return;
            }
        };
        self.prefixes.insert(route.dst);
        rest.nexthops.retain(|leg| !route.nexthops.iter().any(|gone| gone.same_leg(leg)));
        if rest.nexthops.is_empty() || route.nexthop_id.is_some() {
            tables.routes.remove(&key);
        } else {
            tables.routes.set(key, Route { dst: route.dst, attributes: rest });
        }
    }

    /// An entry of a dump of the routes.
    pub fn read_route(&mut self, tables: &mut Tables, route: Route) {
        let dst = route.dst;
        if tables.routes.read(route) {
            self.prefixes.insert(dst);
        }
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

/// What is known of a route of IPv6, and how many others there are under its key.
fn siblings(tables: &Tables, route: &Route) -> (Option<(RouteKey, RouteAttributes)>, usize) {
    let mut known = tables.routes.like(route.key());
    let ours = known.find(|(_, old)| old.same_siblings(&route.attributes));
    let ours = ours.map(|(key, old)| (key, old.clone()));
    let others = tables.routes.like(route.key()).count() - usize::from(ours.is_some());
    (ours, others)
}

/// Keys whose values differ between two maps.
fn difference<K: Ord + Copy, V: PartialEq>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> Vec<K> {
    let gone = old.keys().filter(|k| !new.contains_key(k));
    let changed = new.iter().filter(|(k, v)| old.get(k) != Some(v)).map(|(k, _)| k);
    gone.chain(changed).copied().collect()
}
