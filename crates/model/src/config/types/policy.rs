//! ACLs and QoS: words, port ranges, five-tuples, rates.

use super::{NetworkMatch, PortMatch};
use crate::words::words;
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

    /// How the rates of a CAR are written.
    pub enum LimitType {
        /// In Mbit/s.
        Absolute = "Absolute",
        /// In percent of a bandwidth.
        Percent = "Percent",
    }

    /// What a percentage of a CAR refers to.
    pub enum PercentSource {
        /// `bandwidth.ccn`
        Ccn = "CcnBandwidth",
        /// `bandwidth.internet_up`
        InternetUp = "InternetUpBandwidth",
    }
}

/// Inclusive range of TCP or UDP ports; `first` is at most `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl PortRange {
    /// `-1/-1`: any port, and packets without ports.
    pub const ANY: PortRange = PortRange { first: 0, last: u16::MAX };

    /// Whether every port is in it.
    pub const fn is_any(self) -> bool {
        self.first == 0 && self.last == u16::MAX
    }

    /// One port.
    pub const fn single(port: u16) -> PortRange {
        PortRange { first: port, last: port }
    }

    /// Whether the port is in it.
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

/// What ACL rules and QoS policies match. All networks are of one IP version, which is the only
/// one that the rule matches; ports are `ANY` unless the protocol is TCP or UDP.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FiveTuple {
    /// IANA protocol number; `None`: all.
    pub protocol: Option<u8>,
    /// Source addresses.
    pub source: NetworkMatch,
    /// Destination addresses.
    pub dest: NetworkMatch,
    /// Of TCP and UDP.
    pub source_ports: PortMatch,
    /// Of TCP and UDP.
    pub dest_ports: PortMatch,
}

impl FiveTuple {
    /// Whether it matches IPv6 packets; else it matches IPv4 packets.
    pub fn is_ipv6(&self) -> bool {
        self.source.is_ipv6()
    }

    /// For how many rules without groups it stands.
    pub fn parts(&self) -> usize {
        let addresses = self.source.networks().len() * self.dest.networks().len();
        addresses * self.source_ports.ranges().len() * self.dest_ports.ranges().len()
    }

    /// Whether the file says the same, whatever is in the groups.
    pub fn is_written_as(&self, other: &FiveTuple) -> bool {
        self.protocol == other.protocol
            && self.source.is_written_as(&other.source)
            && self.dest.is_written_as(&other.dest)
            && self.source_ports.is_written_as(&other.source_ports)
            && self.dest_ports.is_written_as(&other.dest_ports)
    }
}

/// The least time after which Linux TCP retransmits, in milliseconds (RFC 6298 with a minimum of 200 ms). A shorter
/// burst loses what a connection earns while it waits, and the connection never fills the rate.
pub const TCP_WAIT_MS: u16 = 200;

/// The default burst of a rate, in milliseconds of it: [`TCP_WAIT_MS`] and what timers and round trips add to it.
pub const BURST_MS: u16 = 250;

/// Committed rate (CIR, `min`) and peak rate (PIR, `max`) of a CAR; the committed rate is at most the peak rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarLimit {
    /// In Mbit/s.
    Absolute {
        /// Committed; 0 guarantees nothing.
        min: u32,
        /// Peak, from 1.
        max: u32,
    },
    /// In percent of a bandwidth, 1..=100 each.
    Percent {
        /// Committed.
        min: u8,
        /// Peak.
        max: u8,
        /// Of what.
        of: PercentSource,
    },
}
