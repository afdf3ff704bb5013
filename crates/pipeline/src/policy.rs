//! The ACL stage: which rules apply to a packet, and their verdict.
//!
//! Position: after routing (both sides of the packet are known) and after DNAT, before SNAT, so
//! rules see the branch's own addresses. `out` is from the branch, `in` to it; type `LAN` is traffic
//! between LAN and overlay or leased line, type `WAN` between LAN and Internet. Traffic that does
//! not cross the LAN's border is not checked.
//!
//! The rules judge the packet that opens a session. Later packets of the session pass with it, but for those that a
//! drop rule names by their header (DSCP, TCP flags, ICMP message): [`AclSet::check_packet`].

mod limit;
mod list;
mod log;

pub use limit::{PerSource, SessionLimit};
pub use list::{Judged, RuleList};
pub use log::{RuleLog, RuleLogged};

use crate::ids::RuleSlot;
use sag_acl::{Addr, Key};
use sag_model::{VrfNo, VrfZone, Zone};
use sag_packet::proto::{ICMP, ICMPV6, TCP, UDP};
use sag_packet::{Family, Parsed};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Which of the four rule lists a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// From LAN to overlay or leased line.
    OutLan = 0,
    /// From overlay or leased line to LAN.
    InLan = 1,
    /// From LAN to the Internet.
    OutWan = 2,
    /// From the Internet to LAN.
    InWan = 3,
}

impl Class {
    /// All of them, by number.
    pub const ALL: [Class; 4] = [Class::OutLan, Class::InLan, Class::OutWan, Class::InWan];

    /// The list for a packet from one zone to another; `None`: not filtered.
    pub const fn of(from: Zone, to: Zone) -> Option<Class> {
        match (from, to) {
            (Zone::Lan, Zone::Overlay) => Some(Class::OutLan),
            (Zone::Overlay, Zone::Lan) => Some(Class::InLan),
            (Zone::Lan, Zone::Wan) => Some(Class::OutWan),
            (Zone::Wan, Zone::Lan) => Some(Class::InWan),
            _ => None,
        }
    }
}

/// Counters of one rule. They outlive the snapshots that use the rule.
#[derive(Debug, Default)]
pub struct RuleStats {
    /// `acl id/rule id`
    pub name: String,
    /// Packets that it decided.
    pub packets: AtomicU64,
    /// IP bytes of these.
    pub bytes: AtomicU64,
    /// Tick of the last hit; 0 = never.
    pub last_hit: AtomicU32,
    /// The rule logs what it judges.
    pub log: Option<RuleLog>,
    /// Sessions that it admits have a limit.
    pub limit: Option<SessionLimit>,
}

impl RuleStats {
    /// Adds packets and bytes of which the last came at `tick`.
    pub fn hit(&self, packets: u64, bytes: u64, tick: u32) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.last_hit.store(tick.max(1), Ordering::Relaxed);
    }
}

/// A rule as the pipeline needs it after classification.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Whether the rule accepts.
    pub accept: bool,
    /// Number of the rule for the daemon's life, index into [`AclSet::stats`].
    pub slot: u32,
}

/// The five-tuple that rules are about, in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// IP protocol.
    pub proto: u8,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port, in host order.
    pub sport: u16,
    /// Destination port, in host order.
    pub dport: u16,
}

impl Tuple {
    /// Ports count for the protocols whose ports the parser reads.
    #[inline(always)]
    fn acl_key<A: Addr>(&self, src: A, dst: A, header: Header) -> Key<A> {
        let key = match self.proto {
            TCP | UDP => Key::new(self.proto, src, dst, self.sport, self.dport),
            other => Key::without_ports(other, src, dst),
        };
        let [kind, code] = header.message.to_be_bytes();
        let key = key.with_dscp(header.dscp);
        match self.proto {
            TCP => key.with_tcp_flags(code),
            ICMP | ICMPV6 if header.has_icmp => key.with_icmp(kind, code),
            _ => key,
        }
    }
}

/// What rules look at beyond the five-tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Code point, 0 to 63.
    pub dscp: u8,
    /// TCP flags or ICMP message ([`Parsed::message`]).
    pub message: u16,
    /// The packet is one of the ICMP of its IP version.
    pub has_icmp: bool,
}

impl Header {
    /// Of a parsed packet.
    #[inline(always)]
    pub fn of(p: &Parsed) -> Header {
        let icmp = if p.family == Family::V4 { ICMP } else { ICMPV6 };
        Header { dscp: p.tos >> 2, message: p.message, has_icmp: p.proto == icmp }
    }
}

/// All bound ACLs together.
#[derive(Debug, Clone, Default)]
pub struct AclSet {
    /// No ACL is bound: everything is accepted.
    pub bound: bool,
    /// What happens to packets that no rule matches.
    pub default_accept: bool,
    lists: RuleLists,
    /// By number of the VRF from which packets come: those of VRFs that rules name. Empty: none does.
    vrf_lists: Arc<[Option<RuleLists>]>,
    stats: Arc<[Arc<RuleStats>]>,
    limits: bool,
}

/// The rules, by [`Class`].
pub type RuleLists = [Option<Arc<RuleList>>; 4];

/// What the ACL stage says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AclVerdict {
    /// The packet may pass.
    Accept {
        /// The rule; `None`: by default, or because no list applies.
        slot: Option<RuleSlot>,
    },
    /// The packet is dropped.
    Deny {
        /// The rule; `None`: by default.
        slot: Option<RuleSlot>,
    },
}

impl AclSet {
    /// Bound lists, by [`Class`], and the counters of their rules, by slot.
    pub fn new(default_accept: bool, lists: RuleLists, stats: Vec<Arc<RuleStats>>) -> AclSet {
        let limits = stats.iter().any(|s| s.limit.is_some());
        AclSet { bound: true, default_accept, lists, stats: stats.into(), limits, ..AclSet::default() }
    }

    /// Other lists for packets from some VRFs: the rules that name the VRF, among those that name none.
    #[must_use]
    pub fn with_vrfs(self, lists: impl IntoIterator<Item = (VrfNo, RuleLists)>) -> AclSet {
        let mut vrf_lists = Vec::new();
        for (vrf, lists) in lists {
            vrf_lists.resize(vrf_lists.len().max(vrf.index() + 1), None);
            vrf_lists[vrf.index()] = Some(lists);
        }
        AclSet { vrf_lists: vrf_lists.into(), ..self }
    }

    /// No ACL is bound; sessions may count for rules that are gone.
    pub fn unbound(stats: Vec<Arc<RuleStats>>) -> AclSet {
        AclSet { stats: stats.into(), ..AclSet::default() }
    }

    /// Whether a rule has a limit, or had one.
    pub fn has_limits(&self) -> bool {
        self.limits
    }

    /// The limit of a rule.
    pub fn limit(&self, slot: RuleSlot) -> Option<&SessionLimit> {
        self.stats(slot)?.limit.as_ref()
    }

    /// Counters of a rule.
    pub fn stats(&self, slot: RuleSlot) -> Option<&RuleStats> {
        self.shared_stats(slot).map(|s| &**s)
    }

    /// The same, to be kept.
    pub fn shared_stats(&self, slot: RuleSlot) -> Option<&Arc<RuleStats>> {
        self.stats.get(slot.0 as usize)
    }

    /// Name of a rule: `acl id/rule id`.
    pub fn name(&self, slot: RuleSlot) -> Option<&str> {
        self.stats(slot).map(|s| s.name.as_str())
    }

    /// The rules for packets from one zone to another; `None`: these are not judged.
    #[inline(always)]
    fn list(&self, from: VrfZone, to: Zone) -> Option<Option<&RuleList>> {
        let class = Class::of(from.zone(), to).filter(|_| self.bound)?;
        let lists = match self.vrf_lists.get(from.vrf().index()) {
            Some(Some(lists)) => lists,
            _ => &self.lists,
        };
        Some(lists[class as usize].as_deref())
    }

    /// The verdict on a packet that opens a session, from one zone to another.
    // It and what makes its key are too big to be inlined unasked, and called for every first packet.
    #[inline(always)]
    pub fn check(
        &self,
        from: impl Into<VrfZone>,
        to: Zone,
        tuple: &Tuple,
        header: Header,
    ) -> (AclVerdict, Judged) {
        let Some(list) = self.list(from.into(), to) else { return (PASSES, Judged::FLOW) };
        let (found, judged) = list.map_or((None, Judged::FLOW), |l| l.judge(tuple, header));
        (self.verdict(found), judged)
    }

    /// The verdict on a session that exists, by the five-tuple of its first packet. Accepting rules hold if any packet of
    /// the five-tuple could match: what the first one's header was, nobody knows any more, and whoever sent it could have
    /// written another one.
    #[inline]
    pub fn check_session(&self, from: impl Into<VrfZone>, to: Zone, tuple: &Tuple) -> AclVerdict {
        match self.list(from.into(), to) {
            None => PASSES,
            Some(list) => self.verdict(list.and_then(|l| l.lookup_session(tuple))),
        }
    }

    /// The rule that drops a packet of an admitted session for its header, and whether packets of its flow have to be
    /// asked about one by one.
    #[inline]
    pub fn check_packet(
        &self,
        from: impl Into<VrfZone>,
        to: Zone,
        tuple: impl FnOnce() -> Tuple,
        header: Header,
    ) -> (Option<RuleSlot>, bool) {
        match self.list(from.into(), to).flatten().filter(|l| l.drops_by_header()) {
            None => (None, false),
            Some(list) => list.check_packet(&tuple(), header),
        }
    }

    #[inline(always)]
    fn verdict(&self, found: Option<&Verdict>) -> AclVerdict {
        match found {
            Some(v) if v.accept => AclVerdict::Accept { slot: Some(RuleSlot(v.slot)) },
            Some(v) => AclVerdict::Deny { slot: Some(RuleSlot(v.slot)) },
            None if self.default_accept => PASSES,
            None => AclVerdict::Deny { slot: None },
        }
    }
}

/// No list applies.
const PASSES: AclVerdict = AclVerdict::Accept { slot: None };
