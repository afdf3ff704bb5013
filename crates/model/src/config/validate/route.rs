//! `[[route]]`.

use super::{Names, Seen};
use crate::config::keys::{RawRoute, Route};
use crate::config::report::{Path, Place, Report};
use crate::config::scope::Scope;
use crate::config::types::RouteTarget;
use crate::config::value::quote;
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
    same: Seen<(InVrf, u32, String)>,
    first: HashMap<(InVrf, u32), (bool, Place)>,
}

/// A network of a VRF.
type InVrf = (Option<String>, IpNet);

fn route(raw: &RawRoute, s: &mut Scope<'_, '_>, names: &Names, groups: &mut Groups) -> Option<Route> {
    let mut read = raw.read(s);
    read.destination = read.destination.filter(|net| {
        let special = net.addr().is_multicast() || net.addr().is_loopback();
        if let (true, Some(at)) = (special, &raw.destination) {
            let problem = format!("{net} is multicast or loopback");
            let remedy = "route unicast networks only; the kernel keeps the rest";
            s.error(&at.span(), "destination", problem, remedy, "");
        }
        !special
    });
    let vrf = names.check_vrf(s, &raw.vrf);
    let target = target(raw, s, names, read.destination);
    vrf?;
    let (destination, target, metric, at) =
        (read.destination?, target?, read.metric?, raw.destination.as_ref()?);
    let of = (read.vrf.clone().flatten(), destination);

    let place = s.place(&at.span(), "destination");
    if let Some(first) = groups.same.repeated((of.clone(), metric, format!("{target:?}")), place.clone()) {
        s.repeated(&at.span(), "destination", destination, &first, "Sag.StaticRouteExist");
    }
    let rejects = matches!(target, RouteTarget::Reject(_));
    let (other, first) = groups.first.entry((of, metric)).or_insert((rejects, place));
    if *other != rejects {
        let problem = format!("{destination} both forwards and rejects at metric {metric}, see {first}");
        s.error(&at.span(), "destination", problem, "give one of the two another metric", "");
    }
    read.finish(target)
}

fn target(raw: &RawRoute, s: &mut Scope<'_, '_>, names: &Names, to: Option<IpNet>) -> Option<RouteTarget> {
    const CHOICE: &str = "write one of next_hop (with port if wanted), port, tunnel or type";
    let port = names.port(s, "port", &raw.port);
    let tunnel = names.tunnel(s, "tunnel", &raw.tunnel);
    let kind = Route::KEYS.r#type.read(s, &raw.r#type).flatten();
    let next_hop = raw.next_hop.as_ref().and_then(|v| {
        let hop = Route::KEYS.next_hop.read_present(s, v)??;
        if to.is_some_and(|to| to.addr().is_ipv4() != hop.is_ipv4()) {
            let problem = format!("{}: is of another IP version than the destination", quote(v.get_ref()));
            s.error(&v.span(), "next_hop", problem, "write a next hop of the destination's version", "");
            return None;
        }
        // It is where its port is, else in the VRF of the route.
        let vrf = match port {
            Some(port) => names.vrf_of(port),
            None => raw.vrf.as_ref().map(|v| v.get_ref().clone()),
        };
        if let Some(own) = names.addresses.0.get(&(vrf, hop)) {
            let problem = format!("{hop} is the gateway's own address, see {own}");
            s.error(&v.span(), "next_hop", problem, "write the address of the next router", "");
            return None;
        }
        Some(hop)
    });
    let targets = [raw.next_hop.is_some() || raw.port.is_some(), raw.tunnel.is_some(), raw.r#type.is_some()];
    match targets.iter().filter(|t| **t).count() {
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
