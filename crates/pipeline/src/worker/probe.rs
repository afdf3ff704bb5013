//! Probes of the far ends of tunnels, and their answers.

use super::{BatchEntry, Pipeline, Verdict};
use crate::originate::{Emit, LINK_ROOM, put_link};
use crate::snapshot::Snapshot;
use crate::tunnel::{self, Carried, Keepalive, Question, Tunnel, TunnelNo};
use sag_model::Nanos;
use sag_packet::checksum;
use sag_packet::parse::{Family, Fragment, L4, Parsed};
use sag_packet::proto::*;
use sag_packet::rewrite::{FrameMut, LinkHeader};
use sag_tunnel::probe::{self, Kind, Probe};
use std::net::{IpAddr, Ipv4Addr};

/// Both ends inside: the dummy address (RFC 7600), to which nobody forwards.
pub(super) const PROBE_ADDR: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// Identifier of our echo requests.
const ECHO_ID: u16 = 0x5A67;

impl Pipeline {
    /// If the packet that has left tunnel `slot.tunnel` is a question or an answer, it ends here.
    pub(super) fn handle_probe(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        f: &FrameMut<'_>,
        slot: &BatchEntry,
        emit: &mut impl Emit,
    ) -> Result<(), Verdict> {
        let (p, frame) = (&slot.p, f.bytes());
        let Some(t) = snap.tunnel(slot.tunnel) else { return Ok(()) };
        if p.fragment != Fragment::Whole {
            return Ok(());
        }
        match p.l4 {
            L4::Udp if p.ports().1 == probe::PORT && p.dst(frame) == IpAddr::V4(PROBE_ADDR) => {
                let at = usize::from(p.l4_at) + UDP_LEN;
                let end = usize::from(p.l3) + usize::from(p.ip_len);
                let Some(read) = frame.get(at..end).and_then(Probe::read) else { return Ok(()) };
                match read.reply() {
                    Some(reply) => {
                        t.state.saw_question();
                        let len = self.build_probe(&reply, 0);
                        self.send_inside(snap, t, len, emit);
                    }
                    None => t.state.answered(&read, now),
                }
            }
            L4::Echo { reply: true } if t.probing.target == Some(p.src(frame)) => {
                let at = usize::from(p.l4_at);
                let Some(&[i, j, k, l]) = frame.get(at + 4..at + 8) else { return Ok(()) };
                if u16::from_be_bytes([i, j]) != ECHO_ID {
                    return Ok(());
                }
                t.state.echoed(u16::from_be_bytes([k, l]));
            }
            _ => return Ok(()),
        }
        self.counters.port(slot.ingress).to_kernel.add(1);
        Err(Verdict::Emitted)
    }

    /// Sends the probes that are due; one worker does it for all tunnels.
    pub(super) fn poll_tunnels(&mut self, snap: &Snapshot, now: Nanos, emit: &mut impl Emit) {
        if snap.tunnels.is_empty() || now.0 < self.tunnels.due.0 {
            return;
        }
        // Often enough to notice an answer that does not come.
        self.tunnels.due = Nanos(now.0 + 5_000_000);
        let mut monitors = std::mem::take(&mut self.tunnels.monitors);
        monitors.resize_with(256, || None);
        for (no, slot) in monitors.iter_mut().enumerate() {
            let Some(t) = snap.tunnel(TunnelNo::new(no as u8)) else {
                *slot = None;
                if let Some(k) = self.tunnels.keepalives.get_mut(no) {
                    *k = Keepalive::default();
                }
                continue;
            };
            if self.tunnels.keepalives.get_mut(no).is_some_and(|k| k.poll(t, now)) {
                let said = self.send_keepalive(snap, t, emit);
                self.tunnels.keepalives[no].said(said, now);
            }
            if t.probing.interval == 0 {
                *slot = None;
                t.state.set_probes_sizes(false);
                // Without probes a tunnel counts as up, whatever it was.
                if !t.state.is_up() {
                    t.state.set_up(true);
                    self.tunnels.changed = true;
                }
                continue;
            }
            if !slot.as_ref().is_some_and(|m| m.is_of(t)) {
                // Other than the last time, so that old answers are not taken for new ones.
                *slot = Some(tunnel::Monitor::new(t, now, self.random.draw() as u32 ^ now.0 as u32));
            }
            let Some(m) = slot else { continue };
            self.tunnels.changed |= m.poll(t, now);
            while let Some(question) = m.next_question(t, now) {
                self.send_question(snap, t, question, now, emit);
            }
        }
        self.tunnels.monitors = monitors;
    }

    /// Whether a larger index should be made at once ([`FlowTable::rings`](crate::table::FlowTable::rings)).
    pub fn table_rings(&self) -> bool {
        self.tables.v4.rings() | self.tables.v6.rings()
    }

    /// Whether a tunnel has gone down or come up since the last call.
    pub fn take_tunnels_changed(&mut self) -> bool {
        std::mem::take(&mut self.tunnels.changed)
    }

    fn send_question(
        &mut self,
        snap: &Snapshot,
        t: &Tunnel,
        question: Question,
        now: Nanos,
        emit: &mut impl Emit,
    ) {
        let len = match (question, t.probing.target) {
            (Question::Alive { sequence, .. }, Some(target)) => {
                self.build_echo(snap, t, target, sequence as u16)
            }
            (Question::Alive { sequence, instance }, None) => {
                let p = Probe { kind: Kind::Alive, size: 0, sequence, instance, cookie: now.0 };
                Some(self.build_probe(&p, 0))
            }
            (Question::Size { sequence, instance, outer }, _) => {
                let p = Probe { kind: Kind::Size, size: outer, sequence, instance, cookie: now.0 };
                Some(self.build_probe(&p, usize::from(t.inside_of(outer))))
            }
        };
        if let Some(len) = len {
            self.send_inside(snap, t, len, emit);
        }
    }

    /// A probe's packet at [`LINK_ROOM`], of `len` bytes or as many as it needs.
    fn build_probe(&mut self, probe: &Probe, len: usize) -> usize {
        let len = len.max(IPV4_LEN + UDP_LEN + probe::LEN);
        let Some(out) = self.buffers.scratch.get_mut(LINK_ROOM..LINK_ROOM + len) else { return 0 };
        ipv4(out, UDP, PROBE_ADDR, PROBE_ADDR);
        let udp = &mut out[IPV4_LEN..];
        udp[..2].copy_from_slice(&probe::PORT.to_be_bytes());
        udp[2..4].copy_from_slice(&probe::PORT.to_be_bytes());
        udp[4..6].copy_from_slice(&((len - IPV4_LEN) as u16).to_be_bytes());
        udp[6..8].fill(0);
        probe.write(&mut udp[UDP_LEN..]);
        len
    }

    fn build_echo(&mut self, snap: &Snapshot, t: &Tunnel, to: IpAddr, sequence: u16) -> Option<usize> {
        const LEN: usize = IPV4_LEN + ICMP_LEN + 24;
        let from = t.source_for(to).or_else(|| snap.inside_source(t.vrf, to))?;
        let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { return None };
        let out = self.buffers.scratch.get_mut(LINK_ROOM..LINK_ROOM + LEN)?;
        ipv4(out, ICMP, from, to);
        let icmp = &mut out[IPV4_LEN..];
        icmp.fill(0);
        icmp[0] = 8;
        icmp[4..6].copy_from_slice(&ECHO_ID.to_be_bytes());
        icmp[6..8].copy_from_slice(&sequence.to_be_bytes());
        let check = checksum::finish(checksum::sum(icmp));
        icmp[2..4].copy_from_slice(&check.to_ne_bytes());
        Some(LEN)
    }

    /// Sends the IPv4 packet of `len` bytes at [`LINK_ROOM`] through a tunnel, if its way is known.
    fn send_inside(&mut self, snap: &Snapshot, t: &Tunnel, len: usize, emit: &mut impl Emit) {
        let p = Parsed {
            family: Family::V4,
            l3: ETH_LEN as u16,
            ip_len: len as u16,
            dont_fragment: true,
            tos: 0xC0,
            ..Parsed::NONE
        };
        self.send_through(snap, t, &p, 0, Carried::Packet, emit);
    }

    /// Sends a NAT keepalive. False: it did not leave.
    fn send_keepalive(&mut self, snap: &Snapshot, t: &Tunnel, emit: &mut impl Emit) -> bool {
        let Some(path) = snap.outer_path(t, t.remote_now(), 0) else { return false };
        let Some(nh) = snap.resolved(path.port, path.to) else {
            self.neighbors.request((path.port, path.to));
            return false;
        };
        let room = self.buffers.scratch.get_mut(LINK_ROOM..);
        let Some(len) = room.and_then(|r| t.keepalive_in(r)).map(|packet| packet.len()) else { return false };
        let link = LinkHeader { dst: nh.dmac, src: nh.smac, vlan: nh.vlan, ethertype: ETHERTYPE_IPV4 };
        let mut f = FrameMut::new(&mut self.buffers.scratch, LINK_ROOM, len);
        if put_link(t, &mut f, link).is_err() || !emit.emit(path.port, f.bytes()) {
            return false;
        }
        let out = self.counters.port(path.port);
        out.tx_packets.add(1);
        out.tx_bytes.add(f.len() as u64);
        out.originated.add(1);
        self.counters.tunnel(t.no).keepalives.add(1);
        true
    }

    /// Sends what lies at [`LINK_ROOM`], `p.ip_len` bytes, through a tunnel. False: its way is not known,
    /// or it was not taken.
    pub(super) fn send_through(
        &mut self,
        snap: &Snapshot,
        t: &Tunnel,
        p: &Parsed,
        hash: u64,
        carried: Carried<'_>,
        emit: &mut impl Emit,
    ) -> bool {
        let Some(path) = snap.outer_path(t, t.remote_now(), 0) else { return false };
        let Some(nh) = snap.resolved(path.port, path.to) else {
            self.neighbors.request((path.port, path.to));
            return false;
        };
        let link = LinkHeader { dst: nh.dmac, src: nh.smac, vlan: nh.vlan, ethertype: ETHERTYPE_IPV4 };
        let len = ETH_LEN + usize::from(p.ip_len);
        let mut f = FrameMut::new(&mut self.buffers.scratch, LINK_ROOM - ETH_LEN, len);
        let entered = t.enter_as(&mut f, p, hash, false, carried).and_then(|()| put_link(t, &mut f, link));
        if entered.is_err() || !emit.emit(path.port, f.bytes()) {
            return false;
        }
        let out = self.counters.port(path.port);
        out.tx_packets.add(1);
        out.tx_bytes.add(f.len() as u64);
        out.originated.add(1);
        true
    }
}

/// An IPv4 header for all of `packet`.
fn ipv4(packet: &mut [u8], proto: u8, from: Ipv4Addr, to: Ipv4Addr) {
    let len = packet.len() as u16;
    let Some(h) = packet.first_chunk_mut::<IPV4_LEN>() else { return };
    *h = [0x45, 0xC0, 0, 0, 0, 0, 0x40, 0, 1, proto, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    h[8] = 64;
    h[2..4].copy_from_slice(&len.to_be_bytes());
    h[12..16].copy_from_slice(&from.octets());
    h[16..20].copy_from_slice(&to.octets());
    let check = checksum::finish(checksum::sum(h));
    h[10..12].copy_from_slice(&check.to_ne_bytes());
}
