use super::*;
use crate::Dscp;
use crate::{DropReason, MacAddr, Role, VlanId};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

mod filters;
mod nat;

use filters::filter;

fn round<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) -> Value {
    let line = serde_json::to_string(&value).unwrap();
    assert!(!line.contains('\n'), "{line}");
    assert_eq!(serde_json::from_str::<T>(&line).unwrap(), value, "{line}");
    serde_json::from_str(&line).unwrap()
}

#[test]
fn every_request_survives_the_wire() {
    let text = ConfigText { text: "[dataplane]\nflows = 1\n".into(), name: "vcpe.toml".into() };
    let explain = ExplainQuery {
        port: Some("0".into()),
        vrf: Some("shop".into()),
        proto: IpProto::UDP,
        src: "192.0.2.1".parse().unwrap(),
        dst: "2001:db8::1".parse().unwrap(),
        sport: 1,
        dport: 2,
        length: Some(1400),
        ttl: None,
        dscp: Dscp::new(46),
        tcp_flags: Some(2),
        icmp_type: None,
        icmp_code: Some(3),
    };
    let query = SessionQuery { filter: filter(), sort: SessionSort::Idle, limit: Some(7), count: true };
    let rekey = TunnelRekey {
        tunnel: "pop1".into(),
        spi_in: 256,
        spi_out: u32::MAX,
        key_in: KeyText::new("00ff".into()),
        key_out: KeyText::new("ff00".into()),
        now: true,
        wait: 3,
    };
    let peer = TunnelPeer {
        tunnel: "pop1".into(),
        gateway: "sag-2".into(),
        epoch: 7,
        public_key: "ab".repeat(32),
        link: "a".into(),
    };
    let ops = [
        Op::Status,
        Op::Ports,
        Op::Drops,
        Op::Acl(AclQuery { acl: Some("acl-1".into()), log: true }),
        Op::Acl(AclQuery::default()),
        Op::Routes(RouteQuery {
            covers: Some("192.0.2.1".parse().unwrap()),
            limit: Some(3),
            ..RouteQuery::default()
        }),
        Op::Routes(RouteQuery {
            within: Some("2001:db8::/32".parse().unwrap()),
            after: Some("2001:db8:1::/48@a".parse().unwrap()),
            ..RouteQuery::default()
        }),
        Op::Sessions(query),
        Op::Sessions(SessionQuery::default()),
        Op::SessionsFlush(SessionFlush { filter: filter(), all: false }),
        Op::Top(TopQuery { group: TopGroup::Service, by: TopBy::Sessions, filter: filter(), limit: None }),
        Op::Explain(explain),
        Op::Nat,
        Op::NatBindings(NatBindingQuery { filter: nat::filter(), limit: Some(9), count: false }),
        Op::NatMappings,
        Op::Qos,
        Op::Tunnels,
        Op::Ha(HaQuery { state_only: true }),
        Op::TunnelsRekey(rekey),
        Op::TunnelsConfirm(TunnelConfirm { tunnel: "pop1".into() }),
        Op::TunnelsKey(TunnelKeyQuery { gateway: "sag-1".into(), renew: true, epoch: Some(7) }),
        Op::TunnelsPeers(TunnelPeers { peers: vec![peer] }),
        Op::ConfigShow,
        Op::ConfigApply(text.clone()),
        Op::ConfigDiff(text),
        Op::ConfigDeviations(ConfigDeviations { deviations: vec![Deviation::default()] }),
        Op::Reload,
    ];
    let mut names: Vec<String> = Vec::new();
    for (id, op) in ops.into_iter().enumerate() {
        let wire = round(Request::new(id as u64, op));
        assert_eq!(wire["v"], 1);
        assert_eq!(wire["id"], id);
        let envelope: Envelope = serde_json::from_value(wire).unwrap();
        names.push(envelope.op);
    }
    names.dedup();
    assert_eq!(names, Op::NAMES);
}

#[test]
fn a_request_is_flat_and_its_arguments_optional() {
    let r: Request = serde_json::from_str(
        r#"{"id":9,"op":"sessions","v":1,"filter":{"proto":"6","src":"192.0.2.9"},"limit":5}"#,
    )
    .unwrap();
    let Op::Sessions(q) = r.op else { panic!("{r:?}") };
    assert_eq!(q.filter.proto, Some(IpProto::TCP));
    assert_eq!(q.filter.src, Some("192.0.2.9/32".parse().unwrap()));
    assert_eq!((q.limit, q.count, q.sort), (Some(5), false, SessionSort::Bytes));
    let r: Request = serde_json::from_str(r#"{"v":1,"id":1,"op":"sessions"}"#).unwrap();
    assert_eq!(r.op, Op::Sessions(SessionQuery::default()));
}

#[test]
fn a_misspelt_argument_is_refused_not_ignored() {
    for line in [
        r#"{"v":1,"id":1,"op":"sessions-flush","filter":{"sorce":"192.0.2.9"}}"#,
        r#"{"v":1,"id":1,"op":"sessions-flush","fliter":{"src":"192.0.2.9"}}"#,
        r#"{"v":1,"id":1,"op":"sessions","filter":{"src":"192.0.2.999"}}"#,
        r#"{"v":1,"id":1,"op":"sessions","filter":{"proto":"tpc"}}"#,
        r#"{"v":1,"id":1,"op":"nat-bindings","filter":{"insde":"192.0.2.9"}}"#,
        r#"{"v":1,"id":1,"op":"nat-bindings","filter":{"mapping":"symmetric"}}"#,
        r#"{"v":1,"id":1,"op":"explain","port":"0"}"#,
        r#"{"v":1,"id":1,"op":"config-apply","text":"x"}"#,
        r#"{"v":1,"id":1,"op":"config-deviations","deviation":[]}"#,
        r#"{"v":1,"id":1,"op":"reboot"}"#,
    ] {
        assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
    }
}

#[test]
fn responses_carry_ok_or_err() {
    let wire = round(Response::new(4, Ok(Flushed { flushed: 3 })));
    assert_eq!(wire, json!({"v":1,"id":4,"ok":{"flushed":3}}));
    let wire = round(Response::<Flushed>::new(5, Err(Error::not_enforced("[[qos]]"))));
    assert_eq!(wire["err"]["code"], "NotSupported");
    assert!(wire["err"]["message"].as_str().unwrap().contains("[[qos]]"));
    assert!(!wire["err"]["remedy"].as_str().unwrap().is_empty());
    let newer = r#"{"v":1,"id":5,"err":{"code":"OnFire","message":"hot"}}"#;
    let r: Response<Flushed> = serde_json::from_str(newer).unwrap();
    assert_eq!(r.into_result().unwrap_err().code, ErrorCode::Unknown);
    let more = r#"{"v":1,"id":5,"ok":{"flushed":1,"added_later":true}}"#;
    let r: Response<Flushed> = serde_json::from_str(more).unwrap();
    assert_eq!(r.into_result().unwrap().flushed, 1);
}

#[test]
fn a_share_of_nothing_does_not_spoil_an_answer() {
    let worker = Worker { busy_percent: f64::NAN, ..Worker::default() };
    let line = serde_json::to_string(&worker).unwrap();
    assert_eq!(serde_json::from_str::<Worker>(&line).unwrap().busy_percent, 0.0);
}

fn session() -> Session {
    Session {
        family: 4,
        proto: IpProto::TCP,
        src: "192.0.2.10".parse().unwrap(),
        sport: 5000,
        dst: "198.51.100.7".parse().unwrap(),
        dport: 443,
        nat_src: Some("203.0.113.2".parse().unwrap()),
        nat_sport: Some(1024),
        nat_dst: None,
        nat_dport: None,
        state: "established".into(),
        age_s: 10,
        idle_s: 2,
        packets: 7,
        bytes: 700,
        reply_packets: 5,
        reply_bytes: 5000,
        in_port: "0".into(),
        out_port: "1".into(),
        rule: Some("acr-1".into()),
        vrf: None,
        to_vrf: None,
    }
}

#[test]
fn answers_have_the_agreed_keys() {
    fn keys(v: &Value) -> Vec<&str> {
        v.as_object().unwrap().keys().map(String::as_str).collect()
    }
    let mut port = Port::new("0", "eth1", Role::Lan);
    port.vlan = VlanId::new(7);
    port.mac = Some(MacAddr([2, 0, 0, 0, 0, 1]));
    port.addresses = vec!["192.0.2.1/24".parse().unwrap()];
    let wire = round(Ports { ports: vec![port] });
    let mut want = [
        "name",
        "device",
        "vlan",
        "role",
        "up",
        "mac",
        "mtu",
        "addresses",
        "capability",
        "xdp_mode",
        "xsk_mode",
        "queues",
        "rx_packets",
        "rx_bytes",
        "tx_packets",
        "tx_bytes",
        "forwarded",
        "to_kernel",
        "held",
        "dropped",
        "originated",
        "punted",
        "fast",
        "tx_lost",
        "kernel_settings",
    ];
    let mut have = keys(&wire["ports"][0]);
    want.sort_unstable();
    have.sort_unstable();
    assert_eq!(have, want);
    assert_eq!(wire["ports"][0]["role"], "lan");
    assert_eq!(wire["ports"][0]["addresses"], json!(["192.0.2.1/24"]));

    let wire = round(Drops { drops: vec![DropRow::new("0", DropReason::NoRoute, 3)] });
    assert_eq!(wire["drops"][0]["reason"], "no-route");
    assert_eq!(wire["drops"][0]["packets"], 3);

    let wire = round(Sessions { sessions: vec![session()], total: 1 });
    assert_eq!(wire["sessions"][0]["proto"], "tcp");
    assert_eq!(wire["sessions"][0]["nat_src"], "203.0.113.2");
    assert_eq!(wire["sessions"][0]["nat_dst"], Value::Null);

    let rule = AclRule { id: "acr-1".into(), kind: "LAN".into(), ..AclRule::default() };
    let acl = Acl { id: "acl-1".into(), rules: vec![rule] };
    let findings = vec![Finding::default()];
    let wire = round(AclReport { acls: vec![acl], default: "accept".into(), findings, log: vec![] });
    assert_eq!(wire["acls"][0]["rules"][0]["type"], "LAN");
    assert_eq!(wire["acls"][0]["rules"][0]["last_hit_s"], Value::Null);

    let route = Route {
        destination: "0.0.0.0/0".parse().unwrap(),
        vrf: None,
        kind: "unicast".into(),
        protocol: "static".into(),
        metric: 100,
        source: "kernel".into(),
        next_hops: vec![NextHop { device: "eth0".into(), ..NextHop::default() }],
    };
    let next = Some("10.0.0.0/8@a".parse().unwrap());
    let wire = round(Routes { routes: vec![route], total: 1, next });
    assert_eq!(wire["next"], "10.0.0.0/8@a");
    assert_eq!(wire["routes"][0]["type"], "unicast");
    assert_eq!(wire["routes"][0]["next_hops"][0]["via"], Value::Null);

    let status =
        Status { workers: vec![Worker { busy_percent: 12.5, ..Worker::default() }], ..Status::default() };
    let wire = round(status);
    for key in [
        "ipv4",
        "ipv6",
        "capacity_ipv4",
        "capacity_ipv6",
        "created",
        "evicted",
        "evicted_established",
        "heaviest",
        "memory_bytes",
    ] {
        assert!(wire["sessions"].get(key).is_some(), "{key}");
    }
    for key in [
        "version",
        "pid",
        "uptime_s",
        "config_epoch",
        "config_file",
        "config_applied",
        "workers",
        "sessions",
        "fastpath_packets",
        "punted_packets",
        "punts",
        "warnings",
    ] {
        assert!(wire.get(key).is_some(), "{key}");
    }

    let explain = Explain {
        verdict: "forward".into(),
        stages: vec![StageTrace { stage: "acl".into(), result: "match".into(), detail: "acr-1".into() }],
        rewritten: Some(Rewritten { ttl: Some(63), ..Rewritten::default() }),
        ..Explain::default()
    };
    assert_eq!(round(explain)["rewritten"]["ttl"], 63);
    round(Top { rows: vec![TopRow::default()], ..Top::default() });
    round(ConfigShow::default());
    round(ConfigApplied { epoch: 4, changed: true, warnings: vec!["w".into()] });
    let change = Change { path: "a.b".into(), old: None, new: Some("1".into()) };
    round(ConfigDiff { changes: vec![change], warnings: vec![] });
}

proptest::proptest! {
    #[test]
    fn the_picker_equals_sorting_everything(
        rows in proptest::collection::vec((0u64..50, 0u64..50, 0u64..50, 0u64..50), 0..200),
        limit in 0u32..60,
        sort in 0u8..4,
    ) {
        let sort = [SessionSort::Bytes, SessionSort::Packets, SessionSort::Age, SessionSort::Idle][usize::from(sort)];
        let q = SessionQuery { sort, limit: Some(limit), ..SessionQuery::default() };
        let mut picker = Picker::new(&q);
        let mut all = Vec::new();
        for (n, (bytes, packets, age_s, idle_s)) in rows.iter().copied().enumerate() {
            let s = Session { bytes, packets, age_s, idle_s, reply_bytes: 0, reply_packets: 0, ..session() };
            picker.offer(&s.facts(), n);
            all.push((match sort {
                SessionSort::Bytes => bytes,
                SessionSort::Packets => packets,
                SessionSort::Age => age_s,
                SessionSort::Idle => idle_s,
            }, n));
        }
        all.sort_by_key(|(rank, n)| (std::cmp::Reverse(*rank), *n));
        let want: Vec<usize> = all.iter().take(limit as usize).map(|(_, n)| *n).collect();
        proptest::prop_assert_eq!(picker.finish(), (want, rows.len() as u64));
    }

    #[test]
    fn protocols_read_back(n: u8) {
        let p = IpProto(n);
        proptest::prop_assert_eq!(p.to_string().parse::<IpProto>(), Ok(p));
        proptest::prop_assert_eq!(p.to_string().to_uppercase().parse::<IpProto>(), Ok(p));
    }
}

#[test]
fn counting_lists_nothing() {
    let q = SessionQuery { count: true, ..SessionQuery::default() };
    let mut picker = Picker::new(&q);
    for n in 0..10 {
        picker.offer(&session().facts(), n);
    }
    assert_eq!(picker.finish(), (vec![], 10));
}

#[test]
fn top_sums_by_group_and_orders() {
    let other = Session { src: "192.0.2.11".parse().unwrap(), bytes: 100_000, dport: 80, ..session() };
    let icmp = Session { proto: IpProto::ICMP, dport: 77, bytes: 1, reply_bytes: 0, ..session() };
    let rows = |group, by| {
        let q = TopQuery { group, by, ..TopQuery::default() };
        let mut top = TopCollector::new(&q);
        for s in [&session(), &session(), &other, &icmp] {
            top.offer(&s.facts());
        }
        top.finish()
    };
    let keys = |t: &Top| t.rows.iter().map(|r| (r.key.clone(), r.sessions)).collect::<Vec<_>>();
    let t = rows(TopGroup::Src, TopBy::Bytes);
    assert_eq!(keys(&t), [("192.0.2.11".into(), 1), ("192.0.2.10".into(), 3)]);
    assert_eq!((t.rows[1].bytes, t.rows[1].reply_bytes, t.total), (1401, 10_000, 2));
    let t = rows(TopGroup::Src, TopBy::Sessions);
    assert_eq!(keys(&t)[0].0, "192.0.2.10");
    let t = rows(TopGroup::Service, TopBy::Bytes);
    assert_eq!(keys(&t), [("tcp/80".into(), 1), ("tcp/443".into(), 2), ("icmp".into(), 1)]);
    let t = rows(TopGroup::Session, TopBy::Bytes);
    assert_eq!(t.rows[0].key, "tcp 192.0.2.11:5000 > 198.51.100.7:80");
}

#[test]
fn top_keeps_the_largest_however_many_groups() {
    let q = TopQuery { limit: Some(1), ..TopQuery::default() };
    let mut top = TopCollector::new(&q);
    let mut s = session();
    let n = 600_000u32;
    for i in 0..n {
        s.src = std::net::Ipv4Addr::from(0x0a00_0000 + i).into();
        s.bytes = if i == 1000 { 1_000_000 } else { 1 };
        top.offer(&s.facts());
    }
    let t = top.finish();
    assert_eq!(t.rows[0].key, "10.0.3.232");
    assert_eq!(t.total, u64::from(n));
}

#[test]
fn the_manual_names_every_operation_and_every_key_of_lists() {
    let manual = include_str!("../../../../docs/control.md");
    let protocol = manual.split("\n## ").find(|p| p.starts_with("Protocol")).unwrap();
    let keys = |v: Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let names = Op::NAMES.iter().map(|n| (*n).to_owned());
    let lists = [
        serde_json::to_value(filter()).unwrap(),
        serde_json::to_value(nat::filter()).unwrap(),
        serde_json::to_value(session()).unwrap(),
        serde_json::to_value(SessionTotals::default()).unwrap(),
        serde_json::to_value(NatTotals::default()).unwrap(),
        serde_json::to_value(PortUse::default()).unwrap(),
    ];
    for name in names.chain(lists.into_iter().flat_map(keys)) {
        assert!(protocol.contains(&format!("`{name}`")), "docs/control.md: {name} is missing");
    }
}
