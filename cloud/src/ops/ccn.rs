//! Cloud connect networks and the gateways in them.

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::cx::{Cx, RESOURCE_GROUP, empty};
use super::gateway::{KIND as GATEWAY, SOFTWARE};
use super::net;
use crate::proto::error::Result;
use crate::store::objects::{self, Object};

const KIND: &str = "ccn";
/// Networks of one account in one region.
const QUOTA: i64 = 10;
const CIDR_QUOTA: usize = 10;
const TAG_QUOTA: usize = 20;

/// Whether another gateway of the network has an address of these blocks.
pub async fn sibling_overlap(cx: &mut Cx, ccn: &str, gw: &str, blocks: &[Ipv4Net]) -> Result<bool> {
    for other in cx.links_to("ccn", ccn).await? {
        if other == gw {
            continue;
        }
        if let Some(o) = cx.any(GATEWAY, &other).await? {
            let theirs = net::cidr_list(o.str("CidrBlock")).unwrap_or_default();
            if net::overlap(blocks, &theirs) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The gateway to bind: the caller's own, or another account's that was granted to the network.
async fn gateway_for(cx: &mut Cx, ccn: &str) -> Result<Object> {
    let owner = cx.int("SmartAGUid").unwrap_or_else(|| cx.uid());
    if owner == cx.uid() {
        return cx.gateway().await;
    }
    let id = cx.text("SmartAGId");
    let gw = cx.any(GATEWAY, &id).await?.filter(|g| g.uid == owner);
    let gw = gw.ok_or_else(|| cx.no_gateway(&id))?;
    if !cx.links_from("granted_ccn", &id).await?.iter().any(|c| c == ccn) {
        return Err(cx.err(&["Forbidden"]));
    }
    Ok(gw)
}

pub async fn bind(cx: &mut Cx) -> Result<Value> {
    let ccn = cx.need(KIND, "CcnId", &["InvalidId.CCN"]).await?;
    let gw = gateway_for(cx, &ccn.id).await?;
    if let Some(bound) = cx.links_from("ccn", &gw.id).await?.first() {
        let again = bound == &ccn.id;
        let code = if again { "SmartAccessGatewayAlreadyBound" } else { "AlreadyBound.CCN" };
        return Err(cx.err(&[code]));
    }
    if !cx.links_from("vbr", &gw.id).await?.is_empty() {
        return Err(cx.err(&["LinkLevelBackupExists"]));
    }
    if gw.str("InstanceType") != SOFTWARE {
        if cx.devices_of(&gw.id).await?.is_empty() {
            return Err(cx.err(&["SAG.NoBindSN"]));
        }
        if gw.int("Bandwidth") == 0 {
            return Err(cx.err(&["SAG.NoBandwidth"]));
        }
    }
    let blocks = net::cidr_list(gw.str("CidrBlock")).unwrap_or_default();
    let snat = net::cidr_list(ccn.str("SnatCidrBlock")).unwrap_or_default();
    if net::overlap(&blocks, &snat) || sibling_overlap(cx, &ccn.id, &gw.id, &blocks).await? {
        return Err(cx.err(&["CidrConflict"]));
    }
    cx.link("ccn", &gw.id, &ccn.id).await?;
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn unbind(cx: &mut Cx) -> Result<Value> {
    let id = cx.text("CcnId");
    let gw = gateway_for(cx, &id).await?;
    // The owner of the gateway may take it out, and the owner of the network.
    if gw.uid != cx.uid() && cx.find(KIND, &id).await?.is_none() {
        return Err(cx.err(&["Forbidden"]));
    }
    if !cx.links_from("vbr", &gw.id).await?.is_empty() {
        return Err(cx.err(&["SAG.DedicatedLineExist"]));
    }
    if !cx.unlink("ccn", &gw.id, &id).await? {
        return Err(cx.err(&["SmartAccessGatewayNotBind"]));
    }
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn create(cx: &mut Cx) -> Result<Value> {
    if cx.count(KIND, cx.mine()).await? >= QUOTA {
        return Err(cx.err(&["CcnAmountLimit"]));
    }
    let cidr = cx.text("CidrBlock");
    let snat = cx.text("SnatCidrBlock");
    check_blocks(cx, &cidr, &snat)?;
    let mut body = cx.fields(&["Name", "Description", "CidrBlock", "SnatCidrBlock"]);
    body.insert("CreateTime".into(), cx.now.into());
    body.insert("ResourceGroupId".into(), RESOURCE_GROUP.into());
    body.insert("InterworkingStatus".into(), "enable".into());
    body.insert("Status".into(), "Active".into());
    let id = cx.new_id("ccn")?;
    let ccn = cx.object(KIND, id, "CcnId", "", body);
    cx.put(&ccn).await?;
    Ok(Value::Object(ccn.body))
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

pub async fn modify(cx: &mut Cx) -> Result<Value> {
    let mut ccn = cx.need(KIND, "CcnId", &["InvalidId.CCN"]).await?;
    let members = cx.links_to("ccn", &ccn.id).await?;
    if let Some(cidr) = cx.opt("CidrBlock") {
        let snat = ccn.str("SnatCidrBlock").to_owned();
        check_blocks(cx, &cidr, &snat)?;
        let own = net::cidr_list(&cidr).unwrap_or_default();
        for id in &members {
            let Some(gw) = cx.any(GATEWAY, id).await? else { continue };
            let blocks = net::cidr_list(gw.str("CidrBlock")).unwrap_or_default();
            let inside = blocks.iter().all(|b| own.iter().any(|o| o.contains(b)));
            if gw.str("InstanceType") == SOFTWARE && !inside {
                return Err(cx.err(&["CCN.CidrInUse"]));
            }
        }
    }
    for (k, v) in cx.fields(&["Name", "Description", "CidrBlock", "InterworkingStatus"]) {
        ccn.set(&k, v);
    }
    ccn.name = ccn.str("Name").to_owned();
    cx.put(&ccn).await?;
    cx.touch_all(&members).await?;
    Ok(empty())
}

pub async fn delete(cx: &mut Cx) -> Result<Value> {
    let ccn = cx.need(KIND, "CcnId", &["InvalidId.CCN"]).await?;
    if !cx.links_to("ccn", &ccn.id).await?.is_empty() {
        return Err(cx.err(&["AlreadyBound.SMARTAG"]));
    }
    if cx.count("grant_cen", cx.under(&ccn.id)).await? > 0 {
        return Err(cx.err(&["AlreadyBound.CEN"]));
    }
    for gw in cx.links_to("granted_ccn", &ccn.id).await? {
        cx.unlink("granted_ccn", &gw, &ccn.id).await?;
        objects::delete(cx.conn(), "grant_ccn", &format!("{gw}/{}", ccn.id)).await?;
    }
    cx.remove(&ccn).await?;
    Ok(empty())
}

pub async fn describe(cx: &mut Cx) -> Result<Value> {
    let tagged = check_tags(cx)?;
    let mut filter = cx.mine();
    filter.name = cx.opt("Name");
    filter.ids = cx.opt("CcnId").map(|id| vec![id]);
    if tagged {
        // No documented operation sets tags, so none match.
        filter.ids = Some(Vec::new());
    }
    let (total, page) = cx.paged(KIND, &filter).await?;
    let mut all = cx.all_links_to("ccn", &page).await?;
    let mut rows = Vec::new();
    for ccn in page {
        let members = all.remove(&ccn.id).unwrap_or_default();
        let ids: Vec<&str> = members.iter().map(String::as_str).collect();
        let devices = cx.bare_devices(&ids).await?;
        let online = devices.values().filter(|of| of.iter().any(|d| d.online(cx.now))).count();
        let cen = cx.children("grant_cen", &ccn.id).await?;
        let mut row = Value::Object(ccn.body);
        row["AssociatedCloudBoxCount"] = members.len().into();
        row["AvailableCloudBoxCount"] = online.into();
        row["IsDefault"] = false.into();
        if let Some(cen) = cen.first() {
            row["AssociatedCenId"] = cen.str("CenInstanceId").into();
            row["AssociatedCenOwnerId"] = cen.int("CenUid").into();
        }
        rows.push(row);
    }
    Ok(cx.listing("CloudConnectNetworks", total, rows))
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

pub async fn use_limit(cx: &mut Cx) -> Result<Value> {
    let used = cx.count(KIND, cx.mine()).await?;
    Ok(json!({"TotalAmount": QUOTA, "UsedAmount": used}))
}
