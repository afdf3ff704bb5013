//! Classification by five-tuple, DSCP, TCP flags and ICMP message: which rule of an ordered list answers a packet.
//!
//! The pipeline's ACL and QoS stages compile their rules into a [`Classifier`] at every
//! configuration commit and look up each new flow in it once. The crate knows rules and keys only: no
//! verdicts, no packets, no clock. [`linear`] is the definition of a match; the classifier must
//! agree with it on every key. [`analysis`] explains a rule set to its author, [`generate`] makes
//! rule sets and traces for tests and measurements.
//!
//! ```
//! use sag_acl::{Classifier4, Key, PortRange, Prefix, Rule, Rule4};
//!
//! let lan = Prefix::new(u32::from_be_bytes([192, 168, 1, 0]), 24)?;
//! let rules: [Rule4; 2] = [
//!     // TCP from 192.168.1.0/24 to port 443; UDP from anywhere to anywhere.
//!     Rule { proto: Some(6), src: lan, dport: PortRange::single(443), ..Rule::ANY },
//!     Rule { proto: Some(17), ..Rule::ANY },
//! ];
//! let classifier = Classifier4::build(&rules);
//!
//! let host = u32::from_be_bytes([192, 168, 1, 10]);
//! let server = u32::from_be_bytes([203, 0, 113, 5]);
//! assert_eq!(classifier.classify(&Key::new(6, host, server, 50_000, 443)), Some(0));
//! assert_eq!(classifier.classify(&Key::new(17, server, host, 53, 50_000)), Some(1));
//! assert_eq!(classifier.classify(&Key::new(6, host, server, 50_000, 80)), None);
//! # Ok::<(), sag_acl::RuleError>(())
//! ```
//!
//! IPv4 and IPv6 are two families of the same types ([`Rule4`]/[`Key4`], [`Rule6`]/[`Key6`]); a
//! rule of one never sees a packet of the other, `/0` included.

#![warn(missing_docs)]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod addr;
pub mod analysis;
mod block;
mod build;
mod classifier;
mod family;
mod forest;
pub mod generate;
mod lanes;
mod rule;

pub use addr::Addr;
pub use classifier::Classifier;
pub use family::AddrFamily;
pub use forest::{LookupCost, Shape};
pub use rule::{
    HeaderMatch, IcmpMatch, Key, NO_MATCH, PortRange, Prefix, Rule, RuleError, TcpFlags, linear,
    proto_has_ports, proto_is_icmp,
};

/// A rule over IPv4 addresses.
pub type Rule4 = Rule<u32>;
/// A rule over IPv6 addresses.
pub type Rule6 = Rule<u128>;
/// An IPv4 five-tuple.
pub type Key4 = Key<u32>;
/// An IPv6 five-tuple.
pub type Key6 = Key<u128>;
/// A classifier of IPv4 packets.
pub type Classifier4 = Classifier<u32>;
/// A classifier of IPv6 packets.
pub type Classifier6 = Classifier<u128>;
