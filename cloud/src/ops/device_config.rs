//! Other settings of a device: HA, DNS, WAN SNAT, remote access, console password.

use std::net::IpAddr;

use super::cx::Cx;
use super::fields::{copied, task_states};
use crate::api::{Op, request, response};
use crate::domain::device::Device;
use crate::domain::device_config::{Dns, Ha};
use crate::domain::net;
use crate::error::Result;
use crate::store::objects::Filter;

pub async fn modify_ha(cx: &mut Cx, request: request::ModifySagHa) -> Result<response::ModifySagHa> {
    let gw = cx.gateway().await?;
    let mut d = cx.device_on(&gw).await?;
    let peers = cx.devices_of(&gw).await?.len();
    if request.mode != "NONE" && peers < 2 {
        return Err(cx.err(&["Sag.HaTypeNotAllow"]));
    }
    let mut ha = Ha { mode: request.mode, ..Ha::default() };
    if ha.mode == "STATIC" {
        let (port, ip) = (request.port_name.unwrap_or_default(), request.virtual_ip.unwrap_or_default());
        if d.role(&port) != "LAN" {
            return Err(cx.err(&["Sag.HaPortRoleError"]));
        }
        if net::ip(&ip).is_none() {
            return Err(cx.invalid("VirtualIp"));
        }
        if d.config.ha.port_name.as_ref().is_some_and(|p| *p != port) {
            return Err(cx.err(&["Sag.HaPortExist"]));
        }
        (ha.port_name, ha.virtual_ip) = (Some(port), Some(ip));
    }
    d.config.ha = ha;
    cx.save_device(&mut d, "Ha").await?;
    if peers > 1 {
        // Whether sessions follow to this device is a matter of both.
        cx.renew(&gw).await?;
    }
    Ok(response::ModifySagHa::default())
}

pub async fn describe_ha(cx: &mut Cx, _: request::DescribeSagHa) -> Result<response::DescribeSagHa> {
    use response::describe_sag_ha::Ports;
    let d = cx.device().await?;
    let ha = &d.config.ha;
    let port = (ha.mode == "STATIC").then(|| copied!(ha => Ports { port_name, virtual_ip }));
    Ok(response::DescribeSagHa {
        mode: ha.mode.clone(),
        ports: port.into_iter().collect(),
        task_states: task_states!(d, "Ha", cx.now => describe_sag_ha),
    })
}

pub async fn modify_dns(
    cx: &mut Cx,
    request: request::ModifySagUserDns,
) -> Result<response::ModifySagUserDns> {
    let mut d = cx.online_device().await?;
    // Leaving an address out takes it away.
    let dns: Dns = copied!(request => Dns { master_dns, slave_dns });
    for (field, address) in [("MasterDns", &dns.master_dns), ("SlaveDns", &dns.slave_dns)] {
        if !address.is_empty() && address.parse::<IpAddr>().is_err() {
            return Err(cx.invalid(field));
        }
    }
    let none = dns.master_dns.is_empty() && dns.slave_dns.is_empty();
    d.config.dns = (!none).then_some(dns);
    cx.save_device(&mut d, "Dns").await?;
    Ok(response::ModifySagUserDns::default())
}

pub async fn describe_dns(
    cx: &mut Cx,
    _: request::DescribeSagUserDns,
) -> Result<response::DescribeSagUserDns> {
    let d = cx.device().await?;
    let dns = d.config.dns.clone().unwrap_or_default();
    Ok(copied!(dns => response::DescribeSagUserDns {
        master_dns, slave_dns;
        task_states: task_states!(d, "Dns", cx.now => describe_sag_user_dns),
    }))
}

pub async fn modify_wan_snat(
    cx: &mut Cx,
    request: request::ModifySagWanSnat,
) -> Result<response::ModifySagWanSnat> {
    let mut d = cx.device().await?;
    d.config.snat = request.snat;
    cx.save_device(&mut d, "Snat").await?;
    Ok(response::ModifySagWanSnat::default())
}

pub async fn describe_wan_snat(
    cx: &mut Cx,
    _: request::DescribeSagWanSnat,
) -> Result<response::DescribeSagWanSnat> {
    let d = cx.device().await?;
    Ok(response::DescribeSagWanSnat {
        snat: d.config.snat.clone(),
        task_states: task_states!(d, "Snat", cx.now => describe_sag_wan_snat),
    })
}

/// Refuses what needs a radio: a virtual device has none.
async fn no_radio<T>(cx: &mut Cx) -> Result<T> {
    cx.device().await?;
    Err(cx.err(&["FeatureNotSupport"]))
}

pub async fn modify_wifi(cx: &mut Cx, _: request::ModifySagWifi) -> Result<response::ModifySagWifi> {
    no_radio(cx).await
}

pub async fn describe_wifi(cx: &mut Cx, _: request::DescribeSagWifi) -> Result<response::DescribeSagWifi> {
    no_radio(cx).await
}

pub async fn describe_wan4g(cx: &mut Cx, _: request::DescribeSagWan4G) -> Result<response::DescribeSagWan4G> {
    no_radio(cx).await
}

pub async fn modify_remote_access(
    cx: &mut Cx,
    request: request::ModifySagRemoteAccess,
) -> Result<response::ModifySagRemoteAccess> {
    let gw = cx.gateway().await?;
    let mut d = cx.device_on(&gw).await?;
    cx.must_be_online(&d)?;
    let ip = request.remote_access_ip.unwrap_or_default();
    if !ip.is_empty() {
        let Some(addr) = net::ip(&ip) else { return Err(cx.invalid("RemoteAccessIp")) };
        let filter = Filter::of(cx.uid());
        let taken = |peer: &Device| peer.sn != d.sn && peer.config.remote_access_ip == ip;
        if cx.inspect_devices(&filter, taken).await?.contains(&true) {
            return Err(cx.err(&["IllegalRemoteIp.Conflict"]));
        }
        let own = gw.blocks();
        if own.iter().any(|b| b.contains(&addr)) {
            return Err(cx.err(&["IllegalRemoteIp.RouteTableEntryConflict"]));
        }
    }
    d.config.remote_access_ip.clone_from(&ip);
    cx.save_device(&mut d, "RemoteAccess").await?;
    Ok(response::ModifySagRemoteAccess {
        code: "200".to_owned(),
        message: "Successful".to_owned(),
        remote_access_ip: ip,
        serial_number: d.summary.sn,
        success: true,
    })
}

pub async fn describe_remote_access(
    cx: &mut Cx,
    request: request::DescribeSagRemoteAccess,
) -> Result<response::DescribeSagRemoteAccess> {
    let gw = cx.gateway().await?;
    // All devices of the gateway, or the one that is named.
    let devices = match request.serial_number {
        Some(_) => vec![cx.device_on(&gw).await?],
        None => cx.devices_of(&gw).await?,
    };
    let rows = devices.into_iter().map(|d| response::describe_sag_remote_access::RemoteAccess {
        remote_access_ip: d.config.remote_access_ip,
        serial_number: d.summary.sn,
    });
    Ok(response::DescribeSagRemoteAccess {
        code: "200".to_owned(),
        message: "successful".to_owned(),
        remote_accesses: rows.collect(),
        smart_ag_id: gw.id.clone(),
        success: true,
    })
}

pub async fn modify_admin_password(
    cx: &mut Cx,
    request: request::ModifySAGAdminPassword,
) -> Result<response::ModifySAGAdminPassword> {
    let mut d = cx.online_device().await?;
    d.config.sealed_admin_password = Some(cx.seal(&request.password)?);
    cx.save_device(&mut d, "AdminPassword").await?;
    Ok(response::ModifySAGAdminPassword::default())
}

/// What the operations cannot do on a virtual device.
const UNSUPPORTED: [(&str, &[&str]); 5] = [
    // The carrier is a word for people.
    ("ModifySagWan", &["ISP"]),
    ("ModifySagWifi", &["Wifi"]),
    ("DescribeSagWifi", &["Wifi"]),
    ("DescribeSagWan4G", &["4G"]),
    ("ModifySmartAccessGatewayUpBandwidth", &["UpBandwidth4G"]),
];

pub async fn unsupported_features(
    cx: &mut Cx,
    request: request::ListSmartAGApiUnsupportedFeature,
) -> Result<response::ListSmartAGApiUnsupportedFeature> {
    use response::list_smart_ag_api_unsupported_feature::Features;
    let d = cx.device().await?;
    let name = request.open_api_name;
    let Some(op) = Op::by_name(&name) else {
        return Err(cx.invalid("OpenApiName"));
    };
    let virtual_device =
        UNSUPPORTED.iter().filter(|(op, _)| *op == name).flat_map(|(_, f)| f.iter().copied());
    let features = virtual_device.chain(super::capability::unsupported(op, &d));
    Ok(response::ListSmartAGApiUnsupportedFeature {
        features: features.map(|f| Features { feature: f.to_owned() }).collect(),
    })
}
