//! What all workers share: the flow tables of both families, NAT bindings, first fragments.

use crate::family::FlowFamily;
use crate::fragments::FirstFragmentCache;
use crate::nat::NatState;
use crate::table::FlowTable;
use sag_model::flow::{FlowRecord4, FlowRecord6};
use std::sync::Arc;

/// The flow tables of both families, and what else the workers share.
#[derive(Debug)]
pub struct Tables {
    /// Sessions of IPv4.
    pub v4: FlowTable<FlowRecord4>,
    /// Sessions of IPv6.
    pub v6: FlowTable<FlowRecord6>,
    /// What NAT has allocated.
    pub nat: Arc<NatState>,
    /// First fragments that workers have seen.
    pub first_fragments: FirstFragmentCache,
}

impl Tables {
    /// Bytes of everything that is kept for sessions.
    pub fn memory(&self) -> usize {
        self.v4.memory() + self.v6.memory() + self.nat.memory()
    }
}

/// A family whose flow table is one of [`Tables`].
pub trait SharedTable: FlowFamily {
    /// The flow table of the family.
    fn table(t: &Tables) -> &FlowTable<Self>
    where
        Self: Sized;
}

impl SharedTable for FlowRecord4 {
    #[inline]
    fn table(t: &Tables) -> &FlowTable<Self> {
        &t.v4
    }
}

impl SharedTable for FlowRecord6 {
    #[inline]
    fn table(t: &Tables) -> &FlowTable<Self> {
        &t.v6
    }
}
