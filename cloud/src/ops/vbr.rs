//! Virtual border routers: links and grants.

use super::cx::Cx;
use super::fields::copied;
use crate::api::{request, response};
use crate::domain::gateway::Gateway;
use crate::domain::grants::VbrGrant;
use crate::domain::objects::Authorised;
use crate::domain::regions;
use crate::error::{ApiError, Result};
use crate::store::objects::{Column, Filter};
use crate::store::{Kind, Link};

/// Border routers that a gateway is granted to.
const QUOTA: i64 = 20;

fn key(gw: &str, vbr: &str) -> String {
    format!("{gw}/{vbr}")
}

/// The caller's gateway, or another account's that was granted to the border router. One that was not is no other than
/// one that does not exist.
async fn gateway_for(cx: &mut Cx, vbr: &str, id: &str, owner: Option<i64>) -> Result<Authorised<Gateway>> {
    let Some(owner) = owner.filter(|owner| *owner != cx.uid()) else {
        return cx.gateway().await;
    };
    let Some(gw) = cx.find_of::<Gateway>(id, owner).await? else {
        return Err(cx.err(&["Forbidden"]));
    };
    let grant = cx.part::<_, VbrGrant>(&gw, &key(&gw.id, vbr)).await?;
    if grant.is_none_or(|g| g.vbr_uid != cx.uid()) {
        return Err(cx.err(&["Forbidden"]));
    }
    Ok(gw)
}

pub async fn bind(cx: &mut Cx, request: request::BindVbr) -> Result<response::BindVbr> {
    let vbr = request.vbr_id;
    if !vbr.starts_with("vbr-") {
        return Err(cx.err(&["InvalidId.VBR"]));
    }
    if !regions::known(&request.vbr_region_id) {
        return Err(cx.invalid("VbrRegionId"));
    }
    let mut gw = gateway_for(cx, &vbr, &request.smart_ag_id, request.smart_ag_uid).await?;
    if cx.links_from(Link::Ccn, &gw).await?.is_empty() {
        return Err(cx.err(&["NotBoundCCN"]));
    }
    if !cx.links_from(Link::Vbr, &gw).await?.is_empty() {
        return Err(cx.err(&["SAG.VbrBound"]));
    }
    if !cx.links_to(Link::Vbr, &vbr).await?.is_empty() {
        return Err(cx.err(&["SAG.VbrBoundToSAG"]));
    }
    cx.link_router(&gw, &vbr).await?;
    gw.edit().vbr_region_id = Some(request.vbr_region_id);
    cx.put(&gw).await?;
    cx.renew(&gw).await?;
    Ok(response::BindVbr::default())
}

pub async fn unbind(cx: &mut Cx, request: request::UnbindVbr) -> Result<response::UnbindVbr> {
    let vbr = request.vbr_id;
    let gw = gateway_for(cx, &vbr, &request.smart_ag_id, request.smart_ag_uid).await?;
    if cx.links_from(Link::Ccn, &gw).await?.is_empty() {
        return Err(cx.err(&["NotBoundCCN"]));
    }
    // An older version kept no region.
    let elsewhere = gw.vbr_region_id.as_ref().is_some_and(|region| *region != request.vbr_region_id);
    if elsewhere || !cx.unlink(Link::Vbr, &gw, &vbr).await? {
        return Err(cx.err(&["InvalidId.VBR"]));
    }
    cx.renew(&gw).await?;
    Ok(response::UnbindVbr::default())
}

pub async fn grant(
    cx: &mut Cx,
    request: request::GrantSagInstanceToVbr,
) -> Result<response::GrantSagInstanceToVbr> {
    let gw = cx.gateway().await?;
    let id = key(&gw.id, &request.vbr_instance_id);
    if cx.part::<_, VbrGrant>(&gw, &id).await?.is_some() {
        return Err(cx.err(&["SAG.GrantDuplicated"]));
    }
    if cx.count(Kind::VbrGrant, &Filter::under(&gw.id)).await? >= QUOTA {
        return Err(ApiError::new(
            400,
            "QuotaExceeded.VbrGrant",
            "The gateway has as many grants as it may.",
        ));
    }
    let instance_id = cx.new_id("sgv")?;
    let body = copied!(request => VbrGrant {
        smart_ag_id, vbr_instance_id, vbr_region_id, vbr_uid;
        instance_id: instance_id.clone(),
        region_id: cx.region(),
        smart_ag_uid: cx.uid(),
        create_time: cx.now,
    });
    let grant = cx.create_part(&gw, id, body);
    cx.put(&grant).await?;
    Ok(response::GrantSagInstanceToVbr { instance_id })
}

pub async fn revoke(
    cx: &mut Cx,
    request: request::RevokeInstanceFromVbr,
) -> Result<response::RevokeInstanceFromVbr> {
    let gw = cx.gateway().await?;
    let vbr = request.vbr_instance_id;
    let Some(grant) = cx.part::<_, VbrGrant>(&gw, &key(&gw.id, &vbr)).await? else {
        return Err(cx.err(&["InvalidId.VBR"]));
    };
    if cx.links_from(Link::Vbr, &gw).await?.contains(&vbr) {
        return Err(cx.err(&["SAG.DedicatedLineExist"]));
    }
    cx.remove(&grant).await?;
    Ok(response::RevokeInstanceFromVbr::default())
}

pub async fn describe_grants(
    cx: &mut Cx,
    request: request::DescribeGrantSagVbrRules,
) -> Result<response::DescribeGrantSagVbrRules> {
    let gw = cx.gateway().await?;
    let vbr = request.vbr_instance_id;
    let bound = cx.links_from(Link::Vbr, &gw).await?;
    let filter = Filter::under(&gw.id).equals(Column::Variant, vbr);
    let page = cx.list_page::<VbrGrant>(&filter).await?;
    let rows = page.rows.iter().map(|grant| {
        copied!(grant => response::describe_grant_sag_vbr_rules::GrantRule {
            create_time, instance_id, smart_ag_id, smart_ag_uid, vbr_instance_id, vbr_region_id, vbr_uid;
            bound: bound.contains(&grant.vbr_instance_id),
        })
    });
    Ok(response::DescribeGrantSagVbrRules {
        grant_rules: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

pub async fn relations(
    cx: &mut Cx,
    request: request::DescribeSagVbrRelations,
) -> Result<response::DescribeSagVbrRelations> {
    cx.access().listing(Kind::Gateway)?;
    let mut rows = Vec::new();
    for vbr in request.vbr_instance_ids {
        let bound = cx.links_to(Link::Vbr, &vbr).await?;
        for gw in cx.visible_objects::<Gateway>(&bound).await? {
            // Only what the caller may know of: his gateways and those granted to him.
            if gw.vbr_region_id.as_ref().is_some_and(|region| *region != request.vbr_region_id) {
                continue;
            }
            let granted = cx.part::<_, VbrGrant>(&gw, &key(&gw.id, &vbr)).await?;
            if gw.uid == cx.uid() || granted.is_some_and(|g| g.vbr_uid == cx.uid()) {
                rows.push(response::describe_sag_vbr_relations::SagVbrRelations {
                    sag_instance_id: gw.id.clone(),
                    sag_uid: gw.uid.to_string(),
                    vbr_instance_id: vbr.clone(),
                });
            }
        }
    }
    Ok(response::DescribeSagVbrRelations { sag_vbr_relations: rows })
}
