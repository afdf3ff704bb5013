//! The members of a cloud connect network: which is the hub, what each may announce, and what its devices announced.
//!
//! Two operations that the vendor's API does not have; only the owner of the network calls them.

use ipnet::Ipv4Net;

use super::cx::Cx;
use crate::api::{request, response};
use crate::domain::ccn::Ccn;
use crate::domain::membership::{Member, MemberDevice};
use crate::domain::net;
use crate::domain::network::Network;
use crate::domain::objects::Authorised;
use crate::error::Result;
use crate::store::{Kind, Link};

/// Blocks that are granted to one member.
const CIDR_QUOTA: usize = 50;

impl Cx {
    /// The members of the network have another configuration: who is in it has changed, or what they announce.
    pub async fn network_changed(&mut self, ccn: &str) -> Result<()> {
        let sns = self.settle_network(ccn).await?;
        self.changed.extend(sns);
        Ok(())
    }
}

pub fn written(blocks: &[Ipv4Net]) -> String {
    let texts: Vec<String> = blocks.iter().map(ToString::to_string).collect();
    texts.join(",")
}

pub async fn modify(
    cx: &mut Cx,
    request: request::ModifyCloudConnectNetworkMember,
) -> Result<response::ModifyCloudConnectNetworkMember> {
    let mut ccn = cx.require::<Ccn>(&request.ccn_id, &["InvalidId.CCN"]).await?;
    let bound = cx.links_to(Link::Ccn, &ccn.id).await?.contains(&request.smart_ag_id);
    cx.require_named(Kind::Gateway, &request.smart_ag_id, bound).await?;
    let network = cx.network(&ccn).await?;
    let Some(member) = network.member(&request.smart_ag_id) else {
        return Err(cx.err(&["SmartAccessGatewayNotBind"]));
    };
    if request.hub.is_none() && request.cidr_block.is_none() {
        return Err(cx.err(&["MissingParameter"]).with_hint("Hub or CidrBlock"));
    }
    if let Some(text) = &request.cidr_block {
        let blocks = check_grant(cx, &network, member, text)?;
        cx.grant_blocks(&ccn, &member.gateway, &written(&blocks)).await?;
    }
    if let Some(hub) = request.hub {
        set_hub(cx, &mut ccn, &network, member, hub).await?;
    }
    cx.network_changed(&ccn.id).await?;
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

async fn set_hub(
    cx: &mut Cx,
    ccn: &mut Authorised<Ccn>,
    network: &Network,
    member: &Member,
    hub: bool,
) -> Result<()> {
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
            ccn.edit().hub = Some(member.gateway.clone());
        }
        Some(is) if is == member.gateway => ccn.edit().hub = None,
        _ => return Ok(()),
    }
    cx.put(ccn).await
}

pub async fn describe(
    cx: &mut Cx,
    request: request::DescribeCloudConnectNetworkMembers,
) -> Result<response::DescribeCloudConnectNetworkMembers> {
    use response::describe_cloud_connect_network_members as rows;
    let ccn = cx.require::<Ccn>(&request.ccn_id, &["InvalidId.CCN"]).await?;
    let members = cx.links_to(Link::Ccn, &ccn.id).await?;
    let visible = cx.visible(members).await?;
    let network = cx.network(&ccn).await?;
    let hub = network.hub().filter(|hub| visible.iter().any(|v| v == hub)).unwrap_or_default().to_owned();
    let row = |m: Member| rows::Member {
        hub: m.gateway == hub,
        smart_ag_uid: m.uid,
        granted_cidr_block: m.granted.as_deref().map(written).unwrap_or_default(),
        cidr_block: written(&m.blocks),
        not_granted_cidr_block: written(&m.not_granted),
        devices: m.devices.iter().map(device_row).collect(),
        smart_ag_id: m.gateway,
    };
    let seen = network.members.into_iter().filter(|m| visible.contains(&m.gateway));
    let all: Vec<rows::Member> = seen.map(row).collect();
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
