//! A message of each kind with every member set.

use std::collections::BTreeMap;

use sag_southbound::*;

fn map<T>(entries: impl IntoIterator<Item = (&'static str, T)>) -> BTreeMap<String, T> {
    entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

pub fn commands() -> Vec<IssuedCommand> {
    let commands = [
        Command::Reboot,
        Command::Upgrade(UpgradeArgs { version_type: "Device".into(), version_code: "0.1.1".into() }),
        Command::Diagnose(DiagnoseArgs { diagnose_id: "dia-1".into() }),
        Command::Synchronize,
        Command::ProbeAccessPoints(ProbeArgs {
            access_point_ids: vec![101],
            probe_id: "probe-1".into(),
            access_points: vec![AccessPoint { id: 101, address: "203.0.113.101".into() }],
        }),
    ];
    commands.into_iter().map(|command| IssuedCommand { command, revision: 42 }).collect()
}

pub fn command_results() -> Vec<CommandResult> {
    let result = |name: &str, outcome, message: &str| CommandResult {
        name: name.into(),
        revision: 42,
        outcome,
        message: message.into(),
    };
    vec![
        result("Reboot", CommandOutcome::Done, ""),
        result("Upgrade", CommandOutcome::Unsupported, "the machine's package manager installs upgrades"),
        result("Dance", CommandOutcome::UnknownCommand, "sag-agent 0.1.0 does not know it"),
    ]
}

pub fn pull_request() -> PullRequest {
    PullRequest {
        smart_ag_id: "sag-1".into(),
        smart_ag_sn: "sn1".into(),
        revision: 41,
        wait: 25,
        version: Version::CURRENT,
    }
}

pub fn result_report() -> ResultReport {
    ResultReport {
        smart_ag_id: "sag-1".into(),
        smart_ag_sn: "sn1".into(),
        revision: 42,
        failure: "rule acr-1 of ACL acl-1: dest_port_range: …".into(),
        commands: command_results(),
        deviations: Some(deviations()),
        version: Version::CURRENT,
    }
}

fn deviations() -> Vec<Deviation> {
    vec![Deviation {
        section: "StaticRoutes".into(),
        object: "static route 10.5.0.0/16 by port 5".into(),
        effect: Some(Effect::LeftOut),
        reason: "port 5 has no network device here".into(),
    }]
}

fn diagnosis() -> Diagnosis {
    let text = |name: &str, details: &str, advice: &str| DiagnosisText {
        name: name.into(),
        details: texts(&[details]),
        advice: texts(&[advice]),
    };
    Diagnosis {
        id: "dia-1".into(),
        items: vec![DiagnosisItem {
            kind: "internet".into(),
            name: "dnsServer".into(),
            level: "error".into(),
            start_time: 1_602_741_570_567,
            end_time: 1_602_741_570_596,
            en: text("DNS Server", "192.0.2.53 does not answer", "Set another DNS server."),
            cn: text("DNS服务器", "192.0.2.53无应答", "请更换DNS服务器。"),
        }],
    }
}

fn wans() -> BTreeMap<String, Wan> {
    let fixed = Wan {
        ip_type: Some(AddressMode::Static),
        ip: "203.0.113.2".into(),
        mask: "255.255.255.0".into(),
        gateway: "203.0.113.1".into(),
        priority: Some(10),
        weight: Some(100),
        isp: "CT".into(),
        bandwidth: Some(50),
        ..Wan::default()
    };
    let pppoe = Wan {
        ip_type: Some(AddressMode::Pppoe),
        priority: Some(20),
        username: "user1".into(),
        password: Secret::new("hunter2hunter2"),
        ..Wan::default()
    };
    map([("0", fixed), ("4", pppoe)])
}

fn routing(doc: &mut DeviceDocument) {
    doc.route_protocol = Some(RouteProtocol::Ospf);
    doc.bgp = Some(Bgp {
        router_id: "10.0.0.1".into(),
        local_as: Some(65001),
        hold_time: Some(9),
        keep_alive: Some(3),
    });
    doc.ospf = Some(Ospf {
        router_id: "10.0.0.1".into(),
        area_id: Some(10),
        dead_time: Some(40),
        hello_time: Some(10),
        authentication_type: "MD5".into(),
        md5_key_id: Some(1),
        md5_key: Secret::new("ospf-md5-key-1"),
        password: Secret::default(),
    });
    let bgp = PortProtocol {
        route_protocol: Some(RouteProtocol::Bgp),
        vlan: Some(100),
        remote_ip: "10.1.0.2".into(),
        remote_as: "65002".into(),
    };
    doc.port_protocols = map([("3", bgp)]);
    doc.static_routes = vec![StaticRoute {
        port_name: "3".into(),
        vlan: Some(100),
        destination: "10.5.0.0/16".into(),
        next_hop: "10.1.0.2".into(),
    }];
}

fn policy(doc: &mut DeviceDocument) {
    doc.acls = vec![Acl {
        id: "acl-1".into(),
        rules: vec![AclRule {
            id: "acr-1".into(),
            name: "no telnet".into(),
            description: "test".into(),
            direction: "out".into(),
            kind: "WAN".into(),
            policy: "drop".into(),
            priority: Some(1),
            ip_protocol: "TCP".into(),
            source_cidr: "10.0.0.0/24".into(),
            dest_cidr: "0.0.0.0/0".into(),
            source_port_range: "-1/-1".into(),
            dest_port_range: "23/23".into(),
            dpi_group_ids: Some(texts(&["20"])),
            dpi_signature_ids: Some(texts(&["1"])),
            gmt_create: Some(1_553_766_882_689),
        }],
    }];
    let class = QosPolicy {
        id: "qospy-1".into(),
        name: "voice".into(),
        description: "test".into(),
        priority: Some(3),
        ip_protocol: "UDP".into(),
        source_cidr: "10.0.0.0/24".into(),
        dest_cidr: "0.0.0.0/0".into(),
        source_port_range: "-1/-1".into(),
        dest_port_range: "5060/5061".into(),
        start_time: "2019-07-14T16:41:33+0800".into(),
        end_time: "2019-09-14T16:41:33+0800".into(),
        dpi_group_ids: None,
        dpi_signature_ids: None,
    };
    let limit = QosCar {
        id: "qoscar-1".into(),
        name: "voice".into(),
        description: "test".into(),
        priority: Some(3),
        limit_type: "Percent".into(),
        min_bandwidth_abs: Some(1),
        max_bandwidth_abs: Some(2),
        min_bandwidth_percent: Some(10),
        max_bandwidth_percent: Some(50),
        percent_source_type: "CcnBandwidth".into(),
    };
    doc.qos = vec![Qos { id: "qos-1".into(), policies: vec![class], cars: vec![limit] }];
    doc.snat_entries = vec![SnatEntry {
        id: "snat-1".into(),
        cidr_block: "10.0.0.0/24".into(),
        snat_ip: "198.51.100.7".into(),
    }];
    doc.dnat_entries = vec![DnatEntry {
        id: "fwd-1".into(),
        kind: "Intranet".into(),
        ip_protocol: "TCP".into(),
        external_ip: "198.51.100.8".into(),
        external_port: "80".into(),
        internal_ip: "10.0.0.8".into(),
        internal_port: "8080".into(),
    }];
}

fn network(doc: &mut DeviceDocument) {
    doc.health_checks = vec![HealthCheck {
        id: "hc-1".into(),
        name: "far".into(),
        kind: Some(ProbeKind::IcmpEcho),
        dst_ip: "198.51.100.1".into(),
        src_ip: "203.0.113.2".into(),
        dst_port: Some(0),
        src_port: Some(0),
        probe_interval: Some(2000),
        probe_count: Some(1),
        probe_timeout: Some(1000),
        rtt_threshold: Some(-1),
        rtt_fail_threshold: Some(3),
        fail_count_threshold: Some(3),
    }];
    doc.route_distribution = vec![DistributionRule {
        origin: Some(RouteOrigin::Local),
        route_source: "STATIC".into(),
        destination: "10.5.0.0/16".into(),
        strategy: Some(PublishStrategy::RevokeOnHealthFail),
        health_check: "hc-1".into(),
    }];
    doc.flow_log = Some(FlowLog {
        id: "fl-1".into(),
        name: "all".into(),
        status: "Active".into(),
        active_aging: Some(300),
        inactive_aging: Some(15),
        output_type: "all".into(),
        sls_region_id: "cn-shanghai".into(),
        project_name: "p".into(),
        logstore_name: "l".into(),
        netflow_server_ip: "192.168.0.2".into(),
        netflow_server_port: Some(9995),
        netflow_version: "V9".into(),
    });
    doc.ccn = Some(CloudConnectNetwork {
        id: "ccn-1".into(),
        cidr_block: "10.0.0.0/8".into(),
        snat_cidr_block: "100.64.0.0/10".into(),
        interworking_status: "Active".into(),
        hub: "sag-2".into(),
        members: vec![NetworkMember {
            smart_ag_id: "sag-2".into(),
            cidr_blocks: texts(&["10.2.0.0/16"]),
            devices: vec![PeerDevice::new("sn2", announcement(), true)],
        }],
    });
}

fn announcement() -> Announcement {
    Announcement {
        address: "203.0.113.7".into(),
        epoch: Some(5),
        public_key: "ab".repeat(32),
        pop: Some(true),
        identity: "cd".repeat(32),
        signature: "ef".repeat(64),
        lines: vec![AnnouncedLine {
            name: "3".into(),
            address: "198.51.100.7".into(),
            priority: Some(10),
            weight: Some(75),
        }],
        lines_signature: "12".repeat(64),
    }
}

fn session_link() -> SessionLink {
    SessionLink {
        address: "192.168.1.2".into(),
        public_key: "ab".repeat(32),
        identity: "cd".repeat(32),
        signature: "ef".repeat(64),
    }
}

pub fn report_answer() -> ReportAnswer {
    let problem = "the address 203.0.113.7 is that of device sn9".into();
    ReportAnswer { overlay: Some(Acceptance { epoch: Some(4), problem }) }
}

pub fn document() -> DeviceDocument {
    let port = |name: &str, role| PortEntry {
        port_name: name.into(),
        role: Some(role),
        status: "Up".into(),
        mac: "02:00:00:00:00:01".into(),
    };
    let lan = Lan {
        ip_type: Some(AddressMode::Dhcp),
        ip: "192.168.1.1".into(),
        mask: "255.255.255.0".into(),
        start_ip: "192.168.1.2".into(),
        end_ip: "192.168.1.254".into(),
        lease: "60".into(),
    };
    let line = LeasedLine { vlan: Some(100), ip: "10.1.0.1".into(), mask: "255.255.255.252".into() };
    let mut doc = DeviceDocument {
        revision: 42,
        smart_ag_id: "sag-1".into(),
        smart_ag_sn: "sn1".into(),
        gateway: Some(GatewaySettings {
            name: "branch".into(),
            status: "Active".into(),
            cidr_block: "10.0.0.0/16".into(),
            routing_strategy: "static".into(),
            bandwidth: Some(50),
            security_lock_threshold: Some(3),
            up_bandwidth_wan: Some(20),
            ha_type: "warm_backup".into(),
            dpi_status: "Off".into(),
            dpi_monitor_status: "Inactive".into(),
            access_point_id: Some(101),
            locked: Some(false),
            advanced_monitor: Some(true),
            accelerate_bandwidth: Some(10),
        }),
        ports: vec![
            port("0", PortRole::Wan),
            port("1", PortRole::Lan),
            port("2", PortRole::Mgt),
            port("3", PortRole::Ecc),
            port("4", PortRole::Wan),
            port("5", PortRole::None),
        ],
        wan: wans(),
        lan: map([("1", lan)]),
        ecc: map([("3", vec![line])]),
        management: Some(Management {
            ip: "192.168.9.1".into(),
            mask: "255.255.255.0".into(),
            gateway: "192.168.9.254".into(),
        }),
        dns: Some(Dns { master: "223.5.5.5".into(), slave: "223.6.6.6".into() }),
        dns_forwards: vec![DnsForward {
            id: "dnsf-1".into(),
            domain: "*.example.com".into(),
            master: "10.0.0.53".into(),
            slave: "10.0.1.53".into(),
            outbound_port_type: "PhysicalPort".into(),
            outbound_port_index: Some(1),
            outbound_port_name: "1".into(),
        }],
        service_addresses: texts(&["10.9.9.8"]),
        access_points: vec![AccessPoint { id: 101, address: "203.0.113.101".into() }],
        probe_tasks: vec![ProbeTask {
            id: "probe-1".into(),
            name: "office".into(),
            protocol: Some(ProbeProtocol::Icmp),
            destination: "www.example.com".into(),
            port: Some(443),
            packet_number: Some(10),
            source: "10.9.9.8".into(),
        }],
        ha: Some(HighAvailability {
            mode: Some(HaMode::Static),
            port_name: "1".into(),
            virtual_ip: "192.168.1.253".into(),
        }),
        session_peers: vec![SessionPeer { smart_ag_sn: "sn3".into(), link: session_link() }],
        wan_snat: Some(Switch::Enable),
        remote_access_ip: "10.9.9.9".into(),
        upgrade_policy: Some(UpgradePolicy {
            cron_expression: "0 0 4 * * ?".into(),
            duration: Some(30),
            time_zone: "Asia/Shanghai".into(),
            upgrade_type: "scheduled".into(),
        }),
        target_version: "0.1.1".into(),
        secret_key: Secret::new("device-key"),
        admin_password: Secret::new("console-password"),
        peers: texts(&["sn9"]),
        vbrs: texts(&["vbr-1"]),
        commands: commands(),
        ..DeviceDocument::default()
    };
    routing(&mut doc);
    policy(&mut doc);
    network(&mut doc);
    doc
}

pub fn report() -> StateReport {
    StateReport {
        version: Version::CURRENT,
        software_version: Some("0.1.0".into()),
        monitor_version: Some("0.1.0".into()),
        dpi_signature_db_version: Some("20201117_1_0-0.0.1".into()),
        ipsec_status: Some("up".into()),
        enable_optimization: Some(true),
        traffic_rate: Some(1243.2),
        drop_rate: Some(0.5),
        startup_time: Some(1_623_778_423_000),
        vpn_state: Some("Normal".into()),
        tunnels: vec![TunnelState {
            name: "ccn-sn2".into(),
            state: "up".into(),
            rtt_us: Some(850),
            mtu: Some(1400),
            fec: true,
        }],
        dpi_supported: Some(false),
        capabilities: Some(vec![Capability::Acl, Capability::Reboot]),
        applied_revision: Some(42),
        config_epoch: Some(7),
        clock_offset: Some(-3),
        notices: Some(texts(&["BGP: not supported by this version"])),
        deviations: Some(deviations()),
        wired_ports: Some(texts(&["0", "1"])),
        ports: vec![PortState {
            port_name: "0".into(),
            role: Some(PortRole::Wan),
            status: "Up".into(),
            mac: "02:00:00:00:00:01".into(),
            rx_bytes: Some(1000),
            tx_bytes: Some(2000),
            dropped: Some(3),
        }],
        wans: vec![WanState {
            port_name: "0".into(),
            ip: "203.0.113.2".into(),
            mask: "255.255.255.0".into(),
            gateway: "203.0.113.1".into(),
            traffic_state: "Normal".into(),
        }],
        route_neighbors: vec![RouteNeighbor {
            protocol: "BGP".into(),
            port_name: "3.100".into(),
            address: "198.51.100.129".into(),
            router_id: String::new(),
            remote_as: Some(65002),
            state: "Established".into(),
            up: Some(true),
            received: Some(7),
        }],
        routes: vec![RouteState {
            destination: "0.0.0.0/0".into(),
            next_hop: "203.0.113.1".into(),
            port_name: "0".into(),
            cost: "[1/10]".into(),
            route_protocol: "STATIC".into(),
            conflict_cidrs: vec![],
        }],
        dns: Some(Dns { master: "223.5.5.5".into(), slave: "223.6.6.6".into() }),
        health_checks: vec![HealthState {
            id: "hc-1".into(),
            status: Some(HealthStatus::Ok),
            rtt_ms: Some(4.5),
            loss_percent: Some(0.0),
            problem: "x".into(),
        }],
        probe_tasks: vec![ProbeTaskState {
            id: "probe-1".into(),
            sent: Some(10),
            answered: Some(9),
            min_rtt_ms: Some(4.0),
            rtt_ms: Some(4.5),
            max_rtt_ms: Some(6.5),
            time: Some(1_623_778_423_000),
            problem: "no answer".into(),
        }],
        top_talkers: vec![Talker {
            key: "10.0.0.8".into(),
            sessions: Some(1),
            packets: Some(2),
            bytes: Some(3),
            reply_packets: Some(4),
            reply_bytes: Some(5),
        }],
        drops: vec![DropCount {
            port: "0".into(),
            reason: "acl".into(),
            text: "refused by an ACL".into(),
            packets: Some(3),
        }],
        sessions: Some(SessionCount { ipv4: Some(10), ipv6: Some(2), created: Some(99) }),
        overlay: Some(announcement()),
        local_changes: Some(false),
        ha_state: Some("Active".into()),
        session_link: Some(session_link()),
        access_point_probe: Some("probe-1".into()),
        diagnosis: Some(diagnosis()),
        link_backup: vec![LinkBackup {
            main_link_id: "wan0".into(),
            main_link_state: "up".into(),
            backup_link_id: "wan1".into(),
            backup_link_state: "down".into(),
            level_backup_state: "ON".into(),
            level_backup_type: "StandbyMode".into(),
        }],
        access_point_qualities: vec![AccessPointQuality {
            id: Some(101),
            rtt: "4.98".into(),
            loss: "0.00%".into(),
            time: Some(1_700_000_000_000),
        }],
        access_point_interval: Some(300),
    }
}

pub fn client_app_report() -> ClientAppReport {
    ClientAppReport {
        version: Version::CURRENT,
        clients: vec![AppClient {
            user_name: "li".into(),
            client_ip: "192.168.0.2".into(),
            online_time: "1559125519".into(),
        }],
        flow: map([("202611", map([("li", 555_352)]))]),
    }
}
