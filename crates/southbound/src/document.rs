//! The device document: the whole configuration of one device at one revision.

mod network;
mod policy;
mod ports;

pub use network::{
    AnnouncedLine, Announcement, CloudConnectNetwork, DistributionRule, FlowLog, HealthCheck, NetworkMember,
    PeerDevice, ProbeTask,
};
pub use policy::{Acl, AclRule, DnatEntry, Qos, QosCar, QosPolicy, SnatEntry};
pub use ports::{
    Bgp, Dns, DnsForward, HighAvailability, Lan, LeasedLine, Management, Ospf, PortEntry, PortProtocol,
    SessionLink, SessionPeer, StaticRoute, Wan,
};

use std::collections::BTreeMap;

use crate::command::{AccessPoint, IssuedCommand};
use crate::version::Version;
use crate::wire::{Secret, wire_object};
use crate::words::{RouteProtocol, Switch};

wire_object! {
    /// The whole configuration of one device, as `PullSmartAGConfig` answers it.
    ///
    /// Names and words are those of the operations that set them. Secrets are in clear here and nowhere else.
    pub struct DeviceDocument {
        /// Version of the protocol.
        version: Version = "ProtocolVersion",
        /// Grows with every change; the same in the answer around the document.
        revision: i64 = "Revision",
        /// The instance.
        smart_ag_id: String = "SmartAGId",
        /// Serial number of the device.
        smart_ag_sn: String = "SmartAGSn",
        /// What is set for the instance.
        gateway: Option<GatewaySettings> = "Gateway",
        /// Every port with its role.
        ports: Vec<PortEntry> = "Ports",
        /// WAN ports by name.
        wan: BTreeMap<String, Wan> = "Wan",
        /// LAN ports by name.
        lan: BTreeMap<String, Lan> = "Lan",
        /// Leased lines by port name: the port itself (VLAN 0) or its VLANs.
        ecc: BTreeMap<String, Vec<LeasedLine>> = "Ecc",
        /// Address of the management port.
        management: Option<Management> = "Management",
        /// How the device learns routes.
        route_protocol: Option<RouteProtocol> = "RouteProtocol",
        /// BGP of the device.
        bgp: Option<Bgp> = "Bgp",
        /// OSPF of the device.
        ospf: Option<Ospf> = "Ospf",
        /// Routing protocol by port name.
        port_protocols: BTreeMap<String, PortProtocol> = "PortProtocols",
        /// Static routes.
        static_routes: Vec<StaticRoute> = "StaticRoutes",
        /// DNS servers.
        dns: Option<Dns> = "Dns",
        /// Domains with DNS servers of their own. Since version 1.3.
        dns_forwards: Vec<DnsForward> = "DnsForwards",
        /// High availability.
        ha: Option<HighAvailability> = "Ha",
        /// Where the links end by which sessions follow to the instance's other devices. Since version 1.5.
        session_peers: Vec<SessionPeer> = "SessionPeers",
        /// SNAT to the address of the WAN port that a packet leaves by.
        wan_snat: Option<Switch> = "Snat",
        /// Address of the device for remote access; empty: none.
        remote_access_ip: String = "RemoteAccessIp",
        /// Addresses that the device has for its probes. Since version 1.3.
        service_addresses: Vec<String> = "ServiceAddresses",
        /// When the device may upgrade itself.
        upgrade_policy: Option<UpgradePolicy> = "UpgradePolicy",
        /// Version that the device shall run.
        target_version: String = "TargetVersion",
        /// Key of the device.
        secret_key: Secret = "SecretKey",
        /// Password of the device's own web console.
        admin_password: Secret = "AdminPassword",
        /// Serial numbers of the instance's other devices.
        peers: Vec<String> = "Peers",
        /// Access control lists of the instance, each with its rules by priority.
        acls: Vec<Acl> = "Acls",
        /// QoS of the instance.
        qos: Vec<Qos> = "Qos",
        /// SNAT entries.
        snat_entries: Vec<SnatEntry> = "SnatEntries",
        /// DNAT entries.
        dnat_entries: Vec<DnatEntry> = "DnatEntries",
        /// Health checks.
        health_checks: Vec<HealthCheck> = "HealthChecks",
        /// Probe tasks of the device that are enabled. Since version 1.3.
        probe_tasks: Vec<ProbeTask> = "ProbeTasks",
        /// Access points of the instance's region, its own first: the device measures the paths to them. Since version 1.3.
        access_points: Vec<AccessPoint> = "AccessPoints",
        /// When which route is published.
        route_distribution: Vec<DistributionRule> = "RouteDistribution",
        /// The flow log that the instance writes to.
        flow_log: Option<FlowLog> = "FlowLog",
        /// The cloud connect network of the instance.
        ccn: Option<CloudConnectNetwork> = "Ccn",
        /// Virtual border routers that the instance is bound to.
        vbrs: Vec<String> = "Vbrs",
        /// What the device has to do once.
        commands: Vec<IssuedCommand> = "Commands",
    }

    /// What is set for the whole instance.
    pub struct GatewaySettings {
        /// Name.
        name: String = "Name",
        /// State of the instance.
        status: String = "Status",
        /// The branch's blocks, separated by commas.
        cidr_block: String = "CidrBlock",
        /// `static` or `dynamic`.
        routing_strategy: String = "RoutingStrategy",
        /// Mbit/s of overlay and leased lines.
        bandwidth: Option<i64> = "Bandwidth",
        /// Seconds for which the devices may be offline; 0: for ever. Afterwards the instance is locked.
        security_lock_threshold: Option<i64> = "SecurityLockThreshold",
        /// Mbit/s to the Internet; 0: not limited.
        up_bandwidth_wan: Option<i64> = "UpBandwidthWan",
        /// `no_backup`, `cold_backup` or `warm_backup`.
        ha_type: String = "HaType",
        /// `On` or `Off`.
        dpi_status: String = "DpiStatus",
        /// `Active` or `Inactive`.
        dpi_monitor_status: String = "DpiMonitorStatus",
        /// The access point of the instance.
        access_point_id: Option<i64> = "AccessPointId",
        /// Whether the instance is locked, because its devices were offline for too long: it is out of its network.
        locked: Option<bool> = "Locked",
        /// Whether the devices report their state every other second. Since version 1.3.
        advanced_monitor: Option<bool> = "AdvancedMonitor",
        /// Mbit/s for application acceleration. Since version 1.3.
        accelerate_bandwidth: Option<i64> = "AccelerateBandwidth",
    }

    /// When the device may upgrade itself (ModifyDeviceAutoUpgradePolicy).
    pub struct UpgradePolicy {
        /// Seconds, minutes, hours, day of month, month, day of week.
        cron_expression: String = "CronExpression",
        /// Minutes.
        duration: Option<i64> = "Duration",
        /// Name of a time zone.
        time_zone: String = "TimeZone",
        /// `scheduled`, `boot` or `manual`.
        upgrade_type: String = "UpgradeType",
    }
}
