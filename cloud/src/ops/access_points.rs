//! Access points: the places where gateways reach the network.

use sag_southbound::{Command, ProbeArgs};

use super::cx::{Cx, Page};
use super::fields::copied;
use crate::api::{request, response};
use crate::domain::gateway::Gateway;
use crate::domain::objects::Authorised;
use crate::error::Result;
use crate::store::Link;

/// Number, latitude, longitude.
const POINTS: [(i64, &str, &str); 6] = [
    (101, "31.23", "121.47"),
    (102, "30.27", "120.16"),
    (103, "39.90", "116.40"),
    (201, "1.35", "103.82"),
    (202, "35.68", "139.69"),
    (301, "50.11", "8.68"),
];

/// Where a new gateway starts.
pub const FIRST: i64 = POINTS[0].0;

/// Time between two probes of one gateway.
const PROBE_MS: i64 = 10_000;

/// The caller's gateways, and whether one of their devices is connected.
async fn gateways_with_state(cx: &mut Cx) -> Result<Vec<(Authorised<Gateway>, bool)>> {
    let filter = cx.mine();
    let gws = cx.list::<Gateway>(&filter).await?;
    let devices = cx.device_summaries(&gws).await?;
    let active = |id: &str| devices.get(id).is_some_and(|d| d.iter().any(|d| d.online(cx.now)));
    let states: Vec<bool> = gws.iter().map(|g| active(&g.id)).collect();
    Ok(gws.into_iter().zip(states).collect())
}

pub async fn list(cx: &mut Cx, request: request::ListAccessPoints) -> Result<response::ListAccessPoints> {
    if request.smart_ag_id.is_some() {
        cx.gateway().await?;
    }
    let gws = gateways_with_state(cx).await?;
    let rows = POINTS.iter().map(|(id, latitude, longitude)| {
        let count = |wanted: bool| {
            gws.iter().filter(|(g, active)| g.access_point_id == *id && *active == wanted).count() as i64
        };
        response::list_access_points::AccessPoints {
            access_point_id: *id,
            active_smart_ag_count: count(true),
            inactive_smart_ag_count: count(false),
            latitude: (*latitude).to_owned(),
            longitude: (*longitude).to_owned(),
        }
    });
    let page = cx.paginate(rows.collect());
    Ok(response::ListAccessPoints { access_points: page.rows, total_count: page.total })
}

pub async fn qualities(
    cx: &mut Cx,
    _: request::ListAccessPointNetworkQualities,
) -> Result<response::ListAccessPointNetworkQualities> {
    use response::list_access_point_network_qualities::AccessPointNetworkQualities as Quality;
    let gw = cx.gateway().await?;
    let devices = cx.devices_of(&gw).await?;
    let seen = devices
        .iter()
        .filter(|d| d.online(cx.now))
        .map(|d| &d.state.access_point_qualities)
        .find(|qualities| !qualities.is_empty());
    let rows = seen.into_iter().flatten().map(|q| copied!(q => Quality { id, loss, rtt }));
    Ok(response::ListAccessPointNetworkQualities { access_point_network_qualities: rows.collect() })
}

pub async fn probe(
    cx: &mut Cx,
    request: request::ProbeAccessPointNetworkQuality,
) -> Result<response::ProbeAccessPointNetworkQuality> {
    let mut gw = cx.gateway().await?;
    let ids: Vec<i64> = request.access_point_ids.iter().filter_map(|i| i.parse().ok()).collect();
    if ids.iter().any(|id| !POINTS.iter().any(|p| p.0 == *id)) {
        return Err(cx.invalid("AccessPointIds"));
    }
    if cx.now - gw.last_probe.unwrap_or_default() < PROBE_MS {
        return Err(cx.err(&["ProbeFrequencyTooHigh"]));
    }
    let mut devices = cx.devices_of(&gw).await?;
    devices.retain(|d| d.online(cx.now));
    let Some(d) = devices.first_mut() else {
        return Err(cx.err(&["SmartAccessGatewayNotOnline"]));
    };
    cx.command(d, Command::ProbeAccessPoints(ProbeArgs { access_point_ids: ids })).await?;
    gw.edit().last_probe = Some(cx.now);
    cx.put(&gw).await?;
    Ok(response::ProbeAccessPointNetworkQuality::default())
}

pub async fn update(
    cx: &mut Cx,
    request: request::UpdateSmartAGAccessPoint,
) -> Result<response::UpdateSmartAGAccessPoint> {
    let mut gw = cx.gateway().await?;
    if !POINTS.iter().any(|p| p.0 == request.access_point_id) {
        return Err(cx.invalid("AccessPointId"));
    }
    if cx.links_from(Link::Ccn, &gw).await?.is_empty() {
        return Err(cx.err(&["NotBoundCCN"]));
    }
    let devices = cx.devices_of(&gw).await?;
    if !devices.iter().any(|d| d.online(cx.now)) {
        return Err(cx.err(&["SmartAccessGatewayNotOnline"]));
    }
    gw.edit().access_point_id = request.access_point_id;
    cx.save_gateway(&gw).await?;
    Ok(response::UpdateSmartAGAccessPoint::default())
}

pub async fn gateways(
    cx: &mut Cx,
    request: request::ListSmartAGByAccessPoint,
) -> Result<response::ListSmartAGByAccessPoint> {
    let state = |active: bool| if active { "Active" } else { "Offline" };
    let mut all = gateways_with_state(cx).await?;
    all.retain(|(g, active)| {
        g.access_point_id == request.access_point_id
            && request.smart_ag_status.as_ref().is_none_or(|s| s == state(*active))
    });
    let Page { total, rows: page, .. } = cx.paginate(all);
    let mut rows = Vec::new();
    for (gw, active) in page {
        let ccn = cx.links_from(Link::Ccn, &gw).await?;
        let ccn = cx.visible(ccn).await?.into_iter().next();
        rows.push(copied!(gw => response::list_smart_ag_by_access_point::SmartAccessGateways {
            hardware_version, routing_strategy, smart_ag_id;
            associated_ccn_id: ccn.unwrap_or_default(),
            smart_ag_description: Some(gw.description.clone().unwrap_or_default()),
            smart_ag_name: Some(gw.name().to_owned()),
            smart_ag_status: state(active).to_owned(),
        }));
    }
    Ok(response::ListSmartAGByAccessPoint { smart_access_gateways: rows, total_count: total })
}
