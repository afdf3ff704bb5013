//! Access control, quality of service, address translation.

use crate::wire::wire_object;

wire_object! {
    /// An access control list.
    pub struct Acl {
        /// Identifier.
        id: String = "AclId",
        /// Rules, by priority.
        rules: Vec<AclRule> = "Rules",
    }

    /// A rule of an access control list (AddACLRule).
    pub struct AclRule {
        /// Identifier.
        id: String = "AcrId",
        /// Name.
        name: String = "Name",
        /// Description.
        description: String = "Description",
        /// `in` or `out`.
        direction: String = "Direction",
        /// `LAN` or `WAN`.
        kind: String = "Type",
        /// `accept` or `drop`.
        policy: String = "Policy",
        /// 1..100; the lowest is looked at first.
        priority: Option<i64> = "Priority",
        /// `ALL`, `TCP`, `UDP` or `ICMP`.
        ip_protocol: String = "IpProtocol",
        /// Source block.
        source_cidr: String = "SourceCidr",
        /// Destination block.
        dest_cidr: String = "DestCidr",
        /// Source ports as `first/last`; `-1/-1`: all.
        source_port_range: String = "SourcePortRange",
        /// Destination ports as `first/last`; `-1/-1`: all.
        dest_port_range: String = "DestPortRange",
        /// Groups of applications.
        dpi_group_ids: Option<Vec<String>> = "DpiGroupIds",
        /// Applications.
        dpi_signature_ids: Option<Vec<String>> = "DpiSignatureIds",
        /// Milliseconds since 1970: of rules with one priority the earlier wins, whatever lists they are in. Since version
        /// 1.3.
        gmt_create: Option<i64> = "GmtCreate",
    }

    /// A QoS policy container.
    pub struct Qos {
        /// Identifier.
        id: String = "QosId",
        /// Traffic classes.
        policies: Vec<QosPolicy> = "Policies",
        /// Rate limits.
        cars: Vec<QosCar> = "Cars",
    }

    /// A traffic class (CreateQosPolicy).
    pub struct QosPolicy {
        /// Identifier.
        id: String = "QosPolicyId",
        /// Name.
        name: String = "Name",
        /// Description.
        description: String = "Description",
        /// 1..7; the rate limit of the same priority is the limit of the class.
        priority: Option<i64> = "Priority",
        /// `ALL`, `TCP`, `UDP` or `ICMP`.
        ip_protocol: String = "IpProtocol",
        /// Source block.
        source_cidr: String = "SourceCidr",
        /// Destination block.
        dest_cidr: String = "DestCidr",
        /// Source ports as `first/last`; `-1/-1`: all.
        source_port_range: String = "SourcePortRange",
        /// Destination ports as `first/last`; `-1/-1`: all.
        dest_port_range: String = "DestPortRange",
        /// Since when the class is in force: ISO 8601, or milliseconds since 1970; empty or 0: always.
        start_time: String = "StartTime",
        /// Until when, likewise.
        end_time: String = "EndTime",
        /// Groups of applications.
        dpi_group_ids: Option<Vec<String>> = "DpiGroupIds",
        /// Applications.
        dpi_signature_ids: Option<Vec<String>> = "DpiSignatureIds",
    }

    /// A rate limit (CreateQosCar).
    pub struct QosCar {
        /// Identifier.
        id: String = "QosCarId",
        /// Name.
        name: String = "Name",
        /// Description.
        description: String = "Description",
        /// 1..7.
        priority: Option<i64> = "Priority",
        /// `Absolute` or `Percent`.
        limit_type: String = "LimitType",
        /// Committed rate, Mbit/s.
        min_bandwidth_abs: Option<i64> = "MinBandwidthAbs",
        /// Peak rate, Mbit/s.
        max_bandwidth_abs: Option<i64> = "MaxBandwidthAbs",
        /// Committed rate, percent.
        min_bandwidth_percent: Option<i64> = "MinBandwidthPercent",
        /// Peak rate, percent.
        max_bandwidth_percent: Option<i64> = "MaxBandwidthPercent",
        /// Of what: `CcnBandwidth` or `InternetUpBandwidth`.
        percent_source_type: String = "PercentSourceType",
    }

    /// An SNAT entry (AddSnatEntry).
    pub struct SnatEntry {
        /// Identifier.
        id: String = "InstanceId",
        /// Source block.
        cidr_block: String = "CidrBlock",
        /// The address that it is translated to.
        snat_ip: String = "SnatIp",
    }

    /// A DNAT entry (AddDnatEntry).
    pub struct DnatEntry {
        /// Identifier.
        id: String = "DnatEntryId",
        /// `Intranet` or `Internet`.
        kind: String = "Type",
        /// `TCP`, `UDP` or `Any`.
        ip_protocol: String = "IpProtocol",
        /// The outer address; absent: that of the WAN port.
        external_ip: String = "ExternalIp",
        /// The outer port, or `any`.
        external_port: String = "ExternalPort",
        /// The inner address.
        internal_ip: String = "InternalIp",
        /// The inner port, or `any`.
        internal_port: String = "InternalPort",
    }
}
