//! Behaviour of the configuration as a whole; the wording of findings is in `golden`.

use super::*;

mod changes;
mod documents;
mod golden;
mod hostile;
mod qos;
mod values;

/// Every key there is.
const EXAMPLE: &str = include_str!("../../../../../configs/vcpe.example.toml");

/// Something to hang other sections on: eight lines.
const PORTS: &str = "\
[[port]]
name = \"0\"
device = \"eth1\"
role = \"lan\"
[[port]]
name = \"1\"
device = \"eth0\"
role = \"wan\"
";

fn ok(text: &str) -> Checked {
    parse(text, "vcpe.toml").unwrap_or_else(|e| panic!("refused:\n{e}\nin:\n{text}"))
}

/// Accepts a section beside two ports.
fn with_ports(section: &str) -> Config {
    ok(&format!("{PORTS}{section}")).config
}

#[test]
fn flow_tables_follow_the_memory_unless_configured() {
    let capacity = |flows, memory_mib: u64| {
        let capacity = Dataplane { flows, ..ok(PORTS).config.dataplane }.flow_capacity(memory_mib << 20);
        (capacity.v4, capacity.v6)
    };
    // What Linux says of machines with 256 MB, 512 MB, 1, 2, 4 and 64 GB is somewhat less.
    let machines = [220, 460, 960, 1_970, 3_900, 64_000].map(|mib| capacity(None, mib).0);
    assert_eq!(machines, [1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 20]);
    assert_eq!((capacity(None, 0).0, capacity(None, u64::MAX >> 20).0), (1 << 14, 1 << 20));
    assert_eq!(capacity(Some(1_048_576), 460), (1_048_576, 131_072));
    assert_eq!(capacity(Some(2_048), 460), (2_048, 1_024), "smaller ones do not keep floods out");
}

#[test]
fn smallest_file_has_the_documented_defaults() {
    let c = ok(PORTS).config;
    assert_eq!(c.ports.len(), 2);
    let d = &c.dataplane;
    assert_eq!((d.workers, d.mode, d.zero_copy), (None, XdpMode::Auto, ZeroCopy::Auto));
    assert_eq!(d.flows, None);
    assert_eq!((d.acl_default, d.acl_stateful, d.busy_poll), (Policy::Accept, true, false));
    assert_eq!(d.metrics.map(|m| m.to_string()).as_deref(), Some("127.0.0.1:9477"));
    assert_eq!(d.control.to_str(), Some("/run/sag/vcpe.sock"));
    assert_eq!(d.pin_dir.to_str(), Some("/sys/fs/bpf/sag"));
    assert_eq!(d.state_dir.to_str(), Some("/var/lib/sag"));
    assert_eq!((d.icmp_rate, d.fail_action, d.log.as_str()), (1000, FailAction::Drop, "info"));
    let t = c.timeouts;
    assert_eq!((t.tcp_established, t.tcp_transitory, t.tcp_syn), (7440, 240, 240));
    assert_eq!((t.udp, t.icmp, t.other), (300, 60, 600));
    assert_eq!((c.bandwidth.ccn, c.bandwidth.internet_up), (None, None));
    assert_eq!(c.nat.port_range, PortRange { first: 1024, last: 65_535 });
    assert_eq!((c.nat.host_sessions, c.nat.warn_percent, c.nat.port_block), (None, 80, None));
    assert_eq!((c.nat.log, &c.nat.log_file, c.nat.hairpin), (NatLog::Off, &None, true));
    let behavior = c.ports[1].snat_behavior;
    assert_eq!(
        (behavior.mapping, behavior.filtering),
        (NatBehavior::EndpointIndependent, NatBehavior::AddressDependent)
    );
}

#[test]
fn example_is_read_in_every_detail() {
    let c = ok(EXAMPLE).config;
    let guests = c.port_by_name("guests").expect("port");
    assert_eq!(guests, crate::PortIdx(2));
    let port = c.port(guests).expect("port");
    assert_eq!((port.device.as_str(), port.vlan.map(crate::VlanId::get)), ("eth1", Some(20)));
    assert_eq!(port.addresses[0].to_string(), "192.168.20.1/24");
    assert_eq!(port.zone(), Some(crate::Zone::Lan));
    assert_eq!(c.ports[1].bandwidth.map(Mbps::bytes_per_second), Some(6_250_000));

    let targets: Vec<_> = c.routes.iter().map(|r| r.target).collect();
    let via = RouteTarget::Via {
        next_hop: "192.168.1.254".parse().expect("address"),
        port: Some(crate::PortIdx(0)),
    };
    assert_eq!(
        targets,
        [
            via,
            RouteTarget::Tunnel(TunnelIdx(0)),
            RouteTarget::OnLink(crate::PortIdx(0)),
            RouteTarget::Via {
                next_hop: "203.0.113.1".parse().expect("address"),
                port: Some(crate::PortIdx(1))
            },
            RouteTarget::Reject(RejectKind::Blackhole)
        ]
    );
    let of_guests = Some("guests".to_owned());
    assert_eq!(
        (&c.vrfs[0].name, &port.vrf, &c.ports[0].vrf),
        (of_guests.as_ref().expect("some"), &of_guests, &None)
    );
    assert_eq!((&c.routes[3].vrf, &c.routes[0].vrf), (&of_guests, &None));
    assert_eq!([&c.dnat[4].vrf, &c.static_nat[1].vrf, &c.tunnels[1].vrf], [&of_guests; 3]);

    let rule = &c.acls[0].rules[0];
    assert_eq!((rule.direction, rule.kind, rule.policy), (Direction::Out, AclType::Lan, Policy::Drop));
    assert_eq!(rule.tuple.protocol, Some(6));
    assert_eq!(rule.tuple.source_ports, PortMatch::ANY);
    assert_eq!(rule.tuple.dest_ports, PortMatch::Range(PortRange { first: 80, last: 443 }));
    let rule = &c.acls[0].rules[1];
    assert_eq!((rule.tuple.protocol, rule.priority, rule.tuple.is_ipv6()), (None, 1, true));

    let percent = CarLimit::Percent { min: 10, max: 60, of: PercentSource::InternetUp };
    assert_eq!(c.qos[0].cars[0].limit, CarLimit::Absolute { min: 2, max: 6 });
    assert_eq!(c.qos[0].cars[1].limit, percent);
    assert_eq!(c.qos[0].policies[0].start.map(|t| t.to_string()).as_deref(), Some("2025-12-31T16:00:00Z"));

    let http =
        DnatService::Port { protocol: 6, external: PortRange::single(8080), internal: PortRange::single(80) };
    assert_eq!((c.dnat[0].external_ip, &c.dnat[0].service), (None, &http));
    assert_eq!(c.dnat[1].service, DnatService::Any);
    let range = |first, last| PortRange { first, last };
    let rtp = DnatService::Port { protocol: 17, external: range(5000, 5099), internal: range(6000, 6099) };
    assert_eq!(c.dnat[2].service, rtp);
    assert_eq!(c.ports[1].snat_behavior, NatBehaviors::default());
    assert_eq!(c.snat[0].behavior, NatBehaviors::default());
    assert_eq!(c.nat.port_range, range(1024, 65_535));
    assert_eq!((c.nat.host_sessions, c.nat.warn_percent, c.nat.port_block), (Some(4096), 80, Some(256)));
    assert_eq!((c.nat.log, c.nat.hairpin), (NatLog::Blocks, true));
    assert_eq!(c.nat.log_file.as_deref().and_then(|p| p.to_str()), Some("/var/log/sag/nat.log"));
    assert_eq!(c.tunnels[1].encap, Encap::Gre { key: Some(7), checksum: false, sequence: false });
    let Encap::Esp { cipher, manual, esn, replay_window, udp_port } = &c.tunnels[2].encap else {
        panic!("{:?}", c.tunnels[2])
    };
    assert_eq!((*cipher, *esn, *replay_window, *udp_port), (EspCipher::AesGcm, true, 16_384, Some(4500)));
    assert_eq!(manual.as_ref().map(|k| k.key_in.expose().len()), Some(20));
    assert_eq!(c.tunnels[2].fec, Some(Fec { window: 20, repairs: 4, delay: 20 }));
    assert_eq!(c.tunnels[1].fec, None);
}

#[test]
fn what_is_written_is_read_as_the_same() {
    let v6_icmp = "[[acl]]\n[[acl.rule]]\ndirection=\"in\"\npolicy=\"drop\"\nsource_cidr=\"::/0\"\n\
                   dest_cidr=\"::/0\"\nip_protocol=1\n";
    for text in [EXAMPLE.to_owned(), PORTS.to_owned(), format!("{PORTS}{v6_icmp}")] {
        let config = ok(&text).config;
        let written = config.to_toml(Secrets::Shown).expect("writable");
        assert_eq!(ok(&written).config, config, "{written}");
    }
}

#[test]
fn secrets_are_shown_on_demand_only() {
    let config = ok(EXAMPLE).config;
    let secret = "000102030405060708090a0b0c0d0e0fa0a1a2a3";
    let json = serde_json::to_string(&config).expect("json");
    for shown in [config.to_toml(Secrets::Masked).expect("toml"), json, format!("{config:?}")] {
        assert!(!shown.contains(secret) && !shown.contains("b0b1b2b3"), "{shown}");
    }
    assert!(config.to_toml(Secrets::Shown).expect("toml").contains(secret));
    // A mistaken key stays out of the message as well.
    let bad = EXAMPLE.replace(secret, &secret[..30]);
    let errors = parse(&bad, "f").expect_err("short key").to_string();
    assert!(errors.contains("has 30 hex digits") && !errors.contains("0001020304"), "{errors}");
}

#[test]
fn json_has_the_keys_of_the_file() {
    let json = serde_json::to_value(ok(EXAMPLE).config).expect("json");
    assert_eq!(json["acl"][0]["rule"][0]["dest_port_range"], "80/443");
    assert_eq!(json["tunnel"][2]["key_in"], "********");
    assert_eq!(json["route"][4]["type"], "blackhole");
}

#[test]
fn each_section_without_effect_is_announced_once() {
    let warnings = ok(EXAMPLE).warnings;
    for name in NOT_ENFORCED {
        let of: Vec<_> = warnings.iter().filter(|w| w.path == *name).collect();
        assert_eq!(of.len(), 1, "{name}: {warnings:?}");
        assert!(of[0].problem.contains("not enforced"), "{}", of[0]);
    }
    assert_eq!(warnings.len(), NOT_ENFORCED.len(), "{warnings:?}");
    assert!(ok(PORTS).warnings.is_empty());
}

#[test]
fn values_may_be_spelled_in_several_ways() {
    let rule = |protocol: &str, cidr: &str| {
        let text = format!(
            "[[acl]]\n[[acl.rule]]\ndirection=\"in\"\npolicy=\"drop\"\nsource_cidr=\"{cidr}\"\n\
             dest_cidr=\"{cidr}\"\nip_protocol={protocol}\n"
        );
        with_ports(&text).acls[0].rules[0].tuple.protocol
    };
    assert_eq!(rule("\"TCP\"", "0.0.0.0/0"), Some(6));
    assert_eq!(rule("\"Any\"", "0.0.0.0/0"), None);
    assert_eq!(rule("\"47\"", "0.0.0.0/0"), Some(47));
    assert_eq!(rule("0x2f", "0.0.0.0/0"), Some(47));
    assert_eq!(rule("\"icmp\"", "0.0.0.0/0"), Some(1));
    assert_eq!(rule("\"icmp\"", "::/0"), Some(58));

    let dnat = with_ports(
        "[[dnat]]\ntype=\"Internet\"\nip_protocol=\"UDP\"\nexternal_port=53\ninternal_ip=\"10.0.0.1\"\ninternal_port=\"53\"\n",
    );
    assert_eq!(
        dnat.dnat[0].service,
        DnatService::Port { protocol: 17, external: PortRange::single(53), internal: PortRange::single(53) }
    );
    assert_eq!(dnat.dnat[0].id, "fwd-1");

    let flow_log = with_ports("[flow_log]\nnetflow_server = \"192.0.2.1\"\n").flow_log.expect("section");
    assert_eq!(flow_log.netflow_server.to_string(), "192.0.2.1:9995");

    let inline = ok("port = [{ name = \"0\", device = \"eth1\", role = \"lan\" }]\n").config;
    assert_eq!(inline.ports.len(), 1);
}

#[test]
fn a_hundred_thousand_rules_are_read() {
    let mut text = format!("{PORTS}[[acl]]\nid = \"big\"\n");
    for i in 0..100_000u32 {
        let [_, a, b, c] = i.to_be_bytes();
        text.push_str(&format!(
            "[[acl.rule]]\nid = \"r{i}\"\ndirection = \"out\"\npolicy = \"drop\"\nip_protocol = \"tcp\"\n\
             source_cidr = \"10.{a}.{b}.{c}/32\"\ndest_cidr = \"0.0.0.0/0\"\ndest_port_range = \"1/{}\"\n",
            i % 65_535 + 1
        ));
    }
    let start = std::time::Instant::now();
    let config = ok(&text).config;
    println!("100,000 rules, {} bytes: {:?}", text.len(), start.elapsed());
    assert_eq!(config.acls[0].rules.len(), 100_000);
    let mut other = config.clone();
    other.acls[0].rules.remove(50_000);
    let start = std::time::Instant::now();
    assert_eq!(config.diff(&other).len(), 1);
    println!("diff: {:?}", start.elapsed());
}
