//! Routes of the configuration in the kernel's table, against the real kernel: `ip route` judges.

mod common;

use common::{Netns, addr, ip, sysctl};
use sag_rtnl::{ConfigHop, ConfigRoute, ConfigRoutes, Mirror, RejectRoute};
use std::collections::BTreeSet;
use std::process::Command;

fn output(args: &str) -> String {
    let out = Command::new("ip").args(args.split_whitespace()).output().expect("run ip");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn route(dst: &str, metric: u32, hops: &[(u32, Option<&str>, u16)]) -> ConfigRoute {
    let hop = |h: &(u32, Option<&str>, u16)| ConfigHop { ifindex: h.0, via: h.1.map(addr), weight: h.2 };
    ConfigRoute { dst: dst.parse().unwrap(), metric, reject: None, hops: hops.iter().map(hop).collect() }
}

#[test]
fn routes_are_set_kept_and_removed() {
    let Some(ns) = Netns::new("config") else { return };
    ns.enter(|| {
        sysctl("net/ipv6/conf/default/accept_dad", "0");
        for (dev, own) in [
            ("one", ["203.0.113.2/24", "2001:db8:a::2/64"]),
            ("two", ["198.51.100.2/24", "2001:db8:b::2/64"]),
        ] {
            ip(&format!("link add {dev} type veth peer name {dev}-far"));
            ip(&format!("link set {dev} up"));
            ip(&format!("link set {dev}-far up"));
            own.iter().for_each(|a| ip(&format!("addr add {a} dev {dev}")));
        }
        ip("route add 10.9.0.0/16 dev one proto static");
        ip("route add 10.8.0.0/16 dev one");
        let mut mirror = Mirror::open().unwrap();
        let index = |dev: &str| mirror.tables().link_named(dev).unwrap().ifindex;
        let (one, two) = (index("one"), index("two"));
        let reject = |dst: &str, how| ConfigRoute { reject: Some(how), ..route(dst, 5, &[]) };
        let wanted: BTreeSet<_> = [
            route("10.1.0.0/16", 0, &[(one, Some("203.0.113.9"), 1)]),
            // The router is on no network of the device.
            route("10.2.0.0/16", 7, &[(one, Some("192.0.2.1"), 1)]),
            route("10.3.0.0/16", 0, &[(two, None, 1)]),
            route("10.4.0.0/16", 0, &[(one, Some("203.0.113.9"), 3), (two, Some("198.51.100.9"), 1)]),
            route("2001:db8:1::/48", 0, &[(one, Some("2001:db8:a::9"), 1)]),
            route("2001:db8:2::/48", 7, &[(two, None, 1)]),
            route("2001:db8:4::/48", 0, &[(one, Some("2001:db8:a::9"), 1), (two, Some("2001:db8:b::9"), 2)]),
            reject("10.5.0.0/16", RejectRoute::Blackhole),
            reject("10.6.0.0/16", RejectRoute::Unreachable),
            reject("2001:db8:5::/48", RejectRoute::Prohibit),
            // Somebody else's stays.
            route("10.9.0.0/16", 0, &[(two, None, 1)]),
        ]
        .into();
        let before = mirror.tables().route_count();
        let mut routes = ConfigRoutes::open().unwrap();
        assert!(routes.list().unwrap().is_empty());
        let refused = routes.set(&wanted).unwrap();
        assert!(refused.is_empty(), "{refused:?}");
        let get = |to: &str| output(&format!("-o route get {to}"));
        for (to, said) in [
            ("10.1.2.3", "via 203.0.113.9 dev one"),
            ("10.2.2.3", "via 192.0.2.1 dev one"),
            ("10.3.2.3", "dev two"),
            ("10.9.2.3", "dev one"),
            ("2001:db8:1::7", "via 2001:db8:a::9 dev one"),
            ("2001:db8:2::7", "dev two"),
        ] {
            assert!(get(to).contains(said), "{to}: {}", get(to));
        }
        let (four, six) = (output("route show proto 91"), output("-6 route show proto 91"));
        assert!(four.contains("weight 3") && four.contains("blackhole 10.5.0.0/16"), "{four}");
        assert!(
            four.contains("unreachable 10.6.0.0/16") && six.contains("prohibit 2001:db8:5::/48"),
            "{six}"
        );
        assert_eq!(routes.list().unwrap().len(), wanted.len() - 1);
        // The mirror does not see them, neither at once nor when it begins.
        mirror.poll().unwrap();
        assert_eq!(mirror.tables().route_count(), before);
        assert_eq!(Mirror::open().unwrap().tables().route_count(), before);

        // The same again changes nothing; a process that begins anew finds what is there.
        routes.set(&wanted).unwrap();
        let mut again = ConfigRoutes::open().unwrap();
        again.set(&wanted).unwrap();
        assert_eq!((output("route show proto 91"), output("-6 route show proto 91")), (four, six));
        // A link that goes down takes its routes along; afterwards they are set again.
        ip("link set two down");
        let refused = again.set(&wanted).unwrap();
        assert!(refused.iter().any(|(dst, _)| dst.to_string() == "10.3.0.0/16"), "{refused:?}");
        ip("link set two up");
        ip("addr replace 2001:db8:b::2/64 dev two");
        assert!(again.set(&wanted).unwrap().is_empty());
        assert!(get("10.3.2.3").contains("dev two"));
        // Fewer, and others.
        let fewer: BTreeSet<_> = [
            route("10.1.0.0/16", 0, &[(two, Some("198.51.100.9"), 1)]),
            route("2001:db8:4::/48", 0, &[(two, Some("2001:db8:b::9"), 1)]),
        ]
        .into();
        assert!(again.set(&fewer).unwrap().is_empty());
        assert!(get("10.1.2.3").contains("via 198.51.100.9 dev two"));
        assert_eq!(again.list().unwrap().len(), 2);
        again.set(&BTreeSet::new()).unwrap();
        assert!(again.list().unwrap().is_empty());
        assert!(output("route show").contains("10.8.0.0/16") && output("route show").contains("10.9.0.0/16"));
    });
}
