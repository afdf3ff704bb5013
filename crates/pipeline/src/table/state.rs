//! The states of a session.

use super::{FlowTable, SessionMeta};
use sag_model::flow::{FlowRecord, RecordNo};
use sag_packet::proto::*;
use std::sync::atomic::Ordering;

/// State of a session; the value of [`SessionMeta::state`](super::SessionMeta::state). Whether a session without a handshake
/// was answered is read from the reverse record's counter, so that packets need not touch this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// TCP during the handshake.
    TcpSyn = 1,
    /// TCP with a complete handshake.
    TcpOpen = 2,
    /// FIN seen from one side.
    TcpClosing = 3,
    /// FIN from both sides, or RST.
    TcpClosed = 4,
    /// UDP.
    Udp = 5,
    /// ICMP queries.
    Icmp = 6,
    /// Any other protocol.
    Other = 7,
    /// RST seen. If more than the answers to it follows, the connection was not over (RFC 7857 2.2).
    TcpReset = 8,
    /// Refused by a rule: one record, which drops. Nobody answers it and nothing belongs to it.
    Denied = 9,
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
        }
    }

    /// The state in which a session starts with its first packet.
    pub const fn first(proto: u8, tcp_flags: u8) -> State {
        match proto {
            TCP if tcp_flags & TCP_RST != 0 => State::TcpReset,
            TCP if tcp_flags & TCP_FIN != 0 => State::TcpClosing,
            TCP if tcp_flags & TCP_SYN != 0 && tcp_flags & TCP_ACK == 0 => State::TcpSyn,
            // Picked up in the middle (the gateway was restarted without its table).
            TCP => State::TcpOpen,
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
