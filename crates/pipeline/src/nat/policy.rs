//! What the configuration wants translated. Built with the snapshot, then only read.

use super::NatState;
use super::nat64::Nat64;
use super::pairs::{EntryLookup, Held, SnatEntry};
use super::pool::{BindingNo, Endpoint, InsideHost, NatProtocol, Pool};
use super::prefix::Prefixes;
use super::wan::{Hairpin, WanSources};
use crate::hash::AddrHash;
use sag_model::{DropReason, PortIdx, VrfNo, Zone};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// On what of the remote side a mapping or a filter depends (RFC 4787 4.1 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behavior {
    /// On nothing.
    EndpointIndependent,
    /// On the remote address.
    AddressDependent,
    /// On remote address and port.
    AddressAndPortDependent,
}

/// An address to translate sources to.
#[derive(Debug, Clone)]
pub struct Source {
    /// The address. That of the pool is the same from the moment on at which the policy is published.
    pub addr: Ipv4Addr,
    /// Where ports are allocated.
    pub pool: Arc<Pool>,
    /// When the same external port is used again (RFC 4787 section 4.1).
    pub mapping: Behavior,
    /// Who may answer (RFC 4787 section 5).
    pub filtering: Behavior,
    /// Sessions by this source.
    pub hits: Arc<EntryHits>,
}

impl Source {
    /// Nobody but the remote endpoint itself may answer: then the same port serves many of them
    /// (RFC 7857 section 3) and the session table alone keeps them apart.
    pub fn overlaps(&self) -> bool {
        self.mapping == Behavior::AddressAndPortDependent && self.filtering == self.mapping
    }

    /// What of a remote endpoint a binding depends on.
    pub(crate) fn scope(&self, remote: Endpoint) -> u64 {
        match self.mapping {
            Behavior::EndpointIndependent => 0,
            Behavior::AddressDependent => u64::from(remote.addr.to_bits()) << 16,
            Behavior::AddressAndPortDependent => remote.outside_word(),
        }
    }
}

/// Sessions made by an entry of the configuration.
#[derive(Debug, Default)]
pub struct EntryHits {
    /// The entry's name in the configuration.
    pub id: String,
    /// Sessions ever made by it.
    pub sessions: AtomicU64,
}

/// A port forward: external ports `first..=last` of a protocol to as many inside ports.
#[derive(Debug, Clone)]
pub struct Forward {
    /// IP protocol.
    pub proto: u8,
    /// First external port.
    pub first: u16,
    /// Last external port.
    pub last: u16,
    /// The inside host.
    pub inside: InsideHost,
    /// The inside port for the first external one.
    pub inside_first: u16,
    /// Sessions by this forward.
    pub hits: Arc<EntryHits>,
}

/// The forwards of one external address and type.
#[derive(Debug, Clone, Default)]
pub struct Forwards {
    /// Sorted by protocol and first port; they do not overlap.
    ports: Vec<Forward>,
    /// The same by protocol, inside address and port.
    back: Vec<Forward>,
    /// Everything else goes there.
    any: Option<(InsideHost, Arc<EntryHits>)>,
}

impl Forwards {
    /// From forwards that do not overlap, and the host and counter for everything else.
    pub fn new(mut ports: Vec<Forward>, any: Option<(InsideHost, Arc<EntryHits>)>) -> Forwards {
        ports.sort_by_key(|f| (f.proto, f.first));
        let mut back = ports.clone();
        back.sort_by_key(|f| (f.proto, f.inside, f.inside_first));
        Forwards { ports, back, any }
    }

    /// Whether nothing is forwarded.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.any.is_none()
    }

    /// Whether everything is forwarded.
    pub fn has_any(&self) -> bool {
        self.any.is_some()
    }

    /// External ports of a protocol.
    pub fn ranges(&self, proto: u8) -> impl Iterator<Item = RangeInclusive<u16>> {
        self.ports.iter().filter(move |f| f.proto == proto).map(|f| f.first..=f.last)
    }

    fn find(&self, proto: u8, port: u16) -> Option<DnatTarget<'_>> {
        let at = self.ports.partition_point(|f| (f.proto, f.first) <= (proto, port));
        let f = at.checked_sub(1).and_then(|i| self.ports.get(i));
        if let Some(f) = f.filter(|f| f.proto == proto && port <= f.last) {
            let port = f.inside_first + (port - f.first);
            return Some(DnatTarget { addr: f.inside.addr, port, vrf: f.inside.vrf, hits: &f.hits });
        }
        self.any.as_ref().map(|(to, hits)| DnatTarget { addr: to.addr, port, vrf: to.vrf, hits })
    }

    /// The external port of an inside endpoint that is forwarded to.
    fn external_port(&self, proto: u8, inside: Endpoint) -> Option<u16> {
        let key = (proto, inside.host(), inside.port);
        let at = self.back.partition_point(|f| (f.proto, f.inside, f.inside_first) <= key);
        let f = self.back.get(at.checked_sub(1)?)?;
        let n = inside.port - f.inside_first.min(inside.port);
        (f.proto == proto && f.inside == inside.host() && n <= f.last - f.first).then(|| f.first + n)
    }
}

/// What an external address answers for.
#[derive(Debug, Clone, Default)]
pub struct External {
    /// Index of the source that allocates its ports.
    pub source: Option<u16>,
    /// Forwards for packets from the Internet.
    pub internet: Forwards,
    /// Forwards for packets from overlay or leased line.
    pub intranet: Forwards,
    /// Which address a LAN host shows to whom it reaches by this one.
    pub hairpin: Hairpin,
}

/// An inside address that has an external one to itself.
#[derive(Debug, Clone, Copy)]
pub struct OneToOne {
    /// The VRF of the inside address.
    pub vrf: VrfNo,
    /// The external address.
    pub external: Ipv4Addr,
    /// The zone towards which it stands for the inside one.
    pub to: Zone,
}

/// Where a static entry sends a packet.
#[derive(Debug, Clone, Copy)]
pub struct DnatTarget<'p> {
    /// The inside host.
    pub addr: Ipv4Addr,
    /// The inside port, in host order.
    pub port: u16,
    /// The VRF of the host.
    pub vrf: VrfNo,
    /// Sessions by the entry.
    pub hits: &'p Arc<EntryHits>,
}

impl DnatTarget<'_> {
    /// Where the packet goes.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { addr: self.addr, port: self.port, vrf: self.vrf }
    }
}

/// How a session's source is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snat {
    /// The external address.
    pub addr: Ipv4Addr,
    /// The source whose ports it uses; `None`: the port stays as it is if it can.
    pub source: Option<u16>,
    /// A port forward's other direction: this port and no other.
    pub port: Option<u16>,
    /// The entry that it is by; `None`: a port's own source NAT.
    pub entry: Option<u16>,
}

/// Where the packets of a session go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Towards {
    /// The zone.
    pub zone: Zone,
    /// The port by which they leave.
    pub port: PortIdx,
    /// The next hop.
    pub hop: IpAddr,
    /// The source that the route prefers.
    pub preferred: Option<Ipv4Addr>,
}

/// Numbers that hold for all of NAT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Ports for inside ports of 1024 and above.
    pub range: RangeInclusive<u16>,
    /// Translated sessions of one inside host.
    pub host_sessions: Option<u32>,
    /// Percent of an address' ports that one host may have when it is alone in wanting many
    /// ([`crate::table::over_share`]).
    pub host_share: u8,
    /// Use of a pool, or of a host's share, at which an event warns; percent.
    pub warn_percent: u8,
    /// Ports of a block that one host has to itself; `None`: ports are allocated singly.
    pub port_block: Option<u16>,
    /// Sessions are reported, by [`super::Event::Created`] and [`super::Event::Ended`].
    pub log_sessions: bool,
    /// Sessions stay with the WAN port whose address they have while it can be used; else they end when the routes prefer
    /// another one.
    pub sticky_lines: bool,
    /// Blocks are reported, by [`super::Event::BlockAllocated`] and [`super::Event::BlockReleased`].
    pub log_blocks: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            range: 1024..=u16::MAX,
            host_sessions: None,
            host_share: 80,
            warn_percent: 80,
            port_block: None,
            log_sessions: false,
            log_blocks: false,
            sticky_lines: true,
        }
    }
}

impl Limits {
    /// From where a port is allocated to an inside port: well-known ones among themselves (RFC 4787
    /// REQ-3a), but none that a service of the gateway is likely to have.
    pub(crate) fn range_for(&self, protocol: NatProtocol, port: u16) -> RangeInclusive<u16> {
        match protocol {
            NatProtocol::Icmp => 1..=u16::MAX,
            _ if port < 1024 && self.port_block.is_none() => 600..=1023,
            _ => self.range.clone(),
        }
    }

    /// Whether an inside port may stay the same outside.
    pub(crate) fn may_keep(&self, protocol: NatProtocol, port: u16) -> bool {
        port != 0 && (protocol == NatProtocol::Icmp || port < 1024 || self.range.contains(&port))
    }

    /// Ports that can be allocated, those below 1024 left aside.
    pub fn capacity(&self, protocol: NatProtocol) -> u64 {
        match protocol {
            NatProtocol::Icmp => u64::from(u16::MAX),
            _ => u64::from(self.range.end() - self.range.start()) + 1,
        }
    }
}

/// All of NAT's configuration, compiled.
#[derive(Debug, Default)]
pub struct NatPolicy {
    /// Sources, by their index.
    pub sources: Vec<Source>,
    /// By egress port: WAN SNAT to the port's own addresses.
    pub wan: Vec<Option<WanSources>>,
    /// Which entry holds for a source.
    pub(super) lookup: EntryLookup,
    /// What the entries translate to.
    pub entries: Vec<SnatEntry>,
    /// What NAT answers for, by external IPv4 address.
    pub externals: HashMap<u32, External, AddrHash>,
    /// Inside IPv4 addresses with external ones to themselves.
    pub one_to_one: HashMap<u32, Vec<OneToOne>, AddrHash>,
    /// Networks that are translated address by address.
    pub(super) prefixes: Prefixes,
    /// Prefixes behind which IPv6 hosts reach IPv4 ones.
    pub nat64: Vec<Nat64>,
    /// LAN hosts reach each other by external addresses.
    pub hairpin: bool,
    /// Where packets to the Internet go by default, if their source is translated there.
    pub internet: Option<Towards>,
    /// Ranges, shares and what is reported.
    pub limits: Limits,
    /// SYNs from the Internet that nobody wants are dropped, to the gateway's own addresses too.
    pub drops_unsolicited: bool,
}

impl NatPolicy {
    /// Whether SYNs from the Internet to an address of the gateway that nobody wants are dropped (RFC 5382 REQ-4): the
    /// gateway shares it with hosts inside.
    pub fn is_silent(&self, addr: Ipv4Addr) -> bool {
        self.drops_unsolicited && self.externals.get(&addr.to_bits()).is_some_and(|e| e.source.is_some())
    }

    /// How the Internet sees an endpoint inside of the default VRF, by the default route; `None`: not translated.
    pub fn seen_from_internet(&self, inside: Endpoint, proto: u8, held: Held<'_>) -> Option<Snat> {
        self.seen_by(self.internet.as_ref()?, inside, proto, held)
    }

    /// How an endpoint inside is seen where its packets go; `None`: not translated.
    pub fn seen_by(&self, to: &Towards, inside: Endpoint, proto: u8, held: Held<'_>) -> Option<Snat> {
        self.snat(Zone::Lan, to, inside, proto, None, held).ok().flatten()
    }

    /// Whether an address is one that NAT answers for.
    #[inline(always)]
    pub fn owns(&self, addr: Ipv4Addr) -> bool {
        (!self.externals.is_empty() && self.externals.contains_key(&addr.to_bits()))
            || self.prefixes.owns(addr)
    }

    /// Whether sources are translated to the same addresses as by another policy.
    pub fn same_addresses(&self, other: &NatPolicy) -> bool {
        let addrs = |p: &NatPolicy| p.sources.iter().map(|s| s.addr).collect::<Vec<_>>();
        let prefixes = |p: &NatPolicy| p.nat64.iter().map(|n| n.prefix).collect::<Vec<_>>();
        self.wan == other.wan && addrs(self) == addrs(other) && prefixes(self) == prefixes(other)
    }

    /// Whether XDP needs the same external addresses as by another policy.
    pub fn same_externals(&self, other: &NatPolicy) -> bool {
        let any = |e: &External| (e.source.is_some(), e.internet.has_any() || e.intranet.has_any());
        self.drops_unsolicited == other.drops_unsolicited
            && self.has_nat64() == other.has_nat64()
            && self.externals.len() == other.externals.len()
            && self.externals.iter().all(|(a, e)| other.externals.get(a).is_some_and(|o| any(e) == any(o)))
    }

    /// The counter of who translates so.
    pub fn hits(&self, snat: &Snat) -> Option<&EntryHits> {
        match snat.entry {
            Some(no) => self.entries.get(usize::from(no)).map(|e| &*e.hits),
            None => snat.source.and_then(|no| self.source(no)).map(|s| &*s.hits),
        }
    }

    /// The source by which most sessions from the LAN go.
    #[inline]
    pub(crate) fn likely_source(&self) -> Option<&Source> {
        self.wan.iter().flatten().find_map(|w| self.source(w.first()?))
    }

    /// The WAN port whose own address an external one is, where it translates to it.
    pub fn wan_port_of(&self, addr: Ipv4Addr) -> Option<PortIdx> {
        let has = |w: &&Option<WanSources>| w.as_ref().is_some_and(|w| w.number(addr).is_some());
        (0u8..).zip(&self.wan).find(|(_, w)| has(w)).map(|(no, _)| PortIdx(no))
    }

    /// A source by its index.
    pub fn source(&self, no: u16) -> Option<&Source> {
        self.sources.get(usize::from(no))
    }

    /// The static entry for a packet from a zone.
    pub fn forward(&self, from: Zone, dst: Ipv4Addr, proto: u8, dport: u16) -> Option<DnatTarget<'_>> {
        let of_address = self.externals.get(&dst.to_bits()).and_then(|e| match from {
            Zone::Wan => e.internet.find(proto, dport),
            Zone::Overlay => e.intranet.find(proto, dport),
            Zone::Lan if self.hairpin => {
                e.internet.find(proto, dport).or_else(|| e.intranet.find(proto, dport))
            }
            Zone::Lan => None,
        });
        of_address.or_else(|| self.prefixes.forward(from, (dst, dport), self.hairpin))
    }

    /// The inside endpoint that has an external port by a binding, if its filter admits the sender.
    /// `None`: nobody has it. Filters keep the outside out: hosts inside reach each other by external
    /// addresses whatever they have sent before (RFC 4787 REQ-9).
    ///
    /// # Errors
    ///
    /// Inside: [`DropReason::NatFiltered`], the filter does not admit the sender.
    pub fn binding_for(
        &self,
        state: &NatState,
        from: Zone,
        dst: Endpoint,
        protocol: NatProtocol,
        remote: Endpoint,
    ) -> Option<Result<(Endpoint, BindingNo), DropReason>> {
        let e = self.externals.get(&dst.addr.to_bits())?;
        let source = self.source(e.source?)?;
        if protocol == NatProtocol::Icmp {
            // Answers to a query find their session; nothing else is for a host inside.
            return None;
        }
        let (inside, binding) = source.pool.inside(protocol, dst.port)?;
        let asked_for = state.asked_for(&source.pool, binding, remote);
        let admitted = match source.filtering {
            _ if from == Zone::Lan || asked_for == Some(true) => true,
            Behavior::EndpointIndependent => asked_for.is_none(),
            Behavior::AddressDependent => state.filter_admits(binding, remote.addr),
            Behavior::AddressAndPortDependent => false,
        };
        Some(if admitted { Ok((inside, binding)) } else { Err(DropReason::NatFiltered) })
    }

    /// How the source of a new session is translated on its way from a zone to an egress port.
    /// `hairpin`: the external address by which a LAN host reaches another.
    ///
    /// # Errors
    ///
    /// [`DropReason::NatNoAddress`]: the WAN port has no address to translate to.
    pub fn snat(
        &self,
        from: Zone,
        towards: &Towards,
        src: Endpoint,
        proto: u8,
        hairpin: Option<Ipv4Addr>,
        held: Held<'_>,
    ) -> Result<Option<Snat>, DropReason> {
        if let Some(addr) = hairpin {
            return Ok(Some(self.hairpin_source(addr, src, proto, held)));
        }
        let to = towards.zone;
        if from == to || to == Zone::Lan {
            return Ok(None);
        }
        if let Some(own) = self.own_address(src, to, towards.port) {
            return Ok(Some(own));
        }
        let of_entry = self.lookup.entry(to, towards.port, src.addr);
        let by_entry = of_entry.and_then(|e| Some((self.choose_source(e, src, proto, held)?, Some(e))));
        let (source, entry) = match (by_entry, to) {
            (Some(found), _) => found,
            (None, Zone::Wan) => match self.wan_sources(towards.port) {
                None => return Ok(None),
                Some(own) => match own.choose(towards.hop, towards.preferred) {
                    None => return Err(DropReason::NatNoAddress),
                    Some(no) => (no, None),
                },
            },
            (None, _) => return Ok(None),
        };
        let Some(addr) = self.source(source).map(|s| s.pool.addr()) else { return Ok(None) };
        let port = self.forwarded_port(addr, to, proto, src);
        Ok(Some(Snat { addr, source: Some(source), port, entry }))
    }

    /// The external port by which an inside endpoint is reached from a zone through a forward: its
    /// own packets leave by the same.
    pub(super) fn forwarded_port(&self, addr: Ipv4Addr, to: Zone, proto: u8, src: Endpoint) -> Option<u16> {
        let e = self.externals.get(&addr.to_bits())?;
        match to {
            Zone::Wan => e.internet.external_port(proto, src),
            Zone::Overlay => e.intranet.external_port(proto, src),
            Zone::Lan => None,
        }
    }

    /// Whether the destination translation of a live session is still the configured one: `old` is its
    /// first packet's destination, `new` what became of it, in the VRF to which it goes.
    pub fn dnat_is_current(&self, from: Zone, proto: u8, old: Endpoint, new: Endpoint) -> bool {
        match self.forward(from, old.addr, proto, old.port) {
            Some(t) => t.endpoint() == new,
            None if old == new => true,
            None => NatProtocol::of(proto).is_some_and(|protocol| {
                let pool = self.externals.get(&old.addr.to_bits()).and_then(|e| self.source(e.source?));
                pool.and_then(|s| s.pool.inside(protocol, old.port)).is_some_and(|(inside, _)| inside == new)
            }),
        }
    }
}
