//! Software versions of devices.

use sag_southbound::{Command, UpgradeArgs};

use super::cx::Cx;
use super::fields::copied;
use crate::api::{request, response};
use crate::domain::device_config::UpgradePolicy;
use crate::error::Result;
use crate::store::Link;
use crate::store::devices::version_order;

const DPI_KIND: &str = "Dpi";

pub async fn versions(
    cx: &mut Cx,
    request: request::DescribeSmartAccessGatewayVersions,
) -> Result<response::DescribeSmartAccessGatewayVersions> {
    let gw = cx.gateway().await?;
    if request.smart_ag_sn.is_some() {
        cx.device_on(&gw).await?;
    }
    let offered = cx.versions(&request.version_type).await?;
    let rows =
        offered.into_iter().map(|v| response::describe_smart_access_gateway_versions::SmartAGVersion {
            create_time: v.created,
            r#type: "release".to_owned(),
            version_code: v.code,
            version_name: v.name,
        });
    Ok(response::DescribeSmartAccessGatewayVersions { smart_ag_versions: rows.collect() })
}

pub async fn update(
    cx: &mut Cx,
    request: request::UpdateSmartAccessGatewayVersion,
) -> Result<response::UpdateSmartAccessGatewayVersion> {
    let gw = cx.gateway().await?;
    let kind = request.version_type.unwrap_or_else(|| "Device".to_owned());
    let code = request.version_code;
    if !cx.versions(&kind).await?.iter().any(|v| v.code == code) {
        return Err(cx.err(&["VersionNotExist"]));
    }
    if cx.links_from(Link::Ccn, &gw).await?.is_empty() {
        return Err(cx.err(&["NotBoundCCN"]));
    }
    for d in &mut cx.online_devices(&gw, request.serial_number.is_some()).await? {
        let have = d.state.software_version.as_deref().unwrap_or_default();
        if kind != DPI_KIND && version_order(have) > version_order(&code) {
            return Err(cx.err(&["VersionTooOld"]));
        }
        let version = if kind == DPI_KIND { &mut d.config.dpi_version } else { &mut d.config.target_version };
        *version = Some(code.clone());
        let args = UpgradeArgs { version_type: kind.clone(), version_code: code.clone() };
        cx.command(d, Command::Upgrade(args)).await?;
    }
    Ok(response::UpdateSmartAccessGatewayVersion::default())
}

/// Seconds, minutes, hours, day of month, month, day of week, and maybe a year.
fn cron(text: &str) -> bool {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let ok = |f: &str| f.chars().all(|c| c.is_ascii_alphanumeric() || "*/?,-#".contains(c));
    (6..=7).contains(&fields.len()) && fields.iter().all(|f| ok(f))
}

pub async fn modify_policy(
    cx: &mut Cx,
    request: request::ModifyDeviceAutoUpgradePolicy,
) -> Result<response::ModifyDeviceAutoUpgradePolicy> {
    let mut d = cx.device().await?;
    if request.cron_expression.as_deref().is_some_and(|text| !cron(text)) {
        return Err(cx.invalid("CronExpression"));
    }
    let policy = copied!(request => UpgradePolicy { cron_expression, duration, time_zone, upgrade_type });
    let section = if request.version_type.as_deref() == Some(DPI_KIND) {
        d.config.dpi_upgrade_policy = Some(policy);
        "DpiUpgradePolicy"
    } else {
        d.config.upgrade_policy = Some(policy);
        "UpgradePolicy"
    };
    cx.save_device(&mut d, section).await?;
    Ok(response::ModifyDeviceAutoUpgradePolicy::default())
}

pub async fn describe_policy(
    cx: &mut Cx,
    request: request::DescribeDeviceAutoUpgradePolicy,
) -> Result<response::DescribeDeviceAutoUpgradePolicy> {
    let d = cx.device().await?;
    let dpi = request.version_type.as_deref() == Some(DPI_KIND);
    let policy = if dpi { d.config.dpi_upgrade_policy } else { d.config.upgrade_policy };
    let policy = policy.unwrap_or_else(|| UpgradePolicy {
        upgrade_type: "manual".to_owned(),
        duration: 30,
        ..UpgradePolicy::default()
    });
    Ok(copied!(policy => response::DescribeDeviceAutoUpgradePolicy {
        cron_expression, time_zone, upgrade_type;
        duration: policy.duration.to_string(),
        jitter: None,
        serial_number: d.summary.sn,
        smart_ag_id: d.summary.sag,
    }))
}
