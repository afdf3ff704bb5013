//! What tests, benchmarks and fuzz targets need to drive a pipeline: packets from a description
//! ([`Pkt`]), a gateway to send them through ([`Net`]), and a runner that checks the packet accounting after
//! every step ([`Rig`]). A [`Net`] is compiled by `sag-compile`, as a configuration is. Input is trusted, so the kit
//! panics freely.
//!
//! For integration tests only: a unit test of `sag-pipeline` has its own copy of the crate, whose types are others.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod acl;
mod net;
mod pkt;
mod random;
mod rig;
mod story;
mod tunnel;

pub use acl::{Acl, RuleLimits};
pub use net::{Net, host_mac, prefix};
pub use pkt::{GATEWAY_MACS, Pkt, checksum, end, ends4, l3};
pub use random::Rng;
pub use rig::{Buffers, Outcome, Rig, Sent};
pub use story::{StoryCounts, run_story};
pub use tunnel::{TUNNEL_ENDS, TUNNEL_MACS, frame_from_peer, test_tunnel, tunnel_no, vxlan};

use sag_model::PortIdx;

/// The ports of [`Net::branch`]: a LAN and a VLAN on one device, a WAN and a leased line.
pub const LAN: PortIdx = PortIdx(0);
/// The WAN port.
pub const WAN: PortIdx = PortIdx(1);
/// The leased line.
pub const LINE: PortIdx = PortIdx(2);
/// The LAN that is a VLAN on the device of [`LAN`].
pub const LAN2: PortIdx = PortIdx(3);
/// The VLAN of [`LAN2`].
pub const LAN2_VLAN: u16 = 100;

/// Devices of those ports.
pub const DEV_LAN: u8 = 0;
/// See [`DEV_LAN`].
pub const DEV_WAN: u8 = 1;
/// See [`DEV_LAN`].
pub const DEV_LINE: u8 = 2;
