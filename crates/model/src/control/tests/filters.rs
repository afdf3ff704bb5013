//! Every field of a session filter, one by one.

use super::session;
use crate::control::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Every field set.
pub(super) fn filter() -> SessionFilter {
    let net = |t: &str| Some(t.parse().unwrap());
    SessionFilter {
        family: Some(4),
        proto: Some(IpProto::TCP),
        src: net("192.0.2.0/24"),
        dst: net("198.51.100.7/32"),
        host: net("2001:db8::/32"),
        sport: Some(5000),
        dport: Some(443),
        nat: Some(true),
        nat_src: net("203.0.113.2/32"),
        nat_sport: Some(1024),
        nat_dst: net("10.0.0.0/8"),
        nat_dport: Some(80),
        port: Some("1".into()),
        in_port: Some("0".into()),
        out_port: Some("1".into()),
        state: Some("established".into()),
        rule: Some("acr-1".into()),
        vrf: Some("a".into()),
        to_vrf: Some("default".into()),
        min_age_s: Some(60),
        min_idle_s: Some(5),
        min_packets: Some(10),
        min_bytes: Some(1000),
    }
}

fn keys(v: &Value) -> BTreeSet<String> {
    v.as_object().unwrap().keys().cloned().collect()
}

fn admits(filter: &Value, s: &Session) -> bool {
    let f: SessionFilter = serde_json::from_value(filter.clone()).unwrap();
    assert!(!f.is_empty(), "{filter}");
    f.matches(&s.facts())
}

/// One that is translated on both sides.
fn translated() -> Session {
    Session {
        nat_dst: Some("10.1.0.9".parse().unwrap()),
        nat_dport: Some(8443),
        vrf: Some("a".into()),
        ..session()
    }
}

#[test]
fn each_field_admits_and_refuses() {
    let s = translated();
    // What the session has, and what it does not.
    let cases = [
        (json!({"family": 4}), json!({"family": 6})),
        (json!({"proto": "TCP"}), json!({"proto": "udp"})),
        (json!({"src": "192.0.2.0/24"}), json!({"src": "198.51.100.7"})),
        (json!({"dst": "198.51.100.7"}), json!({"dst": "192.0.2.0/24"})),
        (json!({"host": "192.0.2.10"}), json!({"host": "192.0.2.11"})),
        (json!({"host": "198.51.100.0/24"}), json!({"host": "2001:db8::/32"})),
        (json!({"host": "203.0.113.2"}), json!({"host": "203.0.113.3"})),
        (json!({"host": "10.1.0.9"}), json!({"host": "10.1.0.8"})),
        (json!({"sport": 5000}), json!({"sport": 443})),
        (json!({"dport": 443}), json!({"dport": 5000})),
        (json!({"nat": true}), json!({"nat": false})),
        (json!({"nat_src": "203.0.113.0/24"}), json!({"nat_src": "192.0.2.10"})),
        (json!({"nat_sport": 1024}), json!({"nat_sport": 5000})),
        (json!({"nat_dst": "10.1.0.9"}), json!({"nat_dst": "198.51.100.7"})),
        (json!({"nat_dport": 8443}), json!({"nat_dport": 443})),
        (json!({"port": "0"}), json!({"port": "2"})),
        (json!({"port": "1"}), json!({"port": ""})),
        (json!({"in_port": "0"}), json!({"in_port": "1"})),
        (json!({"out_port": "1"}), json!({"out_port": "0"})),
        (json!({"state": "ESTABLISHED"}), json!({"state": "closing"})),
        (json!({"rule": "acr-1"}), json!({"rule": "acr-2"})),
        (json!({"vrf": "a"}), json!({"vrf": "b"})),
        (json!({"vrf": "default"}), json!({"vrf": ""})),
        (json!({"to_vrf": "default"}), json!({"to_vrf": "a"})),
        (json!({"min_age_s": 10}), json!({"min_age_s": 11})),
        (json!({"min_idle_s": 2}), json!({"min_idle_s": 3})),
        (json!({"min_packets": 12}), json!({"min_packets": 13})),
        (json!({"min_bytes": 5700}), json!({"min_bytes": 5701})),
    ];
    let mut tried = BTreeSet::new();
    for (yes, no) in &cases {
        assert!(admits(yes, &s), "{yes}");
        assert!(!admits(no, &s), "{no}");
        assert_eq!(keys(yes), keys(no));
        tried.append(&mut keys(yes));
    }
    assert_eq!(tried, keys(&serde_json::to_value(filter()).unwrap()));
}

#[test]
fn every_column_of_a_session_can_be_filtered_by() {
    let filters = keys(&serde_json::to_value(filter()).unwrap());
    for key in keys(&serde_json::to_value(session()).unwrap()) {
        let by = match key.as_str() {
            "age_s" | "idle_s" | "packets" | "bytes" => format!("min_{key}"),
            "reply_packets" | "reply_bytes" => key.replace("reply", "min"),
            _ => key.clone(),
        };
        assert!(filters.contains(&by), "{key}");
    }
}

#[test]
fn all_that_is_set_must_agree() {
    let s = session();
    assert!(SessionFilter::default().is_empty() && SessionFilter::default().matches(&s.facts()));
    assert!(admits(
        &json!({"src": "192.0.2.0/24", "dst": "198.51.100.7", "sport": 5000, "rule": "acr-1"}),
        &s
    ));
    assert!(!admits(&json!({"src": "192.0.2.0/24", "dport": 80}), &s));
}

#[test]
fn a_translation_that_keeps_the_port_is_found_by_it() {
    let s = Session { nat_sport: None, ..session() };
    assert!(admits(&json!({"nat_sport": 5000}), &s));
    // Nothing is translated on the other side: no port there is a translated one.
    assert!(!admits(&json!({"nat_dport": 443}), &s));
}

#[test]
fn what_is_not_translated_has_no_translated_fields() {
    let s = Session { nat_src: None, nat_sport: None, ..session() };
    assert!(admits(&json!({"nat": false}), &s));
    for f in [json!({"nat": true}), json!({"nat_src": "0.0.0.0/0"}), json!({"nat_sport": 5000})] {
        assert!(!admits(&f, &s), "{f}");
    }
    let s = Session { rule: None, ..session() };
    assert!(!admits(&json!({"rule": "acr-1"}), &s));
}
