//! Keys of ACLs and QoS: `[[acl]]`, `[[acl.rule]]`, `[[qos]]`, `[[qos.car]]`, `[[qos.policy]]`.

use super::program::Bandwidth;
use crate::Dscp;
use crate::config::schema::{Flags, Identifier, Label, Network, Ports, Protocol, key, table};
use crate::config::types::{
    AclType, BURST_MS, CarLimit, Direction, FiveTuple, IcmpMatch, LimitType, MAX_MBPS, PercentSource, Policy,
    PortRange, TcpFlags, Timestamp, icmp_code_name, icmp_type_name,
};
use ipnet::IpNet;

/// Remedy for a missing network.
const ANY_CIDR: &str = "write a CIDR block; \"0.0.0.0/0\" or \"::/0\" is any";
/// Remedy for a missing protocol.
const ANY_PROTOCOL: &str = "write \"all\", \"tcp\", \"udp\", ... or a number";

table! {
    /// An access control list.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Acl as RawAcl, AclKeys, ReadAcl {
        /// Identifier; the default counts in the order of the file.
        id: String as Identifier => key().allowed("unique").absent("`acl-N`").source("CreateACL");
        /// For people.
        pub name: Option<String> as Label<128> =>
            key().allowed("1..128 characters").absent("none").source("CreateACL `Name`").refused_as("InvalidName");
    }
    parts {
        /// Unique identifier.
        id: String,
        /// In the order of the file, which breaks ties of priority.
        rules: Vec<AclRule>,
    }
    tables {
        rule: RawAclRule,
    }
}

table! {
    /// A rule of an ACL.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct AclRule as RawAclRule, AclRuleKeys, ReadAclRule {
        /// Identifier; counters follow it.
        id: String as Identifier => key().allowed("unique over all ACLs").absent("`acr-N`");
        /// For people.
        pub name: Option<String> as Label<128> =>
            key().allowed("1..128 characters").absent("none").source("AddACLRule `Name`").refused_as("InvalidName");
        /// For people.
        pub description: Option<String> as Label<512> =>
            key()
                .allowed("1..512 characters")
                .absent("none")
                .source("AddACLRule `Description`")
                .refused_as("InvalidDescription");
        /// As the branch sees it: to the branch, from the branch.
        pub direction: Direction =>
            key().source("AddACLRule `Direction`").refused_as("InvalidParameter").missing("", "MissingParameter");
        /// Private traffic (overlay, leased line), or Internet traffic.
        r#type: AclType = AclType::Lan => key().source("AddACLRule `Type`").refused_as("ACL.InvalidType");
        /// Verdict about what matches.
        pub policy: Policy =>
            key().source("AddACLRule `Policy`").refused_as("InvalidParameter").missing("", "MissingParameter");
        /// Protocol that matches.
        ip_protocol: String as Protocol =>
            key()
                .allowed("`all`, a name or 0..255")
                .source("AddACLRule `IpProtocol`")
                .refused_as("NotSupportedProtocol")
                .missing(ANY_PROTOCOL, "MissingParameter");
        /// Source that matches.
        source_cidr: IpNet as Network =>
            key().called("CIDR or group").source("AddACLRule `SourceCidr`").refused_as("InvalidParameter").missing(ANY_CIDR, "MissingParameter");
        /// Destination that matches.
        dest_cidr: IpNet as Network =>
            key()
                .called("CIDR or group")
                .allowed("of the same IP version")
                .source("AddACLRule `DestCidr`")
                .refused_as("InvalidParameter")
                .missing(ANY_CIDR, "MissingParameter");
        /// Source ports that match.
        source_port_range: PortRange as Ports = PortRange::ANY =>
            key().called("range or group").allowed("`first/last`; `-1/-1` is any").source("AddACLRule `SourcePortRange`").refused_as("InvalidPortRange");
        /// Destination ports that match.
        dest_port_range: PortRange as Ports = PortRange::ANY =>
            key().called("range or group").allowed("`first/last`; `-1/-1` is any").source("AddACLRule `DestPortRange`").refused_as("InvalidPortRange");
        /// TCP flags that match, see [below](#beyond-the-five-tuple): those that must be set, of those that are looked at.
        pub tcp_flags: Option<TcpFlags> as Option<Flags> =>
            key().allowed("as `syn / syn,ack`").absent("any").refused_as("InvalidParameter");
        /// ICMP message that matches.
        icmp_type: Option<String> as Option<Protocol> =>
            key().allowed("0..255, or a name as `echo-request`").absent("any").refused_as("InvalidParameter");
        /// Code of that type.
        icmp_code: Option<String> as Option<Protocol> =>
            key().allowed("0..255, or a name as `port-unreachable`").absent("any").refused_as("InvalidParameter");
        /// Mark of the packet that matches.
        pub dscp: Option<Dscp> => key().absent("any").refused_as("InvalidParameter");
        /// The VRF from which packets come that match, see [VRFs](vrf.md#rules); `default` is the one without a name.
        pub vrf: Option<String> as Option<Identifier> => key().called("VRF name").absent("any");
        /// Log what the rule judges, see [below](#log-of-a-rule).
        pub log: bool = false => key();
        /// Stands before what is logged.
        pub log_prefix: Option<String> as Label<64> => key().allowed("1..64 characters").absent("none");
        /// Sessions that the rule has admitted and that live at a time, see [below](#sessions-of-a-rule).
        pub max_sessions: Option<u32> = None => key().range(1, 8_388_608).unit("sessions").absent("no limit");
        /// The same of one source.
        pub max_sessions_per_source: Option<u32> = None =>
            key().range(1, 1_000_000).unit("sessions").absent("no limit");
        /// Addresses of one network of this length are one source.
        pub source_prefix_len: Option<u8> = None => key().range(1, 128).absent("32, of IPv6 64");
        /// The lowest wins, ties by order in the file.
        pub priority: u8 = 1 => key().range(1, 100).source("AddACLRule `Priority`").refused_as("InvalidParameter");
    }
    parts {
        /// Unique over all ACLs.
        id: String,
        /// Which traffic the rule is for.
        kind: AclType,
        /// What matches.
        tuple: FiveTuple,
        /// Message of the ICMP of the rule's IP version that matches.
        icmp: Option<IcmpMatch>,
    }
}

table! {
    /// CARs, and the policies that assign traffic to them.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Qos as RawQos, QosKeys, ReadQos {
        /// Identifier; the default counts in the order of the file.
        id: String as Identifier => key().allowed("unique").absent("`qos-N`").source("CreateQos");
        /// For people.
        pub name: Option<String> as Label<128> =>
            key()
                .allowed("1..128 characters")
                .absent("none")
                .source("CreateQos `QosName`")
                .refused_as("InvalidParameter.Name");
        /// For people.
        pub description: Option<String> as Label<512> =>
            key()
                .allowed("1..512 characters")
                .absent("none")
                .source("CreateQos `QosDescription`")
                .refused_as("InvalidParameter.Description");
    }
    parts {
        /// Unique identifier.
        id: String,
        /// Rate limits.
        cars: Vec<QosCar>,
        /// Classification.
        policies: Vec<QosPolicy>,
    }
    tables {
        car: RawQosCar,
        policy: RawQosPolicy,
    }
}

table! {
    /// A committed access rate: two rates, and what they do to packets.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct QosCar as RawQosCar, QosCarKeys, ReadQosCar {
        /// Identifier; counters follow it.
        id: String as Identifier => key().allowed("unique over all QoS").absent("`qoscar-N`");
        /// For people.
        pub name: Option<String> as Label<128> =>
            key()
                .allowed("1..128 characters")
                .absent("none")
                .source("CreateQosCar `Name`")
                .refused_as("InvalidParameter.Name");
        /// For people.
        pub description: Option<String> as Label<512> =>
            key()
                .allowed("1..512 characters")
                .absent("none")
                .source("CreateQosCar `Description`")
                .refused_as("InvalidParameter.Description");
        /// The lowest goes first; once per QoS.
        pub priority: u8 =>
            key()
                .range(1, 7)
                .source("CreateQosCar `Priority`")
                .refused_as("InvalidParameter.Priority")
                .missing("", "MissParameter.Priority");
        /// In Mbit/s, or in percent of `[bandwidth]`.
        limit_type: LimitType =>
            key()
                .source("CreateQosCar `LimitType`")
                .refused_as("InvalidParameter.LimitType")
                .missing("", "MissParameter.LimitType");
        /// Committed rate (CIR); 0 guarantees nothing.
        min_bandwidth_abs: u32 =>
            key()
                .range(0, MAX_MBPS)
                .unit("Mbit/s")
                .absent("required if Absolute")
                .source("CreateQosCar `MinBandwidthAbs`")
                .refused_as("InvalidParameter")
                .missing("", "MissParameter.MinBandwidthAbs");
        /// Peak rate (PIR), at least the committed rate.
        max_bandwidth_abs: u32 =>
            key()
                .range(1, MAX_MBPS)
                .unit("Mbit/s")
                .absent("required if Absolute")
                .source("CreateQosCar `MaxBandwidthAbs`")
                .refused_as("InvalidParameter")
                .missing("", "MissParameter.MaxBandwidthAbs");
        /// Committed rate (CIR).
        min_bandwidth_percent: u32 =>
            key()
                .range(1, 100)
                .unit("%")
                .absent("required if Percent")
                .source("CreateQosCar `MinBandwidthPercent`")
                .refused_as("InvalidParameter")
                .missing("", "MissParameter.MinBandwidthPercent");
        /// Peak rate (PIR), at least the committed rate.
        max_bandwidth_percent: u32 =>
            key()
                .range(1, 100)
                .unit("%")
                .absent("required if Percent")
                .source("CreateQosCar `MaxBandwidthPercent`")
                .refused_as("InvalidParameter")
                .missing("", "MissParameter.MaxBandwidthPercent");
        /// Percent of what, see `[bandwidth]`.
        percent_source_type: PercentSource =>
            key()
                .absent("required if Percent")
                .source("CreateQosCar `PercentSourceType`")
                .refused_as("InvalidParameter.PercentSourceType")
                .missing("", "MissParameter.PercentSourceType");
        /// What passes at once after a pause, in milliseconds of the rate; below 200 TCP may not fill the peak rate.
        pub burst_ms: u16 = BURST_MS => key().range(1, 10_000).unit("ms");
        /// What passes leaves with this mark.
        pub remark_dscp: Option<Dscp> => key().absent("as it came").refused_as("InvalidParameter");
    }
    parts {
        /// Unique over all QoS.
        id: String,
        /// Committed and peak rate.
        limit: CarLimit,
    }
}

table! {
    /// Which traffic a CAR meters.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct QosPolicy as RawQosPolicy, QosPolicyKeys, ReadQosPolicy {
        /// Identifier; counters follow it.
        id: String as Identifier => key().allowed("unique over all QoS").absent("`qospy-N`");
        /// For people.
        pub name: Option<String> as Label<128> =>
            key()
                .allowed("1..128 characters")
                .absent("none")
                .source("CreateQosPolicy `Name`")
                .refused_as("InvalidParameter.Name");
        /// For people.
        pub description: Option<String> as Label<512> =>
            key()
                .allowed("1..512 characters")
                .absent("none")
                .source("CreateQosPolicy `Description`")
                .refused_as("InvalidParameter.Description");
        /// Priority of the CAR of the same QoS that meters what matches.
        pub priority: u8 =>
            key()
                .range(1, 7)
                .source("CreateQosPolicy `Priority`")
                .refused_as("InvalidParameter.Priority")
                .missing("", "MissParameter.Priority");
        /// Source that matches.
        source_cidr: IpNet as Network =>
            key()
                .called("CIDR or group")
                .source("CreateQosPolicy `SourceCidr`")
                .refused_as("InvalidParameter.SourceCidr")
                .missing(ANY_CIDR, "MissParameter.SourceCidr");
        /// Destination that matches.
        dest_cidr: IpNet as Network =>
            key()
                .called("CIDR or group")
                .allowed("of the same IP version")
                .source("CreateQosPolicy `DestCidr`")
                .refused_as("InvalidParameter.DestCidr")
                .missing(ANY_CIDR, "MissParameter.DestCidr");
        /// Protocol that matches.
        ip_protocol: String as Protocol =>
            key()
                .source("CreateQosPolicy `IpProtocol`")
                .refused_as("NotSupportedProtocol")
                .missing(ANY_PROTOCOL, "MissParameter.IpProtocol");
        /// Source ports that match.
        source_port_range: PortRange as Ports = PortRange::ANY =>
            key().called("range or group").source("CreateQosPolicy `SourcePortRange`").refused_as("InvalidParameter.SourcePortRange");
        /// Destination ports that match.
        dest_port_range: PortRange as Ports = PortRange::ANY =>
            key().called("range or group").source("CreateQosPolicy `DestPortRange`").refused_as("InvalidParameter.DestPortRange");
        /// Mark of the packet that opens the session, see [qos.md](qos.md#dscp).
        pub dscp: Option<Dscp> => key().absent("any").refused_as("InvalidParameter");
        /// The VRF from which packets come that match, see [VRFs](vrf.md#rules); `default` is the one without a name.
        pub vrf: Option<String> as Option<Identifier> => key().called("VRF name").absent("any");
        /// From then on the policy matches.
        start_time: Option<Timestamp> =>
            key()
                .allowed("years 1970 to 9998")
                .absent("always")
                .source("CreateQosPolicy `StartTime`, RFC 3339")
                .refused_as("InvalidParameter.StartTime");
        /// From then on it no longer does.
        end_time: Option<Timestamp> =>
            key()
                .allowed("after `start_time`")
                .absent("never")
                .source("CreateQosPolicy `EndTime`, RFC 3339")
                .refused_as("InvalidParameter.EndTime");
    }
    parts {
        /// Unique over all QoS.
        id: String,
        /// What matches.
        tuple: FiveTuple,
        /// First moment at which the policy matches.
        start: Option<Timestamp>,
        /// First moment at which it no longer does.
        end: Option<Timestamp>,
    }
}

impl AclRule {
    /// Whether the file says the same, whatever is in the groups.
    pub fn is_written_as(&self, other: &AclRule) -> bool {
        self.tuple.is_written_as(&other.tuple)
            && AclRule { tuple: other.tuple.clone(), ..self.clone() } == *other
    }

    /// What is asked beyond the five-tuple, for people; empty: nothing.
    pub fn header_text(&self) -> String {
        let v6 = self.tuple.is_ipv6();
        let mut out = Vec::new();
        if let Some(flags) = self.tcp_flags {
            out.push(flags.to_string());
        }
        if let Some(m) = self.icmp {
            out.push(icmp_type_name(m.kind, v6));
            out.extend(m.code.map(|code| icmp_code_name(code, m.kind, v6)));
        }
        out.extend(self.dscp.map(|dscp| format!("dscp {dscp}")));
        out.join(" ")
    }
}

impl CarLimit {
    /// Committed and peak rate in hundredths of Mbit/s; a peak rate of `None` limits nothing.
    pub fn hundredths(&self, bandwidth: &Bandwidth) -> (u64, Option<u64>) {
        match *self {
            CarLimit::Absolute { min, max } => (u64::from(min) * 100, Some(u64::from(max) * 100)),
            CarLimit::Percent { min, max, of } => {
                let base = match of {
                    PercentSource::Ccn => bandwidth.ccn,
                    PercentSource::InternetUp => bandwidth.internet_up,
                };
                let part = |percent: u8| base.map(|b| u64::from(b.0) * u64::from(percent));
                (part(min).unwrap_or(0), part(max))
            }
        }
    }
}
