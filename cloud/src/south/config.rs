//! The device document: the whole configuration of one device, made of what is stored.

use sag_southbound::{
    Acl, CloudConnectNetwork, DeviceDocument, NetworkMember, PeerDevice, Qos, Secret, Version, Wire,
};
use serde_json::{Map, Value};

use crate::domain::acl::AclRule;
use crate::domain::ccn::Ccn;
use crate::domain::device::Device;
use crate::domain::distribution::RouteStrategy;
use crate::domain::flow_log;
use crate::domain::gateway::Gateway;
use crate::domain::health::HealthCheck;
use crate::domain::membership::MemberDevice;
use crate::domain::nat::{DnatEntry, SnatEntry};
use crate::domain::qos::{QosCar, QosPolicy};
use crate::error::{ApiError, Result};
use crate::ops::cx::Cx;
use crate::store::objects::{Column, Entity, Filter, Stored};
use crate::store::{Link, links};

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
pub async fn document(cx: &mut Cx, gw: &Stored<Gateway>, d: &Device, have: i64) -> Result<DeviceDocument> {
    let mut doc = sections(cx, d)?;
    doc.version = Version::CURRENT;
    doc.smart_ag_id = gw.id.clone();
    doc.smart_ag_sn = d.sn.clone();
    doc.gateway = Some(typed(&gw.body)?);
    doc.secret_key = Secret::new(open(cx, &d.sealed_key)?);
    doc.admin_password = opened_secret(cx, d.config.sealed_admin_password.as_deref())?;
    let peers = cx.devices_of(&gw.id).await?;
    doc.peers = peers.into_iter().map(|p| p.summary.sn).filter(|sn| *sn != d.sn).collect();
    let links = links::from_each(cx.conn(), &[&gw.id]).await?.remove(&gw.id).unwrap_or_default();
    for id in links.ids(Link::Acl) {
        let filter = Filter::under(id).order_by(Column::Priority, false);
        let rules = all_typed(cx.list::<AclRule>(&filter).await?)?;
        doc.acls.push(Acl { id: id.to_owned(), rules });
    }
    for id in links.ids(Link::Qos) {
        let policies = all_typed(cx.children::<QosPolicy>(id).await?)?;
        let cars = all_typed(cx.children::<QosCar>(id).await?)?;
        doc.qos.push(Qos { id: id.to_owned(), policies, cars });
    }
    doc.snat_entries = all_typed(cx.children::<SnatEntry>(&gw.id).await?)?;
    doc.dnat_entries = all_typed(cx.children::<DnatEntry>(&gw.id).await?)?;
    doc.health_checks = all_typed(cx.children::<HealthCheck>(&gw.id).await?)?;
    doc.route_distribution = all_typed(cx.children::<RouteStrategy>(&gw.id).await?)?;
    for id in links.ids(Link::FlowLog) {
        if let Some(log) = cx.get::<flow_log::FlowLog>(id).await? {
            doc.flow_log = Some(typed(&log.body)?);
        }
    }
    for id in links.ids(Link::Ccn) {
        doc.ccn = network(cx, gw, id).await?;
    }
    doc.vbrs = links.ids(Link::Vbr).into_iter().map(str::to_owned).collect();
    doc.commands = d.config.commands.iter().filter(|c| c.revision > have).cloned().collect();
    Ok(doc)
}

/// What is stored with the device, secrets in clear.
fn sections(cx: &Cx, d: &Device) -> Result<DeviceDocument> {
    let mut stored = serde_json::to_value(&d.config)?;
    let mut members = Map::new();
    members.insert("Revision".into(), d.revision.into());
    for name in SECTIONS {
        members.insert(name.into(), opened(cx, stored[name].take())?);
    }
    DeviceDocument::from_json(Value::Object(members)).map_err(ApiError::internal)
}

/// The cloud connect network as the gateway sees it: its hub, and of every other member the blocks that it was granted and
/// the devices whose announcements are in order.
async fn network(cx: &mut Cx, gw: &Stored<Gateway>, id: &str) -> Result<Option<CloudConnectNetwork>> {
    let Some(ccn) = cx.get::<Ccn>(id).await? else { return Ok(None) };
    let found = cx.network(ccn).await?;
    let mut network: CloudConnectNetwork = typed(&found.ccn.body)?;
    let hub = found.hub().unwrap_or_default().to_owned();
    for other in found.members.into_iter().filter(|m| m.gateway != gw.id) {
        let is_hub = other.gateway == hub;
        let device = |d: &MemberDevice| Some(PeerDevice::new(d.sn.as_str(), d.endpoint()?.clone(), is_hub));
        network.members.push(NetworkMember {
            cidr_blocks: other.blocks.iter().map(ToString::to_string).collect(),
            devices: other.devices.iter().filter_map(device).collect(),
            smart_ag_id: other.gateway,
        });
    }
    network.hub = hub;
    Ok(Some(network))
}

/// A stored object as the contract has it; members that are not of the contract are left out.
fn typed<T: Wire>(body: &impl Entity) -> Result<T> {
    T::from_json(serde_json::to_value(body)?).map_err(ApiError::internal)
}

fn all_typed<T: Wire, O: Entity>(rows: Vec<Stored<O>>) -> Result<Vec<T>> {
    rows.iter().map(|o| typed(&o.body)).collect()
}

fn open(cx: &Cx, sealed: &str) -> Result<String> {
    cx.cipher.open(sealed).map_err(ApiError::internal)
}

fn opened_secret(cx: &Cx, sealed: Option<&str>) -> Result<Secret> {
    sealed.map_or(Ok(Secret::default()), |sealed| Ok(Secret::new(open(cx, sealed)?)))
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
