//! Containers of QoS rules.

use super::cx::{Cx, RESOURCE_GROUP};
use super::fields::{Give, copied, set_given};
use crate::api::request::separated;
use crate::api::{request, response};
use crate::domain::objects::Authorised;
use crate::domain::qos::{Qos, QosCar, QosPolicy};
use crate::error::{ApiError, Result};
use crate::store::objects::Column;
use crate::store::{Kind, Link};
use crate::time;

const QUOTA: i64 = 2000;
const PER_GATEWAY: usize = 1;

/// The caller's container, or the documented error.
pub async fn require(cx: &mut Cx, id: &str) -> Result<Authorised<Qos>> {
    cx.require(id, &["InvalidId.Qos"]).await
}

pub async fn create(cx: &mut Cx, request: request::CreateQos) -> Result<response::CreateQos> {
    cx.require_all(Kind::Qos)?;
    let all = cx.mine();
    if cx.count(Kind::Qos, &all).await? >= QUOTA {
        return Err(cx.err(&["QosAmountLimit"]));
    }
    let id = cx.new_id("qos")?;
    let body = copied!(request => Qos {
        qos_name, qos_description;
        qos_id: id.clone(),
        region_id: cx.region(),
        resource_group_id: RESOURCE_GROUP.to_owned(),
    });
    let qos = cx.create(id, body)?;
    cx.put(&qos).await?;
    Ok(copied!(qos => response::CreateQos { qos_id, resource_group_id }))
}

pub async fn modify(cx: &mut Cx, request: request::ModifyQos) -> Result<response::ModifyQos> {
    let mut qos = require(cx, &request.qos_id).await?;
    set_given!(qos.edit(), request => { qos_name, qos_description });
    cx.put(&qos).await?;
    Ok(response::ModifyQos::default())
}

pub async fn delete(cx: &mut Cx, request: request::DeleteQos) -> Result<response::DeleteQos> {
    let qos = require(cx, &request.qos_id).await?;
    if !cx.links_to(Link::Qos, &qos.id).await?.is_empty() {
        return Err(ApiError::new(
            400,
            "DependencyViolation.Qos",
            "The QoS policy is associated with a gateway.",
        )
        .with_hint("Call DisassociateQos first."));
    }
    for kind in [Kind::QosPolicy, Kind::QosCar] {
        cx.remove_children(kind, &qos).await?;
    }
    cx.remove(&qos).await?;
    Ok(response::DeleteQos::default())
}

pub async fn describe(cx: &mut Cx, request: request::DescribeQoses) -> Result<response::DescribeQoses> {
    let mut filter = cx.mine().equals(Column::Name, request.qos_name);
    filter.ids = request.qos_ids.as_deref().map(separated);
    let page = cx.list_page::<Qos>(&filter).await?;
    let mut all = cx.visible_links_to(Link::Qos, &page.rows).await?;
    let rows = page.rows.iter().map(|qos| {
        let users = all.remove(&qos.id).unwrap_or_default();
        copied!(qos => response::describe_qoses::Qos {
            qos_description, qos_id, qos_name, resource_group_id;
            sag_count: users.len().to_string(),
            smart_ag_ids: Some(users.join(",")),
        })
    });
    Ok(response::DescribeQoses {
        qoses: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

pub async fn associate(cx: &mut Cx, request: request::AssociateQos) -> Result<response::AssociateQos> {
    let qos = require(cx, &request.qos_id).await?;
    let gw = cx.gateway().await?;
    cx.refuse_if(gw.is_software(), &["SAG.SoftwareNotSupport"])?;
    let bound = cx.links_from(Link::Qos, &gw).await?;
    if bound.contains(&qos.id) {
        return Err(cx.err(&["SmartAGAlreadyAssociateQos"]));
    }
    if bound.len() >= PER_GATEWAY {
        return Err(cx.err(&["QosPerSmartagAmountLimit"]));
    }
    if super::dpi::names_applications::<_, QosPolicy>(cx, &qos).await? {
        super::capability::check_applications_on(cx, &gw).await?;
    }
    cx.link(Link::Qos, &gw, &qos).await?;
    cx.renew(&gw).await?;
    Ok(response::AssociateQos::default())
}

pub async fn disassociate(
    cx: &mut Cx,
    request: request::DisassociateQos,
) -> Result<response::DisassociateQos> {
    let qos = require(cx, &request.qos_id).await?;
    let gw = cx.gateway().await?;
    if !cx.unlink(Link::Qos, &gw, &qos.id).await? {
        return Err(cx.err(&["SmartAGNotAssociateQos"]));
    }
    cx.renew(&gw).await?;
    Ok(response::DisassociateQos::default())
}

pub async fn attribute(cx: &mut Cx, request: request::GetQosAttribute) -> Result<response::GetQosAttribute> {
    let qos = require(cx, &request.qos_id).await?;
    let names = super::dpi::names_applications::<_, QosPolicy>(cx, &qos).await?;
    let failing = if names { super::dpi::failing_gateways(cx, Link::Qos, &qos.id).await? } else { 0 };
    let millis = |t: &Option<String>| t.as_deref().and_then(time::parse).map(|s| s * 1000);
    let policies: Vec<Authorised<QosPolicy>> = cx.children(&qos).await?;
    let cars: Vec<Authorised<QosCar>> = cx.children(&qos).await?;
    let qos = qos.into_inner();
    let policies = policies.iter().map(|p| {
        copied!(p => response::get_qos_attribute::QosPolicies {
            dest_cidr, dest_port_range, ip_protocol, priority, source_cidr, source_port_range;
            start_time: millis(&p.start_time),
            end_time: millis(&p.end_time),
            qos_policie_name: p.name.clone(),
            qos_policie_description: p.description.clone(),
        })
    });
    let cars = cars.iter().map(|c| {
        copied!(c => response::get_qos_attribute::QosCars {
            limit_type, max_bandwidth_abs, max_bandwidth_percent, min_bandwidth_abs, min_bandwidth_percent,
            priority, qos_car_id;
            percent_source_type: Give::give(c.shown_percent_source()),
            qos_car_name: c.name.clone(),
            qos_car_description: c.description.clone(),
        })
    });
    Ok(response::GetQosAttribute {
        error_config_smart_ag_count: failing as i64,
        qos_cars: cars.collect(),
        qos_policies: policies.collect(),
        qos_description: qos.body.qos_description,
        qos_name: qos.body.qos_name,
    })
}
