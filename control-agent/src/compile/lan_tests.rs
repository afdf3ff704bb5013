use sag_dnsmasq::Serves;
use sag_southbound::Effect;
use serde_json::{Value, json};

use super::super::tests::{deviates, run};
use super::*;

fn lan(more: Value) -> Value {
    let mut lan = json!({"IPType": "DHCP", "IP": "192.0.2.1", "Mask": "255.255.255.192"});
    for (k, v) in more.as_object().expect("keys") {
        lan[k] = v.clone();
    }
    json!({"Lan": {"1": lan}})
}

/// What port 1 leases.
fn leased(document: Value) -> Option<String> {
    let (c, _) = run(document).expect("compiles");
    match c.lan.ports.first().and_then(|p| p.serves.clone()) {
        Some(Serves::Range(r)) => Some(format!("{}-{} {}", r.first, r.last, r.minutes)),
        _ => None,
    }
}

#[test]
fn a_dhcp_server_of_a_lan_port() {
    let given = leased(lan(json!({"StartIp": "192.0.2.10", "EndIp": "192.0.2.20", "Lease": "7"})));
    assert_eq!(given.as_deref(), Some("192.0.2.10-192.0.2.20 7"));
    assert_eq!(leased(lan(json!({}))).as_deref(), Some("192.0.2.1-192.0.2.62 60"));
    assert_eq!(leased(lan(json!({"IPType": "STATIC"}))), None);
    let (c, _) = run(lan(json!({}))).expect("compiles");
    assert_eq!((c.lan.ports.len(), c.lan.ports[0].device.as_str()), (1, "eth1"), "no other port is served");
    // The port has its address all the same.
    assert_eq!(c.addresses.iter().filter(|a| a.device == "eth1").count(), 1);
}

/// Document 000, line 6129: clients get addresses of the first private block.
#[test]
fn the_first_block_of_the_branch_bounds_the_addresses() {
    let with = |block: &str| {
        let mut document = lan(json!({}));
        document["Gateway"] = json!({"CidrBlock": block});
        leased(document)
    };
    assert_eq!(with("192.0.2.32/28,10.0.0.0/8").as_deref(), Some("192.0.2.32-192.0.2.47 60"));
    assert_eq!(with("192.0.2.0/28").as_deref(), Some("192.0.2.1-192.0.2.15 60"));
    for whole in ["192.0.2.0/24", "10.0.0.0/8", "192.0.2.0/26"] {
        assert_eq!(with(whole).as_deref(), Some("192.0.2.1-192.0.2.62 60"), "{whole}");
    }
}

#[test]
fn a_range_that_cannot_be_costs_the_server_alone() {
    for (more, why) in [
        (json!({"StartIp": "192.0.2.70"}), "192.0.2.70 is no address of a host in 192.0.2.0/26"),
        (json!({"StartIp": "192.0.2.20", "EndIp": "192.0.2.10"}), "is above"),
        (json!({"StartIp": "ten"}), "StartIp \"ten\""),
        (json!({"Lease": "0"}), "not 1..43200 minutes"),
        (json!({"Lease": "43201"}), "not 1..43200 minutes"),
        (json!({"IP": ""}), "no address and mask"),
    ] {
        let (c, _) = run(lan(more)).expect("compiles");
        deviates(&c, "Lan", "DHCP server of port 1", Effect::LeftOut, why);
        assert_eq!(c.lan.ports[0].serves, None);
    }
    let (c, _) = run(lan(json!({"IPType": "BOOTP"}))).expect("compiles");
    deviates(&c, "Lan", "port 1", Effect::Partial, "\"BOOTP\" is unknown");
}

#[test]
fn dns_servers_of_both_families() {
    let (c, _) =
        run(json!({"Dns": {"MasterDns": "192.0.2.53", "SlaveDns": "2001:db8::53"}})).expect("compiles");
    assert_eq!(
        c.lan.servers,
        ["192.0.2.53".parse::<IpAddr>().expect("ip"), "2001:db8::53".parse().expect("ip")]
    );
    let (c, _) =
        run(json!({"Dns": {"MasterDns": "192.0.2.53", "SlaveDns": "192.0.2.53"}})).expect("compiles");
    assert_eq!(c.lan.servers.len(), 1);
    let (c, _) = run(json!({"Dns": {"MasterDns": "", "SlaveDns": ""}})).expect("compiles");
    assert_eq!((c.lan.servers.len(), c.deviations.len()), (0, 0));
    let (c, _) = run(json!({"Dns": {"MasterDns": "one", "SlaveDns": "192.0.2.53"}})).expect("compiles");
    assert_eq!(c.lan.servers.len(), 1);
    deviates(&c, "Dns", "DNS servers", Effect::Partial, "\"one\" is no address");
}

#[test]
fn domains_with_servers_of_their_own() {
    let forward = |more: Value| {
        let mut f = json!({"InstanceId": "dnsf-1", "Domain": "corp.example", "MasterIp": "10.9.0.53"});
        for (k, v) in more.as_object().expect("keys") {
            f[k] = v.clone();
        }
        let (c, _) = run(json!({"DnsForwards": [f, {"InstanceId": "dnsf-2", "Domain": "*.lab.example",
            "MasterIp": "2001:db8::54"}]}))
        .expect("compiles");
        c
    };
    let c =
        forward(json!({"SlaveIp": "10.9.0.54", "OutboundPortType": "PhysicalPort", "OutboundPortName": "0"}));
    let seen: Vec<_> =
        c.lan.forwards.iter().map(|f| (f.domain.as_str(), f.servers.len(), f.device.as_deref())).collect();
    assert_eq!(seen, [("corp.example", 2, Some("eth0")), ("*.lab.example", 1, None)]);
    let c = forward(json!({"OutboundPortType": "PhysicalPort", "OutboundPortIndex": 3}));
    assert_eq!(c.lan.forwards[0].device.as_deref(), Some("eth3"));
    for (more, why) in [
        (json!({"OutboundPortType": "Pigeon"}), "\"Pigeon\" is unknown"),
        (
            json!({"OutboundPortType": "PhysicalPort", "OutboundPortName": "7"}),
            "port 7 has no network device",
        ),
        (json!({"MasterIp": "ns.corp.example"}), "is no address"),
        (json!({"MasterIp": ""}), "no DNS server"),
    ] {
        let c = forward(more);
        deviates(&c, "DnsForwards", "DNS servers of corp.example", Effect::Stricter, why);
        let seen: Vec<_> = c.lan.forwards.iter().map(|f| (f.domain.as_str(), f.device.as_deref())).collect();
        assert_eq!(
            seen,
            [("corp.example", Some(NOWHERE)), ("*.lab.example", None)],
            "nobody else is asked, and the other one is in force"
        );
    }
    // The machine knows which tunnel that is.
    let c = forward(json!({"OutboundPortType": "Tunnel"}));
    assert!(c.deviations.is_empty(), "{:?}", c.deviations);
    assert_eq!(c.lan.forwards[0].device.as_deref(), Some(NOWHERE));
    assert_eq!(c.lan.tunnelled.iter().collect::<Vec<_>>(), [&c.lan.forwards[0].id]);
    let c = forward(json!({"Domain": "a b"}));
    deviates(&c, "DnsForwards", "DNS servers of a b", Effect::LeftOut, "no name of a domain");
}
