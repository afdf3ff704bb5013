//! What is known and decided of a packet that goes through NAT64.

use crate::nat::{BindingNo, Endpoint, Snat};
use sag_model::VrfNo;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A NAT64 session as a packet of it sees it, or an error about one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session64 {
    /// Source and destination of the packet on the IPv6 side.
    pub sides6: (IpAddr, IpAddr),
    /// Its destination port there, in host order.
    pub dport6: u16,
    /// What becomes of the packet's destination.
    pub to: IpAddr,
    /// The first packet's source and destination as it came.
    pub old: (IpAddr, IpAddr),
    /// And as it left.
    pub new: (IpAddr, IpAddr),
    /// The first packet's source port, as it came.
    pub sport: u16,
    /// The session's protocol, as IPv6 numbers it.
    pub proto: u8,
    /// The packet goes in the reverse direction.
    pub reply: bool,
    /// The VRF from which the packet is answered.
    pub to_vrf: VrfNo,
}

/// What of a packet is NAT64's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat64Context {
    /// Nothing so far.
    None,
    /// It belongs to a session, or is an error about one.
    Session(Session64),
    /// An IPv4 packet of no session, for a port that an IPv6 host has.
    Inbound,
}

/// Where a new session goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target64 {
    /// To an IPv4 host.
    V4(Ipv4Addr),
    /// To an IPv6 host inside, through a port that it has outside.
    Host {
        /// The host.
        host: Ipv6Addr,
        /// Its number, and its port.
        inside: Endpoint,
        /// The binding of the port.
        binding: BindingNo,
    },
}

/// A new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct New64 {
    /// Where it goes.
    pub target: Target64,
    /// What its source becomes, if an IPv6 host begins it.
    pub snat: Option<Snat>,
    /// The entry whose prefix it is by, by its number in the policy.
    pub entry: u8,
}

/// Whether a packet goes through NAT64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crossing {
    /// It does not.
    None,
    /// With its session.
    Known,
    /// As the first of one.
    New(New64),
}

impl Crossing {
    /// Whether it does.
    #[inline]
    pub fn is_any(&self) -> bool {
        *self != Crossing::None
    }
}

/// A packet through NAT64 as rules and meters see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen64 {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub dport: u16,
}
