//! Which external address stands for a host inside: its own, that of a WAN port, or that of an entry.

use super::pairs::Held;
use super::policy::{NatPolicy, Snat};
use super::pool::Endpoint;
use super::wan::{Hairpin, WanSources};
use sag_model::{PortIdx, Zone};
use std::net::Ipv4Addr;

impl NatPolicy {
    /// The address that a host has to itself towards a zone; its ports stay.
    pub(super) fn own_address(&self, src: Endpoint, to: Zone, port: PortIdx) -> Option<Snat> {
        let of_host = self
            .one_to_one
            .get(&src.addr.to_bits())
            .and_then(|own| own.iter().find(|o| o.to == to && o.vrf == src.vrf));
        let own = of_host.map(|o| Snat { addr: o.external, source: None, port: Some(src.port), entry: None });
        own.or_else(|| self.prefixes.own_address(src, to, port))
    }

    /// What a LAN host shows to another one that it reaches by an external address: its own external endpoint. A host that
    /// has none takes the address that it calls, since answers must come back by the gateway.
    pub(super) fn hairpin_source(&self, called: Ipv4Addr, src: Endpoint, proto: u8, held: Held<'_>) -> Snat {
        let e = self.externals.get(&called.to_bits());
        let of_prefix = || self.prefixes.hairpin(called).unwrap_or_default();
        let (to, port) = match e.map_or_else(of_prefix, |e| e.hairpin) {
            Hairpin::Wan(port) => (Zone::Wan, port),
            Hairpin::Private => (Zone::Overlay, None),
        };
        // Where there is no WAN port with source NAT, the entries for all of them hold.
        let by = port.unwrap_or(PortIdx(u8::MAX));
        if let Some(own) = self.own_address(src, to, by) {
            return own;
        }
        let entry = self.lookup.entry(to, by, src.addr);
        let of_entry = entry.and_then(|e| Some((self.choose_source(e, src, proto, held)?, Some(e))));
        let of_port = || Some((port.and_then(|p| self.wan_sources(p)?.internet())?, None));
        let (source, entry) = match of_entry.or_else(|| of_port().filter(|_| to == Zone::Wan)) {
            Some((source, entry)) => (Some(source), entry),
            None => (None, None),
        };
        match source.and_then(|no| Some((no, self.source(no)?.pool.addr()))) {
            Some((no, addr)) => {
                Snat { addr, source: Some(no), port: self.forwarded_port(addr, to, proto, src), entry }
            }
            None => {
                let port = self.forwarded_port(called, to, proto, src);
                Snat { addr: called, source: e.and_then(|e| e.source), port, entry: None }
            }
        }
    }

    pub(super) fn wan_sources(&self, port: PortIdx) -> Option<&WanSources> {
        self.wan.get(port.index())?.as_ref()
    }

    /// Whether a live session keeps its external address while new ones of its kind get another: an address of the same
    /// entry, or of the same WAN port, which both are.
    pub fn keeps(&self, wanted: &Snat, addr: Ipv4Addr) -> bool {
        if let Some(e) = wanted.entry.and_then(|no| self.entries.get(usize::from(no))) {
            return e.sources.iter().any(|no| self.source(*no).is_some_and(|s| s.addr == addr));
        }
        let both = |w: &WanSources| w.number(wanted.addr).is_some() && w.number(addr).is_some();
        wanted.source.is_some() && self.wan.iter().flatten().any(both)
    }
}
