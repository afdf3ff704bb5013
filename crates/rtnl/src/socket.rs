//! The two netlink sockets: one for notifications, one for requests.
//!
//! They are separate so that answers never queue behind (or get lost with) notifications.

use crate::decode::{self, Event};
use crate::error::{Error, Result};
use crate::wire::{self, i32_at};
use netlink_packet_core::NLM_F_DUMP_INTR;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// The groups (`RTNLGRP_*`) whose notifications cover the tables mirrored here, and settings.
const GROUPS: [u32; 9] = [
    1,  // links
    3,  // neighbours
    5,  // IPv4 addresses
    7,  // IPv4 routes
    9,  // IPv6 addresses
    11, // IPv6 routes
    24, // settings of devices, IPv4
    25, // settings of devices, IPv6
    32, // nexthop objects
];

/// The largest datagram of a dump is 32 KiB; a notification has a page at most.
const DATAGRAM: usize = 64 * 1024;
/// The kernel answers within the system call, unless its configuration lock is held by someone.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often a dump that was interrupted by changes is tried.
const DUMP_ATTEMPTS: usize = 4;

fn failed(step: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Socket { step, source }
}

/// Without privilege the buffer is cut to `net.core.rmem_max`: still useful, hence no error.
fn set_buffer(socket: &Socket, bytes: usize) -> Result<()> {
    if sockopt::set_socket_recv_buffer_size_force(socket.as_fd(), bytes).is_err() {
        sockopt::set_socket_recv_buffer_size(socket.as_fd(), bytes)
            .map_err(|e| failed("size the buffer of")(e.into()))?;
    }
    Ok(())
}

/// What a read of the notification socket returned.
pub(crate) enum Received {
    Datagram(usize),
    Nothing,
    /// The kernel dropped notifications.
    Overrun,
}

pub(crate) struct Listener {
    pub socket: Socket,
    pub buf: Vec<u8>,
}

impl Listener {
    pub fn open(buffer: usize) -> Result<Listener> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("open"))?;
        set_buffer(&socket, buffer)?;
        socket.set_non_blocking(true).map_err(failed("configure"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        for group in GROUPS {
            socket.add_membership(group).map_err(failed("subscribe to notifications on"))?;
        }
        Ok(Listener { socket, buf: vec![0; DATAGRAM] })
    }

    pub fn receive(&mut self) -> Result<Received> {
        loop {
            match self.socket.recv_from(&mut &mut self.buf[..], libc::MSG_TRUNC) {
                // Messages of other processes are ignored.
                Ok((_, from)) if from.port_number() != 0 => {}
                Ok((len, _)) if len > self.buf.len() => {
                    self.buf.resize(len.next_power_of_two(), 0);
                    return Ok(Received::Overrun);
                }
                Ok((len, _)) => return Ok(Received::Datagram(len)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Received::Overrun),
                Err(source) => return Err(Error::Receive { source }),
            }
        }
    }
}

/// The end of an answer.
enum End {
    More,
    Done,
    Refused(io::Error),
}

pub(crate) struct Requester {
    socket: Socket,
    seq: u32,
    buf: Vec<u8>,
}

impl Requester {
    /// Of a netlink protocol.
    pub fn open(protocol: isize) -> Result<Requester> {
        let mut socket = Socket::new(protocol).map_err(failed("open"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect"))?;
        sockopt::set_socket_timeout(socket.as_fd(), sockopt::Timeout::Recv, Some(TIMEOUT))
            .map_err(|e| failed("configure")(e.into()))?;
        Ok(Requester { socket, seq: 0, buf: vec![0; DATAGRAM] })
    }

    /// From now on dumps leave out what the fields of their request exclude.
    pub fn dump_by_filter(&self) -> Result<()> {
        self.socket.set_netlink_get_strict_chk(true).map_err(failed("configure"))
    }

    /// Requests a whole table and folds its entries into a new `T`. The flag says whether the
    /// answer is consistent: false when the table kept changing under every attempt.
    pub fn dump<T: Default>(
        &mut self,
        what: &'static str,
        request: impl Fn(u32) -> Vec<u8>,
        mut each: impl FnMut(&mut T, Event),
    ) -> Result<(T, bool)> {
        let mut last = T::default();
        for _ in 0..DUMP_ATTEMPTS {
            last = T::default();
            let mut consistent = true;
            let end = self.request(what, &request, |message| {
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                if let Ok(Some(event)) = decode::decode(message) {
                    each(&mut last, event);
                }
            })?;
            match end {
                Ok(()) if consistent => return Ok((last, true)),
                Ok(()) => {}
                Err(source) => return Err(Error::Dump { what, source }),
            }
        }
        Ok((last, false))
    }

    /// Sends a request, calls `each` with the messages of the answer, and returns the kernel's result.
    pub fn request(
        &mut self,
        what: &'static str,
        request: impl Fn(u32) -> Vec<u8>,
        mut each: impl FnMut(wire::Message<'_>),
    ) -> Result<io::Result<()>> {
        self.send(what, request)?;
        loop {
            if let Some(end) = self.receive(what, &mut each)? {
                return Ok(end);
            }
        }
    }

    /// Sends a request, whose answer [`Requester::receive`] takes.
    pub fn send(&mut self, what: &'static str, request: impl Fn(u32) -> Vec<u8>) -> Result<()> {
        self.seq = self.seq.wrapping_add(1).max(1);
        self.socket.send(&request(self.seq), 0).map_err(|e| lost(what, e))?;
        Ok(())
    }

    /// Takes one datagram of the answer to the last request. Returns the kernel's result if that was the end of it.
    pub fn receive(
        &mut self,
        what: &'static str,
        mut each: impl FnMut(wire::Message<'_>),
    ) -> Result<Option<io::Result<()>>> {
        let len = loop {
            match self.socket.recv(&mut &mut self.buf[..], libc::MSG_TRUNC) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(|e| lost(what, e))?,
            }
        };
        let datagram = self.buf.get(..len).ok_or_else(|| {
            let text = format!("a datagram of {len} bytes");
            lost(what, io::Error::new(io::ErrorKind::InvalidData, text))
        })?;
        // Answers to an earlier request that timed out carry its number and are passed over.
        for message in wire::messages(datagram).filter(|m| m.seq == self.seq) {
            match end_of(&message) {
                End::More => each(message),
                End::Done => return Ok(Some(Ok(()))),
                End::Refused(e) => return Ok(Some(Err(e))),
            }
        }
        Ok(None)
    }

    /// Sends a change of what an interface has, and gives its refusal a name. Errors that `harmless` lists say that it
    /// is as wanted already.
    pub fn change(
        &mut self,
        what: &'static str,
        ip: Option<IpAddr>,
        ifindex: u32,
        message: impl Fn(u32) -> Vec<u8>,
        harmless: &[i32],
    ) -> Result<()> {
        match self.request(what, message, |_| {})? {
            Err(e) if !e.raw_os_error().is_some_and(|c| harmless.contains(&c)) => Err(match ip {
                Some(ip) => Error::neighbor(what, ip, ifindex, e),
                None => Error::Device { request: what, ifindex, source: e },
            }),
            _ => Ok(()),
        }
    }
}

/// Why there is no answer.
fn lost(what: &'static str, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout { what, after: TIMEOUT },
        _ => Error::Dump { what, source },
    }
}

fn end_of(message: &wire::Message<'_>) -> End {
    if message.kind != NLMSG_ERROR && message.kind != NLMSG_DONE {
        return End::More;
    }
    match i32_at(message.payload, 0) {
        Some(code) if code < 0 => End::Refused(io::Error::from_raw_os_error(code.saturating_neg())),
        _ => End::Done,
    }
}
