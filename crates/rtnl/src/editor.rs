//! [`Editor`]: sets and removes addresses and default routes of an interface.

use crate::error::Result;
use crate::request;
use crate::socket::Requester;
use ipnet::Ipv4Net;
use netlink_sys::protocols::NETLINK_ROUTE;
use std::net::{IpAddr, Ipv4Addr};

/// Changes IPv4 addresses and default routes in the network namespace in which it was opened. Needs
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
