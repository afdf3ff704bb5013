//! Addresses with lifetimes, and the routes that belong to them, against the real kernel: `ip` judges.

mod common;

use common::{Netns, ip};
use ipnet::Ipv6Net;
use sag_rtnl::{LeasedEditor, LeasedRoute, Lifetimes};
use std::collections::BTreeSet;
use std::process::Command;

fn output(args: &str) -> String {
    let out = Command::new("ip").args(args.split_whitespace()).output().expect("run ip");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn net(text: &str) -> Ipv6Net {
    text.parse().expect("net")
}

#[test]
fn addresses_have_lifetimes_and_a_mark() {
    let Some(ns) = Netns::new("leased") else { return };
    ns.enter(|| {
        ip("link add one type veth peer name two");
        ip("link set two up");
        ip("link set one up");
        ip("addr add 2001:db8:9::9/64 dev one nodad");
        let ifindex = output("-o link show dev one").split(':').next().unwrap().parse().unwrap();
        let mut editor = LeasedEditor::open().unwrap();
        let of = |editor: &mut LeasedEditor, text: &str| {
            editor.addresses().unwrap().into_iter().find(|a| a.ifindex == ifindex && a.address == net(text))
        };
        let other = of(&mut editor, "2001:db8:9::9/64").unwrap();
        assert_eq!((other.own, other.lifetimes), (false, Lifetimes::FOREVER));
        let times = Lifetimes { preferred: 300, valid: 600 };
        editor.set_address(ifindex, net("2001:db8:1::1/64"), times).unwrap();
        let a = of(&mut editor, "2001:db8:1::1/64").unwrap();
        assert!(a.own && (295..=300).contains(&a.lifetimes.preferred) && a.lifetimes.valid > 595, "{a:?}");
        // Deprecated, in place.
        editor.set_address(ifindex, net("2001:db8:1::1/64"), Lifetimes { preferred: 0, valid: 100 }).unwrap();
        let a = of(&mut editor, "2001:db8:1::1/64").unwrap();
        assert!(a.lifetimes.preferred == 0 && (95..=100).contains(&a.lifetimes.valid), "{a:?}");
        assert!(output("-6 addr show dev one").contains("deprecated"));
        editor.set_address(ifindex, net("2001:db8:1::1/64"), Lifetimes::FOREVER).unwrap();
        assert_eq!(of(&mut editor, "2001:db8:1::1/64").unwrap().lifetimes, Lifetimes::FOREVER);
        editor.remove_address(ifindex, net("2001:db8:1::1/64")).unwrap();
        editor.remove_address(ifindex, net("2001:db8:1::1/64")).unwrap();
        assert_eq!(of(&mut editor, "2001:db8:1::1/64"), None);
        assert!(of(&mut editor, "2001:db8:9::9/64").is_some());
    });
}

#[test]
fn routes_are_found_by_their_mark() {
    let Some(ns) = Netns::new("leased-r") else { return };
    ns.enter(|| {
        ip("link set lo up");
        ip("link add one type veth peer name two");
        ip("link set two up");
        ip("link set one up");
        ip("-6 route add 2001:db8:f::/48 dev one");
        // A router's advertisement is no obstacle.
        ip("-6 route add default via fe80::9 dev one proto ra metric 1024");
        ip("-6 route add unreachable 2001:db8:8000::/56 proto dhcp metric 1001");
        let ifindex = output("-o link show dev one").split(':').next().unwrap().parse().unwrap();
        let mut editor = LeasedEditor::open().unwrap();
        assert!(editor.routes().unwrap().is_empty());
        let gateway = "fe80::1".parse().unwrap();
        let wanted = BTreeSet::from([
            LeasedRoute::Unreachable(net("2001:db8:8000::/56")),
            LeasedRoute::Default { ifindex, gateway },
        ]);
        let (changed, refused) = editor.set_routes(&wanted).unwrap();
        assert!(changed && refused.is_empty(), "{refused:?}");
        assert_eq!(editor.routes().unwrap(), wanted);
        let shown = output("-6 route show");
        assert!(shown.contains("unreachable 2001:db8:8000::/56 dev lo proto 92 metric 1024"), "{shown}");
        assert!(shown.contains("default via fe80::1 dev one proto 92 metric 512"), "{shown}");
        assert!(!editor.set_routes(&wanted).unwrap().0);
        // Only what is the agent's goes; the client's own route is removed by name.
        assert!(editor.set_routes(&BTreeSet::new()).unwrap().0);
        let shown = output("-6 route show");
        assert!(!shown.contains("proto 92") && shown.contains("proto dhcp"), "{shown}");
        editor.remove_unreachable_of_dhcp(net("2001:db8:8000::/56")).unwrap();
        editor.remove_unreachable_of_dhcp(net("2001:db8:8000::/56")).unwrap();
        assert!(!output("-6 route show").contains("8000"));
        assert!(output("-6 route show").contains("2001:db8:f::/48"));
    });
}
