//! The mirrored tables: what the kernel knows about links, addresses, routes, nexthop objects and
//! neighbours, ordered so that iteration is stable.

use crate::route::{Nexthop, NexthopObject, NexthopTarget, Route, RouteKey, RouteKind};
use crate::types::{Address, Link, Neighbor};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A copy of the kernel's tables. [`crate::Mirror`] keeps one up to date; shells without a kernel
/// fill their own with the `insert_*` methods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    pub(crate) links: BTreeMap<u32, Link>,
    pub(crate) addresses: BTreeMap<(u32, IpAddr, u8), Address>,
    pub(crate) routes: BTreeMap<RouteKey, Route>,
    pub(crate) nexthops: BTreeMap<u32, NexthopObject>,
    pub(crate) neighbors: BTreeMap<(u32, IpAddr), Neighbor>,
}

impl Tables {
    /// All links by index.
    pub fn links(&self) -> impl ExactSizeIterator<Item = &Link> {
        self.links.values()
    }

    /// The link with an index.
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    /// The link with a name.
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|l| l.name == name)
    }

    /// All addresses by interface.
    pub fn addresses(&self) -> impl ExactSizeIterator<Item = &Address> {
        self.addresses.values()
    }

    /// The addresses of an interface.
    pub fn addresses_of(&self, ifindex: u32) -> impl Iterator<Item = &Address> {
        let first = (ifindex, IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let last = (ifindex, IpAddr::V6(Ipv6Addr::from(u128::MAX)), u8::MAX);
        self.addresses.range(first..=last).map(|(_, a)| a)
    }

    /// All routes by destination, IPv4 first; those of one destination in the order in which the
    /// kernel prefers them (table `local` before `main` before `default`, then the lower metric).
    pub fn routes_sorted(&self) -> impl ExactSizeIterator<Item = &Route> {
        self.routes.values()
    }

    /// All nexthop objects by number.
    pub fn nexthop_objects(&self) -> impl ExactSizeIterator<Item = &NexthopObject> {
        self.nexthops.values()
    }

    /// All neighbours by interface and address.
    pub fn neighbors(&self) -> impl ExactSizeIterator<Item = &Neighbor> {
        self.neighbors.values()
    }

    /// The entry of a neighbour.
    pub fn neighbor(&self, ifindex: u32, ip: IpAddr) -> Option<&Neighbor> {
        self.neighbors.get(&(ifindex, ip))
    }

    /// The nexthops of a route, nexthop objects and groups resolved. An object that is not known
    /// (any more) leaves what the kernel wrote into the route itself.
    pub fn nexthops_of<'a>(&'a self, route: &'a Route) -> Cow<'a, [Nexthop]> {
        match route.nexthop_id.and_then(|id| self.nexthops.get(&id)).map(|o| &o.target) {
            None => Cow::Borrowed(&route.nexthops),
            Some(NexthopTarget::Single(hop)) => Cow::Borrowed(std::slice::from_ref(hop)),
            Some(NexthopTarget::Group(members)) => Cow::Owned(self.group(members)),
            Some(NexthopTarget::Blackhole | NexthopTarget::Bridge) => Cow::Borrowed(&[]),
        }
    }

    fn group(&self, members: &[(u32, u16)]) -> Vec<Nexthop> {
        // The kernel allows no groups inside groups.
        let single = |&(id, weight): &(u32, u16)| match &self.nexthops.get(&id)?.target {
            NexthopTarget::Single(hop) => Some(Nexthop { weight, ..hop.clone() }),
            _ => None,
        };
        members.iter().filter_map(single).collect()
    }

    /// What is done with packets of a route: its own kind, unless its nexthop object is a black hole.
    pub fn kind_of(&self, route: &Route) -> RouteKind {
        let target = |id| self.nexthops.get(&id).map(|o| &o.target);
        match route.nexthop_id.and_then(target) {
            Some(NexthopTarget::Blackhole) => RouteKind::Blackhole,
            Some(NexthopTarget::Group(members)) if matches!(members[..], [(id, _)] if matches!(target(id), Some(NexthopTarget::Blackhole))) => {
                RouteKind::Blackhole
            }
            _ => route.kind,
        }
    }

    /// Adds or replaces a link.
    pub fn insert_link(&mut self, link: Link) {
        self.links.insert(link.ifindex, link);
    }

    /// Adds or replaces an address.
    pub fn insert_address(&mut self, address: Address) {
        self.addresses.insert((address.ifindex, address.addr, address.prefix_len), address);
    }

    /// Adds or replaces a neighbour.
    pub fn insert_neighbor(&mut self, neighbor: Neighbor) {
        self.neighbors.insert((neighbor.ifindex, neighbor.ip), neighbor);
    }

    /// Adds or replaces a nexthop object.
    pub fn insert_nexthop(&mut self, object: NexthopObject) {
        self.nexthops.insert(object.id, object);
    }

    /// Adds a route behind those of the same destination, table and metric.
    pub fn insert_route(&mut self, route: Route) {
        let key = route.key();
        let nth = match self.routes.range(key.siblings()).next_back() {
            Some((last, _)) => last.nth.saturating_add(1),
            None => 0,
        };
        self.routes.insert(RouteKey { nth, ..key }, route);
    }

    /// Takes over the entries of tables that have none in common with these.
    pub(crate) fn absorb(&mut self, mut other: Tables) {
        self.links.append(&mut other.links);
        self.addresses.append(&mut other.addresses);
        self.routes.append(&mut other.routes);
        self.nexthops.append(&mut other.nexthops);
        self.neighbors.append(&mut other.neighbors);
    }

    pub(crate) fn routes_like(&self, route: &Route) -> impl DoubleEndedIterator<Item = (RouteKey, &Route)> {
        self.routes.range(route.key().siblings()).map(|(k, r)| (*k, r))
    }

    /// The given objects and the groups that contain one of them.
    pub(crate) fn with_groups(&self, ids: &BTreeSet<u32>) -> BTreeSet<u32> {
        let mut all = ids.clone();
        all.extend(self.nexthops.values().filter_map(|object| match &object.target {
            NexthopTarget::Group(members) => members.iter().any(|m| ids.contains(&m.0)).then_some(object.id),
            _ => None,
        }));
        all
    }
}
