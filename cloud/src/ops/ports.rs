//! Ports of a device: roles, WAN, LAN, management, leased lines.

use super::capability::check_wired;
use super::cx::Cx;
use super::fields::{copied, task_states};
use crate::api::{request, response};
use crate::domain::device::Device;
use crate::domain::device_config::{EccInterface, Lan, Management, Port, WHOLE_PORT, Wan};
use crate::domain::net;
use crate::error::Result;

/// Ports that may have a role at the same time.
fn role_limit(role: &str) -> usize {
    match role {
        "MGT" => 1,
        "WAN" | "LAN" | "ECC" => 4,
        _ => usize::MAX,
    }
}

const ECC_VLANS: usize = 5;

fn with_role(d: &Device, role: &str) -> Vec<String> {
    d.current_ports().into_iter().filter(|p| p.role == role).map(|p| p.port_name).collect()
}

/// The port must exist and have the role.
fn require_role(cx: &Cx, d: &Device, port: &str, role: &str) -> Result<()> {
    if d.port(port).is_none() {
        return Err(cx.err(&["Sag.PortNotExist"]));
    }
    if d.role(port) != role {
        return Err(cx.err(&["Sag.PortRoleInvalid"]));
    }
    Ok(())
}

pub async fn modify_role(
    cx: &mut Cx,
    request: request::ModifySagPortRole,
) -> Result<response::ModifySagPortRole> {
    let mut d = cx.device().await?;
    let (name, role) = (request.port_name, request.role);
    let Some(mut port) = d.port(&name) else { return Err(cx.err(&["Sag.PortNotExist"])) };
    let old = d.role(&name);
    if old == "MGT" && role != "MGT" {
        return Err(cx.err(&["Sag.PortMgtError"]));
    }
    if role != "NONE" {
        check_wired(cx, &d, &name)?;
    }
    if d.config.ha.port_name.as_ref() == Some(&name) {
        return Err(cx.err(&["Sag.HaPortExist"]));
    }
    if old != role && with_role(&d, &role).len() >= role_limit(&role) {
        return Err(cx.err(&["Sag.PortRoleLimit"]));
    }
    let config = &mut d.config;
    if old != role {
        config.wan.remove(&name);
        config.lan.remove(&name);
        config.ecc.remove(&name);
        config.forget_protocols(&name, None);
        config.static_routes.retain(|r| r.port_name != name);
        match role.as_str() {
            "WAN" => {
                config.wan.insert(name.clone(), Wan::default());
            }
            "ECC" => {
                config.ecc.insert(name.clone(), Vec::new());
            }
            _ => {}
        }
    }
    match config.ports.iter_mut().find(|p| p.port_name == name) {
        Some(p) => p.role = role,
        None => {
            port.role = role;
            config.ports.push(port);
        }
    }
    cx.save_device(&mut d, "Ports").await?;
    Ok(response::ModifySagPortRole::default())
}

pub async fn describe(cx: &mut Cx, _: request::DescribeSagPortList) -> Result<response::DescribeSagPortList> {
    use response::describe_sag_port_list::Ports;
    let d = cx.device().await?;
    let row = |p: Port| copied!(p => Ports { mac, port_name, role, status });
    Ok(response::DescribeSagPortList {
        ports: d.current_ports().into_iter().map(row).collect(),
        task_states: task_states!(d, "Ports", cx.now => describe_sag_port_list),
    })
}

pub async fn modify_wan(cx: &mut Cx, request: request::ModifySagWan) -> Result<response::ModifySagWan> {
    let mut d = cx.device().await?;
    require_role(cx, &d, &request.port_name, "WAN")?;
    check_wired(cx, &d, &request.port_name)?;
    // What the request does not give stays; the address and the user belong to one way of getting an address.
    let old = d.config.wan.get(&request.port_name).cloned().unwrap_or_default();
    let mut wan = Wan {
        priority: request.priority.unwrap_or(old.priority),
        weight: request.weight.unwrap_or(old.weight),
        isp: request.isp.or(old.isp),
        bandwidth: request.bandwidth.or(old.bandwidth),
        ip_type: request.ip_type,
        ..Wan::default()
    };
    match wan.ip_type.as_str() {
        "STATIC" => {
            let (ip, mask) = (request.ip.unwrap_or_default(), request.mask.unwrap_or_default());
            let gateway = request.gateway.unwrap_or_default();
            check_address(cx, &ip, &mask, Some(&gateway))?;
            (wan.ip, wan.mask, wan.gateway) = (Some(ip), Some(mask), Some(gateway));
        }
        "PPPOE" => {
            wan.username = request.username;
            // Without a new password the old one stays.
            wan.sealed_password = match request.password {
                Some(p) => Some(cx.seal(&p)?),
                None => Some(old.sealed_password.ok_or_else(|| cx.missing("Password"))?),
            };
        }
        _ => {}
    }
    d.config.wan.insert(request.port_name, wan);
    cx.save_device(&mut d, "Wan").await?;
    Ok(response::ModifySagWan::default())
}

/// An address, its mask and maybe a gateway in the same block.
fn check_address(cx: &Cx, ip: &str, mask: &str, gateway: Option<&str>) -> Result<()> {
    if net::ip(ip).is_none() {
        return Err(cx.invalid("IP"));
    }
    let Some(block) = net::with_mask(ip, mask) else {
        return Err(cx.invalid("Mask"));
    };
    if let Some(gw) = gateway {
        let ok = net::ip(gw).is_some_and(|g| block.contains(&g) && gw != ip);
        if !ok {
            return Err(cx.invalid("Gateway"));
        }
    }
    Ok(())
}

pub async fn modify_lan(cx: &mut Cx, request: request::ModifySagLan) -> Result<response::ModifySagLan> {
    let mut d = cx.device().await?;
    require_role(cx, &d, &request.port_name, "LAN")?;
    check_wired(cx, &d, &request.port_name)?;
    check_address(cx, &request.ip, &request.mask, None)?;
    if request.ip_type == "DHCP" {
        let block = net::with_mask(&request.ip, &request.mask);
        let inside = |given: &Option<String>| match (given, block) {
            (Some(v), Some(b)) => net::ip(v).filter(|ip| b.contains(ip)).map(Some),
            _ => Some(None),
        };
        let start = inside(&request.start_ip).ok_or_else(|| cx.invalid("StartIp"))?;
        let end = inside(&request.end_ip).ok_or_else(|| cx.invalid("EndIp"))?;
        if matches!((start, end), (Some(s), Some(e)) if e < s) {
            return Err(cx.invalid("EndIp"));
        }
    }
    let lan = copied!(request => Lan { ip_type, ip, mask, start_ip, end_ip, lease });
    d.config.lan.insert(request.port_name, lan);
    cx.save_device(&mut d, "Lan").await?;
    Ok(response::ModifySagLan::default())
}

pub async fn describe_lans(
    cx: &mut Cx,
    _: request::DescribeSagLanList,
) -> Result<response::DescribeSagLanList> {
    use response::describe_sag_lan_list::Lans;
    let d = cx.device().await?;
    let row = |port_name: String| match d.config.lan.get(&port_name) {
        Some(lan) => {
            copied!(lan => Lans { ip_type, ip, mask, start_ip, end_ip, lease; port_name })
        }
        None => Lans { ip_type: "STATIC".to_owned(), port_name, ..Lans::default() },
    };
    Ok(response::DescribeSagLanList {
        lans: with_role(&d, "LAN").into_iter().map(row).collect(),
        task_states: task_states!(d, "Lan", cx.now => describe_sag_lan_list),
    })
}

pub async fn modify_management(
    cx: &mut Cx,
    request: request::ModifySagManagementPort,
) -> Result<response::ModifySagManagementPort> {
    let mut d = cx.device().await?;
    if with_role(&d, "MGT").is_empty() {
        return Err(cx.err(&["Sag.PortMgtError"]));
    }
    check_address(cx, &request.ip, &request.mask, request.gateway.as_deref())?;
    d.config.management = Some(copied!(request => Management { ip, mask, gateway }));
    cx.save_device(&mut d, "Management").await?;
    Ok(response::ModifySagManagementPort::default())
}

pub async fn describe_management(
    cx: &mut Cx,
    _: request::DescribeSagManagementPort,
) -> Result<response::DescribeSagManagementPort> {
    let d = cx.device().await?;
    let management = d.config.management.clone().unwrap_or_default();
    Ok(copied!(management => response::DescribeSagManagementPort {
        ip, mask, gateway;
        task_states: task_states!(d, "Management", cx.now => describe_sag_management_port),
    }))
}

/// The interfaces of a leased-line port.
fn interfaces<'a>(cx: &Cx, d: &'a mut Device, port: &str) -> Result<&'a mut Vec<EccInterface>> {
    require_role(cx, d, port, "ECC")?;
    Ok(d.config.ecc.entry(port.to_owned()).or_default())
}

pub async fn create_ecc(
    cx: &mut Cx,
    request: request::CreateSagExpressConnectInterface,
) -> Result<response::CreateSagExpressConnectInterface> {
    let mut d = cx.device().await?;
    let vlan = request.vlan.clone().unwrap_or_else(|| WHOLE_PORT.to_owned());
    check_wired(cx, &d, &request.port_name)?;
    let rows = interfaces(cx, &mut d, &request.port_name)?;
    check_address(cx, &request.ip, &request.mask, None)?;
    if rows.iter().any(|i| i.vlan == vlan) {
        return Err(cx.err(&["Sag.EccVlanExist"]));
    }
    if rows.iter().any(|i| i.vlan == WHOLE_PORT) || (vlan == WHOLE_PORT && !rows.is_empty()) {
        return Err(cx.err(&["Sag.EccVlanDefault"]));
    }
    if rows.len() >= ECC_VLANS {
        return Err(cx.err(&["Sag.EccVlanOverLimit"]));
    }
    rows.push(copied!(request => EccInterface { ip, mask; vlan }));
    cx.save_device(&mut d, "Ecc").await?;
    Ok(response::CreateSagExpressConnectInterface::default())
}

pub async fn modify_ecc(
    cx: &mut Cx,
    request: request::ModifySagExpressConnectInterface,
) -> Result<response::ModifySagExpressConnectInterface> {
    let mut d = cx.device().await?;
    let vlan = request.vlan.clone().unwrap_or_else(|| WHOLE_PORT.to_owned());
    check_wired(cx, &d, &request.port_name)?;
    let rows = interfaces(cx, &mut d, &request.port_name)?;
    check_address(cx, &request.ip, &request.mask, None)?;
    let Some(row) = rows.iter_mut().find(|i| i.vlan == vlan) else {
        return Err(cx.err(&["Sag.EccVlanNotExist"]));
    };
    *row = copied!(request => EccInterface { ip, mask; vlan });
    cx.save_device(&mut d, "Ecc").await?;
    Ok(response::ModifySagExpressConnectInterface::default())
}

pub async fn delete_ecc(
    cx: &mut Cx,
    request: request::DeleteSagExpressConnectInterface,
) -> Result<response::DeleteSagExpressConnectInterface> {
    let mut d = cx.device().await?;
    let (port, vlan) = (request.port_name, request.vlan.unwrap_or_else(|| WHOLE_PORT.to_owned()));
    let rows = interfaces(cx, &mut d, &port)?;
    let before = rows.len();
    rows.retain(|i| i.vlan != vlan);
    if rows.len() == before {
        return Err(cx.err(&["Sag.EccVlanNotExist"]));
    }
    d.config.static_routes.retain(|r| r.port_name != port || r.vlan != vlan);
    d.config.forget_protocols(&port, Some(&vlan));
    cx.save_device(&mut d, "Ecc").await?;
    Ok(response::DeleteSagExpressConnectInterface::default())
}

pub async fn describe_ecc(
    cx: &mut Cx,
    request: request::DescribeSagExpressConnectInterfaceList,
) -> Result<response::DescribeSagExpressConnectInterfaceList> {
    use response::describe_sag_express_connect_interface_list::Interfaces;
    let mut d = cx.device().await?;
    let rows = interfaces(cx, &mut d, &request.port_name)?;
    Ok(response::DescribeSagExpressConnectInterfaceList {
        interfaces: rows.iter().map(|i| copied!(i => Interfaces { vlan, ip, mask })).collect(),
        task_states: task_states!(d, "Ecc", cx.now => describe_sag_express_connect_interface_list),
    })
}
