//! The members of a cloud connect network: which is the hub, what each may announce, and what its devices announced.
//!
//! Two operations that the vendor's API does not have; only the owner of the network calls them.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::cx::Cx;
use crate::api::{request, response};
use crate::domain::ccn::Ccn;
use crate::domain::gateway::Gateway;
use crate::domain::membership::{Announced, CcnMember, Member, MemberDevice, find_conflicts};
use crate::domain::net;
use crate::error::Result;
use crate::store::objects::{Filter, Stored};
use crate::store::{Kind, Link};

/// Blocks that are granted to one member.
const CIDR_QUOTA: usize = 50;

/// A network with its members, oldest first, and what they may and do announce.
pub struct Network {
    pub ccn: Stored<Ccn>,
    pub members: Vec<Member>,
}

impl Network {
    pub fn member(&self, gateway: &str) -> Option<&Member> {
        self.members.iter().find(|m| m.gateway == gateway)
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

impl Cx {
    /// A network as its members see it now, in a number of statements that does not grow with it.
    pub async fn network(&mut self, ccn: Stored<Ccn>) -> Result<Network> {
        let ids = self.links_to(Link::Ccn, &ccn.id).await?;
        let every = Filter::default();
        let gateways = self.list::<Gateway>(&every.clone().with_ids(Some(ids.clone()))).await?;
        let mut gateways: HashMap<String, Stored<Gateway>> =
            gateways.into_iter().map(|g| (g.id.clone(), g)).collect();
        let refs: Vec<&str> = ids.iter().map(String::as_str).collect();
        let mut summaries = self.device_summaries(&refs).await?;
        let sns: Vec<String> = summaries.values().flatten().map(|d| d.sn.clone()).collect();
        let announced = self.list::<Announced>(&every.with_ids(Some(sns))).await?;
        let mut announced: HashMap<String, Announced> =
            announced.into_iter().map(|a| (a.id.clone(), a.body)).collect();
        let granted = self.children::<CcnMember>(&ccn.id).await?;
        let mut granted: HashMap<String, Vec<Ipv4Net>> =
            granted.into_iter().map(|m| (m.body.smart_ag_id.clone(), m.body.granted())).collect();
        let mut members = Vec::with_capacity(ids.len());
        for id in &ids {
            let Some(gw) = gateways.remove(id) else { continue };
            // Without a grant another account's gateway may announce nothing.
            let grant = (gw.uid != ccn.uid).then(|| granted.remove(id).unwrap_or_default());
            let mut member = Member::new(id, gw.uid, gw.blocks(), grant);
            for d in summaries.remove(id).unwrap_or_default() {
                let announced = announced.remove(&d.sn).unwrap_or_default();
                member.devices.push(MemberDevice { sn: d.sn, announced, conflict: String::new() });
            }
            members.push(member);
        }
        find_conflicts(&mut members);
        Ok(Network { ccn, members })
    }

    /// The network that a gateway is in.
    pub async fn network_of(&mut self, gateway: &str) -> Result<Option<Network>> {
        let Some(id) = self.links_from(Link::Ccn, gateway).await?.into_iter().next() else { return Ok(None) };
        match self.get::<Ccn>(&id).await? {
            Some(ccn) => self.network(ccn).await.map(Some),
            None => Ok(None),
        }
    }

    /// Stores what a device has announced, and wakes those members for whom that changes something.
    pub async fn put_announced(&mut self, gateway: &str, announced: &Stored<Announced>) -> Result<()> {
        let before = self.network_of(gateway).await?;
        self.put(announced).await?;
        let Some(before) = before else { return Ok(()) };
        let after = self.settle(before.ccn.clone()).await?;
        let (old, new) = (before.endpoints(), after.endpoints());
        if old == new {
            return Ok(());
        }
        let of_others = |all: &[(String, sag_southbound::Announcement)]| -> Vec<_> {
            all.iter().filter(|(sn, _)| *sn != announced.id).cloned().collect()
        };
        let own_too = of_others(&old) != of_others(&new);
        let mut wake: Vec<String> = after.members.iter().map(|m| m.gateway.clone()).collect();
        wake.retain(|g| own_too || g != gateway);
        self.bump_revisions(&wake).await
    }

    /// Writes down which announcements the other members do not get, for the reports of those devices.
    pub async fn settle(&mut self, ccn: Stored<Ccn>) -> Result<Network> {
        let network = self.network(ccn).await?;
        for d in network.members.iter().flat_map(|m| &m.devices) {
            if d.announced.conflict == d.conflict {
                continue;
            }
            if let Some(mut stored) = self.get::<Announced>(&d.sn).await? {
                stored.conflict.clone_from(&d.conflict);
                self.put(&stored).await?;
            }
            if !d.conflict.is_empty() {
                tracing::warn!(device = d.sn, why = d.conflict, "an announcement is not handed out");
            }
        }
        Ok(network)
    }

    /// The members of the network have another configuration: who is in it has changed, or what they announce.
    pub async fn network_changed(&mut self, ccn: &str) -> Result<()> {
        let Some(ccn) = self.get::<Ccn>(ccn).await? else { return Ok(()) };
        let network = self.settle(ccn).await?;
        let all: Vec<String> = network.members.into_iter().map(|m| m.gateway).collect();
        self.bump_revisions(&all).await
    }

    /// What the owner of a network has granted to a gateway of another account; `None`: it is of the same account.
    pub async fn granted_blocks(
        &mut self,
        ccn: &Stored<Ccn>,
        gw: &Stored<Gateway>,
    ) -> Result<Option<Vec<Ipv4Net>>> {
        if gw.uid == ccn.uid {
            return Ok(None);
        }
        let member = self.get::<CcnMember>(&CcnMember::id(&gw.id, &ccn.id)).await?;
        Ok(Some(member.map(|m| m.granted()).unwrap_or_default()))
    }

    /// Grants blocks to a gateway of another account.
    pub async fn grant_blocks(&mut self, ccn: &Stored<Ccn>, gw: &str, blocks: &[Ipv4Net]) -> Result<()> {
        let body =
            CcnMember { smart_ag_id: gw.to_owned(), ccn_id: ccn.id.clone(), cidr_block: written(blocks) };
        let member = self.create(CcnMember::id(gw, &ccn.id), &ccn.id, body);
        self.put(&member).await
    }

    /// A gateway has left: what was granted to it goes, and a hub is no longer one.
    pub async fn forget_member(&mut self, ccn: &str, gw: &str) -> Result<()> {
        self.remove_by_id(Kind::CcnMember, &CcnMember::id(gw, ccn)).await?;
        if let Some(mut found) = self.get::<Ccn>(ccn).await?
            && found.hub.as_deref() == Some(gw)
        {
            found.hub = None;
            self.put(&found).await?;
        }
        Ok(())
    }
}

fn written(blocks: &[Ipv4Net]) -> String {
    let texts: Vec<String> = blocks.iter().map(ToString::to_string).collect();
    texts.join(",")
}

pub async fn modify(
    cx: &mut Cx,
    request: request::ModifyCloudConnectNetworkMember,
) -> Result<response::ModifyCloudConnectNetworkMember> {
    let ccn = cx.require::<Ccn>(&request.ccn_id, &["InvalidId.CCN"]).await?;
    let network = cx.network(ccn).await?;
    let Some(member) = network.member(&request.smart_ag_id) else {
        return Err(cx.err(&["SmartAccessGatewayNotBind"]));
    };
    if request.hub.is_none() && request.cidr_block.is_none() {
        return Err(cx.err(&["MissingParameter"]).with_hint("Hub or CidrBlock"));
    }
    if let Some(text) = &request.cidr_block {
        let blocks = check_grant(cx, &network, member, text)?;
        cx.grant_blocks(&network.ccn, &member.gateway, &blocks).await?;
    }
    if let Some(hub) = request.hub {
        set_hub(cx, &network, member, hub).await?;
    }
    let id = network.ccn.id.clone();
    cx.network_changed(&id).await?;
    Ok(response::ModifyCloudConnectNetworkMember::default())
}

/// `none` is no block, since an empty parameter is an absent one.
fn check_grant(cx: &Cx, network: &Network, member: &Member, text: &str) -> Result<Vec<Ipv4Net>> {
    if member.granted.is_none() {
        return Err(cx.err(&["CCN.OwnMember"]));
    }
    if text.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    let blocks = net::cidr_list(text).ok_or_else(|| cx.err(&["CCN.InvalidCidr"]))?;
    if blocks.len() > CIDR_QUOTA {
        return Err(cx.err(&["CCN.CidrAmountLimit"]));
    }
    if !blocks.iter().all(net::is_private) || net::self_overlap(&blocks) {
        return Err(cx.err(&["CCN.InvalidCidr"]));
    }
    let mut others = network.members.iter().filter(|m| m.gateway != member.gateway);
    let taken = others.find(|o| {
        let granted = o.granted.as_deref().unwrap_or_default();
        net::overlap(&blocks, &o.blocks) || net::overlap(&blocks, granted)
    });
    if let Some(other) = taken {
        let hint = format!("The blocks overlap with those of {}.", other.gateway);
        return Err(cx.err(&["CidrConflict"]).with_hint(hint));
    }
    if let Some(sn) = network.endpoint_inside(&member.gateway, &blocks) {
        let hint = format!("The tunnels of device {sn} end inside of the blocks.");
        return Err(cx.err(&["CidrConflict"]).with_hint(hint));
    }
    if net::overlap(&blocks, &network.ccn.snat_blocks()) {
        return Err(cx
            .err(&["CidrConflict"])
            .with_hint("The blocks overlap with the SNAT block of the network."));
    }
    Ok(blocks)
}

async fn set_hub(cx: &mut Cx, network: &Network, member: &Member, hub: bool) -> Result<()> {
    let mut ccn = network.ccn.clone();
    match network.hub() {
        Some(other) if hub && other != member.gateway => {
            let hint = format!("The hub is {other}; call Hub=false for it first.");
            return Err(cx.err(&["CCN.HubExists"]).with_hint(hint));
        }
        _ if hub => {
            if !member.devices.iter().any(|d| d.announced.hub_capable) {
                let hint = "Set point_of_presence = true in the agent.toml of one of its devices.";
                return Err(cx.err(&["CCN.HubNotAble"]).with_hint(hint));
            }
            ccn.hub = Some(member.gateway.clone());
        }
        Some(is) if is == member.gateway => ccn.hub = None,
        _ => return Ok(()),
    }
    cx.put(&ccn).await
}

pub async fn describe(
    cx: &mut Cx,
    request: request::DescribeCloudConnectNetworkMembers,
) -> Result<response::DescribeCloudConnectNetworkMembers> {
    use response::describe_cloud_connect_network_members as rows;
    let ccn = cx.require::<Ccn>(&request.ccn_id, &["InvalidId.CCN"]).await?;
    let network = cx.network(ccn).await?;
    let hub = network.hub().unwrap_or_default().to_owned();
    let row = |m: Member| rows::Member {
        hub: m.gateway == hub,
        smart_ag_uid: m.uid,
        granted_cidr_block: m.granted.as_deref().map(written).unwrap_or_default(),
        cidr_block: written(&m.blocks),
        not_granted_cidr_block: written(&m.not_granted),
        devices: m.devices.iter().map(device_row).collect(),
        smart_ag_id: m.gateway,
    };
    let all: Vec<rows::Member> = network.members.into_iter().map(row).collect();
    let page = cx.paginate(all);
    Ok(response::DescribeCloudConnectNetworkMembers {
        ccn_id: network.ccn.id.clone(),
        hub_smart_ag_id: hub,
        members: page.rows,
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

fn device_row(d: &MemberDevice) -> response::describe_cloud_connect_network_members::Device {
    let a = &d.announced;
    let problem = if a.problem.is_empty() { &d.conflict } else { &a.problem };
    let identity = a.identity.parse::<sag_southbound::Identity>().ok();
    response::describe_cloud_connect_network_members::Device {
        smart_ag_sn: d.sn.clone(),
        address: a.announcement.as_ref().map(|a| a.address.clone()).unwrap_or_default(),
        epoch: a.epoch().map_or(0, |e| i64::try_from(e).unwrap_or(i64::MAX)),
        fingerprint: identity.map(|i| i.fingerprint()).unwrap_or_default(),
        hub_capable: a.hub_capable,
        problem: problem.clone(),
    }
}
