//! Frames as byte slices: parsing with a named reason for every malformation, checksums, header
//! rewriting and the ICMP messages that a router originates.
//!
//! Parsing is one pass over one bounded header area and copies what the pipeline needs into
//! [`Parsed`], so no later stage walks the headers again.
//!
//! ```
//! use sag_packet::{NetworkLayer, checksum, parse, parse::link, rewrite};
//!
//! // An Ethernet frame with an empty IPv4 packet, protocol 253, TTL 64.
//! let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
//! frame.extend([0x45, 0, 0, 20, 0, 0, 0x40, 0, 64, 253, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
//! let sum = checksum::finish(checksum::sum(&frame[14..]));
//! frame[24..26].copy_from_slice(&sum.to_ne_bytes());
//!
//! let (vlan, ethertype, l3) = link(&frame)?;
//! let NetworkLayer::Ip(packet) = parse(&frame, ethertype, l3)? else { panic!("not IP") };
//! assert_eq!((vlan, packet.ttl, packet.dst4().to_string().as_str()), (0, 64, "198.51.100.7"));
//!
//! rewrite::decrement_ttl(&mut frame, &packet);
//! assert_eq!(frame[22], 63);
//! assert_eq!(checksum::fold(checksum::sum(&frame[14..])), 0xFFFF);
//! # Ok::<(), sag_model::DropReason>(())
//! ```

#![warn(missing_docs)]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod checksum;
pub mod ecn;
pub mod encap;
pub mod icmp;
pub mod mss;
pub mod nat64;
pub mod parse;
pub mod partial;
pub mod proto;
pub mod responder;
pub mod rewrite;
pub mod segment;
pub mod translate;

pub use parse::{Family, Fragment, L4, Malformed, NetworkLayer, Parsed, parse};
