//! Sessions that two gateways share ([`Replica`]): one of them has a session, the other holds it ready. Whichever gets a
//! packet of it, has it from then on.
//!
//! | flag | meaning | set by | cleared by |
//! |---|---|---|---|
//! | [`REPLICA`] | the other gateway has the session: no idle time counts here | [`install`], [`yield_to_peer`] | a worker with the next packet (`claim`), [`release`] |
//! | `UNUSED` | no packet has passed here since it came, or went | [`install`], [`yield_to_peer`] | `claim` |
//! | `UNBOUND` | its translation holds no port here: the address is not here yet, or it has a fixed one | [`install`] | [`bind_late`] |
//!
//! What is here beside `claim` and `awaits_address` is for one thread, which keeps the grace periods of the table from
//! ending meanwhile: a session that it has seen alive keeps its number so long.

use super::adopt::{Half, Held, Translated};
use super::connection::NUMBERS_KNOWN;
use super::takeover::{Noted, note_state, state_flags};
use super::{FINS_SEEN, begun, note_answer, report_released, rule_count, settled, stamp};
use crate::family::FlowFamily;
use crate::nat::{Events, NatPolicy, NatState};
use crate::snapshot::Snapshot;
use crate::syn_cookie::Proxied;
use crate::table::{
    ANSWERED, DeferredFree, FlowTable, NotCreated, SAME_RULE, SessionMeta, State, is_within_wait,
};
use sag_model::flow::{Action, FLOW_STATE_SHIFT, RecordNo};
use sag_model::ids::VrfZone;
use sag_model::time::Tick;
use std::sync::atomic::{Ordering, fence};

/// The other gateway has the session: flag in [`SessionMeta::ports`].
pub const REPLICA: u32 = 1 << 24;
/// No packet of it has passed here since it came, or went: flag beside it.
const UNUSED: u32 = 1 << 25;
/// Some half of its translation holds no binding: flag beside it.
const UNBOUND: u32 = 1 << 26;

/// A session as another gateway needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica<K> {
    /// The key of its first packet.
    pub key: K,
    /// What became of that packet.
    pub new: K,
    /// Where its answers come from.
    pub to: VrfZone,
    /// Its state, as a forward record notes it.
    pub state: u8,
    /// The other side has answered.
    pub answered: bool,
    /// It goes through NAT64.
    pub crosses: bool,
    /// [`Proxied`] as a word; 0: its sequence numbers are its own.
    pub proxied: u64,
    /// The ports by which its first packet came and went, for lists.
    pub ports: [u8; 2],
    /// Ticks without a packet.
    pub idle: u32,
}

impl<K> Replica<K> {
    fn translated(&self) -> Translated<K>
    where
        K: Copy,
    {
        Translated { key: self.key, new: self.new, vrf: self.to.vrf(), crosses: self.crosses }
    }
}

/// What the table says of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<K> {
    /// A session of this gateway.
    Own(Replica<K>),
    /// A session that the other gateway has.
    Replica(Replica<K>),
    /// None, or none that concerns another gateway.
    Nothing,
}

/// What a session's number holds now.
pub fn read<R: FlowFamily>(table: &FlowTable<R>, session: u32, now: Tick) -> Found<R::Key> {
    let meta = table.meta(session);
    let word = meta.state.load(Ordering::Acquire);
    let [forward, reverse] = RecordNo::both(session).map(|no| table.record(no));
    let state = settled(word, forward.packets().load(Ordering::Relaxed));
    let (Some(state), true) = (state.filter(|s| *s != State::Denied), meta.is_confirmed()) else {
        return Found::Nothing;
    };
    let Some(to) = R::side(&reverse.key()) else { return Found::Nothing };
    let flags = meta.ports.load(Ordering::Relaxed);
    let replica = Replica {
        key: forward.key(),
        new: forward.translated(),
        to,
        state: state_flags(state as u32 | word & FINS_SEEN) >> FLOW_STATE_SHIFT,
        answered: flags & ANSWERED != 0,
        crosses: forward.crosses(),
        proxied: table.proxied(session).map_or(0, Proxied::to_word),
        ports: [flags as u8, (flags >> 8) as u8],
        idle: super::idle(table, session, now),
    };
    if flags & REPLICA == 0 { Found::Own(replica) } else { Found::Replica(replica) }
}

/// Whether the other gateway has a session.
pub fn is_replica<R: FlowFamily>(table: &FlowTable<R>, session: u32) -> bool {
    table.meta(session).ports.load(Ordering::Relaxed) & REPLICA != 0
}

/// Makes a session that the other gateway has. Its first packet here is a worker's: the rules of here judge it, and it gets
/// its way out. Events of it are not reported: the other gateway has done so.
///
/// # Errors
///
/// Why there is none; [`NotCreated::Exists`]: another session has one of its keys.
pub fn install<R: FlowFamily>(
    table: &FlowTable<R>,
    (nat, snap): (&NatState, &Snapshot),
    r: &Replica<R::Key>,
    now: Tick,
    deferred: &mut DeferredFree,
) -> Result<u32, NotCreated> {
    let t = r.translated();
    let held = hold::<R>(nat, &snap.nat, &t, now);
    let proto = R::tuple(&r.key).proto;
    let (reverse, answer) = (R::reverse(&r.new, r.to), R::reverse(&r.key, r.to));
    let seen = now.0.wrapping_sub(r.idle);
    let noted = Noted { proto, code: r.state & 0xF, answered: r.answered, seen };
    let word = noted.word(0);
    let bound = if is_whole::<R>(&t, &held) { 0 } else { UNBOUND };
    let answered = if r.answered { ANSWERED } else { 0 };
    let flags = REPLICA | UNUSED | bound | answered | held.flags;
    let ports = u32::from(r.ports[0]) | u32::from(r.ports[1]) << 8;
    let fill = |forward: &R, back: &R, meta: &SessionMeta| {
        forward.set_translation(&r.key, &r.new);
        back.set_translation(&reverse, &answer);
        if r.crosses {
            forward.set_crosses();
            back.set_crosses();
        }
        let action = Action { flags: state_flags(word), ..Action::PUNT };
        forward.action().store(action.to_word(), Ordering::Relaxed);
        back.action().store(Action::PUNT.to_word(), Ordering::Relaxed);
        for record in [forward, back] {
            record.epoch().store(0, Ordering::Relaxed);
            record.last_seen().store(seen, Ordering::Relaxed);
        }
        meta.created.store(now.0, Ordering::Relaxed);
        meta.rule.store(0, Ordering::Relaxed);
        meta.reply_rule.store(SAME_RULE, Ordering::Relaxed);
        meta.other.store(0, Ordering::Relaxed);
        meta.ports.store(ports | flags, Ordering::Relaxed);
        for (b, held) in meta.bindings.iter().zip(held.bindings) {
            b.store(held, Ordering::Relaxed);
        }
        meta.state.store(word, Ordering::Release);
    };
    match table.create(&r.key, &reverse, deferred, fill) {
        Ok(no) => {
            let session = no.session();
            begun(table, &r.key, r.answered);
            if let Some(p) = Proxied::from_word(r.proxied) {
                table.set_proxied(session, Some(p));
            }
            if snap.acl.has_limits() {
                rule_count::recount(table, session, snap);
            }
            Ok(session)
        }
        Err(why) => {
            nat.give_back::<R>(&t, held, |_, _| ());
            Err(why)
        }
    }
}

/// The other gateway says what has become of a session that it has and that is held ready here.
pub fn update<R: FlowFamily>(table: &FlowTable<R>, session: u32, r: &Replica<R::Key>, now: Tick) {
    let meta = table.meta(session);
    let records = RecordNo::both(session).map(|no| table.record(no));
    let seen = now.0.wrapping_sub(r.idle);
    let noted = Noted { proto: R::tuple(&r.key).proto, code: r.state & 0xF, answered: r.answered, seen };
    let word = meta.state.load(Ordering::Acquire);
    let new = noted.word(records[0].packets().load(Ordering::Relaxed));
    if word & 0xFF != 0 && word != new {
        // Lost to a packet or to removal: that one knows better.
        let _ = meta.state.compare_exchange(word, new, Ordering::AcqRel, Ordering::Relaxed);
        note_state(table, session);
    }
    if r.answered {
        note_answer(table, session);
    }
    if table.proxied(session).map_or(0, Proxied::to_word) != r.proxied {
        table.set_proxied(session, Proxied::from_word(r.proxied));
    }
    records.iter().for_each(|record| record.last_seen().store(seen, Ordering::Relaxed));
}

/// The other gateway has a session of this one from now on; the next packet that comes here takes it back. Until then it is
/// like one that has come from there: how far its hosts have got is not known, and its address may be elsewhere.
pub fn yield_to_peer<R: FlowFamily>(table: &FlowTable<R>, session: u32) {
    let meta = table.meta(session);
    let update = |flags: u32| Some(flags & !NUMBERS_KNOWN | REPLICA | UNUSED);
    let _ = meta.ports.fetch_update(Ordering::SeqCst, Ordering::Relaxed, update);
    meta.other.store(0, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    for no in RecordNo::both(session) {
        table.record(no).epoch().store(0, Ordering::SeqCst);
    }
}

/// The other gateway is gone: what it had is this one's, as if its last packet had come now. False: it was this one's.
pub fn release<R: FlowFamily>(table: &FlowTable<R>, session: u32, now: Tick) -> bool {
    let ports = &table.meta(session).ports;
    let was = is_replica(table, session) && ports.fetch_and(!REPLICA, Ordering::AcqRel) & REPLICA != 0;
    if was {
        let state = &table.meta(session).state;
        let word = state.load(Ordering::Acquire);
        if let Some(State::TcpReset | State::TcpRefused) = State::from_u32(word & 0xFF) {
            // Or else it would look as if its hosts went on after the RST.
            let new = word & 0xFFFF | stamp(now.0);
            let _ = state.compare_exchange(word, new, Ordering::AcqRel, Ordering::Relaxed);
        }
        for no in RecordNo::both(session) {
            table.record(no).last_seen().store(now.0, Ordering::Relaxed);
        }
    }
    was
}

/// A worker has passed a packet of a session, and has stored its epoch: it is this gateway's.
#[inline]
pub(crate) fn claim<R: FlowFamily>(table: &FlowTable<R>, session: u32) {
    let ports = &table.meta(session).ports;
    if table.tracks_changes() {
        // Either this sees the flag of `yield_to_peer`, or the epoch that it stores comes after the one stored here.
        fence(Ordering::SeqCst);
    }
    if ports.load(Ordering::Relaxed) & (REPLICA | UNUSED) != 0 {
        let was = ports.fetch_and(!(REPLICA | UNUSED), Ordering::AcqRel);
        if was & REPLICA != 0 {
            table.mark_changed(session);
        }
    }
}

/// Whether a session whose translation does not fit what NAT has here is to wait: its address comes from the other gateway,
/// and packets may be faster than the news of it; or it goes there, and the session with it.
pub(crate) fn awaits_address<R: FlowFamily>(table: &FlowTable<R>, session: u32, now: Tick) -> bool {
    let meta = table.meta(session);
    if meta.ports.load(Ordering::Relaxed) & UNUSED == 0 {
        return table.addresses_moved(now);
    }
    // Nobody has noted a number there: no packet has passed.
    let first = match meta.other.compare_exchange(0, now.0.max(1), Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => now.0,
        Err(first) => first,
    };
    is_within_wait(first, now)
}

fn hold<R: FlowFamily>(nat: &NatState, policy: &NatPolicy, t: &Translated<R::Key>, now: Tick) -> Held {
    let mut held = Held::default();
    nat.count_inside_host::<R>(t, &mut held);
    bind_halves::<R>(nat, policy, t, &mut held, now);
    held
}

/// Gives a session the bindings that it does not have.
fn bind_halves<R: FlowFamily>(
    nat: &NatState,
    policy: &NatPolicy,
    t: &Translated<R::Key>,
    held: &mut Held,
    now: Tick,
) {
    if held.bindings[0] == 0 {
        nat.bind::<R>(t, Half::Source, policy, held, now.0);
    }
    if held.bindings[1] == 0 && !nat.bind::<R>(t, Half::Dest, policy, held, now.0) {
        nat.bind_dest_alone::<R>(t, policy, held, now.0);
    }
}

/// Whether every half of a translation that may hold a binding has one.
fn is_whole<R: FlowFamily>(t: &Translated<R::Key>, held: &Held) -> bool {
    let moved = match R::endpoints(&t.key).zip(R::endpoints(&t.new)) {
        Some((old, new)) => [old.0 != new.0, (old.1.addr, old.1.port) != (new.1.addr, new.1.port)],
        None => [t.crosses; 2],
    };
    moved.iter().zip(held.bindings).all(|(moved, binding)| !moved || binding != 0)
}

/// What NAT translates to has changed: gives a session of another gateway the bindings for which the address was missing.
/// True: it has been given one.
pub fn bind_late<R: FlowFamily>(
    table: &FlowTable<R>,
    (nat, snap): (&NatState, &Snapshot),
    session: u32,
    now: Tick,
    events: &mut Events,
) -> bool {
    let meta = table.meta(session);
    if meta.ports.load(Ordering::Relaxed) & UNBOUND == 0 || State::of(meta).is_none() {
        return false;
    }
    let t = Translated::of(table, session);
    let before = meta.bindings.each_ref().map(|b| b.load(Ordering::Acquire));
    let mut held = Held { bindings: before, flags: 0 };
    bind_halves::<R>(nat, &snap.nat, &t, &mut held, now);
    if held.bindings == before {
        return false;
    }
    // The flags first: who ends the session takes the bindings first.
    meta.ports.fetch_or(held.flags, Ordering::AcqRel);
    for (slot, binding) in meta.bindings.iter().zip(held.bindings) {
        let _ = slot.compare_exchange(0, binding, Ordering::SeqCst, Ordering::Relaxed);
    }
    if is_whole::<R>(&t, &held) {
        meta.ports.fetch_and(!UNBOUND, Ordering::AcqRel);
    }
    if meta.state.load(Ordering::SeqCst) == 0 {
        // It has ended meanwhile; who ended it may have looked before they were there.
        held.bindings = meta.bindings.each_ref().map(|slot| slot.swap(0, Ordering::SeqCst));
        nat.give_back::<R>(&t, held, |b, released| report_released(nat, snap, events, b, released));
        return false;
    }
    true
}
