//! Taking over the bindings of the sessions of an earlier daemon, from their records: those of IPv4, and those of NAT64 in
//! the table of IPv6.

use super::{NAT_FILTER_ENTRY, NAT_HOST, State};
use crate::family::FlowFamily;
use crate::nat::{Behavior, BindingNo, Endpoint, NatPolicy, NatProtocol, NatState};
use crate::table::{FlowTable, SessionMeta};
use sag_model::VrfNo;
use sag_model::flow::{FlowRecord4, FlowRecord6, RecordNo};
use sag_packet::proto::ICMPV6;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;

/// An endpoint of an IPv6 host, and its VRF.
type Inside64 = (Ipv6Addr, u16, VrfNo);

impl NatState {
    /// Gives every translated session its binding again. To be called when the policy is compiled and
    /// before any worker runs. What does not fit the policy any more stays without: it ends when its
    /// next packet is judged. Returns the number of bindings.
    pub fn adopt_sessions(&self, table: &FlowTable<FlowRecord4>, policy: &NatPolicy, tick: u32) -> usize {
        let mut bindings = 0;
        // What a session's own source holds comes first: others may share it.
        for sources in [true, false] {
            for n in 1..table.used() {
                let meta = table.meta(n);
                if State::of(meta).is_none() {
                    continue;
                }
                let r = table.record(RecordNo::forward(n));
                let (key, new) = (r.key(), r.translated());
                let (Some(old), Some(mut new)) = (FlowRecord4::endpoints(&key), FlowRecord4::endpoints(&new))
                else {
                    continue;
                };
                new.1.vrf = FlowRecord4::vrf(&table.record(RecordNo::reverse(n)).key());
                let Some(protocol) = NatProtocol::of(FlowRecord4::tuple(&key).proto) else { continue };
                bindings += match sources {
                    true if old.0 != new.0 => {
                        self.adopt_source(meta, policy, protocol, (old.0, new.0, new.1), tick)
                    }
                    false if (old.1.addr, old.1.port) != (new.1.addr, new.1.port) => {
                        self.adopt_dest(meta, policy, protocol, (old.1, new.1))
                    }
                    _ => false,
                } as usize;
            }
        }
        bindings
    }

    /// The same for sessions of NAT64, whose hosts get numbers anew.
    pub fn adopt_sessions64(&self, table: &FlowTable<FlowRecord6>, policy: &NatPolicy, tick: u32) -> usize {
        let mut bindings = 0;
        for sources in [true, false] {
            for n in 1..table.used() {
                let (meta, r) = (table.meta(n), table.record(RecordNo::forward(n)));
                if State::of(meta).is_none() || !r.crosses() {
                    continue;
                }
                self.make_hosts6();
                let (key, new) = (r.key(), r.translated());
                let (old, left) = (FlowRecord6::tuple(&key), FlowRecord6::tuple(&new));
                let (ports, new_ports) = (FlowRecord6::raw_ports(&key), FlowRecord6::raw_ports(&new));
                let protocol =
                    if old.proto == ICMPV6 { Some(NatProtocol::Icmp) } else { NatProtocol::of(old.proto) };
                let external = |addr, port| {
                    let addr = match addr {
                        IpAddr::V4(addr) => addr,
                        IpAddr::V6(addr) => policy.nat64(addr)?.prefix.extract(addr)?,
                    };
                    Some(Endpoint::new(addr, port))
                };
                let Some(protocol) = protocol else { continue };
                bindings += match (sources, old.src, left.dst) {
                    (true, IpAddr::V6(host), to) => {
                        let outside = external(left.src, new_ports.0);
                        let remote = external(if to.is_ipv4() { to } else { old.dst }, new_ports.1);
                        let ends = outside.zip(remote);
                        let filters = to.is_ipv4();
                        let inside = (host, ports.0, FlowRecord6::vrf(&key));
                        ends.is_some_and(|e| {
                            self.adopt_source64(meta, policy, protocol, (inside, e, filters), tick)
                        })
                    }
                    (false, _, IpAddr::V6(host)) => {
                        let outside = external(old.dst, ports.1);
                        let vrf = FlowRecord6::vrf(&table.record(RecordNo::reverse(n)).key());
                        outside.is_some_and(|o| {
                            self.adopt_dest64(meta, policy, protocol, (o, (host, new_ports.1, vrf)))
                        })
                    }
                    _ => false,
                } as usize;
            }
        }
        bindings
    }

    fn adopt_source64(
        &self,
        meta: &SessionMeta,
        policy: &NatPolicy,
        protocol: NatProtocol,
        ((host, port, vrf), (outside, remote), filters): (Inside64, (Endpoint, Endpoint), bool),
        tick: u32,
    ) -> bool {
        let source = allocating(policy, outside.addr).filter(|s| !s.pool.is_fixed(protocol, outside.port));
        let (Some(source), Some(number)) = (source, self.host6_session_started(host)) else { return false };
        source.pool.allocate_slots();
        let (inside, scope) = (Endpoint { addr: number, port, vrf }, source.scope(remote));
        let block = policy.limits.port_block;
        let adopted = self.adopt(&source.pool, protocol, (inside, outside.port), scope, block, tick);
        let Some(b) = adopted else {
            self.host6_session_ended(number);
            return false;
        };
        meta.bindings[0].store(b.0, Ordering::Relaxed);
        if self.host_session_started(inside.host()) {
            meta.ports.fetch_or(NAT_HOST, Ordering::Relaxed);
        }
        if filters
            && source.filtering == Behavior::AddressDependent
            && protocol != NatProtocol::Icmp
            && self.add_filter_entry(b, remote.addr)
        {
            meta.ports.fetch_or(NAT_FILTER_ENTRY, Ordering::Relaxed);
        }
        true
    }

    fn adopt_dest64(
        &self,
        meta: &SessionMeta,
        policy: &NatPolicy,
        protocol: NatProtocol,
        (outside, (host, port, vrf)): (Endpoint, Inside64),
    ) -> bool {
        let (source, number) = (allocating(policy, outside.addr), self.host6_session_started(host));
        let (Some(source), Some(number)) = (source, number) else { return false };
        let b = BindingNo::new(source.pool.no, protocol, outside.port);
        let shared = self.share(b, Endpoint { addr: number, port, vrf });
        if shared {
            meta.bindings[1].store(b.0, Ordering::Relaxed);
        } else {
            self.host6_session_ended(number);
        }
        shared
    }

    fn adopt_source(
        &self,
        meta: &SessionMeta,
        policy: &NatPolicy,
        protocol: NatProtocol,
        (inside, outside, remote): (Endpoint, Endpoint, Endpoint),
        tick: u32,
    ) -> bool {
        if self.host_session_started(inside.host()) {
            meta.ports.fetch_or(NAT_HOST, Ordering::Relaxed);
        }
        policy.remember_adopted(self, inside, protocol.proto(), outside.addr);
        let source = policy.externals.get(&outside.addr.to_bits()).and_then(|e| policy.source(e.source?));
        let Some(source) = source.filter(|s| !s.overlaps() && !s.pool.is_fixed(protocol, outside.port))
        else {
            return false;
        };
        // Sessions keep addresses that new ones do not get.
        source.pool.allocate_slots();
        let scope = source.scope(remote);
        let block = policy.limits.port_block;
        let Some(b) = self.adopt(&source.pool, protocol, (inside, outside.port), scope, block, tick) else {
            return false;
        };
        meta.bindings[0].store(b.0, Ordering::Relaxed);
        if source.filtering == Behavior::AddressDependent
            && protocol != NatProtocol::Icmp
            && self.add_filter_entry(b, remote.addr)
        {
            meta.ports.fetch_or(NAT_FILTER_ENTRY, Ordering::Relaxed);
        }
        true
    }

    fn adopt_dest(
        &self,
        meta: &SessionMeta,
        policy: &NatPolicy,
        protocol: NatProtocol,
        (outside, inside): (Endpoint, Endpoint),
    ) -> bool {
        let source = policy.externals.get(&outside.addr.to_bits()).and_then(|e| policy.source(e.source?));
        let Some(source) = source.filter(|s| !s.pool.is_fixed(protocol, outside.port)) else { return false };
        let b = BindingNo::new(source.pool.no, protocol, outside.port);
        let shared = self.share(b, inside);
        if shared {
            meta.bindings[1].store(b.0, Ordering::Relaxed);
        }
        shared
    }
}

/// The source of an external address, if sessions get ports of it.
fn allocating(policy: &NatPolicy, addr: Ipv4Addr) -> Option<&crate::nat::Source> {
    let external = policy.externals.get(&addr.to_bits())?;
    policy.source(external.source?).filter(|s| !s.overlaps())
}
