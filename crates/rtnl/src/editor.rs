//! [`Editor`]: addresses and default routes of an interface, set and taken away.

use crate::error::{Error, Result};
use crate::request;
use crate::socket::Asker;
use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr};

/// Changes IPv4 addresses and default routes in the network namespace in which it was opened. Needs
/// `CAP_NET_ADMIN`. Asking for what is there already, or for the end of what is gone, is no error.
pub struct Editor {
    asker: Asker,
}

impl Editor {
    pub fn open() -> Result<Editor> {
        Ok(Editor { asker: Asker::open()? })
    }

    pub fn add_address(&mut self, ifindex: u32, address: Ipv4Net) -> Result<()> {
        self.change("add address", ifindex, address.addr(), &[], |seq| {
            request::set_address(ifindex, address, true, seq)
        })
    }

    pub fn remove_address(&mut self, ifindex: u32, address: Ipv4Net) -> Result<()> {
        self.change("remove address", ifindex, address.addr(), &[libc::EADDRNOTAVAIL], |seq| {
            request::set_address(ifindex, address, false, seq)
        })
    }

    pub fn add_default(&mut self, ifindex: u32, gateway: Ipv4Addr, metric: u32) -> Result<()> {
        self.change("add the default route by", ifindex, gateway, &[libc::EEXIST], |seq| {
            request::set_default(ifindex, gateway, metric, true, seq)
        })
    }

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
        fine: &[i32],
        message: impl Fn(u32) -> Vec<u8>,
    ) -> Result<()> {
        match self.asker.ask(what, message, |_| {})? {
            Err(e) if !e.raw_os_error().is_some_and(|c| fine.contains(&c)) => {
                Err(Error::neighbor(what, IpAddr::V4(ip), ifindex, e))
            }
            _ => Ok(()),
        }
    }
}
