//! The JSON form of a policy.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::condition::Condition;
use super::glob::Pattern;
use super::resource::ResourceType;
use super::{Matcher, Statement};
use crate::api::Op;

const ELEMENTS: [&str; 7] = ["Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"];

/// Refuses a document that would silently mean nothing, or something else than it says. Returns what is accepted, but
/// worth a warning.
///
/// # Errors
/// The statement and the element that are wrong.
pub fn check(document: &Value) -> anyhow::Result<Vec<String>> {
    let statements = document["Statement"].as_array().context("the policy has no list Statement")?;
    ensure!(!statements.is_empty(), "Statement is empty");
    let mut warnings = Vec::new();
    for (n, s) in (1..).zip(statements) {
        check_statement(s, &mut warnings).with_context(|| format!("statement {n}"))?;
    }
    Ok(warnings)
}

fn check_statement(s: &Value, warnings: &mut Vec<String>) -> anyhow::Result<()> {
    let members = s.as_object().context("not an object")?;
    for key in members.keys() {
        ensure!(
            ELEMENTS.contains(&key.as_str()),
            "{key} is not supported; there are {}",
            ELEMENTS.join(", ")
        );
    }
    let effect = s["Effect"].as_str().unwrap_or_default();
    ensure!(matches!(effect, "Allow" | "Deny"), "Effect is Allow or Deny");
    for key in ["Action", "Resource"] {
        let not = format!("Not{key}");
        ensure!(members.contains_key(key) != members.contains_key(&not), "either {key} or {not} is needed");
        let values = if members.contains_key(key) { &s[key] } else { &s[&not] };
        ensure!(is_texts(values), "{key} is a text or a list of texts");
    }
    for text in texts(&s["Action"]) {
        if is_of_this_api(text) && !is_action(text) {
            warnings.push(format!("{text} is no action of this API"));
        }
    }
    let patterns = texts(&s["Resource"]).into_iter().chain(texts(&s["NotResource"]));
    for text in patterns {
        check_resource(text)?;
    }
    let Some(condition) = members.get("Condition") else { return Ok(()) };
    let operators = condition.as_object().context("Condition is an object of operators")?;
    for (operator, keys) in operators {
        let keys = keys.as_object().with_context(|| format!("{operator} is an object of keys and values"))?;
        for (key, values) in keys {
            let known = Condition::new(operator, key, values).map_err(anyhow::Error::msg)?;
            if matches!(known, Condition::Unknown) {
                let effect = if effect == "Allow" { "allows nothing" } else { "always denies" };
                warnings.push(format!("{operator} of {key} is not known here: its statement {effect}"));
            }
        }
    }
    Ok(())
}

fn is_of_this_api(action: &str) -> bool {
    action.split_once(':').is_none_or(|(service, _)| service.eq_ignore_ascii_case("smartag"))
}

/// Whether an operation, or a call of agents, fits the pattern.
fn is_action(pattern: &str) -> bool {
    let pattern = Pattern::new(pattern);
    let agents = sag_southbound::Action::ALL.iter().map(|action| action.name());
    let mut all = Op::ALL.iter().map(|op| op.name()).chain(agents);
    all.any(|name| pattern.matches(&format!("smartag:{name}"), false))
}

/// A resource of this API whose type does not exist would match nothing.
fn check_resource(text: &str) -> anyhow::Result<()> {
    let mut parts = text.splitn(5, ':');
    let (Some("acs"), Some(service), Some(_), Some(_), Some(rest)) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        ensure!(
            text.contains('*'),
            "the resource {text} matches nothing: it is acs:smartag:REGION:ACCOUNT:TYPE/ID, or has a wildcard"
        );
        return Ok(());
    };
    let name = rest.split('/').next().unwrap_or_default();
    let plain = !name.contains(['*', '?']);
    let known = ResourceType::by_name(name).is_some();
    ensure!(
        !(service.eq_ignore_ascii_case("smartag") && plain) || (known && rest.contains('/')),
        "the resource {text} matches nothing: the types are {}",
        ResourceType::all_names().collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

fn is_texts(v: &Value) -> bool {
    match v {
        Value::String(_) => true,
        Value::Array(items) => !items.is_empty() && items.iter().all(Value::is_string),
        _ => false,
    }
}

pub fn texts(v: &Value) -> Vec<&str> {
    match v {
        Value::String(s) => vec![s],
        Value::Array(a) => a.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The statements of a document that [`check`] has seen, maybe that of an older version.
pub(super) fn statements(document: &Value) -> impl Iterator<Item = Statement> {
    document["Statement"].as_array().into_iter().flatten().map(|s| {
        let mut conditions = conditions(&s["Condition"]);
        let has = |names: [&str; 2]| names.iter().any(|name| s.get(name).is_some());
        if !has(["Action", "NotAction"]) || !has(["Resource", "NotResource"]) {
            conditions.push(Condition::Unknown);
        }
        Statement {
            // What does not say that it allows denies.
            allow: s["Effect"] == "Allow",
            actions: matcher(s, "Action", "NotAction"),
            resources: matcher(s, "Resource", "NotResource"),
            conditions,
        }
    })
}

fn matcher(s: &Value, name: &str, not: &str) -> Matcher {
    let negated = s.get(name).is_none();
    let values = if negated { &s[not] } else { &s[name] };
    Matcher { patterns: texts(values).into_iter().map(Pattern::new).collect(), negated }
}

fn conditions(condition: &Value) -> Vec<Condition> {
    if condition.is_null() {
        return Vec::new();
    }
    let Some(operators) = condition.as_object() else { return vec![Condition::Unknown] };
    let mut out = Vec::new();
    for (operator, keys) in operators {
        match keys.as_object() {
            Some(keys) => {
                let known = |(key, values): (&String, &Value)| {
                    Condition::new(operator, key, values).unwrap_or(Condition::Unknown)
                };
                out.extend(keys.iter().map(known));
            }
            None => out.push(Condition::Unknown),
        }
    }
    out
}
