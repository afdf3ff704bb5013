use super::super::tests::{deviates, document};
use super::super::{Compiled, compile};
use super::*;
use crate::config::Wiring;
use crate::desired::{Desired, read_document};
use sag_southbound::IdentityKey;
use serde_json::json;
use std::collections::BTreeMap;

const PORTS: &str = "[[port]]\nname = \"0\"\ndevice = \"eth0\"\n[[port]]\nname = \"1\"\ndevice = \"eth1\"\n";

fn peer(sn: &str, address: &str) -> Result<AgreedPeer, String> {
    let key = IdentityKey::generate().and_then(|made| IdentityKey::from_pkcs8(&made)).expect("a key");
    Ok(AgreedPeer {
        sn: sn.into(),
        address: address.parse().expect("an address"),
        key: sag_model::config::Secret::new(vec![7; 32]),
        identity: key.identity(),
    })
}

fn run(base: &str, more: serde_json::Value, peers: SessionPeers) -> Compiled {
    let (doc, _) = read_document(document(more)).expect("a document");
    let present = vec![
        ("eth1".to_owned(), "10.1.7.6/32".parse().expect("net")),
        ("eth1".to_owned(), "10.1.7.2/24".parse().expect("net")),
    ];
    let base = Base::from_toml(base).expect("base").having(present, Vec::new()).beside(peers);
    let wiring: BTreeMap<String, Wiring> = BTreeMap::new();
    compile(&Desired::from(doc), &base, &wiring, &BTreeMap::new(), None).expect("compiles")
}

fn ha() -> serde_json::Value {
    json!({"Ha": {"Mode": "STATIC", "PortName": "1", "VirtualIp": "10.1.7.6"}})
}

#[test]
fn sessions_follow_between_the_own_addresses_of_the_port() {
    let alone = run(PORTS, ha(), Vec::new());
    assert_eq!(alone.session_end, Some(Ipv4Addr::new(10, 1, 7, 2)), "the other device has to know");
    assert!(!alone.text.contains("[ha]") && alone.deviations.is_empty(), "{}", alone.text);
    let c = run(PORTS, ha(), vec![peer("sn2", "10.1.7.3")]);
    let config = sag_model::config::parse(&c.text, "t").expect("right").config;
    let section = config.ha.expect("[ha]");
    assert_eq!(
        (section.listen.to_string(), section.peer.to_string()),
        ("10.1.7.2:7788".into(), "10.1.7.3:7788".into())
    );
    assert_eq!(section.key.expect("a key").expose(), [7; 32]);
    assert!(!c.shown.contains("0707"), "the key is masked in what is shown");
    assert_eq!(c.session_peer.map(|(sn, _)| sn).as_deref(), Some("sn2"));
    assert!(c.deviations.is_empty(), "{:?}", c.deviations);
    // The cloud's address of the port is the one that it will have.
    let mut more = ha();
    more["Lan"] = json!({"1": {"IPType": "STATIC", "IP": "10.1.7.4", "Mask": "255.255.255.0"}});
    assert_eq!(run(PORTS, more, Vec::new()).session_end, Some(Ipv4Addr::new(10, 1, 7, 4)));
    for mode in ["NONE", "DYNAMIC"] {
        let off = json!({"Ha": {"Mode": mode, "PortName": "1", "VirtualIp": "10.1.7.6"}});
        let c = run(PORTS, off, vec![peer("sn2", "10.1.7.3")]);
        assert!(c.session_end.is_none() && !c.text.contains("[ha]"), "{mode}");
    }
}

#[test]
fn a_link_that_cannot_be_is_named() {
    for (peers, why) in [
        (vec![peer("sn2", "10.9.9.9")], "no other one of the port's network"),
        (vec![peer("sn2", "10.1.7.2")], "no other one"),
        (vec![peer("sn2", "10.1.7.6")], "no other one"),
        (vec![Err("device sn2: its identity is another".to_owned())], "its identity is another"),
    ] {
        let c = run(PORTS, ha(), peers);
        deviates(&c, "Ha", "sessions of port 1", Effect::Partial, why);
        assert!(!c.text.contains("[ha]") && c.session_end.is_some() && c.routing.vrrp.is_some());
    }
}

#[test]
fn the_operators_own_link_wins() {
    let own = format!(
        "{PORTS}[ha]\nlisten = \"10.255.0.1:7788\"\npeer = \"10.255.0.2:7788\"\nkey_file = \"/etc/sag/ha.key\"\n"
    );
    let c = run(&own, ha(), vec![peer("sn2", "10.1.7.3")]);
    assert!(c.text.contains("10.255.0.2:7788") && !c.text.contains("10.1.7.3"), "{}", c.text);
    assert!(c.session_end.is_none() && c.session_peer.is_none());
    // What an earlier agent has handed over is not the operator's; what the operator has written is.
    let handed_over = run(PORTS, ha(), vec![peer("sn2", "10.1.7.3")]).shown;
    assert!(!Base::from_running(&handed_over).expect("base").sections.contains_key("ha"));
    assert!(Base::from_running(&own).expect("base").sections.contains_key("ha"));
}
