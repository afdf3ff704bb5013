//! Several WAN ports.

use super::*;

/// Two WAN ports, and a third one.
fn several_wans(priorities: [i64; 3]) -> (serde_json::Value, BTreeMap<String, Wiring>) {
    let wires = [("0", "eth0"), ("1", "eth1"), ("4", "eth4"), ("10", "eth10")]
        .map(|(n, d)| (n.to_owned(), Wiring { device: d.into(), role: None }));
    let wan = |n: u8, priority: i64| {
        json!({"IPType": "STATIC", "IP": format!("203.0.{n}.2"), "Mask": "255.255.255.0",
            "Gateway": format!("203.0.{n}.1"), "Priority": priority})
    };
    let more = json!({
        "Ports": [{"PortName": "0", "Role": "WAN"}, {"PortName": "1", "Role": "LAN"},
            {"PortName": "4", "Role": "WAN"}, {"PortName": "10", "Role": "WAN"}],
        "Wan": {"0": wan(0, priorities[0]), "4": wan(4, priorities[1]), "10": wan(10, priorities[2])},
        "Ccn": {"CcnId": "ccn-1", "Members": []},
    });
    (more, wires.into_iter().collect())
}

#[test]
fn wan_ports_of_one_priority_have_an_order() {
    let base = Base::from_toml(BASE).expect("base");
    for (priorities, metrics) in [
        ([10, 10, 10], [("0", 10), ("4", 11), ("10", 12)]),
        ([10, 10, 11], [("0", 10), ("4", 11), ("10", 12)]),
        ([20, 10, 10], [("4", 10), ("10", 11), ("0", 20)]),
        ([3, 2, 1], [("10", 1), ("4", 2), ("0", 3)]),
    ] {
        let (more, wires) = several_wans(priorities);
        let desired = desired(document(more)).expect("read");
        let c = compile(&desired, &base, &wires, &BTreeMap::new(), None).expect("compiles");
        let mut seen: Vec<_> =
            c.addresses.iter().filter_map(|a| Some((a.port.as_str(), a.gateway?.1))).collect();
        seen.sort_by_key(|(_, metric)| *metric);
        assert_eq!(seen, metrics, "{priorities:?}");
        // The gateway shares by what the cloud says.
        let config = sag_model::config::parse(&c.text, "t").expect("right").config;
        let given: Vec<_> = ["0", "4", "10"]
            .iter()
            .map(|n| config.ports.iter().find(|p| p.name == *n).unwrap().priority)
            .collect();
        assert_eq!(given, priorities.map(Some));
    }
}

#[test]
fn weights_and_failed_checks_of_several_wans() {
    use Verdict::{Failed, Ok, Unknown};
    let base = Base::from_toml(BASE).expect("base").having(
        vec![("eth10".into(), "203.0.99.2/24".parse().unwrap())],
        vec![("eth4".into(), "2001:db8:4::2".parse().unwrap())],
    );
    let (mut more, wires) = several_wans([10, 10, 10]);
    more["Wan"]["0"]["Weight"] = 25.into();
    more["Wan"]["10"] = json!({"IPType": "DHCP"});
    let check = |id: &str, src: &str| json!({"HcInstanceId": id, "Type": "ICMP_ECHO", "SrcIpAddr": src, "DstIpAddr": "9.9.9.9"});
    more["HealthChecks"] = json!([
        check("a", "203.0.0.2"),
        check("b", "203.0.0.2"),
        check("c", "203.0.99.2"),
        check("d", "10.0.0.1"),
        check("e", "2001:db8:4::2")
    ]);
    let desired = desired(document(more)).expect("read");
    let run = |verdicts: &[(&str, Verdict)]| {
        let health = verdicts.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let c = compile(&desired, &base, &wires, &health, None).expect("compiles");
        let config = sag_model::config::parse(&c.text, "t").expect("right").config;
        let ports: Vec<_> =
            config.ports.iter().filter(|p| p.role == Role::Wan).map(|p| (p.weight, p.failed)).collect();
        assert_eq!(c.failed.is_empty(), !ports.iter().any(|p| p.1));
        let first = c.addresses.iter().find(|a| a.port == "0").and_then(|a| a.gateway);
        (ports, first.map(|(_, metric)| metric))
    };
    // Of the ports 0, 10 and 4.
    let weights = |failed: [bool; 3]| [25, 100, 100].into_iter().zip(failed).collect::<Vec<_>>();
    assert_eq!(run(&[]), (weights([false; 3]), Some(10)));
    assert_eq!(
        run(&[("a", Failed), ("b", Ok), ("c", Unknown), ("d", Failed)]),
        (weights([false; 3]), Some(10)),
        "one passes"
    );
    // The machine's own connections go by another line, too.
    assert_eq!(
        run(&[("a", Failed), ("b", Failed), ("c", Ok)]),
        (weights([true, false, false]), Some((1 << 20) + 10))
    );
    assert_eq!(run(&[("c", Failed)]), (weights([false, true, false]), Some(10)), "from an address by DHCP");
    assert_eq!(run(&[("e", Failed)]), (weights([false, false, true]), Some(10)), "of IPv6");
}

#[test]
fn a_single_wan_is_used_whatever_its_check_says() {
    let check = json!([{"HcInstanceId": "a", "Type": "ICMP_ECHO", "SrcIpAddr": "203.0.113.2", "DstIpAddr": "9.9.9.9"}]);
    let wan = json!({"0": {"IPType": "STATIC", "IP": "203.0.113.2", "Mask": "255.255.255.0", "Gateway": "203.0.113.1", "Priority": 7}});
    let (c, config) =
        run_with(json!({"Wan": wan, "HealthChecks": check}), &[("a", Verdict::Failed)]).expect("compiles");
    assert_eq!((config.ports[0].failed, config.ports[0].priority), (false, None));
    assert_eq!(c.addresses[0].gateway.map(|(_, m)| m), Some(7));
}

#[test]
fn tunnels_end_at_the_first_wan_port_that_frames_can_pass() {
    let base = Base::from_toml(BASE).expect("base");
    let local = |priorities: [i64; 3], running: &[&str]| {
        let (mut more, wires) = several_wans(priorities);
        for unfit in ["0", "4", "10"].iter().filter(|n| running.contains(&format!("!eth{n}").as_str())) {
            more["HealthChecks"] = json!([{"HcInstanceId": "a", "Type": "ICMP_ECHO", "SrcIpAddr": format!("203.0.{unfit}.2"),
                "DstIpAddr": "9.9.9.9"}]);
        }
        if running.contains(&"weight") {
            more["Wan"]["0"]["Weight"] = 50.into();
        }
        let end = LocalEndpoint {
            gateway: "sag-1".into(),
            sn: "sn1".into(),
            running: running.iter().map(|d| (*d).to_owned()).collect(),
            unfit: running.iter().filter_map(|d| d.strip_prefix('?')).map(str::to_owned).collect(),
            ..LocalEndpoint::default()
        };
        let desired = desired(document(more)).expect("read");
        let health = BTreeMap::from([("a".to_owned(), Verdict::Failed)]);
        let c = compile(&desired, &base, &wires, &health, Some(&end)).expect("compiles");
        c.local.map(|a| a.to_string()).unwrap_or_default()
    };
    let all = ["eth0", "eth4", "eth10"];
    assert_eq!(local([10, 10, 10], &all), "203.0.0.2");
    assert_eq!(local([10, 10, 10], &all[1..]), "203.0.4.2", "the link of the first one is gone");
    assert_eq!(local([10, 5, 10], &all), "203.0.4.2", "by priority");
    let with = |more: &'static str| [&all[..], &[more]].concat();
    assert_eq!(local([10, 10, 10], &with("weight")), "203.0.4.2", "by weight");
    assert_eq!(local([5, 10, 10], &with("!eth0")), "203.0.4.2", "its health check fails");
    assert_eq!(local([5, 10, 10], &with("?eth0")), "203.0.4.2", "no tunnel gets through");
    assert_eq!(local([-1, 10, 10], &all), "203.0.4.2", "it does not forward");
    assert_eq!(local([10, 10, 10], &[]), "203.0.0.2", "none is better than the first");
}

/// The gateway's port is the device that the routing service makes in place of the Ethernet device.
#[test]
fn a_line_that_is_dialed() {
    let base =
        Base::from_toml(&BASE.replace("device = \"eth0\"", "device = \"eth0\"\nmtu = 1400")).expect("base");
    let (mut more, wires) = several_wans([10, 10, 10]);
    let dialed = |priority: i64| json!({"IPType": "PPPOE", "Username": "p12", "Password": "secret", "Priority": priority, "Bandwidth": 100});
    more["Wan"]["0"] = dialed(10);
    let desired_of = |more: &serde_json::Value| desired(document(more.clone())).expect("read");
    let c = compile(&desired_of(&more), &base, &wires, &BTreeMap::new(), None).expect("compiles");
    let config = sag_model::config::parse(&c.text, "t").expect("right").config;
    let port = |name: &str| config.ports.iter().find(|p| p.name == name).unwrap();
    assert_eq!((port("0").device.as_str(), port("0").mss_clamp, port("0").mtu), ("ppp-eth0", true, None));
    assert_eq!((port("4").device.as_str(), port("4").mss_clamp), ("eth4", false));
    let [line] = &c.routing.pppoe[..] else { panic!("{:?}", c.routing) };
    assert_eq!((line.port.as_str(), line.device.as_str(), line.user.as_str()), ("0", "eth0", "p12"));
    assert_eq!(line.password.expose(), "secret");
    assert!(!format!("{c:?}").contains("secret") && !c.text.contains("secret"));
    // Of one priority, the first by name has the best metric, whether it is dialed or not.
    let metrics = |c: &Compiled| -> Vec<(String, u32)> {
        let fixed = c.addresses.iter().filter_map(|a| Some((a.port.clone(), a.gateway?.1)));
        let dialed = c.routing.pppoe.iter().filter_map(|l| Some((l.port.clone(), l.metric?)));
        let mut all: Vec<_> = fixed.chain(dialed).collect();
        all.sort_by_key(|(_, metric)| *metric);
        all
    };
    let of = |list: [(&str, u32); 3]| list.map(|(port, metric)| (port.to_owned(), metric)).to_vec();
    assert_eq!(metrics(&c), of([("0", 10), ("4", 11), ("10", 12)]));
    more["Wan"]["0"] = dialed(30);
    let later = compile(&desired_of(&more), &base, &wires, &BTreeMap::new(), None).expect("compiles");
    assert_eq!(metrics(&later), of([("4", 10), ("10", 11), ("0", 30)]));

    // A gateway that has started with what is in force here knows the Ethernet device by the name of the port's.
    let again = Base::from_toml(&c.text).expect("base");
    let wired =
        compile(&desired_of(&more), &again, &BTreeMap::new(), &BTreeMap::new(), None).expect("compiles");
    assert_eq!(wired.routing.pppoe[0].device, "eth0");
    // Its opposite.
    more["Wan"]["0"] = json!({"IPType": "DHCP"});
    let c = compile(&desired_of(&more), &again, &BTreeMap::new(), &BTreeMap::new(), None).expect("compiles");
    assert!(c.routing.pppoe.is_empty() && c.dhcp == ["eth0"]);
    assert!(c.text.contains("device = \"eth0\"") && !c.text.contains("ppp-"), "{}", c.text);

    // Priority -1: the session stays, nothing is forwarded, and there is no default route.
    more["Wan"]["0"] = dialed(-1);
    let c = compile(&desired_of(&more), &base, &wires, &BTreeMap::new(), None).expect("compiles");
    let config = sag_model::config::parse(&c.text, "t").expect("right").config;
    let port = config.ports.iter().find(|p| p.name == "0").unwrap();
    assert_eq!((port.role, port.device.as_str()), (Role::Mgmt, "ppp-eth0"));
    assert_eq!(c.routing.pppoe[0].metric, None);
}

#[test]
fn a_line_whose_device_has_too_long_a_name() {
    let (mut more, mut wires) = several_wans([10, 10, 10]);
    wires.insert("0".to_owned(), Wiring { device: "enp130s0f0np0".into(), role: None });
    more["Wan"]["0"] = json!({"IPType": "PPPOE", "Username": "p12", "Password": "secret"});
    let desired = desired(document(more)).expect("read");
    let base = Base::from_toml(BASE).expect("base");
    let c = compile(&desired, &base, &wires, &BTreeMap::new(), None).expect("compiles");
    assert!(c.routing.pppoe.is_empty());
    let said: Vec<String> = c.deviations.iter().map(ToString::to_string).collect();
    assert!(said.iter().any(|d| d.contains("port 0") && d.contains("rename the device")), "{said:?}");
}
