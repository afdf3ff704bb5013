//! Frames as byte slices: parsing with a named reason for every malformation, checksums, header
//! rewriting and the ICMP messages that a router originates.
//!
//! Parsing is one pass over one bounded header area and copies what the pipeline needs into
//! [`Parsed`], so no later stage walks the headers again.

#![forbid(unsafe_code)]

pub mod checksum;
pub mod ecn;
pub mod encap;
pub mod icmp;
pub mod mss;
pub mod parse;
pub mod proto;
pub mod responder;
pub mod rewrite;
pub mod translate;

pub use parse::{Family, Fragment, L4, Malformed, NetworkLayer, Parsed, parse};
