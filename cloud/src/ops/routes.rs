//! Routing of a device: protocols, BGP, OSPF, static routes.

use std::net::IpAddr;

use super::capability::check_wired;
use super::cx::Cx;
use super::fields::{copied, task_states};
use crate::api::{request, response};
use crate::domain::device::Device;
use crate::domain::device_config::{Bgp, Ospf, PortProtocol, StaticRoute, WHOLE_PORT, protocol_name};
use crate::domain::net;
use crate::error::{ApiError, Result};
use crate::store::secrets::mask;

const STATIC_QUOTA: usize = 100;

pub async fn modify_global(
    cx: &mut Cx,
    request: request::ModifySagGlobalRouteProtocol,
) -> Result<response::ModifySagGlobalRouteProtocol> {
    let mut d = cx.online_device().await?;
    if d.config.route_protocol != request.route_protocol {
        // Ports follow the device; what they had chosen no longer fits.
        d.config.port_protocols.clear();
    }
    d.config.route_protocol = request.route_protocol;
    cx.save_device(&mut d, "RouteProtocol").await?;
    Ok(response::ModifySagGlobalRouteProtocol::default())
}

pub async fn describe_global(
    cx: &mut Cx,
    _: request::DescribeSagGlobalRouteProtocol,
) -> Result<response::DescribeSagGlobalRouteProtocol> {
    let d = cx.device().await?;
    Ok(response::DescribeSagGlobalRouteProtocol {
        task_states: task_states!(d, "RouteProtocol", cx.now => describe_sag_global_route_protocol),
        route_protocol: d.config.route_protocol,
    })
}

pub async fn modify_bgp(
    cx: &mut Cx,
    request: request::ModifySagRouteProtocolBgp,
) -> Result<response::ModifySagRouteProtocolBgp> {
    let mut d = cx.online_device().await?;
    d.config.bgp = Some(copied!(request => Bgp { router_id, local_as, hold_time, keep_alive }));
    cx.save_device(&mut d, "Bgp").await?;
    Ok(response::ModifySagRouteProtocolBgp::default())
}

pub async fn describe_bgp(
    cx: &mut Cx,
    _: request::DescribeSagRouteProtocolBgp,
) -> Result<response::DescribeSagRouteProtocolBgp> {
    let d = cx.device().await?;
    let bgp = d.config.bgp.clone().unwrap_or_default();
    Ok(copied!(bgp => response::DescribeSagRouteProtocolBgp {
        router_id, local_as, hold_time, keep_alive;
        task_states: task_states!(d, "Bgp", cx.now => describe_sag_route_protocol_bgp),
    }))
}

pub async fn modify_ospf(
    cx: &mut Cx,
    request: request::ModifySagRouteProtocolOspf,
) -> Result<response::ModifySagRouteProtocolOspf> {
    let mut d = cx.online_device().await?;
    let mut ospf = copied!(request => Ospf {
        area_id, authentication_type, dead_time, hello_time, router_id;
        ..Ospf::default()
    });
    match ospf.authentication_type.as_str() {
        "MD5" => {
            let key = request.md5_key.ok_or_else(|| cx.missing("Md5Key"))?;
            ospf.sealed_md5_key = Some(cx.seal(&key)?);
            ospf.md5_key_id = Some(request.md5_key_id.ok_or_else(|| cx.missing("Md5KeyId"))?);
        }
        "CLEARTEXT" => {
            let password = request.password.ok_or_else(|| cx.missing("Password"))?;
            ospf.sealed_password = Some(cx.seal(&password)?);
        }
        _ => {}
    }
    d.config.ospf = Some(ospf);
    cx.save_device(&mut d, "Ospf").await?;
    Ok(response::ModifySagRouteProtocolOspf::default())
}

pub async fn describe_ospf(
    cx: &mut Cx,
    _: request::DescribeSagRouteProtocolOspf,
) -> Result<response::DescribeSagRouteProtocolOspf> {
    let d = cx.device().await?;
    let task_states = task_states!(d, "Ospf", cx.now => describe_sag_route_protocol_ospf);
    let Some(ospf) = d.config.ospf else {
        return Ok(response::DescribeSagRouteProtocolOspf { task_states, ..Default::default() });
    };
    let md5_key = match &ospf.sealed_md5_key {
        Some(sealed) => mask(&cx.cipher.open(sealed).map_err(ApiError::internal)?),
        None => String::new(),
    };
    Ok(copied!(ospf => response::DescribeSagRouteProtocolOspf {
        authentication_type, dead_time, hello_time, md5_key_id, router_id;
        area_id: ospf.area_id.to_string(),
        area_type: String::new(),
        md5_key,
        task_states,
    }))
}

/// Whether ports of the role can have a routing protocol.
fn speaks(role: &str) -> bool {
    ["LAN", "ECC", "WAN"].contains(&role)
}

pub async fn modify_port(
    cx: &mut Cx,
    request: request::ModifySagPortRouteProtocol,
) -> Result<response::ModifySagPortRouteProtocol> {
    let mut d = cx.device().await?;
    let (port, protocol) = (&request.port_name, &request.route_protocol);
    let role = d.role(port);
    let vlan = request.vlan.clone().unwrap_or_else(|| WHOLE_PORT.to_owned());
    let lines = d.config.ecc.get(port).filter(|_| role == "ECC");
    let there = vlan == WHOLE_PORT || lines.into_iter().flatten().any(|i| i.vlan == vlan);
    if d.port(port).is_none() || !speaks(&role) || !there {
        return Err(cx.err(&["Sag.RouteProtocolPortNotExist"]));
    }
    // An interior protocol has no business with the Internet's routers.
    if role == "WAN" && protocol == "OSPF" {
        return Err(cx.err(&["Sag.RouteProtocolPortNotExist"]));
    }
    if role == "ECC" && protocol == "OSPF" {
        return Err(cx.err(&["Sag.EccRouteTypeError"]));
    }
    if protocol != "STATIC" && d.config.route_protocol != *protocol {
        return Err(cx.err(&["Sag.RouteTypeNotMatch"]));
    }
    let mut entry = copied!(request => PortProtocol { route_protocol, vlan; ..PortProtocol::default() });
    if protocol == "BGP" {
        if request.remote_ip.as_deref().is_none_or(|ip| ip.parse::<IpAddr>().is_err()) {
            return Err(cx.invalid("RemoteIp"));
        }
        let number = request.remote_as.as_deref().and_then(|n| n.parse::<u32>().ok());
        if number.is_none_or(|n| n == 0) {
            return Err(cx.invalid("RemoteAs"));
        }
        entry.remote_ip = request.remote_ip;
        entry.remote_as = request.remote_as;
    }
    let name = protocol_name(port, &vlan);
    d.config.forget_protocols(&request.port_name, Some(&vlan));
    d.config.port_protocols.insert(name, entry);
    cx.save_device(&mut d, "PortProtocols").await?;
    Ok(response::ModifySagPortRouteProtocol::default())
}

pub async fn describe_ports(
    cx: &mut Cx,
    _: request::DescribeSagPortRouteProtocolList,
) -> Result<response::DescribeSagPortRouteProtocolList> {
    let d = cx.device().await?;
    let ports = d.current_ports().into_iter().filter(|p| speaks(&p.role));
    // A row for each VLAN of a leased line.
    let rows = ports.flat_map(|p| {
        let lines = d.config.ecc.get(&p.port_name).filter(|_| p.role == "ECC");
        let mut vlans: Vec<String> = lines.into_iter().flatten().map(|i| i.vlan.clone()).collect();
        if vlans.is_empty() {
            vlans.push(WHOLE_PORT.to_owned());
        }
        vlans.into_iter().map(move |vlan| (p.clone(), vlan)).collect::<Vec<_>>()
    });
    let rows = rows.map(|(p, vlan)| {
        let status = if p.is_up() { "UP" } else { "DOWN" };
        let entry = d.config.protocol(&p.port_name, &vlan).cloned().unwrap_or_else(|| PortProtocol {
            route_protocol: "STATIC".to_owned(),
            ..PortProtocol::default()
        });
        let neighbors = d.route_neighbors(&protocol_name(&p.port_name, &vlan));
        response::describe_sag_port_route_protocol_list::Ports {
            neighbor_ip: (!neighbors.is_empty()).then(|| neighbors.join(",")),
            port_name: p.port_name,
            remote_as: entry.remote_as,
            remote_ip: entry.remote_ip,
            route_protocol: entry.route_protocol,
            status: status.to_owned(),
            vlan: (p.role == "ECC").then_some(vlan),
        }
    });
    Ok(response::DescribeSagPortRouteProtocolList {
        ports: rows.collect(),
        task_states: task_states!(d, "PortProtocols", cx.now => describe_sag_port_route_protocol_list),
    })
}

/// Checks the port and the VLAN of a static route.
fn check_port(cx: &Cx, d: &Device, port: &str, vlan: &str) -> Result<()> {
    if d.port(port).is_none() {
        return Err(cx.err(&["Sag.PortNotExist"]));
    }
    let role = d.role(port);
    if role == "NONE" || role == "MGT" {
        return Err(cx.err(&["Sag.PortRoleInvalid"]));
    }
    if !vlan.parse::<u16>().is_ok_and(|n| n <= 4094) {
        return Err(cx.invalid("Vlan"));
    }
    let mut interfaces = d.config.ecc.get(port).into_iter().flatten();
    if vlan != WHOLE_PORT && !interfaces.any(|i| i.vlan == vlan) {
        return Err(cx.err(&["Sag.EccVlanNotExist"]));
    }
    Ok(())
}

/// The only block of the text, as it is stored.
fn destination(cx: &Cx, text: &str) -> Result<String> {
    let block = net::cidr_list(text).filter(|b| b.len() == 1);
    block.map(|b| b[0].to_string()).ok_or_else(|| cx.invalid("DestinationCidr"))
}

fn check_next_hop(cx: &Cx, hop: &str) -> Result<()> {
    if net::ip(hop).is_some() { Ok(()) } else { Err(cx.invalid("NextHop")) }
}

/// Whether the routes have the same port, VLAN and destination.
fn is_same(a: &StaticRoute, b: &StaticRoute) -> bool {
    a.port_name == b.port_name && a.vlan == b.vlan && a.destination_cidr == b.destination_cidr
}

pub async fn create_static(
    cx: &mut Cx,
    request: request::CreateSagStaticRoute,
) -> Result<response::CreateSagStaticRoute> {
    let mut d = cx.device().await?;
    let vlan = request.vlan.clone().unwrap_or_else(|| WHOLE_PORT.to_owned());
    check_port(cx, &d, &request.port_name, &vlan)?;
    check_wired(cx, &d, &request.port_name)?;
    let destination_cidr = destination(cx, &request.destination_cidr)?;
    check_next_hop(cx, &request.next_hop)?;
    let route = copied!(request => StaticRoute { port_name, next_hop; vlan, destination_cidr });
    if d.config.static_routes.iter().any(|r| is_same(r, &route)) {
        return Err(cx.err(&["Sag.StaticRouteExist"]));
    }
    if d.config.static_routes.len() >= STATIC_QUOTA {
        return Err(cx.err(&["SAG.CidrAmountLimit"]));
    }
    d.config.static_routes.push(route);
    cx.save_device(&mut d, "StaticRoutes").await?;
    Ok(response::CreateSagStaticRoute::default())
}

pub async fn modify_static(
    cx: &mut Cx,
    request: request::ModifySagStaticRoute,
) -> Result<response::ModifySagStaticRoute> {
    let mut d = cx.device().await?;
    let vlan = request.vlan.clone().unwrap_or_else(|| WHOLE_PORT.to_owned());
    check_port(cx, &d, &request.port_name, &vlan)?;
    let destination_cidr = destination(cx, &request.destination_cidr)?;
    check_next_hop(cx, &request.next_hop)?;
    let route = copied!(request => StaticRoute { port_name, next_hop; vlan, destination_cidr });
    let found = d.config.static_routes.iter_mut().find(|r| is_same(r, &route));
    *found.ok_or_else(|| cx.err(&["Sag.StaticRouteNotExist"]))? = route;
    cx.save_device(&mut d, "StaticRoutes").await?;
    Ok(response::ModifySagStaticRoute::default())
}

pub async fn delete_static(
    cx: &mut Cx,
    request: request::DeleteSagStaticRoute,
) -> Result<response::DeleteSagStaticRoute> {
    let mut d = cx.device().await?;
    if d.port(&request.port_name).is_none() {
        return Err(cx.err(&["Sag.PortNotExist"]));
    }
    let vlan = request.vlan.clone().unwrap_or_else(|| WHOLE_PORT.to_owned());
    let destination_cidr = destination(cx, &request.destination_cidr)?;
    let route =
        copied!(request => StaticRoute { port_name; vlan, destination_cidr, ..StaticRoute::default() });
    let before = d.config.static_routes.len();
    d.config.static_routes.retain(|r| !is_same(r, &route));
    if d.config.static_routes.len() == before {
        return Err(cx.err(&["Sag.StaticRouteNotExist"]));
    }
    cx.save_device(&mut d, "StaticRoutes").await?;
    Ok(response::DeleteSagStaticRoute::default())
}

pub async fn describe_static(
    cx: &mut Cx,
    _: request::DescribeSagStaticRouteList,
) -> Result<response::DescribeSagStaticRouteList> {
    let d = cx.device().await?;
    let rows = d.config.static_routes.iter().map(|r| {
        copied!(r => response::describe_sag_static_route_list::StaticRoutes {
            destination_cidr, next_hop, port_name, vlan,
        })
    });
    Ok(response::DescribeSagStaticRouteList {
        static_routes: rows.collect(),
        task_states: task_states!(d, "StaticRoutes", cx.now => describe_sag_static_route_list),
    })
}
