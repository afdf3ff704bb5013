//! `nat` and `nat-bindings`: entries, pools, and who holds which port.

use crate::daemon::view::View;
use ipnet::IpNet;
use sag_model::PortIdx;
use sag_model::config::{Config, DnatService, Nat64, NatBehavior, PortRange, Snat};
use sag_model::control::{
    IpProto, Nat, NatBinding, NatBindingPicker, NatBindingQuery, NatBindings, NatEntry, NatKind, NatPool,
    NatTotals, PortUse,
};
use sag_model::flow::RecordNo;
use sag_pipeline::family::{EndpointPair, FlowFamily};
use sag_pipeline::nat::{Behavior, Endpoint, NatProtocol, Source};
use sag_pipeline::session::State;
use sag_pipeline::table::FlowTable;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;

impl View<'_> {
    /// Entries with their sessions, pools, totals.
    pub fn nat_report(&self) -> Nat {
        let sources =
            |idx: PortIdx| self.publisher.snapshot.nat.wan.get(idx.index()).and_then(Option::as_ref);
        let mut entries = NatEntry::of(&self.running.config, |idx| sources(idx)?.addrs().next());
        let wan = self.running.config.ports().filter(|(_, p)| p.snat);
        let wan: Vec<Vec<_>> =
            wan.map(|(idx, _)| sources(idx).into_iter().flat_map(|w| w.addrs()).collect()).collect();
        let live = Live::of(&self.running.config, &entries, &wan);
        let mut counts = vec![0u64; entries.len()];
        self.each_translated(|proto, old, new| {
            let to_vrf = self.compiler.vrfs.name(new.1.vrf);
            live.count(proto, old, (new, to_vrf), &mut counts);
        });
        let config = &self.running.config;
        let first = entries.len() - config.nat64.len() - config.static_nat.len();
        self.count_nat64(counts.iter_mut().skip(first + config.static_nat.len()));
        self.each_translated_address(|old, new| {
            for (n, s) in counts.iter_mut().skip(first).zip(&self.running.config.static_nat) {
                let out = s.internal.contains(&old.0) && s.external.contains(&new.0);
                *n += u64::from(out || (s.external.contains(&old.1) && s.internal.contains(&new.1)));
            }
        });
        for (e, n) in entries.iter_mut().zip(counts) {
            e.sessions = n;
            e.hits = self.compiler.nat.sessions_made(&e.id);
        }
        Nat { pools: self.pools(&entries), entries, totals: self.nat_totals() }
    }

    /// Pools and totals alone, for which no session is looked at.
    pub fn nat_use(&self) -> Nat {
        Nat { entries: Vec::new(), pools: self.pools(&[]), totals: self.nat_totals() }
    }

    fn nat_totals(&self) -> NatTotals {
        let totals = &self.flows.tables.nat.totals;
        let get = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
        NatTotals {
            bindings: get(&totals.bindings),
            hosts: self.flows.tables.nat.hosts().all().count() as u64,
            host_limit: self.running.config.nat.host_sessions,
            host_limit_hits: get(&totals.host_refused),
            uncounted: get(&totals.uncounted),
            evicted: totals.evicted.iter().map(get).sum(),
            hairpinned: get(&totals.hairpinned),
            log_lost: self.telemetry.journal.journal.lost(),
        }
    }

    fn pools(&self, entries: &[NatEntry]) -> Vec<NatPool> {
        let limits = &self.publisher.snapshot.nat.limits;
        let used = |s: &Source, protocol: NatProtocol| {
            let u = &s.pool.uses[protocol as usize];
            PortUse {
                used: u.used.load(Ordering::Relaxed),
                capacity: limits.capacity(protocol) as u32,
                peak: u.peak.load(Ordering::Relaxed),
            }
        };
        let row = |s: &Source| {
            let addr = s.pool.addr().to_string();
            let shows = |e: &&NatEntry| e.kind == NatKind::WanSnat && e.external == addr;
            let of_ports = entries.iter().filter(shows).map(|e| e.id.as_str());
            let has = |e: &&Snat| !entries.is_empty() && e.addresses().contains(&s.pool.addr());
            let of_pools = self.running.config.snat.iter().filter(has).map(|e| e.id.as_str());
            let has64 = |e: &&Nat64| !entries.is_empty() && e.addresses().contains(&s.pool.addr());
            let of_nat64 = self.running.config.nat64.iter().filter(has64).map(|e| e.id.as_str());
            let mut ids: Vec<_> = of_ports.chain(of_pools).chain(of_nat64).collect();
            if !ids.contains(&&*s.hits.id) {
                // Another address of a port than the one that its entry shows.
                ids.push(&s.hits.id);
            }
            NatPool {
                address: s.pool.addr(),
                source: ids.join(","),
                mapping: behavior(s.mapping),
                filtering: behavior(s.filtering),
                tcp: used(s, NatProtocol::Tcp),
                udp: used(s, NatProtocol::Udp),
                icmp: used(s, NatProtocol::Icmp),
                exhausted: s.pool.exhausted.load(Ordering::Relaxed),
                filtered: s.pool.filtered.load(Ordering::Relaxed),
                warned: s.pool.uses.iter().any(|u| u.warned.load(Ordering::Relaxed) != 0),
            }
        };
        self.publisher.snapshot.nat.sources.iter().map(row).collect()
    }

    /// Adds to the count of each entry of NAT64 its sessions: those whose IPv6 side has an address of its prefix.
    fn count_nat64<'c>(&self, counts: impl Iterator<Item = &'c mut u64>) {
        type V6 = sag_model::flow::FlowRecord6;
        let table = &self.flows.tables.v6;
        let mut counts: Vec<_> = counts.zip(&self.running.config.nat64).collect();
        if counts.is_empty() {
            return;
        }
        for n in (1..table.used()).filter(|n| State::of(table.meta(*n)).is_some()) {
            let r = table.record(RecordNo::forward(n));
            let [old, new] = [r.key(), r.translated()].map(|key| V6::tuple(&key));
            let called = if old.src.is_ipv6() { old.dst } else { new.src };
            if let (true, IpAddr::V6(called)) = (r.crosses(), called) {
                counts.iter_mut().filter(|(_, e)| e.network().contains(&called)).for_each(|(n, _)| **n += 1);
            }
        }
    }

    /// Calls `f` with protocol, first and translated tuple of every translated session; each address that a host inside may
    /// have is in the VRF of that host.
    fn each_translated(&self, mut f: impl FnMut(u8, EndpointPair, EndpointPair)) {
        type V4 = sag_model::flow::FlowRecord4;
        let table = &self.flows.tables.v4;
        for n in 1..table.used() {
            if State::of(table.meta(n)).is_none() {
                continue;
            }
            let r = table.record(RecordNo::forward(n));
            let (key, new) = (r.key(), r.translated());
            if key != new
                && let (Some(old), Some(mut new)) = (V4::endpoints(&key), V4::endpoints(&new))
            {
                new.1.vrf = V4::vrf(&table.record(RecordNo::reverse(n)).key());
                f(V4::tuple(&key).proto, old, new);
            }
        }
    }

    /// The addresses of every translated session of either family, source and destination, before and after. Only where
    /// networks are translated as a whole.
    fn each_translated_address(&self, mut f: impl FnMut((IpAddr, IpAddr), (IpAddr, IpAddr))) {
        fn each<R: FlowFamily>(table: &FlowTable<R>, f: &mut impl FnMut((IpAddr, IpAddr), (IpAddr, IpAddr))) {
            for n in (1..table.used()).filter(|n| State::of(table.meta(*n)).is_some()) {
                let r = table.record(RecordNo::forward(n));
                let [old, new] = [r.key(), r.translated()].map(|key| R::tuple(&key));
                if (old.src, old.dst) != (new.src, new.dst) {
                    f((old.src, old.dst), (new.src, new.dst));
                }
            }
        }
        if !self.running.config.static_nat.is_empty() {
            each(&self.flows.tables.v4, &mut f);
            each(&self.flows.tables.v6, &mut f);
        }
    }

    /// Who holds which outside port.
    pub fn nat_bindings(&self, query: &NatBindingQuery) -> NatBindings {
        let mut picker = NatBindingPicker::new(query);
        let holds = self.port_mapping.holds();
        for pool in self.flows.tables.nat.pools() {
            let source = self.publisher.snapshot.nat.sources.iter().find(|s| s.pool.addr() == pool.addr());
            let mapping = source.map_or(NatBehavior::EndpointIndependent, |s| behavior(s.mapping));
            for protocol in NatProtocol::ALL {
                for (port, inside, users) in pool.bindings(protocol) {
                    // A host that has asked for the port is no session.
                    let held = holds.get(&pool.binding_no(protocol, port).0).copied().unwrap_or(0);
                    let sessions = users.saturating_sub(held);
                    picker.offer(&NatBinding {
                        protocol: IpProto(protocol.proto()),
                        inside: self.flows.tables.nat.host_address(inside.addr),
                        inside_port: inside.port,
                        outside: pool.addr(),
                        outside_port: port,
                        sessions: u64::from(sessions),
                        mapping,
                        vrf: self.compiler.vrfs.name(inside.vrf).map(str::to_owned),
                    });
                }
            }
        }
        picker.finish()
    }
}

const fn behavior(b: Behavior) -> NatBehavior {
    match b {
        Behavior::EndpointIndependent => NatBehavior::EndpointIndependent,
        Behavior::AddressDependent => NatBehavior::AddressDependent,
        Behavior::AddressAndPortDependent => NatBehavior::AddressAndPortDependent,
    }
}

/// Finds the entry of a live session without a walk over all entries.
struct Live<'c> {
    config: &'c Config,
    /// Positions of SNAT entries by external address, of DNAT entries by inside address.
    snat: HashMap<Ipv4Addr, Vec<usize>>,
    dnat: HashMap<Ipv4Addr, Vec<usize>>,
    first_snat: usize,
    first_dnat: usize,
}

impl<'c> Live<'c> {
    /// `wan`: the addresses of each port with source NAT.
    fn of(config: &'c Config, entries: &[NatEntry], wan: &[Vec<Ipv4Addr>]) -> Live<'c> {
        let (mut snat, mut dnat): (HashMap<_, Vec<_>>, HashMap<_, Vec<_>>) = Default::default();
        let first_snat = entries.iter().filter(|e| e.kind == NatKind::WanSnat).count();
        let first_dnat = first_snat + config.snat.len();
        for (i, e) in entries.iter().enumerate() {
            match e.kind {
                NatKind::Dnat => {
                    dnat.entry(config.dnat[i - first_dnat].internal_ip).or_default().push(i);
                }
                NatKind::StaticNat | NatKind::Nat64 => {}
                NatKind::WanSnat => {
                    wan.get(i).into_iter().flatten().for_each(|a| snat.entry(*a).or_default().push(i));
                }
                NatKind::Snat => {
                    let of_entry = config.snat[i - first_snat].addresses();
                    of_entry.into_iter().for_each(|a| snat.entry(a).or_default().push(i));
                }
            }
        }
        Live { config, snat, dnat, first_snat, first_dnat }
    }

    /// `to_vrf`: the VRF of the new destination.
    fn count(
        &self,
        proto: u8,
        old: EndpointPair,
        (new, to_vrf): (EndpointPair, Option<&str>),
        counts: &mut [u64],
    ) {
        if old.0.addr != new.0.addr {
            // The length of the longest of its networks that has the host.
            let covers = |&i: &usize| match i.checked_sub(self.first_snat) {
                Some(n) => {
                    let networks = self.config.snat[n].cidr_block.networks();
                    let with_host = networks.iter().filter(|net| net.contains(&IpAddr::V4(old.0.addr)));
                    Some((with_host.map(IpNet::prefix_len).max()?, i))
                }
                None => Some((0, i)),
            };
            // Of equal ones the last, as before them.
            let of_address = self.snat.get(&new.0.addr).into_iter().flatten();
            if let Some((_, i)) = of_address.filter_map(covers).max_by_key(|(len, _)| *len) {
                counts[i] += 1;
            }
        }
        if (old.1.addr, old.1.port) != (new.1.addr, new.1.port) {
            let forwards = |&&i: &&usize| {
                let dnat = i - self.first_dnat;
                self.config.dnat[dnat].vrf.as_deref() == to_vrf && self.forwards(dnat, proto, new.1)
            };
            if let Some(&i) = self.dnat.get(&new.1.addr).and_then(|l| l.iter().find(forwards)) {
                counts[i] += 1;
            }
        }
    }

    fn forwards(&self, dnat: usize, proto: u8, to: Endpoint) -> bool {
        let service = &self.config.dnat[dnat].service;
        let leads = |(protocol, _, internal): &(u8, PortRange, PortRange)| {
            *protocol == proto && internal.contains(to.port)
        };
        *service == DnatService::Any || service.ranges().iter().any(leads)
    }
}
