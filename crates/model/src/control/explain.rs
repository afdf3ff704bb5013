//! `explain`: what would become of a packet, stage by stage.

use super::session::IpProto;
use crate::Dscp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The packet asked about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// Name of the port on which it arrives; absent: the port of `vrf` by which the source is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The VRF from which it comes, `default`: the one without a name; absent: that of `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// IP protocol.
    pub proto: IpProto,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// 0 for protocols without ports. For ICMP: the identifier.
    #[serde(default)]
    pub sport: u16,
    /// 0 for protocols without ports.
    #[serde(default)]
    pub dport: u16,
    /// Length of the IP packet; absent: the shortest possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u16>,
    /// Absent: 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// Absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
    /// Of a TCP segment; absent: ACK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<u8>,
    /// Of an ICMP or ICMPv6 message; absent: an echo request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// Of an ICMP or ICMPv6 message; absent: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
}

/// Answer to `explain`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Explain {
    /// `forward`, `drop`, `to-kernel` or `held`.
    pub verdict: String,
    /// Name of the drop reason, or why the kernel gets it.
    pub reason: Option<String>,
    /// The VRF from which the packet comes; `null`: the default one.
    #[serde(default)]
    pub vrf: Option<String>,
    /// The VRF to which it goes, likewise; `null` also if it does not leave.
    #[serde(default)]
    pub to_vrf: Option<String>,
    /// What each stage did, in their order.
    pub stages: Vec<StageTrace>,
    /// Name of the port that the packet leaves by.
    pub out_port: Option<String>,
    /// `null`: the packet does not leave.
    pub rewritten: Option<Rewritten>,
}

/// What one stage did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageTrace {
    /// Name of the stage, as in the pipeline's order.
    pub stage: String,
    /// One word: `pass`, `match`, `miss`, `drop`, …
    pub result: String,
    /// For people.
    pub detail: String,
}

/// The headers as they leave; `null` where the packet has no such field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rewritten {
    /// Source address.
    pub src: Option<IpAddr>,
    /// Destination address.
    pub dst: Option<IpAddr>,
    /// Source port.
    pub sport: Option<u16>,
    /// Destination port.
    pub dport: Option<u16>,
    /// TTL or hop limit.
    pub ttl: Option<u8>,
    /// Code point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
    /// Source address of the frame.
    pub src_mac: Option<crate::MacAddr>,
    /// Destination address of the frame.
    pub dst_mac: Option<crate::MacAddr>,
    /// 802.1Q tag.
    pub vlan: Option<crate::VlanId>,
}
