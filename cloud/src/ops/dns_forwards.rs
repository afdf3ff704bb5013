//! Domains whose names a device resolves by DNS servers of their own.

use std::net::IpAddr;

use super::cx::Cx;
use super::fields::copied;
use super::monitor::{OK, SUCCESSFUL};
use crate::api::{request, response};
use crate::domain::device::Device;
use crate::domain::device_config::DnsForward;
use crate::domain::net;
use crate::error::{ApiError, Result};

/// Domains of one device.
const QUOTA: usize = 100;
const SECTION: &str = "DnsForwards";

/// Queries that leave by a tunnel have no port.
const TUNNEL: &str = "Tunnel";

fn check(cx: &Cx, d: &Device, forward: &DnsForward) -> Result<()> {
    if !net::is_domain(forward.domain.strip_prefix("*.").unwrap_or(&forward.domain)) {
        return Err(cx.invalid("Domain"));
    }
    let servers = [("MasterIp", Some(&forward.master_ip)), ("SlaveIp", forward.slave_ip.as_ref())];
    for (field, server) in servers {
        if server.is_some_and(|s| s.parse::<IpAddr>().is_err()) {
            return Err(cx.invalid(field));
        }
    }
    let named = forward.outbound_port_name.as_ref().is_some_and(|name| d.port(name).is_none());
    if named && forward.outbound_port_type.as_deref() != Some(TUNNEL) {
        return Err(cx.err(&["Sag.PortNotExist"]));
    }
    let same = |f: &DnsForward| {
        f.instance_id != forward.instance_id && f.domain.eq_ignore_ascii_case(&forward.domain)
    };
    if d.config.dns_forwards.iter().any(same) {
        return Err(ApiError::new(400, "DnsForward.DomainExist", "The domain has DNS servers already."));
    }
    Ok(())
}

pub async fn add(
    cx: &mut Cx,
    request: request::AddSmartAccessGatewayDnsForward,
) -> Result<response::AddSmartAccessGatewayDnsForward> {
    use response::add_smart_access_gateway_dns_forward::Data;
    let mut d = cx.device().await?;
    let index = request.outbound_port_index.as_deref().map(|n| n.parse::<i64>());
    let index = index.transpose().map_err(|_| cx.invalid("OutboundPortIndex"))?;
    let forward = copied!(request => DnsForward {
        domain, master_ip, slave_ip, mode, outbound_port_name, outbound_port_type;
        instance_id: cx.new_id("dnsf")?,
        outbound_port_index: index,
    });
    check(cx, &d, &forward)?;
    if d.config.dns_forwards.len() >= QUOTA {
        return Err(ApiError::new(
            400,
            "QuotaExceeded.DnsForward",
            "The device has as many domains as it may.",
        ));
    }
    d.config.dns_forwards.push(forward.clone());
    cx.save_device(&mut d, SECTION).await?;
    Ok(response::AddSmartAccessGatewayDnsForward {
        code: OK.to_owned(),
        data: copied!(forward => Data {
            domain, instance_id, master_ip, mode, outbound_port_index, outbound_port_name, outbound_port_type, slave_ip,
        }),
        http_status_code: 200,
        message: SUCCESSFUL.to_owned(),
        success: true,
    })
}

/// The place of a domain in the list of its device.
fn place(cx: &Cx, d: &Device, id: &str) -> Result<usize> {
    let found = d.config.dns_forwards.iter().position(|f| f.instance_id == id);
    found.ok_or_else(|| cx.err(&["InstanceNotExit"]))
}

/// What is left out is taken away: the request names all of it.
pub async fn update(
    cx: &mut Cx,
    request: request::UpdateSmartAccessGatewayDnsForward,
) -> Result<response::UpdateSmartAccessGatewayDnsForward> {
    let mut d = cx.device().await?;
    let at = place(cx, &d, &request.instance_id)?;
    let forward = copied!(request => DnsForward {
        instance_id, domain, master_ip, slave_ip, mode, outbound_port_index, outbound_port_name, outbound_port_type,
    });
    check(cx, &d, &forward)?;
    d.config.dns_forwards[at] = forward;
    cx.save_device(&mut d, SECTION).await?;
    Ok(response::UpdateSmartAccessGatewayDnsForward {
        code: OK.to_owned(),
        http_status_code: OK.to_owned(),
        message: SUCCESSFUL.to_owned(),
        success: "true".to_owned(),
    })
}

pub async fn delete(
    cx: &mut Cx,
    request: request::DeleteSmartAccessGatewayDnsForward,
) -> Result<response::DeleteSmartAccessGatewayDnsForward> {
    let mut d = cx.device().await?;
    let at = place(cx, &d, &request.instance_id)?;
    d.config.dns_forwards.remove(at);
    cx.save_device(&mut d, SECTION).await?;
    Ok(response::DeleteSmartAccessGatewayDnsForward {
        code: OK.to_owned(),
        http_status_code: OK.to_owned(),
        message: SUCCESSFUL.to_owned(),
        success: "true".to_owned(),
    })
}

pub async fn view(
    cx: &mut Cx,
    _: request::ViewSmartAccessGatewayDnsForwards,
) -> Result<response::ViewSmartAccessGatewayDnsForwards> {
    use response::view_smart_access_gateway_dns_forwards::Data;
    let d = cx.device().await?;
    let rows = d.config.dns_forwards.iter().map(|f| {
        copied!(f => Data {
            domain, instance_id, master_ip, mode, outbound_port_index, outbound_port_name, outbound_port_type, slave_ip,
        })
    });
    Ok(response::ViewSmartAccessGatewayDnsForwards {
        code: OK.to_owned(),
        count: rows.len() as i64,
        data: rows.collect(),
        http_status_code: 200,
        message: SUCCESSFUL.to_owned(),
        success: true,
    })
}
