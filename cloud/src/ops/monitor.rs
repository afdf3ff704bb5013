//! Monitoring of a gateway: how often its devices report, and the addresses that their probes have.

use super::cx::Cx;
use crate::api::{request, response};
use crate::domain::device::Device;
use crate::domain::net;
use crate::error::{ApiError, Result};
use crate::store::objects::Filter;

/// What an answer without a fault says.
pub const OK: &str = "200";
pub const SUCCESSFUL: &str = "Successful";

/// Addresses of one device.
const QUOTA: usize = 10;
const SECTION: &str = "ServiceAddresses";

pub async fn set_advanced(
    cx: &mut Cx,
    request: request::SetAdvancedMonitorState,
) -> Result<response::SetAdvancedMonitorState> {
    let mut gw = cx.gateway().await?;
    gw.edit().advanced_monitor = Some(request.enable);
    cx.save_gateway(&gw).await?;
    Ok(response::SetAdvancedMonitorState { code: OK.to_owned(), message: SUCCESSFUL.to_owned() })
}

pub async fn advanced(
    cx: &mut Cx,
    _: request::GetAdvancedMonitorState,
) -> Result<response::GetAdvancedMonitorState> {
    use response::get_advanced_monitor_state::Data;
    let gw = cx.gateway().await?;
    Ok(response::GetAdvancedMonitorState {
        code: OK.to_owned(),
        data: vec![Data { enable: gw.advanced_monitor == Some(true) }],
        message: SUCCESSFUL.to_owned(),
    })
}

pub async fn create_address(
    cx: &mut Cx,
    request: request::CreateServiceAddress,
) -> Result<response::CreateServiceAddress> {
    let mut d = cx.device().await?;
    let address = net::ip(&request.address).filter(|ip| {
        !(ip.is_unspecified()
            || ip.is_loopback()
            || ip.is_multicast()
            || ip.is_broadcast()
            || ip.is_link_local())
    });
    let address = address.ok_or_else(|| cx.invalid("Address"))?.to_string();
    // The branches of an account reach each other, so an address is there once.
    let filter = Filter::of(cx.uid());
    let taken = |peer: &Device| {
        peer.config.remote_access_ip == address || peer.config.service_addresses.contains(&address)
    };
    if cx.inspect_devices(&filter, taken).await?.contains(&true) {
        return Err(cx.err(&["IllegalRemoteIp.Conflict"]));
    }
    if d.config.service_addresses.len() >= QUOTA {
        let text = "The device has as many service addresses as it may.";
        return Err(ApiError::new(400, "QuotaExceeded.ServiceAddress", text));
    }
    d.config.service_addresses.push(address);
    cx.save_device(&mut d, SECTION).await?;
    Ok(response::CreateServiceAddress { code: OK.to_owned(), message: SUCCESSFUL.to_owned() })
}

pub async fn delete_address(
    cx: &mut Cx,
    request: request::DeleteServiceAddress,
) -> Result<response::DeleteServiceAddress> {
    let mut d = cx.device().await?;
    let before = d.config.service_addresses.len();
    d.config.service_addresses.retain(|a| *a != request.address);
    if d.config.service_addresses.len() == before {
        return Err(cx.err(&["InstanceNotExit"]));
    }
    cx.save_device(&mut d, SECTION).await?;
    Ok(response::DeleteServiceAddress { code: OK.to_owned(), message: SUCCESSFUL.to_owned() })
}

pub async fn list_addresses(
    cx: &mut Cx,
    request: request::ListAvailableServiceAddress,
) -> Result<response::ListAvailableServiceAddress> {
    use response::list_available_service_address::Data;
    let d = cx.device().await?;
    let probes = d.config.service_addresses.iter().map(|a| (a, "ProbeTask"));
    let remote = Some(&d.config.remote_access_ip).filter(|a| !a.is_empty()).map(|a| (a, "RemoteWeb"));
    let wanted = |kind: &str| request.address_type.as_ref().is_none_or(|t| t == kind);
    let rows = probes.chain(remote).filter(|(_, kind)| wanted(kind));
    Ok(response::ListAvailableServiceAddress {
        code: OK.to_owned(),
        data: rows.map(|(a, kind)| Data { address: a.clone(), address_type: kind.to_owned() }).collect(),
        message: SUCCESSFUL.to_owned(),
    })
}
