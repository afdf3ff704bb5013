//! The ACL stage: which rules apply to a packet, and their verdict.
//!
//! Position: after routing (both sides of the packet are known) and after DNAT, before SNAT, so
//! rules see the branch's own addresses. `out` is from the branch, `in` to it; type `LAN` is traffic
//! between LAN and overlay or leased line, type `WAN` between LAN and Internet. Traffic that does
//! not cross the LAN's border is not checked.

use crate::ids::RuleSlot;
use sag_acl::{Addr, Classifier, Key, Rule};
use sag_model::Zone;
use sag_packet::proto::{TCP, UDP};
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

/// One class's rules in both families, compiled.
#[derive(Debug)]
pub struct RuleList {
    v4: Classifier<u32>,
    v6: Classifier<u128>,
    verdicts4: Vec<Verdict>,
    verdicts6: Vec<Verdict>,
}

impl RuleList {
    /// Compiles rules given in the order in which they are tried.
    pub fn build(v4: &[(Rule<u32>, Verdict)], v6: &[(Rule<u128>, Verdict)]) -> RuleList {
        let rules4: Vec<_> = v4.iter().map(|r| r.0).collect();
        let rules6: Vec<_> = v6.iter().map(|r| r.0).collect();
        RuleList {
            v4: Classifier::build(&rules4),
            v6: Classifier::build(&rules6),
            verdicts4: v4.iter().map(|r| r.1.clone()).collect(),
            verdicts6: v6.iter().map(|r| r.1.clone()).collect(),
        }
    }

    /// The first rule that matches.
    #[inline]
    pub fn lookup(&self, t: &Tuple) -> Option<&Verdict> {
        match (t.src, t.dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                let key = t.acl_key(s.to_bits(), d.to_bits());
                self.v4.classify(&key).and_then(|i| self.verdicts4.get(i as usize))
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                let key = t.acl_key(s.to_bits(), d.to_bits());
                self.v6.classify(&key).and_then(|i| self.verdicts6.get(i as usize))
            }
            _ => None,
        }
    }

    /// Rules of both families.
    pub fn rules(&self) -> usize {
        self.verdicts4.len() + self.verdicts6.len()
    }

    /// Bytes of the compiled rules.
    pub fn memory(&self) -> usize {
        self.v4.memory() + self.v6.memory()
    }
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
    #[inline]
    fn acl_key<A: Addr>(&self, src: A, dst: A) -> Key<A> {
        match self.proto {
            TCP | UDP => Key::new(self.proto, src, dst, self.sport, self.dport),
            other => Key::without_ports(other, src, dst),
        }
    }
}

/// All bound ACLs together.
#[derive(Debug, Clone, Default)]
pub struct AclSet {
    /// No ACL is bound: everything is accepted.
    pub bound: bool,
    /// What happens to packets that no rule matches.
    pub default_accept: bool,
    lists: [Option<Arc<RuleList>>; 4],
    stats: Arc<[Arc<RuleStats>]>,
}

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
    pub fn new(
        default_accept: bool,
        lists: [Option<Arc<RuleList>>; 4],
        stats: Vec<Arc<RuleStats>>,
    ) -> AclSet {
        AclSet { bound: true, default_accept, lists, stats: stats.into() }
    }

    /// Counters of a rule.
    pub fn stats(&self, slot: RuleSlot) -> Option<&RuleStats> {
        self.stats.get(slot.0 as usize).map(|s| &**s)
    }

    /// Name of a rule: `acl id/rule id`.
    pub fn name(&self, slot: RuleSlot) -> Option<&str> {
        self.stats(slot).map(|s| s.name.as_str())
    }

    /// The verdict on a packet from one zone to another.
    #[inline]
    pub fn check(&self, from: Zone, to: Zone, tuple: &Tuple) -> AclVerdict {
        let Some(class) = Class::of(from, to) else { return AclVerdict::Accept { slot: None } };
        if !self.bound {
            return AclVerdict::Accept { slot: None };
        }
        match self.lists[class as usize].as_ref().and_then(|l| l.lookup(tuple)) {
            Some(v) if v.accept => AclVerdict::Accept { slot: Some(RuleSlot(v.slot)) },
            Some(v) => AclVerdict::Deny { slot: Some(RuleSlot(v.slot)) },
            None if self.default_accept => AclVerdict::Accept { slot: None },
            None => AclVerdict::Deny { slot: None },
        }
    }
}
