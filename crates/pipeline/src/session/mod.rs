//! The life of a session: states, idle times and what a sweep does.

mod adopt;
mod connection;
mod nat64;
pub mod replica;
mod rule_count;
mod shares;
mod takeover;
mod tcp;

use adopt::{Held, Translated};

use crate::counters::Counters;
use crate::family::FlowFamily;
use crate::ids::RuleSlot;
use crate::nat::{BindingNo, Event, Events, NatState, Released, SessionTuple};
use crate::snapshot::{Snapshot, Timeouts};
pub use crate::table::{ANSWERED, State, Worth};
use crate::table::{DeferredFree, FlowTable, SAME_RULE};
pub use connection::{
    Effect, NewConnection, Numbers, is_accepted, is_reversed, new_connection, note_isn, note_numbers,
    quote_in_window, rst_in_window, sent_in_window,
};
pub use rule_count::{count_rules, initiator, is_admitted, set_rule};
use sag_model::flow::{FlowRecord, RecordNo};
use sag_model::time::Tick;
pub use shares::{Holder, begun, excess, has_answers, heaviest, note_answer};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
pub use takeover::{note_port, state_flags, take_over};
use tcp::{FINS_SEEN, outlived, stamp};
pub use tcp::{Segment, first_word, next_word, settled};

/// Ticks without a packet after which a session in this state ends.
const fn idle_limit(state: State, t: &Timeouts) -> u32 {
    match state {
        State::TcpSyn | State::TcpSynAck | State::TcpPicked => t.tcp_syn,
        // RFC 5382 5: one side may send for as long as it likes after the other's FIN.
        State::TcpOpen | State::TcpClosing => t.tcp_established,
        State::TcpClosed | State::TcpReset => t.tcp_transitory,
        State::TcpRefused => t.tcp_refused,
        State::Udp => t.udp,
        State::Icmp => t.icmp,
        State::Other => t.other,
        State::Denied => DENIED_FOR,
    }
}

/// When less than two fifths of a table are free, sessions without traffic in both directions end the sooner the less
/// there is, as with adaptive time-outs of pf.
const fn shortened(limit: u32, free: u32, capacity: u32) -> u32 {
    let (part, whole) = (free as u64 * 5, capacity as u64 * 2);
    if part >= whole || limit <= SHORTEST {
        return limit;
    }
    let scaled = (limit as u64 * part / whole) as u32;
    if scaled < SHORTEST { SHORTEST } else { scaled }
}

/// No time-out is shortened below this: retransmissions of a SYN and a slow resolver's second question come before.
const SHORTEST: u32 = Tick::of(Duration::from_secs(30));

/// Ticks after which a denied flow is evaluated again, busy or not: its route may lead elsewhere by then.
const DENIED_FOR: u32 = Tick::of(Duration::from_secs(1));

/// The session counts for its inside host: flag in [`SessionMeta::ports`](crate::table::SessionMeta::ports).
pub const NAT_HOST: u32 = 1 << 16;
/// The session has an entry in its binding's filter: flag in [`SessionMeta::ports`](crate::table::SessionMeta::ports).
pub const NAT_FILTER_ENTRY: u32 = 1 << 17;
/// The first sequence number of the initiator, and of the other side, is known: flags in [`SessionMeta::ports`](crate::table::SessionMeta::ports).
pub const ISN_KNOWN: [u32; 2] = [1 << 18, 1 << 19];

/// The state of a session, a handshake that XDP has seen completed included.
pub fn state_of<R: FlowRecord>(table: &FlowTable<R>, session: u32) -> Option<State> {
    let word = table.meta(session).state.load(Ordering::Acquire);
    settled(word, table.record(RecordNo::forward(session)).packets().load(Ordering::Relaxed))
}

/// What a session is worth when room is short.
pub fn worth<R: FlowRecord>(table: &FlowTable<R>, session: u32) -> Option<Worth> {
    let answered = table.meta(session).ports.load(Ordering::Relaxed) & ANSWERED != 0;
    state_of(table, session).map(|s| s.worth(answered))
}

/// A worker has seen a segment of a connection.
pub fn follow<R: FlowRecord>(table: &FlowTable<R>, session: u32, segment: impl FnOnce(u64) -> Segment) {
    let state = &table.meta(session).state;
    let sent = table.record(RecordNo::forward(session)).packets().load(Ordering::Relaxed);
    let old = state.load(Ordering::Acquire);
    let new = next_word(old, segment(sent));
    // Lost to another worker or to removal: that one's word stands.
    let _ = state.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed);
    takeover::note_state(table, session);
}

/// Ticks since the session last saw a packet. A stamp of another clock reading may be a little
/// ahead of `now`; that is "just now".
pub fn idle<R: FlowRecord>(table: &FlowTable<R>, session: u32, now: Tick) -> u32 {
    let since = |no| {
        let d = now.since(Tick(table.record(no).last_seen().load(Ordering::Relaxed)));
        if d > u32::MAX / 2 { 0 } else { d }
    };
    since(RecordNo::forward(session)).min(since(RecordNo::reverse(session)))
}

/// Moves a mark forward to `now` and returns by how much. Of several threads that look at once each
/// step is seen by one; a thread with an older reading moves nothing.
fn advance(mark: &AtomicU64, now: u64) -> u64 {
    let mut old = mark.load(Ordering::Relaxed);
    while now > old {
        match mark.compare_exchange_weak(old, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return now - old,
            Err(other) => old = other,
        }
    }
    0
}

/// The same with the low half of a counter: no session counts 2^31 packets between two looks.
fn advance32(mark: &AtomicU32, now: u32) -> u32 {
    let mut old = mark.load(Ordering::Relaxed);
    while now.wrapping_sub(old).cast_signed() > 0 {
        match mark.compare_exchange_weak(old, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return now.wrapping_sub(old),
            Err(other) => old = other,
        }
    }
    0
}

/// Adds what a session counted since the last time to its rules' counters.
pub fn flush_counters<R: FlowRecord>(table: &FlowTable<R>, session: u32, snap: &Snapshot) {
    let meta = table.meta(session);
    let rule = meta.rule.load(Ordering::Relaxed);
    let reply_rule = match meta.reply_rule.load(Ordering::Relaxed) {
        SAME_RULE => rule,
        own => own,
    };
    for (direction, rule) in [rule, reply_rule].into_iter().enumerate() {
        let r = table.record(RecordNo::both(session)[direction]);
        let (packets, bytes) = (r.packets().load(Ordering::Relaxed), r.bytes().load(Ordering::Relaxed));
        let new_packets = u64::from(advance32(&meta.counted_packets[direction], packets as u32));
        let new_bytes = advance(&meta.counted_bytes[direction], bytes);
        if new_packets == 0 {
            continue;
        }
        if let Some(stats) = RuleSlot::from_word(rule).and_then(|slot| snap.acl.stats(slot)) {
            stats.hit(new_packets, new_bytes, r.last_seen().load(Ordering::Relaxed));
        }
    }
}

/// What a thread needs to end sessions.
#[derive(Debug)]
pub struct Ending<'w> {
    /// Where ended sessions wait until they can be used again.
    pub deferred: &'w mut DeferredFree,
    /// Events for the operator.
    pub events: &'w mut Events,
    /// Where bindings are given back.
    pub nat: &'w NatState,
}

/// Both tuples of a session.
pub fn tuples<R: FlowFamily>(table: &FlowTable<R>, session: u32) -> SessionTuple {
    let r = table.record(RecordNo::forward(session));
    let (old, new) = (r.key(), r.translated());
    let (o, n) = (R::tuple(&old), R::tuple(&new));
    let ((sport, dport), (nat_sport, nat_dport)) = (R::raw_ports(&old), R::raw_ports(&new));
    SessionTuple {
        proto: o.proto,
        src: o.src,
        sport,
        dst: o.dst,
        dport,
        nat_src: n.src,
        nat_sport,
        nat_dst: n.dst,
        nat_dport,
        vrf: R::vrf(&old),
        to_vrf: R::vrf(&table.record(RecordNo::reverse(session)).key()),
    }
}

/// Takes a session out of the table and gives back what it held. False if another thread did, or if
/// it was none but a denied flow.
pub fn end<R: FlowFamily>(table: &FlowTable<R>, session: u32, snap: &Snapshot, w: Ending<'_>) -> bool {
    let nat = w.nat;
    let meta = table.meta(session);
    let was_denied = State::of(meta) == Some(State::Denied);
    if !table.remove(session, w.deferred) {
        return false;
    }
    // Nobody else writes here now, and it is not given out again before the next allocation.
    flush_counters(table, session, snap);
    let (fwd, rev) = (table.record(RecordNo::forward(session)), table.record(RecordNo::reverse(session)));
    if snap.nat.limits.log_sessions && !was_denied {
        let two = |f: fn(&R) -> &AtomicU64| [fwd, rev].map(|r| f(r).load(Ordering::Relaxed));
        let (packets, bytes) = (two(R::packets), two(R::bytes));
        let tuple = tuples(table, session);
        w.events.push(Event::Ended { family: R::FAMILY, number: session, tuple, packets, bytes });
    }
    if was_denied {
        return false;
    }
    shares::ended(table, session);
    rule_count::ended(table, session, &snap.acl);
    // Once each, whoever else looks: a binding may come late ([`replica::bind_late`]).
    let bindings = meta.bindings.each_ref().map(|b| b.swap(0, Ordering::AcqRel));
    let held = Held { bindings, flags: meta.ports.load(Ordering::Acquire) };
    let events = w.events;
    nat.give_back::<R>(&Translated::of(table, session), held, |b, released| {
        report_released(nat, snap, events, b, released);
    });
    true
}

/// Gives a binding back.
pub fn release_binding(nat: &NatState, snap: &Snapshot, events: &mut Events, binding: BindingNo) {
    let released = nat.release(binding);
    report_released(nat, snap, events, binding, released);
}

/// Tells the operator of a port block that came back with a binding.
pub(crate) fn report_released(
    nat: &NatState,
    snap: &Snapshot,
    events: &mut Events,
    binding: BindingNo,
    released: Released,
) {
    if let (Some(block), Some(inside), true) = (released.block, released.inside, snap.nat.limits.log_blocks) {
        events.push(nat.block_event(binding, block, inside.host(), false));
    }
}

/// Both hosts have forgotten the session's connection: it is over.
pub fn abandon<R: FlowRecord>(table: &FlowTable<R>, session: u32, tick: Tick) {
    let state = &table.meta(session).state;
    let word = state.load(Ordering::Acquire);
    if State::from_u32(word & 0xFF).is_some() {
        let over = State::TcpReset as u32 | word & FINS_SEEN | stamp(tick.0);
        // Lost to another worker or to removal: that one's word stands.
        let _ = state.compare_exchange(word, over, Ordering::AcqRel, Ordering::Relaxed);
        takeover::note_state(table, session);
    }
}

/// Writes down what packets that no worker has seen say of a connection: its handshake is complete, or it goes on
/// long after an RST.
fn settle<R: FlowRecord>(table: &FlowTable<R>, session: u32) -> Option<State> {
    let meta = table.meta(session);
    let word = meta.state.load(Ordering::Acquire);
    let was = State::from_u32(word & 0xFF)?;
    let records = RecordNo::both(session).map(|no| table.record(no));
    let state = match was {
        State::TcpSynAck => settled(word, records[0].packets().load(Ordering::Relaxed))?,
        // Both sides: a lone sender does not bring a connection back to life.
        State::TcpReset | State::TcpRefused
            if records.iter().all(|r| outlived(word, r.last_seen().load(Ordering::Relaxed))) =>
        {
            if word & FINS_SEEN == 0 { State::TcpOpen } else { State::TcpClosing }
        }
        same => same,
    };
    if state != was {
        let new = state as u32 | word & FINS_SEEN;
        // Lost to a packet that changes the state: it knows better.
        let _ = meta.state.compare_exchange(word, new, Ordering::AcqRel, Ordering::Relaxed);
        takeover::note_state(table, session);
    }
    Some(state)
}

/// A worker's round over its share of the sessions: ages them and flushes their counters, a few at
/// a time so that packets do not wait.
#[derive(Debug)]
pub struct Sweeper {
    worker: u32,
    workers: u32,
    at: u32,
    /// Epoch under whose rules its share of the sessions is counted, or is being counted in this round.
    counted: Option<u32>,
    recounts: bool,
}

/// Sessions next to each other go to one worker in blocks of this size.
const BLOCK: u32 = 64;

impl Sweeper {
    /// For worker number `worker` of `workers`.
    pub fn new(worker: u32, workers: u32) -> Sweeper {
        Sweeper { worker, workers: workers.max(1), at: 0, counted: None, recounts: false }
    }

    /// Sweeps up to `budget` sessions; returns true when a round over all is complete.
    pub fn step<R: FlowFamily>(
        &mut self,
        table: &FlowTable<R>,
        ends: Ending<'_>,
        snap: &Snapshot,
        now: Tick,
        budget: u32,
        counters: &Counters,
    ) -> bool {
        let Ending { deferred, events, nat } = ends;
        let used = table.used();
        let (free, capacity) = (table.free(), table.capacity());
        if self.counted != Some(snap.epoch) {
            // A whole round for each change of the rules, where a limit counts.
            (self.counted, self.recounts) = (Some(snap.epoch), snap.acl.has_limits());
            if self.recounts {
                self.at = 0;
            }
        }
        for _ in 0..budget {
            if self.at >= used {
                self.at = 0;
                self.recounts = false;
                table.release(deferred);
                table.hosts.refresh();
                table.networks.refresh();
                table.rearm_warning();
                return true;
            }
            if self.at.is_multiple_of(BLOCK) && (self.at / BLOCK) % self.workers != self.worker {
                self.at += BLOCK;
                continue;
            }
            let session = self.at;
            self.at += 1;
            let Some(state) = settle(table, session) else { continue };
            flush_counters(table, session, snap);
            if self.recounts && state != State::Denied {
                rule_count::recount(table, session, snap);
            }
            let idle = match state {
                State::Denied => now.since(Tick(table.meta(session).created.load(Ordering::Relaxed))),
                _ => idle(table, session, now),
            };
            let flags = table.meta(session).ports.load(Ordering::Relaxed);
            if flags & replica::REPLICA != 0 {
                // Its packets go through the gateway that has it, which says when it is over.
                continue;
            }
            let answered = flags & ANSWERED != 0;
            let limit = idle_limit(state, &snap.options.timeouts);
            let limit = match state.worth(answered) {
                Worth::Established => limit,
                _ => shortened(limit, free, capacity),
            };
            let limit = match state {
                // It holds a port that others may need more.
                State::TcpRefused => {
                    let port = BindingNo(table.meta(session).bindings[0].load(Ordering::Relaxed));
                    nat.room(port, &snap.nat.limits).map_or(limit, |(free, of)| shortened(limit, free, of))
                }
                _ => limit,
            };
            if idle > limit && end(table, session, snap, Ending { deferred, events, nat }) {
                counters.sessions_ended.add(1);
            }
        }
        false
    }
}
