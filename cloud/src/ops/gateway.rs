//! Gateway instances: life cycle, attributes, serial numbers.

use sag_southbound::Command;
use serde_json::Value;

use super::cx::{Cx, empty};
use super::net;
use crate::proto::error::Result;
use crate::store::objects::{self, Object};

pub const KIND: &str = "gateway";
/// The instance type of the client-app edition.
pub const SOFTWARE: &str = "software";

/// Static CIDR blocks of one instance.
const CIDR_QUOTA: usize = 50;

impl Cx {
    /// The caller's gateway that the request names, in a state that the operation accepts.
    pub async fn gateway(&mut self) -> Result<Object> {
        let names = ["SmartAGId", "SagId", "OriginSmartAGId", "InstanceId"];
        let id = names.iter().find_map(|n| self.opt(n)).unwrap_or_default();
        self.gateway_by_id(&id).await
    }

    pub async fn gateway_by_id(&mut self, id: &str) -> Result<Object> {
        let gw = self.find(KIND, id).await?.ok_or_else(|| self.no_gateway(id))?;
        self.usable(&gw)?;
        Ok(gw)
    }

    pub fn no_gateway(&self, id: &str) -> crate::proto::error::ApiError {
        let mut codes = vec!["SAG.InstanceNoFound", "InvalidSmartAGId.NotFound", "InvalidId.SMARTAG"];
        if !id.starts_with("sag-") && self.op.error("InvalidId.SMARTAG").is_some() {
            codes.insert(0, "InvalidId.SMARTAG");
        }
        codes.push("InstanceNotExit");
        self.err(&codes)
    }

    /// Refuses a gateway that is not paid, not active or of the wrong edition, where documented.
    fn usable(&self, gw: &Object) -> Result<()> {
        self.refuse_if(gw.int("EndTime") < self.now, &["SmartAccessGatewayInArrears", "SAG.Arrearage"])?;
        self.refuse_if(gw.str("Status") != "Active", &["SmartAccessGatewayNotActivated", "SAG.NoActive"])?;
        self.refuse_if(
            gw.str("InstanceType") == SOFTWARE,
            &["SAG.SoftwareNotSupportFeature", "SAG.SoftwareNotSupport", "SAG.SoftwareNoSupportVbr"],
        )
    }
}

pub async fn activate(cx: &mut Cx) -> Result<Value> {
    let mut gw = cx.gateway().await?;
    if gw.str("Status") == "Active" {
        return Err(cx.err(&["SmartAccessGatewayActivateFailed"]));
    }
    gw.set("Status", "Active");
    cx.put(&gw).await?;
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn modify(cx: &mut Cx) -> Result<Value> {
    let mut gw = cx.gateway().await?;
    let strategy = cx.opt("RoutingStrategy").unwrap_or_else(|| gw.str("RoutingStrategy").to_owned());
    if let Some(cidrs) = cx.opt("CidrBlock") {
        if strategy == "dynamic" {
            return Err(cx.err(&["SAG.NotAllowConfigCidr"]));
        }
        check_cidrs(cx, &gw, &cidrs).await?;
    } else if strategy == "dynamic" && gw.str("RoutingStrategy") != "dynamic" {
        gw.set("CidrBlock", "");
    }
    for (k, v) in cx.fields(&["Name", "Description", "CidrBlock", "SecurityLockThreshold", "RoutingStrategy"])
    {
        gw.set(&k, v);
    }
    gw.name = gw.str("Name").to_owned();
    cx.put(&gw).await?;
    cx.touch(&gw.id).await?;
    Ok(empty())
}

/// Private, disjoint, and free of conflicts with the rest of the cloud connect network.
async fn check_cidrs(cx: &mut Cx, gw: &Object, text: &str) -> Result<()> {
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
    let Some(ccn_id) = cx.links_from("ccn", &gw.id).await?.into_iter().next() else {
        return Ok(());
    };
    if let Some(ccn) = cx.any("ccn", &ccn_id).await? {
        let snat = net::cidr_list(ccn.str("SnatCidrBlock")).unwrap_or_default();
        if net::overlap(&blocks, &snat) {
            return Err(cx.err(&["SAG.ConflictCidr.CcnSnatCidr"]));
        }
        if gw.str("InstanceType") == SOFTWARE {
            let own = net::cidr_list(ccn.str("CidrBlock")).unwrap_or_default();
            if own.is_empty() {
                return Err(cx.err(&["SAG.CcnCidrNoConfig"]));
            }
            if !blocks.iter().all(|b| own.iter().any(|o| o.contains(b))) {
                return Err(cx.err(&["SAG.InvalidCidr.NoBelongCcnCidr"]));
            }
        }
    }
    if super::ccn::sibling_overlap(cx, &ccn_id, &gw.id, &blocks).await? {
        return Err(cx.err(&["SAG.CidrOverlap"]));
    }
    Ok(())
}

pub async fn delete(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    for (kind, _) in objects::all_links(cx.conn(), &[&gw.id]).await?.remove(&gw.id).unwrap_or_default() {
        match kind.as_str() {
            "ccn" => return Err(cx.err(&["AlreadyBound.CCN"])),
            "vbr" => return Err(cx.err(&["SAG.DedicatedLineExist"])),
            _ => {}
        }
    }
    for kind in ["snat", "dnat", "health", "distribution", "app_user", "grant_ccn", "grant_vbr"] {
        objects::delete_children(cx.conn(), kind, &gw.id).await?;
    }
    let devices = cx.devices_of(&gw.id).await?;
    cx.changed.extend(devices.into_iter().map(|d| d.sn));
    for sql in ["DELETE FROM devices WHERE sag = $1", "DELETE FROM links WHERE a = $1"] {
        sqlx::query(sql).bind(gw.id.clone()).execute(cx.conn().writer()?).await?;
    }
    cx.remove(&gw).await?;
    Ok(empty())
}

pub async fn unlock(cx: &mut Cx) -> Result<Value> {
    let mut gw = cx.gateway().await?;
    gw.set("Locked", false);
    cx.put(&gw).await?;
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn reboot(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let devices = match cx.opt("SerialNumber") {
        Some(_) => vec![cx.device_on(&gw).await?],
        None => cx.devices_of(&gw.id).await?,
    };
    let mut online: Vec<_> = devices.into_iter().filter(|d| d.online(cx.now)).collect();
    if online.is_empty() {
        return Err(cx.err(&["SmartAccessGatewayNotOnline"]));
    }
    for d in &mut online {
        cx.command(d, Command::Reboot).await?;
    }
    Ok(empty())
}

pub async fn modify_up_bandwidth(cx: &mut Cx) -> Result<Value> {
    let mut gw = cx.gateway().await?;
    let fields = cx.fields(&["UpBandwidth4G", "UpBandwidthWan"]);
    if fields.is_empty() {
        return Err(cx.err(&["MissingParameter"]));
    }
    for (k, v) in fields {
        if v.as_i64().is_none_or(|n| n < 0) {
            return Err(cx.invalid(&k));
        }
        gw.set(&k, v);
    }
    cx.put(&gw).await?;
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn clear_routeable_address(cx: &mut Cx) -> Result<Value> {
    let mut gw = cx.gateway().await?;
    gw.body.remove("RoutableAddress");
    cx.put(&gw).await?;
    cx.touch(&gw.id).await?;
    Ok(empty())
}

pub async fn bind_serial(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let sn = cx.text("SerialNumber");
    if !sn.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) || sn.len() > 64 {
        return Err(cx.invalid("SerialNumber"));
    }
    if gw.str("InstanceType") == SOFTWARE {
        return Err(cx.err(&["ActionNotSupport"]));
    }
    if cx.device_by_sn(&sn).await?.is_some() {
        return Err(cx.err(&["SAG.SnConflict"]));
    }
    let bound = cx.devices_of(&gw.id).await?.len();
    let most = if gw.str("HaType") == "no_backup" { 1 } else { 2 };
    if bound >= most {
        return Err(cx.err(&["SAG.SnOverLimit"]));
    }
    cx.add_device(&gw, &sn, bound).await?;
    Ok(empty())
}

pub async fn unbind_serial(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let device = cx.device_on(&gw).await?;
    sqlx::query("DELETE FROM devices WHERE sn = $1")
        .bind(device.sn.clone())
        .execute(cx.conn().writer()?)
        .await?;
    cx.changed.insert(device.sn);
    Ok(empty())
}

/// A new key for a virtual device; the agent gets it with its configuration.
pub async fn clear_cipher(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    if gw.str("HardwareVersion") != "sag-vcpe" {
        return Err(cx.err(&["FeatureNotSupport"]));
    }
    let mut device = cx.device_on(&gw).await?;
    let key = cx.cipher.token(crate::store::secrets::MIXED, 32);
    let key = key.map_err(crate::proto::error::ApiError::internal)?;
    let sealed = cx.seal(&key)?;
    device.set("SealedKey", sealed.into());
    cx.save_device(&mut device, "Key").await?;
    Ok(empty())
}
