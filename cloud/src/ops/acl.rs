//! Access control lists.

use super::cx::{Cx, RESOURCE_GROUP};
use super::fields::copied;
use crate::api::request::separated;
use crate::api::{request, response};
use crate::domain::acl::{Acl, AclRule};
use crate::domain::objects::Authorised;
use crate::error::{ApiError, Result};
use crate::store::objects::Column;
use crate::store::{Kind, Link};

/// Lists of one account in one region, and lists on one gateway.
const QUOTA: i64 = 2000;
const PER_GATEWAY: usize = 5;

/// The caller's list, or the documented error.
pub async fn require(cx: &mut Cx, id: &str) -> Result<Authorised<Acl>> {
    cx.require(id, &["InvalidId.ACL"]).await
}

pub async fn create(cx: &mut Cx, request: request::CreateACL) -> Result<response::CreateACL> {
    cx.require_all(Kind::Acl)?;
    let all = cx.mine();
    if cx.count(Kind::Acl, &all).await? >= QUOTA {
        return Err(cx.err(&["AclAmountLimit"]));
    }
    let id = cx.new_id("acl")?;
    let body = Acl {
        acl_id: id.clone(),
        region_id: cx.region(),
        name: request.name,
        resource_group_id: RESOURCE_GROUP.to_owned(),
        software: Acl::is_software_type(&request.acl_type),
    };
    let acl = cx.create(id, body)?;
    cx.put(&acl).await?;
    let acl_type = Some(acl.acl_type().to_owned());
    Ok(copied!(acl => response::CreateACL { acl_id, resource_group_id; acl_type }))
}

pub async fn modify(cx: &mut Cx, request: request::ModifyACL) -> Result<response::ModifyACL> {
    let mut acl = require(cx, &request.acl_id).await?;
    acl.edit().name = request.name;
    cx.put(&acl).await?;
    Ok(response::ModifyACL::default())
}

pub async fn delete(cx: &mut Cx, request: request::DeleteACL) -> Result<response::DeleteACL> {
    let acl = require(cx, &request.acl_id).await?;
    if !cx.links_to(Link::Acl, &acl.id).await?.is_empty() {
        return Err(ApiError::new(
            400,
            "DependencyViolation.ACL",
            "The access control list is associated with a gateway.",
        )
        .with_hint("Call DisassociateACL first."));
    }
    cx.remove_children(Kind::AclRule, &acl).await?;
    cx.remove(&acl).await?;
    Ok(response::DeleteACL::default())
}

pub async fn describe(cx: &mut Cx, request: request::DescribeACLs) -> Result<response::DescribeACLs> {
    let variant = request.acl_type.map(|word| Acl::variant(Acl::is_software_type(&word)));
    let mut filter = cx.mine().equals(Column::Name, request.name).equals(Column::Variant, variant);
    filter.ids = request.acl_ids.as_deref().map(separated);
    let page = cx.list_page::<Acl>(&filter).await?;
    let users = cx.count_visible_links_to(Link::Acl, &page.rows).await?;
    let rows = page.rows.iter().map(|acl| {
        copied!(acl => response::describe_acls::Acl {
            acl_id, name, resource_group_id;
            acl_type: Some(acl.acl_type().to_owned()),
            sag_count: users.get(&acl.id).copied().unwrap_or_default().to_string(),
        })
    });
    Ok(response::DescribeACLs {
        acls: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

pub async fn associate(cx: &mut Cx, request: request::AssociateACL) -> Result<response::AssociateACL> {
    let acl = require(cx, &request.acl_id).await?;
    let gw = cx.gateway().await?;
    let bound = cx.links_from(Link::Acl, &gw).await?;
    if bound.contains(&acl.id) {
        return Err(cx.err(&["SmartAGAlreadyAssociateAcl"]));
    }
    if bound.len() >= PER_GATEWAY {
        return Err(cx.err(&["AclPerSmartagAmountLimit"]));
    }
    if acl.software {
        return Err(cx.err(&["FeatureNotSupport"]).with_hint("The list is for client apps: acl-software."));
    }
    if gw.hardware_version == "sag-1000" {
        let rules: Vec<Authorised<AclRule>> = cx.children(&acl).await?;
        if rules.iter().any(|r| r.is_wan()) {
            return Err(cx.err(&["FeatureNotSupport"]));
        }
    }
    if super::dpi::names_applications::<_, AclRule>(cx, &acl).await? {
        super::capability::check_applications_on(cx, &gw).await?;
    }
    cx.link(Link::Acl, &gw, &acl).await?;
    cx.renew(&gw).await?;
    Ok(response::AssociateACL::default())
}

pub async fn disassociate(
    cx: &mut Cx,
    request: request::DisassociateACL,
) -> Result<response::DisassociateACL> {
    let acl = require(cx, &request.acl_id).await?;
    let gw = cx.gateway().await?;
    if !cx.unlink(Link::Acl, &gw, &acl.id).await? {
        return Err(cx.err(&["SmartAGNotAssociateAcl"]));
    }
    cx.renew(&gw).await?;
    Ok(response::DisassociateACL::default())
}

pub async fn errors(cx: &mut Cx, request: request::GetAclAttribute) -> Result<response::GetAclAttribute> {
    let acl = require(cx, &request.acl_id).await?;
    let names = super::dpi::names_applications::<_, AclRule>(cx, &acl).await?;
    let failing = if names { super::dpi::failing_gateways(cx, Link::Acl, &acl.id).await? } else { 0 };
    let acl = acl.into_inner();
    Ok(response::GetAclAttribute {
        acl_id: acl.id,
        acl_name: acl.body.name,
        error_config_smart_ag_count: failing as i64,
    })
}
