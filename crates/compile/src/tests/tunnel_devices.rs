//! Routes of the kernel by devices of tunnels.

use super::*;
use sag_pipeline::snapshot::{Member, Snapshot};
use sag_pipeline::tunnel::{Tunnel, TunnelNo};

const TUNNELS: &str = "[[tunnel]]\nname = \"pop1\"\nkind = \"ipip\"\nlocal = \"203.0.113.2\"\nremote = \"203.0.113.9\"\n\
    device = \"tun1\"\naddresses = [\"10.255.0.1/30\", \"fd00:255::1/64\"]\n";

fn tun(ifindex: u32, name: &str) -> Link {
    Link { kind: Some("tun".into()), mac: None, ..link(ifindex, name) }
}

/// What packets to an address are handed to.
fn members(s: &Snapshot, to: &str) -> Vec<Member> {
    match s.route(ip(to)) {
        Some(Route::Via(members)) => members.clone(),
        _ => Vec::new(),
    }
}

fn by_device(dst: &str, router: Option<&str>) -> KernelRoute {
    route(dst, RouteKind::Unicast, 20, vec![hop(9, router)])
}

fn state(s: &Snapshot) -> &Tunnel {
    s.tunnels.iter().next().unwrap()
}

#[test]
fn a_route_by_the_device_leads_into_the_tunnel() {
    let into = |weight| vec![Member::tunnel(TunnelNo::new(1).unwrap(), weight)];
    for (dst, to, router) in
        [("10.77.0.0/16", "10.77.1.1", "10.255.0.2"), ("fd77::/32", "fd77::1", "fd00:255::2")]
    {
        for router in [None, Some(router)] {
            let mut t = tables();
            t.insert_link(tun(9, "tun1"));
            t.insert_route(by_device(dst, router));
            let s = Gateway::new().snapshot(&config(TUNNELS), &t, 1);
            assert_eq!(members(&s, to), into(1), "{router:?}");
            assert!(state(&s).device);
            // Packets may come out with such a source.
            assert!(s.check_source(ip(to), sag_model::PortIdx(1), TunnelNo::new(1)).is_ok());
            // A device of another kind, or of another name, is none of the gateway's.
            for other in [link(9, "tun1"), tun(9, "tun2")] {
                let mut t = tables();
                t.insert_link(other);
                t.insert_route(by_device(dst, router));
                let s = Gateway::new().snapshot(&config(TUNNELS), &t, 1);
                assert_eq!(s.route(ip(to)), Some(&Route::NotOurs));
            }
        }
    }
}

/// The device has no carrier while no daemon runs, and when the tunnel is down: the tunnel's state is what counts.
#[test]
fn the_tunnels_state_counts_and_not_the_carrier() {
    for (dst, to) in [("10.77.0.0/16", "10.77.1.1"), ("fd77::/32", "fd77::1")] {
        let port = |to: &str| if to.contains(':') { "2001:db8:b::9" } else { "203.0.113.9" };
        let tables_with = |up: bool, linkdown: bool| {
            let mut t = tables();
            t.insert_link(Link { up, running: !linkdown, ..tun(9, "tun1") });
            let mut r = by_device(dst, None);
            r.nexthops[0].linkdown = linkdown;
            t.insert_route(r);
            t.insert_route(route(dst, RouteKind::Unicast, 50, vec![hop(4, Some(port(to)))]));
            t
        };
        let mut gateway = Gateway::new();
        let s = gateway.snapshot(&config(TUNNELS), &tables_with(true, true), 1);
        assert_eq!(members(&s, to)[0].tunnel, TunnelNo::new(1), "no daemon had it open");
        let s = gateway.snapshot(&config(TUNNELS), &tables_with(false, true), 1);
        assert_eq!(members(&s, to)[0].tunnel, None, "somebody has taken the device down");
        state(&s).state.set_up(false);
        let s = gateway.snapshot(&config(TUNNELS), &tables_with(true, false), 1);
        assert_eq!(members(&s, to)[0].tunnel, None, "the tunnel is down");
        assert!(
            (0..s.routes.places()).flat_map(|no| s.routes.unused(no)).any(|m| m.tunnel.is_some()),
            "but packets may come out of it"
        );
    }
}

/// Addresses of the device, of the configuration or not, are the gateway's own, and XDP leaves them to the kernel.
#[test]
fn addresses_of_the_device_are_the_kernels() {
    let mut t = tables();
    t.insert_link(tun(9, "tun1"));
    t.insert_address(address(9, "10.99.0.1/32"));
    for (device, known) in [(true, true), (false, false)] {
        let text = if device { TUNNELS.to_owned() } else { TUNNELS.replace("device = \"tun1\"\n", "") };
        let s = Gateway::new().snapshot(&config(&text), &t, 1);
        let own: Vec<_> = s.kernel_addresses().map(|(_, a)| a).collect();
        assert!(own.contains(&ip("10.99.0.1")));
        for inside in ["10.255.0.1", "fd00:255::1"] {
            assert_eq!(own.contains(&ip(inside)), known, "{inside}");
        }
    }
}
