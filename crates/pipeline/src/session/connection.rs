//! Which connection a TCP segment belongs to. A host that has lost its state, or that uses its port again, begins another
//! connection on the five-tuple of a session (RFC 9293 3.5.1, RFC 5961 4, RFC 6191). What its segments mean is told by
//! their numbers: those of the session's connection, and one of a connection beside it.
//!
//! | the SYN meets | it is |
//! |---|---|
//! | a session that is over | the first packet of a new session, in whatever direction |
//! | a SYN that nobody has answered | the same attempt, or the other side's half of it |
//! | a session that may be alive | judged as a new one; if the rules admit it, it passes beside the session, and the hosts say what is true: by a challenge ACK and an RST of the old numbers, or by an answer that acknowledges it |

use super::ISN_KNOWN;
use crate::table::{SessionMeta, State};
use sag_packet::proto::*;
use std::sync::atomic::Ordering;

/// [`SessionMeta::other`] is a number of the initiator, or of the other side: flags in
/// [`SessionMeta::ports`](crate::table::SessionMeta::ports).
const OTHER_KNOWN: [u32; 2] = [1 << 21, 1 << 22];
/// It is one more than that of a SYN which the rules have admitted: flag beside them.
const OTHER_SYN: u32 = 1 << 23;
/// What is known of the numbers of a session's segments.
pub(super) const NUMBERS_KNOWN: u32 =
    ISN_KNOWN[0] | ISN_KNOWN[1] | OTHER_KNOWN[0] | OTHER_KNOWN[1] | OTHER_SYN;

/// What a TCP segment says of its connection.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// Its flags.
    pub flags: u8,
    /// Who has sent it: 0 the initiator of the session, 1 the other side.
    pub side: usize,
    /// Its sequence number, as the client knows it.
    pub seq: u32,
    /// What it acknowledges.
    pub ack: Option<u32>,
    /// IP bytes of each side so far.
    pub sent: [u64; 2],
}

/// How a SYN that begins another connection stands to the session that it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewConnection {
    /// The session is over and makes way.
    Replaces,
    /// The session's connection may be alive.
    Contends,
}

/// What a segment does to the state of the session that it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is the connection's.
    Follow,
    /// It is none of the connection's, or says nothing that its hosts would heed.
    Ignore,
}

/// The first sequence number of a side, noted by its SYN: the upper half is enough.
pub fn note_isn(meta: &SessionMeta, side: usize, seq: u32) {
    let (at, known) = (16 * side as u32, ISN_KNOWN[side]);
    let old = meta.isn.load(Ordering::Relaxed);
    meta.isn.store(old & !(0xFFFF << at) | (seq >> 16) << at, Ordering::Relaxed);
    meta.ports.fetch_or(known, Ordering::Relaxed);
}

/// Whether one side can have sent this sequence number: it is not before the side's first, nor further than the bytes
/// that the side has sent. `sent`: IP bytes of that side so far. A connection whose beginning was not seen has no window.
pub fn sent_in_window(meta: &SessionMeta, side: usize, seq: u32, sent: u64) -> bool {
    if !is_isn_known(meta, side) || sent >= 1 << 31 {
        return true;
    }
    // In steps of 64 KiB; what was lost before it came here is covered by a few steps more.
    u64::from(((seq >> 16) as u16).wrapping_sub(isn(meta, side))) <= (sent >> 16) + 4
}

/// Whether a side has sent the segment with this sequence number that an ICMP error quotes.
pub fn quote_in_window(meta: &SessionMeta, side: usize, seq: u32, sent: u64) -> bool {
    sent_in_window(meta, side, seq, sent) || is_other(meta, side, seq.wrapping_add(1), true)
}

/// Whether an RST can be the connection's, or answers one beside it. Its sequence number is not before its side's first,
/// nor further than the bytes that the side has sent (RFC 5961 3 asks the hosts for more; they see every segment, a
/// worker sees few).
pub fn rst_in_window(meta: &SessionMeta, state: Option<State>, n: &Numbers) -> bool {
    if is_of_other(meta, n) {
        return true;
    }
    if is_isn_known(meta, n.side) {
        return sent_in_window(meta, n.side, n.seq, n.sent[n.side]);
    }
    match (state, n.ack) {
        // The refusal of a SYN acknowledges it (RFC 9293 3.10.7.1).
        (Some(State::TcpSyn), Some(ack)) if n.side == 1 => sent_in_window(meta, 0, ack, 0),
        _ => true,
    }
}

/// Whether a segment begins another connection than that of the session which it meets.
pub fn new_connection(meta: &SessionMeta, state: Option<State>, n: &Numbers) -> Option<NewConnection> {
    if n.flags & (TCP_SYN | TCP_ACK | TCP_RST) != TCP_SYN {
        return None;
    }
    match state? {
        State::TcpClosed | State::TcpReset | State::TcpRefused => Some(NewConnection::Replaces),
        State::TcpSynAck => {
            // After a restart the initiator's number is not known; its handshake is under way.
            let repeated = is_first(meta, n.side, n.seq) || (n.side == 0 && !is_isn_known(meta, 0));
            (!repeated).then_some(NewConnection::Contends)
        }
        // Whatever its number is: whoever sends it may choose that.
        State::TcpOpen | State::TcpClosing | State::TcpPicked => Some(NewConnection::Contends),
        // Nobody has answered: another attempt, or both open at once (RFC 9293 3.5).
        State::TcpSyn => None,
        State::Udp | State::Icmp | State::Other | State::Denied => None,
    }
}

/// Whether a segment of the initiator accepts a connection which the other side has begun. Both have forgotten the
/// session's.
pub fn is_reversed(meta: &SessionMeta, n: &Numbers) -> bool {
    let accepts = n.flags & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN | TCP_ACK;
    accepts && n.side == 0 && n.ack.is_some_and(|ack| is_other(meta, 1, ack, true))
}

/// Whether a segment of the other side accepts the connection that the initiator has begun beside the session's.
pub fn is_accepted(meta: &SessionMeta, n: &Numbers) -> bool {
    let accepts = n.flags & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN | TCP_ACK;
    accepts && n.side == 1 && n.ack.is_some_and(|ack| is_other(meta, 0, ack, true))
}

/// Notes the numbers of a segment with SYN, FIN or RST, or of the first answer, and says whether the state of the session
/// follows it. A SYN that [`NewConnection::Replaces`] the session does not come here.
pub fn note_numbers(meta: &SessionMeta, state: Option<State>, n: &Numbers) -> Effect {
    let Some(state) = state else { return Effect::Follow };
    if n.flags & TCP_RST != 0 {
        // Who has sent a SYN alone does not heed an RST that acknowledges nothing (RFC 9293 3.10.7.3).
        let unheeded = state == State::TcpSyn && n.side == 1 && n.ack.is_none();
        let own = is_isn_known(meta, n.side) && sent_in_window(meta, n.side, n.seq, n.sent[n.side]);
        return if unheeded || (is_of_other(meta, n) && !own) { Effect::Ignore } else { Effect::Follow };
    }
    if n.flags & TCP_SYN == 0 {
        return match (state, n.ack) {
            // A challenge ACK of a connection that the initiator does not know any more: it will reset what this
            // acknowledges (RFC 9293 3.5.1).
            (State::TcpSyn, Some(ack)) if n.side == 1 && !sent_in_window(meta, 0, ack, n.sent[0]) => {
                note_other(meta, 0, ack, false);
                Effect::Ignore
            }
            _ if sent_in_window(meta, n.side, n.seq, n.sent[n.side]) => Effect::Follow,
            _ => Effect::Ignore,
        };
    }
    match n.ack {
        None => note_syn(meta, state, n),
        Some(ack) => note_syn_ack(meta, state, n, ack),
    }
}

fn note_syn(meta: &SessionMeta, state: State, n: &Numbers) -> Effect {
    if new_connection(meta, Some(state), n).is_some() {
        note_other(meta, n.side, n.seq.wrapping_add(1), true);
        return Effect::Ignore;
    }
    // A repeated one says nothing new, and one after a restart may be another connection's.
    if state == State::TcpSyn {
        note_isn(meta, n.side, n.seq);
    }
    Effect::Follow
}

fn note_syn_ack(meta: &SessionMeta, state: State, n: &Numbers, ack: u32) -> Effect {
    if is_accepted(meta, n) {
        // Both hosts have another connection than the session had.
        let word = meta.state.load(Ordering::Acquire);
        let begun = State::TcpSyn as u32;
        if meta.state.compare_exchange(word, begun, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Effect::Ignore;
        }
        note_isn(meta, 0, ack.wrapping_sub(1));
        note_isn(meta, 1, n.seq);
        meta.ports.fetch_and(!(OTHER_KNOWN[0] | OTHER_KNOWN[1] | OTHER_SYN), Ordering::Relaxed);
        return Effect::Follow;
    }
    match state {
        // The answer to a SYN of long ago (RFC 9293 3.5, figure 9): the initiator will reset what it acknowledges.
        State::TcpSyn if n.side == 1 && !sent_in_window(meta, 0, ack, n.sent[0]) => {
            note_other(meta, 0, ack, false);
            Effect::Ignore
        }
        State::TcpSyn | State::TcpPicked if n.side == 1 => {
            note_isn(meta, 1, n.seq);
            Effect::Follow
        }
        _ if is_first(meta, n.side, n.seq) => Effect::Follow,
        // The SYN from the other side was somebody else's: this one knows what the initiator has sent.
        State::TcpSynAck
            if n.side == 1 && is_isn_known(meta, 0) && sent_in_window(meta, 0, ack, n.sent[0]) =>
        {
            note_isn(meta, 1, n.seq);
            Effect::Follow
        }
        // Of a handshake that an earlier daemon has seen begin.
        State::TcpSynAck if !is_isn_known(meta, n.side) => {
            note_isn(meta, n.side, n.seq);
            Effect::Follow
        }
        _ => Effect::Ignore,
    }
}

fn note_other(meta: &SessionMeta, side: usize, number: u32, is_syn: bool) {
    meta.other.store(number, Ordering::Relaxed);
    let set = OTHER_KNOWN[side] | if is_syn { OTHER_SYN } else { 0 };
    let clear = OTHER_KNOWN[0] | OTHER_KNOWN[1] | OTHER_SYN;
    let update = |flags: u32| Some(flags & !clear | set);
    let _ = meta.ports.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
}

/// Whether this number of a side is that of the connection beside. `of_syn`: which a SYN has begun.
fn is_other(meta: &SessionMeta, side: usize, number: u32, of_syn: bool) -> bool {
    let want = OTHER_KNOWN[side] | if of_syn { OTHER_SYN } else { 0 };
    meta.ports.load(Ordering::Relaxed) & want == want && meta.other.load(Ordering::Relaxed) == number
}

/// Whether an RST answers a segment of the connection beside: it has the number that was acknowledged, or it refuses the
/// SYN.
fn is_of_other(meta: &SessionMeta, n: &Numbers) -> bool {
    is_other(meta, n.side, n.seq, false) || n.ack.is_some_and(|ack| is_other(meta, 1 - n.side, ack, true))
}

fn is_isn_known(meta: &SessionMeta, side: usize) -> bool {
    meta.ports.load(Ordering::Relaxed) & ISN_KNOWN[side] != 0
}

fn isn(meta: &SessionMeta, side: usize) -> u16 {
    (meta.isn.load(Ordering::Relaxed) >> (16 * side)) as u16
}

/// Whether this is the number of the side's SYN.
fn is_first(meta: &SessionMeta, side: usize, seq: u32) -> bool {
    is_isn_known(meta, side) && isn(meta, side) == (seq >> 16) as u16
}
