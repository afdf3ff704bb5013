//! Software versions of devices.

use sag_southbound::{Command, UpgradeArgs};
use serde_json::{Value, json};

use super::cx::{Cx, empty};
use crate::domain::device::Device;
use crate::error::Result;
use crate::store::Link;
use crate::store::devices::version_order;

/// Code, name, time of the release.
const DEVICE: [(&str, &str, i64); 2] =
    [("0.1.0", "sag-vcpe-0.1.0", 1_790_000_000_000), ("0.1.1", "sag-vcpe-0.1.1", 1_795_000_000_000)];
const DPI: [(&str, &str, i64); 1] = [("20201117_1_0-0.0.1", "dpi-20201117", 1_605_571_200_000)];

fn offered(kind: &str) -> &'static [(&'static str, &'static str, i64)] {
    if kind == "Dpi" { &DPI } else { &DEVICE }
}

pub async fn versions(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    if cx.opt("SmartAGSn").is_some() {
        cx.device_on(&gw).await?;
    }
    let rows: Vec<Value> = offered(&cx.text("VersionType"))
        .iter()
        .map(|(code, name, at)| {
            json!({"Type": "release", "VersionCode": code, "VersionName": name, "CreateTime": at})
        })
        .collect();
    Ok(json!({"SmartAGVersions": rows}))
}

pub async fn update(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let kind = cx.opt("VersionType").unwrap_or_else(|| "Device".to_owned());
    let code = cx.text("VersionCode");
    if !offered(&kind).iter().any(|(c, ..)| *c == code) {
        return Err(cx.err(&["VersionNotExist"]));
    }
    if cx.links_from(Link::Ccn, &gw.id).await?.is_empty() {
        return Err(cx.err(&["NotBoundCCN"]));
    }
    let mut devices: Vec<Device> = match cx.opt("SerialNumber") {
        Some(_) => vec![cx.device_on(&gw).await?],
        None => cx.devices_of(&gw.id).await?,
    };
    devices.retain(|d| d.online(cx.now));
    if devices.is_empty() {
        return Err(cx.err(&["SmartAccessGatewayNotOnline"]));
    }
    for d in &mut devices {
        let have = d.report["SoftwareVersion"].as_str().unwrap_or_default();
        if kind == "Device" && version_order(have) > version_order(&code) {
            return Err(cx.err(&["VersionTooOld"]));
        }
        let field = if kind == "Dpi" { "DpiVersion" } else { "TargetVersion" };
        d.set(field, code.as_str().into());
        let args = UpgradeArgs { version_type: kind.clone(), version_code: code.clone() };
        cx.command(d, Command::Upgrade(args)).await?;
    }
    Ok(empty())
}

/// Seconds, minutes, hours, day of month, month, day of week, and maybe a year.
fn cron(text: &str) -> bool {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let ok = |f: &str| f.chars().all(|c| c.is_ascii_alphanumeric() || "*/?,-#".contains(c));
    (6..=7).contains(&fields.len()) && fields.iter().all(|f| ok(f))
}

fn section(cx: &Cx) -> &'static str {
    if cx.text("VersionType") == "Dpi" { "DpiUpgradePolicy" } else { "UpgradePolicy" }
}

pub async fn modify_policy(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.device().await?;
    if !cron(&cx.text("CronExpression")) {
        return Err(cx.invalid("CronExpression"));
    }
    let policy = cx.fields(&["CronExpression", "Duration", "TimeZone", "UpgradeType"]);
    let section = section(cx);
    d.set(section, Value::Object(policy));
    cx.save_device(&mut d, section).await?;
    Ok(empty())
}

pub async fn describe_policy(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    let mut out = json!({"SmartAGId": d.sag, "SerialNumber": d.sn, "UpgradeType": "manual",
        "CronExpression": "", "Duration": 30, "TimeZone": ""});
    super::routes::merge(&mut out, d.get(section(cx)));
    Ok(out)
}
