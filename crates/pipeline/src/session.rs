//! The life of a session: states, idle times and what a sweep does.

use crate::counters::Counters;
use crate::snapshot::{Snapshot, Timeouts};
use crate::table::{FlowTable, Quarantine, SAME_RULE, SessionMeta};
use sag_model::flow::{FlowRecord, RecordNo};
use sag_model::time::Tick;
use sag_packet::proto::*;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// State of a session; the value of [`SessionMeta::state`]. Whether a session without a handshake
/// was answered is read from the reverse record's counter, so that packets need not touch this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    TcpSyn = 1,
    TcpOpen = 2,
    /// FIN seen from one side.
    TcpClosing = 3,
    /// FIN from both sides, or RST.
    TcpClosed = 4,
    Udp = 5,
    Icmp = 6,
    Other = 7,
}

impl State {
    pub fn of(meta: &SessionMeta) -> Option<State> {
        State::from_u32(meta.state.load(Ordering::Acquire) & 0xFF)
    }

    pub const fn from_u32(n: u32) -> Option<State> {
        Some(match n {
            1 => State::TcpSyn,
            2 => State::TcpOpen,
            3 => State::TcpClosing,
            4 => State::TcpClosed,
            5 => State::Udp,
            6 => State::Icmp,
            7 => State::Other,
            _ => return None,
        })
    }

    pub const fn name(self) -> &'static str {
        match self {
            State::TcpSyn => "syn",
            State::TcpOpen => "established",
            State::TcpClosing => "closing",
            State::TcpClosed => "closed",
            State::Udp => "udp",
            State::Icmp => "icmp",
            State::Other => "other",
        }
    }

    /// The state in which a session starts with its first packet.
    pub const fn first(proto: u8, tcp_flags: u8) -> State {
        match proto {
            TCP if tcp_flags & TCP_RST != 0 => State::TcpClosed,
            TCP if tcp_flags & TCP_FIN != 0 => State::TcpClosing,
            TCP if tcp_flags & TCP_SYN != 0 && tcp_flags & TCP_ACK == 0 => State::TcpSyn,
            // Picked up in the middle (the gateway was restarted without its table).
            TCP => State::TcpOpen,
            UDP => State::Udp,
            ICMP | ICMPV6 => State::Icmp,
            _ => State::Other,
        }
    }

    const fn idle_limit(self, t: &Timeouts) -> u32 {
        match self {
            State::TcpSyn => t.tcp_syn,
            State::TcpOpen => t.tcp_established,
            State::TcpClosing | State::TcpClosed => t.tcp_transitory,
            State::Udp => t.udp,
            State::Icmp => t.icmp,
            State::Other => t.other,
        }
    }
}

/// Bits of the state word beside the state: FIN seen from the initiator, from the other side.
const FIN_SEEN: [u32; 2] = [1 << 8, 1 << 9];

/// The state word of a session's first packet.
pub const fn first_word(proto: u8, tcp_flags: u8) -> u32 {
    let state = State::first(proto, tcp_flags);
    state as u32 | if matches!(state, State::TcpClosing) { FIN_SEEN[0] } else { 0 }
}

/// The state word after a TCP segment with SYN, FIN or RST. Words of other protocols stay.
pub const fn next_word(word: u32, tcp_flags: u8, reply: bool) -> u32 {
    let Some(state) = State::from_u32(word & 0xFF) else { return word };
    let fins = word & (FIN_SEEN[0] | FIN_SEEN[1]);
    match state {
        State::Udp | State::Icmp | State::Other => word,
        _ if tcp_flags & TCP_RST != 0 => State::TcpClosed as u32 | fins,
        // A new connection on the same five-tuple.
        State::TcpClosing | State::TcpClosed if tcp_flags & TCP_SYN != 0 && !reply => State::TcpSyn as u32,
        State::TcpClosed => word,
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
    since(RecordNo(session * 2)).min(since(RecordNo(session * 2 + 1)))
}

/// Moves a mark forward to `now` and returns by how much. Of several threads that look at once each
/// step is told to one; a thread with an older reading moves nothing.
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
pub fn settle<R: FlowRecord>(table: &FlowTable<R>, session: u32, snap: &Snapshot) {
    let meta = table.meta(session);
    let rule = meta.rule.load(Ordering::Relaxed);
    let reply_rule = match meta.reply_rule.load(Ordering::Relaxed) {
        SAME_RULE => rule,
        own => own,
    };
    for (way, rule) in [rule, reply_rule].into_iter().enumerate() {
        let r = table.record(RecordNo(session * 2 + way as u32));
        let (packets, bytes) = (r.packets().load(Ordering::Relaxed), r.bytes().load(Ordering::Relaxed));
        let new_packets = u64::from(advance32(&meta.counted_packets[way], packets as u32));
        let new_bytes = advance(&meta.counted_bytes[way], bytes);
        if new_packets == 0 || rule == 0 {
            continue;
        }
        if let Some(stats) = snap.acl.stats(rule - 1) {
            stats.hit(new_packets, new_bytes, r.last_seen().load(Ordering::Relaxed));
        }
    }
}

/// A worker's round over its share of the sessions: ages them and settles their counters, a few at
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
    pub fn new(worker: u32, workers: u32) -> Sweeper {
        Sweeper { worker, workers: workers.max(1), at: 0 }
    }

    /// Sweeps up to `budget` sessions; returns true when a round over all is complete.
    pub fn step<R: FlowRecord>(
        &mut self,
        table: &FlowTable<R>,
        quarantine: &mut Quarantine,
        snap: &Snapshot,
        now: Tick,
        budget: u32,
        counters: &Counters,
    ) -> bool {
        let end = table.used();
        for _ in 0..budget {
            if self.at >= end {
                self.at = 0;
                table.release(quarantine);
                return true;
            }
            if self.at.is_multiple_of(BLOCK) && (self.at / BLOCK) % self.workers != self.worker {
                self.at += BLOCK;
                continue;
            }
            let session = self.at;
            self.at += 1;
            let Some(state) = State::of(table.meta(session)) else { continue };
            settle(table, session, snap);
            let limit = state.idle_limit(&snap.options.timeouts);
            if idle(table, session, now) > limit && table.remove(session, quarantine) {
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
            segments.iter().fold(first_word(TCP, first), |w, &(flags, reply)| next_word(w, flags, reply));
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
            assert_eq!(run(TCP_ACK, &[(TCP_RST, first)]), TcpClosed);
            assert_eq!(run(TCP_ACK, &[(TCP_RST, first), (fin, first)]), TcpClosed);
        }
        assert_eq!(run(fin, &[(fin, true)]), TcpClosed);
        assert_eq!(run(TCP_RST, &[(syn, false)]), TcpSyn, "a new connection");
        assert_eq!(run(TCP_RST, &[(syn, true)]), TcpClosed);
        assert_eq!(run(TCP_ACK, &[(fin, false), (fin, true), (syn, false), (fin, false)]), TcpClosing);
        assert_eq!(run(TCP_ACK, &[(syn, false)]), TcpOpen, "a stray SYN does not shorten a connection");
        assert_eq!(next_word(first_word(UDP, 0), TCP_RST, false), Udp as u32);
        assert_eq!(State::first(TCP, TCP_ACK), TcpOpen, "picked up in the middle");
        assert_eq!(next_word(0, TCP_SYN, false), 0, "a free session stays free");
    }
}
