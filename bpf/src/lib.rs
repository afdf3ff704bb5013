//! The XDP half of the gateway and its loader: loads or takes over the program, pins it with its
//! maps, attaches it to devices, and hands out typed views of what both halves share.
//!
//! The layouts have one definition, `include/gw_abi.h`; the module `layout` ties it to `sag_model::flow`.
//! docs/abi.md explains the protocol. Calls are safe; the unsafe ones are in `sys` and `mapped`.
//!
//! ```no_run
//! use sag_bpf::{AttachMode, Gateway, OpenOptions, PortEntry};
//! use sag_model::{MacAddr, PortIdx, Zone};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gateway = Gateway::open(&OpenOptions {
//!     pin_dir: "/sys/fs/bpf/sag".into(),
//!     lock_file: "/run/sag/lock".into(),
//!     sessions4: 100_000,
//!     sessions6: 20_000,
//! })?;
//! // Interface 3 is a LAN port in device slot 0. All its packets are a worker's until there are records of flows.
//! let (ifindex, mac) = (3, MacAddr([0x02, 0, 0, 0, 0, 1]));
//! let port = PortEntry { port: PortIdx(0), side: Zone::Lan.into(), dev: 0, mac, on: true, vlans: false, skb: false };
//! gateway.set_port(ifindex, &port)?;
//! gateway.set_dev(0, ifindex)?;
//! gateway.attach(ifindex, "eth1", AttachMode::Auto)?;
//! println!("{} frames received", gateway.stats(PortIdx(0))?.rx_packets);
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]
// Map memory and system calls; each block says why it is sound.
#![allow(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod abi;
mod attach;
mod error;
mod gateway;
mod held;
mod inject;
mod layout;
mod load;
mod local;
mod lock;
mod lost;
mod mapped;
mod maps;
mod mode;
mod pins;
mod preflight;
mod repair;
mod send;
mod skel;
#[cfg(test)]
mod stack;
mod stats;
mod syn;
mod sys;
mod tc;
mod tc_programs;
mod testrun;
mod traffic;
mod tunnels;

pub use abi::{
    ABI_VERSION, MAX_DEVS, MAX_NEXTHOPS, NAT_SLOT_WORDS, NAT_SLOTS, PuntMeta, PuntReason, QUEUES_PER_DEV,
};
pub use attach::{AttachMode, Attached};
pub use error::{LoadError, MapError};
pub use gateway::{Gateway, PortEntry, ProgramInfo};
pub use inject::Injector;
pub use load::OpenOptions;
pub use local::LocalAddr;
pub use lost::{Lost, LostFrames};
pub use mode::Mode;
pub use pins::unload;
pub use preflight::{Missing, kernel_before, preflight};
pub use repair::{Attachment, PinsMissing};
pub use send::FrameSender;
pub use stats::PortStats;
pub use syn::SynCounts;
pub use tc::{TcPair, TcRun};
pub use testrun::{TestFrame, TestRun};
pub use traffic::{LiveFrames, attach_tcx, attach_xdp, park_xdp};
pub use tunnels::TunnelStats;
