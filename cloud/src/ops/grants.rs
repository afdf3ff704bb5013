//! Grants to other accounts: a gateway to a network, a network to an enterprise network.

use super::cx::Cx;
use super::fields::copied;
use crate::api::{request, response};
use crate::domain::ccn::Ccn;
use crate::domain::gateway::Gateway;
use crate::domain::grants::{CcnGrant, CenGrant};
use crate::domain::net;
use crate::domain::objects::Authorised;
use crate::error::{ApiError, Result};
use crate::store::objects::{Filter, Stored};
use crate::store::secrets::HEX;
use crate::store::{Kind, Link};

/// Enterprise networks that a network is granted to.
const QUOTA: i64 = 20;

pub async fn grant_ccn(
    cx: &mut Cx,
    request: request::GrantSagInstanceToCcn,
) -> Result<response::GrantSagInstanceToCcn> {
    let gw = cx.gateway().await?;
    let ccn = request.ccn_instance_id;
    if request.ccn_uid == cx.uid() {
        return Err(cx.err(&["CCN.InvalidUid"]));
    }
    // Whether a third account has such a network is nobody's business.
    let network = cx.find_of::<Ccn>(&ccn, request.ccn_uid).await?;
    let network = network.ok_or_else(|| cx.err(&["CCN.InvalidId"]))?;
    if cx.count(Kind::CcnGrant, &Filter::under(&gw.id)).await? > 0 {
        return Err(cx.err(&["SAG.GrantDuplicated"]));
    }
    let instance_id = cx.new_id("sgc")?;
    let body = CcnGrant {
        instance_id: instance_id.clone(),
        region_id: cx.region(),
        smart_ag_id: request.smart_ag_id,
        ccn_instance_id: ccn.clone(),
        ccn_uid: request.ccn_uid,
        grant_traffic_service: request.grant_traffic_service == Some(true),
        create_time: cx.now,
    };
    let grant = cx.create_part(&gw, format!("{}/{ccn}", gw.id), body);
    cx.put(&grant).await?;
    cx.link(Link::GrantedCcn, &gw, &network).await?;
    Ok(response::GrantSagInstanceToCcn { instance_id })
}

pub async fn revoke_ccn(
    cx: &mut Cx,
    request: request::RevokeSagInstanceFromCcn,
) -> Result<response::RevokeSagInstanceFromCcn> {
    let gw = cx.gateway().await?;
    let ccn = request.ccn_instance_id;
    let granted = cx.links_from(Link::GrantedCcn, &gw).await?.contains(&ccn);
    cx.require_named(Kind::Ccn, &ccn, granted).await?;
    if cx.links_from(Link::Ccn, &gw).await?.contains(&ccn) {
        return Err(cx.err(&["AlreadyBound.CCN"]));
    }
    if !cx.unlink(Link::GrantedCcn, &gw, &ccn).await? {
        return Err(cx.err(&["CCN.InvalidId"]));
    }
    if let Some(grant) = cx.part::<_, CcnGrant>(&gw, &format!("{}/{ccn}", gw.id)).await? {
        cx.remove(&grant).await?;
    }
    Ok(response::RevokeSagInstanceFromCcn::default())
}

pub async fn describe_ccn(
    cx: &mut Cx,
    _: request::DescribeGrantSagRules,
) -> Result<response::DescribeGrantSagRules> {
    let gw = cx.gateway().await?;
    let page = cx.list_page::<CcnGrant>(&Filter::under(&gw.id)).await?;
    let rows = page.rows.iter().map(|grant| {
        copied!(grant => response::describe_grant_sag_rules::GrantRule {
            ccn_instance_id, ccn_uid, create_time, grant_traffic_service, instance_id, smart_ag_id,
        })
    });
    Ok(response::DescribeGrantSagRules {
        grant_rules: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

pub async fn grant_cen(
    cx: &mut Cx,
    request: request::GrantInstanceToCbn,
) -> Result<response::GrantInstanceToCbn> {
    let ccn = cx.require::<Ccn>(&request.ccn_instance_id, &["InvalidId.CCN"]).await?;
    let cen = request.cen_instance_id;
    if !cen.starts_with("cen-") {
        return Err(cx.invalid("CenInstanceId"));
    }
    let grant = CenGrant {
        cen_instance_id: cen,
        cen_uid: request.cen_uid,
        grant_traffic_service: request.grant_traffic_service == Some(true),
        ..CenGrant::default()
    };
    store_cen_grant(cx, &ccn, grant).await?;
    Ok(response::GrantInstanceToCbn::default())
}

/// Fills in what every grant has, and stores it.
async fn store_cen_grant(cx: &mut Cx, ccn: &Authorised<Ccn>, grant: CenGrant) -> Result<()> {
    let key = format!("{}/{}", ccn.id, grant.cen_instance_id);
    if cx.part::<_, CenGrant>(ccn, &key).await?.is_some() {
        return Err(cx.err(&["AlreadyBound.CEN"]));
    }
    if cx.count(Kind::CenGrant, &Filter::under(&ccn.id)).await? >= QUOTA {
        return Err(ApiError::new(
            400,
            "QuotaExceeded.CenGrant",
            "The network has as many grants as it may.",
        ));
    }
    let hex = cx.cipher.token(HEX, 32).map_err(ApiError::internal)?.to_lowercase();
    let body = CenGrant {
        grant_rule_id: [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"),
        region_id: cx.region(),
        ccn_instance_id: ccn.id.clone(),
        ccn_uid: cx.uid(),
        gmt_create: cx.now,
        gmt_modified: cx.now,
        ..grant
    };
    let grant = cx.create_part(ccn, key, body);
    cx.put(&grant).await
}

/// To an enterprise network of the same account.
pub async fn attach_cen(
    cx: &mut Cx,
    request: request::AttachCcnInstanceToCen,
) -> Result<response::AttachCcnInstanceToCen> {
    let ccn = cx.require::<Ccn>(&request.ccn_id, &["InvalidId.CCN"]).await?;
    if !request.cen_id.starts_with("cen-") {
        return Err(cx.invalid("CenId"));
    }
    if let Some(subnet) = &request.subnet {
        let block = net::cidr_list(subnet).filter(|b| b.len() == 1 && b.iter().all(net::is_private));
        let block = block.ok_or_else(|| cx.err(&["CCN.InvalidCidr"]))?;
        let members = cx.links_to(Link::Ccn, &ccn.id).await?;
        let meets = |gw: &Stored<Gateway>| net::overlap(&block, &gw.blocks());
        if net::overlap(&block, &ccn.snat_blocks())
            || cx.inspect_linked(&members, meets).await?.contains(&true)
        {
            return Err(cx.err(&["CidrConflict"]));
        }
    }
    let grant = CenGrant {
        cen_instance_id: request.cen_id,
        cen_uid: cx.uid(),
        subnet: request.subnet,
        ..CenGrant::default()
    };
    store_cen_grant(cx, &ccn, grant).await?;
    Ok(response::AttachCcnInstanceToCen::default())
}

pub async fn detach_cen(
    cx: &mut Cx,
    request: request::DetachCcnInstanceFromCen,
) -> Result<response::DetachCcnInstanceFromCen> {
    let ccn = cx.require::<Ccn>(&request.ccn_id, &["InvalidId.CCN"]).await?;
    let key = format!("{}/{}", ccn.id, request.cen_id);
    let grant = cx.part::<_, CenGrant>(&ccn, &key).await?.ok_or_else(|| cx.err(&["NotBoundCEN"]))?;
    cx.remove(&grant).await?;
    Ok(response::DetachCcnInstanceFromCen::default())
}

pub async fn revoke_cen(
    cx: &mut Cx,
    request: request::RevokeInstanceFromCbn,
) -> Result<response::RevokeInstanceFromCbn> {
    let ccn = cx.require::<Ccn>(&request.ccn_instance_id, &["InvalidId.CCN"]).await?;
    let key = format!("{}/{}", ccn.id, request.cen_instance_id);
    let Some(grant) = cx.part::<_, CenGrant>(&ccn, &key).await? else {
        return Err(cx.invalid("CenInstanceId"));
    };
    cx.remove(&grant).await?;
    Ok(response::RevokeInstanceFromCbn::default())
}

pub async fn describe_cen(
    cx: &mut Cx,
    request: request::DescribeGrantRules,
) -> Result<response::DescribeGrantRules> {
    let mut filter = cx.mine();
    filter.parent = request.associated_ccn_id;
    let page = cx.list_page::<CenGrant>(&filter).await?;
    let rows = page.rows.iter().map(|grant| {
        copied!(grant => response::describe_grant_rules::GrantRule {
            ccn_instance_id, ccn_uid, cen_instance_id, cen_uid, gmt_create, gmt_modified, grant_rule_id,
            grant_traffic_service, region_id,
        })
    });
    Ok(response::DescribeGrantRules {
        grant_rules: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}
