//! Access points: the places where gateways reach the network.

use sag_southbound::{Command, ProbeArgs};
use serde_json::{Value, json};

use super::cx::{Cx, empty};
use super::gateway::KIND as GATEWAY;
use crate::proto::error::Result;
use crate::store::objects::Object;

/// Number, latitude, longitude.
const POINTS: [(i64, &str, &str); 6] = [
    (101, "31.23", "121.47"),
    (102, "30.27", "120.16"),
    (103, "39.90", "116.40"),
    (201, "1.35", "103.82"),
    (202, "35.68", "139.69"),
    (301, "50.11", "8.68"),
];

/// Where a new gateway starts.
pub const FIRST: i64 = POINTS[0].0;

/// Time between two probes of one gateway.
const PROBE_MS: i64 = 10_000;

/// The caller's gateways, and whether one of their devices is connected.
async fn gateways_with_state(cx: &mut Cx) -> Result<Vec<(Object, bool)>> {
    let filter = cx.mine();
    let gws = cx.list_all(GATEWAY, &filter).await?;
    let ids: Vec<&str> = gws.iter().map(|g| g.id.as_str()).collect();
    let devices = cx.bare_devices(&ids).await?;
    let active = |id: &str| devices.get(id).is_some_and(|d| d.iter().any(|d| d.online(cx.now)));
    let states: Vec<bool> = gws.iter().map(|g| active(&g.id)).collect();
    Ok(gws.into_iter().zip(states).collect())
}

pub async fn list(cx: &mut Cx) -> Result<Value> {
    if cx.opt("SmartAGId").is_some() {
        cx.gateway().await?;
    }
    let gws = gateways_with_state(cx).await?;
    let mut rows = Vec::new();
    for (id, latitude, longitude) in POINTS {
        let all: Vec<_> = gws.iter().filter(|(g, _)| g.int("AccessPointId") == id).collect();
        let active = all.iter().filter(|(_, active)| *active).count();
        rows.push(json!({"AccessPointId": id, "Latitude": latitude, "Longitude": longitude,
            "ActiveSmartAGCount": active, "InactiveSmartAGCount": all.len() - active}));
    }
    let (total, rows) = cx.cut(rows);
    Ok(json!({"AccessPoints": rows, "TotalCount": total}))
}

pub async fn qualities(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let devices = cx.devices_of(&gw.id).await?;
    let seen = devices
        .iter()
        .filter(|d| d.online(cx.now))
        .find_map(|d| d.report["AccessPointNetworkQualities"].as_array().cloned());
    Ok(json!({"AccessPointNetworkQualities": seen.unwrap_or_default()}))
}

pub async fn probe(cx: &mut Cx) -> Result<Value> {
    let mut gw = cx.gateway().await?;
    let ids: Vec<i64> = cx.list("AccessPointIds").iter().filter_map(|i| i.parse().ok()).collect();
    if ids.iter().any(|id| !POINTS.iter().any(|p| p.0 == *id)) {
        return Err(cx.invalid("AccessPointIds"));
    }
    if cx.now - gw.int("LastProbe") < PROBE_MS {
        return Err(cx.err(&["ProbeFrequencyTooHigh"]));
    }
    let mut devices = cx.devices_of(&gw.id).await?;
    devices.retain(|d| d.online(cx.now));
    let Some(d) = devices.first_mut() else {
        return Err(cx.err(&["SmartAccessGatewayNotOnline"]));
    };
    cx.command(d, Command::ProbeAccessPoints(ProbeArgs { access_point_ids: ids })).await?;
    gw.set("LastProbe", cx.now);
    cx.put(&gw).await?;
    Ok(empty())
}

pub async fn update(cx: &mut Cx) -> Result<Value> {
    let mut gw = cx.gateway().await?;
    let point = cx.int("AccessPointId").unwrap_or_default();
    if !POINTS.iter().any(|p| p.0 == point) {
        return Err(cx.invalid("AccessPointId"));
    }
    if cx.links_from("ccn", &gw.id).await?.is_empty() {
        return Err(cx.err(&["NotBoundCCN"]));
    }
    let devices = cx.devices_of(&gw.id).await?;
    if !devices.iter().any(|d| d.online(cx.now)) {
        return Err(cx.err(&["SmartAccessGatewayNotOnline"]));
    }
    gw.set("AccessPointId", point);
    cx.put(&gw).await?;
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn gateways(cx: &mut Cx) -> Result<Value> {
    let point = cx.int("AccessPointId").unwrap_or_default();
    let status = cx.opt("SmartAGStatus");
    let mut rows = Vec::new();
    let all = gateways_with_state(cx).await?;
    for (gw, active) in all.into_iter().filter(|(g, _)| g.int("AccessPointId") == point) {
        let state = if active { "Active" } else { "Offline" };
        if status.as_ref().is_some_and(|s| s != state) {
            continue;
        }
        let ccn = cx.links_from("ccn", &gw.id).await?;
        rows.push(json!({"SmartAGId": gw.id, "SmartAGName": gw.name, "SmartAGStatus": state,
            "SmartAGDescription": gw.str("Description"), "AssociatedCcnId": ccn.first(),
            "RoutingStrategy": gw.str("RoutingStrategy"),
            "HardwareVersion": gw.str("HardwareVersion")}));
    }
    let (total, rows) = cx.cut(rows);
    Ok(json!({"SmartAccessGateways": rows, "TotalCount": total}))
}
