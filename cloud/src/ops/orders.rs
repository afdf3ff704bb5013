//! Ordering: instances and orders are made and changed, no money moves.

use super::access_points;
use super::cx::{Cx, RESOURCE_GROUP};
use super::fields::copied;
use crate::api::{request, response};
use crate::domain::app::AppUser;
use crate::domain::gateway::{Gateway, SOFTWARE};
use crate::domain::objects::Authorised;
use crate::domain::orders::Order;
use crate::error::{ApiError, Result};
use crate::store::Kind;
use crate::store::objects::{Entity as _, Filter};
use crate::store::secrets::LOWER;
use crate::time;

/// Instances of one account.
const GATEWAY_QUOTA: i64 = 5000;

/// Orders of one instance that are remembered: the last ones.
const ORDERS: i64 = 100;

/// Months that a gateway may be renewed for at a time.
const RENEWAL: std::ops::RangeInclusive<i64> = 1..=36;

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

/// Writes an order down; returns its number.
async fn place(cx: &mut Cx, gw: &Authorised<Gateway>, mut order: Order) -> Result<String> {
    let id = cx.new_order()?;
    order.order_id.clone_from(&id);
    order.region_id = cx.region();
    order.smart_ag_id.clone_from(&gw.id);
    order.create_time = cx.now;
    let order = cx.create_part(gw, id.clone(), order);
    cx.put(&order).await?;
    cx.keep_newest(Kind::Order, gw, ORDERS).await?;
    Ok(id)
}

async fn check_quota(cx: &mut Cx) -> Result<()> {
    cx.require_all(Kind::Gateway)?;
    let all = Filter::of(cx.uid());
    if cx.count(Kind::Gateway, &all).await? >= GATEWAY_QUOTA {
        return Err(ApiError::new(
            400,
            "QuotaExceeded.SmartAccessGateway",
            "The maximum number of Smart Access Gateway instances is exceeded.",
        ));
    }
    Ok(())
}

/// What every new instance has.
fn new_gateway(cx: &Cx, id: &str, model: &str, period: i64) -> Gateway {
    Gateway {
        smart_ag_id: id.to_owned(),
        region_id: cx.region(),
        smart_ag_uid: cx.uid(),
        hardware_version: model.to_owned(),
        instance_type: model.to_owned(),
        city: cx.region(),
        resource_group_id: RESOURCE_GROUP.to_owned(),
        create_time: cx.now,
        end_time: time::months_later(cx.now, period),
        routing_strategy: "static".to_owned(),
        dpi_status: "Off".to_owned(),
        dpi_monitor_status: "Inactive".to_owned(),
        ..Gateway::default()
    }
}

pub async fn create(
    cx: &mut Cx,
    request: request::CreateSmartAccessGateway,
) -> Result<response::CreateSmartAccessGateway> {
    check_quota(cx).await?;
    let mbps = request.max_band_width;
    check_bandwidth(&request.hard_ware_spec, mbps, "MaxBandWidth", cx)?;
    let vcpe = request.hard_ware_spec == "sag-vcpe";
    if vcpe && request.ha_type != "warm_backup" {
        return Err(cx.invalid("HaType"));
    }
    let owned = vcpe || request.already_have_sag == Some(true);
    let id = cx.new_id("sag")?;
    let body = Gateway {
        name: request.name,
        description: request.description,
        bandwidth: mbps,
        max_band_width: Some(mbps),
        ha_type: Some(request.ha_type),
        status: if owned { "Received" } else { "Ordered" }.to_owned(),
        access_point_id: access_points::first(cx).await?,
        ..new_gateway(cx, &id, &request.hard_ware_spec, request.period)
    };
    let gw = cx.create(id, body)?;
    cx.put(&gw).await?;
    if vcpe {
        // A virtual device comes with its serial numbers; hardware is bound when it arrives.
        for slot in 0..2 {
            let tail = cx.cipher.token(LOWER, 13).map_err(ApiError::internal)?;
            cx.new_device(&gw, &format!("sag{tail}"), slot).await?;
        }
    }
    let order = Order {
        auto_pay: Some(request.auto_pay),
        max_band_width: Some(mbps),
        period: Some(request.period),
        charge_type: Some(request.charge_type),
        ..Order::default()
    };
    let order_id = place(cx, &gw, order).await?;
    Ok(copied!(gw => response::CreateSmartAccessGateway {
        name, resource_group_id, smart_ag_id;
        description: Some(gw.description.clone().unwrap_or_default()),
        order_id,
    }))
}

pub async fn create_software(
    cx: &mut Cx,
    request: request::CreateSmartAccessGatewaySoftware,
) -> Result<response::CreateSmartAccessGatewaySoftware> {
    check_quota(cx).await?;
    check_plan(cx, Some(request.user_count), Some(request.data_plan))?;
    let id = cx.new_id("sag")?;
    let body = Gateway {
        user_count: Some(request.user_count),
        data_plan: Some(request.data_plan),
        status: "Active".to_owned(),
        ..new_gateway(cx, &id, SOFTWARE, request.period)
    };
    let gw = cx.create(id, body)?;
    cx.put(&gw).await?;
    let order = Order {
        auto_pay: Some(request.auto_pay),
        period: Some(request.period),
        charge_type: Some(request.charge_type),
        ..Order::default()
    };
    let order_id = place(cx, &gw, order).await?;
    Ok(copied!(gw => response::CreateSmartAccessGatewaySoftware {
        resource_group_id, smart_ag_id;
        order_id,
    }))
}

/// Accounts come in fives, with 5 GB each.
fn check_plan(cx: &Cx, users: Option<i64>, plan: Option<i64>) -> Result<()> {
    if users.is_some_and(|n| n < 1 || n % 5 != 0) {
        return Err(cx.err(&["SAG.InvalidUserCount"]));
    }
    if plan.is_some_and(|n| n != 5) {
        return Err(cx.err(&["SAG.InvalidDataPlan"]));
    }
    Ok(())
}

pub async fn upgrade(
    cx: &mut Cx,
    request: request::UpgradeSmartAccessGateway,
) -> Result<response::UpgradeSmartAccessGateway> {
    check_plan(cx, request.user_count, request.data_plan)?;
    let order_id = resize(cx, request.band_width_spec, request.auto_pay, |old, new| new > old).await?;
    Ok(response::UpgradeSmartAccessGateway { order_id })
}

pub async fn downgrade(
    cx: &mut Cx,
    request: request::DowngradeSmartAccessGateway,
) -> Result<response::DowngradeSmartAccessGateway> {
    let order_id = resize(cx, request.band_width_spec, request.auto_pay, |old, new| new < old).await?;
    Ok(response::DowngradeSmartAccessGateway { order_id })
}

/// Changes the bandwidth; returns the number of the order.
async fn resize(cx: &mut Cx, mbps: i64, auto_pay: bool, allowed: fn(i64, i64) -> bool) -> Result<String> {
    let mut gw = cx.gateway().await?;
    check_bandwidth(&gw.hardware_version, mbps, "BandWidthSpec", cx)?;
    if !allowed(gw.bandwidth, mbps) {
        return Err(cx.invalid("BandWidthSpec"));
    }
    gw.edit().bandwidth = mbps;
    cx.save_gateway(&gw).await?;
    let order = Order { auto_pay: Some(auto_pay), band_width_spec: Some(mbps), ..Order::default() };
    place(cx, &gw, order).await
}

pub async fn upgrade_software(
    cx: &mut Cx,
    request: request::UpgradeSmartAccessGatewaySoftware,
) -> Result<response::UpgradeSmartAccessGatewaySoftware> {
    let plan = (request.user_count, request.data_plan);
    let order_id = resize_software(cx, plan, request.auto_pay, |old, new| new >= old).await?;
    Ok(response::UpgradeSmartAccessGatewaySoftware { order_id })
}

pub async fn downgrade_software(
    cx: &mut Cx,
    request: request::DowngradeSmartAccessGatewaySoftware,
) -> Result<response::DowngradeSmartAccessGatewaySoftware> {
    let plan = (request.user_count, request.data_plan);
    let order_id = resize_software(cx, plan, request.auto_pay, |old, new| new <= old).await?;
    Ok(response::DowngradeSmartAccessGatewaySoftware { order_id })
}

async fn resize_software(
    cx: &mut Cx,
    (users, plan): (i64, i64),
    auto_pay: bool,
    allowed: fn(i64, i64) -> bool,
) -> Result<String> {
    check_plan(cx, Some(users), Some(plan))?;
    let mut gw: Authorised<Gateway> = cx.gateway().await?;
    if !gw.is_software() {
        return Err(cx.err(&["ActionNotSupport"]));
    }
    let used = cx.count(AppUser::KIND, &Filter::under(&gw.id)).await?;
    if !allowed(gw.user_count.unwrap_or_default(), users) || users < used {
        return Err(cx.err(&["SAG.InvalidUserCount"]));
    }
    gw.edit().user_count = Some(users);
    gw.edit().data_plan = Some(plan);
    cx.put(&gw).await?;
    place(cx, &gw, Order { auto_pay: Some(auto_pay), ..Order::default() }).await
}

/// Extends the time of an instance, from its end, or from now on if that is over.
pub async fn renew(
    cx: &mut Cx,
    request: request::RenewSmartAccessGateway,
) -> Result<response::RenewSmartAccessGateway> {
    if !RENEWAL.contains(&request.period) {
        return Err(cx.invalid("Period"));
    }
    let id = request.smart_ag_id;
    let mut gw = cx.find::<Gateway>(&id).await?.ok_or_else(|| cx.no_gateway(&id))?;
    let from = gw.end_time.max(cx.now);
    gw.edit().end_time = time::months_later(from, request.period);
    cx.save_gateway(&gw).await?;
    let order = Order { period: Some(request.period), ..Order::default() };
    let order_id = place(cx, &gw, order).await?;
    Ok(response::RenewSmartAccessGateway { end_time: gw.end_time, order_id, smart_ag_id: id })
}

pub async fn use_limit(
    cx: &mut Cx,
    _: request::GetSmartAccessGatewayUseLimit,
) -> Result<response::GetSmartAccessGatewayUseLimit> {
    cx.require_all(Kind::Gateway)?;
    let all = cx.mine();
    let used_amount = cx.count(Kind::Gateway, &all).await?;
    Ok(response::GetSmartAccessGatewayUseLimit { total_amount: GATEWAY_QUOTA, used_amount })
}
