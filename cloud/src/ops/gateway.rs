//! Gateway instances: life cycle, attributes, serial numbers.

use ipnet::Ipv4Net;
use sag_southbound::Command;

use super::cx::Cx;
use super::fields::set_given;
use crate::api::{request, response};
use crate::domain::gateway::Gateway;
use crate::domain::membership::Announced;
use crate::domain::net;
use crate::domain::network::Network;
use crate::domain::objects::Authorised;
use crate::domain::probe::ProbeTask;
use crate::error::{ApiError, Result};
use crate::store::objects::Stored;
use crate::store::{Kind, Link};

/// Static CIDR blocks of one instance.
const CIDR_QUOTA: usize = 50;

impl Cx {
    /// The caller's gateway that the request names, in a state that the operation accepts.
    pub async fn gateway(&mut self) -> Result<Authorised<Gateway>> {
        let id = self.named(&["SmartAGId", "SagId", "SagInsId", "OriginSmartAGId", "InstanceId"]);
        self.gateway_by_id(&id).await
    }

    pub async fn gateway_by_id(&mut self, id: &str) -> Result<Authorised<Gateway>> {
        let gw = self.find::<Gateway>(id).await?.ok_or_else(|| self.no_gateway(id))?;
        self.refuse_if(gw.end_time < self.now, &["SmartAccessGatewayInArrears", "SAG.Arrearage"])?;
        self.usable(&gw)?;
        Ok(gw)
    }

    /// The same, also after its end.
    pub async fn gateway_paid_or_not(&mut self) -> Result<Authorised<Gateway>> {
        let id = self.named(&["SmartAGId"]);
        let gw = self.find::<Gateway>(&id).await?.ok_or_else(|| self.no_gateway(&id))?;
        self.usable(&gw)?;
        Ok(gw)
    }

    pub fn no_gateway(&self, id: &str) -> ApiError {
        let mut codes = vec!["SAG.InstanceNoFound", "InvalidSmartAGId.NotFound", "InvalidId.SMARTAG"];
        if !id.starts_with("sag-") && self.op.error("InvalidId.SMARTAG").is_some() {
            codes.insert(0, "InvalidId.SMARTAG");
        }
        codes.push("InstanceNotExit");
        self.err(&codes)
    }

    /// Stores a changed gateway; its devices have a new configuration.
    pub async fn save_gateway(&mut self, gw: &Authorised<Gateway>) -> Result<()> {
        self.put(gw).await?;
        self.renew(gw).await
    }

    /// Whether another gateway of the network has an address of these blocks.
    pub async fn sibling_overlap(&mut self, ccn: &str, gw: &str, blocks: &[Ipv4Net]) -> Result<bool> {
        let members = self.links_to(Link::Ccn, ccn).await?;
        let overlaps = |o: &Stored<Gateway>| o.id != gw && net::overlap(blocks, &o.blocks());
        Ok(self.inspect_linked(&members, overlaps).await?.contains(&true))
    }

    /// Refuses a gateway that is not active or of the wrong edition, where documented.
    fn usable(&self, gw: &Gateway) -> Result<()> {
        self.refuse_if(gw.status != "Active", &["SmartAccessGatewayNotActivated", "SAG.NoActive"])?;
        self.refuse_if(
            gw.is_software(),
            &["SAG.SoftwareNotSupportFeature", "SAG.SoftwareNotSupport", "SAG.SoftwareNoSupportVbr"],
        )
    }
}

pub async fn activate(
    cx: &mut Cx,
    _: request::ActivateSmartAccessGateway,
) -> Result<response::ActivateSmartAccessGateway> {
    let mut gw = cx.gateway().await?;
    if gw.status == "Active" {
        return Err(cx.err(&["SmartAccessGatewayActivateFailed"]));
    }
    gw.edit().status = "Active".to_owned();
    cx.save_gateway(&gw).await?;
    Ok(response::ActivateSmartAccessGateway::default())
}

pub async fn modify(
    cx: &mut Cx,
    request: request::ModifySmartAccessGateway,
) -> Result<response::ModifySmartAccessGateway> {
    let mut gw = cx.gateway().await?;
    // Nothing audits the connections of client apps.
    if request.enable_software_connection_audit == Some(true) {
        return Err(cx.err(&["FeatureNotSupport"]));
    }
    let dynamic = request.routing_strategy.as_ref().unwrap_or(&gw.routing_strategy) == "dynamic";
    if let Some(cidrs) = &request.cidr_block {
        if dynamic {
            return Err(cx.err(&["SAG.NotAllowConfigCidr"]));
        }
        check_cidrs(cx, &gw, cidrs).await?;
    } else if dynamic && gw.routing_strategy != "dynamic" {
        gw.edit().cidr_block.clear();
    }
    let before = gw.blocks();
    set_given!(gw.edit(), request => { name, description, cidr_block, security_lock_threshold, routing_strategy, position });
    cx.save_gateway(&gw).await?;
    if gw.blocks() != before {
        let sns = cx.blocks_changed(&gw).await?;
        cx.changed.extend(sns);
    }
    Ok(response::ModifySmartAccessGateway::default())
}

/// Private, disjoint, and free of conflicts with the rest of the cloud connect network.
async fn check_cidrs(cx: &mut Cx, gw: &Authorised<Gateway>, text: &str) -> Result<()> {
    let Some(blocks) = net::cidr_list(text) else {
        return Err(cx.err(&["SAG.InvalidCidrFormat"]));
    };
    if blocks.len() > CIDR_QUOTA {
        return Err(cx.err(&["SAG.CidrAmountLimit"]));
    }
    if !blocks.iter().all(net::is_private) {
        return Err(cx.err(&["SAG.InvalidCidr"]));
    }
    if net::self_overlap(&blocks) {
        return Err(cx.err(&["SAG.CidrOverlap"]));
    }
    let of_network = |network: &Network| {
        let granted = network.member(&gw.id).and_then(|m| m.granted.clone());
        let endpoint = network.endpoint_inside(&gw.id, &blocks).map(str::to_owned);
        (network.ccn.blocks(), network.ccn.snat_blocks(), granted, endpoint)
    };
    if let Some((own, snat, granted, endpoint)) = cx.inspect_network(gw, of_network).await? {
        if net::overlap(&blocks, &snat) {
            return Err(cx.err(&["SAG.ConflictCidr.CcnSnatCidr"]));
        }
        if gw.is_software() {
            if own.is_empty() {
                return Err(cx.err(&["SAG.CcnCidrNoConfig"]));
            }
            if !blocks.iter().all(|b| own.iter().any(|o| o.contains(b))) {
                return Err(cx.err(&["SAG.InvalidCidr.NoBelongCcnCidr"]));
            }
        }
        if let Some(granted) = granted
            && let Some(block) = blocks.iter().find(|b| !granted.iter().any(|g| g.contains(*b)))
        {
            let hint =
                format!("The owner of the network has not granted {block}: ModifyCloudConnectNetworkMember.");
            return Err(cx.err(&["SAG.InvalidCidr.NoBelongCcnCidr"]).with_hint(hint));
        }
        if let Some(sn) = endpoint {
            let hint = format!("The tunnels of device {sn} end inside of the blocks.");
            return Err(cx.err(&["SAG.CidrOverlap"]).with_hint(hint));
        }
    }
    let neighbours = cx.neighbours(gw).await?;
    let overlaps = |o: &Stored<Gateway>| net::overlap(&blocks, &o.blocks());
    if cx.inspect_linked(&neighbours, overlaps).await?.contains(&true) {
        return Err(cx.err(&["SAG.CidrOverlap"]));
    }
    Ok(())
}

pub async fn delete(
    cx: &mut Cx,
    _: request::DeleteSmartAccessGateway,
) -> Result<response::DeleteSmartAccessGateway> {
    let gw = cx.gateway().await?;
    for (link, code) in [(Link::Ccn, "AlreadyBound.CCN"), (Link::Vbr, "SAG.DedicatedLineExist")] {
        if !cx.links_from(link, &gw).await?.is_empty() {
            return Err(cx.err(&[code]));
        }
    }
    for kind in [
        Kind::SnatEntry,
        Kind::DnatEntry,
        Kind::HealthCheck,
        Kind::ProbeTask,
        Kind::RouteStrategy,
        Kind::AppUser,
        Kind::CcnGrant,
        Kind::VbrGrant,
        Kind::Announcement,
    ] {
        cx.remove_children(kind, &gw).await?;
    }
    let sns = cx.delete_devices(&gw).await?;
    cx.changed.extend(sns);
    cx.remove_links(&gw).await?;
    cx.remove(&gw).await?;
    Ok(response::DeleteSmartAccessGateway::default())
}

pub async fn unlock(
    cx: &mut Cx,
    _: request::UnlockSmartAccessGateway,
) -> Result<response::UnlockSmartAccessGateway> {
    let mut gw = cx.gateway().await?;
    let now = cx.now;
    (gw.edit().locked, gw.edit().unlocked) = (Some(false), Some(now));
    cx.save_gateway(&gw).await?;
    // The other members of its network get it again.
    let sns = cx.blocks_changed(&gw).await?;
    cx.changed.extend(sns);
    Ok(response::UnlockSmartAccessGateway::default())
}

pub async fn reboot(
    cx: &mut Cx,
    request: request::RebootSmartAccessGateway,
) -> Result<response::RebootSmartAccessGateway> {
    let gw = cx.gateway().await?;
    for d in &mut cx.online_devices(&gw, request.serial_number.is_some()).await? {
        cx.command(d, Command::Reboot).await?;
    }
    Ok(response::RebootSmartAccessGateway::default())
}

pub async fn modify_up_bandwidth(
    cx: &mut Cx,
    request: request::ModifySmartAccessGatewayUpBandwidth,
) -> Result<response::ModifySmartAccessGatewayUpBandwidth> {
    let mut gw = cx.gateway().await?;
    if request.up_bandwidth4_g.is_none() && request.up_bandwidth_wan.is_none() {
        return Err(cx.err(&["MissingParameter"]));
    }
    for (name, value) in
        [("UpBandwidth4G", request.up_bandwidth4_g), ("UpBandwidthWan", request.up_bandwidth_wan)]
    {
        if value.is_some_and(|n| n < 0) {
            return Err(cx.invalid(name));
        }
    }
    set_given!(gw.edit(), request => { up_bandwidth4_g, up_bandwidth_wan });
    cx.save_gateway(&gw).await?;
    Ok(response::ModifySmartAccessGatewayUpBandwidth::default())
}

pub async fn clear_routeable_address(
    cx: &mut Cx,
    _: request::ClearSagRouteableAddress,
) -> Result<response::ClearSagRouteableAddress> {
    let mut gw = cx.gateway().await?;
    gw.edit().routable_address = None;
    cx.save_gateway(&gw).await?;
    Ok(response::ClearSagRouteableAddress::default())
}

pub async fn bind_serial(
    cx: &mut Cx,
    request: request::BindSerialNumber,
) -> Result<response::BindSerialNumber> {
    let gw = cx.gateway().await?;
    let sn = request.serial_number;
    if !sn.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) || sn.len() > 64 {
        return Err(cx.invalid("SerialNumber"));
    }
    if gw.is_software() {
        return Err(cx.err(&["ActionNotSupport"]));
    }
    if cx.is_serial_number_taken(&sn).await? {
        return Err(cx.err(&["SAG.SnConflict"]));
    }
    let bound = cx.devices_of(&gw).await?.len();
    let most = if gw.ha_type.as_deref() == Some("no_backup") { 1 } else { 2 };
    if bound >= most {
        return Err(cx.err(&["SAG.SnOverLimit"]));
    }
    cx.new_device(&gw, &sn, bound).await?;
    Ok(response::BindSerialNumber::default())
}

pub async fn unbind_serial(
    cx: &mut Cx,
    _: request::UnbindSerialNumber,
) -> Result<response::UnbindSerialNumber> {
    let gw = cx.gateway().await?;
    let device = cx.device_on(&gw).await?;
    for task in cx.children::<_, ProbeTask>(&gw).await?.iter().filter(|t| t.sn == device.sn) {
        cx.remove(task).await?;
    }
    cx.delete_device(&device).await?;
    if let Some(ccn) = cx.inspect_network(&gw, |network| network.ccn.id.clone()).await? {
        cx.network_changed(&ccn).await?;
    }
    cx.changed.insert(device.summary.sn);
    Ok(response::UnbindSerialNumber::default())
}

/// A new key for a virtual device; the agent gets it with its configuration. The device may announce itself with another
/// identity, as one does that was replaced.
pub async fn clear_cipher(cx: &mut Cx, _: request::ClearSagCipher) -> Result<response::ClearSagCipher> {
    let gw = cx.gateway().await?;
    if gw.hardware_version != "sag-vcpe" {
        return Err(cx.err(&["FeatureNotSupport"]));
    }
    let mut device = cx.device_on(&gw).await?;
    device.sealed_key = cx.new_device_key()?;
    cx.save_device(&mut device, "Key").await?;
    if let Some(mut announced) = cx.part::<_, Announced>(&gw, &device.sn).await? {
        announced.edit().identity.clear();
        cx.put(&announced).await?;
    }
    Ok(response::ClearSagCipher::default())
}
