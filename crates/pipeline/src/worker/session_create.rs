//! A new session from its first packet: room for it, its translation, its two records.

use super::new_connection::tcp_numbers;
use super::parts::REFUSED;
use super::rule_hits::hit;
use super::{BatchEntry, Pipeline, touch};
use crate::family::EndpointPair;
use crate::ids::RuleSlot;
use crate::nat::{BindingNo, Endpoint, Event, NatProtocol, Snat};
use crate::session::{self, Ending, NAT_FILTER_ENTRY, NAT_HOST};
use crate::snapshot::Snapshot;
use crate::stages::{Crossing, ForwardDecision};
use crate::table::{NotCreated, SAME_RULE, SessionMeta};
use crate::tables::SharedTable;
use sag_model::flow::{Action, FlowAct, RecordNo};
use sag_model::{DropReason, Nanos, VrfZone, Zone};
use sag_packet::parse::{Family, Fragment, L4};
use std::net::IpAddr;
use std::sync::atomic::Ordering;

/// A packet that is to begin a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewSession<'a> {
    pub snap: &'a Snapshot,
    pub now: Nanos,
    pub s: &'a BatchEntry,
    pub frame: &'a [u8],
    /// What becomes of its like, translation aside.
    pub action: Action,
    pub decision: &'a ForwardDecision,
}

/// The NAT state that a session refers to: bindings, and flags for its host count and filter entry.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NatRefs {
    pub bindings: [u32; 2],
    pub flags: u32,
}

impl Pipeline {
    /// A session with this key may be made soon: brings what it will look at into the cache. Most
    /// sessions are between the LAN and the Internet.
    #[inline(never)]
    pub(super) fn prefetch_session_create<R: SharedTable>(
        &self,
        snap: &Snapshot,
        s: &BatchEntry,
        key: &R::Key,
    ) {
        let from = s.zone.zone();
        let (mut towards, mut new) =
            (VrfZone::from(if from == Zone::Lan { Zone::Wan } else { Zone::Lan }), *key);
        if let Some((src, dst)) = R::endpoints(key) {
            if from != Zone::Lan {
                if let Some(t) = snap.nat.forward(from, dst.addr, s.p.proto, dst.port) {
                    new = R::with_endpoints(key, (src, t.endpoint()));
                    towards = VrfZone::new(Zone::Lan, t.vrf);
                }
            } else if let (Some(source), Some(protocol)) =
                (snap.nat.likely_source(), NatProtocol::of(s.p.proto))
            {
                if !source.overlaps() {
                    self.tables.nat.prefetch_lease(source, protocol, (src, dst));
                }
                new = R::with_endpoints(key, (Endpoint { addr: source.pool.addr(), ..src }, dst));
            }
        }
        R::table(&self.tables).prefetch_new(&R::reverse(&new, towards));
    }

    /// The record that answers for the packet; `None`: it goes without a session.
    pub(super) fn create_session<R: SharedTable>(
        &mut self,
        first: &NewSession<'_>,
    ) -> Result<Option<RecordNo>, DropReason> {
        let acl = &first.snap.acl;
        let Some(limit) = first.decision.rule.and_then(|slot| acl.limit(slot)) else {
            return self.find_room_and_create::<R>(first);
        };
        let src = first.s.p.src(first.frame);
        self.sessions.rule_marks = limit.begin(src)?;
        let made = self.find_room_and_create::<R>(first);
        // Not taken over by a new session: there is none, or another worker has made it.
        let left = std::mem::take(&mut self.sessions.rule_marks);
        if left != 0 {
            limit.end(src, left);
        }
        made
    }

    fn find_room_and_create<R: SharedTable>(
        &mut self,
        first: &NewSession<'_>,
    ) -> Result<Option<RecordNo>, DropReason> {
        let NewSession { snap, now, s, frame, decision, .. } = *first;
        if snap.port(decision.port).is_none() {
            return Err(DropReason::PortNotReady);
        }
        let key = R::flow_key(&s.p, frame, s.zone);
        self.make_room::<R>(snap, now, &key)?;
        match decision.crossing {
            Crossing::None => {}
            // Its session has just ended; the next packet makes another one.
            Crossing::Known => return Err(DropReason::NatNoSession),
            Crossing::New(new) => {
                return match self.create_nat64::<R>(first, &key, &new) {
                    Err(DropReason::SessionTableFull) => Err(self.table_full::<R>()),
                    made => made.map(Some),
                };
            }
        }
        if decision.npt.any() {
            let new = R::with_addresses6(&key, (decision.npt.src, decision.npt.dst));
            let made = self.create::<R>(first, (&key, &new), NatRefs::default()).map_err(not_created);
            return match made {
                Err(DropReason::SessionTableFull) => Err(self.table_full::<R>()),
                Err(other) => Err(other),
                Ok(no) => {
                    if let (IpAddr::V6(src), IpAddr::V6(dst)) = (s.p.src(frame), s.p.dst(frame)) {
                        let to = (decision.zone.zone(), decision.port);
                        snap.nat.count6(s.zone.vrf(), to, (src, dst));
                    }
                    Ok(Some(no))
                }
            };
        }
        let Some((src, dst)) =
            R::endpoints(&key).filter(|_| decision.dnat.is_some() || decision.snat.is_some())
        else {
            return match self.create::<R>(first, (&key, &key), NatRefs::default()) {
                Err(NotCreated::Full) => Err(self.table_full::<R>()),
                // Its answers have the key of another session's (the same addresses and ports from
                // another zone), or another worker is at it: it goes without a session.
                Err(_) => {
                    hit(snap, decision.rule, s, now);
                    Ok(None)
                }
                Ok(no) => Ok(Some(no)),
            };
        };
        let mut refs = NatRefs::default();
        let to = match decision.dnat {
            Some(d) => {
                if let Some(b) = d.binding {
                    // Given back since it was looked up: nobody answers there any more.
                    if !self.tables.nat.share(b, d.to) {
                        return Err(DropReason::NatFiltered);
                    }
                    refs.bindings[1] = b.0;
                }
                d.to
            }
            None => dst,
        };
        let made = match decision.snat {
            None => {
                let new = R::with_endpoints(&key, (src, to));
                self.create::<R>(first, (&key, &new), refs).map_err(not_created)
            }
            Some(snat) => {
                let nat = self.translated::<R>(first, (&key, (src, to)), snat, &mut refs);
                if nat.is_ok() {
                    if let Some(entry) = snap.nat.hits(&snat) {
                        entry.sessions.fetch_add(1, Ordering::Relaxed);
                    }
                    if decision.dnat.is_some() {
                        self.tables.nat.totals.hairpinned.fetch_add(1, Ordering::Relaxed);
                    }
                }
                nat
            }
        };
        if made.is_err() && refs.bindings[1] != 0 {
            self.tables.nat.release(BindingNo(refs.bindings[1]));
        }
        if let (Ok(_), Some(d)) = (made, decision.dnat)
            && let Some(entry) = snap.nat.forward(s.zone.zone(), d.external, s.p.proto, dst.port)
        {
            entry.hits.sessions.fetch_add(1, Ordering::Relaxed);
        }
        match made {
            Err(DropReason::SessionTableFull) => Err(self.table_full::<R>()),
            made => made.map(Some),
        }
    }

    /// A session whose source is translated: counted for its host, with a port of its own.
    fn translated<R: SharedTable>(
        &mut self,
        first: &NewSession<'_>,
        (key, (src, to)): (&R::Key, EndpointPair),
        snat: Snat,
        refs: &mut NatRefs,
    ) -> Result<RecordNo, DropReason> {
        self.count_host(first.snap, src, refs)?;
        let mut made = self.with_port::<R>(first, (key, (src, to)), snat, refs);
        let mut source = snat.source;
        let entry = snat.entry.and_then(|no| first.snap.nat.entries.get(usize::from(no)));
        if let (Some(e), None) = (entry, snat.port) {
            // Its address has no port left, or none towards this remote endpoint.
            for other in e.others(snat.source) {
                let Some(addr) = first.snap.nat.source(other).map(|s| s.addr) else { continue };
                if made != Err(DropReason::SnatExhausted) {
                    break;
                }
                self.return_lease(refs, to);
                let snat = Snat { addr, source: Some(other), ..snat };
                (made, source) = (self.with_port::<R>(first, (key, (src, to)), snat, refs), None);
            }
        }
        if let (true, Some(entry), Some(source)) = (made.is_ok(), snat.entry, source) {
            first.snap.nat.remember_source(&self.tables.nat, entry, src, first.s.p.proto, source);
        }
        if made.is_err() {
            if refs.flags & NAT_HOST != 0 {
                self.tables.nat.host_session_ended(src.host());
            }
            self.return_lease(refs, to);
        }
        made
    }

    /// Gives back a port that was allocated towards `to`.
    pub(super) fn return_lease(&self, refs: &mut NatRefs, to: Endpoint) {
        if refs.flags & NAT_FILTER_ENTRY != 0 {
            self.tables.nat.remove_filter_entry(BindingNo(refs.bindings[0]), to.addr);
        }
        if refs.bindings[0] != 0 {
            self.tables.nat.release(BindingNo(refs.bindings[0]));
        }
        refs.flags &= !NAT_FILTER_ENTRY;
        refs.bindings[0] = 0;
    }

    /// Both records, and what the session refs. On `Exists` the found record carries either the
    /// packet's key, and then answers for it, or the key of its answers.
    pub(super) fn create<R: SharedTable>(
        &mut self,
        first: &NewSession<'_>,
        (key, new): (&R::Key, &R::Key),
        refs: NatRefs,
    ) -> Result<RecordNo, NotCreated> {
        let NewSession { snap, now, s, frame, action, decision } = *first;
        let to = decision.zone;
        if let (true, Some((own, remote))) = (decision.snat.is_some(), R::endpoints(new))
            && snap.tunnels.takes(IpAddr::V4(own.addr), IpAddr::V4(remote.addr), (s.p.proto, own.port))
        {
            // Its answers would be a tunnel's packets.
            return Err(NotCreated::Contended);
        }
        let (reverse, answer) = (R::reverse(new, to), R::reverse(key, to));
        let tick = now.tick().0;
        let flags = match s.p.l4 {
            L4::Tcp { flags } => flags,
            _ => 0,
        };
        let state = session::first_word(s.p.proto, flags);
        let flags_of_record = action.flags | R::nat_flags(key, new) | session::state_flags(state);
        let forward = Action { flags: flags_of_record, ..action };
        let table = R::table(&self.tables);
        let rule = RuleSlot::to_word(decision.rule) | self.sessions.rule_marks;
        let deferred = match R::FAMILY {
            Family::V4 => &mut self.sessions.deferred4,
            Family::V6 => &mut self.sessions.deferred6,
        };
        let fill = |fwd: &R, rev: &R, meta: &SessionMeta| {
            fwd.set_translation(key, new);
            rev.set_translation(&reverse, &answer);
            if decision.crossing.is_any() {
                fwd.set_crosses();
                rev.set_crosses();
            }
            fwd.action().store(forward.to_word(), Ordering::Relaxed);
            fwd.set_ingress(s.ingress_id());
            // Admitted with the session; its way out is found when the first reply comes.
            rev.action().store(Action::PUNT.to_word(), Ordering::Relaxed);
            for r in [fwd, rev] {
                r.epoch().store(snap.epoch, Ordering::Relaxed);
                r.last_seen().store(tick, Ordering::Relaxed);
            }
            meta.created.store(tick, Ordering::Relaxed);
            meta.rule.store(rule, Ordering::Relaxed);
            meta.reply_rule.store(SAME_RULE, Ordering::Relaxed);
            let ports = u32::from(s.ingress.0) | u32::from(decision.port.0) << 8;
            meta.ports.store(ports | refs.flags, Ordering::Relaxed);
            for (b, held) in meta.bindings.iter().zip(refs.bindings) {
                b.store(held, Ordering::Relaxed);
            }
            if let (true, Some((seq, _))) =
                (flags & sag_packet::proto::TCP_SYN != 0, tcp_numbers(&s.p, frame))
            {
                session::note_isn(meta, 0, seq);
            }
            meta.state.store(state, Ordering::Release);
        };
        let mut made = table.create(key, &reverse, deferred, fill);
        if let Err(NotCreated::Exists(no)) = made
            && table.is_denied(no)
        {
            // Refused until now from this side or the other: that is no session in the way.
            let ending = Ending { deferred, events: &mut self.sessions.events, nat: &self.tables.nat };
            session::end(table, no.session(), snap, ending);
            self.batch.changes.ended = true;
            made = table.create(key, &reverse, deferred, fill);
        }
        match made {
            Ok(no) => {
                self.sessions.rule_marks = 0;
                touch(table.record(no), now, s.p.ip_len);
                session::begun(table, key, false);
                self.counters.sessions_created.add(1);
                self.batch.changes.made(s.hash);
                self.batch.changes.made(table.hash(&reverse));
                if snap.nat.limits.log_sessions {
                    let tuple = session::tuples(table, no.session());
                    self.sessions.events.push(Event::Created {
                        family: R::FAMILY,
                        number: no.session(),
                        tuple,
                    });
                }
                self.report_filling::<R>();
                Ok(no)
            }
            Err(NotCreated::Exists(no)) if table.record(no).matches(key) => {
                touch(table.record(no), now, s.p.ip_len);
                // Another worker made it: what was taken for this one is not needed.
                if decision.crossing.is_any() {
                    self.give_back_nat64::<R>(snap, new, &refs);
                }
                self.give_back::<R>(key, new, refs);
                Ok(no)
            }
            Err(why) => Err(why),
        }
    }

    /// The second packet of a flow that a rule refuses makes a record that drops the next ones, in
    /// XDP too.
    pub(super) fn remember_denied<R: SharedTable>(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        s: &BatchEntry,
        frame: &[u8],
        (reason, rule): (DropReason, Option<RuleSlot>),
    ) {
        if s.p.fragment != Fragment::Whole || matches!(s.p.l4, L4::IcmpError { .. }) {
            return;
        }
        let seen = &mut self.sessions.refused_once[s.hash as usize % REFUSED];
        let mark = (s.hash >> 32) as u32 | 1;
        if std::mem::replace(seen, mark) != mark {
            return;
        }
        let key = R::flow_key(&s.p, frame, s.zone);
        let deferred = match R::FAMILY {
            Family::V4 => &mut self.sessions.deferred4,
            Family::V6 => &mut self.sessions.deferred6,
        };
        let action =
            Action { nexthop: reason as u16, meter: 0, act: FlowAct::Drop, flags: 0, tunnel: 0, nh_gen: 0 };
        let tick = now.tick().0;
        let made = R::table(&self.tables).create_denied(&key, deferred, |r, meta| {
            r.set_translation(&key, &key);
            r.action().store(action.to_word(), Ordering::Relaxed);
            r.epoch().store(snap.epoch, Ordering::Relaxed);
            r.last_seen().store(tick, Ordering::Relaxed);
            meta.created.store(tick, Ordering::Relaxed);
            meta.rule.store(RuleSlot::to_word(rule), Ordering::Relaxed);
            meta.reply_rule.store(SAME_RULE, Ordering::Relaxed);
            meta.ports.store(u32::from(s.ingress.0), Ordering::Relaxed);
        });
        if made.is_some() {
            self.batch.changes.made(s.hash);
        }
    }

    /// What a session that was not made would have held.
    fn give_back<R: SharedTable>(&self, key: &R::Key, new: &R::Key, refs: NatRefs) {
        let nat = &self.tables.nat;
        let (Some((src, _)), Some((_, to))) = (R::endpoints(key), R::endpoints(new)) else { return };
        if refs.flags & NAT_FILTER_ENTRY != 0 {
            nat.remove_filter_entry(BindingNo(refs.bindings[0]), to.addr);
        }
        if refs.flags & NAT_HOST != 0 {
            nat.host_session_ended(src.host());
        }
        for b in refs.bindings.into_iter().filter(|b| *b != 0) {
            nat.release(BindingNo(b));
        }
    }

    fn table_full<R: SharedTable>(&mut self) -> DropReason {
        // Told at 1, 2, 4, ... so that a flood does not drown the log.
        self.sessions.table_full += 1;
        if self.sessions.table_full.is_power_of_two() {
            self.sessions.events.push(Event::TableFull { capacity: R::table(&self.tables).capacity() });
        }
        DropReason::SessionTableFull
    }
}

pub(super) const fn not_created(why: NotCreated) -> DropReason {
    match why {
        NotCreated::Full => DropReason::SessionTableFull,
        // The external tuple is another session's.
        NotCreated::Exists(_) | NotCreated::Contended => DropReason::SnatExhausted,
    }
}
