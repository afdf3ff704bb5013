//! Other settings of a device: HA, DNS, WAN SNAT, remote access, console password.

use serde_json::{Value, json};

use super::cx::{Cx, empty};
use crate::domain::gateway::Gateway;
use crate::domain::net;
use crate::error::{ApiError, Result};
use crate::store::objects::Filter;

pub async fn modify_ha(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.device().await?;
    let mode = cx.text("Mode");
    let peers = cx.devices_of(&d.sag).await?.len();
    if mode != "NONE" && peers < 2 {
        return Err(cx.err(&["Sag.HaTypeNotAllow"]));
    }
    let mut ha = json!({"Mode": mode});
    if mode == "STATIC" {
        let (port, ip) = (cx.text("PortName"), cx.text("VirtualIp"));
        if d.role(&port) != "LAN" {
            return Err(cx.err(&["Sag.HaPortRoleError"]));
        }
        if net::ip(&ip).is_none() {
            return Err(cx.invalid("VirtualIp"));
        }
        if d.entry("Ha", "PortName").as_str().is_some_and(|p| p != port) {
            return Err(cx.err(&["Sag.HaPortExist"]));
        }
        ha["PortName"] = port.into();
        ha["VirtualIp"] = ip.into();
    }
    d.set("Ha", ha);
    cx.save_device(&mut d, "Ha").await?;
    Ok(empty())
}

pub async fn describe_ha(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    let ha = d.get("Ha");
    let ports = if ha["Mode"] == "STATIC" { vec![ha.clone()] } else { Vec::new() };
    Ok(json!({"Mode": ha["Mode"], "Ports": ports, "TaskStates": d.tasks("Ha", cx.now)}))
}

pub async fn modify_dns(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.online_device().await?;
    for name in ["MasterDns", "SlaveDns"] {
        if net::ip(&cx.text(name)).is_none() {
            return Err(cx.invalid(name));
        }
    }
    d.set("Dns", Value::Object(cx.fields(&["MasterDns", "SlaveDns"])));
    cx.save_device(&mut d, "Dns").await?;
    Ok(empty())
}

pub async fn describe_dns(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    let dns = d.get("Dns");
    Ok(json!({"MasterDns": dns["MasterDns"], "SlaveDns": dns["SlaveDns"],
        "TaskStates": d.tasks("Dns", cx.now)}))
}

pub async fn modify_wan_snat(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.device().await?;
    d.set("Snat", cx.text("Snat").into());
    cx.save_device(&mut d, "Snat").await?;
    Ok(empty())
}

pub async fn describe_wan_snat(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    Ok(json!({"Snat": d.get("Snat"), "TaskStates": d.tasks("Snat", cx.now)}))
}

/// A virtual device has no radio.
fn no_radio(cx: &Cx) -> ApiError {
    cx.err(&["FeatureNotSupport"])
}

pub async fn modify_wifi(cx: &mut Cx) -> Result<Value> {
    cx.device().await?;
    Err(no_radio(cx))
}

pub async fn describe_wifi(cx: &mut Cx) -> Result<Value> {
    cx.device().await?;
    Err(no_radio(cx))
}

pub async fn describe_wan4g(cx: &mut Cx) -> Result<Value> {
    cx.device().await?;
    Err(no_radio(cx))
}

pub async fn modify_remote_access(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let mut d = cx.device_on(&gw).await?;
    cx.must_be_online(&d)?;
    let ip = cx.text("RemoteAccessIp");
    if !ip.is_empty() {
        let Some(addr) = net::ip(&ip) else { return Err(cx.invalid("RemoteAccessIp")) };
        let filter = Filter::of(cx.uid());
        for other in cx.list::<Gateway>(&filter).await? {
            for peer in cx.devices_of(&other.id).await? {
                if peer.sn != d.sn && peer.get("RemoteAccessIp") == ip.as_str() {
                    return Err(cx.err(&["IllegalRemoteIp.Conflict"]));
                }
            }
        }
        let own = gw.blocks();
        if own.iter().any(|b| b.contains(&addr)) {
            return Err(cx.err(&["IllegalRemoteIp.RouteTableEntryConflict"]));
        }
    }
    d.set("RemoteAccessIp", ip.as_str().into());
    cx.save_device(&mut d, "RemoteAccess").await?;
    Ok(json!({"SerialNumber": d.sn, "RemoteAccessIp": ip, "Message": "Successful",
        "Success": true, "Code": "200"}))
}

pub async fn describe_remote_access(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let d = cx.device_on(&gw).await?;
    let ip = d.config.remote_access_ip.as_str();
    Ok(json!({"SmartAGId": gw.id, "Message": "successful", "Success": true, "Code": "200",
        "RemoteAccesses": [{"SerialNumber": d.sn, "RemoteAccessIp": ip}]}))
}

pub async fn modify_admin_password(cx: &mut Cx) -> Result<Value> {
    let mut d = cx.online_device().await?;
    let sealed = cx.seal(&cx.text("Password"))?;
    d.set("SealedAdminPassword", sealed.into());
    cx.save_device(&mut d, "AdminPassword").await?;
    Ok(empty())
}

/// What the operations cannot do on a virtual device.
const UNSUPPORTED: [(&str, &[&str]); 4] = [
    ("ModifySagWifi", &["Wifi"]),
    ("DescribeSagWifi", &["Wifi"]),
    ("DescribeSagWan4G", &["4G"]),
    ("ModifySmartAccessGatewayUpBandwidth", &["UpBandwidth4G"]),
];

pub async fn unsupported_features(cx: &mut Cx) -> Result<Value> {
    let d = cx.device().await?;
    let name = cx.text("OpenApiName");
    let Some(op) = crate::api::Op::by_name(&name) else {
        return Err(cx.invalid("OpenApiName"));
    };
    let mut features: Vec<Value> = UNSUPPORTED
        .iter()
        .filter(|(op, _)| *op == name)
        .flat_map(|(_, features)| features.iter())
        .map(|f| json!({"Feature": f}))
        .collect();
    features.extend(super::capability::unsupported(op, &d));
    Ok(json!({"Features": features}))
}
