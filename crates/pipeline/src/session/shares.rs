//! Who has how many sessions: every session counts for the host that has begun it, and for that host's network.

use crate::family::FlowFamily;
use crate::snapshot::SessionLimits;
use crate::table::{ANSWERED, FlowTable, UNQUESTIONED, over_share};
use sag_model::DropReason;
use sag_model::flow::RecordNo;
use std::sync::atomic::Ordering;

/// Who has too many sessions, or is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A host.
    Host(u64),
    /// A network.
    Network(u64),
}

impl Holder {
    /// Whether a session with this key of its first packet is its own.
    pub fn has_begun<R: FlowFamily>(self, table: &FlowTable<R>, key: &R::Key) -> bool {
        match self {
            Holder::Host(host) => R::host(key, table.seed()) == host,
            Holder::Network(network) => R::network(key) == Some(network),
        }
    }
}

/// The key of a session's first packet.
fn key_of<R: FlowFamily>(table: &FlowTable<R>, session: u32) -> R::Key {
    table.record(RecordNo::forward(session)).key()
}

/// Counts a session that has begun.
pub fn begun<R: FlowFamily>(table: &FlowTable<R>, key: &R::Key, answered: bool) {
    table.hosts.begun(R::host(key, table.seed()), answered);
    if let Some(network) = R::network(key) {
        table.networks.begun(network, answered);
    }
}

/// Counts a session that an earlier daemon has left.
pub(super) fn taken_over<R: FlowFamily>(table: &FlowTable<R>, session: u32) {
    let answered = table.record(RecordNo::reverse(session)).packets().load(Ordering::Relaxed) > 0;
    if answered {
        table.meta(session).ports.fetch_or(ANSWERED, Ordering::Relaxed);
    }
    begun(table, &key_of(table, session), answered);
}

/// Notes that the other side of a session has answered. True: for the first time.
pub fn note_answer<R: FlowFamily>(table: &FlowTable<R>, session: u32) -> bool {
    let ports = &table.meta(session).ports;
    let first = ports.load(Ordering::Relaxed) & ANSWERED == 0
        && ports.fetch_or(ANSWERED, Ordering::Relaxed) & ANSWERED == 0;
    if first {
        let key = key_of(table, session);
        table.hosts.answered(R::host(&key, table.seed()));
        if let Some(network) = R::network(&key) {
            table.networks.answered(network);
        }
        table.mark_changed(session);
    }
    first
}

/// Counts a session no more that has been taken out of the table.
pub(super) fn ended<R: FlowFamily>(table: &FlowTable<R>, session: u32) {
    // Whoever sets the flag takes the session off those that are unanswered: a late answer, or this.
    let ports = &table.meta(session).ports;
    let answered = ports.fetch_or(ANSWERED, Ordering::Relaxed) & ANSWERED != 0;
    let key = key_of(table, session);
    table.hosts.ended(R::host(&key, table.seed()), answered);
    if let Some(network) = R::network(&key) {
        table.networks.ended(network, answered);
    }
}

/// Whether the sender of a packet with this key has sessions that were answered.
pub fn has_answers<R: FlowFamily>(table: &FlowTable<R>, key: &R::Key) -> bool {
    let has = table.hosts.get(R::host(key, table.seed()));
    has.sessions > has.unanswered
}

/// The heaviest holder of sessions, if there is one with many, and how many.
pub fn heaviest<R: FlowFamily>(table: &FlowTable<R>) -> Option<(u64, u32)> {
    let has_networks = R::network(&R::default().key()).is_some();
    if has_networks { table.networks.heaviest() } else { table.hosts.heaviest() }
}

/// Who may begin no further session without giving one up, and why; asked for the first packet of a new one.
#[inline]
pub fn excess<R: FlowFamily>(
    table: &FlowTable<R>,
    limits: &SessionLimits,
    key: &R::Key,
) -> Option<(Holder, DropReason)> {
    let (capacity, free) = (table.capacity(), table.free());
    let half_open = limits.half_open(capacity);
    let percent = limits.host_share;
    let plenty = u64::from(free) * 100 >= u64::from(capacity) * 100u64.saturating_sub(percent.into());
    // Nobody can have so many.
    if plenty && table.occupied() < half_open {
        return None;
    }
    let host = R::host(key, table.seed());
    let has = table.hosts.get(host);
    if has.unanswered >= half_open {
        return Some((Holder::Host(host), DropReason::HostHalfOpen));
    }
    if over_share(has.sessions, free, percent) {
        return Some((Holder::Host(host), DropReason::HostShare));
    }
    // Half of what a host alone leaves is for the others of its network.
    let network = R::network(key)?;
    let has = table.networks.get(network);
    if has.unanswered >= half_open.saturating_mul(2) {
        return Some((Holder::Network(network), DropReason::HostHalfOpen));
    }
    let over = over_share(has.sessions, free, (100 + percent.min(100)) / 2);
    over.then_some((Holder::Network(network), DropReason::HostShare))
}

impl SessionLimits {
    /// Unanswered sessions that a host may have in a table of so many.
    const fn half_open(&self, capacity: u32) -> u32 {
        match self.host_half_open {
            Some(n) => n,
            None if capacity / 4 < UNQUESTIONED => UNQUESTIONED,
            None => capacity / 4,
        }
    }
}
