//! The types of values: what a key or several keys together mean.

mod group;
mod header;
mod nat;
mod overlay;
mod policy;
mod time;

pub use group::*;
pub use header::*;
pub use nat::*;
pub use overlay::*;
pub use policy::*;
pub use time::Timestamp;

use crate::ids::{PortIdx, Role};
use crate::words::words;
use std::net::IpAddr;

words! {
    /// How XDP attaches.
    pub enum XdpMode {
        /// Native where the driver has it, else generic.
        Auto = "auto",
        /// By the driver.
        Native = "native",
        /// By the kernel, for every driver.
        Generic = "generic",
        /// Not on the ports themselves, so that they keep offloads: tc forwards established flows, XDP gets the rest.
        Tc = "tc",
    }

    /// How AF_XDP sockets bind.
    pub enum ZeroCopy {
        /// Zero-copy where the driver has it, else copying.
        Auto = "auto",
        /// Zero-copy.
        On = "on",
        /// Copying.
        Off = "off",
    }

    /// What the XDP program does with packets that need the daemon while it is away.
    pub enum FailAction {
        /// They are dropped.
        Drop = "drop",
        /// The kernel forwards them by its own tables.
        PassToKernel = "pass_to_kernel",
    }

    /// What the daemon does with the kernel's settings of its ports.
    pub enum KernelSettings {
        /// They are set as a router needs them, and put back when the gateway is unloaded.
        Router = "router",
        /// They are left as they are.
        Keep = "keep",
    }

    /// How far the daemon is confined once it has started.
    pub enum Sandbox {
        /// Files and system calls that it does not need are refused.
        Enforce = "enforce",
        /// Unexpected system calls are written to the kernel's audit log, and nothing is refused.
        Log = "log",
        /// Neither.
        Off = "off",
    }

    /// Verdict of an ACL rule, and of the ACLs as a whole where no rule matches.
    pub enum Policy {
        /// The packet passes.
        Accept = "accept",
        /// The packet is dropped.
        Drop = "drop",
    }
}

words! {
    /// Whether a packet's source may come by the port or tunnel by which it came (RFC 3704, RFC 8704).
    pub enum ReversePath {
        /// The route to the source leads back there.
        Strict = "strict",
        /// It leads back there, or another route to the same network does that is not in use; or it leads to another
        /// port of the same role.
        Feasible = "feasible",
        /// There is a route to the source, wherever it leads.
        Loose = "loose",
        /// Not checked.
        Off = "off",
    }
}

impl ReversePath {
    /// For a port that has no `reverse_path`. Hosts of the branch are where the routes to them lead. Traffic of the
    /// Internet and of leased lines may come back by another line than it goes out by, for others choose its way.
    pub const fn of_role(role: Role) -> ReversePath {
        match role {
            Role::Lan => ReversePath::Strict,
            Role::Wan | Role::Express | Role::Mgmt => ReversePath::Feasible,
        }
    }
}

/// Largest bandwidth in Mbit/s: 1 Tbit/s.
pub(crate) const MAX_MBPS: i64 = 1_000_000;

/// Bandwidth in Mbit/s (10⁶ bit/s), never zero: "unlimited" is the absence of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mbps(pub u32);

impl Mbps {
    /// Bytes in a second.
    pub const fn bytes_per_second(self) -> u64 {
        self.0 as u64 * 125_000
    }
}

/// Where a static route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteTarget {
    /// Through a router.
    Via {
        /// The router.
        next_hop: IpAddr,
        /// `None`: the port whose network holds the next hop.
        port: Option<PortIdx>,
    },
    /// Destinations are neighbours on the port.
    OnLink(PortIdx),
    /// Through a tunnel.
    Tunnel(TunnelIdx),
    /// Nowhere.
    Reject(RejectKind),
}

words! {
    /// Routes that do not forward.
    pub enum RejectKind {
        /// Dropped silently.
        Blackhole = "blackhole",
        /// Answered with ICMP host unreachable.
        Unreachable = "unreachable",
        /// Answered with ICMP administratively prohibited.
        Prohibit = "prohibit",
    }
}
