//! Flow logs and the gateways that write to them.

use serde_json::{Value, json};

use super::cx::{Cx, RESOURCE_GROUP, empty};
use super::gateway::{KIND as GATEWAY, SOFTWARE};
use super::net;
use super::regions;
use crate::proto::error::Result;
use crate::store::objects::{Object, all_links};

const KIND: &str = "flowlog";
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
    cx.need(KIND, "FlowLogId", &["InvalidFlowLogId.NotFound"]).await
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
    cx.put(log).await?;
    let users = cx.links_to("flowlog", &log.id).await?;
    cx.touch_all(&users).await
}

pub async fn create(cx: &mut Cx) -> Result<Value> {
    if cx.count(KIND, cx.mine()).await? >= QUOTA {
        return Err(cx.err(&["QuotaExceeded.Flowlog"]));
    }
    let mut body = cx.fields(&FIELDS);
    body.insert("Status".into(), "Active".into());
    body.insert("ResourceGroupId".into(), RESOURCE_GROUP.into());
    let id = cx.new_id("fl")?;
    let log = cx.object(KIND, id, "FlowLogId", "", body);
    check(cx, &log)?;
    cx.put(&log).await?;
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
    if !cx.links_to("flowlog", &log.id).await?.is_empty() {
        return Err(cx.err(&["DependencyViolation.FlowLog"]));
    }
    cx.remove(&log).await?;
    Ok(empty())
}

pub async fn describe(cx: &mut Cx) -> Result<Value> {
    let mut filter = cx.mine();
    filter.name = cx.opt("FlowLogName");
    filter.ids = cx.opt("FlowLogId").map(|id| vec![id]);
    let mut logs = cx.list_all(KIND, &filter).await?;
    let wanted = ["Description", "Status", "OutputType", "ResourceGroupId"];
    logs.retain(|l| wanted.iter().all(|f| cx.opt(f).is_none_or(|v| v == l.str(f))));
    let (total, page) = cx.cut(logs);
    let users = cx.count_links_to("flowlog", &page).await?;
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
    if gw.str("InstanceType") == SOFTWARE {
        return Err(cx.err(&["OperationUnsupported.AssociateFlowLog"]));
    }
    if !cx.links_from("flowlog", &gw.id).await?.is_empty() {
        return Err(cx.err(&["OperationFailed.AssociateFlowLog"]));
    }
    cx.link("flowlog", &gw.id, &log.id).await?;
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn disassociate(cx: &mut Cx) -> Result<Value> {
    let log = find(cx).await?;
    let gw = cx.gateway().await?;
    if !cx.unlink("flowlog", &gw.id, &log.id).await? {
        return Err(cx.err(&["InvalidSmartAGId.NotFound"]));
    }
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn gateways(cx: &mut Cx) -> Result<Value> {
    let log = find(cx).await?;
    let users = cx.links_to("flowlog", &log.id).await?;
    let (total, page) = cx.cut(users);
    let mut rows = Vec::new();
    for id in page {
        if let Some(gw) = cx.any(GATEWAY, &id).await? {
            rows.push(json!({"SmartAGId": gw.id, "Name": gw.name}));
        }
    }
    Ok(cx.listing("Sags", total, rows))
}

pub async fn unbound(cx: &mut Cx) -> Result<Value> {
    let filter = cx.mine();
    let gws = cx.list_all(GATEWAY, &filter).await?;
    let ids: Vec<&str> = gws.iter().map(|g| g.id.as_str()).collect();
    let links = all_links(cx.conn(), &ids).await?;
    let logs = |g: &Object| links.get(&g.id).is_some_and(|l| l.iter().any(|(k, _)| k == "flowlog"));
    let rows: Vec<Value> = gws
        .iter()
        .filter(|g| g.str("InstanceType") != SOFTWARE && !logs(g))
        .map(|g| json!({"SmartAGId": g.id, "Name": g.name}))
        .collect();
    Ok(json!({"Count": rows.len(), "Sags": rows}))
}
