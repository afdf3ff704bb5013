//! Messages of others as texts: control socket, cloud API, southbound protocol.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use ipnet::Ipv4Net;
use sag_agent::compile::{Base, Compiled, compile};
use sag_agent::desired::{Ccn, Desired};
use sag_agent::overlay::LocalEndpoint;
use sag_agent::peers::{Known, Peers};
use sag_cloud::api::Op;
use sag_cloud::api::params::Params;
use sag_cloud::api::validate::validate;
use sag_cloud::domain::caller::SigningKeys;
use sag_cloud::domain::membership::Announced;
use sag_cloud::domain::policy;
use sag_cloud::service::sign::{Claim, Request as Signed};
use sag_cloud::store::devices::Reported;
use sag_model::config;
use sag_model::control::Request;
use sag_southbound::{Announcement, DeviceDocument, StateReport, read};
use sag_tunnel::esp::{Ledger, SaId};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// A line of the control socket: what is accepted is written and read again without a change.
pub(crate) fn control_request(data: &[u8]) {
    let Ok(request) = serde_json::from_slice::<Request>(data) else { return };
    let text = serde_json::to_string(&request).unwrap_or_else(|e| panic!("{e}: {request:?}"));
    match serde_json::from_str::<Request>(&text) {
        Ok(again) => assert_eq!(again, request, "{text}"),
        Err(e) => panic!("{e}: {text}"),
    }
}

/// When the requests of the corpus were signed.
const SIGNED_AT_MS: i64 = 1_456_231_584_000;

/// A request of the cloud API: a line with method and target, lines of headers, an empty line, the body. Nobody but
/// the owner of the secret makes a signature, and what the catalogue's checks let pass can be read.
pub(crate) fn signed_request(data: &[u8]) {
    let at = data.windows(2).position(|w| w == b"\n\n").unwrap_or(data.len());
    let (head, body) = (&data[..at], data.get(at + 2..).unwrap_or_default());
    let Ok(head) = std::str::from_utf8(head) else { return };
    let mut lines = head.split('\n');
    let Some((method, target)) = lines.next().and_then(|l| l.split_once(' ')) else { return };
    let (path, query_text) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|l| l.split_once(": ")) {
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) else {
            return;
        };
        headers.append(name, value);
    }
    let mut query = Params::default();
    if query.parse_into(query_text).is_err() {
        return;
    }
    let mut params = query.clone();
    if let Ok(form) = std::str::from_utf8(body)
        && params.parse_into(form).is_err()
    {
        return;
    }
    let request = Signed { method, path, headers: &headers, query: &query, params: &params, body };
    let Ok(claim) = Claim::read(&request, SIGNED_AT_MS) else { return };
    assert!(!claim.key_id.is_empty() || !claim.nonce.is_empty());
    assert!(claim.verify(&SigningKeys::new("a secret of nobody")).is_err(), "{head}");
    if let Some(op) = Op::by_name(&claim.action)
        && validate(op, &mut params).is_ok()
    {
        let again = validate(op, &mut params);
        assert!(again.is_ok(), "{}: defaults are refused: {again:?}", op.name());
    }
}

/// What the agent takes from the cloud: a document is refused by name, or compiles to a configuration that the gateway
/// takes.
pub(crate) fn device_document(data: &[u8]) {
    let Ok(value) = serde_json::from_slice(data) else { return };
    let document: DeviceDocument = match read(value) {
        Ok(document) => document,
        Err(e) => return assert!(!e.to_string().is_empty()),
    };
    let desired = Desired::from(document);
    // What the agent keeps on disk, and starts with when the cloud is away.
    let kept = serde_json::to_vec(&desired).unwrap_or_else(|e| panic!("{e}: {desired:?}"));
    match serde_json::from_slice::<Desired>(&kept) {
        Ok(again) => assert_eq!(again, desired),
        Err(e) => panic!("{e}: {}", String::from_utf8_lossy(&kept)),
    }
    let base = Base::from_toml(BASE).unwrap_or_else(|e| panic!("{e}"));
    let compiled = |desired: &Desired, endpoint: Option<&LocalEndpoint>| {
        let compiled = compile(desired, &base, &BTreeMap::new(), &BTreeMap::new(), endpoint);
        match &compiled {
            Err(problems) => assert!(!problems.is_empty() && problems.iter().all(|p| !p.is_empty())),
            Ok(compiled) => {
                if let Err(e) = config::parse(&compiled.text, "compiled.toml") {
                    panic!("{e}\nin\n{}", compiled.text);
                }
            }
        }
        compiled
    };
    let without_tunnels = compiled(&desired, None);
    let Some(ccn) = &desired.ccn else { return };
    let endpoint = local_endpoint();
    match compiled(&desired, Some(&endpoint)) {
        Ok(compiled) => tunnels_of_a_network(ccn, &endpoint, &compiled),
        // What other members announce costs them their tunnels, and this gateway nothing.
        Err(problems) => assert!(without_tunnels.is_err(), "{problems:?}"),
    }
}

/// A tunnel for each device that is in order, or one by each of its lines, each to an address of its own outside of all
/// that is routed, and no block of one member by a tunnel of another one that is not the hub.
fn tunnels_of_a_network(ccn: &Ccn, endpoint: &LocalEndpoint, compiled: &Compiled) {
    let mut ends = BTreeSet::new();
    let mut remotes: BTreeMap<Ipv4Addr, &String> = BTreeMap::new();
    let mut owners: BTreeMap<Ipv4Net, &str> = BTreeMap::new();
    for t in &compiled.tunnels {
        assert!(t.name.len() <= 64 && t.endpoint.addresses().any(|a| a == IpAddr::V4(t.remote)), "{t:?}");
        assert!(t.gateway != endpoint.gateway && t.peer.sn != endpoint.sn, "{t:?}");
        assert!(ends.insert((t.local, t.remote)), "{t:?}: twice");
        assert_eq!(*remotes.entry(t.remote).or_insert(&t.peer.sn), &t.peer.sn, "{t:?}");
        assert!(endpoint.addresses.iter().all(|(_, own)| own.addr() != t.remote), "{t:?}");
        for (block, owner) in &t.blocks {
            let net: Ipv4Net = block.parse().unwrap_or_else(|e| panic!("{block}: {e}"));
            assert!(*owner == t.gateway || ccn.hub == t.gateway, "{t:?}");
            assert_eq!(*owners.entry(net).or_insert(owner), owner, "{block}");
        }
    }
    for (net, owner) in &owners {
        let meets = |other: &&Ipv4Net| net.contains(*other) && *other != net;
        assert_eq!(owners.keys().find(meets), None, "inside of {net} of {owner}");
        assert!(remotes.keys().all(|r| !net.contains(r)), "a tunnel ends in {net} of {owner}");
    }
    assert!(compiled.tunnels.is_empty() || compiled.local.is_some());
}

/// The end of tunnels of a gateway that has recognised two devices before, one of which signs.
fn local_endpoint() -> LocalEndpoint {
    let known = |fingerprint: &str, address: &str| Known {
        gateway: "sag-2".into(),
        fingerprint: fingerprint.into(),
        epoch: 4,
        public_key: "ab".repeat(32),
        address: address.into(),
        seen: NOW,
    };
    LocalEndpoint {
        addresses: vec![("eth0".into(), net("203.0.113.2/24")), ("eth1".into(), net("192.168.1.1/24"))],
        gateway: "sag-1".into(),
        sn: "sn1".into(),
        known: Peers(BTreeMap::from([
            ("sn2".into(), known("", "203.0.113.7")),
            ("sn3".into(), known("605c-ca0f-0000-1111-2222-3333-4444-5555", "203.0.113.9")),
        ])),
        now: NOW,
        ..LocalEndpoint::default()
    }
}

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Seconds since 1970.
const NOW: i64 = 1_700_000_000;

const BASE: &str = "[[port]]\nname = \"0\"\ndevice = \"eth0\"\nrole = \"wan\"\n\
    [[port]]\nname = \"1\"\ndevice = \"eth1\"\nrole = \"lan\"\n\
    [[port]]\nname = \"3\"\ndevice = \"eth3\"\nrole = \"express\"\n";

/// What the cloud takes from a device: a report is refused by name, or kept without a change.
pub(crate) fn state_report(data: &[u8]) {
    let Ok(value) = serde_json::from_slice(data) else { return };
    let report: StateReport = match read(value) {
        Ok(report) => report,
        Err(e) => return assert!(!e.to_string().is_empty()),
    };
    let kept = serde_json::to_value(&report).unwrap_or_else(|e| panic!("{e}: {report:?}"));
    match read::<StateReport>(kept.clone()) {
        Ok(again) => assert_eq!(again, report),
        Err(e) => panic!("{e}: {kept}"),
    }
    let _: Reported = Reported::of(&report);
    if let Some(announced) = &report.overlay {
        announcement(announced);
    }
}

/// What a device announces to the other members of its network. It is accepted once, and refused with a reason.
fn announcement(announced: &Announcement) {
    let mut kept = Announced::default();
    let changed = kept.report(announced, "sag-2", "sn2", NOW * 1000);
    assert_eq!(changed, kept.problem.is_empty(), "{kept:?}");
    match announced.check("sag-2", "sn2") {
        Ok(endpoint) => {
            assert_eq!(endpoint.identity.is_some(), !announced.identity.is_empty());
            let Some(given) = &kept.announcement else {
                return assert!(!kept.problem.is_empty(), "{kept:?}");
            };
            assert_eq!(given.check("sag-2", "sn2"), Ok(endpoint), "the members get what was signed");
            assert!(!kept.report(announced, "sag-2", "sn2", NOW * 1000 + 1) && kept.problem.is_empty());
        }
        Err(e) => assert_eq!((kept.problem, kept.announcement), (e.to_string(), None)),
    }
}

/// A policy and a call: a line with the action, one with the name of a thing, then the document.
pub(crate) fn access_policy(data: &[u8]) {
    let mut lines = data.splitn(3, |b| *b == b'\n');
    let (Some(action), Some(name), Some(document)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let (Ok(action), Ok(name)) = (std::str::from_utf8(action), std::str::from_utf8(name)) else { return };
    let Ok(document) = serde_json::from_slice::<Value>(document) else { return };
    if let Err(e) = policy::check(&document) {
        assert!(!e.to_string().is_empty());
    }
    // Also without the checks: an older version may have stored it.
    let context = policy::Context { source: IpAddr::from([192, 0, 2, 1]), now: NOW * 1000 };
    let rules = policy::Rules::of(&[policy::Policy::new(&document)], action, &context);
    let permitted = rules.permit(&[name]);
    assert!(!(permitted && (rules.permit_nothing() || rules.deny_all(&[name]))), "{name}");
    assert!(permitted || !rules.permit_everything(), "{name}");
    // A list looks only at what may be permitted.
    let divides = |c: char| c == ':' || c == '/';
    let beginning = &name[..name.rfind(divides).map_or(0, |at| at + 1)];
    assert!(!permitted || rules.may_permit(beginning), "{name}");
}

/// The record of the sequence numbers of static keys: a damaged one is refused, and whatever one says, no number is given
/// out twice.
pub(crate) fn ledger(data: &[u8]) {
    if let Err(e) = Ledger::parse(data) {
        assert!(!e.to_string().is_empty());
    }
    // One whose check sum is right.
    let Ok(ledger) = serde_json::from_slice::<Ledger>(data) else { return };
    let text = ledger.text();
    let Ok(mut ledger) = Ledger::parse(text.as_bytes()) else { return };
    assert_eq!(ledger.text(), text);
    let (one, other) = (SaId::of(&[1; 20], 0x1001), SaId::of(&[2; 20], 0x1002));
    let mut end = 0;
    for n in 0..3 {
        let Ok(mut lease) = ledger.send(one, n != 1, NOW as u64 * 1_000_000_000) else { break };
        assert!(end <= lease.first && lease.first < lease.end, "{lease:?} after {end}");
        let next = lease.first + 1;
        if ledger.extend(&mut lease, next, 1 << 28).is_ok() {
            assert!(lease.end > next);
        }
        end = lease.end;
    }
    let top = ledger.receive(other);
    ledger.set_received(other, top.saturating_add(32));
    let epoch = ledger.next_epoch(NOW as u64);
    assert!(ledger.next_epoch(0) >= epoch);
    assert!(Ledger::parse(ledger.text().as_bytes()).is_ok_and(|again| again.text() == ledger.text()));
}
