//! Bindings of sessions that exist before their bindings do: those of an earlier daemon, from their records, and those of
//! another gateway. Sessions of IPv4, and those of NAT64 in the table of IPv6.

use super::{NAT_FILTER_ENTRY, NAT_HOST, State};
use crate::family::FlowFamily;
use crate::nat::{Behavior, BindingNo, Endpoint, NatPolicy, NatProtocol, NatState, Released};
use crate::table::FlowTable;
use sag_model::VrfNo;
use sag_model::flow::{FlowRecord4, FlowRecord6, RecordNo};
use sag_packet::proto::ICMPV6;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;

/// An endpoint of an IPv6 host, and its VRF.
type Inside64 = (Ipv6Addr, u16, VrfNo);

/// The translation of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Translated<K> {
    /// The key of its first packet.
    pub key: K,
    /// What became of it.
    pub new: K,
    /// The VRF that it went to.
    pub vrf: VrfNo,
    /// It goes through NAT64.
    pub crosses: bool,
}

impl<K> Translated<K> {
    /// That of a session in the table.
    pub fn of<R: FlowFamily<Key = K>>(table: &FlowTable<R>, session: u32) -> Translated<K> {
        let r = table.record(RecordNo::forward(session));
        let vrf = R::vrf(&table.record(RecordNo::reverse(session)).key());
        Translated { key: r.key(), new: r.translated(), vrf, crosses: r.crosses() }
    }
}

/// What a session holds: bindings of its source and its destination, and flags for its host and its filter entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub bindings: [u32; 2],
    pub flags: u32,
}

/// Which half of a session's translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Source,
    Dest,
}

impl NatState {
    /// Gives every translated session its binding again. To be called when the policy is compiled and
    /// before any worker runs. What does not fit the policy any more stays without: it ends when its
    /// next packet is judged. Returns the number of bindings.
    pub fn adopt_sessions(&self, table: &FlowTable<FlowRecord4>, policy: &NatPolicy, tick: u32) -> usize {
        self.adopt_table(table, policy, tick)
    }

    /// The same for sessions of NAT64, whose hosts get numbers anew.
    pub fn adopt_sessions64(&self, table: &FlowTable<FlowRecord6>, policy: &NatPolicy, tick: u32) -> usize {
        self.adopt_table(table, policy, tick)
    }

    fn adopt_table<R: FlowFamily>(&self, table: &FlowTable<R>, policy: &NatPolicy, tick: u32) -> usize {
        let mut bindings = 0;
        // What a session's own source holds comes first: others may share it.
        for half in [Half::Source, Half::Dest] {
            for n in 1..table.used() {
                let meta = table.meta(n);
                if State::of(meta).is_none() {
                    continue;
                }
                let (mut held, t) = (Held::default(), Translated::of(table, n));
                if half == Half::Source {
                    self.count_inside_host::<R>(&t, &mut held);
                }
                bindings += usize::from(self.bind::<R>(&t, half, policy, &mut held, tick));
                meta.ports.fetch_or(held.flags, Ordering::Relaxed);
                for (b, now) in meta.bindings.iter().zip(held.bindings).filter(|(_, now)| *now != 0) {
                    b.store(now, Ordering::Relaxed);
                }
            }
        }
        bindings
    }

    /// Counts an IPv4 session whose source is translated for its host. One of NAT64 counts with its binding.
    pub(super) fn count_inside_host<R: FlowFamily>(&self, t: &Translated<R::Key>, held: &mut Held) {
        let ends = R::endpoints(&t.key).zip(R::endpoints(&t.new)).filter(|_| !t.crosses);
        let Some((old, _)) = ends.filter(|(old, new)| old.0 != new.0) else { return };
        let ported = NatProtocol::of(R::tuple(&t.key).proto).is_some();
        if ported && self.host_session_started(old.0.host()) {
            held.flags |= NAT_HOST;
        }
    }

    /// Gives a session the binding of one half of its translation. False: that half has none, or the policy does not have
    /// it.
    pub(super) fn bind<R: FlowFamily>(
        &self,
        t: &Translated<R::Key>,
        half: Half,
        policy: &NatPolicy,
        held: &mut Held,
        tick: u32,
    ) -> bool {
        if t.crosses {
            return self.bind64::<R>(t, half, policy, held, tick);
        }
        let (Some(old), Some(mut new)) = (R::endpoints(&t.key), R::endpoints(&t.new)) else { return false };
        new.1.vrf = t.vrf;
        let Some(protocol) = NatProtocol::of(R::tuple(&t.key).proto) else { return false };
        match half {
            Half::Source if old.0 != new.0 => {
                self.adopt_source(held, policy, protocol, (old.0, new.0, new.1), tick)
            }
            Half::Dest if (old.1.addr, old.1.port) != (new.1.addr, new.1.port) => {
                self.adopt_dest(held, policy, protocol, (old.1, new.1))
            }
            _ => false,
        }
    }

    fn bind64<R: FlowFamily>(
        &self,
        t: &Translated<R::Key>,
        half: Half,
        policy: &NatPolicy,
        held: &mut Held,
        tick: u32,
    ) -> bool {
        self.make_hosts6();
        let (old, left) = (R::tuple(&t.key), R::tuple(&t.new));
        let (ports, new_ports) = (R::raw_ports(&t.key), R::raw_ports(&t.new));
        let protocol = if old.proto == ICMPV6 { Some(NatProtocol::Icmp) } else { NatProtocol::of(old.proto) };
        let external = |addr, port| {
            let addr = match addr {
                IpAddr::V4(addr) => addr,
                IpAddr::V6(addr) => policy.nat64(addr)?.prefix.extract(addr)?,
            };
            Some(Endpoint::new(addr, port))
        };
        let Some(protocol) = protocol else { return false };
        match (half, old.src, left.dst) {
            (Half::Source, IpAddr::V6(host), to) => {
                let outside = external(left.src, new_ports.0);
                let remote = external(if to.is_ipv4() { to } else { old.dst }, new_ports.1);
                let ends = outside.zip(remote);
                let inside = (host, ports.0, R::vrf(&t.key));
                ends.is_some_and(|e| {
                    self.adopt_source64(held, policy, protocol, (inside, e, to.is_ipv4()), tick)
                })
            }
            (Half::Dest, _, IpAddr::V6(host)) => {
                let outside = external(old.dst, ports.1);
                outside.is_some_and(|o| {
                    self.adopt_dest64(held, policy, protocol, (o, (host, new_ports.1, t.vrf)))
                })
            }
            _ => false,
        }
    }

    /// Gives a session from outside the binding of the host that it goes to, which no other session holds here.
    pub(super) fn bind_dest_alone<R: FlowFamily>(
        &self,
        t: &Translated<R::Key>,
        policy: &NatPolicy,
        held: &mut Held,
        tick: u32,
    ) -> bool {
        let ends = R::endpoints(&t.key).zip(R::endpoints(&t.new)).filter(|_| !t.crosses);
        let Some(((_, outside), (_, mut inside))) = ends else { return false };
        inside.vrf = t.vrf;
        let Some(protocol) = NatProtocol::of(R::tuple(&t.key).proto) else { return false };
        let source = allocating(policy, outside.addr).filter(|s| {
            s.mapping == Behavior::EndpointIndependent && !s.pool.is_fixed(protocol, outside.port)
        });
        let has_moved = (outside.addr, outside.port) != (inside.addr, inside.port);
        let Some(source) = source.filter(|_| has_moved) else { return false };
        source.pool.allocate_slots();
        let (scope, block) = (source.scope(outside), policy.limits.port_block);
        let adopted = self.adopt(&source.pool, protocol, (inside, outside.port), scope, block, tick);
        held.bindings[1] = adopted.map_or(0, |b| b.0);
        adopted.is_some()
    }

    /// What a session held comes back. `released` hears of each binding.
    pub(super) fn give_back<R: FlowFamily>(
        &self,
        t: &Translated<R::Key>,
        held: Held,
        mut released: impl FnMut(BindingNo, Released),
    ) {
        if t.crosses {
            let remote = match R::tuple(&t.new).dst {
                IpAddr::V4(remote) => Some(remote),
                IpAddr::V6(_) => None,
            };
            return self.end_nat64(held.bindings, held.flags, remote, released);
        }
        let (Some((host, _)), Some((_, remote))) = (R::endpoints(&t.key), R::endpoints(&t.new)) else {
            return;
        };
        if held.flags & NAT_FILTER_ENTRY != 0 && held.bindings[0] != 0 {
            self.remove_filter_entry(BindingNo(held.bindings[0]), remote.addr);
        }
        if held.flags & NAT_HOST != 0 {
            self.host_session_ended(host.host());
        }
        for b in held.bindings.into_iter().filter(|b| *b != 0).map(BindingNo) {
            released(b, self.release(b));
        }
    }

    fn adopt_source64(
        &self,
        held: &mut Held,
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
        held.bindings[0] = b.0;
        if self.host_session_started(inside.host()) {
            held.flags |= NAT_HOST;
        }
        if filters
            && source.filtering == Behavior::AddressDependent
            && protocol != NatProtocol::Icmp
            && self.add_filter_entry(b, remote.addr)
        {
            held.flags |= NAT_FILTER_ENTRY;
        }
        true
    }

    fn adopt_dest64(
        &self,
        held: &mut Held,
        policy: &NatPolicy,
        protocol: NatProtocol,
        (outside, (host, port, vrf)): (Endpoint, Inside64),
    ) -> bool {
        let (source, number) = (allocating(policy, outside.addr), self.host6_session_started(host));
        let (Some(source), Some(number)) = (source, number) else { return false };
        let b = BindingNo::new(source.pool.no, protocol, outside.port);
        let shared = self.share(b, Endpoint { addr: number, port, vrf });
        if shared {
            held.bindings[1] = b.0;
        } else {
            self.host6_session_ended(number);
        }
        shared
    }

    fn adopt_source(
        &self,
        held: &mut Held,
        policy: &NatPolicy,
        protocol: NatProtocol,
        (inside, outside, remote): (Endpoint, Endpoint, Endpoint),
        tick: u32,
    ) -> bool {
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
        held.bindings[0] = b.0;
        if source.filtering == Behavior::AddressDependent
            && protocol != NatProtocol::Icmp
            && self.add_filter_entry(b, remote.addr)
        {
            held.flags |= NAT_FILTER_ENTRY;
        }
        true
    }

    fn adopt_dest(
        &self,
        held: &mut Held,
        policy: &NatPolicy,
        protocol: NatProtocol,
        (outside, inside): (Endpoint, Endpoint),
    ) -> bool {
        let source = policy.externals.get(&outside.addr.to_bits()).and_then(|e| policy.source(e.source?));
        let Some(source) = source.filter(|s| !s.pool.is_fixed(protocol, outside.port)) else { return false };
        let b = BindingNo::new(source.pool.no, protocol, outside.port);
        let shared = self.share(b, inside);
        if shared {
            held.bindings[1] = b.0;
        }
        shared
    }
}

/// The source of an external address, if sessions get ports of it.
fn allocating(policy: &NatPolicy, addr: Ipv4Addr) -> Option<&crate::nat::Source> {
    let external = policy.externals.get(&addr.to_bits())?;
    policy.source(external.source?).filter(|s| !s.overlaps())
}
