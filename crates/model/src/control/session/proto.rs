//! IP protocol as people write it: a name where there is one, else the number.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An IP protocol number. In JSON and tables: `tcp`, `udp`, …, or the number in digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IpProto(pub u8);

const NAMES: &[(u8, &str)] = &[
    (1, "icmp"),
    (2, "igmp"),
    (4, "ipip"),
    (6, "tcp"),
    (17, "udp"),
    (41, "ipv6"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "icmpv6"),
    (89, "ospf"),
    (112, "vrrp"),
    (132, "sctp"),
    (136, "udplite"),
];

impl IpProto {
    /// ICMP for IPv4.
    pub const ICMP: IpProto = IpProto(1);
    /// TCP.
    pub const TCP: IpProto = IpProto(6);
    /// UDP.
    pub const UDP: IpProto = IpProto(17);
    /// ICMP for IPv6.
    pub const ICMPV6: IpProto = IpProto(58);

    /// Whether a flow of it is told apart by ports.
    pub const fn has_ports(self) -> bool {
        matches!(self.0, 6 | 17 | 132 | 136)
    }
}

impl fmt::Display for IpProto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(n, _)| *n == self.0) {
            Some((_, name)) => f.pad(name),
            None => f.pad(&self.0.to_string()),
        }
    }
}

/// Neither a name nor a number of a protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no IP protocol (expected tcp, udp, icmp, icmpv6, gre, esp, … or a number 0..255)")]
pub struct ProtoError(String);

impl FromStr for IpProto {
    type Err = ProtoError;
    fn from_str(s: &str) -> Result<Self, ProtoError> {
        if let Some((n, _)) = NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(s)) {
            return Ok(IpProto(*n));
        }
        s.parse().map(IpProto).map_err(|_| ProtoError(s.to_owned()))
    }
}

impl TryFrom<String> for IpProto {
    type Error = ProtoError;
    fn try_from(s: String) -> Result<Self, ProtoError> {
        s.parse()
    }
}

impl From<IpProto> for String {
    fn from(p: IpProto) -> String {
        p.to_string()
    }
}
