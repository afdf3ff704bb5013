//! The file as it is written: every key of every section, unjudged.
//!
//! These structs are the one list of keys; reading, writing and the documentation's test use it.

use super::read::{Absent, Opt, RawTable, Text, raw_table};
use toml::Spanned;

raw_table! {
    RawConfig {
        dataplane: Option<RawDataplane>,
        timeouts: Option<RawTimeouts>,
        bandwidth: Option<RawBandwidth>,
        port: Vec<RawPort>,
        neighbor: Vec<RawNeighbor>,
        route: Vec<RawRoute>,
        acl: Vec<RawAcl>,
        qos: Vec<RawQos>,
        nat: Option<RawNat>,
        snat: Vec<RawSnat>,
        dnat: Vec<RawDnat>,
        tunnel: Vec<RawTunnel>,
        flow_log: Option<RawFlowLog>,
    }
}

raw_table! {
    RawDataplane {
        workers: Opt<i64>,
        mode: Opt<String>,
        zero_copy: Opt<String>,
        busy_poll: Opt<bool>,
        fast_path: Opt<bool>,
        flows: Opt<i64>,
        state_dir: Opt<String>,
        pin_dir: Opt<String>,
        control: Opt<String>,
        metrics: Opt<String>,
        log: Opt<String>,
        acl_default: Opt<String>,
        acl_stateful: Opt<bool>,
        on_daemon_loss: Opt<String>,
        icmp_rate: Opt<i64>,
        new_flow_rate: Opt<i64>,
        rejudge_window: Opt<i64>,
        rekey_time: Opt<i64>,
        rekey_bytes: Opt<i64>,
    }
}

raw_table! {
    RawTimeouts {
        tcp_established: Opt<i64>,
        tcp_transitory: Opt<i64>,
        tcp_syn: Opt<i64>,
        udp: Opt<i64>,
        icmp: Opt<i64>,
        other: Opt<i64>,
    }
}

raw_table! {
    RawBandwidth {
        ccn: Opt<i64>,
        internet_up: Opt<i64>,
        overhead: Opt<i64>,
    }
}

raw_table! {
    RawPort {
        name: Opt<String>,
        device: Opt<String>,
        vlan: Opt<i64>,
        role: Opt<String>,
        addresses: Opt<Vec<Spanned<String>>>,
        mac: Opt<String>,
        mtu: Opt<i64>,
        snat: Opt<bool>,
        snat_mapping: Opt<String>,
        snat_filtering: Opt<String>,
        bandwidth: Opt<i64>,
    }
}

raw_table! {
    RawNeighbor {
        port: Opt<String>,
        address: Opt<String>,
        mac: Opt<String>,
    }
}

raw_table! {
    RawRoute {
        destination: Opt<String>,
        next_hop: Opt<String>,
        port: Opt<String>,
        tunnel: Opt<String>,
        r#type: Opt<String>,
        metric: Opt<i64>,
        weight: Opt<i64>,
    }
}

raw_table! {
    RawAcl {
        id: Opt<String>,
        name: Opt<String>,
        rule: Vec<RawAclRule>,
    }
}

raw_table! {
    RawAclRule {
        id: Opt<String>,
        name: Opt<String>,
        description: Opt<String>,
        direction: Opt<String>,
        r#type: Opt<String>,
        policy: Opt<String>,
        ip_protocol: Opt<Text>,
        source_cidr: Opt<String>,
        dest_cidr: Opt<String>,
        source_port_range: Opt<String>,
        dest_port_range: Opt<String>,
        priority: Opt<i64>,
    }
}

raw_table! {
    RawQos {
        id: Opt<String>,
        name: Opt<String>,
        description: Opt<String>,
        car: Vec<RawQosCar>,
        policy: Vec<RawQosPolicy>,
    }
}

raw_table! {
    RawQosCar {
        id: Opt<String>,
        name: Opt<String>,
        description: Opt<String>,
        priority: Opt<i64>,
        limit_type: Opt<String>,
        min_bandwidth_abs: Opt<i64>,
        max_bandwidth_abs: Opt<i64>,
        min_bandwidth_percent: Opt<i64>,
        max_bandwidth_percent: Opt<i64>,
        percent_source_type: Opt<String>,
        burst_ms: Opt<i64>,
        remark_dscp: Opt<Text>,
    }
}

raw_table! {
    RawQosPolicy {
        id: Opt<String>,
        name: Opt<String>,
        description: Opt<String>,
        priority: Opt<i64>,
        source_cidr: Opt<String>,
        dest_cidr: Opt<String>,
        ip_protocol: Opt<Text>,
        source_port_range: Opt<String>,
        dest_port_range: Opt<String>,
        dscp: Opt<Text>,
        start_time: Opt<Text>,
        end_time: Opt<Text>,
    }
}

raw_table! {
    RawNat {
        port_range: Opt<String>,
        host_sessions: Opt<i64>,
        warn_percent: Opt<i64>,
        port_block: Opt<i64>,
        log: Opt<String>,
        log_file: Opt<String>,
        hairpin: Opt<bool>,
    }
}

raw_table! {
    RawSnat {
        id: Opt<String>,
        cidr_block: Opt<String>,
        snat_ip: Opt<String>,
        mapping: Opt<String>,
        filtering: Opt<String>,
    }
}

raw_table! {
    RawDnat {
        id: Opt<String>,
        r#type: Opt<String>,
        ip_protocol: Opt<String>,
        external_ip: Opt<String>,
        external_port: Opt<Text>,
        internal_ip: Opt<String>,
        internal_port: Opt<Text>,
    }
}

raw_table! {
    RawTunnel {
        name: Opt<String>,
        kind: Opt<String>,
        local: Opt<String>,
        remote: Opt<String>,
        mtu: Opt<i64>,
        addresses: Opt<Vec<Spanned<String>>>,
        ttl: Opt<i64>,
        df: Opt<String>,
        dscp: Opt<Text>,
        fragment: Opt<String>,
        mss_clamp: Opt<bool>,
        vni: Opt<i64>,
        port: Opt<i64>,
        udp_checksum: Opt<bool>,
        mac: Opt<String>,
        remote_mac: Opt<String>,
        key: Opt<i64>,
        checksum: Opt<bool>,
        sequence: Opt<bool>,
        spi_in: Opt<i64>,
        spi_out: Opt<i64>,
        key_in: Opt<String>,
        key_out: Opt<String>,
        udp_encap: Opt<bool>,
        udp_port: Opt<i64>,
        keepalive: Opt<i64>,
        cipher: Opt<String>,
        keying: Opt<String>,
        esn: Opt<bool>,
        replay_window: Opt<i64>,
        fec: Opt<bool>,
        fec_window: Opt<i64>,
        fec_repairs: Opt<i64>,
        fec_delay: Opt<i64>,
        probe_interval: Opt<i64>,
        probe_loss: Opt<i64>,
        probe_target: Opt<String>,
    }
}

raw_table! {
    RawFlowLog {
        active_aging: Opt<i64>,
        inactive_aging: Opt<i64>,
        netflow_server: Opt<String>,
        netflow_version: Opt<String>,
    }
}

/// Every section's header and keys, for tools and for the documentation's test.
pub const SECTIONS: &[(&str, &[&str])] = &[
    ("dataplane", RawDataplane::KEYS),
    ("timeouts", RawTimeouts::KEYS),
    ("bandwidth", RawBandwidth::KEYS),
    ("port", RawPort::KEYS),
    ("neighbor", RawNeighbor::KEYS),
    ("route", RawRoute::KEYS),
    ("acl", RawAcl::KEYS),
    ("acl.rule", RawAclRule::KEYS),
    ("qos", RawQos::KEYS),
    ("qos.car", RawQosCar::KEYS),
    ("qos.policy", RawQosPolicy::KEYS),
    ("nat", RawNat::KEYS),
    ("snat", RawSnat::KEYS),
    ("dnat", RawDnat::KEYS),
    ("tunnel", RawTunnel::KEYS),
    ("flow_log", RawFlowLog::KEYS),
];
