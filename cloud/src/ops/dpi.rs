//! Application recognition.

use serde_json::{Value, json};

use super::cx::{Cx, empty};
use super::gateway::KIND as GATEWAY;
use crate::proto::error::Result;
use crate::store::objects::Object;

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

pub async fn signatures(cx: &mut Cx) -> Result<Value> {
    let ids = cx.list("DpiSignatureIds");
    let names = cx.list("DpiSignatureNames");
    let group = cx.opt("DpiGroupId");
    let all: Vec<Value> = SIGNATURES
        .iter()
        .enumerate()
        .map(|(i, (name, g))| ((i + 1).to_string(), *name, g.to_string()))
        .filter(|(id, name, g)| {
            (ids.is_empty() || ids.contains(id))
                && (names.is_empty() || names.iter().any(|n| n == name))
                && group.as_ref().is_none_or(|want| want == g)
        })
        .map(|(id, name, g)| {
            json!({"DpiSignatureId": id, "DpiSignatureName": name, "DpiGroupId": g,
                "MinSignatureDbVersion": DB, "MinEngineVersion": ENGINE})
        })
        .collect();
    let (total, next, page) = cx.slice(all, 20)?;
    Ok(json!({"TotalCount": total, "NextToken": next, "DpiSignature": page}))
}

pub async fn groups(cx: &mut Cx) -> Result<Value> {
    let ids = cx.list("DpiGroupIds");
    let names = cx.list("DpiGroupNames");
    let all: Vec<Value> = GROUPS
        .iter()
        .enumerate()
        .map(|(i, name)| ((i + 1).to_string(), *name))
        .filter(|(id, name)| {
            (ids.is_empty() || ids.contains(id)) && (names.is_empty() || names.iter().any(|n| n == name))
        })
        .map(|(id, name)| {
            json!({"DpiGroupId": id, "DpiGroupName": name, "MinSignatureDbVersion": DB,
                "MinEngineVersion": ENGINE})
        })
        .collect();
    let (total, next, page) = cx.slice(all, 20)?;
    Ok(json!({"TotalCount": total, "NextToken": next, "DpiGroup": page}))
}

pub async fn update(cx: &mut Cx) -> Result<Value> {
    let mut gw = cx.gateway().await?;
    cx.refuse_if(gw.str("InstanceType") == super::gateway::SOFTWARE, &["FeatureNotSupport"])?;
    let on = cx.flag("DpiEnabled") == Some(true);
    gw.set("DpiStatus", if on { "On" } else { "Off" });
    if !on {
        gw.set("DpiMonitorStatus", "Inactive");
    }
    cx.put(&gw).await?;
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn enable_monitor(cx: &mut Cx) -> Result<Value> {
    let mut gw = cx.gateway().await?;
    if gw.str("DpiStatus") != "On" || gw.str("DpiMonitorStatus") == "Active" {
        return Err(cx.err(&["IncorrectStatus"]));
    }
    for (k, v) in cx.fields(&["SlsLogStore", "SlsProjectName"]) {
        gw.set(&k, v);
    }
    gw.set("SlsRegion", gw.region.clone());
    gw.set("DpiMonitorStatus", "Active");
    cx.put(&gw).await?;
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn disable_monitor(cx: &mut Cx) -> Result<Value> {
    let mut gw = cx.gateway().await?;
    if gw.str("DpiMonitorStatus") != "Active" {
        return Err(cx.err(&["IncorrectStatus"]));
    }
    gw.set("DpiMonitorStatus", "Inactive");
    cx.put(&gw).await?;
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn attribute(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    Ok(json!({"DpiStatus": gw.str("DpiStatus"), "DpiMonitorStatus": gw.str("DpiMonitorStatus"),
        "SlsRegion": gw.body.get("SlsRegion").cloned().unwrap_or_else(|| gw.region.as_str().into()),
        "SlsLogStore": gw.body.get("SlsLogStore"), "SlsProjectName": gw.body.get("SlsProjectName")}))
}

/// The rules of a list or policy that name applications.
async fn dpi_rules(cx: &mut Cx, kind: &str, id: &str) -> Result<Vec<Object>> {
    let part = if kind == "acl" { super::acl::RULE } else { super::qos::POLICY };
    let mut rules = cx.children(part, id).await?;
    rules.retain(|r| r.body.contains_key("DpiSignatureIds") || r.body.contains_key("DpiGroupIds"));
    Ok(rules)
}

/// Why the devices of a gateway cannot put such rules in force, by serial number.
async fn failures(cx: &mut Cx, gw: &Object) -> Result<Vec<(String, &'static str)>> {
    let off = gw.str("DpiStatus") != "On";
    let devices = cx.devices_of(&gw.id).await?;
    Ok(devices
        .into_iter()
        .filter_map(|d| {
            if d.report["DpiSupported"] == false {
                Some((d.sn, "DeviceNotSupported"))
            } else {
                off.then_some((d.sn, "DpiNotEnabled"))
            }
        })
        .collect())
}

/// Gateways on which the list or policy is not fully in force.
pub async fn failing_gateways(cx: &mut Cx, kind: &str, id: &str) -> Result<usize> {
    if dpi_rules(cx, kind, id).await?.is_empty() {
        return Ok(0);
    }
    let mut count = 0;
    for gw in cx.links_to(kind, id).await? {
        let Some(gw) = cx.any(GATEWAY, &gw).await? else { continue };
        count += usize::from(!failures(cx, &gw).await?.is_empty());
    }
    Ok(count)
}

pub async fn config_errors(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let kind = cx.text("DpiConfigType");
    let only = cx.opt("RuleInstanceId");
    let mut rules = Vec::new();
    for id in cx.links_from(&kind, &gw.id).await? {
        if only.as_ref().is_none_or(|o| *o == id) {
            rules.extend(dpi_rules(cx, &kind, &id).await?);
        }
    }
    let list: Vec<Value> = rules
        .iter()
        .map(|r| {
            json!({"RuleId": r.id, "DpiSignatureIds": r.body.get("DpiSignatureIds"),
            "DpiGroupIds": r.body.get("DpiGroupIds")})
        })
        .collect();
    let mut rows = Vec::new();
    if !list.is_empty() {
        for (sn, why) in failures(cx, &gw).await? {
            rows.push(json!({"SN": sn, "SmartAGId": gw.id, "ErrorType": why,
                "RuleConfigErrorList": list}));
        }
    }
    let (total, next, page) = cx.slice(rows, 10)?;
    Ok(json!({"Total": total, "NextToken": next, "DpiConfigError": page,
        "MaxResults": cx.int("MaxResults").unwrap_or(10)}))
}
