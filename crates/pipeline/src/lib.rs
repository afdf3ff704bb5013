//! The packet pipeline as a pure library: frames and a time in, verdicts and frames out.
//!
//! [`Pipeline::batch`] takes the frames of one device and says what becomes of each. It knows no socket, no thread, no
//! map and no clock of its own; shells (AF_XDP workers, the pcap replayer, tests, benchmarks) put it to work. What it
//! forwards by is a [`snapshot::Snapshot`], built by a compiler of configurations and never changed; what it remembers is
//! in [`tables::Tables`], shared by all workers and, in the daemon, with the XDP program.
//!
//! The order of the stages is one list in [`stages`]. Modules depend on each other in one direction only.
//!
//! The test kit (`sag-testkit`) has a gateway in a few lines:
//!
//! ```
//! use sag_testkit::{Outcome, Pkt, Rig, WAN};
//!
//! // A branch with a LAN, a WAN port and a leased line.
//! let mut gateway = Rig::branch();
//! let packet = Pkt::udp("192.168.1.10", "198.51.100.7", 1000, 53);
//! match gateway.send(&packet) {
//!     Outcome::Tx(port, frame) => assert_eq!((port, frame), (WAN, packet.forwarded(WAN, "203.0.113.1"))),
//!     other => panic!("{other:?}"),
//! }
//! assert_eq!(gateway.sessions(), (1, 0));
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod counters;
pub mod family;
pub mod flow_ports;
pub mod fragments;
pub mod hash;

pub mod ids;
pub mod nat;
pub mod neighbors;
pub mod networks;

pub mod originate;
pub mod pending;
pub mod policy;
pub mod qos;
pub mod ref_count;
pub mod resolution;
pub mod session;
pub mod snapshot;
pub mod stages;
pub mod syn_cookie;
pub mod table;
pub mod tables;
pub mod tunnel;
pub mod worker;

pub use worker::{Emit, Frames, Pipeline, Tables, Verdict};
