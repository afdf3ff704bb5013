//! The states of a session.

use super::{FlowTable, SessionMeta};
use sag_model::flow::{FlowRecord, RecordNo};
use sag_packet::proto::*;
use std::sync::atomic::Ordering;

/// State of a session; the low byte of [`SessionMeta::state`](super::SessionMeta::state). Whether the other side of a
/// session has answered is a flag of its own ([`ANSWERED`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// TCP: SYN seen from the initiator alone.
    TcpSyn = 1,
    /// TCP with a complete handshake.
    TcpOpen = 2,
    /// FIN seen from one side.
    TcpClosing = 3,
    /// FIN from both sides.
    TcpClosed = 4,
    /// UDP.
    Udp = 5,
    /// ICMP queries.
    Icmp = 6,
    /// Any other protocol.
    Other = 7,
    /// RST of an established connection. If both sides go on sending, the connection was not over (RFC 7857 2.2).
    TcpReset = 8,
    /// Refused by a rule: one record, which drops. Nobody answers it and nothing belongs to it.
    Denied = 9,
    /// TCP picked up in the middle (the gateway was restarted without its table), which the other side has not
    /// confirmed: a lone segment makes no connection.
    TcpPicked = 10,
    /// TCP: SYN seen from both sides, and nothing from the initiator since. Its next packet completes the handshake;
    /// that one may pass in XDP, so it is noticed by the record's counter ([`crate::session::settled`]).
    TcpSynAck = 11,
    /// RST before the handshake was complete: a refusal.
    TcpRefused = 12,
}

/// The other side has answered: flag in [`SessionMeta::ports`](super::SessionMeta::ports).
pub const ANSWERED: u32 = 1 << 20;

/// What a session is worth when there is no room for all: the lowest make room first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// Refused, reset or closed.
    Over,
    /// The other side has not answered, or the handshake is not complete.
    HalfOpen,
    /// Traffic in both directions.
    Established,
}

impl Worth {
    /// Every value, the lowest first.
    pub const ALL: [Worth; 3] = [Worth::Over, Worth::HalfOpen, Worth::Established];

    /// Its word in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Worth::Over => "over",
            Worth::HalfOpen => "half-open",
            Worth::Established => "established",
        }
    }
}

impl State {
    /// Of a session; `None`: its word is no state.
    pub fn of(meta: &SessionMeta) -> Option<State> {
        State::from_u32(meta.state.load(Ordering::Acquire) & 0xFF)
    }

    /// From the number in a record.
    pub const fn from_u32(n: u32) -> Option<State> {
        Some(match n {
            1 => State::TcpSyn,
            2 => State::TcpOpen,
            3 => State::TcpClosing,
            4 => State::TcpClosed,
            5 => State::Udp,
            6 => State::Icmp,
            7 => State::Other,
            8 => State::TcpReset,
            9 => State::Denied,
            10 => State::TcpPicked,
            11 => State::TcpSynAck,
            12 => State::TcpRefused,
            _ => return None,
        })
    }

    /// Its word in lists of sessions.
    pub const fn name(self) -> &'static str {
        match self {
            State::TcpSyn => "syn",
            State::TcpOpen => "established",
            State::TcpClosing => "closing",
            State::TcpClosed => "closed",
            State::Udp => "udp",
            State::Icmp => "icmp",
            State::Other => "other",
            State::TcpReset => "reset",
            State::Denied => "denied",
            State::TcpPicked => "picked-up",
            State::TcpSynAck => "syn-ack",
            State::TcpRefused => "refused",
        }
    }

    /// What a session in this state is worth, if its other side has answered or not.
    pub const fn worth(self, answered: bool) -> Worth {
        match self {
            State::TcpClosed | State::TcpReset | State::TcpRefused | State::Denied => Worth::Over,
            State::TcpSyn | State::TcpSynAck | State::TcpPicked => Worth::HalfOpen,
            State::TcpOpen | State::TcpClosing => Worth::Established,
            State::Udp | State::Icmp | State::Other if answered => Worth::Established,
            State::Udp | State::Icmp | State::Other => Worth::HalfOpen,
        }
    }

    /// The state in which a session starts with its first packet.
    pub const fn first(proto: u8, tcp_flags: u8) -> State {
        match proto {
            TCP if tcp_flags & TCP_RST != 0 => State::TcpRefused,
            TCP if tcp_flags & (TCP_SYN | TCP_ACK | TCP_FIN) == TCP_SYN => State::TcpSyn,
            TCP => State::TcpPicked,
            UDP => State::Udp,
            ICMP | ICMPV6 => State::Icmp,
            _ => State::Other,
        }
    }
}

impl<R: FlowRecord> FlowTable<R> {
    /// Whether the record belongs to a flow that is only remembered in order to be dropped ([`State::Denied`]).
    pub fn is_denied(&self, no: RecordNo) -> bool {
        State::of(self.meta(no.session())) == Some(State::Denied)
    }
}
