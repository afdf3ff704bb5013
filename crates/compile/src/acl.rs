//! ACLs: all bound rules by class and address family, in the order in which they are tried.

use crate::problem::Problem;
use crate::vrfs::VrfNumbers;
use ipnet::IpNet;
use sag_acl::{Addr, HeaderMatch, IcmpMatch, PortRange, Prefix, Rule, TcpFlags};
use sag_model::VrfNo;
use sag_model::config::{
    Acl, AclRule, AclType, Config, Direction, FiveTuple, NetworkMatch, Policy, PortMatch,
};
use sag_pipeline::policy::{AclSet, Class, PerSource, RuleList, RuleLog, RuleStats, SessionLimit, Verdict};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Slots of rules that are gone are used again once there are more of them than these. Until then sessions that such a rule has
/// admitted, and that have been idle since, name it rightly.
const KEPT_SLOTS: usize = 4096;

/// Keeps rule numbers, counters and compiled lists over the daemon's life.
#[derive(Debug, Default)]
pub struct AclCompiler {
    slots: HashMap<(String, String), (AclRule, u32)>,
    stats: Vec<Arc<RuleStats>>,
    /// Slots of rules that are gone, the longest first.
    gone: VecDeque<u32>,
    last: Option<LastSet>,
}

/// The result of the last compilation and what it was compiled from.
#[derive(Debug)]
struct LastSet {
    acls: Vec<Acl>,
    default: Policy,
    /// Numbers of the VRFs that rules name.
    vrfs: Vec<VrfNo>,
    set: AclSet,
}

impl AclCompiler {
    /// Compiles the ACLs, or takes the last result if they are the same.
    pub(crate) fn compile(
        &mut self,
        config: &Config,
        vrfs: &VrfNumbers,
        problems: &mut Vec<Problem>,
    ) -> AclSet {
        let all = || config.acls.iter().flat_map(|a| &a.rules);
        let named: Vec<_> = all().filter_map(|r| Some(vrfs.number(Some(r.vrf.as_deref()?)))).collect();
        if let Some(last) = &self.last
            && last.acls == config.acls
            && last.vrfs == named
            && last.default == config.dataplane.acl_default
        {
            return last.set.clone();
        }
        let set = self.build(config, vrfs, problems);
        let (acls, default) = (config.acls.clone(), config.dataplane.acl_default);
        self.last = Some(LastSet { acls, default, vrfs: named, set: set.clone() });
        set
    }

    fn build(&mut self, config: &Config, vrfs: &VrfNumbers, problems: &mut Vec<Problem>) -> AclSet {
        self.forget_removed(config);
        if config.acls.is_empty() {
            return AclSet::unbound(self.stats.clone());
        }
        let mut rules: Vec<(&Acl, &AclRule)> =
            config.acls.iter().flat_map(|a| a.rules.iter().map(move |r| (a, r))).collect();
        // Stable: equal priorities stay in the order of the file.
        rules.sort_by_key(|(_, r)| r.priority);
        let mut of_class: [Vec<OrderedRule>; 4] = Default::default();
        for (acl, rule) in rules {
            let slot = self.slot(acl, rule);
            let verdict = Verdict { accept: accepts(rule.policy), slot };
            let Some(parts) = compile_rule(rule) else {
                problems.push(Problem::MixedFamilies { rule: format!("rule {}", rule.id) });
                continue;
            };
            let vrf = rule.vrf.as_deref().map(|name| vrfs.number(Some(name)));
            of_class[class_of(rule) as usize].push(OrderedRule { parts, verdict, vrf });
        }
        let lists = of_class.each_ref().map(|rules| list(rules, None));
        let named: BTreeSet<VrfNo> = of_class.iter().flatten().filter_map(|r| r.vrf).collect();
        // What no rule of a class says of the VRF is the same for all.
        let of_vrf = |vrf: VrfNo| {
            let mut own = lists.clone();
            for (rules, own) in of_class.iter().zip(&mut own) {
                if rules.iter().any(|r| r.vrf == Some(vrf)) {
                    *own = list(rules, Some(vrf));
                }
            }
            (vrf, own)
        };
        let of_vrfs: Vec<_> = named.into_iter().map(of_vrf).collect();
        AclSet::new(accepts(config.dataplane.acl_default), lists, self.stats.clone()).with_vrfs(of_vrfs)
    }

    fn forget_removed(&mut self, config: &Config) {
        let ids: HashSet<(&str, &str)> =
            config.acls.iter().flat_map(|a| a.rules.iter().map(|r| (a.id.as_str(), r.id.as_str()))).collect();
        let gone = &mut self.gone;
        self.slots.retain(|(acl, rule), (_, slot)| {
            let stays = ids.contains(&(acl.as_str(), rule.as_str()));
            if !stays {
                gone.push_back(*slot);
            }
            stays
        });
    }

    /// A rule keeps its number, and so its counters, while its text stays the same.
    fn slot(&mut self, acl: &Acl, rule: &AclRule) -> u32 {
        let key = (acl.id.clone(), rule.id.clone());
        if let Some((old, slot)) = self.slots.get(&key)
            && old.is_written_as(rule)
        {
            return *slot;
        }
        let log = rule.log.then(|| RuleLog::new(rule.log_prefix.clone().unwrap_or_default()));
        let name = format!("{}/{}", acl.id, rule.id);
        let limit = session_limit(rule);
        let stats = Arc::new(RuleStats { name, log, limit, ..RuleStats::default() });
        // Sessions that count for a rule know it by its slot.
        let counts = |slot: u32| self.stats[slot as usize].limit.as_ref().is_some_and(|l| l.live() > 0);
        let free =
            self.gone.iter().take(self.gone.len().saturating_sub(KEPT_SLOTS)).position(|s| !counts(*s));
        let reused = free.and_then(|at| self.gone.remove(at));
        let slot = match reused {
            Some(slot) => {
                self.stats[slot as usize] = stats;
                slot
            }
            None => {
                self.stats.push(stats);
                self.stats.len() as u32 - 1
            }
        };
        if let Some((_, old)) = self.slots.insert(key, (rule.clone(), slot)) {
            self.gone.push_back(old);
        }
        slot
    }

    /// The counters of a rule, by the ids of its ACL and its own.
    pub fn stats(&self, acl: &str, rule: &str) -> Option<Arc<RuleStats>> {
        let (_, slot) = self.slots.get(&(acl.to_owned(), rule.to_owned()))?;
        self.stats.get(*slot as usize).cloned()
    }
}

/// What limits the sessions of a rule.
fn session_limit(rule: &AclRule) -> Option<SessionLimit> {
    let seed = RandomState::new().hash_one(&rule.id);
    let per_source =
        rule.max_sessions_per_source.map(|most| PerSource::new(most, rule.source_prefix_len, seed));
    (rule.max_sessions.is_some() || per_source.is_some())
        .then(|| SessionLimit::new(rule.max_sessions, per_source))
}

/// A rule in the order in which it is tried.
struct OrderedRule {
    parts: FamilyRules,
    verdict: Verdict,
    /// It holds for packets from this VRF; `None`: from any.
    vrf: Option<VrfNo>,
}

/// The rules for packets from a VRF; `None`: from one that no rule names.
fn list(rules: &[OrderedRule], vrf: Option<VrfNo>) -> Option<Arc<RuleList>> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for r in rules.iter().filter(|r| r.vrf.is_none() || r.vrf == vrf) {
        match &r.parts {
            FamilyRules::V4(parts) => v4.extend(parts.iter().map(|part| (*part, r.verdict.clone()))),
            FamilyRules::V6(parts) => v6.extend(parts.iter().map(|part| (*part, r.verdict.clone()))),
        }
    }
    (!v4.is_empty() || !v6.is_empty()).then(|| Arc::new(RuleList::build(&v4, &v6)))
}

/// The list that a rule belongs to.
pub fn class_of(rule: &AclRule) -> Class {
    match (rule.direction, rule.kind) {
        (Direction::Out, AclType::Lan) => Class::OutLan,
        (Direction::In, AclType::Lan) => Class::InLan,
        (Direction::Out, AclType::Wan) => Class::OutWan,
        (Direction::In, AclType::Wan) => Class::InWan,
    }
}

/// A rule in the classifier's terms: as many as its groups make of it.
#[derive(Debug, Clone)]
pub enum FamilyRules {
    /// IPv4.
    V4(Vec<Rule<u32>>),
    /// IPv6.
    V6(Vec<Rule<u128>>),
}

/// A rule in the classifier's terms. `None`: its addresses are of both families, which validation refuses.
pub fn compile_rule(rule: &AclRule) -> Option<FamilyRules> {
    let header = HeaderMatch {
        dscp: rule.dscp.map(|d| d.get()),
        tcp_flags: rule.tcp_flags.map(|t| TcpFlags { mask: t.mask, set: t.set }),
        icmp: rule.icmp.map(|m| IcmpMatch { kind: m.kind, code: m.code }),
    };
    let mut parts = compile_tuple(&rule.tuple)?;
    match &mut parts {
        FamilyRules::V4(parts) => parts.iter_mut().for_each(|r| r.header = header),
        FamilyRules::V6(parts) => parts.iter_mut().for_each(|r| r.header = header),
    }
    Some(parts)
}

/// What an ACL rule or a QoS policy matches, in the classifier's terms. `None`: its addresses are of both families.
pub fn compile_tuple(t: &FiveTuple) -> Option<FamilyRules> {
    match t.is_ipv6() {
        false => parts(t, |net| match net {
            IpNet::V4(n) => Prefix::new(n.network().to_bits(), n.prefix_len()).ok(),
            IpNet::V6(_) => None,
        })
        .map(FamilyRules::V4),
        true => parts(t, |net| match net {
            IpNet::V4(_) => None,
            IpNet::V6(n) => Prefix::new(n.network().to_bits(), n.prefix_len()).ok(),
        })
        .map(FamilyRules::V6),
    }
}

/// A rule for each combination of networks and ranges; validation bounds their number.
fn parts<A: Addr>(t: &FiveTuple, prefix: impl Fn(&IpNet) -> Option<Prefix<A>>) -> Option<Vec<Rule<A>>> {
    let prefixes = |m: &NetworkMatch| m.networks().iter().map(&prefix).collect::<Option<Vec<_>>>();
    let ranges = |m: &PortMatch| {
        m.ranges().iter().map(|r| PortRange::new(r.first, r.last).ok()).collect::<Option<Vec<_>>>()
    };
    let (sources, dests) = (prefixes(&t.source)?, prefixes(&t.dest)?);
    let (sports, dports) = (ranges(&t.source_ports)?, ranges(&t.dest_ports)?);
    let mut out = Vec::with_capacity(t.parts());
    for &src in &sources {
        for &dst in &dests {
            for &sport in &sports {
                for &dport in &dports {
                    out.push(Rule { proto: t.protocol, src, dst, sport, dport, header: HeaderMatch::ANY });
                }
            }
        }
    }
    Some(out)
}

/// Whether a verdict of the configuration lets the packet pass.
pub fn accepts(p: Policy) -> bool {
    p == Policy::Accept
}
