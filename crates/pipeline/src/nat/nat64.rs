//! NAT64 (RFC 6146): which IPv6 destinations stand for IPv4 hosts, and what the senders' sources become. Bindings and
//! filters are those of source NAT; the inside host of a binding is the number of an IPv6 one ([`super::is_number`]).

use super::hosts6::Hosts6;
use super::policy::{EntryHits, NatPolicy, Snat, Towards};
use super::pool::{BindingNo, Endpoint};
use super::{Behavior, Held, NatState, is_number};
use sag_model::{DropReason, Zone};
use sag_packet::nat64::{Prefix64, is_global, is_host};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// A prefix behind which IPv6 hosts reach IPv4 ones.
#[derive(Debug, Clone)]
pub struct Nat64Spec {
    /// The prefix.
    pub prefix: Prefix64,
    /// What sources become one of; empty: the addresses of the WAN port by which they leave.
    pub addrs: Vec<Ipv4Addr>,
    /// When the same external port is used again.
    pub mapping: Behavior,
    /// Who may answer.
    pub filtering: Behavior,
    /// Sessions by this entry.
    pub hits: Arc<EntryHits>,
}

/// The same in the policy.
#[derive(Debug, Clone)]
pub struct Nat64 {
    /// The prefix.
    pub prefix: Prefix64,
    /// The entry with the addresses; `None`: those of WAN ports.
    pub(super) entry: Option<u16>,
    /// Sessions by this entry.
    pub hits: Arc<EntryHits>,
}

/// Why an address behind a prefix is not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused64;

impl Nat64 {
    /// The IPv4 host for which a destination stands.
    ///
    /// # Errors
    /// [`Refused64`]: no packet is forwarded to it, or it is private behind the well-known prefix (RFC 6052 section 3.1).
    pub fn target(&self, dst: Ipv6Addr) -> Result<Ipv4Addr, Refused64> {
        self.prefix.extract(dst).filter(|a| self.may_embed(*a)).ok_or(Refused64)
    }

    /// Whether an address of the prefix may stand for an IPv4 one.
    pub fn may_embed(&self, addr: Ipv4Addr) -> bool {
        is_host(addr) && (!self.prefix.is_well_known() || is_global(addr))
    }
}

impl NatPolicy {
    /// Whether there is any NAT64.
    #[inline]
    pub fn has_nat64(&self) -> bool {
        !self.nat64.is_empty()
    }

    /// The entry whose prefix a destination is in.
    #[inline]
    pub fn nat64(&self, dst: Ipv6Addr) -> Option<&Nat64> {
        self.nat64.iter().find(|n| n.prefix.contains(dst))
    }

    /// The host that a destination stands for: behind a prefix an IPv4 one, else itself.
    pub fn called(&self, dst: IpAddr) -> IpAddr {
        match dst {
            IpAddr::V6(addr) => self.nat64(addr).and_then(|n| n.prefix.extract(addr)).map_or(dst, IpAddr::V4),
            IpAddr::V4(_) => dst,
        }
    }

    /// The entry by which IPv6 hosts see IPv4 ones that begin a session with an external address.
    pub fn nat64_of_external(&self, external: Ipv4Addr) -> Option<&Nat64> {
        let has = |n: &&Nat64| {
            let entry = n.entry.and_then(|e| self.entries.get(usize::from(e)));
            entry.is_some_and(|e| {
                e.sources.iter().any(|s| self.source(*s).is_some_and(|s| s.addr == external))
            })
        };
        let own = |n: &&Nat64| n.entry.is_none();
        self.nat64.iter().find(has).or_else(|| self.nat64.iter().find(own)).or(self.nat64.first())
    }

    /// How the source of a new session becomes one of IPv4. `src`: number and port of the IPv6 host, if it has one.
    ///
    /// # Errors
    /// [`DropReason::NatNoAddress`]: there is none to translate to.
    pub fn snat64(
        &self,
        by: &Nat64,
        towards: &Towards,
        src: Endpoint,
        proto: u8,
        held: Held<'_>,
    ) -> Result<Snat, DropReason> {
        let found = match by.entry {
            Some(e) => self.choose_source(e, src, proto, held).map(|no| (no, Some(e))),
            None if towards.zone == Zone::Wan => {
                let own = self.wan_sources(towards.port);
                own.and_then(|w| w.choose(towards.hop, towards.preferred)).map(|no| (no, None))
            }
            None => None,
        };
        // Where ports are shared by remote endpoint, the sessions of one family alone keep them apart.
        let found =
            found.and_then(|(no, entry)| Some((no, entry, self.source(no).filter(|s| !s.overlaps())?)));
        let (source, entry, s) = found.ok_or(DropReason::NatNoAddress)?;
        Ok(Snat { addr: s.pool.addr(), source: Some(source), port: None, entry })
    }

    /// Whether a live session keeps its external address.
    pub fn keeps64(&self, by: &Nat64, addr: Ipv4Addr) -> bool {
        match by.entry.and_then(|e| self.entries.get(usize::from(e))) {
            Some(e) => e.sources.iter().any(|no| self.source(*no).is_some_and(|s| s.addr == addr)),
            None => self.wan.iter().flatten().any(|w| w.number(addr).is_some()),
        }
    }
}

impl NatState {
    /// Makes room for IPv6 hosts. Called by the control thread before a snapshot translates any.
    pub(crate) fn make_hosts6(&self) {
        self.hosts6.get_or_init(|| Hosts6::new(self.sessions, self.seed));
    }

    /// The number of an IPv6 host, for one session more of it. `None`: there is none left.
    pub fn host6_session_started(&self, host: Ipv6Addr) -> Option<Ipv4Addr> {
        self.hosts6.get()?.acquire(host)
    }

    /// One session more for the IPv6 host that has a number; it keeps it until the session has ended.
    pub fn host6_session_shares(&self, number: Ipv4Addr) -> Option<Ipv6Addr> {
        self.hosts6.get()?.hold(number)
    }

    /// A session of an IPv6 host has ended.
    pub fn host6_session_ended(&self, number: Ipv4Addr) {
        if let Some(h) = self.hosts6.get() {
            h.release(number);
        }
    }

    /// The IPv6 host that has a number.
    pub fn host6(&self, number: Ipv4Addr) -> Option<Ipv6Addr> {
        self.hosts6.get()?.addr(number)
    }

    /// An inside host as operators know it.
    pub fn host_address(&self, inside: Ipv4Addr) -> IpAddr {
        match self.host6(inside).filter(|_| is_number(inside)) {
            Some(host) => host.into(),
            None => inside.into(),
        }
    }

    /// The inside endpoint of a live binding.
    pub fn inside_of(&self, binding: BindingNo) -> Option<Endpoint> {
        Some(self.pool_no(binding)?.inside(binding.protocol(), binding.port())?.0)
    }
}
