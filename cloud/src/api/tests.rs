use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::Value;

use super::shape::shape;
use super::validate::{check_value, matches_pattern, port_range, validate};
use super::{Node, Op, Pattern, xml};
use crate::api::params::Params;
use crate::time;

const CATALOGUE: &str = include_str!("../../catalogue/smartag-2018-03-13.json");
/// What clients of the vendor's API send: of each operation the parameters that the SDK marks as required, and of each
/// parameter values of the SDK's models, the documents' examples and sentences, and Terraform's provider.
const CLIENTS: &str = include_str!("../../catalogue/clients.json");
const EXTENSIONS: &str = include_str!("../../catalogue/extensions.json");

/// Those of the vendor, and those that only this cloud has.
fn operations() -> Vec<Value> {
    let of = |catalogue: &str| -> Vec<Value> {
        let doc: Value = serde_json::from_str(catalogue).expect("the catalogue is JSON");
        doc["operations"].as_array().expect("a list").clone()
    };
    let (vendor, own) = (of(CATALOGUE), of(EXTENSIONS));
    assert_eq!((vendor.len(), own.len()), (205, 4));
    [vendor, own].concat()
}

#[test]
fn every_operation_of_the_catalogue_is_known_once() {
    let names: HashSet<String> =
        operations().iter().map(|o| o["name"].as_str().expect("a name").to_owned()).collect();
    assert_eq!(names.len(), 205 + 4);
    let ours: HashSet<String> = Op::ALL.iter().map(|op| op.name().to_owned()).collect();
    assert_eq!(names, ours);
    assert!(Op::ALL.iter().all(|op| Op::by_name(op.name()) == Some(*op)));
}

fn type_ok(kind: &str, v: &Value) -> bool {
    match kind {
        "String" => v.is_string(),
        "Integer" | "Long" => v.is_i64(),
        "Boolean" => v.is_boolean(),
        "Object" => v.is_object(),
        _ => v.is_array(),
    }
}

/// Every field of an answer is documented and has its documented type.
fn check(op: &Value, path: &str, v: &Value) {
    let fields = op["response_fields"].as_array().expect("fields");
    for (k, item) in v.as_object().expect("an object") {
        let at = format!("{path}{k}");
        let field = fields.iter().find(|f| f["path"] == at.as_str());
        let field = field.unwrap_or_else(|| panic!("{}: {at} is not documented", op["name"]));
        let kind = field["type"].as_str().expect("a type");
        assert!(type_ok(kind, item), "{}: {at} is not of the type {kind}: {item}", op["name"]);
        if item.is_object() {
            check(op, &format!("{at}."), item);
        }
        for row in item.as_array().into_iter().flatten().filter(|r| r.is_object()) {
            check(op, &format!("{at}[]."), row);
        }
    }
}

/// The leaves of an answer as text, however the lists around them are wrapped.
fn leaves(v: &Value, out: &mut Vec<String>) {
    match v {
        Value::Object(m) => m.values().for_each(|v| leaves(v, out)),
        Value::Array(a) => a.iter().for_each(|v| leaves(v, out)),
        Value::String(s) => out.push(s.clone()),
        other => out.push(other.to_string()),
    }
}

#[test]
fn examples_keep_their_content_and_get_the_documented_form() {
    for op in operations() {
        let name = op["name"].as_str().expect("a name");
        let spec = Op::by_name(name).expect("known").spec();
        let example = op["response"].clone();
        let shaped = shape(&spec.response, &example);
        check(&op, "", &shaped);
        assert_eq!(shaped, shape(&spec.response, &shaped), "{name}: shaping twice differs");
        let (mut before, mut after) = (Vec::new(), Vec::new());
        leaves(&example, &mut before);
        leaves(&shaped, &mut after);
        before.sort();
        after.retain(|l| !l.is_empty());
        after.sort();
        // Accounts are masked with stars in some examples, which no number can be.
        before.retain(|l| !l.is_empty() && !l.contains('*'));
        after.retain(|l| l != "0" || before.contains(l));
        let lost: Vec<&String> =
            before.iter().filter(|l| !after.contains(l) && **l != "true" && **l != "false").collect();
        assert!(lost.is_empty(), "{name} loses {lost:?}");
    }
}

#[test]
fn an_empty_answer_still_has_the_keys_that_examples_always_show() {
    for op in operations() {
        let name = op["name"].as_str().expect("a name");
        let shaped = shape(&Op::by_name(name).expect("known").spec().response, &Value::Null);
        for key in op["response"].as_object().expect("an object").keys() {
            assert!(shaped.get(key).is_some(), "{name} lacks {key}");
        }
    }
}

#[test]
fn examples_become_well_formed_xml() {
    for op in operations() {
        let name = op["name"].as_str().expect("a name");
        let root = format!("{name}Response");
        let text =
            xml::document(&root, &shape(&Op::by_name(name).expect("known").spec().response, &op["response"]));
        let mut open: Vec<&str> = Vec::new();
        for tag in text.split('<').skip(2) {
            let tag = tag.split('>').next().expect("a tag");
            match tag.strip_prefix('/') {
                Some(end) => assert_eq!(open.pop(), Some(end), "{name}"),
                None => open.push(tag),
            }
        }
        assert!(open.is_empty(), "{name}");
    }
}

#[test]
fn xml_escapes_and_repeats() {
    let v = serde_json::json!({"A": [{"B": "<&\u{1}>"}, {"B": 2}], "C": ["x", "y"]});
    assert_eq!(
        xml::document("R", &v),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><R><A><B>&lt;&amp;\u{fffd}&gt;</B></A>\
         <A><B>2</B></A><C>x</C><C>y</C></R>"
    );
}

#[test]
fn bare_lists_are_wrapped_where_the_catalogue_wraps() {
    let rules = serde_json::json!({"Acrs": [{"AcrId": "acr-1", "Priority": "7"}]});
    let shaped = shape(&Op::DescribeACLAttribute.spec().response, &rules);
    assert_eq!(shaped["Acrs"]["Acr"][0]["Priority"], 7);
    assert!(matches!(Op::DescribeSagRouteList.spec().response, Node::Object(_)));
}

fn request(op: Op, pairs: &[(&str, &str)]) -> Result<Params, String> {
    let mut p = Params::default();
    for (k, v) in pairs {
        p.set(k, v);
    }
    validate(op, &mut p).map(|()| p).map_err(|e| format!("{} {}", e.status, e.code))
}

#[test]
fn documented_codes_for_missing_and_wrong_parameters() {
    let qos = |pairs: &[(&str, &str)]| request(Op::CreateQos, pairs).map(|_| ());
    assert_eq!(qos(&[("RegionId", "r")]), Err("400 MissParameter.Name".to_owned()));
    assert_eq!(qos(&[("RegionId", "r"), ("QosName", "1")]), Err("400 InvalidParameter.Name".to_owned()));
    assert_eq!(qos(&[("RegionId", "r"), ("QosName", "名字.a_1-b")]), Ok(()));
    let hc = request(Op::DescribeHealthChecks, &[("RegionId", "r")]);
    assert_eq!(hc.map(|_| ()), Err("400 SAG.InstanceIdEmpty".to_owned()));
    let wan =
        [("RegionId", "r"), ("SmartAGId", "s"), ("SmartAGSn", "n"), ("PortName", "0"), ("IPType", "STATIC")];
    assert_eq!(request(Op::ModifySagWan, &wan).map(|_| ()), Err("403 MissingParameter".to_owned()));
}

#[test]
fn defaults_are_filled_in_for_new_things_only() {
    let rule = [
        ("RegionId", "r"),
        ("AclId", "a"),
        ("AcrId", "b"),
        ("DestCidr", "10.0.0.0/8"),
        ("SourceCidr", "10.0.0.0/8"),
        ("DestPortRange", "1/2"),
        ("SourcePortRange", "-1/-1"),
        ("Direction", "in"),
        ("IpProtocol", "tcp"),
        ("Policy", "drop"),
    ];
    let added = request(Op::AddACLRule, &rule).expect("valid");
    assert_eq!((added.get("Priority"), added.get("Type")), (Some("1"), Some("LAN")));
    let changed = request(Op::ModifyACLRule, &rule).expect("valid");
    assert_eq!((changed.get("Priority"), changed.get("Type")), (None, None));
}

/// Parameters that the documents require and the SDK does not, and why they stay required.
const REQUIRED_ALL_THE_SAME: [(&str, &str); 13] = [
    // There is no documented default that could stand for them.
    ("CreateFlowLog", "OutputType"),
    ("CreateSmartAccessGateway", "MaxBandWidth"),
    ("DowngradeSmartAccessGateway", "BandWidthSpec"),
    ("UpgradeSmartAccessGateway", "BandWidthSpec"),
    // The answer is about the object that they name.
    ("DescribeFlowLogSags", "FlowLogId"),
    ("DescribeGrantSagVbrRules", "SmartAGId"),
    ("ListDpiConfigError", "SmartAGId"),
    // The SDK marks none of their parameters.
    ("AttachCcnInstanceToCen", "CcnId"),
    ("AttachCcnInstanceToCen", "CenId"),
    ("DetachCcnInstanceFromCen", "CcnId"),
    ("DetachCcnInstanceFromCen", "CenId"),
    ("ViewSmartAccessGatewayWanSnat", "SagInsId"),
    ("ViewSmartAccessGatewayWanSnat", "SagSn"),
];

#[test]
fn the_catalogue_is_no_stricter_than_what_clients_send() {
    let clients: Value = serde_json::from_str(CLIENTS).expect("JSON");
    let clients = clients.as_object().expect("an object");
    let (mut values, mut wrong) = (0, Vec::new());
    for (name, client) in clients {
        let op = Op::by_name(name).expect("an operation");
        for p in op.spec().params {
            for value in client["values"][p.name].as_array().into_iter().flatten() {
                let value = value.as_str().expect("text");
                values += 1;
                if check_value(op, p, value).is_err() {
                    wrong.push(format!("{name}: {}={value}", p.name));
                }
            }
            let Some(required) = client["required"].as_array() else { continue };
            let same = !p.required || required.iter().any(|r| r == p.name);
            if same == REQUIRED_ALL_THE_SAME.contains(&(name.as_str(), p.name)) {
                wrong.push(format!("{name}: {} required: {}", p.name, p.required));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(clients.len() == 205 && values > 800, "{values} values of {} operations", clients.len());
}

#[test]
fn what_is_written_in_several_ways_is_read_in_one() {
    let lists = |value: &str| {
        let found = request(Op::DescribeSmartAccessGateways, &[("RegionId", "r"), ("SmartAGIds", value)]);
        found.expect("valid").list("SmartAGIds").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lists(r#"["sag-1", "sag-2"]"#), ["sag-1", "sag-2"]);
    assert_eq!(lists("sag-1,sag-2"), ["sag-1", "sag-2"]);
    assert_eq!(crate::api::request::separated("[1,\"b\"]"), ["1", "b"]);
    assert_eq!(crate::api::request::separated("[x"), ["[x"]);
    // The spelling of the documents, whatever the case of letters.
    let role =
        [("RegionId", "r"), ("SmartAGId", "s"), ("SmartAGSn", "n"), ("PortName", "0"), ("Role", "wan")];
    assert_eq!(request(Op::ModifySagPortRole, &role).expect("valid").get("Role"), Some("WAN"));
    // No list answers more rows than another.
    for op in Op::ALL {
        for p in op.spec().params.iter().filter(|p| ["PageSize", "MaxResults"].contains(&p.name)) {
            assert_eq!(p.range, Some((1, i64::from(i32::MAX))), "{}", op.name());
        }
    }
    let size = |n: &str| {
        let page = request(Op::DescribeACLs, &[("RegionId", "r"), ("PageSize", n)]);
        page.map(|p| p.get("PageSize").unwrap_or_default().to_owned())
    };
    assert_eq!((size("100"), size("101")), (Ok("100".to_owned()), Ok("100".to_owned())));
    assert!(size("0").is_err() && size("-1").is_err());
}

#[test]
fn patterns() {
    assert!(matches_pattern(Pattern::EnterpriseCode, "12Pab"));
    assert!(!matches_pattern(Pattern::EnterpriseCode, "12345"));
    assert!(matches_pattern(Pattern::Month, "202612") && !matches_pattern(Pattern::Month, "202613"));
    assert_eq!(port_range("80/80"), Some((80, 80)));
    for bad in ["80", "0/1", "2/1", "-1/5", "1/65536", "a/b"] {
        assert_eq!(port_range(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn no_value_panics(op in 0usize..Op::ALL.len(), values in proptest::collection::vec(".{0,40}", 40)) {
        let op = Op::ALL[op];
        let mut params = Params::default();
        for (p, v) in op.spec().params.iter().zip(&values) {
            params.set(p.name, v);
        }
        let _ = validate(op, &mut params);
        for v in &values {
            let _ = time::parse(v);
        }
    }
}
