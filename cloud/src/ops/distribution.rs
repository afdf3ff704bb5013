//! Route publication strategies: which routes of a gateway are published, and how.
//!
//! Routes come from the configuration (local CIDR blocks, static routes), from what the devices
//! learned (OSPF, BGP) and from the other gateways of the network (cloud). A stored strategy
//! overrides the default of one route.

use super::cx::Cx;
use crate::api::validate::matches_pattern;
use crate::api::{Pattern, request, response};
use crate::domain::distribution::RouteStrategy;
use crate::domain::gateway::Gateway;
use crate::domain::health::HealthCheck;
use crate::domain::net;
use crate::domain::objects::Authorised;
use crate::error::Result;
use crate::store::Kind;
use crate::store::objects::{Column, Filter};

const LOCAL: &str = "local";
const LOCAL_SOURCES: [&str; 3] = ["STATIC", "OSPF", "BGP"];

/// Source and destination of every route of this kind.
async fn routes(cx: &mut Cx, gw: &Authorised<Gateway>, source_type: &str) -> Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    let mut add = |source: &str, cidr: String| {
        let row = (source.to_owned(), cidr);
        if !out.contains(&row) {
            out.push(row);
        }
    };
    if source_type == LOCAL {
        for b in gw.blocks() {
            add("STATIC", b.to_string());
        }
        for d in cx.devices_of(gw).await? {
            for r in d.config.static_routes {
                add("STATIC", r.destination_cidr);
            }
            for r in d.state.routes {
                if LOCAL_SOURCES[1..].contains(&r.route_protocol.as_str()) {
                    add(&r.route_protocol, r.destination);
                }
            }
        }
    } else {
        let neighbours = cx.neighbours(gw).await?;
        for other in cx.visible_objects::<Gateway>(&neighbours).await? {
            for b in other.blocks() {
                add(&other.id, b.to_string());
            }
        }
    }
    Ok(out)
}

fn key(gw: &str, source_type: &str, source: &str, cidr: &str) -> String {
    format!("{gw}/{source_type}/{source}/{cidr}")
}

pub async fn describe(
    cx: &mut Cx,
    request: request::DescribeRouteDistributionStrategies,
) -> Result<response::DescribeRouteDistributionStrategies> {
    let gw = cx.gateway().await?;
    let source_type = request.source_type;
    let filter = Filter::under(&gw.id).equals(Column::Variant, Some(&source_type));
    let stored = cx.list::<RouteStrategy>(&filter).await?;
    let mut found = routes(cx, &gw, &source_type).await?;
    for s in &stored {
        let row = (s.route_source.clone(), s.dest_cidr_block.clone());
        if !found.contains(&row) {
            found.push(row);
        }
    }
    // A stored strategy may name a gateway that the caller may not see.
    let gateways = found.iter().filter(|(source, _)| is_gateway(source)).map(|(s, _)| s.clone()).collect();
    let gateways = cx.visible_of(Kind::Gateway, gateways).await?;
    found.retain(|(source, _)| !is_gateway(source) || gateways.contains(source));
    let announced =
        cx.inspect_network(&gw, |network| network.announced_by(&gw.id)).await?.unwrap_or_default();
    let devices = cx.devices_of(&gw).await?;
    let now = cx.now;
    let page = cx.paginate(found);
    let rows = page.rows.into_iter().map(|(source, cidr)| {
        let id = key(&gw.id, &source_type, &source, &cidr);
        let own = stored.iter().find(|s| s.id == id);
        let published = own.is_none_or(|s| s.publishes(&devices, now));
        // The other members have a route of the gateway by the block that it is in. What comes from the cloud is
        // published to the gateway itself.
        let block = net::cidr_list(&cidr).and_then(|b| b.first().copied());
        let reached = block.is_some_and(|b| announced.iter().any(|a| a.contains(&b)));
        let published = published && (source_type != LOCAL || reached);
        let revoked = own.is_some_and(|s| s.is_revoked(&devices, now));
        response::describe_route_distribution_strategies::Strategy {
            conflict_info: None,
            create_time: own.map(|s| s.create_time),
            hc_instance_id: own.and_then(|s| s.hc_instance_id.clone()),
            route_distribution: Some(own.map_or("publish", |s| s.route_distribution.as_str()).to_owned()),
            smart_ag_id: gw.id.clone(),
            source_type: source_type.clone(),
            route_source: source,
            dest_cidr_block: cidr,
            is_conflict: false,
            status: if revoked { "revoked" } else { "normal" }.to_owned(),
            strategy_publish_status: Some(if published { "publish" } else { "not_publish" }.to_owned()),
        }
    });
    Ok(response::DescribeRouteDistributionStrategies {
        strategies: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

/// Whether a route comes from another gateway of the network.
fn is_gateway(source: &str) -> bool {
    source.starts_with("sag-")
}

/// The source and the block that a request names, checked.
async fn named(cx: &mut Cx, source_type: &str, source: &str, block: &str) -> Result<String> {
    let good = if source_type == LOCAL {
        LOCAL_SOURCES.contains(&source)
    } else {
        ["vpc-", "vbr-", "sag-"].iter().any(|p| source.starts_with(p))
            && matches_pattern(Pattern::Word, source)
    };
    if !good {
        return Err(cx.err(&["RD.InvalidRouteSource"]));
    }
    if is_gateway(source) {
        cx.require_named(Kind::Gateway, source, false).await?;
    }
    let block = net::cidr_list(block).filter(|b| b.len() == 1);
    let block = block.ok_or_else(|| cx.err(&["RD.InvalidDestCidrBlock"]))?;
    Ok(block[0].to_string())
}

pub async fn modify(
    cx: &mut Cx,
    request: request::ModifyRouteDistributionStrategy,
) -> Result<response::ModifyRouteDistributionStrategy> {
    let gw = cx.gateway().await?;
    let (source_type, source) = (request.source_type, request.route_source);
    let cidr = named(cx, &source_type, &source, &request.dest_cidr_block).await?;
    // A strategy that does not look at the health check does not depend on it, and needs none.
    let depends = request.route_distribution.contains("health");
    let hc = match request.hc_instance_id {
        Some(hc) => hc,
        None if depends => return Err(cx.missing("HcInstanceId")),
        None => String::new(),
    };
    if !hc.is_empty() {
        if !hc.starts_with("hc-") {
            return Err(cx.err(&["RD.InvalidHcInstanceId"]));
        }
        if cx.part::<_, HealthCheck>(&gw, &hc).await?.is_none() {
            return Err(cx.err(&["HC.InstanceNoFound"]));
        }
    }
    let id = key(&gw.id, &source_type, &source, &cidr);
    let body = RouteStrategy {
        region_id: cx.region(),
        smart_ag_id: request.smart_ag_id,
        source_type,
        route_source: source,
        dest_cidr_block: cidr,
        route_distribution: request.route_distribution,
        hc_instance_id: depends.then_some(hc),
        create_time: cx.now,
    };
    let strategy = cx.create_part(&gw, id, body);
    cx.put(&strategy).await?;
    cx.publication_changed(&gw).await?;
    Ok(response::ModifyRouteDistributionStrategy::default())
}

pub async fn delete(
    cx: &mut Cx,
    request: request::DeleteRouteDistributionStrategy,
) -> Result<response::DeleteRouteDistributionStrategy> {
    let gw = cx.gateway().await?;
    let cidr = named(cx, &request.source_type, &request.route_source, &request.dest_cidr_block).await?;
    let id = key(&gw.id, &request.source_type, &request.route_source, &cidr);
    let Some(stored) = cx.part::<_, RouteStrategy>(&gw, &id).await? else {
        return Err(cx.err(&["RD.InvalidDestCidrBlock"]));
    };
    cx.remove(&stored).await?;
    cx.publication_changed(&gw).await?;
    Ok(response::DeleteRouteDistributionStrategy::default())
}
