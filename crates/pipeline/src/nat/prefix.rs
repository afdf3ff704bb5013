//! Static translation of whole networks, one address for another: IPv4 by the host bits, IPv6 by RFC 6296.

use super::npt::Npt;
use super::pairs::SnatEntry;
use super::policy::{DnatTarget, EntryHits, NatPolicy, Snat};
use super::pool::Endpoint;
use super::spec::Kind;
use super::wan::Hairpin;
use sag_model::{DropReason, PortIdx, VrfNo, Zone};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// A network that is translated as a whole. Both prefixes are of one family; of IPv4 they are equally long.
#[derive(Debug, Clone)]
pub struct StaticPrefix {
    /// Towards which side the external one stands for the inside one.
    pub kind: Kind,
    /// Towards the Internet by this WAN port; `None`: by all.
    pub port: Option<PortIdx>,
    /// The inside network and its prefix length.
    pub inside: (IpAddr, u8),
    /// The VRF of the inside network.
    pub vrf: VrfNo,
    /// The external network and its prefix length.
    pub external: (IpAddr, u8),
    /// Sessions by this entry.
    pub hits: Arc<EntryHits>,
}

/// Where an entry holds.
#[derive(Debug, Clone, Copy)]
struct Side {
    kind: Kind,
    port: Option<PortIdx>,
    /// The VRF of the inside network.
    vrf: VrfNo,
}

impl Side {
    /// Whether packets of a VRF to a zone by a port are translated so.
    fn towards(self, vrf: VrfNo, to: Zone, port: PortIdx) -> bool {
        self.vrf == vrf
            && match self.kind {
                Kind::Internet => to == Zone::Wan && self.port.is_none_or(|p| p == port),
                Kind::Intranet => to == Zone::Overlay,
            }
    }

    /// Whether packets of a zone come by it.
    fn answers(self, from: Zone, hairpin: bool) -> bool {
        match from {
            Zone::Wan => self.kind == Kind::Internet,
            Zone::Overlay => self.kind == Kind::Intranet,
            Zone::Lan => hairpin,
        }
    }
}

#[derive(Debug, Clone)]
struct Prefix4 {
    side: Side,
    inside: u32,
    external: u32,
    mask: u32,
    /// Its place in the policy's entries.
    entry: u16,
    hits: Arc<EntryHits>,
    hairpin: Hairpin,
}

#[derive(Debug, Clone)]
struct Prefix6 {
    side: Side,
    npt: Npt,
    hits: Arc<EntryHits>,
}

/// What of an IPv6 session is translated, by RFC 6296.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Translated6 {
    /// The source becomes this.
    pub src: Option<Ipv6Addr>,
    /// The destination becomes this.
    pub dst: Option<Ipv6Addr>,
}

impl Translated6 {
    /// Whether anything is.
    pub fn any(&self) -> bool {
        self.src.is_some() || self.dst.is_some()
    }
}

/// All static prefixes of a policy: the longest first, of equal ones those of a port.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    v4: Vec<Prefix4>,
    v6: Vec<Prefix6>,
    /// The gateway's own addresses, which stand for no host.
    own: Vec<Ipv4Addr>,
}

impl Prefixes {
    /// `entries` get one for each prefix of IPv4. `hairpin`: by which address a caller is known where an external one is.
    pub fn new(
        specs: &[StaticPrefix],
        own: &[Ipv4Addr],
        entries: &mut Vec<SnatEntry>,
        hairpin: impl Fn(Ipv4Addr) -> Option<PortIdx>,
    ) -> Prefixes {
        let mut out = Prefixes::default();
        for s in specs {
            let side = Side { kind: s.kind, port: s.port, vrf: s.vrf };
            match (s.inside, s.external) {
                ((IpAddr::V4(inside), len), (IpAddr::V4(external), _)) => {
                    let mask = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
                    let entry = entries.len() as u16;
                    entries.push(SnatEntry::fixed(s.hits.clone()));
                    let hairpin = match s.kind {
                        Kind::Internet => Hairpin::Wan(s.port.or_else(|| hairpin(external))),
                        Kind::Intranet => Hairpin::Private,
                    };
                    let [inside, external] = [inside, external].map(|a| a.to_bits() & mask);
                    out.v4.push(Prefix4 {
                        side,
                        inside,
                        external,
                        mask,
                        entry,
                        hits: s.hits.clone(),
                        hairpin,
                    });
                }
                ((IpAddr::V6(inside), from), (IpAddr::V6(external), to)) => {
                    let npt = Npt::new((inside, from), (external, to));
                    out.v6.push(Prefix6 { side, npt, hits: s.hits.clone() });
                }
                // The configuration does not mix families.
                _ => {}
            }
        }
        out.v4.sort_by_key(|p| (std::cmp::Reverse(p.mask), p.side.port.is_none()));
        out.v6.sort_by_key(|p| (std::cmp::Reverse(p.npt.len()), p.side.port.is_none()));
        let covered = |a: &&Ipv4Addr| out.v4.iter().any(|p| a.to_bits() & p.mask == p.external);
        let own: Vec<_> = own.iter().filter(covered).copied().collect();
        out.own = own;
        out
    }

    fn by_external(&self, addr: Ipv4Addr) -> impl Iterator<Item = &Prefix4> {
        let own = self.own.contains(&addr);
        self.v4.iter().filter(move |p| !own && addr.to_bits() & p.mask == p.external)
    }

    /// Whether an address is one of an external network, and none of the gateway.
    #[inline]
    pub fn owns(&self, addr: Ipv4Addr) -> bool {
        !self.v4.is_empty() && self.by_external(addr).next().is_some()
    }

    /// The inside host for a packet from a zone.
    pub fn forward(&self, from: Zone, (dst, port): (Ipv4Addr, u16), hairpin: bool) -> Option<DnatTarget<'_>> {
        let p = self.by_external(dst).find(|p| p.side.answers(from, hairpin))?;
        let addr = Ipv4Addr::from_bits(p.inside | dst.to_bits() & !p.mask);
        Some(DnatTarget { addr, port, vrf: p.side.vrf, hits: &p.hits })
    }

    /// The external endpoint of a host inside towards a zone by a port.
    pub fn own_address(&self, src: Endpoint, to: Zone, port: PortIdx) -> Option<Snat> {
        let bits = src.addr.to_bits();
        let of = |p: &&Prefix4| bits & p.mask == p.inside && p.side.towards(src.vrf, to, port);
        let external = |p: &Prefix4| Ipv4Addr::from_bits(p.external | bits & !p.mask);
        let p = self.v4.iter().find(|p| of(p) && !self.own.contains(&external(p)))?;
        Some(Snat { addr: external(p), source: None, port: Some(src.port), entry: Some(p.entry) })
    }

    /// By which address of a LAN host one knows it at an external address.
    pub fn hairpin(&self, called: Ipv4Addr) -> Option<Hairpin> {
        self.by_external(called).next().map(|p| p.hairpin)
    }
}

impl NatPolicy {
    /// Whether an address is of a network inside that is translated as a whole.
    pub fn is_prefix_inside(&self, vrf: VrfNo, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(a) => {
                self.prefixes.v4.iter().any(|p| p.side.vrf == vrf && a.to_bits() & p.mask == p.inside)
            }
            IpAddr::V6(a) => self.prefixes.v6.iter().any(|p| p.side.vrf == vrf && p.npt.has_inside(a)),
        }
    }

    /// Whether prefixes of IPv6 are translated.
    #[inline]
    pub fn translates6(&self) -> bool {
        !self.prefixes.v6.is_empty()
    }

    /// What the destination of an IPv6 packet from a zone becomes, and in which VRF. `None`: it stays.
    ///
    /// # Errors
    ///
    /// Inside: [`DropReason::NatFiltered`], nobody can have the address.
    pub fn inbound6(&self, from: Zone, dst: Ipv6Addr) -> Option<(Result<Ipv6Addr, DropReason>, VrfNo)> {
        let hairpin = self.hairpin;
        let p = self.prefixes.v6.iter().find(|p| p.npt.has_external(dst) && p.side.answers(from, hairpin))?;
        Some((p.npt.inbound(dst).ok_or(DropReason::NatFiltered), p.side.vrf))
    }

    /// What the source of an IPv6 packet of a VRF to a zone by a port becomes. `None`: it stays.
    ///
    /// # Errors
    ///
    /// Inside: [`DropReason::NatNoAddress`], it has no external address.
    pub fn outbound6(
        &self,
        (vrf, src): (VrfNo, Ipv6Addr),
        to: Zone,
        port: PortIdx,
    ) -> Option<Result<Ipv6Addr, DropReason>> {
        let by = |p: &&Prefix6| p.npt.has_inside(src) && p.side.towards(vrf, to, port);
        let p = self.prefixes.v6.iter().find(by)?;
        Some(p.npt.outbound(src).ok_or(DropReason::NatNoAddress))
    }

    /// What a LAN host shows to another whom it calls by an external address: its own where that is known.
    ///
    /// # Errors
    ///
    /// As of [`NatPolicy::outbound6`].
    pub fn hairpin6(
        &self,
        called: Ipv6Addr,
        (vrf, src): (VrfNo, Ipv6Addr),
    ) -> Option<Result<Ipv6Addr, DropReason>> {
        let of = self.prefixes.v6.iter().find(|p| p.npt.has_external(called))?;
        let same = |p: &&Prefix6| {
            p.npt.has_inside(src)
                && p.side.vrf == vrf
                && p.side.kind == of.side.kind
                && (p.side.port == of.side.port || p.side.port.is_none())
        };
        let p = self.prefixes.v6.iter().find(same)?;
        Some(p.npt.outbound(src).ok_or(DropReason::NatNoAddress))
    }

    /// The counter of the entries by which an IPv6 session is translated.
    pub(crate) fn count6(&self, vrf: VrfNo, (to, port): (Zone, PortIdx), (src, dst): (Ipv6Addr, Ipv6Addr)) {
        use std::sync::atomic::Ordering;
        let by = |p: &&Prefix6| p.npt.has_inside(src) && p.side.towards(vrf, to, port);
        let out = self.prefixes.v6.iter().find(by);
        let into = || self.prefixes.v6.iter().find(|p| p.npt.has_external(dst));
        if let Some(p) = out.or_else(into) {
            p.hits.sessions.fetch_add(1, Ordering::Relaxed);
        }
    }
}
