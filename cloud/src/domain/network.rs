//! A cloud connect network as it is: its members of every account, what they may announce and do announce.
//!
//! This is about all members, whoever looks; what of it a call shows or changes is the business of `objects`.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::ccn::Ccn;
use super::device::Device;
use super::distribution::RouteStrategy;
use super::gateway::Gateway;
use super::membership::{Announced, CcnMember, Member, MemberDevice, find_conflicts};
use super::nat::SnatEntry;
use crate::store::objects::{self, Filter, Stored};
use crate::store::{Kind, Link, Result, Tx, devices, links};
use crate::time::{now_ms, now_us};

/// A network with its members, oldest first, and what they may and do announce.
pub struct Network {
    pub ccn: Stored<Ccn>,
    pub members: Vec<Member>,
}

impl Network {
    /// A network as its members see it now, in a number of statements that does not grow with it.
    ///
    /// # Errors
    /// The database fails.
    pub async fn load(tx: &mut Tx, ccn: Stored<Ccn>) -> Result<Network> {
        let ids = links::to(tx, Link::Ccn, &ccn.id).await?;
        let every = Filter::default();
        let filter = every.clone().with_ids(Some(ids.clone()));
        let gateways = objects::list_of::<Gateway>(tx, &filter, None).await?;
        let mut gateways: HashMap<String, Stored<Gateway>> =
            gateways.into_iter().map(|g| (g.id.clone(), g)).collect();
        let refs: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut summaries = devices::summaries(tx, &refs).await?;
        let sns: Vec<String> = summaries.values().flatten().map(|d| d.sn.clone()).collect();
        let announced = objects::list_of::<Announced>(tx, &every.with_ids(Some(sns)), None).await?;
        let mut announced: HashMap<String, Announced> =
            announced.into_iter().map(|a| (a.id.clone(), a.body)).collect();
        let granted = objects::list_of::<CcnMember>(tx, &Filter::under(&ccn.id), None).await?;
        let mut granted: HashMap<String, Vec<Ipv4Net>> =
            granted.into_iter().map(|m| (m.body.smart_ag_id.clone(), m.body.granted())).collect();
        let mut members = Vec::with_capacity(ids.len());
        for id in &ids {
            let Some(gw) = gateways.remove(id) else { continue };
            // Without a grant another account's gateway may announce nothing.
            let grant = (gw.uid != ccn.uid).then(|| granted.remove(id).unwrap_or_default());
            let mut member = Member::new(id, gw.uid, gw.blocks(), grant);
            let devices = summaries.remove(id).unwrap_or_default();
            let heard = devices.iter().map(|d| d.seen).max().unwrap_or_default();
            member.locked = gw.is_locked(heard, now_ms());
            for d in devices {
                let announced = announced.remove(&d.sn).unwrap_or_default();
                member.devices.push(MemberDevice { sn: d.sn, announced, conflict: String::new() });
            }
            members.push(member);
        }
        find_conflicts(&mut members);
        publication(tx, &mut members).await?;
        translations(tx, &ccn, &mut members).await?;
        Ok(Network { ccn, members })
    }

    /// The network with this identifier.
    ///
    /// # Errors
    /// The database fails.
    pub async fn by_id(tx: &mut Tx, ccn: &str) -> Result<Option<Network>> {
        match objects::get::<Ccn>(tx, ccn).await? {
            Some(ccn) => Network::load(tx, ccn).await.map(Some),
            None => Ok(None),
        }
    }

    /// The network that a gateway is in.
    ///
    /// # Errors
    /// The database fails.
    pub async fn of_gateway(tx: &mut Tx, gateway: &str) -> Result<Option<Network>> {
        match links::from(tx, Link::Ccn, gateway).await?.first() {
            Some(ccn) => Network::by_id(tx, ccn).await,
            None => Ok(None),
        }
    }

    /// Writes down which announcements the other members do not get, for the reports of those devices.
    ///
    /// # Errors
    /// The database fails.
    pub async fn settle(&self, tx: &mut Tx) -> Result<()> {
        for d in self.members.iter().flat_map(|m| &m.devices) {
            if d.announced.conflict == d.conflict {
                continue;
            }
            if let Some(mut stored) = objects::get::<Announced>(tx, &d.sn).await? {
                stored.conflict.clone_from(&d.conflict);
                objects::put(tx, &stored).await?;
            }
            if !d.conflict.is_empty() {
                tracing::warn!(device = d.sn, why = d.conflict, "an announcement is not handed out");
            }
        }
        Ok(())
    }

    /// Gives the devices of all members a new revision; returns their serial numbers.
    ///
    /// # Errors
    /// The database fails.
    pub async fn renew(&self, tx: &mut Tx) -> Result<Vec<String>> {
        let mut out = Vec::new();
        for m in &self.members {
            out.extend(devices::bump_revision(tx, &m.gateway, now_us()).await?);
        }
        Ok(out)
    }

    /// A member, by its gateway.
    pub fn member(&self, gateway: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.gateway == gateway)
    }

    /// The blocks of a member that the others get.
    pub fn announced_by(&self, gateway: &str) -> Vec<Ipv4Net> {
        match self.member(gateway) {
            Some(member) if self.ccn.is_interworking() => member.announced(),
            _ => Vec::new(),
        }
    }

    /// The hub, if it is still a member.
    pub fn hub(&self) -> Option<&str> {
        self.ccn.hub.as_deref().filter(|hub| self.member(hub).is_some())
    }

    /// The device of another gateway whose tunnels end inside of the blocks: a route to them would cut those off.
    pub fn endpoint_inside(&self, gateway: &str, blocks: &[Ipv4Net]) -> Option<&str> {
        let others = self.members.iter().filter(|m| m.gateway != gateway).flat_map(|m| &m.devices);
        let mut inside = others.filter(|d| {
            let address: Option<Ipv4Addr> = d.endpoint().and_then(|a| a.address.parse().ok());
            address.is_some_and(|a| blocks.iter().any(|b| b.contains(&a)))
        });
        inside.next().map(|d| d.sn.as_str())
    }

    /// Serial number and announcement of each device whose announcement the others get.
    fn endpoints(&self) -> Vec<(String, sag_southbound::Announcement)> {
        let devices = self.members.iter().flat_map(|m| &m.devices);
        devices.filter_map(|d| Some((d.sn.clone(), d.endpoint()?.clone()))).collect()
    }
}

/// Which of their blocks the members do not publish now, by their strategies.
async fn publication(tx: &mut Tx, members: &mut [Member]) -> Result<()> {
    let ids: Vec<String> = members.iter().map(|m| m.gateway.clone()).collect();
    let strategies = objects::list_of::<RouteStrategy>(tx, &Filter::under_any(&ids), None).await?;
    let now = now_ms();
    for m in members {
        let of = |s: &&Stored<RouteStrategy>| s.parent == m.gateway && s.is_local();
        let own: Vec<_> = strategies.iter().filter(of).collect();
        // What is measured is read of those alone whose blocks depend on it.
        let devices = match own.iter().any(|s| s.hc_instance_id.is_some()) {
            true => Device::of_gateway(tx, &m.gateway).await?,
            false => Vec::new(),
        };
        let silent = own.iter().filter(|s| !s.publishes(&devices, now));
        m.withdrawn = silent.filter_map(|s| s.block()).collect();
    }
    Ok(())
}

/// Addresses of the network's SNAT block to which its own gateways translate: the other members reach them. Of two that
/// take the same address, the older member has it.
async fn translations(tx: &mut Tx, ccn: &Ccn, members: &mut [Member]) -> Result<()> {
    let blocks = ccn.snat_blocks();
    if blocks.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = members.iter().map(|m| m.gateway.clone()).collect();
    let entries = objects::list_of::<SnatEntry>(tx, &Filter::under_any(&ids), None).await?;
    let mut taken = HashSet::new();
    for m in members.iter_mut().filter(|m| m.granted.is_none()) {
        for e in entries.iter().filter(|e| e.parent == m.gateway) {
            let Ok(ip) = e.snat_ip.parse::<Ipv4Addr>() else { continue };
            if blocks.iter().any(|b| b.contains(&ip)) && taken.insert(ip) {
                m.translated.push(Ipv4Net::from(ip));
            }
        }
    }
    Ok(())
}

/// Stores what a device has announced, and renews those members for whom that changes something; returns the serial
/// numbers of their devices.
///
/// # Errors
/// The database fails.
pub async fn put_announced(tx: &mut Tx, gateway: &str, announced: &Stored<Announced>) -> Result<Vec<String>> {
    let before = Network::of_gateway(tx, gateway).await?;
    objects::put(tx, announced).await?;
    let Some(before) = before else { return Ok(Vec::new()) };
    let after = Network::load(tx, before.ccn.clone()).await?;
    after.settle(tx).await?;
    let (old, new) = (before.endpoints(), after.endpoints());
    if old == new {
        return Ok(Vec::new());
    }
    let of_others = |all: &[(String, sag_southbound::Announcement)]| -> Vec<_> {
        all.iter().filter(|(sn, _)| *sn != announced.id).cloned().collect()
    };
    let own_too = of_others(&old) != of_others(&new);
    let mut out = Vec::new();
    for m in after.members.iter().filter(|m| own_too || m.gateway != gateway) {
        out.extend(devices::bump_revision(tx, &m.gateway, now_us()).await?);
    }
    Ok(out)
}

/// A gateway has left: what was granted to it goes, and a hub is no longer one.
///
/// # Errors
/// The database fails.
pub async fn forget_member(tx: &mut Tx, ccn: &str, gw: &str) -> Result<()> {
    objects::delete(tx, Kind::CcnMember, &CcnMember::id(gw, ccn)).await?;
    if let Some(mut found) = objects::get::<Ccn>(tx, ccn).await?
        && found.hub.as_deref() == Some(gw)
    {
        found.hub = None;
        objects::put(tx, &found).await?;
    }
    Ok(())
}
