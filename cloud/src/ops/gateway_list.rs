//! Gateway instances as they are shown.

use std::collections::HashMap;

use super::access_points;
use super::cx::Cx;
use super::fields::{Give, copied};
use crate::api::request::separated;
use crate::api::{request, response};
use crate::domain::ccn::Ccn;
use crate::domain::device::ONLINE_MS;
use crate::domain::gateway::{Gateway, SOFTWARE};
use crate::domain::objects::Authorised;
use crate::error::Result;
use crate::store::devices::Summary;
use crate::store::gateways::Comparison;
use crate::store::links::Links;
use crate::store::objects::{Column, Filter};
use crate::store::secrets::mask;
use crate::store::{Kind, Link};

/// Everything that is shown about an instance and is not in its own row.
#[derive(Default)]
struct Around {
    devices: Vec<Summary>,
    links: Links,
    ccn: Option<Authorised<Ccn>>,
    enterprise_code: Option<String>,
}

impl Around {
    /// One for each of the gateways, in their order.
    async fn load_all(cx: &mut Cx, gws: &[Authorised<Gateway>]) -> Result<Vec<Around>> {
        let mut devices = cx.device_summaries(gws).await?;
        let mut links = cx.visible_links_from(gws).await?;
        let codes = gws.iter().filter_map(|gw| gw.enterprise_code.clone()).collect();
        let codes = cx.visible_of(Kind::EnterpriseCode, codes).await?;
        let mut ccns: HashMap<String, Option<Authorised<Ccn>>> = HashMap::new();
        let mut out = Vec::new();
        for gw in gws {
            let id = gw.id.as_str();
            let links = links.remove(id).unwrap_or_default();
            let mut ccn = None;
            if let Some(id) = links.first(Link::Ccn) {
                if !ccns.contains_key(id) {
                    ccns.insert(id.to_owned(), cx.network_of(&links).await?);
                }
                ccn = ccns.get(id).cloned().flatten();
            }
            let enterprise_code = gw.enterprise_code.clone().filter(|code| codes.contains(code));
            let devices = devices.remove(id).unwrap_or_default();
            out.push(Around { devices, links, ccn, enterprise_code });
        }
        Ok(out)
    }

    fn serial_numbers(&self) -> String {
        self.devices.iter().map(|d| d.sn.as_str()).collect::<Vec<_>>().join(",")
    }

    /// The software of the first or the second device.
    fn version(&self, place: usize) -> String {
        self.devices.get(place).map(|d| d.reported.software_version.clone()).unwrap_or_default()
    }

    fn vpn_status(&self, now: i64) -> String {
        up_down(self.devices.iter().any(|d| d.online(now) && d.reported.vpn_state == "Normal"))
    }

    fn ipsec_status(&self, now: i64) -> String {
        up_down(self.devices.iter().any(|d| d.online(now) && d.reported.ipsec_status == "up"))
    }

    /// The device that forwards most, of those that say that they do.
    fn traffic_master(&self, now: i64) -> String {
        let rate = |d: &Summary| d.reported.traffic_rate.unwrap_or_default();
        let active = self.devices.iter().filter(|d| d.online(now) && d.reported.ha_state == "Active");
        // Of equals the first one of the pair.
        let most = active.rev().max_by(|a, b| rate(a).total_cmp(&rate(b)));
        most.map(|d| d.sn.clone()).unwrap_or_default()
    }

    /// Where the reports of the first or the second device come from.
    fn address(&self, place: usize) -> String {
        self.devices.get(place).map(|d| d.address.clone()).unwrap_or_default()
    }

    /// Of the second device; nothing if there is none.
    fn backup_status(&self, now: i64) -> String {
        let word = |d: &Summary| if d.online(now) { "Active" } else { "Offline" };
        self.devices.get(1).map(word).unwrap_or_default().to_owned()
    }
}

/// The model as the documents name it: the edition for the client app has a prefix there.
fn edition(model: &str) -> String {
    if model == SOFTWARE { format!("sag-{model}") } else { model.to_owned() }
}

fn up_down(up: bool) -> String {
    if up { "up" } else { "down" }.to_owned()
}

/// The stored status, but `Offline` once all devices fell silent and `Arrearage` after the end.
fn status(gw: &Gateway, devices: &[Summary], now: i64) -> String {
    if gw.end_time < now {
        return "Arrearage".to_owned();
    }
    let heard = devices.iter().any(|d| d.seen > 0);
    if gw.status == "Active" && heard && !devices.iter().any(|d| d.online(now)) {
        return "Offline".to_owned();
    }
    gw.status.clone()
}

/// The same as a condition.
fn with_status(filter: Filter, status: String, now: i64) -> Filter {
    if status == "Arrearage" {
        return filter.paid_at(now, false);
    }
    let filter = filter.paid_at(now, true);
    match status.as_str() {
        "Offline" => filter.equals(Column::Status, Some("Active")).silent_since(now - ONLINE_MS, true),
        "Active" => filter.equals(Column::Status, Some("Active")).silent_since(now - ONLINE_MS, false),
        _ => filter.equals(Column::Status, Some(status)),
    }
}

pub async fn describe(
    cx: &mut Cx,
    request: request::DescribeSmartAccessGateways,
) -> Result<response::DescribeSmartAccessGateways> {
    for ccn in request.associated_ccn_id.iter() {
        cx.require_named(Kind::Ccn, ccn, true).await?;
    }
    for acls in [&request.acl_ids, &request.unbound_acl_ids].into_iter().flatten() {
        for acl in separated(acls) {
            cx.require_named(Kind::Acl, &acl, false).await?;
        }
    }
    let networks = match &request.associated_ccn_name {
        Some(name) => Some(networks_named(cx, name).await?),
        None => None,
    };
    let mut filter = filter(cx, request);
    if let Some(networks) = networks {
        filter = filter.linked(Link::Ccn, &networks);
    }
    let page = cx.list_page::<Gateway>(&filter).await?;
    let around = Around::load_all(cx, &page.rows).await?;
    let rows = page.rows.iter().zip(around).map(|(gw, around)| row(gw, &around, cx.now));
    Ok(response::DescribeSmartAccessGateways {
        smart_access_gateways: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}

/// The networks with this text in their names that have gateways of the caller, as far as the call may use them.
async fn networks_named(cx: &mut Cx, name: &str) -> Result<Vec<String>> {
    let filter = Filter::default().name_contains(Some(name.to_owned())).with_member_of(cx.uid());
    let networks = cx.list::<Ccn>(&filter).await?;
    Ok(networks.into_iter().map(|ccn| ccn.id.clone()).collect())
}

fn filter(cx: &Cx, request: request::DescribeSmartAccessGateways) -> Filter {
    let mut filter = cx
        .mine()
        .name_contains(request.name)
        .equals(Column::Variant, request.instance_type)
        .equals(Column::Model, request.hardware_type)
        .equals(Column::ResourceGroup, request.resource_group_id);
    if !request.smart_ag_ids.is_empty() {
        filter.ids = Some(request.smart_ag_ids);
    }
    if let Some(id) = request.smart_ag_id {
        filter = filter.with_id(&id);
    }
    if let Some(sn) = request.serial_number {
        filter = filter.with_device(&sn);
    }
    if let Some(ccn) = request.associated_ccn_id {
        filter = filter.linked(Link::Ccn, &[ccn]);
    }
    if let Some(acls) = request.acl_ids {
        filter = filter.linked(Link::Acl, &separated(&acls));
    }
    if let Some(acls) = request.unbound_acl_ids {
        filter = filter.not_linked(Link::Acl, &separated(&acls));
    }
    if let Some(can) = request.can_associate_qos {
        filter = filter.can_take_qos(can);
    }
    if let Some(state) = request.business_state {
        filter = filter.paid_at(cx.now, state != "Arrearage");
    }
    if let Some(version) = request.software_version {
        let comparison = match request.version_comparator.as_deref() {
            Some("greater") => Comparison::Greater,
            Some("less") => Comparison::Less,
            _ => Comparison::Equal,
        };
        filter = filter.with_version(comparison, &version);
    }
    match request.status {
        Some(status) => with_status(filter, status, cx.now),
        None => filter,
    }
}

type Row = response::describe_smart_access_gateways::SmartAccessGateway;

fn row(gw: &Authorised<Gateway>, around: &Around, now: i64) -> Row {
    let ccn = around.ccn.as_ref();
    let bandwidth = format!("{} M", gw.bandwidth);
    let links = ccn.map(|ccn| response::describe_smart_access_gateways::Link {
        r#type: "ccn".to_owned(),
        status: status(gw, &around.devices, now),
        end_time: gw.end_time,
        instance_id: gw.id.clone(),
        relate_instance_id: ccn.id.clone(),
        relate_instance_region_id: ccn.region.clone(),
        bandwidth: bandwidth.clone(),
        commodity_type: "smartag".to_owned(),
    });
    copied!(gw => Row {
        accelerate_bandwidth, cidr_block, city, create_time, data_plan, description, dpi_monitor_status, dpi_status, end_time, name, resource_group_id, routing_strategy, security_lock_threshold,
        smart_ag_id, smart_ag_uid, up_bandwidth4_g, up_bandwidth_wan, user_count;
        access_point_id: access_points::shown(gw.access_point_id),
        acl_ids: around.links.ids(Link::Acl).join(","),
        qos_ids: around.links.ids(Link::Qos).join(","),
        associated_ccn_id: ccn.map(|c| c.id.clone()).unwrap_or_default(),
        associated_ccn_name: ccn.and_then(|c| c.name.clone()).unwrap_or_default(),
        backup_status: around.backup_status(now),
        enterprise_code: around.enterprise_code.clone().unwrap_or_default(),
        software_version: around.version(0),
        backup_software_version: around.version(1),
        hardware_version: Give::give(edition(&gw.hardware_version)),
        ipsec_status: around.ipsec_status(now),
        vpn_status: around.vpn_status(now),
        links: links.into_iter().collect(),
        max_bandwidth: bandwidth,
        serial_number: around.serial_numbers(),
        status: status(gw, &around.devices, now),
        position: gw.position.clone(),
        enable_advanced_monitor: Some(gw.advanced_monitor == Some(true)),
        enable_software_connection_audit: Some(false),
        ir_ids: Some(String::new()),
        ..Row::default()
    })
}

pub async fn attribute(
    cx: &mut Cx,
    _: request::DescribeSmartAccessGatewayAttribute,
) -> Result<response::DescribeSmartAccessGatewayAttribute> {
    use response::describe_smart_access_gateway_attribute::Link as Connection;
    let gw = cx.gateway().await?;
    let now = cx.now;
    let around = Around::load_all(cx, std::slice::from_ref(&gw)).await?.pop().unwrap_or_default();
    let ccn = around.ccn.as_ref();
    let overlay = ccn.map(|ccn| Connection {
        r#type: "ccn".to_owned(),
        status: status(&gw, &around.devices, now),
        end_time: gw.end_time,
        instance_id: gw.id.clone(),
        relate_instance_id: ccn.id.clone(),
        relate_instance_region_id: Some(ccn.region.clone()),
        bandwidth: format!("{} M", gw.bandwidth),
        commodity_type: "smartag".to_owned(),
        health_check_target_ip: Some(String::new()),
    });
    // Whether a leased line is paid, its bandwidth and the address of its router are known to whoever runs the router.
    let lines = around.links.ids(Link::Vbr).into_iter().map(|vbr| Connection {
        r#type: "vbr".to_owned(),
        instance_id: gw.id.clone(),
        relate_instance_id: vbr.to_owned(),
        relate_instance_region_id: gw.vbr_region_id.clone(),
        commodity_type: "smartag".to_owned(),
        health_check_target_ip: Some(String::new()),
        ..Connection::default()
    });
    let ids = |link: Link| Some(around.links.ids(link).into_iter().map(str::to_owned).collect());
    let optimized = around.devices.iter().any(|d| d.online(now) && d.reported.optimized);
    let devices = around.devices.iter().map(|d| device(cx, d));
    Ok(copied!(gw => response::DescribeSmartAccessGatewayAttribute {
        accelerate_bandwidth, cidr_block, city, create_time, data_plan, description, end_time, name, resource_group_id,
        routing_strategy, security_lock_threshold, smart_ag_id, up_bandwidth4_g, up_bandwidth_wan, user_count;
        access_point_id: access_points::shown(gw.access_point_id),
        acl_ids: ids(Link::Acl),
        qos_ids: ids(Link::Qos),
        flow_log_ids: ids(Link::FlowLog),
        instance_type: Give::give(edition(&gw.instance_type)),
        associated_ccn_id: ccn.map(|c| c.id.clone()).unwrap_or_default(),
        associated_ccn_name: ccn.and_then(|c| c.name.clone()).unwrap_or_default(),
        devices: devices.collect(),
        enable_optimization: Some(optimized),
        // The only type there is; the documents have its name, and a truth value for its type.
        optimization_type: optimized.then_some(true),
        ipsec_status: around.ipsec_status(now),
        vpn_status: around.vpn_status(now),
        links: overlay.into_iter().chain(lines).collect(),
        max_bandwidth: format!("{}M", gw.bandwidth),
        box_controller_ip: around.address(0),
        backup_box_controller_ip: around.address(1),
        ir_ids: Some(Vec::new()),
        position: gw.position.clone(),
        enable_software_connection_audit: Some(false),
        serial_number: around.serial_numbers(),
        status: status(&gw, &around.devices, now),
        traffic_master_sn: around.traffic_master(now),
        ..Default::default()
    }))
}

fn device(cx: &Cx, d: &Summary) -> response::describe_smart_access_gateway_attribute::Device {
    let key = cx.cipher.open(&d.sealed_key).unwrap_or_default();
    response::describe_smart_access_gateway_attribute::Device {
        serial_number: d.sn.clone(),
        software_version: d.reported.software_version.clone(),
        monitor_version: d.reported.monitor_version.clone(),
        dpi_signature_db_version: d.reported.dpi_version.clone(),
        ha_state: if d.online(cx.now) { d.reported.ha_state.clone() } else { String::new() },
        hc_state: if d.online(cx.now) { "online" } else { "offline" }.to_owned(),
        secret_key: mask(&key),
        distribute_sk_status: i64::from(d.applied > 0),
    }
}

pub async fn bindable(
    cx: &mut Cx,
    request: request::DescribeBindableSmartAccessGateways,
) -> Result<response::DescribeBindableSmartAccessGateways> {
    let mut filter = cx.mine().equals(Column::Name, request.name);
    filter.ids = request.smart_ag_id.map(|id| vec![id]);
    if let Some(id) = &request.ccn_id
        && cx.find::<Ccn>(id).await?.is_none()
    {
        return Err(cx.err(&["CCN.InvalidId"]));
    }
    if request.cross_account == Some(true) {
        // Instances of other accounts that were granted to this account's network.
        filter = Filter::default().linked(Link::GrantedCcn, &[request.ccn_id.unwrap_or_default()]);
    }
    let page = cx.list_page::<Gateway>(&filter.has_links(Link::Ccn, false)).await?;
    let rows = page.rows.iter().map(|gw| {
        copied!(gw => response::describe_bindable_smart_access_gateways::SmartAccessGateway {
            name, smart_ag_id;
            smart_ag_uid: gw.uid,
        })
    });
    Ok(response::DescribeBindableSmartAccessGateways {
        smart_access_gateways: rows.collect(),
        page_number: page.number,
        page_size: page.size,
        total_count: page.total,
    })
}
