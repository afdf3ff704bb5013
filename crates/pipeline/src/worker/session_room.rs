//! Room for a new session: what each host may have, and which session makes room when there is none.

use super::Pipeline;
use crate::nat::Event;
use crate::session::{self, Holder, Worth};
use crate::snapshot::Snapshot;
use crate::table::{FlowTable, State};
use crate::tables::SharedTable;
use sag_model::flow::RecordNo;
use sag_model::time::Tick;
use sag_model::{DropReason, Nanos};
use sag_packet::parse::Family;
use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Sessions looked at for one that makes room: neighbors in the table, from where the last look ended (CLOCK without
/// reference bits; the records' own times are better).
const LOOK: u32 = 32;
/// Idle ticks without which a session with traffic in both directions never makes room.
const IDLE: u32 = Tick::of(Duration::from_secs(60));
/// Ticks by which idle times of sessions differ without one being the longer idle one.
const ABOUT: u32 = Tick::of(Duration::from_millis(200));

/// Places that are kept free by ending sessions, of a table of so many: what is ended rests before it can be used again, so
/// there must be room for what comes meanwhile, and more than that only keeps a large table from being used.
fn reserve(capacity: u32) -> u32 {
    (capacity / 16).min(4096).max(capacity / 64)
}

/// Which session may make room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Victim {
    /// One that this host or network has begun.
    pub of: Option<Holder>,
    /// One of this protocol alone.
    pub proto: Option<u8>,
    /// A refused handshake that holds a port of this external address.
    pub refused_at: Option<Ipv4Addr>,
    /// Worth no more than this.
    pub at_most: Worth,
}

impl Victim {
    /// Any session that is worth no more than this.
    pub const fn any(at_most: Worth) -> Victim {
        Victim { of: None, proto: None, refused_at: None, at_most }
    }
}

impl Pipeline {
    /// Sees to it that there is room for one more session of a host: its own sessions make room if it has too many,
    /// and anybody's if the table is nearly full. The table itself may still be full after that.
    pub(super) fn make_room<R: SharedTable>(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        key: &R::Key,
    ) -> Result<(), DropReason> {
        let table = R::table(&self.tables);
        let capacity = table.capacity();
        let free = table.free();
        if let Some((holder, reason)) = session::excess(table, &snap.options.sessions, key) {
            // Who is over the share pays for it: others who have the same address can go on.
            let at_most = match reason {
                DropReason::HostHalfOpen => Worth::HalfOpen,
                _ => Worth::Established,
            };
            // What it gives up rests before it can be used again: while more rests than is free, the free places are
            // for others.
            let waits = table.resting() > free;
            if !waits && self.evict::<R>(snap, now, Victim { of: Some(holder), ..Victim::any(at_most) }) {
                return Ok(());
            }
            self.report_refused::<R>(key, reason);
            return Err(reason);
        }
        let reserve = reserve(capacity);
        if free > reserve {
            return Ok(());
        }
        // What rests comes back in a moment: more than so much is not worth waiting for.
        let tries = if table.resting() > capacity / 4 {
            0
        } else if free < reserve / 2 {
            2
        } else {
            1
        };
        for _ in 0..tries {
            self.evict::<R>(snap, now, Victim::any(Worth::Established));
        }
        Ok(())
    }

    /// Ends the session that is worth least of those looked at, the longest idle one of these. False: none may be.
    pub(super) fn evict<R: SharedTable>(&mut self, snap: &Snapshot, now: Nanos, victim: Victim) -> bool {
        let table = R::table(&self.tables);
        // Sessions are numbered 1..used.
        let sessions = table.used().saturating_sub(1).max(1);
        let hand = &mut self.sessions.evict_at[usize::from(R::FAMILY == Family::V6)];
        let from = *hand;
        *hand = from.wrapping_add(LOOK) % sessions;
        let worst = (0..LOOK.min(sessions))
            .map(|n| 1 + (from + n) % sessions)
            .filter_map(|n| Some((standing(table, n, now, victim)?, n)))
            .min_by_key(|(standing, _)| *standing);
        let Some(((worth, ..), session)) = worst else { return false };
        self.end::<R>(snap, session);
        let totals = &self.tables.nat.totals;
        totals.evicted[worth as usize].fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Refused for a host's share: told at 1, 2, 4, ... so that a flood does not drown the log.
    pub(super) fn report_refused<R: SharedTable>(&mut self, key: &R::Key, reason: DropReason) {
        self.sessions.host_refused += 1;
        if self.sessions.host_refused.is_power_of_two() {
            let (host, prefix, _) = R::named(R::network(key).unwrap_or(R::host(key, 0)));
            self.sessions.events.push(Event::HostOverShare { host, vrf: R::vrf(key), prefix, reason });
        }
    }

    /// Warns when the table has just passed a mark.
    #[inline]
    pub(super) fn report_filling<R: SharedTable>(&mut self) {
        let table = R::table(&self.tables);
        let Some(percent) = table.passed_mark() else { return };
        let (host, sessions) = session::heaviest(table).unwrap_or_default();
        let (host, prefix, vrf) = R::named(host);
        self.sessions.events.push(Event::TableFilling {
            family: R::FAMILY,
            percent,
            sessions: table.occupied(),
            capacity: table.capacity(),
            heaviest: (sessions > 0).then_some((host, prefix, sessions)),
            heaviest_vrf: vrf.filter(|_| sessions > 0),
        });
    }
}

/// What a session stands for as a victim; the smallest goes. `None`: it may not. A flood fills a table within a few ticks,
/// so that what has been idle longer says little: of those that are about equal, the ones with fewer packets go first.
fn standing<R: SharedTable>(
    table: &FlowTable<R>,
    session: u32,
    now: Nanos,
    victim: Victim,
) -> Option<(Worth, Reverse<u32>, u64)> {
    let worth = session::worth(table, session).filter(|w| *w <= victim.at_most)?;
    let record = table.record(RecordNo::forward(session));
    if let Some(addr) = victim.refused_at {
        let refused = session::state_of(table, session) == Some(State::TcpRefused);
        if !refused || R::tuple(&record.translated()).src != IpAddr::V4(addr) {
            return None;
        }
    }
    if victim.of.is_some() || victim.proto.is_some() {
        let key = record.key();
        let other = victim.of.is_some_and(|holder| !holder.has_begun(table, &key))
            || victim.proto.is_some_and(|p| p != R::tuple(&key).proto);
        if other {
            return None;
        }
    }
    let idle = session::idle(table, session, now.tick());
    let packets = record.packets().load(Ordering::Relaxed);
    (worth < Worth::Established || idle >= IDLE).then_some((worth, Reverse(idle / ABOUT), packets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_table_can_be_used_but_for_a_64th() {
        assert_eq!([1024, 65_536, 1 << 17, 1 << 20].map(reserve), [64, 4096, 4096, 16_384]);
        assert!((1 << 20) - reserve(1 << 20) >= 1_000_000, "a million sessions");
    }
}
