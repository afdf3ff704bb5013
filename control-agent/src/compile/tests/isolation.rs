//! One bad object harms no other.

use super::*;
use ipnet::IpNet;
use sag_model::config::{NetworkMatch, PortRange};

/// One bad object of each kind, each beside a good one.
#[test]
fn a_bad_object_costs_itself_alone() {
    let rule = |more: serde_json::Value| {
        let mut rule: serde_json::Value = serde_json::from_str(RULE).expect("json");
        for (k, v) in more.as_object().expect("members") {
            rule[k] = v.clone();
        }
        rule
    };
    let route =
        |port: &str, to: &str| json!({"PortName": port, "DestinationCidr": to, "NextHop": "10.9.0.2"});
    let car = |id: &str, priority: i64, min: i64, max: i64| {
        json!({"QosCarId": id, "Priority": priority, "LimitType": "Absolute", "MinBandwidthAbs": min,
            "MaxBandwidthAbs": max})
    };
    let policy = |id: &str, protocol: &str| {
        json!({"QosPolicyId": id, "Priority": 1, "IpProtocol": protocol, "SourceCidr": "0.0.0.0/0",
            "DestCidr": "0.0.0.0/0"})
    };
    let (c, config) = run(json!({
        "Acls": [{"AclId": "acl-3", "Rules": [rule(json!({})),
            rule(json!({"AcrId": "acr-8", "DestPortRange": "443/80", "Policy": "accept"})),
            rule(json!({"AcrId": "acr-9", "DestPortRange": "443/80", "IpProtocol": "udp"}))]}],
        "SnatEntries": [{"InstanceId": "snat-8", "CidrBlock": "10.0.0.0/33", "SnatIp": "1.2.3.4"},
            {"InstanceId": "snat-9", "CidrBlock": "10.0.0.0/24", "SnatIp": "1.2.3.4"}],
        "DnatEntries": [
            {"DnatEntryId": "dnat-1", "Type": "Internet", "IpProtocol": "tcp", "ExternalPort": "80",
                "InternalIp": "10.0.0.8", "InternalPort": "80"},
            {"DnatEntryId": "dnat-2", "Type": "Internet", "IpProtocol": "tcp", "ExternalPort": "80",
                "InternalIp": "10.0.0.9", "InternalPort": "80"}],
        "StaticRoutes": [route("5", "10.5.0.0/16"), route("3", "10.6.0.0/16"), route("3", "224.0.0.0/8")],
        "Qos": [{"QosId": "qos-1", "Cars": [car("car-1", 1, 1, 5), car("car-2", 2, 9, 3), car("car-1", 3, 1, 2)],
            "Policies": [policy("qospy-1", "tcp"), policy("qospy-2", "tc p")]}],
        "Ecc": {"3": [{"Vlan": 0, "IP": "10.9.0.1", "Mask": "255.255.255.0"},
            {"Vlan": 5000, "IP": "10.8.0.1", "Mask": "255.255.255.0"}]},
    }))
    .expect("compiles");
    let ports: Vec<_> = config.ports.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(ports, ["0", "1", "3"]);
    assert_eq!(config.routes.iter().map(|r| r.destination.to_string()).collect::<Vec<_>>(), ["10.6.0.0/16"]);
    assert_eq!((config.snat[0].id.as_str(), config.dnat[0].id.as_str()), ("snat-9", "dnat-1"));
    assert_eq!((config.snat.len(), config.dnat.len(), config.qos[0].cars.len()), (1, 1, 1));
    assert_eq!(config.qos[0].policies.len(), 1);
    assert_eq!(config.acls[0].rules.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["acr-7", "acr-9"]);
    assert!(
        config.acls[0].rules[1].tuple.dest_ports.ranges() == [PortRange::ANY],
        "what refuses is understood as widely as possible"
    );
    for (section, object, effect, why) in [
        ("Acls", "rule acr-8 of ACL acl-3", Effect::LeftOut, "dest_port_range"),
        ("Acls", "rule acr-9 of ACL acl-3", Effect::Stricter, "dest_port_range"),
        ("SnatEntries", "SNAT entry snat-8", Effect::LeftOut, "cidr_block"),
        ("DnatEntries", "DNAT entry dnat-2", Effect::LeftOut, "forward the same"),
        ("StaticRoutes", "static route 10.5.0.0/16 by port 5", Effect::LeftOut, "agent.toml"),
        ("StaticRoutes", "static route 224.0.0.0/8 by port 3", Effect::LeftOut, "multicast"),
        ("Qos", "CAR car-2 of QoS qos-1", Effect::LeftOut, "below"),
        ("Qos", "CAR car-1 of QoS qos-1", Effect::LeftOut, "already"),
        ("Qos", "policy qospy-2 of QoS qos-1", Effect::LeftOut, "ip_protocol"),
        ("Ecc", "port 3.5000", Effect::LeftOut, "vlan"),
    ] {
        deviates(&c, section, object, effect, why);
    }
    assert_eq!(c.deviations.len(), 10, "{:?}", c.deviations);
}

/// What a rule refuses is refused, whatever of it is not understood.
#[test]
fn rules_that_refuse_become_stricter() {
    use sag_model::config::{AclType, Direction, Policy};
    let with = |more: serde_json::Value| {
        let mut rule: serde_json::Value = serde_json::from_str(RULE).expect("json");
        for (k, v) in more.as_object().expect("members") {
            rule[k] = v.clone();
        }
        let (c, config) = run(json!({"Acls": [{"AclId": "acl-3", "Rules": [rule]}]})).expect("compiles");
        deviates(&c, "Acls", "rule acr-7 of ACL acl-3", Effect::Stricter, "");
        let rules = config.acls[0].rules.clone();
        assert!(rules.iter().all(|r| r.policy == Policy::Drop), "{rules:?}");
        rules
    };
    let length = |nets: &NetworkMatch| nets.networks().iter().map(IpNet::prefix_len).max().unwrap();
    let any = |rule: &sag_model::config::AclRule| (length(&rule.tuple.source), length(&rule.tuple.dest));
    let rules = with(json!({"DpiSignatureIds": ["1"]}));
    assert_eq!(
        (rules.len(), rules[0].tuple.dest_ports.to_string().as_str()),
        (1, "80/80"),
        "every application"
    );
    assert_eq!(with(json!({"Policy": "redirect"})).len(), 1);
    let rules = with(json!({"Direction": "sideways", "Type": "DMZ"}));
    let kinds: Vec<_> = rules.iter().map(|r| (r.direction, r.kind)).collect();
    assert_eq!(
        kinds,
        [
            (Direction::In, AclType::Lan),
            (Direction::In, AclType::Wan),
            (Direction::Out, AclType::Lan),
            (Direction::Out, AclType::Wan)
        ]
    );
    let rules = with(json!({"SourceCidr": "10.0.0.0/24,10.1.0.0/24"}));
    assert_eq!((rules.len(), any(&rules[0])), (1, (0, 0)));
    let rules = with(json!({"DestCidr": "2001:db8::/33x", "SourceCidr": "2001:db8::/32"}));
    assert_eq!((rules[0].tuple.source.to_string().as_str(), any(&rules[0]).1), ("2001:db8::/32", 0));
    let rules = with(json!({"DestCidr": "?", "SourceCidr": "?"}));
    assert_eq!(rules.iter().map(|r| r.tuple.dest.to_string()).collect::<Vec<_>>(), ["0.0.0.0/0", "::/0"]);
    let rules = with(json!({"IpProtocol": "quic"}));
    assert!(
        rules[0].tuple.protocol.is_none() && rules[0].tuple.dest_ports.ranges() == [PortRange::ANY],
        "{rules:?}"
    );
    assert_eq!(with(json!({"Priority": 1000}))[0].priority, 1, "before all others");
    // Two rules of one identifier are both in force.
    let rule: serde_json::Value = serde_json::from_str(RULE).expect("json");
    let (_, config) = run(json!({"Acls": [{"AclId": "acl-3", "Rules": [rule, rule]}]})).expect("compiles");
    assert_eq!(config.acls[0].rules.len(), 2);
}

#[test]
fn floors_that_do_not_fit_are_no_floors() {
    let car = |n: i64, min: i64| {
        json!({"QosCarId": format!("car-{n}"), "Priority": n, "LimitType": "Absolute", "MinBandwidthAbs": min,
            "MaxBandwidthAbs": 100})
    };
    let qos = json!([{"QosId": "qos-1", "Cars": [car(2, 40), car(1, 40), car(3, 10)]}]);
    let floors = |more: serde_json::Value| {
        let mut all = json!({"Qos": qos});
        for (k, v) in more.as_object().expect("members") {
            all[k] = v.clone();
        }
        let (c, config) = run(all).expect("compiles");
        let of = |car: &sag_model::config::QosCar| car.limit.hundredths(&config.bandwidth).0 / 100;
        (config.qos[0].cars.iter().map(of).collect::<Vec<_>>(), c)
    };
    let wan = json!({"0": {"IPType": "DHCP", "Bandwidth": 50}});
    let (floors_of, c) = floors(json!({"Wan": wan}));
    assert_eq!(floors_of, [0, 40, 10], "the one of the least priority that does not fit");
    deviates(&c, "Qos", "CAR car-2 of QoS qos-1", Effect::Partial, "90 Mbit/s");
    // The Internet is not bounded: floors beyond the overlay's bandwidth may be meant for it.
    let (floors_of, c) = floors(json!({"Gateway": {"Bandwidth": 50, "UpBandwidthWan": 0}}));
    assert!(floors_of == [40, 40, 10] && c.deviations.is_empty(), "{:?}", c.deviations);
    assert!(c.notices.iter().any(|n| n.contains("bandwidth.ccn = 50")), "{:?}", c.notices);
}

/// For each section: the object that is right, and those that are not, none of which may harm it.
fn kinds() -> Vec<(&'static str, serde_json::Value, Vec<serde_json::Value>)> {
    let rule = |more: serde_json::Value| {
        let mut rule = json!({"AcrId": "acr-good", "Direction": "out", "Type": "LAN", "Policy": "accept",
            "IpProtocol": "TCP", "SourceCidr": "10.0.0.0/24", "DestCidr": "10.1.0.0/24", "Priority": 1});
        for (k, v) in more.as_object().expect("members") {
            rule[k] = v.clone();
        }
        rule
    };
    let snat = |id: &str, block: &str, ip: &str| json!({"InstanceId": id, "CidrBlock": block, "SnatIp": ip});
    let dnat = |id: &str, kind: &str, port: &str, to: &str| {
        json!({"DnatEntryId": id, "Type": kind, "IpProtocol": "tcp", "ExternalPort": port, "InternalIp": to,
            "InternalPort": "80"})
    };
    let route = |port: &str, vlan: i64, to: &str, hop: &str| json!({"PortName": port, "Vlan": vlan, "DestinationCidr": to, "NextHop": hop});
    let bad_rules = vec![
        json!(7),
        rule(json!({"AcrId": "acr-1", "DpiGroupIds": ["20"]})),
        rule(json!({"AcrId": "acr-2", "SourceCidr": "10.0.0.0/33"})),
        rule(json!({"AcrId": "acr-3", "Policy": "drop", "DestCidr": "::/129"})),
        rule(json!({"AcrId": "acr-4", "Policy": "drop", "IpProtocol": "quic", "DestPortRange": "9/1"})),
        rule(json!({"AcrId": "acr-5", "Policy": "drop", "Direction": "up", "Priority": "high"})),
        rule(json!({"AcrId": "acr 6", "Policy": "deny", "Type": "DMZ"})),
        rule(json!({"AcrId": "acr-7", "Policy": "drop", "Priority": -4})),
    ];
    vec![
        ("Acls", rule(json!({})), bad_rules),
        (
            "SnatEntries",
            snat("snat-good", "10.0.0.0/24", "192.0.2.1"),
            vec![
                json!("x"),
                snat("snat-1", "2001:db8::/64", "192.0.2.2"),
                snat("snat 2", "10.0.1.0/24", "192.0.2.2"),
                snat("snat-3", "10.0.2.0/24", "2001:db8::1"),
            ],
        ),
        (
            "DnatEntries",
            dnat("dnat-good", "Internet", "80", "10.0.0.8"),
            vec![
                json!([]),
                dnat("dnat-1", "Intranet", "81", "10.0.0.8"),
                dnat("dnat-2", "Moon", "82", "10.0.0.8"),
                dnat("dnat-3", "Internet", "0", "10.0.0.8"),
                dnat("dnat-4", "Internet", "84", "nowhere"),
            ],
        ),
        (
            "StaticRoutes",
            route("3", 0, "10.6.0.0/16", "10.9.0.2"),
            vec![
                json!(null),
                route("5", 0, "10.5.0.0/16", "10.9.0.2"),
                route("3", 77, "10.5.0.0/16", "10.9.0.2"),
                route("3", 0, "224.0.0.0/4", "10.9.0.2"),
                route("3", 0, "10.7.0.0/16", "2001:db8::1"),
                route("3", 0, "10.8.0.0/40", "10.9.0.2"),
                route("1", -1, "", ""),
            ],
        ),
    ]
}

proptest! {
    /// Whatever is wrong beside them, wherever it stands: the good objects are in force.
    #[test]
    fn good_objects_are_always_in_force(chosen in prop::collection::vec(any::<u64>(), 8)) {
        let mut sections = json!({
            "Lan": {"1": {"IPType": if chosen[5] & 1 > 0 { json!("SLAAC") } else { json!(["x"]) }, "IP": "10.0.0.256"}},
            "Ports": [{"PortName": "0", "Role": "WAN"}, {"PortName": "1", "Role": "LAN"},
                {"PortName": "3", "Role": "ECC"}, {"PortName": "7", "Role": "DMZ"}, 9],
            "Snat": if chosen[6] & 1 > 0 { json!({"a": 1}) } else { json!("SOMETIMES") },
            "HealthChecks": [{"HcInstanceId": "hc-1", "Type": "SMOKE"}],
            "RouteDistribution": [{"SourceType": "moon"}, {"RouteDistribution": "at_night"}],
        });
        let car = |id: &str, priority: u64, min: u64, max: u64| json!({"QosCarId": id, "Priority": priority,
            "LimitType": "Absolute", "MinBandwidthAbs": min, "MaxBandwidthAbs": max});
        let policy = |id: &str, from: &str| json!({"QosPolicyId": id, "Priority": 1, "IpProtocol": "UDP",
            "SourceCidr": from, "DestCidr": "0.0.0.0/0"});
        let odd = chosen[4];
        sections["Qos"] = json!([{"QosId": if odd & 1 > 0 { "qos 1" } else { "qos-1" },
            "Cars": [car("car-2", 2, 9, odd % 9), car("car-good", 1, 1, 5), car("car-3", 3, odd % 2000, 2000),
                car("car-4", odd % 99, 1, 2)],
            "Policies": [policy("p-1", "10.0.0.0/99"), policy("p-good", "10.0.0.0/8"), policy("p-good", "::/0"), 4]}]);
        for ((section, good, bad), n) in kinds().into_iter().zip(&chosen) {
            let mut rows: Vec<_> = bad.into_iter().enumerate().filter(|(i, _)| n >> i & 1 > 0).map(|(_, b)| b).collect();
            rows.insert((n >> 40) as usize % (rows.len() + 1), good);
            sections[section] = match section {
                "Acls" => json!([{"AclId": "acl-1", "Rules": rows}]),
                _ => json!(rows),
            };
        }
        let (c, config) = run(sections).expect("compiles");
        let rules = &config.acls[0].rules;
        prop_assert!(rules.iter().any(|r| r.id == "acr-good"), "{}", c.text);
        prop_assert!(config.snat.iter().any(|s| s.id == "snat-good"), "{}", c.text);
        prop_assert!(config.dnat.iter().any(|d| d.id == "dnat-good"), "{}", c.text);
        prop_assert!(config.routes.iter().any(|r| r.destination.to_string() == "10.6.0.0/16"), "{}", c.text);
        let qos = &config.qos[0];
        prop_assert!(qos.cars.iter().any(|c| c.id == "car-good") && qos.policies.iter().any(|p| p.id == "p-good"));
        // Each drop rule that was chosen refuses something.
        let refusing = rules.iter().filter(|r| r.policy == sag_model::config::Policy::Drop).count();
        let chosen_drops = [0, 3, 4, 5, 6, 7].into_iter().filter(|i| chosen[0] >> i & 1 > 0).count();
        prop_assert!(refusing >= chosen_drops, "{}", c.text);
        prop_assert!(config.ports.len() == 3 && config.ports[0].snat);
    }
}
