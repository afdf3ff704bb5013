//! What NAT does, from the manual (docs/nat.md, docs/configuration.md) and the RFCs, with plain maps and
//! no care for speed. It shares no code with the pipeline but the words of its configuration.
//!
//! The one thing that it does not say is which external port a new binding gets: [`Model::judge_port`]
//! tells whether the one that was chosen may be.

use sag_model::{DropReason, PortIdx, Zone};
use sag_packet::proto::*;
use sag_pipeline::nat::{Behavior, Endpoint, Kind};
use sag_testkit::{LAN, LAN2, LINE, WAN};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use Behavior::{AddressAndPortDependent as Apd, AddressDependent as Ad, EndpointIndependent as Ei};

/// Mapping and filtering.
pub type Ways = (Behavior, Behavior);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fwd {
    pub kind: Kind,
    /// `None`: the WAN port's own address.
    pub external: Option<Ipv4Addr>,
    pub inside: Ipv4Addr,
    /// Protocol, first and last external port, first inside port; `None`: everything.
    pub ports: Option<(u8, u16, u16, u16)>,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub wan_addr: Ipv4Addr,
    pub wan_snat: Option<Ways>,
    /// For sources in 192.168.0.0/16.
    pub private: Option<(Ipv4Addr, Ways)>,
    pub dnat: Vec<Fwd>,
    pub hairpin: bool,
    pub host_limit: Option<u64>,
    pub range: RangeInclusive<u16>,
    pub block: Option<u16>,
}

/// What matters of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Tcp(u8),
    Udp,
    /// ICMP query or its answer.
    Echo {
        reply: bool,
    },
    /// A protocol without ports.
    Gre,
    /// A protocol with a checksum over addresses that NAT does not know.
    UdpLite,
}

impl What {
    pub const fn proto(self) -> u8 {
        match self {
            What::Tcp(_) => TCP,
            What::Udp => UDP,
            What::Echo { .. } => ICMP,
            What::Gre => 47,
            What::UdpLite => UDP_LITE,
        }
    }

    const fn tcp(self, flag: u8) -> bool {
        matches!(self, What::Tcp(flags) if flags & flag != 0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    pub from: Zone,
    pub what: What,
    pub src: Endpoint,
    pub dst: Endpoint,
}

/// By what a packet is known to belong to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub from: Zone,
    pub proto: u8,
    pub src: Endpoint,
    pub dst: Endpoint,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tcp {
    Opening,
    /// SYN from both sides, nothing from the initiator since.
    HalfOpen,
    /// Begun in the middle, and not confirmed by the other side.
    Picked,
    Open,
    Closed,
    Reset {
        at: u64,
    },
    /// Reset before it was open.
    Refused {
        at: u64,
    },
}

/// A binding's place: external address, protocol, port.
pub type Place = (Ipv4Addr, u8, u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    pub inside: Endpoint,
    /// The remote side, as far as the mapping depends on it.
    remote: Option<(Ipv4Addr, Option<u16>)>,
    pub sessions: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    pub proto: u8,
    pub from: Zone,
    pub to: Zone,
    /// The first packet as it came, and as it left.
    pub old: (Endpoint, Endpoint),
    pub new: (Endpoint, Endpoint),
    holds: [Option<Place>; 2],
    host: Option<Ipv4Addr>,
    filter_entry: Option<Ipv4Addr>,
    tcp: Option<Tcp>,
    fins: [bool; 2],
    /// Whose SYN was seen. All segments have the same sequence number, and acknowledge the one after it.
    syns: [bool; 2],
    /// Who has begun another connection beside the session's.
    other: Option<usize>,
    /// The other side has sent a packet.
    answered: bool,
    /// The last packet of each direction.
    seen: [u64; 2],
}

/// What a SYN of another connection is to the session that it meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NewConnection {
    Replaces,
    Contends,
}

impl Tcp {
    const fn is_over(self) -> bool {
        matches!(self, Tcp::Closed | Tcp::Reset { .. } | Tcp::Refused { .. })
    }
}

impl Session {
    fn new_connection(&self, way_of: usize, what: What) -> Option<NewConnection> {
        let What::Tcp(flags) = what else { return None };
        let state = self.tcp.filter(|_| flags & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN)?;
        match state {
            _ if state.is_over() => Some(NewConnection::Replaces),
            Tcp::Opening => None,
            Tcp::HalfOpen if self.syns[way_of] || way_of == 0 => None,
            _ => Some(NewConnection::Contends),
        }
    }

    /// The initiator accepts what the other side has begun.
    fn is_reversed(&self, way_of: usize, what: What) -> bool {
        let accepts = matches!(what, What::Tcp(f) if f & (TCP_SYN | TCP_ACK | TCP_RST) == TCP_SYN | TCP_ACK);
        accepts && way_of == 0 && self.other == Some(1) && !matches!(self.tcp, Some(Tcp::Reset { .. }))
    }

    pub fn keys(&self) -> [Key; 2] {
        let key = |from, src, dst| Key { from, proto: self.proto, src, dst };
        [key(self.from, self.old.0, self.old.1), key(self.to, self.new.1, self.new.0)]
    }

    /// What becomes of a packet in a direction (1: back).
    pub fn translated(&self, way: usize) -> (Endpoint, Endpoint) {
        [self.new, (self.old.1, self.old.0)][way]
    }
}

/// Source translation that a new session needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    pub addr: Ipv4Addr,
    /// Of the source entry that the address belongs to.
    pub ways: Option<Ways>,
    /// This port and no other.
    pub port: Option<u16>,
}

/// What a packet without a session is going to meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    Kernel,
    Drop(DropReason),
    Begin(Begin),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    pub packet: Packet,
    /// Destination after translation.
    pub to: Endpoint,
    pub zone: Zone,
    /// The binding through which it comes in.
    through: Option<Place>,
    moved: bool,
    pub want: Option<Want>,
    /// Its port depends on the address that it calls, since by the host's own port it could not be told from a session by
    /// another address of the same endpoint.
    apart: bool,
}

/// What is to be seen of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Kernel,
    /// `told`: the sender gets an ICMP error, administratively prohibited.
    Drop {
        reason: DropReason,
        told: bool,
    },
    Out {
        src: Endpoint,
        dst: Endpoint,
    },
    /// A new session's source port is open; everything else is as it says.
    Choose(Begin),
}

pub struct Model {
    pub cfg: Config,
    /// Milliseconds.
    pub now: u64,
    pub sessions: BTreeMap<u32, Session>,
    next: u32,
    pub keys: BTreeMap<Key, (u32, usize)>,
    pub bindings: BTreeMap<Place, Binding>,
    /// Bindings of a session that has made way for another connection, until that one has its own.
    held: Vec<Place>,
}

/// Seconds of idleness, as in the product's defaults.
const fn patience(proto: u8, tcp: Option<Tcp>) -> u64 {
    match (proto, tcp) {
        (TCP, Some(Tcp::Open)) => 7440,
        (TCP, Some(Tcp::Refused { .. })) => 10,
        (TCP, _) => 240,
        (UDP, _) => 300,
        (ICMP, _) => 60,
        _ => 600,
    }
}

/// Way out, by the routes of the branch.
pub fn way(dst: Ipv4Addr) -> (PortIdx, Zone, String) {
    match dst.octets() {
        [192, 168, 1, _] => (LAN, Zone::Lan, dst.to_string()),
        [192, 168, 2, _] => (LAN2, Zone::Lan, dst.to_string()),
        [192, 0, 2, _] => (LINE, Zone::Overlay, dst.to_string()),
        [10, 20, ..] => (LINE, Zone::Overlay, "192.0.2.1".into()),
        [203, 0, 113, _] => (WAN, Zone::Wan, dst.to_string()),
        _ => (WAN, Zone::Wan, "203.0.113.1".into()),
    }
}

impl Model {
    pub fn new(cfg: Config) -> Model {
        Model {
            cfg,
            now: 0,
            sessions: BTreeMap::new(),
            next: 1,
            keys: BTreeMap::new(),
            bindings: BTreeMap::new(),
            held: Vec::new(),
        }
    }

    fn local(&self, a: Ipv4Addr) -> bool {
        let own = [
            self.cfg.wan_addr,
            Ipv4Addr::new(192, 0, 2, 2),
            Ipv4Addr::new(192, 168, 1, 1),
            Ipv4Addr::new(192, 168, 2, 1),
        ];
        own.iter().any(|o| *o == a || Ipv4Addr::from(u32::from(*o) | 0xFF) == a)
    }

    /// Sources that no packet may have.
    fn insane(&self, p: &Packet) -> Option<DropReason> {
        match () {
            () if p.src.addr == p.dst.addr => Some(DropReason::SourceMartian),
            () if self.local(p.src.addr) => Some(DropReason::SourceIsOurs),
            () => None,
        }
    }

    fn external(&self, f: &Fwd) -> Ipv4Addr {
        f.external.unwrap_or(self.cfg.wan_addr)
    }

    /// How ports of an address are bound.
    fn ways(&self, a: Ipv4Addr) -> Option<Ways> {
        let wan = self.cfg.wan_snat.filter(|_| a == self.cfg.wan_addr);
        wan.or(self.cfg.private.filter(|p| p.0 == a).map(|p| p.1))
    }

    fn is_external(&self, a: Ipv4Addr) -> bool {
        self.ways(a).is_some() || self.cfg.dnat.iter().any(|f| self.external(f) == a)
    }

    /// The static entry for what comes from a zone.
    fn forward(&self, from: Zone, dst: Endpoint, proto: u8) -> Option<Endpoint> {
        let kinds: &[Kind] = match from {
            Zone::Wan => &[Kind::Internet],
            Zone::Overlay => &[Kind::Intranet],
            Zone::Lan if self.cfg.hairpin => &[Kind::Internet, Kind::Intranet],
            Zone::Lan => &[],
        };
        let of = |kind: &Kind| {
            let mine = || self.cfg.dnat.iter().filter(|f| f.kind == *kind && self.external(f) == dst.addr);
            let port = mine().find_map(|f| {
                let (p, first, last, inside) = f.ports?;
                let hit = p == proto && (first..=last).contains(&dst.port);
                hit.then(|| Endpoint::new(f.inside, inside + (dst.port - first)))
            });
            let any = || mine().find(|f| f.ports.is_none());
            port.or_else(|| any().map(|f| Endpoint::new(f.inside, dst.port)))
        };
        kinds.iter().find_map(of)
    }

    /// Whether a static entry has a port: then it is not bound.
    fn is_forwarded(&self, (addr, proto, port): Place) -> bool {
        self.cfg.dnat.iter().any(|f| {
            self.external(f) == addr
                && f.ports.is_some_and(|(p, first, last, _)| p == proto && (first..=last).contains(&port))
        })
    }

    /// The external port by which an inside endpoint is reached.
    fn forwarded_port(&self, addr: Ipv4Addr, kind: Kind, proto: u8, inside: Endpoint) -> Option<u16> {
        self.cfg.dnat.iter().filter(|f| f.kind == kind && self.external(f) == addr).find_map(|f| {
            let (p, first, last, port) = f.ports?;
            let n = inside.port.checked_sub(port)?;
            (p == proto && f.inside == inside.addr && n <= last - first).then(|| first + n)
        })
    }

    /// Source translation between two zones.
    fn want(
        &self,
        from: Zone,
        to: Zone,
        src: Endpoint,
        proto: u8,
        hairpin: Option<Ipv4Addr>,
    ) -> Option<Want> {
        if let Some(called) = hairpin {
            // Where the called address is known, there the caller has an address too, unless nothing is translated.
            let mut there = self.cfg.dnat.iter().filter(|f| f.kind == Kind::Internet);
            let internet = called == self.cfg.wan_addr || there.any(|f| self.external(f) == called);
            let kind = if internet { Kind::Internet } else { Kind::Intranet };
            let port = self.forwarded_port(called, kind, proto, src);
            let as_called = Want { addr: called, ways: self.ways(called), port };
            return Some(self.known_as(kind, src, proto).unwrap_or(as_called));
        }
        let kind = match to {
            Zone::Wan => Kind::Internet,
            Zone::Overlay => Kind::Intranet,
            Zone::Lan => return None,
        };
        if from == to {
            return None;
        }
        self.known_as(kind, src, proto)
    }

    /// The external address of an inside endpoint.
    fn known_as(&self, kind: Kind, src: Endpoint, proto: u8) -> Option<Want> {
        let own = |f: &&Fwd| f.kind == kind && f.ports.is_none() && f.inside == src.addr;
        if let Some(addr) = self.cfg.dnat.iter().filter(own).find_map(|f| f.external) {
            return Some(Want { addr, ways: None, port: Some(src.port) });
        }
        let (addr, ways) = match kind {
            Kind::Internet => (self.cfg.wan_addr, self.cfg.wan_snat?),
            Kind::Intranet => {
                let inside = src.addr.octets()[..2] == [192, 168];
                self.cfg.private.filter(|_| inside)?
            }
        };
        Some(Want { addr, ways: Some(ways), port: self.forwarded_port(addr, kind, proto, src) })
    }

    /// Whether a binding's filter lets a sender in.
    fn admits(&self, place: Place, (_, filtering): Ways, sender: Ipv4Addr) -> bool {
        let sent_to = |s: &Session| s.holds[0] == Some(place) && s.filter_entry == Some(sender);
        match filtering {
            Ei => true,
            Ad => self.sessions.values().any(sent_to),
            Apd => false,
        }
    }

    /// A packet that belongs to no session.
    pub fn first(&self, p: &Packet) -> First {
        let proto = p.what.proto();
        let (mut to, mut through, mut moved) = (p.dst, None, false);
        if self.is_external(p.dst.addr) {
            let place = (p.dst.addr, proto, p.dst.port);
            let bound = match (self.ways(p.dst.addr), self.bindings.get(&place)) {
                (Some(ways), Some(b)) if proto != ICMP && (p.from != Zone::Lan || self.cfg.hairpin) => {
                    Some((ways, b))
                }
                _ => None,
            };
            if let Some(t) = self.forward(p.from, p.dst, proto) {
                if p.what.tcp(TCP_RST) {
                    return First::Drop(DropReason::NatNoSession);
                }
                if p.what == What::UdpLite {
                    return First::Drop(DropReason::NatProtocol);
                }
                (to, moved) = (t, true);
            } else if let Some((ways, b)) = bound {
                // A filter keeps the outside out.
                if p.from != Zone::Lan && !self.admits(place, ways, p.src.addr) {
                    return First::Drop(DropReason::NatFiltered);
                }
                if matches!(p.what, What::Tcp(f) if f & (TCP_SYN | TCP_ACK | TCP_RST) != TCP_SYN) {
                    return First::Drop(DropReason::NatNoSession);
                }
                (to, through, moved) = (b.inside, Some(place), true);
            } else if !self.local(p.dst.addr) {
                return First::Drop(DropReason::NatFiltered);
            }
        }
        if !moved && self.local(p.dst.addr) {
            return First::Kernel;
        }
        if let Some(reason) = self.insane(p) {
            return First::Drop(reason);
        }
        let zone = way(to.addr).1;
        let hairpin = (moved && p.from == Zone::Lan && zone == Zone::Lan).then_some(p.dst.addr);
        let want = self.want(p.from, zone, p.src, proto, hairpin);
        if want.is_some() && (p.what == What::Echo { reply: true } || p.what.tcp(TCP_RST)) {
            return First::Drop(DropReason::NatNoSession);
        }
        if want.is_some() && p.what == What::UdpLite {
            return First::Drop(DropReason::NatProtocol);
        }
        First::Begin(Begin { packet: *p, to, zone, through, moved, want, apart: false })
    }

    /// Whether a session's translation is what the configuration wants of a packet in this direction.
    fn stands(&self, s: &Session, way_of: usize) -> bool {
        if s.old.0 != s.new.0 && !self.is_external(s.new.0.addr) {
            return false;
        }
        let dest = match self.forward(s.from, s.old.1, s.proto) {
            Some(t) => t == s.new.1,
            None if s.old.1 == s.new.1 => true,
            None => {
                let b = self.bindings.get(&(s.old.1.addr, s.proto, s.old.1.port));
                self.ways(s.old.1.addr).is_some() && b.is_some_and(|b| b.inside == s.new.1)
            }
        };
        if !dest || way_of == 1 {
            return dest;
        }
        let zone = way(s.new.1.addr).1;
        let hairpin =
            (s.old.1 != s.new.1 && s.from == Zone::Lan && zone == Zone::Lan).then_some(s.old.1.addr);
        let want = self.want(s.from, zone, s.old.0, s.proto, hairpin);
        want.map_or(s.old.0.addr, |w| w.addr) == s.new.0.addr
    }

    /// What is to be seen of a packet. Sessions change, but none begins.
    pub fn packet(&mut self, p: &Packet) -> Seen {
        let key = Key { from: p.from, proto: p.what.proto(), src: p.src, dst: p.dst };
        if let Some(&(no, way_of)) = self.keys.get(&key) {
            let s = self.sessions[&no];
            let (src, dst) = s.translated(way_of);
            if s.is_reversed(way_of, p.what) {
                let now = self.now;
                self.sessions.entry(no).and_modify(|s| s.tcp = Some(Tcp::Reset { at: now }));
                return Seen::Drop { reason: DropReason::TcpOutOfWindow, told: false };
            }
            let anew = s.new_connection(way_of, p.what);
            let mut judged = None;
            if let Some(how) = anew {
                match self.first(p) {
                    First::Kernel => return Seen::Kernel,
                    First::Drop(reason) => return Seen::Drop { reason, told: false },
                    First::Begin(b) if how == NewConnection::Replaces => {
                        self.hold(&s);
                        self.end(no);
                        return self.begin(b);
                    }
                    First::Begin(b) => judged = Some(b),
                }
            }
            // Where it goes is looked at first, then who it is for, then by which name it goes.
            if self.stands(&s, 1) {
                if dst.addr == p.dst.addr && self.local(dst.addr) {
                    return Seen::Kernel;
                }
                if let Some(reason) = self.insane(p) {
                    return Seen::Drop { reason, told: false };
                }
                if self.stands(&s, way_of) {
                    self.follow(no, way_of, p.what);
                    return Seen::Out { src, dst };
                }
            }
            // What was admitted while the session was there is not asked again: its filter entry has gone with it.
            if let Some(b) = judged {
                self.hold(&s);
                self.end(no);
                return self.begin(b);
            }
            self.end(no);
        }
        match self.first(p) {
            First::Kernel => Seen::Kernel,
            First::Drop(reason) => Seen::Drop { reason, told: false },
            First::Begin(b) => self.begin(b),
        }
    }

    fn hold(&mut self, s: &Session) {
        for place in s.holds.into_iter().flatten() {
            self.bindings.entry(place).and_modify(|b| b.sessions += 1);
            self.held.push(place);
        }
    }

    /// What made way has its successor, or there is none.
    pub fn release_held(&mut self) {
        for place in std::mem::take(&mut self.held) {
            self.let_go(place);
        }
    }

    fn let_go(&mut self, place: Place) {
        let b = self.bindings.get_mut(&place).expect("a held binding");
        b.sessions -= 1;
        if b.sessions == 0 {
            self.bindings.remove(&place);
        }
    }

    /// Whether a session that begins with this source could not be told from another one, or its
    /// two directions from each other (a host that talks to itself).
    fn clashes(&self, b: &Begin, src: Endpoint) -> bool {
        let keys = self.keys_with(b, src);
        keys[0] == keys[1] || keys.iter().any(|k| self.keys.contains_key(k))
    }

    /// The keys of a session that begins with this source.
    fn keys_with(&self, b: &Begin, src: Endpoint) -> [Key; 2] {
        let (p, proto) = (&b.packet, b.packet.what.proto());
        [
            Key { from: p.from, proto, src: p.src, dst: p.dst },
            Key { from: b.zone, proto, src: b.to, dst: src },
        ]
    }

    fn begin(&mut self, b: Begin) -> Seen {
        let p = b.packet;
        let refused = |reason| Seen::Drop { reason, told: true };
        let Some(want) = b.want else {
            // Only the destination changes, or nothing does.
            let free = !self.clashes(&b, p.src);
            let loose = p.what.tcp(TCP_RST) || !free;
            match (b.moved, loose) {
                (true, _) if !free => return refused(DropReason::SnatExhausted),
                (false, true) => {}
                _ => self.open(&b, p.src, None, None),
            }
            return Seen::Out { src: p.src, dst: b.to };
        };
        if let Some(limit) = self.cfg.host_limit
            && self.host_sessions(p.src.addr) + 1 > limit
        {
            return refused(DropReason::SnatHostLimit);
        }
        let fixed = want.port.or((p.what == What::Gre).then_some(p.src.port));
        if let Some(port) = fixed {
            let src = Endpoint::new(want.addr, port);
            if self.clashes(&b, src) {
                return refused(DropReason::SnatExhausted);
            }
            self.open(&b, src, None, None);
            return Seen::Out { src, dst: b.to };
        }
        let mut b = b;
        if let Some((_, src)) = self.has_binding(&b, want) {
            // A host that calls itself from the very endpoint cannot tell question from answer.
            let [there, back] = self.keys_with(&b, src);
            b.apart = b.moved && there != back && self.clashes(&b, src);
        }
        if let Some((place, src)) = self.has_binding(&b, want) {
            if self.clashes(&b, src) {
                return refused(DropReason::SnatExhausted);
            }
            self.open(&b, src, Some(place), want.ways);
            return Seen::Out { src, dst: b.to };
        }
        Seen::Choose(b)
    }

    /// What of the remote side a binding for this session depends on.
    fn remote_of(b: &Begin, ways: Ways) -> Option<(Ipv4Addr, Option<u16>)> {
        match ways.0 {
            _ if b.apart => Some((b.packet.dst.addr, Some(b.to.port))),
            Ei => None,
            Ad => Some((b.to.addr, None)),
            Apd => Some((b.to.addr, Some(b.to.port))),
        }
    }

    /// With both address-and-port-dependent, ports are not bound but shared.
    fn lends(want: Want) -> Option<Ways> {
        want.ways.filter(|w| *w != (Apd, Apd))
    }

    fn has_binding(&self, b: &Begin, want: Want) -> Option<(Place, Endpoint)> {
        let remote = Model::remote_of(b, Model::lends(want)?);
        let proto = b.packet.what.proto();
        let mine = |(place, x): &(&Place, &Binding)| {
            place.0 == want.addr && place.1 == proto && x.inside == b.packet.src && x.remote == remote
        };
        let (place, _) = self.bindings.iter().find(mine)?;
        Some((*place, Endpoint::new(place.0, place.2)))
    }

    fn range(&self, proto: u8, port: u16) -> RangeInclusive<u16> {
        match proto {
            ICMP => 1..=u16::MAX,
            _ if port < 1024 && self.cfg.block.is_none() => 600..=1023,
            _ => self.cfg.range.clone(),
        }
    }

    fn block(&self, port: u16) -> Option<u16> {
        self.cfg.block.map(|size| port / size)
    }

    /// Who has a port block of an address.
    fn block_owner(&self, addr: Ipv4Addr, block: u16) -> Option<Ipv4Addr> {
        let of = |(place, _): &(&Place, &Binding)| place.0 == addr && self.block(place.2) == Some(block);
        self.bindings.iter().find(of).map(|(_, b)| b.inside.addr)
    }

    /// Whether a new binding of this session may have this port.
    fn lendable(&self, b: &Begin, want: Want, port: u16) -> bool {
        let place = (want.addr, b.packet.what.proto(), port);
        let free = !self.bindings.contains_key(&place) && !self.is_forwarded(place);
        let block_free = |block| self.block_owner(want.addr, block).is_none_or(|o| o == b.packet.src.addr);
        port != 0 && free && self.block(port).is_none_or(block_free)
    }

    /// Whether a session may begin with this port of the wanted address; it begins.
    pub fn judge_port(&mut self, b: &Begin, port: u16) -> Result<(), String> {
        let Some(want) = b.want else { return Err("no translation is wanted".into()) };
        let (proto, inside) = (b.packet.what.proto(), b.packet.src);
        let range = self.range(proto, inside.port);
        let keeps = inside.port != 0 && (proto == ICMP || inside.port < 1024 || range.contains(&inside.port));
        let src = Endpoint::new(want.addr, port);
        if self.clashes(b, src) {
            return Err("another session has this tuple".into());
        }
        let Some(ways) = Model::lends(want) else {
            let free = |port| !self.clashes(b, Endpoint::new(want.addr, port));
            if keeps && free(inside.port) && port != inside.port {
                return Err(format!("{} is free and was not kept", inside.port));
            }
            if port != inside.port && !range.contains(&port) {
                return Err(format!("{port} is not in {range:?}"));
            }
            if proto != ICMP && port % 2 != inside.port % 2 {
                return Err(format!("{port} is not of the parity of {}", inside.port));
            }
            self.open(b, src, None, None);
            return Ok(());
        };
        if !self.lendable(b, want, port) {
            return Err("it is not free".into());
        }
        let mine =
            |p: u16| self.block(p).is_some_and(|x| self.block_owner(want.addr, x) == Some(inside.addr));
        if self.cfg.block.is_some()
            && !mine(port)
            && let Some(p) = range.clone().find(|&p| mine(p) && self.lendable(b, want, p))
        {
            return Err(format!("a new block, though {p} of one that the host has is free"));
        }
        if self.cfg.block.is_none() && keeps && self.lendable(b, want, inside.port) {
            if port != inside.port {
                return Err(format!("{} is free and was not kept", inside.port));
            }
        } else if port != inside.port {
            let same_block = self.cfg.block.is_some() && self.block(port) == self.block(inside.port);
            if same_block && range.contains(&inside.port) && self.lendable(b, want, inside.port) {
                return Err(format!("{} is free in the same block and was not kept", inside.port));
            }
            if !range.contains(&port) {
                return Err(format!("{port} is not in {range:?}"));
            }
            let alike = |p: u16| p % 2 == inside.port % 2;
            let near = |p: &u16| self.block(*p) == self.block(port);
            if proto != ICMP
                && !alike(port)
                && let Some(p) = range.filter(near).find(|&p| alike(p) && self.lendable(b, want, p))
            {
                return Err(format!("{port} is not of the parity of {}, {p} would be", inside.port));
            }
        }
        self.open(b, src, Some((want.addr, proto, port)), Some(ways));
        Ok(())
    }

    /// Whether a session that was refused for want of a port had none indeed.
    pub fn judge_exhaustion(&self, b: &Begin) -> Result<(), String> {
        let Some(want) = b.want else { return Err("no translation is wanted".into()) };
        let (proto, inside) = (b.packet.what.proto(), b.packet.src);
        let range = self.range(proto, inside.port);
        let keeps = inside.port != 0 && (proto == ICMP || inside.port < 1024 || range.contains(&inside.port));
        let span = range.len();
        let candidates: BTreeSet<u16> = range.chain(keeps.then_some(inside.port)).collect();
        let tuple_free = |port: &u16| !self.clashes(b, Endpoint::new(want.addr, *port));
        let (free, excused): (Vec<u16>, bool) = if Model::lends(want).is_some() {
            let free: Vec<_> = candidates.into_iter().filter(|&p| self.lendable(b, want, p)).collect();
            // A port that is not bound may be in use all the same, by a session that began under
            // another configuration: only its own remote endpoint is out of reach by it.
            let in_use = !free.iter().all(tuple_free);
            (free, in_use)
        } else {
            // Tried at random: a few that are free may be missed.
            let free: Vec<_> = candidates.into_iter().filter(tuple_free).collect();
            let few = free.len() * 4 <= span && !(keeps && tuple_free(&inside.port));
            let [there, back] = self.keys_with(b, Endpoint::new(want.addr, inside.port));
            (free, few || there == back)
        };
        match free.len() {
            0 => Ok(()),
            _ if excused => Ok(()),
            n => Err(format!("{n} ports are free, such as {:?}", free.first())),
        }
    }

    /// Who may send to which bound port because it was sent to.
    pub fn filter_entries(&self) -> impl Iterator<Item = (Place, Ipv4Addr)> {
        self.sessions.values().filter_map(|s| Some((s.holds[0]?, s.filter_entry?)))
    }

    pub fn host_sessions(&self, host: Ipv4Addr) -> u64 {
        self.sessions.values().filter(|s| s.host == Some(host)).count() as u64
    }

    fn open(&mut self, b: &Begin, src: Endpoint, place: Option<Place>, ways: Option<Ways>) {
        let p = b.packet;
        let proto = p.what.proto();
        let tcp = match p.what {
            What::Tcp(f) if f & TCP_SYN != 0 && f & TCP_ACK == 0 => Some(Tcp::Opening),
            What::Tcp(_) => Some(Tcp::Picked),
            _ => None,
        };
        for at in [place, b.through].into_iter().flatten() {
            let inside = if Some(at) == place { p.src } else { b.to };
            let remote = ways.filter(|_| Some(at) == place).and_then(|w| Model::remote_of(b, w));
            let x = self.bindings.entry(at).or_insert(Binding { inside, remote, sessions: 0 });
            assert_eq!(x.inside, inside, "two hosts at {at:?}");
            x.sessions += 1;
        }
        let s = Session {
            proto,
            from: p.from,
            to: b.zone,
            old: (p.src, p.dst),
            new: (src, b.to),
            holds: [place, b.through],
            host: b.want.map(|_| p.src.addr),
            filter_entry: (place.is_some() && ways.is_some_and(|w| w.1 == Ad) && proto != ICMP)
                .then_some(b.to.addr),
            tcp,
            fins: [p.what.tcp(TCP_FIN), false],
            syns: [p.what.tcp(TCP_SYN), false],
            other: None,
            answered: false,
            seen: [self.now; 2],
        };
        let no = self.next;
        self.next += 1;
        for (way_of, key) in s.keys().into_iter().enumerate() {
            assert_eq!(self.keys.insert(key, (no, way_of)), None, "two sessions share {key:?}");
        }
        self.sessions.insert(no, s);
    }

    pub fn end(&mut self, no: u32) {
        let s = self.sessions.remove(&no).expect("a live session");
        s.keys().iter().for_each(|k| {
            self.keys.remove(k);
        });
        for place in s.holds.into_iter().flatten() {
            self.let_go(place);
        }
    }

    /// A packet of a session.
    fn follow(&mut self, no: u32, way_of: usize, what: What) {
        let now = self.now;
        let Some(s) = self.sessions.get_mut(&no) else { return };
        s.seen[way_of] = now;
        let (Some(state), What::Tcp(flags)) = (s.tcp, what) else { return };
        let has = |f: u8| flags & f != 0;
        let reply = way_of == 1;
        let over = state.is_over();
        let first_answer = reply && !s.answered;
        s.answered |= reply;
        if has(TCP_RST) {
            let unheeded = state == Tcp::Opening && reply && !has(TCP_ACK);
            if unheeded || (has(TCP_ACK) && s.other == Some(1 - way_of) && !s.syns[way_of]) {
                return;
            }
            let half = matches!(state, Tcp::Opening | Tcp::HalfOpen | Tcp::Picked | Tcp::Refused { .. });
            s.tcp = Some(if half { Tcp::Refused { at: now } } else { Tcp::Reset { at: now } });
            return;
        }
        let mut state = state;
        if has(TCP_SYN) && !has(TCP_ACK) {
            if s.new_connection(way_of, what).is_some() {
                s.other = Some(way_of);
                return;
            }
            s.syns[way_of] |= state == Tcp::Opening;
        } else if has(TCP_SYN) {
            match state {
                _ if reply && s.other == Some(0) => {
                    // It accepts the connection beside the session's, which takes its place.
                    (s.syns, s.fins, s.other) = ([true; 2], [false; 2], None);
                    state = Tcp::Opening;
                }
                Tcp::Opening | Tcp::Picked if reply => s.syns[1] = true,
                _ if s.syns[way_of] => {}
                Tcp::HalfOpen => s.syns[way_of] = true,
                _ => return,
            }
        }
        if over && state != Tcp::Opening || (state == Tcp::Opening && !(reply && has(TCP_SYN))) {
            return;
        }
        s.fins[way_of] |= has(TCP_FIN);
        s.tcp = Some(match state {
            Tcp::Opening => Tcp::HalfOpen,
            Tcp::Picked if !reply => Tcp::Picked,
            // Its first packet was another connection's; later ones without flags are forwarded by the record alone.
            Tcp::Picked if !first_answer && !has(TCP_SYN | TCP_FIN) => Tcp::Picked,
            Tcp::Picked if has(TCP_SYN) => Tcp::HalfOpen,
            Tcp::HalfOpen if reply || has(TCP_SYN) => Tcp::HalfOpen,
            _ if s.fins == [true; 2] => Tcp::Closed,
            _ => Tcp::Open,
        });
    }

    /// Time passes.
    pub fn wait(&mut self, ms: u64) {
        self.now += ms;
        for s in self.sessions.values_mut() {
            // More than its aftermath came after the reset, from both sides: it was not the connection's.
            if let Some(Tcp::Reset { at } | Tcp::Refused { at }) = s.tcp
                && s.seen.iter().all(|seen| seen.saturating_sub(at) > 4_000)
            {
                s.tcp = Some(Tcp::Open);
            }
        }
        let now = self.now;
        let over = |s: &Session| now - s.seen[0].max(s.seen[1]) > patience(s.proto, s.tcp) * 1000 + 36;
        let gone: Vec<_> = self.sessions.iter().filter(|(_, s)| over(s)).map(|(no, _)| *no).collect();
        gone.into_iter().for_each(|no| self.end(no));
    }

    /// What is to be seen of an ICMP error from `sender` that arrives from a zone and quotes a packet.
    /// `Out`: its addresses (ports 0), and the quote's.
    pub fn error(&self, from: Zone, sender: Ipv4Addr, proto: u8, quote: (Endpoint, Endpoint)) -> ErrorSeen {
        let dst = quote.0.addr;
        let key = Key { from, proto, src: quote.1, dst: quote.0 };
        if let Some(&(no, way_of)) = self.keys.get(&key) {
            let s = &self.sessions[&no];
            if !self.stands(s, 1) {
                return ErrorSeen::Drop(DropReason::IcmpUnmatched);
            }
            // The session ends with the next packet from its own side: until then it may speak for
            // errors or not.
            let doubtful = !self.stands(s, way_of);
            let (answer_src, answer_dst) = s.translated(way_of);
            if answer_dst.addr == dst && self.local(dst) {
                return ErrorSeen::Kernel;
            }
            // Who is behind the translation speaks with its address.
            let src = if key.src.addr == answer_src.addr { sender } else { answer_src.addr };
            return ErrorSeen::Out { src, dst: answer_dst.addr, quote: (answer_dst, answer_src), doubtful };
        }
        match (self.is_external(dst), self.local(dst)) {
            (_, true) => return ErrorSeen::Kernel,
            (true, false) => return ErrorSeen::Drop(DropReason::IcmpUnmatched),
            _ => {}
        }
        let zone = way(dst).1;
        let src = Endpoint::new(sender, 0);
        match self.want(from, zone, src, ICMP, None) {
            Some(_) => ErrorSeen::Drop(DropReason::IcmpUnmatched),
            None => ErrorSeen::Out { src: sender, dst, quote, doubtful: false },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorSeen {
    Kernel,
    Drop(DropReason),
    Out { src: Ipv4Addr, dst: Ipv4Addr, quote: (Endpoint, Endpoint), doubtful: bool },
}
