//! Messages of others as texts: control socket, cloud API, southbound protocol.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use sag_agent::compile::{Base, compile};
use sag_agent::desired::Desired;
use sag_cloud::api::Op;
use sag_cloud::api::params::Params;
use sag_cloud::api::validate::validate;
use sag_cloud::domain::caller::SigningKeys;
use sag_cloud::service::sign::{Claim, Request as Signed};
use sag_cloud::store::devices::Reported;
use sag_model::config;
use sag_model::control::Request;
use sag_southbound::{DeviceDocument, StateReport, read};
use std::collections::BTreeMap;

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
    match compile(&desired, &base, &BTreeMap::new(), &BTreeMap::new(), None) {
        Err(problems) => assert!(!problems.is_empty() && problems.iter().all(|p| !p.is_empty())),
        Ok(compiled) => {
            if let Err(e) = config::parse(&compiled.text, "compiled.toml") {
                panic!("{e}\nin\n{}", compiled.text);
            }
        }
    }
}

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
}
