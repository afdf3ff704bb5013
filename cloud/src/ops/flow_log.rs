//! Flow logs and the gateways that write to them.

use super::cx::{Cx, Page, RESOURCE_GROUP};
use super::fields::{copied, set_given};
use crate::api::{request, response};
use crate::domain::flow_log::FlowLog;
use crate::domain::gateway::Gateway;
use crate::domain::net;
use crate::domain::objects::Authorised;
use crate::domain::regions;
use crate::error::Result;
use crate::store::objects::Column;
use crate::store::{Kind, Link};

const QUOTA: i64 = 100;

async fn require(cx: &mut Cx, id: &str) -> Result<Authorised<FlowLog>> {
    cx.require(id, &["InvalidFlowLogId.NotFound"]).await
}

fn check(cx: &Cx, log: &FlowLog) -> Result<()> {
    let text = |v: &Option<String>| v.clone().unwrap_or_default();
    if log.output_type != "sls" {
        if net::ip(&text(&log.netflow_server_ip)).is_none() {
            return Err(cx.err(&["IllegalParam.NetflowServerIp"]));
        }
        if !(1..=65535).contains(&log.netflow_server_port.unwrap_or_default()) {
            return Err(cx.err(&["IllegalParam.NetflowServerPort"]));
        }
    }
    // Only what the output needs: where it was sent before may stay, or go.
    if log.output_type != "netflow" {
        for (field, value) in [("ProjectName", &log.project_name), ("LogstoreName", &log.logstore_name)] {
            if text(value).is_empty() {
                return Err(cx.missing(field));
            }
        }
        if !regions::known(&text(&log.sls_region_id)) {
            return Err(cx.err(&["IllegalParam.SlsRegionId"]));
        }
    }
    if !(60..=6000).contains(&log.active_aging) {
        return Err(cx.err(&["IllegalParam.ActiveAging"]));
    }
    if !(10..=600).contains(&log.inactive_aging) {
        return Err(cx.err(&["IllegalParam.InactiveAging"]));
    }
    for (field, value) in [("Name", &log.name), ("Description", &log.description)] {
        if text(value).chars().count() > 256 {
            return Err(cx.invalid(field));
        }
    }
    Ok(())
}

async fn save(cx: &mut Cx, log: &Authorised<FlowLog>) -> Result<()> {
    cx.put(log).await?;
    let users = cx.links_to(Link::FlowLog, &log.id).await?;
    cx.renew_all(&users).await
}

pub async fn create(cx: &mut Cx, request: request::CreateFlowLog) -> Result<response::CreateFlowLog> {
    cx.require_all(Kind::FlowLog)?;
    let all = cx.mine();
    if cx.count(Kind::FlowLog, &all).await? >= QUOTA {
        return Err(cx.err(&["QuotaExceeded.Flowlog"]));
    }
    let id = cx.new_id("fl")?;
    let body = copied!(request => FlowLog {
        name, description, active_aging, inactive_aging, output_type, sls_region_id, project_name, logstore_name,
        netflow_server_ip, netflow_server_port, netflow_version;
        flow_log_id: id.clone(),
        region_id: cx.region(),
        status: "Active".to_owned(),
        resource_group_id: RESOURCE_GROUP.to_owned(),
    });
    check(cx, &body)?;
    let log = cx.create(id, body)?;
    cx.put(&log).await?;
    Ok(copied!(log => response::CreateFlowLog { flow_log_id, resource_group_id }))
}

pub async fn modify(
    cx: &mut Cx,
    request: request::ModifyFlowLogAttribute,
) -> Result<response::ModifyFlowLogAttribute> {
    let mut log = require(cx, &request.flow_log_id).await?;
    set_given!(log.edit(), request => {
        name, description, active_aging, inactive_aging, output_type, sls_region_id, project_name, logstore_name,
        netflow_server_ip, netflow_server_port, netflow_version,
    });
    check(cx, &log)?;
    save(cx, &log).await?;
    Ok(response::ModifyFlowLogAttribute::default())
}

pub async fn delete(cx: &mut Cx, request: request::DeleteFlowLog) -> Result<response::DeleteFlowLog> {
    let log = require(cx, &request.flow_log_id).await?;
    if !cx.links_to(Link::FlowLog, &log.id).await?.is_empty() {
        return Err(cx.err(&["DependencyViolation.FlowLog"]));
    }
    cx.remove(&log).await?;
    Ok(response::DeleteFlowLog::default())
}

pub async fn describe(cx: &mut Cx, request: request::DescribeFlowLogs) -> Result<response::DescribeFlowLogs> {
    let filter = cx
        .mine()
        .with_ids(request.flow_log_id.map(|id| vec![id]))
        .equals(Column::Name, request.flow_log_name)
        .equals(Column::Description, request.description)
        .equals(Column::Status, request.status)
        .equals(Column::Variant, request.output_type);
    let page = cx.list_page::<FlowLog>(&filter).await?;
    let users = cx.count_visible_links_to(Link::FlowLog, &page.rows).await?;
    let rows = page.rows.iter().map(|log| {
        copied!(log => response::describe_flow_logs::FlowLogSetType {
            active_aging, description, flow_log_id, inactive_aging, logstore_name, name, netflow_server_ip,
            netflow_version, output_type, project_name, resource_group_id, sls_region_id, status;
            netflow_server_port: log.netflow_server_port.map(|p| p.to_string()).unwrap_or_default(),
            total_sag_num: users.get(&log.id).copied().unwrap_or_default(),
        })
    });
    Ok(response::DescribeFlowLogs {
        flow_logs: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

pub async fn activate(cx: &mut Cx, request: request::ActiveFlowLog) -> Result<response::ActiveFlowLog> {
    set_status(cx, &request.flow_log_id, "Active").await?;
    Ok(response::ActiveFlowLog::default())
}

pub async fn deactivate(cx: &mut Cx, request: request::DeactiveFlowLog) -> Result<response::DeactiveFlowLog> {
    set_status(cx, &request.flow_log_id, "Inactive").await?;
    Ok(response::DeactiveFlowLog::default())
}

async fn set_status(cx: &mut Cx, id: &str, status: &str) -> Result<()> {
    let mut log = require(cx, id).await?;
    if log.status == status {
        return Err(cx.err(&["IncorrectStatus.FlowLog"]));
    }
    log.edit().status = status.to_owned();
    save(cx, &log).await
}

pub async fn associate(
    cx: &mut Cx,
    request: request::AssociateFlowLog,
) -> Result<response::AssociateFlowLog> {
    let log = require(cx, &request.flow_log_id).await?;
    let gw = cx.gateway().await?;
    if gw.is_software() {
        return Err(cx.err(&["OperationUnsupported.AssociateFlowLog"]));
    }
    if !cx.links_from(Link::FlowLog, &gw).await?.is_empty() {
        return Err(cx.err(&["OperationFailed.AssociateFlowLog"]));
    }
    cx.link(Link::FlowLog, &gw, &log).await?;
    cx.renew(&gw).await?;
    Ok(response::AssociateFlowLog::default())
}

pub async fn disassociate(
    cx: &mut Cx,
    request: request::DisassociateFlowLog,
) -> Result<response::DisassociateFlowLog> {
    let log = require(cx, &request.flow_log_id).await?;
    let gw = cx.gateway().await?;
    if !cx.unlink(Link::FlowLog, &gw, &log.id).await? {
        return Err(cx.err(&["InvalidSmartAGId.NotFound"]));
    }
    cx.renew(&gw).await?;
    Ok(response::DisassociateFlowLog::default())
}

pub async fn gateways(
    cx: &mut Cx,
    request: request::DescribeFlowLogSags,
) -> Result<response::DescribeFlowLogSags> {
    let log = require(cx, &request.flow_log_id).await?;
    let users = cx.links_to(Link::FlowLog, &log.id).await?;
    let users = cx.visible_objects::<Gateway>(&users).await?;
    let Page { total, number, size, rows: page } = cx.paginate(users);
    let rows = page.iter().map(|gw| {
        copied!(gw => response::describe_flow_log_sags::Sag {
            name, smart_ag_id;
            description: None,
        })
    });
    let rows = rows.collect();
    Ok(response::DescribeFlowLogSags { sags: rows, page_number: number, page_size: size, total_count: total })
}

pub async fn unbound(
    cx: &mut Cx,
    _: request::DescribeUnbindFlowLogSags,
) -> Result<response::DescribeUnbindFlowLogSags> {
    let filter = cx.mine().equals(Column::Variant, Some("hardware")).has_links(Link::FlowLog, false);
    let gws = cx.list::<Gateway>(&filter).await?;
    let rows: Vec<_> = gws
        .iter()
        .map(|gw| {
            copied!(gw => response::describe_unbind_flow_log_sags::Sag {
                smart_ag_id;
                name: Some(gw.name().to_owned()),
                description: None,
            })
        })
        .collect();
    Ok(response::DescribeUnbindFlowLogSags { count: rows.len() as i64, sags: rows })
}
