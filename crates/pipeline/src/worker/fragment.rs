//! Fragments on their way through the pipeline: a later one takes the ports of its first, and waits
//! for it if it came too early.

use super::ingest::is_ours_to_follow;
use super::{BatchEntry, Env, Pipeline, Verdict, drop_at};
use crate::fragments::{DatagramKey, EntryNo, FlowPorts, Followed, Span};
use crate::originate::Emit;
use crate::pending::Arrival;
use crate::resolution::Requester;
use crate::snapshot::Snapshot;
use crate::tables::SharedTable;
use sag_model::{DropReason, Nanos};
use sag_packet::parse::Family;
use sag_packet::rewrite::FrameMut;

impl Pipeline {
    /// The slow path of a fragment. In a batch it is entered when the packets before have gone, so
    /// what waits goes right behind its first.
    #[inline(never)]
    pub(super) fn fragment<R: SharedTable>(
        &mut self,
        env: &Env<'_>,
        s: &mut BatchEntry,
        f: &mut FrameMut<'_>,
        emit: &mut impl Emit,
    ) -> Verdict {
        let Env { snap, now, dev } = *env;
        if !is_ours_to_follow(snap, s.zone.vrf(), s.p.dst(f.bytes())) {
            return self.process_slow::<R>(env, s, f, emit, now);
        }
        self.poll_fragments(now);
        let Some(span) = Span::of(&s.p, f.bytes()) else {
            return drop_at(&self.counters, s.ingress, DropReason::FragmentOverlap);
        };
        let key = DatagramKey::of(&s.p, f.bytes(), s.zone);
        if span.is_first() {
            // A sender that uses its number again at once gets ours again: some of its fragments may have gone by it.
            let again = self.first_elsewhere(&key, now).map(|p| p.new_id);
            s.new_id = again.unwrap_or_else(|| self.identification(snap, s, f.bytes()));
        }
        let ports = FlowPorts::of(&s.p, s.new_id);
        match self.fragments.datagrams.follow(&key, &span, ports, now) {
            Followed::First(no) => {
                if !self.fragments.alone {
                    self.tables.first_fragments.publish(&key, ports, now);
                }
                let mut verdict = self.process_slow::<R>(env, s, f, emit, now);
                if self.fragments.datagrams.waits_for(no) {
                    verdict = self.send_ahead(s, verdict, f, emit);
                    self.release_behind(snap, now, no, ports, emit);
                }
                self.fragments.datagrams.finish(no);
                verdict
            }
            Followed::Later(ports) => {
                self.belongs(s, f.bytes(), ports);
                s.found = self.find(s, f.bytes());
                self.process_slow::<R>(env, s, f, emit, now)
            }
            Followed::Early(no) => {
                if let Some(ports) = self.first_elsewhere(&key, now) {
                    self.fragments.datagrams.begin(no, ports);
                    self.release_behind(snap, now, no, ports, emit);
                    self.fragments.datagrams.passed(no, &span);
                    self.belongs(s, f.bytes(), ports);
                    s.found = self.find(s, f.bytes());
                    return self.process_slow::<R>(env, s, f, emit, now);
                }
                let arrival = Arrival {
                    dev,
                    ingress: s.ingress,
                    tunnel: s.tunnel,
                    since: now,
                    ports: FlowPorts::default(),
                    from: Requester::NONE,
                };
                if !self.fragments.datagrams.keep(no, &span, arrival, f.bytes()) {
                    return drop_at(&self.counters, s.ingress, DropReason::FragmentTableFull);
                }
                self.counters.port(s.ingress).held.add(1);
                Verdict::Held
            }
            Followed::Refused(reason) => drop_at(&self.counters, s.ingress, reason),
            Followed::Poisoned(no) => {
                self.drop_waiting(no, DropReason::FragmentOverlap);
                drop_at(&self.counters, s.ingress, DropReason::FragmentOverlap)
            }
        }
    }

    /// Makes a fragment one of the flow with these ports.
    pub(super) fn belongs(&self, s: &mut BatchEntry, frame: &[u8], ports: FlowPorts) {
        ports.give(&mut s.p);
        s.new_id = ports.new_id;
        s.hash = match s.p.family {
            Family::V4 => self.tables.v4.hash(&s.p.key4(s.zone)),
            Family::V6 => self.tables.v6.hash(&s.p.key6(frame, s.zone)),
        };
    }

    /// What is emitted leaves before what a verdict sends, so a first fragment with others behind it
    /// is emitted too.
    fn send_ahead(
        &self,
        s: &BatchEntry,
        verdict: Verdict,
        f: &FrameMut<'_>,
        emit: &mut impl Emit,
    ) -> Verdict {
        match verdict {
            Verdict::Tx { port, .. } if emit.emit(port, f.bytes()) => Verdict::Emitted,
            Verdict::Tx { port, len, .. } => {
                self.untransmit(s.ingress, port, len, DropReason::TxRingFull);
                Verdict::Drop(DropReason::TxRingFull)
            }
            other => other,
        }
    }

    /// Sends what waited for a first fragment with these ports on its way.
    fn release_behind(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        no: EntryNo,
        ports: FlowPorts,
        emit: &mut impl Emit,
    ) {
        let mut buf = std::mem::take(&mut self.buffers.released);
        while let Some(held) = self.fragments.datagrams.take(no, &mut buf) {
            // From now on it may wait for its next hop.
            let arrival = Arrival { since: now, ports, ..held.arrival };
            self.again(snap, now, &arrival, &mut buf, held.len, emit);
        }
        self.buffers.released = buf;
    }

    fn first_elsewhere(&self, key: &DatagramKey, now: Nanos) -> Option<FlowPorts> {
        if self.fragments.alone { None } else { self.tables.first_fragments.lookup(key, now) }
    }

    /// What waits for first fragments that have come to other workers meanwhile goes on.
    #[inline]
    pub(super) fn poll_first_fragments(&mut self, snap: &Snapshot, now: Nanos, emit: &mut impl Emit) {
        while let Some((no, ports)) = self.fragments.datagrams.begun(|key| self.first_elsewhere(key, now)) {
            self.fragments.datagrams.begin(no, ports);
            self.release_behind(snap, now, no, ports, emit);
        }
    }

    fn drop_waiting(&mut self, no: EntryNo, reason: DropReason) {
        while let Some(held) = self.fragments.datagrams.take(no, &mut self.buffers.released) {
            self.counters.port(held.arrival.ingress).held.sub(1);
            self.counters.count_drop(held.arrival.ingress, reason);
        }
    }

    /// Gives up datagrams whose first fragment did not come.
    #[inline]
    pub(super) fn poll_fragments(&mut self, now: Nanos) {
        while let Some(no) = self.fragments.datagrams.overdue(now) {
            self.drop_waiting(no, DropReason::FragmentNoFirst);
            self.fragments.datagrams.give_up(no);
        }
    }
}
