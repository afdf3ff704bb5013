//! The session tables in the daemon's life: taken over at the start, resized, and their removed sessions given free.

use super::environment;
use super::grace_periods::GracePeriods;
use super::workers::Workers;
use sag_bpf::Gateway;
use sag_model::config::Dataplane;
use sag_model::flow::{ControlBlock, FlowRecord, FlowRecord4, FlowRecord6, Geometry, Key4, l4_word};
use sag_model::{Nanos, VrfNo, Zone};
use sag_packet::parse::Family;
use sag_pipeline::family::{FlowFamily, key_of_v4};
use sag_pipeline::nat::{Endpoint, Events, Identifications, NatState};
use sag_pipeline::session::{self, Ending};
use sag_pipeline::snapshot::Snapshot;
use sag_pipeline::table::{DeferredFree, FlowTable, Grace, Resizer, TableMemory};
use sag_pipeline::{Pipeline, Tables};
use sag_xsk::sys;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The tables that all workers share.
pub struct FlowTables {
    pub tables: Arc<Tables>,
    /// Answers `explain`; never sees traffic.
    pub explainer: Pipeline,
    grace: Arc<Grace>,
    /// Whoever has it may read and change the tables as workers do: no grace period ends meanwhile, and no index changes.
    writer: Arc<Mutex<()>>,
    grace_periods: GracePeriods,
    /// Of the IPv4 and the IPv6 table's index.
    resizers: (Resizer, Resizer),
    /// Sessions that were flushed and may not be reused yet.
    flushed4: DeferredFree,
    flushed6: DeferredFree,
}

impl FlowTables {
    /// The tables over the shared memory; sessions of an earlier daemon go on, if they are of the default VRF or of these.
    pub fn open(gateway: &Gateway, d: &Dataplane, vrfs: &BTreeSet<VrfNo>) -> FlowTables {
        let grace = Arc::new(Grace::default());
        let tables = Arc::new(open_tables(gateway, d, &grace, vrfs));
        FlowTables {
            explainer: Pipeline::new(tables.clone(), 0, 1),
            tables,
            grace,
            writer: Arc::default(),
            grace_periods: GracePeriods::default(),
            resizers: Default::default(),
            flushed4: DeferredFree::default(),
            flushed6: DeferredFree::default(),
        }
    }

    /// The grace periods after which nobody holds what was removed.
    pub fn grace(&self) -> Arc<Grace> {
        self.grace.clone()
    }

    /// For another thread that changes the tables.
    pub fn writer(&self) -> Arc<Mutex<()>> {
        self.writer.clone()
    }

    /// Whether no index is being replaced.
    pub fn is_idle(&self) -> bool {
        self.resizers.0.idle() && self.resizers.1.idle()
    }

    /// Moves grace periods on, resizes indexes, and gives free what has rested long enough.
    pub fn step(&mut self, control: &ControlBlock, workers: &Workers) {
        let writer = self.writer.clone();
        let held = writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.grace_periods.step_workers(&self.grace, workers.shared());
        // Waiting for XDP takes milliseconds, in which a flood would fill the index that is being replaced.
        if self.is_idle() {
            self.grace_periods.step(&self.grace, workers.shared());
        }
        self.resize(control);
        drop(held);
        self.tables.v4.release(&mut self.flushed4);
        self.tables.v6.release(&mut self.flushed6);
    }

    /// Makes the indexes as large as the live sessions need them.
    pub fn resize_indexes(&mut self, control: &ControlBlock) {
        let writer = self.writer.clone();
        let _held = writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.resize(control);
    }

    fn resize(&mut self, control: &ControlBlock) {
        let switch = |what: &str, word: &AtomicU64, to: Geometry| {
            word.store(to.to_word(), Ordering::Release);
            tracing::debug!(buckets = to.buckets(), "another index of the {what} table");
        };
        self.resizers.0.step(&self.tables.v4, |to| switch("IPv4", &control.index4, to));
        self.resizers.1.step(&self.tables.v6, |to| switch("IPv6", &control.index6, to));
    }

    /// EndpointPair a session. False: it is gone already.
    pub fn end_session(&mut self, family: Family, number: u32, snap: &Snapshot, events: &mut Events) -> bool {
        let nat = &self.tables.nat;
        match family {
            Family::V4 => {
                let ending = Ending { deferred: &mut self.flushed4, events, nat };
                session::end(&self.tables.v4, number, snap, ending)
            }
            Family::V6 => {
                let ending = Ending { deferred: &mut self.flushed6, events, nat };
                session::end(&self.tables.v6, number, snap, ending)
            }
        }
    }

    /// Ends the session from inside whose answers look like this: protocol, source, destination. False: there is none.
    pub fn end_translated(
        &mut self,
        (proto, from, to): (u8, Endpoint, Endpoint),
        snap: &Snapshot,
        events: &mut Events,
    ) -> bool {
        let found = [Zone::Wan, Zone::Overlay].into_iter().find_map(|zone| {
            let bare = Key4 { addrs: 0, l4: l4_word(0, 0, proto, zone) };
            let key = FlowRecord4::with_endpoints(&bare, (from, to));
            let (v4, v6, of_v6) = (&self.tables.v4, &self.tables.v6, key_of_v4(&key));
            let own = v4.find(&key, v4.hash(&key)).map(|no| (Family::V4, no));
            // Of an IPv6 host, by NAT64.
            own.or_else(|| v6.find(&of_v6, v6.hash(&of_v6)).map(|no| (Family::V6, no)))
        });
        let session = found.filter(|(_, no)| no.direction() == 1);
        session.is_some_and(|(family, no)| self.end_session(family, no.session(), snap, events))
    }

    /// Brings the counters of ACL rules up to date. Workers do so as they go round; a large table is left to them.
    pub fn update_rule_counters(&self, snap: &Snapshot) {
        const MAX_SESSIONS: u32 = 200_000;
        for n in 1..self.tables.v4.used().min(MAX_SESSIONS) {
            session::flush_counters(&self.tables.v4, n, snap);
        }
        for n in 1..self.tables.v6.used().min(MAX_SESSIONS) {
            session::flush_counters(&self.tables.v6, n, snap);
        }
    }
}

fn open_tables(gateway: &Gateway, d: &Dataplane, grace: &Arc<Grace>, vrfs: &BTreeSet<VrfNo>) -> Tables {
    let control = gateway.control();
    let seed = match control.seed.load(Ordering::Relaxed) {
        0 => {
            // Random per table: nobody can aim flows at one bucket.
            let seed = std::collections::hash_map::RandomState::new().build_hasher().finish() | 1;
            control.seed.store(seed, Ordering::Relaxed);
            seed
        }
        known => known,
    };
    let sessions = d.flow_capacity(environment::memory());
    let v4 = TableMemory {
        records: gateway.flows4(),
        sessions: sessions.v4,
        buckets: gateway.index4(),
        sequences: gateway.sequences4(),
    };
    let v6 = TableMemory {
        records: gateway.flows6(),
        sessions: sessions.v6,
        buckets: gateway.index6(),
        sequences: gateway.sequences6(),
    };
    let v4 = open_table::<FlowRecord4>("IPv4", v4, seed, &control.index4, (grace, vrfs));
    let v6 = open_table::<FlowRecord6>("IPv6", v6, seed, &control.index6, (grace, vrfs));
    let identifications = Identifications::new(gateway.ip_ids(), seed);
    let nat = Arc::new(NatState::new(v4.capacity(), gateway.nat_ports(), identifications, seed));
    Tables { v4, v6, nat, first_fragments: Default::default() }
}

fn open_table<R: FlowRecord + FlowFamily>(
    what: &str,
    mem: TableMemory<R>,
    seed: u64,
    live: &AtomicU64,
    (grace, vrfs): (&Arc<Grace>, &BTreeSet<VrfNo>),
) -> FlowTable<R> {
    let left = Geometry::from_word(live.load(Ordering::Relaxed));
    let known = mem.has_room_for(left);
    let index = if known { left } else { mem.smallest() };
    let table = FlowTable::new(mem, seed, index, grace.clone());
    if known {
        let tick = Nanos(sys::now()).tick().0;
        let found = session::take_over(&table, tick, vrfs);
        if found.sessions > 0 || found.discarded > 0 {
            tracing::info!(
                sessions = found.sessions,
                discarded = found.discarded,
                "{what} sessions taken over"
            );
        }
    } else {
        table.clear();
        live.store(index.to_word(), Ordering::Release);
    }
    table
}
