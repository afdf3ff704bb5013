//! The life of a session: states, idle times and what a sweep does.

use crate::counters::Counters;
use crate::snapshot::{Snapshot, Timeouts};
use crate::table::{FlowTable, Quarantine, SessionMeta};
use sag_model::flow::{FlowRecord, RecordNo};
use sag_model::time::Tick;
use sag_packet::proto::*;
use std::sync::atomic::Ordering;

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

    /// The state after a TCP segment with SYN, FIN or RST.
    pub const fn after(self, tcp_flags: u8, reply: bool) -> State {
        match self {
            State::Udp | State::Icmp | State::Other => self,
            _ if tcp_flags & TCP_RST != 0 => State::TcpClosed,
            // A new connection on the same five-tuple.
            State::TcpClosing | State::TcpClosed if tcp_flags & TCP_SYN != 0 && !reply => State::TcpSyn,
            State::TcpClosing if tcp_flags & TCP_FIN != 0 && reply => State::TcpClosed,
            State::TcpClosed => State::TcpClosed,
            _ if tcp_flags & TCP_FIN != 0 => State::TcpClosing,
            State::TcpSyn if reply && tcp_flags & TCP_SYN != 0 => State::TcpOpen,
            same => same,
        }
    }

    const fn idle_limit(self, t: &Timeouts, replied: bool) -> u32 {
        match self {
            State::TcpSyn if !replied => t.tcp_syn,
            State::TcpSyn | State::TcpOpen => t.tcp_established,
            State::TcpClosing | State::TcpClosed => t.tcp_transitory,
            State::Udp => t.udp,
            State::Icmp => t.icmp,
            State::Other => t.other,
        }
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

/// Adds what a session counted since the last time to its rule's counters.
pub fn settle<R: FlowRecord>(table: &FlowTable<R>, session: u32, snap: &Snapshot) {
    let meta = table.meta(session);
    let (a, b) = (table.record(RecordNo(session * 2)), table.record(RecordNo(session * 2 + 1)));
    let sum = |f: fn(&R) -> &std::sync::atomic::AtomicU64| {
        f(a).load(Ordering::Relaxed).wrapping_add(f(b).load(Ordering::Relaxed))
    };
    let (packets, bytes) = (sum(R::packets), sum(R::bytes));
    let new_packets = packets.wrapping_sub(meta.counted_packets.swap(packets, Ordering::Relaxed));
    let new_bytes = bytes.wrapping_sub(meta.counted_bytes.swap(bytes, Ordering::Relaxed));
    let rule = meta.rule.load(Ordering::Relaxed);
    if new_packets == 0 || rule == 0 {
        return;
    }
    if let Some(stats) = snap.acl.stats(rule - 1) {
        let seen = |r: &R| r.last_seen().load(Ordering::Relaxed);
        let last = if Tick(seen(a)).since(Tick(seen(b))) < u32::MAX / 2 { seen(a) } else { seen(b) };
        stats.hit(new_packets, new_bytes, last);
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
            let replied = table.record(RecordNo(session * 2 + 1)).packets().load(Ordering::Relaxed) > 0;
            let limit = state.idle_limit(&snap.options.timeouts, replied);
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

    #[test]
    fn tcp_states() {
        use State::*;
        let s = State::first(TCP, TCP_SYN);
        assert_eq!(s, TcpSyn);
        let s = s.after(TCP_SYN | TCP_ACK, true);
        assert_eq!(s, TcpOpen);
        let s = s.after(TCP_FIN | TCP_ACK, false);
        assert_eq!(s, TcpClosing);
        assert_eq!(s.after(TCP_FIN | TCP_ACK, true), TcpClosed);
        assert_eq!(TcpOpen.after(TCP_RST, true), TcpClosed);
        assert_eq!(TcpClosed.after(TCP_SYN, false), TcpSyn);
        assert_eq!(TcpOpen.after(TCP_SYN, false), TcpOpen, "a stray SYN does not shorten a connection");
        assert_eq!(State::first(UDP, 0).after(TCP_RST, false), Udp);
        assert_eq!(State::first(TCP, TCP_ACK), TcpOpen);
    }
}
