//! Application recognition.

use super::cx::Cx;
use super::fields::copied;
use crate::api::{request, response};
use crate::domain::acl::AclRule;
use crate::domain::device::Device;
use crate::domain::gateway::Gateway;
use crate::domain::objects::Authorised;
use crate::domain::qos::QosPolicy;
use crate::error::Result;
use crate::store::objects::{Entity, Filter};
use crate::store::{Kind, Link};

/// The database that knows these applications, and the engine that it needs.
const DB: &str = "20201117_1_0-0.0.1";
const ENGINE: &str = "0-0.0.1";

const GROUPS: [&str; 22] = [
    "P2P",
    "VoIP",
    "Streaming",
    "Game",
    "Mail",
    "Chat",
    "RemoteControl",
    "FileTransfer",
    "Tunnel",
    "Database",
    "Network",
    "Cloud",
    "Web",
    "SocialNetwork",
    "Download",
    "Music",
    "Video",
    "Collaborative",
    "Shopping",
    "Search",
    "SoftwareUpdate",
    "Office",
];

/// Name and group of the application; its number is its place.
const SIGNATURES: [(&str, usize); 40] = [
    ("Baidu", 20),
    ("BitTorrent", 1),
    ("SIP", 2),
    ("RTP", 2),
    ("RTSP", 3),
    ("YouTube", 17),
    ("Netflix", 17),
    ("Youku", 17),
    ("Bilibili", 17),
    ("Steam", 4),
    ("SMTP", 5),
    ("IMAP", 5),
    ("POP3", 5),
    ("WeChat", 6),
    ("QQ", 6),
    ("WhatsApp", 6),
    ("Telegram", 6),
    ("RDP", 7),
    ("VNC", 7),
    ("SSH", 7),
    ("FTP", 8),
    ("SMB", 8),
    ("OpenVPN", 9),
    ("WireGuard", 9),
    ("IPsec", 9),
    ("MySQL", 10),
    ("PostgreSQL", 10),
    ("Redis", 10),
    ("DNS", 11),
    ("NTP", 11),
    ("DHCP", 11),
    ("AlibabaCloud", 12),
    ("HTTP", 13),
    ("TLS", 13),
    ("QUIC", 13),
    ("Weibo", 14),
    ("Thunder", 15),
    ("DingTalk", 18),
    ("Taobao", 19),
    ("EdgeCast", 12),
];

fn number(id: &str, len: usize) -> bool {
    id.parse::<usize>().is_ok_and(|n| (1..=len).contains(&n))
}

pub fn is_signature(id: &str) -> bool {
    number(id, SIGNATURES.len())
}

pub fn is_group(id: &str) -> bool {
    number(id, GROUPS.len())
}

/// An empty list lets everything through.
fn among(list: &[String], value: &str) -> bool {
    list.is_empty() || list.iter().any(|v| v == value)
}

pub async fn signatures(
    cx: &mut Cx,
    request: request::ListDpiSignatures,
) -> Result<response::ListDpiSignatures> {
    let all: Vec<_> = SIGNATURES
        .iter()
        .zip(1..)
        .map(|((name, group), number)| response::list_dpi_signatures::DpiSignature {
            dpi_group_id: group.to_string(),
            dpi_signature_id: number.to_string(),
            dpi_signature_name: (*name).to_owned(),
            min_engine_version: ENGINE.to_owned(),
            min_signature_db_version: DB.to_owned(),
        })
        .filter(|s| {
            among(&request.dpi_signature_ids, &s.dpi_signature_id)
                && among(&request.dpi_signature_names, &s.dpi_signature_name)
                && request.dpi_group_id.as_ref().is_none_or(|group| *group == s.dpi_group_id)
        })
        .collect();
    let (total_count, next, page) = cx.page_by_token(all, 20)?;
    Ok(response::ListDpiSignatures { dpi_signature: page, next_token: next.unwrap_or_default(), total_count })
}

pub async fn groups(cx: &mut Cx, request: request::ListDpiGroups) -> Result<response::ListDpiGroups> {
    let all: Vec<_> = GROUPS
        .iter()
        .zip(1..)
        .map(|(name, number)| response::list_dpi_groups::DpiGroup {
            dpi_group_id: number.to_string(),
            dpi_group_name: (*name).to_owned(),
            min_engine_version: ENGINE.to_owned(),
            min_signature_db_version: DB.to_owned(),
        })
        .filter(|g| {
            among(&request.dpi_group_ids, &g.dpi_group_id)
                && among(&request.dpi_group_names, &g.dpi_group_name)
        })
        .collect();
    let (total_count, next, page) = cx.page_by_token(all, 20)?;
    Ok(response::ListDpiGroups { dpi_group: page, next_token: next.unwrap_or_default(), total_count })
}

pub async fn update(
    cx: &mut Cx,
    request: request::UpdateSmartAGDpiAttribute,
) -> Result<response::UpdateSmartAGDpiAttribute> {
    let mut gw = cx.gateway().await?;
    cx.refuse_if(gw.is_software(), &["FeatureNotSupport"])?;
    gw.edit().dpi_status = if request.dpi_enabled { "On" } else { "Off" }.to_owned();
    if !request.dpi_enabled {
        gw.edit().dpi_monitor_status = "Inactive".to_owned();
    }
    cx.save_gateway(&gw).await?;
    Ok(response::UpdateSmartAGDpiAttribute::default())
}

pub async fn enable_monitor(
    cx: &mut Cx,
    request: request::EnableSmartAGDpiMonitor,
) -> Result<response::EnableSmartAGDpiMonitor> {
    let mut gw = cx.gateway().await?;
    if gw.dpi_status != "On" || gw.dpi_monitor_status == "Active" {
        return Err(cx.err(&["IncorrectStatus"]));
    }
    let region = gw.region.clone();
    let body = gw.edit();
    body.sls_log_store = Some(request.sls_log_store);
    body.sls_project_name = Some(request.sls_project_name);
    body.sls_region = Some(region);
    body.dpi_monitor_status = "Active".to_owned();
    cx.save_gateway(&gw).await?;
    Ok(response::EnableSmartAGDpiMonitor::default())
}

pub async fn disable_monitor(
    cx: &mut Cx,
    _: request::DisableSmartAGDpiMonitor,
) -> Result<response::DisableSmartAGDpiMonitor> {
    let mut gw = cx.gateway().await?;
    if gw.dpi_monitor_status != "Active" {
        return Err(cx.err(&["IncorrectStatus"]));
    }
    gw.edit().dpi_monitor_status = "Inactive".to_owned();
    cx.save_gateway(&gw).await?;
    Ok(response::DisableSmartAGDpiMonitor::default())
}

pub async fn attribute(
    cx: &mut Cx,
    _: request::GetSmartAGDpiAttribute,
) -> Result<response::GetSmartAGDpiAttribute> {
    let gw = cx.gateway().await?.into_inner();
    Ok(response::GetSmartAGDpiAttribute {
        sls_region: gw.sls_region.clone().unwrap_or_else(|| gw.region.clone()),
        dpi_monitor_status: gw.body.dpi_monitor_status,
        dpi_status: gw.body.dpi_status,
        logstore_name: gw.body.sls_log_store,
        project_name: gw.body.sls_project_name,
    })
}

type RuleError = response::list_dpi_config_error::RuleConfigErrorList;

fn rule_error(id: String, signatures: Option<Vec<String>>, groups: Option<Vec<String>>) -> Option<RuleError> {
    let names_applications = signatures.is_some() || groups.is_some();
    names_applications.then(|| RuleError {
        dpi_group_ids: groups.unwrap_or_default(),
        dpi_signature_ids: signatures.unwrap_or_default(),
        rule_id: id,
    })
}

/// A rule that may name applications.
pub trait NamesApplications {
    /// The signatures and the groups that it names.
    fn applications(&self) -> (&Option<Vec<String>>, &Option<Vec<String>>);
}

impl NamesApplications for AclRule {
    fn applications(&self) -> (&Option<Vec<String>>, &Option<Vec<String>>) {
        (&self.dpi_signature_ids, &self.dpi_group_ids)
    }
}

impl NamesApplications for QosPolicy {
    fn applications(&self) -> (&Option<Vec<String>>, &Option<Vec<String>>) {
        (&self.dpi_signature_ids, &self.dpi_group_ids)
    }
}

/// The rules of a list, or of a QoS container, that name applications.
async fn dpi_rules<T: Entity + NamesApplications>(cx: &mut Cx, container: &str) -> Result<Vec<RuleError>> {
    let rules = cx.list::<T>(&Filter::under(container)).await?;
    let about = |r: &Authorised<T>| {
        let (signatures, groups) = r.applications();
        rule_error(r.id.clone(), signatures.clone(), groups.clone())
    };
    Ok(rules.iter().filter_map(about).collect())
}

/// Whether rules of the list, or of the QoS container, name applications.
pub async fn names_applications<P: Entity, T: Entity + NamesApplications>(
    cx: &mut Cx,
    container: &Authorised<P>,
) -> Result<bool> {
    let rules: Vec<Authorised<T>> = cx.children(container).await?;
    Ok(rules.iter().any(|r| matches!(r.applications(), (Some(_), _) | (_, Some(_)))))
}

/// Why the devices of a gateway cannot put such rules in force, by serial number.
async fn failures(cx: &mut Cx, gw: &Authorised<Gateway>) -> Result<Vec<(String, &'static str)>> {
    let off = gw.dpi_status != "On";
    let devices = cx.devices_of(gw).await?;
    let why = |d: Device| {
        if d.state.dpi_supported == Some(false) {
            Some((d.summary.sn, "DeviceNotSupported"))
        } else {
            off.then_some((d.summary.sn, "DpiNotEnabled"))
        }
    };
    Ok(devices.into_iter().filter_map(why).collect())
}

/// Gateways on which rules of the list or QoS container that name applications are not in force.
pub async fn failing_gateways(cx: &mut Cx, link: Link, id: &str) -> Result<usize> {
    let users = cx.links_to(link, id).await?;
    let mut count = 0;
    for gw in cx.visible_objects::<Gateway>(&users).await? {
        count += usize::from(!failures(cx, &gw).await?.is_empty());
    }
    Ok(count)
}

pub async fn config_errors(
    cx: &mut Cx,
    request: request::ListDpiConfigError,
) -> Result<response::ListDpiConfigError> {
    let gw = cx.gateway().await?;
    let link = if request.dpi_config_type == "qos" { Link::Qos } else { Link::Acl };
    let only = request.rule_instance_id;
    if let Some(id) = &only {
        let kind = if link == Link::Qos { Kind::Qos } else { Kind::Acl };
        cx.require_named(kind, id, false).await?;
    }
    let linked = cx.links_from(link, &gw).await?;
    let mut ids = cx.visible(linked).await?;
    ids.retain(|id| only.as_ref().is_none_or(|o| o == id));
    let mut rules = Vec::new();
    for id in &ids {
        rules.extend(match link {
            Link::Qos => dpi_rules::<QosPolicy>(cx, id).await?,
            _ => dpi_rules::<AclRule>(cx, id).await?,
        });
    }
    let failing = if rules.is_empty() { Vec::new() } else { failures(cx, &gw).await? };
    let (total, next_token, page) = cx.page_by_token(failing, 10)?;
    let rows = page.into_iter().map(|(sn, why)| response::list_dpi_config_error::DpiConfigError {
        error_type: why.to_owned(),
        rule_config_error_list: rules
            .iter()
            .map(|r| copied!(r => RuleError { dpi_group_ids, dpi_signature_ids, rule_id }))
            .collect(),
        sn,
        smart_ag_id: gw.id.clone(),
    });
    Ok(response::ListDpiConfigError {
        dpi_config_error: rows.collect(),
        max_results: request.max_results,
        next_token,
        total,
    })
}
