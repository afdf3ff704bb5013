//! Tunnels on a worker's path: out of them right after parsing, into them right before the link
//! header; and what the gateway itself says inside.

use super::probe::PROBE_ADDR;
use super::{BatchEntry, Env, Pipeline, Verdict, drop_at, fec};
use crate::family;
use crate::fragments::DatagramKey;
use crate::nat::Event;
use crate::originate::{self, Emit, IcmpResult, LINK_ROOM};
use crate::pending::{self, Arrival};
use crate::snapshot::{NextHop, NextHopWords, OuterPath, Snapshot};
use crate::stages::{self, ForwardDecision};
use crate::tables::SharedTable;
use crate::tunnel::{
    self, Decapsulated, EspPacket, PeerMac, Put, QuotedInside, Tunnel, TunnelNo, decapsulate,
};
use sag_model::flow::{Action, FlowAct, FlowRecord4, FlowRecord6, RecordNo};
use sag_model::{DropReason, MacAddr, Nanos, PortIdx, VrfZone, Zone};
use sag_packet::encap::{Encap, entropy_port};
use sag_packet::parse::{self, Family, Fragment, L4, Parsed};
use sag_packet::proto::*;
use sag_packet::responder;
use sag_packet::rewrite::{self, FrameMut, LinkHeader};
use sag_tunnel::esp::Inner;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

impl Pipeline {
    /// If the packet is a tunnel's, what is inside takes its place.
    pub(super) fn leave_tunnel(
        &mut self,
        env: &Env<'_>,
        f: &mut FrameMut<'_>,
        slot: &mut BatchEntry,
        emit: &mut impl Emit,
    ) -> Result<(), Verdict> {
        let Env { snap, now, .. } = *env;
        if slot.p.fragment != Fragment::Whole {
            let (local, remote) = (slot.p.dst(f.bytes()), slot.p.src(f.bytes()));
            return match snap.tunnels.may_have(local, remote, slot.p.proto) {
                true => Err(self.put_together(env, f, slot, emit)),
                false => Ok(()),
            };
        }
        if let L4::IcmpError { .. } = slot.p.l4 {
            let is_sent = |t: &Tunnel, quote: QuotedInside<'_>| self.goes_through(t, quote);
            tunnel::learn_path_mtu(&snap.tunnels, &slot.p, f.bytes(), now, is_sent);
            return Ok(());
        }
        match tunnel::find_esp(&snap.tunnels, &slot.p, f.bytes()) {
            EspPacket::NotOurs => {}
            EspPacket::Drop(reason) => return Err(drop_at(&self.counters, slot.ingress, reason)),
            EspPacket::At(at) => return self.decapsulate_esp(env, f, slot, at, emit),
        }
        match decapsulate(&snap.tunnels, &slot.p, f.bytes()) {
            Decapsulated::NotOurs => Ok(()),
            Decapsulated::Drop(reason) => Err(drop_at(&self.counters, slot.ingress, reason)),
            Decapsulated::Inside { tunnel, ethertype, l3 } => match snap.tunnel(tunnel) {
                Some(t) => {
                    if t.ingress >> (slot.ingress.0 & 63) & 1 == 0 {
                        self.counters.tunnel(t.no).drops.add(1);
                        return Err(drop_at(&self.counters, slot.ingress, DropReason::ReversePath));
                    }
                    self.inside(env, t, f, slot, (ethertype, l3), emit)?;
                    self.handle_probe(snap, now, f, slot, emit)
                }
                None => Ok(()),
            },
        }
    }

    /// Decrypts a packet of an ESP tunnel, whose SPI is at `at`.
    fn decapsulate_esp(
        &mut self,
        env: &Env<'_>,
        f: &mut FrameMut<'_>,
        slot: &mut BatchEntry,
        at: usize,
        emit: &mut impl Emit,
    ) -> Result<(), Verdict> {
        let Env { snap, now, dev } = *env;
        match tunnel::open_esp(&snap.tunnels, &slot.p, f.bytes_mut(), at) {
            Ok(left) => {
                let Some(t) = snap.tunnel(left.tunnel) else { return Ok(()) };
                let inside = match left.inner {
                    Inner::V4 => (ETHERTYPE_IPV4, left.at.start),
                    Inner::V6 => (ETHERTYPE_IPV6, left.at.start),
                    Inner::Fec => self.leave_fec(snap, now, t, (dev, f), (slot, left.at), emit)?,
                };
                self.inside(env, t, f, slot, inside, emit)?;
                self.handle_probe(snap, now, f, slot, emit)
            }
            Err((no, reason)) => {
                if let Some(no) = no {
                    self.counters.tunnel(no).drops.add(1);
                }
                Err(drop_at(&self.counters, slot.ingress, reason))
            }
        }
    }

    /// The packet inside, which begins at `l3`, takes the place of the outer one.
    fn inside(
        &mut self,
        env: &Env<'_>,
        t: &Tunnel,
        f: &mut FrameMut<'_>,
        slot: &mut BatchEntry,
        (ethertype, l3): (u16, usize),
        emit: &mut impl Emit,
    ) -> Result<(), Verdict> {
        let Env { snap, .. } = *env;
        let outer = slot.p;
        let mut mac = None;
        let refuse = |this: &Pipeline, slot: &BatchEntry, reason| {
            this.counters.tunnel(t.no).drops.add(1);
            Err(drop_at(&this.counters, slot.ingress, reason))
        };
        // Whatever is behind the outer packet is the link's padding.
        f.cut(usize::from(outer.l3) + usize::from(outer.ip_len));
        let skip = l3 - ETH_LEN;
        f.skip(skip);
        (slot.skip, slot.tunnel, slot.zone) = (skip as u16, Some(t.no), t.side());
        match t.template.encap {
            Encap::Vxlan { .. } => {
                if t.learns_mac {
                    mac = f.bytes().get(6..12).and_then(|m| m.first_chunk()).map(|m| MacAddr(*m));
                }
            }
            _ => {
                if let Some(h) = f.bytes_mut().first_chunk_mut::<ETH_LEN>() {
                    h[..12].fill(0);
                    h[12..].copy_from_slice(&ethertype.to_be_bytes());
                }
            }
        }
        if ethertype == ETHERTYPE_ARP {
            let sender = responder::arp_sender(f.bytes());
            if let (Some(mac), Some(sender)) = (mac, sender)
                && t.reaches(sender)
            {
                self.see_peer(env, t, mac, emit);
            }
            return Err(self.answer(snap, t, f, slot, responder::arp_reply, emit));
        }
        if tunnel::family_of(ethertype).is_none() {
            return refuse(self, slot, DropReason::TunnelBadHeader);
        }
        match parse::parse_into(f.bytes(), ethertype, ETH_LEN, &mut slot.p) {
            Ok(true) => {}
            Ok(false) => return refuse(self, slot, DropReason::TunnelBadHeader),
            Err(reason) => return refuse(self, slot, reason),
        }
        self.complete_checksum(f, &slot.p, slot.ingress);
        match t.tos_after(slot.p.tos, outer.tos) {
            Ok(tos) if tos == slot.p.tos => {}
            Ok(tos) => {
                slot.p.tos = tos;
                rewrite::set_tos(f.bytes_mut(), &slot.p);
            }
            Err(reason) => return refuse(self, slot, reason),
        }
        self.counters.tunnel(t.no).received(usize::from(slot.p.ip_len));
        if let Some(mac) = mac {
            let src = slot.p.src(f.bytes());
            let near = matches!(src, IpAddr::V6(a) if a.is_unicast_link_local());
            if near || src == PROBE_ADDR || snap.check_source(src, slot.ingress, slot.tunnel).is_ok() {
                self.see_peer(env, t, mac, emit);
            }
        }
        if t.mac().is_some() && slot.p.l4 == (L4::IcmpOther { kind: responder::SOLICITATION, code: 0 }) {
            return Err(self.answer(snap, t, f, slot, responder::advertisement, emit));
        }
        Ok(())
    }

    /// A frame came from this address that may be the peer's. If another address is known, the peer is asked for it.
    #[inline]
    fn see_peer(&mut self, env: &Env<'_>, t: &Tunnel, mac: MacAddr, emit: &mut impl Emit) {
        match t.state.see_peer(mac, env.now) {
            PeerMac::Known => {}
            PeerMac::Rival => self.ask_peer(env, t, emit),
            PeerMac::Changed(old) => {
                self.sessions.events.push(Event::TunnelPeerMac { tunnel: t.no.get(), old, new: mac });
            }
        }
    }

    /// Asks all on the tunnel's inner link for the peer's Ethernet address, which the peer's answer has. The question
    /// goes to the peer alone, wherever the frame came from that gave rise to it.
    #[cold]
    fn ask_peer(&mut self, env: &Env<'_>, t: &Tunnel, emit: &mut impl Emit) {
        let Env { snap, now, .. } = *env;
        let Some((own, peer)) = t.peer_inside().filter(|_| t.state.may_ask_peer(now)) else { return };
        let mac = t.mac().map_or([0; 6], |m| m.0);
        let room = self.buffers.scratch.get_mut(LINK_ROOM..);
        let Some(len) = room.and_then(|out| responder::arp_request(mac, own, peer, out)) else { return };
        let Some(path) = snap.outer_path(t, t.remote, 0) else { return };
        if let IcmpResult::Ready { port, start, len } = self.push_vxlan_headers(snap, t, &path, len)
            && emit.emit(port, &self.buffers.scratch[start..start + len])
        {
            let out = self.counters.port(port);
            out.tx_packets.add(1);
            out.tx_bytes.add(len as u64);
            out.originated.add(1);
        }
    }

    /// Whether a packet that an ICMP error quotes is of a flow through the tunnel.
    fn goes_through(&self, t: &Tunnel, quote: QuotedInside<'_>) -> bool {
        match quote.family {
            Family::V4 => self.goes_through_as::<FlowRecord4>(t, quote),
            Family::V6 => self.goes_through_as::<FlowRecord6>(t, quote),
        }
    }

    fn goes_through_as<R: SharedTable>(&self, t: &Tunnel, quote: QuotedInside<'_>) -> bool {
        let table = R::table(&self.tables);
        let answers = family::quote::<R>(quote.packet, t.side())
            .and_then(|q| table.find(&q.answers, table.hash(&q.answers)));
        let Some(sent) = answers.map(RecordNo::peer) else { return false };
        let r = table.record(sent);
        let action = Action::from_word(r.action().load(Ordering::Acquire));
        action.act == FlowAct::Forward
            && TunnelNo::new(action.tunnel) == Some(t.no)
            && quote.entropy.is_none_or(|port| port == entropy_port(table.hash(&r.key())))
    }

    /// A copy that was held and has left its tunnel before.
    pub(super) fn left_before(
        &mut self,
        snap: &Snapshot,
        arrival: &Arrival,
        f: &FrameMut<'_>,
        slot: &mut BatchEntry,
    ) -> Result<(), Verdict> {
        let vrf = snap.vrf_of(arrival.ingress, arrival.tunnel);
        (slot.ingress, slot.tunnel) = (arrival.ingress, arrival.tunnel);
        slot.zone = VrfZone::new(Zone::Overlay, vrf);
        let parsed = parse::link(f.bytes())
            .and_then(|(_, ethertype, l3)| parse::parse_into(f.bytes(), ethertype, l3, &mut slot.p));
        match parsed {
            Ok(true) => {}
            Ok(false) => return Err(drop_at(&self.counters, slot.ingress, DropReason::TunnelBadHeader)),
            Err(reason) => return Err(drop_at(&self.counters, slot.ingress, reason)),
        }
        self.hash_and_prefetch(f.bytes(), slot);
        Ok(())
    }

    /// The outer packet came in pieces.
    fn put_together(
        &mut self,
        env: &Env<'_>,
        f: &FrameMut<'_>,
        slot: &BatchEntry,
        emit: &mut impl Emit,
    ) -> Verdict {
        let Env { now, .. } = *env;
        self.poll_reassembler(now);
        let key = DatagramKey::of(&slot.p, f.bytes(), slot.zone);
        let mut buf = std::mem::take(&mut self.buffers.reassembled);
        let room = &mut buf[pending::HEADROOM..];
        let counters = &self.counters;
        let put = self.tunnels.reassembler.put(
            &slot.p,
            f.bytes(),
            key,
            (slot.ingress, now),
            &mut room[ETH_LEN..],
            |gone| {
                let c = counters.port(gone.ingress);
                c.held.sub(u64::from(gone.packets));
                c.drops[DropReason::FragmentNoFirst.index()].add(u64::from(gone.packets));
            },
        );
        let verdict = match put {
            Put::Refused(reason) => drop_at(&self.counters, slot.ingress, reason),
            Put::Waits => {
                self.counters.port(slot.ingress).held.add(1);
                Verdict::Held
            }
            Put::Whole { len, waited } => {
                // Its pieces count as one packet from now on; the others were for the gateway.
                let c = self.counters.port(slot.ingress);
                c.held.sub(u64::from(waited));
                c.to_kernel.add(u64::from(waited));
                self.rejoined(env, (&mut buf, len), slot, emit)
            }
        };
        self.buffers.reassembled = buf;
        verdict
    }

    /// Sends an outer packet that has been put together, at [`pending::HEADROOM`] behind room for a link
    /// header, on its way.
    fn rejoined(
        &mut self,
        env: &Env<'_>,
        (buf, len): (&mut [u8], usize),
        was: &BatchEntry,
        emit: &mut impl Emit,
    ) -> Verdict {
        let h = &mut buf[pending::HEADROOM..pending::HEADROOM + ETH_LEN];
        h[..12].fill(0);
        h[12..].copy_from_slice(&stages::ethertype(was.p.family).to_be_bytes());
        let mut f = FrameMut::new(buf, pending::HEADROOM, ETH_LEN + len);
        let mut s = BatchEntry { found: None, ..*was };
        let parsed = parse::parse_into(f.bytes(), stages::ethertype(was.p.family), ETH_LEN, &mut s.p);
        if let Err(reason) = parsed {
            return drop_at(&self.counters, was.ingress, reason);
        }
        if let Err(verdict) = self.leave_tunnel(env, &mut f, &mut s, emit) {
            return verdict;
        }
        if s.tunnel.is_none() {
            // Of no tunnel after all; the kernel would have put it together itself.
            return drop_at(&self.counters, was.ingress, DropReason::TunnelUnknown);
        }
        self.hash_and_prefetch(f.bytes(), &mut s);
        s.found = self.find(&s, f.bytes());
        let verdict = self.onward(env, &mut s, &mut f, emit);
        match verdict {
            Verdict::Tx { port, start, len } => {
                let frame = f.bytes();
                debug_assert_eq!((f.start(), f.len()), (start, len));
                if emit.emit(port, frame) {
                    return Verdict::Emitted;
                }
                self.untransmit(was.ingress, port, len, DropReason::TxRingFull);
                Verdict::Drop(DropReason::TxRingFull)
            }
            other => other,
        }
    }

    /// Gives up outer packets whose last fragment did not come.
    #[inline]
    pub(super) fn poll_reassembler(&mut self, now: Nanos) {
        while !self.tunnels.reassembler.is_empty() {
            let Some(gone) = self.tunnels.reassembler.overdue(now) else { return };
            self.counters.port(gone.ingress).held.sub(u64::from(gone.packets));
            let drops = &self.counters.port(gone.ingress).drops;
            drops[DropReason::FragmentNoFirst.index()].add(u64::from(gone.packets));
        }
    }

    /// The tunnel's header and the link header, then out.
    pub(super) fn transmit_into(
        &self,
        snap: &Snapshot,
        s: &BatchEntry,
        nh: &NextHopWords,
        no: TunnelNo,
        f: &mut FrameMut<'_>,
    ) -> Verdict {
        let Some(t) = snap.tunnel(no) else {
            return drop_at(&self.counters, s.ingress, DropReason::TunnelDown);
        };
        if let Err(reason) = fec::enter(&self.tunnels.fec.senders, &self.counters, t, f, &s.p, s.hash) {
            self.counters.tunnel(no).drops.add(1);
            return drop_at(&self.counters, s.ingress, reason);
        }
        let (len, link) = (f.len(), nh.link(stages::ethertype(t.template.outer)));
        if f.set_link_words(0, len, &link).is_err() {
            return drop_at(&self.counters, s.ingress, DropReason::FrameTooBig);
        }
        self.counters.tunnel(no).sent(usize::from(s.p.ip_len));
        self.sent(s, nh, f)
    }

    /// The outer packet is too large for its path and leaves in pieces.
    pub(super) fn split_outer(
        &mut self,
        snap: &Snapshot,
        s: &BatchEntry,
        decision: &ForwardDecision,
        nh: &NextHop,
        f: &mut FrameMut<'_>,
        emit: &mut impl Emit,
    ) -> Verdict {
        let Some(t) = snap.tunnel(decision.tunnel) else {
            return drop_at(&self.counters, s.ingress, DropReason::TunnelDown);
        };
        if let Err(reason) = t.enter(f, &s.p, s.hash, true) {
            self.counters.tunnel(t.no).drops.add(1);
            return drop_at(&self.counters, s.ingress, reason);
        }
        let link = LinkHeader { dst: nh.dmac, src: nh.smac, vlan: nh.vlan, ethertype: ETHERTYPE_IPV4 };
        let sent = self.send_pieces(t, (nh.port, link), f.bytes(), emit);
        if sent == 0 {
            return drop_at(&self.counters, s.ingress, DropReason::TxRingFull);
        }
        self.counters.tunnel(t.no).sent(usize::from(s.p.ip_len));
        self.counters.port(s.ingress).forwarded.add(1);
        self.counters.port(nh.port).originated.add(u64::from(sent) - 1);
        Verdict::Emitted
    }

    /// Sends an outer packet by a port in as many pieces as the tunnel's path needs; how many were sent.
    pub(super) fn send_pieces(
        &mut self,
        t: &Tunnel,
        (port, link): (PortIdx, LinkHeader),
        outer: &[u8],
        emit: &mut impl Emit,
    ) -> u32 {
        let link = LinkHeader { ethertype: stages::ethertype(t.template.outer), ..link };
        let out = self.counters.port(port);
        let send = |buf: &mut [u8], len: usize| {
            let mut piece = FrameMut::new(buf, LINK_ROOM - ETH_LEN, ETH_LEN + len);
            let ok = piece.set_link(ETH_LEN, len, &link).is_ok() && emit.emit(port, piece.bytes());
            if ok {
                out.tx_packets.add(1);
                out.tx_bytes.add(piece.len() as u64);
            }
            ok
        };
        let (mtu, id) = (t.path_mtu(), u32::from(t.state.next_id()));
        match t.template.outer {
            Family::V4 => originate::split_ipv4(outer, mtu, &mut self.buffers.scratch, send),
            Family::V6 => originate::split_ipv6(outer, mtu, id, &mut self.buffers.scratch, send),
        }
    }

    /// A packet from a tunnel for the gateway itself. Of a tunnel without a device the kernel knows nothing, so it
    /// could not answer: a worker does, to echo requests.
    pub(super) fn deliver_local_inside(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        s: &BatchEntry,
        frame: &[u8],
        emit: &mut impl Emit,
    ) -> Verdict {
        if let Some(t) = snap.tunnel(s.tunnel).filter(|t| t.device) {
            return self.deliver_to_device(snap, now, t, s, frame, emit);
        }
        let whole = s.p.fragment == Fragment::Whole && !s.p.options;
        let to = s.p.src(frame);
        let own = s.p.dst(frame);
        let ping = whole && s.p.l4 == (L4::Echo { reply: false }) && !own.is_multicast();
        // An answer must not go to who did not ask.
        if let (true, Err(reason)) = (ping, snap.check_source(to, s.ingress, s.tunnel)) {
            if let Some(no) = s.tunnel {
                self.counters.tunnel(no).drops.add(1);
            }
            return drop_at(&self.counters, s.ingress, reason);
        }
        let allowed = ping && {
            let limiter = self.icmp.port(s.ingress);
            limiter.allow(now, snap.options.icmp_rate)
        };
        let Some(path) = originate::reply_path(snap, (s.zone.vrf(), to), None).filter(|_| allowed) else {
            if let Some(no) = s.tunnel {
                self.counters.tunnel(no).drops.add(1);
            }
            return drop_at(&self.counters, s.ingress, DropReason::TunnelLocal);
        };
        let len = usize::from(s.p.ip_len);
        let room = self.buffers.scratch.get_mut(LINK_ROOM..LINK_ROOM + len);
        let built = match room.is_some_and(|room| responder::echo_reply(s.p.ip(frame), room)) {
            true => originate::push_headers(snap, &path, s.p.family, len, &mut self.buffers.scratch),
            false => IcmpResult::NoRoute,
        };
        self.send_reply(s, built, path.tunnel, len, emit)
    }

    /// Answers a frame inside a tunnel on the spot, by the same tunnel.
    fn answer(
        &mut self,
        snap: &Snapshot,
        t: &Tunnel,
        f: &FrameMut<'_>,
        s: &BatchEntry,
        make: impl FnOnce(&[u8], [u8; 6], &dyn Fn(IpAddr) -> responder::Claim, &mut [u8]) -> Option<usize>,
        emit: &mut impl Emit,
    ) -> Verdict {
        let Some(mac) = t.mac() else {
            return drop_at(&self.counters, s.ingress, DropReason::TunnelBadHeader);
        };
        let claim = |a: IpAddr| snap.claim(t, a);
        let made = make(f.bytes(), mac.0, &claim, &mut self.buffers.scratch[LINK_ROOM..]);
        let built = match (made, snap.outer_path(t, t.remote, 0)) {
            (Some(len), Some(path)) => self.push_vxlan_headers(snap, t, &path, len),
            _ => IcmpResult::NoRoute,
        };
        self.send_reply(s, built, Some(t.no), 0, emit)
    }

    /// A whole Ethernet frame of `len` bytes at [`LINK_ROOM`] into a VXLAN tunnel.
    fn push_vxlan_headers(
        &mut self,
        snap: &Snapshot,
        t: &Tunnel,
        path: &OuterPath,
        len: usize,
    ) -> IcmpResult {
        let Some(nh) = snap.resolved(path.port, path.to) else { return IcmpResult::NoRoute };
        let mut eth = [0; ETH_LEN];
        eth.copy_from_slice(&self.buffers.scratch[LINK_ROOM..LINK_ROOM + ETH_LEN]);
        let p = Parsed {
            l3: ETH_LEN as u16,
            ip_len: (len - ETH_LEN) as u16,
            dont_fragment: true,
            tos: 0xC0,
            ..Parsed::NONE
        };
        let link = LinkHeader { dst: nh.dmac, src: nh.smac, vlan: nh.vlan, ethertype: ETHERTYPE_IPV4 };
        let mut f = FrameMut::new(&mut self.buffers.scratch, LINK_ROOM, len);
        if t.enter(&mut f, &p, 0, false).is_err() {
            return IcmpResult::NoRoute;
        }
        let at = usize::from(t.template.len) - ETH_LEN;
        f.bytes_mut()[at..at + ETH_LEN].copy_from_slice(&eth);
        t.template.fill_udp_checksum(f.bytes_mut(), t.udp_checksum);
        let n = f.len();
        let link = LinkHeader { ethertype: stages::ethertype(t.template.outer), ..link };
        match f.set_link(0, n, &link) {
            Ok(()) => IcmpResult::Ready { port: path.port, start: f.start(), len: f.len() },
            Err(_) => IcmpResult::NoRoute,
        }
    }

    /// Sends what was made in answer to a packet, which was the gateway's own.
    fn send_reply(
        &mut self,
        s: &BatchEntry,
        built: IcmpResult,
        no: Option<TunnelNo>,
        ip_len: usize,
        emit: &mut impl Emit,
    ) -> Verdict {
        self.counters.port(s.ingress).to_kernel.add(1);
        if let IcmpResult::Ready { port, start, len } = built
            && emit.emit(port, &self.buffers.scratch[start..start + len])
        {
            let out = self.counters.port(port);
            out.tx_packets.add(1);
            out.tx_bytes.add(len as u64);
            out.originated.add(1);
            if let Some(no) = no {
                self.counters.tunnel(no).sent(ip_len);
            }
        }
        Verdict::Emitted
    }
}
