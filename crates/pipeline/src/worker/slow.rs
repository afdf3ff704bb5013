//! Packets that no flow record answers for: the walk through all stages, and what it leaves behind
//! (sessions, ICMP errors, fragments).

use super::{Pipeline, Slot, Verdict, drop_at, touch};
use crate::family::{self, FamilyOf};
use crate::fragments::Ports;
use crate::hold::{self, Arrival};
use crate::order::{self, Known, Stop, View, Way};
use crate::originate::{self, Built, Emit, LINK_ROOM};
use crate::session;
use crate::snapshot::{NextHop, NextHopWords, Snapshot};
use crate::table::{NotCreated, SAME_RULE};
use crate::trace::NoTrace;
use sag_model::flow::{Action, FLOW_PUNT_ALL, FlowAct, RecordNo};
use sag_model::{DropReason, Nanos, PortIdx, Zone};
use sag_packet::icmp::IcmpError;
use sag_packet::parse::{Family, L4};
use sag_packet::proto::{ETH_LEN, TCP, TCP_FIN, TCP_RST, TCP_SYN};
use sag_packet::rewrite::{self, FrameMut, LinkHeader};
use std::sync::atomic::Ordering;

impl Pipeline {
    /// The long way: all stages, then the flow record is written for the next packet. The packet
    /// arrived at `since`; it may wait for its next hop [`hold::PATIENCE`] from then.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn walk_one<R: FamilyOf>(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        dev: u8,
        s: &Slot,
        f: &mut FrameMut<'_>,
        emit: &mut impl Emit,
        since: Nanos,
    ) -> Verdict {
        let view = self.view::<R>(snap, s, f.bytes());
        let known = view.session;
        match order::walk(snap, &view, &mut NoTrace) {
            Ok(way) => self.deliver::<R>(snap, now, s, f, way, known, emit),
            Err(Stop::Kernel) => {
                self.counters.port(s.ingress).to_kernel.add(1);
                Verdict::Kernel
            }
            Err(Stop::Unresolved { port, to }) => {
                if now - since > hold::PATIENCE {
                    self.tell(snap, now, s, f.bytes(), IcmpError::HostUnreachable, emit);
                    return drop_at(&self.counters, s.ingress, DropReason::NeighborFailed);
                }
                let arrival = Arrival { dev, ingress: s.ingress, since, ports: Ports::of(&s.p) };
                if self.request(port, to) && self.hold.push((port, to), arrival, f.bytes()) {
                    self.counters.port(s.ingress).held.add(1);
                    Verdict::Held
                } else {
                    drop_at(&self.counters, s.ingress, DropReason::NeighborQueueFull)
                }
            }
            Err(Stop::Drop { reason, tell, rule }) => {
                hit(snap, rule, s, now);
                let denied = matches!(reason, DropReason::AclDenied | DropReason::AclDefaultDenied);
                if let (true, Known::Stale { .. }, Some(no)) = (denied, known, s.found) {
                    self.end::<R>(snap, no.session());
                }
                if let Some(error) = tell {
                    self.tell(snap, now, s, f.bytes(), error, emit);
                }
                drop_at(&self.counters, s.ingress, reason)
            }
        }
    }

    /// A packet as the stages see it.
    pub(super) fn view<'f, R: FamilyOf>(&self, snap: &Snapshot, s: &'f Slot, frame: &'f [u8]) -> View<'f> {
        View {
            p: &s.p,
            frame,
            ingress: s.ingress,
            zone: s.zone,
            hash: s.hash,
            session: self.known::<R>(snap, s, frame),
            leaves_to: self.leaves_to::<R>(s),
        }
    }

    /// What the session table knows of a packet.
    fn known<R: FamilyOf>(&self, snap: &Snapshot, s: &Slot, frame: &[u8]) -> Known {
        let table = R::table(&self.tables);
        let related = matches!(s.p.l4, L4::IcmpError { .. });
        let found = match related {
            true => family::quoted_key::<R>(&s.p, frame, s.zone).and_then(|k| table.find(&k, table.hash(&k))),
            false => s.found,
        };
        let Some(no) = found else { return Known::New };
        let (first, second) = (RecordNo(no.session() * 2), RecordNo(no.session() * 2 + 1));
        let reply = no == second;
        if reply && !related && !snap.options.acl_stateful {
            let judged = table.record(second).epoch().load(Ordering::Acquire) == snap.epoch
                && Action::from_word(table.record(second).action().load(Ordering::Relaxed)).act
                    == FlowAct::Forward;
            return if judged { Known::Judged } else { Known::New };
        }
        if table.record(first).epoch().load(Ordering::Acquire) == snap.epoch {
            return if related { Known::Related } else { Known::Judged };
        }
        let key = table.record(first).key();
        match (R::zone(&key), R::zone(&table.record(second).key())) {
            (Some(from), Some(to)) => Known::Stale { initiator: R::tuple(&key), from, to },
            _ => Known::New,
        }
    }

    /// The zone to which a session's packets in this direction go.
    fn leaves_to<R: FamilyOf>(&self, s: &Slot) -> Option<Zone> {
        s.found.and_then(|no| R::zone(&R::table(&self.tables).record(no.peer()).key()))
    }

    /// Writes the flow's record and sends the packet.
    #[allow(clippy::too_many_arguments)]
    fn deliver<R: FamilyOf>(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        s: &Slot,
        f: &mut FrameMut<'_>,
        way: Way,
        known: Known,
        emit: &mut impl Emit,
    ) -> Verdict {
        let Some(words) = snap.nexthops.get(usize::from(way.nexthop)).map(NextHopWords::load) else {
            return drop_at(&self.counters, s.ingress, DropReason::NeighborFailed);
        };
        let nh = words.unpack();
        let action = Action {
            nexthop: way.nexthop,
            meter: 0,
            act: FlowAct::Forward,
            // The record knows the next hop's MTU only: a smaller one of the route is checked here.
            flags: if way.mtu < nh.mtu { FLOW_PUNT_ALL } else { 0 },
            tunnel: 0,
            nh_gen: nh.generation,
        };
        let tcp_flags = match s.p.l4 {
            L4::Tcp { flags } => flags,
            _ => 0,
        };
        let mut found = s.found;
        if let Some(no) = found
            && self.leaves_to::<R>(s) != snap.port(way.port).map(|p| p.zone)
        {
            // Rerouted across another border: its answers will come from elsewhere.
            self.end::<R>(snap, no.session());
            found = None;
        }
        let no_session =
            matches!(s.p.l4, L4::IcmpError { .. }) || (found.is_none() && tcp_flags & TCP_RST != 0);
        match found {
            _ if no_session => hit(snap, way.rule, s, now),
            Some(no) => self.renew::<R>(snap, now, s, no, action, known, way.rule, tcp_flags),
            None => {
                if let Err(reason) = self.open::<R>(snap, now, s, f.bytes(), action, &way, tcp_flags) {
                    return drop_at(&self.counters, s.ingress, reason);
                }
            }
        }
        if way.split {
            return self.split(s, &way, &nh, f, emit);
        }
        let mut verdict = Verdict::Held;
        self.transmit(s, &words, f, &mut verdict);
        verdict
    }

    /// A new session from its first packet.
    #[allow(clippy::too_many_arguments)]
    fn open<R: FamilyOf>(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        s: &Slot,
        frame: &[u8],
        action: Action,
        way: &Way,
        tcp_flags: u8,
    ) -> Result<(), DropReason> {
        let Some(to) = snap.port(way.port).map(|p| p.zone) else { return Err(DropReason::PortNotReady) };
        let key = R::flow_key(&s.p, frame, s.zone);
        let reverse = R::reverse(&key, to);
        let tick = now.tick().0;
        let table = R::table(&self.tables);
        let quarantine = match s.p.family {
            Family::V4 => &mut self.quarantine4,
            Family::V6 => &mut self.quarantine6,
        };
        let made = table.create(&key, &reverse, quarantine, |fwd, rev, meta| {
            R::set_identity(fwd, &key);
            R::set_identity(rev, &reverse);
            fwd.action().store(action.to_word(), Ordering::Relaxed);
            // Admitted with the session; its way out is found when the first reply comes.
            rev.action().store(Action::PUNT.to_word(), Ordering::Relaxed);
            for r in [fwd, rev] {
                r.epoch().store(snap.epoch, Ordering::Relaxed);
                r.last_seen().store(tick, Ordering::Relaxed);
            }
            meta.created.store(tick, Ordering::Relaxed);
            meta.rule.store(way.rule.map_or(0, |r| r + 1), Ordering::Relaxed);
            meta.reply_rule.store(SAME_RULE, Ordering::Relaxed);
            meta.ports.store(u32::from(s.ingress.0) | u32::from(way.port.0) << 8, Ordering::Relaxed);
            meta.state.store(session::first_word(s.p.proto, tcp_flags), Ordering::Release);
        });
        match made {
            Ok(no) => {
                touch(table.record(no), now, s.p.ip_len);
                self.counters.sessions_created.add(1);
                self.changed = true;
                Ok(())
            }
            Err(NotCreated::Exists(no)) if table.record(no).matches(&key) => {
                touch(table.record(no), now, s.p.ip_len);
                Ok(())
            }
            // Its answers have the key of another session's (the same addresses and ports from
            // another zone), or another worker is at it: it goes without a session.
            Err(NotCreated::Exists(_) | NotCreated::Contended) => {
                hit(snap, way.rule, s, now);
                Ok(())
            }
            Err(NotCreated::Full) => Err(DropReason::SessionTableFull),
        }
    }

    /// A packet of an existing session whose record did not answer for it.
    #[allow(clippy::too_many_arguments)]
    fn renew<R: FamilyOf>(
        &self,
        snap: &Snapshot,
        now: Nanos,
        s: &Slot,
        no: RecordNo,
        action: Action,
        known: Known,
        rule: Option<u32>,
        tcp_flags: u8,
    ) {
        let table = R::table(&self.tables);
        let meta = table.meta(no.session());
        let r = table.record(no);
        if let Known::Stale { .. } = known {
            session::settle(table, no.session(), snap);
            meta.rule.store(rule.map_or(0, |r| r + 1), Ordering::Relaxed);
            meta.reply_rule.store(SAME_RULE, Ordering::Relaxed);
            // The session is judged; the other direction finds its way out with its next packet.
            let other = table.record(no.peer());
            other.action().store(Action::PUNT.to_word(), Ordering::Relaxed);
            other.epoch().store(snap.epoch, Ordering::Release);
        }
        let reply = no.0 & 1 == 1;
        if let (Known::New, true) = (known, reply) {
            // Stateless: the answers were judged by a rule of their own.
            let rule = rule.map_or(0, |r| r + 1);
            if meta.reply_rule.load(Ordering::Relaxed) != rule {
                session::settle(table, no.session(), snap);
                meta.reply_rule.store(rule, Ordering::Relaxed);
            }
        }
        r.action().store(action.to_word(), Ordering::Relaxed);
        r.epoch().store(snap.epoch, Ordering::Release);
        touch(r, now, s.p.ip_len);
        if s.p.proto == TCP && tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0 {
            let old = meta.state.load(Ordering::Acquire);
            let new = session::next_word(old, tcp_flags, reply);
            // Lost to another worker or to removal: that one's word stands.
            let _ = meta.state.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    fn end<R: FamilyOf>(&mut self, snap: &Snapshot, session: u32) {
        let table = R::table(&self.tables);
        session::settle(table, session, snap);
        let quarantine = match R::FAMILY {
            Family::V4 => &mut self.quarantine4,
            Family::V6 => &mut self.quarantine6,
        };
        if table.remove(session, quarantine) {
            self.counters.sessions_ended.add(1);
        }
        self.changed = true;
    }

    fn split(
        &mut self,
        s: &Slot,
        way: &Way,
        nh: &NextHop,
        f: &mut FrameMut<'_>,
        emit: &mut impl Emit,
    ) -> Verdict {
        rewrite::decrement_ttl(f.bytes_mut(), &s.p);
        let link =
            LinkHeader { dst: nh.dmac, src: nh.smac, vlan: nh.vlan, ethertype: order::ethertype(s.p.family) };
        let out = self.counters.port(nh.port);
        let sent = originate::split_ipv4(s.p.ip(f.bytes()), way.mtu, &mut self.scratch, |buf, len| {
            let mut piece = FrameMut::new(buf, LINK_ROOM - ETH_LEN, ETH_LEN + len);
            let ok = piece.set_link(ETH_LEN, len, &link).is_ok() && emit.emit(nh.port, piece.bytes());
            if ok {
                out.tx_packets.add(1);
                out.tx_bytes.add(piece.len() as u64);
            }
            ok
        });
        if sent == 0 {
            return drop_at(&self.counters, s.ingress, DropReason::TxRingFull);
        }
        self.counters.port(s.ingress).forwarded.add(1);
        out.originated.add(u64::from(sent) - 1);
        Verdict::Split
    }

    /// Sends an ICMP error about a packet, if one may be sent.
    fn tell(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        s: &Slot,
        frame: &[u8],
        error: IcmpError,
        emit: &mut impl Emit,
    ) {
        if originate::forbidden(&s.p, frame) {
            return;
        }
        let c = self.counters.port(s.ingress);
        let limiter = &mut self.limiters[s.ingress.index().min(PortIdx::MAX - 1)];
        if !limiter.allow(now, snap.options.icmp_rate) {
            c.icmp_suppressed.add(1);
            return;
        }
        match originate::icmp_error(snap, s.ingress, &s.p, frame, error, &mut self.scratch) {
            Built::Ready { port, start, len } => {
                if emit.emit(port, &self.scratch[start..start + len]) {
                    let out = self.counters.port(port);
                    out.tx_packets.add(1);
                    out.tx_bytes.add(len as u64);
                    out.originated.add(1);
                }
            }
            Built::NoWay | Built::Forbidden => {
                limiter.refund(snap.options.icmp_rate);
                c.icmp_suppressed.add(1);
            }
        }
    }
}

/// Counts a packet that no session counts for its rule.
fn hit(snap: &Snapshot, rule: Option<u32>, s: &Slot, now: Nanos) {
    if let Some(stats) = rule.and_then(|r| snap.acl.stats(r)) {
        stats.hit(1, u64::from(s.p.ip_len), now.tick().0);
    }
}
