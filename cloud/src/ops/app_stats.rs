//! Online clients and traffic of client-app instances, as their access point reports them.

use serde_json::{Value, json};

use super::app_users::{instance, user};
use super::cx::{Cx, empty};
use crate::proto::error::Result;
use crate::proto::time::month;
use crate::store::objects::Object;

pub const STATE: &str = "app_state";

/// `{"Clients": [{"UserName", "ClientIp", "OnlineTime"}], "Flow": {"202611": {"name": bytes}}}`.
pub async fn state(cx: &mut Cx, gw: &str) -> Result<Value> {
    Ok(cx.any(STATE, gw).await?.map_or(json!({}), |o| Value::Object(o.body)))
}

fn clients(state: &Value) -> Vec<Value> {
    state["Clients"].as_array().cloned().unwrap_or_default()
}

fn online_of(state: &Value, name: &str) -> Vec<Value> {
    clients(state).into_iter().filter(|c| c["UserName"] == name).collect()
}

async fn chosen(cx: &mut Cx) -> Result<Object> {
    instance(cx).await
}

pub async fn user_counts(cx: &mut Cx) -> Result<Value> {
    let names = cx.list("UserNames");
    let mut states = Vec::new();
    if cx.opt("SmartAGId").is_some() {
        let gw = chosen(cx).await?;
        states.push(state(cx, &gw.id).await?);
    } else {
        let filter = cx.mine();
        for gw in cx.list_all(super::gateway::KIND, &filter).await? {
            states.push(state(cx, &gw.id).await?);
        }
    }
    let rows: Vec<Value> = names
        .iter()
        .map(|n| {
            let count: usize = states.iter().map(|s| online_of(s, n).len()).sum();
            json!({"UserName": n, "OnlineCount": count})
        })
        .collect();
    Ok(json!({"UserStatistics": rows}))
}

pub async fn gateway_counts(cx: &mut Cx) -> Result<Value> {
    let mut filter = cx.mine();
    let ids = cx.list("SmartAGIds");
    if !ids.is_empty() {
        filter.ids = Some(ids);
    }
    let mut rows = Vec::new();
    for gw in cx.list_all(super::gateway::KIND, &filter).await? {
        if gw.str("InstanceType") == super::gateway::SOFTWARE {
            let count = clients(&state(cx, &gw.id).await?).len();
            rows.push(json!({"SmartAGId": gw.id, "OnlineCount": count}));
        }
    }
    Ok(json!({"SagStatistics": rows}))
}

pub async fn online(cx: &mut Cx) -> Result<Value> {
    let gw = chosen(cx).await?;
    let user = user(cx, &gw).await?;
    let state = state(cx, &gw.id).await?;
    Ok(json!({"Users": online_of(&state, &user.name)}))
}

pub async fn kick(cx: &mut Cx) -> Result<Value> {
    let gw = chosen(cx).await?;
    let user = user(cx, &gw).await?;
    if let Some(mut o) = cx.any(STATE, &gw.id).await? {
        let kept: Vec<Value> = clients(&Value::Object(o.body.clone()))
            .into_iter()
            .filter(|c| c["UserName"] != user.name.as_str())
            .collect();
        o.set("Clients", json!(kept));
        cx.put(&o).await?;
    }
    Ok(empty())
}

pub async fn flow(cx: &mut Cx) -> Result<Value> {
    let gw = chosen(cx).await?;
    let date = cx.opt("StatisticsDate").unwrap_or_else(|| month(cx.now));
    let state = state(cx, &gw.id).await?;
    let rows: Vec<Value> = cx
        .list("UserNames")
        .iter()
        .map(|n| {
            let bytes = state["Flow"][&date][n].as_i64().unwrap_or_default();
            json!({"UserName": n, "TotalBytes": bytes})
        })
        .collect();
    Ok(json!({"SagStatistics": rows}))
}
