//! Health checks of a gateway.

use std::net::IpAddr;

use sag_southbound::HealthStatus;

use super::cx::Cx;
use super::fields::{copied, set_given};
use crate::api::{request, response};
use crate::domain::distribution::RouteStrategy;
use crate::domain::health::HealthCheck;
use crate::domain::objects::Authorised;
use crate::error::Result;
use crate::store::Kind;
use crate::store::objects::{Column, Filter, Stored};

/// Checks of one gateway.
const QUOTA: i64 = 20;

fn check(cx: &Cx, hc: &HealthCheck) -> Result<()> {
    // Of either family, and both of the same.
    let dst: IpAddr = hc.dst_ip_addr.parse().map_err(|_| cx.invalid("DstIpAddr"))?;
    let src: IpAddr = hc.src_ip_addr.parse().map_err(|_| cx.invalid("SrcIpAddr"))?;
    if src.is_ipv4() != dst.is_ipv4() {
        return Err(cx.invalid("SrcIpAddr"));
    }
    for (field, port) in [("DstPort", hc.dst_port), ("SrcPort", hc.src_port)] {
        if port.is_some_and(|p| !(0..=65535).contains(&p)) {
            return Err(cx.invalid(field));
        }
    }
    Ok(())
}

/// Route publication strategies that depend on the check.
async fn relations(cx: &mut Cx, hc: &Authorised<HealthCheck>) -> Result<i64> {
    let depends = |s: &Stored<RouteStrategy>| s.hc_instance_id.as_ref() == Some(&hc.id);
    let strategies = cx.inspect_list(&Filter::under(&hc.parent), depends).await?;
    Ok(strategies.into_iter().filter(|depends| *depends).count() as i64)
}

/// The health check, which must be that gateway's if the request names one.
async fn require(cx: &mut Cx, id: &str, gateway: Option<&str>) -> Result<Authorised<HealthCheck>> {
    let hc = cx.require::<HealthCheck>(id, &["HC.InstanceNoFound"]).await?;
    if gateway.is_some_and(|id| id != hc.parent) {
        return Err(cx.err(&["HC.InstanceNoFound"]));
    }
    Ok(hc)
}

pub async fn create(cx: &mut Cx, request: request::CreateHealthCheck) -> Result<response::CreateHealthCheck> {
    let gw = cx.gateway().await?;
    cx.refuse_if(gw.is_software(), &["FeatureNotSupport"])?;
    if cx.count(Kind::HealthCheck, &Filter::under(&gw.id)).await? >= QUOTA {
        return Err(cx.err(&["HC.AmountLimit"]));
    }
    let id = cx.new_id("hc")?;
    let body = copied!(request => HealthCheck {
        smart_ag_id, name, description, r#type, dst_ip_addr, dst_port, src_ip_addr, src_port, probe_interval,
        probe_count, probe_timeout, rtt_threshold, rtt_fail_threshold, fail_count_threshold;
        hc_instance_id: id.clone(),
        region_id: cx.region(),
        create_time: cx.now,
    });
    check(cx, &body)?;
    let hc = cx.create_part(&gw, id, body);
    cx.put(&hc).await?;
    cx.renew(&gw).await?;
    Ok(response::CreateHealthCheck { instance_id: hc.id.clone() })
}

pub async fn modify(cx: &mut Cx, request: request::ModifyHealthCheck) -> Result<response::ModifyHealthCheck> {
    let gw = cx.gateway().await?;
    let mut hc = require(cx, &request.hc_instance_id, Some(&request.smart_ag_id)).await?;
    set_given!(hc.edit(), request => {
        name, description, r#type, dst_ip_addr, dst_port, src_ip_addr, src_port, probe_interval, probe_count,
        probe_timeout, rtt_threshold, rtt_fail_threshold, fail_count_threshold,
    });
    check(cx, &hc)?;
    cx.put(&hc).await?;
    cx.renew(&gw).await?;
    Ok(response::ModifyHealthCheck::default())
}

pub async fn delete(cx: &mut Cx, request: request::DeleteHealthCheck) -> Result<response::DeleteHealthCheck> {
    let hc = require(cx, &request.hc_instance_id, None).await?;
    if relations(cx, &hc).await? > 0 {
        return Err(cx.err(&["HC.RelatedRoute"]));
    }
    cx.remove(&hc).await?;
    let sns = cx.bump_revision_of_parent(&hc).await?;
    cx.changed.extend(sns);
    Ok(response::DeleteHealthCheck::default())
}

pub async fn describe(
    cx: &mut Cx,
    request: request::DescribeHealthChecks,
) -> Result<response::DescribeHealthChecks> {
    let gw = cx.gateway().await?;
    let filter = Filter::under(&gw.id)
        .equals(Column::Name, request.name)
        .with_ids(request.hc_instance_id.map(|id| vec![id]));
    let page = cx.list_page::<HealthCheck>(&filter).await?;
    let devices = cx.devices_of(&gw).await?;
    let mut rows = Vec::new();
    for hc in &page.rows {
        let relation_count = relations(cx, hc).await?;
        // What a connected device measured; `unknown` without one.
        let seen = devices
            .iter()
            .filter(|d| d.online(cx.now))
            .find_map(|d| d.state.health_checks.iter().find(|h| h.id == hc.id)?.status.as_ref());
        rows.push(copied!(hc => response::describe_health_checks::HealthCheck {
            description, dst_ip_addr, dst_port, fail_count_threshold, hc_instance_id, name, probe_count,
            probe_interval, probe_timeout, rtt_fail_threshold, rtt_threshold, smart_ag_id, src_ip_addr, src_port,
            r#type;
            relation_count,
            status: seen.unwrap_or(&HealthStatus::NotMeasured).to_string(),
        }));
    }
    Ok(response::DescribeHealthChecks {
        health_checks: rows,
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

pub async fn attribute(
    cx: &mut Cx,
    request: request::DescribeHealthCheckAttribute,
) -> Result<response::DescribeHealthCheckAttribute> {
    let hc = require(cx, &request.hc_instance_id, Some(&request.smart_ag_id)).await?;
    Ok(copied!(hc => response::DescribeHealthCheckAttribute {
        create_time, description, dst_ip_addr, dst_port, fail_count_threshold, hc_instance_id, name, probe_count,
        probe_interval, probe_timeout, rtt_fail_threshold, rtt_threshold, smart_ag_id, src_ip_addr, src_port, r#type,
    }))
}
