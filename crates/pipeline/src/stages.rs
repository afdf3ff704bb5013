//! The stages of the pipeline and their order, in one list.
//!
//! The macro `for_stages!` is that list. Everything that depends on the order is generated from it: the enum [`Stage`], the
//! names, and the code that runs the stages. A stage is added by a line in the list and the function that the line
//! names. The list has four parts, because a packet is in another hand in each of them:
//!
//! | part | runs | signature |
//! |---|---|---|
//! | `receive` | on a frame as it arrived, by the worker | `fn(&mut self, …) -> Result<(), Verdict>` |
//! | `decide` | without side effects, by [`evaluate`] | `fn(&Snapshot, &PacketContext, &mut Draft, &mut T) -> Result<(), Disposition>` |
//! | `apply` | once the session's record is written, by the worker | `fn(&mut self, …) -> Result<(), Verdict>` |
//!
//! [`evaluate`] runs for every packet that no flow record answers for. The shortcut for the others is `established`
//! in [`crate::worker`]; the XDP program does what the shortcut does.

mod acl;
mod context;
mod crossing;
mod decision;
mod drops;
mod link;
mod nat;
mod nat64;
mod npt;
mod qos;
mod route;
mod trace;

pub use context::{Known, Line, PacketContext, Translation, Translation6};
pub use crossing::{Crossing, Nat64Context, New64, Session64, Target64};
pub use decision::{Disposition, Dnat, ForwardDecision, Fragmentation};
pub use route::{Egress, egress, local_destination};
pub use trace::{NoTrace, Steps, Tracer};

use crate::snapshot::Snapshot;
use decision::Draft;
use sag_packet::Family;
use std::fmt;

/// The list of the stages, handed to the macro `$then` together with `$args`. A line is a stage, its name in
/// `explain`, and the function that runs it.
macro_rules! for_stages {
    ($then:ident ! $args:tt) => {
        $then! { $args
            receive {
                Parse "parse" parse;
                Decap "decap" decap;
            }
            decide {
                Session "session" context::session;
                Dnat "dnat" nat::dnat;
                Local "local" route::local;
                Sanity "sanity" route::sanity;
                Route "route" route::route;
                Acl "acl" acl::acl;
                Qos "qos" qos::qos;
                Snat "snat" nat::snat;
                Ttl "ttl" link::ttl;
                Mtu "mtu" link::mtu;
                Neighbor "neighbor" link::neighbor;
            }
            apply {
                Rewrite "rewrite" rewrite;
                Encap "encap" encap;
            }
        }
    };
}
pub(crate) use for_stages;

macro_rules! define_stages {
    (() $($part:ident { $($stage:ident $name:literal $($run:ident)::+;)* })*) => {
        /// A stage of the pipeline. The order of the variants is the order in which they run.
        #[allow(missing_docs)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Stage { $($($stage,)*)* }

        impl Stage {
            /// All stages, in the order in which they run.
            pub const ORDER: &'static [Stage] = &[$($(Stage::$stage,)*)*];

            /// The name in `explain`.
            pub const fn name(self) -> &'static str {
                match self { $($(Stage::$stage => $name,)*)* }
            }
        }
    };
}
for_stages!(define_stages!());

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Runs the stages of the part `decide`, one after the other, until one of them stops the packet.
macro_rules! run_decide {
    (
        ($args:tt $trace:ident)
        receive $receive:tt
        decide { $($stage:ident $name:literal $($run:ident)::+;)* }
        apply $apply:tt
    ) => {
        $(
            if let Err(disposition) = $($run)::+ $args {
                disposition.check_stage(Stage::$stage);
                $trace.stopped(Stage::$stage, &disposition);
                return Err(disposition);
            }
        )*
    };
}

/// Translation, route, ACL, meters, TTL, MTU and next hop of one packet.
///
/// # Errors
///
/// What becomes of a packet that is not forwarded, as the stage says that stops it. `trace` receives the stage.
pub fn evaluate<T: Tracer>(
    snap: &Snapshot,
    ctx: &PacketContext<'_>,
    trace: &mut T,
) -> Result<ForwardDecision, Disposition> {
    let mut draft = Draft::new(ctx);
    for_stages!(run_decide!((snap, ctx, &mut draft, trace) trace));
    Ok(draft.finish())
}

/// EtherType of a family.
pub const fn ethertype(family: Family) -> u16 {
    match family {
        Family::V4 => sag_packet::proto::ETHERTYPE_IPV4,
        Family::V6 => sag_packet::proto::ETHERTYPE_IPV6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_model::DropReason;

    #[test]
    fn the_order_is_pinned() {
        let names: Vec<_> = Stage::ORDER.iter().map(|s| s.name()).collect();
        assert_eq!(
            names,
            [
                "parse", "decap", "session", "dnat", "local", "sanity", "route", "acl", "qos", "snat", "ttl",
                "mtu", "neighbor", "rewrite", "encap"
            ]
        );
        assert!(Stage::ORDER.is_sorted());
    }

    #[test]
    fn every_drop_reason_has_a_stage() {
        for reason in DropReason::ALL {
            let stages = Stage::of(*reason);
            assert!(!stages.is_empty(), "{reason} has no stage");
            assert!(
                stages.is_sorted() && stages.iter().all(|s| Stage::ORDER.contains(s)),
                "{reason}: {stages:?}"
            );
        }
    }
}
