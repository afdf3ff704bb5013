//! What the engine works on, and what it counts.

use crate::levels::Meters;
use sag_model::time::Tick;
use sag_pipeline::Tables;
use sag_pipeline::snapshot::Snapshot;

/// What has been counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Messages about sessions that were sent.
    pub sent: u64,
    /// The same that have come.
    pub received: u64,
    /// Sessions of the peer that were made here.
    pub installed: u64,
    /// Sessions of the peer whose packets came here.
    pub claimed: u64,
    /// Sessions of here whose packets went to the peer.
    pub yielded: u64,
    /// Sessions of the peer that have ended there.
    pub removed: u64,
    /// Sessions that were this gateway's from the moment that the link was lost.
    pub released: u64,
    /// Sessions of the peer for which there was no room.
    pub full: u64,
    /// Sessions of the peer that another session here was in the way of.
    pub conflicts: u64,
    /// Sessions of a VRF that this gateway does not have.
    pub unknown_vrf: u64,
}

/// What the engine works on. While it has it, no grace period of the tables may end.
#[derive(Debug, Clone, Copy)]
pub struct Context<'c> {
    /// The tables.
    pub tables: &'c Tables,
    /// What the workers forward by.
    pub snap: &'c Snapshot,
    /// The time.
    pub now: Tick,
    /// What limits rates.
    pub meters: Meters<'c>,
}
