//! Cloud connect networks and the gateways in them.

use ipnet::Ipv4Net;

use super::cx::{Cx, RESOURCE_GROUP};
use super::fields::{copied, set_given};
use crate::api::{request, response};
use crate::domain::ccn::Ccn;
use crate::domain::gateway::Gateway;
use crate::domain::grants::CenGrant;
use crate::domain::net;
use crate::domain::objects::Authorised;
use crate::error::Result;
use crate::store::objects::{Column, Filter, Stored};
use crate::store::{Kind, Link};

/// Networks of one account in one region.
const QUOTA: i64 = 10;
const CIDR_QUOTA: usize = 10;
const TAG_QUOTA: usize = 20;

/// Another account's gateway that was granted to the caller's network. One that was not is no other than one that
/// does not exist.
async fn granted(cx: &mut Cx, ccn: &Authorised<Ccn>, id: &str, owner: i64) -> Result<Authorised<Gateway>> {
    let Some(gw) = cx.find_of::<Gateway>(id, owner).await? else {
        return Err(cx.err(&["Forbidden"]));
    };
    if !cx.links_from(Link::GrantedCcn, &gw).await?.contains(&ccn.id) {
        return Err(cx.err(&["Forbidden"]));
    }
    Ok(gw)
}

pub async fn bind(
    cx: &mut Cx,
    request: request::BindSmartAccessGateway,
) -> Result<response::BindSmartAccessGateway> {
    let ccn = cx.require::<Ccn>(&request.ccn_id, &["InvalidId.CCN"]).await?;
    let gw = match request.smart_ag_uid.filter(|owner| *owner != cx.uid()) {
        Some(owner) => granted(cx, &ccn, &request.smart_ag_id, owner).await?,
        None => cx.gateway().await?,
    };
    let bound = cx.links_from(Link::Ccn, &gw).await?;
    if !bound.is_empty() {
        let code =
            if bound.contains(&ccn.id) { "SmartAccessGatewayAlreadyBound" } else { "AlreadyBound.CCN" };
        return Err(cx.err(&[code]));
    }
    if !cx.links_from(Link::Vbr, &gw).await?.is_empty() {
        return Err(cx.err(&["LinkLevelBackupExists"]));
    }
    if !gw.is_software() {
        if cx.device_summaries(std::slice::from_ref(&gw)).await?.is_empty() {
            return Err(cx.err(&["SAG.NoBindSN"]));
        }
        if gw.bandwidth == 0 {
            return Err(cx.err(&["SAG.NoBandwidth"]));
        }
    }
    let blocks = gw.blocks();
    if net::overlap(&blocks, &ccn.snat_blocks()) || cx.sibling_overlap(&ccn.id, &gw.id, &blocks).await? {
        return Err(cx.err(&["CidrConflict"]));
    }
    let network = cx.network(&ccn).await?;
    if let Some(sn) = network.endpoint_inside(&gw.id, &blocks) {
        let hint = format!("The tunnels of device {sn} end inside of the gateway's blocks.");
        return Err(cx.err(&["CidrConflict"]).with_hint(hint));
    }
    if gw.uid != ccn.uid {
        // By binding it, the owner of the network grants what the gateway has now, and no more.
        cx.grant_blocks(&ccn, &gw.id, &super::members::written(&blocks)).await?;
    }
    cx.link(Link::Ccn, &gw, &ccn).await?;
    cx.network_changed(&ccn.id).await?;
    Ok(response::BindSmartAccessGateway::default())
}

pub async fn unbind(
    cx: &mut Cx,
    request: request::UnbindSmartAccessGateway,
) -> Result<response::UnbindSmartAccessGateway> {
    let id = request.ccn_id;
    // The owner of the gateway may take it out, and the owner of the network.
    let gw = match request.smart_ag_uid.filter(|owner| *owner != cx.uid()) {
        Some(owner) => {
            let ccn = cx.require::<Ccn>(&id, &["Forbidden"]).await?;
            granted(cx, &ccn, &request.smart_ag_id, owner).await?
        }
        None => {
            let gw = cx.gateway().await?;
            let bound = cx.links_from(Link::Ccn, &gw).await?.contains(&id);
            cx.require_named(Kind::Ccn, &id, bound).await?;
            gw
        }
    };
    if !cx.links_from(Link::Vbr, &gw).await?.is_empty() {
        return Err(cx.err(&["SAG.DedicatedLineExist"]));
    }
    if !cx.unlink(Link::Ccn, &gw, &id).await? {
        return Err(cx.err(&["SmartAccessGatewayNotBind"]));
    }
    cx.forget_member(&id, &gw).await?;
    cx.renew(&gw).await?;
    // The others end their tunnels to it at once, whatever its own device does.
    cx.network_changed(&id).await?;
    Ok(response::UnbindSmartAccessGateway::default())
}

pub async fn create(
    cx: &mut Cx,
    request: request::CreateCloudConnectNetwork,
) -> Result<response::CreateCloudConnectNetwork> {
    cx.require_all(Kind::Ccn)?;
    let all = cx.mine();
    if cx.count(Kind::Ccn, &all).await? >= QUOTA {
        return Err(cx.err(&["CcnAmountLimit"]));
    }
    let text = |v: &Option<String>| v.clone().unwrap_or_default();
    check_blocks(cx, &text(&request.cidr_block), &text(&request.snat_cidr_block))?;
    let id = cx.new_id("ccn")?;
    let body = copied!(request => Ccn {
        name, description, cidr_block, snat_cidr_block, is_default;
        ccn_id: id.clone(),
        region_id: cx.region(),
        create_time: cx.now,
        resource_group_id: RESOURCE_GROUP.to_owned(),
        interworking_status: "enable".to_owned(),
        status: "Active".to_owned(),
        hub: None,
    });
    let ccn = cx.create(id, body)?;
    cx.put(&ccn).await?;
    Ok(copied!(ccn => response::CreateCloudConnectNetwork {
        ccn_id, cidr_block, description, name, resource_group_id, snat_cidr_block, status,
    }))
}

fn check_blocks(cx: &Cx, cidr: &str, snat: &str) -> Result<()> {
    let own = net::cidr_list(cidr).ok_or_else(|| cx.err(&["CCN.InvalidCidr"]))?;
    if own.len() > CIDR_QUOTA {
        return Err(cx.err(&["CCN.CidrAmountLimit"]));
    }
    if !own.iter().all(net::is_private) || net::self_overlap(&own) {
        return Err(cx.err(&["CCN.InvalidCidr"]));
    }
    let snat = net::cidr_list(snat).ok_or_else(|| cx.err(&["CCN.InvalidSnatCidr"]))?;
    if snat.is_empty() {
        return Ok(());
    }
    if own.is_empty() {
        return Err(cx.err(&["CCN.CidrEmpty"]));
    }
    // The SNAT block may be a part of the network's block, not the other way round.
    let eats = |s: &Ipv4Net| own.iter().any(|o| s.contains(o));
    if snat.iter().any(eats) {
        return Err(cx.err(&["CCN.SnatCidrConflict"]));
    }
    Ok(())
}

pub async fn modify(
    cx: &mut Cx,
    request: request::ModifyCloudConnectNetwork,
) -> Result<response::ModifyCloudConnectNetwork> {
    let mut ccn = cx.require::<Ccn>(&request.ccn_id, &["InvalidId.CCN"]).await?;
    let members = cx.links_to(Link::Ccn, &ccn.id).await?;
    if let Some(cidr) = &request.cidr_block {
        check_blocks(cx, cidr, ccn.snat_cidr_block.as_deref().unwrap_or_default())?;
        let own = net::cidr_list(cidr).unwrap_or_default();
        let outside = |gw: &Stored<Gateway>| {
            gw.is_software() && !gw.blocks().iter().all(|b| own.iter().any(|o| o.contains(b)))
        };
        if cx.inspect_linked(&members, outside).await?.contains(&true) {
            return Err(cx.err(&["CCN.CidrInUse"]));
        }
    }
    set_given!(ccn.edit(), request => { name, description, cidr_block, interworking_status });
    cx.put(&ccn).await?;
    cx.renew_all(&members).await?;
    Ok(response::ModifyCloudConnectNetwork::default())
}

pub async fn delete(
    cx: &mut Cx,
    request: request::DeleteCloudConnectNetwork,
) -> Result<response::DeleteCloudConnectNetwork> {
    let ccn = cx.require::<Ccn>(&request.ccn_id, &["InvalidId.CCN"]).await?;
    if !cx.links_to(Link::Ccn, &ccn.id).await?.is_empty() {
        return Err(cx.err(&["AlreadyBound.SMARTAG"]));
    }
    if cx.count(Kind::CenGrant, &Filter::under(&ccn.id)).await? > 0 {
        return Err(cx.err(&["AlreadyBound.CEN"]));
    }
    cx.remove_grants_to(&ccn).await?;
    cx.remove(&ccn).await?;
    Ok(response::DeleteCloudConnectNetwork::default())
}

pub async fn describe(
    cx: &mut Cx,
    request: request::DescribeCloudConnectNetworks,
) -> Result<response::DescribeCloudConnectNetworks> {
    let tagged = check_tags(cx)?;
    let mut filter = cx.mine().equals(Column::Name, request.name);
    filter.ids = request.ccn_id.map(|id| vec![id]);
    if tagged {
        // No documented operation sets tags, so none match.
        filter.ids = Some(Vec::new());
    }
    let page = cx.list_page::<Ccn>(&filter).await?;
    let mut all = cx.visible_links_to(Link::Ccn, &page.rows).await?;
    let mut rows = Vec::new();
    for ccn in &page.rows {
        let members = all.remove(&ccn.id).unwrap_or_default();
        let now = cx.now;
        let online = cx.count_online(&members, now).await?;
        let cen = cx.children::<_, CenGrant>(ccn).await?.into_iter().next();
        let subnet = cen.as_ref().and_then(|c| c.subnet.clone());
        let (cen_id, cen_owner) =
            cen.map(|c| (c.cen_instance_id.clone(), c.cen_uid.to_string())).unwrap_or_default();
        rows.push(copied!(ccn => response::describe_cloud_connect_networks::CloudConnectNetwork {
            ccn_id, cidr_block, create_time, description, interworking_status, is_default, name,
            resource_group_id, snat_cidr_block;
            associated_cen_id: cen_id,
            associated_cen_owner_id: cen_owner,
            subnet,
            associated_cloud_box_count: members.len().to_string(),
            available_cloud_box_count: online.to_string(),
            // How far an attachment has come is known in the API of enterprise networks alone, so nothing is said of it.
            ..Default::default()
        }));
    }
    Ok(response::DescribeCloudConnectNetworks {
        cloud_connect_networks: rows,
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

/// Whether the request filters by tags; the rows are checked.
fn check_tags(cx: &Cx) -> Result<bool> {
    let row = |n: usize, part: &str| cx.opt(&format!("Tag.{n}.{part}"));
    let mut keys = Vec::new();
    for n in 1..=TAG_QUOTA + 1 {
        match (row(n, "Key"), row(n, "Value")) {
            (Some(k), _) if k.len() > 128 => return Err(cx.err(&["InvalidTagKey"])),
            (_, Some(v)) if v.len() > 128 => return Err(cx.err(&["InvalidTagValue"])),
            (None, Some(_)) => return Err(cx.err(&["InvalidTagKey"])),
            (Some(k), _) => keys.push(k),
            (None, None) => {}
        }
    }
    if keys.len() > TAG_QUOTA {
        return Err(cx.err(&["SizeLimitExceeded.TagNum"]));
    }
    let count = keys.len();
    keys.sort();
    keys.dedup();
    if keys.len() < count {
        return Err(cx.err(&["Forbidden.TagKey.Duplicated"]));
    }
    Ok(count > 0)
}

pub async fn use_limit(
    cx: &mut Cx,
    _: request::GetCloudConnectNetworkUseLimit,
) -> Result<response::GetCloudConnectNetworkUseLimit> {
    cx.require_all(Kind::Ccn)?;
    let all = cx.mine();
    let used_amount = cx.count(Kind::Ccn, &all).await?;
    Ok(response::GetCloudConnectNetworkUseLimit { total_amount: QUOTA, used_amount })
}
