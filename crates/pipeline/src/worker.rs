//! One worker's pipeline: batches of frames in, verdicts out.

use crate::counters::Counters;
use crate::family::{self, FamilyOf};
use crate::fragments::{DatagramKey, Fragments};
use crate::hold::{self, Hold};
use crate::order::{self, Known, Stop, View, Way};
use crate::originate::{self, Built, LINK_ROOM, Limiter};
use crate::session::{self, State, Sweeper};
use crate::snapshot::{NextHop, Snapshot};
use crate::table::{FlowTable, NotCreated, Quarantine};
use crate::trace::{NoTrace, Steps};
use sag_model::flow::{Action, FLOW_PUNT_ALL, FlowAct, FlowRecord, FlowRecord4, FlowRecord6, RecordNo};
use sag_model::ids::Zone;
use sag_model::{DropReason, Nanos, PortIdx};
use sag_packet::icmp::IcmpError;
use sag_packet::parse::{self, Family, Fragment, L4, Parsed, Seen};
use sag_packet::proto::{ETH_LEN, TCP, TCP_FIN, TCP_RST, TCP_SYN};
use sag_packet::rewrite::{self, FrameMut, LinkHeader};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use crate::originate::Emit;

/// Frames in one call of [`Pipeline::batch`].
pub const BATCH: usize = 64;

/// The flow tables of both families.
#[derive(Debug)]
pub struct Tables {
    pub v4: FlowTable<FlowRecord4>,
    pub v6: FlowTable<FlowRecord6>,
}

/// A batch of received frames.
pub trait Frames {
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    fn frame(&mut self, i: usize) -> FrameMut<'_>;
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send bytes `start..start + len` of the frame's buffer by this port.
    Tx {
        port: PortIdx,
        start: usize,
        len: usize,
    },
    Drop(DropReason),
    Kernel,
    /// Copied away until its next hop is resolved.
    Held,
    /// Sent as fragments.
    Split,
}

/// A parsed frame between the steps of a batch.
#[derive(Debug, Clone, Copy)]
struct Slot {
    p: Parsed,
    ingress: PortIdx,
    zone: Zone,
    hash: u64,
    found: Option<RecordNo>,
}

#[derive(Debug)]
pub struct Pipeline {
    pub tables: Arc<Tables>,
    pub counters: Arc<Counters>,
    quarantine4: Quarantine,
    quarantine6: Quarantine,
    fragments: Fragments,
    hold: Hold,
    limiters: Box<[Limiter]>,
    requests: Vec<(PortIdx, IpAddr)>,
    sweep4: Sweeper,
    sweep6: Sweeper,
    swept: Nanos,
    slots: Vec<Option<Slot>>,
    scratch: Box<[u8]>,
    /// Buffer of the held packet that is being released.
    released: Box<[u8]>,
    touched: u32,
}

/// Next hops that one worker asks for between two collections.
const MAX_REQUESTS: usize = 64;
/// Sessions swept per millisecond, at the least and at the most.
const SWEEP: std::ops::RangeInclusive<u64> = 32..=128;

impl Pipeline {
    pub fn new(tables: Arc<Tables>, worker: u32, workers: u32) -> Pipeline {
        Pipeline {
            tables,
            counters: Counters::new(),
            quarantine4: Quarantine::default(),
            quarantine6: Quarantine::default(),
            fragments: Fragments::default(),
            hold: Hold::default(),
            limiters: vec![Limiter::default(); PortIdx::MAX].into_boxed_slice(),
            requests: Vec::with_capacity(MAX_REQUESTS),
            sweep4: Sweeper::new(worker, workers),
            sweep6: Sweeper::new(worker, workers),
            swept: Nanos::ZERO,
            slots: Vec::with_capacity(BATCH),
            scratch: vec![0; 16 * 1024].into_boxed_slice(),
            released: vec![0; hold::SLOT_BYTES].into_boxed_slice(),
            touched: 0,
        }
    }

    /// Runs a batch (at most [`BATCH`] frames are looked at) that arrived on one device.
    ///
    /// The steps go over the whole batch one after the other, so that the cache misses of its
    /// packets overlap.
    pub fn batch(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        dev: u8,
        frames: &mut impl Frames,
        verdicts: &mut Vec<Verdict>,
        emit: &mut impl Emit,
    ) {
        let n = frames.len().min(BATCH);
        verdicts.clear();
        self.slots.clear();
        for i in 0..n {
            let f = frames.frame(i);
            let slot = self.ingest(snap, now, dev, f.bytes());
            if let Err(v) = slot {
                verdicts.push(v);
            } else {
                verdicts.push(Verdict::Held);
            }
            self.slots.push(slot.ok());
        }
        for i in 0..n {
            if let Some(mut s) = self.slots[i] {
                let f = frames.frame(i);
                s.found = self.find(&s, f.bytes());
                self.slots[i] = Some(s);
            }
        }
        for i in 0..n {
            if let Some(s) = self.slots[i] {
                let mut f = frames.frame(i);
                verdicts[i] = match s.p.family {
                    Family::V4 => self.one::<FlowRecord4>(snap, now, dev, &s, &mut f, emit),
                    Family::V6 => self.one::<FlowRecord6>(snap, now, dev, &s, &mut f, emit),
                };
            }
        }
        self.counters.batches.add(1);
        self.counters.packets.add(n as u64);
    }

    /// Ingress port, headers and flow hash of a frame.
    #[inline]
    fn ingest(&mut self, snap: &Snapshot, now: Nanos, dev: u8, frame: &[u8]) -> Result<Slot, Verdict> {
        let count = |c: &Counters, port: PortIdx| {
            c.port(port).rx_packets.add(1);
            c.port(port).rx_bytes.add(frame.len() as u64);
        };
        let anyone = || snap.ingress.port(dev, 0).or_else(|| snap.ingress.first(dev)).unwrap_or(PortIdx(0));
        let c = &self.counters;
        let (vlan, ethertype, l3) = parse::link(frame).map_err(|r| {
            count(c, anyone());
            drop_at(c, anyone(), r)
        })?;
        let Some(ingress) = snap.ingress.port(dev, vlan) else {
            count(c, anyone());
            let reason = if vlan != 0 { DropReason::VlanUnknown } else { DropReason::PortNotReady };
            return Err(drop_at(c, anyone(), reason));
        };
        count(c, ingress);
        let Some(port) = snap.port(ingress) else {
            return Err(drop_at(c, ingress, DropReason::PortNotReady));
        };
        let dst_mac: Option<&[u8; 6]> = frame.first_chunk();
        let ours = dst_mac.is_some_and(|m| *m == port.mac.0) || snap.options.promiscuous;
        let seen = parse::parse(frame, ethertype, l3);
        let group = dst_mac.is_some_and(|m| m[0] & 1 != 0);
        if !ours || group {
            c.port(ingress).to_kernel.add(1);
            return Err(Verdict::Kernel);
        }
        let mut p = match seen {
            Ok(Seen::Ip(p)) => p,
            Ok(Seen::NotIp { .. }) => {
                c.port(ingress).to_kernel.add(1);
                return Err(Verdict::Kernel);
            }
            Err(reason) => return Err(drop_at(c, ingress, reason)),
        };
        if p.fragment != Fragment::Whole {
            let key = datagram(&p, frame, port.zone);
            if order::local(snap, p.dst(frame)).is_ok() && !self.fragments.follow(&key, &mut p, now) {
                return Err(drop_at(c, ingress, DropReason::FragmentNoFirst));
            }
        }
        let hash = match p.family {
            Family::V4 => self.tables.v4.hash(&p.key4(port.zone)),
            Family::V6 => self.tables.v6.hash(&p.key6(frame, port.zone)),
        };
        self.touched ^= match p.family {
            Family::V4 => self.tables.v4.touch(hash),
            Family::V6 => self.tables.v6.touch(hash),
        };
        Ok(Slot { p, ingress, zone: port.zone, hash, found: None })
    }

    #[inline]
    fn find(&self, s: &Slot, frame: &[u8]) -> Option<RecordNo> {
        match s.p.family {
            Family::V4 => self.tables.v4.find(&s.p.key4(s.zone), s.hash),
            Family::V6 => self.tables.v6.find(&s.p.key6(frame, s.zone), s.hash),
        }
    }

    #[inline]
    fn one<R: FamilyOf>(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        dev: u8,
        s: &Slot,
        f: &mut FrameMut<'_>,
        emit: &mut impl Emit,
    ) -> Verdict {
        if let Some(no) = s.found
            && let Some(v) = self.established::<R>(snap, now, s, no, f)
        {
            return v;
        }
        self.walk_one::<R>(snap, now, dev, s, f, emit, true)
    }

    /// The short cut: a flow record of this epoch with a resolved next hop answers for the packet.
    /// The XDP program does exactly this.
    #[inline]
    fn established<R: FamilyOf>(
        &self,
        snap: &Snapshot,
        now: Nanos,
        s: &Slot,
        no: RecordNo,
        f: &mut FrameMut<'_>,
    ) -> Option<Verdict> {
        let r = R::table(&self.tables).record(no);
        let action = Action::from_word(r.action().load(Ordering::Acquire));
        let plain = r.epoch().load(Ordering::Relaxed) == snap.epoch
            && action.act == FlowAct::Forward
            && action.flags & FLOW_PUNT_ALL == 0
            && s.p.ttl > 1
            && s.p.fragment == Fragment::Whole
            && !matches!(s.p.l4, L4::Tcp { flags } if flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0)
            && !matches!(s.p.l4, L4::IcmpError { .. });
        if !plain {
            return None;
        }
        let nh = snap.nexthop(action.nexthop)?;
        if !nh.valid() || nh.generation != action.nh_gen || s.p.ip_len > nh.mtu {
            return None;
        }
        touch(r, now, s.p.ip_len);
        Some(self.transmit(s, &nh, f))
    }

    /// TTL and link header, then out.
    #[inline]
    fn transmit(&self, s: &Slot, nh: &NextHop, f: &mut FrameMut<'_>) -> Verdict {
        rewrite::decrement_ttl(f.bytes_mut(), &s.p);
        let link =
            LinkHeader { dst: nh.dmac, src: nh.smac, vlan: nh.vlan, ethertype: order::ethertype(s.p.family) };
        if f.set_link(usize::from(s.p.l3), usize::from(s.p.ip_len), &link).is_err() {
            return drop_at(&self.counters, s.ingress, DropReason::FrameTooBig);
        }
        self.counters.port(s.ingress).forwarded.add(1);
        let out = self.counters.port(nh.port);
        out.tx_packets.add(1);
        out.tx_bytes.add(f.len() as u64);
        Verdict::Tx { port: nh.port, start: f.start(), len: f.len() }
    }

    /// The long way: all stages, then the flow record is written for the next packet.
    #[allow(clippy::too_many_arguments)]
    fn walk_one<R: FamilyOf>(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        dev: u8,
        s: &Slot,
        f: &mut FrameMut<'_>,
        emit: &mut impl Emit,
        may_hold: bool,
    ) -> Verdict {
        let known = self.known::<R>(snap, s, f.bytes());
        let view = View {
            p: &s.p,
            frame: f.bytes(),
            ingress: s.ingress,
            zone: s.zone,
            hash: s.hash,
            session: known,
        };
        match order::walk(snap, &view, &mut NoTrace) {
            Ok(way) => self.deliver::<R>(snap, now, s, f, way, known, emit),
            Err(Stop::Kernel) => {
                self.counters.port(s.ingress).to_kernel.add(1);
                Verdict::Kernel
            }
            Err(Stop::Unresolved { port, to }) => {
                if !may_hold {
                    self.tell(snap, now, s, f.bytes(), IcmpError::HostUnreachable, emit);
                    return drop_at(&self.counters, s.ingress, DropReason::NeighborFailed);
                }
                self.request(port, to);
                if self.hold.push(port, to, dev, s.ingress, now, f.bytes()) {
                    self.counters.port(s.ingress).held.add(1);
                    Verdict::Held
                } else {
                    drop_at(&self.counters, s.ingress, DropReason::NeighborQueueFull)
                }
            }
            Err(Stop::Drop { reason, tell, rule }) => {
                if let Some(stats) = rule.and_then(|r| snap.acl.stats(r)) {
                    stats.hit(1, u64::from(s.p.ip_len), now.tick().0);
                }
                if let (DropReason::AclDenied | DropReason::AclDefaultDenied, Some(no)) = (reason, s.found) {
                    self.end::<R>(snap, no.session());
                }
                if let Some(error) = tell {
                    self.tell(snap, now, s, f.bytes(), error, emit);
                }
                drop_at(&self.counters, s.ingress, reason)
            }
        }
    }

    /// What the session table knows of a packet.
    fn known<R: FamilyOf>(&self, snap: &Snapshot, s: &Slot, frame: &[u8]) -> Known {
        let table = R::table(&self.tables);
        if let L4::IcmpError { .. } = s.p.l4 {
            let related = family::quoted_key::<R>(&s.p, frame, s.zone)
                .is_some_and(|key| table.find(&key, table.hash(&key)).is_some());
            return if related { Known::Related } else { Known::New };
        }
        let Some(no) = s.found else { return Known::New };
        let (first, second) = (RecordNo(no.session() * 2), RecordNo(no.session() * 2 + 1));
        let reply = no == second;
        if reply && !snap.options.acl_stateful {
            let judged = table.record(second).epoch().load(Ordering::Acquire) == snap.epoch
                && Action::from_word(table.record(second).action().load(Ordering::Relaxed)).act
                    == FlowAct::Forward;
            return if judged { Known::Judged } else { Known::New };
        }
        if table.record(first).epoch().load(Ordering::Acquire) == snap.epoch {
            return Known::Judged;
        }
        let key = table.record(first).key();
        match (R::zone(&key), R::zone(&table.record(second).key())) {
            (Some(from), Some(to)) => Known::Stale { initiator: R::tuple(&key), from, to },
            _ => Known::New,
        }
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
        let Some(nh) = snap.nexthop(way.nexthop) else {
            return drop_at(&self.counters, s.ingress, DropReason::NeighborFailed);
        };
        let action = Action {
            nexthop: way.nexthop,
            meter: 0,
            act: FlowAct::Forward,
            flags: 0,
            tunnel: 0,
            nh_gen: nh.generation,
        };
        let tcp_flags = match s.p.l4 {
            L4::Tcp { flags } => flags,
            _ => 0,
        };
        let no_session =
            matches!(s.p.l4, L4::IcmpError { .. }) || (s.found.is_none() && tcp_flags & TCP_RST != 0);
        match s.found {
            _ if no_session => {
                if let Some(stats) = way.rule.and_then(|r| snap.acl.stats(r)) {
                    stats.hit(1, u64::from(s.p.ip_len), now.tick().0);
                }
            }
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
        self.transmit(s, &nh, f)
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
            meta.ports.store(u32::from(s.ingress.0) | u32::from(way.port.0) << 8, Ordering::Relaxed);
            meta.state.store(State::first(s.p.proto, tcp_flags) as u32, Ordering::Release);
        });
        match made {
            Ok(no) => {
                touch(table.record(no), now, s.p.ip_len);
                self.counters.sessions_created.add(1);
                Ok(())
            }
            Err(NotCreated::Exists(no)) => {
                touch(table.record(no), now, s.p.ip_len);
                Ok(())
            }
            Err(NotCreated::Contended) => Ok(()),
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
            // The session is judged; the other direction finds its way out with its next packet.
            let other = table.record(no.peer());
            other.action().store(Action::PUNT.to_word(), Ordering::Relaxed);
            other.epoch().store(snap.epoch, Ordering::Release);
        }
        r.action().store(action.to_word(), Ordering::Relaxed);
        r.epoch().store(snap.epoch, Ordering::Release);
        touch(r, now, s.p.ip_len);
        if s.p.proto == TCP && tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0 {
            let reply = no.0 & 1 == 1;
            let old = meta.state.load(Ordering::Acquire);
            if let Some(state) = State::from_u32(old & 0xFF) {
                let new = state.after(tcp_flags, reply) as u32;
                // Lost to another worker or to removal: that one's word stands.
                let _ = meta.state.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed);
            }
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
        let c = self.counters.port(s.ingress);
        match originate::icmp_error(snap, s.ingress, &s.p, frame, error, &mut self.scratch) {
            Built::Ready { port, start, len } => {
                let limiter = &mut self.limiters[s.ingress.index().min(PortIdx::MAX - 1)];
                if !limiter.allow(now, snap.options.icmp_rate) {
                    c.icmp_suppressed.add(1);
                    return;
                }
                if emit.emit(port, &self.scratch[start..start + len]) {
                    let out = self.counters.port(port);
                    out.tx_packets.add(1);
                    out.tx_bytes.add(len as u64);
                    out.originated.add(1);
                }
            }
            Built::NoWay => c.icmp_suppressed.add(1),
            Built::Forbidden => {}
        }
    }

    fn request(&mut self, port: PortIdx, to: IpAddr) {
        if self.requests.len() < MAX_REQUESTS
            && !self.requests.contains(&(port, to))
            && !self.hold.waits_for(port, to)
        {
            self.requests.push((port, to));
        }
    }

    /// Where frame `i` of the last batch arrived; `None` if it did not get past ingress.
    pub fn ingress(&self, i: usize) -> Option<PortIdx> {
        Some(self.slots.get(i)?.as_ref()?.ingress)
    }

    /// Next hops to be resolved, asked for since the last call.
    pub fn take_requests(&mut self) -> impl Iterator<Item = (PortIdx, IpAddr)> + '_ {
        self.requests.drain(..)
    }

    /// Housekeeping between batches: held packets, ageing. Cheap when there is nothing to do.
    pub fn poll(&mut self, snap: &Snapshot, now: Nanos, emit: &mut impl Emit) {
        if !self.hold.is_empty() {
            self.poll_held(snap, now, emit);
        }
        let elapsed_ms = now.saturating_sub(self.swept).0 / 1_000_000;
        if elapsed_ms == 0 {
            return;
        }
        self.swept = now;
        let (tick, elapsed_ms) = (now.tick(), elapsed_ms.min(100));
        let budget = |used: u32| {
            (u64::from(used) * elapsed_ms / 500).clamp(SWEEP.start() * elapsed_ms, SWEEP.end() * elapsed_ms)
                as u32
        };
        let (t4, t6) = (&self.tables.v4, &self.tables.v6);
        self.sweep4.step(t4, &mut self.quarantine4, snap, tick, budget(t4.used()), &self.counters);
        self.sweep6.step(t6, &mut self.quarantine6, snap, tick, budget(t6.used()), &self.counters);
    }

    fn poll_held(&mut self, snap: &Snapshot, now: Nanos, emit: &mut impl Emit) {
        let resolved = |port, to| {
            snap.neighbors.get(&(port, to)).and_then(|&n| snap.nexthop(n)).is_some_and(|nh| nh.valid())
        };
        while let Some(held) = self.hold.take(|h| resolved(h.port, h.to) || now - h.since > hold::PATIENCE) {
            self.counters.port(held.ingress).held.sub(1);
            // Counted when it arrived; counted again by `ingest`.
            let len = usize::from(held.len);
            let c = self.counters.port(held.ingress);
            c.rx_packets.sub(1);
            c.rx_bytes.sub(u64::from(held.len));
            // Taken out of `self` while the pipeline runs; put back below.
            let mut buf = std::mem::take(&mut self.released);
            buf[..hold::HEADROOM + len].copy_from_slice(&self.hold.buffer(&held)[..hold::HEADROOM + len]);
            self.hold.done(held);
            let mut f = FrameMut::new(&mut buf, hold::HEADROOM, len);
            let verdict = match self.ingest(snap, now, held.dev, f.bytes()) {
                Err(v) => v,
                Ok(mut s) => {
                    s.found = self.find(&s, f.bytes());
                    match s.p.family {
                        Family::V4 => {
                            self.walk_one::<FlowRecord4>(snap, now, held.dev, &s, &mut f, emit, false)
                        }
                        Family::V6 => {
                            self.walk_one::<FlowRecord6>(snap, now, held.dev, &s, &mut f, emit, false)
                        }
                    }
                }
            };
            if let Verdict::Tx { port, start, len } = verdict
                && !emit.emit(port, &buf[start..start + len])
            {
                self.untransmit(held.ingress, port, len, DropReason::TxRingFull);
            }
            self.released = buf;
        }
    }

    /// A frame with verdict `Tx` could not be handed to the device after all.
    pub fn untransmit(&self, ingress: PortIdx, port: PortIdx, len: usize, reason: DropReason) {
        self.counters.port(ingress).forwarded.sub(1);
        let out = self.counters.port(port);
        out.tx_packets.sub(1);
        out.tx_bytes.sub(len as u64);
        self.counters.count_drop(ingress, reason);
    }

    /// What would happen to this frame: the very code that forwards, without its effects.
    pub fn explain(&self, snap: &Snapshot, dev: u8, frame: &[u8]) -> (Steps, Explained) {
        let mut steps = Steps::default();
        let verdict = self.explain_into(snap, dev, frame, &mut steps);
        (steps, verdict)
    }

    fn explain_into(&self, snap: &Snapshot, dev: u8, frame: &[u8], steps: &mut Steps) -> Explained {
        use crate::order::Stage;
        use crate::trace::Tracer;
        let parsed = parse::link(frame).and_then(|(vlan, et, l3)| Ok((vlan, parse::parse(frame, et, l3)?)));
        let (vlan, p) = match parsed {
            Ok((vlan, Seen::Ip(p))) => (vlan, p),
            Ok((_, Seen::NotIp { ethertype })) => {
                steps.step(Stage::Parse, || format!("EtherType {ethertype:#06x}"));
                return Explained::Stopped(Stop::Kernel);
            }
            Err(reason) => return Explained::Stopped(Stop::Drop { reason, tell: None, rule: None }),
        };
        let Some((ingress, zone)) = snap.ingress.port(dev, vlan).and_then(|i| Some((i, snap.port(i)?.zone)))
        else {
            let reason = DropReason::PortNotReady;
            return Explained::Stopped(Stop::Drop { reason, tell: None, rule: None });
        };
        steps.step(Stage::Parse, || format!("{:?} protocol {}, {} bytes", p.family, p.proto, p.ip_len));
        let mut s = Slot { p, ingress, zone, hash: 0, found: None };
        s.hash = match p.family {
            Family::V4 => self.tables.v4.hash(&p.key4(zone)),
            Family::V6 => self.tables.v6.hash(&p.key6(frame, zone)),
        };
        s.found = self.find(&s, frame);
        let session = match p.family {
            Family::V4 => self.known::<FlowRecord4>(snap, &s, frame),
            Family::V6 => self.known::<FlowRecord6>(snap, &s, frame),
        };
        let view = View { p: &s.p, frame, ingress, zone, hash: s.hash, session };
        match order::walk(snap, &view, steps) {
            Ok(way) => Explained::Forward(way),
            Err(stop) => Explained::Stopped(stop),
        }
    }
}

/// The end of an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explained {
    Forward(Way),
    Stopped(Stop),
}

fn drop_at(c: &Counters, port: PortIdx, reason: DropReason) -> Verdict {
    c.count_drop(port, reason);
    Verdict::Drop(reason)
}

/// Counts a packet in its record and keeps it alive.
#[inline]
fn touch<R: FlowRecord>(r: &R, now: Nanos, ip_len: u16) {
    let tick = now.tick().0;
    if r.last_seen().load(Ordering::Relaxed) != tick {
        r.last_seen().store(tick, Ordering::Relaxed);
    }
    let add = |c: &std::sync::atomic::AtomicU64, n: u64| {
        c.store(c.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    };
    add(r.packets(), 1);
    add(r.bytes(), u64::from(ip_len));
}

fn datagram(p: &Parsed, frame: &[u8], zone: Zone) -> DatagramKey {
    let wide = |a: IpAddr| match a {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    };
    let id = match p.fragment {
        Fragment::First { id } | Fragment::Later { id, .. } => id,
        Fragment::Whole => 0,
    };
    DatagramKey { src: wide(p.src(frame)), dst: wide(p.dst(frame)), id, proto: p.proto, zone: zone as u8 }
}
