//! QoS policy containers.

use serde_json::{Value, json};

use super::cx::{Cx, RESOURCE_GROUP, empty};
use super::gateway::SOFTWARE;
use crate::api::Pattern;
use crate::api::validate::{matches_pattern, parse_time};
use crate::proto::error::{ApiError, Result};
use crate::store::objects::{self, Object};

pub const KIND: &str = "qos";
pub const POLICY: &str = "qos_policy";
pub const CAR: &str = "qos_car";

const QUOTA: i64 = 2000;
const PER_GATEWAY: usize = 1;

pub async fn find(cx: &mut Cx) -> Result<Object> {
    cx.need(KIND, "QosId", &["InvalidId.Qos"]).await
}

pub async fn create(cx: &mut Cx) -> Result<Value> {
    if cx.count(KIND, cx.mine()).await? >= QUOTA {
        return Err(cx.err(&["QosAmountLimit"]));
    }
    let mut body = cx.fields(&["QosName", "QosDescription"]);
    body.insert("ResourceGroupId".into(), RESOURCE_GROUP.into());
    let id = cx.new_id("qos")?;
    let mut qos = cx.object(KIND, id, "QosId", "", body);
    qos.name = cx.text("QosName");
    cx.put(&qos).await?;
    Ok(Value::Object(qos.body))
}

pub async fn modify(cx: &mut Cx) -> Result<Value> {
    let mut qos = find(cx).await?;
    qos.name = cx.text("QosName");
    // The catalogue prints the rule for names at CreateQos only.
    let len = qos.name.chars().count();
    if !(2..=100).contains(&len) || !matches_pattern(Pattern::Name, &qos.name) {
        return Err(cx.err(&["InvalidParameter.Name"]));
    }
    for (k, v) in cx.fields(&["QosName", "QosDescription"]) {
        qos.set(&k, v);
    }
    cx.put(&qos).await?;
    Ok(empty())
}

pub async fn delete(cx: &mut Cx) -> Result<Value> {
    let qos = find(cx).await?;
    if !cx.links_to("qos", &qos.id).await?.is_empty() {
        return Err(ApiError::new(
            400,
            "DependencyViolation.Qos",
            "The QoS policy is associated with a gateway.",
        )
        .with_hint("Call DisassociateQos first."));
    }
    for kind in [POLICY, CAR] {
        objects::delete_children(cx.conn(), kind, &qos.id).await?;
    }
    cx.remove(&qos).await?;
    Ok(empty())
}

pub async fn describe(cx: &mut Cx) -> Result<Value> {
    let mut filter = cx.mine();
    filter.name = cx.opt("QosName");
    filter.ids = cx.opt("QosIds").map(|_| cx.list("QosIds"));
    let (total, page) = cx.paged(KIND, &filter).await?;
    let mut all = cx.all_links_to("qos", &page).await?;
    let mut rows = Vec::new();
    for mut qos in page {
        let users = all.remove(&qos.id).unwrap_or_default();
        qos.set("SagCount", users.len());
        qos.set("SmartAGIds", users.join(","));
        rows.push(Value::Object(qos.body));
    }
    Ok(cx.listing("Qoses", total, rows))
}

pub async fn associate(cx: &mut Cx) -> Result<Value> {
    let qos = find(cx).await?;
    let gw = cx.gateway().await?;
    cx.refuse_if(gw.str("InstanceType") == SOFTWARE, &["SAG.SoftwareNotSupport"])?;
    let bound = cx.links_from("qos", &gw.id).await?;
    if bound.contains(&qos.id) {
        return Err(cx.err(&["SmartAGAlreadyAssociateQos"]));
    }
    if bound.len() >= PER_GATEWAY {
        return Err(cx.err(&["QosPerSmartagAmountLimit"]));
    }
    cx.link("qos", &gw.id, &qos.id).await?;
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn disassociate(cx: &mut Cx) -> Result<Value> {
    let qos = find(cx).await?;
    let gw = cx.gateway().await?;
    if !cx.unlink("qos", &gw.id, &qos.id).await? {
        return Err(cx.err(&["SmartAGNotAssociateQos"]));
    }
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn attribute(cx: &mut Cx) -> Result<Value> {
    let qos = find(cx).await?;
    let failing = super::dpi::failing_gateways(cx, "qos", &qos.id).await?;
    let mut policies = Vec::new();
    for p in cx.children(POLICY, &qos.id).await? {
        let mut row = Value::Object(p.body.clone());
        row["QosPolicieName"] = row["Name"].clone();
        row["QosPolicieDescription"] = row["Description"].clone();
        for field in ["StartTime", "EndTime"] {
            row[field] = parse_time(p.str(field)).map_or(Value::Null, |s| (s * 1000).into());
        }
        policies.push(row);
    }
    let mut cars = Vec::new();
    for c in cx.children(CAR, &qos.id).await? {
        let mut row = Value::Object(c.body);
        row["QosCarName"] = row["Name"].clone();
        row["QosCarDescription"] = row["Description"].clone();
        cars.push(row);
    }
    Ok(json!({
        "QosName": qos.str("QosName"),
        "QosDescription": qos.body.get("QosDescription"),
        "ErrorConfigSmartAGCount": failing,
        "QosPolicies": policies,
        "QosCars": cars,
    }))
}
