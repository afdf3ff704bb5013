//! Network address translation, for IPv4.

use super::{PortGroup, PortRange};
use crate::words::words;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

words! {
    /// What of the remote endpoint a NAT looks at (RFC 4787 sections 4.1 and 5), from nothing to
    /// everything.
    pub enum NatBehavior {
        /// Nothing: every remote endpoint is alike.
        EndpointIndependent = "endpoint-independent",
        /// The address.
        AddressDependent = "address-dependent",
        /// Address and port.
        AddressAndPortDependent = "address-and-port-dependent",
    }

    /// What of an inside endpoint decides which address of a pool it gets.
    pub enum NatPooling {
        /// The host: all its sessions have one address.
        Paired = "paired",
        /// Host, port and protocol.
        Arbitrary = "arbitrary",
    }

    /// What becomes of a session whose address has no port left.
    pub enum WhenFull {
        /// It is refused.
        Refuse = "refuse",
        /// It gets a port of another address of the pool.
        AnotherAddress = "another-address",
    }

    /// What becomes of TCP connections from the Internet to ports of the gateway that nobody has.
    pub enum ClosedPorts {
        /// Dropped in silence.
        Drop = "drop",
        /// Left to the kernel, which refuses them.
        Kernel = "kernel",
    }

    /// What becomes of translated sessions when the routes prefer another WAN port.
    pub enum WanSessions {
        /// They stay with their port while it can be used.
        Sticky = "sticky",
        /// They end, and begin anew by the other one.
        Move = "move",
    }

    /// What the NAT log records.
    pub enum NatLog {
        /// Nothing.
        Off = "off",
        /// Begin and end of each translated session.
        Sessions = "sessions",
        /// Begin and end of each port block.
        Blocks = "blocks",
    }

    /// When SYNs of a service are answered with SYN cookies.
    pub enum SynCookieMode {
        /// Never.
        Off = "off",
        /// While more SYNs than `rate` come.
        Auto = "auto",
        /// Always.
        Always = "always",
    }

    /// From where a DNAT entry is reached.
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

/// Addresses in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange {
    /// The first.
    pub first: Ipv4Addr,
    /// The last; not below the first.
    pub last: Ipv4Addr,
}

impl AddressRange {
    /// Every address of it.
    pub fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.first.to_bits()..=self.last.to_bits()).map(Ipv4Addr::from_bits)
    }

    /// How many they are.
    pub fn count(self) -> u64 {
        u64::from(self.last.to_bits()) - u64::from(self.first.to_bits()) + 1
    }
}

/// `203.0.113.16` or `203.0.113.16-203.0.113.20`
impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// Addresses that source NAT entries may have ports of, all of them together.
pub const MAX_NAT_ADDRESSES: usize = 64;

/// What a DNAT entry forwards. Beside entries for ports of the same address, `Any` takes the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnatService {
    /// All protocols, ports unchanged.
    Any,
    /// Some ports of one protocol.
    Port {
        /// 6 or 17.
        protocol: u8,
        /// Not shared with another entry of the same type, address and protocol.
        external: PortRange,
        /// As many ports as `external`; the n-th external becomes the n-th internal.
        internal: PortRange,
    },
    /// The ports of a group, unchanged.
    Group {
        /// 6 or 17.
        protocol: u8,
        /// Not shared with another entry of the same type, address and protocol.
        ports: Arc<PortGroup>,
    },
}

impl DnatService {
    /// Protocol, external and internal ports, range by range; empty: all of them.
    pub fn ranges(&self) -> Vec<(u8, PortRange, PortRange)> {
        match self {
            DnatService::Any => Vec::new(),
            DnatService::Port { protocol, external, internal } => vec![(*protocol, *external, *internal)],
            DnatService::Group { protocol, ports } => {
                ports.merged.iter().map(|r| (*protocol, *r, *r)).collect()
            }
        }
    }
}

/// First port that source NAT may use for inside ports from 1024 up.
pub const MIN_NAT_PORT: u16 = 1024;
