//! The control agent: pulls the configuration of one device from the cloud API, compiles it into the
//! typed device configuration, hands it to `sag-vcpe` in one transaction, and reports.
//!
//! `docs/agent.md` describes its behaviour, `docs/protocol.md` what it says to the cloud. Nothing that comes from the
//! cloud is ever executed: it is parsed into typed values, and what is no address, number or known word is refused by
//! name.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

pub mod agent;
pub mod apply;
pub mod backoff;
pub mod capability;
pub mod client;
pub mod clock;
pub mod commands;
pub mod compile;
pub mod config;
pub mod crash;
pub mod desired;
pub mod dhcp;
pub mod diagnosis;
pub mod dns;
pub mod events;
pub mod files;
pub mod health;
pub mod icmp;
pub mod identity;
pub mod ipv6;
pub mod lan_services;
pub mod lines;
pub mod link_backup;
pub mod measure;
pub mod overlay;
pub mod peers;
pub mod ping;
pub mod poll;
pub mod preview;
pub mod probes;
pub mod pull;
pub mod report;
pub mod reporter;
pub mod routing;
pub mod routing_keeper;
pub mod session_link;
pub mod sign;
pub mod status;
pub mod system;
pub mod trust;
pub mod vcpe;

/// What the agent reports as the software version of the device.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
