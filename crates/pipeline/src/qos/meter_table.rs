//! Who has which meter: the control side of the shared memory. Numbers stay with their owners from
//! one configuration to the next, and from one daemon to the next by the ids in the memory.

use super::meter::{Rate, before, units};
use super::policy::{MeterGroupNo, QosPolicy, Rules};
use crate::policy::Verdict;
use sag_acl::Rule;
use sag_model::meter::{GROUP_LINKS, METER_GROUPS, METERS, Meter, MeterGroup, REMARK};
use sag_model::{Dscp, Nanos, Zone};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

/// A committed access rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Car {
    /// The name in the configuration.
    pub id: String,
    /// 1..=7, the lowest goes first.
    pub priority: u8,
    /// Rate within which a packet may use up what a link has left, whatever its class; `None`: there is no such rate.
    pub committed: Option<Rate>,
    /// `None`: no ceiling.
    pub peak: Option<Rate>,
    /// What may pass at once, as milliseconds of the rate.
    pub burst_ms: u64,
    /// What it marks packets with.
    pub remark: Option<Dscp>,
}

/// A port as meters see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeteredPort {
    /// The name in the configuration.
    pub name: String,
    /// Where it leads; `None`: traffic through it is not metered.
    pub zone: Option<Zone>,
    /// Rate of its link.
    pub rate: Option<Rate>,
}

/// All that is to be metered.
#[derive(Debug, Clone, Default)]
pub struct QosSpec {
    /// Of the overlay, each way.
    pub overlay: Option<Rate>,
    /// Of what leaves for the Internet.
    pub internet_up: Option<Rate>,
    /// Ports by [`sag_model::PortIdx`], and behind them their tunnels.
    pub ports: Vec<MeteredPort>,
    /// Committed access rates, by the index that rules name.
    pub cars: Vec<Car>,
    /// Policies that match at the moment, in the order in which they are tried; slot: index of the CAR.
    pub v4: Vec<(Rule<u32>, Verdict)>,
    /// The same of IPv6.
    pub v6: Vec<(Rule<u128>, Verdict)>,
    /// Those of `v4` and `v6`, by position, that match packets of one DSCP only.
    pub dscp4: BTreeMap<usize, Dscp>,
    /// The same of `v6`.
    pub dscp6: BTreeMap<usize, Dscp>,
    /// What may pass a link at once, as milliseconds of its rate.
    pub link_burst_ms: u64,
    /// Added to the length of every packet.
    pub overhead: u32,
    /// How far XDP's clock may be behind, in nanoseconds.
    pub slack: u32,
    /// The largest packet of any port: every rate lets four of them pass at once.
    pub largest: u64,
}

/// Out of the branch, or into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Out of the branch.
    Up,
    /// Into the branch.
    Down,
}

impl Direction {
    /// Its word in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Up => "up",
            Direction::Down => "down",
        }
    }
}

/// Whose a meter is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A CAR's in one direction, by its name.
    Car(String, Direction),
    /// The overlay's in one direction.
    Overlay(Direction),
    /// That of traffic to the Internet.
    Internet,
    /// What leaves by a port, and what arrived by it.
    Port(String, Direction),
}

impl Owner {
    /// The name under which the next daemon finds the meter (FNV-1a).
    fn id(&self) -> u64 {
        let name = match self {
            Owner::Car(id, way) => format!("car/{id}/{}", way.name()),
            Owner::Overlay(way) => format!("overlay/{}", way.name()),
            Owner::Internet => "internet/up".to_owned(),
            Owner::Port(name, way) => format!("port/{name}/{}", way.name()),
        };
        let step = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3);
        name.bytes().fold(0xCBF2_9CE4_8422_2325, step) | 1
    }
}

/// What meters have counted, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MeterCounts {
    /// Let pass.
    pub passed: u64,
    /// Over the ceiling.
    pub over_car: u64,
    /// Over what a link had left.
    pub over_link: u64,
}

type GroupKey = [u16; 1 + GROUP_LINKS];

/// Fewest bytes of a burst, however slow the rate: sixteen full Ethernet frames.
const LEAST_BURST: u64 = 16 * 1514;

/// Which number each meter and each set of meters has: what a compiler needs to know of the shared memory. Planning reads
/// no shared word and writes none.
#[derive(Debug)]
pub struct MeterNumbers {
    meters: &'static [Meter],
    sets: &'static [MeterGroup],
    by_id: HashMap<u64, u16>,
    by_key: HashMap<GroupKey, MeterGroupNo>,
    /// By number: whether it is in use. Number 0 always is.
    meters_used: Vec<bool>,
    sets_used: Vec<bool>,
}

/// The meters and sets of one compilation, to be written by [`MeterTable::apply`] before a snapshot names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeterPlan {
    /// All meters and sets of earlier plans are given up first: too many of them were in use.
    clear: bool,
    meters: BTreeMap<u16, PlannedMeter>,
    sets: BTreeMap<MeterGroupNo, PlannedGroup>,
    owners: Vec<(Owner, u16)>,
    complete: bool,
}

impl MeterPlan {
    /// `false`: there were too few meters or sets, and some traffic is not metered.
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

/// The words of a meter that the configuration sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PlannedMeter {
    id: u64,
    burst: u64,
    cost: u64,
    committed_burst: u64,
    committed_cost: u64,
}

/// The words of a set that the configuration sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PlannedGroup {
    key: GroupKey,
    borrow_limits: [u64; GROUP_LINKS],
    overhead: u16,
    remark: u8,
    slack: u32,
}

impl MeterNumbers {
    /// The policy for a specification, and the meters that it needs.
    pub fn plan(&mut self, spec: &QosSpec) -> (QosPolicy, MeterPlan) {
        let nothing = spec.cars.is_empty()
            && spec.overlay.is_none()
            && spec.internet_up.is_none()
            && spec.ports.iter().all(|p| p.rate.is_none());
        let mut plan = MeterPlan { complete: true, ..MeterPlan::default() };
        if nothing {
            return (QosPolicy { meters: self.meters, sets: self.sets, ..QosPolicy::default() }, plan);
        }
        if self.by_id.len() * 2 > METERS || self.by_key.len() * 2 > METER_GROUPS {
            plan.clear = true;
            self.by_id.clear();
            self.by_key.clear();
            self.meters_used = first_used(self.meters.len());
            self.sets_used = first_used(self.sets.len());
        }
        let mut b = Build { numbers: self, spec, plan };
        let groups_by_path = b.ways();
        let plan = b.plan;
        let policy = QosPolicy {
            rules: Rules::build(spec),
            car_of: Rules::cars(spec, &groups_by_path),
            ports: spec.ports.len(),
            groups_by_path,
            cars: spec.cars.iter().map(|c| c.id.clone()).collect(),
            meters: self.meters,
            sets: self.sets,
        };
        (policy, plan)
    }
}

/// Only number 0, which stands for "none", is in use.
fn first_used(count: usize) -> Vec<bool> {
    (0..count).map(|n| n == 0).collect()
}

/// The meters of a gateway: the control side of the shared memory.
#[derive(Debug)]
pub struct MeterTable {
    meters: &'static [Meter],
    sets: &'static [MeterGroup],
    /// Bytes that XDP let pass: of the sets of the first CPU, then those of the next one.
    by_xdp: &'static [AtomicU64],
    by_key: HashMap<GroupKey, MeterGroupNo>,
    /// What the sets had counted when this table was opened.
    base: HashMap<MeterGroupNo, MeterCounts>,
    /// Of the last plan.
    owners: Vec<(Owner, u16)>,
}

impl MeterTable {
    /// A table over shared memory; takes over what is there. What XDP let pass is counted in `by_xdp`: a word for each
    /// set and CPU, or none where there is no XDP.
    pub fn over(
        meters: &'static [Meter],
        sets: &'static [MeterGroup],
        by_xdp: &'static [AtomicU64],
    ) -> MeterTable {
        let keys =
            sets.iter().enumerate().filter_map(|(n, s)| Some((key_of(s), MeterGroupNo::new(n as u16)?)));
        let by_key: HashMap<_, _> = keys.filter(|(k, _)| *k != GroupKey::default()).collect();
        let mut table = MeterTable { meters, sets, by_xdp, by_key, base: HashMap::new(), owners: Vec::new() };
        table.base = table.by_key.values().map(|&n| (n, table.counted_by(n))).collect();
        table
    }

    /// The numbers that are in use, for a compiler.
    pub fn numbers(&self) -> MeterNumbers {
        let ids = self.meters.iter().enumerate().skip(1).map(|(n, m)| (m.id.load(Relaxed), n as u16));
        let by_id: HashMap<_, _> = ids.filter(|(id, _)| *id != 0).collect();
        let mut numbers = MeterNumbers {
            meters: self.meters,
            sets: self.sets,
            meters_used: first_used(self.meters.len()),
            sets_used: first_used(self.sets.len()),
            by_id,
            by_key: self.by_key.clone(),
        };
        numbers.by_id.values().for_each(|n| numbers.meters_used[usize::from(*n)] = true);
        numbers.by_key.values().for_each(|n| numbers.sets_used[n.index()] = true);
        numbers
    }

    /// The words in which XDP counts for a set.
    fn xdp_words(&self, set: MeterGroupNo) -> impl Iterator<Item = &'static AtomicU64> + use<> {
        self.by_xdp.iter().skip(set.index()).step_by(self.sets.len().max(1))
    }

    fn counted_by(&self, set: MeterGroupNo) -> MeterCounts {
        let s = &self.sets[set.index()];
        let by_xdp = self.xdp_words(set).map(|w| w.load(Relaxed)).fold(0, u64::wrapping_add);
        MeterCounts {
            passed: s.passed_bytes.load(Relaxed).wrapping_add(by_xdp),
            over_car: s.car_dropped_bytes.load(Relaxed),
            over_link: s.link_dropped_bytes.load(Relaxed),
        }
    }

    /// A table over memory of its own, for replays and tests.
    pub fn private() -> MeterTable {
        let meters: Vec<Meter> = (0..METERS).map(|_| Meter::default()).collect();
        let sets: Vec<MeterGroup> = (0..METER_GROUPS).map(|_| MeterGroup::default()).collect();
        MeterTable::over(meters.leak(), sets.leak(), &[])
    }

    /// Writes a plan into the shared memory. Meters come before the sets that name them, and a new set's meters last, so
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
        for (no, planned) in &plan.sets {
            let s = &self.sets[no.index()];
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

    /// Gives up all meters and sets. Flows of the epoch that ends may use a meter of another for a moment.
    fn forget(&mut self) {
        for m in self.meters {
            m.id.store(0, Relaxed);
        }
        for n in self.by_key.values() {
            let s = &self.sets[n.index()];
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

    /// What the sets with a meter have counted since the table was opened.
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

/// A plan in progress.
struct Build<'b, 'w> {
    numbers: &'b mut MeterNumbers,
    spec: &'w QosSpec,
    plan: MeterPlan,
}

impl Build<'_, '_> {
    /// The set of every way from port to port, without a CAR and with each.
    fn ways(&mut self) -> Vec<Option<MeterGroupNo>> {
        let n = self.spec.ports.len();
        let mut out = Vec::with_capacity((self.spec.cars.len() + 1) * n * n);
        for car in std::iter::once(None).chain(self.spec.cars.iter().map(Some)) {
            for from in 0..n {
                for to in 0..n {
                    out.push(self.way(car, from, to));
                }
            }
        }
        out
    }

    fn way(&mut self, car: Option<&Car>, from: usize, to: usize) -> Option<MeterGroupNo> {
        let w = self.spec;
        let (from, to) = (&w.ports[from], &w.ports[to]);
        let (Some(zone_in), Some(zone_out)) = (from.zone, to.zone) else { return None };
        let (way, far) = match (zone_in, zone_out) {
            (Zone::Lan, Zone::Lan) => (None, Zone::Lan),
            (_, Zone::Lan) => (Some(Direction::Down), zone_in),
            (_, far) => (Some(Direction::Up), far),
        };
        let mut links: [Option<(Owner, Rate)>; GROUP_LINKS] = Default::default();
        links[0] = match (far, way) {
            (Zone::Overlay, Some(way)) => w.overlay.map(|r| (Owner::Overlay(way), r)),
            (Zone::Wan, Some(Direction::Up)) => w.internet_up.map(|r| (Owner::Internet, r)),
            _ => None,
        };
        links[1] = to.rate.map(|r| (Owner::Port(to.name.clone(), Direction::Up), r));
        links[2] = from.rate.map(|r| (Owner::Port(from.name.clone(), Direction::Down), r));
        let car = car.zip(way);
        if car.is_none() && links.iter().all(Option::is_none) {
            return None;
        }
        let mut key = GroupKey::default();
        let mut borrow_limits = [0; GROUP_LINKS];
        if let Some((car, way)) = car {
            key[0] = self.meter(Owner::Car(car.id.clone(), way), car.peak, car.committed, car.burst_ms);
        }
        let (behind, classes) = self.rank(car.map(|c| c.0));
        for (i, (owner, rate)) in links.into_iter().flatten().enumerate() {
            let burst = self.burst(rate, w.link_burst_ms);
            key[i + 1] = self.meter(owner, Some(rate), None, w.link_burst_ms);
            // Marks over the upper half of the burst: the first class may use all of it.
            borrow_limits[i] = burst - burst / (2 * classes.max(1)) * behind;
        }
        if key == GroupKey::default() {
            return None;
        }
        let remark = car.filter(|_| key[0] != 0).and_then(|(c, _)| c.remark);
        self.set(key, borrow_limits, remark.map_or(0, |d| REMARK | d.get()))
    }

    /// How many classes go before one, and how many there are. Without a CAR it is after all.
    fn rank(&self, car: Option<&Car>) -> (u64, u64) {
        let mut priorities: Vec<u8> = self.spec.cars.iter().map(|c| c.priority).collect();
        priorities.sort_unstable();
        priorities.dedup();
        let before = priorities.iter().filter(|p| car.is_none_or(|c| **p < c.priority)).count();
        (before as u64, priorities.len() as u64)
    }

    /// Time that a rate may be ahead.
    fn burst(&self, rate: Rate, ms: u64) -> u64 {
        let least = LEAST_BURST.max(self.spec.largest * 4) + u64::from(self.spec.overhead) * 16;
        units((ms * 1_000_000).max(rate.nanos(least)))
    }

    fn meter(&mut self, owner: Owner, rate: Option<Rate>, committed: Option<Rate>, ms: u64) -> u16 {
        let id = owner.id();
        let free = || self.numbers.meters_used.iter().position(|used| !used).map(|n| n as u16);
        let Some(no) = self.numbers.by_id.get(&id).copied().or_else(free) else {
            self.plan.complete = false;
            return 0;
        };
        self.numbers.by_id.insert(id, no);
        self.numbers.meters_used[usize::from(no)] = true;
        let planned = PlannedMeter {
            id,
            // Without a rate a packet takes no time, so any burst will do.
            burst: rate.map_or(units(1_000_000_000), |r| self.burst(r, ms)),
            cost: rate.map_or(0, Rate::cost),
            committed_burst: committed.map_or(0, |r| self.burst(r, ms)),
            committed_cost: committed.map_or(0, Rate::cost),
        };
        self.plan.meters.insert(no, planned);
        if !self.plan.owners.iter().any(|(o, _)| *o == owner) {
            self.plan.owners.push((owner, no));
        }
        no
    }

    fn set(&mut self, key: GroupKey, borrow_limits: [u64; GROUP_LINKS], remark: u8) -> Option<MeterGroupNo> {
        let numbers = &mut *self.numbers;
        let free = || {
            let after = numbers.by_key.len() + 1;
            (after..numbers.sets_used.len())
                .chain(1..after)
                .find(|n| !numbers.sets_used[*n])
                .and_then(|n| MeterGroupNo::new(n as u16))
        };
        let Some(no) = numbers.by_key.get(&key).copied().or_else(free) else {
            self.plan.complete = false;
            return None;
        };
        numbers.by_key.insert(key, no);
        numbers.sets_used[no.index()] = true;
        let overhead = u16::try_from(self.spec.overhead).unwrap_or(u16::MAX);
        self.plan
            .sets
            .insert(no, PlannedGroup { key, borrow_limits, overhead, remark, slack: self.spec.slack });
        Some(no)
    }
}
