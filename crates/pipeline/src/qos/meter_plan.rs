//! From a [`QosSpec`] to a policy and to the meters that it needs, without a look at the shared memory.

use super::meter::{Rate, units};
use super::policy::{MeterGroupNo, QosPolicy, Rules};
use super::spec::{Car, Direction, QosSpec};
use sag_model::Zone;
use sag_model::meter::{GROUP_LINKS, METER_GROUPS, METERS, Meter, MeterGroup, REMARK};
use std::collections::{BTreeMap, HashMap};

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
            Owner::Car(id, direction) => format!("car/{id}/{}", direction.name()),
            Owner::Overlay(direction) => format!("overlay/{}", direction.name()),
            Owner::Internet => "internet/up".to_owned(),
            Owner::Port(name, direction) => format!("port/{name}/{}", direction.name()),
        };
        let step = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3);
        name.bytes().fold(0xCBF2_9CE4_8422_2325, step) | 1
    }
}

pub(super) type GroupKey = [u16; 1 + GROUP_LINKS];

/// Fewest bytes of a burst, however slow the rate: sixteen full Ethernet frames.
const LEAST_BURST: u64 = 16 * 1514;

/// Which number each meter and each meter group has: what a compiler needs to know of the shared memory. Planning reads
/// no shared word and writes none.
#[derive(Debug)]
pub struct MeterNumbers {
    pub(super) meters: &'static [Meter],
    pub(super) groups: &'static [MeterGroup],
    pub(super) by_id: HashMap<u64, u16>,
    pub(super) by_key: HashMap<GroupKey, MeterGroupNo>,
    /// By number: whether it is in use. Number 0 always is.
    pub(super) meters_used: Vec<bool>,
    pub(super) groups_used: Vec<bool>,
}

/// The meters and groups of one compilation, to be written by [`MeterTable::apply`](super::MeterTable::apply) before a snapshot names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeterPlan {
    /// All meters and groups of earlier plans are given up first: too many of them were in use.
    pub(super) clear: bool,
    pub(super) meters: BTreeMap<u16, PlannedMeter>,
    pub(super) groups: BTreeMap<MeterGroupNo, PlannedGroup>,
    pub(super) owners: Vec<(Owner, u16)>,
    pub(super) complete: bool,
}

impl MeterPlan {
    /// `false`: there were too few meters or groups, and some traffic is not metered.
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

/// The words of a meter that the configuration groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedMeter {
    pub(super) id: u64,
    pub(super) burst: u64,
    pub(super) cost: u64,
    pub(super) committed_burst: u64,
    pub(super) committed_cost: u64,
}

/// The words of a group that the configuration groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedGroup {
    pub(super) key: GroupKey,
    pub(super) borrow_limits: [u64; GROUP_LINKS],
    pub(super) overhead: u16,
    pub(super) remark: u8,
    pub(super) slack: u32,
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
            return (QosPolicy { meters: self.meters, groups: self.groups, ..QosPolicy::default() }, plan);
        }
        if self.by_id.len() * 2 > METERS || self.by_key.len() * 2 > METER_GROUPS {
            plan.clear = true;
            self.by_id.clear();
            self.by_key.clear();
            self.meters_used = first_used(self.meters.len());
            self.groups_used = first_used(self.groups.len());
        }
        let mut b = Build { numbers: self, spec, plan };
        let groups_by_path = b.groups_by_path();
        let plan = b.plan;
        let policy = QosPolicy {
            rules: Rules::build(spec, None),
            vrf_rules: Rules::of_vrfs(spec),
            car_of: Rules::cars(spec, &groups_by_path),
            ports: spec.ports.len(),
            groups_by_path,
            cars: spec.cars.iter().map(|c| c.id.clone()).collect(),
            meters: self.meters,
            groups: self.groups,
        };
        (policy, plan)
    }
}

/// Only number 0, which stands for "none", is in use.
pub(super) fn first_used(count: usize) -> Vec<bool> {
    (0..count).map(|n| n == 0).collect()
}

/// A plan in progress.
struct Build<'b, 'w> {
    numbers: &'b mut MeterNumbers,
    spec: &'w QosSpec,
    plan: MeterPlan,
}

impl Build<'_, '_> {
    /// The group for every pair of ports, without a CAR and with each.
    fn groups_by_path(&mut self) -> Vec<Option<MeterGroupNo>> {
        let n = self.spec.ports.len();
        let mut out = Vec::with_capacity((self.spec.cars.len() + 1) * n * n);
        for car in std::iter::once(None).chain(self.spec.cars.iter().map(Some)) {
            for from in 0..n {
                for to in 0..n {
                    out.push(self.group_for(car, from, to));
                }
            }
        }
        out
    }

    fn group_for(&mut self, car: Option<&Car>, from: usize, to: usize) -> Option<MeterGroupNo> {
        let w = self.spec;
        let (from, to) = (&w.ports[from], &w.ports[to]);
        let (Some(zone_in), Some(zone_out)) = (from.zone, to.zone) else { return None };
        let (direction, far) = match (zone_in, zone_out) {
            (Zone::Lan, Zone::Lan) => (None, Zone::Lan),
            (_, Zone::Lan) => (Some(Direction::Down), zone_in),
            (_, far) => (Some(Direction::Up), far),
        };
        let mut links: [Option<(Owner, Rate)>; GROUP_LINKS] = Default::default();
        links[0] = match (far, direction) {
            (Zone::Overlay, Some(direction)) => w.overlay.map(|r| (Owner::Overlay(direction), r)),
            (Zone::Wan, Some(Direction::Up)) => w.internet_up.map(|r| (Owner::Internet, r)),
            _ => None,
        };
        links[1] = to.rate.map(|r| (Owner::Port(to.name.clone(), Direction::Up), r));
        links[2] = from.rate.map(|r| (Owner::Port(from.name.clone(), Direction::Down), r));
        let car = car.zip(direction);
        if car.is_none() && links.iter().all(Option::is_none) {
            return None;
        }
        let mut key = GroupKey::default();
        let mut borrow_limits = [0; GROUP_LINKS];
        if let Some((car, direction)) = car {
            key[0] = self.meter(Owner::Car(car.id.clone(), direction), car.peak, car.committed, car.burst_ms);
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
        self.group(key, borrow_limits, remark.map_or(0, |d| REMARK | d.get()))
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

    fn group(
        &mut self,
        key: GroupKey,
        borrow_limits: [u64; GROUP_LINKS],
        remark: u8,
    ) -> Option<MeterGroupNo> {
        let numbers = &mut *self.numbers;
        let free = || {
            let after = numbers.by_key.len() + 1;
            (after..numbers.groups_used.len())
                .chain(1..after)
                .find(|n| !numbers.groups_used[*n])
                .and_then(|n| MeterGroupNo::new(n as u16))
        };
        let Some(no) = numbers.by_key.get(&key).copied().or_else(free) else {
            self.plan.complete = false;
            return None;
        };
        numbers.by_key.insert(key, no);
        numbers.groups_used[no.index()] = true;
        let overhead = u16::try_from(self.spec.overhead).unwrap_or(u16::MAX);
        self.plan
            .groups
            .insert(no, PlannedGroup { key, borrow_limits, overhead, remark, slack: self.spec.slack });
        Some(no)
    }
}
