//! A mirror of the kernel's forwarding tables: links, addresses, routes, nexthop objects, neighbours.
//!
//! The gateway takes its routes and neighbours from the kernel, so that routing daemons and `ip`
//! work as on any Linux box. This crate reads them by rtnetlink into [`Tables`], follows every change,
//! and asks the kernel to resolve neighbours. It has no thread and no clock but the one for
//! repetitions: the control thread polls the [`Mirror`] and hands what it needs to the workers.

#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod apply;
mod decode;
mod editor;
mod error;
mod managed;
mod mirror;
mod request;
mod route;
mod socket;
mod tables;
mod types;
mod wire;

pub use apply::Changes;
pub use editor::Editor;
pub use error::{Error, Result};
pub use mirror::Mirror;
pub use route::{Nexthop, NexthopObject, NexthopTarget, Route, RouteKind, RouteProtocol, Table};
pub use tables::Tables;
pub use types::{Address, Link, Neighbor, NeighborState, Scope};
