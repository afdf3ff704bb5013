//! Packets that no flow record answers for: the walk through all stages, and what it leaves behind
//! (sessions, ICMP errors, fragments).

use super::apply::Outgoing;
use super::new_connection::{Walked, numbers};
use super::parts::Unresolved;
use super::rule_hits::hit;
use super::session_create::NewSession;
use super::syn_proxy::Opening;
use super::{BatchEntry, Env, Pipeline, Verdict, drop_at, touch};
use crate::family;
use crate::fragments::FlowPorts;
use crate::ids::{MeterGroupNo, RuleSlot, TunnelNo};
use crate::originate::{self, Emit, IcmpResult};
use crate::pending::{self, Arrival};
use crate::resolution::Class;
use crate::session::{self, Effect, Segment, replica};
use crate::snapshot::{NeighborKey, NextHop, NextHopWords, Snapshot};
use crate::stages::NoTrace;
use crate::stages::{
    self, Disposition, ForwardDecision, Known, Line, Nat64Context, PacketContext, Translation, Translation6,
};
use crate::table::{SAME_RULE, State};
use crate::tables::SharedTable;
use sag_model::flow::{
    Action, EPOCH_REVALIDATING, EPOCH_SESSION, FLOW_DNAT, FLOW_METER, FLOW_PUNT_ALL, FLOW_SNAT, FlowAct,
    FlowRecord6, IngressId, RecordNo,
};
use sag_model::{DropReason, Nanos, PortIdx, VrfNo, VrfZone, Zone};
use sag_packet::icmp::IcmpError;
use sag_packet::parse::{Family, L4};
use sag_packet::proto::{TCP, TCP_FIN, TCP_RST, TCP_SYN};
use sag_packet::rewrite::FrameMut;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

impl Pipeline {
    /// The slow path: all stages, then the flow record is written for the next packet. The packet
    /// arrived at `since`; it may wait for its next hop [`pending::TIMEOUT`] from then.
    pub(super) fn process_slow<R: SharedTable>(
        &mut self,
        env: &Env<'_>,
        s: &BatchEntry,
        f: &mut FrameMut<'_>,
        emit: &mut impl Emit,
        since: Nanos,
    ) -> Verdict {
        match self.as_nat64(env.snap, s, f.bytes()) {
            Some(s) => self.process_as::<FlowRecord6>(env, &s, f, emit, since),
            None => self.process_as::<R>(env, s, f, emit, since),
        }
    }

    /// The same of a packet whose session is in the table of `R`.
    fn process_as<R: SharedTable>(
        &mut self,
        env: &Env<'_>,
        s: &BatchEntry,
        f: &mut FrameMut<'_>,
        emit: &mut impl Emit,
        since: Nanos,
    ) -> Verdict {
        let Env { snap, now, .. } = *env;
        let mut s = *s;
        let opening = match self.accept_cookie(snap, &mut s, f) {
            Ok(opening) => opening,
            Err(reason) => return drop_at(&self.counters, s.ingress, reason),
        };
        if self.is_reversed::<R>(now, &s, f.bytes()) {
            return drop_at(&self.counters, s.ingress, DropReason::TcpOutOfWindow);
        }
        if let Some(how) = self.new_connection::<R>(&s, f.bytes()) {
            let ((mut seen, outcome), held) = self.judge_anew::<R>(snap, &mut s, f.bytes(), how);
            seen.opening = opening;
            let verdict = self.dispose::<R>(env, &s, f, (seen, outcome), emit, since);
            self.release_held(snap, held);
            return verdict;
        }
        let mut walked = self.evaluate_stages::<R>(snap, &s, f.bytes());
        if let (Err(Disposition::SessionInvalid), Some(no)) = (walked.1, s.found) {
            if replica::awaits_address(R::table(&self.tables), no.session(), now.tick()) {
                return drop_at(&self.counters, s.ingress, DropReason::NatNoAddress);
            }
            let bound = self.bound_to_line::<R>(&s, (no, walked.0.line));
            self.end::<R>(snap, no.session());
            s.found = None;
            walked = self.evaluate_stages::<R>(snap, &s, f.bytes());
            if let Some(bound) = bound.filter(|b| b.has_to_leave(snap, &walked.1)) {
                return self.leave_line(env, &s, f.bytes(), &bound, emit);
            }
        }
        walked.0.opening = opening;
        self.dispose::<R>(env, &s, f, walked, emit, since)
    }

    /// Does what the stages say.
    fn dispose<R: SharedTable>(
        &mut self,
        env: &Env<'_>,
        s: &BatchEntry,
        f: &mut FrameMut<'_>,
        (seen, outcome): Walked,
        emit: &mut impl Emit,
        since: Nanos,
    ) -> Verdict {
        let Env { snap, now, .. } = *env;
        let known = seen.known;
        match outcome {
            Ok(decision) => self.forward::<R>(env, s, f, decision, seen, emit),
            // An ICMP error about a session whose translation is gone.
            Err(Disposition::SessionInvalid) => drop_at(&self.counters, s.ingress, DropReason::IcmpUnmatched),
            Err(Disposition::Kernel)
                if s.tunnel.is_some() || snap.tunnels.owns(s.zone.vrf(), s.p.dst(f.bytes())) =>
            {
                self.deliver_local_inside(snap, now, s, f.bytes(), emit)
            }
            Err(Disposition::Kernel) => {
                self.counters.port(s.ingress).to_kernel.add(1);
                Verdict::Kernel
            }
            Err(Disposition::Unresolved { port, to }) => {
                if now - since > pending::TIMEOUT {
                    self.send_icmp_error(snap, now, s, f.bytes(), IcmpError::HostUnreachable, emit);
                    return drop_at(&self.counters, s.ingress, DropReason::NeighborFailed);
                }
                self.hold::<R>(env, s, f.bytes(), (port, to), since)
            }
            Err(Disposition::Drop { reason, icmp, rule, alone }) => {
                hit(snap, rule, s, now);
                self.log_rule(env, rule, false, s, f.bytes());
                let by_acl = matches!(reason, DropReason::AclDenied | DropReason::AclDefaultDenied);
                let denied = by_acl && !alone;
                if let (true, Known::Revalidate { .. }, Some(no)) = (denied, known, s.found) {
                    self.end::<R>(snap, no.session());
                }
                if let (DropReason::ReversePath | DropReason::TunnelSource, Some(no)) = (reason, s.found) {
                    self.revoke_ingress::<R>(s, no);
                }
                // The route to a session's destination may come from the other gateway, too.
                let awaits_route = |no: RecordNo| {
                    let table = R::table(&self.tables);
                    reason == DropReason::NoRoute && replica::awaits_address(table, no.session(), now.tick())
                };
                if s.found.is_some_and(awaits_route) {
                    return drop_at(&self.counters, s.ingress, reason);
                }
                if let Some(error) = icmp {
                    self.send_icmp_error(snap, now, s, f.bytes(), error, emit);
                } else if by_acl && s.found.is_none() {
                    // RFC 5508 REQ-8. Once a record drops the flow in XDP, that is once a second.
                    if snap.options.acl_reject && s.zone.zone() == Zone::Lan {
                        self.send_icmp_error(snap, now, s, f.bytes(), IcmpError::AdminProhibited, emit);
                    }
                    if denied {
                        self.remember_denied::<R>(snap, now, s, f.bytes(), (reason, rule));
                    }
                }
                drop_at(&self.counters, s.ingress, reason)
            }
        }
    }

    /// Keeps a copy of a packet until its next hop is resolved.
    fn hold<R: SharedTable>(
        &mut self,
        env: &Env<'_>,
        s: &BatchEntry,
        frame: &[u8],
        key: NeighborKey,
        since: Nanos,
    ) -> Verdict {
        let Env { snap, now, dev } = *env;
        let (ingress, tunnel, src) = (s.ingress, s.tunnel, s.p.src(frame));
        let neighbor = tunnel.is_none() && snap.resolved(ingress, src).is_some();
        let class = if neighbor {
            Class::Neighbor
        } else if session::has_answers(R::table(&self.tables), &R::flow_key(&s.p, frame, s.zone)) {
            Class::Known
        } else {
            Class::Stranger
        };
        let from = self.neighbors.limits.requester(ingress, src, class);
        let established = s.found.is_some() || key.1 != snap.nat.called(s.p.dst(frame));
        let arrival = Arrival { dev, ingress, tunnel, since, ports: FlowPorts::of(&s.p, s.new_id), from };
        let rates = (now, snap.options.requests);
        match self.neighbors.hold(rates, &Unresolved { key, src, established }, arrival, frame) {
            Ok(()) => {
                self.counters.port(ingress).held.add(1);
                Verdict::Held
            }
            Err(reason) => drop_at(&self.counters, ingress, reason),
        }
    }

    pub(super) fn evaluate_stages<R: SharedTable>(
        &self,
        snap: &Snapshot,
        s: &BatchEntry,
        frame: &[u8],
    ) -> Walked {
        let (ctx, seen) = self.packet_context::<R>(snap, s, frame);
        (seen, stages::evaluate(snap, &ctx, &mut NoTrace))
    }

    /// A packet as the stages see it. Part of its caller, since what it returns is too big to be handed on.
    #[inline(always)]
    pub(super) fn packet_context<'f, R: SharedTable>(
        &'f self,
        snap: &Snapshot,
        s: &'f BatchEntry,
        frame: &'f [u8],
    ) -> (PacketContext<'f>, Seen) {
        let table = R::table(&self.tables);
        let mut forged = false;
        let related = match s.p.l4 {
            L4::IcmpError { .. } => {
                let quote = family::quoted::<R>(&s.p, frame, s.zone);
                let no = quote.and_then(|q| table.find(&q.answers, table.hash(&q.answers)));
                let no = no.filter(|&no| !table.is_denied(no) && table.record(no).suits(s.p.family));
                forged = match (no, quote.and_then(|q| q.sequence)) {
                    (Some(no), Some(sequence)) => !Self::is_quote_in_window(table, no.peer(), sequence),
                    _ => false,
                };
                no
            }
            _ => None,
        };
        let known = self.known::<R>(snap, s, related);
        let mut ctx = PacketContext {
            p: &s.p,
            frame,
            ingress: s.ingress,
            tunnel: s.tunnel,
            zone: s.zone.zone(),
            vrf: s.zone.vrf(),
            hash: s.hash,
            session: known,
            reply: related.is_none() && s.found.is_some_and(|no| no.direction() == 1),
            on_path: related.is_some_and(|no| {
                let ingress = table.record(no).ingress();
                ingress == s.ingress_id() || ingress == IngressId::NONE
            }),
            out_of_window: forged || self.is_out_of_window::<R>(s, frame),
            metered: s.found.and_then(|no| metered(snap, table.record(no))),
            leaves_to: self.leaves_to::<R>(s),
            to_vrf: None,
            to: None,
            to_port: None,
            translation: None,
            translation6: None,
            nat64: self.nat64_context::<R>(s, related.or(s.found)),
            line: None,
            nat: &self.tables.nat,
        };
        if let (Nat64Context::None, Some(no)) = (&ctx.nat64, related.or(s.found)) {
            self.add_translation::<R>(&mut ctx, no);
        }
        if let Some(no) = related.or(s.found).filter(|no| no.direction() == 0) {
            ctx.line = Self::line_of_source(snap, &ctx, table.record(no)).map(Line::Source);
        }
        let line = match ctx.line {
            Some(Line::Source(port)) => Some(port),
            _ => None,
        };
        (ctx, Seen { known, related, opening: None, line })
    }

    /// What the session of a record makes of a packet's addresses.
    fn add_translation<R: SharedTable>(&self, ctx: &mut PacketContext<'_>, no: RecordNo) {
        let table = R::table(&self.tables);
        let (r, first) = (table.record(no), table.record(RecordNo::forward(no.session())));
        let (key, old) = (r.key(), first.key());
        if let (Some((_, was)), Some((_, is))) = (R::endpoints(&key), R::endpoints(&r.translated())) {
            ctx.to = (was.addr != is.addr).then_some(IpAddr::V4(is.addr));
            ctx.to_port = ctx.to.map(|_| is.port);
        }
        let (reply, answers) = (no.direction() == 1, table.record(RecordNo::reverse(no.session())).key());
        let to_vrf = R::vrf(&answers);
        ctx.translation = match (R::endpoints(&old), R::endpoints(&first.translated()), R::side(&old)) {
            (Some(ends), Some(mut new), Some(from)) => {
                let proto = R::tuple(&old).proto;
                if ends.1 != new.1 {
                    new.1.vrf = to_vrf;
                }
                let from = from.zone();
                Some(Translation { from, proto, old: ends, new, reply })
            }
            _ => None,
        };
        ctx.translation6 = translation6_of(first, to_vrf, reply);
        if let Some(t) = &ctx.translation6 {
            let (was, is) = if t.reply { (t.new.0, t.old.0) } else { (t.old.1, t.new.1) };
            ctx.to = (was != is).then_some(IpAddr::V6(is));
        }
        ctx.to_vrf = match (reply, ctx.to) {
            (true, _) => Some(R::vrf(&old)),
            (false, Some(_)) => Some(to_vrf),
            // The route says.
            (false, None) => None,
        };
        let forwarded = ctx.translation.is_some_and(|t| t.reply && t.old.1 != t.new.1)
            || ctx.translation6.is_some_and(|t| t.reply && t.old.1 != t.new.1);
        ctx.line = first.ingress().as_port().filter(|_| forwarded).map(Line::Question);
    }

    /// What the session table knows of a packet. `related`: the record of the answers to the packet
    /// that it quotes.
    fn known<R: SharedTable>(&self, snap: &Snapshot, s: &BatchEntry, related: Option<RecordNo>) -> Known {
        let table = R::table(&self.tables);
        let Some(no) = related.or(s.found) else { return Known::New };
        let related = related.is_some();
        let (forward, reverse) = (RecordNo::forward(no.session()), RecordNo::reverse(no.session()));
        let reply = no == reverse;
        if reply && !related && !snap.options.acl_stateful {
            let r = table.record(reverse);
            let admitted = r.epoch().load(Ordering::Acquire) == snap.epoch
                && is_admitted(r, Action::from_word(r.action().load(Ordering::Relaxed)));
            return if admitted { Known::Established } else { Known::New };
        }
        if session::is_admitted(table.record(forward).epoch().load(Ordering::Acquire), snap.epoch) {
            return if related { Known::Related } else { Known::Established };
        }
        match session::initiator(table, no.session()) {
            Some((initiator, from, to)) => Known::Revalidate { initiator, from, to },
            None => Known::New,
        }
    }

    /// Where a session's packets in this direction go.
    #[inline]
    fn leaves_to<R: SharedTable>(&self, s: &BatchEntry) -> Option<VrfZone> {
        s.found.and_then(|no| R::side(&R::table(&self.tables).record(no.peer()).key()))
    }

    /// Writes the flow's record and sends the packet.
    fn forward<R: SharedTable>(
        &mut self,
        env: &Env<'_>,
        s: &BatchEntry,
        f: &mut FrameMut<'_>,
        decision: ForwardDecision,
        seen: Seen,
        emit: &mut impl Emit,
    ) -> Verdict {
        let Env { snap, now, .. } = *env;
        let Some(words) = snap.nexthops.get(decision.nexthop.index()).map(NextHopWords::load) else {
            return drop_at(&self.counters, s.ingress, DropReason::NeighborFailed);
        };
        let nh = words.unpack();
        let proxied = match s.found.map(|no| self.check_proxied::<R>(s, no, f.bytes())).transpose() {
            Ok(proxied) => proxied.flatten(),
            Err(reason) => return drop_at(&self.counters, s.ingress, reason),
        };
        let translates = proxied.is_some() || seen.opening.is_some();
        let action = Action {
            nexthop: decision.nexthop.0,
            meter: MeterGroupNo::to_record(decision.meters),
            // XDP has no part in NAT64.
            act: if decision.crossing.is_any() { FlowAct::Punt } else { FlowAct::Forward },
            flags: if translates || Self::is_for_workers(&decision, &nh) { FLOW_PUNT_ALL } else { 0 }
                | if decision.meters.is_some() { FLOW_METER } else { 0 },
            tunnel: TunnelNo::to_record(decision.tunnel),
            nh_gen: snap.stamp(&nh),
        };
        // What is over its rate makes no session and changes none.
        if let Some(reason) = snap.qos.police(decision.meters, s.p.ip_len, now).reason() {
            return drop_at(&self.counters, s.ingress, reason);
        }
        let tcp_flags = match s.p.l4 {
            L4::Tcp { flags } => flags,
            _ => 0,
        };
        let mut found = s.found;
        if let Some(no) = found
            && self.leaves_to::<R>(s) != Some(decision.zone)
        {
            // Rerouted across another border: its answers will come from elsewhere.
            self.end::<R>(snap, no.session());
            found = None;
        }
        let no_session =
            matches!(s.p.l4, L4::IcmpError { .. }) || (found.is_none() && tcp_flags & TCP_RST != 0);
        match found {
            _ if no_session => hit(snap, decision.rule, s, now),
            Some(no) => self.update_session::<R>(env, s, (no, action), seen.known, decision.rule, f.bytes()),
            None => match self.create_session::<R>(&NewSession {
                snap,
                now,
                s,
                frame: f.bytes(),
                action,
                decision: &decision,
            }) {
                Ok(no) => {
                    found = no;
                    self.log_rule(env, decision.rule, true, s, f.bytes());
                }
                Err(reason) => {
                    // RFC 5508 REQ-8: a host that gets the error tries elsewhere.
                    let no_port = matches!(reason, DropReason::SnatExhausted | DropReason::SnatHostLimit);
                    let no_session = matches!(
                        reason,
                        DropReason::SessionTableFull | DropReason::HostShare | DropReason::HostHalfOpen
                    );
                    let by_rule = matches!(
                        reason,
                        DropReason::AclMaxSessions
                            | DropReason::AclMaxSessionsPerSource
                            | DropReason::AclSourcesFull
                    ) && snap.options.acl_reject
                        && s.zone.zone() == Zone::Lan;
                    if no_port || by_rule || (no_session && decision.snat.is_some()) {
                        self.send_icmp_error(snap, now, s, f.bytes(), IcmpError::AdminProhibited, emit);
                    }
                    return drop_at(&self.counters, s.ingress, reason);
                }
            },
        }
        let mut entry = *s;
        match (seen.opening, proxied, found) {
            (Some(opening), _, Some(no)) if self.begin_proxied::<R>(now, s, no, &opening, f) => {}
            (Some(_), ..) => return drop_at(&self.counters, s.ingress, DropReason::SynProxyWait),
            (None, Some(p), Some(no)) if no.direction() == 1 => {
                entry = self.proxied_answer::<R>(env, s, (no, p), f, emit).unwrap_or(entry);
            }
            _ => {}
        }
        let s = &entry;
        let mut out = Outgoing {
            snap,
            s,
            marked: None,
            decision: &decision,
            nexthop: words,
            record: seen.related.or(found),
            is_error: seen.related.is_some(),
            verdict: Verdict::Held,
        };
        match self.apply::<R>(&mut out, f, emit) {
            Ok(()) => out.verdict,
            Err(verdict) => verdict,
        }
    }

    /// Whether a worker must look at all of the flow's packets again. What XDP cannot do for a tunnel, the
    /// tunnel's own record tells it; here the flow's record answers all the same.
    fn is_for_workers(decision: &ForwardDecision, nh: &NextHop) -> bool {
        // The record knows the next hop's MTU only: a smaller one of the route is checked here.
        decision.watched || decision.tunnel.is_none() && decision.mtu < nh.mtu
    }

    /// A packet of an existing session whose record did not answer for it.
    fn update_session<R: SharedTable>(
        &self,
        env: &Env<'_>,
        s: &BatchEntry,
        (no, action): (RecordNo, Action),
        known: Known,
        rule: Option<RuleSlot>,
        frame: &[u8],
    ) {
        let Env { snap, now, .. } = *env;
        let table = R::table(&self.tables);
        let tcp_flags = match s.p.l4 {
            L4::Tcp { flags } => flags,
            _ => 0,
        };
        let meta = table.meta(no.session());
        let r = table.record(no);
        if let Known::Revalidate { .. } = known {
            session::flush_counters(table, no.session(), snap);
            session::set_rule(table, no.session(), rule, &snap.acl);
            meta.reply_rule.store(SAME_RULE, Ordering::Relaxed);
            // The session is admitted; the other direction looks its route up with its next packet.
            let other = table.record(no.peer());
            other.epoch().store(snap.epoch | EPOCH_SESSION | EPOCH_REVALIDATING, Ordering::Release);
        }
        let reply = no.direction() == 1;
        if let (Known::New, true) = (known, reply) {
            // Stateless: the answers were judged by a rule of their own.
            let rule = RuleSlot::to_word(rule);
            if meta.reply_rule.load(Ordering::Relaxed) != rule {
                session::flush_counters(table, no.session(), snap);
                meta.reply_rule.store(rule, Ordering::Relaxed);
            }
        }
        let state = if reply { 0 } else { session::state_flags(meta.state.load(Ordering::Relaxed)) };
        let flags = action.flags | R::nat_flags(&r.key(), &r.translated()) | state;
        r.action().store(Action { flags, ..action }.to_word(), Ordering::Relaxed);
        r.set_ingress(s.ingress_id());
        session::note_port(meta, no.direction(), s.ingress.0);
        r.epoch().store(snap.epoch, Ordering::Release);
        replica::claim(table, no.session());
        // Before this packet counts: it may be the one that completes the handshake.
        let before = session::state_of(table, no.session());
        touch(r, now, s.p.ip_len);
        let first_answer = reply && session::note_answer(table, no.session());
        if s.p.proto == TCP && (first_answer || tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0) {
            let tick = now.tick().0;
            if let Some(n) = numbers(table, s, no, frame)
                && session::note_numbers(meta, before, &n) == Effect::Ignore
            {
                if before == Some(State::TcpSynAck) && !reply {
                    // Counted in the record, but it does not complete the handshake.
                    session::follow(table, no.session(), |sent| Segment {
                        flags: TCP_SYN,
                        reply,
                        tick,
                        sent,
                    });
                }
                return;
            }
            session::follow(table, no.session(), |sent| Segment { flags: tcp_flags, reply, tick, sent });
        }
    }

    /// The packets of a record may not come in any more where they did, since a route or the configuration has changed.
    /// The session stays: they may come in elsewhere. A forged packet that comes in elsewhere changes nothing.
    fn revoke_ingress<R: SharedTable>(&self, s: &BatchEntry, no: RecordNo) {
        let r = R::table(&self.tables).record(no);
        if r.ingress() == s.ingress_id() {
            r.set_ingress(IngressId::REVOKED);
        }
    }

    pub(super) fn end<R: SharedTable>(&mut self, snap: &Snapshot, session: u32) {
        let ending = self.sessions.ending(R::FAMILY, &self.tables);
        if session::end(R::table(&self.tables), session, snap, ending) {
            self.counters.sessions_ended.add(1);
        }
        self.batch.changes.ended = true;
    }

    /// Sends an ICMP error about a packet, if one may be sent.
    pub(super) fn send_icmp_error(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        s: &BatchEntry,
        frame: &[u8],
        error: IcmpError,
        emit: &mut impl Emit,
    ) {
        if originate::forbidden(&s.p, frame) {
            return;
        }
        let c = self.counters.port(s.ingress);
        let limiter = self.icmp.port(s.ingress);
        if !limiter.allow(now, snap.options.icmp_rate) {
            c.icmp_suppressed.add(1);
            return;
        }
        let near = s.tunnel.is_none().then_some(s.ingress);
        match originate::icmp_error(snap, (s.zone.vrf(), near), &s.p, frame, error, &mut self.buffers.scratch)
        {
            IcmpResult::Ready { port, start, len } => {
                if emit.emit(port, &self.buffers.scratch[start..start + len]) {
                    let out = self.counters.port(port);
                    out.tx_packets.add(1);
                    out.tx_bytes.add(len as u64);
                    out.originated.add(1);
                }
            }
            IcmpResult::NoRoute | IcmpResult::Forbidden => {
                limiter.refund(snap.options.icmp_rate);
                c.icmp_suppressed.add(1);
            }
        }
    }
}

/// Whether packets of a record are forwarded.
fn is_admitted<R: SharedTable>(r: &R, action: Action) -> bool {
    action.act == FlowAct::Forward || r.crosses() && action.flags & (FLOW_SNAT | FLOW_DNAT) != 0
}

/// The addresses of an IPv6 session.
fn translation6_of<R: SharedTable>(first: &R, to_vrf: VrfNo, reply: bool) -> Option<Translation6> {
    if R::FAMILY == Family::V4 {
        return None;
    }
    let (key, new) = (first.key(), first.translated());
    let addrs = |key: &R::Key| match (R::tuple(key).src, R::tuple(key).dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => Some((src, dst)),
        _ => None,
    };
    Some(Translation6 { from: R::side(&key)?, to_vrf, old: addrs(&key)?, new: addrs(&new)?, reply })
}

/// What was found out about a packet before its walk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub known: Known,
    /// The record of the answers to the packet that an ICMP error quotes.
    pub related: Option<RecordNo>,
    /// It is a SYN that a packet with a SYN cookie has become.
    pub opening: Option<Opening>,
    /// The line to the Internet whose address the session's source has become.
    pub line: Option<PortIdx>,
}

/// The meters of a flow that was checked in this epoch.
fn metered<R: SharedTable>(snap: &Snapshot, r: &R) -> Option<Option<MeterGroupNo>> {
    let current = r.epoch().load(Ordering::Acquire) == snap.epoch;
    let action = Action::from_word(r.action().load(Ordering::Relaxed));
    let admitted = current && is_admitted(r, action);
    let group = MeterGroupNo::new(action.meter).filter(|_| action.flags & FLOW_METER != 0);
    admitted.then_some(group)
}
