//! Diagnosis of a device: what is known here, and what the device measures for it.

use sag_southbound::{Command, CommandOutcome, DiagnoseArgs, DiagnosisItem, DiagnosisText, PortRole};

use super::cx::Cx;
use super::fields::copied;
use crate::api::response::discribe_smart_access_gateway_diagnosis_report as shown;
use crate::api::{request, response};
use crate::domain::device::Device;
use crate::domain::diagnosis::{Details, Diagnosis, FAILED, Item, PROCESSING, TIMEOUT_MS};
use crate::error::Result;
use crate::time::now_ms;

struct Check {
    group: &'static str,
    item: &'static str,
    error: bool,
    en: [String; 2],
    cn: [String; 2],
}

fn item(check: &Check, start_time: i64) -> Item {
    let half = |[details, advice]: &[String; 2]| DiagnosisText {
        name: check.item.to_owned(),
        details: vec![details.clone()],
        advice: vec![advice.clone()],
    };
    Item::from(DiagnosisItem {
        kind: check.group.to_owned(),
        name: check.item.to_owned(),
        level: if check.error { "error" } else { "info" }.to_owned(),
        start_time,
        end_time: now_ms(),
        en: half(&check.en),
        cn: half(&check.cn),
    })
}

fn check(group: &'static str, item: &'static str, error: bool, en: [&str; 2], cn: [&str; 2]) -> Check {
    let own = |t: [&str; 2]| if error { t.map(str::to_owned) } else { ["OK".into(), "N/A".into()] };
    Check { group, item, error, en: own(en), cn: own(cn) }
}

/// What is known without the device.
fn checks(d: &Device, now: i64) -> Vec<Check> {
    let wan = d.current_ports().iter().any(|p| p.role == PortRole::Wan.as_str());
    let ha = &d.config.ha;
    let ha_bad = ha.mode == "STATIC" && d.role(ha.port_name.as_deref().unwrap_or_default()) != "LAN";
    vec![
        check(
            "config",
            "wanConfigCheck",
            !wan,
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
    ]
}

pub async fn start(
    cx: &mut Cx,
    _: request::DiagnoseSmartAccessGateway,
) -> Result<response::DiagnoseSmartAccessGateway> {
    let gw = cx.gateway().await?;
    let mut d = cx.device_on(&gw).await?;
    let id = cx.new_id("dia")?;
    let now = cx.now;
    let mut diagnosis = Diagnosis {
        diagnose_id: id.clone(),
        instance_id: gw.id.clone(),
        sn: d.sn.clone(),
        uid: gw.uid,
        box_type: gw.hardware_version.clone(),
        box_version: d.state.software_version.clone(),
        monitor_version: d.state.monitor_version.clone(),
        state: PROCESSING.to_owned(),
        start_time: now,
        user_level: "user".to_owned(),
        store_type: "local".to_owned(),
        ..Diagnosis::default()
    };
    diagnosis.add(checks(&d, now).iter().map(|c| item(c, now)));
    // A device that is not connected measures nothing, and that is the result.
    if !d.online(now) {
        diagnosis.finish(now);
    }
    let measures = d.online(now);
    d.config.diagnosis = Some(diagnosis);
    if measures {
        cx.command(&mut d, Command::Diagnose(DiagnoseArgs { diagnose_id: id })).await?;
    } else {
        cx.save_device(&mut d, "Diagnose").await?;
    }
    Ok(response::DiagnoseSmartAccessGateway::default())
}

pub async fn report(
    cx: &mut Cx,
    _: request::DiscribeSmartAccessGatewayDiagnosisReport,
) -> Result<response::DiscribeSmartAccessGatewayDiagnosisReport> {
    let mut d = cx.device().await?;
    let unable = d.config.command_results.get("Diagnose").is_some_and(|r| {
        let newest = d.config.tasks.get("Diagnose").is_none_or(|task| task.revision <= r.revision);
        newest && r.outcome != Some(CommandOutcome::Done)
    });
    // A device that cannot measure, or has not said what it measured for long.
    if let Some(diagnosis) = d.config.diagnosis.as_mut().filter(|d| d.state == PROCESSING)
        && (unable || cx.now - diagnosis.start_time > TIMEOUT_MS)
    {
        diagnosis.finish(cx.now);
        FAILED.clone_into(&mut diagnosis.state);
    }
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
