//! The device document: the whole configuration of one device, made of what is stored.

use sag_southbound::{
    Acl, CloudConnectNetwork, DeviceDocument, NetworkMember, PeerDevice, Qos, Secret, Version, Wire,
};
use serde_json::{Map, Value};

use crate::domain::acl::AclRule;
use crate::domain::device::Device;
use crate::domain::distribution::RouteStrategy;
use crate::domain::flow_log;
use crate::domain::gateway::Gateway;
use crate::domain::health::HealthCheck;
use crate::domain::membership::MemberDevice;
use crate::domain::nat::{DnatEntry, SnatEntry};
use crate::domain::network::Network;
use crate::domain::objects::Authorised;
use crate::domain::qos::{QosCar, QosPolicy};
use crate::error::{ApiError, Result};
use crate::store::objects::{self, Column, Entity, Filter, Stored};
use crate::store::secrets::Cipher;
use crate::store::{Link, Tx, links};

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

/// Everything that a document is made of. It is read whole, whatever the policies of the agent's user show to him in
/// other calls: a device without the rules of a list that he may not see would let everything through. What it takes is
/// the permission for this call on the gateway.
pub struct Source<'a> {
    pub tx: &'a mut Tx,
    pub cipher: &'a Cipher,
}

impl Source<'_> {
    async fn list<T: Entity>(&mut self, filter: &Filter) -> Result<Vec<Stored<T>>> {
        Ok(objects::list_of(self.tx, filter, None).await?)
    }

    async fn children<T: Entity>(&mut self, parent: &str) -> Result<Vec<Stored<T>>> {
        self.list(&Filter::under(parent)).await
    }

    /// The document at the device's revision, with the commands that are newer than the revision `have`.
    ///
    /// # Errors
    /// The database fails, or holds something that is not of the contract.
    pub async fn document(
        &mut self,
        gw: &Authorised<Gateway>,
        d: &Device,
        have: i64,
    ) -> Result<DeviceDocument> {
        let mut doc = sections(self.cipher, d)?;
        doc.version = Version::CURRENT;
        doc.smart_ag_id = gw.id.clone();
        doc.smart_ag_sn = d.sn.clone();
        doc.gateway = Some(typed(&gw.body)?);
        doc.secret_key = Secret::new(open(self.cipher, &d.sealed_key)?);
        doc.admin_password = opened_secret(self.cipher, d.config.sealed_admin_password.as_deref())?;
        let peers = Device::of_gateway(self.tx, &gw.id).await?;
        doc.peers = peers.into_iter().map(|p| p.summary.sn).filter(|sn| *sn != d.sn).collect();
        let links = links::from_each(self.tx, &[&gw.id]).await?.remove(&gw.id).unwrap_or_default();
        for id in links.ids(Link::Acl) {
            let filter = Filter::under(id).order_by(Column::Priority, false);
            let rules = all_typed(self.list::<AclRule>(&filter).await?)?;
            doc.acls.push(Acl { id: id.to_owned(), rules });
        }
        for id in links.ids(Link::Qos) {
            let policies = all_typed(self.children::<QosPolicy>(id).await?)?;
            let cars = all_typed(self.children::<QosCar>(id).await?)?;
            doc.qos.push(Qos { id: id.to_owned(), policies, cars });
        }
        doc.snat_entries = all_typed(self.children::<SnatEntry>(&gw.id).await?)?;
        doc.dnat_entries = all_typed(self.children::<DnatEntry>(&gw.id).await?)?;
        doc.health_checks = all_typed(self.children::<HealthCheck>(&gw.id).await?)?;
        doc.route_distribution = all_typed(self.children::<RouteStrategy>(&gw.id).await?)?;
        for id in links.ids(Link::FlowLog) {
            if let Some(log) = objects::get::<flow_log::FlowLog>(self.tx, id).await? {
                doc.flow_log = Some(typed(&log.body)?);
            }
        }
        for id in links.ids(Link::Ccn) {
            doc.ccn = self.network(gw, id).await?;
        }
        doc.vbrs = links.ids(Link::Vbr).into_iter().map(str::to_owned).collect();
        doc.commands = d.config.commands.iter().filter(|c| c.revision > have).cloned().collect();
        Ok(doc)
    }

    /// The cloud connect network as the gateway sees it: its hub, and of every other member the blocks that it was granted
    /// and the devices whose announcements are in order.
    async fn network(&mut self, gw: &Authorised<Gateway>, id: &str) -> Result<Option<CloudConnectNetwork>> {
        let Some(found) = Network::by_id(self.tx, id).await? else { return Ok(None) };
        let mut network: CloudConnectNetwork = typed(&found.ccn.body)?;
        let hub = found.hub().unwrap_or_default().to_owned();
        for other in found.members.into_iter().filter(|m| m.gateway != gw.id) {
            let is_hub = other.gateway == hub;
            let device =
                |d: &MemberDevice| Some(PeerDevice::new(d.sn.as_str(), d.endpoint()?.clone(), is_hub));
            network.members.push(NetworkMember {
                cidr_blocks: other.blocks.iter().map(ToString::to_string).collect(),
                devices: other.devices.iter().filter_map(device).collect(),
                smart_ag_id: other.gateway,
            });
        }
        network.hub = hub;
        Ok(Some(network))
    }
}

/// What is stored with the device, secrets in clear.
fn sections(cipher: &Cipher, d: &Device) -> Result<DeviceDocument> {
    let mut stored = serde_json::to_value(&d.config)?;
    let mut members = Map::new();
    members.insert("Revision".into(), d.revision.into());
    for name in SECTIONS {
        members.insert(name.into(), opened(cipher, stored[name].take())?);
    }
    DeviceDocument::from_json(Value::Object(members)).map_err(ApiError::internal)
}

/// A stored object as the contract has it; members that are not of the contract are left out.
fn typed<T: Wire>(body: &impl Entity) -> Result<T> {
    T::from_json(serde_json::to_value(body)?).map_err(ApiError::internal)
}

fn all_typed<T: Wire, O: Entity>(rows: Vec<Stored<O>>) -> Result<Vec<T>> {
    rows.iter().map(|o| typed(&o.body)).collect()
}

fn open(cipher: &Cipher, sealed: &str) -> Result<String> {
    cipher.open(sealed).map_err(ApiError::internal)
}

fn opened_secret(cipher: &Cipher, sealed: Option<&str>) -> Result<Secret> {
    sealed.map_or(Ok(Secret::default()), |sealed| Ok(Secret::new(open(cipher, sealed)?)))
}

/// `SealedX` becomes `X` in clear: the device needs it, and only the device's pull has it.
fn opened(cipher: &Cipher, value: Value) -> Result<Value> {
    Ok(match value {
        Value::Object(map) => {
            let mut out = Map::new();
            for (k, v) in map {
                match (k.strip_prefix("Sealed"), v.as_str()) {
                    (Some(name), Some(sealed)) => {
                        out.insert(name.to_owned(), open(cipher, sealed)?.into());
                    }
                    _ => {
                        out.insert(k, opened(cipher, v)?);
                    }
                }
            }
            Value::Object(out)
        }
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|v| opened(cipher, v)).collect::<Result<_>>()?)
        }
        other => other,
    })
}
