//! From what the configuration says to a [`NatPolicy`].

use super::NatState;
use super::nat64::{Nat64, Nat64Spec};
use super::pairs::{EntryLookup, Pooling, SnatEntry};
use super::policy::{
    Behavior, EntryHits, External, Forward, Forwards, Limits, NatPolicy, OneToOne, Source, Towards,
};
use super::pool::{InsideHost, NatProtocol, POOL_WORDS, PORT_WORDS};
use super::pool_plan::PoolPlan;
use super::prefix::{Prefixes, StaticPrefix};
use super::wan::{Hairpin, WanSources};
use crate::hash::AddrHash;
use sag_fib::Fib;
use sag_model::{PortIdx, Zone};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Source NAT to a WAN port's own addresses.
#[derive(Debug, Clone)]
pub struct WanSnat {
    /// The port.
    pub port: PortIdx,
    /// Its addresses at the moment, the preferred one first.
    pub addrs: Vec<WanAddr>,
    /// The default route by it, if there is one: the next hop, unless it is the destination itself, and the source that the
    /// route prefers.
    pub default: Option<(Option<IpAddr>, Option<Ipv4Addr>)>,
    /// When the same external port is used again.
    pub mapping: Behavior,
    /// Who may answer.
    pub filtering: Behavior,
    /// Sessions by this entry.
    pub hits: Arc<EntryHits>,
}

impl WanSnat {
    fn has(&self, addr: Ipv4Addr) -> bool {
        self.addrs.iter().any(|a| a.addr == addr)
    }
}

/// An address of a WAN port as a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WanAddr {
    /// The address.
    pub addr: Ipv4Addr,
    /// Packets to next hops of this network get it, if it is the first of the port's that has the next hop in its network.
    /// `None`: it is no choice for the sake of a network.
    pub network: Option<(Ipv4Addr, u8)>,
    /// New sessions may get it. `false`: those that have it keep it.
    pub in_use: bool,
}

impl WanAddr {
    /// Its network and the mask of it.
    pub(super) fn network_words(&self) -> Option<(u32, u32)> {
        let (network, len) = self.network?;
        let mask = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
        Some((network.to_bits() & mask, mask))
    }
}

/// Source NAT of an inside network to the addresses of a pool.
#[derive(Debug, Clone)]
pub struct PoolSnat {
    /// Where it holds: towards the Internet, or towards overlay and leased line.
    pub kind: Kind,
    /// Towards the Internet by this WAN port; `None`: by all.
    pub port: Option<PortIdx>,
    /// Inside addresses: a network and its prefix length.
    pub prefix: (Ipv4Addr, u8),
    /// The addresses to which they are translated.
    pub addrs: Vec<Ipv4Addr>,
    /// How hosts share them.
    pub pooling: Pooling,
    /// Who finds no port at its address gets one at another.
    pub overflow: bool,
    /// When the same external port is used again.
    pub mapping: Behavior,
    /// Who may answer.
    pub filtering: Behavior,
    /// Sessions by this entry.
    pub hits: Arc<EntryHits>,
}

/// Where packets for a static entry come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From the WAN ports.
    Internet,
    /// From overlay and leased line.
    Intranet,
}

/// What of an external address a static entry forwards.
#[derive(Debug, Clone)]
pub enum Service {
    /// All protocols and ports.
    Any,
    /// A range of ports.
    Port {
        /// IP protocol.
        proto: u8,
        /// External ports.
        external: RangeInclusive<u16>,
        /// The inside port for the first of them.
        inside_first: u16,
    },
}

/// A static entry: what comes to an external address goes to an inside host.
#[derive(Debug, Clone)]
pub struct StaticDnat {
    /// Where its packets come from.
    pub kind: Kind,
    /// Empty: all addresses of the WAN ports.
    pub external: Vec<Ipv4Addr>,
    /// The inside host.
    pub inside: InsideHost,
    /// Protocols and ports.
    pub service: Service,
    /// The external address is the entry's own: packets from inside leave by it too.
    pub own_address: bool,
    /// Sessions by this entry.
    pub hits: Arc<EntryHits>,
}

/// All of NAT that the configuration asks for.
#[derive(Debug, Clone, Default)]
pub struct NatSpec {
    /// Source NAT of the WAN ports.
    pub wan: Vec<WanSnat>,
    /// Source NAT to the addresses of pools; the longest prefix holds.
    pub pools: Vec<PoolSnat>,
    /// Networks that are translated address by address.
    pub prefixes: Vec<StaticPrefix>,
    /// Prefixes behind which IPv6 hosts reach IPv4 ones.
    pub nat64: Vec<Nat64Spec>,
    /// Static entries.
    pub dnat: Vec<StaticDnat>,
    /// All addresses of the WAN ports, for static entries without an address.
    pub wan_addrs: Vec<Ipv4Addr>,
    /// LAN hosts reach each other by external addresses.
    pub hairpin: bool,
    /// Ranges, shares and what is reported.
    pub limits: Limits,
    /// The gateway's own addresses: what comes to them is looked at by XDP before the kernel gets it.
    pub local: Vec<Ipv4Addr>,
    /// SYNs from the Internet that nobody wants are dropped, to the gateway's own addresses too.
    pub drops_unsolicited: bool,
    /// UDP ports at which tunnels end: no session gets them.
    pub tunnel_ports: Vec<(Ipv4Addr, u16)>,
}

/// A part of the specification that cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NatConfigError {
    /// All pools are in use: the address allocates no ports.
    NoPool {
        /// The external address.
        addr: Ipv4Addr,
    },
    /// Two entries want an address to behave differently: it does as the first one wants.
    Behaviors {
        /// The external address.
        addr: Ipv4Addr,
        /// The entry whose behaviour holds.
        by: String,
    },
}

/// Forwards of one external address, while they are collected.
#[derive(Default)]
struct Collected {
    ports: [Vec<Forward>; 2],
    any: [Option<(InsideHost, Arc<EntryHits>)>; 2],
}

/// Sources while they are collected: one for each address.
struct Sources<'s> {
    state: &'s NatState,
    all: Vec<Source>,
    by_addr: HashMap<Ipv4Addr, u16>,
    pools: PoolPlan,
    errors: Vec<NatConfigError>,
}

impl Sources<'_> {
    /// The number of an address from which sessions get ports.
    fn add(&mut self, addr: Ipv4Addr, ways: (Behavior, Behavior), hits: &Arc<EntryHits>) -> Option<u16> {
        if let Some(&no) = self.by_addr.get(&addr) {
            let first = &self.all[usize::from(no)];
            if (first.mapping, first.filtering) != ways {
                self.errors.push(NatConfigError::Behaviors { addr, by: first.hits.id.clone() });
            }
            return Some(no);
        }
        let Some(no) = self.keep(addr, ways, hits) else {
            self.errors.push(NatConfigError::NoPool { addr });
            return None;
        };
        if !self.all[usize::from(no)].overlaps() {
            self.pools.allocates(addr);
        }
        Some(no)
    }

    /// The number of an address whose sessions keep their ports. New ones may not get any, so nothing is amiss if there is
    /// no pool for it.
    fn keep(&mut self, addr: Ipv4Addr, ways: (Behavior, Behavior), hits: &Arc<EntryHits>) -> Option<u16> {
        if let Some(&no) = self.by_addr.get(&addr) {
            return Some(no);
        }
        let pool = self.pools.assign(self.state, addr)?;
        let no = self.all.len() as u16;
        self.all.push(Source { addr, pool, mapping: ways.0, filtering: ways.1, hits: hits.clone() });
        self.by_addr.insert(addr, no);
        Some(no)
    }
}

impl NatSpec {
    /// Compiles it, and says which pools are to be made ready before a snapshot has the policy, and what cannot be.
    /// Changes nothing that workers or XDP see.
    pub fn plan(&self, state: &NatState) -> (NatPolicy, PoolPlan, Vec<NatConfigError>) {
        let mut out = NatPolicy {
            hairpin: self.hairpin,
            limits: self.limits.clone(),
            drops_unsolicited: self.drops_unsolicited,
            ..NatPolicy::default()
        };
        let mut sources = Sources {
            state,
            all: Vec::new(),
            by_addr: HashMap::new(),
            pools: PoolPlan::default(),
            errors: Vec::new(),
        };
        for w in &self.wan {
            for a in w.addrs.iter().filter(|a| a.in_use) {
                sources.add(a.addr, (w.mapping, w.filtering), &w.hits);
            }
        }
        let mut entries = Vec::new();
        for p in &self.pools {
            let add = |addr: &Ipv4Addr| sources.add(*addr, (p.mapping, p.filtering), &p.hits);
            let numbers: Vec<u16> = p.addrs.iter().filter_map(add).collect();
            if !numbers.is_empty() {
                entries.push((p, out.entries.len() as u32));
                let wan = (p.kind == Kind::Internet).then_some(p.port);
                out.entries.push(SnatEntry::new(numbers, (p.pooling, p.overflow), wan, p.hits.clone()));
            }
        }
        for n in &self.nat64 {
            let add = |addr: &Ipv4Addr| sources.add(*addr, (n.mapping, n.filtering), &n.hits);
            let numbers: Vec<u16> = n.addrs.iter().filter_map(add).collect();
            let entry = (!n.addrs.is_empty()).then_some(out.entries.len() as u16);
            if entry.is_some() {
                out.entries.push(SnatEntry::for_nat64(numbers, n.hits.clone()));
            }
            out.nat64.push(Nat64 { prefix: n.prefix, entry, hits: n.hits.clone() });
        }
        sources.pools.hosts6 = !self.nat64.is_empty();
        out.lookup = lookups(&entries);
        let behind = |addr| self.wan_towards(addr);
        out.prefixes = Prefixes::new(&self.prefixes, &self.local, &mut out.entries, behind);
        let ports = self.wan.iter().map(|w| w.port.index() + 1).max().unwrap_or(0);
        out.wan.resize_with(ports, || None);
        for w in &self.wan {
            let number = |a: &WanAddr| Some((*a, sources.keep(a.addr, (w.mapping, w.filtering), &w.hits)?));
            let addrs = w.addrs.iter().filter_map(number).collect();
            out.wan[w.port.index()] = Some(WanSources::new(addrs, w.default));
        }
        out.internet = self.internet();
        let Sources { all, by_addr, mut pools, mut errors, .. } = sources;
        out.sources = all;
        out.externals = self.externals(&by_addr);
        out.one_to_one = self.one_to_one();
        // XDP must know which ports of the gateway's own addresses are forwarded.
        for (addr, e) in &out.externals {
            let addr = Ipv4Addr::from_bits(*addr);
            let forwarded = !(e.internet.is_empty() && e.intranet.is_empty());
            if forwarded && self.local.contains(&addr) && pools.assign(state, addr).is_none() {
                errors.push(NatConfigError::NoPool { addr });
            }
        }
        let bits = |(addr, e): (&u32, &External)| (Ipv4Addr::from_bits(*addr), fixed_bits(e));
        pools.forwarded = out.externals.iter().map(bits).collect();
        for (addr, port) in &self.tunnel_ports {
            let bits = pools.tunnels.entry(*addr).or_insert_with(|| vec![0; POOL_WORDS]);
            bits[NatProtocol::Udp as usize * PORT_WORDS + usize::from(*port) / 64] |= 1 << (port % 64);
        }
        (out, pools, errors)
    }

    /// Where packets to the Internet go by default.
    fn internet(&self) -> Option<Towards> {
        let (port, (hop, preferred)) = self.wan.iter().find_map(|w| Some((w.port, w.default?)))?;
        let hop = hop.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Some(Towards { zone: Zone::Wan, port, hop, preferred })
    }

    fn externals(&self, sources: &HashMap<Ipv4Addr, u16>) -> HashMap<u32, External, AddrHash> {
        let mut all: BTreeMap<Ipv4Addr, Collected> =
            sources.keys().map(|a| (*a, Collected::default())).collect();
        for d in &self.dnat {
            let addrs = if d.external.is_empty() { &self.wan_addrs } else { &d.external };
            for addr in addrs {
                let c = all.entry(*addr).or_default();
                let side = d.kind as usize;
                match &d.service {
                    Service::Any => c.any[side] = Some((d.inside, d.hits.clone())),
                    Service::Port { proto, external, inside_first } => c.ports[side].push(Forward {
                        proto: *proto,
                        first: *external.start(),
                        last: *external.end(),
                        inside: d.inside,
                        inside_first: *inside_first,
                        hits: d.hits.clone(),
                    }),
                }
            }
        }
        let of_kind = |kind: Kind| -> HashSet<Ipv4Addr> {
            self.pools.iter().filter(|p| p.kind == kind).flat_map(|p| p.addrs.iter().copied()).collect()
        };
        let (public, private) = (of_kind(Kind::Internet), of_kind(Kind::Intranet));
        let external = |(addr, c): (Ipv4Addr, Collected)| {
            let of_wan = self.wan_addrs.contains(&addr) || self.wan.iter().any(|w| w.has(addr));
            let internet = of_wan || public.contains(&addr) || !c.ports[0].is_empty() || c.any[0].is_some();
            let intranet = !c.ports[1].is_empty() || c.any[1].is_some() || private.contains(&addr);
            let hairpin = match internet || !intranet {
                true => Hairpin::Wan(self.wan_towards(addr)),
                false => Hairpin::Private,
            };
            let ([internet, intranet], [any_net, any_in]) = (c.ports, c.any);
            let e = External {
                source: sources.get(&addr).copied(),
                internet: Forwards::new(internet, any_net),
                intranet: Forwards::new(intranet, any_in),
                hairpin,
            };
            (addr.to_bits(), e)
        };
        all.into_iter().map(external).collect()
    }

    /// The WAN port with source NAT behind which an external address is: one that has the address, else one that has its
    /// network, else that of the default route, else the first.
    fn wan_towards(&self, addr: Ipv4Addr) -> Option<PortIdx> {
        let near = |w: &&WanSnat| {
            w.addrs.iter().filter_map(WanAddr::network_words).any(|(net, mask)| addr.to_bits() & mask == net)
        };
        let with = |f: &dyn Fn(&&WanSnat) -> bool| self.wan.iter().find(f);
        with(&|w| w.has(addr))
            .or_else(|| with(&near))
            .or_else(|| with(&|w| w.default.is_some()))
            .or_else(|| self.wan.first())
            .map(|w| w.port)
    }

    fn one_to_one(&self) -> HashMap<u32, Vec<OneToOne>, AddrHash> {
        let mut out: HashMap<u32, Vec<OneToOne>, AddrHash> = HashMap::default();
        for d in self.dnat.iter().filter(|d| d.own_address && matches!(d.service, Service::Any)) {
            let to = match d.kind {
                Kind::Internet => Zone::Wan,
                Kind::Intranet => Zone::Overlay,
            };
            for external in &d.external {
                let own = OneToOne { vrf: d.inside.vrf, external: *external, to };
                out.entry(d.inside.addr.to_bits()).or_default().push(own);
            }
        }
        out
    }
}

/// By which entry a source is translated: towards overlay and leased line, by any WAN port, and by those that have entries
/// of their own.
fn lookups(entries: &[(&PoolSnat, u32)]) -> EntryLookup {
    let build = |of: &dyn Fn(&PoolSnat) -> bool| {
        // Of equal prefixes the last one holds.
        let prefixes =
            entries.iter().filter(|(p, _)| of(p)).map(|(p, no)| (p.prefix.0.to_bits(), p.prefix.1, *no));
        let mut by_prefix: BTreeMap<_, _> = BTreeMap::new();
        for (bits, len, no) in prefixes {
            by_prefix.insert((bits, len), no);
        }
        let all: Vec<_> = by_prefix.into_iter().map(|((bits, len), no)| (bits, len, no)).collect();
        // Entries are few beside what a table takes.
        (!all.is_empty()).then(|| Fib::build(all).unwrap_or_default())
    };
    let of_port = |port: Option<PortIdx>| move |p: &PoolSnat| p.kind == Kind::Internet && p.port == port;
    let ports: BTreeSet<PortIdx> = entries.iter().filter_map(|(p, _)| p.port).collect();
    let by_port = ports.into_iter().filter_map(|port| {
        let (own, any) = (of_port(Some(port)), of_port(None));
        let shadowed = |p: &PoolSnat| entries.iter().any(|(o, _)| own(o) && o.prefix == p.prefix);
        Some((port, build(&|p| own(p) || (any(p) && !shadowed(p)))?))
    });
    EntryLookup {
        intranet: build(&|p| p.kind == Kind::Intranet),
        by_port: by_port.collect(),
        internet: build(&of_port(None)),
    }
}

/// The ports of an address that are forwarded, as XDP's map has them.
fn fixed_bits(e: &External) -> Vec<u64> {
    let mut bits = vec![0u64; POOL_WORDS];
    for protocol in [NatProtocol::Tcp, NatProtocol::Udp] {
        for range in [&e.internet, &e.intranet].into_iter().flat_map(|f| f.ranges(protocol.proto())) {
            for port in range {
                bits[protocol as usize * PORT_WORDS + usize::from(port) / 64] |= 1 << (port % 64);
            }
        }
    }
    bits
}
