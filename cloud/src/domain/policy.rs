//! RAM-like policies: which actions of a user on which resources are allowed.

use serde_json::Value;

use crate::api::Op;
use crate::api::params::Params;

/// Parameters that name a resource, and the type of the resource.
const RESOURCES: [(&str, &str); 13] = [
    ("SmartAGId", "smartaccessgateway"),
    ("SagId", "smartaccessgateway"),
    ("OriginSmartAGId", "smartaccessgateway"),
    ("TargetSmartAGId", "smartaccessgateway"),
    ("CcnId", "cloudconnectnetwork"),
    ("CcnInstanceId", "cloudconnectnetwork"),
    ("AssociatedCcnId", "cloudconnectnetwork"),
    ("AclId", "acl"),
    ("QosId", "qos"),
    ("FlowLogId", "flowlog"),
    ("HcInstanceId", "healthcheck"),
    ("EnterpriseCode", "enterprisecode"),
    ("ResourceId", "*"),
];

/// Refuses a document that would silently mean nothing.
pub fn check(document: &Value) -> anyhow::Result<()> {
    let statements = document["Statement"].as_array();
    let statements = statements.ok_or_else(|| anyhow::anyhow!("no Statement list"))?;
    for s in statements {
        let effect = s["Effect"].as_str().unwrap_or_default();
        anyhow::ensure!(matches!(effect, "Allow" | "Deny"), "Effect is Allow or Deny");
        for key in ["Action", "Resource"] {
            anyhow::ensure!(!texts(&s[key]).is_empty(), "{key} is a text or a list of texts");
        }
        for key in s.as_object().into_iter().flat_map(|o| o.keys()) {
            let known = matches!(key.as_str(), "Effect" | "Action" | "Resource");
            anyhow::ensure!(known, "{key} is not supported");
        }
    }
    Ok(())
}

/// A policy document, ready to be evaluated.
#[derive(Clone, Debug)]
pub struct Policy(Vec<Statement>);

#[derive(Clone, Debug)]
struct Statement {
    allow: bool,
    actions: Vec<Vec<char>>,
    resources: Vec<Vec<char>>,
}

impl Policy {
    pub fn new(document: &Value) -> Policy {
        let patterns = |v: &Value| texts(v).into_iter().map(lower).collect();
        let statements = document["Statement"].as_array().into_iter().flatten();
        let known = statements.filter_map(|s| {
            let allow = match s["Effect"].as_str()? {
                "Allow" => true,
                "Deny" => false,
                _ => return None,
            };
            Some(Statement { allow, actions: patterns(&s["Action"]), resources: patterns(&s["Resource"]) })
        });
        Policy(known.collect())
    }
}

/// Whether the policies allow the call on every resource that it names. Deny wins.
pub fn allows(policies: &[Policy], uid: i64, action: &str, resources: &[String]) -> bool {
    let action = lower(&format!("smartag:{action}"));
    let about: Vec<&Statement> =
        policies.iter().flat_map(|p| &p.0).filter(|s| s.actions.iter().any(|p| glob(p, &action))).collect();
    resources.iter().all(|r| {
        let arn = lower(&format!("acs:smartag:{}", r.replace("{uid}", &uid.to_string())));
        let hits =
            |allow: bool| about.iter().any(|s| s.allow == allow && s.resources.iter().any(|p| glob(p, &arn)));
        hits(true) && !hits(false)
    })
}

/// Case counts for neither side.
fn lower(text: &str) -> Vec<char> {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// `region:uid:type/id` for each resource that the request names.
pub fn resources(op: Option<Op>, params: &Params) -> Vec<String> {
    let region = params.get("RegionId").unwrap_or("*");
    let mut out: Vec<String> = RESOURCES
        .iter()
        .filter_map(|(name, kind)| params.get(name).map(|id| format!("{region}:{{uid}}:{kind}/{id}")))
        .collect();
    if op == Some(Op::DeleteSmartAccessGateway)
        && let Some(id) = params.get("InstanceId")
    {
        out.push(format!("{region}:{{uid}}:smartaccessgateway/{id}"));
    }
    if out.is_empty() {
        out.push(format!("{region}:{{uid}}:*"));
    }
    out
}

fn texts(v: &Value) -> Vec<&str> {
    match v {
        Value::String(s) => vec![s],
        Value::Array(a) => a.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// `*` stands for any text, `?` for one character.
fn glob(p: &[char], t: &[char]) -> bool {
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < t.len() {
        match p.get(i) {
            Some('*') => {
                star = Some((i, j));
                i += 1;
            }
            Some(c) if *c == '?' || *c == t[j] => {
                i += 1;
                j += 1;
            }
            _ => match star {
                Some((si, sj)) => {
                    i = si + 1;
                    j = sj + 1;
                    star = Some((si, sj + 1));
                }
                None => return false,
            },
        }
    }
    p[i..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn deny_wins_and_silence_refuses() {
        let doc = json!({"Statement": [
            {"Effect": "Allow", "Action": ["smartag:Describe*", "smartag:DeleteACL"], "Resource": "*"},
            {"Effect": "Deny", "Action": "smartag:*", "Resource": "acs:smartag:*:*:acl/acl-1"},
        ]});
        check(&doc).expect("well formed");
        let docs = [Policy::new(&doc)];
        let ask = |action, id: &str| allows(&docs, 7, action, &[format!("cn-shanghai:{{uid}}:acl/{id}")]);
        assert!(ask("DescribeACLs", "acl-2"));
        assert!(ask("DeleteACL", "acl-2"));
        assert!(!ask("DeleteACL", "acl-1"));
        assert!(!ask("CreateACL", "acl-2"));
    }

    #[test]
    fn a_policy_that_means_nothing_is_refused() {
        for bad in [
            json!({}),
            json!({"Statement": [{"Effect": "allow", "Action": "*", "Resource": "*"}]}),
            json!({"Statement": [{"Effect": "Allow", "Action": "*"}]}),
            json!({"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {}}]}),
        ] {
            assert!(check(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn globs() {
        let glob = |p: &str, t: &str| super::glob(&lower(p), &lower(t));
        assert!(glob("a*c?", "aXXcY") && glob("*", "") && !glob("a?", "a") && glob("A", "a"));
    }
}
