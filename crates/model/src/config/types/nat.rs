//! Network address translation, for IPv4.

use super::PortRange;
use ipnet::Ipv4Net;
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

words! {
    /// What of the remote endpoint a NAT looks at (RFC 4787 sections 4.1 and 5), from nothing to
    /// everything.
    pub enum NatBehavior {
        EndpointIndependent = "endpoint-independent",
        AddressDependent = "address-dependent",
        AddressAndPortDependent = "address-and-port-dependent",
    }

    /// What the NAT log tells of.
    pub enum NatLog {
        Off = "off",
        /// Begin and end of each translated session.
        Sessions = "sessions",
        /// Begin and end of each port block.
        Blocks = "blocks",
    }

    pub enum DnatType {
        /// For what arrives from the overlay or a leased line.
        Intranet = "Intranet",
        /// For what arrives from the Internet.
        Internet = "Internet",
    }
}

/// How a source NAT maps and filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NatBehaviors {
    /// Which sessions of one inside endpoint share an outside endpoint.
    pub mapping: NatBehavior,
    /// Which remote endpoints reach an outside endpoint.
    pub filtering: NatBehavior,
}

impl Default for NatBehaviors {
    fn default() -> Self {
        NatBehaviors {
            // RFC 4787 REQ-1, RFC 5382 REQ-1.
            mapping: NatBehavior::EndpointIndependent,
            // RFC 4787 REQ-8, RFC 5382 REQ-3: the more stringent of the two recommended.
            filtering: NatBehavior::AddressDependent,
        }
    }
}

/// `mapping endpoint-independent, filtering address-dependent`
impl fmt::Display for NatBehaviors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mapping {}, filtering {}", self.mapping, self.filtering)
    }
}

/// What all translations share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nat {
    /// Outside ports that source NAT may use for inside ports from 1024 up; `first` is at least 1024.
    pub port_range: PortRange,
    /// Sessions of one inside host; `None`: unlimited.
    pub host_sessions: Option<u32>,
    /// 1..=100: share of a port pool, or of a host's sessions, that is worth an event.
    pub warn_percent: u8,
    /// Ports in the blocks that hosts get, a power of two in 64..=4096; `None`: ports one by one.
    /// Goes with endpoint-independent mapping only.
    pub port_block: Option<u16>,
    pub log: NatLog,
    /// There is one if there is a log.
    pub log_file: Option<PathBuf>,
    /// Inside hosts reach each other by their outside addresses.
    pub hairpin: bool,
}

impl Nat {
    /// First port that source NAT may use.
    pub const MIN_PORT: u16 = 1024;
}

impl Default for Nat {
    fn default() -> Self {
        Nat {
            port_range: PortRange { first: Nat::MIN_PORT, last: u16::MAX },
            host_sessions: None,
            warn_percent: 80,
            port_block: None,
            log: NatLog::Off,
            log_file: None,
            // RFC 4787 REQ-9, RFC 5382 REQ-8, RFC 5508 REQ-7.
            hairpin: true,
        }
    }
}

/// Private source NAT, towards overlay and leased line. Of overlapping blocks the longest wins.
/// Entries of equal `snat_ip` have equal behaviours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snat {
    pub id: String,
    pub cidr_block: Ipv4Net,
    pub snat_ip: Ipv4Addr,
    pub behavior: NatBehaviors,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dnat {
    pub id: String,
    pub kind: DnatType,
    /// `None` with [`DnatType::Internet`]: the WAN port's own address.
    pub external_ip: Option<Ipv4Addr>,
    pub internal_ip: Ipv4Addr,
    pub service: DnatService,
}

/// What a DNAT entry forwards. Beside entries for ports of the same address, `Any` takes the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnatService {
    /// All protocols, ports unchanged.
    Any,
    Port {
        /// 6 or 17.
        protocol: u8,
        /// Not shared with another entry of the same type, address and protocol.
        external: PortRange,
        /// As many ports as `external`; the n-th external becomes the n-th internal.
        internal: PortRange,
    },
}
