use std::net::IpAddr;

use serde_json::json;

use super::*;
use crate::store::Kind;

fn call(source: &str, now: &str) -> Context {
    let source: IpAddr = source.parse().expect("an address");
    Context { source, now: crate::time::parse(now).expect("a time") * 1000 }
}

fn names(kind: Kind, id: &str, parent: &str) -> Vec<String> {
    Resource { kind, id, uid: 7, region: "cn-shanghai", parent }.names()
}

/// Whether the statements allow the action on an object.
fn permits(statements: Value, action: &str, names: &[String]) -> bool {
    permits_from(statements, action, names, &call("192.0.2.1", "2026-11-22T05:00:00Z"))
}

fn permits_from(statements: Value, action: &str, names: &[String], call: &Context) -> bool {
    let policy = Policy::new(&json!({"Version": "1", "Statement": statements}));
    Rules::of(&[policy], action, call).permit(names)
}

#[test]
fn deny_wins_and_silence_refuses() {
    let statements = json!([
        {"Effect": "Allow", "Action": ["smartag:Describe*", "smartag:DeleteACL"], "Resource": "*"},
        {"Effect": "Deny", "Action": "smartag:*", "Resource": "acs:smartag:*:*:acl/acl-1"},
    ]);
    let ask = |action, id: &str| permits(statements.clone(), action, &names(Kind::Acl, id, ""));
    assert!(ask("DescribeACLs", "acl-2"));
    assert!(ask("DeleteACL", "acl-2"));
    assert!(!ask("DeleteACL", "acl-1"));
    assert!(!ask("CreateACL", "acl-2"));
}

#[test]
fn documented_names_and_those_of_before_match() {
    for (kind, id, parent, matching) in [
        (Kind::Gateway, "sag-1", "", ["smartag/sag-1", "smartaccessgateway/sag-1", "smartag/*"]),
        (Kind::Ccn, "ccn-1", "", ["ccn/ccn-1", "cloudconnectnetwork/ccn-1", "ccn/*"]),
        (Kind::SnatEntry, "snat-1", "sag-1", ["smartag/sag-1", "smartaccessgateway/*", "*/sag-1"]),
        (Kind::CenGrant, "ccn-1/cen-1", "ccn-1", ["ccn/ccn-1", "cloudconnectnetwork/*", "*/ccn-1"]),
        (Kind::AclRule, "acr-1", "acl-1", ["acl/acl-1", "acl/*", "acl/acl-?"]),
        (Kind::QosCar, "qoscar-1", "qos-1", ["qos/qos-1", "qos/*", "qos/qos-?"]),
        (Kind::HealthCheck, "hc-1", "sag-1", ["healthcheck/hc-1", "smartag/sag-1", "smartaccessgateway/*"]),
    ] {
        let names = names(kind, id, parent);
        for name in matching {
            let resource = format!("acs:smartag:cn-shanghai:7:{name}");
            let allow = json!([{"Effect": "Allow", "Action": "*", "Resource": resource}]);
            assert!(permits(allow.clone(), "X", &names), "{name} allows {id}");
            let deny = json!([
                {"Effect": "Allow", "Action": "*", "Resource": "*"},
                {"Effect": "Deny", "Action": "*", "Resource": resource.to_uppercase()},
            ]);
            assert!(!permits(deny, "X", &names), "{name} denies {id}");
            let other =
                json!([{"Effect": "Allow", "Action": "*", "Resource": resource.replace(":7:", ":8:")}]);
            assert!(!permits(other, "X", &names), "of another account");
        }
    }
}

#[test]
fn the_opposites_of_elements() {
    let gateway = |id: &str| names(Kind::Gateway, id, "");
    let but = json!([{"Effect": "Allow", "Action": "*", "NotResource": "acs:smartag:*:*:smartag/sag-1"}]);
    assert!(!permits(but.clone(), "X", &gateway("sag-1")) && permits(but, "X", &gateway("sag-2")));
    let only = json!([
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": "*", "NotResource": "acs:smartag:*:*:smartaccessgateway/sag-1"},
    ]);
    assert!(permits(only.clone(), "X", &gateway("sag-1")) && !permits(only, "X", &gateway("sag-2")));
    let reads = json!([{"Effect": "Allow", "NotAction": ["smartag:Delete*"], "Resource": "*"}]);
    assert!(permits(reads.clone(), "DescribeACLs", &gateway("sag-1")));
    assert!(!permits(reads, "deleteACL", &gateway("sag-1")));
}

#[test]
fn conditions_known_and_unknown() {
    let gateway = names(Kind::Gateway, "sag-1", "");
    let from = |effect: &str, condition: &Value, source: &str, now: &str| {
        let statements = json!([
            {"Effect": if effect == "Deny" { "Allow" } else { "Deny" }, "Action": "smartag:Y", "Resource": "*"},
            {"Effect": "Allow", "Action": "X", "Resource": "*"},
            {"Effect": effect, "Action": "*", "Resource": "*", "Condition": condition},
        ]);
        let all = if effect == "Deny" {
            json!([{"Effect": "Allow", "Action": "*", "Resource": "*"}, statements[2]])
        } else {
            json!([statements[2]])
        };
        permits_from(all, "X", &gateway, &call(source, now))
    };
    let noon = "2026-11-22T12:00:00Z";
    let inside = json!({"IpAddress": {"acs:SourceIp": ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1"]}});
    for (source, holds) in [
        ("10.1.2.3", true),
        ("192.0.2.1", true),
        ("::ffff:10.1.2.3", true),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
        ("192.0.2.2", false),
    ] {
        assert_eq!(from("Allow", &inside, source, noon), holds, "{source}");
        assert_eq!(from("Deny", &inside, source, noon), !holds, "{source}");
        let outside = json!({"NotIpAddress": {"acs:SourceIp": inside["IpAddress"]["acs:SourceIp"]}});
        assert_eq!(from("Allow", &outside, source, noon), !holds, "{source}");
        assert_eq!(from("Deny", &outside, source, noon), holds, "{source}");
    }
    let until = json!({"DateLessThan": {"acs:CurrentTime": "2026-11-22T12:00:01Z"}});
    assert!(from("Allow", &until, "192.0.2.1", noon));
    assert!(!from("Allow", &until, "192.0.2.1", "2026-11-22T12:00:01Z"));
    // All must hold.
    let both = json!({"DateLessThan": {"acs:CurrentTime": "2026-11-22T12:00:01Z"}, "IpAddress": {"acs:SourceIp": "10.0.0.1"}});
    assert!(from("Allow", &both, "10.0.0.1", noon) && !from("Allow", &both, "10.0.0.2", noon));
    for unknown in [
        json!({"Bool": {"acs:MFAPresent": "true"}}),
        json!({"StringLike": {"acs:SourceIp": "10.*"}}),
        json!({"NumericLessThan": {"smartag:Bandwidth": 5}}),
        json!({"IpAddress": {"acs:SourceIp": "ten"}}),
        json!({"IpAddress": {"acs:SourceIp": []}}),
        json!({"IpAddress": "10.0.0.0/8"}),
        json!("yes"),
    ] {
        assert!(!from("Allow", &unknown, "10.0.0.1", noon), "{unknown} allows nothing");
        assert!(!from("Deny", &unknown, "10.0.0.1", noon), "{unknown} denies");
    }
    // What is known not to hold counts, whatever stands beside it.
    let mixed = json!({"Bool": {"acs:MFAPresent": "true"}, "IpAddress": {"acs:SourceIp": "10.0.0.1"}});
    assert!(from("Deny", &mixed, "10.0.0.2", noon) && !from("Deny", &mixed, "10.0.0.1", noon));
}

#[test]
fn a_policy_that_means_nothing_is_refused() {
    let with = |statement: Value| json!({"Statement": [statement]});
    for bad in [
        json!({}),
        json!({"Statement": []}),
        with(json!({"Effect": "allow", "Action": "*", "Resource": "*"})),
        with(json!({"Effect": "Allow", "Action": "*"})),
        with(json!({"Effect": "Allow", "Action": "*", "Resource": "*", "NotResource": "*"})),
        with(json!({"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"})),
        with(json!({"Effect": "Allow", "Action": ["*", 1], "Resource": "*"})),
        with(json!({"Effect": "Deny", "Action": "*", "Resource": "acs:smartag:*:*:gateway/sag-1"})),
        with(json!({"Effect": "Deny", "Action": "*", "Resource": "acs:smartag:*:*:smartag"})),
        with(json!({"Effect": "Deny", "Action": "*", "Resource": "smartag/sag-1"})),
        with(json!({"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": "x"})),
        with(
            json!({"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"IpAddress": {"acs:SourceIp": "x"}}}),
        ),
        with(
            json!({"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"DateLessThan": {"acs:CurrentTime": "soon"}}}),
        ),
    ] {
        assert!(check(&bad).is_err(), "{bad}");
    }
}

#[test]
fn what_is_accepted_may_be_worth_a_warning() {
    let warned = |statement: Value| check(&json!({"Statement": [statement]})).expect("accepted").len();
    assert_eq!(
        warned(json!({"Effect": "Deny", "Action": "smartag:*", "Resource": "acs:smartag:*:*:ccn/*"})),
        0
    );
    assert_eq!(
        warned(
            json!({"Effect": "Allow", "Action": ["vpc:*", "smartag:Pull*"], "Resource": "acs:vpc:*:*:vpc/*"})
        ),
        0
    );
    assert_eq!(warned(json!({"Effect": "Deny", "Action": "smartag:DeleteAll", "Resource": "*"})), 1);
    let condition = json!({"Bool": {"acs:MFAPresent": "true"}});
    assert_eq!(warned(json!({"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition})), 1);
}

#[test]
fn old_statements_without_an_element_fail_closed() {
    let gateway = names(Kind::Gateway, "sag-1", "");
    assert!(!permits(json!([{"Effect": "Allow", "Action": "*"}]), "X", &gateway));
    assert!(!permits(json!([{"Effect": "Allow", "Resource": "*"}]), "X", &gateway));
    let all = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    assert!(!permits(json!([all, {"Effect": "Deny", "Action": "*"}]), "X", &gateway));
    assert!(!permits(json!([all, {"Effect": "deny", "Action": "*", "Resource": "*"}]), "X", &gateway));
}

#[test]
fn an_identifier_is_allowed_as_it_is_written() {
    let code = |id: &str| names(Kind::EnterpriseCode, id, "");
    let allow =
        json!([{"Effect": "Allow", "Action": "*", "Resource": "acs:smartag:*:*:enterprisecode/aB1cd"}]);
    assert!(permits(allow.clone(), "X", &code("aB1cd")) && !permits(allow, "X", &code("ab1cd")));
}
