//! Traffic classes and rate limits of a QoS container.

use super::acl_rules::{check_dpi, check_protocol};
use super::capability;
use super::cx::Cx;
use super::fields::{Give, copied, set_given};
use super::qos::require;
use crate::api::{request, response};
use crate::domain::objects::Authorised;
use crate::domain::qos::{Qos, QosCar, QosPolicy};
use crate::error::Result;
use crate::store::objects::{Column, Entity, Filter};
use crate::store::{Kind, Link};
use crate::time;

const POLICY_QUOTA: i64 = 200;
/// One rate limit for each priority.
const CAR_QUOTA: i64 = 7;
const PRIORITIES: std::ops::RangeInclusive<i64> = 1..=7;

fn check_policy(cx: &Cx, policy: &mut QosPolicy, signatures: Vec<String>, groups: Vec<String>) -> Result<()> {
    if !PRIORITIES.contains(&policy.priority) {
        return Err(cx.err(&["InvalidParameter.Priority"]));
    }
    policy.ip_protocol =
        check_protocol(cx, &policy.ip_protocol, [&policy.source_port_range, &policy.dest_port_range])?;
    let (signatures, groups) = check_dpi(cx, signatures, groups)?;
    policy.dpi_signature_ids = signatures.or(policy.dpi_signature_ids.take());
    policy.dpi_group_ids = groups.or(policy.dpi_group_ids.take());
    let moment = |t: &Option<String>| t.as_deref().and_then(time::parse);
    let times = (moment(&policy.start_time), moment(&policy.end_time));
    if matches!(times, (Some(start), Some(end)) if end <= start) {
        return Err(cx.err(&["InvalidTimeRangeCompare"]));
    }
    Ok(())
}

async fn save_policy(cx: &mut Cx, qos: &Authorised<Qos>, policy: &Authorised<QosPolicy>) -> Result<()> {
    let users = cx.links_to(Link::Qos, &qos.id).await?;
    if policy.dpi_signature_ids.is_some() || policy.dpi_group_ids.is_some() {
        capability::check_applications(cx, &users).await?;
    }
    cx.put(policy).await?;
    cx.renew_all(&users).await
}

/// The gateways of the container have a new configuration.
async fn bump_users(cx: &mut Cx, qos: &Authorised<Qos>) -> Result<()> {
    let users = cx.links_to(Link::Qos, &qos.id).await?;
    cx.renew_all(&users).await
}

async fn part_of<T: Entity>(
    cx: &mut Cx,
    qos: &Authorised<Qos>,
    id: &str,
    code: &str,
) -> Result<Authorised<T>> {
    let found = cx.part(qos, id).await?;
    found.ok_or_else(|| cx.err(&[code]))
}

pub async fn create_policy(
    cx: &mut Cx,
    request: request::CreateQosPolicy,
) -> Result<response::CreateQosPolicy> {
    let qos = require(cx, &request.qos_id).await?;
    if cx.count(Kind::QosPolicy, &Filter::under(&qos.id)).await? >= POLICY_QUOTA {
        return Err(cx.err(&["QosPolicyPerQosAmountLimit"]));
    }
    let id = cx.new_id("qospy")?;
    let mut body = copied!(request => QosPolicy {
        qos_id, name, description, priority, source_cidr, dest_cidr, ip_protocol, source_port_range,
        dest_port_range, start_time, end_time;
        qos_policy_id: id.clone(),
        region_id: cx.region(),
        ..QosPolicy::default()
    });
    check_policy(cx, &mut body, request.dpi_signature_ids, request.dpi_group_ids)?;
    let policy = cx.create_part(&qos, id, body);
    save_policy(cx, &qos, &policy).await?;
    Ok(copied!(policy => response::CreateQosPolicy {
        description, dest_cidr, dest_port_range, dpi_group_ids, dpi_signature_ids, end_time, ip_protocol, name,
        priority, qos_id, qos_policy_id, source_cidr, source_port_range, start_time,
    }))
}

pub async fn modify_policy(
    cx: &mut Cx,
    request: request::ModifyQosPolicy,
) -> Result<response::ModifyQosPolicy> {
    let qos = require(cx, &request.qos_id).await?;
    let mut policy: Authorised<QosPolicy> =
        part_of(cx, &qos, &request.qos_policy_id, "InvalidId.QOSPY").await?;
    set_given!(policy.edit(), request => {
        name, description, priority, source_cidr, dest_cidr, ip_protocol, source_port_range, dest_port_range,
        start_time, end_time,
    });
    // Without a value it is in force from now on, or for ever.
    let body = policy.edit();
    body.start_time = body.start_time.take().filter(|t| !t.is_empty());
    body.end_time = body.end_time.take().filter(|t| !t.is_empty());
    check_policy(cx, body, request.dpi_signature_ids, request.dpi_group_ids)?;
    save_policy(cx, &qos, &policy).await?;
    Ok(response::ModifyQosPolicy::default())
}

pub async fn delete_policy(
    cx: &mut Cx,
    request: request::DeleteQosPolicy,
) -> Result<response::DeleteQosPolicy> {
    let qos = require(cx, &request.qos_id).await?;
    let policy: Authorised<QosPolicy> = part_of(cx, &qos, &request.qos_policy_id, "InvalidId.QOSPY").await?;
    cx.remove(&policy).await?;
    bump_users(cx, &qos).await?;
    Ok(response::DeleteQosPolicy::default())
}

pub async fn describe_policies(
    cx: &mut Cx,
    request: request::DescribeQosPolicies,
) -> Result<response::DescribeQosPolicies> {
    let qos = require(cx, &request.qos_id).await?;
    let mut filter = Filter::under(&qos.id)
        .equals(Column::Description, request.description)
        .equals(Column::Priority, request.priority);
    filter.ids = request.qos_policy_id.map(|id| vec![id]);
    let page = cx.list_page::<QosPolicy>(&filter).await?;
    let rows = page.rows.iter().map(|p| {
        copied!(p => response::describe_qos_policies::QosPolicy {
            description, dest_cidr, dest_port_range, dpi_group_ids, dpi_signature_ids, end_time, ip_protocol,
            name, priority, qos_id, qos_policy_id, source_cidr, source_port_range, start_time,
        })
    });
    Ok(response::DescribeQosPolicies {
        qos_policies: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

/// The limit is complete for its type, and the highest is above the lowest.
fn check_car(cx: &Cx, car: &QosCar) -> Result<()> {
    let (suffix, low, high) = if car.limit_type == "Percent" {
        if car.percent_source_type.is_none() {
            return Err(cx.err(&["MissParameter.PercentSourceType"]));
        }
        ("Percent", car.min_bandwidth_percent, car.max_bandwidth_percent)
    } else {
        ("Abs", car.min_bandwidth_abs, car.max_bandwidth_abs)
    };
    let low = low.ok_or_else(|| cx.missing(&format!("MinBandwidth{suffix}")))?;
    let high = high.ok_or_else(|| cx.missing(&format!("MaxBandwidth{suffix}")))?;
    if low < 0 || high <= low {
        return Err(cx.err(&["InvalidBandwidthCompare"]));
    }
    if car.description.as_ref().is_some_and(|d| d.chars().count() > 512) {
        return Err(cx.err(&["InvalidParameter.Description"]));
    }
    Ok(())
}

async fn priority_taken(cx: &mut Cx, car: &Authorised<QosCar>) -> Result<bool> {
    let filter = Filter::under(&car.parent)
        .equals(Column::Priority, Some(car.priority))
        .condition("id <> ?", crate::args![&car.id]);
    Ok(cx.count(Kind::QosCar, &filter).await? > 0)
}

pub async fn create_car(cx: &mut Cx, request: request::CreateQosCar) -> Result<response::CreateQosCar> {
    let qos = require(cx, &request.qos_id).await?;
    if cx.count(Kind::QosCar, &Filter::under(&qos.id)).await? >= CAR_QUOTA {
        return Err(cx.err(&["QosCarPerQosAmountLimit"]));
    }
    let id = cx.new_id("qoscar")?;
    let body = copied!(request => QosCar {
        qos_id, name, description, priority, limit_type, min_bandwidth_abs, max_bandwidth_abs,
        min_bandwidth_percent, max_bandwidth_percent, percent_source_type;
        qos_car_id: id.clone(),
        region_id: cx.region(),
    });
    check_car(cx, &body)?;
    let car = cx.create_part(&qos, id, body);
    if priority_taken(cx, &car).await? {
        return Err(cx.err(&["Invalid.QosCar.Priority"]));
    }
    cx.put(&car).await?;
    bump_users(cx, &qos).await?;
    Ok(copied!(car => response::CreateQosCar {
        description, limit_type, max_bandwidth_abs, max_bandwidth_percent, min_bandwidth_abs,
        min_bandwidth_percent, priority, qos_car_id, qos_id;
        percent_source_type: Give::give(car.shown_percent_source()),
    }))
}

pub async fn modify_car(cx: &mut Cx, request: request::ModifyQosCar) -> Result<response::ModifyQosCar> {
    let qos = require(cx, &request.qos_id).await?;
    let mut car: Authorised<QosCar> = part_of(cx, &qos, &request.qos_car_id, "InvalidId.QOSCAR").await?;
    set_given!(car.edit(), request => {
        name, description, priority, limit_type, min_bandwidth_abs, max_bandwidth_abs, min_bandwidth_percent,
        max_bandwidth_percent, percent_source_type,
    });
    check_car(cx, &car)?;
    if priority_taken(cx, &car).await? {
        return Err(cx.err(&["InvalidParameter.Priority"]));
    }
    cx.put(&car).await?;
    bump_users(cx, &qos).await?;
    Ok(response::ModifyQosCar::default())
}

pub async fn delete_car(cx: &mut Cx, request: request::DeleteQosCar) -> Result<response::DeleteQosCar> {
    let qos = require(cx, &request.qos_id).await?;
    let car: Authorised<QosCar> = part_of(cx, &qos, &request.qos_car_id, "InvalidId.QOSCAR").await?;
    cx.remove(&car).await?;
    bump_users(cx, &qos).await?;
    Ok(response::DeleteQosCar::default())
}

pub async fn describe_cars(
    cx: &mut Cx,
    request: request::DescribeQosCars,
) -> Result<response::DescribeQosCars> {
    let qos = require(cx, &request.qos_id).await?;
    let mut filter = Filter::under(&qos.id)
        .equals(Column::Description, request.description)
        .order_by(Column::Priority, request.order == "desc");
    filter.ids = request.qos_car_id.map(|id| vec![id]);
    let page = cx.list_page::<QosCar>(&filter).await?;
    let rows = page.rows.iter().map(|c| {
        copied!(c => response::describe_qos_cars::QosCar {
            description, limit_type, max_bandwidth_abs, max_bandwidth_percent, min_bandwidth_abs,
            min_bandwidth_percent, name, priority, qos_car_id, qos_id;
            percent_source_type: Give::give(c.shown_percent_source()),
        })
    });
    Ok(response::DescribeQosCars {
        qos_cars: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}
