//! Answers of the box itself leave by the line by which the question came: which rules the kernel gets for that.

use sag_compile::{PortBinding, RouteRow};
use sag_model::Role;
use sag_pipeline::snapshot::{Member, Route};
use sag_rtnl::SourceRoute;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The default route of each line to the Internet for each of its addresses, in the families that have several lines with
/// one. With one line `main` says all there is.
pub fn wanted(routes: &[RouteRow], bindings: &[PortBinding]) -> BTreeSet<SourceRoute> {
    let mut out = BTreeSet::new();
    for v6 in [false, true] {
        let is_default =
            |r: &&RouteRow| r.vrf.is_default() && r.dst.prefix_len() == 0 && r.dst.addr().is_ipv6() == v6;
        let Some(row) = routes.iter().find(is_default) else { continue };
        let used = if let Route::Via(members) = &row.route { members.as_slice() } else { &[] };
        let by_port = |b: &PortBinding| -> Option<&Member> {
            used.iter().chain(&row.unused).find(|m| m.tunnel.is_none() && m.port == b.idx)
        };
        let wan = bindings.iter().filter(|b| b.role == Role::Wan && b.port.up);
        let lines: Vec<_> = wan.filter_map(|b| Some((b, b.l3_ifindex?, by_port(b)?))).collect();
        if lines.len() < 2 {
            continue;
        }
        for (b, ifindex, member) in lines {
            let addresses: Vec<IpAddr> = if v6 {
                let global = b.port.addrs6.iter().filter(|(a, _)| !a.is_unicast_link_local());
                global.map(|(a, _)| IpAddr::V6(*a)).collect()
            } else {
                b.port.addrs4.iter().map(|(a, _)| IpAddr::V4(*a)).collect()
            };
            out.extend(addresses.into_iter().map(|from| SourceRoute {
                from,
                line: b.idx.0,
                ifindex,
                via: member.via,
            }));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_compile::RouteSource;
    use sag_model::config::ReversePath;
    use sag_model::{MacAddr, PortIdx, VrfNo, Zone};
    use sag_pipeline::snapshot::Port;
    use sag_rtnl::Table;

    fn binding(idx: u8, role: Role, up: bool) -> PortBinding {
        let port = Port {
            name: idx.to_string(),
            zone: if role == Role::Wan { Zone::Wan } else { Zone::Lan },
            vrf: VrfNo::DEFAULT,
            dev: idx,
            ifindex: 10 + u32::from(idx),
            vlan: 0,
            mac: MacAddr([2, 0, 0, 0, 0, idx]),
            macs: Vec::new(),
            mtu: 1500,
            up,
            addrs4: vec![([203, 0, 113, idx].into(), 32)],
            addrs6: vec![("fe80::1".parse().unwrap(), 64), ("2001:db8::1".parse().unwrap(), 64)],
            reverse_path: ReversePath::Feasible,
            mss_clamp: false,
            failed: false,
        };
        let l3_ifindex = Some(port.ifindex);
        PortBinding { idx: PortIdx(idx), role, device: format!("eth{idx}"), port, l3_ifindex }
    }

    fn row(dst: &str, used: u8, unused: &[u8]) -> RouteRow {
        let router = |port: u8| IpAddr::from([198, 51, 100, port]);
        let member = |port: u8| Member::port(PortIdx(port), Some(router(port)), 1);
        RouteRow {
            vrf: VrfNo::DEFAULT,
            dst: dst.parse().unwrap(),
            route: Route::Via(vec![member(used)]),
            source: RouteSource::Kernel,
            table: Table::Main,
            protocol: "static".into(),
            metric: 0,
            foreign: Vec::new(),
            unused: unused.iter().map(|p| member(*p)).collect(),
        }
    }

    #[test]
    fn lines_with_a_default_route_of_their_own() {
        let ports = [binding(0, Role::Lan, true), binding(1, Role::Wan, true), binding(2, Role::Wan, true)];
        let of = |routes: &[RouteRow], ports: &[PortBinding]| -> Vec<(String, u8)> {
            wanted(routes, ports).iter().map(|r| (r.from.to_string(), r.line)).collect()
        };
        let both = [row("0.0.0.0/0", 1, &[2, 0]), row("10.0.0.0/8", 2, &[1])];
        assert_eq!(of(&both, &ports), [("203.0.113.1".to_owned(), 1), ("203.0.113.2".to_owned(), 2)]);
        // With one line, in use or up, `main` says it all.
        assert_eq!(of(&[row("0.0.0.0/0", 1, &[]), row("10.0.0.0/8", 2, &[])], &ports), []);
        assert_eq!(
            of(
                &both,
                &[binding(0, Role::Lan, true), binding(1, Role::Wan, true), binding(2, Role::Wan, false)]
            ),
            []
        );
        let six = of(&[row("::/0", 2, &[1])], &ports);
        assert_eq!(
            six,
            [("2001:db8::1".to_owned(), 1), ("2001:db8::1".to_owned(), 2)],
            "not the link-local one"
        );
    }
}
