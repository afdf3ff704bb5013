//! Traffic classes and rate limits of a QoS policy container.

use serde_json::{Map, Value};

use super::acl_rules::{check_five_tuple, set_dpi};
use super::cx::{Cx, empty};
use super::qos::{CAR, POLICY, find};
use crate::api::validate::parse_time;
use crate::proto::error::Result;
use crate::store::objects::Object;

const POLICY_QUOTA: i64 = 200;
/// One rate limit for each priority.
const CAR_QUOTA: i64 = 7;
const PRIORITIES: std::ops::RangeInclusive<i64> = 1..=7;

const POLICY_FIELDS: [&str; 10] = [
    "Description",
    "Priority",
    "SourceCidr",
    "DestCidr",
    "IpProtocol",
    "SourcePortRange",
    "DestPortRange",
    "StartTime",
    "EndTime",
    "Name",
];

const CAR_FIELDS: [&str; 9] = [
    "Description",
    "Priority",
    "LimitType",
    "MinBandwidthAbs",
    "MaxBandwidthAbs",
    "MinBandwidthPercent",
    "MaxBandwidthPercent",
    "PercentSourceType",
    "Name",
];

fn check_policy(cx: &Cx, policy: &mut Object) -> Result<()> {
    if !PRIORITIES.contains(&policy.int("Priority")) {
        return Err(cx.err(&["InvalidParameter.Priority"]));
    }
    check_five_tuple(cx, policy)?;
    set_dpi(cx, policy)?;
    let times = (parse_time(policy.str("StartTime")), parse_time(policy.str("EndTime")));
    if matches!(times, (Some(start), Some(end)) if end <= start) {
        return Err(cx.err(&["InvalidTimeRangeCompare"]));
    }
    Ok(())
}

async fn save(cx: &mut Cx, qos: &Object, part: &Object) -> Result<()> {
    cx.put(part).await?;
    let users = cx.links_to("qos", &qos.id).await?;
    cx.touch_all(&users).await
}

async fn part_of(cx: &mut Cx, kind: &str, qos: &Object, param: &str, code: &str) -> Result<Object> {
    let id = cx.text(param);
    let found = cx.any(kind, &id).await?.filter(|o| o.parent == qos.id);
    found.ok_or_else(|| cx.err(&[code]))
}

async fn delete(cx: &mut Cx, kind: &str, param: &str, code: &str) -> Result<Value> {
    let qos = find(cx).await?;
    let part = part_of(cx, kind, &qos, param, code).await?;
    cx.remove(&part).await?;
    let users = cx.links_to("qos", &qos.id).await?;
    cx.touch_all(&users).await?;
    Ok(empty())
}

pub async fn create_policy(cx: &mut Cx) -> Result<Value> {
    let qos = find(cx).await?;
    if cx.count(POLICY, cx.under(&qos.id)).await? >= POLICY_QUOTA {
        return Err(cx.err(&["QosPolicyPerQosAmountLimit"]));
    }
    let mut body = cx.fields(&POLICY_FIELDS);
    body.insert("QosId".into(), qos.id.as_str().into());
    let id = cx.new_id("qospy")?;
    let mut policy = cx.object(POLICY, id, "QosPolicyId", &qos.id, body);
    check_policy(cx, &mut policy)?;
    save(cx, &qos, &policy).await?;
    Ok(Value::Object(policy.body))
}

pub async fn modify_policy(cx: &mut Cx) -> Result<Value> {
    let qos = find(cx).await?;
    let mut policy = part_of(cx, POLICY, &qos, "QosPolicyId", "InvalidId.QOSPY").await?;
    for (k, v) in cx.fields(&POLICY_FIELDS) {
        policy.set(&k, v);
    }
    check_policy(cx, &mut policy)?;
    save(cx, &qos, &policy).await?;
    Ok(empty())
}

pub async fn delete_policy(cx: &mut Cx) -> Result<Value> {
    delete(cx, POLICY, "QosPolicyId", "InvalidId.QOSPY").await
}

pub async fn describe_policies(cx: &mut Cx) -> Result<Value> {
    let qos = find(cx).await?;
    let (id, description) = (cx.opt("QosPolicyId"), cx.opt("Description"));
    let priority = cx.int("Priority");
    let mut policies = cx.children(POLICY, &qos.id).await?;
    policies.retain(|p| {
        id.as_ref().is_none_or(|v| *v == p.id)
            && description.as_ref().is_none_or(|v| v == p.str("Description"))
            && priority.is_none_or(|v| v == p.int("Priority"))
    });
    let (total, page) = cx.cut(policies);
    let rows = page.into_iter().map(|p| Value::Object(p.body)).collect();
    Ok(cx.listing("QosPolicies", total, rows))
}

/// The limit is complete for its type, and the highest is above the lowest.
fn check_car(cx: &Cx, body: &Map<String, Value>) -> Result<()> {
    let number = |f: &str| body.get(f).and_then(Value::as_i64);
    let suffix = if body.get("LimitType").and_then(Value::as_str) == Some("Percent") {
        if body.get("PercentSourceType").is_none() {
            return Err(cx.err(&["MissParameter.PercentSourceType"]));
        }
        "Percent"
    } else {
        "Abs"
    };
    let low = format!("MinBandwidth{suffix}");
    let high = format!("MaxBandwidth{suffix}");
    let low = number(&low).ok_or_else(|| cx.missing(&low))?;
    let high = number(&high).ok_or_else(|| cx.missing(&high))?;
    if low < 0 || high <= low {
        return Err(cx.err(&["InvalidBandwidthCompare"]));
    }
    let text = |f: &str| body.get(f).and_then(Value::as_str).unwrap_or_default();
    if text("Description").chars().count() > 512 {
        return Err(cx.err(&["InvalidParameter.Description"]));
    }
    Ok(())
}

async fn priority_taken(cx: &mut Cx, car: &Object) -> Result<bool> {
    let others = cx.children(CAR, &car.parent).await?;
    Ok(others.iter().any(|o| o.id != car.id && o.int("Priority") == car.int("Priority")))
}

pub async fn create_car(cx: &mut Cx) -> Result<Value> {
    let qos = find(cx).await?;
    if cx.count(CAR, cx.under(&qos.id)).await? >= CAR_QUOTA {
        return Err(cx.err(&["QosCarPerQosAmountLimit"]));
    }
    let mut body = cx.fields(&CAR_FIELDS);
    check_car(cx, &body)?;
    body.insert("QosId".into(), qos.id.as_str().into());
    let id = cx.new_id("qoscar")?;
    let car = cx.object(CAR, id, "QosCarId", &qos.id, body);
    if priority_taken(cx, &car).await? {
        return Err(cx.err(&["Invalid.QosCar.Priority"]));
    }
    save(cx, &qos, &car).await?;
    Ok(Value::Object(car.body))
}

pub async fn modify_car(cx: &mut Cx) -> Result<Value> {
    let qos = find(cx).await?;
    let mut car = part_of(cx, CAR, &qos, "QosCarId", "InvalidId.QOSCAR").await?;
    for (k, v) in cx.fields(&CAR_FIELDS) {
        car.set(&k, v);
    }
    check_car(cx, &car.body)?;
    if priority_taken(cx, &car).await? {
        return Err(cx.err(&["InvalidParameter.Priority"]));
    }
    save(cx, &qos, &car).await?;
    Ok(empty())
}

pub async fn delete_car(cx: &mut Cx) -> Result<Value> {
    delete(cx, CAR, "QosCarId", "InvalidId.QOSCAR").await
}

pub async fn describe_cars(cx: &mut Cx) -> Result<Value> {
    let qos = find(cx).await?;
    let (id, description) = (cx.opt("QosCarId"), cx.opt("Description"));
    let mut cars = cx.children(CAR, &qos.id).await?;
    cars.retain(|c| {
        id.as_ref().is_none_or(|v| *v == c.id)
            && description.as_ref().is_none_or(|v| v == c.str("Description"))
    });
    cars.sort_by_key(|c| c.int("Priority"));
    if cx.text("Order") == "desc" {
        cars.reverse();
    }
    let (total, page) = cx.cut(cars);
    let rows = page.into_iter().map(|c| Value::Object(c.body)).collect();
    Ok(cx.listing("QosCars", total, rows))
}
