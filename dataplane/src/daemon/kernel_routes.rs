//! Routes of the file in the kernel's table: which of them the machine itself is to go by.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sag_compile::{PortBinding, RouteRow, RouteSource};
use sag_pipeline::snapshot::{Member, Route};
use sag_pipeline::tunnel::TunnelNo;
use sag_rtnl::{ConfigHop, ConfigRoute, RejectRoute, RouteKind, Table, Tables};
use std::collections::BTreeSet;

/// The routes of the file that packets go by, as far as the kernel has their devices: ports, and tunnels with a device.
///
/// Of default routes only those by ports, where nobody else has set one: keys, names and the cloud are not to be looked
/// for in a tunnel that needs them first, and who administers the machine comes by the default route that it has.
pub fn wanted(
    routes: &[RouteRow],
    bindings: &[PortBinding],
    device_of: &dyn Fn(TunnelNo) -> Option<u32>,
    has_default: [bool; 2],
) -> BTreeSet<ConfigRoute> {
    // What networks of addresses need, the kernel has by the addresses.
    let of_file =
        |r: &&RouteRow| r.source == RouteSource::Config && r.vrf.is_default() && r.protocol == "static";
    let mut out = BTreeSet::new();
    for row in routes.iter().filter(of_file) {
        let is_default = row.dst.prefix_len() == 0;
        let hop = |m: &Member| match m.tunnel {
            Some(no) => Some(ConfigHop { ifindex: device_of(no)?, via: None, weight: m.weight })
                .filter(|_| !is_default),
            None => {
                let port = bindings.get(m.port.index()).filter(|b| b.ours() && b.port.vrf.is_default())?;
                Some(ConfigHop { ifindex: port.l3_ifindex?, via: m.via, weight: m.weight })
            }
        };
        let (reject, hops) = match &row.route {
            Route::Via(members) => {
                let hops: Vec<_> = members.iter().filter_map(hop).collect();
                if hops.is_empty() || is_default && has_default[usize::from(row.dst.addr().is_ipv6())] {
                    continue;
                }
                (None, hops)
            }
            Route::Blackhole => (Some(RejectRoute::Blackhole), Vec::new()),
            Route::Unreachable => (Some(RejectRoute::Unreachable), Vec::new()),
            Route::Prohibit => (Some(RejectRoute::Prohibit), Vec::new()),
            _ => continue,
        };
        if reject.is_some() && is_default {
            continue;
        }
        out.insert(ConfigRoute { dst: row.dst, metric: row.metric, reject, hops });
    }
    out
}

/// Whether somebody has set a default route, of IPv4 and of IPv6.
pub fn default_routes(tables: &Tables) -> [bool; 2] {
    let of_main = |r: &sag_rtnl::RouteRef<'_>| matches!(r.table, Table::Main | Table::Default);
    let default = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    default.map(|dst| tables.routes_to(&dst).any(|r| of_main(&r) && r.kind == RouteKind::Unicast))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_model::config::ReversePath;
    use sag_model::{MacAddr, PortIdx, Role, VrfNo, Zone};
    use sag_pipeline::snapshot::Port;
    use std::net::IpAddr;

    fn binding(idx: u8) -> PortBinding {
        let port = Port {
            name: idx.to_string(),
            zone: Zone::Wan,
            vrf: VrfNo::DEFAULT,
            dev: idx,
            ifindex: 10 + u32::from(idx),
            vlan: 0,
            mac: MacAddr([2, 0, 0, 0, 0, idx]),
            macs: Vec::new(),
            mtu: 1500,
            up: true,
            addrs4: Vec::new(),
            addrs6: Vec::new(),
            reverse_path: ReversePath::Feasible,
            mss_clamp: false,
            failed: false,
        };
        let l3_ifindex = Some(port.ifindex);
        PortBinding { idx: PortIdx(idx), role: Role::Wan, device: format!("eth{idx}"), port, l3_ifindex }
    }

    fn row(dst: &str, route: Route) -> RouteRow {
        RouteRow {
            vrf: VrfNo::DEFAULT,
            dst: dst.parse().unwrap(),
            route,
            source: RouteSource::Config,
            table: Table::Main,
            protocol: "static".into(),
            metric: 3,
            foreign: Vec::new(),
            unused: Vec::new(),
        }
    }

    fn by_port(router: &str) -> Member {
        Member::port(PortIdx(1), Some(router.parse::<IpAddr>().unwrap()), 2)
    }

    fn by_tunnel(no: u8) -> Member {
        Member::tunnel(TunnelNo::new(no).unwrap(), 1)
    }

    /// Destinations and devices of what the kernel gets of such a route.
    fn of(row: RouteRow, has_default: [bool; 2]) -> Vec<(String, Vec<u32>)> {
        let device_of = |no: TunnelNo| (no.get() == 1).then_some(99);
        let bindings = [binding(0), binding(1)];
        let all = wanted(&[row], &bindings, &device_of, has_default);
        all.iter().map(|r| (r.dst.to_string(), r.hops.iter().map(|h| h.ifindex).collect())).collect()
    }

    #[test]
    fn routes_of_the_file_by_devices_that_the_kernel_has() {
        for (dst, router) in [("10.1.0.0/16", "203.0.113.1"), ("2001:db8:1::/48", "2001:db8::1")] {
            let via = |members: &[Member]| row(dst, Route::Via(members.to_vec()));
            let one = |devices: &[u32]| vec![(dst.to_owned(), devices.to_vec())];
            assert_eq!(of(via(&[by_port(router)]), [true; 2]), one(&[11]));
            assert_eq!(of(via(&[by_tunnel(1)]), [true; 2]), one(&[99]));
            assert_eq!(of(via(&[by_tunnel(2)]), [true; 2]), [], "a tunnel without a device");
            assert_eq!(
                of(via(&[by_tunnel(2), by_port(router)]), [true; 2]),
                one(&[11]),
                "what there is of it"
            );
            assert_eq!(of(row(dst, Route::Blackhole), [true; 2]), one(&[]));
            for other in [
                RouteRow { source: RouteSource::Kernel, ..via(&[by_port(router)]) },
                RouteRow { protocol: "connected".into(), ..via(&[by_tunnel(1)]) },
                RouteRow { vrf: VrfNo::new(1).unwrap(), ..via(&[by_port(router)]) },
            ] {
                assert_eq!(of(other, [false; 2]), []);
            }
        }
    }

    #[test]
    fn a_default_route_goes_by_a_port_if_there_is_none() {
        for (v6, dst, router) in [(0, "0.0.0.0/0", "203.0.113.1"), (1, "::/0", "2001:db8::1")] {
            let mut has_default = [true; 2];
            let by_line = || row(dst, Route::Via(vec![by_port(router)]));
            assert_eq!(of(by_line(), has_default), []);
            has_default[v6] = false;
            assert_eq!(of(by_line(), has_default), [(dst.to_owned(), vec![11])]);
            assert_eq!(of(row(dst, Route::Via(vec![by_tunnel(1)])), has_default), []);
            assert_eq!(of(row(dst, Route::Unreachable), has_default), []);
        }
    }
}
