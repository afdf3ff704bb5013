use super::super::tests::{document, run, run_with};
use super::*;
use serde_json::json;

fn bgp(more: serde_json::Value) -> serde_json::Value {
    let mut doc = json!({
        "Gateway": {"CidrBlock": "10.1.0.0/16, 10.2.0.0/16"},
        "RouteProtocol": "BGP",
        "Bgp": {"RouterId": "10.1.0.1", "LocalAs": 4200000000u32, "HoldTime": 9, "KeepAlive": 3},
        "Ecc": {"3": [{"Vlan": 100, "IP": "198.51.100.130", "Mask": "255.255.255.192"}]},
        "PortProtocols": {
            "3.100": {"RouteProtocol": "BGP", "Vlan": 100, "RemoteIp": "198.51.100.129", "RemoteAs": "65002"},
            "1": {"RouteProtocol": "BGP", "RemoteIp": "10.1.0.9", "RemoteAs": "4200000000"}},
    });
    for (k, v) in more.as_object().expect("sections") {
        doc[k] = v.clone();
    }
    doc
}

fn ospf(more: serde_json::Value) -> serde_json::Value {
    let mut doc = json!({
        "RouteProtocol": "OSPF",
        "Ospf": {"RouterId": "10.1.0.1", "AreaId": 86, "HelloTime": 1, "DeadTime": 4, "AuthenticationType": "MD5",
            "Md5KeyId": 7, "Md5Key": "secret"},
        "PortProtocols": {"1": {"RouteProtocol": "OSPF"}},
    });
    for (k, v) in more.as_object().expect("sections") {
        doc[k] = v.clone();
    }
    doc
}

#[test]
fn neighbors_by_port_and_vlan() {
    let (c, _) = run(bgp(json!({}))).expect("compiles");
    assert!(c.deviations.is_empty(), "{:?}", c.deviations);
    let bgp = c.routing.bgp.expect("BGP");
    assert_eq!((bgp.local_as, bgp.hold_time, bgp.keepalive), (4_200_000_000, 9, 3));
    let rows: Vec<_> =
        bgp.neighbors.iter().map(|n| (n.port.as_str(), n.address.to_string(), n.remote_as, n.side)).collect();
    assert_eq!(
        rows,
        [
            ("1", "10.1.0.9".to_owned(), 4_200_000_000, frr::Side::Inside),
            ("3.100", "198.51.100.129".to_owned(), 65002, frr::Side::Outside),
        ]
    );
    let branch: Vec<String> = bgp.branch.iter().map(ToString::to_string).collect();
    assert_eq!(branch, ["10.1.0.0/16", "10.2.0.0/16"]);
    assert!(c.routing.ospf.is_none());
}

#[test]
fn without_a_protocol_nothing_runs() {
    for more in [json!({"RouteProtocol": "STATIC"}), json!({"RouteProtocol": null}), json!({"Bgp": null})] {
        let (c, _) = run(bgp(more)).expect("compiles");
        assert!(c.routing.is_off() && c.deviations.is_empty(), "{:?}", c.deviations);
    }
}

/// What is wrong with one neighbor costs that neighbor, and the rest of the document is in force.
#[test]
fn a_wrong_neighbor_costs_itself() {
    let wrong = [
        (json!({"RouteProtocol": "BGP", "RemoteIp": "x", "RemoteAs": "65002"}), "RemoteIp"),
        (json!({"RouteProtocol": "BGP", "RemoteIp": "10.1.0.9", "RemoteAs": "many"}), "RemoteAs"),
        (json!({"RouteProtocol": "OSPF"}), "the device's protocol is BGP"),
    ];
    for (entry, why) in wrong {
        let mut doc = bgp(json!({}));
        doc["PortProtocols"]["1"] = entry;
        doc["StaticRoutes"] =
            json!([{"PortName": "1", "DestinationCidr": "10.9.0.0/16", "NextHop": "10.1.0.7"}]);
        let (c, config) = run(doc).expect("compiles");
        assert_eq!(c.routing.bgp.expect("BGP").neighbors.len(), 1);
        assert_eq!(config.routes.len(), 1);
        let d = &c.deviations[..];
        assert!(d.len() == 1 && d[0].section == "PortProtocols" && d[0].reason.contains(why), "{d:?}");
    }
    let mut doc = bgp(json!({}));
    doc["PortProtocols"]["5"] = json!({"RouteProtocol": "BGP", "RemoteIp": "10.5.0.9", "RemoteAs": "65002"});
    let (c, _) = run(doc).expect("compiles");
    assert!(c.deviations[0].reason.contains("port 5 is not in force"), "{:?}", c.deviations);
}

#[test]
fn what_cannot_be_meant_is_left_out() {
    for (section, member, value, why) in [
        ("Bgp", "RouterId", json!("x"), "RouterId"),
        ("Bgp", "LocalAs", json!(4_294_967_296i64), "LocalAs"),
        ("Bgp", "HoldTime", json!(65536), "HoldTime"),
    ] {
        let mut doc = bgp(json!({}));
        doc[section][member] = value;
        let (c, _) = run(doc).expect("compiles");
        assert!(c.routing.is_off(), "{member}");
        assert!(
            c.deviations.iter().any(|d| d.section == "Bgp" && d.reason.contains(why)),
            "{:?}",
            c.deviations
        );
    }
    for (member, value, why) in [
        ("AuthenticationType", json!("SHA512"), "unknown to this version"),
        // The field of the packet has eight bits.
        ("Md5KeyId", json!(256), "Md5KeyId 256"),
        ("AreaId", json!(-1), "AreaId"),
    ] {
        let mut doc = ospf(json!({}));
        doc["Ospf"][member] = value;
        let (c, _) = run(doc).expect("compiles");
        assert!(c.routing.is_off(), "{member}: no neighbor is talked to without authentication");
        assert!(
            c.deviations.iter().any(|d| d.section == "Ospf" && d.reason.contains(why)),
            "{:?}",
            c.deviations
        );
    }
    let (c, _) = run(bgp(json!({"RouteProtocol": "RIP"}))).expect("compiles");
    assert!(c.routing.is_off() && c.deviations[0].section == "RouteProtocol", "{:?}", c.deviations);
}

#[test]
fn ospf_on_lan_ports() {
    let (c, _) = run(ospf(json!({}))).expect("compiles");
    let set = c.routing.ospf.expect("OSPF");
    assert_eq!(set.interfaces, [frr::Interface { port: "1".into(), device: "eth1".into() }]);
    assert!(set.passive.is_empty());
    assert_eq!(set.authentication, frr::Authentication::Md5 { id: 7, key: frr::Key::new("secret") });
    let protocols = json!({"3": {"RouteProtocol": "OSPF"}, "0": {"RouteProtocol": "OSPF"}});
    let (c, _) = run(ospf(json!({"PortProtocols": protocols}))).expect("compiles");
    assert_eq!(c.deviations.len(), 2, "leased lines and WAN ports speak no OSPF: {:?}", c.deviations);
    assert_eq!(c.routing.ospf.expect("OSPF").passive, ["eth1"]);
}

/// A strategy of SourceType `local` decides whether a block is announced, also to the neighbors.
#[test]
fn a_block_is_withdrawn_with_its_health_check() {
    let strategy = json!([{"SourceType": "local", "RouteSource": "STATIC", "DestCidrBlock": "10.1.0.0/16",
        "RouteDistribution": "publish_and_revoke_on_health_fail", "HcInstanceId": "hc-1"}]);
    let doc = || bgp(json!({"RouteDistribution": strategy}));
    for (verdict, blocks) in [(Verdict::Unknown, 2), (Verdict::Ok, 2), (Verdict::Failed, 1)] {
        let (c, _) = run_with(doc(), &[("hc-1", verdict)]).expect("compiles");
        assert_eq!(c.routing.bgp.expect("BGP").branch.len(), blocks, "{verdict:?}");
    }
    // Of a network of a LAN port the block that it is in decides.
    let read = crate::desired::read_document(document(doc())).expect("read").0;
    let desired = Desired::from(read);
    let health = BTreeMap::from([("hc-1".to_owned(), Verdict::Failed)]);
    for (net, may) in [("10.1.7.0/24", false), ("10.2.0.0/24", true), ("2001:db8::/64", true)] {
        assert_eq!(announced(&desired, &health, &net.parse().expect("network")), may, "{net}");
    }
}

/// Static routes by LAN ports lead to networks of the branch; those by other ports do not, and a default route stays.
#[test]
fn networks_behind_lan_ports_are_the_branchs() {
    let route =
        |port: &str, to: &str| json!({"PortName": port, "DestinationCidr": to, "NextHop": "10.1.0.7"});
    let routes = json!([route("1", "10.9.0.0/16"), route("0", "10.8.0.0/16"), route("1", "0.0.0.0/0")]);
    let (c, _) = run(bgp(json!({"StaticRoutes": routes, "Gateway": {}}))).expect("compiles");
    assert_eq!(c.routing.bgp.expect("BGP").branch, ["10.9.0.0/16".parse::<IpNet>().expect("network")]);
}

/// Both devices of an instance find the same number of the virtual router, without being told.
#[test]
fn a_virtual_address_of_a_lan_port() {
    let with = |ha: serde_json::Value| run(json!({"Ha": ha})).expect("compiles").0;
    let ha = |port: &str, address: &str| json!({"Mode": "STATIC", "PortName": port, "VirtualIp": address});
    let c = with(ha("1", "10.1.7.6"));
    let v = c.routing.vrrp.as_ref().expect("a virtual address");
    assert_eq!((v.port.as_str(), v.address.to_string(), v.router), ("1", "10.1.7.6".to_owned(), 6));
    assert!(c.routing.is_off() && !c.routing.is_idle() && c.deviations.is_empty(), "{:?}", c.deviations);
    assert_eq!(with(ha("1", "10.1.7.0")).routing.vrrp.map(|v| v.router), Some(255), "0 is no router");
    for (port, address, why) in
        [("0", "10.1.7.6", "LAN port"), ("9", "10.1.7.6", "LAN port"), ("1", "x", "no IPv4")]
    {
        let c = with(ha(port, address));
        assert!(c.routing.vrrp.is_none());
        assert_eq!(c.deviations[0].section, "Ha");
        assert!(c.deviations[0].reason.contains(why), "{:?}", c.deviations);
    }
    for mode in ["NONE", "DYNAMIC"] {
        let c = with(json!({"Mode": mode, "PortName": "1", "VirtualIp": "10.1.7.6"}));
        assert!(c.routing.is_idle() && c.deviations.is_empty());
    }
}
