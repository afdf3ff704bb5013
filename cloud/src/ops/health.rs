//! Health checks of a gateway.

use serde_json::Value;

use super::cx::{Cx, empty};
use crate::domain::net;
use crate::error::Result;
use crate::store::Kind;
use crate::store::objects::{Column, Filter, Object};

const KIND: Kind = Kind::HealthCheck;
/// Checks of one gateway.
const QUOTA: i64 = 20;

const FIELDS: [&str; 14] = [
    "Name",
    "Description",
    "DstIpAddr",
    "DstPort",
    "SrcIpAddr",
    "SrcPort",
    "Type",
    "ProbeInterval",
    "ProbeCount",
    "ProbeTimeout",
    "RttThreshold",
    "RttFailThreshold",
    "FailCountThreshold",
    "SmartAGId",
];

fn check(cx: &Cx, hc: &Object) -> Result<()> {
    for field in ["DstIpAddr", "SrcIpAddr"] {
        if net::ip(hc.str(field)).is_none() {
            return Err(cx.invalid(field));
        }
    }
    for field in ["DstPort", "SrcPort"] {
        let given = hc.body.contains_key(field);
        if given && !(0..=65535).contains(&hc.int(field)) {
            return Err(cx.invalid(field));
        }
    }
    Ok(())
}

/// Route publication strategies that depend on the check.
async fn relations(cx: &mut Cx, hc: &Object) -> Result<usize> {
    let strategies = cx.child_objects(Kind::RouteStrategy, &hc.parent).await?;
    Ok(strategies.iter().filter(|s| s.str("HcInstanceId") == hc.id).count())
}

pub async fn create(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    cx.refuse_if(gw.is_software(), &["FeatureNotSupport"])?;
    if cx.count(KIND, &Filter::under(&gw.id)).await? >= QUOTA {
        return Err(cx.err(&["HC.AmountLimit"]));
    }
    let mut body = cx.fields(&FIELDS);
    body.insert("CreateTime".into(), cx.now.into());
    let id = cx.new_id("hc")?;
    let hc = cx.object(KIND, id, "HcInstanceId", &gw.id, body);
    check(cx, &hc)?;
    cx.put_object(&hc).await?;
    cx.bump_revision(&gw.id).await?;
    Ok(serde_json::json!({"InstanceId": hc.id}))
}

async fn find(cx: &mut Cx) -> Result<Object> {
    let hc = cx.require_object(KIND, "HcInstanceId", &["HC.InstanceNoFound"]).await?;
    if cx.opt("SmartAGId").is_some_and(|id| id != hc.parent) {
        return Err(cx.err(&["HC.InstanceNoFound"]));
    }
    Ok(hc)
}

pub async fn modify(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let mut hc = find(cx).await?;
    for (k, v) in cx.fields(&FIELDS) {
        hc.set(&k, v);
    }
    hc.name = hc.str("Name").to_owned();
    check(cx, &hc)?;
    cx.put_object(&hc).await?;
    cx.bump_revision(&gw.id).await?;
    Ok(empty())
}

pub async fn delete(cx: &mut Cx) -> Result<Value> {
    let hc = find(cx).await?;
    if relations(cx, &hc).await? > 0 {
        return Err(cx.err(&["HC.RelatedRoute"]));
    }
    cx.remove_object(&hc).await?;
    cx.bump_revision(&hc.parent).await?;
    Ok(empty())
}

pub async fn describe(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let mut filter = Filter::under(&gw.id).equals(Column::Name, cx.opt("Name"));
    filter.ids = cx.opt("HcInstanceId").map(|id| vec![id]);
    let (total, page) = cx.object_page(KIND, &filter).await?;
    let devices = cx.devices_of(&gw.id).await?;
    let mut rows = Vec::new();
    for mut hc in page {
        let used = relations(cx, &hc).await?;
        // What a connected device measured; `unknown` without one.
        let seen = devices.iter().filter(|d| d.online(cx.now)).find_map(|d| {
            let all = d.report["HealthChecks"].as_array()?;
            all.iter().find(|h| h["HcInstanceId"] == hc.id.as_str())?["Status"].as_str()
        });
        hc.set("Status", seen.unwrap_or("unknown"));
        hc.set("RelationCount", used);
        rows.push(Value::Object(hc.body));
    }
    Ok(cx.listing("HealthChecks", total, rows))
}

pub async fn attribute(cx: &mut Cx) -> Result<Value> {
    Ok(Value::Object(find(cx).await?.body))
}
