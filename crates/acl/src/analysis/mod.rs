//! Findings about a rule set, each with a packet that proves it.
//!
//! Every rule is checked for a single earlier rule that hides it. Beyond that, it is examined against
//! all rules that overlap it (`overlap`); what they leave of it is a list of boxes (`region`), so
//! that cover by several rules together is seen as well. Exact, but not free: the work and the number
//! of findings are limited, and a report says what it left out.

mod overlap;
mod region;

use crate::addr::Addr;
use crate::rule::{Key, Rule};
use overlap::Overlaps;
use region::{Area, Region};

/// The kind of a finding. Rules are named by their index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It restricts a port and names a protocol without ports, or asks for the header of another protocol, so it
    /// matches nothing.
    Unmatchable,
    /// Earlier rules match every packet that it matches.
    Shadowed {
        /// The rule that matches the witness first.
        by: u32,
        /// Whether a single earlier rule covers it all.
        alone: bool,
    },
    /// It matches packets first, and without it they would get the same verdict.
    Redundant {
        /// The rule that would match the witness then; `None` is the default verdict.
        by: Option<u32>,
    },
    /// It overlaps an earlier rule of another verdict, and neither covers the other: their order decides.
    Conflict {
        /// The first such rule.
        with: u32,
        /// How many more such rules there are.
        others: u32,
    },
}

/// What was found about one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding<A> {
    /// Index of the rule.
    pub rule: u32,
    /// What was found.
    pub kind: Kind,
    /// A packet in the rule; for a conflict also in the other one. Only [`Kind::Unmatchable`] has
    /// none.
    pub witness: Option<Key<A>>,
}

/// Bounds of an examination.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Findings that are reported at most.
    pub findings: usize,
    /// Comparisons of two rules or boxes; ten million take about a second.
    pub work: u64,
    /// The same for one rule.
    pub work_per_rule: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { findings: 1000, work: 60_000_000, work_per_rule: 200_000 }
    }
}

/// The result of an examination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report<A> {
    /// What was found, in order of the rules.
    pub findings: Vec<Finding<A>>,
    /// Rules that were not examined in full because of a limit. What is reported of them is true; there
    /// may be more: conflicts, redundancy, shadowing by several rules together; and anything of
    /// the rules after the last finding that `Limits::findings` allowed.
    pub unexamined: u32,
}

impl<A> Report<A> {
    /// Whether nothing was left out.
    pub fn is_complete(&self) -> bool {
        self.unexamined == 0
    }
}

/// Examines `rules`, in match order and with their verdicts; `default` answers what no rule matches.
///
/// Each finding holds for the rule set as it is: of two rules that make each other redundant, both
/// are reported, and only one may go.
pub fn findings<A: Addr, V: PartialEq>(rules: &[(Rule<A>, V)], default: &V, limits: Limits) -> Report<A> {
    let overlaps = Overlaps::new(rules.iter().map(|(rule, _)| rule));
    let mut report = Report { findings: Vec::new(), unexamined: 0 };
    let mut work = limits.work;
    for id in 0..rules.len() as u32 {
        if report.findings.len() >= limits.findings {
            report.unexamined += rules.len() as u32 - id;
            break;
        }
        let allowance = work.min(limits.work_per_rule);
        let mut examination =
            Examination { rules, default, id, left: allowance, found: &mut report.findings };
        if !examination.is_hidden(&overlaps) && examination.run(&overlaps).is_none() {
            report.unexamined += 1;
        }
        work -= allowance - examination.left;
    }
    report
}

/// One rule against the others.
struct Examination<'a, A, V> {
    rules: &'a [(Rule<A>, V)],
    default: &'a V,
    id: u32,
    /// Work that it may still do.
    left: u64,
    found: &'a mut Vec<Finding<A>>,
}

impl<A: Addr, V: PartialEq> Examination<'_, A, V> {
    /// Reports a rule that matches nothing, or nothing that some one earlier rule does not match.
    /// Cheap, so it is done for every rule, whatever the allowance.
    fn is_hidden(&mut self, overlaps: &Overlaps<A>) -> bool {
        let rule = *self.rule(self.id);
        if rule.is_unmatchable() {
            self.add(Kind::Unmatchable, None);
            return true;
        }
        let hidden = overlaps.around(&rule).any(|e| e < self.id && region::covers(self.rule(e), &rule));
        if hidden {
            self.shadowed(&rule, true);
        }
        hidden
    }

    /// `None` if the work ran out.
    fn run(&mut self, overlaps: &Overlaps<A>) -> Option<()> {
        let rule = *self.rule(self.id);
        self.spend(overlaps.count(&rule) as u64)?;
        let mut others = overlaps.of(&rule);
        others.retain(|&o| o != self.id && region::meet(self.rule(o), &rule));
        let (earlier, later) = others.split_at(others.partition_point(|&o| o < self.id));

        self.conflicts(earlier, &rule);
        let live = self.subtract(Region::of(&rule), earlier)?;
        match live.first() {
            None => self.shadowed(&rule, false),
            Some(area) => {
                if self.is_redundant(live.clone(), later)? {
                    let witness = area.key();
                    let by = later.iter().copied().find(|&l| self.rule(l).matches(&witness));
                    self.add(Kind::Redundant { by }, Some(witness));
                }
            }
        }
        Some(())
    }

    fn rule(&self, id: u32) -> &Rule<A> {
        &self.rules[id as usize].0
    }

    fn verdict(&self, id: u32) -> &V {
        &self.rules[id as usize].1
    }

    fn spend(&mut self, work: u64) -> Option<()> {
        let enough = work <= self.left;
        self.left = self.left.saturating_sub(work);
        enough.then_some(())
    }

    fn add(&mut self, kind: Kind, witness: Option<Key<A>>) {
        self.found.push(Finding { rule: self.id, kind, witness });
    }

    fn shadowed(&mut self, rule: &Rule<A>, alone: bool) {
        let Some(witness) = Region::of(rule).first().map(Area::key) else { return };
        let earlier = &self.rules[..self.id as usize];
        if let Some(by) = earlier.iter().position(|(e, _)| e.matches(&witness)) {
            self.add(Kind::Shadowed { by: by as u32, alone }, Some(witness));
        }
    }

    fn conflicts(&mut self, earlier: &[u32], rule: &Rule<A>) {
        let verdict = self.verdict(self.id);
        let mut against = earlier
            .iter()
            .copied()
            .filter(|&e| self.verdict(e) != verdict && !region::covers(rule, self.rule(e)));
        let Some(with) = against.next() else { return };
        let others = against.count() as u32;
        let witness = region::overlap(self.rule(with), rule).map(|area| area.key());
        self.add(Kind::Conflict { with, others }, witness);
    }

    /// `region` without the rules `ids`.
    fn subtract(&mut self, mut region: Region<A>, ids: &[u32]) -> Option<Region<A>> {
        for &id in ids {
            if region.first().is_none() {
                break;
            }
            self.spend(region.len() as u64)?;
            region = region.without(self.rule(id));
        }
        Some(region)
    }

    /// Whether what is `live` gets the same verdict from the rules `later`.
    fn is_redundant(&mut self, live: Region<A>, later: &[u32]) -> Option<bool> {
        let mut open = live;
        for &id in later {
            if open.first().is_none() {
                return Some(true);
            }
            self.spend(open.len() as u64)?;
            if self.verdict(id) == self.verdict(self.id) {
                open = open.without(self.rule(id));
            } else if open.meets(self.rule(id)) {
                return Some(false);
            }
        }
        Some(open.first().is_none() || self.default == self.verdict(self.id))
    }
}

#[cfg(test)]
mod tests;
