//! Access points: the places where gateways reach the network.

use std::time::Duration;

use sag_southbound::{
    AccessPoint as Target, AccessPointQuality, Command, CommandOutcome, ProbeArgs, StateReport,
};

use super::cx::{Cx, Page};
use super::fields::copied;
use crate::api::params::Params;
use crate::api::{request, response};
use crate::domain::device::Device;
use crate::domain::device_config::Probe;
use crate::domain::gateway::Gateway;
use crate::domain::objects::Authorised;
use crate::error::{ApiError, Result};
use crate::store::offers::AccessPoint;
use crate::store::{Link, Store};

/// Where a new gateway of a region starts: at the first of its points; 0 if there is none.
pub async fn first(cx: &mut Cx) -> Result<i64> {
    let region = cx.region();
    Ok(cx.access_points(&region).await?.first().map_or(0, |p| p.id))
}

/// The number of an access point; nothing if there is none.
pub fn shown(id: i64) -> String {
    if id > 0 { id.to_string() } else { String::new() }
}

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
    let points = cx.access_points(&request.region_id).await?;
    let rows = points.into_iter().map(|p: AccessPoint| {
        let count = |wanted: bool| {
            gws.iter().filter(|(g, active)| g.access_point_id == p.id && *active == wanted).count() as i64
        };
        response::list_access_points::AccessPoints {
            access_point_id: p.id,
            active_smart_ag_count: count(true),
            inactive_smart_ag_count: count(false),
            latitude: p.latitude,
            longitude: p.longitude,
        }
    });
    let page = cx.paginate(rows.collect());
    Ok(response::ListAccessPoints { access_points: page.rows, total_count: page.total })
}

/// How long a measurement is shown that nothing repeats.
const SHOWN_MS: i64 = 3_600_000;

/// The paths that a device has measured not too long ago: of those that it measures again and again, three times missed. A
/// device that does not say when has measured them for its last probe.
fn recent(state: &StateReport, now: i64) -> Vec<&AccessPointQuality> {
    let interval = state.access_point_interval.filter(|s| *s > 0);
    let most = interval.map_or(SHOWN_MS, |s| s.saturating_mul(3000).saturating_add(10_000));
    let is_recent = |q: &&AccessPointQuality| q.time.is_none_or(|at| now.saturating_sub(at) <= most);
    state.access_point_qualities.iter().filter(is_recent).collect()
}

pub async fn qualities(
    cx: &mut Cx,
    _: request::ListAccessPointNetworkQualities,
) -> Result<response::ListAccessPointNetworkQualities> {
    use response::list_access_point_network_qualities::AccessPointNetworkQualities as Quality;
    let gw = cx.gateway().await?;
    let devices = cx.devices_of(&gw).await?;
    let seen = devices.iter().filter(|d| d.online(cx.now)).map(|d| recent(&d.state, cx.now));
    let seen = seen.into_iter().find(|qualities| !qualities.is_empty());
    let rows = seen.into_iter().flatten().map(|q| copied!(q => Quality { id, loss, rtt }));
    Ok(response::ListAccessPointNetworkQualities { access_point_network_qualities: rows.collect() })
}

pub async fn probe(
    cx: &mut Cx,
    request: request::ProbeAccessPointNetworkQuality,
) -> Result<response::ProbeAccessPointNetworkQuality> {
    let mut gw = cx.gateway().await?;
    let ids: Vec<i64> = request.access_point_ids.iter().filter_map(|i| i.parse().ok()).collect();
    let points = cx.access_points(&request.region_id).await?;
    let wanted: Vec<&AccessPoint> = points.iter().filter(|p| ids.contains(&p.id)).collect();
    if !ids.iter().all(|id| wanted.iter().any(|p| p.id == *id)) {
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
    let probe_id = cx.new_id("probe")?;
    let target = |p: &&AccessPoint| Target { id: p.id, address: p.address.clone() };
    let access_points = wanted.iter().map(target).collect();
    // The change brings the next revision.
    let probe = Probe { id: probe_id.clone(), revision: d.revision + 1, time: cx.now, points: ids.clone() };
    d.config.probe = Some(probe);
    let args = ProbeArgs { access_point_ids: ids, probe_id, access_points };
    cx.command(d, Command::ProbeAccessPoints(args)).await?;
    gw.edit().last_probe = Some(cx.now);
    cx.put(&gw).await?;
    Ok(response::ProbeAccessPointNetworkQuality::default())
}

/// How long a call waits for the device to measure. Within this time a gateway has no second probe.
const WAIT: Duration = Duration::from_secs(9);
const LOOK: Duration = Duration::from_millis(200);

/// Loss as devices report it when nothing was answered.
const ALL_LOST: &str = "100.00%";

/// What came of the newest probe among the devices, if that is known.
fn outcome_of(devices: &[Device]) -> Option<Result<()>> {
    let newest = |d: &&Device| d.config.probe.as_ref().map_or(0, |p| p.time);
    let d = devices.iter().max_by_key(newest)?;
    let probe = d.config.probe.as_ref()?;
    let unreachable = |message: String| {
        let hint = "ListAccessPointNetworkQualities has what was measured.";
        Some(Err(ApiError::new(400, "AccessPointUnreachable", message).with_hint(hint)))
    };
    if d.state.access_point_probe.as_deref() == Some(&probe.id) {
        // The others were measured in passing.
        let asked = |q: &&AccessPointQuality| q.id.is_some_and(|id| probe.points.contains(&id));
        let measured = d.state.access_point_qualities.iter().filter(asked);
        let dead = measured.filter(|q| q.loss == ALL_LOST).filter_map(|q| q.id).map(|id| id.to_string());
        let dead = dead.collect::<Vec<_>>().join(", ");
        return match dead.is_empty() {
            true => Some(Ok(())),
            false => unreachable(format!("The device gets no answer from the access points {dead}.")),
        };
    }
    let result = d.config.command_results.get("ProbeAccessPoints").filter(|r| r.revision == probe.revision);
    match result.map(|r| (&r.outcome, &r.message)) {
        Some((outcome, why)) if *outcome != Some(CommandOutcome::Done) => {
            let why: String = why.chars().take(200).collect();
            unreachable(format!("The device does not measure the path: {why}"))
        }
        _ => None,
    }
}

/// Waits for what the device measures, after the call has been written down (line 9287 of document 000: an instance
/// that cannot reach the access point is an error).
pub async fn outcome(store: &Store, params: &Params) -> Result<()> {
    let gateway = params.get("SmartAGId").unwrap_or_default();
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        let mut tx = store.read().await?;
        let devices = Device::of_gateway(&mut tx, gateway).await;
        tx.rollback().await?;
        if let Some(known) = outcome_of(&devices?) {
            return known;
        }
        if tokio::time::Instant::now() >= deadline {
            let message = "The device has reported no result in time.";
            return Err(ApiError::new(503, "ProbeTimeout", message).with_retry_after(PROBE_MS as u64));
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub async fn update(
    cx: &mut Cx,
    request: request::UpdateSmartAGAccessPoint,
) -> Result<response::UpdateSmartAGAccessPoint> {
    let mut gw = cx.gateway().await?;
    let points = cx.access_points(&request.region_id).await?;
    if !points.iter().any(|p| p.id == request.access_point_id) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::device_config::{CommandRecord, DeviceConfig};
    use crate::store::devices::Summary;

    fn device(time: i64, reported: Option<(&str, &[(i64, &str)])>) -> Device {
        let mut config = DeviceConfig::initial(1);
        config.probe =
            Some(Probe { id: format!("probe-{time}"), revision: time, time, points: vec![101, 102] });
        let mut state = StateReport::default();
        if let Some((id, rows)) = reported {
            state.access_point_probe = Some(id.to_owned());
            let row = |(id, loss): &(i64, &str)| AccessPointQuality {
                id: Some(*id),
                loss: (*loss).to_owned(),
                ..AccessPointQuality::default()
            };
            state.access_point_qualities = rows.iter().map(row).collect();
        }
        Device { summary: Summary::default(), config, state }
    }

    #[test]
    fn a_probe_ends_with_what_was_measured_for_it() {
        assert!(outcome_of(&[]).is_none() && outcome_of(&[device(2, None)]).is_none());
        let earlier = device(2, Some(("probe-1", &[(101, "100.00%")])));
        assert!(outcome_of(&[earlier]).is_none(), "of another probe");
        let good = device(2, Some(("probe-2", &[(101, "0.00%"), (102, "25.00%"), (103, "100.00%")])));
        assert!(outcome_of(std::slice::from_ref(&good)).is_some_and(|r| r.is_ok()));
        let dead = device(3, Some(("probe-3", &[(101, "0.00%"), (102, "100.00%")])));
        let refused = outcome_of(&[good, dead]).and_then(Result::err).expect("the newest counts");
        assert_eq!(refused.code, "AccessPointUnreachable");
        assert!(refused.message.contains("102") && !refused.message.contains("101"));
    }

    #[test]
    fn what_was_measured_long_ago_is_not_shown() {
        let at = |id: i64, time: Option<i64>| AccessPointQuality { id: Some(id), time, ..Default::default() };
        let now = 100_000_000;
        let ids = |interval: Option<i64>| {
            let state = StateReport {
                access_point_interval: interval,
                access_point_qualities: vec![
                    at(1, None),
                    at(2, Some(now - 30_000)),
                    at(3, Some(now - 300_000)),
                    at(4, Some(now - 4_000_000)),
                    at(5, Some(now + 5_000)),
                ],
                ..StateReport::default()
            };
            recent(&state, now).into_iter().filter_map(|q| q.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(Some(10)), [1, 2, 5]);
        assert_eq!(ids(Some(300)), [1, 2, 3, 5]);
        assert_eq!((ids(None), ids(Some(0))), (vec![1, 2, 3, 5], vec![1, 2, 3, 5]));
        assert_eq!(ids(Some(i64::MAX)), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_device_that_does_not_measure_says_so() {
        let mut d = device(7, None);
        let outcome = Some(CommandOutcome::Unsupported);
        let record = CommandRecord { revision: 6, time: 1, outcome, message: "not here".into() };
        d.config.command_results = [("ProbeAccessPoints".to_owned(), record)].into();
        assert!(outcome_of(std::slice::from_ref(&d)).is_none(), "of an earlier command");
        if let Some(r) = d.config.command_results.get_mut("ProbeAccessPoints") {
            r.revision = 7;
        }
        let refused = outcome_of(&[d]).and_then(Result::err).expect("known");
        assert!(refused.message.contains("not here"));
    }
}
