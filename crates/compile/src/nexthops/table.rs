//! The shared records of next hops, and the table of their numbers.

use super::{NextHopNumbers, NextHopPlan};
use sag_model::PortIdx;
use sag_model::flow::NextHopRecord;
use sag_pipeline::snapshot::{NeighborTable, NextHop};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

/// A generation has eight bits. After so many changes of one next hop under one policy epoch the epoch is raised, so that no
/// record of a session can be as old as the generation that it names comes round again.
const MAX_CHANGES: u8 = 240;

/// The shared records of next hops.
///
/// A daemon uses one half of them. The records of its predecessor lie in the other half and stay as they are until no
/// flow uses them any more, so that XDP forwards established flows by them while the new daemon starts.
#[derive(Debug)]
pub struct NextHopTable {
    records: &'static [NextHopRecord],
    /// Where workers find the numbers.
    numbers: Arc<NeighborTable>,
    own: Range<usize>,
    /// The half of an earlier daemon, until it is ended.
    predecessor: Option<Range<usize>>,
    /// How often each generation was raised under this policy epoch.
    changes: Box<[u8]>,
    worn: bool,
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
        NextHopTable { predecessor: Some(predecessor), ..NextHopTable::of(records, own) }
    }

    /// Over private memory, for a replay or a test.
    pub fn private(count: usize) -> NextHopTable {
        let count = count.min(usize::from(u16::MAX));
        let records: &'static [NextHopRecord] =
            Vec::leak((0..count).map(|_| NextHopRecord::default()).collect());
        NextHopTable::of(records, 1..count)
    }

    /// Over records of the caller, all of which are its own.
    pub fn over(records: &'static [NextHopRecord]) -> NextHopTable {
        NextHopTable::of(records, 1..records.len())
    }

    fn of(records: &'static [NextHopRecord], own: Range<usize>) -> NextHopTable {
        NextHopTable {
            records,
            numbers: Arc::new(NeighborTable::new(records.len())),
            own,
            predecessor: None,
            changes: vec![0; records.len()].into_boxed_slice(),
            worn: false,
        }
    }

    /// The numbers of this table, all of them free, for a compiler.
    pub fn numbers(&self) -> NextHopNumbers {
        NextHopNumbers::new(self.records, self.numbers.clone(), self.own.clone())
    }

    /// All records, by number.
    pub fn records(&self) -> &'static [NextHopRecord] {
        self.records
    }

    /// Where the records of this daemon begin: what its successor passes to [`NextHopTable::open`].
    pub fn first(&self) -> u32 {
        self.own.start as u32
    }

    /// Writes the records of a plan, and then what names them: the table of numbers. Each record keeps its generation, unless its
    /// number was another neighbor's; one that is right already is not written.
    pub fn apply(&mut self, plan: &NextHopPlan) {
        for key in &plan.removed {
            self.numbers.remove(key);
        }
        for p in &plan.records {
            let Some(record) = self.records.get(p.no.index()) else { continue };
            let old = NextHop::load(record);
            let mut new = match p.link {
                Some(link) => NextHop { generation: old.generation, ..link },
                None => NextHop { flags: 0, port: p.key.0, ..old },
            };
            // Records of flows whose route carries less than the next hop say that they are for workers. Where both carried the
            // same until now they do not say so yet.
            if p.reused || (old.valid() && new.valid() && new.mtu > old.mtu) {
                new.generation = self.raised(p.no.index(), old.generation);
            }
            if new != old {
                new.store(record);
            }
            if self.numbers.get(&p.key).is_none() {
                self.numbers.insert(p.key, p.no);
            }
        }
    }

    /// Snapshots of this version of the routes have been sent. To be called before the generations are raised for them: a
    /// worker that sees a raised generation must see that its own routes are not those.
    pub fn begin_routes(&mut self, version: u32) {
        self.numbers.set_routes(version);
    }

    /// Raises the generation of the next hops that `concerns` selects, so that flows over them look their route up again.
    /// Returns their number.
    pub fn raise_generations(&mut self, mut concerns: impl FnMut(PortIdx, IpAddr) -> bool) -> usize {
        let numbers = self.numbers.clone();
        let mut n = 0;
        for ((port, ip), no) in numbers.iter() {
            if concerns(port, ip)
                && let Some(record) = self.records.get(no.index())
            {
                let old = NextHop::load(record);
                let generation = self.raised(no.index(), old.generation);
                NextHop { generation, ..old }.store(record);
                n += 1;
            }
        }
        n
    }

    fn raised(&mut self, no: usize, generation: u8) -> u8 {
        if let Some(changes) = self.changes.get_mut(no) {
            *changes = changes.saturating_add(1);
            self.worn |= *changes >= MAX_CHANGES;
        }
        generation.wrapping_add(1)
    }

    /// Whether a generation has been raised so often that the policy epoch has to be raised before it comes round.
    pub fn is_worn(&self) -> bool {
        self.worn
    }

    /// Another policy epoch has begun: records of sessions that name an older generation do not count any more.
    pub fn epoch_began(&mut self) {
        if std::mem::take(&mut self.worn) {
            self.changes.fill(0);
        }
    }

    /// The version that the next routes get whose predecessors' generations are raised.
    pub fn next_version(&self) -> u32 {
        self.numbers.routes().wrapping_add(1)
    }

    /// Next hops that have a number.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether no next hop has a number.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
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
