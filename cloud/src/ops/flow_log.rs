//! Flow logs and the gateways that write to them.

use serde_json::{Value, json};

use super::cx::{Cx, Page, RESOURCE_GROUP, empty};
use super::regions;
use crate::domain::gateway::Gateway;
use crate::domain::net;
use crate::error::Result;
use crate::store::objects::{Column, Object};
use crate::store::{Kind, Link};

const KIND: Kind = Kind::FlowLog;
const QUOTA: i64 = 100;

const FIELDS: [&str; 11] = [
    "Name",
    "Description",
    "ActiveAging",
    "InactiveAging",
    "OutputType",
    "SlsRegionId",
    "ProjectName",
    "LogstoreName",
    "NetflowServerIp",
    "NetflowServerPort",
    "NetflowVersion",
];

async fn find(cx: &mut Cx) -> Result<Object> {
    cx.require_object(KIND, "FlowLogId", &["InvalidFlowLogId.NotFound"]).await
}

fn check(cx: &Cx, log: &Object) -> Result<()> {
    let out = log.str("OutputType");
    if out != "sls" {
        if net::ip(log.str("NetflowServerIp")).is_none() {
            return Err(cx.err(&["IllegalParam.NetflowServerIp"]));
        }
        if !(1..=65535).contains(&log.int("NetflowServerPort")) {
            return Err(cx.err(&["IllegalParam.NetflowServerPort"]));
        }
    }
    if out != "netflow" && !regions::known(log.str("SlsRegionId")) {
        return Err(cx.err(&["IllegalParam.SlsRegionId"]));
    }
    if !(60..=6000).contains(&log.int("ActiveAging")) {
        return Err(cx.err(&["IllegalParam.ActiveAging"]));
    }
    if !(10..=600).contains(&log.int("InactiveAging")) {
        return Err(cx.err(&["IllegalParam.InactiveAging"]));
    }
    let long = ["Name", "Description"].into_iter().find(|f| log.str(f).chars().count() > 256);
    long.map_or(Ok(()), |f| Err(cx.invalid(f)))
}

async fn save(cx: &mut Cx, log: &Object) -> Result<()> {
    cx.put_object(log).await?;
    let users = cx.links_to(Link::FlowLog, &log.id).await?;
    cx.bump_revisions(&users).await
}

pub async fn create(cx: &mut Cx) -> Result<Value> {
    if cx.count(KIND, &cx.mine()).await? >= QUOTA {
        return Err(cx.err(&["QuotaExceeded.Flowlog"]));
    }
    let mut body = cx.fields(&FIELDS);
    body.insert("Status".into(), "Active".into());
    body.insert("ResourceGroupId".into(), RESOURCE_GROUP.into());
    let id = cx.new_id("fl")?;
    let log = cx.object(KIND, id, "FlowLogId", "", body);
    check(cx, &log)?;
    cx.put_object(&log).await?;
    Ok(Value::Object(log.body))
}

pub async fn modify(cx: &mut Cx) -> Result<Value> {
    let mut log = find(cx).await?;
    for (k, v) in cx.fields(&FIELDS) {
        log.set(&k, v);
    }
    log.name = log.str("Name").to_owned();
    check(cx, &log)?;
    save(cx, &log).await?;
    Ok(empty())
}

pub async fn delete(cx: &mut Cx) -> Result<Value> {
    let log = find(cx).await?;
    if !cx.links_to(Link::FlowLog, &log.id).await?.is_empty() {
        return Err(cx.err(&["DependencyViolation.FlowLog"]));
    }
    cx.remove_object(&log).await?;
    Ok(empty())
}

pub async fn describe(cx: &mut Cx) -> Result<Value> {
    let mut filter = cx.mine().equals(Column::Name, cx.opt("FlowLogName"));
    filter.ids = cx.opt("FlowLogId").map(|id| vec![id]);
    let mut logs = cx.list_objects(KIND, &filter).await?;
    let wanted = ["Description", "Status", "OutputType", "ResourceGroupId"];
    logs.retain(|l| wanted.iter().all(|f| cx.opt(f).is_none_or(|v| v == l.str(f))));
    let Page { total, rows: page, .. } = cx.paginate(logs);
    let ids: Vec<&str> = page.iter().map(|l| l.id.as_str()).collect();
    let users = cx.count_links_to(Link::FlowLog, &ids).await?;
    let mut rows = Vec::new();
    for mut log in page {
        log.set("TotalSagNum", users.get(&log.id).copied().unwrap_or_default());
        rows.push(Value::Object(log.body));
    }
    Ok(cx.listing("FlowLogs", total, rows))
}

pub async fn activate(cx: &mut Cx) -> Result<Value> {
    set_status(cx, "Active").await
}

pub async fn deactivate(cx: &mut Cx) -> Result<Value> {
    set_status(cx, "Inactive").await
}

async fn set_status(cx: &mut Cx, status: &str) -> Result<Value> {
    let mut log = find(cx).await?;
    if log.str("Status") == status {
        return Err(cx.err(&["IncorrectStatus.FlowLog"]));
    }
    log.set("Status", status);
    save(cx, &log).await?;
    Ok(empty())
}

pub async fn associate(cx: &mut Cx) -> Result<Value> {
    let log = find(cx).await?;
    let gw = cx.gateway().await?;
    if gw.is_software() {
        return Err(cx.err(&["OperationUnsupported.AssociateFlowLog"]));
    }
    if !cx.links_from(Link::FlowLog, &gw.id).await?.is_empty() {
        return Err(cx.err(&["OperationFailed.AssociateFlowLog"]));
    }
    cx.link(Link::FlowLog, &gw.id, &log.id).await?;
    cx.bump_revision(&gw.id).await?;
    Ok(empty())
}

pub async fn disassociate(cx: &mut Cx) -> Result<Value> {
    let log = find(cx).await?;
    let gw = cx.gateway().await?;
    if !cx.unlink(Link::FlowLog, &gw.id, &log.id).await? {
        return Err(cx.err(&["InvalidSmartAGId.NotFound"]));
    }
    cx.bump_revision(&gw.id).await?;
    Ok(empty())
}

pub async fn gateways(cx: &mut Cx) -> Result<Value> {
    let log = find(cx).await?;
    let users = cx.links_to(Link::FlowLog, &log.id).await?;
    let Page { total, rows: page, .. } = cx.paginate(users);
    let mut rows = Vec::new();
    for id in page {
        if let Some(gw) = cx.get::<Gateway>(&id).await? {
            rows.push(json!({"SmartAGId": gw.id, "Name": gw.name()}));
        }
    }
    Ok(cx.listing("Sags", total, rows))
}

pub async fn unbound(cx: &mut Cx) -> Result<Value> {
    let filter = cx.mine().equals(Column::Variant, Some("hardware")).has_links(Link::FlowLog, false);
    let gws = cx.list::<Gateway>(&filter).await?;
    let rows: Vec<Value> = gws.iter().map(|g| json!({"SmartAGId": g.id, "Name": g.name()})).collect();
    Ok(json!({"Count": rows.len(), "Sags": rows}))
}
