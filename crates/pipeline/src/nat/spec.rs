//! From what the configuration says to a [`NatPolicy`].

use super::NatState;
use super::policy::{Behavior, EntryHits, External, Forward, Forwards, Limits, NatPolicy, OneToOne, Source};
use super::pool::{NatProtocol, POOL_WORDS, PORT_WORDS};
use super::pool_plan::PoolPlan;
use crate::fib::Fib;
use crate::hash::AddrHash;
use sag_model::{PortIdx, Zone};
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Source NAT to a WAN port's own address.
#[derive(Debug, Clone)]
pub struct WanSnat {
    /// The port.
    pub port: PortIdx,
    /// `None`: the port has no address at the moment.
    pub addr: Option<Ipv4Addr>,
    /// When the same external port is used again.
    pub mapping: Behavior,
    /// Who may answer.
    pub filtering: Behavior,
    /// Sessions by this entry.
    pub hits: Arc<EntryHits>,
}

/// Source NAT towards overlay and leased line.
#[derive(Debug, Clone)]
pub struct PrivateSnat {
    /// Inside addresses: a network and its prefix length.
    pub prefix: (Ipv4Addr, u8),
    /// The address to which they are translated.
    pub addr: Ipv4Addr,
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
    /// Empty: every WAN port's own address.
    pub external: Vec<Ipv4Addr>,
    /// The inside host.
    pub inside: Ipv4Addr,
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
    /// Source NAT towards overlay and leased line; the longest prefix holds.
    pub private: Vec<PrivateSnat>,
    /// Static entries.
    pub dnat: Vec<StaticDnat>,
    /// Own addresses of the WAN ports, for static entries without an address.
    pub wan_addrs: Vec<Ipv4Addr>,
    /// LAN hosts reach each other by external addresses.
    pub hairpin: bool,
    /// Ranges, shares and what is reported.
    pub limits: Limits,
    /// The gateway's own addresses: what comes to them is looked at by XDP before the kernel gets it.
    pub local: Vec<Ipv4Addr>,
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
    any: [Option<(Ipv4Addr, Arc<EntryHits>)>; 2],
}

impl NatSpec {
    /// Compiles it, and says which pools are to be made ready before a snapshot has the policy, and what cannot be.
    /// Changes nothing that workers or XDP see.
    pub fn plan(&self, state: &NatState) -> (NatPolicy, PoolPlan, Vec<NatConfigError>) {
        let mut out =
            NatPolicy { hairpin: self.hairpin, limits: self.limits.clone(), ..NatPolicy::default() };
        let mut troubles = Vec::new();
        let mut pools = PoolPlan::default();
        let mut by_addr: HashMap<Ipv4Addr, u16> = HashMap::new();
        let mut add = |addr, mapping, filtering, hits: &Arc<EntryHits>, sources: &mut Vec<Source>| {
            if let Some(&no) = by_addr.get(&addr) {
                let first: &Source = &sources[usize::from(no)];
                if (first.mapping, first.filtering) != (mapping, filtering) {
                    troubles.push(NatConfigError::Behaviors { addr, by: first.hits.id.clone() });
                }
                return Some(no);
            }
            let Some(pool) = pools.assign(state, addr) else {
                troubles.push(NatConfigError::NoPool { addr });
                return None;
            };
            let source = Source { addr, pool, mapping, filtering, hits: hits.clone() };
            if !source.overlaps() {
                pools.allocates(addr);
            }
            let no = sources.len() as u16;
            sources.push(source);
            by_addr.insert(addr, no);
            Some(no)
        };
        let ports = self.wan.iter().map(|w| w.port.index() + 1).max().unwrap_or(0);
        out.wan = vec![None; ports];
        for w in &self.wan {
            let no = w.addr.and_then(|a| add(a, w.mapping, w.filtering, &w.hits, &mut out.sources));
            out.wan[w.port.index()] = Some(no);
        }
        let private: Vec<_> = self
            .private
            .iter()
            .filter_map(|p| {
                let no = add(p.addr, p.mapping, p.filtering, &p.hits, &mut out.sources)?;
                out.entries.push((no, p.hits.clone()));
                Some((p.prefix.0.to_bits(), p.prefix.1, out.entries.len() as u32 - 1))
            })
            .collect();
        if !private.is_empty() {
            out.private = Some(Fib::build(private));
        }
        out.externals = self.externals(&by_addr);
        out.one_to_one = self.one_to_one();
        // XDP must know which ports of the gateway's own addresses are forwarded.
        for (addr, e) in &out.externals {
            let addr = Ipv4Addr::from_bits(*addr);
            let forwarded = !(e.internet.is_empty() && e.intranet.is_empty());
            if forwarded && self.local.contains(&addr) && pools.assign(state, addr).is_none() {
                troubles.push(NatConfigError::NoPool { addr });
            }
        }
        let bits = |(addr, e): (&u32, &External)| (Ipv4Addr::from_bits(*addr), fixed_bits(e));
        pools.forwarded = out.externals.iter().map(bits).collect();
        (out, pools, troubles)
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
        let external = |(addr, c): (Ipv4Addr, Collected)| {
            let ([internet, intranet], [any_net, any_in]) = (c.ports, c.any);
            let e = External {
                source: sources.get(&addr).copied(),
                internet: Forwards::new(internet, any_net),
                intranet: Forwards::new(intranet, any_in),
            };
            (addr.to_bits(), e)
        };
        all.into_iter().map(external).collect()
    }

    fn one_to_one(&self) -> HashMap<u32, Vec<OneToOne>, AddrHash> {
        let mut out: HashMap<u32, Vec<OneToOne>, AddrHash> = HashMap::default();
        for d in self.dnat.iter().filter(|d| d.own_address && matches!(d.service, Service::Any)) {
            let to = match d.kind {
                Kind::Internet => Zone::Wan,
                Kind::Intranet => Zone::Overlay,
            };
            for external in &d.external {
                out.entry(d.inside.to_bits()).or_default().push(OneToOne { external: *external, to });
            }
        }
        out
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
