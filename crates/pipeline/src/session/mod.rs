//! The life of a session: states, idle times and what a sweep does.

mod adopt;

use crate::counters::Counters;
use crate::family::FlowFamily;
use crate::ids::RuleSlot;
use crate::nat::{BindingNo, Event, Events, NatState, SessionTuple};
use crate::snapshot::{Snapshot, Timeouts};
pub use crate::table::State;
use crate::table::{DeferredFree, FlowTable, SAME_RULE, SessionMeta};
use sag_model::flow::{FlowRecord, RecordNo};
use sag_model::time::Tick;
use sag_packet::proto::*;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Ticks without a packet after which a session in this state ends.
const fn idle_limit(state: State, t: &Timeouts) -> u32 {
    match state {
        State::TcpSyn => t.tcp_syn,
        // RFC 5382 5: one side may send for as long as it likes after the other's FIN.
        State::TcpOpen | State::TcpClosing => t.tcp_established,
        State::TcpClosed | State::TcpReset => t.tcp_transitory,
        State::Udp => t.udp,
        State::Icmp => t.icmp,
        State::Other => t.other,
        State::Denied => DENIED_FOR,
    }
}

/// Ticks after which a denied flow is evaluated again, busy or not: its route may lead elsewhere by then.
const DENIED_FOR: u32 = Tick::of(Duration::from_secs(1));

/// Bits of the state word beside the state: FIN seen from the initiator, from the other side.
const FIN_SEEN: [u32; 2] = [1 << 8, 1 << 9];

/// The session counts for its inside host: flag in [`SessionMeta::ports`].
pub const NAT_HOST: u32 = 1 << 16;
/// The session has an entry in its binding's filter: flag in [`SessionMeta::ports`].
pub const NAT_FILTER_ENTRY: u32 = 1 << 17;
/// The first sequence number of the initiator, and of the other side, is known: flags in [`SessionMeta::ports`].
pub const ISN_KNOWN: [u32; 2] = [1 << 18, 1 << 19];

/// When the RST came, in the upper half of the state word: about seconds, as far as they fit.
const fn stamp(tick: u32) -> u32 {
    tick >> 6 << 16
}

/// Seconds (about) that packets may follow an RST before it counts as ignored: what was under way,
/// and RSTs that answer it.
const AFTERMATH: u16 = 3;

/// Whether a packet seen at `tick` came long after the RST of this state word.
const fn outlived(word: u32, tick: u32) -> bool {
    let since = ((tick >> 6) as u16).wrapping_sub((word >> 16) as u16);
    since > AFTERMATH && since < 0x8000
}

/// The state word of a session's first packet.
pub const fn first_word(proto: u8, tcp_flags: u8) -> u32 {
    let state = State::first(proto, tcp_flags);
    state as u32 | if matches!(state, State::TcpClosing) { FIN_SEEN[0] } else { 0 }
}

/// The first sequence number of a side, noted by its SYN: the upper half is enough.
pub fn note_isn(meta: &SessionMeta, side: usize, seq: u32) {
    let (at, known) = (16 * side as u32, ISN_KNOWN[side]);
    let old = meta.isn.load(Ordering::Relaxed);
    meta.isn.store(old & !(0xFFFF << at) | (seq >> 16) << at, Ordering::Relaxed);
    meta.ports.fetch_or(known, Ordering::Relaxed);
}

/// Whether an RST of one side can be the connection's: its sequence number is not before the side's
/// first, nor further than the bytes that the side has sent (RFC 5961 3 asks the hosts for more; they
/// see every segment, a worker sees few). `sent`: IP bytes of that side so far.
pub fn rst_in_window(meta: &SessionMeta, side: usize, seq: u32, ack: Option<u32>, sent: u64) -> bool {
    let flags = meta.ports.load(Ordering::Relaxed);
    let isn = |side: usize| (meta.isn.load(Ordering::Relaxed) >> (16 * side)) as u16;
    // In steps of 64 KiB; what was lost before it came here is covered by a few steps more.
    let within = |number: u32, first: u16, sent: u64| {
        u64::from(((number >> 16) as u16).wrapping_sub(first)) <= (sent >> 16) + 4
    };
    if flags & ISN_KNOWN[side] != 0 {
        return sent >= 1 << 31 || within(seq, isn(side), sent);
    }
    let state = State::from_u32(meta.state.load(Ordering::Acquire) & 0xFF);
    match (state, ack) {
        // The refusal of a SYN acknowledges it (RFC 9293 3.10.7.1).
        (Some(State::TcpSyn), Some(ack)) if flags & ISN_KNOWN[1 - side] != 0 => within(ack, isn(1 - side), 0),
        _ => true,
    }
}

/// The state word after a TCP segment with SYN, FIN or RST at `tick`. Words of other protocols stay.
pub const fn next_word(word: u32, tcp_flags: u8, reply: bool, tick: u32) -> u32 {
    let Some(state) = State::from_u32(word & 0xFF) else { return word };
    let fins = word & (FIN_SEEN[0] | FIN_SEEN[1]);
    match state {
        State::Udp | State::Icmp | State::Other | State::Denied => word,
        _ if tcp_flags & TCP_RST != 0 => State::TcpReset as u32 | fins | stamp(tick),
        // A new connection on the same five-tuple.
        State::TcpClosing | State::TcpClosed | State::TcpReset if tcp_flags & TCP_SYN != 0 && !reply => {
            State::TcpSyn as u32
        }
        State::TcpClosed | State::TcpReset => word,
        _ if tcp_flags & TCP_FIN != 0 => {
            let fins = fins | FIN_SEEN[reply as usize];
            let both = fins == FIN_SEEN[0] | FIN_SEEN[1];
            fins | if both { State::TcpClosed as u32 } else { State::TcpClosing as u32 }
        }
        State::TcpSyn if reply && tcp_flags & TCP_SYN != 0 => State::TcpOpen as u32,
        _ => word,
    }
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
    let ends = (R::endpoints(&fwd.key()), R::endpoints(&fwd.translated()));
    let (Some((host, _)), Some((_, remote))) = ends else { return true };
    let flags = meta.ports.load(Ordering::Relaxed);
    let [source, dest] = meta.bindings.each_ref().map(|b| b.load(Ordering::Relaxed));
    if flags & NAT_FILTER_ENTRY != 0 {
        nat.remove_filter_entry(BindingNo(source), remote.addr);
    }
    if flags & NAT_HOST != 0 {
        nat.host_session_ended(host.addr);
    }
    for b in [source, dest].into_iter().filter(|b| *b != 0).map(BindingNo) {
        let released = nat.release(b);
        if let (Some(block), Some(inside), true) =
            (released.block, released.inside, snap.nat.limits.log_blocks)
        {
            w.events.push(nat.block_event(b, block, inside.addr, false));
        }
    }
    true
}

/// Whether the other side has never answered.
pub fn unreplied<R: FlowRecord>(table: &FlowTable<R>, session: u32) -> bool {
    match State::of(table.meta(session)) {
        Some(State::TcpSyn | State::Denied) => true,
        Some(State::Udp | State::Icmp | State::Other) => {
            table.record(RecordNo::reverse(session)).packets().load(Ordering::Relaxed) == 0
        }
        _ => false,
    }
}

/// A worker's round over its share of the sessions: ages them and flushes their counters, a few at
/// a time so that packets do not wait.
#[derive(Debug)]
pub struct Sweeper {
    worker: u32,
    workers: u32,
    at: u32,
}

/// Sessions next to each other go to one worker in blocks of this size.
const BLOCK: u32 = 64;

impl Sweeper {
    /// For worker number `worker` of `workers`.
    pub fn new(worker: u32, workers: u32) -> Sweeper {
        Sweeper { worker, workers: workers.max(1), at: 0 }
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
        for _ in 0..budget {
            if self.at >= used {
                self.at = 0;
                table.release(deferred);
                return true;
            }
            if self.at.is_multiple_of(BLOCK) && (self.at / BLOCK) % self.workers != self.worker {
                self.at += BLOCK;
                continue;
            }
            let session = self.at;
            self.at += 1;
            let meta = table.meta(session);
            let Some(state) = State::of(meta) else { continue };
            flush_counters(table, session, snap);
            let idle = match state {
                State::Denied => now.since(Tick(meta.created.load(Ordering::Relaxed))),
                _ => idle(table, session, now),
            };
            if state == State::TcpReset {
                let word = meta.state.load(Ordering::Acquire);
                if outlived(word, now.0.wrapping_sub(idle)) {
                    // Lost to a packet that changes the state: it knows better.
                    let fins = word & (FIN_SEEN[0] | FIN_SEEN[1]);
                    let open = if fins == 0 { State::TcpOpen } else { State::TcpClosing } as u32 | fins;
                    let _ = meta.state.compare_exchange(word, open, Ordering::AcqRel, Ordering::Relaxed);
                    continue;
                }
            }
            if idle > idle_limit(state, &snap.options.timeouts)
                && end(table, session, snap, Ending { deferred, events, nat })
            {
                counters.sessions_ended.add(1);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u8, segments: &[(u8, bool)]) -> State {
        let word =
            segments.iter().fold(first_word(TCP, first), |w, &(flags, reply)| next_word(w, flags, reply, 0));
        State::from_u32(word & 0xFF).unwrap()
    }

    #[test]
    fn tcp_states() {
        use State::*;
        let (syn, synack, fin) = (TCP_SYN, TCP_SYN | TCP_ACK, TCP_FIN | TCP_ACK);
        assert_eq!(run(syn, &[]), TcpSyn);
        assert_eq!(run(syn, &[(syn, false)]), TcpSyn, "a repeated SYN");
        assert_eq!(run(syn, &[(synack, true)]), TcpOpen);
        assert_eq!(run(syn, &[(syn, true)]), TcpOpen, "both open at once");
        // Whoever closes first, and however often they say so.
        for first in [false, true] {
            assert_eq!(run(TCP_ACK, &[(fin, first)]), TcpClosing);
            assert_eq!(run(TCP_ACK, &[(fin, first), (fin, first)]), TcpClosing, "a repeated FIN");
            assert_eq!(run(TCP_ACK, &[(fin, first), (fin, !first)]), TcpClosed);
            assert_eq!(run(TCP_ACK, &[(TCP_RST, first)]), TcpReset);
            assert_eq!(run(TCP_ACK, &[(TCP_RST, first), (fin, first)]), TcpReset);
        }
        assert_eq!(run(fin, &[(fin, true)]), TcpClosed);
        assert_eq!(run(TCP_RST, &[(syn, false)]), TcpSyn, "a new connection");
        assert_eq!(run(TCP_RST, &[(syn, true)]), TcpReset);
        assert_eq!(run(TCP_ACK, &[(fin, false), (fin, true), (syn, false), (fin, false)]), TcpClosing);
        assert_eq!(run(TCP_ACK, &[(syn, false)]), TcpOpen, "a stray SYN does not shorten a connection");
        assert_eq!(next_word(first_word(UDP, 0), TCP_RST, false, 0), Udp as u32);
        assert_eq!(State::first(TCP, TCP_ACK), TcpOpen, "picked up in the middle");
        assert_eq!(next_word(0, TCP_SYN, false, 0), 0, "a free session stays free");
    }
}
