//! The device document: the whole configuration of one device, made of what is stored.

use sag_southbound::{
    Acl, Announcement, CloudConnectNetwork, DeviceDocument, NetworkMember, PeerDevice, Qos, Secret, Version,
    Wire,
};
use serde_json::{Map, Value};

use crate::ops::cx::Cx;
use crate::ops::device::Device;
use crate::ops::{acl, commands, net, qos};
use crate::proto::error::{ApiError, Result};
use crate::store::objects::{Object, all_links};

/// Sections of a device's stored configuration that are members of the document.
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

/// The document at the device's revision, with the commands that are newer than the revision `have`.
///
/// # Errors
/// The database fails, or holds something that is not of the contract.
pub async fn document(cx: &mut Cx, gw: &Object, d: &Device, have: i64) -> Result<DeviceDocument> {
    let mut doc = sections(cx, d)?;
    doc.version = Version::CURRENT;
    doc.smart_ag_id = gw.id.clone();
    doc.smart_ag_sn = d.sn.clone();
    doc.gateway = Some(typed(gw.body.clone())?);
    doc.secret_key = opened_secret(cx, d.get("SealedKey"))?;
    doc.admin_password = opened_secret(cx, d.get("SealedAdminPassword"))?;
    let peers = cx.devices_of(&gw.id).await?;
    doc.peers = peers.into_iter().map(|p| p.sn).filter(|sn| *sn != d.sn).collect();
    let links = all_links(cx.conn(), &[&gw.id]).await?.remove(&gw.id).unwrap_or_default();
    let linked = |kind: &str| -> Vec<String> {
        links.iter().filter(|(k, _)| k == kind).map(|(_, id)| id.clone()).collect()
    };
    for id in linked("acl") {
        let mut rules = cx.children(acl::RULE, &id).await?;
        rules.sort_by_key(|r| r.int("Priority"));
        doc.acls.push(Acl { id, rules: all_typed(rules)? });
    }
    for id in linked("qos") {
        let policies = all_typed(cx.children(qos::POLICY, &id).await?)?;
        let cars = all_typed(cx.children(qos::CAR, &id).await?)?;
        doc.qos.push(Qos { id, policies, cars });
    }
    doc.snat_entries = all_typed(cx.children("snat", &gw.id).await?)?;
    doc.dnat_entries = all_typed(cx.children("dnat", &gw.id).await?)?;
    doc.health_checks = all_typed(cx.children("health", &gw.id).await?)?;
    doc.route_distribution = all_typed(cx.children("distribution", &gw.id).await?)?;
    for id in linked("flowlog") {
        if let Some(log) = cx.any("flowlog", &id).await? {
            doc.flow_log = Some(typed(log.body)?);
        }
    }
    for id in linked("ccn") {
        doc.ccn = network(cx, gw, &id).await?;
    }
    doc.vbrs = linked("vbr");
    doc.commands = commands::waiting(d)?;
    doc.commands.retain(|c| c.revision > have);
    Ok(doc)
}

/// What is stored with the device, secrets in clear.
fn sections(cx: &Cx, d: &Device) -> Result<DeviceDocument> {
    let mut members = Map::new();
    members.insert("Revision".into(), d.revision.into());
    for name in SECTIONS {
        if let Some(v) = d.body.get(name) {
            members.insert(name.into(), opened(cx, v.clone())?);
        }
    }
    typed(members)
}

/// The cloud connect network and the address blocks that are reached through it.
async fn network(cx: &mut Cx, gw: &Object, id: &str) -> Result<Option<CloudConnectNetwork>> {
    let Some(ccn) = cx.any("ccn", id).await? else { return Ok(None) };
    let mut network: CloudConnectNetwork = typed(ccn.body)?;
    for other in cx.links_to("ccn", id).await? {
        if let Some(o) = cx.any("gateway", &other).await?.filter(|o| o.id != gw.id) {
            let blocks = net::cidr_list(o.str("CidrBlock")).unwrap_or_default();
            let devices = cx.devices_of(&o.id).await?;
            network.members.push(NetworkMember {
                cidr_blocks: blocks.iter().map(ToString::to_string).collect(),
                devices: devices.iter().filter_map(announced).collect(),
                smart_ag_id: o.id,
            });
        }
    }
    Ok(Some(network))
}

/// What a device has announced to the other members of its network: where its tunnels end, and its public key.
fn announced(d: &Device) -> Option<PeerDevice> {
    let announced = Option::<Announcement>::from_json(d.report["Overlay"].clone()).ok()??;
    Some(PeerDevice::new(d.sn.as_str(), announced))
}

/// A stored object as the contract has it; members that are not of the contract are left out.
fn typed<T: Wire>(body: Map<String, Value>) -> Result<T> {
    T::from_json(Value::Object(body)).map_err(ApiError::internal)
}

fn all_typed<T: Wire>(rows: Vec<Object>) -> Result<Vec<T>> {
    rows.into_iter().map(|o| typed(o.body)).collect()
}

fn open(cx: &Cx, sealed: &str) -> Result<String> {
    cx.cipher.open(sealed).map_err(ApiError::internal)
}

fn opened_secret(cx: &Cx, sealed: &Value) -> Result<Secret> {
    sealed.as_str().map_or(Ok(Secret::default()), |sealed| Ok(Secret::new(open(cx, sealed)?)))
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
