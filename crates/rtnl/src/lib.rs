//! A mirror of the kernel's forwarding tables: links, addresses, routes, nexthop objects, neighbours.
//!
//! The gateway takes its routes and neighbours from the kernel, so that routing daemons and `ip`
//! work as on any Linux machine. This crate reads them by rtnetlink into [`Tables`], follows every change,
//! and has the kernel resolve neighbours. It has no thread, and no clock but the one that spaces repeated
//! requests: the control thread polls the [`Mirror`] and passes what it needs to the workers. [`Editor`] sets
//! addresses and default routes.
//!
//! ```
//! use sag_rtnl::{Address, Scope, Tables};
//!
//! // A mirror without a kernel: shells that replay packets fill the tables themselves.
//! let mut tables = Tables::default();
//! tables.insert_address(Address {
//!     ifindex: 2,
//!     addr: "192.0.2.1".parse().unwrap(),
//!     prefix_len: 24,
//!     scope: Scope::Global,
//!     secondary: false,
//!     peer: None,
//!     tentative: false,
//!     duplicate: false,
//!     deprecated: false,
//! });
//! let address = tables.addresses_of(2).next().unwrap();
//! assert!(address.usable());
//! assert_eq!(address.subnet().unwrap().to_string(), "192.0.2.0/24");
//! ```
//!
//! ```no_run
//! // With a kernel: read everything, then follow the changes.
//! let mut mirror = sag_rtnl::Mirror::open()?;
//! let changes = mirror.poll()?;
//! if changes.routes {
//!     println!("{} routes, changed: {:?}", mirror.tables().route_count(), changes.prefixes);
//! }
//! # Ok::<(), sag_rtnl::Error>(())
//! ```

#![warn(missing_docs)]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod apply;
mod config_routes;
mod decode;
mod devices;
mod editor;
mod error;
mod leased;
mod managed;
mod mirror;
mod reading;
mod redirects;
mod request;
mod route;
mod route_table;
mod socket;
mod sockets;
mod source_routes;
mod tables;
mod types;
mod wire;

pub use apply::Changes;
pub use config_routes::{ConfigHop, ConfigRoute, ConfigRoutes, RejectRoute};
pub use devices::{Device, DeviceChange, DeviceEditor};
pub use editor::Editor;
pub use error::{Error, Result};
pub use leased::{LeasedAddress, LeasedEditor, LeasedRoute, Lifetimes, PROTOCOL_AGENT};
pub use mirror::Mirror;
pub use redirects::{LinkHeader, Redirects};
pub use route::{
    Nexthop, NexthopObject, NexthopTarget, PROTOCOL_CONFIG, Route, RouteAttributes, RouteKind, RouteProtocol,
    RouteRef, RouterPreference, Table,
};
pub use sockets::{OwnSocket, SocketReader};
pub use source_routes::{SourceRoute, SourceRoutes};
pub use tables::Tables;
pub use types::{Address, Link, Neighbor, NeighborState, Scope};
