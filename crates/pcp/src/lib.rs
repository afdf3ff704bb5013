//! Hosts inside ask a NAT for a port outside: PCP (RFC 6887) and its predecessor NAT-PMP (RFC 6886), which share a
//! port. [`Server`] answers requests and keeps the mappings with their lifetimes; what a mapping is in the NAT is up to
//! who implements [`Nat`].
//!
//! The crate is pure: no socket, no thread, no clock. Times are since a moment that the caller chooses. Only IPv4 is
//! mapped, since only IPv4 is translated.
//!
//! ```
//! use sag_pcp::{Admission, Held, Host, Inside, Limits, Nat, Refusal, Server, Want};
//! use std::net::{Ipv4Addr, SocketAddrV4};
//! use std::time::Duration;
//!
//! /// Every host keeps its port.
//! struct OneToOne;
//!
//! impl Nat for OneToOne {
//!     fn external(&self, _: Host) -> Option<Ipv4Addr> {
//!         Some(Ipv4Addr::new(203, 0, 113, 2))
//!     }
//!     fn permits(&self, host: Host) -> bool {
//!         host.address.is_private()
//!     }
//!     fn may_keep(&self, host: Host) -> bool {
//!         self.permits(host)
//!     }
//!     fn hold(&mut self, want: &Want) -> Result<Held, Refusal> {
//!         let address = self.external(want.inside.host).ok_or(Refusal::NoAddress)?;
//!         Ok(Held { external: SocketAddrV4::new(address, want.inside.port), hold: None })
//!     }
//!     fn is_current(&self, _: &Inside, _: &Held) -> bool {
//!         true
//!     }
//!     fn admit(&mut self, _: u32, _: &Admission) -> Result<(), Refusal> {
//!         Ok(())
//!     }
//!     fn release(&mut self, _: u32) {}
//! }
//!
//! let mut server = Server::new(Duration::ZERO);
//! let host = Host { realm: 0, address: Ipv4Addr::new(192, 168, 1, 10) };
//! // NAT-PMP: TCP port 80, wanted as 8080, for an hour.
//! let request = [0, 2, 0, 0, 0, 80, 0x1F, 0x90, 0, 0, 0x0E, 0x10];
//! let answer = server.answer(&mut OneToOne, &Limits::default(), host, &request, Duration::from_secs(7));
//! assert_eq!(answer.as_deref(), Some(&[0, 130, 0, 0, 0, 0, 0, 7, 0, 80, 0, 80, 0, 0, 0x0E, 0x10][..]));
//! assert_eq!(server.mappings().count(), 1);
//! ```

#![warn(missing_docs)]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod announce;
mod bytes;
mod nat;
mod nat_pmp;
mod pcp;
mod server;
mod table;

pub use announce::CLIENT_PORT;
pub use nat::{Admission, Held, Host, Inside, Nat, Protocol, Refusal, Want};
pub use pcp::{Filter, ResultCode};
pub use server::{Limits, Server};
pub use table::Mapping;

/// The UDP port at which a NAT is asked.
pub const SERVER_PORT: u16 = 5351;

/// Longest message (RFC 6887 section 7).
pub const MAX_MESSAGE: usize = 1100;
