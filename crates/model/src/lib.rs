//! The words of the product: identifiers, drop reasons, the layout of a flow record, the device
//! configuration (raw and validated) and the messages of the control socket.
//!
//! Everything else depends on this crate; it depends on no other crate of the workspace, knows no
//! socket, no map and no clock.

#![forbid(unsafe_code)]

pub mod config;
pub mod control;
pub mod drop;
pub mod dscp;
pub mod flow;
pub mod ids;
pub mod meter;
pub mod time;
pub mod tunnel;
mod words;

pub use drop::DropReason;
pub use dscp::Dscp;
pub use ids::{MacAddr, PortIdx, Role, VlanId, Zone};
pub use time::Nanos;
