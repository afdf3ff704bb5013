//! What can go wrong between the mirror and the kernel.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {step} a netlink socket: {source} (the kernel must have rtnetlink, Linux 5.15 or later)")]
    Socket { step: &'static str, source: io::Error },

    #[error("cannot read kernel notifications: {source}")]
    Receive { source: io::Error },

    #[error("the kernel refused to list its {what}: {source}")]
    Dump { what: &'static str, source: io::Error },

    #[error("the kernel gave no answer to the request for {what} within {after:?}; the mirror is unchanged")]
    Timeout { what: &'static str, after: Duration },

    #[error("cannot {request} {ip}: the process lacks CAP_NET_ADMIN in this network namespace")]
    NotPermitted { request: &'static str, ip: IpAddr },

    #[error("cannot {request} {ip}: there is no interface with index {ifindex} (any more)")]
    NoSuchLink { request: &'static str, ip: IpAddr, ifindex: u32 },

    #[error("cannot {request} {ip}: interface {ifindex} is down; `ip link set … up` it first")]
    LinkDown { request: &'static str, ip: IpAddr, ifindex: u32 },

    #[error(
        "cannot {request} {ip}: the kernel's neighbour table is full; raise net.ipv4.neigh.default.gc_thresh3 (ipv6 likewise)"
    )]
    TableFull { request: &'static str, ip: IpAddr },

    #[error("the kernel refused to {request} {ip} on interface {ifindex}: {source}")]
    Neighbor { request: &'static str, ip: IpAddr, ifindex: u32, source: io::Error },
}

impl Error {
    /// Gives the refusal of a request about an address of an interface its name.
    pub(crate) fn neighbor(request: &'static str, ip: IpAddr, ifindex: u32, source: io::Error) -> Error {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Error::NotPermitted { request, ip },
            Some(libc::ENODEV) => Error::NoSuchLink { request, ip, ifindex },
            Some(libc::ENETDOWN) => Error::LinkDown { request, ip, ifindex },
            Some(libc::ENOBUFS) => Error::TableFull { request, ip },
            _ => Error::Neighbor { request, ip, ifindex, source },
        }
    }
}

pub type Result<T> = std::result::Result<T, Error>;
