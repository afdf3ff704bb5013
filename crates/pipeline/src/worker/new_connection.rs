//! Which connection of its five-tuple a TCP segment belongs to ([`session::Numbers`]). A SYN that begins another one than the
//! session's is judged as a packet of no session, whichever side has sent it.

use super::slow::Seen;
use super::{BatchEntry, Pipeline};
use crate::nat::{BindingNo, Endpoint, is_number};
use crate::session::{self, NewConnection, Numbers};
use crate::snapshot::Snapshot;
use crate::stages::{Disposition, ForwardDecision};
use crate::syn_cookie::Proxied;
use crate::table::{FlowTable, SessionMeta, State};
use crate::tables::SharedTable;
use sag_model::Nanos;
use sag_model::flow::RecordNo;
use sag_packet::parse::{L4, Parsed};
use sag_packet::proto::{TCP_ACK, TCP_RST, TCP_SYN};
use std::sync::atomic::{AtomicU32, Ordering};

/// What the stages say of a packet.
pub(super) type Walked = (Seen, Result<ForwardDecision, Disposition>);

/// Bindings of a session that has made way, held until its successor has them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HeldBindings([Option<BindingNo>; 2]);

/// Sequence number of a TCP segment, and what it acknowledges.
pub(super) fn tcp_numbers(p: &Parsed, frame: &[u8]) -> Option<(u32, Option<u32>)> {
    let L4::Tcp { flags } = p.l4 else { return None };
    let h: &[u8; 12] = frame.get(usize::from(p.l4_at)..)?.first_chunk()?;
    let seq = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
    let ack = u32::from_be_bytes([h[8], h[9], h[10], h[11]]);
    Some((seq, (flags & TCP_ACK != 0).then_some(ack)))
}

/// The numbers of a TCP segment that a record was found for.
pub(super) fn numbers<R: SharedTable>(
    table: &FlowTable<R>,
    s: &BatchEntry,
    no: RecordNo,
    frame: &[u8],
) -> Option<Numbers> {
    let L4::Tcp { flags } = s.p.l4 else { return None };
    let (seq, ack) = tcp_numbers(&s.p, frame)?;
    let sent = RecordNo::both(no.session()).map(|no| table.record(no).bytes().load(Ordering::Relaxed));
    let side = no.direction();
    Some(Numbers { flags, side, seq: Pipeline::as_client_sees(table, no, seq), ack, sent })
}

impl Pipeline {
    /// Whether the packet is an RST that cannot be its connection's.
    #[inline(always)]
    pub(super) fn is_out_of_window<R: SharedTable>(&self, s: &BatchEntry, frame: &[u8]) -> bool {
        let (Some(no), L4::Tcp { flags }) = (s.found, s.p.l4) else { return false };
        if flags & TCP_RST == 0 {
            return false;
        }
        let table = R::table(&self.tables);
        let state = session::state_of(table, no.session());
        let meta = table.meta(no.session());
        numbers(table, s, no, frame).is_some_and(|n| !session::rst_in_window(meta, state, &n))
    }

    /// A sequence number of a side, that of the record, as the client knows it.
    pub(super) fn as_client_sees<R: SharedTable>(table: &FlowTable<R>, no: RecordNo, seq: u32) -> u32 {
        let by = table.proxied(no.session()).filter(|_| no.direction() == 1).map_or(0, Proxied::by);
        seq.wrapping_add(by)
    }

    /// Whether a side of a connection, that of the record, has sent a segment with this sequence number, as far as a
    /// worker knows (RFC 5927 4.1).
    pub(super) fn is_quote_in_window<R: SharedTable>(
        table: &FlowTable<R>,
        no: RecordNo,
        sequence: u32,
    ) -> bool {
        let sent = table.record(no).bytes().load(Ordering::Relaxed);
        session::quote_in_window(table.meta(no.session()), no.direction(), sequence, sent)
    }

    /// How a packet stands to the session that was found for it, if it begins another connection.
    pub(super) fn new_connection<R: SharedTable>(
        &self,
        s: &BatchEntry,
        frame: &[u8],
    ) -> Option<NewConnection> {
        let (Some(no), L4::Tcp { flags }) = (s.found, s.p.l4) else { return None };
        if flags & (TCP_SYN | TCP_ACK | TCP_RST) != TCP_SYN {
            return None;
        }
        let table = R::table(&self.tables);
        let state = session::state_of(table, no.session());
        session::new_connection(table.meta(no.session()), state, &numbers(table, s, no, frame)?)
    }

    /// The stages for a packet that begins another connection than its session's. If the rules admit it, a session that
    /// is over ends, and one that may be alive stays the packet's; if not, nothing changes.
    pub(super) fn judge_anew<R: SharedTable>(
        &mut self,
        snap: &Snapshot,
        s: &mut BatchEntry,
        frame: &[u8],
        how: NewConnection,
    ) -> (Walked, HeldBindings) {
        let judged = self.evaluate_stages::<R>(snap, &BatchEntry { found: None, ..*s }, frame);
        let (Some(no), Ok(_)) = (s.found, &judged.1) else { return (judged, HeldBindings::default()) };
        if how == NewConnection::Contends {
            let walked = self.evaluate_stages::<R>(snap, s, frame);
            // A session whose translation is gone makes way as well.
            if !matches!(walked.1, Err(Disposition::SessionInvalid)) {
                return (walked, HeldBindings::default());
            }
        }
        let held = self.hold_bindings(R::table(&self.tables), no.session());
        self.end::<R>(snap, no.session());
        s.found = None;
        (judged, held)
    }

    /// Takes a share of a session's bindings, so that its successor has the same ports.
    fn hold_bindings<R: SharedTable>(&self, table: &FlowTable<R>, session: u32) -> HeldBindings {
        let r = table.record(RecordNo::forward(session));
        if r.crosses() {
            return self.hold_bindings64(table.meta(session));
        }
        let (Some((inside, _)), Some((_, mut dest))) =
            (R::endpoints(&r.key()), R::endpoints(&r.translated()))
        else {
            return HeldBindings::default();
        };
        dest.vrf = R::vrf(&table.record(RecordNo::reverse(session)).key());
        let SessionMeta { bindings: [source, target], .. } = table.meta(session);
        let hold = |binding: &AtomicU32, inside: Endpoint| {
            let binding = BindingNo(binding.load(Ordering::Relaxed));
            (binding.0 != 0 && self.tables.nat.share(binding, inside)).then_some(binding)
        };
        HeldBindings([hold(source, inside), hold(target, dest)])
    }

    /// The same of a NAT64 session, and of the numbers of its hosts, by which its bindings know them.
    fn hold_bindings64(&self, meta: &SessionMeta) -> HeldBindings {
        let nat = &self.tables.nat;
        HeldBindings(meta.bindings.each_ref().map(|b| {
            let binding = BindingNo(b.load(Ordering::Relaxed));
            let inside = nat.inside_of(binding).filter(|_| binding.0 != 0)?;
            nat.host6_session_shares(inside.addr)?;
            if nat.share(binding, inside) {
                return Some(binding);
            }
            nat.host6_session_ended(inside.addr);
            None
        }))
    }

    /// The successor has what it needs, or there is none.
    pub(super) fn release_held(&mut self, snap: &Snapshot, held: HeldBindings) {
        for binding in held.0.into_iter().flatten() {
            let inside = self.tables.nat.inside_of(binding).filter(|i| is_number(i.addr));
            session::release_binding(&self.tables.nat, snap, &mut self.sessions.events, binding);
            if let Some(inside) = inside {
                self.tables.nat.host6_session_ended(inside.addr);
            }
        }
    }

    /// Whether both hosts have forgotten the session's connection, and the initiator accepts one that the other side has
    /// begun. The session ends with that; the SYN, sent again, makes one of its own direction.
    pub(super) fn is_reversed<R: SharedTable>(&self, now: Nanos, s: &BatchEntry, frame: &[u8]) -> bool {
        let (Some(no), L4::Tcp { flags }) = (s.found, s.p.l4) else { return false };
        if flags & TCP_SYN == 0 || no.direction() == 1 {
            return false;
        }
        let table = R::table(&self.tables);
        let meta = table.meta(no.session());
        let reversed = numbers(table, s, no, frame).is_some_and(|n| session::is_reversed(meta, &n));
        if reversed && session::state_of(table, no.session()) != Some(State::TcpReset) {
            session::abandon(table, no.session(), now.tick());
            return true;
        }
        false
    }
}
