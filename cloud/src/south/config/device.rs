//! The settings of the device itself, as the contract has them.

use std::collections::BTreeMap;

use sag_southbound as sent;

use super::{open_if_any, word};
use crate::domain::device_config as stored;
use crate::error::{ApiError, Result};
use crate::store::secrets::Cipher;

/// What is kept for each port.
pub fn by_port<T, R>(
    all: &BTreeMap<String, T>,
    as_sent: impl Fn(&T) -> Result<R>,
) -> Result<BTreeMap<String, R>> {
    all.iter().map(|(port, of)| Ok((port.clone(), as_sent(of)?))).collect()
}

fn text(of: &Option<String>) -> String {
    of.clone().unwrap_or_default()
}

/// A VLAN, which the API has as text; empty: none is set.
fn vlan(text: &str) -> Result<Option<i64>> {
    let number = |v: &str| v.parse().map_err(|_| ApiError::internal(format!("{v:?} is no VLAN")));
    Some(text.trim()).filter(|v| !v.is_empty()).map(number).transpose()
}

pub fn port(of: &stored::Port) -> sent::PortEntry {
    sent::PortEntry {
        port_name: of.port_name.clone(),
        role: word(&of.role),
        status: of.status.clone(),
        mac: of.mac.clone(),
    }
}

pub fn wan(cipher: &Cipher, of: &stored::Wan) -> Result<sent::Wan> {
    Ok(sent::Wan {
        ip_type: word(&of.ip_type),
        ip: text(&of.ip),
        mask: text(&of.mask),
        gateway: text(&of.gateway),
        priority: Some(of.priority),
        weight: Some(of.weight),
        isp: text(&of.isp),
        bandwidth: of.bandwidth,
        username: text(&of.username),
        password: open_if_any(cipher, of.sealed_password.as_deref())?,
    })
}

pub fn lan(of: &stored::Lan) -> sent::Lan {
    sent::Lan {
        ip_type: word(&of.ip_type),
        ip: of.ip.clone(),
        mask: of.mask.clone(),
        start_ip: text(&of.start_ip),
        end_ip: text(&of.end_ip),
        lease: text(&of.lease),
    }
}

pub fn leased_line(of: &stored::EccInterface) -> Result<sent::LeasedLine> {
    Ok(sent::LeasedLine { vlan: vlan(&of.vlan)?, ip: of.ip.clone(), mask: of.mask.clone() })
}

pub fn management(of: &stored::Management) -> sent::Management {
    sent::Management { ip: of.ip.clone(), mask: of.mask.clone(), gateway: of.gateway.clone() }
}

pub fn bgp(of: &stored::Bgp) -> sent::Bgp {
    sent::Bgp {
        router_id: of.router_id.clone(),
        local_as: Some(of.local_as),
        hold_time: Some(of.hold_time),
        keep_alive: Some(of.keep_alive),
    }
}

pub fn ospf(cipher: &Cipher, of: &stored::Ospf) -> Result<sent::Ospf> {
    Ok(sent::Ospf {
        router_id: of.router_id.clone(),
        area_id: Some(of.area_id),
        dead_time: Some(of.dead_time),
        hello_time: Some(of.hello_time),
        authentication_type: of.authentication_type.clone(),
        md5_key_id: of.md5_key_id,
        md5_key: open_if_any(cipher, of.sealed_md5_key.as_deref())?,
        password: open_if_any(cipher, of.sealed_password.as_deref())?,
    })
}

pub fn port_protocol(of: &stored::PortProtocol) -> Result<sent::PortProtocol> {
    Ok(sent::PortProtocol {
        route_protocol: word(&of.route_protocol),
        vlan: vlan(of.vlan.as_deref().unwrap_or_default())?,
        remote_ip: text(&of.remote_ip),
        remote_as: text(&of.remote_as),
    })
}

pub fn static_route(of: &stored::StaticRoute) -> Result<sent::StaticRoute> {
    Ok(sent::StaticRoute {
        port_name: of.port_name.clone(),
        vlan: vlan(&of.vlan)?,
        destination: of.destination_cidr.clone(),
        next_hop: of.next_hop.clone(),
    })
}

pub fn dns(of: &stored::Dns) -> sent::Dns {
    sent::Dns { master: of.master_dns.clone(), slave: of.slave_dns.clone() }
}

pub fn dns_forward(of: &stored::DnsForward) -> sent::DnsForward {
    sent::DnsForward {
        id: of.instance_id.clone(),
        domain: of.domain.clone(),
        master: of.master_ip.clone(),
        slave: text(&of.slave_ip),
        outbound_port_type: text(&of.outbound_port_type),
        outbound_port_index: of.outbound_port_index,
        outbound_port_name: text(&of.outbound_port_name),
    }
}

pub fn ha(of: &stored::Ha) -> sent::HighAvailability {
    sent::HighAvailability {
        mode: word(&of.mode),
        port_name: text(&of.port_name),
        virtual_ip: text(&of.virtual_ip),
    }
}

pub fn upgrade_policy(of: &stored::UpgradePolicy) -> sent::UpgradePolicy {
    sent::UpgradePolicy {
        cron_expression: of.cron_expression.clone(),
        duration: Some(of.duration),
        time_zone: of.time_zone.clone(),
        upgrade_type: of.upgrade_type.clone(),
    }
}
