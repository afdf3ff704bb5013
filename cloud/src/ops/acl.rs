//! Access control lists.

use serde_json::{Value, json};

use super::cx::{Cx, RESOURCE_GROUP, empty};
use crate::proto::error::{ApiError, Result};
use crate::store::objects::{self, Filter, Object};

pub const KIND: &str = "acl";
pub const RULE: &str = "acl_rule";

/// Lists of one account in one region, and lists on one gateway.
const QUOTA: i64 = 2000;
const PER_GATEWAY: usize = 5;

pub async fn find(cx: &mut Cx) -> Result<Object> {
    cx.need(KIND, "AclId", &["InvalidId.ACL"]).await
}

pub async fn create(cx: &mut Cx) -> Result<Value> {
    if cx.count(KIND, cx.mine()).await? >= QUOTA {
        return Err(cx.err(&["AclAmountLimit"]));
    }
    let mut body = cx.fields(&["Name"]);
    body.insert("ResourceGroupId".into(), RESOURCE_GROUP.into());
    let id = cx.new_id("acl")?;
    let acl = cx.object(KIND, id, "AclId", "", body);
    cx.put(&acl).await?;
    Ok(Value::Object(acl.body))
}

pub async fn modify(cx: &mut Cx) -> Result<Value> {
    let mut acl = find(cx).await?;
    acl.name = cx.text("Name");
    acl.set("Name", acl.name.clone());
    cx.put(&acl).await?;
    Ok(empty())
}

pub async fn delete(cx: &mut Cx) -> Result<Value> {
    let acl = find(cx).await?;
    if !cx.links_to("acl", &acl.id).await?.is_empty() {
        return Err(ApiError::new(
            400,
            "DependencyViolation.ACL",
            "The access control list is associated with a gateway.",
        )
        .with_hint("Call DisassociateACL first."));
    }
    objects::delete_children(cx.conn(), RULE, &acl.id).await?;
    cx.remove(&acl).await?;
    Ok(empty())
}

pub async fn describe(cx: &mut Cx) -> Result<Value> {
    let mut filter: Filter = cx.mine();
    filter.name = cx.opt("Name");
    filter.ids = cx.opt("AclIds").map(|_| cx.list("AclIds"));
    let (total, page) = cx.paged(KIND, &filter).await?;
    let users = cx.count_links_to("acl", &page).await?;
    let mut rows = Vec::new();
    for mut acl in page {
        acl.set("SagCount", users.get(&acl.id).copied().unwrap_or_default());
        rows.push(Value::Object(acl.body));
    }
    Ok(cx.listing("Acls", total, rows))
}

pub async fn associate(cx: &mut Cx) -> Result<Value> {
    let acl = find(cx).await?;
    let gw = cx.gateway().await?;
    let bound = cx.links_from("acl", &gw.id).await?;
    if bound.contains(&acl.id) {
        return Err(cx.err(&["SmartAGAlreadyAssociateAcl"]));
    }
    if bound.len() >= PER_GATEWAY {
        return Err(cx.err(&["AclPerSmartagAmountLimit"]));
    }
    if gw.str("HardwareVersion") == "sag-1000" {
        let rules = cx.children(RULE, &acl.id).await?;
        if rules.iter().any(|r| r.str("Type") == "WAN") {
            return Err(cx.err(&["FeatureNotSupport"]));
        }
    }
    cx.link("acl", &gw.id, &acl.id).await?;
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn disassociate(cx: &mut Cx) -> Result<Value> {
    let acl = find(cx).await?;
    let gw = cx.gateway().await?;
    if !cx.unlink("acl", &gw.id, &acl.id).await? {
        return Err(cx.err(&["SmartAGNotAssociateAcl"]));
    }
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn errors(cx: &mut Cx) -> Result<Value> {
    let acl = find(cx).await?;
    let failing = super::dpi::failing_gateways(cx, "acl", &acl.id).await?;
    Ok(json!({"AclId": acl.id, "AclName": acl.name, "ErrorConfigSmartAGCount": failing}))
}
