//! One worker's pipeline: batches of frames in, verdicts out. This file has the batch and
//! the shortcut of established flows.

mod apply;
mod explain;
mod fec;
mod fragment;
mod ingest;
mod nat64;
mod new_connection;
mod parts;
mod pending_neighbors;
mod probe;
mod renumber;
mod rule_hits;
mod segment_size;
mod session_create;
mod session_port;
mod session_room;
mod slow;
mod syn_proxy;
mod tunnel;
mod tunnel_device;
mod wan_change;

use crate::counters::Counters;
use crate::fragments::Fragments;
use crate::hash::AddrHash;
use crate::nat::{Events, Random};
use crate::qos::MeterGroupNo;
use crate::snapshot::{NextHopWords, Snapshot};
use crate::stages;
use crate::tables::SharedTable;
use crate::tunnel::{Tunnel, TunnelNo};
use parts::{Batch, Buffers, Changes, FragmentFollower, IcmpLimiter, Neighbors, Sessions, TunnelWork};
use sag_model::flow::{
    Action, FLOW_DNAT, FLOW_METER, FLOW_PUNT_ALL, FLOW_SNAT, FlowAct, FlowRecord, FlowRecord4, FlowRecord6,
    IngressId, RecordNo,
};
use sag_model::ids::{VrfNo, VrfZone, Zone};
use sag_model::{DropReason, Nanos, PortIdx};
use sag_packet::parse::{Family, Fragment, L4, Parsed};
use sag_packet::proto::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use sag_packet::rewrite::{self, FrameMut};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use syn_proxy::SynProxy;

pub use crate::originate::Emit;
pub use crate::tables::Tables;
pub use explain::Explained;
pub use tunnel_device::{DEVICE_BUFFER, DEVICE_MAX_MTU};

/// Frames in one call of [`Pipeline::batch`].
pub const BATCH: usize = 64;

/// A batch of received frames.
pub trait Frames {
    /// Frames in the batch.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// A frame and the free bytes of its buffer around it.
    fn frame(&mut self, i: usize) -> FrameMut<'_>;
    /// The record that XDP has found for a frame, if it has said so. It may be anything: its key is
    /// compared.
    fn hint(&self, _i: usize) -> Option<RecordNo> {
        None
    }
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send bytes `start..start + len` of the frame's buffer by this port.
    Tx {
        /// The egress port.
        port: PortIdx,
        /// First byte of the frame in its buffer.
        start: usize,
        /// Bytes of the frame.
        len: usize,
    },
    /// Drop the frame, which is counted for this reason.
    Drop(DropReason),
    /// Give the frame to the kernel as it came.
    Kernel,
    /// Copied away until its next hop is resolved.
    Held,
    /// Sent through [`Emit`]: in fragments, or ahead of those that waited for it.
    Emitted,
}

/// What holds for all frames of a batch.
#[derive(Debug, Clone, Copy)]
struct Env<'a> {
    snap: &'a Snapshot,
    now: Nanos,
    /// The device that the frames arrived on.
    dev: u8,
}

/// A parsed frame between the steps of a batch.
#[derive(Debug, Clone, Copy)]
struct BatchEntry {
    p: Parsed,
    hash: u64,
    found: Option<RecordNo>,
    ingress: PortIdx,
    /// The tunnel that it has left.
    tunnel: Option<TunnelNo>,
    /// Bytes of the received frame in front of it, those of the tunnel.
    skip: u16,
    zone: VrfZone,
    /// A fragment's identification with another source, the same for all of its datagram.
    new_id: u16,
    /// It got past ingress: the fields above are its own.
    alive: bool,
}

impl BatchEntry {
    /// How it came in, as a record notes it.
    #[inline]
    fn ingress_id(&self) -> IngressId {
        match self.tunnel {
            None => IngressId::port(self.ingress),
            Some(no) => IngressId::tunnel(no.get()),
        }
    }
}

const NO_ENTRY: BatchEntry = BatchEntry {
    p: Parsed::NONE,
    hash: 0,
    found: None,
    ingress: PortIdx(0),
    tunnel: None,
    skip: 0,
    zone: VrfZone::new(Zone::Lan, VrfNo::DEFAULT),
    new_id: 0,
    alive: false,
};

/// Marks the packet if its meters say so; the packet as it is then, since a tunnel copies the mark.
#[inline]
fn remark(
    snap: &Snapshot,
    group: Option<MeterGroupNo>,
    s: &BatchEntry,
    f: &mut FrameMut<'_>,
) -> Option<BatchEntry> {
    let dscp = snap.qos.remark(group)?;
    rewrite::set_dscp(f.bytes_mut(), &s.p, dscp);
    let tos = dscp.get() << 2 | s.p.tos & 3;
    Some(BatchEntry { p: Parsed { tos, ..s.p }, ..*s })
}

/// One worker's pipeline. Each part has a duty of its own; what the parts do together is in the methods of this type.
#[derive(Debug)]
pub struct Pipeline {
    /// What all workers share.
    pub tables: Arc<Tables>,
    /// What this worker counts.
    pub counters: Arc<Counters>,
    batch: Batch,
    sessions: Sessions,
    fragments: FragmentFollower,
    neighbors: Neighbors,
    tunnels: TunnelWork,
    icmp: IcmpLimiter,
    syn_proxy: SynProxy,
    buffers: Buffers,
    random: Random,
}

impl Pipeline {
    /// For worker number `worker` of `workers`, with what they share.
    pub fn new(tables: Arc<Tables>, worker: u32, workers: u32) -> Pipeline {
        Pipeline {
            tables,
            counters: Counters::new(),
            batch: Batch::new(),
            sessions: Sessions::new(worker, workers),
            fragments: FragmentFollower { datagrams: Fragments::default(), alone: workers <= 1 },
            neighbors: Neighbors::new(workers),
            tunnels: TunnelWork::new(worker),
            icmp: IcmpLimiter::new(),
            syn_proxy: SynProxy::new(),
            buffers: Buffers::new(),
            random: Random::new(AddrHash::default().hash_one(worker)),
        }
    }

    /// From here on the same ports are chosen in every run, for replays and tests.
    pub fn seed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }

    /// From here on any number of next hops may be requested, for replays: nobody has to answer there.
    pub fn request_without_limit(&mut self) {
        self.neighbors.limits.lift();
    }

    /// Whether packets wait for a neighbour, or for the repairs that follow them.
    pub fn holds(&self) -> bool {
        !self.neighbors.pending.is_empty() || self.tunnels.fec.waits()
    }

    /// Whether something has to be done in time though no packet comes: what [holds](Self::holds), probes and keepalives of
    /// tunnels, SYNs that are repeated. The ageing of sessions makes up for 100 ms.
    pub fn awaits_timers(&self, snap: &Snapshot) -> bool {
        self.holds() || !snap.tunnels.is_empty() || self.syn_proxy.waits()
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
        let env = Env { snap, now, dev };
        // What waits and can go goes before what has just come.
        if !self.neighbors.pending.is_empty() {
            self.poll_pending_neighbors(snap, now, emit);
        }
        self.tunnels.fec.at(now);
        let n = frames.len().min(BATCH);
        verdicts.clear();
        self.batch.changes = Changes::default();
        verdicts.resize(n, Verdict::Held);
        // Out of `self` while `self` is at work.
        let mut slots = std::mem::take(&mut self.batch.entries);
        slots.iter_mut().skip(n).for_each(|s| s.alive = false);
        for (i, (s, verdict)) in slots.iter_mut().zip(verdicts.iter_mut()).enumerate() {
            s.found = frames.hint(i);
            s.alive = match self.ingest(&env, &mut frames.frame(i), s, emit) {
                Ok(()) => true,
                Err(v) => {
                    *verdict = v;
                    false
                }
            };
        }
        for (i, s) in slots.iter_mut().enumerate().filter(|(_, s)| s.alive && s.found.is_none()) {
            let skip = s.skip;
            match s.p.family {
                Family::V4 => self.guess::<FlowRecord4>(snap, s, || frame_of(frames, i, skip)),
                Family::V6 => self.guess::<FlowRecord6>(snap, s, || frame_of(frames, i, skip)),
            }
        }
        for (i, (s, verdict)) in slots.iter_mut().zip(verdicts.iter_mut()).enumerate() {
            if s.alive {
                let mut f = frame_of(frames, i, s.skip);
                match s.p.family {
                    Family::V4 => self.one::<FlowRecord4>(&env, s, &mut f, verdict, emit),
                    Family::V6 => self.one::<FlowRecord6>(&env, s, &mut f, verdict, emit),
                }
            }
        }
        self.batch.entries = slots;
        self.counters.batches.add(1);
        self.counters.packets.add(n as u64);
    }

    /// The record that a packet probably belongs to, or the room for the session that it may make.
    #[inline]
    fn guess<'f, R: SharedTable>(
        &self,
        snap: &Snapshot,
        s: &mut BatchEntry,
        frame: impl FnOnce() -> FrameMut<'f>,
    ) {
        s.found = R::table(&self.tables).guess(s.hash);
        if s.found.is_none() {
            self.prefetch_session_create::<R>(snap, s, &R::flow_key(&s.p, frame().bytes(), s.zone));
        }
    }

    #[inline]
    fn one<R: SharedTable>(
        &mut self,
        env: &Env<'_>,
        s: &mut BatchEntry,
        f: &mut FrameMut<'_>,
        verdict: &mut Verdict,
        emit: &mut impl Emit,
    ) {
        let Env { snap, now, .. } = *env;
        let table = R::table(&self.tables);
        let key = R::flow_key(&s.p, f.bytes(), s.zone);
        let found = match s.found {
            // The guess was made before packets of this batch ended sessions.
            Some(no) if !self.batch.changes.ended && table.record(no).matches(&key) => Some(no),
            None if !self.batch.changes.may_have_made(s.hash) => table.find_unlikely(&key, s.hash),
            _ => table.find(&key, s.hash),
        };
        let found = found.filter(|no| table.record(*no).suits(s.p.family));
        if found.is_none()
            && R::FAMILY == Family::V4
            && snap.nat.has_nat64()
            && self.established64(env, s, f, verdict)
        {
            return;
        }
        if let Some(no) = found
            && self.established::<R>(snap, now, s, no, f, verdict)
        {
            return;
        }
        // An error is about a session, never part of one.
        s.found = found.filter(|_| !matches!(s.p.l4, L4::IcmpError { .. }));
        if let Some(no) = s.found
            && R::table(&self.tables).is_denied(no)
        {
            // Its time is over: it is evaluated again.
            self.end::<R>(snap, no.session());
            s.found = None;
        }
        *verdict = match s.p.fragment {
            Fragment::Whole => self.process_slow::<R>(env, s, f, emit, now),
            _ => self.fragment::<R>(env, s, f, emit),
        };
    }

    /// The short cut: a flow record of this epoch with a resolved next hop answers for the packet.
    /// The XDP program does exactly this. False: it does not, and nothing has happened.
    #[inline]
    fn established<R: SharedTable>(
        &self,
        snap: &Snapshot,
        now: Nanos,
        s: &BatchEntry,
        no: RecordNo,
        f: &mut FrameMut<'_>,
        verdict: &mut Verdict,
    ) -> bool {
        let r = R::table(&self.tables).record(no);
        let action = Action::from_word(r.action().load(Ordering::Acquire));
        if action.act == FlowAct::Drop {
            return self.refused::<R>(snap, now, s, no, action, verdict);
        }
        let crosses = r.crosses();
        let plain = r.epoch().load(Ordering::Relaxed) == snap.epoch
            && !(crosses && s.p.options)
            && (action.act == FlowAct::Forward || crosses && action.flags & (FLOW_SNAT | FLOW_DNAT) != 0)
            && action.flags & FLOW_PUNT_ALL == 0
            && r.ingress() == s.ingress_id()
            && s.p.ttl > 1
            && s.p.fragment == Fragment::Whole
            && !matches!(s.p.l4, L4::Tcp { flags } if flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK) != TCP_ACK)
            && !matches!(s.p.l4, L4::IcmpError { .. });
        if !plain {
            return false;
        }
        let Some(nh) = snap.nexthops.get(usize::from(action.nexthop)).map(NextHopWords::load) else {
            return false;
        };
        if !nh.stands_for(action.nh_gen) {
            return false;
        }
        let tunnel = TunnelNo::new(action.tunnel);
        let most = match tunnel {
            None => nh.mtu(),
            Some(no) => snap.tunnel(no).filter(|t| t.state.is_up()).map_or(0, Tunnel::whole_mtu),
        };
        let (len, most) = match crosses {
            false => (s.p.ip_len, most),
            true => nat64::length_and_limit(&s.p, &R::tuple(&r.translated()).dst, most),
        };
        if len > most {
            return false;
        }
        let mut marked = None;
        if action.flags & FLOW_METER != 0 {
            let group = MeterGroupNo::new(action.meter);
            if let Some(reason) = snap.qos.police(group, s.p.ip_len, now).reason() {
                *verdict = drop_at(&self.counters, s.ingress, reason);
                return true;
            }
            marked = remark(snap, group, s, f);
        }
        let s = marked.as_ref().unwrap_or(s);
        touch(r, now, s.p.ip_len);
        let crossed;
        let s = if crosses {
            crossed = match self.cross::<R>(snap, s, (no, false), f, most) {
                Ok(entry) => entry,
                Err(reason) => {
                    *verdict = drop_at(&self.counters, s.ingress, reason);
                    return true;
                }
            };
            &crossed
        } else {
            if action.flags & (FLOW_SNAT | FLOW_DNAT) != 0 {
                self.renumber::<R>(s, action.flags, f);
                r.rewrite(f.bytes_mut(), &s.p);
            }
            s
        };
        rewrite::decrement_ttl(f.bytes_mut(), &s.p);
        self.transmit(snap, s, &nh, tunnel, f, verdict);
        true
    }

    /// A record that drops ([`State::Denied`](crate::session::State::Denied)) does so.
    #[cold]
    fn refused<R: SharedTable>(
        &self,
        snap: &Snapshot,
        now: Nanos,
        s: &BatchEntry,
        no: RecordNo,
        action: Action,
        verdict: &mut Verdict,
    ) -> bool {
        let r = R::table(&self.tables).record(no);
        let (Some(reason), true, Fragment::Whole) = (
            u8::try_from(action.nexthop).ok().and_then(DropReason::from_u8),
            r.epoch().load(Ordering::Relaxed) == snap.epoch,
            s.p.fragment,
        ) else {
            return false;
        };
        touch(r, now, s.p.ip_len);
        *verdict = drop_at(&self.counters, s.ingress, reason);
        true
    }

    /// Tunnel and link header, then out.
    #[inline]
    fn transmit(
        &self,
        snap: &Snapshot,
        s: &BatchEntry,
        nh: &NextHopWords,
        tunnel: Option<TunnelNo>,
        f: &mut FrameMut<'_>,
        verdict: &mut Verdict,
    ) {
        if let Some(no) = tunnel {
            *verdict = self.transmit_into(snap, s, nh, no, f);
            return;
        }
        let link = nh.link(stages::ethertype(s.p.family));
        if f.set_link_words(usize::from(s.p.l3), usize::from(s.p.ip_len), &link).is_err() {
            *verdict = drop_at(&self.counters, s.ingress, DropReason::FrameTooBig);
            return;
        }
        *verdict = self.sent(s, nh, f);
    }

    /// Counts a frame that goes out.
    #[inline]
    fn sent(&self, s: &BatchEntry, nh: &NextHopWords, f: &FrameMut<'_>) -> Verdict {
        self.counters.port(s.ingress).forwarded.add(1);
        let out = self.counters.port(nh.port());
        out.tx_packets.add(1);
        out.tx_bytes.add(f.len() as u64);
        Verdict::Tx { port: nh.port(), start: f.start(), len: f.len() }
    }

    /// Where frame `i` of the last batch arrived; `None` if it did not get past ingress.
    pub fn ingress(&self, i: usize) -> Option<PortIdx> {
        self.batch.entries.get(i).filter(|s| s.alive).map(|s| s.ingress)
    }

    /// Whether frames with partial checksums have come in since the last call: others of their flows will follow.
    pub fn take_partial_checksums(&mut self) -> bool {
        std::mem::take(&mut self.batch.partial_checksums)
    }

    /// Housekeeping between batches: held packets, fragments without a first, ageing. Cheap when there
    /// is nothing to do.
    pub fn poll(&mut self, snap: &Snapshot, now: Nanos, emit: &mut impl Emit) {
        if !self.neighbors.pending.is_empty() {
            self.poll_pending_neighbors(snap, now, emit);
        }
        self.poll_fragments(now);
        self.poll_first_fragments(snap, now, emit);
        self.poll_reassembler(now);
        self.poll_fec(snap, now, emit);
        self.poll_syn_proxy(snap, now, emit);
        if self.tunnels.probes {
            self.poll_tunnels(snap, now, emit);
        }
        self.sessions.sweep(&self.tables, &self.counters, snap, now);
    }

    /// What has happened since the last fetch that an operator may want to know.
    pub fn events(&mut self) -> &mut Events {
        &mut self.sessions.events
    }

    /// A frame with verdict `Tx` could not be handed to the device after all.
    pub fn untransmit(&self, ingress: PortIdx, port: PortIdx, len: usize, reason: DropReason) {
        self.counters.port(ingress).forwarded.sub(1);
        let out = self.counters.port(port);
        out.tx_packets.sub(1);
        out.tx_bytes.sub(len as u64);
        self.counters.count_drop(ingress, reason);
    }
}

/// A frame less the tunnel's bytes in front of it.
#[inline]
fn frame_of<F: Frames>(frames: &mut F, i: usize, skip: u16) -> FrameMut<'_> {
    let mut f = frames.frame(i);
    f.skip(usize::from(skip));
    f
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
