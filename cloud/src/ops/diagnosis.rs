//! Diagnosis of a device, from its configuration and from what it reported.

use sag_southbound::{Command, DiagnoseArgs};
use serde_json::{Value, json};

use super::cx::{Cx, empty};
use crate::domain::device::Device;
use crate::domain::gateway::Gateway;
use crate::error::Result;
use crate::store::objects::Stored;
use crate::time::now_ms;

struct Check {
    group: &'static str,
    item: &'static str,
    error: bool,
    en: [String; 2],
    cn: [String; 2],
}

/// Name, kind and level words in both languages.
fn item(check: &Check, start: i64) -> Value {
    let words = |error: &str, info: &str| if check.error { error } else { info }.to_owned();
    let (kind_en, kind_cn) = match check.group {
        "config" => ("Config", "配置"),
        "biz" => ("Service", "业务"),
        _ => ("Internet", "公网"),
    };
    let half = |text: &[String; 2], kind: &str, level: String| {
        json!({"ItemName": check.item, "ItemType": kind, "ItemLevel": level,
            "Details": [text[0]], "Advice": [text[1]]})
    };
    json!({
        "Type": check.group, "ItemName": check.item, "Level": words("error", "info"),
        "StartTime": start, "EndTime": now_ms(),
        "EN": half(&check.en, kind_en, words("ERROR", "INFO")),
        "CN": half(&check.cn, kind_cn, words("严重", "正常")),
    })
}

fn check(group: &'static str, item: &'static str, error: bool, en: [&str; 2], cn: [&str; 2]) -> Check {
    let own = |t: [&str; 2]| if error { t.map(str::to_owned) } else { ["OK".into(), "N/A".into()] };
    Check { group, item, error, en: own(en), cn: own(cn) }
}

fn checks(d: &Device, now: i64) -> Vec<Check> {
    let wan_without_role = !d.ports().iter().any(|p| p["Role"] == "WAN");
    let wan_down = d.online(now)
        && !d.ports().iter().any(|p| {
            p["Role"] == "WAN" && p["Status"].as_str().is_some_and(|s| s.eq_ignore_ascii_case("up"))
        });
    let ha = d.get("Ha");
    let ha_bad = ha["Mode"] == "STATIC" && d.role(ha["PortName"].as_str().unwrap_or_default()) != "LAN";
    let no_dns = d.online(now) && d.report["Dns"]["MasterDns"].as_str().unwrap_or_default().is_empty();
    vec![
        check(
            "config",
            "wanConfigCheck",
            wan_without_role,
            ["No port has the role WAN.", "Give a port the role WAN."],
            ["没有WAN口。", "请配置一个WAN口。"],
        ),
        check(
            "config",
            "haConfigCheck",
            ha_bad,
            ["The HA port is not a LAN port.", "Choose a LAN port for HA."],
            ["HA端口不是LAN口。", "请为HA选择LAN口。"],
        ),
        check(
            "biz",
            "ctrlConnState",
            !d.online(now),
            ["The device is not connected to the controller.", "Start the agent and check its key."],
            ["设备未连接管控。", "请启动代理并检查密钥。"],
        ),
        check(
            "biz",
            "configSyncState",
            d.applied < d.revision || !d.failure.is_empty(),
            ["The last configuration is not in force.", "Look at the result of the last change."],
            ["最新配置未生效。", "请查看最近一次变更的结果。"],
        ),
        check(
            "internet",
            "wanLinkState",
            wan_down,
            ["All WAN ports are down.", "Check the links of the WAN ports."],
            ["所有WAN口链路断开。", "请检查WAN口链路。"],
        ),
        check(
            "internet",
            "dnsConfig",
            no_dns,
            ["The device has no DNS server.", "Set DNS servers or check DHCP."],
            ["设备没有DNS服务器。", "请配置DNS或检查DHCP。"],
        ),
    ]
}

fn statistics(checks: &[&Check]) -> Value {
    let errors = checks.iter().filter(|c| c.error).count();
    json!({"Total": checks.len(), "Error": errors, "Warning": 0, "Info": checks.len() - errors})
}

fn level(checks: &[&Check]) -> &'static str {
    if checks.iter().any(|c| c.error) { "error" } else { "info" }
}

fn result(id: &str, gw: &Stored<Gateway>, d: &Device, now: i64) -> Value {
    let all = checks(d, now);
    let group = |name: &str| -> Vec<&Check> { all.iter().filter(|c| c.group == name).collect() };
    let every: Vec<&Check> = all.iter().collect();
    let details: Vec<Value> = ["config", "biz", "internet"]
        .iter()
        .map(|name| {
            let part = group(name);
            let items: Vec<Value> = part.iter().map(|c| item(c, now)).collect();
            json!({"Type": name, "Items": items, "Statistics": statistics(&part)})
        })
        .collect();
    json!({
        "DiagnoseId": id, "InstanceId": gw.id, "SN": d.sn, "UId": gw.uid,
        "BoxType": gw.hardware_version, "BoxVersion": d.report["SoftwareVersion"],
        "MonitorVersion": d.report["MonitorVersion"], "State": "finished", "Percent": 100,
        "StartTime": now, "EndTime": now_ms(), "TotalNumber": all.len(),
        "FinishedNumber": all.len(), "UserLevel": "user", "StoreType": "local",
        "ReportSLSSuccess": 0, "Statistics": statistics(&every), "Details": details,
        "Level": {"Biz": level(&group("biz")), "Configuration": level(&group("config")),
            "Total": level(&every)},
    })
}

pub async fn start(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let mut d = cx.device_on(&gw).await?;
    let id = cx.new_id("dia")?;
    let outcome = result(&id, &gw, &d, cx.now);
    d.set("Diagnosis", outcome);
    // A connected agent measures too and reports again.
    cx.command(&mut d, Command::Diagnose(DiagnoseArgs { diagnose_id: id })).await?;
    Ok(empty())
}

pub async fn report(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    Ok(json!({"DiagnoseResult": d.get("Diagnosis")}))
}
