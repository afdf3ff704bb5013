//! The rules of an access control list.

use serde_json::{Value, json};

use super::acl::{KIND, RULE, find};
use super::cx::{Cx, empty};
use super::gateway::KIND as GATEWAY;
use crate::api::request;
use crate::api::validate::port_range;
use crate::proto::error::Result;
use crate::store::objects::Object;

/// Rules of one list.
const QUOTA: i64 = 200;

const PROTOCOLS: [&str; 4] = ["ALL", "TCP", "UDP", "ICMP"];

const FIELDS: [&str; 11] = [
    "Name",
    "Description",
    "Direction",
    "SourceCidr",
    "DestCidr",
    "IpProtocol",
    "SourcePortRange",
    "DestPortRange",
    "Policy",
    "Priority",
    "Type",
];

/// The protocol as it is stored; ports make sense for TCP and UDP only.
pub fn check_five_tuple(cx: &Cx, rule: &mut Object) -> Result<()> {
    let protocol = rule.str("IpProtocol").to_ascii_uppercase();
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err(cx.err(&["NotSupportedProtocol"]));
    }
    let any = |field: &str| port_range(rule.str(field)) == Some((-1, -1));
    let portless = protocol == "ICMP" || protocol == "ALL";
    if portless && !(any("SourcePortRange") && any("DestPortRange")) {
        return Err(cx.err(&["InvalidPortRange"]));
    }
    rule.set("IpProtocol", protocol);
    Ok(())
}

/// The applications that a rule names; each must be one that DPI knows.
pub fn set_dpi(cx: &Cx, rule: &mut Object) -> Result<()> {
    for (param, known) in [
        ("DpiSignatureIds", super::dpi::is_signature as fn(&str) -> bool),
        ("DpiGroupIds", super::dpi::is_group),
    ] {
        let ids = cx.list(param);
        if ids.iter().any(|id| !known(id)) {
            return Err(cx.invalid(param));
        }
        if !ids.is_empty() {
            rule.set(param, json!(ids));
        }
    }
    Ok(())
}

/// A WAN rule cannot go to a gateway of the model SAG 1000.
async fn check_type(cx: &mut Cx, acl: &Object, rule: &Object) -> Result<()> {
    if rule.str("Type") != "WAN" {
        return Ok(());
    }
    for id in cx.links_to("acl", &acl.id).await? {
        let gw = cx.any(GATEWAY, &id).await?;
        if gw.is_some_and(|g| g.str("HardwareVersion") == "sag-1000") {
            return Err(cx.err(&["ACL.NoSupportWanType"]));
        }
    }
    Ok(())
}

async fn save(cx: &mut Cx, acl: &Object, rule: &Object) -> Result<()> {
    cx.put(rule).await?;
    let users = cx.links_to("acl", &acl.id).await?;
    cx.touch_all(&users).await
}

pub async fn add(cx: &mut Cx) -> Result<Value> {
    let acl = find(cx).await?;
    if cx.count(RULE, cx.under(&acl.id)).await? >= QUOTA {
        return Err(cx.err(&["AcrPerAclAmountLimit"]));
    }
    let mut body = cx.fields(&FIELDS);
    body.insert("AclId".into(), acl.id.as_str().into());
    body.insert("GmtCreate".into(), cx.now.into());
    let id = cx.new_id("acr")?;
    let mut rule = cx.object(RULE, id, "AcrId", &acl.id, body);
    check_five_tuple(cx, &mut rule)?;
    set_dpi(cx, &mut rule)?;
    check_type(cx, &acl, &rule).await?;
    save(cx, &acl, &rule).await?;
    Ok(Value::Object(rule.body))
}

async fn rule_of(cx: &mut Cx, acl: &Object, id: &str) -> Result<Object> {
    let rule = cx.any(RULE, id).await?.filter(|r| r.parent == acl.id);
    rule.ok_or_else(|| cx.err(&["InvalidId.ACR"]))
}

pub async fn modify(cx: &mut Cx) -> Result<Value> {
    let acl = find(cx).await?;
    let asked: request::ModifyACLRule = cx.request();
    let mut rule = rule_of(cx, &acl, &asked.acr_id).await?;
    for (k, v) in cx.fields(&FIELDS) {
        rule.set(&k, v);
    }
    check_five_tuple(cx, &mut rule)?;
    set_dpi(cx, &mut rule)?;
    check_type(cx, &acl, &rule).await?;
    save(cx, &acl, &rule).await?;
    Ok(Value::Object(rule.body))
}

pub async fn delete(cx: &mut Cx) -> Result<Value> {
    let acl = find(cx).await?;
    let asked: request::DeleteACLRule = cx.request();
    let rule = rule_of(cx, &acl, &asked.acr_id).await?;
    cx.remove(&rule).await?;
    let users = cx.links_to("acl", &acl.id).await?;
    cx.touch_all(&users).await?;
    Ok(empty())
}

/// Rules in the order of their priority.
pub async fn describe(cx: &mut Cx) -> Result<Value> {
    let acl = cx.need(KIND, "AclId", &["InvalidId.ACL"]).await?;
    let is = |o: &Object, f: &str, want: &Option<String>| want.as_deref().is_none_or(|w| o.str(f) == w);
    let asked: request::DescribeACLAttribute = cx.request();
    let mut rules: Vec<Object> = cx.children(RULE, &acl.id).await?;
    rules.retain(|r| is(r, "Direction", &asked.direction) && is(r, "Name", &asked.name));
    rules.sort_by_key(|r| r.int("Priority"));
    if asked.order.is_some_and(|o| o.eq_ignore_ascii_case("desc")) {
        rules.reverse();
    }
    let (total, page) = cx.cut(rules);
    let rows = page.into_iter().map(|r| Value::Object(r.body)).collect();
    Ok(cx.listing("Acrs", total, rows))
}
