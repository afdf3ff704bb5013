//! Health checks, publication of routes, the cloud connect network, flow logs.

use crate::wire::wire_object;
use crate::words::{ProbeKind, ProbeProtocol, PublishStrategy, RouteOrigin};

wire_object! {
    /// A health check (CreateHealthCheck).
    pub struct HealthCheck {
        /// Identifier.
        id: String = "HcInstanceId",
        /// Name.
        name: String = "Name",
        /// How it probes.
        kind: Option<ProbeKind> = "Type",
        /// Address that is probed.
        dst_ip: String = "DstIpAddr",
        /// Source address, one of the device.
        src_ip: String = "SrcIpAddr",
        /// Port that is probed.
        dst_port: Option<i64> = "DstPort",
        /// Source port.
        src_port: Option<i64> = "SrcPort",
        /// Milliseconds between rounds.
        probe_interval: Option<i64> = "ProbeInterval",
        /// Requests of a round.
        probe_count: Option<i64> = "ProbeCount",
        /// Milliseconds that a request waits for its answer.
        probe_timeout: Option<i64> = "ProbeTimeout",
        /// Milliseconds above which a round is slow; -1: none is.
        rtt_threshold: Option<i64> = "RttThreshold",
        /// Slow rounds in a row that make the check fail.
        rtt_fail_threshold: Option<i64> = "RttFailThreshold",
        /// Lost rounds in a row that make the check fail.
        fail_count_threshold: Option<i64> = "FailCountThreshold",
    }

    /// A probe task (CreateProbeTask).
    pub struct ProbeTask {
        /// Identifier.
        id: String = "ProbeTaskId",
        /// Name.
        name: String = "TaskName",
        /// `ICMP`, `TCP` or `HTTP`.
        protocol: Option<ProbeProtocol> = "Protocol",
        /// Name or address of the destination; of HTTP its URL.
        destination: String = "Domain",
        /// Port of TCP.
        port: Option<i64> = "Port",
        /// ICMP: packets a minute.
        packet_number: Option<i64> = "PacketNumber",
        /// Source address, one of the device; empty: the kernel's choice.
        source: String = "ProbeTaskSourceAddress",
    }

    /// When a route is published (ModifyRouteDistributionStrategy).
    pub struct DistributionRule {
        /// Whether the route is the device's own.
        origin: Option<RouteOrigin> = "SourceType",
        /// `STATIC`, `OSPF`, `BGP`, or the instance that the route leads to.
        route_source: String = "RouteSource",
        /// The block of the route.
        destination: String = "DestCidrBlock",
        /// When.
        strategy: Option<PublishStrategy> = "RouteDistribution",
        /// The health check that the strategy depends on.
        health_check: String = "HcInstanceId",
    }

    /// The cloud connect network of the instance, and its other members.
    pub struct CloudConnectNetwork {
        /// Identifier.
        id: String = "CcnId",
        /// Private blocks of the network.
        cidr_block: String = "CidrBlock",
        /// Blocks for SNAT.
        snat_cidr_block: String = "SnatCidrBlock",
        /// Whether the members reach each other.
        interworking_status: String = "InterworkingStatus",
        /// The instance that is the hub, as the owner of the network has said; empty: every member has a tunnel to every
        /// other. Since version 1.2.
        hub: String = "HubSmartAGId",
        /// The other instances.
        members: Vec<NetworkMember> = "Members",
    }

    /// Another instance of the network.
    pub struct NetworkMember {
        /// The instance.
        smart_ag_id: String = "SmartAGId",
        /// Blocks that are reached through it, all of them granted to it.
        cidr_blocks: Vec<String> = "CidrBlocks",
        /// Its devices that have announced themselves.
        devices: Vec<PeerDevice> = "Devices",
    }

    /// A device of another instance, as it has announced itself.
    pub struct PeerDevice {
        /// Serial number.
        smart_ag_sn: String = "SmartAGSn",
        /// Where its tunnels end.
        address: String = "Address",
        /// Grows with every new key.
        epoch: Option<u64> = "Epoch",
        /// 64 hexadecimal digits.
        public_key: String = "PublicKey",
        /// Whether its instance is the hub: the same as `HubSmartAGId`, for agents before version 1.2.
        pop: Option<bool> = "Pop",
        /// Who signed: 64 hexadecimal digits, an Ed25519 public key. Since version 1.2.
        identity: String = "Identity",
        /// The signature: 128 hexadecimal digits. Since version 1.2.
        signature: String = "Signature",
        /// The lines to the Internet at which its tunnels end, if it makes a tunnel by each. Since version 1.4.
        lines: Vec<AnnouncedLine> = "Lines",
        /// The signature on `Lines`: 128 hexadecimal digits. Since version 1.4.
        lines_signature: String = "LinesSignature",
    }

    /// What a device announces to the other members of its network.
    pub struct Announcement {
        /// Where its tunnels end.
        address: String = "Address",
        /// Grows with every new key.
        epoch: Option<u64> = "Epoch",
        /// 64 hexadecimal digits.
        public_key: String = "PublicKey",
        /// Whether it may be made the hub of its network. The owner of the network decides whether it is.
        pop: Option<bool> = "Pop",
        /// Who signs: 64 hexadecimal digits, an Ed25519 public key. Since version 1.2.
        identity: String = "Identity",
        /// The signature: 128 hexadecimal digits. Since version 1.2.
        signature: String = "Signature",
        /// The lines to the Internet at which its tunnels end, if it makes a tunnel by each. Since version 1.4.
        lines: Vec<AnnouncedLine> = "Lines",
        /// The signature on `Lines`: 128 hexadecimal digits. Since version 1.4.
        lines_signature: String = "LinesSignature",
    }

    /// A line to the Internet of a device.
    pub struct AnnouncedLine {
        /// What the device calls it, such as the name of its port.
        name: String = "Name",
        /// Where tunnels by this line end.
        address: String = "Address",
        /// The lowest of a pair of ends' sums is preferred.
        priority: Option<i64> = "Priority",
        /// Share among lines of one priority, 1 to 100.
        weight: Option<i64> = "Weight",
    }

    /// The flow log that an instance writes to (CreateFlowLog).
    pub struct FlowLog {
        /// Identifier.
        id: String = "FlowLogId",
        /// Name.
        name: String = "Name",
        /// State.
        status: String = "Status",
        /// Seconds after which a live flow is written.
        active_aging: Option<i64> = "ActiveAging",
        /// Seconds after which a silent flow is written.
        inactive_aging: Option<i64> = "InactiveAging",
        /// `sls`, `netflow` or `all`.
        output_type: String = "OutputType",
        /// Region of the log service.
        sls_region_id: String = "SlsRegionId",
        /// Project of the log service.
        project_name: String = "ProjectName",
        /// Store of the log service.
        logstore_name: String = "LogstoreName",
        /// Address of the NetFlow collector.
        netflow_server_ip: String = "NetflowServerIp",
        /// Port of the NetFlow collector.
        netflow_server_port: Option<i64> = "NetflowServerPort",
        /// `V5`, `V9` or `V10`.
        netflow_version: String = "NetflowVersion",
    }
}

impl PeerDevice {
    /// The announcement of the device of that serial number, of the hub or not.
    pub fn new(smart_ag_sn: impl Into<String>, announced: Announcement, hub: bool) -> PeerDevice {
        let Announcement { address, epoch, public_key, identity, signature, lines, lines_signature, .. } =
            announced;
        let (smart_ag_sn, pop) = (smart_ag_sn.into(), hub.then_some(true));
        PeerDevice {
            smart_ag_sn,
            address,
            epoch,
            public_key,
            pop,
            identity,
            signature,
            lines,
            lines_signature,
        }
    }
}
