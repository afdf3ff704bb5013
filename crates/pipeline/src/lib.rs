//! The packet pipeline as a pure library: bytes and a clock in, verdicts and bytes out. No socket,
//! no thread, no map and no time source of its own; shells (AF_XDP workers, the pcap replayer,
//! tests, benchmarks) put it to work.

#![forbid(unsafe_code)]

pub mod counters;
pub mod family;
pub mod fib;
pub mod flow_ports;
pub mod fragments;
pub mod hash;

pub mod ids;
pub mod nat;

pub mod originate;
pub mod pending;
pub mod policy;
pub mod qos;
pub mod session;
pub mod snapshot;
pub mod stages;
pub mod table;
pub mod tables;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod tunnel;
pub mod worker;

pub use worker::{Emit, Frames, Pipeline, Tables, Verdict};
