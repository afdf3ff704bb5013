//! Sessions of a gateway follow to its peer, so that the peer goes on with them when it gets their packets.
//!
//! Two gateways of one configuration have a link ([`Link`], encrypted with a key that both have). Each tells the
//! other what its table holds: message for message "place n holds this session" or "place n is empty" ([`wire`]).
//! Messages are not ordered and say nothing of what was before, so one that is overtaken by a later change is never
//! sent. What becomes of them is in [`Engine`], which is the same at both ends: nobody is master. The daemon has the
//! socket, the thread and the clock.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod context;
mod engine;
mod levels;
mod link;
mod names;
mod places;
pub mod wire;

pub use context::{Context, Totals};
pub use engine::{Engine, Refused};
pub use levels::Meters;
pub use link::{KEY_BYTES, Link, LinkError, MAX_FRAME};
pub use names::Names;

use sag_pipeline::Tables;
use sag_pipeline::family::FlowFamily;
use sag_pipeline::session::{replica, state_of};
use sag_pipeline::table::FlowTable;

/// Sessions here that the peer has.
pub fn replicas(tables: &Tables) -> u64 {
    fn of<R: FlowFamily>(table: &FlowTable<R>) -> u64 {
        let is = |n: &u32| state_of(table, *n).is_some() && replica::is_replica(table, *n);
        (1..table.used()).filter(is).count() as u64
    }
    of(&tables.v4) + of(&tables.v6)
}
