//! Rules for what the machine says from its addresses, against the real kernel: `ip route get` and `ip rule` judge.

mod common;

use common::{Netns, addr, ip, sysctl};
use sag_rtnl::{Mirror, SourceRoute, SourceRoutes};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;

fn output(args: &str) -> String {
    let out = Command::new("ip").args(args.split_whitespace()).output().expect("run ip");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The device by which the kernel sends what it says from an address, or from one of its choice.
fn leaves_by(from: &str, to: &str) -> String {
    let said = output(&format!("-o route get {to} from {from}"));
    let words: Vec<_> = said.split_whitespace().collect();
    let at = words.iter().position(|w| *w == "dev").unwrap_or_else(|| panic!("{to} from {from}: {said:?}"));
    words[at + 1].to_owned()
}

const OWN: [[&str; 2]; 2] = [["203.0.113.2", "2001:db8:a::2"], ["198.51.100.2", "2001:db8:b::2"]];
const ROUTERS: [[&str; 2]; 2] = [["203.0.113.1", "2001:db8:a::1"], ["198.51.100.1", "2001:db8:b::1"]];
const FAR: [&str; 2] = ["192.0.2.7", "2001:db8:99::7"];
const INSIDE: [&str; 2] = ["10.1.1.1", "2001:db8:1::1"];

#[test]
fn answers_leave_by_the_line_of_their_address() {
    let Some(ns) = Netns::new("source") else { return };
    ns.enter(|| {
        sysctl("net/ipv6/conf/default/accept_dad", "0");
        for (dev, own) in ["one", "two"].into_iter().zip(OWN) {
            ip(&format!("link add {dev} type veth peer name {dev}-far"));
            ip(&format!("link set {dev} up"));
            ip(&format!("link set {dev}-far up"));
            ip(&format!("addr add {}/24 dev {dev}", own[0]));
            ip(&format!("addr add {}/64 dev {dev}", own[1]));
        }
        for family in [0, 1] {
            ip(&format!("route add default via {} dev one metric 10", ROUTERS[0][family]));
            ip(&format!("route add default via {} dev two metric 20", ROUTERS[1][family]));
            let inside = ["10.1.0.0/16", "2001:db8:1::/48"][family];
            ip(&format!("route add {inside} via {} dev one", ROUTERS[0][family]));
        }
        let index = |dev: &str| Mirror::open().unwrap().tables().link_named(dev).unwrap().ifindex;
        let route = |line: usize, family: usize, via: Option<IpAddr>| SourceRoute {
            from: addr(OWN[line][family]),
            line: line as u8,
            ifindex: index(["one", "two"][line]),
            via,
        };
        let by_router = |line: usize, family: usize| route(line, family, Some(addr(ROUTERS[line][family])));
        let wanted: BTreeSet<_> = [by_router(0, 0), by_router(0, 1), by_router(1, 0), by_router(1, 1)].into();
        let before = (output("rule"), output("-6 rule"));
        let mut routes = SourceRoutes::open().unwrap();
        assert!(routes.is_empty());
        routes.set(&wanted).unwrap();
        for family in [0, 1] {
            assert_eq!(leaves_by(OWN[0][family], FAR[family]), "one");
            assert_eq!(leaves_by(OWN[1][family], FAR[family]), "two", "not by the default route");
            assert_eq!(leaves_by(OWN[1][family], INSIDE[family]), "one", "longer prefixes count");
        }
        // The same again costs nothing and changes nothing; a process that begins anew finds what is there.
        let set = (output("rule"), output("-6 rule"));
        routes.set(&wanted).unwrap();
        let mut again = SourceRoutes::open().unwrap();
        assert!(!again.is_empty());
        again.set(&wanted).unwrap();
        assert_eq!((output("rule"), output("-6 rule")), set);
        // A link that goes down takes its routes along; afterwards they are set again.
        ip("link set two down");
        ip("link set two up");
        ip(&format!("addr replace {}/64 dev two", OWN[1][1]));
        again.forget_routes();
        again.set(&wanted).unwrap();
        assert_eq!(leaves_by(OWN[1][0], FAR[0]), "two");
        assert_eq!(leaves_by(OWN[1][1], FAR[1]), "two");
        // Another router of the line, and a line less.
        let other = route(1, 0, Some(addr("198.51.100.9")));
        again.set(&[by_router(0, 0), other].into()).unwrap();
        assert!(output(&format!("route get {} from {}", FAR[0], OWN[1][0])).contains("via 198.51.100.9"));
        assert_eq!(output("-6 rule"), before.1);
        assert_eq!(output("-6 route show table 23041"), "");
        // One that the kernel refuses is an error, and does not keep the others back.
        let refused = route(1, 0, Some(addr("172.31.0.1")));
        assert!(again.set(&[by_router(0, 0), refused].into()).is_err());
        assert_eq!(leaves_by(OWN[0][0], FAR[0]), "one");
        again.set(&BTreeSet::new()).unwrap();
        assert_eq!((output("rule"), output("-6 rule")), before);
        assert_eq!(output("route show table 23040") + &output("route show table 23041"), "");
    });
}
