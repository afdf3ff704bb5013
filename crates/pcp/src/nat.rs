//! The NAT behind the server: what it is asked for, and what it says.

use crate::pcp::{Filter, ResultCode};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Protocols whose ports are mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Of an IP protocol.
    pub const fn of(number: u8) -> Option<Protocol> {
        match number {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            _ => None,
        }
    }

    /// Its IP protocol.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }
}

/// A host inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host {
    /// The address realm (RFC 2663 2.1): hosts of two of them may have the same address.
    pub realm: u8,
    /// Its address there.
    pub address: Ipv4Addr,
}

impl Host {
    /// Nobody in particular: whom most hosts are like.
    pub(crate) const ANY: Host = Host { realm: 0, address: Ipv4Addr::UNSPECIFIED };
}

/// An endpoint inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inside {
    /// The host.
    pub host: Host,
    /// The protocol of the port.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// A port outside that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// What is to be reached by it.
    pub inside: Inside,
    /// The port that the host would like to have.
    pub port: Option<u16>,
    /// No other one will do.
    pub only: bool,
}

/// A port outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Address and port.
    pub external: SocketAddrV4,
    /// By what it is released; `None`: it is the host's by configuration.
    pub hold: Option<u32>,
}

/// Why there is no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no external address at the moment.
    NoAddress,
    /// The NAT gives this host no port that is the same for all.
    NotMapped,
    /// No port is free, or there is no room to write down who may use it.
    Exhausted,
    /// The host has its share.
    HostShare,
    /// Not the one that alone would do.
    NotThatPort,
    /// More remote endpoints than a port may have.
    TooManyPeers,
}

impl Refusal {
    pub(crate) const fn code(self) -> ResultCode {
        match self {
            Refusal::NoAddress => ResultCode::NetworkFailure,
            Refusal::NotMapped => ResultCode::NotAuthorized,
            Refusal::Exhausted => ResultCode::NoResources,
            Refusal::HostShare => ResultCode::UserExQuota,
            Refusal::NotThatPort => ResultCode::CannotProvideExternal,
            Refusal::TooManyPeers => ResultCode::ExcessiveRemotePeers,
        }
    }
}

/// Who may send to a port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// Everybody.
    pub anyone: bool,
    /// If not everybody: these.
    pub peers: Vec<Filter>,
    /// And nobody else to whom the host has not sent, whatever the NAT filters by.
    pub exclusive: bool,
}

/// The NAT behind the server.
pub trait Nat {
    /// The address that a host inside has outside; of one without an address, that of most hosts.
    fn external(&self, host: Host) -> Option<Ipv4Addr>;

    /// Whether there may be a mapping to a host: it is where the request came from.
    fn permits(&self, host: Host) -> bool;

    /// Whether a host may keep the mappings that it has: nothing says that it is elsewhere now.
    fn may_keep(&self, host: Host) -> bool;

    /// The port of an endpoint inside, which stays its until it is released as often as it was held.
    ///
    /// # Errors
    ///
    /// Why there is none.
    fn hold(&mut self, want: &Want) -> Result<Held, Refusal>;

    /// Whether an endpoint inside would still get what it was given; as long as it would get nothing, that is so.
    fn is_current(&self, inside: &Inside, held: &Held) -> bool;

    /// Makes those who may send to a port exactly these.
    ///
    /// # Errors
    ///
    /// Why that cannot be; all is as before.
    fn admit(&mut self, hold: u32, who: &Admission) -> Result<(), Refusal>;

    /// Gives a port back. If other mappings hold it too, [`Nat::admit`] follows.
    fn release(&mut self, hold: u32);
}
