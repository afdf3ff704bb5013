//! The device document: the whole configuration of one device, made of what is stored.
//!
//! Every type of the contract is written out member by member, so a new member does not compile until it is decided what
//! it is made of.

mod device;
mod objects;
#[cfg(test)]
mod tests;

use sag_southbound::{
    AccessPoint, Acl, CloudConnectNetwork, DeviceDocument, NetworkMember, PeerDevice, Qos, Secret,
    SessionPeer, Version,
};

use crate::domain::acl::AclRule;
use crate::domain::device::Device;
use crate::domain::distribution::RouteStrategy;
use crate::domain::flow_log::FlowLog;
use crate::domain::gateway::Gateway;
use crate::domain::health::HealthCheck;
use crate::domain::membership::MemberDevice;
use crate::domain::nat::{DnatEntry, SnatEntry};
use crate::domain::network::Network;
use crate::domain::objects::Authorised;
use crate::domain::probe::ProbeTask;
use crate::domain::qos::{QosCar, QosPolicy};
use crate::error::{ApiError, Result};
use crate::store::objects::{Column, Entity, Filter, Stored, get, list_of};
use crate::store::secrets::Cipher;
use crate::store::{Link, Tx, links, offers};

/// Everything that a document is made of. It is read whole, whatever the policies of the agent's user show to him in
/// other calls: a device without the rules of a list that he may not see would let everything through. What it takes is
/// the permission for this call on the gateway.
pub struct Source<'a> {
    pub tx: &'a mut Tx,
    pub cipher: &'a Cipher,
}

impl Source<'_> {
    async fn list<T: Entity, R>(&mut self, filter: &Filter, as_sent: impl Fn(T) -> R) -> Result<Vec<R>> {
        let rows: Vec<Stored<T>> = list_of(self.tx, filter, None).await?;
        Ok(rows.into_iter().map(|o| as_sent(o.body)).collect())
    }

    async fn children<T: Entity, R>(&mut self, parent: &str, as_sent: impl Fn(T) -> R) -> Result<Vec<R>> {
        self.list(&Filter::under(parent), as_sent).await
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
        let config = &d.config;
        let links = links::from_each(self.tx, &[&gw.id]).await?.remove(&gw.id).unwrap_or_default();
        let peers = Device::of_gateway(self.tx, &gw.id).await?;
        let session_peers = session_peers(gw, d, &peers);
        let (mut acls, mut qos) = (Vec::new(), Vec::new());
        for id in links.ids(Link::Acl) {
            let filter = Filter::under(id).order_by(Column::Priority, false);
            acls.push(Acl {
                id: id.to_owned(),
                rules: self.list::<AclRule, _>(&filter, objects::acl_rule).await?,
            });
        }
        for id in links.ids(Link::Qos) {
            let policies = self.children::<QosPolicy, _>(id, objects::qos_policy).await?;
            let cars = self.children::<QosCar, _>(id, objects::qos_car).await?;
            qos.push(Qos { id: id.to_owned(), policies, cars });
        }
        let mut flow_log = None;
        for id in links.ids(Link::FlowLog) {
            flow_log = get::<FlowLog>(self.tx, id).await?.map(|log| objects::flow_log(log.body)).or(flow_log);
        }
        let mut ccn = None;
        for id in links.ids(Link::Ccn) {
            ccn = self.network(gw, id).await?;
        }
        Ok(DeviceDocument {
            version: Version::CURRENT,
            revision: d.revision,
            smart_ag_id: gw.id.clone(),
            smart_ag_sn: d.sn.clone(),
            gateway: Some(objects::gateway(gw)),
            ports: config.ports.iter().map(device::port).collect(),
            wan: device::by_port(&config.wan, |wan| device::wan(self.cipher, wan))?,
            lan: device::by_port(&config.lan, |lan| Ok(device::lan(lan)))?,
            ecc: device::by_port(&config.ecc, |lines| lines.iter().map(device::leased_line).collect())?,
            management: config.management.as_ref().map(device::management),
            route_protocol: word(&config.route_protocol),
            bgp: config.bgp.as_ref().map(device::bgp),
            ospf: config.ospf.as_ref().map(|ospf| device::ospf(self.cipher, ospf)).transpose()?,
            port_protocols: device::by_port(&config.port_protocols, device::port_protocol)?,
            static_routes: config.static_routes.iter().map(device::static_route).collect::<Result<_>>()?,
            dns: config.dns.as_ref().map(device::dns),
            dns_forwards: config.dns_forwards.iter().map(device::dns_forward).collect(),
            ha: Some(device::ha(&config.ha)),
            session_peers,
            wan_snat: word(&config.snat),
            remote_access_ip: config.remote_access_ip.clone(),
            service_addresses: config.service_addresses.clone(),
            upgrade_policy: config.upgrade_policy.as_ref().map(device::upgrade_policy),
            target_version: config.target_version.clone().unwrap_or_default(),
            secret_key: open(self.cipher, &d.sealed_key)?,
            admin_password: open_if_any(self.cipher, config.sealed_admin_password.as_deref())?,
            peers: peers.into_iter().map(|p| p.summary.sn).filter(|sn| *sn != d.sn).collect(),
            acls,
            qos,
            snat_entries: self.children::<SnatEntry, _>(&gw.id, objects::snat_entry).await?,
            dnat_entries: self.children::<DnatEntry, _>(&gw.id, objects::dnat_entry).await?,
            health_checks: self.children::<HealthCheck, _>(&gw.id, objects::health_check).await?,
            probe_tasks: self
                .list::<ProbeTask, _>(&ProbeTask::enabled_on(&gw.id, &d.sn), objects::probe_task)
                .await?,
            access_points: self.access_points(gw).await?,
            route_distribution: self.children::<RouteStrategy, _>(&gw.id, objects::distribution_rule).await?,
            flow_log,
            ccn,
            vbrs: links.ids(Link::Vbr).into_iter().map(str::to_owned).collect(),
            commands: config.commands.iter().filter(|c| c.revision > have).cloned().collect(),
        })
    }

    /// The access points to which the device measures the path: that of the gateway, and others of its region.
    async fn access_points(&mut self, gw: &Authorised<Gateway>) -> Result<Vec<AccessPoint>> {
        const MOST: usize = 16;
        let mut points = offers::access_points(self.tx, Some(&gw.region)).await?;
        points.sort_by_key(|p| (p.id != gw.access_point_id, p.id));
        points.truncate(MOST);
        Ok(points.into_iter().map(|p| AccessPoint { id: p.id, address: p.address }).collect())
    }

    /// The cloud connect network as the gateway sees it: its hub, and of every other member the blocks that it was granted
    /// and publishes, and the devices whose announcements are in order. Nothing of that if the members are to be apart.
    async fn network(&mut self, gw: &Authorised<Gateway>, id: &str) -> Result<Option<CloudConnectNetwork>> {
        let Some(found) = Network::by_id(self.tx, id).await? else { return Ok(None) };
        let locked = found.member(&gw.id).is_some_and(|m| m.locked);
        let apart = locked || !found.ccn.is_interworking();
        let hub = found.hub().filter(|_| !apart).unwrap_or_default().to_owned();
        let mut members = Vec::new();
        for other in found.members.into_iter().filter(|m| !apart && !m.locked && m.gateway != gw.id) {
            let is_hub = other.gateway == hub;
            let device =
                |d: &MemberDevice| Some(PeerDevice::new(d.sn.as_str(), d.endpoint()?.clone(), is_hub));
            members.push(NetworkMember {
                cidr_blocks: other.announced().iter().map(ToString::to_string).collect(),
                devices: other.devices.iter().filter_map(device).collect(),
                smart_ag_id: other.gateway,
            });
        }
        let ccn = found.ccn.body;
        Ok(Some(CloudConnectNetwork {
            id: ccn.ccn_id,
            cidr_block: ccn.cidr_block.unwrap_or_default(),
            snat_cidr_block: ccn.snat_cidr_block.unwrap_or_default(),
            interworking_status: ccn.interworking_status,
            hub,
            members,
        }))
    }
}

/// Where the links to the instance's other devices end. What is not in order is not passed on: the devices would refuse it.
fn session_peers(gw: &Authorised<Gateway>, d: &Device, all: &[Device]) -> Vec<SessionPeer> {
    if !d.config.ha.has_virtual_address() {
        return Vec::new();
    }
    let others = all.iter().filter(|p| p.sn != d.sn && p.config.ha.has_virtual_address());
    let end = |p: &Device| {
        let link = p.state.session_link.clone()?;
        link.check(&gw.id, &p.sn).ok()?;
        Some(SessionPeer { smart_ag_sn: p.sn.clone(), link })
    };
    others.filter_map(end).collect()
}

/// A word of the contract; an empty text is none.
fn word<W: for<'a> From<&'a str>>(text: &str) -> Option<W> {
    if text.is_empty() { None } else { Some(W::from(text)) }
}

/// A secret in clear: the device needs it, and only the device's pull has it.
fn open(cipher: &Cipher, sealed: &str) -> Result<Secret> {
    cipher.open(sealed).map(Secret::new).map_err(ApiError::internal)
}

fn open_if_any(cipher: &Cipher, sealed: Option<&str>) -> Result<Secret> {
    sealed.map_or(Ok(Secret::default()), |sealed| open(cipher, sealed))
}
