//! The stages of the part `apply`: the packet becomes what was decided about it, and leaves.

use super::{BatchEntry, Pipeline, Verdict, drop_at, fec, remark};
use crate::originate::{self, Emit, LINK_ROOM};
use crate::snapshot::{NextHop, NextHopWords, Snapshot};
use crate::stages::{self, ForwardDecision, Fragmentation, for_stages};
use crate::tables::SharedTable;
use sag_model::DropReason;
use sag_model::flow::RecordNo;
use sag_packet::nat64::MIN_MTU6;
use sag_packet::parse::{Family, Parsed};
use sag_packet::proto::ETH_LEN;
use sag_packet::rewrite::{self, FrameMut, LinkHeader};
use sag_packet::translate;

/// A packet that is to be forwarded.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    pub snap: &'a Snapshot,
    pub s: &'a BatchEntry,
    /// The same packet once it is one of the other family, or carries another DSCP.
    pub marked: Option<BatchEntry>,
    pub decision: &'a ForwardDecision,
    pub nexthop: NextHopWords,
    /// The record whose translation holds for the packet.
    pub record: Option<RecordNo>,
    /// The packet is an ICMP error about a packet of that record.
    pub is_error: bool,
    /// What became of the packet.
    pub verdict: Verdict,
}

/// Runs the stages of the part `apply`, one after the other, until one of them has a verdict.
macro_rules! run_apply {
    (
        ($this:ident $family:ident $args:tt)
        receive $receive:tt
        decide $decide:tt
        apply { $($stage:ident $name:literal $run:ident;)* }
    ) => {
        $($this.$run::<$family> $args?;)*
    };
}

impl Pipeline {
    #[inline(always)]
    pub(super) fn apply<R: SharedTable>(
        &mut self,
        out: &mut Outgoing<'_>,
        f: &mut FrameMut<'_>,
        emit: &mut impl Emit,
    ) -> Result<(), Verdict> {
        for_stages!(run_apply!(self R (out, f, emit)));
        Ok(())
    }

    /// The rewrite stage: translation, DSCP, segment size and TTL.
    #[inline(always)]
    fn rewrite<R: SharedTable>(
        &mut self,
        out: &mut Outgoing<'_>,
        f: &mut FrameMut<'_>,
        _: &mut impl Emit,
    ) -> Result<(), Verdict> {
        let dropped = |reason| drop_at(&self.counters, out.s.ingress, reason);
        if let (true, Some(no)) = (out.decision.crossing.is_any(), out.record) {
            let crossed = self.cross::<R>(out.snap, out.s, (no, out.is_error), f, out.decision.mtu);
            let crossed = crossed.map_err(dropped)?;
            out.marked = remark(out.snap, out.decision.meters, &crossed, f).or(Some(crossed));
        } else {
            self.translate::<R>(out, f).map_err(dropped)?;
            out.marked = remark(out.snap, out.decision.meters, out.s, f);
        }
        let s = out.marked.as_ref().unwrap_or(out.s);
        self.clamp_segments(out.snap, s, out.decision, f);
        rewrite::decrement_ttl(f.bytes_mut(), &s.p);
        Ok(())
    }

    /// The encap stage: tunnel and link header, in as many fragments as it takes.
    #[inline(always)]
    #[expect(clippy::extra_unused_type_parameters, reason = "all stages of the list are called alike")]
    fn encap<R: SharedTable>(
        &mut self,
        out: &mut Outgoing<'_>,
        f: &mut FrameMut<'_>,
        emit: &mut impl Emit,
    ) -> Result<(), Verdict> {
        let (snap, decision, s) = (out.snap, out.decision, out.marked.as_ref().unwrap_or(out.s));
        match decision.fragmentation {
            Fragmentation::NotNeeded => {
                self.transmit(snap, s, &out.nexthop, decision.tunnel, f, &mut out.verdict);
            }
            Fragmentation::Packet => {
                out.verdict = self.split(snap, s, decision, &out.nexthop.unpack(), f, emit);
            }
            Fragmentation::Outer => {
                out.verdict = self.split_outer(snap, s, decision, &out.nexthop.unpack(), f, emit);
            }
        }
        Ok(())
    }

    /// Translates the packet as its session's record says.
    fn translate<R: SharedTable>(&self, out: &Outgoing<'_>, f: &mut FrameMut<'_>) -> Result<(), DropReason> {
        if let (true, Some(src)) = (out.is_error, out.decision.npt.src) {
            translate::set_source6(f.bytes_mut(), &out.s.p, src);
        }
        let Some(no) = out.record else { return Ok(()) };
        let table = R::table(&self.tables);
        let r = table.record(no);
        let flags = R::nat_flags(&r.key(), &r.translated());
        if flags != 0 {
            self.renumber::<R>(out.s, flags, f);
            if out.is_error {
                r.rewrite_error(f.bytes_mut(), &out.s.p)?;
            } else {
                r.rewrite(f.bytes_mut(), &out.s.p);
            }
        }
        if let Some(p) = table.proxied(no.session()) {
            self.translate_numbers(p, (no.direction() == 1, out.is_error), f, &out.s.p);
        }
        Ok(())
    }

    /// Sends the packet in fragments, each of them through the tunnel if there is one.
    fn split(
        &mut self,
        snap: &Snapshot,
        s: &BatchEntry,
        decision: &ForwardDecision,
        nh: &NextHop,
        f: &mut FrameMut<'_>,
        emit: &mut impl Emit,
    ) -> Verdict {
        let link = LinkHeader {
            dst: nh.dmac,
            src: nh.smac,
            vlan: nh.vlan,
            ethertype: stages::ethertype(s.p.family),
        };
        let out = self.counters.port(nh.port);
        let (tunnel, inside) =
            (snap.tunnel(decision.tunnel), decision.tunnel.map(|no| self.counters.tunnel(no)));
        let id = self.random.draw() as u32;
        let (packet, scratch) = (s.p.ip(f.bytes()), &mut self.buffers.scratch);
        let send = |buf: &mut [u8], len: usize| {
            let mut piece = FrameMut::new(buf, LINK_ROOM - ETH_LEN, ETH_LEN + len);
            let done = match tunnel {
                None => piece.set_link(ETH_LEN, len, &link).is_ok(),
                Some(t) => {
                    let p = Parsed { l3: ETH_LEN as u16, ip_len: len as u16, ..s.p };
                    let senders = &self.tunnels.fec.senders;
                    fec::enter(senders, &self.counters, t, &mut piece, &p, s.hash).is_ok()
                        && originate::put_link(t, &mut piece, link).is_ok()
                }
            };
            let ok = done && emit.emit(nh.port, piece.bytes());
            if let (true, Some(inside)) = (ok, inside) {
                inside.sent(len);
            }
            if ok {
                out.tx_packets.add(1);
                out.tx_bytes.add(piece.len() as u64);
            }
            ok
        };
        let sent = match s.p.family {
            Family::V4 => originate::split_ipv4(packet, decision.mtu, scratch, send),
            // From an IPv4 packet that may be fragmented; the smallest MTU of IPv6 (RFC 7915 section 4.1).
            Family::V6 => originate::split_ipv6(packet, MIN_MTU6.min(decision.mtu), id, scratch, send),
        };
        if sent == 0 {
            return drop_at(&self.counters, s.ingress, DropReason::TxRingFull);
        }
        self.counters.port(s.ingress).forwarded.add(1);
        out.originated.add(u64::from(sent) - 1);
        Verdict::Emitted
    }
}
