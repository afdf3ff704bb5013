//! New identifications of IPv4 datagrams that get another source (RFC 6864 section 5.3.1).

use super::{BatchEntry, Pipeline};
use crate::snapshot::Snapshot;
use crate::tables::SharedTable;
use sag_model::flow::{FLOW_DNAT, FLOW_SNAT};
use sag_packet::parse::{Family, Fragment};
use sag_packet::rewrite::{self, FrameMut};
use std::net::IpAddr;

impl Pipeline {
    /// The identification that a datagram whose first fragment is there gets if its source is translated. All its fragments
    /// get it, at whichever worker they arrive.
    pub(super) fn identification(&self, snap: &Snapshot, s: &BatchEntry, frame: &[u8]) -> u16 {
        let ids = &self.tables.nat.identifications;
        match (s.p.dst(frame), snap.nat.called(s.p.dst(frame))) {
            (IpAddr::V4(to), _) => ids.next((!snap.nat.owns(to)).then_some(to)),
            (IpAddr::V6(_), IpAddr::V4(to)) => ids.next(Some(to)),
            (IpAddr::V6(_), IpAddr::V6(_)) => 0,
        }
    }

    /// Gives a packet another identification, if it is translated by a record with these flags so that it needs one. An
    /// atomic datagram keeps its own, which means nothing (RFC 6864 section 4.1). Before its addresses change.
    #[inline]
    pub(super) fn renumber<R: SharedTable>(&self, s: &BatchEntry, flags: u8, f: &mut FrameMut<'_>) {
        let whole = s.p.fragment == Fragment::Whole;
        if R::FAMILY != Family::V4 || flags & FLOW_SNAT == 0 || s.p.dont_fragment && whole {
            return;
        }
        let id = if whole {
            self.tables.nat.identifications.next((flags & FLOW_DNAT == 0).then(|| s.p.dst4()))
        } else {
            s.new_id
        };
        rewrite::set_identification(f.bytes_mut(), &s.p, id);
    }
}
