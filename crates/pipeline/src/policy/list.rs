//! One class's rules in both families, compiled.
//!
//! Rules that look at a header beyond the five-tuple (DSCP, TCP flags, ICMP message) are in the same classifier as the
//! others. Where there are such rules, three smaller ones answer what their presence means for flows, so that the cost of
//! a packet stays that of a lookup or two, however many rules there are.

use super::{Header, Tuple, Verdict};
use crate::ids::RuleSlot;
use sag_acl::{AddrFamily, Classifier, HeaderMatch, Key, NO_MATCH, Rule};
use sag_packet::proto::{ICMP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};
use std::net::IpAddr;

/// What a verdict holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// Every packet of the five-tuple gets this verdict, whatever its header.
    pub flow: bool,
    /// A drop rule names packets of the flow that would go by its record: all of them have to go to a worker.
    pub watched: bool,
}

impl Judged {
    /// No rule looks at the header of such packets.
    pub const FLOW: Judged = Judged { flow: true, watched: false };
}

/// One class's rules in both families, compiled.
#[derive(Debug)]
pub struct RuleList {
    v4: FamilyList<u32>,
    v6: FamilyList<u128>,
}

/// Calls a method of the list of a tuple's family with the key of the packet; `$none` if the family is mixed.
macro_rules! by_family {
    ($list:expr, $tuple:expr, $header:expr, $method:ident, $none:expr) => {
        match ($tuple.src, $tuple.dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                $list.v4.$method(&$tuple.acl_key(s.to_bits(), d.to_bits(), $header))
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                $list.v6.$method(&$tuple.acl_key(s.to_bits(), d.to_bits(), $header))
            }
            _ => $none,
        }
    };
}

impl RuleList {
    /// Compiles rules given in the order in which they are tried.
    pub fn build(v4: &[(Rule<u32>, Verdict)], v6: &[(Rule<u128>, Verdict)]) -> RuleList {
        RuleList { v4: FamilyList::build(v4), v6: FamilyList::build(v6) }
    }

    /// The first rule that matches a packet of which nothing but the five-tuple counts.
    #[inline]
    pub fn lookup(&self, tuple: &Tuple) -> Option<&Verdict> {
        by_family!(self, tuple, Header::default(), lookup, None)
    }

    /// The first rule that matches, and what it holds for.
    #[inline(always)]
    pub(super) fn judge(&self, tuple: &Tuple, header: Header) -> (Option<&Verdict>, Judged) {
        by_family!(self, tuple, header, judge, (None, Judged::FLOW))
    }

    /// The first rule that holds for a session.
    #[inline]
    pub(super) fn lookup_session(&self, tuple: &Tuple) -> Option<&Verdict> {
        by_family!(self, tuple, Header::default(), lookup_session, None)
    }

    /// Whether drop rules look at headers.
    #[inline]
    pub(super) fn drops_by_header(&self) -> bool {
        self.v4.drops_by_header() || self.v6.drops_by_header()
    }

    /// The rule that drops a packet of an admitted session, and whether its flow is watched.
    #[inline]
    pub(super) fn check_packet(&self, tuple: &Tuple, header: Header) -> (Option<RuleSlot>, bool) {
        by_family!(self, tuple, header, check_packet, (None, false))
    }

    /// Rules of both families.
    pub fn rules(&self) -> usize {
        self.v4.verdicts.len() + self.v6.verdicts.len()
    }

    /// Bytes of the compiled rules.
    pub fn memory(&self) -> usize {
        self.v4.memory() + self.v6.memory()
    }
}

#[derive(Debug)]
struct FamilyList<A: AddrFamily> {
    rules: Classifier<A>,
    verdicts: Vec<Verdict>,
    by_header: Option<Box<ByHeader<A>>>,
}

/// What a list needs to know of its rules that look at headers.
#[derive(Debug)]
struct ByHeader<A: AddrFamily> {
    /// By number of the rule: whether it is one of them.
    is_one: Vec<bool>,
    /// Whether one of them drops.
    drops: bool,
    /// All rules but those of them that drop; what is left of them looks at no header.
    session: Part<A>,
    /// All of them without what they ask of the header: the flows that they are about.
    flows: Part<A>,
    /// The same of those that drop packets which would go by the record of their flow, without the stages.
    unseen: Part<A>,
}

/// Some of the rules.
#[derive(Debug)]
struct Part<A: AddrFamily> {
    rules: Classifier<A>,
    /// Their numbers among all.
    numbers: Vec<u32>,
}

impl<A: AddrFamily> Part<A> {
    /// The rules that `which` names, without what they ask of the header.
    fn of(rules: &[(Rule<A>, Verdict)], which: impl Fn(&Rule<A>, &Verdict) -> bool) -> Part<A> {
        let (mut some, mut numbers) = (Vec::new(), Vec::new());
        for (number, (rule, verdict)) in (0..).zip(rules) {
            if which(rule, verdict) && !rule.is_unmatchable() {
                some.push(Rule { header: HeaderMatch::ANY, ..*rule });
                numbers.push(number);
            }
        }
        Part { rules: Classifier::build(&some), numbers }
    }

    /// The number of the first rule that matches, [`NO_MATCH`] if none does.
    #[inline]
    fn first(&self, key: &Key<A>) -> u32 {
        let found = self.rules.classify(key).and_then(|i| self.numbers.get(i as usize));
        found.copied().unwrap_or(NO_MATCH)
    }

    fn memory(&self) -> usize {
        self.rules.memory() + self.numbers.len() * size_of::<u32>()
    }
}

impl<A: AddrFamily> ByHeader<A> {
    fn build(rules: &[(Rule<A>, Verdict)]) -> Option<Box<ByHeader<A>>> {
        let is_one: Vec<bool> = rules.iter().map(|(r, _)| !r.header.is_any()).collect();
        if !is_one.contains(&true) {
            return None;
        }
        let drops = |r: &Rule<A>, v: &Verdict| !r.header.is_any() && !v.accept;
        Some(Box::new(ByHeader {
            is_one,
            drops: rules.iter().any(|(r, v)| drops(r, v)),
            session: Part::of(rules, |r, v| !drops(r, v)),
            flows: Part::of(rules, |r, _| !r.header.is_any()),
            unseen: Part::of(rules, |r, v| drops(r, v) && goes_by_record(r)),
        }))
    }

    fn is_one(&self, number: u32) -> bool {
        self.is_one.get(number as usize).copied().unwrap_or(false)
    }

    /// What a verdict holds for, if `found` is the first rule that matches. Most lists need not ask.
    #[cold]
    fn judge(&self, key: &Key<A>, found: u32) -> Judged {
        Judged {
            // The rule looks at no header, and none before it does that is about the flow.
            flow: !self.is_one(found) && self.flows.first(key) >= found,
            watched: self.watches(key, found),
        }
    }

    /// Whether packets of a flow have to be judged one by one, if the first rule that matches one of them is `found`.
    #[inline]
    fn watches(&self, key: &Key<A>, found: u32) -> bool {
        let unseen = self.unseen.first(key);
        // A rule for the whole flow hides what is behind it.
        unseen != NO_MATCH && (unseen < found || self.is_one(found))
    }
}

/// Whether the rule matches packets that go by the record of their flow, without the stages. Of TCP these are segments
/// with ACK and without SYN, FIN and RST; of ICMP all but errors.
fn goes_by_record<A: AddrFamily>(rule: &Rule<A>) -> bool {
    let header = &rule.header;
    if let Some(flags) = header.tcp_flags {
        let without_ack = flags.mask & TCP_ACK != 0 && flags.set & TCP_ACK == 0;
        return !without_ack && flags.set & (TCP_SYN | TCP_FIN | TCP_RST) == 0;
    }
    match header.icmp {
        Some(m) if rule.proto == Some(ICMP) => !matches!(m.kind, 3 | 4 | 5 | 11 | 12),
        Some(m) => m.kind >= 128,
        None => true,
    }
}

impl<A: AddrFamily> FamilyList<A> {
    fn build(rules: &[(Rule<A>, Verdict)]) -> FamilyList<A> {
        let bare: Vec<_> = rules.iter().map(|r| r.0).collect();
        FamilyList {
            rules: Classifier::build(&bare),
            verdicts: rules.iter().map(|r| r.1.clone()).collect(),
            by_header: ByHeader::build(rules),
        }
    }

    #[inline(always)]
    fn verdict(&self, number: u32) -> Option<&Verdict> {
        self.verdicts.get(number as usize)
    }

    #[inline]
    fn lookup(&self, key: &Key<A>) -> Option<&Verdict> {
        self.rules.classify(key).and_then(|i| self.verdict(i))
    }

    #[inline]
    fn lookup_session(&self, key: &Key<A>) -> Option<&Verdict> {
        match &self.by_header {
            None => self.lookup(key),
            Some(by_header) => self.verdict(by_header.session.first(key)),
        }
    }

    #[inline(always)]
    fn judge(&self, key: &Key<A>) -> (Option<&Verdict>, Judged) {
        let found = self.rules.classify(key).unwrap_or(NO_MATCH);
        let judged = match &self.by_header {
            None => Judged::FLOW,
            Some(by_header) => by_header.judge(key, found),
        };
        (self.verdict(found), judged)
    }

    #[inline]
    fn drops_by_header(&self) -> bool {
        self.by_header.as_ref().is_some_and(|b| b.drops)
    }

    #[inline]
    fn check_packet(&self, key: &Key<A>) -> (Option<RuleSlot>, bool) {
        let Some(by_header) = self.by_header.as_ref().filter(|b| b.drops) else { return (None, false) };
        let found = self.rules.classify(key).unwrap_or(NO_MATCH);
        let dropped = self.verdict(found).filter(|v| !v.accept && by_header.is_one(found));
        (dropped.map(|v| RuleSlot(v.slot)), by_header.watches(key, found))
    }

    fn memory(&self) -> usize {
        let parts = self.by_header.iter().flat_map(|b| [&b.session, &b.flows, &b.unseen]);
        self.rules.memory() + parts.map(Part::memory).sum::<usize>()
    }
}
