//! AF_XDP sockets over one packet memory per worker thread, with frames owned by type.
//!
//! A [`Umem`] is a worker's packet memory; every [`Socket`] opened on it (one per device queue)
//! receives into it and transmits out of it, so a packet moves from port to port as a [`Frame`] and is
//! never copied. [`nic`] reads what a device is and can do, [`tun`] opens devices of the gateway's own, [`sys`] has
//! the few system calls that a worker thread needs beside its sockets. The words are those of the kernel's
//! `Documentation/networking/af_xdp.rst`: UMEM, chunk, headroom; fill, completion, RX and TX ring.
//!
//! The public interface is safe. The rule behind it: each chunk of the memory has exactly one owner,
//! written in the memory's ledger (free list, user, or a socket's rings), and bytes of a chunk are
//! reachable only through the one `Frame` that exists while the owner is "user". Addresses that the
//! kernel returns are checked against the ledger before a `Frame` is made of them.
//!
//! ```
//! use sag_xsk::{Umem, UmemConfig};
//!
//! let mut umem = Umem::new(&UmemConfig { frames: 64, ..UmemConfig::default() })?;
//! let mut frame = umem.alloc().expect("64 chunks are free");
//! let start = frame.headroom();
//! assert!(frame.set_range(start, 60));
//! frame.bytes_mut().fill(0xFF);
//! // A socket would send it: `socket.send(&mut umem, frame)`, then `socket.flush()`.
//! umem.release(frame);
//! assert_eq!(umem.census().free, 64);
//! # Ok::<(), sag_xsk::UmemError>(())
//! ```

#![warn(missing_docs)]
#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod area;
mod binding;
mod error;
mod frame;
mod ifname;
pub mod nic;
mod ring;
mod shared;
mod socket;
pub mod sys;
pub mod tun;
mod umem;

pub use binding::Binding;
pub use error::{OpenError, SocketError, UmemError};
pub use frame::Frame;
pub use ifname::IfName;
pub use shared::map_words;
pub use socket::{BusyPoll, Mode, Socket, SocketConfig, Stats};
pub use umem::{Census, ChunkSize, Umem, UmemConfig, XDP_HEADROOM};
