//! Forward error correction on a worker's path: packets get into windows as they enter a tunnel,
//! repairs follow between batches, and what was lost on the way comes back here.

use super::{BatchEntry, Env, NO_ENTRY, Pipeline, Verdict, drop_at};
use crate::counters::Counters;
use crate::originate::{Emit, LINK_ROOM};
use crate::pending;
use crate::snapshot::Snapshot;
use crate::stages;
use crate::tunnel::{Carried, Tunnel, TunnelNo, TunnelState};
use sag_model::{DropReason, Nanos, PortIdx};
use sag_packet::parse::{self, Family, Parsed};
use sag_packet::proto::ETH_LEN;
use sag_packet::rewrite::FrameMut;
use sag_tunnel::esp::Inner;
use sag_tunnel::fec::{self, ReceiveError, Received, Receiver, SOURCE_HEADER, Sender, Settings};
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

/// Between looks for windows that were waited for too long.
const LOOK: u64 = 50_000_000;

/// What one worker sends and receives with error correction.
#[derive(Debug)]
pub(super) struct Fec {
    pub(super) senders: RefCell<Senders>,
    /// By tunnel.
    receivers: Vec<Option<Box<Receiving>>>,
    /// The worker's own.
    stream: u8,
    look_at: Nanos,
    /// Where a packet is put that has been recovered.
    buf: Box<[u8]>,
}

#[derive(Debug)]
pub(super) struct Senders {
    now: Nanos,
    /// By tunnel.
    list: Vec<Option<Box<Sending>>>,
}

#[derive(Debug)]
struct Sending {
    of: Arc<TunnelState>,
    tx: Sender,
}

#[derive(Debug)]
struct Receiving {
    of: Arc<TunnelState>,
    rx: Receiver,
}

impl Fec {
    pub(super) fn new(worker: u32) -> Fec {
        Fec {
            senders: RefCell::new(Senders { now: Nanos::ZERO, list: Vec::new() }),
            receivers: Vec::new(),
            stream: worker as u8,
            look_at: Nanos::ZERO,
            buf: vec![0; pending::SLOT_BYTES].into_boxed_slice(),
        }
    }

    /// Whether a window is open that time will close.
    pub(super) fn waits(&self) -> bool {
        self.senders.borrow().list.iter().flatten().any(|s| s.tx.due().is_some())
    }

    /// All packets of a stream take one path, as far as that is the header's to say: they are to meet at
    /// one worker of the far end.
    const fn flow_hash(&self) -> u64 {
        flow_hash(self.stream)
    }

    pub(super) fn at(&mut self, now: Nanos) {
        self.senders.get_mut().now = now;
    }
}

const fn flow_hash(stream: u8) -> u64 {
    (stream as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Senders {
    fn source(&mut self, no: TunnelNo, packet: &[u8], tos: u8) -> Option<([u8; SOURCE_HEADER], u8)> {
        let now = self.now.0;
        let tx = &mut self.list.get_mut(no.index())?.as_deref_mut()?.tx;
        Some((tx.source(packet, tos, now)?, tx.stream()))
    }
}

/// Puts a packet into its tunnel, and into a window if the tunnel has error correction.
#[inline]
pub(super) fn enter(
    senders: &RefCell<Senders>,
    c: &Counters,
    t: &Tunnel,
    f: &mut FrameMut<'_>,
    p: &Parsed,
    hash: u64,
) -> Result<(), DropReason> {
    if t.fec.is_some()
        && let Some((header, stream)) = senders.borrow_mut().source(t.no, p.ip(f.bytes()), p.tos)
    {
        c.tunnel(t.no).fec_overhead.add(SOURCE_HEADER as u64);
        return t.enter_as(f, p, flow_hash(stream), false, Carried::Source(&header));
    }
    t.enter(f, p, hash, false)
}

impl Pipeline {
    /// Closes windows whose time has come, sends repairs, gives up what does not come any more.
    #[inline]
    pub(super) fn poll_fec(&mut self, snap: &Snapshot, now: Nanos, emit: &mut impl Emit) {
        if snap.tunnels.with_fec().is_empty() && self.tunnels.fec.receivers.is_empty() {
            return;
        }
        self.tunnels.fec.at(now);
        self.keep_fec(snap);
        for &no in snap.tunnels.with_fec() {
            if let Some(t) = snap.tunnel(no) {
                self.send_repairs(snap, t, now, emit);
            }
        }
        if now.0 >= self.tunnels.fec.look_at.0 {
            self.tunnels.fec.look_at = Nanos(now.0 + LOOK);
            let counters = &self.counters;
            for (no, r) in self.tunnels.fec.receivers.iter_mut().enumerate() {
                let Some(r) = r else { continue };
                r.rx.poll(now.0, |port| spare(counters, port));
                if let Some(no) = TunnelNo::new(no as u8) {
                    count(counters, no, &mut r.rx);
                }
            }
        }
    }

    /// Senders and receivers for the tunnels that have error correction now, and for no others.
    fn keep_fec(&mut self, snap: &Snapshot) {
        let on = |no: usize| {
            let t = u8::try_from(no).ok().and_then(TunnelNo::new).and_then(|no| snap.tunnel(no))?;
            Some((t, settings(t)?))
        };
        let most = snap.tunnels.with_fec().iter().max().map_or(0, |no| no.index() + 1);
        let senders = &mut self.tunnels.fec.senders.get_mut().list;
        if most > senders.len() {
            senders.resize_with(most, || None);
            self.tunnels.fec.receivers.resize_with(most, || None);
        }
        for (no, slot) in senders.iter_mut().enumerate() {
            let fits = |s: &Sending, t: &Tunnel, set| s.tx.settings() == set && Arc::ptr_eq(&s.of, &t.state);
            match (on(no), &slot) {
                (None, _) => *slot = None,
                (Some((t, set)), Some(s)) if fits(s, t, set) => {}
                (Some((t, set)), _) => {
                    let tx = Sender::new(set, self.tunnels.fec.stream, self.random.draw() as u32);
                    *slot = tx.map(|tx| Box::new(Sending { of: t.state.clone(), tx }));
                }
            }
        }
        let counters = &self.counters;
        for (no, slot) in self.tunnels.fec.receivers.iter_mut().enumerate() {
            let t = on(no).map(|(t, _)| t);
            if t.is_some_and(|t| slot.as_ref().is_some_and(|r| Arc::ptr_eq(&r.of, &t.state))) {
                continue;
            }
            if let Some(r) = slot {
                r.rx.clear(|port| spare(counters, port));
            }
            *slot = t.map(|t| Box::new(Receiving { of: t.state.clone(), rx: Receiver::default() }));
        }
        if most == 0 {
            self.tunnels.fec.receivers.clear();
            senders.clear();
        }
    }

    fn send_repairs(&mut self, snap: &Snapshot, t: &Tunnel, now: Nanos, emit: &mut impl Emit) {
        let no = t.no.index();
        if let Some(Some(s)) = self.tunnels.fec.senders.get_mut().list.get_mut(no) {
            s.tx.poll(now.0);
        }
        loop {
            let Some(Some(s)) = self.tunnels.fec.senders.get_mut().list.get_mut(no) else { return };
            let Some(room) = self.buffers.scratch.get_mut(LINK_ROOM..) else { return };
            let Some(repair) = s.tx.repair(room) else { return };
            let p = Parsed {
                family: Family::V4,
                l3: ETH_LEN as u16,
                ip_len: repair.len as u16,
                dont_fragment: true,
                // The code point of what it repairs; it knows nothing of ECN itself.
                tos: repair.mark & !0b11,
                ..Parsed::NONE
            };
            if self.send_through(snap, t, &p, self.tunnels.fec.flow_hash(), Carried::Repair, emit) {
                let c = self.counters.tunnel(t.no);
                c.fec_repairs.add(1);
                c.fec_overhead.add(repair.len as u64);
            }
        }
    }

    /// What an ESP packet carries with error correction at `at` of the frame: EtherType and place of the
    /// packet, if it is one.
    pub(super) fn leave_fec(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        t: &Tunnel,
        (dev, f): (u8, &FrameMut<'_>),
        (slot, at): (&BatchEntry, Range<usize>),
        emit: &mut impl Emit,
    ) -> Result<(u16, usize), Verdict> {
        let (text, counters) = (f.bytes().get(at.clone()).unwrap_or(&[]), &self.counters);
        let receiving = self.tunnels.fec.receivers.get_mut(t.no.index()).and_then(Option::as_deref_mut);
        let (taken, recovered) = match receiving {
            // Off here: packets pass, repairs are of no use.
            None => (fec::decode_only(text), false),
            Some(r) => {
                let taken = r.rx.receive(text, slot.ingress.0, now.0, |port| spare(counters, port));
                count(counters, t.no, &mut r.rx);
                (taken, r.rx.has_recovered())
            }
        };
        let c = counters.port(slot.ingress);
        let refuse = |reason| {
            counters.tunnel(t.no).drops.add(1);
            Err(drop_at(counters, slot.ingress, reason))
        };
        let out = match taken {
            Ok(Received::Source { at: n, inner }) => {
                let family = if inner == Inner::V6 { Family::V6 } else { Family::V4 };
                Ok((stages::ethertype(family), at.start + n))
            }
            Ok(Received::RepairStored) => {
                c.held.add(1);
                Err(Verdict::Held)
            }
            Ok(Received::RepairUnneeded) => {
                c.to_kernel.add(1);
                Err(Verdict::Emitted)
            }
            Err(ReceiveError::BadHeader) => refuse(DropReason::FecBadHeader),
            Err(ReceiveError::Duplicate) => refuse(DropReason::FecDuplicate),
        };
        if recovered {
            self.recovered(snap, now, t, dev, emit);
        }
        out
    }

    /// Packets that were lost go on as if they had come.
    #[cold]
    fn recovered(&mut self, snap: &Snapshot, now: Nanos, t: &Tunnel, dev: u8, emit: &mut impl Emit) {
        let no = t.no.index();
        // Out of `self` while the packets pass.
        let Some(mut r) = self.tunnels.fec.receivers.get_mut(no).and_then(Option::take) else { return };
        let mut buf = std::mem::take(&mut self.tunnels.fec.buf);
        while let Some((len, port)) =
            buf.get_mut(pending::HEADROOM + ETH_LEN..).and_then(|room| r.rx.recovered(room))
        {
            let ingress = PortIdx(port);
            // The repair becomes the packet.
            self.counters.port(ingress).held.sub(1);
            self.once_more(snap, now, t, (dev, ingress), (&mut buf, len), emit);
        }
        self.tunnels.fec.buf = buf;
        if let Some(slot) = self.tunnels.fec.receivers.get_mut(no) {
            *slot = Some(r);
        }
    }

    /// Sends a packet of tunnel `t` of `len` bytes, at [`pending::HEADROOM`] behind room for a link header,
    /// on its way.
    fn once_more(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        t: &Tunnel,
        (dev, ingress): (u8, PortIdx),
        (buf, len): (&mut [u8], usize),
        emit: &mut impl Emit,
    ) {
        let v6 = buf.get(pending::HEADROOM + ETH_LEN).is_some_and(|b| b >> 4 == 6);
        let ethertype = stages::ethertype(if v6 { Family::V6 } else { Family::V4 });
        let mut f = FrameMut::new(buf, pending::HEADROOM, ETH_LEN + len);
        if let Some(h) = f.bytes_mut().first_chunk_mut::<ETH_LEN>() {
            h[..12].fill(0);
            h[12..].copy_from_slice(&ethertype.to_be_bytes());
        }
        let mut s = BatchEntry { ingress, tunnel: Some(t.no), zone: t.side(), ..NO_ENTRY };
        let seen = parse::parse_into(f.bytes(), ethertype, ETH_LEN, &mut s.p);
        if let Err(reason) = seen.and_then(|ip| if ip { Ok(()) } else { Err(DropReason::TunnelBadHeader) }) {
            self.counters.tunnel(t.no).drops.add(1);
            drop_at(&self.counters, ingress, reason);
            return;
        }
        self.counters.tunnel(t.no).received(usize::from(s.p.ip_len));
        self.hash_and_prefetch(f.bytes(), &mut s);
        s.found = self.find(&s, f.bytes());
        if let Verdict::Tx { port, len, .. } = self.onward(&Env { snap, now, dev }, &mut s, &mut f, emit)
            && !emit.emit(port, f.bytes())
        {
            self.untransmit(ingress, port, len, DropReason::TxRingFull);
        }
    }
}

fn settings(t: &Tunnel) -> Option<Settings> {
    let f = t.fec.filter(|_| t.is_esp())?;
    Some(Settings { sources: f.window, repairs: f.repairs, delay: u64::from(f.delay) * 1_000_000 })
}

/// A stored repair is of no use any more.
fn spare(counters: &Counters, port: u8) {
    let c = counters.port(PortIdx(port));
    c.held.sub(1);
    c.to_kernel.add(1);
}

fn count(counters: &Counters, no: TunnelNo, rx: &mut Receiver) {
    let s = rx.take_stats();
    if s != fec::Stats::default() {
        counters.tunnel(no).fec_recovered.add(s.recovered);
        counters.tunnel(no).fec_unrecoverable.add(s.unrecoverable);
    }
}
