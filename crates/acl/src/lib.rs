//! Five-tuple classification: which rule of an ordered list answers a packet.
//!
//! The pipeline's ACL and QoS stages compile their rules into a [`Classifier`] at every
//! configuration commit and ask it once per new flow. The crate knows rules and keys only: no
//! verdicts, no packets, no clock. [`linear`] is the definition of a match; the classifier must
//! agree with it on every key. [`analysis`] explains a rule set to its author, [`generate`] makes
//! rule sets and traces for tests and measurements.
//!
//! IPv4 and IPv6 are two families of the same types ([`Rule4`]/[`Key4`], [`Rule6`]/[`Key6`]); a
//! rule of one never sees a packet of the other, `/0` included.

#![forbid(unsafe_code)]

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
pub use forest::{Effort, Shape};
pub use rule::{Key, NO_MATCH, PortRange, Prefix, Rule, RuleError, linear, proto_has_ports};

pub type Rule4 = Rule<u32>;
pub type Rule6 = Rule<u128>;
pub type Key4 = Key<u32>;
pub type Key6 = Key<u128>;
pub type Classifier4 = Classifier<u32>;
pub type Classifier6 = Classifier<u128>;
