use super::*;
use crate::settings::Interface;
use crate::tools::{Places, check};
use proptest::prelude::*;

fn neighbor(port: &str, address: &str, side: Side) -> Neighbor {
    let address = address.parse().expect("address");
    Neighbor { port: port.to_owned(), address, remote_as: 65002, key: None, side, hops: 1 }
}

fn nets(all: &[&str]) -> Vec<IpNet> {
    all.iter().map(|n| n.parse().expect("network")).collect()
}

fn bgp() -> Settings {
    let mut guarded = neighbor("1", "192.0.2.2", Side::Inside);
    guarded.key = Some(Key::new("s3cr3t"));
    guarded.hops = 3;
    let bgp = Bgp {
        router_id: "192.0.2.1".parse().expect("address"),
        local_as: 65001,
        hold_time: 9,
        keepalive: 3,
        max_prefixes: 500,
        neighbors: vec![
            neighbor("3.100", "198.51.100.129", Side::Outside),
            guarded,
            neighbor("", "2001:db8:9::2", Side::Outside),
        ],
        branch: nets(&["192.0.2.0/26", "2001:db8:1::/64"]),
        beyond: nets(&["10.7.0.0/16"]),
    };
    Settings { bgp: Some(bgp), ..Settings::default() }
}

fn ospf() -> Settings {
    let interface = |port: &str, device: &str| Interface { port: port.to_owned(), device: device.to_owned() };
    let ospf = Ospf {
        router_id: "192.0.2.1".parse().expect("address"),
        area: 86,
        hello: 1,
        dead: 4,
        authentication: Authentication::Md5 { id: 7, key: Key::new("0123456789abcdef") },
        interfaces: vec![interface("1", "lan-a"), interface("4", "lan-b")],
        passive: vec!["lan-c".to_owned()],
        beyond: vec!["10.7.0.0/16".parse().expect("network")],
    };
    Settings { ospf: Some(ospf), bfd: true, ..Settings::default() }
}

fn text(settings: &Settings) -> String {
    render(settings, Forwarding { ipv4: true, ipv6: true }).text()
}

/// The lines between the two, without the blanks in front.
fn part<'a>(all: &'a str, from: &str, to: &str) -> Vec<&'a str> {
    let lines = all.lines().skip_while(|l| l.trim() != from).take_while(|l| l.trim() != to);
    lines.map(str::trim).collect()
}

#[test]
fn bgp_announces_what_is_named_and_nothing_else() {
    let all = text(&bgp());
    assert_eq!(
        part(&all, "address-family ipv4 unicast", "exit-address-family"),
        [
            "address-family ipv4 unicast",
            "network 10.7.0.0/16",
            "network 192.0.2.0/26",
            "neighbor 198.51.100.129 activate",
            "neighbor 198.51.100.129 maximum-prefix 500 restart 1",
            "neighbor 198.51.100.129 route-map sag-outside-in in",
            "neighbor 198.51.100.129 route-map sag-outside-out out",
            "neighbor 192.0.2.2 activate",
            "neighbor 192.0.2.2 maximum-prefix 500 restart 1",
            "neighbor 192.0.2.2 route-map sag-inside-in in",
            "neighbor 192.0.2.2 route-map sag-inside-out out",
        ]
    );
    let six = part(&all, "address-family ipv6 unicast", "exit-address-family");
    assert!(six.contains(&"network 2001:db8:1::/64") && six.contains(&"neighbor 2001:db8:9::2 activate"));
    assert!(!six.iter().any(|l| l.contains("198.51.100.129")), "{six:?}");
    // Every map ends with an entry for the rest, and every entry that announces asks where the route began.
    let outside: Vec<&str> = all.lines().filter(|l| l.starts_with("route-map sag-outside-out")).collect();
    assert_eq!(
        outside,
        [
            "route-map sag-outside-out permit 10",
            "route-map sag-outside-out permit 20",
            "route-map sag-outside-out deny 30"
        ]
    );
    assert_eq!(all.matches(" match as-path sag-own").count(), 5);
    assert!(all.contains("ip prefix-list sag-inside seq 5 permit 192.0.2.0/26 le 32\n"));
    assert!(all.contains("ipv6 prefix-list sag-inside seq 10 permit 2001:db8:1::/64 le 128\n"));
    for line in [
        "router bgp 65001",
        " bgp router-id 192.0.2.1",
        " timers bgp 3 9",
        " neighbor 192.0.2.2 password s3cr3t",
        " neighbor 192.0.2.2 ebgp-multihop 3",
        " no bgp network import-check",
    ] {
        assert!(all.lines().any(|l| l == line), "{line} in {all}");
    }
    assert!(!all.contains("redistribute") && !all.contains("0.0.0.0/0") && !all.contains("bfd"));
}

/// A list that is not there may match everything: none is named.
#[test]
fn a_branch_without_networks_announces_nothing() {
    let mut settings = bgp();
    let all = settings.bgp.as_mut().expect("BGP");
    (all.branch, all.beyond) = (Vec::new(), Vec::new());
    let said = text(&settings);
    assert!(!said.contains("prefix-list") && !said.contains("network 1"), "{said}");
    for map in ["sag-outside-out deny 10", "sag-inside-out deny 10", "sag-outside-in permit 10"] {
        assert!(said.contains(&format!("route-map {map}\n")), "{map} in {said}");
    }
}

/// OSPF begins with the line of the area: what decides how comes before, on ports that do not speak yet, too.
#[test]
fn ospf_by_port() {
    let all = text(&ospf());
    let of = |device: &str| part(&all, &format!("interface {device}"), "exit");
    let common = |bfd: &[&'static str]| {
        let key =
            ["ip ospf authentication message-digest", "ip ospf message-digest-key 7 md5 0123456789abcdef"];
        let timers = ["ip ospf dead-interval 4", "ip ospf hello-interval 1", "ip ospf retransmit-interval 1"];
        [&key[..], bfd, &timers[..]].concat()
    };
    for device in ["lan-a", "lan-b"] {
        assert_eq!(of(device)[1..], [&common(&["ip ospf bfd"])[..], &["ip ospf area 86"]].concat());
    }
    assert_eq!(of("lan-c")[1..], [&common(&[])[..], &["ip ospf passive", "ip ospf area 86"]].concat());
    assert!(all.contains(" redistribute kernel route-map sag-ospf\n"), "{all}");
    assert!(!all.contains("router bgp"));
}

/// FRR does not show defaults in its running configuration, so they would be set again by each reload.
#[test]
fn defaults_are_left_out() {
    let mut settings = ospf();
    let changed = settings.ospf.as_mut().expect("OSPF");
    (changed.hello, changed.dead) = (10, 40);
    settings.bgp = bgp().bgp.map(|b| Bgp { keepalive: 60, hold_time: 180, ..b });
    let all = text(&settings);
    assert!(!all.contains("interval") && !all.contains("timers bgp"), "{all}");
}

#[test]
fn what_the_kernel_does_not_forward_stays_so() {
    let off = render(&ospf(), Forwarding::default()).text();
    assert!(off.contains("no ip forwarding\nno ipv6 forwarding\n"));
    assert!(!text(&ospf()).contains("forwarding"));
}

/// One wrong neighbor, port or key costs itself.
#[test]
fn what_is_wrong_costs_itself() {
    let mut settings = bgp();
    let all = settings.bgp.as_mut().expect("BGP");
    all.neighbors[0].remote_as = 0;
    all.neighbors[1].key = Some(Key::new("two words"));
    all.neighbors.push(neighbor("4", "2001:db8:9::2", Side::Inside));
    all.neighbors.push(neighbor("5", "224.0.0.5", Side::Inside));
    let (good, problems) = checked(&settings);
    assert!(good.bgp.expect("BGP").neighbors.is_empty(), "the two of one address are ambiguous");
    let said: Vec<_> = problems.iter().map(|p| (p.section.as_str(), p.object.as_str())).collect();
    assert_eq!(
        said,
        [
            ("PortProtocols", "BGP neighbor 198.51.100.129 of port 3.100"),
            ("PortProtocols", "BGP neighbor 192.0.2.2 of port 1"),
            ("", "BGP neighbor 2001:db8:9::2 of the device's own file"),
            ("PortProtocols", "BGP neighbor 224.0.0.5 of port 5"),
        ]
    );
    assert!(!problems.iter().any(|p| p.reason.contains("two words")), "keys are not quoted");

    type Change = fn(&mut Ospf);
    let wrong: [(Change, &str); 5] = [
        (
            |o| o.authentication = Authentication::Md5 { id: 1, key: Key::new("0123456789abcdefg") },
            "Md5Key has 17",
        ),
        (|o| o.authentication = Authentication::Password(Key::new("123456789")), "Password has 9"),
        (|o| o.authentication = Authentication::Password(Key::new("")), "Password has 0"),
        (|o| o.dead = 1, "DeadTime 1 must be above HelloTime 1"),
        (|o| o.router_id = "0.0.0.0".parse().expect("address"), "RouterId"),
    ];
    for (change, why) in wrong {
        let mut settings = ospf();
        change(settings.ospf.as_mut().expect("OSPF"));
        let (good, problems) = checked(&settings);
        assert!(good.ospf.is_none() && problems[0].reason.contains(why), "{problems:?}");
        assert_eq!(problems[0].section, "Ospf");
    }
    let mut settings = ospf();
    settings.ospf.as_mut().expect("OSPF").interfaces[1].device = "lan b".to_owned();
    let (good, problems) = checked(&settings);
    assert_eq!(good.ospf.expect("OSPF").interfaces.len(), 1);
    assert_eq!(problems[0].object, "OSPF on port 4");
}

proptest! {
    /// Whatever keys and devices are: what is left makes as many lines as its fields have, and no word more.
    #[test]
    fn no_text_makes_a_line(key in "[ -~\\n\\r\\t]{0,20}", device in "[a-z \\n!?#|]{0,17}") {
        let mut settings = ospf();
        let ospf = settings.ospf.as_mut().expect("OSPF");
        ospf.interfaces[0].device = device.clone();
        ospf.authentication = Authentication::Md5 { id: 1, key: Key::new(key.clone()) };
        let (good, _) = checked(&settings);
        let Some(left) = &good.ospf else { return Ok(()) };
        prop_assert!(!key.contains([' ', '\n', '\r', '\t']));
        let all = text(&good);
        prop_assert_eq!(all.matches("ip ospf area").count(), left.interfaces.len() + left.passive.len());
        for line in all.lines().filter(|l| l.contains(" md5 ")) {
            prop_assert_eq!(line.split_whitespace().count(), 6);
        }
    }
}

/// FRR itself takes every line, where it is installed.
#[test]
fn the_checker_of_frr_takes_it() {
    if !crate::installed().bgp {
        println!("SKIP frr and frr-pythontools are not installed");
        return;
    }
    let dir = tempfile::tempdir().expect("dir");
    let places = Places::new(dir.path());
    let mut both = bgp();
    (both.ospf, both.bfd) = (ospf().ospf, true);
    let mut password = ospf();
    password.ospf.as_mut().expect("OSPF").authentication = Authentication::Password(Key::new("a_b-9"));
    for settings in [bgp(), ospf(), both, password] {
        let refused = check(&places, &render(&settings, Forwarding::default())).expect("checked");
        assert_eq!(refused, Default::default());
    }
    // What it refuses is the neighbor's.
    let mut wrong = Rendered::default();
    wrong.line(Some(&Owner::Bgp), "router bgp 65001");
    let owner = Owner::Neighbor("192.0.2.9".parse().expect("address"));
    wrong.line(Some(&owner), " neighbor 192.0.2.9 remote-as many");
    let refused = check(&places, &wrong).expect("checked");
    assert_eq!(refused.owned.iter().map(|(o, _)| o).collect::<Vec<_>>(), [&owner]);
}

/// FRR takes it, and never connects.
#[test]
fn a_link_local_neighbor_is_refused_by_name() {
    let mut settings = bgp();
    let bgp = settings.bgp.as_mut().expect("BGP");
    bgp.neighbors.push(neighbor("3", "fe80::9", Side::Outside));
    let (good, problems) = checked(&settings);
    assert_eq!(good.bgp.expect("BGP").neighbors.len(), 3);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].reason.contains("fe80::9 is link-local"), "{problems:?}");
    assert_eq!(crate::unusable(&settings), problems, "the agent knows before the service does");
}
