//! The whole configuration of one device as one document.

use serde_json::{Map, Value, json};

use crate::ops::cx::Cx;
use crate::ops::device::Device;
use crate::ops::{acl, net, qos};
use crate::proto::error::{ApiError, Result};
use crate::store::objects::{Object, all_links};

/// Sections of a device that an agent gets as they are.
const SECTIONS: [&str; 16] = [
    "Ports",
    "Wan",
    "Lan",
    "Ecc",
    "Management",
    "RouteProtocol",
    "Bgp",
    "Ospf",
    "PortProtocols",
    "StaticRoutes",
    "Dns",
    "Ha",
    "Snat",
    "RemoteAccessIp",
    "UpgradePolicy",
    "TargetVersion",
];

const GATEWAY: [&str; 12] = [
    "Name",
    "Status",
    "CidrBlock",
    "RoutingStrategy",
    "Bandwidth",
    "SecurityLockThreshold",
    "UpBandwidthWan",
    "HaType",
    "DpiStatus",
    "DpiMonitorStatus",
    "AccessPointId",
    "Locked",
];

pub async fn document(cx: &mut Cx, gw: &Object, d: &Device, have: i64) -> Result<Value> {
    let mut out = Map::new();
    out.insert("Revision".into(), d.revision.into());
    out.insert("SmartAGId".into(), gw.id.as_str().into());
    out.insert("SmartAGSn".into(), d.sn.as_str().into());
    out.insert("Gateway".into(), picked(gw, &GATEWAY));
    for name in SECTIONS {
        if let Some(v) = d.body.get(name) {
            out.insert(name.into(), opened(cx, v.clone())?);
        }
    }
    for (field, name) in [("SealedKey", "SecretKey"), ("SealedAdminPassword", "AdminPassword")] {
        if let Some(sealed) = d.get(field).as_str() {
            out.insert(name.into(), open(cx, sealed)?.into());
        }
    }
    let peers = cx.devices_of(&gw.id).await?;
    let peers: Vec<&str> = peers.iter().map(|p| p.sn.as_str()).filter(|sn| *sn != d.sn).collect();
    out.insert("Peers".into(), json!(peers));
    let links = all_links(cx.conn(), &[&gw.id]).await?.remove(&gw.id).unwrap_or_default();
    let linked = |kind: &str| -> Vec<String> {
        links.iter().filter(|(k, _)| k == kind).map(|(_, id)| id.clone()).collect()
    };
    let mut acls = Vec::new();
    for id in linked("acl") {
        let mut rules = cx.children(acl::RULE, &id).await?;
        rules.sort_by_key(|r| r.int("Priority"));
        acls.push(json!({"AclId": id, "Rules": bodies(rules)}));
    }
    out.insert("Acls".into(), json!(acls));
    let mut all = Vec::new();
    for id in linked("qos") {
        let policies = bodies(cx.children(qos::POLICY, &id).await?);
        let cars = bodies(cx.children(qos::CAR, &id).await?);
        all.push(json!({"QosId": id, "Policies": policies, "Cars": cars}));
    }
    out.insert("Qos".into(), json!(all));
    let kinds = [
        ("SnatEntries", "snat"),
        ("DnatEntries", "dnat"),
        ("HealthChecks", "health"),
        ("RouteDistribution", "distribution"),
    ];
    for (name, kind) in kinds {
        let rows = bodies(cx.children(kind, &gw.id).await?);
        out.insert(name.into(), json!(rows));
    }
    for id in linked("flowlog") {
        if let Some(log) = cx.any("flowlog", &id).await? {
            out.insert("FlowLog".into(), Value::Object(log.body));
        }
    }
    for id in linked("ccn") {
        let ccn = network(cx, gw, &id).await?;
        out.insert("Ccn".into(), ccn);
    }
    out.insert("Vbrs".into(), json!(linked("vbr")));
    let mut commands = d.rows("Commands");
    commands.retain(|c| c["Revision"].as_i64().is_some_and(|r| r > have));
    out.insert("Commands".into(), json!(commands));
    Ok(Value::Object(out))
}

/// The cloud connect network and the address blocks that are reached through it.
async fn network(cx: &mut Cx, gw: &Object, id: &str) -> Result<Value> {
    let Some(ccn) = cx.any("ccn", id).await? else { return Ok(Value::Null) };
    let mut members = Vec::new();
    for other in cx.links_to("ccn", id).await? {
        if let Some(o) = cx.any("gateway", &other).await?.filter(|o| o.id != gw.id) {
            let blocks: Vec<String> = net::cidr_list(o.str("CidrBlock"))
                .unwrap_or_default()
                .iter()
                .map(ToString::to_string)
                .collect();
            let devices: Vec<Value> = cx.devices_of(&o.id).await?.iter().filter_map(announced).collect();
            members.push(json!({"SmartAGId": o.id, "CidrBlocks": blocks, "Devices": devices}));
        }
    }
    let mut out = picked(&ccn, &["CcnId", "CidrBlock", "SnatCidrBlock", "InterworkingStatus"]);
    out["Members"] = json!(members);
    Ok(out)
}

/// What a device told the other members of its network: where its tunnels end, and its public key.
fn announced(d: &Device) -> Option<Value> {
    let mut out = d.report["Overlay"].as_object()?.clone();
    out.retain(|k, _| ["Address", "Epoch", "PublicKey", "Pop"].contains(&k.as_str()));
    out.insert("SmartAGSn".to_owned(), d.sn.as_str().into());
    Some(Value::Object(out))
}

fn picked(o: &Object, fields: &[&str]) -> Value {
    let rows = fields.iter().filter_map(|f| Some(((*f).to_owned(), o.body.get(*f)?.clone())));
    Value::Object(rows.collect())
}

fn bodies(rows: Vec<Object>) -> Vec<Value> {
    rows.into_iter().map(|o| Value::Object(o.body)).collect()
}

fn open(cx: &Cx, sealed: &str) -> Result<String> {
    cx.cipher.open(sealed).map_err(ApiError::internal)
}

/// `SealedX` becomes `X` in clear: the device needs it, and only the device's pull has it.
fn opened(cx: &Cx, value: Value) -> Result<Value> {
    Ok(match value {
        Value::Object(map) => {
            let mut out = Map::new();
            for (k, v) in map {
                match (k.strip_prefix("Sealed"), v.as_str()) {
                    (Some(name), Some(sealed)) => {
                        out.insert(name.to_owned(), open(cx, sealed)?.into());
                    }
                    _ => {
                        out.insert(k, opened(cx, v)?);
                    }
                }
            }
            Value::Object(out)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(|v| opened(cx, v)).collect::<Result<_>>()?),
        other => other,
    })
}
