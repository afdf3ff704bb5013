//! Diagnosis of a device, from its configuration and from what it reported.

use sag_southbound::{Command, DiagnoseArgs, PortRole};

use super::cx::Cx;
use super::fields::copied;
use crate::api::response::discribe_smart_access_gateway_diagnosis_report as shown;
use crate::api::{request, response};
use crate::domain::device::Device;
use crate::domain::diagnosis::{Details, Diagnosis, Item, ItemText, Levels, Statistics};
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
fn item(check: &Check, start_time: i64) -> Item {
    let words = |error: &str, info: &str| if check.error { error } else { info }.to_owned();
    let (kind_en, kind_cn) = match check.group {
        "config" => ("Config", "配置"),
        "biz" => ("Service", "业务"),
        _ => ("Internet", "公网"),
    };
    let half = |[details, advice]: &[String; 2], kind: &str, item_level: String| ItemText {
        item_name: check.item.to_owned(),
        item_type: kind.to_owned(),
        item_level,
        details: vec![details.clone()],
        advice: vec![advice.clone()],
    };
    Item {
        r#type: check.group.to_owned(),
        item_name: check.item.to_owned(),
        level: words("error", "info"),
        start_time,
        end_time: now_ms(),
        en: half(&check.en, kind_en, words("ERROR", "INFO")),
        cn: half(&check.cn, kind_cn, words("严重", "正常")),
    }
}

fn check(group: &'static str, item: &'static str, error: bool, en: [&str; 2], cn: [&str; 2]) -> Check {
    let own = |t: [&str; 2]| if error { t.map(str::to_owned) } else { ["OK".into(), "N/A".into()] };
    Check { group, item, error, en: own(en), cn: own(cn) }
}

fn checks(d: &Device, now: i64) -> Vec<Check> {
    let ports = d.current_ports();
    let wans: Vec<_> = ports.iter().filter(|p| p.role == PortRole::Wan.as_str()).collect();
    let wan_without_role = wans.is_empty();
    let wan_down = d.online(now) && !wans.iter().any(|p| p.is_up());
    let ha = &d.config.ha;
    let ha_bad = ha.mode == "STATIC" && d.role(ha.port_name.as_deref().unwrap_or_default()) != "LAN";
    let no_dns = d.online(now) && d.state.dns.as_ref().is_none_or(|dns| dns.master.is_empty());
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

fn statistics(checks: &[&Check]) -> Statistics {
    let total = checks.len() as i64;
    let error = checks.iter().filter(|c| c.error).count() as i64;
    Statistics { total, error, warning: 0, info: total - error }
}

fn level(checks: &[&Check]) -> String {
    if checks.iter().any(|c| c.error) { "error" } else { "info" }.to_owned()
}

fn diagnose(id: &str, gw: &Stored<Gateway>, d: &Device, now: i64) -> Diagnosis {
    let checks = checks(d, now);
    let group = |name: &str| -> Vec<&Check> { checks.iter().filter(|c| c.group == name).collect() };
    let all: Vec<&Check> = checks.iter().collect();
    let details = ["config", "biz", "internet"].map(|name| {
        let part = group(name);
        Details {
            r#type: name.to_owned(),
            items: part.iter().map(|c| item(c, now)).collect(),
            statistics: statistics(&part),
        }
    });
    Diagnosis {
        diagnose_id: id.to_owned(),
        instance_id: gw.id.clone(),
        sn: d.sn.clone(),
        uid: gw.uid,
        box_type: gw.hardware_version.clone(),
        box_version: d.state.software_version.clone(),
        monitor_version: d.state.monitor_version.clone(),
        state: "finished".to_owned(),
        percent: 100,
        start_time: now,
        end_time: now_ms(),
        total_number: all.len() as i64,
        finished_number: all.len() as i64,
        user_level: "user".to_owned(),
        store_type: "local".to_owned(),
        report_sls_success: 0,
        statistics: statistics(&all),
        details: details.into(),
        level: Levels {
            biz: level(&group("biz")),
            configuration: level(&group("config")),
            total: level(&all),
        },
    }
}

pub async fn start(
    cx: &mut Cx,
    _: request::DiagnoseSmartAccessGateway,
) -> Result<response::DiagnoseSmartAccessGateway> {
    let gw = cx.gateway().await?;
    let mut d = cx.device_on(&gw).await?;
    let id = cx.new_id("dia")?;
    d.config.diagnosis = Some(diagnose(&id, &gw, &d, cx.now));
    // A connected agent measures too and reports again.
    cx.command(&mut d, Command::Diagnose(DiagnoseArgs { diagnose_id: id })).await?;
    Ok(response::DiagnoseSmartAccessGateway::default())
}

pub async fn report(
    cx: &mut Cx,
    _: request::DiscribeSmartAccessGatewayDiagnosisReport,
) -> Result<response::DiscribeSmartAccessGatewayDiagnosisReport> {
    let d = cx.device().await?;
    Ok(response::DiscribeSmartAccessGatewayDiagnosisReport {
        diagnose_result: d.config.diagnosis.map(shown_diagnosis).unwrap_or_default(),
    })
}

fn shown_diagnosis(d: Diagnosis) -> shown::DiagnoseResult {
    copied!(d => shown::DiagnoseResult {
        box_type, box_version, diagnose_id, end_time, finished_number, instance_id, monitor_version, percent,
        report_sls_success, sn, start_time, state, store_type, total_number, user_level;
        details: d.details.iter().map(shown_details).collect(),
        level: copied!(d.level => shown::Level { biz, configuration, total }),
        statistics: copied!(d.statistics => shown::DiagnoseResultStatistics { error, info, total, warning }),
        u_id: d.uid.to_string(),
    })
}

fn shown_details(d: &Details) -> shown::Details {
    copied!(d => shown::Details {
        r#type;
        items: d.items.iter().map(shown_item).collect(),
        statistics: copied!(d.statistics => shown::Statistics { error, info, total, warning }),
    })
}

fn shown_item(i: &Item) -> shown::Items {
    copied!(i => shown::Items {
        end_time, item_name, level, start_time, r#type;
        cn: copied!(i.cn => shown::CN { advice, details, item_level, item_name, item_type }),
        en: copied!(i.en => shown::EN { advice, details, item_level, item_name, item_type }),
    })
}
