//! Routes and nexthop objects.

use super::{Event, Malformed};
use crate::route::{
    Nexthop, NexthopObject, NexthopTarget, Route, RouteAttributes, RouteKind, RouteProtocol,
    RouterPreference, Table,
};
use crate::wire::{attributes, ip, u8_at, u16_at, u32_at};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_REPLACE};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const RTM_NEWNEXTHOP: u16 = 104;
pub(crate) const RTM_DELNEXTHOP: u16 = 105;

const RTA_VIA: u16 = 18;
const RTA_PREF: u16 = 20;
const RTA_ENCAP: u16 = 22;
const RTA_NH_ID: u16 = 30;
const RTAX_MTU: u16 = 2;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_BLACKHOLE: u16 = 4;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;
const NHA_ENCAP: u16 = 8;
const NHA_FDB: u16 = 11;

const RTNH_F_DEAD: u8 = 1;
const RTNH_F_ONLINK: u8 = 4;
const RTNH_F_LINKDOWN: u8 = 16;

fn nexthop(flags: u8) -> Nexthop {
    Nexthop {
        ifindex: 0,
        gateway: None,
        weight: 1,
        dead: flags & RTNH_F_DEAD != 0,
        linkdown: flags & RTNH_F_LINKDOWN != 0,
        onlink: flags & RTNH_F_ONLINK != 0,
        encap: false,
    }
}

/// `RTA_VIA`: a gateway of another family than the route's.
fn via(value: &[u8]) -> Option<IpAddr> {
    let addr = ip(value.get(2..)?)?;
    let family = i32::from(u16_at(value, 0)?);
    let expected = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    (family == expected).then_some(addr)
}

pub(super) fn route(bytes: &[u8], message_flags: u16, gone: bool) -> Result<Option<Event>, Malformed> {
    // struct rtmsg: family, dst len, src len, tos, table, protocol, scope, type, flags.
    let head = bytes.get(..12).ok_or(Malformed)?;
    let unspecified: IpAddr = match i32::from(head[0]) {
        libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Ok(None),
    };
    let flags = u32_at(head, 8).ok_or(Malformed)?;
    // Cloned routes are path MTU exceptions.
    if flags & libc::RTM_F_CLONED != 0 {
        return Ok(None);
    }
    let mut table = u32::from(head[4]);
    let (mut dst, mut src) = (unspecified, unspecified);
    let mut single = nexthop((flags & 0xff) as u8);
    let mut has_single = false;
    let mut route = Route {
        dst: IpNet::from(unspecified),
        attributes: RouteAttributes {
            from: None,
            table: Table::Main,
            tos: head[3],
            priority: 0,
            preference: RouterPreference::Medium,
            kind: RouteKind::from(head[7]),
            protocol: RouteProtocol(head[5]),
            prefsrc: None,
            nexthops: Vec::new(),
            nexthop_id: None,
            mtu: None,
        },
    };
    for (kind, value) in attributes(&bytes[12..]) {
        match kind {
            libc::RTA_TABLE => table = u32_at(value, 0).ok_or(Malformed)?,
            libc::RTA_DST => dst = ip(value).ok_or(Malformed)?,
            libc::RTA_SRC => src = ip(value).ok_or(Malformed)?,
            RTA_PREF => route.preference = preference(u8_at(value, 0)),
            libc::RTA_PRIORITY => route.priority = u32_at(value, 0).ok_or(Malformed)?,
            libc::RTA_PREFSRC => route.prefsrc = ip(value),
            libc::RTA_METRICS => route.mtu = mtu(value),
            libc::RTA_OIF => {
                single.ifindex = u32_at(value, 0).ok_or(Malformed)?;
                has_single = true;
            }
            libc::RTA_GATEWAY => single.gateway = Some(ip(value).ok_or(Malformed)?),
            RTA_VIA => single.gateway = via(value),
            RTA_ENCAP => single.encap = true,
            libc::RTA_MULTIPATH => route.nexthops = multipath(value)?,
            RTA_NH_ID => route.nexthop_id = u32_at(value, 0).filter(|&id| id != 0),
            _ => {}
        }
    }
    if dst.is_ipv4() != unspecified.is_ipv4() || src.is_ipv4() != unspecified.is_ipv4() {
        return Err(Malformed);
    }
    route.table = Table::from_id(table);
    route.dst = IpNet::new(dst, head[1]).map_err(|_| Malformed)?.trunc();
    if head[2] != 0 {
        route.from = Some(IpNet::new(src, head[2]).map_err(|_| Malformed)?.trunc());
    }
    if route.nexthop_id.is_some() && route.kind == RouteKind::Blackhole {
        // The object's state, not the route's: it changes without notice of the route.
        route.kind = RouteKind::Unicast;
    }
    if route.kind.is_reject() {
        route.nexthops.clear();
    } else if route.nexthops.is_empty() && has_single {
        route.nexthops.push(single);
    }
    // IPv6 reports the nexthops in an order that depends on the occasion. Sorted, a report equals any
    // other, and flows keep their way through equal-cost nexthops.
    if dst.is_ipv6() {
        route.nexthops.sort_unstable();
    }
    Ok(Some(match gone {
        true => Event::RouteGone(route),
        false => {
            let has = |flag| message_flags & flag != 0;
            Event::Route { route, replace: has(NLM_F_REPLACE), append: has(NLM_F_APPEND) }
        }
    }))
}

/// `ICMPV6_ROUTER_PREF_*`; the reserved value counts as medium (RFC 4191 2.1).
fn preference(value: Option<u8>) -> RouterPreference {
    match value {
        Some(1) => RouterPreference::High,
        Some(3) => RouterPreference::Low,
        _ => RouterPreference::Medium,
    }
}

fn mtu(metrics: &[u8]) -> Option<u32> {
    attributes(metrics).find(|a| a.0 == RTAX_MTU).and_then(|a| u32_at(a.1, 0)).filter(|&m| m != 0)
}

/// `RTA_MULTIPATH`: a sequence of struct rtnexthop (length, flags, weight - 1, index), each followed
/// by its own attributes.
fn multipath(mut bytes: &[u8]) -> Result<Vec<Nexthop>, Malformed> {
    let mut legs = Vec::new();
    while !bytes.is_empty() {
        let len = usize::from(u16_at(bytes, 0).ok_or(Malformed)?);
        let leg = bytes.get(..len).filter(|l| l.len() >= 8).ok_or(Malformed)?;
        let mut hop = nexthop(leg[2]);
        hop.weight = u16::from(leg[3]) + 1;
        hop.ifindex = u32_at(leg, 4).ok_or(Malformed)?;
        for (kind, value) in attributes(&leg[8..]) {
            match kind {
                libc::RTA_GATEWAY => hop.gateway = Some(ip(value).ok_or(Malformed)?),
                RTA_VIA => hop.gateway = via(value),
                RTA_ENCAP => hop.encap = true,
                _ => {}
            }
        }
        legs.push(hop);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(legs)
}

pub(super) fn nexthop_object(bytes: &[u8], gone: bool) -> Result<Option<Event>, Malformed> {
    // struct nhmsg: family, scope, protocol, reserved, flags.
    let head = bytes.get(..8).ok_or(Malformed)?;
    let mut hop = nexthop((u32_at(head, 4).ok_or(Malformed)? & 0xff) as u8);
    let (mut id, mut group, mut blackhole, mut bridge) = (None, None, false, false);
    for (kind, value) in attributes(&bytes[8..]) {
        match kind {
            NHA_ID => id = u32_at(value, 0),
            NHA_GROUP => group = Some(members(value)),
            NHA_BLACKHOLE => blackhole = true,
            NHA_FDB => bridge = true,
            NHA_OIF => hop.ifindex = u32_at(value, 0).ok_or(Malformed)?,
            NHA_GATEWAY => hop.gateway = Some(ip(value).ok_or(Malformed)?),
            NHA_ENCAP => hop.encap = true,
            _ => {}
        }
    }
    let id = id.ok_or(Malformed)?;
    if gone {
        return Ok(Some(Event::NexthopGone(id)));
    }
    let target = match group {
        _ if bridge => NexthopTarget::Bridge,
        Some(members) => NexthopTarget::Group(members),
        None if blackhole => NexthopTarget::Blackhole,
        None => NexthopTarget::Single(hop),
    };
    Ok(Some(Event::Nexthop(NexthopObject { id, target })))
}

/// `NHA_GROUP`: an array of struct nexthop_grp (id, weight - 1, and since Linux 6.12 its high byte).
fn members(bytes: &[u8]) -> Vec<(u32, u16)> {
    bytes
        .chunks_exact(8)
        .filter_map(|entry| {
            let weight = u16::from_le_bytes([u8_at(entry, 4)?, u8_at(entry, 5)?]);
            Some((u32_at(entry, 0)?, weight.saturating_add(1)))
        })
        .collect()
}
