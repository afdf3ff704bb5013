//! What a device reports of itself.

use std::collections::BTreeMap;

use crate::capability::Capability;
use crate::document::{Announcement, Dns, SessionLink};
use crate::version::Version;
use crate::wire::wire_report;
use crate::words::{PortRole, PublishStrategy, words};

words! {
    /// The verdict of a health check.
    pub enum HealthStatus {
        /// Nothing was measured yet.
        NotMeasured = "unknown",
        /// The last round was good.
        Ok = "ok",
        /// Too many rounds in a row were lost or slow.
        Failed = "failed",
    }

    /// What became of an object that cannot be put in force as it is.
    pub enum Effect {
        /// It has no effect.
        LeftOut = "left-out",
        /// It refuses more than it says: what it would have refused is not let through.
        Stricter = "stricter",
        /// A part of it has no effect.
        Partial = "partial",
    }
}

impl HealthStatus {
    /// Whether a route of this strategy is published while the health check that it depends on says so. A strategy that is
    /// not known publishes nothing.
    pub fn publishes(&self, strategy: &PublishStrategy) -> bool {
        match strategy {
            PublishStrategy::Publish => true,
            PublishStrategy::NoPublish | PublishStrategy::Unknown(_) => false,
            PublishStrategy::OnHealthSuccess => *self == HealthStatus::Ok,
            PublishStrategy::OnHealthFail => *self == HealthStatus::Failed,
            PublishStrategy::RevokeOnHealthSuccess => *self != HealthStatus::Ok,
            PublishStrategy::RevokeOnHealthFail => *self != HealthStatus::Failed,
        }
    }
}

wire_report! {
    /// The state of a device: parameter `State` of `ReportSmartAGState`. Everything in it may be absent.
    ///
    /// The Describe operations of a device answer from it.
    pub struct StateReport {
        /// Version of the protocol.
        version: Version = "ProtocolVersion",
        /// Version of the gateway.
        software_version: Option<String> = "SoftwareVersion",
        /// Version of the agent.
        monitor_version: Option<String> = "MonitorVersion",
        /// Version of the signatures for deep packet inspection.
        dpi_signature_db_version: Option<String> = "DpiSignatureDbVersion",
        /// `up` if all tunnels are up and there are any, else `down`.
        ipsec_status: Option<String> = "IpsecStatus",
        /// Whether a tunnel sends with forward error correction.
        enable_optimization: Option<bool> = "EnableOptimization",
        /// Bit/s that arrived since the last report.
        traffic_rate: Option<f64> = "TrafficRate",
        /// Percent of the packets dropped since the last report.
        drop_rate: Option<f64> = "DropRate",
        /// Milliseconds since 1970.
        startup_time: Option<i64> = "StartupTime",
        /// `Normal` or `Abnormal`.
        vpn_state: Option<String> = "VpnState",
        /// Tunnels of the cloud connect network.
        tunnels: Vec<TunnelState> = "Tunnels",
        /// Whether the device can inspect packets deeply.
        dpi_supported: Option<bool> = "DpiSupported",
        /// What the device can put in force; absent: it does not say.
        capabilities: Option<Vec<Capability>> = "Capabilities",
        /// The last revision that was put in force or refused.
        applied_revision: Option<i64> = "AppliedRevision",
        /// The gateway's own count of its configurations.
        config_epoch: Option<u64> = "ConfigEpoch",
        /// Seconds that the device's clock is behind the cloud's.
        clock_offset: Option<i64> = "ClockOffset",
        /// What is configured and has no effect, and why.
        notices: Option<Vec<String>> = "Notices",
        /// Objects that are not in force as they are, while the rest of the revision is. Since version 1.3.
        deviations: Option<Vec<Deviation>> = "Deviations",
        /// Every port that has a network device, whatever its role; absent: the device does not say. Since version 1.3.
        wired_ports: Option<Vec<String>> = "WiredPorts",
        /// Ports with their counters.
        ports: Vec<PortState> = "Ports",
        /// Addresses of WAN ports.
        wans: Vec<WanState> = "Wans",
        /// Routes in force.
        routes: Vec<RouteState> = "Routes",
        /// Neighbors of BGP and OSPF. Since version 1.3.
        route_neighbors: Vec<RouteNeighbor> = "RouteNeighbors",
        /// DNS servers in use.
        dns: Option<Dns> = "Dns",
        /// Health checks.
        health_checks: Vec<HealthState> = "HealthChecks",
        /// Probe tasks. Since version 1.3.
        probe_tasks: Vec<ProbeTaskState> = "ProbeTasks",
        /// The sources of most bytes.
        top_talkers: Vec<Talker> = "TopTalkers",
        /// Dropped packets by port and reason.
        drops: Vec<DropCount> = "Drops",
        /// Sessions of the gateway.
        sessions: Option<SessionCount> = "Sessions",
        /// For the other members of the device's cloud connect network.
        overlay: Option<Announcement> = "Overlay",
        /// Whether something was set on the device itself that the cloud did not.
        local_changes: Option<bool> = "LocalChanges",
        /// `Active`: it forwards; `Standby`: it waits for the other device of its instance to fail. Since version 1.3.
        ha_state: Option<String> = "HaState",
        /// For the other device of the instance: where the link ends by which sessions follow. Since version 1.5.
        session_link: Option<SessionLink> = "SessionLink",
        /// Links that stand in for each other.
        link_backup: Vec<LinkBackup> = "LinkBackup",
        /// Paths to access points.
        access_point_qualities: Vec<AccessPointQuality> = "AccessPointNetworkQualities",
        /// The `ProbeId` of the command that they were measured for. Since version 1.3.
        access_point_probe: Option<String> = "AccessPointProbeId",
        /// Seconds between two measurements of these paths; 0: they are measured for commands alone. Since version 1.3.
        access_point_interval: Option<i64> = "AccessPointInterval",
        /// The last diagnosis, when it has ended. Since version 1.3.
        diagnosis: Option<Diagnosis> = "Diagnosis",
    }

    /// What the device found out for the command `Diagnose`.
    pub struct Diagnosis {
        /// The `DiagnoseId` of the command.
        id: String = "DiagnoseId",
        /// The checks, in their order.
        items: Vec<DiagnosisItem> = "Items",
    }

    /// One check of a diagnosis.
    pub struct DiagnosisItem {
        /// `config`, `biz` or `internet`.
        kind: String = "Type",
        /// The name for programs.
        name: String = "ItemName",
        /// `error`, `warning` or `info`.
        level: String = "Level",
        /// Milliseconds since 1970.
        start_time: i64 = "StartTime",
        /// Milliseconds since 1970.
        end_time: i64 = "EndTime",
        /// What was measured, in English.
        en: DiagnosisText = "EN",
        /// What was measured, in Chinese.
        cn: DiagnosisText = "CN",
    }

    /// The result of a check in one language.
    pub struct DiagnosisText {
        /// The name for people.
        name: String = "ItemName",
        /// What was seen.
        details: Vec<String> = "Details",
        /// What to do; `N/A`: nothing.
        advice: Vec<String> = "Advice",
    }

    /// An object that is not in force as it is.
    pub struct Deviation {
        /// The member of the device document that it is in, such as `StaticRoutes`.
        section: String = "Section",
        /// Which it is, for people: `rule acr-1 of ACL acl-1`.
        object: String = "Object",
        /// What became of it.
        effect: Option<Effect> = "Effect",
        /// Why.
        reason: String = "Reason",
    }

    /// A tunnel.
    pub struct TunnelState {
        /// Name in the gateway's configuration.
        name: String = "name",
        /// `up`, `down`, `no-path` or `off`.
        state: String = "state",
        /// Round trip, microseconds.
        rtt_us: Option<u64> = "rtt_us",
        /// IP bytes inside that leave in one piece.
        mtu: Option<u64> = "mtu",
        /// Whether it sends with forward error correction.
        fec: bool = "fec",
    }

    /// A port.
    pub struct PortState {
        /// Name of the port.
        port_name: String = "PortName",
        /// What it is for.
        role: Option<PortRole> = "Role",
        /// `Up` or `Down`.
        status: String = "Status",
        /// Ethernet address.
        mac: String = "Mac",
        /// Bytes received.
        rx_bytes: Option<u64> = "RxBytes",
        /// Bytes sent.
        tx_bytes: Option<u64> = "TxBytes",
        /// Packets dropped.
        dropped: Option<u64> = "Dropped",
    }

    /// The address of a WAN port in force, whichever way the port got it.
    pub struct WanState {
        /// Name of the port.
        port_name: String = "PortName",
        /// The address.
        ip: String = "IP",
        /// Its mask.
        mask: String = "Mask",
        /// The next hop of the default route.
        gateway: String = "Gateway",
        /// `Normal` or `Abnormal`.
        traffic_state: String = "TrafficState",
    }

    /// A route in force.
    pub struct RouteState {
        /// The destination block.
        destination: String = "DestinationCidr",
        /// Address of the next hop; absent: on the link.
        next_hop: String = "NextHop",
        /// Port that it leaves by; `-1`: a tunnel.
        port_name: String = "PortName",
        /// `[distance/metric]`.
        cost: String = "Cost",
        /// `STATIC`, `CONNECTED`, `OSPF`, `BGP` or `DHCP`; DescribeSagRouteList shows the second and the last as `STATIC`.
        route_protocol: String = "RouteProtocol",
        /// Blocks that overlap with the route's.
        conflict_cidrs: Vec<String> = "ConflictCidrs",
    }

    /// A neighbor of BGP or OSPF.
    pub struct RouteNeighbor {
        /// `BGP` or `OSPF`.
        protocol: String = "RouteProtocol",
        /// Port on which it is, with a dot and the VLAN of a leased line; empty: a neighbor of the device's own file.
        port_name: String = "PortName",
        /// Its address.
        address: String = "Address",
        /// OSPF: its router identifier.
        router_id: String = "RouterId",
        /// BGP: its autonomous system.
        remote_as: Option<i64> = "RemoteAs",
        /// The state, in the words of the routing daemon.
        state: String = "State",
        /// Whether routes are exchanged.
        up: Option<bool> = "Up",
        /// BGP: prefixes that it has announced.
        received: Option<u64> = "PrefixesReceived",
    }

    /// A health check.
    pub struct HealthState {
        /// Identifier.
        id: String = "HcInstanceId",
        /// The verdict.
        status: Option<HealthStatus> = "Status",
        /// Mean round trip of the last round, milliseconds.
        rtt_ms: Option<f64> = "Rtt",
        /// Percent lost in the last round.
        loss_percent: Option<f64> = "Loss",
        /// Why nothing could be sent.
        problem: String = "Problem",
    }

    /// What a probe task has measured in the last minute.
    pub struct ProbeTaskState {
        /// Identifier.
        id: String = "ProbeTaskId",
        /// Requests of the last minute.
        sent: Option<i64> = "Sent",
        /// How many of them were answered.
        answered: Option<i64> = "Answered",
        /// The quickest answer, milliseconds.
        min_rtt_ms: Option<f64> = "MinRtt",
        /// The mean of the answers, milliseconds.
        rtt_ms: Option<f64> = "Rtt",
        /// The slowest answer, milliseconds.
        max_rtt_ms: Option<f64> = "MaxRtt",
        /// When the last request ended, milliseconds since 1970.
        time: Option<i64> = "Time",
        /// Why the last request was not answered.
        problem: String = "Problem",
    }

    /// A source of many bytes.
    pub struct Talker {
        /// Its address.
        key: String = "key",
        /// Sessions.
        sessions: Option<u64> = "sessions",
        /// Packets from it.
        packets: Option<u64> = "packets",
        /// Bytes from it.
        bytes: Option<u64> = "bytes",
        /// Packets to it.
        reply_packets: Option<u64> = "reply_packets",
        /// Bytes to it.
        reply_bytes: Option<u64> = "reply_bytes",
    }

    /// Dropped packets of one port for one reason.
    pub struct DropCount {
        /// The port.
        port: String = "port",
        /// Name of the reason.
        reason: String = "reason",
        /// The reason for people.
        text: String = "text",
        /// How many.
        packets: Option<u64> = "packets",
    }

    /// Sessions of the gateway.
    pub struct SessionCount {
        /// Live IPv4 sessions.
        ipv4: Option<u64> = "Ipv4",
        /// Live IPv6 sessions.
        ipv6: Option<u64> = "Ipv6",
        /// Sessions since the gateway's start.
        created: Option<u64> = "Created",
    }

    /// Two links of which one stands in for the other (DescribeSmartAccessGatewayHa).
    pub struct LinkBackup {
        /// The link in use.
        main_link_id: String = "MainLinkId",
        /// `up` or `down`.
        main_link_state: String = "MainLinkState",
        /// The other link.
        backup_link_id: String = "BackupLinkId",
        /// `up` or `down`.
        backup_link_state: String = "BackupLinkState",
        /// `ON` or `OFF`.
        level_backup_state: String = "LinkLevelBackupState",
        /// How the other stands in.
        level_backup_type: String = "LinkLevelBackupType",
    }

    /// The path to an access point (ListAccessPointNetworkQualities).
    pub struct AccessPointQuality {
        /// Number of the access point.
        id: Option<i64> = "Id",
        /// Milliseconds.
        rtt: String = "Rtt",
        /// Percent, as in `0.00%`.
        loss: String = "Loss",
        /// When it was measured, milliseconds since 1970 by the cloud's clock. Since version 1.3.
        time: Option<i64> = "Time",
    }

    /// What the access point of a client-app instance reports instead of a [`StateReport`].
    pub struct ClientAppReport {
        /// Version of the protocol.
        version: Version = "ProtocolVersion",
        /// Clients that are connected.
        clients: Vec<AppClient> = "Clients",
        /// Bytes by month (`202611`) and user.
        flow: BTreeMap<String, BTreeMap<String, i64>> = "Flow",
    }

    /// A connected client.
    pub struct AppClient {
        /// The user.
        user_name: String = "UserName",
        /// Its address inside.
        client_ip: String = "ClientIp",
        /// Since when, seconds since 1970.
        online_time: String = "OnlineTime",
    }
}

/// `rule acr-1 of ACL acl-1 is left out: why`.
impl std::fmt::Display for Deviation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let effect = match &self.effect {
            Some(Effect::Stricter) => "is put in force in a stricter form",
            Some(Effect::Partial) => "is put in force in part",
            Some(Effect::LeftOut) | None => "is left out",
            Some(Effect::Unknown(word)) => word,
        };
        write!(f, "{} {effect}: {}", self.object, self.reason)
    }
}
