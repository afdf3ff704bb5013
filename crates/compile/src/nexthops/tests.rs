use super::*;
use sag_model::{VrfNo, Zone};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::AtomicBool;

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

fn ports() -> Vec<Port> {
    let port = |i: u8| Port {
        name: i.to_string(),
        zone: Zone::Lan,
        vrf: VrfNo::DEFAULT,
        dev: i,
        ifindex: 10 + u32::from(i),
        vlan: 0,
        mac: MacAddr([2, 0, 0, 0, 1, i]),
        macs: Vec::new(),
        mtu: 1500,
        up: true,
        addrs4: Vec::new(),
        addrs6: Vec::new(),
        reverse_path: sag_model::config::ReversePath::Strict,
        mss_clamp: false,
        failed: false,
    };
    (0..4).map(port).collect()
}

fn v4(port: u8, n: u32) -> NeighborKey {
    (PortIdx(port), IpAddr::V4(Ipv4Addr::from_bits(0x0A00_0000 + n)))
}

fn v6(port: u8, n: u32) -> NeighborKey {
    (PortIdx(port), IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(n))))
}

/// Numbers, records, and the grace periods between them.
struct Bench {
    ports: Vec<Port>,
    table: NextHopTable,
    numbers: NextHopNumbers,
    grace: Arc<Grace>,
    now: Nanos,
    written: usize,
}

impl Bench {
    /// As the daemon has them: half of the records that XDP knows.
    fn new(records: usize) -> Bench {
        let records: &'static [NextHopRecord] =
            Vec::leak((0..records).map(|_| NextHopRecord::default()).collect());
        let table = NextHopTable::open(records, 0);
        let mut numbers = table.numbers();
        let grace = Arc::new(Grace::default());
        numbers.reuse_after(grace.clone());
        Bench { ports: ports(), table, numbers, grace, now: Nanos::from_secs(1), written: 0 }
    }

    fn set(&mut self, key: NeighborKey, mac: Option<MacAddr>) -> bool {
        let (plan, complete) = self.numbers.plan_one(&self.ports, key, mac, self.now);
        self.written += plan.len() + plan.removed.len();
        self.table.apply(&plan);
        complete
    }

    fn expire(&mut self) {
        let plan = self.numbers.expire(self.now);
        self.table.apply(&plan);
    }

    fn grace_period(&mut self) {
        if self.grace.requested.swap(false, Ordering::SeqCst) {
            let n = self.grace.started.fetch_add(1, Ordering::SeqCst) + 1;
            self.grace.done.store(n, Ordering::SeqCst);
        }
    }

    /// What a worker finds.
    fn found(&self, key: NeighborKey) -> Option<(NhIdx, NextHop)> {
        let no = self.numbers.table().get(&key)?;
        Some((no, NextHop::load(&self.table.records()[no.index()])))
    }
}

/// 36,000 neighbors that come and go in the course of days: numbers are reused, and what one of them costs does not
/// depend on the others.
#[test]
fn neighbors_that_come_and_go_do_not_use_numbers_up() {
    let mut b = Bench::new(65536);
    assert!(b.set(v4(1, 1), Some(MAC)));
    let router = b.found(v4(1, 1));
    for n in 0..36_000u32 {
        let key = if n % 2 == 0 { v4(0, n) } else { v6(0, n) };
        assert!(b.set(key, Some(MAC)), "neighbor {n}");
        assert!(b.found(key).is_some_and(|(_, nh)| nh.valid()));
        assert!(b.set(key, None));
        assert!(b.found(key).is_none_or(|(_, nh)| !nh.valid()));
        b.now = b.now + std::time::Duration::from_millis(100);
        b.grace_period();
    }
    // 30 s of rest at 10 a second, and those of a grace period.
    let (used, all) = b.numbers.usage();
    assert!(used < 310, "{used} of {all} numbers");
    assert_eq!(all, 32_767);
    assert_eq!(b.numbers.refused(), 0);
    assert_eq!(b.found(v4(1, 1)), router, "others are not touched");
    // A record and its removal for each, and nothing else.
    assert!(b.written <= 3 * 36_000 + 1, "{} records for 36,000 neighbors", b.written);
    b.now = b.now + std::time::Duration::from_secs(31);
    for _ in 0..2 {
        b.expire();
        b.grace_period();
    }
    b.expire();
    assert_eq!(b.numbers.usage().0, 1);
    assert_eq!(b.table.len(), 1);
}

/// A number is not another neighbor's before nobody can hold it any more, and then with another generation.
#[test]
fn a_number_is_reused_after_rest_and_grace_period_with_another_generation() {
    // Numbers 1 and 2, or 3.
    let mut b = Bench::new(8);
    assert!(b.set(v4(0, 1), Some(MAC)));
    let (no, first) = b.found(v4(0, 1)).unwrap();
    // While it rests, the neighbor finds it again, as it was.
    b.set(v4(0, 1), None);
    let (same, resting) = b.found(v4(0, 1)).unwrap();
    assert!(same == no && !resting.valid() && resting.generation == first.generation);
    b.set(v4(0, 1), Some(MAC));
    assert_eq!(b.found(v4(0, 1)), Some((no, first)));
    // Others get the fresh ones.
    b.numbers.set_fixed([v4(0, 2), v4(0, 3), v4(0, 4)]);
    assert!(b.set(v4(0, 2), Some(MAC)) && b.set(v4(0, 3), Some(MAC)));
    b.set(v4(0, 1), None);
    assert!(!b.set(v4(0, 4), Some(MAC)), "it rests");
    b.now = b.now + std::time::Duration::from_secs(31);
    b.expire();
    assert_eq!(b.found(v4(0, 1)), None);
    assert!(!b.set(v4(0, 4), Some(MAC)), "a worker may hold it");
    assert!(b.grace.requested.load(Ordering::SeqCst));
    b.grace_period();
    assert!(b.set(v4(0, 4), Some(MAC)));
    let (reused, nh) = b.found(v4(0, 4)).unwrap();
    assert_eq!(reused, no);
    assert!(nh.valid() && nh.generation != first.generation, "no session's record names it any more");
}

/// Whoever brings up as many neighbors as it likes on one port leaves room for the others, and for routers.
#[test]
fn one_port_does_not_take_the_numbers_of_the_others() {
    let mut b = Bench::new(65536);
    let admitted = (0..40_000).filter(|n| b.set(v6(0, *n), Some(MAC))).count();
    assert_eq!(admitted, 32_768 / 2);
    assert!(b.numbers.refused() > 0);
    assert!(b.set(v4(0, 1), Some(MAC)), "the other family");
    assert!(b.set(v6(1, 1), Some(MAC)), "another port");
    b.numbers.set_routers([RouterUse { key: v6(0, 99_999), mtu: 0, shared: false }]);
    assert!(b.set(v6(0, 99_999), Some(MAC)), "a router of the same port");
    // They go, and all is as before.
    (0..40_000).for_each(|n| {
        b.set(v6(0, n), None);
    });
    b.now = b.now + std::time::Duration::from_secs(31);
    b.expire();
    b.grace_period();
    b.expire();
    assert_eq!(b.numbers.usage().0, 3);
    assert!(b.set(v6(0, 77), Some(MAC)));
}

/// One that flaps takes one place among those that rest.
#[test]
fn a_flapping_neighbor_leaves_nothing_behind() {
    let mut b = Bench::new(64);
    for _ in 0..10_000 {
        b.set(v4(0, 1), Some(MAC));
        b.set(v4(0, 1), None);
        b.now = b.now + std::time::Duration::from_millis(1);
    }
    assert_eq!(b.numbers.resting.len(), 1);
    b.now = b.now + std::time::Duration::from_secs(20);
    b.set(v4(0, 1), Some(MAC));
    b.set(v4(0, 1), None);
    b.now = b.now + std::time::Duration::from_secs(15);
    b.expire();
    assert!(b.found(v4(0, 1)).is_some(), "its rest began 15 s ago");
    b.now = b.now + std::time::Duration::from_secs(16);
    b.expire();
    assert!(b.found(v4(0, 1)).is_none());
}

/// Before a generation comes round, the policy epoch must be raised.
#[test]
fn generations_wear_out_before_they_come_round() {
    let mut b = Bench::new(8);
    b.set(v4(0, 1), Some(MAC));
    let mut raised = 0;
    while !b.table.is_worn() {
        assert_eq!(b.table.raise_generations(|_, _| true), 1);
        raised += 1;
        assert!(raised < 256, "a record of the first generation would count again");
    }
    b.table.epoch_began();
    assert!(!b.table.is_worn());
}

/// What one neighbor's change costs does not grow with the number of neighbors. Prints the time.
#[test]
fn one_change_costs_what_changed() {
    let (reads, stop) = (std::sync::atomic::AtomicU64::new(0), AtomicBool::new(false));
    let mut b = Bench::new(65536);
    let cost = |b: &mut Bench| {
        b.written = 0;
        let begun = std::time::Instant::now();
        for n in 0..1000 {
            b.set(v4(2, n), Some(MAC));
        }
        (b.written, begun.elapsed() / 1000)
    };
    let table = b.numbers.table().clone();
    std::thread::scope(|s| {
        s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert!(table.get(&v4(3, 9)).is_none());
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (few, time_few) = cost(&mut b);
        (0..10_000).for_each(|n| {
            b.set(v6(1, n), Some(MAC));
        });
        let (many, time_many) = cost(&mut b);
        assert_eq!((few, many), (1000, 1000), "a record each");
        println!("{time_few:?} a change beside few neighbors, {time_many:?} beside 10,000");
        stop.store(true, Ordering::Relaxed);
    });
}
