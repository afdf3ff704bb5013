//! The states of a TCP connection, as far as packets that a worker sees tell them.

use crate::table::State;
use sag_packet::proto::*;

/// Bits of the state word beside the state: FIN seen from the initiator, from the other side.
pub(super) const FIN_SEEN: [u32; 2] = [1 << 8, 1 << 9];

/// Both of them.
pub(super) const FINS_SEEN: u32 = FIN_SEEN[0] | FIN_SEEN[1];

/// When the RST came, in the upper half of the state word: about seconds, as far as they fit.
pub(super) const fn stamp(tick: u32) -> u32 {
    tick >> 6 << 16
}

/// Seconds (about) that packets may follow an RST before it counts as ignored: what was under way,
/// and RSTs that answer it.
const AFTERMATH: u16 = 3;

/// Whether a packet seen at `tick` came long after the RST of this state word.
pub(super) const fn outlived(word: u32, tick: u32) -> bool {
    let since = ((tick >> 6) as u16).wrapping_sub((word >> 16) as u16);
    since > AFTERMATH && since < 0x8000
}

/// The state word of a session's first packet.
pub const fn first_word(proto: u8, tcp_flags: u8) -> u32 {
    let state = State::first(proto, tcp_flags);
    let fin = tcp_flags & TCP_FIN != 0 && matches!(state, State::TcpPicked);
    state as u32 | if fin { FIN_SEEN[0] } else { 0 }
}

/// The state of a word when the initiator has sent `sent` packets so far: one more than at the other side's SYN
/// completes the handshake. The upper half of [`State::TcpSynAck`]'s word is that number.
pub const fn settled(word: u32, sent: u64) -> Option<State> {
    match State::from_u32(word & 0xFF) {
        Some(State::TcpSynAck) if sent as u16 == (word >> 16) as u16 => Some(State::TcpSynAck),
        Some(State::TcpSynAck) if word & FINS_SEEN == FINS_SEEN => Some(State::TcpClosed),
        Some(State::TcpSynAck) if word & FINS_SEEN != 0 => Some(State::TcpClosing),
        Some(State::TcpSynAck) => Some(State::TcpOpen),
        state => state,
    }
}

/// Where in a session a TCP segment stands.
#[derive(Debug, Clone, Copy)]
pub struct Segment {
    /// Its flags.
    pub flags: u8,
    /// It comes from the other side.
    pub reply: bool,
    /// When.
    pub tick: u32,
    /// Packets of the initiator so far, this one included.
    pub sent: u64,
}

/// The state word after a TCP segment that a worker has seen: every one with SYN, FIN or RST, and the first one of
/// each direction. Words of other protocols stay.
pub const fn next_word(word: u32, s: Segment) -> u32 {
    let before = s.sent.wrapping_sub(!s.reply as u64);
    let Some(state) = settled(word, before) else { return word };
    let fins = word & FINS_SEEN | if s.flags & TCP_FIN != 0 { FIN_SEEN[s.reply as usize] } else { 0 };
    let (rst, syn) = (s.flags & TCP_RST != 0, s.flags & TCP_SYN != 0);
    match state {
        State::Udp | State::Icmp | State::Other | State::Denied => word,
        State::TcpSyn | State::TcpSynAck | State::TcpPicked | State::TcpRefused if rst => {
            State::TcpRefused as u32 | word & FINS_SEEN | stamp(s.tick)
        }
        _ if rst => State::TcpReset as u32 | word & FINS_SEEN | stamp(s.tick),
        State::TcpClosed | State::TcpReset | State::TcpRefused => word,
        State::TcpSyn | State::TcpPicked if s.reply && syn => {
            State::TcpSynAck as u32 | fins | (s.sent as u32) << 16
        }
        // Whatever the initiator says unheard makes no connection.
        State::TcpSyn => word,
        State::TcpPicked if !s.reply => word | fins,
        // A repeated SYN of either side, or the other side goes on alone.
        State::TcpSynAck if s.reply || syn => State::TcpSynAck as u32 | fins | (s.sent as u32) << 16,
        _ if fins == FINS_SEEN => State::TcpClosed as u32 | fins,
        _ if fins != 0 => State::TcpClosing as u32 | fins,
        _ => State::TcpOpen as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every segment is seen by a worker here, so the initiator's are counted as they come.
    fn run(first: u8, segments: &[(u8, bool)]) -> State {
        let mut sent = 1;
        let word = segments.iter().fold(first_word(TCP, first), |word, &(flags, reply)| {
            sent += u64::from(!reply);
            next_word(word, Segment { flags, reply, tick: 0, sent })
        });
        settled(word, sent).unwrap()
    }

    #[test]
    fn tcp_states() {
        use State::*;
        let (syn, synack, ack, fin, rst) = (TCP_SYN, TCP_SYN | TCP_ACK, TCP_ACK, TCP_FIN | TCP_ACK, TCP_RST);
        assert_eq!(run(syn, &[]), TcpSyn);
        assert_eq!(run(syn, &[(syn, false)]), TcpSyn, "a repeated SYN");
        assert_eq!(run(syn, &[(synack, true)]), TcpSynAck, "half open");
        assert_eq!(run(syn, &[(synack, true), (synack, true), (syn, false)]), TcpSynAck, "repeated");
        assert_eq!(run(syn, &[(synack, true), (ack, false)]), TcpOpen);
        assert_eq!(run(syn, &[(syn, true), (synack, false), (ack, false)]), TcpOpen, "both open at once");
        let open = [(synack, true), (ack, false)];
        let after = |more: &[(u8, bool)]| run(syn, &[&open[..], more].concat());
        // Whoever closes first, and however often they say so.
        for first in [false, true] {
            assert_eq!(after(&[(fin, first)]), TcpClosing);
            assert_eq!(after(&[(fin, first), (fin, first)]), TcpClosing, "a repeated FIN");
            assert_eq!(after(&[(fin, first), (fin, !first)]), TcpClosed);
            assert_eq!(after(&[(rst, first)]), TcpReset);
            assert_eq!(after(&[(rst, first), (fin, first)]), TcpReset);
            assert_eq!(run(syn, &[(synack, true), (rst, first)]), TcpRefused, "not established yet");
        }
        // A SYN that begins another connection does not come here: it has a session of its own.
        assert_eq!(after(&[(fin, false), (fin, true), (syn, false)]), TcpClosed, "a repeated SYN");
        assert_eq!(after(&[(fin, false), (syn, false)]), TcpClosing, "a repeated SYN");
        assert_eq!(after(&[(syn, false)]), TcpOpen, "a stray SYN does not shorten a connection");
        assert_eq!(run(syn, &[(rst, true)]), TcpRefused);
        assert_eq!(run(syn, &[(rst, true), (syn, true)]), TcpRefused);
        assert_eq!(run(syn, &[(rst, true), (rst, true)]), TcpRefused);
        let udp = Segment { flags: TCP_RST, reply: false, tick: 0, sent: 1 };
        assert_eq!(next_word(first_word(UDP, 0), udp), Udp as u32);
        assert_eq!(next_word(0, Segment { flags: TCP_SYN, ..udp }), 0, "a free session stays free");
    }

    #[test]
    fn what_one_side_says_alone_makes_no_connection() {
        use State::*;
        let (syn, synack, ack, fin) = (TCP_SYN, TCP_SYN | TCP_ACK, TCP_ACK, TCP_FIN | TCP_ACK);
        for alone in [ack, fin, synack, TCP_FIN, TCP_FIN | TCP_SYN, 0] {
            assert_eq!(run(alone, &[]), TcpPicked, "{alone:#x}");
            assert_eq!(run(alone, &[(ack, false), (fin, false), (syn, false)]), TcpPicked, "{alone:#x}");
            assert_eq!(run(alone, &[(TCP_RST, true)]), TcpRefused, "{alone:#x}");
        }
        assert_eq!(run(ack, &[(ack, true)]), TcpOpen, "confirmed by the other side");
        assert_eq!(run(fin, &[(ack, true)]), TcpClosing);
        assert_eq!(run(fin, &[(fin, true)]), TcpClosed);
        assert_eq!(run(syn, &[(ack, false), (fin, false)]), TcpSyn, "SYN, then blindly on");
        assert_eq!(run(syn, &[(TCP_RST, true), (ack, false), (fin, false)]), TcpRefused);
        assert_eq!(run(syn, &[(ack, true)]), TcpSyn, "a challenge ACK (RFC 5961)");
        let both = [(synack, true), (fin, true), (fin, false)];
        assert_eq!(run(syn, &both), TcpClosed);
        assert_eq!(run(ack, &[(syn, true), (fin, true), (ack, false)]), TcpClosing);
        assert_eq!(run(fin, &[(syn, true), (fin, true), (ack, false)]), TcpClosed);
    }

    #[test]
    fn a_connection_beside_counts_its_handshake_anew() {
        // 70,000 packets of the connection before; the counter of a record goes on.
        let at = |flags, reply, sent| Segment { flags, reply, tick: 0, sent };
        let word = next_word(State::TcpSyn as u32, at(TCP_SYN | TCP_ACK, true, 70_001));
        assert_eq!(settled(word, 70_001), Some(State::TcpSynAck));
        assert_eq!(settled(word, 70_002), Some(State::TcpOpen));
    }
}
