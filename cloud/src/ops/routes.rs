//! Routing of a device: protocols, BGP, OSPF, static routes.

use serde_json::{Value, json};

use super::cx::{Cx, empty};
use crate::domain::device::Device;
use crate::domain::net;
use crate::error::Result;
use crate::store::secrets::mask;

const STATIC_QUOTA: usize = 100;

pub async fn modify_global(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.online_device().await?;
    let protocol = cx.text("RouteProtocol");
    if d.get("RouteProtocol") != protocol.as_str() {
        // Ports follow the device; what they had chosen no longer fits.
        d.set("PortProtocols", json!({}));
    }
    d.set("RouteProtocol", protocol.into());
    cx.save_device(&mut d, "RouteProtocol").await?;
    Ok(empty())
}

pub async fn describe_global(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    let tasks = d.tasks("RouteProtocol", cx.now);
    Ok(json!({"RouteProtocol": d.get("RouteProtocol"), "TaskStates": tasks}))
}

pub async fn modify_bgp(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.online_device().await?;
    let bgp = cx.fields(&["RouterId", "LocalAs", "HoldTime", "KeepAlive"]);
    d.set("Bgp", Value::Object(bgp));
    cx.save_device(&mut d, "Bgp").await?;
    Ok(empty())
}

pub async fn describe_bgp(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    let mut out = json!({"TaskStates": d.tasks("Bgp", cx.now)});
    merge(&mut out, d.get("Bgp"));
    Ok(out)
}

pub async fn modify_ospf(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.online_device().await?;
    let kind = cx.text("AuthenticationType");
    let mut names = vec!["AreaId", "AuthenticationType", "DeadTime", "HelloTime", "RouterId"];
    let (secret, sealed) = match kind.as_str() {
        "MD5" => ("Md5Key", "SealedMd5Key"),
        "CLEARTEXT" => ("Password", "SealedPassword"),
        _ => ("", ""),
    };
    if kind == "MD5" {
        names.push("Md5KeyId");
    }
    let mut ospf = cx.fields(&names);
    if !secret.is_empty() {
        let Some(value) = cx.opt(secret) else { return Err(cx.missing(secret)) };
        ospf.insert(sealed.to_owned(), cx.seal(&value)?.into());
    }
    if kind == "MD5" && !ospf.contains_key("Md5KeyId") {
        return Err(cx.missing("Md5KeyId"));
    }
    d.set("Ospf", Value::Object(ospf));
    cx.save_device(&mut d, "Ospf").await?;
    Ok(empty())
}

pub async fn describe_ospf(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    let ospf = d.get("Ospf").clone();
    let mut out = json!({"TaskStates": d.tasks("Ospf", cx.now), "AreaType": ""});
    merge(&mut out, &ospf);
    if let Some(sealed) = ospf["SealedMd5Key"].as_str() {
        let plain = cx.cipher.open(sealed).map_err(crate::error::ApiError::internal)?;
        out["Md5Key"] = mask(&plain).into();
    }
    Ok(out)
}

/// Copies the fields of an object, secrets left out by their names in the catalogue.
pub fn merge(out: &mut Value, from: impl std::borrow::Borrow<Value>) {
    for (k, v) in from.borrow().as_object().into_iter().flatten() {
        out[k] = v.clone();
    }
}

pub async fn modify_port(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.device().await?;
    let port = cx.text("PortName");
    let role = d.role(&port);
    if d.port(&port).is_none() || !["LAN", "ECC"].contains(&role.as_str()) {
        return Err(cx.err(&["Sag.RouteProtocolPortNotExist"]));
    }
    let protocol = cx.text("RouteProtocol");
    if role == "ECC" && protocol == "OSPF" {
        return Err(cx.err(&["Sag.EccRouteTypeError"]));
    }
    if protocol != "STATIC" && d.get("RouteProtocol") != protocol.as_str() {
        return Err(cx.err(&["Sag.RouteTypeNotMatch"]));
    }
    let mut entry = cx.fields(&["RouteProtocol", "Vlan"]);
    if protocol == "BGP" {
        if net::ip(&cx.text("RemoteIp")).is_none() {
            return Err(cx.invalid("RemoteIp"));
        }
        if !cx.text("RemoteAs").parse::<u32>().is_ok_and(|n| n > 0) {
            return Err(cx.invalid("RemoteAs"));
        }
        entry.extend(cx.fields(&["RemoteIp", "RemoteAs"]));
    }
    d.set_entry("PortProtocols", &port, Value::Object(entry));
    cx.save_device(&mut d, "PortProtocols").await?;
    Ok(empty())
}

pub async fn describe_ports(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    let rows: Vec<Value> = d
        .ports()
        .into_iter()
        .filter(|p| p["Role"] == "LAN" || p["Role"] == "ECC")
        .map(|p| {
            let name = p["PortName"].as_str().unwrap_or_default();
            let up = p["Status"].as_str().unwrap_or_default().eq_ignore_ascii_case("up");
            let mut row = json!({"PortName": name, "RouteProtocol": "STATIC",
                "Status": if up { "UP" } else { "DOWN" }});
            merge(&mut row, d.entry("PortProtocols", name));
            row
        })
        .collect();
    Ok(json!({"Ports": rows, "TaskStates": d.tasks("PortProtocols", cx.now)}))
}

/// The port and VLAN of a static route, checked.
fn check_port(cx: &Cx, d: &Device) -> Result<(String, String)> {
    let port = cx.text("PortName");
    if d.port(&port).is_none() {
        return Err(cx.err(&["Sag.PortNotExist"]));
    }
    let role = d.role(&port);
    if role == "NONE" || role == "MGT" {
        return Err(cx.err(&["Sag.PortRoleInvalid"]));
    }
    let vlan = cx.opt("Vlan").unwrap_or_else(|| "0".to_owned());
    if !vlan.parse::<u16>().is_ok_and(|n| n <= 4094) {
        return Err(cx.invalid("Vlan"));
    }
    let ecc = d.entry("Ecc", &port).as_array().cloned().unwrap_or_default();
    if vlan != "0" && !ecc.iter().any(|i| i["Vlan"] == vlan.as_str()) {
        return Err(cx.err(&["Sag.EccVlanNotExist"]));
    }
    Ok((port, vlan))
}

fn destination(cx: &Cx) -> Result<String> {
    let block = net::cidr_list(&cx.text("DestinationCidr")).filter(|b| b.len() == 1);
    block.map(|b| b[0].to_string()).ok_or_else(|| cx.invalid("DestinationCidr"))
}

fn next_hop(cx: &Cx) -> Result<String> {
    let hop = cx.text("NextHop");
    if net::ip(&hop).is_some() { Ok(hop) } else { Err(cx.invalid("NextHop")) }
}

fn is(route: &Value, port: &str, vlan: &str, cidr: &str) -> bool {
    route["PortName"] == port && route["Vlan"] == vlan && route["DestinationCidr"] == cidr
}

pub async fn create_static(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.device().await?;
    let (port, vlan) = check_port(cx, &d)?;
    let (cidr, hop) = (destination(cx)?, next_hop(cx)?);
    let mut routes = d.rows("StaticRoutes");
    if routes.iter().any(|r| is(r, &port, &vlan, &cidr)) {
        return Err(cx.err(&["Sag.StaticRouteExist"]));
    }
    if routes.len() >= STATIC_QUOTA {
        return Err(cx.err(&["SAG.CidrAmountLimit"]));
    }
    routes.push(json!({"PortName": port, "Vlan": vlan, "DestinationCidr": cidr, "NextHop": hop}));
    d.set("StaticRoutes", Value::Array(routes));
    cx.save_device(&mut d, "StaticRoutes").await?;
    Ok(empty())
}

pub async fn modify_static(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.device().await?;
    let (port, vlan) = check_port(cx, &d)?;
    let (cidr, hop) = (destination(cx)?, next_hop(cx)?);
    let mut routes = d.rows("StaticRoutes");
    let Some(route) = routes.iter_mut().find(|r| is(r, &port, &vlan, &cidr)) else {
        return Err(cx.err(&["Sag.StaticRouteNotExist"]));
    };
    route["NextHop"] = hop.into();
    d.set("StaticRoutes", Value::Array(routes));
    cx.save_device(&mut d, "StaticRoutes").await?;
    Ok(empty())
}

pub async fn delete_static(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.device().await?;
    let port = cx.text("PortName");
    if d.port(&port).is_none() {
        return Err(cx.err(&["Sag.PortNotExist"]));
    }
    let vlan = cx.opt("Vlan").unwrap_or_else(|| "0".to_owned());
    let cidr = destination(cx)?;
    let mut routes = d.rows("StaticRoutes");
    let before = routes.len();
    routes.retain(|r| !is(r, &port, &vlan, &cidr));
    if routes.len() == before {
        return Err(cx.err(&["Sag.StaticRouteNotExist"]));
    }
    d.set("StaticRoutes", Value::Array(routes));
    cx.save_device(&mut d, "StaticRoutes").await?;
    Ok(empty())
}

pub async fn describe_static(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    let tasks = d.tasks("StaticRoutes", cx.now);
    Ok(json!({"StaticRoutes": d.rows("StaticRoutes"), "TaskStates": tasks}))
}
