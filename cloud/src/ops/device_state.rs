//! What a connected device reported.

use sag_southbound::{Command, PortRole};

use super::cx::Cx;
use super::fields::{copied, task_states};
use crate::api::{request, response};
use crate::domain::device::ONLINE_MS;
use crate::error::Result;
use crate::store::gateways::{Ranked, Rate};
use crate::time::stamp;

/// Entries of a ranking.
const TOP: i64 = 10;

pub async fn current_dns(
    cx: &mut Cx,
    _: request::DescribeSagCurrentDns,
) -> Result<response::DescribeSagCurrentDns> {
    let d = cx.online_device().await?;
    let dns = d.state.dns.unwrap_or_default();
    Ok(response::DescribeSagCurrentDns { master_dns: dns.master, slave_dns: dns.slave })
}

pub async fn info(cx: &mut Cx, _: request::DescribeSAGDeviceInfo) -> Result<response::DescribeSAGDeviceInfo> {
    let gw = cx.gateway().await?;
    let d = cx.device_on(&gw).await?;
    cx.must_be_online(&d)?;
    let local = d.state.local_changes == Some(true);
    let syn_status = match d.applied >= d.revision {
        _ if local => "Unsynchronized",
        false => "Synchronizing",
        true if d.failure.is_empty() => "Synchronized",
        true => "Unsynchronized",
    };
    let service_ip = d.state.wans.iter().map(|wan| &wan.ip).find(|ip| !ip.is_empty()).cloned();
    Ok(response::DescribeSAGDeviceInfo {
        controller_state: "Normal".to_owned(),
        syn_status: syn_status.to_owned(),
        last_connected_controller_time: Some(stamp(d.seen)),
        service_ip: Some(service_ip.unwrap_or_default()),
        smart_ag_type: gw.hardware_version.clone(),
        version: d.state.software_version.unwrap_or_default(),
        vpn_state: d.state.vpn_state.unwrap_or_else(|| "Abnormal".to_owned()),
        startup_time: d.state.startup_time.map(stamp).unwrap_or_default(),
        // A virtual device has no such key.
        resettable_status: "Disabled".to_owned(),
    })
}

/// The device keeps no configuration of its own: a new report is all there is to do.
pub async fn synchronize(
    cx: &mut Cx,
    _: request::SynchronizeSmartAGWebConfig,
) -> Result<response::SynchronizeSmartAGWebConfig> {
    let mut d = cx.online_device().await?;
    cx.command(&mut d, Command::Synchronize).await?;
    Ok(response::SynchronizeSmartAGWebConfig::default())
}

/// The documents know three sources of routes: networks of the ports and routes by DHCP are none of a routing protocol.
fn documented_protocol(word: String) -> String {
    match word.as_str() {
        "CONNECTED" | "DHCP" => "STATIC".to_owned(),
        _ => word,
    }
}

pub async fn route_list(
    cx: &mut Cx,
    _: request::DescribeSagRouteList,
) -> Result<response::DescribeSagRouteList> {
    let d = cx.online_device().await?;
    let rows = d.state.routes.into_iter().map(|r| response::describe_sag_route_list::Routes {
        conflict_cidrs: r.conflict_cidrs,
        cost: r.cost,
        destination_cidr: r.destination,
        next_hop: r.next_hop,
        port_name: r.port_name,
        route_protocol: documented_protocol(r.route_protocol),
    });
    Ok(response::DescribeSagRouteList { routes: rows.collect() })
}

pub async fn wan_list(cx: &mut Cx, _: request::DescribeSagWanList) -> Result<response::DescribeSagWanList> {
    let d = cx.online_device().await?;
    let ports = d.current_ports().into_iter().filter(|p| p.role == PortRole::Wan.as_str());
    let rows = ports.map(|port| {
        // A port that only the agent knows has no settings.
        let known = d.config.wan.get(&port.port_name);
        let wan = known.cloned().unwrap_or_default();
        let mut row = copied!(wan => response::describe_sag_wan_list::Wans {
            gateway, ip, ip_type, isp, mask, priority, username;
            weight: known.map(|w| w.weight),
            band_width: wan.bandwidth,
            traffic_state: None,
            port_name: port.port_name,
        });
        // The address in force, whichever way the port got it.
        if let Some(seen) = d.state.wans.iter().find(|w| w.port_name == row.port_name) {
            row.ip.clone_from(&seen.ip);
            row.mask.clone_from(&seen.mask);
            row.gateway.clone_from(&seen.gateway);
            row.traffic_state = Some(seen.traffic_state.clone());
        }
        row
    });
    Ok(response::DescribeSagWanList {
        wans: rows.collect(),
        task_states: task_states!(d, "Wan", cx.now => describe_sag_wan_list),
    })
}

/// Gateways with a connected device, by the sum of what their devices reported.
async fn top(cx: &mut Cx, region: &str, rate: Rate) -> Result<Vec<Ranked>> {
    let since = cx.now - ONLINE_MS;
    cx.ranking(region, rate, since, TOP).await
}

pub async fn drop_top(
    cx: &mut Cx,
    request: request::DescribeSagDropTopN,
) -> Result<response::DescribeSagDropTopN> {
    let ranked = top(cx, &request.region_id, Rate::Drops).await?;
    let rows = ranked.into_iter().map(|gw| response::describe_sag_drop_top_n::DropTopN {
        drop_rate: format!("{:.1}", gw.rate),
        instance_id: gw.id,
        name: gw.name,
        region_id: gw.region,
    });
    Ok(response::DescribeSagDropTopN { drop_top_n: rows.collect() })
}

pub async fn traffic_top(
    cx: &mut Cx,
    request: request::DescribeSagTrafficTopN,
) -> Result<response::DescribeSagTrafficTopN> {
    let ranked = top(cx, &request.region_id, Rate::Traffic).await?;
    let rows = ranked.into_iter().map(|gw| response::describe_sag_traffic_top_n::TrafficTopN {
        traffic_rate: format!("{:.1}", gw.rate),
        instance_id: gw.id,
        name: gw.name,
        region_id: gw.region,
    });
    Ok(response::DescribeSagTrafficTopN { traffic_top_n: rows.collect() })
}

pub async fn gateway_ha(
    cx: &mut Cx,
    _: request::DescribeSmartAccessGatewayHa,
) -> Result<response::DescribeSmartAccessGatewayHa> {
    let gw = cx.gateway().await?;
    let mut running = cx.devices_of(&gw).await?;
    running.retain(|d| d.online(cx.now));
    if running.is_empty() {
        return Err(cx.err(&["SmartAccessGatewayNotOnline"]));
    }
    // Two devices that are both active do not stand in for each other.
    let of = |state: &str| running.iter().find(|d| d.reported.ha_state == state).map(|d| d.sn.clone());
    let (main, backup) = (of("Active"), of("Standby"));
    let on = main.is_some() && backup.is_some();
    let links = running.into_iter().flat_map(|d| d.state.link_backup);
    let links = links.map(|l| response::describe_smart_access_gateway_ha::LinkBackupInfoList {
        backup_link_id: l.backup_link_id,
        backup_link_state: l.backup_link_state,
        link_level_backup_state: l.level_backup_state,
        link_level_backup_type: l.level_backup_type,
        main_link_id: l.main_link_id,
        main_link_state: l.main_link_state,
    });
    Ok(response::DescribeSmartAccessGatewayHa {
        backup_device_id: backup,
        device_level_backup_state: if on { "ON" } else { "OFF" }.to_owned(),
        device_level_backup_type: gw.ha_type.clone(),
        link_backup_info_list: links.collect(),
        main_device_id: main,
        smart_ag_id: gw.id.clone(),
    })
}
