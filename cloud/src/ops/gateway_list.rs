//! Gateway instances as they are shown.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use super::cx::Cx;
use super::device::Device;
use super::gateway::{KIND, SOFTWARE};
use crate::proto::error::Result;
use crate::store::objects::{self, Filter, Object};
use crate::store::secrets::mask;

/// What is shown of a device's configuration with its gateway.
const SHOWN: &[&str] = &["Slot", "SealedKey", "SoftwareVersion"];

/// Everything that is shown about an instance and is not in its own row.
#[derive(Default)]
struct Around {
    devices: Vec<Device>,
    links: objects::Links,
    ccn: Option<Object>,
}

impl Around {
    async fn load(cx: &mut Cx, gw: &Object) -> Result<Around> {
        let mut one = Around::load_all(cx, std::slice::from_ref(gw)).await?;
        Ok(one.pop().unwrap_or_default())
    }

    /// One for each of the gateways, in their order.
    async fn load_all(cx: &mut Cx, gws: &[Object]) -> Result<Vec<Around>> {
        let ids: Vec<&str> = gws.iter().map(|g| g.id.as_str()).collect();
        let mut devices = cx.devices_with(&ids, SHOWN).await?;
        let mut links = objects::all_links(cx.conn(), &ids).await?;
        let mut ccns: HashMap<String, Object> = HashMap::new();
        let mut out = Vec::new();
        for id in ids {
            let links = links.remove(id).unwrap_or_default();
            let ccn = links.iter().find(|(k, _)| k == "ccn").map(|(_, ccn)| ccn.clone());
            if let Some(c) = ccn.as_ref().filter(|c| !ccns.contains_key(*c)) {
                ccns.extend(cx.any("ccn", c).await?.map(|o| (c.clone(), o)));
            }
            let ccn = ccn.and_then(|c| ccns.get(&c).cloned());
            out.push(Around { devices: devices.remove(id).unwrap_or_default(), links, ccn });
        }
        Ok(out)
    }

    fn ids(&self, kind: &str) -> Vec<&str> {
        self.links.iter().filter(|(k, _)| k == kind).map(|(_, id)| id.as_str()).collect()
    }

    fn online(&self, now: i64) -> bool {
        self.devices.iter().any(|d| d.online(now))
    }
}

/// The stored status, but `Offline` once all devices fell silent and `Arrearage` after the end.
pub fn status(gw: &Object, devices: &[Device], now: i64) -> String {
    if gw.int("EndTime") < now {
        return "Arrearage".to_owned();
    }
    let known = devices.iter().any(|d| d.seen > 0);
    if gw.str("Status") == "Active" && known && !devices.iter().any(|d| d.online(now)) {
        return "Offline".to_owned();
    }
    gw.str("Status").to_owned()
}

fn version(d: &Device) -> String {
    let reported = d.report["SoftwareVersion"].as_str();
    reported.or(d.get("SoftwareVersion").as_str()).unwrap_or_default().to_owned()
}

fn up_down(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

fn common(cx: &Cx, gw: Object, around: &Around) -> Value {
    let now = cx.now;
    let (status, end) = (status(&gw, &around.devices, now), gw.int("EndTime"));
    let sns: Vec<&str> = around.devices.iter().map(|d| d.sn.as_str()).collect();
    let online = around.online(now);
    let bandwidth = gw.int("Bandwidth");
    let mut out = Value::Object(gw.body);
    out["Status"] = status.into();
    out["SerialNumber"] = sns.join(",").into();
    out["MaxBandwidth"] = format!("{bandwidth} M").into();
    out["VpnStatus"] = up_down(online && around.ccn.is_some()).into();
    let ipsec = around.devices.iter().any(|d| d.online(now) && d.report["IpsecStatus"] == "up");
    out["IpsecStatus"] = up_down(ipsec).into();
    out["BackupStatus"] = if around.devices.len() > 1 { "Active" } else { "" }.into();
    if let Some(ccn) = &around.ccn {
        out["AssociatedCcnId"] = ccn.id.as_str().into();
        out["AssociatedCcnName"] = ccn.name.as_str().into();
        out["Links"] = json!([{
            "Type": "ccn", "Status": "Active", "EndTime": end, "InstanceId": gw.id,
            "RelateInstanceId": ccn.id, "RelateInstanceRegionId": ccn.region,
            "Bandwidth": format!("{bandwidth} M"), "CommodityType": "smartag",
            "HealthCheckTargetIp": "",
        }]);
    }
    out
}

pub async fn describe(cx: &mut Cx) -> Result<Value> {
    if let (Some(_), None) = (cx.opt("SoftwareVersion"), cx.opt("VersionComparator")) {
        cx.params.set("VersionComparator", "equals");
    }
    let mut filter = cx.mine();
    filter.name = cx.opt("Name");
    filter.ids = wanted(cx).await?;
    let unbound = cx.opt("UnboundAclIds");
    let here = [
        "Status",
        "InstanceType",
        "CanAssociateQos",
        "HardwareType",
        "SoftwareVersion",
        "BusinessState",
        "ResourceGroupId",
    ];
    let (total, page) = if unbound.is_none() && here.iter().all(|n| cx.opt(n).is_none()) {
        cx.paged(KIND, &filter).await?
    } else {
        let mut rows = cx.list_all(KIND, &filter).await?;
        rows.retain(|gw| row_matches(cx, gw));
        let arounds = Around::load_all(cx, &rows).await?;
        let both = rows.into_iter().zip(arounds);
        let kept = both.filter(|(gw, a)| around_matches(cx, gw, a)).map(|(gw, _)| gw).collect();
        cx.cut(kept)
    };
    let mut rows = Vec::new();
    let arounds = Around::load_all(cx, &page).await?;
    for (gw, around) in page.into_iter().zip(arounds) {
        let mut row = common(cx, gw, &around);
        row["AclIds"] = around.ids("acl").join(",").into();
        row["QosIds"] = around.ids("qos").join(",").into();
        row["SoftwareVersion"] = around.devices.first().map(version).unwrap_or_default().into();
        row["BackupSoftwareVersion"] = around.devices.get(1).map(version).unwrap_or_default().into();
        rows.push(row);
    }
    Ok(cx.listing("SmartAccessGateways", total, rows))
}

/// The identifiers that the identifying filters leave, or `None` without such a filter.
async fn wanted(cx: &mut Cx) -> Result<Option<Vec<String>>> {
    let mut sets: Vec<Vec<String>> = Vec::new();
    if let Some(id) = cx.opt("SmartAGId") {
        sets.push(vec![id]);
    }
    let ids = cx.list("SmartAGIds");
    if !ids.is_empty() {
        sets.push(ids);
    }
    if let Some(sn) = cx.opt("SerialNumber") {
        sets.push(cx.device_by_sn(&sn).await?.map(|d| d.sag).into_iter().collect());
    }
    if let Some(ccn) = cx.opt("AssociatedCcnId") {
        sets.push(cx.links_to("ccn", &ccn).await?);
    }
    if cx.opt("AclIds").is_some() {
        let mut bound = Vec::new();
        for acl in cx.list("AclIds") {
            bound.extend(cx.links_to("acl", &acl).await?);
        }
        sets.push(bound);
    }
    let mut sets = sets.into_iter();
    let Some(first) = sets.next() else { return Ok(None) };
    let all: BTreeSet<String> = first.into_iter().collect();
    Ok(Some(sets.fold(all, |a, b| b.into_iter().filter(|x| a.contains(x)).collect()).into_iter().collect()))
}

/// The filters that the instance's own row answers.
fn row_matches(cx: &Cx, gw: &Object) -> bool {
    let state = if gw.int("EndTime") < cx.now { "Arrearage" } else { "Normal" };
    let filters = [
        ("InstanceType", edition(gw)),
        ("HardwareType", gw.str("HardwareVersion")),
        ("BusinessState", state),
        ("ResourceGroupId", gw.str("ResourceGroupId")),
    ];
    filters.iter().all(|(name, have)| cx.opt(name).is_none_or(|want| want == *have))
}

fn edition(gw: &Object) -> &'static str {
    if gw.str("InstanceType") == SOFTWARE { SOFTWARE } else { "hardware" }
}

/// The filters that need the devices and the links.
fn around_matches(cx: &Cx, gw: &Object, around: &Around) -> bool {
    if cx.opt("Status").is_some_and(|s| s != status(gw, &around.devices, cx.now)) {
        return false;
    }
    if cx.list("UnboundAclIds").iter().any(|a| around.ids("acl").contains(&a.as_str())) {
        return false;
    }
    let can_take_qos = around.ids("qos").is_empty() && edition(gw) != SOFTWARE;
    if cx.flag("CanAssociateQos").is_some_and(|want| want != can_take_qos) {
        return false;
    }
    let Some(asked) = cx.opt("SoftwareVersion") else { return true };
    let Some(have) = around.devices.first().map(version) else { return false };
    let order = numbers(&have).cmp(&numbers(&asked));
    match cx.text("VersionComparator").as_str() {
        "greater" => order.is_gt(),
        "less" => order.is_lt(),
        _ => order.is_eq(),
    }
}

/// `2.3.0.0` for comparison.
pub fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|n| n.parse().unwrap_or(0)).collect()
}

pub async fn attribute(cx: &mut Cx) -> Result<Value> {
    let gw = cx.gateway().await?;
    let around = Around::load(cx, &gw).await?;
    let bandwidth = gw.int("Bandwidth");
    let mut out = common(cx, gw, &around);
    out["AclIds"] = json!(around.ids("acl"));
    out["QosIds"] = json!(around.ids("qos"));
    out["FlowLogIds"] = json!(around.ids("flowlog"));
    out["MaxBandwidth"] = format!("{bandwidth}M").into();
    out["TrafficMasterSn"] = around.devices.first().map(|d| d.sn.as_str()).unwrap_or_default().into();
    out["EnableOptimization"] = around.devices.iter().any(|d| d.report["EnableOptimization"] == true).into();
    let mut devices = Vec::new();
    for (i, d) in around.devices.iter().enumerate() {
        let sealed = d.get("SealedKey").as_str().unwrap_or_default();
        let key = cx.cipher.open(sealed).unwrap_or_default();
        devices.push(json!({
            "SerialNumber": d.sn,
            "SoftwareVersion": version(d),
            "MonitorVersion": d.report["MonitorVersion"],
            "DpiSignatureDbVersion": d.report["DpiSignatureDbVersion"],
            "HaState": if i == 0 { "Active" } else { "Standby" },
            "HcState": if d.online(cx.now) { "online" } else { "offline" },
            "SecretKey": mask(&key),
            "DistributeSkStatus": i64::from(d.applied > 0),
        }));
    }
    out["Devices"] = json!(devices);
    Ok(out)
}

pub async fn bindable(cx: &mut Cx) -> Result<Value> {
    let mut filter = cx.mine();
    filter.name = cx.opt("Name");
    filter.ids = cx.opt("SmartAGId").map(|id| vec![id]);
    if let Some(id) = cx.opt("CcnId")
        && cx.find("ccn", &id).await?.is_none()
    {
        return Err(cx.err(&["CCN.InvalidId"]));
    }
    if cx.flag("CrossAccount") == Some(true) {
        // Instances of other accounts that were granted to this account's network.
        let granted = cx.links_to("granted_ccn", &cx.text("CcnId")).await?;
        filter = Filter { ids: Some(granted), ..Filter::default() };
    }
    let mut free = cx.list_all(KIND, &filter).await?;
    let ids: Vec<&str> = free.iter().map(|g| g.id.as_str()).collect();
    let links = objects::all_links(cx.conn(), &ids).await?;
    let bound = |g: &Object| links.get(&g.id).is_some_and(|l| l.iter().any(|(k, _)| k == "ccn"));
    free.retain(|g| !bound(g));
    let (total, page) = cx.cut(free);
    let rows = page.iter().map(|g| json!({"SmartAGId": g.id, "Name": g.name, "SmartAGUid": g.uid})).collect();
    Ok(cx.listing("SmartAccessGateways", total, rows))
}
