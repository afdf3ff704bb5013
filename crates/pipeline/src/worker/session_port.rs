//! The external port of a new session: how many its host may have, which port it gets, and what is reported of that.

use super::Pipeline;
use super::session_create::{NatRefs, NewSession, not_created};
use super::session_room::Victim;
use crate::family::EndpointPair;
use crate::nat::{Behavior, BindingNo, Endpoint, Event, Lease, NatProtocol, NoPort, Snat, Source};
use crate::session::{Holder, NAT_FILTER_ENTRY, NAT_HOST, Worth};
use crate::snapshot::Snapshot;
use crate::stages::ForwardDecision;
use crate::table::NotCreated;
use crate::tables::SharedTable;
use sag_model::DropReason;
use sag_model::flow::RecordNo;
use sag_packet::parse::L4;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Ports tried for a session that shares them with sessions to other places.
const OVERLAP_TRIES: u32 = 64;

impl Pipeline {
    /// One more session of a host, if it may have it.
    pub(super) fn count_host(
        &mut self,
        snap: &Snapshot,
        src: Endpoint,
        refs: &mut NatRefs,
    ) -> Result<(), DropReason> {
        if !self.tables.nat.host_session_started(src.host()) {
            return Ok(());
        }
        let Some(limit) = snap.nat.limits.host_sessions.map(u64::from) else {
            refs.flags |= NAT_HOST;
            return Ok(());
        };
        let host = self.tables.nat.host_address(src.addr);
        let n = self.tables.nat.host_sessions(src.host());
        if n > limit {
            self.tables.nat.host_session_ended(src.host());
            if (self.tables.nat.totals.host_refused.fetch_add(1, Ordering::Relaxed) + 1).is_power_of_two() {
                self.sessions.events.push(Event::HostRefused { host, vrf: src.vrf, limit });
            }
            return Err(DropReason::SnatHostLimit);
        }
        refs.flags |= NAT_HOST;
        // At the mark exactly: once on the decision up.
        if n == (limit * u64::from(snap.nat.limits.warn_percent)).div_ceil(100) {
            self.sessions.events.push(Event::HostLow { host, vrf: src.vrf, sessions: n, limit });
        }
        Ok(())
    }

    pub(super) fn with_port<R: SharedTable>(
        &mut self,
        first: &NewSession<'_>,
        (key, (src, to)): (&R::Key, EndpointPair),
        snat: Snat,
        refs: &mut NatRefs,
    ) -> Result<RecordNo, DropReason> {
        let NewSession { snap, s, .. } = *first;
        let external = |port| Endpoint::new(snat.addr, port);
        let source = snat.source.and_then(|no| snap.nat.source(no));
        // Zero is a port, and an identifier, as any other (RFC 768, RFC 792). ICMP messages other than queries have none.
        let numbered = |p: &NatProtocol| *p != NatProtocol::Icmp || matches!(s.p.l4, L4::Echo { .. });
        let protocol = NatProtocol::of(s.p.proto).filter(numbered);
        let limits = &snap.nat.limits;
        if let (Some(source), Some(protocol), None) = (source, protocol, snat.port)
            && source.pool.has_slots()
            && !source.overlaps()
        {
            let (mut made, shared) =
                self.with_lease::<R>(first, (key, (src, to)), (source, protocol, to), refs)?;
            if let (Err(NotCreated::Exists(_)), true, Some(d)) = (made, shared, first.decision.dnat) {
                // The host calls one endpoint by two external addresses from the same port: answers would look the same.
                self.return_lease(refs, to);
                let called = Endpoint::new(d.external, to.port);
                let apart = Source { mapping: Behavior::AddressAndPortDependent, ..source.clone() };
                made = self.with_lease::<R>(first, (key, (src, to)), (&apart, protocol, called), refs)?.0;
            }
            return made.map_err(not_created);
        }
        // The session table alone keeps these apart.
        let fixed = snat.port.is_some() || protocol.is_none();
        let tries = if fixed { 1 } else { OVERLAP_TRIES };
        for n in 0..tries {
            let port = match (snat.port, protocol) {
                (Some(port), _) => port,
                (None, None) => src.port,
                (None, Some(protocol)) if n == 0 && limits.may_keep(protocol, src.port) => src.port,
                (None, Some(protocol)) => {
                    let range = limits.range_for(protocol, src.port);
                    let span = u64::from(range.end() - range.start()) + 1;
                    let port = range.start() + (self.random.draw() % span) as u16;
                    // RFC 4787 REQ-4, unless that is just beyond the range.
                    let alike = port & !1 | src.port & 1;
                    if protocol != NatProtocol::Icmp && range.contains(&alike) { alike } else { port }
                }
            };
            let taken = |p| source.is_some_and(|s| s.pool.is_reserved(p, port));
            if snat.port.is_none() && protocol.is_some_and(taken) {
                continue;
            }
            let new = R::with_endpoints(key, (external(port), to));
            match self.create::<R>(first, (key, &new), *refs) {
                Err(NotCreated::Exists(_)) => {}
                Err(other) => return Err(not_created(other)),
                Ok(no) => return Ok(no),
            }
        }
        match (source, protocol) {
            (Some(source), Some(protocol)) => {
                source.pool.exhausted.fetch_add(1, Ordering::Relaxed);
                Err(self.exhausted(source.pool.addr(), &source.pool.exhausted, protocol))
            }
            // Another host talks to the same place by a protocol without ports.
            _ => Err(DropReason::SnatExhausted),
        }
    }

    /// A session with a port of a source, the one that the source's mapping gives towards `scope`; and whether the port has
    /// other sessions.
    fn with_lease<R: SharedTable>(
        &mut self,
        first: &NewSession<'_>,
        (key, (src, to)): (&R::Key, EndpointPair),
        (source, protocol, scope): (&Source, NatProtocol, Endpoint),
        refs: &mut NatRefs,
    ) -> Result<(Result<RecordNo, NotCreated>, bool), DropReason> {
        let NewSession { snap, .. } = *first;
        let lease = self.lease_port::<R>(first, key, (source, protocol), (src, scope))?;
        refs.bindings[0] = lease.binding.0;
        let external = Endpoint::new(source.pool.addr(), lease.port);
        let new = R::with_endpoints(key, (external, to));
        if lease.port != src.port {
            self.prefetch_other_port::<R>(first.decision, &new, (lease.binding, to));
        }
        self.report_lease(snap, source.pool.addr(), protocol, src, &lease, source);
        if source.filtering == Behavior::AddressDependent
            && protocol != NatProtocol::Icmp
            && self.tables.nat.add_filter_entry(lease.binding, to.addr)
        {
            refs.flags |= NAT_FILTER_ENTRY;
        }
        Ok((self.create::<R>(first, (key, &new), *refs), lease.shared))
    }

    /// A port of a source for an inside endpoint. Where none is left to it, sessions that are worth little make room.
    pub(super) fn lease_port<R: SharedTable>(
        &mut self,
        first: &NewSession<'_>,
        key: &R::Key,
        (source, protocol): (&Source, NatProtocol),
        (src, scope): EndpointPair,
    ) -> Result<Lease, DropReason> {
        let NewSession { snap, now, s, .. } = *first;
        let (limits, tick) = (&snap.nat.limits, now.tick().0);
        let mut lease = self.tables.nat.lease(source, limits, protocol, (src, scope), &mut self.random, tick);
        let any = Victim { proto: Some(s.p.proto), ..Victim::any(Worth::HalfOpen) };
        let victim = match lease {
            Err(NoPort::HostShare) => {
                let host = Holder::Host(R::host(key, R::table(&self.tables).seed()));
                Some(Victim { of: Some(host), ..any })
            }
            Err(NoPort::Exhausted) => Some(Victim { refused_at: Some(source.pool.addr()), ..any }),
            Ok(_) => None,
        };
        if victim.is_some_and(|v| self.evict::<R>(snap, now, v)) {
            lease = self.tables.nat.lease(source, limits, protocol, (src, scope), &mut self.random, tick);
        }
        lease.map_err(|why| match why {
            NoPort::Exhausted => self.exhausted(source.pool.addr(), &source.pool.exhausted, protocol),
            NoPort::HostShare => {
                self.report_refused::<R>(key, DropReason::HostShare);
                DropReason::HostShare
            }
        })
    }

    /// The port is another one than [`Pipeline::prefetch_session_create`] took for likely.
    fn prefetch_other_port<R: SharedTable>(
        &self,
        decision: &ForwardDecision,
        new: &R::Key,
        (binding, remote): (BindingNo, Endpoint),
    ) {
        self.tables.nat.prefetch_filter_entry(binding, remote.addr);
        R::table(&self.tables).prefetch_new(&R::reverse(new, decision.zone));
    }

    pub(super) fn exhausted(
        &mut self,
        external: Ipv4Addr,
        count: &AtomicU64,
        protocol: NatProtocol,
    ) -> DropReason {
        // Told at 1, 2, 4, ... so that a flood does not drown the log.
        if count.load(Ordering::Relaxed).is_power_of_two() {
            self.sessions.events.push(Event::PoolExhausted { external, protocol: protocol.name() });
        }
        DropReason::SnatExhausted
    }

    pub(super) fn report_lease(
        &mut self,
        snap: &Snapshot,
        external: Ipv4Addr,
        protocol: NatProtocol,
        src: Endpoint,
        lease: &Lease,
        source: &Source,
    ) {
        if lease.warn {
            let used = source.pool.uses[protocol as usize].used.load(Ordering::Relaxed);
            let capacity = snap.nat.limits.capacity(protocol);
            self.sessions.events.push(Event::PoolLow { external, protocol: protocol.name(), used, capacity });
        }
        if let (Some(block), true) = (lease.new_block, snap.nat.limits.log_blocks) {
            self.sessions.events.push(self.tables.nat.block_event(lease.binding, block, src.host(), true));
        }
    }
}
