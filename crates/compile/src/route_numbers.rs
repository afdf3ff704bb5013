//! Numbers of routes: those that lead the same way have one, so that a table of a million prefixes behind a few routers has
//! few routes.

use ipnet::IpNet;
use sag_fib::{Fib, FibAddr, Limits};
use sag_model::VrfNo;
use sag_pipeline::snapshot::{Member, Route};
use std::collections::HashMap;

use crate::problem::Problem;

/// Routes by their numbers, and the number of each prefix.
#[derive(Debug, Default)]
pub(crate) struct RouteNumbers {
    pub routes: Vec<Route>,
    /// Ways out that are not in use, by the number of the route.
    pub unused: HashMap<u32, Vec<Member>>,
    pub prefixes: Vec<(VrfNo, IpNet, u32)>,
}

impl RouteNumbers {
    /// Of these routes; `unused` is by their places.
    pub fn assign(routes: Vec<(VrfNo, IpNet, Route)>, mut unused: HashMap<u32, Vec<Member>>) -> RouteNumbers {
        let mut out = RouteNumbers { prefixes: Vec::with_capacity(routes.len()), ..RouteNumbers::default() };
        let mut known: HashMap<(Route, Vec<Member>), u32> = HashMap::new();
        for (place, (vrf, prefix, route)) in (0u32..).zip(routes) {
            let way = (route, unused.remove(&place).unwrap_or_default());
            let no = match known.get(&way) {
                Some(no) => *no,
                None => {
                    let no = out.routes.len() as u32;
                    out.routes.push(way.0.clone());
                    if !way.1.is_empty() {
                        out.unused.insert(no, way.1.clone());
                    }
                    known.insert(way, no);
                    no
                }
            };
            out.prefixes.push((vrf, prefix, no));
        }
        out
    }
}

/// What lookups in a family's prefixes read.
pub(crate) fn fib<A: FibAddr>(prefixes: &[(A, u8, u32)], problems: &mut Vec<Problem>) -> Fib<A> {
    let limit = Limits::MAX.routes;
    let build = |count: usize| Fib::build(prefixes.iter().take(count).copied());
    build(usize::MAX)
        .or_else(|_| {
            problems.push(Problem::TooManyRoutes { limit });
            build(limit)
        })
        // There are as many now as there may be.
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_model::PortIdx;

    #[test]
    fn what_leads_the_same_way_has_one_number() {
        let via = |port: u8| Route::Via(vec![Member::port(PortIdx(port), None, 1)]);
        let prefix = |n: u8| IpNet::new([10, n, 0, 0].into(), 16).unwrap();
        let routes = [via(1), Route::Blackhole, via(1), via(2), via(1)];
        let routes = (0..).zip(routes).map(|(n, route)| (VrfNo::DEFAULT, prefix(n), route)).collect();
        let spare = vec![Member::port(PortIdx(3), None, 1)];
        let n = RouteNumbers::assign(routes, HashMap::from([(4, spare.clone())]));
        assert_eq!(n.prefixes.iter().map(|p| p.2).collect::<Vec<_>>(), [0, 1, 0, 2, 3]);
        assert_eq!(n.routes, [via(1), Route::Blackhole, via(2), via(1)]);
        assert_eq!(n.unused, HashMap::from([(3, spare)]), "sources may come in there, so it is another one");
    }
}
