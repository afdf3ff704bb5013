//! AF_XDP sockets over one packet memory per worker thread, with frames owned by type.
//!
//! A [`Umem`] is a worker's packet memory; every [`Socket`] opened on it (one per device queue)
//! receives into it and transmits out of it, so a packet crosses from port to port as a moved
//! [`Frame`] and is never copied. [`nic`] tells what a device can do, [`sys`] holds the few system
//! calls that a worker thread needs beside its sockets.
//!
//! The public interface is safe. The rule behind it: each chunk of the memory has exactly one owner,
//! written in the memory's ledger (free list, user, or a socket's rings), and bytes of a chunk are
//! reachable only through the one `Frame` that exists while the owner is "user". Addresses that the
//! kernel hands back are checked against the ledger before a `Frame` is made of them.

#![warn(missing_docs)]
#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]

mod area;
mod binding;
mod error;
mod frame;
mod ifname;
pub mod nic;
mod ring;
mod socket;
pub mod sys;
mod umem;

pub use binding::Binding;
pub use error::{OpenError, SocketError, UmemError};
pub use frame::Frame;
pub use ifname::IfName;
pub use socket::{BusyPoll, Mode, Socket, SocketConfig, Stats};
pub use umem::{Census, ChunkSize, Umem, UmemConfig, XDP_HEADROOM};
