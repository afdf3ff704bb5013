use super::*;
use proptest::prelude::*;
use sag_southbound::Effect;
use serde_json::json;

const BASE: &str = "[dataplane]\nflows = 65536\n\
    [ha]\nlisten = \"10.255.0.1:7788\"\npeer = \"10.255.0.2:7788\"\nkey_file = \"/etc/sag/ha.key\"\n[bandwidth]\noverhead = 18\n\
    [[port]]\nname = \"x\"\ndevice = \"eth0\"\nrole = \"wan\"\nsnat = true\nsnat_filtering = \"endpoint-independent\"\n\
    [[port]]\nname = \"y\"\ndevice = \"eth1\"\nrole = \"lan\"\nmtu = 1400\n\
    [[acl]]\nid = \"local\"\n[[route]]\ndestination = \"10.9.0.0/16\"\ntype = \"blackhole\"\n";

fn wiring() -> BTreeMap<String, Wiring> {
    [("0", "eth0"), ("1", "eth1"), ("3", "eth3")]
        .map(|(n, d)| (n.to_owned(), Wiring { device: d.into(), role: None }))
        .into_iter()
        .collect()
}

/// A document as the long poll brings it, with these sections on top.
pub(crate) fn document(more: serde_json::Value) -> serde_json::Value {
    let mut doc = json!({
        "Revision": 1, "Gateway": {"Bandwidth": 50, "UpBandwidthWan": "20M"},
        "Ports": [{"PortName": "0", "Role": "WAN"}, {"PortName": "1", "Role": "LAN"},
            {"PortName": "2", "Role": "MGT"}, {"PortName": "3", "Role": "ECC"}],
        "Wan": {"0": {"IPType": "DHCP", "Priority": 10}},
        "Snat": "DISABLE",
    });
    for (k, v) in more.as_object().expect("sections") {
        doc[k] = v.clone();
    }
    doc
}

pub(crate) fn desired(document: serde_json::Value) -> Result<Desired, String> {
    let (document, unreadable) = crate::desired::read_document(document).map_err(|e| e.to_string())?;
    Ok(Desired { unreadable, ..document.into() })
}

/// What becomes of it on a gateway without tunnels.
pub(crate) fn run_desired(desired: &Desired, health: &BTreeMap<String, Verdict>) -> Compiled {
    let base = Base::from_toml(BASE).expect("base");
    compile(desired, &base, &wiring(), health, None).expect("compiles")
}

pub(super) fn run_with(
    more: serde_json::Value,
    health: &[(&str, Verdict)],
) -> Result<(Compiled, sag_model::config::Config), Vec<String>> {
    let desired = desired(document(more)).map_err(|e| vec![e])?;
    let base = Base::from_toml(BASE).expect("base");
    let health = health.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
    let c = compile(&desired, &base, &wiring(), &health, None)?;
    let config = sag_model::config::parse(&c.text, "t").expect("compiled documents are right").config;
    Ok((c, config))
}

pub(crate) fn run(more: serde_json::Value) -> Result<(Compiled, sag_model::config::Config), Vec<String>> {
    run_with(more, &[])
}

#[test]
fn ports_and_the_gateways_own_sections() {
    let (c, config) = run(json!({"Snat": "ENABLE"})).expect("compiles");
    let ports: Vec<_> = config.ports.iter().map(|p| (p.name.as_str(), p.role, p.snat)).collect();
    assert_eq!(ports, [("0", Role::Wan, true), ("1", Role::Lan, false), ("3", Role::Express, false)]);
    assert_eq!(c.dhcp, ["eth0"]);
    for own in [
        "flows = 65536",
        "peer = \"10.255.0.2:7788\"",
        "overhead = 18",
        "snat_filtering = \"endpoint-independent\"",
        "mtu = 1400",
    ] {
        assert!(c.text.contains(own), "{own} in {}", c.text);
    }
    assert!(c.text.contains("ccn = 50") && c.text.contains("internet_up = 20"), "{}", c.text);
    assert!(!c.text.contains("local") && !c.text.contains("blackhole"), "the cloud decides: {}", c.text);
}

#[test]
fn a_leased_line_is_a_port_for_each_vlan() {
    let ecc = json!({"3": [{"Vlan": "100", "IP": "10.1.0.1", "Mask": "255.255.255.252"},
        {"Vlan": "200", "IP": "10.2.0.1", "Mask": "255.255.255.252"}]});
    let routes =
        json!([{"PortName": "3", "Vlan": "200", "DestinationCidr": "10.5.0.0/16", "NextHop": "10.2.0.2"}]);
    let (_, config) = run(json!({"Ecc": ecc, "StaticRoutes": routes})).expect("compiles");
    let names: Vec<_> = config.ports.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["0", "1", "3.100", "3.200"]);
    assert_eq!(config.routes.len(), 1);
}

#[test]
fn addresses_of_ports() {
    let (c, _) = run(json!({
        "Wan": {"0": {"IPType": "STATIC", "IP": "203.0.113.2", "Mask": "255.255.255.0", "Gateway": "203.0.113.1", "Priority": 5}},
        "Lan": {"1": {"IPType": "STATIC", "IP": "10.0.0.1", "Mask": "255.255.255.0"}},
    }))
    .expect("compiles");
    let seen: Vec<_> =
        c.addresses.iter().map(|a| (a.device.as_str(), a.address.to_string(), a.gateway)).collect();
    let gateway = Some(("203.0.113.1".parse().expect("ip"), 5));
    assert_eq!(seen, [("eth0", "203.0.113.2/24".into(), gateway), ("eth1", "10.0.0.1/24".into(), None)]);
    let (c, _) = run(json!({"Wan": {"0": {"IPType": "STATIC", "IP": "203.0.113.2", "Mask": "255.255.255.0", "Gateway": "10.0.0.1"}}}))
        .expect("compiles");
    assert_eq!((c.addresses.len(), c.addresses[0].gateway), (1, None), "an address without a default route");
    deviates(&c, "Wan", "port 0", Effect::Partial, "gateway");
}

#[track_caller]
pub(crate) fn deviates(c: &Compiled, section: &str, object: &str, effect: Effect, why: &str) {
    let it = c.deviations.iter().find(|d| d.object == object && d.section == section);
    let it = it.unwrap_or_else(|| panic!("{object} in {:?}", c.deviations));
    assert!(it.effect == Some(effect) && it.reason.contains(why), "{it:?}");
    assert!(c.notices.contains(&it.to_string()), "{:?}", c.notices);
}

const RULE: &str = r#"{"AcrId": "acr-7", "Direction": "out", "Type": "WAN", "Policy": "drop", "IpProtocol": "TCP",
    "SourceCidr": "10.0.0.0/24", "DestCidr": "0.0.0.0/0", "SourcePortRange": "-1/-1", "DestPortRange": "80/80", "Priority": 1}"#;

#[test]
fn applications_are_left_out_and_unbound_classes_too() {
    let mut rule: serde_json::Value = serde_json::from_str(RULE).expect("json");
    rule["DpiGroupIds"] = json!({"DpiGroupId": ["20"]});
    rule["Policy"] = "accept".into();
    let (c, config) = run(json!({"Acls": [{"AclId": "acl-3", "Rules": [rule]}]})).expect("compiles");
    deviates(&c, "Acls", "rule acr-7 of ACL acl-3", Effect::LeftOut, "DPI");
    assert!(config.acls[0].rules.is_empty());
    let policy = json!({"QosPolicyId": "qospy-1", "Priority": 3, "IpProtocol": "UDP", "SourceCidr": "0.0.0.0/0",
        "DestCidr": "0.0.0.0/0", "SourcePortRange": "-1/-1", "DestPortRange": "-1/-1"});
    let (c, config) =
        run(json!({"Qos": [{"QosId": "qos-1", "Policies": [policy], "Cars": []}]})).expect("compiles");
    assert!(config.qos[0].policies.is_empty() && c.notices[0].contains("qospy-1"), "{:?}", c.notices);
}

#[test]
fn routes_of_the_cloud_depend_on_their_strategies() {
    let routes =
        json!([{"PortName": "3", "Vlan": "0", "DestinationCidr": "10.5.0.0/16", "NextHop": "10.0.0.2"}]);
    let with = |origin: &str, source: &str, mode: &str, verdict| {
        let strategy = json!([{"SourceType": origin, "RouteSource": source, "DestCidrBlock": "10.5.0.0/16",
            "RouteDistribution": mode, "HcInstanceId": "hc-1"}]);
        let (_, config) =
            run_with(json!({"StaticRoutes": routes, "RouteDistribution": strategy}), &[("hc-1", verdict)])
                .expect("compiles");
        !config.routes.is_empty()
    };
    use Verdict::{Failed, Ok, Unknown};
    for (mode, in_force) in [
        ("no_publish_and_publish_on_health_success", [false, true, false]),
        ("no_publish_and_publish_on_health_fail", [false, false, true]),
        ("publish_and_revoke_on_health_success", [true, false, true]),
        ("publish_and_revoke_on_health_fail", [true, true, false]),
        ("publish", [true, true, true]),
        ("no_publish", [false, false, false]),
    ] {
        let by_line = |v| with("cloud", "vbr-1", mode, v);
        assert_eq!([Unknown, Ok, Failed].map(by_line), in_force, "{mode}");
        // What the branch publishes of its own is in force on the branch itself.
        assert_eq!([Unknown, Ok, Failed].map(|v| with("local", "STATIC", mode, v)), [true; 3], "{mode}");
    }
}

#[test]
fn a_wan_port_of_priority_minus_one_does_not_forward() {
    let wan = |priority: i64| {
        json!({"Snat": "ENABLE", "Wan": {"0": {"IPType": "STATIC", "IP": "203.0.113.2", "Mask": "255.255.255.0",
            "Gateway": "203.0.113.1", "Priority": priority}}})
    };
    let (c, config) = run(wan(-1)).expect("compiles");
    assert_eq!((config.ports[0].role, config.ports[0].snat), (Role::Mgmt, false));
    assert_eq!(config.ports[0].priority, Some(-1), "nor do others' default routes by it count");
    assert_eq!(
        (c.addresses.len(), c.addresses[0].gateway),
        (1, None),
        "it has its address and no default route"
    );
    let (c, config) = run(wan(1)).expect("compiles");
    assert_eq!((config.ports[0].role, c.addresses[0].gateway.map(|(_, m)| m)), (Role::Wan, Some(1)));
}

#[test]
fn members_that_are_to_be_apart_have_no_tunnels() {
    let of = |status: &str| {
        let more = json!({"Ccn": {"CcnId": "ccn-1", "InterworkingStatus": status, "HubSmartAGId": "sag-2",
            "Members": [other(2, "10.2.0.0/16", "203.0.113.9")]}});
        desired(document(more)).expect("read").ccn.expect("a network")
    };
    assert_eq!((of("enable").members.len(), of("enable").hub.as_str()), (1, "sag-2"));
    assert_eq!((of("disable").members.len(), of("disable").hub.as_str()), (0, ""));
}

#[test]
fn unknown_words_are_never_taken_for_others() {
    let route = json!([{"PortName": "3", "DestinationCidr": "10.5.0.0/16", "NextHop": "10.0.0.2"}]);
    let strategy = |more: serde_json::Value| {
        let mut rule = json!({"SourceType": "local", "RouteSource": "STATIC", "DestCidrBlock": "10.5.0.0/16",
            "RouteDistribution": "publish", "HcInstanceId": "hc-1"});
        for (k, v) in more.as_object().expect("members") {
            rule[k] = v.clone();
        }
        json!({"StaticRoutes": route, "RouteDistribution": [rule]})
    };
    for (more, section, origin, effect, word) in [
        (
            json!({"Ports": [{"PortName": "0", "Role": "DMZ"}, {"PortName": "1", "Role": "LAN"}]}),
            "Ports",
            "port 0",
            Effect::LeftOut,
            "DMZ",
        ),
        (json!({"Wan": {"0": {"IPType": "SLAAC"}}}), "Wan", "port 0", Effect::Partial, "SLAAC"),
        (json!({"Snat": "SOMETIMES"}), "Snat", "WAN SNAT", Effect::Stricter, "SOMETIMES"),
        (
            json!({"HealthChecks": [{"HcInstanceId": "hc-1", "Type": "TCP_SYN"}]}),
            "HealthChecks",
            "health check hc-1",
            Effect::LeftOut,
            "TCP_SYN",
        ),
        (
            strategy(json!({"RouteDistribution": "at_night"})),
            "RouteDistribution",
            "route distribution of 10.5.0.0/16 from STATIC",
            Effect::Stricter,
            "at_night",
        ),
        (
            strategy(json!({"SourceType": "moon"})),
            "RouteDistribution",
            "route distribution of 10.5.0.0/16 from STATIC",
            Effect::LeftOut,
            "moon",
        ),
    ] {
        let (c, config) = run(more).expect(word);
        deviates(&c, section, origin, effect, word);
        let translated = config.ports.iter().any(|p| p.snat);
        assert_eq!(translated, word == "SOMETIMES", "{word}: {:?}", config.ports);
        assert_eq!(c.dhcp.is_empty(), matches!(word, "DMZ" | "SLAAC"), "{word}");
    }
    let probed = desired(document(json!({"HealthChecks": [{"HcInstanceId": "hc-1", "Type": "TCP_SYN"},
        {"HcInstanceId": "hc-2", "Type": "ICMP_ECHO"}]})));
    let probed: Vec<_> = probed.expect("read").known_checks().into_iter().map(|c| c.id).collect();
    assert_eq!(probed, ["hc-2"]);
    let (c, _) = run(json!({"RouteProtocol": "ISIS", "Ha": {"Mode": "ODD"}})).expect("compiles");
    let text = c.notices.join("\n");
    assert!(text.contains("ISIS") && text.contains("high availability"), "{text}");
}

#[test]
fn what_has_no_effect_is_a_notice() {
    let (c, _) = run(json!({"RemoteAccessIp": "192.0.2.9"})).expect("compiles");
    let text = c.notices.join("\n");
    assert!(text.contains("remote access"), "{text}");
}

#[test]
fn local_roles_win_with_a_notice() {
    let mut wires = wiring();
    wires.insert("0".into(), Wiring { device: "eth0".into(), role: Some(Role::Lan) });
    let desired = desired(document(json!({}))).expect("read");
    let base = Base::from_toml(BASE).expect("base");
    let c = compile(&desired, &base, &wires, &BTreeMap::new(), None).expect("compiles");
    assert_eq!(c.ports[0].2, Role::Lan);
    assert!(c.notices[0].contains("port 0"), "{:?}", c.notices);
    // An agent.toml without ports takes the gateway's own.
    let none = BTreeMap::new();
    let c = compile(&Desired::default(), &base, &none, &BTreeMap::new(), None).expect("compiles");
    assert_eq!(c.ports.iter().map(|p| p.0.as_str()).collect::<Vec<_>>(), ["x", "y"]);
}

/// A gateway in a network with these other members: 203.0.113.2 outside, 10.0.0.1/24 inside, a static route to 10.5.0.0/16.
fn in_network(members: serde_json::Value) -> Result<Compiled, Vec<String>> {
    in_network_with(members, &["eth0", "eth1", "eth3"])
}

/// The same while these devices have a carrier.
fn in_network_with(members: serde_json::Value, running: &[&str]) -> Result<Compiled, Vec<String>> {
    let more = json!({
        "Gateway": {"CidrBlock": "10.0.0.0/24, 10.7.0.0/16"},
        "Wan": {"0": {"IPType": "STATIC", "IP": "203.0.113.2", "Mask": "255.255.255.0", "Gateway": "203.0.113.1"}},
        "Lan": {"1": {"IPType": "STATIC", "IP": "10.0.0.1", "Mask": "255.255.255.0"}},
        "StaticRoutes": [{"PortName": "3", "DestinationCidr": "10.5.0.0/16", "NextHop": "10.9.0.2"}],
        "Ccn": {"CcnId": "ccn-1", "Members": members},
    });
    let running = running.iter().map(|d| (*d).to_owned()).collect();
    let end =
        LocalEndpoint { gateway: "sag-1".into(), sn: "sn1".into(), running, ..LocalEndpoint::default() };
    let base = Base::from_toml(BASE).expect("base");
    let desired = desired(document(more)).map_err(|e| vec![e])?;
    compile(&desired, &base, &wiring(), &BTreeMap::new(), Some(&end))
}

fn other(n: u8, block: &str, address: &str) -> serde_json::Value {
    json!({"SmartAGId": format!("sag-{n}"), "CidrBlocks": [block], "Devices": [
        {"SmartAGSn": format!("sn{n}"), "Address": address, "Epoch": 7, "PublicKey": "09".repeat(32)}]})
}

fn overlay_of(c: &Compiled) -> (Vec<String>, Vec<String>) {
    let config = sag_model::config::parse(&c.text, "t").expect("compiled documents are right").config;
    let routes =
        config.routes.iter().filter(|r| matches!(r.target, sag_model::config::RouteTarget::Tunnel(_)));
    let tunnels = config.tunnels.iter().map(|t| t.name.clone());
    (tunnels.collect(), routes.map(|r| r.destination.to_string()).collect())
}

/// The leased line leads to 10.5.0.0/16. A tunnel to the same network waits behind it; one to a part of it or to more than it
/// is used when the line has no carrier.
#[test]
fn the_overlay_backs_up_a_leased_line() {
    let ways = |block: &str, running: &[&str]| {
        let c = in_network_with(json!([other(3, block, "203.0.113.3")]), running).expect("compiles");
        let config = sag_model::config::parse(&c.text, "t").expect("right").config;
        let by = |r: &sag_model::config::Route| match r.target {
            sag_model::config::RouteTarget::Tunnel(_) => {
                format!("{} by the overlay, {}", r.destination, r.metric)
            }
            _ => format!("{} by the line, {}", r.destination, r.metric),
        };
        config.routes.iter().map(by).collect::<Vec<_>>()
    };
    let (up, down) = (["eth0", "eth1", "eth3"], ["eth0", "eth1"]);
    let line = "10.5.0.0/16 by the line, 0";
    assert_eq!(ways("10.5.0.0/16", &up), [line, "10.5.0.0/16 by the overlay, 1000"]);
    // Without carrier the gateway itself prefers the other one.
    assert_eq!(ways("10.5.0.0/16", &down), [line, "10.5.0.0/16 by the overlay, 0"]);
    assert_eq!(ways("10.5.1.0/24", &up), [line]);
    assert_eq!(ways("10.5.1.0/24", &down), [line, "10.5.1.0/24 by the overlay, 0"]);
    assert_eq!(ways("10.4.0.0/15", &up), [line]);
    assert_eq!(ways("10.4.0.0/15", &down), ["10.4.0.0/15 by the overlay, 0"]);
}

/// The machine itself uses the tunnels, from an address that the other members accept.
#[test]
fn tunnels_have_a_device_with_an_address_of_the_branch() {
    let c = in_network(json!([other(3, "10.3.0.0/16", "203.0.113.3")])).expect("compiles");
    let of = |text: &str| sag_model::config::parse(text, "t").expect("right").config.tunnels[0].clone();
    let t = of(&c.text);
    let addresses: Vec<String> = t.addresses.iter().map(ToString::to_string).collect();
    assert_eq!((t.device.as_deref(), addresses), (Some("ccn-sn3"), vec!["10.0.0.1/32".to_owned()]));
    assert_eq!(c.tunnels[0].device, "ccn-sn3");
    // An address that is outside of the gateway's blocks, and one that the document gives to the port itself.
    let with = |lan: &str, base: &str| {
        let more = json!({
            "Gateway": {"CidrBlock": "10.0.0.0/24"},
            "Wan": {"0": {"IPType": "STATIC", "IP": "203.0.113.2", "Mask": "255.255.255.0"}},
            "Lan": {"1": {"IPType": "STATIC", "IP": lan, "Mask": "255.255.255.0"}},
            "Ccn": {"CcnId": "ccn-1", "Members": [other(3, "10.3.0.0/16", "203.0.113.3")]},
        });
        let present = vec![("eth1".to_owned(), "10.0.0.7/24".parse().expect("a network"))];
        let end = LocalEndpoint { gateway: "sag-1".into(), addresses: present, ..LocalEndpoint::default() };
        let desired = desired(document(more)).expect("read");
        let base = Base::from_toml(base).expect("base");
        let c = compile(&desired, &base, &wiring(), &BTreeMap::new(), Some(&end)).expect("compiles");
        of(&c.text).addresses.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(with("10.0.0.1", BASE), ["10.0.0.1/32"]);
    assert_eq!(with("10.9.0.1", BASE), ["10.0.0.7/32"], "one that the port has besides");
    let given = BASE.replace("mtu = 1400", "addresses = [\"10.0.0.1/24\", \"10.0.0.7/24\"]");
    assert_eq!(with("10.0.0.1", &given), Vec::<String>::new());
}

/// Whatever another member announces, the rest of the configuration is in force, and the other members' tunnels.
#[test]
fn a_hostile_member_cannot_have_the_configuration_refused() {
    let good = || other(4, "10.4.0.0/16", "203.0.113.4");
    for (bad, why) in [
        (other(3, "10.3.0.0/16", "127.0.0.1"), "loopback"),
        (other(3, "10.3.0.0/16", "203.0.113.2"), "one of this gateway"),
        (other(3, "10.3.0.0/16", "10.0.0.9"), "inside of the network of port 1"),
        (other(3, "10.3.0.0/16", "203.0.113.4\n"), ""),
        (other(3, "0.0.0.0/0", "203.0.113.3"), "default route"),
        (other(3, "10.0.0.128/25", "203.0.113.3"), "the network of port 1 10.0.0.0/24"),
        (other(3, "10.7.1.0/24", "203.0.113.3"), "own block 10.7.0.0/16"),
        (other(3, "10.5.1.0/24", "203.0.113.3"), "the static route by port 3 to 10.5.0.0/16"),
        (other(3, "10.4.1.0/24", "203.0.113.3"), ""),
    ] {
        for members in [json!([bad, good()]), json!([good(), bad])] {
            let c = in_network(members).unwrap_or_else(|e| panic!("{why}: {e:?}"));
            let (tunnels, routes) = overlay_of(&c);
            assert!(tunnels.len() + routes.len() >= 2 && c.text.contains("10.5.0.0/16"), "{why}: {}", c.text);
            assert!(tunnels.iter().all(|t| t == "ccn-sn4" || t == "ccn-sn3"), "{tunnels:?}");
            assert!(!c.refused.is_empty() && c.notices.contains(&c.refused[0]), "{why}: {:?}", c.notices);
            assert!(c.refused.iter().any(|r| r.contains(why)), "{why}: {:?}", c.refused);
            if !why.is_empty() {
                assert!(
                    tunnels.contains(&"ccn-sn4".to_owned()) && routes.contains(&"10.4.0.0/16".to_owned())
                );
            }
        }
    }
}

/// What only the gateway's own rules refuse is left out as well: here a tunnel with the name of a port.
#[test]
fn what_the_gateways_rules_refuse_of_a_member_is_left_out() {
    let wires = [("0", "eth0"), ("1", "eth1"), ("3", "eth3"), ("ccn-sn3", "eth4")]
        .map(|(n, d)| (n.to_owned(), Wiring { device: d.into(), role: None }));
    let more = json!({
        "Ports": [{"PortName": "0", "Role": "WAN"}, {"PortName": "ccn-sn3", "Role": "LAN"}],
        "Wan": {"0": {"IPType": "STATIC", "IP": "203.0.113.2", "Mask": "255.255.255.0", "Gateway": "203.0.113.1"}},
        "Ccn": {"CcnId": "ccn-1", "Members": [other(3, "10.3.0.0/16", "203.0.113.3"), other(4, "10.4.0.0/16", "203.0.113.4")]},
    });
    let end = LocalEndpoint { gateway: "sag-1".into(), sn: "sn1".into(), ..LocalEndpoint::default() };
    let base = Base::from_toml(BASE).expect("base");
    let desired = desired(document(more)).expect("read");
    let c = compile(&desired, &base, &wires.into_iter().collect(), &BTreeMap::new(), Some(&end))
        .expect("compiles");
    assert_eq!(overlay_of(&c), (vec!["ccn-sn4".to_owned()], vec!["10.4.0.0/16".to_owned()]));
    assert!(c.refused[0].contains("device sn3") && c.refused[0].contains("name"), "{:?}", c.refused);
}

fn odd_text() -> impl Strategy<Value = String> {
    prop_oneof!["[0-9./]{0,18}", "(any|TCP|udp|-1/-1|80/80|0.0.0.0/0|10.0.0.0/8)", "[\\x00-\\x7f\"']{0,8}"]
}

proptest! {
    /// Whatever the cloud says is compiled into a right document; nothing panics, and no text of the cloud becomes anything
    /// but a value.
    #[test]
    fn hostile_documents(t in prop::collection::vec(odd_text(), 12), n in any::<i64>()) {
        let doc = json!({
            "Acls": [{"AclId": t[0], "Rules": [{"AcrId": t[1], "Direction": "out", "Policy": "drop", "IpProtocol": t[2],
                "SourceCidr": t[3], "DestCidr": t[4], "SourcePortRange": t[5], "DestPortRange": t[6], "Priority": n}]}],
            "DnatEntries": [{"DnatEntryId": t[7], "Type": "Internet", "IpProtocol": t[2], "ExternalPort": t[8],
                "InternalIp": t[9], "InternalPort": t[8]}],
            "StaticRoutes": [{"PortName": "3", "Vlan": t[10], "DestinationCidr": t[3], "NextHop": t[9]}],
            "Lan": {"1": {"IPType": "STATIC", "IP": t[9], "Mask": t[11]}},
        });
        let (c, config) = run(doc).expect("compiles");
        prop_assert_eq!(config.ports.len(), 3);
        prop_assert!(config.acls.len() == 1 && config.dnat.len() <= 1 && config.tunnels.is_empty());
        prop_assert!(!config.acls[0].rules.is_empty(), "what would refuse is in force: {}", c.text);
    }

    /// Whatever a member announces: the document is right without it.
    #[test]
    fn hostile_members(t in prop::collection::vec(odd_text(), 6), sn in ".{0,70}", n in any::<u64>()) {
        let bad = json!({"SmartAGId": t[0], "CidrBlocks": [t[1], t[2]], "Devices": [
            {"SmartAGSn": sn, "Address": t[3], "Epoch": n, "PublicKey": t[4], "Identity": t[5], "Signature": t[4]},
            {"SmartAGSn": sn, "Address": "203.0.113.9", "Epoch": n, "PublicKey": "09".repeat(32)}]});
        let c = in_network(json!([bad, other(4, "10.4.0.0/16", "203.0.113.4")])).expect("compiles");
        prop_assert!(overlay_of(&c).0.contains(&"ccn-sn4".to_owned()));
        prop_assert!(c.notices.iter().all(|n| !n.contains('\n')));
    }

    /// The same wish gives the same document.
    #[test]
    fn stable(up in 0i64..1000) {
        let one = run(json!({"Gateway": {"UpBandwidthWan": up}})).expect("compiles").0;
        let two = run(json!({"Gateway": {"UpBandwidthWan": up}})).expect("compiles").0;
        prop_assert_eq!(one, two);
    }
}

mod isolation;
mod wans;
