//! The rules of an access control list.

use super::acl::require;
use super::capability;
use super::cx::Cx;
use super::fields::{copied, set_given};
use crate::api::validate::port_range;
use crate::api::{request, response};
use crate::domain::acl::{Acl, AclRule, service};
use crate::domain::gateway::Gateway;
use crate::domain::objects::Authorised;
use crate::error::Result;
use crate::store::objects::{Column, Filter, Stored};
use crate::store::{Kind, Link};

/// Rules of one list.
const QUOTA: i64 = 200;

const PROTOCOLS: [&str; 4] = ["ALL", "TCP", "UDP", "ICMP"];

/// The protocol as it is stored; ports make sense for TCP and UDP only.
pub fn check_protocol(cx: &Cx, protocol: &str, ports: [&str; 2]) -> Result<String> {
    if let Some((_, port)) = service(protocol) {
        // The destination port is that of the service, whether the request says so or leaves it open.
        let fits =
            |range| matches!(port_range(range), Some(r) if r == (-1, -1) || r == (port.into(), port.into()));
        return if fits(ports[1]) { Ok(protocol.to_owned()) } else { Err(cx.err(&["InvalidPortRange"])) };
    }
    let protocol = protocol.to_ascii_uppercase();
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err(cx.err(&["NotSupportedProtocol"]));
    }
    let portless = protocol == "ICMP" || protocol == "ALL";
    if portless && !ports.iter().all(|p| port_range(p) == Some((-1, -1))) {
        return Err(cx.err(&["InvalidPortRange"]));
    }
    Ok(protocol)
}

/// Identifiers, if there are any.
type Ids = Option<Vec<String>>;

/// The signatures and the groups of applications that a request names; each must be one that DPI knows.
pub fn check_dpi(cx: &Cx, signatures: Vec<String>, groups: Vec<String>) -> Result<(Ids, Ids)> {
    if !signatures.iter().all(|id| super::dpi::is_signature(id)) {
        return Err(cx.invalid("DpiSignatureIds"));
    }
    if !groups.iter().all(|id| super::dpi::is_group(id)) {
        return Err(cx.invalid("DpiGroupIds"));
    }
    let given = |ids: Vec<String>| (!ids.is_empty()).then_some(ids);
    Ok((given(signatures), given(groups)))
}

/// Checks a rule that is new or changed, and stores it.
async fn save(
    cx: &mut Cx,
    acl: &Authorised<Acl>,
    rule: &mut Authorised<AclRule>,
    signatures: Vec<String>,
    groups: Vec<String>,
) -> Result<()> {
    let body = rule.edit();
    body.ip_protocol =
        check_protocol(cx, &body.ip_protocol, [&body.source_port_range, &body.dest_port_range])?;
    let (signatures, groups) = check_dpi(cx, signatures, groups)?;
    body.dpi_signature_ids = signatures.or(body.dpi_signature_ids.take());
    body.dpi_group_ids = groups.or(body.dpi_group_ids.take());
    let applications = body.dpi_signature_ids.is_some() || body.dpi_group_ids.is_some();
    let users = cx.links_to(Link::Acl, &acl.id).await?;
    if applications {
        capability::check_applications(cx, &users).await?;
    }
    if rule.is_wan() {
        // A WAN rule cannot go to a gateway of the model SAG 1000.
        let old = |gw: &Stored<Gateway>| gw.hardware_version == "sag-1000";
        if cx.inspect_linked(&users, old).await?.contains(&true) {
            return Err(cx.err(&["ACL.NoSupportWanType"]));
        }
    }
    cx.put(rule).await?;
    cx.renew_all(&users).await
}

pub async fn add(cx: &mut Cx, request: request::AddACLRule) -> Result<response::AddACLRule> {
    let acl = require(cx, &request.acl_id).await?;
    if cx.count(Kind::AclRule, &Filter::under(&acl.id)).await? >= QUOTA {
        return Err(cx.err(&["AcrPerAclAmountLimit"]));
    }
    let id = cx.new_id("acr")?;
    let body = copied!(request => AclRule {
        acl_id, name, description, direction, source_cidr, dest_cidr, ip_protocol, source_port_range,
        dest_port_range, policy, priority, r#type;
        acr_id: id.clone(),
        region_id: cx.region(),
        gmt_create: cx.now,
        ..AclRule::default()
    });
    let mut rule = cx.create_part(&acl, id, body);
    save(cx, &acl, &mut rule, request.dpi_signature_ids, request.dpi_group_ids).await?;
    Ok(copied!(rule => response::AddACLRule {
        acl_id, acr_id, description, dest_cidr, dest_port_range, direction, dpi_group_ids, dpi_signature_ids,
        gmt_create, ip_protocol, name, policy, priority, source_cidr, source_port_range, r#type,
    }))
}

async fn rule_of(cx: &mut Cx, acl: &Authorised<Acl>, id: &str) -> Result<Authorised<AclRule>> {
    let rule = cx.part(acl, id).await?;
    rule.ok_or_else(|| cx.err(&["InvalidId.ACR"]))
}

pub async fn modify(cx: &mut Cx, request: request::ModifyACLRule) -> Result<response::ModifyACLRule> {
    let acl = require(cx, &request.acl_id).await?;
    let mut rule = rule_of(cx, &acl, &request.acr_id).await?;
    set_given!(rule.edit(), request => {
        name, description, direction, source_cidr, dest_cidr, ip_protocol, source_port_range, dest_port_range,
        policy, priority, r#type,
    });
    save(cx, &acl, &mut rule, request.dpi_signature_ids, request.dpi_group_ids).await?;
    Ok(copied!(rule => response::ModifyACLRule {
        acl_id, acr_id, description, dest_cidr, dest_port_range, direction, dpi_group_ids, dpi_signature_ids,
        gmt_create, ip_protocol, name, policy, priority, source_cidr, source_port_range,
    }))
}

pub async fn delete(cx: &mut Cx, request: request::DeleteACLRule) -> Result<response::DeleteACLRule> {
    let acl = require(cx, &request.acl_id).await?;
    let rule = rule_of(cx, &acl, &request.acr_id).await?;
    cx.remove(&rule).await?;
    let users = cx.links_to(Link::Acl, &acl.id).await?;
    cx.renew_all(&users).await?;
    Ok(response::DeleteACLRule::default())
}

/// Rules in the order of their priority.
pub async fn describe(
    cx: &mut Cx,
    request: request::DescribeACLAttribute,
) -> Result<response::DescribeACLAttribute> {
    let acl = require(cx, &request.acl_id).await?;
    let descending = request.order.is_some_and(|o| o.eq_ignore_ascii_case("desc"));
    let filter = Filter::under(&acl.id)
        .equals(Column::Variant, request.direction)
        .name_contains(request.name)
        .order_by(Column::Priority, descending);
    let page = cx.list_page::<AclRule>(&filter).await?;
    let acl_type = acl.acl_type();
    let rows = page.rows.into_iter().map(|rule| {
        let rule = rule.into_inner().body;
        response::describe_acl_attribute::Acr {
            acl_id: rule.acl_id,
            acl_type: Some(acl_type.to_owned()),
            acr_id: rule.acr_id,
            description: rule.description,
            dest_cidr: rule.dest_cidr,
            dest_port_range: rule.dest_port_range,
            direction: rule.direction,
            dpi_group_ids: rule.dpi_group_ids,
            dpi_signature_ids: rule.dpi_signature_ids,
            gmt_create: rule.gmt_create,
            ip_protocol: rule.ip_protocol,
            name: rule.name,
            policy: rule.policy,
            priority: rule.priority,
            source_cidr: rule.source_cidr,
            source_port_range: rule.source_port_range,
            r#type: rule.r#type.unwrap_or_default(),
        }
    });
    Ok(response::DescribeACLAttribute {
        acrs: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}
