//! Virtual border routers: links and grants.

use serde_json::{Value, json};

use super::cx::{Cx, Page, empty};
use crate::domain::gateway::Gateway;
use crate::error::Result;
use crate::store::{Kind, Link};

/// The caller's gateway, or another account's that was granted to the border router.
async fn gateway_for(cx: &mut Cx, vbr: &str) -> Result<String> {
    let owner = cx.int("SmartAGUid").unwrap_or_else(|| cx.uid());
    if owner == cx.uid() {
        return Ok(cx.gateway().await?.id);
    }
    let id = cx.text("SmartAGId");
    let gw = cx.get::<Gateway>(&id).await?.filter(|g| g.uid == owner);
    let gw = gw.ok_or_else(|| cx.no_gateway(&id))?;
    let grant = cx.get_object(Kind::VbrGrant, &format!("{}/{vbr}", gw.id)).await?;
    if grant.is_none_or(|g| g.int("VbrUid") != cx.uid()) {
        return Err(cx.err(&["Forbidden"]));
    }
    Ok(gw.id)
}

pub async fn bind(cx: &mut Cx) -> Result<Value> {
    let vbr = cx.text("VbrId");
    if !vbr.starts_with("vbr-") {
        return Err(cx.err(&["InvalidId.VBR"]));
    }
    let gw = gateway_for(cx, &vbr).await?;
    if cx.links_from(Link::Ccn, &gw).await?.is_empty() {
        return Err(cx.err(&["NotBoundCCN"]));
    }
    if !cx.links_from(Link::Vbr, &gw).await?.is_empty() {
        return Err(cx.err(&["SAG.VbrBound"]));
    }
    if !cx.links_to(Link::Vbr, &vbr).await?.is_empty() {
        return Err(cx.err(&["SAG.VbrBoundToSAG"]));
    }
    cx.link(Link::Vbr, &gw, &vbr).await?;
    cx.bump_revision(&gw).await?;
    Ok(empty())
}

pub async fn unbind(cx: &mut Cx) -> Result<Value> {
    let vbr = cx.text("VbrId");
    let gw = gateway_for(cx, &vbr).await?;
    if cx.links_from(Link::Ccn, &gw).await?.is_empty() {
        return Err(cx.err(&["NotBoundCCN"]));
    }
    if !cx.unlink(Link::Vbr, &gw, &vbr).await? {
        return Err(cx.err(&["InvalidId.VBR"]));
    }
    cx.bump_revision(&gw).await?;
    Ok(empty())
}

pub async fn grant(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let vbr = cx.text("VbrInstanceId");
    let key = format!("{}/{vbr}", gw.id);
    if cx.get_object(Kind::VbrGrant, &key).await?.is_some() {
        return Err(cx.err(&["SAG.GrantDuplicated"]));
    }
    let grant = cx.new_id("sgv")?;
    let mut body = cx.fields(&["SmartAGId", "VbrInstanceId", "VbrRegionId", "VbrUid"]);
    body.insert("InstanceId".into(), grant.as_str().into());
    body.insert("SmartAGUid".into(), cx.uid().into());
    body.insert("CreateTime".into(), cx.now.into());
    let o = cx.object(Kind::VbrGrant, key, "Key", &gw.id, body);
    cx.put_object(&o).await?;
    Ok(json!({"InstanceId": grant}))
}

pub async fn revoke(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let vbr = cx.text("VbrInstanceId");
    let key = format!("{}/{vbr}", gw.id);
    if cx.get_object(Kind::VbrGrant, &key).await?.is_none() {
        return Err(cx.err(&["InvalidId.VBR"]));
    }
    if cx.links_from(Link::Vbr, &gw.id).await?.contains(&vbr) {
        return Err(cx.err(&["SAG.DedicatedLineExist"]));
    }
    cx.remove_by_id(Kind::VbrGrant, &key).await?;
    Ok(empty())
}

pub async fn describe_grants(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let vbr = cx.text("VbrInstanceId");
    let bound = cx.links_from(Link::Vbr, &gw.id).await?.contains(&vbr);
    let rows: Vec<Value> = cx
        .child_objects(Kind::VbrGrant, &gw.id)
        .await?
        .into_iter()
        .filter(|o| o.str("VbrInstanceId") == vbr)
        .map(|mut o| {
            o.set("Bound", bound);
            Value::Object(o.body)
        })
        .collect();
    let Page { total, rows, .. } = cx.paginate(rows);
    Ok(cx.listing("GrantRules", total, rows))
}

pub async fn relations(cx: &mut Cx) -> Result<Value> {
    let mut rows = Vec::new();
    for vbr in cx.list_param("VbrInstanceIds") {
        for gw in cx.links_to(Link::Vbr, &vbr).await? {
            let Some(gw) = cx.get::<Gateway>(&gw).await? else { continue };
            // Only what the caller may know of: his gateways and those granted to him.
            let granted = cx.get_object(Kind::VbrGrant, &format!("{}/{vbr}", gw.id)).await?;
            if gw.uid == cx.uid() || granted.is_some_and(|g| g.int("VbrUid") == cx.uid()) {
                rows.push(json!({"VbrInstanceId": vbr, "SagInstanceId": gw.id, "SagUid": gw.uid}));
            }
        }
    }
    Ok(json!({"SagVbrRelations": rows}))
}
