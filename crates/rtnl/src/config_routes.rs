//! [`ConfigRoutes`]: routes of the configuration in the kernel's main table, for what the machine itself sends.
//!
//! They bear a protocol number of their own ([`PROTOCOL_CONFIG`]), by which those of an earlier process are found. The
//! mirror leaves them out: who has written them knows them already, and better.

use crate::decode;
use crate::error::{Error, Result};
use crate::route::{PROTOCOL_CONFIG, Route, RouteKind, Table};
use crate::socket::Requester;
use crate::wire::{self, octets, request};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_sys::protocols::NETLINK_ROUTE;
use std::collections::BTreeSet;
use std::net::IpAddr;

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
/// The router is on the link, whatever the addresses of the device say.
const RTNH_F_ONLINK: u8 = 4;
/// The metric that the kernel gives to IPv6 routes without one.
const METRIC6: u32 = 1024;

/// A next hop: the interface, the router, the share of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigHop {
    /// The interface.
    pub ifindex: u32,
    /// The router; `None`: all is on the link.
    pub via: Option<IpAddr>,
    /// Beside other next hops, at most 256.
    pub weight: u16,
}

/// A route of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigRoute {
    /// The destination.
    pub dst: IpNet,
    /// The metric; lower wins.
    pub metric: u32,
    /// How packets are rejected; `None`: they are not, but go by `hops`.
    pub reject: Option<RejectRoute>,
    /// Next hops.
    pub hops: Vec<ConfigHop>,
}

/// How a route rejects packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RejectRoute {
    /// Without a word.
    Blackhole,
    /// As unreachable.
    Unreachable,
    /// As forbidden.
    Prohibit,
}

impl ConfigRoute {
    /// As the kernel says it.
    fn normal(&self) -> ConfigRoute {
        let mut out = self.clone();
        if out.dst.addr().is_ipv6() && out.metric == 0 {
            out.metric = METRIC6;
        }
        let alone = out.hops.len() == 1;
        out.hops.iter_mut().for_each(|h| h.weight = if alone { 1 } else { h.weight.clamp(1, 256) });
        out.hops.sort_unstable();
        out
    }

    fn of(route: Route) -> Option<ConfigRoute> {
        let reject = match route.kind {
            RouteKind::Unicast => None,
            RouteKind::Blackhole => Some(RejectRoute::Blackhole),
            RouteKind::Unreachable => Some(RejectRoute::Unreachable),
            RouteKind::Prohibit => Some(RejectRoute::Prohibit),
            _ => return None,
        };
        let hop = |h: &crate::Nexthop| ConfigHop { ifindex: h.ifindex, via: h.gateway, weight: h.weight };
        let hops = route.nexthops.iter().map(hop).collect();
        Some(ConfigRoute { dst: route.dst, metric: route.priority, reject, hops }.normal())
    }
}

/// Keeps routes as they are wanted, in the network namespace in which it was opened. Needs `CAP_NET_ADMIN`.
pub struct ConfigRoutes {
    requester: Requester,
}

impl ConfigRoutes {
    /// Opens a netlink socket in the network namespace of the caller.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<ConfigRoutes> {
        let requester = Requester::open(NETLINK_ROUTE)?;
        requester.dump_by_filter()?;
        Ok(ConfigRoutes { requester })
    }

    /// Those that are there.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read.
    pub fn list(&mut self) -> Result<BTreeSet<ConfigRoute>> {
        let mut out = BTreeSet::new();
        for v6 in [false, true] {
            let head = header(v6, 0, 0, 0, 0);
            let dump = |seq| request(RTM_GETROUTE, NLM_F_DUMP, &head, &[], seq);
            let each = |message: wire::Message<'_>| {
                let ours = decode::config_route(message).filter(|r| r.table == Table::Main);
                out.extend(ours.and_then(ConfigRoute::of));
            };
            match self.requester.request("routes", dump, each)? {
                Ok(()) => {}
                // A kernel without IPv6, and one that has no table yet.
                Err(e)
                    if matches!(
                        e.raw_os_error(),
                        Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::ENOENT)
                    ) => {}
                Err(source) => return Err(Error::Dump { what: "routes", source }),
            }
        }
        Ok(out)
    }

    /// Makes these the only ones. What somebody else has set for the same destination and metric stays. Returns what
    /// the kernel refused, with the reason: its next hop is out of reach, or its device down.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read or does not answer.
    pub fn set(&mut self, wanted: &BTreeSet<ConfigRoute>) -> Result<Vec<(IpNet, std::io::Error)>> {
        let wanted: BTreeSet<ConfigRoute> = wanted.iter().map(ConfigRoute::normal).collect();
        let there = self.list()?;
        let mut refused = Vec::new();
        for gone in there.difference(&wanted) {
            let message = |seq| route_message(RTM_DELROUTE, 0, gone, seq);
            match self.requester.request("remove route", message, |_| {})? {
                Err(e) if e.raw_os_error() != Some(libc::ESRCH) => refused.push((gone.dst, e)),
                _ => {}
            }
        }
        for new in wanted.difference(&there) {
            let message = |seq| route_message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, new, seq);
            match self.requester.request("add route", message, |_| {})? {
                Err(e) if e.raw_os_error() != Some(libc::EEXIST) => refused.push((new.dst, e)),
                _ => {}
            }
        }
        Ok(refused)
    }
}

/// struct rtmsg: family, dst len, src len, tos, table, protocol, scope, type, flags.
fn header(v6: bool, len: u8, scope: u8, kind: u8, flags: u8) -> [u8; 12] {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET } as u8;
    [family, len, 0, 0, libc::RT_TABLE_MAIN, PROTOCOL_CONFIG, scope, kind, flags, 0, 0, 0]
}

fn route_message(kind: u16, flags: u16, r: &ConfigRoute, seq: u32) -> Vec<u8> {
    let v6 = r.dst.addr().is_ipv6();
    let on_link = |h: &ConfigHop| if h.via.is_some() { RTNH_F_ONLINK } else { 0 };
    let removes = kind == RTM_DELROUTE;
    let route_type = match r.reject {
        None => libc::RTN_UNICAST,
        Some(RejectRoute::Blackhole) => libc::RTN_BLACKHOLE,
        Some(RejectRoute::Unreachable) => libc::RTN_UNREACHABLE,
        Some(RejectRoute::Prohibit) => libc::RTN_PROHIBIT,
    };
    let link = r.reject.is_none() && !v6 && r.hops.iter().all(|h| h.via.is_none());
    let scope = match (removes, link) {
        (true, _) => libc::RT_SCOPE_NOWHERE,
        (false, true) => libc::RT_SCOPE_LINK,
        (false, false) => libc::RT_SCOPE_UNIVERSE,
    };
    let mut list =
        vec![(libc::RTA_DST, octets(r.dst.network())), (libc::RTA_PRIORITY, r.metric.to_ne_bytes().to_vec())];
    let mut single = 0;
    match &r.hops[..] {
        // A route is told by destination, metric and protocol.
        _ if removes || r.reject.is_some() => {}
        [hop] => {
            single = on_link(hop);
            list.push((libc::RTA_OIF, hop.ifindex.to_ne_bytes().to_vec()));
            list.extend(hop.via.map(|via| (libc::RTA_GATEWAY, octets(via))));
        }
        hops => {
            // struct rtnexthop: length, flags, weight - 1, index; then its attributes.
            let mut legs = Vec::new();
            for h in hops {
                let gateway = h.via.map(octets);
                let len = 8 + gateway.as_ref().map_or(0, |g| 4 + g.len());
                legs.extend_from_slice(&(len as u16).to_ne_bytes());
                legs.extend_from_slice(&[on_link(h), (h.weight - 1) as u8]);
                legs.extend_from_slice(&h.ifindex.to_ne_bytes());
                if let Some(g) = gateway {
                    legs.extend_from_slice(&(4 + g.len() as u16).to_ne_bytes());
                    legs.extend_from_slice(&libc::RTA_GATEWAY.to_ne_bytes());
                    legs.extend_from_slice(&g);
                }
            }
            list.push((libc::RTA_MULTIPATH, legs));
        }
    }
    let head = header(v6, r.dst.prefix_len(), scope, if removes { 0 } else { route_type }, single);
    request(kind, NLM_F_ACK | flags, &head, &list, seq)
}
