//! [`LeasedEditor`]: IPv6 addresses that last as long as a lease, and routes that belong to them.
//!
//! They bear a protocol number of their own ([`PROTOCOL_AGENT`]; of addresses `IFA_PROTO`, Linux 5.18), by which those of
//! an earlier process are found.

use crate::error::{Error, Result};
use crate::socket::Requester;
use crate::wire::{self, attributes, ip, octets, request, u8_at, u32_at};
use ipnet::Ipv6Net;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_sys::protocols::NETLINK_ROUTE;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

/// The protocol number of IPv6 addresses and routes that the control agent sets.
pub const PROTOCOL_AGENT: u8 = 0x5C;

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const IFA_PROTO: u16 = 11;
/// The metric of prefixes that are unreachable: that which the kernel gives to IPv6 routes without one, behind those of
/// networks on a link.
const METRIC: u32 = 1024;
/// That of default routes, which come before those that routers advertise.
const METRIC_DEFAULT: u32 = 512;

/// How long an address is good, in seconds; [`u32::MAX`]: always (RFC 4862 5.5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetimes {
    /// For new conversations; 0: deprecated. At most `valid`.
    pub preferred: u32,
    /// At all; not 0.
    pub valid: u32,
}

impl Lifetimes {
    /// Always.
    pub const FOREVER: Lifetimes = Lifetimes { preferred: u32::MAX, valid: u32::MAX };
}

/// A global IPv6 address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeasedAddress {
    /// The interface.
    pub ifindex: u32,
    /// The address with the length of its network's prefix.
    pub address: Ipv6Net,
    /// How long it is still good.
    pub lifetimes: Lifetimes,
    /// It bears [`PROTOCOL_AGENT`].
    pub own: bool,
}

/// A route that bears [`PROTOCOL_AGENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeasedRoute {
    /// What of this prefix is on no link is unreachable (RFC 7084 WPD-5).
    Unreachable(Ipv6Net),
    /// A default route.
    Default {
        /// The interface.
        ifindex: u32,
        /// The router.
        gateway: Ipv6Addr,
    },
}

/// Sets addresses with lifetimes and their routes, in the network namespace in which it was opened. Needs
/// `CAP_NET_ADMIN`.
pub struct LeasedEditor {
    requester: Requester,
}

impl LeasedEditor {
    /// Opens a netlink socket in the network namespace of the caller.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<LeasedEditor> {
        let requester = Requester::open(NETLINK_ROUTE)?;
        requester.dump_by_filter()?;
        Ok(LeasedEditor { requester })
    }

    /// The global IPv6 addresses of all interfaces.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read.
    pub fn addresses(&mut self) -> Result<Vec<LeasedAddress>> {
        let mut out = Vec::new();
        let head = [libc::AF_INET6 as u8, 0, 0, 0, 0, 0, 0, 0];
        let dump = |seq| request(RTM_GETADDR, NLM_F_DUMP, &head, &[], seq);
        listed("addresses", self.requester.request("addresses", dump, |m| out.extend(address(m)))?)?;
        Ok(out)
    }

    /// Adds an address, or gives one that is there other lifetimes.
    ///
    /// # Errors
    /// [`Error`]: no privilege, no such interface, no IPv6 on it, or another refusal of the kernel.
    pub fn set_address(&mut self, ifindex: u32, address: Ipv6Net, lifetimes: Lifetimes) -> Result<()> {
        // struct ifa_cacheinfo: preferred, valid, and two times that the kernel sets.
        let mut times = lifetimes.preferred.min(lifetimes.valid).to_ne_bytes().to_vec();
        times.extend_from_slice(&lifetimes.valid.to_ne_bytes());
        times.resize(16, 0);
        let list = [
            (libc::IFA_LOCAL, octets(IpAddr::V6(address.addr()))),
            (libc::IFA_CACHEINFO, times),
            (IFA_PROTO, vec![PROTOCOL_AGENT]),
        ];
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let head = address_header(ifindex, address);
        let message = |seq| request(RTM_NEWADDR, flags, &head, &list, seq);
        self.requester.change("add address", Some(IpAddr::V6(address.addr())), ifindex, message, &[])
    }

    /// Removes an address.
    ///
    /// # Errors
    /// [`Error`]: no privilege, or another refusal of the kernel.
    pub fn remove_address(&mut self, ifindex: u32, address: Ipv6Net) -> Result<()> {
        let list = [(libc::IFA_LOCAL, octets(IpAddr::V6(address.addr())))];
        let head = address_header(ifindex, address);
        let message = |seq| request(RTM_DELADDR, NLM_F_ACK, &head, &list, seq);
        let harmless = [libc::EADDRNOTAVAIL, libc::ENODEV];
        self.requester.change("remove address", Some(IpAddr::V6(address.addr())), ifindex, message, &harmless)
    }

    /// The routes in the main table that bear [`PROTOCOL_AGENT`].
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read.
    pub fn routes(&mut self) -> Result<BTreeSet<LeasedRoute>> {
        let mut out = BTreeSet::new();
        let head = route_header(0, PROTOCOL_AGENT, 0);
        let dump = |seq| request(RTM_GETROUTE, NLM_F_DUMP, &head, &[], seq);
        listed("routes", self.requester.request("routes", dump, |m| out.extend(route(m)))?)?;
        Ok(out)
    }

    /// Makes these the only routes with [`PROTOCOL_AGENT`]. Returns what the kernel refused.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read or does not answer.
    pub fn set_routes(
        &mut self,
        wanted: &BTreeSet<LeasedRoute>,
    ) -> Result<(bool, Vec<(LeasedRoute, io::Error)>)> {
        let there = self.routes()?;
        let mut refused = Vec::new();
        let gone = there.difference(wanted).map(|r| (r, RTM_DELROUTE, 0, libc::ESRCH));
        let new =
            wanted.difference(&there).map(|r| (r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, libc::EEXIST));
        for (route, kind, flags, harmless) in gone.chain(new) {
            let message = |seq| route_message(kind, flags, *route, PROTOCOL_AGENT, seq);
            match self.requester.request("change route", message, |_| {})? {
                Err(e) if e.raw_os_error() != Some(harmless) => refused.push((*route, e)),
                _ => {}
            }
        }
        Ok((there != *wanted, refused))
    }

    /// Removes the route that makes a prefix unreachable and that a DHCP client has set.
    ///
    /// # Errors
    /// [`Error`]: no privilege, or another refusal of the kernel.
    pub fn remove_unreachable_of_dhcp(&mut self, prefix: Ipv6Net) -> Result<()> {
        let route = LeasedRoute::Unreachable(prefix);
        let message = |seq| route_message(RTM_DELROUTE, 0, route, RTPROT_DHCP, seq);
        self.requester.change("remove route", Some(IpAddr::V6(prefix.network())), 0, message, &[libc::ESRCH])
    }
}

const RTPROT_DHCP: u8 = 16;

/// A kernel without IPv6 has nothing.
fn listed(what: &'static str, done: std::result::Result<(), io::Error>) -> Result<()> {
    match done {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::ENOENT)) => {
            Ok(())
        }
        Err(source) => Err(Error::Dump { what, source }),
        Ok(()) => Ok(()),
    }
}

/// struct ifaddrmsg: family, prefix length, flags, scope, index.
fn address_header(ifindex: u32, address: Ipv6Net) -> [u8; 8] {
    let mut head = [libc::AF_INET6 as u8, address.prefix_len(), 0, 0, 0, 0, 0, 0];
    head[4..].copy_from_slice(&ifindex.to_ne_bytes());
    head
}

fn address(message: wire::Message<'_>) -> Option<LeasedAddress> {
    let head = message.payload.get(..8).filter(|_| message.kind == RTM_NEWADDR)?;
    if head[0] != libc::AF_INET6 as u8 || head[3] != libc::RT_SCOPE_UNIVERSE {
        return None;
    }
    let (mut found, mut lifetimes, mut own) = (None, Lifetimes::FOREVER, false);
    for (kind, value) in attributes(message.payload.get(8..)?) {
        match kind {
            libc::IFA_LOCAL => found = ip(value),
            libc::IFA_ADDRESS => found = found.or(ip(value)),
            libc::IFA_CACHEINFO => {
                lifetimes = Lifetimes { preferred: u32_at(value, 0)?, valid: u32_at(value, 4)? };
            }
            IFA_PROTO => own = u8_at(value, 0) == Some(PROTOCOL_AGENT),
            _ => {}
        }
    }
    let Some(IpAddr::V6(addr)) = found else { return None };
    Some(LeasedAddress {
        ifindex: u32_at(head, 4)?,
        address: Ipv6Net::new(addr, head[1]).ok()?,
        lifetimes,
        own,
    })
}

/// struct rtmsg: family, dst len, src len, tos, table, protocol, scope, type, flags.
fn route_header(len: u8, protocol: u8, kind: u8) -> [u8; 12] {
    let family = libc::AF_INET6 as u8;
    [family, len, 0, 0, libc::RT_TABLE_MAIN, protocol, libc::RT_SCOPE_UNIVERSE, kind, 0, 0, 0, 0]
}

fn route(message: wire::Message<'_>) -> Option<LeasedRoute> {
    let head = message.payload.get(..12).filter(|_| message.kind == RTM_NEWROUTE)?;
    // Kernels that do not filter list all.
    if head[0] != libc::AF_INET6 as u8 || head[4] != libc::RT_TABLE_MAIN || head[5] != PROTOCOL_AGENT {
        return None;
    }
    let (mut dst, mut gateway, mut ifindex) = (Ipv6Addr::UNSPECIFIED, None, 0);
    for (kind, value) in attributes(message.payload.get(12..)?) {
        match (kind, ip(value)) {
            (libc::RTA_DST, Some(IpAddr::V6(ip))) => dst = ip,
            (libc::RTA_GATEWAY, Some(IpAddr::V6(ip))) => gateway = Some(ip),
            (libc::RTA_OIF, _) => ifindex = u32_at(value, 0)?,
            _ => {}
        }
    }
    match head[7] {
        libc::RTN_UNREACHABLE => Some(LeasedRoute::Unreachable(Ipv6Net::new(dst, head[1]).ok()?)),
        _ => Some(LeasedRoute::Default { ifindex, gateway: gateway? }),
    }
}

fn route_message(kind: u16, flags: u16, route: LeasedRoute, protocol: u8, seq: u32) -> Vec<u8> {
    let mut list = Vec::new();
    // The DHCP client's has a metric of its own.
    if protocol == PROTOCOL_AGENT {
        let is_default = matches!(route, LeasedRoute::Default { .. });
        let metric = if is_default { METRIC_DEFAULT } else { METRIC };
        list.push((libc::RTA_PRIORITY, metric.to_ne_bytes().to_vec()));
    }
    let head = match route {
        LeasedRoute::Unreachable(prefix) => {
            list.push((libc::RTA_DST, octets(IpAddr::V6(prefix.network()))));
            route_header(prefix.prefix_len(), protocol, libc::RTN_UNREACHABLE)
        }
        LeasedRoute::Default { ifindex, gateway } => {
            list.push((libc::RTA_OIF, ifindex.to_ne_bytes().to_vec()));
            list.push((libc::RTA_GATEWAY, octets(IpAddr::V6(gateway))));
            route_header(0, protocol, libc::RTN_UNICAST)
        }
    };
    request(kind, NLM_F_ACK | flags, &head, &list, seq)
}
