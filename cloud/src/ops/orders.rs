//! Ordering: instances and orders are made and changed, no money moves.

use serde_json::{Map, Value, json};

use super::cx::{Cx, RESOURCE_GROUP};
use super::gateway::{KIND, SOFTWARE};
use crate::proto::error::{ApiError, Result};
use crate::store::objects::{Filter, Object};
use crate::store::secrets::LOWER;

/// Instances of one account.
const GATEWAY_QUOTA: i64 = 5000;

const MONTH_MS: i64 = 30 * 86_400_000;

/// The bandwidth that a model takes, in Mbit/s.
fn bandwidth_range(model: &str) -> (i64, i64) {
    match model {
        "sag-100wm" => (2, 50),
        "sag-1000" => (10, 500),
        _ => (10, 1000),
    }
}

fn check_bandwidth(model: &str, mbps: i64, name: &str, cx: &Cx) -> Result<()> {
    let (min, max) = bandwidth_range(model);
    if (min..=max).contains(&mbps) { Ok(()) } else { Err(cx.invalid(name)) }
}

async fn order(cx: &mut Cx, gw: &str) -> Result<String> {
    let id = cx.new_order()?;
    let mut body = cx.fields(&["AutoPay", "BandWidthSpec", "MaxBandWidth", "Period", "ChargeType"]);
    body.insert("SmartAGId".into(), gw.into());
    body.insert("CreateTime".into(), cx.now.into());
    let o = cx.object("order", id.clone(), "OrderId", gw, body);
    cx.put(&o).await?;
    Ok(id)
}

async fn check_quota(cx: &mut Cx) -> Result<()> {
    let filter = Filter { uid: Some(cx.uid()), ..Filter::default() };
    if cx.count(KIND, filter).await? >= GATEWAY_QUOTA {
        return Err(ApiError::new(
            400,
            "QuotaExceeded.SmartAccessGateway",
            "The maximum number of Smart Access Gateway instances is exceeded.",
        ));
    }
    Ok(())
}

/// Fields that every new instance has.
fn base(cx: &Cx) -> Map<String, Value> {
    let period = cx.int("Period").unwrap_or(1);
    let mut body = cx.fields(&["Name", "Description", "MaxBandWidth", "UserCount", "DataPlan"]);
    let more = json!({
        "CreateTime": cx.now,
        "EndTime": cx.now + period * MONTH_MS,
        "City": cx.region(),
        "SmartAGUid": cx.uid(),
        "ResourceGroupId": RESOURCE_GROUP,
        "RoutingStrategy": "static",
        "SecurityLockThreshold": 0,
        "CidrBlock": "",
        "DpiStatus": "Off",
        "DpiMonitorStatus": "Inactive",
        "AccessPointId": super::access_points::FIRST,
        "UpBandwidth4G": 0,
        "UpBandwidthWan": 0,
    });
    body.extend(more.as_object().cloned().unwrap_or_default());
    body
}

pub async fn create(cx: &mut Cx) -> Result<Value> {
    check_quota(cx).await?;
    let model = cx.text("HardWareSpec");
    let mbps = cx.int("MaxBandWidth").unwrap_or_default();
    check_bandwidth(&model, mbps, "MaxBandWidth", cx)?;
    let ha = cx.text("HaType");
    let vcpe = model == "sag-vcpe";
    if vcpe && ha != "warm_backup" {
        return Err(cx.invalid("HaType"));
    }
    let mut body = base(cx);
    let owned = vcpe || cx.flag("AlreadyHaveSag") == Some(true);
    body.insert("Bandwidth".into(), mbps.into());
    body.insert("HardwareVersion".into(), model.as_str().into());
    body.insert("InstanceType".into(), model.as_str().into());
    body.insert("HaType".into(), ha.into());
    body.insert("Status".into(), if owned { "Received" } else { "Ordered" }.into());
    let id = cx.new_id("sag")?;
    let gw = cx.object(KIND, id.clone(), "SmartAGId", "", body);
    cx.put(&gw).await?;
    if vcpe {
        // A virtual device comes with its serial numbers; hardware is bound when it arrives.
        for slot in 0..2 {
            let tail = cx.cipher.token(LOWER, 13).map_err(ApiError::internal)?;
            cx.add_device(&gw, &format!("sag{tail}"), slot).await?;
        }
    }
    let order = order(cx, &id).await?;
    Ok(json!({"SmartAGId": id, "OrderId": order, "ResourceGroupId": RESOURCE_GROUP, "Name": gw.name,
        "Description": gw.str("Description")}))
}

pub async fn create_software(cx: &mut Cx) -> Result<Value> {
    check_quota(cx).await?;
    check_plan(cx)?;
    let mut body = base(cx);
    body.insert("HardwareVersion".into(), SOFTWARE.into());
    body.insert("InstanceType".into(), SOFTWARE.into());
    body.insert("Status".into(), "Active".into());
    let id = cx.new_id("sag")?;
    let gw = cx.object(KIND, id.clone(), "SmartAGId", "", body);
    cx.put(&gw).await?;
    let order = order(cx, &id).await?;
    Ok(json!({"SmartAGId": id, "OrderId": order, "ResourceGroupId": RESOURCE_GROUP}))
}

/// Accounts come in fives, with 5 GB each.
fn check_plan(cx: &Cx) -> Result<()> {
    let users = cx.int("UserCount");
    if users.is_some_and(|n| n < 1 || n % 5 != 0) {
        return Err(cx.err(&["SAG.InvalidUserCount"]));
    }
    if cx.int("DataPlan").is_some_and(|n| n != 5) {
        return Err(cx.err(&["SAG.InvalidDataPlan"]));
    }
    Ok(())
}

pub async fn upgrade(cx: &mut Cx) -> Result<Value> {
    resize(cx, |old, new| new > old).await
}

pub async fn downgrade(cx: &mut Cx) -> Result<Value> {
    resize(cx, |old, new| new < old).await
}

async fn resize(cx: &mut Cx, allowed: fn(i64, i64) -> bool) -> Result<Value> {
    check_plan(cx)?;
    let mut gw = cx.gateway().await?;
    let mbps = cx.int("BandWidthSpec").unwrap_or_default();
    check_bandwidth(gw.str("HardwareVersion"), mbps, "BandWidthSpec", cx)?;
    if !allowed(gw.int("Bandwidth"), mbps) {
        return Err(cx.invalid("BandWidthSpec"));
    }
    gw.set("Bandwidth", mbps);
    cx.put(&gw).await?;
    cx.touch(&gw.id).await?;
    let order = order(cx, &gw.id).await?;
    Ok(json!({"OrderId": order}))
}

pub async fn upgrade_software(cx: &mut Cx) -> Result<Value> {
    resize_software(cx, |old, new| new >= old).await
}

pub async fn downgrade_software(cx: &mut Cx) -> Result<Value> {
    resize_software(cx, |old, new| new <= old).await
}

async fn resize_software(cx: &mut Cx, allowed: fn(i64, i64) -> bool) -> Result<Value> {
    check_plan(cx)?;
    let mut gw: Object = cx.gateway().await?;
    if gw.str("InstanceType") != SOFTWARE {
        return Err(cx.err(&["ActionNotSupport"]));
    }
    let users = cx.int("UserCount").unwrap_or_default();
    let used = cx.count("app_user", cx.under(&gw.id)).await?;
    if !allowed(gw.int("UserCount"), users) || users < used {
        return Err(cx.err(&["SAG.InvalidUserCount"]));
    }
    gw.set("UserCount", users);
    gw.set("DataPlan", cx.int("DataPlan").unwrap_or(5));
    cx.put(&gw).await?;
    let order = order(cx, &gw.id).await?;
    Ok(json!({"OrderId": order}))
}

pub async fn use_limit(cx: &mut Cx) -> Result<Value> {
    let used = cx.count(KIND, cx.mine()).await?;
    Ok(json!({"TotalAmount": GATEWAY_QUOTA, "UsedAmount": used}))
}
