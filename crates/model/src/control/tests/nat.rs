//! `nat` and `nat-bindings`.

use super::round;
use crate::PortIdx;
use crate::config::{Config, NatBehavior, parse};
use crate::control::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Every field set.
pub(super) fn filter() -> NatBindingFilter {
    NatBindingFilter {
        protocol: Some(IpProto::UDP),
        inside: Some("192.0.2.0/24".parse().unwrap()),
        inside_port: Some(5000),
        outside: Some("203.0.113.2/32".parse().unwrap()),
        outside_port: Some(1024),
        mapping: Some(NatBehavior::AddressDependent),
        min_sessions: Some(2),
        vrf: Some("shop".into()),
    }
}

fn binding() -> NatBinding {
    NatBinding {
        protocol: IpProto::UDP,
        inside: "192.0.2.10".parse().unwrap(),
        inside_port: 5000,
        outside: "203.0.113.2".parse().unwrap(),
        outside_port: 1024,
        sessions: 3,
        mapping: NatBehavior::EndpointIndependent,
        vrf: Some("shop".into()),
    }
}

fn config() -> Config {
    let text = r#"
        [[port]]
        name = "lan"
        device = "eth1"
        role = "lan"
        [[port]]
        name = "up-1"
        device = "eth0"
        role = "wan"
        snat = true
        snat_filtering = "endpoint-independent"
        [[port]]
        name = "up-2"
        device = "eth2"
        role = "wan"
        snat = true
        [[snat]]
        id = "branch"
        cidr_block = "192.168.1.0/24"
        snat_ip = "10.99.0.1"
        mapping = "address-dependent"
        [[dnat]]
        id = "web"
        type = "Internet"
        ip_protocol = "tcp"
        external_port = 8080
        internal_ip = "192.168.1.10"
        internal_port = 80
        [[dnat]]
        id = "rtp"
        ip_protocol = "udp"
        external_ip = "10.99.0.2"
        external_port = "5000/5099"
        internal_ip = "192.168.1.11"
        internal_port = "6000/6099"
        [[dnat]]
        id = "rest"
        ip_protocol = "any"
        external_ip = "10.99.0.2"
        internal_ip = "192.168.1.12"
    "#;
    parse(text, "vcpe.toml").unwrap().config
}

#[test]
fn every_translation_of_a_configuration_has_an_entry() {
    let own = |p: PortIdx| (p == PortIdx(1)).then_some("203.0.113.2".parse().unwrap());
    let entries = NatEntry::of(&config(), own);
    let text = |e: &NatEntry| {
        format!("{} {} {}: {} = {}", e.kind.as_str(), e.id, e.protocol, e.external, e.internal)
    };
    assert_eq!(
        entries.iter().map(text).collect::<Vec<_>>(),
        [
            "wan-snat port up-1 any: 203.0.113.2 = 0.0.0.0/0",
            "wan-snat port up-2 any:  = 0.0.0.0/0",
            "snat branch any: 10.99.0.1 = 192.168.1.0/24",
            "dnat web tcp: wan:8080 = 192.168.1.10:80",
            "dnat rtp udp: 10.99.0.2:5000-5099 = 192.168.1.11:6000-6099",
            "dnat rest any: 10.99.0.2 = 192.168.1.12",
        ]
    );
    let wire: Vec<Value> = entries.into_iter().map(round).collect();
    assert_eq!(wire[0]["kind"], "wan-snat");
    assert_eq!((&wire[0]["type"], &wire[0]["mapping"]), (&Value::Null, &json!("endpoint-independent")));
    assert_eq!(wire[0]["filtering"], "endpoint-independent");
    assert_eq!(
        (&wire[2]["mapping"], &wire[2]["filtering"]),
        (&json!("address-dependent"), &json!("address-dependent"))
    );
    assert_eq!((&wire[3]["type"], &wire[3]["mapping"]), (&json!("Internet"), &Value::Null));
    assert_eq!((&wire[4]["type"], &wire[4]["hits"]), (&json!("Intranet"), &json!(0)));
    assert_eq!(NatEntry::port_id("up-1"), wire[0]["id"]);
}

#[test]
fn reports_have_the_agreed_keys() {
    fn has(v: &Value, keys: &[&str]) {
        let have: BTreeSet<&str> = v.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(have, keys.iter().copied().collect());
    }
    let pool = NatPool {
        address: "203.0.113.2".parse().unwrap(),
        source: "port up-1".into(),
        mapping: NatBehavior::EndpointIndependent,
        filtering: NatBehavior::AddressDependent,
        tcp: PortUse { used: 1, capacity: 64_512, peak: 2 },
        udp: PortUse::default(),
        icmp: PortUse::default(),
        exhausted: 0,
        filtered: 7,
        warned: false,
    };
    let entries = NatEntry::of(&config(), |_| None);
    let wire = round(Nat { entries, pools: vec![pool], totals: NatTotals::default() });
    has(&wire, &["entries", "pools", "totals"]);
    let entry = [
        "id",
        "kind",
        "type",
        "protocol",
        "external",
        "internal",
        "mapping",
        "filtering",
        "sessions",
        "hits",
        "vrf",
    ];
    has(&wire["entries"][0], &entry);
    let pool = [
        "address",
        "source",
        "mapping",
        "filtering",
        "tcp",
        "udp",
        "icmp",
        "exhausted",
        "filtered",
        "warned",
    ];
    has(&wire["pools"][0], &pool);
    assert_eq!(wire["pools"][0]["tcp"], json!({"used": 1, "capacity": 64_512, "peak": 2}));
    let totals = [
        "bindings",
        "hosts",
        "host_limit",
        "host_limit_hits",
        "evicted",
        "hairpinned",
        "uncounted",
        "log_lost",
    ];
    has(&wire["totals"], &totals);
    let wire = round(NatBindings { bindings: vec![binding()], total: 1 });
    let keys = ["protocol", "inside", "inside_port", "outside", "outside_port", "sessions", "mapping", "vrf"];
    has(&wire["bindings"][0], &keys);
    assert_eq!((&wire["bindings"][0]["protocol"], &wire["total"]), (&json!("udp"), &json!(1)));
}

#[test]
fn each_field_of_the_filter_admits_and_refuses() {
    let b = binding();
    assert!(NatBindingFilter::default().matches(&b));
    let cases = [
        (json!({"protocol": "udp"}), json!({"protocol": "tcp"})),
        (json!({"inside": "192.0.2.0/24"}), json!({"inside": "203.0.113.2"})),
        (json!({"inside_port": 5000}), json!({"inside_port": 1024})),
        (json!({"outside": "203.0.113.2"}), json!({"outside": "192.0.2.0/24"})),
        (json!({"outside_port": 1024}), json!({"outside_port": 5000})),
        (json!({"mapping": "endpoint-independent"}), json!({"mapping": "address-dependent"})),
        (json!({"min_sessions": 3}), json!({"min_sessions": 4})),
        (json!({"vrf": "shop"}), json!({"vrf": "default"})),
    ];
    let mut tried = BTreeSet::new();
    for (yes, no) in cases {
        let admits = |v: &Value| serde_json::from_value::<NatBindingFilter>(v.clone()).unwrap().matches(&b);
        assert!(admits(&yes), "{yes}");
        assert!(!admits(&no), "{no}");
        tried.extend(yes.as_object().unwrap().keys().cloned());
    }
    let all = serde_json::to_value(filter()).unwrap();
    assert_eq!(tried, all.as_object().unwrap().keys().cloned().collect());
    let default = NatBindingFilter { vrf: Some("default".into()), ..NatBindingFilter::default() };
    assert!(default.matches(&NatBinding { vrf: None, ..b }));
}

#[test]
fn bindings_of_most_sessions_come_first_whatever_the_order_of_the_table() {
    let at = |port: u16, sessions: u64| NatBinding { inside_port: port, sessions, ..binding() };
    let mut table = [at(1, 5), at(2, 9), at(3, 5), at(4, 1)];
    let query = NatBindingQuery { limit: Some(3), ..NatBindingQuery::default() };
    for _ in 0..table.len() {
        table.rotate_left(1);
        let mut picker = NatBindingPicker::new(&query);
        table.iter().for_each(|b| picker.offer(b));
        let answer = picker.finish();
        assert_eq!(answer.bindings.iter().map(|b| b.inside_port).collect::<Vec<_>>(), [2, 1, 3]);
        assert_eq!(answer.total, 4);
    }
    let query = NatBindingQuery { count: true, filter: filter(), ..NatBindingQuery::default() };
    let mut picker = NatBindingPicker::new(&query);
    table.iter().for_each(|b| picker.offer(b));
    assert_eq!(picker.finish(), NatBindings::default());
    assert_eq!(NatBindingQuery { limit: Some(u32::MAX), ..query.clone() }.wanted(), 0);
    assert_eq!(NatBindingQuery { limit: Some(u32::MAX), count: false, ..query }.wanted(), MAX_LIMIT as usize);
    assert_eq!(NatBindingQuery::default().wanted(), DEFAULT_LIMIT as usize);
}
