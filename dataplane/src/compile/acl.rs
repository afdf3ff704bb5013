//! ACLs: all bound rules by class and family, in the order in which they are tried.

use super::accepts;
use ipnet::IpNet;
use sag_acl::{PortRange, Prefix, Rule};
use sag_model::config::{Acl, AclRule, AclType, Config, Direction, FiveTuple, Policy};
use sag_pipeline::policy::{AclSet, Class, RuleList, RuleStats, Verdict};
use std::collections::HashMap;
use std::sync::Arc;

/// Keeps rule numbers, counters and compiled lists over the daemon's life.
#[derive(Debug, Default)]
pub struct AclCompiler {
    slots: HashMap<(String, String), (AclRule, u32)>,
    stats: Vec<Arc<RuleStats>>,
    last: Option<(Vec<Acl>, Policy, AclSet)>,
}

/// A rule's number and counters, for reports.
#[derive(Debug, Clone)]
pub struct RuleInfo {
    pub stats: Arc<RuleStats>,
}

impl AclCompiler {
    /// Compiles the ACLs, or takes the last result if they are the same.
    pub fn compile(&mut self, config: &Config) -> AclSet {
        if let Some((acls, default, set)) = &self.last
            && *acls == config.acls
            && *default == config.dataplane.acl_default
        {
            return set.clone();
        }
        let set = self.build(config);
        self.last = Some((config.acls.clone(), config.dataplane.acl_default, set.clone()));
        set
    }

    fn build(&mut self, config: &Config) -> AclSet {
        if config.acls.is_empty() {
            return AclSet::default();
        }
        let mut rules: Vec<(&Acl, &AclRule)> =
            config.acls.iter().flat_map(|a| a.rules.iter().map(move |r| (a, r))).collect();
        // Stable: equal priorities stay in the order of the file.
        rules.sort_by_key(|(_, r)| r.priority);
        let mut lists: [Lists; 4] = Default::default();
        for (acl, rule) in rules {
            let slot = self.slot(acl, rule);
            let verdict = Verdict { accept: accepts(rule.policy), slot };
            lists[class_of(rule) as usize].push(rule, verdict);
        }
        let lists = lists.map(|l| l.any().then(|| Arc::new(RuleList::build(&l.v4, &l.v6))));
        AclSet::new(accepts(config.dataplane.acl_default), lists, self.stats.clone())
    }

    /// A rule keeps its number, and so its counters, while its text stays the same.
    fn slot(&mut self, acl: &Acl, rule: &AclRule) -> u32 {
        let key = (acl.id.clone(), rule.id.clone());
        if let Some((old, slot)) = self.slots.get(&key)
            && old == rule
        {
            return *slot;
        }
        let slot = self.stats.len() as u32;
        let name = format!("{}/{}", acl.id, rule.id);
        self.stats.push(Arc::new(RuleStats { name, ..RuleStats::default() }));
        self.slots.insert(key, (rule.clone(), slot));
        slot
    }

    pub fn info(&self, acl: &str, rule: &str) -> Option<RuleInfo> {
        let (_, slot) = self.slots.get(&(acl.to_owned(), rule.to_owned()))?;
        self.stats.get(*slot as usize).map(|s| RuleInfo { stats: s.clone() })
    }
}

#[derive(Default)]
struct Lists {
    v4: Vec<(Rule<u32>, Verdict)>,
    v6: Vec<(Rule<u128>, Verdict)>,
}

impl Lists {
    fn any(&self) -> bool {
        !self.v4.is_empty() || !self.v6.is_empty()
    }

    fn push(&mut self, rule: &AclRule, verdict: Verdict) {
        match compile_rule(rule) {
            Some(FamilyRule::V4(r)) => self.v4.push((r, verdict)),
            Some(FamilyRule::V6(r)) => self.v6.push((r, verdict)),
            None => tracing::error!(rule = rule.id, "rule mixes address families: left out"),
        }
    }
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

pub enum FamilyRule {
    V4(Rule<u32>),
    V6(Rule<u128>),
}

/// A validated rule in the classifier's terms. `None` cannot happen for a validated rule.
pub fn compile_rule(rule: &AclRule) -> Option<FamilyRule> {
    compile_tuple(&rule.tuple)
}

pub fn compile_tuple(t: &FiveTuple) -> Option<FamilyRule> {
    let (sport, dport) = (ports(t.source_ports)?, ports(t.dest_ports)?);
    match (t.source, t.dest) {
        (IpNet::V4(s), IpNet::V4(d)) => Some(FamilyRule::V4(Rule {
            proto: t.protocol,
            src: Prefix::new(s.network().to_bits(), s.prefix_len()).ok()?,
            dst: Prefix::new(d.network().to_bits(), d.prefix_len()).ok()?,
            sport,
            dport,
        })),
        (IpNet::V6(s), IpNet::V6(d)) => Some(FamilyRule::V6(Rule {
            proto: t.protocol,
            src: Prefix::new(s.network().to_bits(), s.prefix_len()).ok()?,
            dst: Prefix::new(d.network().to_bits(), d.prefix_len()).ok()?,
            sport,
            dport,
        })),
        _ => None,
    }
}

fn ports(p: sag_model::config::PortRange) -> Option<PortRange> {
    PortRange::new(p.first, p.last).ok()
}
