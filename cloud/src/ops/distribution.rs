//! Route publication strategies: which routes of a gateway are published, and how.
//!
//! Routes come from the configuration (local CIDR blocks, static routes), from what the devices
//! learned (OSPF, BGP) and from the other gateways of the network (cloud). A stored strategy
//! overrides the default of one route.

use serde_json::{Map, Value, json};

use super::cx::{Cx, Page, empty};
use crate::domain::gateway::Gateway;
use crate::domain::net;
use crate::error::Result;
use crate::store::objects::Stored;
use crate::store::{Kind, Link};

const KIND: Kind = Kind::RouteStrategy;
const LOCAL_SOURCES: [&str; 3] = ["STATIC", "OSPF", "BGP"];

/// Source and destination of every route of this kind.
async fn routes(cx: &mut Cx, gw: &Stored<Gateway>, source_type: &str) -> Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    let mut add = |source: &str, cidr: String| {
        let row = (source.to_owned(), cidr);
        if !out.contains(&row) {
            out.push(row);
        }
    };
    if source_type == "local" {
        for b in gw.blocks() {
            add("STATIC", b.to_string());
        }
        for d in cx.devices_of(&gw.id).await? {
            for r in d.rows("StaticRoutes") {
                add("STATIC", r["DestinationCidr"].as_str().unwrap_or_default().to_owned());
            }
            for r in d.report["Routes"].as_array().into_iter().flatten() {
                let protocol = r["RouteProtocol"].as_str().unwrap_or_default();
                if LOCAL_SOURCES[1..].contains(&protocol) {
                    add(protocol, r["DestinationCidr"].as_str().unwrap_or_default().to_owned());
                }
            }
        }
    } else {
        for ccn in cx.links_from(Link::Ccn, &gw.id).await? {
            for other in cx.links_to(Link::Ccn, &ccn).await? {
                let Some(o) = cx.get::<Gateway>(&other).await?.filter(|o| o.id != gw.id) else {
                    continue;
                };
                for b in o.blocks() {
                    add(&o.id, b.to_string());
                }
            }
        }
    }
    Ok(out)
}

fn key(gw: &str, source_type: &str, source: &str, cidr: &str) -> String {
    format!("{gw}/{source_type}/{source}/{cidr}")
}

pub async fn describe(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let source_type = cx.text("SourceType");
    let stored = cx.child_objects(KIND, &gw.id).await?;
    let mut found = routes(cx, &gw, &source_type).await?;
    for s in stored.iter().filter(|s| s.str("SourceType") == source_type) {
        let row = (s.str("RouteSource").to_owned(), s.str("DestCidrBlock").to_owned());
        if !found.contains(&row) {
            found.push(row);
        }
    }
    let Page { total, rows: page, .. } = cx.paginate(found);
    let rows = page
        .into_iter()
        .map(|(source, cidr)| {
            let id = key(&gw.id, &source_type, &source, &cidr);
            let mut row = stored.iter().find(|s| s.id == id).map_or_else(Map::new, |s| s.body.clone());
            let defaults = json!({
                "SmartAGId": gw.id, "SourceType": source_type, "RouteSource": source,
                "DestCidrBlock": cidr, "Status": "normal", "IsConflict": false,
                "RouteDistribution": "publish", "StrategyPublishStatus": "normal",
            });
            for (k, v) in defaults.as_object().cloned().unwrap_or_default() {
                row.entry(k).or_insert(v);
            }
            Value::Object(row)
        })
        .collect();
    Ok(cx.listing("Strategies", total, rows))
}

/// The block and the source that the request names, checked.
fn named(cx: &Cx) -> Result<(String, String, String)> {
    let source_type = cx.text("SourceType");
    let source = cx.text("RouteSource");
    let good = if source_type == "local" {
        LOCAL_SOURCES.contains(&source.as_str())
    } else {
        ["vpc-", "vbr-", "sag-"].iter().any(|p| source.starts_with(p))
    };
    if !good {
        return Err(cx.err(&["RD.InvalidRouteSource"]));
    }
    let block = net::cidr_list(&cx.text("DestCidrBlock")).filter(|b| b.len() == 1);
    let block = block.ok_or_else(|| cx.err(&["RD.InvalidDestCidrBlock"]))?;
    Ok((source_type, source, block[0].to_string()))
}

pub async fn modify(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let (source_type, source, cidr) = named(cx)?;
    let hc = cx.text("HcInstanceId");
    if !hc.starts_with("hc-") {
        return Err(cx.err(&["RD.InvalidHcInstanceId"]));
    }
    if cx.find_object(Kind::HealthCheck, &hc).await?.is_none_or(|h| h.parent != gw.id) {
        return Err(cx.err(&["HC.InstanceNoFound"]));
    }
    let mut body = cx.fields(&["SmartAGId", "RouteSource", "SourceType", "RouteDistribution"]);
    // A strategy that does not look at the health check does not depend on it.
    if cx.text("RouteDistribution").contains("health") {
        body.insert("HcInstanceId".into(), hc.into());
    }
    body.insert("DestCidrBlock".into(), cidr.as_str().into());
    body.insert("CreateTime".into(), cx.now.into());
    let id = key(&gw.id, &source_type, &source, &cidr);
    let o = cx.object(KIND, id, "Key", &gw.id, body);
    cx.put_object(&o).await?;
    cx.bump_revision(&gw.id).await?;
    Ok(empty())
}

pub async fn delete(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let (source_type, source, cidr) = named(cx)?;
    let id = key(&gw.id, &source_type, &source, &cidr);
    let Some(stored) = cx.get_object(KIND, &id).await? else {
        return Err(cx.err(&["RD.InvalidDestCidrBlock"]));
    };
    cx.remove_object(&stored).await?;
    cx.bump_revision(&gw.id).await?;
    Ok(empty())
}
