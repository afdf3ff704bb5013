//! Sessions whose source is translated to an address of a line to the Internet that they have to leave: nobody answers by
//! another line to that address, and from another address their far end does not know them. Hosts are told at once,
//! instead of waiting for a timeout.

use super::syn_proxy::Header;
use super::{BatchEntry, Env, Pipeline, Verdict, drop_at};
use crate::originate::Emit;
use crate::session;
use crate::snapshot::{NextHopWords, Snapshot};
use crate::stages::{Disposition, ForwardDecision, Nat64Context, PacketContext};
use crate::table::Worth;
use crate::tables::SharedTable;
use sag_model::flow::{Action, RecordNo};
use sag_model::{DropReason, PortIdx, VrfNo, Zone};
use sag_packet::icmp::IcmpError;
use sag_packet::parse::{Fragment, L4};
use sag_packet::proto::{TCP_ACK, TCP_RST, TCP_SYN};
use sag_packet::segment::Segment;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

const TTL: u8 = 64;

/// A session that has got under way by a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct BoundToLine {
    line: PortIdx,
    /// How the far end knows it, if it can be spoken to.
    outside: Option<Outside>,
}

/// A session as its far end knows it.
#[derive(Debug, Clone, Copy)]
struct Outside {
    external: (IpAddr, u16),
    remote: (IpAddr, u16),
    /// The VRF in which the far end is.
    vrf: VrfNo,
}

impl BoundToLine {
    /// Whether a packet of the session would leave by another line.
    pub fn has_to_leave(&self, snap: &Snapshot, outcome: &Result<ForwardDecision, Disposition>) -> bool {
        match outcome {
            Ok(d) => d.port != self.line && d.zone.zone() == Zone::Wan,
            Err(Disposition::Unresolved { port, .. }) => *port != self.line && snap.is_line(*port),
            Err(_) => false,
        }
    }
}

impl Pipeline {
    /// The line to the Internet whose address the source of a session has become, for packets in the direction of its
    /// first one: that which has the address, else, as of addresses that are routed to the gateway, that by which the
    /// session left last.
    pub(super) fn line_of_source<R: SharedTable>(
        snap: &Snapshot,
        ctx: &PacketContext<'_>,
        first: &R,
    ) -> Option<PortIdx> {
        ctx.leaves_to.filter(|to| to.zone() == Zone::Wan)?;
        let external = match (&ctx.translation, &ctx.translation6, &ctx.nat64) {
            (Some(t), ..) if t.old.0 != t.new.0 => Some(t.new.0.addr),
            (_, Some(t), _) if t.old.0 != t.new.0 => None,
            (.., Nat64Context::Session(s)) => match (s.old.0, s.new.0) {
                (IpAddr::V6(_), IpAddr::V4(external)) => Some(external),
                _ => return None,
            },
            _ => return None,
        };
        let by_address = external.and_then(|a| snap.nat.wan_port_of(a));
        by_address.or_else(|| {
            let action = Action::from_word(first.action().load(Ordering::Relaxed));
            // A session that has come from another gateway has left by no line yet.
            let left = action.tunnel == 0 && action.nexthop != 0;
            let nh = snap.nexthops.get(usize::from(action.nexthop)).filter(|_| left)?;
            Some(NextHopWords::load(nh).port()).filter(|port| snap.is_line(*port))
        })
    }

    /// What is to be known of a session of a packet before it ends, if the hosts rely on it: of one that nobody has
    /// answered, and of queries, the next packet begins another one as well.
    pub(super) fn bound_to_line<R: SharedTable>(
        &self,
        s: &BatchEntry,
        (no, line): (RecordNo, Option<PortIdx>),
    ) -> Option<BoundToLine> {
        let line = line?;
        let table = R::table(&self.tables);
        let relied_on = match s.p.l4 {
            L4::Tcp { flags } => flags & (TCP_SYN | TCP_ACK | TCP_RST) != TCP_SYN,
            L4::Echo { .. } | L4::IcmpError { .. } => false,
            _ => session::worth(table, no.session()) == Some(Worth::Established),
        };
        if !relied_on {
            return None;
        }
        let (forward, reverse) = (RecordNo::forward(no.session()), RecordNo::reverse(no.session()));
        let first = table.record(forward);
        let outside = (!first.crosses()).then(|| {
            let t = R::tuple(&first.translated());
            let vrf = R::vrf(&table.record(reverse).key());
            Outside { external: (t.src, t.sport), remote: (t.dst, t.dport), vrf }
        });
        Some(BoundToLine { line, outside })
    }

    /// The same of whatever session the packet belongs to.
    pub(super) fn line_bound<R: SharedTable>(
        &self,
        snap: &Snapshot,
        s: &BatchEntry,
        frame: &[u8],
    ) -> Option<BoundToLine> {
        let line = self.packet_context::<R>(snap, s, frame).1.line;
        self.bound_to_line::<R>(s, (s.found?, line))
    }

    /// Tells both hosts of a session that has ended because it had to leave its line, and drops the packet.
    #[cold]
    pub(super) fn leave_line(
        &mut self,
        env: &Env<'_>,
        s: &BatchEntry,
        frame: &[u8],
        bound: &BoundToLine,
        emit: &mut impl Emit,
    ) -> Verdict {
        let Env { snap, now, .. } = *env;
        match (s.p.l4, s.p.fragment) {
            (L4::Tcp { flags }, Fragment::Whole) => {
                if let Some(h) = Header::read(&s.p, frame) {
                    self.reset_both(snap, s, (frame, flags), &h, bound, emit);
                }
            }
            _ => self.send_icmp_error(snap, now, s, frame, IcmpError::PortUnreachable, emit),
        }
        drop_at(&self.counters, s.ingress, DropReason::NatWanChanged)
    }

    /// Resets with the numbers that each side expects: the sender of the packet has just said what it expects next, and its
    /// own number is what the far end waits for (RFC 9293 3.10.7.4, RFC 5961 3.2).
    fn reset_both(
        &mut self,
        snap: &Snapshot,
        s: &BatchEntry,
        (frame, flags): (&[u8], u8),
        h: &Header,
        bound: &BoundToLine,
        emit: &mut impl Emit,
    ) {
        let reset = |from, to, seq, ack, flags| Segment {
            from,
            to,
            seq,
            ack,
            flags: TCP_RST | flags,
            window: 0,
            options: &[],
            ttl: TTL,
        };
        if flags & TCP_RST == 0 {
            let (sport, dport) = s.p.ports();
            let (inside, called) = ((s.p.src(frame), sport), (s.p.dst(frame), dport));
            let segment = match flags & TCP_ACK != 0 {
                true => reset(called, inside, h.ack, 0, 0),
                false => reset(called, inside, 0, h.seq.wrapping_add(1), TCP_ACK),
            };
            let near = Self::sender(s, frame);
            self.send_segment(snap, (s.zone.vrf(), &segment), near, emit);
        }
        if let Some(Outside { external, remote, vrf }) = bound.outside
            && let Some(mac) = snap.next_hop_by((vrf, remote.0), bound.line)
        {
            let segment = reset(external, remote, h.seq, h.ack, flags & TCP_ACK);
            self.send_segment(snap, (vrf, &segment), Some((bound.line, mac)), emit);
        }
    }
}
