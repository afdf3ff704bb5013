//! Errors between this crate and the kernel.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// Why the kernel could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A netlink socket cannot be made.
    #[error("cannot {step} a netlink socket: {source} (the kernel must have rtnetlink, Linux 5.15 or later)")]
    Socket {
        /// What was being done.
        step: &'static str,
        /// The kernel's error.
        source: io::Error,
    },

    /// Notifications cannot be read.
    #[error("cannot read kernel notifications: {source}")]
    Receive {
        /// The kernel's error.
        source: io::Error,
    },

    /// A table cannot be read.
    #[error("the kernel refused to list its {what}: {source}")]
    Dump {
        /// The table.
        what: &'static str,
        /// The kernel's error.
        source: io::Error,
    },

    /// The kernel did not answer.
    #[error("the kernel gave no answer to the request for {what} within {after:?}; the mirror is unchanged")]
    Timeout {
        /// What was requested.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },

    /// `CAP_NET_ADMIN` is missing.
    #[error("cannot {request} {ip}: the process lacks CAP_NET_ADMIN in this network namespace")]
    NotPermitted {
        /// What was requested.
        request: &'static str,
        /// The address concerned.
        ip: IpAddr,
    },

    /// The interface does not exist.
    #[error("cannot {request} {ip}: there is no interface with index {ifindex} (any more)")]
    NoSuchLink {
        /// What was requested.
        request: &'static str,
        /// The address concerned.
        ip: IpAddr,
        /// The interface.
        ifindex: u32,
    },

    /// The interface is down.
    #[error("cannot {request} {ip}: interface {ifindex} is down; `ip link set … up` it first")]
    LinkDown {
        /// What was requested.
        request: &'static str,
        /// The address concerned.
        ip: IpAddr,
        /// The interface.
        ifindex: u32,
    },

    /// The neighbour table is full.
    #[error(
        "cannot {request} {ip}: the kernel's neighbour table is full; raise net.ipv4.neigh.default.gc_thresh3 (ipv6 likewise)"
    )]
    TableFull {
        /// What was requested.
        request: &'static str,
        /// The address concerned.
        ip: IpAddr,
    },

    /// A device cannot be changed.
    #[error("the kernel refused to {request} {ifindex}: {source}")]
    Device {
        /// What was requested.
        request: &'static str,
        /// The interface.
        ifindex: u32,
        /// The kernel's error.
        source: io::Error,
    },

    /// Another refusal.
    #[error("the kernel refused to {request} {ip} on interface {ifindex}: {source}")]
    Neighbor {
        /// What was requested.
        request: &'static str,
        /// The address concerned.
        ip: IpAddr,
        /// The interface.
        ifindex: u32,
        /// The kernel's error.
        source: io::Error,
    },
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

/// The result of what can fail with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
