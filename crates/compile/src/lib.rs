//! From a configuration and the kernel's tables to a [`Plan`]: everything that workers and XDP forward by.
//!
//! Compiling is pure: no socket, no clock, and no word of the memory that workers and XDP share is written.
//! What has to be written there is part of the plan ([`RecordPlan`]). The daemon publishes a plan step by step
//! (`docs/publish-order.md`); where no XDP program reads the memory, as in the replayer and in tests,
//! [`SharedRecords::apply`] does all of it.
//!
//! ```
//! use sag_compile::{ClockReading, Compiler, SharedRecords};
//! use sag_model::Nanos;
//! use sag_model::config::{self, Timestamp};
//! use std::sync::Arc;
//!
//! let text = r#"
//! [[port]]
//! name = "lan"
//! device = "eth0"
//! role = "lan"
//! addresses = ["192.0.2.1/24"]
//! "#;
//! let config = config::parse(text, "vcpe.toml").expect("a valid document").config;
//! let kernel = sag_rtnl::Tables::default();
//! let mut records = SharedRecords::private(1_000);
//! let mut compiler = Compiler::new(&records, Arc::default());
//! let clock = ClockReading { monotonic: Nanos::from_secs(1), wall: Timestamp(1_800_000_000) };
//!
//! let plan = compiler.compile(&config, &kernel, 1, clock);
//! assert_eq!(plan.snapshot.ports[0].name, "lan");
//! records.apply(&plan.records, clock.monotonic);
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod acl;
mod assemble;
mod clock;
mod compiler;
mod kernel_vrfs;
mod nat;
mod nexthops;
mod plan;
mod ports;
mod problem;
mod qos;
mod records;
mod route_update;
mod routes;
mod routing_tables;
mod syn_cookies;
mod tunnels;
mod undecided;
mod vrfs;

pub use acl::{AclCompiler, FamilyRules, accepts, class_of, compile_rule, compile_tuple};
pub use assemble::{GatewaySpec, Numbers, assemble};
pub use clock::ClockReading;
pub use compiler::Compiler;
pub use kernel_vrfs::kernel_tables;
pub use nat::{NatCompiler, dnat_to_self};
pub use nexthops::{NeighborLinks, NextHopNumbers, NextHopPlan, NextHopTable, REST};
pub use plan::{Plan, RecordPlan};
pub use ports::{DeviceSlots, NO_DEVICE, PortBinding, port_addresses};
pub use problem::Problem;
pub use qos::{QosCompiler, limit_text};
pub use records::SharedRecords;
pub use route_update::{Rerouted, RouteChange, RouteUpdate};
pub use routes::{RouteRow, RouteSource};
pub use routing_tables::{RoutingTables, Way};
pub use tunnels::{EspPlan, TunnelCompiler, same_but_keys};
pub use vrfs::VrfNumbers;

#[cfg(test)]
mod tests;
