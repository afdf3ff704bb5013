//! `routes`.

use crate::daemon::view::View;
use ipnet::IpNet;
use sag_compile::{RouteSource, Way};
use sag_model::control::{Error, ErrorCode, RoutePlace};
use sag_model::{VrfNo, control};
use sag_pipeline::snapshot::{Member, NextHop, Route};
use std::net::Ipv6Addr;

/// Routes of an answer that names no other limit.
const DEFAULT_ROWS: usize = 10_000;
/// Routes of any answer: while it is made nobody else is answered, and no change of a route is taken.
const MAX_ROWS: usize = 20_000;

/// How many routes an answer may have.
fn rows(limit: Option<u32>) -> Result<usize, Error> {
    let limit = limit.map_or(DEFAULT_ROWS, |l| l as usize);
    if limit > MAX_ROWS {
        let text = format!("{limit} routes in an answer, the limit is {MAX_ROWS}");
        let remedy =
            "ask for the rest with `after` and the answer's `next`, or for the routes `within` a network";
        return Err(Error::new(ErrorCode::TooLarge, text, remedy));
    }
    Ok(limit)
}

impl View<'_> {
    /// The routes that the gateway forwards by; for one address, those that cover it, the longest prefix first.
    ///
    /// # Errors
    /// [`ErrorCode::TooLarge`]: more are asked for than one answer may have. [`ErrorCode::NotFound`]: there is no such VRF.
    /// [`ErrorCode::BadRequest`]: the arguments exclude each other.
    pub fn routes(&self, query: &control::RouteQuery) -> Result<control::Routes, Error> {
        let routes = &self.compiler.routes;
        let limit = rows(query.limit)?;
        let shown = |(_, dst, way): &(VrfNo, IpNet, &Way)| {
            !(matches!(way.route, Route::Local) && dst.addr().is_loopback())
        };
        if let Some(to) = query.covers {
            if query.within.is_some() || query.after.is_some() {
                let remedy = "ask for the routes that cover an address alone: there are few";
                return Err(Error::new(ErrorCode::BadRequest, "`covers` beside `within` or `after`", remedy));
            }
            let lengths = (0..=IpNet::from(to).prefix_len()).rev();
            let nets = lengths.filter_map(|len| Some(IpNet::new(to, len).ok()?.trunc()));
            let rows: Vec<_> = nets.flat_map(|dst| routes.of_prefix(dst)).filter(shown).collect();
            let total = rows.len() as u64;
            let routes = rows.into_iter().take(limit).map(|r| self.route(r)).collect();
            return Ok(control::Routes { routes, total, next: None });
        }
        let after = query.after.as_ref().map(|place| self.place(place)).transpose()?;
        let loopback = [IpNet::new([127, 0, 0, 0].into(), 8), IpNet::new(Ipv6Addr::LOCALHOST.into(), 128)];
        let hidden = || {
            loopback.into_iter().flatten().flat_map(|net| routes.within(net)).filter(|r| !shown(r)).count()
        };
        let within = query.within.map(|net| net.trunc());
        let total = match within {
            None => routes.len() - hidden(),
            Some(_) => routes.select(within, None).filter(shown).count(),
        };
        let mut some = routes.select(within, after).filter(shown);
        let rows: Vec<_> = some.by_ref().take(limit).collect();
        let last = rows.last().filter(|_| some.next().is_some());
        let next = last.map(|(vrf, dst, _)| RoutePlace {
            destination: *dst,
            vrf: self.compiler.vrfs.name(*vrf).map(str::to_owned),
        });
        let routes = rows.into_iter().map(|r| self.route(r)).collect();
        Ok(control::Routes { routes, total: total as u64, next })
    }

    /// The VRF and the destination that a place names.
    fn place(&self, place: &RoutePlace) -> Result<(VrfNo, IpNet), Error> {
        let vrf = match &place.vrf {
            None => VrfNo::DEFAULT,
            Some(name) => self.compiler.vrfs.number_of(name).ok_or_else(|| {
                Error::new(
                    ErrorCode::NotFound,
                    format!("there is no VRF {name:?}"),
                    "take `next` of an answer as it is",
                )
            })?,
        };
        Ok((vrf, place.destination))
    }

    fn route(&self, (vrf, dst, r): (VrfNo, IpNet, &Way)) -> control::Route {
        let mut next_hops = Vec::new();
        if let Route::Via(members) = &r.route {
            next_hops.extend(members.iter().map(|m| self.next_hop(m)));
        }
        let tables = self.kernel.tables();
        let device_name = |i: u32| tables.link(i).map_or_else(|| format!("if{i}"), |l| l.name.clone());
        next_hops.extend(r.foreign.iter().map(|(ifindex, via, weight)| control::NextHop {
            via: *via,
            port: None,
            device: device_name(*ifindex),
            mac: None,
            state: "not-ours".to_owned(),
            weight: u32::from(*weight),
        }));
        control::Route {
            destination: dst,
            vrf: self.compiler.vrfs.name(vrf).map(str::to_owned),
            kind: match r.route {
                Route::Via(_) | Route::NotOurs => "unicast",
                Route::Local => "local",
                Route::Blackhole => "blackhole",
                Route::Unreachable => "unreachable",
                Route::Prohibit => "prohibit",
                Route::Throw => "throw",
            }
            .to_owned(),
            protocol: r.protocol.clone(),
            metric: r.metric,
            source: match r.source {
                RouteSource::Kernel => "kernel",
                RouteSource::Config => "config",
            }
            .to_owned(),
            next_hops,
        }
    }

    fn next_hop(&self, m: &Member) -> control::NextHop {
        let snapshot = &self.publisher.snapshot;
        if let Some(t) = snapshot.tunnel(m.tunnel) {
            return control::NextHop {
                via: Some(t.remote),
                port: Some(t.name.clone()),
                device: String::new(),
                mac: None,
                state: "tunnel".to_owned(),
                weight: u32::from(m.weight),
            };
        }
        let binding = self.publisher.bindings.get(m.port.index());
        let ifindex = binding.and_then(|b| b.l3_ifindex).unwrap_or(0);
        let neighbor = m.via.and_then(|ip| self.kernel.tables().neighbor(ifindex, ip));
        let number = m.via.and_then(|ip| snapshot.neighbors.get(&(m.port, ip)));
        let known = number.and_then(|n| snapshot.nexthop(n));
        control::NextHop {
            via: m.via,
            port: Some(self.port_name(m.port.0).to_owned()),
            device: binding.map(|b| b.device.clone()).unwrap_or_default(),
            mac: known.filter(NextHop::valid).map(|n| n.dmac),
            state: match (m.via, neighbor) {
                (None, _) => "on-link".to_owned(),
                (Some(_), Some(n)) => n.state.to_string(),
                (Some(_), None) if known.is_some_and(|n| n.valid()) => "permanent".to_owned(),
                (Some(_), None) => "unknown".to_owned(),
            },
            weight: u32::from(m.weight),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_bound() {
        assert_eq!([None, Some(3), Some(20_000)].map(|l| rows(l).unwrap()), [10_000, 3, 20_000]);
        let refused = rows(Some(20_001)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::TooLarge);
        assert!(
            refused.message.contains("20001") && refused.message.contains("20000"),
            "{}",
            refused.message
        );
    }
}
