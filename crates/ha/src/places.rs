//! One table's half of the engine: what the peer was told of each place here, and what it has told of its own.
//!
//! Who has a session is a matter of its version, the number of times that it has changed hands. A worker that passes a packet
//! of the peer's session takes it (`claim` of the pipeline), which raises the version; the greater version wins. Of equal
//! ones, as after a cut link, one of the two gateways decides, by who has seen a packet last, and raises the version if it
//! keeps the session; the other waits for that. So it cannot be that both give a session up.

use crate::context::{Context, Totals};
use crate::names::Translation;
use crate::wire::{self, MAX_ITEM, MAX_PLACE, Placed, WireKey};
use sag_model::flow::{FlowRecord, RecordNo};
use sag_model::time::Tick;
use sag_pipeline::family::FlowFamily;
use sag_pipeline::nat::Events;
use sag_pipeline::session::replica::{self, Found, Replica};
use sag_pipeline::session::{self, Ending};
use sag_pipeline::table::{DeferredFree, FlowTable, NotCreated};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Sessions of a block of the table's changes.
const BLOCK: u32 = 64;
/// A session is the other gateway's by its last packet if that came so much later.
const MARGIN: u32 = Tick::of(Duration::from_secs(2));
/// Idle time of a session whose packets were the peer's and that has seen none here since.
const UNSEEN: u32 = Tick::of(Duration::from_secs(86_400));

/// What is known of a session here.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// [`check`] of the session that the rest is about; 0: of none.
    check: u32,
    /// How often it has changed hands.
    version: u32,
    /// The tick at which it became this gateway's because the link was lost; 0: it did not.
    orphan: u32,
    /// The peer has it.
    peers: bool,
    /// The peer was told that this place holds a session.
    told: bool,
}

/// A session here that a place of the peer has.
#[derive(Debug, Clone, Copy, Default)]
struct Mapped {
    session: u32,
    check: u32,
}

#[derive(Debug)]
pub(crate) struct Places<R: FlowRecord> {
    own: Vec<Place>,
    peer: Vec<Mapped>,
    deferred: DeferredFree,
    /// The block of changes that is looked at next, and how many are left of the first round.
    block: u32,
    first_round: u32,
    records: std::marker::PhantomData<R>,
}

/// Which session a number has: numbers are used again.
fn check<R: FlowFamily>(table: &FlowTable<R>, session: u32, key: &R::Key) -> u32 {
    let created = table.meta(session).created.load(Ordering::Relaxed);
    (table.hash(key) as u32 ^ created.rotate_left(16)) | 1
}

/// The same of the session that a number has now.
fn check_now<R: FlowFamily>(table: &FlowTable<R>, session: u32) -> u32 {
    check(table, session, &table.record(RecordNo::forward(session)).key())
}

impl<R: FlowFamily> Places<R>
where
    R::Key: WireKey,
{
    pub fn new(table: &FlowTable<R>) -> Places<R> {
        Places {
            own: vec![Place::default(); table.capacity() as usize + 1],
            peer: Vec::new(),
            deferred: DeferredFree::default(),
            block: 0,
            first_round: 0,
            records: std::marker::PhantomData,
        }
    }

    /// The peer knows nothing: everything is a change.
    pub fn begin(&mut self, table: &FlowTable<R>) {
        table.track_changes(true);
        self.peer.clear();
        self.own.iter_mut().for_each(|p| p.told = false);
        self.say_again(table);
    }

    /// Says everything that there is once more.
    pub fn say_again(&mut self, table: &FlowTable<R>) {
        (1..table.used()).for_each(|n| table.mark_changed(n));
        self.block = 0;
        self.first_round = table.change_blocks();
    }

    /// Whether everything that there was at the beginning has been said.
    pub fn is_complete(&self) -> bool {
        self.first_round == 0
    }

    /// The peer is gone. Returns how many of its sessions are this gateway's now.
    pub fn end(&mut self, table: &FlowTable<R>, now: Tick) -> u64 {
        self.peer.clear();
        let mut released = 0;
        for n in 1..table.used() {
            let Some(place) = self.own.get_mut(n as usize) else { break };
            *place = Place { version: 0, peers: false, told: false, ..*place };
            if replica::release(table, n, now) {
                place.orphan = now.0.max(1);
                released += 1;
            }
        }
        released
    }

    /// Writes what has changed, as long as it fits.
    pub fn collect(&mut self, table: &FlowTable<R>, out: &mut Vec<u8>, limit: usize, cx: &mut Cx<'_>) {
        let blocks = table.change_blocks();
        for _ in 0..blocks {
            if out.len() + BLOCK as usize * MAX_ITEM > limit {
                return;
            }
            if self.block >= blocks {
                self.block = 0;
            }
            let (first, mut changed) = (self.block * BLOCK, table.take_changes(self.block));
            while changed != 0 {
                let session = first + changed.trailing_zeros();
                changed &= changed - 1;
                self.say(table, session, out, cx);
            }
            self.block += 1;
            self.first_round = self.first_round.saturating_sub(1);
        }
        // A table that was empty at the beginning.
        if blocks == 0 {
            self.first_round = 0;
        }
    }

    fn say(&mut self, table: &FlowTable<R>, session: u32, out: &mut Vec<u8>, cx: &mut Cx<'_>) {
        let Some(place) = self.own.get_mut(session as usize) else { return };
        match replica::read(table, session, cx.now) {
            Found::Own(mut r) => {
                let now = check(table, session, &r.key);
                if place.check != now {
                    *place = Place { check: now, told: place.told, ..Place::default() };
                } else if place.peers {
                    // A worker has passed a packet of it.
                    place.version = place.version.wrapping_add(1);
                    place.peers = false;
                    cx.totals.claimed += 1;
                }
                if is_unseen(table, session, place) {
                    r.idle = UNSEEN;
                }
                place.told = true;
                wire::write_session(&Placed { place: session, version: place.version, session: r }, out);
                cx.totals.sent += 1;
            }
            found => {
                // A session that was told of has gone; another gateway's may have its number.
                if std::mem::take(&mut place.told) {
                    wire::write(&wire::Item::Empty { family: R::FAMILY, place: session }, out);
                    cx.totals.sent += 1;
                }
                if found == Found::Nothing {
                    *place = Place::default();
                }
            }
        }
    }

    /// A place of the peer holds a session.
    pub fn hear(&mut self, table: &FlowTable<R>, mut p: Placed<R::Key>, by: &Translation, cx: &mut Cx<'_>) {
        cx.totals.received += 1;
        let sides = R::side(&p.session.key).and_then(|s| by.side(s)).zip(by.side(p.session.to));
        let Some((from, to)) = sides else {
            cx.totals.unknown_vrf += 1;
            return;
        };
        let r = &mut p.session;
        (r.key, r.new, r.to) = (r.key.in_vrf_zone(from), r.new.in_vrf_zone(from), to);
        r.ports = r.ports.map(|port| by.port(port));
        r.idle = r.idle.min(UNSEEN);
        let p = p;
        let found = table.find(&p.session.key, table.hash(&p.session.key));
        let here = found.map(RecordNo::session);
        let before = self.mapped(p.place);
        if before.session != 0 && Some(before.session) != here {
            self.remove(table, before, cx);
        }
        match (found, here) {
            (Some(no), Some(session)) if !table.is_denied(no) => {
                self.hear_known(table, (no, session), &p, cx);
            }
            (denied, _) => {
                if let Some(no) = denied {
                    self.end_session(table, no.session(), cx);
                }
                self.install(table, &p, cx);
            }
        }
    }

    /// The peer has a session that is here already, or another one that begins alike.
    fn hear_known(
        &mut self,
        table: &FlowTable<R>,
        (no, session): (RecordNo, u32),
        p: &Placed<R::Key>,
        cx: &mut Cx<'_>,
    ) {
        let now = check_now(table, session);
        let Some(place) = self.own.get_mut(session as usize) else { return };
        if place.check != now {
            *place = Place { check: now, told: place.told, ..Place::default() };
        }
        let is_same = no.direction() == 0 && is_same(table, session, &p.session);
        if replica::is_replica(table, session) {
            if !is_same {
                self.end_session(table, session, cx);
                return self.install(table, p, cx);
            }
            place.version = place.version.max(p.version);
            place.peers = true;
            replica::update(table, session, &p.session, cx.now);
            return self.map(p.place, Mapped { session, check: now });
        }
        if place.peers {
            // A worker has passed a packet of it, and the peer has not heard of that yet.
            place.version = place.version.wrapping_add(1);
            place.peers = false;
            cx.totals.claimed += 1;
        }
        let mine = place.version;
        let idle =
            if is_unseen(table, session, place) { UNSEEN } else { session::idle(table, session, cx.now) };
        let yields = match p.version.cmp(&mine) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => cx.decides && p.session.idle.saturating_add(MARGIN) < idle,
        };
        if yields && is_same {
            // The peer may have made a copy of it meanwhile, and is told when it ends.
            *place =
                Place { check: now, version: p.version, peers: true, told: place.told, ..Place::default() };
            replica::yield_to_peer(table, session);
            replica::update(table, session, &p.session, cx.now);
            cx.totals.yielded += 1;
            self.map(p.place, Mapped { session, check: now });
        } else if yields {
            self.end_session(table, session, cx);
            self.install(table, p, cx);
        } else {
            if p.version == mine && cx.decides {
                place.version = mine.wrapping_add(1);
            }
            if p.version != mine || cx.decides {
                // The peer does not know how things are.
                table.mark_changed(session);
            }
        }
    }

    fn install(&mut self, table: &FlowTable<R>, p: &Placed<R::Key>, cx: &mut Cx<'_>) {
        let made = replica::install(table, (&cx.tables.nat, cx.snap), &p.session, cx.now, &mut self.deferred);
        match made {
            Ok(session) => {
                let now = check(table, session, &p.session.key);
                if let Some(place) = self.own.get_mut(session as usize) {
                    *place = Place {
                        check: now,
                        version: p.version,
                        peers: true,
                        told: place.told,
                        ..Place::default()
                    };
                }
                cx.totals.installed += 1;
                self.map(p.place, Mapped { session, check: now });
            }
            Err(NotCreated::Full) => cx.totals.full += 1,
            Err(NotCreated::Exists(_) | NotCreated::Contended) => cx.totals.conflicts += 1,
        }
    }

    /// A place of the peer holds nothing any more.
    pub fn hear_empty(&mut self, table: &FlowTable<R>, place: u32, cx: &mut Cx<'_>) {
        cx.totals.received += 1;
        let mapped = self.mapped(place);
        self.remove(table, mapped, cx);
        self.map(place, Mapped::default());
    }

    /// Ends the peer's session, unless it is this gateway's by now, or another one has its number.
    fn remove(&mut self, table: &FlowTable<R>, m: Mapped, cx: &mut Cx<'_>) {
        let is_it = m.session != 0
            && session::state_of(table, m.session).is_some()
            && replica::is_replica(table, m.session)
            && check_now(table, m.session) == m.check;
        if is_it {
            self.end_session(table, m.session, cx);
            cx.totals.removed += 1;
        }
    }

    fn end_session(&mut self, table: &FlowTable<R>, session: u32, cx: &mut Cx<'_>) {
        // The log of NAT is the peer's: it has made the session.
        let mut events = Events::default();
        let ending = Ending { deferred: &mut self.deferred, events: &mut events, nat: &cx.tables.nat };
        session::end(table, session, cx.snap, ending);
    }

    fn mapped(&self, place: u32) -> Mapped {
        self.peer.get(place as usize).copied().unwrap_or_default()
    }

    fn map(&mut self, place: u32, to: Mapped) {
        let at = place.min(MAX_PLACE) as usize;
        if at >= self.peer.len() {
            if to.session == 0 {
                return;
            }
            self.peer.resize(at + 1, Mapped::default());
        }
        self.peer[at] = to;
    }

    /// Gives free what has rested long enough.
    pub fn release(&mut self, table: &FlowTable<R>) {
        table.release(&mut self.deferred);
    }
}

/// What one call goes by.
pub(crate) struct Cx<'c> {
    pub tables: &'c sag_pipeline::Tables,
    pub snap: &'c sag_pipeline::snapshot::Snapshot,
    pub now: Tick,
    pub decides: bool,
    pub totals: &'c mut Totals,
}

impl<'c> Cx<'c> {
    pub fn new(cx: &Context<'c>, decides: bool, totals: &'c mut Totals) -> Cx<'c> {
        Cx { tables: cx.tables, snap: cx.snap, now: cx.now, decides, totals }
    }
}

/// Whether a session is here as the peer has it.
fn is_same<R: FlowFamily>(table: &FlowTable<R>, session: u32, r: &Replica<R::Key>) -> bool {
    let forward = table.record(RecordNo::forward(session));
    let side = R::side(&table.record(RecordNo::reverse(session)).key());
    forward.key() == r.key
        && forward.translated() == r.new
        && forward.crosses() == r.crosses
        && side == Some(r.to)
}

/// Whether the session was the peer's until the link was lost, and has seen no packet since.
fn is_unseen<R: FlowFamily>(table: &FlowTable<R>, session: u32, place: &Place) -> bool {
    place.orphan != 0
        && RecordNo::both(session)
            .iter()
            .all(|no| table.record(*no).last_seen().load(Ordering::Relaxed).max(1) == place.orphan)
}
