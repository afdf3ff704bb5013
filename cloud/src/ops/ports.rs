//! Ports of a device: roles, WAN, LAN, management, leased lines.

use serde_json::{Value, json};

use super::cx::{Cx, empty};
use super::routes::merge;
use crate::domain::device::Device;
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
    let name = |p: &Value| p["PortName"].as_str().unwrap_or_default().to_owned();
    d.ports().iter().filter(|p| p["Role"] == role).map(name).collect()
}

/// The port of the request, which must have the role.
fn port_with(cx: &Cx, d: &Device, role: &str) -> Result<String> {
    let port = cx.text("PortName");
    if d.port(&port).is_none() {
        return Err(cx.err(&["Sag.PortNotExist"]));
    }
    if d.role(&port) != role {
        return Err(cx.err(&["Sag.PortRoleInvalid"]));
    }
    Ok(port)
}

pub async fn modify_role(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.device().await?;
    let (name, role) = (cx.text("PortName"), cx.text("Role"));
    let Some(port) = d.port(&name) else { return Err(cx.err(&["Sag.PortNotExist"])) };
    let old = d.role(&name);
    if old == "MGT" && role != "MGT" {
        return Err(cx.err(&["Sag.PortMgtError"]));
    }
    if d.entry("Ha", "PortName") == name.as_str() {
        return Err(cx.err(&["Sag.HaPortExist"]));
    }
    if old != role && with_role(&d, &role).len() >= role_limit(&role) {
        return Err(cx.err(&["Sag.PortRoleLimit"]));
    }
    if old != role {
        for section in ["Wan", "Lan", "Ecc", "PortProtocols"] {
            d.remove_entry(section, &name);
        }
        let mut routes = d.rows("StaticRoutes");
        routes.retain(|r| r["PortName"] != name.as_str());
        d.set("StaticRoutes", Value::Array(routes));
        match role.as_str() {
            "WAN" => d.set_entry("Wan", &name, json!({"IPType": "DHCP", "Priority": 10, "Weight": 100})),
            "ECC" => d.set_entry("Ecc", &name, json!([])),
            _ => {}
        }
    }
    let mut ports = d.rows("Ports");
    match ports.iter_mut().find(|p| p["PortName"] == name.as_str()) {
        Some(p) => p["Role"] = role.into(),
        None => ports.push(json!({"PortName": name, "Role": role, "Mac": port.mac, "Status": port.status})),
    }
    d.set("Ports", Value::Array(ports));
    cx.save_device(&mut d, "Ports").await?;
    Ok(empty())
}

pub async fn describe(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    Ok(json!({"Ports": d.ports(), "TaskStates": d.tasks("Ports", cx.now)}))
}

pub async fn modify_wan(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.device().await?;
    let port = port_with(cx, &d, "WAN")?;
    let old = d.entry("Wan", &port).clone();
    let kind = cx.text("IPType");
    let mut wan = cx.fields(&["IPType", "Priority", "Weight", "ISP", "Bandwidth"]);
    for keep in ["Priority", "Weight", "ISP", "Bandwidth"] {
        if !wan.contains_key(keep) && !old[keep].is_null() {
            wan.insert(keep.to_owned(), old[keep].clone());
        }
    }
    wan.entry("Priority").or_insert(json!(10));
    wan.entry("Weight").or_insert(json!(100));
    match kind.as_str() {
        "STATIC" => {
            check_address(cx, true)?;
            wan.extend(cx.fields(&["IP", "Mask", "Gateway"]));
        }
        "PPPOE" => {
            wan.extend(cx.fields(&["Username"]));
            // Without a new password the old one stays.
            match (cx.opt("Password"), old["SealedPassword"].as_str()) {
                (Some(p), _) => wan.insert("SealedPassword".into(), cx.seal(&p)?.into()),
                (None, Some(sealed)) => wan.insert("SealedPassword".into(), sealed.into()),
                (None, None) => return Err(cx.missing("Password")),
            };
        }
        _ => {}
    }
    d.set_entry("Wan", &port, Value::Object(wan));
    cx.save_device(&mut d, "Wan").await?;
    Ok(empty())
}

/// `IP`, `Mask` and, with `gateway`, a `Gateway` in the same block.
fn check_address(cx: &Cx, gateway: bool) -> Result<()> {
    let ip = cx.text("IP");
    if net::ip(&ip).is_none() {
        return Err(cx.invalid("IP"));
    }
    let Some(block) = net::with_mask(&ip, &cx.text("Mask")) else {
        return Err(cx.invalid("Mask"));
    };
    if gateway {
        let gw = cx.text("Gateway");
        let ok = net::ip(&gw).is_some_and(|g| block.contains(&g) && gw != ip);
        if !ok {
            return Err(cx.invalid("Gateway"));
        }
    }
    Ok(())
}

pub async fn modify_lan(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.device().await?;
    let port = port_with(cx, &d, "LAN")?;
    check_address(cx, false)?;
    let lan = cx.fields(&["IPType", "IP", "Mask", "StartIp", "EndIp", "Lease"]);
    if cx.text("IPType") == "DHCP" {
        let block = net::with_mask(&cx.text("IP"), &cx.text("Mask"));
        let inside = |name: &str| match (cx.opt(name), block) {
            (Some(v), Some(b)) => net::ip(&v).filter(|ip| b.contains(ip)).map(Some),
            _ => Some(None),
        };
        let start = inside("StartIp").ok_or_else(|| cx.invalid("StartIp"))?;
        let end = inside("EndIp").ok_or_else(|| cx.invalid("EndIp"))?;
        if matches!((start, end), (Some(s), Some(e)) if e < s) {
            return Err(cx.invalid("EndIp"));
        }
    }
    d.set_entry("Lan", &port, Value::Object(lan));
    cx.save_device(&mut d, "Lan").await?;
    Ok(empty())
}

pub async fn describe_lans(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    let rows: Vec<Value> = with_role(&d, "LAN")
        .into_iter()
        .map(|name| {
            let mut row = json!({"PortName": name, "IPType": "STATIC", "IP": "", "Mask": ""});
            merge(&mut row, d.entry("Lan", &name));
            row
        })
        .collect();
    Ok(json!({"Lans": rows, "TaskStates": d.tasks("Lan", cx.now)}))
}

pub async fn modify_management(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.device().await?;
    if with_role(&d, "MGT").is_empty() {
        return Err(cx.err(&["Sag.PortMgtError"]));
    }
    check_address(cx, true)?;
    d.set("Management", Value::Object(cx.fields(&["IP", "Mask", "Gateway"])));
    cx.save_device(&mut d, "Management").await?;
    Ok(empty())
}

pub async fn describe_management(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    let mut out = json!({"TaskStates": d.tasks("Management", cx.now)});
    merge(&mut out, d.get("Management"));
    Ok(out)
}

/// The leased-line port of the request and its sub-interfaces.
fn ecc(cx: &Cx, d: &Device) -> Result<(String, Vec<Value>)> {
    let port = port_with(cx, d, "ECC")?;
    let interfaces = d.entry("Ecc", &port).as_array().cloned().unwrap_or_default();
    Ok((port, interfaces))
}

async fn save_ecc(cx: &mut Cx, d: &mut Device, port: &str, rows: Vec<Value>) -> Result<Value> {
    d.set_entry("Ecc", port, Value::Array(rows));
    cx.save_device(d, "Ecc").await?;
    Ok(empty())
}

pub async fn create_ecc(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.device().await?;
    let (port, mut rows) = ecc(cx, &d)?;
    check_address(cx, false)?;
    let vlan = cx.text("Vlan");
    if rows.iter().any(|i| i["Vlan"] == vlan.as_str()) {
        return Err(cx.err(&["Sag.EccVlanExist"]));
    }
    // VLAN 0 is the whole port.
    if rows.iter().any(|i| i["Vlan"] == "0") || (vlan == "0" && !rows.is_empty()) {
        return Err(cx.err(&["Sag.EccVlanDefault"]));
    }
    if rows.len() >= ECC_VLANS {
        return Err(cx.err(&["Sag.EccVlanOverLimit"]));
    }
    rows.push(Value::Object(cx.fields(&["Vlan", "IP", "Mask"])));
    save_ecc(cx, &mut d, &port, rows).await
}

pub async fn modify_ecc(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.device().await?;
    let (port, mut rows) = ecc(cx, &d)?;
    check_address(cx, false)?;
    let vlan = cx.text("Vlan");
    let Some(row) = rows.iter_mut().find(|i| i["Vlan"] == vlan.as_str()) else {
        return Err(cx.err(&["Sag.EccVlanNotExist"]));
    };
    *row = Value::Object(cx.fields(&["Vlan", "IP", "Mask"]));
    save_ecc(cx, &mut d, &port, rows).await
}

pub async fn delete_ecc(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.device().await?;
    let (port, mut rows) = ecc(cx, &d)?;
    let vlan = cx.text("Vlan");
    let before = rows.len();
    rows.retain(|i| i["Vlan"] != vlan.as_str());
    if rows.len() == before {
        return Err(cx.err(&["Sag.EccVlanNotExist"]));
    }
    let mut routes = d.rows("StaticRoutes");
    routes.retain(|r| r["PortName"] != port.as_str() || r["Vlan"] != vlan.as_str());
    d.set("StaticRoutes", Value::Array(routes));
    save_ecc(cx, &mut d, &port, rows).await
}

pub async fn describe_ecc(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    let (_, rows) = ecc(cx, &d)?;
    Ok(json!({"Interfaces": rows, "TaskStates": d.tasks("Ecc", cx.now)}))
}
