//! `acl`: rules with what they have matched, findings about them, and what they have logged.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Arguments of `acl`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AclQuery {
    /// Only the ACL of this identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acl: Option<String>,
    /// With what rules have logged last.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub log: bool,
}

/// Answer to `acl`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AclReport {
    /// Every ACL of the configuration.
    pub acls: Vec<Acl>,
    /// Verdict when no rule matches: `accept` or `drop`.
    pub default: String,
    /// Rules that cannot do what they seem to say.
    pub findings: Vec<Finding>,
    /// What rules have logged last, the oldest first, if it was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<AclLogEntry>,
}

/// A packet that a rule with `log = true` has judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AclLogEntry {
    /// When, RFC 3339.
    pub time: String,
    /// `acl id/rule id`
    pub rule: String,
    /// As in the configuration; may be empty.
    pub prefix: String,
    /// `accept` or `drop`.
    pub verdict: String,
    /// Name of the port by which the packet came.
    pub port: String,
    /// IP protocol by name.
    pub proto: String,
    /// Source address as the packet came.
    pub src: IpAddr,
    /// Its source port, or the identifier of an ICMP query.
    pub sport: u16,
    /// Destination address as the packet came.
    pub dst: IpAddr,
    /// Its destination port.
    pub dport: u16,
    /// Bytes of the IP packet.
    pub bytes: u16,
}

/// An ACL and what its rules have matched.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Acl {
    /// Identifier, as in the configuration.
    pub id: String,
    /// In the order of the file.
    pub rules: Vec<AclRule>,
}

/// A rule, written as in the configuration, and what it has matched.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AclRule {
    /// Identifier, as in the configuration.
    pub id: String,
    /// As in the configuration.
    pub direction: String,
    /// As in the configuration.
    #[serde(rename = "type")]
    pub kind: String,
    /// As in the configuration.
    pub policy: String,
    /// As in the configuration.
    pub ip_protocol: String,
    /// As in the configuration.
    pub source_cidr: String,
    /// As in the configuration.
    pub dest_cidr: String,
    /// As in the configuration.
    pub source_port_range: String,
    /// As in the configuration.
    pub dest_port_range: String,
    /// What else of the header must match, such as `syn / syn,ack` or `echo-request dscp EF`; empty: nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub header: String,
    /// As in the configuration; absent: packets from any VRF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// As in the configuration.
    pub priority: u32,
    /// Packets that matched.
    pub hits: u64,
    /// IP bytes of what it matched.
    pub bytes: u64,
    /// Seconds since the last match; `null` if there was none.
    pub last_hit_s: Option<u64>,
    /// Entries in the log of a rule that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logged: Option<u64>,
    /// Entries that were left out because they came faster than the log takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_suppressed: Option<u64>,
    /// Sessions that count for the limits of a rule that has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// As in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u32>,
    /// As in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sessions_per_source: Option<u32>,
    /// Packets whose session the limits have refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<u64>,
}

/// A rule that cannot do what it seems to say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `shadowed`, `redundant` or `conflict`.
    pub kind: String,
    /// Identifier of the ACL.
    pub acl: String,
    /// Identifier of the rule.
    pub rule: String,
    /// The rules that make it so.
    pub by: Vec<String>,
    /// A packet that shows it.
    pub witness: Option<String>,
    /// For people.
    pub text: String,
}
