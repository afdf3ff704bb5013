//! `[[route]]`.

use super::scope::Scope;
use super::{Names, Seen};
use crate::config::raw::RawRoute;
use crate::config::report::{Path, Place, Report};
use crate::config::types::{RejectKind, Route, RouteTarget};
use crate::config::value::{self, quote};
use ipnet::IpNet;
use std::collections::HashMap;

pub(super) fn routes(raw: &[RawRoute], names: &Names, report: &mut Report<'_>) -> Vec<Route> {
    let mut group = Groups { same: Seen::new(), first: HashMap::new() };
    let mut out = Vec::with_capacity(raw.len());
    for (i, r) in raw.iter().enumerate() {
        let mut s = Scope::new(report, Path::ROOT.item("route", i), &r.span);
        out.extend(route(r, &mut s, names, &mut group));
    }
    out
}

/// Routes so far, for repetitions and for mixtures within an ECMP group.
struct Groups {
    same: Seen<(IpNet, u32, String)>,
    first: HashMap<(IpNet, u32), (bool, Place)>,
}

fn route(raw: &RawRoute, s: &mut Scope<'_, '_>, names: &Names, groups: &mut Groups) -> Option<Route> {
    let at = s.need("destination", &raw.destination, "write the CIDR block that the route leads to", "");
    let destination = at.and_then(|v| s.network("destination", v, "")).filter(|net| {
        let special = net.addr().is_multicast() || net.addr().is_loopback();
        if let (true, Some(at)) = (special, at) {
            let problem = format!("{net} is multicast or loopback");
            s.error(
                &at.span(),
                "destination",
                problem,
                "route unicast networks only; the kernel keeps the rest",
                "",
            );
        }
        !special
    });
    let target = target(raw, s, names, destination);
    let metric = s.number("metric", &raw.metric, 0..=i64::from(u32::MAX), 0, "");
    let weight = s.number("weight", &raw.weight, 1..=256, 1, "");
    let (destination, target, metric, at) = (destination?, target?, metric?, at?);

    let place = s.place(&at.span(), "destination");
    if let Some(first) = groups.same.repeated((destination, metric, format!("{target:?}")), place.clone()) {
        s.repeated(&at.span(), "destination", destination, &first, "Sag.StaticRouteExist");
    }
    let rejects = matches!(target, RouteTarget::Reject(_));
    let (other, first) = groups.first.entry((destination, metric)).or_insert((rejects, place));
    if *other != rejects {
        let problem = format!("{destination} both forwards and rejects at metric {metric}, see {first}");
        s.error(&at.span(), "destination", problem, "give one of the two another metric", "");
    }
    Some(Route { destination, target, metric, weight: weight? })
}

fn target(raw: &RawRoute, s: &mut Scope<'_, '_>, names: &Names, to: Option<IpNet>) -> Option<RouteTarget> {
    const CHOICE: &str = "write one of next_hop (with port if wanted), port, tunnel or type";
    let port = names.port(s, "port", &raw.port);
    let tunnel = names.tunnel(s, "tunnel", &raw.tunnel);
    let kind = raw.r#type.as_ref().and_then(|_| s.word("type", &raw.r#type, RejectKind::WORDS, None, ""));
    let next_hop = raw.next_hop.as_ref().and_then(|v| {
        let hop = s.parse("next_hop", v, "", |t| value::unicast(t))?;
        if to.is_some_and(|to| to.addr().is_ipv4() != hop.is_ipv4()) {
            let problem = format!("{}: is of another IP version than the destination", quote(v.get_ref()));
            s.error(&v.span(), "next_hop", problem, "write a next hop of the destination's version", "");
            return None;
        }
        if let Some(own) = names.addresses.0.get(&hop) {
            let problem = format!("{hop} is the gateway's own address, see {own}");
            s.error(&v.span(), "next_hop", problem, "write the address of the next router", "");
            return None;
        }
        Some(hop)
    });
    let ways = [raw.next_hop.is_some() || raw.port.is_some(), raw.tunnel.is_some(), raw.r#type.is_some()];
    match ways.iter().filter(|w| **w).count() {
        1 => {}
        0 => {
            if !["next_hop", "port", "tunnel", "type"].iter().any(|key| s.is_mistyped(key)) {
                s.missing("next_hop", CHOICE, "");
            }
            return None;
        }
        _ => {
            let span = s.span.clone();
            let path = s.path;
            s.report.error(&span, &path, "has more than one target", CHOICE, "");
            return None;
        }
    }
    if raw.tunnel.is_some() {
        tunnel.map(RouteTarget::Tunnel)
    } else if raw.r#type.is_some() {
        kind.map(RouteTarget::Reject)
    } else if raw.next_hop.is_some() {
        if raw.port.is_some() && port.is_none() {
            return None;
        }
        next_hop.map(|next_hop| RouteTarget::Via { next_hop, port })
    } else {
        port.map(RouteTarget::OnLink)
    }
}
