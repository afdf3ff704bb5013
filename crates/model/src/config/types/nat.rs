//! Network address translation, for IPv4.

use super::PortRange;
use crate::words::words;
use std::fmt;

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

/// What a DNAT entry forwards. Beside entries for ports of the same address, `Any` takes the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

/// First port that source NAT may use for inside ports from 1024 up.
pub const MIN_NAT_PORT: u16 = 1024;
