//! ACLs and QoS.

use super::Policy;
use crate::Dscp;
use crate::config::value::Timestamp;
use ipnet::IpNet;
use std::fmt;

words! {
    /// Direction of traffic as the branch sees it.
    pub enum Direction {
        /// To the branch.
        In = "in",
        /// From the branch.
        Out = "out",
    }

    /// Which traffic an ACL rule judges.
    pub enum AclType {
        /// Private traffic: LAN from or to overlay and leased line.
        Lan = "LAN",
        /// Internet traffic.
        Wan = "WAN",
    }

    /// What a percentage of a CAR refers to.
    pub enum PercentSource {
        Ccn = "CcnBandwidth",
        InternetUp = "InternetUpBandwidth",
    }
}

/// Inclusive range of TCP or UDP ports; `first` is at most `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    /// `-1/-1`: any port, and packets without ports.
    pub const ANY: PortRange = PortRange { first: 0, last: u16::MAX };

    pub const fn is_any(self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }

    pub const fn single(port: u16) -> PortRange {
        PortRange { first: port, last: port }
    }

    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// How many ports; all of [`PortRange::ANY`] are 65536.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }
}

/// The API's spelling: `first/last`, any is `-1/-1`.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any() { f.write_str("-1/-1") } else { write!(f, "{}/{}", self.first, self.last) }
    }
}

/// What ACL rules and QoS policies match. Both networks are of one IP version, which is the only
/// one that the rule matches; ports are `ANY` unless the protocol is TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// IANA protocol number; `None`: all.
    pub protocol: Option<u8>,
    pub source: IpNet,
    pub dest: IpNet,
    pub source_ports: PortRange,
    pub dest_ports: PortRange,
}

impl FiveTuple {
    pub const fn is_ipv6(&self) -> bool {
        matches!(self.source, IpNet::V6(_))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    pub id: String,
    pub name: Option<String>,
    /// In the order of the file, which breaks ties of priority.
    pub rules: Vec<AclRule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclRule {
    /// Unique over all ACLs.
    pub id: String,
    pub name: Option<String>,
    pub description: Option<String>,
    pub direction: Direction,
    pub kind: AclType,
    pub policy: Policy,
    pub tuple: FiveTuple,
    /// 1..=100, the lowest wins.
    pub priority: u8,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qos {
    pub id: String,
    pub name: Option<String>,
    pub description: Option<String>,
    pub cars: Vec<QosCar>,
    pub policies: Vec<QosPolicy>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QosCar {
    /// Unique over all QoS.
    pub id: String,
    pub name: Option<String>,
    pub description: Option<String>,
    /// 1..=7, the lowest wins; unique within its QoS.
    pub priority: u8,
    pub limit: CarLimit,
    /// What the CAR lets pass at once, in milliseconds of its rates.
    pub burst_ms: u16,
    /// What the packets that it lets pass are marked with; `None`: they stay as they are.
    pub remark_dscp: Option<Dscp>,
}

/// The least time after which Linux TCP sends again what was lost, in milliseconds (RFC 6298 with a
/// minimum of 200 ms). What a connection earns while it waits must not be lost, or it never fills the
/// rate.
pub const TCP_WAIT_MS: u16 = 200;

/// The burst of a rate, in milliseconds of it, unless a CAR says otherwise: that time, and what timers
/// and round trips add to it.
pub const BURST_MS: u16 = 250;

/// Floor and ceiling of a CAR; the floor is at most the ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarLimit {
    /// Mbit/s; a floor of 0 guarantees nothing.
    Absolute { min: u32, max: u32 },
    /// 1..=100 each.
    Percent { min: u8, max: u8, of: PercentSource },
}

impl CarLimit {
    /// Floor and ceiling in hundredths of Mbit/s; a ceiling of `None` limits nothing.
    pub fn hundredths(&self, bandwidth: &super::Bandwidth) -> (u64, Option<u64>) {
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QosPolicy {
    /// Unique over all QoS.
    pub id: String,
    pub name: Option<String>,
    pub description: Option<String>,
    /// Priority of the CAR (of the same QoS) that meters what matches.
    pub priority: u8,
    pub tuple: FiveTuple,
    /// `None`: any.
    pub dscp: Option<Dscp>,
    /// First moment at which the policy matches.
    pub start: Option<Timestamp>,
    /// First moment at which it no longer does.
    pub end: Option<Timestamp>,
}
