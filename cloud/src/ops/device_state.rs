//! What a connected device reported.

use sag_southbound::Command;
use serde_json::{Value, json};

use super::cx::{Cx, empty};
use crate::domain::gateway::Gateway;
use crate::error::Result;
use crate::store::devices::Reported;
use crate::time::stamp;

/// Entries of a ranking.
const TOP: usize = 10;

pub async fn current_dns(cx: &mut Cx) -> Result<Value> {
    let d = cx.online_device().await?;
    let dns = &d.report["Dns"];
    Ok(json!({"MasterDns": dns["MasterDns"], "SlaveDns": dns["SlaveDns"]}))
}

pub async fn info(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let d = cx.device_on(&gw).await?;
    cx.must_be_online(&d)?;
    let local = d.report["LocalChanges"] == true;
    let synchronized = d.applied >= d.revision && d.failure.is_empty() && !local;
    let vpn = d.report["VpnState"].as_str().unwrap_or("Abnormal");
    let started = d.report["StartupTime"].as_i64().map(stamp);
    Ok(json!({
        "ControllerState": "Normal",
        "SynStatus": if synchronized { "Synchronized" } else { "Unsynchronized" },
        "SmartAGType": gw.hardware_version,
        "Version": d.report["SoftwareVersion"],
        "VpnState": vpn,
        "StartupTime": started,
        "ResettableStatus": "Disabled",
    }))
}

/// The device keeps no configuration of its own, so asking it to report is all there is to do.
pub async fn synchronize(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.online_device().await?;
    cx.command(&mut d, Command::Synchronize).await?;
    Ok(empty())
}

pub async fn route_list(cx: &mut Cx) -> Result<Value> {
    let d = cx.online_device().await?;
    Ok(json!({"Routes": d.report["Routes"]}))
}

pub async fn wan_list(cx: &mut Cx) -> Result<Value> {
    let d = cx.online_device().await?;
    let mut rows = Vec::new();
    for port in d.ports().iter().filter(|p| p["Role"] == "WAN") {
        let name = port["PortName"].as_str().unwrap_or_default();
        let mut row = json!({"PortName": name, "IPType": "DHCP", "Username": "", "Priority": 10});
        super::routes::merge(&mut row, d.entry("Wan", name));
        row["BandWidth"] = row["Bandwidth"].clone();
        // The address in force, whichever way the port got it.
        let seen = d.report["Wans"].as_array().and_then(|w| w.iter().find(|w| w["PortName"] == name));
        if let Some(seen) = seen {
            for field in ["IP", "Mask", "Gateway", "TrafficState"] {
                if !seen[field].is_null() {
                    row[field] = seen[field].clone();
                }
            }
        }
        rows.push(row);
    }
    Ok(json!({"Wans": rows, "TaskStates": d.tasks("Wan", cx.now)}))
}

/// Gateways with a connected device, ranked by a reported number.
async fn top(cx: &mut Cx, field: &'static str, rate: fn(&Reported) -> Option<f64>) -> Result<Vec<Value>> {
    let mut ranked = Vec::new();
    let filter = cx.mine();
    let gws = cx.list::<Gateway>(&filter).await?;
    let ids: Vec<&str> = gws.iter().map(|g| g.id.as_str()).collect();
    let mut all = cx.device_summaries(&ids).await?;
    for gw in gws {
        let devices = all.remove(&gw.id).unwrap_or_default();
        let rates: Vec<f64> =
            devices.iter().filter(|d| d.online(cx.now)).filter_map(|d| rate(&d.reported)).collect();
        if !rates.is_empty() {
            ranked.push((rates.iter().sum::<f64>(), gw));
        }
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    Ok(ranked
        .into_iter()
        .take(TOP)
        .map(|(rate, gw)| {
            let mut row = json!({"InstanceId": gw.id, "RegionId": gw.region, "Name": gw.name()});
            row[field] = format!("{rate:.1}").into();
            row
        })
        .collect())
}

pub async fn drop_top(cx: &mut Cx) -> Result<Value> {
    Ok(json!({"DropTopN": top(cx, "DropRate", |r| r.drop_rate).await?}))
}

pub async fn traffic_top(cx: &mut Cx) -> Result<Value> {
    Ok(json!({"TrafficTopN": top(cx, "TrafficRate", |r| r.traffic_rate).await?}))
}

pub async fn gateway_ha(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let devices = cx.devices_of(&gw.id).await?;
    let running: Vec<_> = devices.iter().filter(|d| d.online(cx.now)).collect();
    if running.is_empty() {
        return Err(cx.err(&["SmartAccessGatewayNotOnline"]));
    }
    let device_level = if running.len() > 1 { "ON" } else { "OFF" };
    let mut links = Vec::new();
    for d in &running {
        for l in d.report["LinkBackup"].as_array().into_iter().flatten() {
            links.push(l.clone());
        }
    }
    let mut out = json!({"SmartAGId": gw.id, "DeviceLevelBackupState": device_level,
        "LinkBackupInfoList": links});
    if device_level == "ON" {
        out["MainDeviceId"] = running[0].sn.as_str().into();
        out["BackupDeviceId"] = running[1].sn.as_str().into();
    }
    Ok(out)
}
