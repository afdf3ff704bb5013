//! The mirrored tables: what the kernel knows about links, addresses, routes, nexthop objects and
//! neighbours, ordered so that iteration is stable.

use crate::route::{Nexthop, NexthopObject, NexthopTarget, Route, RouteKind, RouteRef};
use crate::route_table::RouteTable;
use crate::types::{Address, Link, Neighbor, Scope};
use ipnet::IpNet;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A copy of the kernel's tables. [`crate::Mirror`] keeps one up to date; shells without a kernel
/// fill their own with the `insert_*` methods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    pub(crate) links: BTreeMap<u32, Link>,
    pub(crate) addresses: BTreeMap<AddressKey, Address>,
    pub(crate) routes: RouteTable,
    pub(crate) nexthops: BTreeMap<u32, NexthopObject>,
    pub(crate) neighbors: BTreeMap<(u32, IpAddr), Neighbor>,
    came: Arrivals,
}

/// Interface, address and prefix length: what the kernel tells addresses apart by.
pub(crate) type AddressKey = (u32, IpAddr, u8);

/// In which order the addresses came. The kernel prefers the earlier ones as sources.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrivals {
    next: u64,
    of: BTreeMap<AddressKey, u64>,
}

/// Tables are the same whenever what is in them came.
impl PartialEq for Arrivals {
    fn eq(&self, _: &Arrivals) -> bool {
        true
    }
}

impl Eq for Arrivals {}

impl Arrivals {
    fn add(&mut self, key: AddressKey) {
        self.of.insert(key, self.next);
        self.next += 1;
    }

    fn get(&self, key: &AddressKey) -> u64 {
        self.of.get(key).copied().unwrap_or(u64::MAX)
    }
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

    /// The addresses of an interface, the preferred source first. Of IPv4 it is the order in which the kernel takes them when
    /// neither a route nor the network of the next hop decides (`inet_select_addr`): those that are valid everywhere before
    /// those of the link, the first of a subnet before its others, the earlier one before the later.
    pub fn sources_of(&self, ifindex: u32) -> Vec<&Address> {
        let mut all: Vec<_> = self.addresses_of(ifindex).collect();
        all.sort_by_key(|a| match a.addr {
            IpAddr::V4(_) => (a.scope != Scope::Global, a.secondary, self.came.get(&key_of(a))),
            IpAddr::V6(_) => (a.secondary, a.deprecated, 0),
        });
        all
    }

    /// All routes by destination, IPv4 first; those of one destination in the order in which the
    /// kernel prefers them (table `local` before `main` before `default`, then the lower metric).
    pub fn routes_sorted(&self) -> impl Iterator<Item = RouteRef<'_>> {
        self.routes.iter()
    }

    /// How many routes there are.
    pub fn route_count(&self) -> usize {
        self.routes.len()
    }

    /// Of the next `count` destinations behind one, those with a route by one of these interfaces, and where to go on;
    /// `None`: that was all.
    pub fn destinations_by(
        &self,
        interfaces: &BTreeSet<u32>,
        after: Option<IpNet>,
        count: usize,
    ) -> (Vec<IpNet>, Option<IpNet>) {
        self.routes
            .matching(after, count, |r| self.nexthops_of(r).iter().any(|h| interfaces.contains(&h.ifindex)))
    }

    /// The routes to addresses of this machine, broadcasts included, by destination.
    pub fn own_routes(&self) -> impl Iterator<Item = RouteRef<'_>> {
        self.routes.own()
    }

    /// The routes to a destination, in the order in which the kernel prefers them.
    pub fn routes_to<'t>(&'t self, dst: &IpNet) -> impl Iterator<Item = RouteRef<'t>> + use<'t> {
        self.routes.to(*dst)
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
    pub fn nexthops_of<'a>(&'a self, route: RouteRef<'a>) -> Cow<'a, [Nexthop]> {
        match route.nexthop_id.and_then(|id| self.nexthops.get(&id)).map(|o| &o.target) {
            None => Cow::Borrowed(&route.attributes.nexthops),
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
    pub fn kind_of(&self, route: RouteRef<'_>) -> RouteKind {
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
        let key = key_of(&address);
        // One that becomes the first of its subnet goes behind the first ones of the others.
        let promoted = |old: &Address| old.secondary && !address.secondary;
        if self.addresses.get(&key).is_none_or(promoted) {
            self.came.add(key);
        }
        self.addresses.insert(key, address);
    }

    /// Takes an address out; false: it is not there.
    pub(crate) fn remove_address(&mut self, key: &AddressKey) -> bool {
        self.came.of.remove(key);
        self.addresses.remove(key).is_some()
    }

    /// Takes over the addresses of other tables. True: they or their order are others than before.
    pub(crate) fn replace_addresses(&mut self, new: Tables) -> bool {
        let order = |t: &Tables| {
            let mut keys: Vec<_> = t.addresses.keys().filter(|k| k.1.is_ipv4()).copied().collect();
            keys.sort_by_key(|k| (k.0, t.came.get(k)));
            keys
        };
        let differ = self.addresses != new.addresses || order(self) != order(&new);
        (self.addresses, self.came) = (new.addresses, new.came);
        differ
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
        self.routes.append(route);
    }

    /// Takes all routes to a destination out.
    pub fn remove_routes_to(&mut self, dst: &IpNet) {
        self.routes.remove_to(*dst);
    }

    /// Takes over the entries of tables that have none in common with these, routes apart.
    pub(crate) fn absorb(&mut self, mut other: Tables) {
        self.links.append(&mut other.links);
        let mut addresses: Vec<_> = other.addresses.into_values().collect();
        addresses.sort_by_key(|a| other.came.get(&key_of(a)));
        addresses.into_iter().for_each(|a| self.insert_address(a));
        self.nexthops.append(&mut other.nexthops);
        self.neighbors.append(&mut other.neighbors);
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

const fn key_of(a: &Address) -> AddressKey {
    (a.ifindex, a.addr, a.prefix_len)
}
