//! The meters of a gateway: the control side of the shared memory. Numbers stay with their owners from
//! one configuration to the next, and from one daemon to the next by the ids in the memory.

use super::meter::{before, units};
use super::meter_plan::{GroupKey, MeterNumbers, MeterPlan, Owner, first_used};
use super::policy::MeterGroupNo;
use sag_model::Nanos;
use sag_model::meter::{METER_GROUPS, METERS, Meter, MeterGroup};
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// What meters have counted, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MeterCounts {
    /// Let pass.
    pub passed: u64,
    /// Over the peak rate of the CAR.
    pub over_car: u64,
    /// Over what a link had left.
    pub over_link: u64,
}

/// The meters of a gateway: the control side of the shared memory.
#[derive(Debug)]
pub struct MeterTable {
    meters: &'static [Meter],
    groups: &'static [MeterGroup],
    /// Bytes that XDP let pass: of the groups of the first CPU, then those of the next one.
    by_xdp: &'static [AtomicU64],
    by_key: HashMap<GroupKey, MeterGroupNo>,
    /// What the groups had counted when this table was opened.
    base: HashMap<MeterGroupNo, MeterCounts>,
    /// Of the last plan.
    owners: Vec<(Owner, u16)>,
}

impl MeterTable {
    /// A table over shared memory; takes over what is there. What XDP let pass is counted in `by_xdp`: a word for each
    /// group and CPU, or none where there is no XDP.
    pub fn over(
        meters: &'static [Meter],
        groups: &'static [MeterGroup],
        by_xdp: &'static [AtomicU64],
    ) -> MeterTable {
        let keys =
            groups.iter().enumerate().filter_map(|(n, s)| Some((key_of(s), MeterGroupNo::new(n as u16)?)));
        let by_key: HashMap<_, _> = keys.filter(|(k, _)| *k != GroupKey::default()).collect();
        let mut table =
            MeterTable { meters, groups, by_xdp, by_key, base: HashMap::new(), owners: Vec::new() };
        table.base = table.by_key.values().map(|&n| (n, table.counted_by(n))).collect();
        table
    }

    /// The numbers that are in use, for a compiler.
    pub fn numbers(&self) -> MeterNumbers {
        let ids = self.meters.iter().enumerate().skip(1).map(|(n, m)| (m.id.load(Relaxed), n as u16));
        let by_id: HashMap<_, _> = ids.filter(|(id, _)| *id != 0).collect();
        let mut numbers = MeterNumbers {
            meters: self.meters,
            groups: self.groups,
            meters_used: first_used(self.meters.len()),
            groups_used: first_used(self.groups.len()),
            by_id,
            by_key: self.by_key.clone(),
        };
        numbers.by_id.values().for_each(|n| numbers.meters_used[usize::from(*n)] = true);
        numbers.by_key.values().for_each(|n| numbers.groups_used[n.index()] = true);
        numbers
    }

    /// The words in which XDP counts for a group.
    fn xdp_words(&self, group: MeterGroupNo) -> impl Iterator<Item = &'static AtomicU64> + use<> {
        self.by_xdp.iter().skip(group.index()).step_by(self.groups.len().max(1))
    }

    fn counted_by(&self, group: MeterGroupNo) -> MeterCounts {
        let s = &self.groups[group.index()];
        let by_xdp = self.xdp_words(group).map(|w| w.load(Relaxed)).fold(0, u64::wrapping_add);
        MeterCounts {
            passed: s.passed_bytes.load(Relaxed).wrapping_add(by_xdp),
            over_car: s.car_dropped_bytes.load(Relaxed),
            over_link: s.link_dropped_bytes.load(Relaxed),
        }
    }

    /// A table over memory of its own, for replays and tests.
    pub fn private() -> MeterTable {
        MeterTable::private_of(METERS, METER_GROUPS)
    }

    /// The same with room for so many. Never given back: the less the better where there are many tables.
    pub fn private_of(meters: usize, groups: usize) -> MeterTable {
        let meters: Vec<Meter> = (0..meters).map(|_| Meter::default()).collect();
        let groups: Vec<MeterGroup> = (0..groups).map(|_| MeterGroup::default()).collect();
        MeterTable::over(meters.leak(), groups.leak(), &[])
    }

    /// Writes a plan into the shared memory. Meters come before the groups that name them, and a new group's meters last, so
    /// that whoever reads it meters by all of them or by none.
    pub fn apply(&mut self, plan: &MeterPlan, now: Nanos) {
        if plan.clear {
            self.forget();
        }
        for (no, planned) in &plan.meters {
            let m = &self.meters[usize::from(*no)];
            if m.id.load(Relaxed) != planned.id {
                m.tat.store(idle(now), Relaxed);
                m.committed_tat.store(idle(now), Relaxed);
                m.id.store(planned.id, Relaxed);
            }
            let put = |word: &AtomicU64, v: u64| {
                if word.load(Relaxed) != v {
                    word.store(v, Relaxed);
                }
            };
            put(&m.burst, planned.burst);
            put(&m.cost, planned.cost);
            put(&m.committed_burst, planned.committed_burst);
            put(&m.committed_cost, planned.committed_cost);
        }
        for (no, planned) in &plan.groups {
            let s = &self.groups[no.index()];
            for (word, limit) in s.borrow_limit.iter().zip(planned.borrow_limits) {
                word.store(limit, Relaxed);
            }
            s.overhead.store(planned.overhead, Relaxed);
            s.remark.store(planned.remark, Relaxed);
            s.slack.store(planned.slack, Relaxed);
            if self.by_key.get(&planned.key) != Some(no) {
                let own = [&s.passed_bytes, &s.car_dropped_bytes, &s.link_dropped_bytes];
                own.into_iter().chain(self.xdp_words(*no)).for_each(|c| c.store(0, Relaxed));
                for (word, n) in s.links.iter().zip(&planned.key[1..]) {
                    word.store(*n, Relaxed);
                }
                s.car.store(planned.key[0], Release);
                self.by_key.insert(planned.key, *no);
            }
        }
        self.owners.clone_from(&plan.owners);
    }

    /// Gives up all meters and groups. Flows of the epoch that ends may use a meter of another for a moment.
    fn forget(&mut self) {
        for m in self.meters {
            m.id.store(0, Relaxed);
        }
        for n in self.by_key.values() {
            let s = &self.groups[n.index()];
            s.car.store(0, Relaxed);
            s.links.iter().for_each(|l| l.store(0, Relaxed));
        }
        self.by_key.clear();
        self.base.clear();
    }

    /// Owners of the meters of the running configuration.
    pub fn owners(&self) -> impl Iterator<Item = (&Owner, u16)> {
        self.owners.iter().map(|(o, n)| (o, *n))
    }

    /// What the groups with a meter have counted since the table was opened.
    pub fn counted(&self, meter: u16) -> MeterCounts {
        let mut sum = MeterCounts::default();
        for (key, &n) in self.by_key.iter().filter(|(k, _)| k.contains(&meter)) {
            debug_assert_ne!(key[0] | key[1], 0);
            let (now, base) = (self.counted_by(n), self.base.get(&n).copied());
            let base = base.unwrap_or_default();
            sum.passed += now.passed.wrapping_sub(base.passed);
            sum.over_car += now.over_car.wrapping_sub(base.over_car);
            sum.over_link += now.over_link.wrapping_sub(base.over_link);
        }
        sum
    }

    /// All meters have been idle up to now: for a clock that jumps to its first moment.
    pub fn begin(&self, now: Nanos) {
        for m in self.meters {
            m.tat.store(idle(now), Relaxed);
            m.committed_tat.store(idle(now), Relaxed);
        }
    }

    /// Brings moments that are long past up to a day ago, so that comparing them stays good for ever.
    pub fn refresh(&self, now: Nanos) {
        const DAY: u64 = 86_400 * 1_000_000_000;
        let old = units(now.0.wrapping_sub(DAY));
        for m in self.meters.iter().filter(|m| m.id.load(Relaxed) != 0) {
            for word in [&m.tat, &m.committed_tat] {
                let was = word.load(Relaxed);
                if before(was, old) {
                    let _ = word.compare_exchange(was, old, Relaxed, Relaxed);
                }
            }
        }
    }
}

/// A moment an hour ago.
fn idle(now: Nanos) -> u64 {
    units(now.0.wrapping_sub(3_600_000_000_000))
}

fn key_of(s: &MeterGroup) -> GroupKey {
    let [a, b, c] = &s.links;
    [&s.car, a, b, c].map(|w| w.load(Relaxed))
}
