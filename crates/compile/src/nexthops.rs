//! Next hops: a number for each (port, address) that packets are handed to, which stays the same for the daemon's life, and
//! the shared record behind it.
//!
//! [`NextHopNumbers`] gives the numbers and belongs to the compiler. [`NextHopTable`] writes the records.

use sag_model::flow::{NH_VALID, NextHopRecord};
use sag_model::{MacAddr, PortIdx};
use sag_pipeline::snapshot::{NeighborMap, NextHop, NhIdx, Port};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use crate::ports::NO_DEVICE;

/// Ethernet addresses of the neighbors that can be reached, by port and IP address.
pub type NeighborLinks = BTreeMap<(PortIdx, IpAddr), MacAddr>;

/// Gives numbers to next hops. Number 0 is not used.
#[derive(Debug, Clone)]
pub struct NextHopNumbers {
    records: &'static [NextHopRecord],
    by_key: NeighborMap,
    free: Range<usize>,
}

impl NextHopNumbers {
    /// The number of every known next hop.
    pub fn map(&self) -> &NeighborMap {
        &self.by_key
    }

    /// The records that the numbers are indices of.
    pub(crate) fn records(&self) -> &'static [NextHopRecord] {
        self.records
    }

    /// The number of a next hop, a new one if it has none. `None`: all numbers are taken.
    pub fn number(&mut self, port: PortIdx, ip: IpAddr) -> Option<NhIdx> {
        if let Some(&n) = self.by_key.get(&(port, ip)) {
            return Some(n);
        }
        let n = NhIdx(u16::try_from(self.free.next()?).ok()?);
        self.by_key.insert((port, ip), n);
        Some(n)
    }

    /// The records of all numbered next hops, for these ports (by number) and neighbors. Neighbors without a number get
    /// one. `false`: some did not, for lack of numbers.
    pub fn plan(&mut self, ports: &[Port], neighbors: &NeighborLinks) -> (NextHopPlan, bool) {
        let mut complete = true;
        for &(port, ip) in neighbors.keys() {
            complete &= self.number(port, ip).is_some();
        }
        let planned = |(&(port, ip), &idx): (&(PortIdx, IpAddr), &NhIdx)| {
            let out = ports.get(port.index()).filter(|p| p.dev != NO_DEVICE);
            let link = out.zip(neighbors.get(&(port, ip))).map(|(p, dmac)| NextHop {
                dmac: *dmac,
                smac: p.mac,
                vlan: p.vlan,
                mtu: p.mtu,
                ifindex: p.ifindex,
                dev: p.dev,
                port,
                generation: 0,
                flags: if p.up { NH_VALID } else { 0 },
            });
            Planned { idx, port, link }
        };
        (NextHopPlan { records: self.by_key.iter().map(planned).collect() }, complete)
    }
}

/// What the records of next hops are to contain, apart from their generations.
#[derive(Debug, Clone, Default)]
pub struct NextHopPlan {
    records: Vec<Planned>,
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    idx: NhIdx,
    port: PortIdx,
    /// `None`: the neighbor is not resolved, or its port is not the gateway's. The record keeps its addresses and is not valid.
    link: Option<NextHop>,
}

/// The shared records of next hops.
///
/// A daemon uses one half of them. The records of its predecessor lie in the other half and stay as they are until no
/// flow uses them any more, so that XDP forwards established flows by them while the new daemon starts.
#[derive(Debug)]
pub struct NextHopTable {
    records: &'static [NextHopRecord],
    own: Range<usize>,
    /// The half of an earlier daemon, until it is ended.
    predecessor: Option<Range<usize>>,
}

impl NextHopTable {
    /// Over shared records of which those of an earlier daemon begin at `predecessor_first` (0: there was none).
    ///
    /// Records in the own half are left over from a daemon before the predecessor that ended early. They are made invalid,
    /// and their generation is raised: flows that still name them look their route up again.
    pub fn open(records: &'static [NextHopRecord], predecessor_first: u32) -> NextHopTable {
        let half = records.len() / 2;
        let (own, predecessor) = match predecessor_first {
            1 => (half..records.len(), 1..half),
            _ => (1..half, half..records.len()),
        };
        end_all(records.get(own.clone()));
        NextHopTable { records, own, predecessor: Some(predecessor) }
    }

    /// Over private memory, for a replay or a test.
    pub fn private(count: usize) -> NextHopTable {
        let count = count.min(usize::from(u16::MAX));
        let records: &'static [NextHopRecord] =
            Vec::leak((0..count).map(|_| NextHopRecord::default()).collect());
        NextHopTable { records, own: 1..count, predecessor: None }
    }

    /// Over records of the caller, all of which are its own.
    pub fn over(records: &'static [NextHopRecord]) -> NextHopTable {
        NextHopTable { records, own: 1..records.len(), predecessor: None }
    }

    /// The numbers of this table, all of them free, for a compiler.
    pub fn numbers(&self) -> NextHopNumbers {
        NextHopNumbers { records: self.records, by_key: NeighborMap::default(), free: self.own.clone() }
    }

    /// All records, by number.
    pub fn records(&self) -> &'static [NextHopRecord] {
        self.records
    }

    /// Where the records of this daemon begin: what its successor passes to [`NextHopTable::open`].
    pub fn first(&self) -> u32 {
        self.own.start as u32
    }

    /// Writes the records of a plan. Each keeps its generation; one that is right already is not written.
    pub fn apply(&self, plan: &NextHopPlan) {
        for p in &plan.records {
            let Some(record) = self.records.get(p.idx.index()) else { continue };
            let old = NextHop::load(record);
            let new = match p.link {
                Some(link) => NextHop { generation: old.generation, ..link },
                None => NextHop { flags: 0, port: p.port, ..old },
            };
            if new != old {
                new.store(record);
            }
        }
    }

    /// Raises the generation of the next hops that `concerns` selects, so that flows over them look their route up again.
    /// Returns their number.
    pub fn raise_generations(
        &self,
        known: &NeighborMap,
        mut concerns: impl FnMut(PortIdx, IpAddr) -> bool,
    ) -> usize {
        let mut n = 0;
        for (&(port, ip), &idx) in known {
            if concerns(port, ip)
                && let Some(record) = self.records.get(idx.index())
            {
                let old = NextHop::load(record);
                NextHop { generation: old.generation.wrapping_add(1), ..old }.store(record);
                n += 1;
            }
        }
        n
    }

    /// Ends the records of an earlier daemon. To be called when no flow of its epoch is left; later calls do nothing.
    pub fn end_predecessor(&mut self) {
        end_all(self.predecessor.take().and_then(|range| self.records.get(range)));
    }
}

/// Makes records invalid and raises their generation: flows that still name them go to a worker.
fn end_all(records: Option<&[NextHopRecord]>) {
    for r in records.into_iter().flatten() {
        let old = NextHop::load(r);
        if old.ifindex != 0 || old.generation != 0 {
            NextHop { generation: old.generation.wrapping_add(1), flags: 0, ..old }.store(r);
        }
    }
}
