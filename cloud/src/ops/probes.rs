//! Probe tasks: destinations that a device measures all the time.

use std::net::IpAddr;

use super::cx::Cx;
use super::fields::{copied, set_given};
use super::monitor::{OK, SUCCESSFUL};
use crate::api::{request, response};
use crate::domain::gateway::Gateway;
use crate::domain::net;
use crate::domain::objects::Authorised;
use crate::domain::probe::ProbeTask;
use crate::error::{ApiError, Result};
use crate::store::objects::{Column, Filter};
use crate::store::{Arg, Kind};
use crate::time::stamp;

/// Tasks of one device.
const QUOTA: i64 = 20;

const ICMP: &str = "ICMP";
const TCP: &str = "TCP";
const HTTP: &str = "HTTP";
const INTRANET: &str = "Intranet";

/// Checks a task, and takes away what its protocol does not have.
fn check(cx: &Cx, task: &mut ProbeTask) -> Result<()> {
    let host = |name: &str| name.parse::<IpAddr>().is_ok() || net::is_domain(name);
    let good = match task.protocol.as_str() {
        HTTP => net::is_http_url(&task.domain),
        _ => host(&task.domain),
    };
    if !good {
        return Err(cx.invalid("Domain"));
    }
    match task.protocol.as_str() {
        ICMP if task.packet_number.is_none() => return Err(cx.missing("PacketNumber")),
        TCP if task.port.is_none() => return Err(cx.missing("Port")),
        _ => {}
    }
    if task.r#type == INTRANET {
        if task.protocol == HTTP {
            return Err(cx.invalid("Protocol"));
        }
        if task.probe_task_source_address.is_none() {
            return Err(cx.missing("ProbeTaskSourceAddress"));
        }
    }
    if task.probe_task_source_address.as_ref().is_some_and(|a| a.parse::<IpAddr>().is_err()) {
        return Err(cx.invalid("ProbeTaskSourceAddress"));
    }
    task.packet_number = task.packet_number.filter(|_| task.protocol == ICMP);
    task.port = task.port.filter(|_| task.protocol == TCP);
    Ok(())
}

pub async fn create(cx: &mut Cx, request: request::CreateProbeTask) -> Result<response::CreateProbeTask> {
    let gw = cx.gateway().await?;
    let d = cx.device_on(&gw).await?;
    let of_device = Filter::under(&gw.id).equals(Column::Code, Some(d.sn.as_str()));
    if cx.count(Kind::ProbeTask, &of_device).await? >= QUOTA {
        return Err(ApiError::new(
            400,
            "QuotaExceeded.ProbeTask",
            "The device has as many probe tasks as it may.",
        ));
    }
    let id = cx.new_id("probe")?;
    let mut body = copied!(request => ProbeTask {
        sag_id, sn, task_name, r#type, protocol, domain, port, packet_number, probe_task_source_address, enable;
        probe_task_id: id.clone(),
        region_id: cx.region(),
        gmt_create: cx.now,
        gmt_modify: cx.now,
    });
    check(cx, &mut body)?;
    let task = cx.create_part(&gw, id, body);
    cx.put(&task).await?;
    cx.renew(&gw).await?;
    Ok(response::CreateProbeTask {
        code: OK.to_owned(),
        data: task.id.clone(),
        message: SUCCESSFUL.to_owned(),
    })
}

/// The task, which must be of the device that the request names.
async fn require(cx: &mut Cx, gw: &Authorised<Gateway>, id: &str) -> Result<Authorised<ProbeTask>> {
    let d = cx.device_on(gw).await?;
    let task = cx.part::<_, ProbeTask>(gw, id).await?.filter(|t| t.sn == d.sn);
    task.ok_or_else(|| cx.err(&["InstanceNotExit"]))
}

pub async fn update(cx: &mut Cx, request: request::UpdateProbeTask) -> Result<response::UpdateProbeTask> {
    let gw = cx.gateway().await?;
    let mut task = require(cx, &gw, &request.probe_task_id).await?;
    let now = cx.now;
    let body = task.edit();
    set_given!(body, request => {
        task_name, protocol, domain, port, packet_number, probe_task_source_address, enable,
    });
    body.gmt_modify = now;
    check(cx, body)?;
    cx.put(&task).await?;
    cx.renew(&gw).await?;
    Ok(response::UpdateProbeTask { code: OK.to_owned(), message: SUCCESSFUL.to_owned() })
}

pub async fn delete(cx: &mut Cx, request: request::DeleteProbeTask) -> Result<response::DeleteProbeTask> {
    let gw = cx.gateway().await?;
    let task = require(cx, &gw, &request.probe_task_id).await?;
    cx.remove(&task).await?;
    cx.renew(&gw).await?;
    Ok(response::DeleteProbeTask { code: OK.to_owned(), message: SUCCESSFUL.to_owned() })
}

pub async fn list(cx: &mut Cx, request: request::ListProbeTask) -> Result<response::ListProbeTask> {
    use response::list_probe_task::Data;
    if request.sag_id.is_some() {
        cx.gateway().await?;
    }
    let mut filter = cx
        .mine()
        .name_contains(request.task_name)
        .equals(Column::Variant, request.protocol)
        .equals(Column::Code, request.sn)
        .with_ids(request.probe_task_id.map(|id| vec![id]));
    filter.parent = request.sag_id;
    if let Some(name) = request.sag_name {
        let named = cx.mine().name_contains(Some(name));
        let gws = cx.list::<Gateway>(&named).await?;
        // No gateway has the empty identifier.
        let ids: Vec<Arg> = gws.iter().map(|gw| gw.id.as_str()).chain([""]).map(Arg::from).collect();
        filter = filter.condition(format!("parent IN ({})", vec!["?"; ids.len()].join(", ")), ids);
    }
    let page = cx.list_page::<ProbeTask>(&filter).await?;
    let rows = page.rows.iter().map(|task| {
        copied!(task => Data {
            domain, enable, packet_number, port, probe_task_id, probe_task_source_address, protocol, sag_id, sn, task_name,
            r#type;
            gmt_create: stamp(task.gmt_create),
            gmt_modify: stamp(task.gmt_modify),
        })
    });
    Ok(response::ListProbeTask {
        code: OK.to_owned(),
        data: rows.collect(),
        message: SUCCESSFUL.to_owned(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

/// What the connected device has measured.
pub async fn results(
    cx: &mut Cx,
    request: request::DescribeProbeTaskResults,
) -> Result<response::DescribeProbeTaskResults> {
    use response::describe_probe_task_results::Results;
    let gw = cx.gateway().await?;
    let d = cx.device_on(&gw).await?;
    cx.must_be_online(&d)?;
    let tasks: Vec<Authorised<ProbeTask>> = cx.children(&gw).await?;
    let wanted = |id: &str| request.probe_task_id.as_ref().is_none_or(|only| only == id);
    let ms = |n: Option<f64>| n.map(|n| format!("{n:.2}"));
    let rows = d.state.probe_tasks.iter().filter(|r| wanted(&r.id)).filter_map(|r| {
        let task = tasks.iter().find(|t| t.id == r.id && t.sn == d.sn)?;
        let (sent, answered) = (r.sent.unwrap_or_default(), r.answered.unwrap_or_default());
        Some(Results {
            answered,
            loss: (sent > 0).then(|| format!("{:.2}%", 100.0 * (sent - answered) as f64 / sent as f64)),
            max_rtt: ms(r.max_rtt_ms),
            min_rtt: ms(r.min_rtt_ms),
            probe_task_id: r.id.clone(),
            problem: r.problem.clone(),
            rtt: ms(r.rtt_ms),
            sent,
            task_name: task.task_name.clone(),
            time: r.time.map(stamp),
        })
    });
    Ok(response::DescribeProbeTaskResults { results: rows.collect() })
}
