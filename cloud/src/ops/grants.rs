//! Grants to other accounts: a gateway to a network, a network to an enterprise network.

use serde_json::{Value, json};

use super::cx::{Cx, empty};
use crate::error::{ApiError, Result};
use crate::store::objects::Filter;
use crate::store::secrets::HEX;
use crate::store::{Kind, Link};

pub async fn grant_ccn(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let ccn = cx.text("CcnInstanceId");
    let uid = cx.int("CcnUid").unwrap_or_default();
    let found = cx.get_object(Kind::Ccn, &ccn).await?.ok_or_else(|| cx.err(&["CCN.InvalidId"]))?;
    if uid == cx.uid() || found.uid != uid {
        return Err(cx.err(&["CCN.InvalidUid"]));
    }
    if !cx.child_objects(Kind::CcnGrant, &gw.id).await?.is_empty() {
        return Err(cx.err(&["SAG.GrantDuplicated"]));
    }
    let grant = cx.new_id("sgc")?;
    let mut body = cx.fields(&["CcnInstanceId", "CcnUid", "SmartAGId"]);
    body.insert("InstanceId".into(), grant.as_str().into());
    body.insert("CreateTime".into(), cx.now.into());
    let traffic = cx.flag("GrantTrafficService") == Some(true);
    body.insert("GrantTrafficService".into(), traffic.into());
    let o = cx.object(Kind::CcnGrant, format!("{}/{ccn}", gw.id), "Key", &gw.id, body);
    cx.put_object(&o).await?;
    cx.link(Link::GrantedCcn, &gw.id, &ccn).await?;
    Ok(json!({"InstanceId": grant}))
}

pub async fn revoke_ccn(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let ccn = cx.text("CcnInstanceId");
    if cx.links_from(Link::Ccn, &gw.id).await?.contains(&ccn) {
        return Err(cx.err(&["AlreadyBound.CCN"]));
    }
    if !cx.unlink(Link::GrantedCcn, &gw.id, &ccn).await? {
        return Err(cx.err(&["CCN.InvalidId"]));
    }
    cx.remove_by_id(Kind::CcnGrant, &format!("{}/{ccn}", gw.id)).await?;
    Ok(empty())
}

pub async fn describe_ccn(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let filter = Filter::under(&gw.id);
    let (total, page) = cx.object_page(Kind::CcnGrant, &filter).await?;
    let rows = page.into_iter().map(|o| Value::Object(o.body)).collect();
    Ok(cx.listing("GrantRules", total, rows))
}

pub async fn grant_cen(cx: &mut Cx) -> Result<Value> {
    let ccn = cx.require_object(Kind::Ccn, "CcnInstanceId", &["InvalidId.CCN"]).await?;
    let cen = cx.text("CenInstanceId");
    if !cen.starts_with("cen-") {
        return Err(cx.invalid("CenInstanceId"));
    }
    let key = format!("{}/{cen}", ccn.id);
    if cx.get_object(Kind::CenGrant, &key).await?.is_some() {
        return Err(cx.err(&["AlreadyBound.CEN"]));
    }
    let hex = cx.cipher.token(HEX, 32).map_err(ApiError::internal)?.to_lowercase();
    let rule = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    let mut body = cx.fields(&["CcnInstanceId", "CenInstanceId", "CenUid"]);
    body.insert("GrantRuleId".into(), rule.into());
    body.insert("CcnUid".into(), cx.uid().into());
    body.insert("GmtCreate".into(), cx.now.into());
    body.insert("GmtModified".into(), cx.now.into());
    let traffic = cx.flag("GrantTrafficService") == Some(true);
    body.insert("GrantTrafficService".into(), traffic.into());
    let o = cx.object(Kind::CenGrant, key, "Key", &ccn.id, body);
    cx.put_object(&o).await?;
    Ok(empty())
}

pub async fn revoke_cen(cx: &mut Cx) -> Result<Value> {
    let ccn = cx.require_object(Kind::Ccn, "CcnInstanceId", &["InvalidId.CCN"]).await?;
    let key = format!("{}/{}", ccn.id, cx.text("CenInstanceId"));
    let Some(grant) = cx.get_object(Kind::CenGrant, &key).await? else {
        return Err(cx.invalid("CenInstanceId"));
    };
    cx.remove_object(&grant).await?;
    Ok(empty())
}

pub async fn describe_cen(cx: &mut Cx) -> Result<Value> {
    let mut filter = cx.mine();
    filter.parent = cx.opt("AssociatedCcnId");
    let (total, page) = cx.object_page(Kind::CenGrant, &filter).await?;
    let rows = page.into_iter().map(|o| Value::Object(o.body)).collect();
    Ok(cx.listing("GrantRules", total, rows))
}
