//! What all programs of the gateway speak of: identifiers, drop reasons, the layout of a flow record, the device
//! configuration and the messages of the control socket.
//!
//! Everything else depends on this crate; it depends on no other crate of the workspace, and knows no socket, no map
//! and no clock. Every key of the configuration is declared once, in `config/keys`.
//!
//! ```
//! use sag_model::config;
//!
//! let text = r#"
//! [[port]]
//! name = "0"
//! device = "eth1"
//! role = "lan"
//! "#;
//! let checked = config::parse(text, "vcpe.toml").expect("a valid document");
//! assert_eq!(checked.config.ports[0].device, "eth1");
//! // Everything that the document leaves out has its default.
//! assert_eq!(checked.config.dataplane.acl_stateful, true);
//!
//! // A mistake is reported with its place and what to do about it.
//! let errors = config::parse(&text.replace("lan", "lam"), "vcpe.toml").expect_err("a mistake");
//! assert_eq!(
//!     errors.to_string(),
//!     r#"vcpe.toml:5:8: port[0].role: "lam": is not a known word; write "lan", "wan", "express" or "mgmt" [Sag.PortRoleInvalid]"#
//! );
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

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
pub use ids::{MacAddr, PortIdx, Role, VlanId, VrfNo, VrfZone, Zone};
pub use time::Nanos;
