//! [`Editor`]: sets and removes addresses, neighbours and default routes of an interface.

use crate::error::Result;
use crate::request;
use crate::socket::Requester;
use ipnet::Ipv4Net;
use netlink_sys::protocols::NETLINK_ROUTE;
use sag_model::MacAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Changes addresses, neighbours and IPv4 default routes in the network namespace in which it was opened. Needs
/// `CAP_NET_ADMIN`. Adding what exists and removing what does not are no errors.
pub struct Editor {
    requester: Requester,
}

impl Editor {
    /// Opens a netlink socket in the network namespace of the caller.
    ///
    /// # Errors
    /// [`crate::Error::Socket`].
    pub fn open() -> Result<Editor> {
        Ok(Editor { requester: Requester::open(NETLINK_ROUTE)? })
    }

    /// Adds an address with its prefix length.
    ///
    /// # Errors
    /// [`crate::Error`]: no privilege, no such interface, the interface is down, or another refusal of the kernel.
    pub fn add_address(&mut self, ifindex: u32, address: Ipv4Net) -> Result<()> {
        self.change("add address", ifindex, address.addr(), &[], |seq| {
            request::set_address(ifindex, address, true, seq)
        })
    }

    /// Removes an address.
    ///
    /// # Errors
    /// [`crate::Error`]: no privilege, no such interface, the interface is down, or another refusal of the kernel.
    pub fn remove_address(&mut self, ifindex: u32, address: Ipv4Net) -> Result<()> {
        self.change("remove address", ifindex, address.addr(), &[libc::EADDRNOTAVAIL], |seq| {
            request::set_address(ifindex, address, false, seq)
        })
    }

    /// Adds a point-to-point address: `peer` is at the other end of the link.
    ///
    /// # Errors
    /// [`crate::Error`]: no privilege, no such interface, or another refusal of the kernel.
    pub fn add_peer_address(&mut self, ifindex: u32, local: Ipv4Addr, peer: Ipv4Addr) -> Result<()> {
        self.change("add address", ifindex, local, &[], |seq| {
            request::set_peer_address(ifindex, local, peer, true, seq)
        })
    }

    /// Removes a point-to-point address.
    ///
    /// # Errors
    /// [`crate::Error`]: no privilege, or another refusal of the kernel.
    pub fn remove_peer_address(&mut self, ifindex: u32, local: Ipv4Addr, peer: Ipv4Addr) -> Result<()> {
        let harmless = [libc::EADDRNOTAVAIL, libc::ENODEV];
        self.change("remove address", ifindex, local, &harmless, |seq| {
            request::set_peer_address(ifindex, local, peer, false, seq)
        })
    }

    /// Says once and for all which Ethernet address a neighbour has. An entry that is there stays as it is.
    ///
    /// # Errors
    /// [`crate::Error`]: no privilege, no such interface, or another refusal of the kernel.
    pub fn add_neighbor(&mut self, ifindex: u32, ip: IpAddr, mac: MacAddr) -> Result<()> {
        let message = |seq| request::permanent_neighbor(ifindex, ip, mac, seq);
        self.requester.change("add neighbour", Some(ip), ifindex, message, &[libc::EEXIST])
    }

    /// Forgets a neighbour.
    ///
    /// # Errors
    /// [`crate::Error`]: no privilege, or another refusal of the kernel.
    pub fn remove_neighbor(&mut self, ifindex: u32, ip: IpAddr) -> Result<()> {
        let message = |seq| request::delete_neighbor(ifindex, ip, seq);
        let harmless = [libc::ENOENT, libc::ENODEV, libc::ENXIO];
        self.requester.change("remove neighbour", Some(ip), ifindex, message, &harmless)
    }

    /// Adds a link-local address that nobody else on the link has: no duplicate is looked for.
    ///
    /// # Errors
    /// [`crate::Error`]: no privilege, no such interface, or another refusal of the kernel.
    pub fn add_link_local(&mut self, ifindex: u32, address: Ipv6Addr) -> Result<()> {
        let message = |seq| request::set_link_local(ifindex, address, true, seq);
        self.requester.change("add address", Some(address.into()), ifindex, message, &[libc::EEXIST])
    }

    /// Removes a link-local address.
    ///
    /// # Errors
    /// [`crate::Error`]: no privilege, or another refusal of the kernel.
    pub fn remove_link_local(&mut self, ifindex: u32, address: Ipv6Addr) -> Result<()> {
        let message = |seq| request::set_link_local(ifindex, address, false, seq);
        let harmless = [libc::EADDRNOTAVAIL, libc::ENODEV];
        self.requester.change("remove address", Some(address.into()), ifindex, message, &harmless)
    }

    /// Adds a default route through a gateway; of several the lowest metric wins.
    ///
    /// # Errors
    /// [`crate::Error`]: no privilege, no such interface, the interface is down, or another refusal of the kernel.
    pub fn add_default(&mut self, ifindex: u32, gateway: Ipv4Addr, metric: u32) -> Result<()> {
        self.change("add the default route by", ifindex, gateway, &[libc::EEXIST], |seq| {
            request::set_default(ifindex, gateway, metric, true, seq)
        })
    }

    /// Removes a default route.
    ///
    /// # Errors
    /// [`crate::Error`]: no privilege, no such interface, the interface is down, or another refusal of the kernel.
    pub fn remove_default(&mut self, ifindex: u32, gateway: Ipv4Addr, metric: u32) -> Result<()> {
        self.change("remove the default route by", ifindex, gateway, &[libc::ESRCH], |seq| {
            request::set_default(ifindex, gateway, metric, false, seq)
        })
    }

    fn change(
        &mut self,
        what: &'static str,
        ifindex: u32,
        ip: Ipv4Addr,
        harmless: &[i32],
        message: impl Fn(u32) -> Vec<u8>,
    ) -> Result<()> {
        self.requester.change(what, Some(IpAddr::V4(ip)), ifindex, message, harmless)
    }
}
