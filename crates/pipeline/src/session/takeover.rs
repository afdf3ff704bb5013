//! Sessions of an earlier daemon: their state is noted in their forward records, which outlive it, so that none is
//! worth more after a restart than it was before.

use super::tcp::{FIN_SEEN, FINS_SEEN, stamp};
use crate::family::FlowFamily;
use crate::table::{FlowTable, Restored, SessionMeta, State};
use sag_model::VrfNo;
use sag_model::flow::{FLOW_STATE_SHIFT, FlowRecord, RecordNo};
use sag_packet::proto::TCP;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// [`State::TcpClosing`] after a FIN of the other side, not of the initiator.
const CLOSING_BY_REPLY: u8 = 13;

/// Where the state is in an action word.
const SHIFT: u32 = 40 + FLOW_STATE_SHIFT as u32;

/// The flags of a forward record that stand for a state word.
pub const fn state_flags(word: u32) -> u8 {
    let code = match State::from_u32(word & 0xFF) {
        Some(State::TcpClosing) if word & FINS_SEEN == FIN_SEEN[1] => CLOSING_BY_REPLY,
        Some(state) => state as u8,
        None => 0,
    };
    code << FLOW_STATE_SHIFT
}

/// Notes a session's state in its forward record. Whoever changes one of the two comes here after it, so that the
/// last one leaves them in agreement.
pub(super) fn note_state<R: FlowRecord>(table: &FlowTable<R>, session: u32) {
    let action = table.record(RecordNo::forward(session)).action();
    for _ in 0..4 {
        let flags = u64::from(state_flags(table.meta(session).state.load(Ordering::Acquire)));
        let old = action.load(Ordering::Relaxed);
        let new = old & !(0xF << SHIFT) | flags << 40;
        if new == old {
            return;
        }
        if action.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return table.mark_changed(session);
        }
    }
}

/// The state word of a session that an earlier daemon has left.
fn left_word<R: FlowFamily>(forward: &R, reverse: &R) -> u32 {
    let answered = reverse.packets().load(Ordering::Relaxed) > 0;
    let code = (forward.action().load(Ordering::Relaxed) >> SHIFT) as u8 & 0xF;
    let seen = [forward, reverse].map(|r| r.last_seen().load(Ordering::Relaxed));
    let noted = Noted { proto: R::tuple(&forward.key()).proto, code, answered, seen: seen[0].max(seen[1]) };
    noted.word(forward.packets().load(Ordering::Relaxed))
}

/// A state as a forward record notes it, and what goes with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted {
    pub proto: u8,
    /// The four bits of [`state_flags`].
    pub code: u8,
    /// The other side has answered.
    pub answered: bool,
    /// Tick of the last packet.
    pub seen: u32,
}

impl Noted {
    /// The state word of the session, whose initiator has sent so many packets by its record.
    pub fn word(self, sent: u64) -> u32 {
        if self.proto != TCP {
            return State::first(self.proto, 0) as u32;
        }
        match State::from_u32(self.code.into()) {
            Some(State::TcpClosing) => State::TcpClosing as u32 | FIN_SEEN[0],
            Some(State::TcpClosed) => State::TcpClosed as u32 | FINS_SEEN,
            Some(state @ (State::TcpReset | State::TcpRefused)) => state as u32 | stamp(self.seen),
            // Whatever the initiator has sent before does not count: its next packet completes the handshake.
            Some(State::TcpSynAck) => State::TcpSynAck as u32 | (sent as u32) << 16,
            Some(state @ (State::TcpSyn | State::TcpOpen | State::TcpPicked)) => state as u32,
            _ if self.code == CLOSING_BY_REPLY => State::TcpClosing as u32 | FIN_SEEN[1],
            // A daemon that noted no states.
            _ if self.answered => State::TcpOpen as u32,
            _ => State::TcpPicked as u32,
        }
    }
}

/// Takes over what an earlier daemon has left in a table, and counts it for its hosts; sessions of other VRFs than the
/// default one and those that are `known` end. To be called before any worker runs.
pub fn take_over<R: FlowFamily>(table: &FlowTable<R>, tick: u32, known: &BTreeSet<VrfNo>) -> Restored {
    let is_known = |r: &R| {
        let vrf = R::vrf(&r.key());
        vrf.is_default() || known.contains(&vrf)
    };
    let found = table.restore(tick, |a, b| (is_known(a) && is_known(b)).then(|| left_word(a, b)));
    for session in 1..table.used() {
        let meta = table.meta(session);
        if State::of(meta).is_some() {
            super::shares::taken_over(table, session);
            for no in RecordNo::both(session) {
                let port = table.record(no).ingress().as_port().map_or(NO_PORT, |p| p.0);
                note_port(meta, no.direction(), port);
            }
        }
    }
    found
}

/// In place of the number of a port: none is known by which packets of the direction come in.
const NO_PORT: u8 = u8::MAX;

/// Notes by which port packets of a direction come in, 0 from the initiator and 1 from the other side. They leave by that
/// of the other direction.
pub fn note_port(meta: &SessionMeta, direction: usize, port: u8) {
    let at = 8 * (direction as u32 & 1);
    let with = |ports: u32| ports & !(0xFF << at) | u32::from(port) << at;
    if meta.ports.load(Ordering::Relaxed) != with(meta.ports.load(Ordering::Relaxed)) {
        let _ = meta.ports.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |ports| Some(with(ports)));
    }
}
