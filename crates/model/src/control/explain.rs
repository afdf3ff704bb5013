//! `explain`: what would become of a packet, stage by stage.

use super::IpProto;
use crate::Dscp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The packet asked about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    /// Name of the port on which it arrives.
    pub port: String,
    pub proto: IpProto,
    pub src: IpAddr,
    pub dst: IpAddr,
    /// 0 for protocols without ports. For ICMP: the identifier.
    #[serde(default)]
    pub sport: u16,
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
}

/// Answer to `explain`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Explain {
    /// `forward`, `drop`, `to-kernel` or `held`.
    pub verdict: String,
    /// Name of the drop reason, or why the kernel gets it.
    pub reason: Option<String>,
    pub stages: Vec<StageTrace>,
    pub out_port: Option<String>,
    pub rewritten: Option<Rewritten>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageTrace {
    /// Name of the stage, as in the pipeline's order.
    pub stage: String,
    /// One word: `pass`, `match`, `miss`, `drop`, …
    pub result: String,
    pub detail: String,
}

/// The headers as they leave; `null` where the packet has no such field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rewritten {
    pub src: Option<IpAddr>,
    pub dst: Option<IpAddr>,
    pub sport: Option<u16>,
    pub dport: Option<u16>,
    pub ttl: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
    pub src_mac: Option<crate::MacAddr>,
    pub dst_mac: Option<crate::MacAddr>,
    pub vlan: Option<crate::VlanId>,
}
