//! The objects that a gateway has or links to, as the contract has them.

use sag_southbound as sent;

use super::word;
use crate::api::validate::ANY_PORT;
use crate::domain::acl::{AclRule, on_the_wire};
use crate::domain::distribution::RouteStrategy;
use crate::domain::flow_log::FlowLog;
use crate::domain::gateway::Gateway;
use crate::domain::health::HealthCheck;
use crate::domain::nat::{DnatEntry, SnatEntry};
use crate::domain::probe::ProbeTask;
use crate::domain::qos::{QosCar, QosPolicy};

pub fn gateway(of: &Gateway) -> sent::GatewaySettings {
    sent::GatewaySettings {
        name: of.name().to_owned(),
        status: of.status.clone(),
        cidr_block: of.cidr_block.clone(),
        routing_strategy: of.routing_strategy.clone(),
        bandwidth: Some(of.bandwidth),
        security_lock_threshold: Some(of.security_lock_threshold),
        up_bandwidth_wan: Some(of.up_bandwidth_wan),
        ha_type: of.ha_type.clone().unwrap_or_default(),
        dpi_status: of.dpi_status.clone(),
        dpi_monitor_status: of.dpi_monitor_status.clone(),
        access_point_id: Some(of.access_point_id),
        locked: of.locked,
        advanced_monitor: of.advanced_monitor,
        accelerate_bandwidth: of.accelerate_bandwidth,
    }
}

pub fn acl_rule(of: AclRule) -> sent::AclRule {
    let (ip_protocol, dest_port_range) = on_the_wire(of.ip_protocol, of.dest_port_range);
    sent::AclRule {
        id: of.acr_id,
        name: of.name.unwrap_or_default(),
        description: of.description.unwrap_or_default(),
        direction: of.direction,
        kind: of.r#type.unwrap_or_default(),
        policy: of.policy,
        priority: Some(of.priority),
        ip_protocol,
        source_cidr: of.source_cidr,
        dest_cidr: of.dest_cidr,
        source_port_range: of.source_port_range,
        dest_port_range,
        dpi_group_ids: of.dpi_group_ids,
        dpi_signature_ids: of.dpi_signature_ids,
        gmt_create: Some(of.gmt_create),
    }
}

pub fn qos_policy(of: QosPolicy) -> sent::QosPolicy {
    let (ip_protocol, dest_port_range) = on_the_wire(of.ip_protocol, of.dest_port_range);
    sent::QosPolicy {
        id: of.qos_policy_id,
        name: of.name.unwrap_or_default(),
        description: of.description.unwrap_or_default(),
        priority: Some(of.priority),
        ip_protocol,
        source_cidr: of.source_cidr,
        dest_cidr: of.dest_cidr,
        source_port_range: of.source_port_range,
        dest_port_range,
        start_time: of.start_time.unwrap_or_default(),
        end_time: of.end_time.unwrap_or_default(),
        dpi_group_ids: of.dpi_group_ids,
        dpi_signature_ids: of.dpi_signature_ids,
    }
}

pub fn qos_car(of: QosCar) -> sent::QosCar {
    sent::QosCar {
        id: of.qos_car_id,
        name: of.name.unwrap_or_default(),
        description: of.description.unwrap_or_default(),
        priority: Some(of.priority),
        limit_type: of.limit_type,
        min_bandwidth_abs: of.min_bandwidth_abs,
        max_bandwidth_abs: of.max_bandwidth_abs,
        min_bandwidth_percent: of.min_bandwidth_percent,
        max_bandwidth_percent: of.max_bandwidth_percent,
        percent_source_type: of.percent_source_type.unwrap_or_default(),
    }
}

pub fn snat_entry(of: SnatEntry) -> sent::SnatEntry {
    sent::SnatEntry { id: of.instance_id, cidr_block: of.cidr_block, snat_ip: of.snat_ip }
}

pub fn dnat_entry(of: DnatEntry) -> sent::DnatEntry {
    let any_protocol = of.is_any_protocol();
    // Of a protocol with ports, all of them.
    let port = |port: String| match port.eq_ignore_ascii_case(ANY_PORT) && !any_protocol {
        true => "1/65535".to_owned(),
        false => port,
    };
    sent::DnatEntry {
        id: of.dnat_entry_id,
        kind: of.r#type,
        ip_protocol: of.ip_protocol,
        external_ip: of.external_ip.unwrap_or_default(),
        external_port: port(of.external_port),
        internal_ip: of.internal_ip,
        internal_port: port(of.internal_port),
    }
}

pub fn health_check(of: HealthCheck) -> sent::HealthCheck {
    sent::HealthCheck {
        id: of.hc_instance_id,
        name: of.name,
        kind: word(&of.r#type),
        dst_ip: of.dst_ip_addr,
        src_ip: of.src_ip_addr,
        dst_port: of.dst_port,
        src_port: of.src_port,
        probe_interval: Some(of.probe_interval),
        probe_count: Some(of.probe_count),
        probe_timeout: Some(of.probe_timeout),
        rtt_threshold: Some(of.rtt_threshold),
        rtt_fail_threshold: Some(of.rtt_fail_threshold),
        fail_count_threshold: Some(of.fail_count_threshold),
    }
}

pub fn probe_task(of: ProbeTask) -> sent::ProbeTask {
    sent::ProbeTask {
        id: of.probe_task_id,
        name: of.task_name.unwrap_or_default(),
        protocol: word(&of.protocol),
        destination: of.domain,
        port: of.port,
        packet_number: of.packet_number,
        source: of.probe_task_source_address.unwrap_or_default(),
    }
}

pub fn distribution_rule(of: RouteStrategy) -> sent::DistributionRule {
    sent::DistributionRule {
        origin: word(&of.source_type),
        route_source: of.route_source,
        destination: of.dest_cidr_block,
        strategy: word(&of.route_distribution),
        health_check: of.hc_instance_id.unwrap_or_default(),
    }
}

pub fn flow_log(of: FlowLog) -> sent::FlowLog {
    sent::FlowLog {
        id: of.flow_log_id,
        name: of.name.unwrap_or_default(),
        status: of.status,
        active_aging: Some(of.active_aging),
        inactive_aging: Some(of.inactive_aging),
        output_type: of.output_type,
        sls_region_id: of.sls_region_id.unwrap_or_default(),
        project_name: of.project_name.unwrap_or_default(),
        logstore_name: of.logstore_name.unwrap_or_default(),
        netflow_server_ip: of.netflow_server_ip.unwrap_or_default(),
        netflow_server_port: of.netflow_server_port,
        netflow_version: of.netflow_version.unwrap_or_default(),
    }
}
