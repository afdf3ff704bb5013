//! Meters in XDP: the arithmetic is that of the workers, number by number; a metered flow passes and
//! is dropped where it must be; the rate over real time is the one ordered.

mod common;
#[path = "meters/compile.rs"]
mod compile;

use common::packet::*;
use common::*;
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, ProgramInput};
use sag_bpf::TestFrame;
use sag_model::flow::*;
use sag_model::meter::{Meter, MeterGroup};
use sag_model::{DropReason, Dscp, Nanos, PortIdx, Zone};
use sag_packet::checksum;
use sag_pipeline::qos::meter::{Rate, police, units};
use sag_pipeline::qos::{Car, Mark, MeterTable, MeteredPort, QosSpec};
use sag_testkit::Rng;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

const HOST: [u8; 4] = [192, 168, 1, 10];
const FAR: [u8; 4] = [198, 51, 100, 7];

/// The program that runs `gw_police` on what the maps say.
struct Lab {
    object: Object,
}

impl Lab {
    fn new() -> Lab {
        let object = compile::object("tests/meters/meter.bpf.c");
        let open = ObjectBuilder::default().name("meter").unwrap().open_memory(&object).unwrap();
        Lab { object: open.load().unwrap() }
    }

    fn map(&self, name: &str) -> MapHandle {
        MapHandle::try_from(&self.object.maps().find(|m| m.name() == name).unwrap()).unwrap()
    }

    fn police(&self, set: &MeterGroup, meters: &[Meter], (bytes, now, slack): (u64, u64, u64)) -> u32 {
        let map = self.map("lab_meters");
        for (n, m) in meters.iter().enumerate() {
            let bytes = words(m).map(u64::to_ne_bytes).concat();
            map.update(&(n as u32).to_ne_bytes(), &bytes, MapFlags::ANY).unwrap();
        }
        let [a, b, c] = set.links.each_ref().map(|l| u64::from(l.load(Relaxed)));
        let head = u64::from(set.car.load(Relaxed)) | a << 16 | b << 32 | c << 48;
        let mut case = vec![head, 0];
        case.extend(set.borrow_limit.iter().map(|w| w.load(Relaxed)));
        case.extend([0, 0, 0, now, slack, bytes]);
        let case: Vec<u8> = case.into_iter().flat_map(u64::to_ne_bytes).collect();
        self.map("lab_case").update(&0u32.to_ne_bytes(), &case, MapFlags::ANY).unwrap();
        let program = self.object.progs_mut().find(|p| p.name() == "lab_police").unwrap();
        let frame = [0u8; 14];
        let input = ProgramInput { data_in: Some(&frame), ..ProgramInput::default() };
        program.test_run(input).unwrap().return_value
    }

    fn meter(&self, n: u32) -> [u64; 2] {
        let v = self.map("lab_meters").lookup(&n.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
        let word = |i: usize| u64::from_ne_bytes(v[i * 8..i * 8 + 8].try_into().unwrap());
        [word(0), word(1)]
    }
}

fn words(m: &Meter) -> [u64; 8] {
    let all: [&AtomicU64; 8] =
        [&m.tat, &m.committed_tat, &m.cost, &m.committed_cost, &m.burst, &m.committed_burst, &m.id, &m.pad];
    all.map(|w| w.load(Relaxed))
}

/// A meter somewhere around a moment, of any rate.
fn meter(d: &mut Rng, now: u64) -> Meter {
    let m = Meter::default();
    let rates = [10_000, 1_000_000, 33_000_000, 400_000_000, 40_000_000_000, 1_000_000_000_000];
    let near = |d: &mut Rng| {
        let span = d.pick(&[1u64 << 10, 1 << 20, 1 << 36, 1 << 50]);
        units(now).wrapping_add(d.roll() % span).wrapping_sub(span / 2)
    };
    m.tat.store(near(d), Relaxed);
    m.committed_tat.store(near(d), Relaxed);
    m.cost.store(if d.once_in(8) { 0 } else { Rate(d.pick(&rates)).cost() }, Relaxed);
    m.committed_cost.store(if d.once_in(3) { 0 } else { Rate(d.pick(&rates)).cost() }, Relaxed);
    m.burst.store(d.roll() % d.pick(&[1 << 12, 1 << 24, 1 << 40]), Relaxed);
    m.committed_burst.store(d.roll() % d.pick(&[1 << 12, 1 << 24, 1 << 40]), Relaxed);
    m
}

fn copy(m: &Meter) -> Meter {
    let c = Meter::default();
    c.tat.store(m.tat.load(Relaxed), Relaxed);
    c.committed_tat.store(m.committed_tat.load(Relaxed), Relaxed);
    c.cost.store(m.cost.load(Relaxed), Relaxed);
    c.committed_cost.store(m.committed_cost.load(Relaxed), Relaxed);
    c.burst.store(m.burst.load(Relaxed), Relaxed);
    c.committed_burst.store(m.committed_burst.load(Relaxed), Relaxed);
    c
}

#[test]
fn xdp_and_workers_calculate_alike() {
    let Some(_fs) = root() else { return };
    let lab = Lab::new();
    let seed = std::env::var("SAG_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
    let mut d = Rng::new(seed);
    let mut seen = std::collections::BTreeMap::new();
    for n in 0..20_000 {
        let now = if d.once_in(10) { d.roll() } else { d.roll() >> 20 };
        let meters: Vec<Meter> = (0..5).map(|_| meter(&mut d, now)).collect();
        let set = MeterGroup::default();
        let links = (d.roll() % 4) as u16;
        set.car.store(u16::from(!d.once_in(3)), Relaxed);
        for (i, (l, w)) in set.links.iter().zip(&set.borrow_limit).enumerate() {
            l.store(if (i as u16) < links { i as u16 + 2 } else { 0 }, Relaxed);
            w.store(d.roll() % d.pick(&[1 << 12, 1 << 24, 1 << 40]), Relaxed);
        }
        let bytes = d.pick(&[20, 64, 1500, 9000, 65_791]) - d.roll() % 20;
        let slack = if d.once_in(2) { 0 } else { d.roll() % 8_000_000 };
        let rust: Vec<Meter> = meters.iter().map(copy).collect();
        let by_rust = police(&set, &rust, bytes, now, slack);
        let by_xdp = lab.police(&set, &meters, (bytes, now, slack));
        let want = by_rust.reason().map_or(0, |r| r as u32);
        assert_eq!(by_xdp, want, "SAG_SEED={seed}, case {n}");
        for (i, m) in rust.iter().enumerate().skip(1) {
            let tats = [m.tat.load(Relaxed), m.committed_tat.load(Relaxed)];
            assert_eq!(lab.meter(i as u32), tats, "SAG_SEED={seed}, case {n}, meter {i}");
        }
        *seen.entry(format!("{by_rust:?}")).or_insert(0) += 1;
    }
    println!("{seen:?}");
    assert!(seen.len() == 3 && seen.values().all(|n| *n > 500), "{seen:?}");
}

/// A metered flow from LAN to WAN: the frame, and the book of its meters.
struct Flow {
    f: Fixture,
    frame: Vec<u8>,
    book: MeterTable,
    len: u64,
}

impl Flow {
    fn new(ceiling: u64, burst_ms: u64, link: Option<u64>) -> Option<Flow> {
        let f = Fixture::new()?;
        f.nexthop(4, 0, 1500, 9, NH_VALID);
        let mut book = MeterTable::over(f.gw.meters(), f.gw.meter_groups(), f.gw.passed_bytes());
        let port = |i| MeteredPort {
            name: format!("{i}"),
            zone: Some(if PortIdx(i) == WAN { Zone::Wan } else { Zone::Lan }),
            rate: link.filter(|_| PortIdx(i) == WAN).map(Rate::mbps),
        };
        let car = Car {
            id: "c".into(),
            priority: 1,
            committed: None,
            peak: Some(Rate::mbps(ceiling)),
            burst_ms,
            remark: Dscp::new(46),
        };
        let any = sag_acl::Rule {
            proto: None,
            src: sag_acl::Prefix::ANY,
            dst: sag_acl::Prefix::ANY,
            sport: sag_acl::PortRange::ANY,
            dport: sag_acl::PortRange::ANY,
            header: sag_acl::HeaderMatch::ANY,
        };
        let wanted = QosSpec {
            ports: (0..6).map(port).collect(),
            cars: vec![car],
            v4: vec![(any, sag_pipeline::policy::Verdict { accept: true, slot: 0 })],
            link_burst_ms: burst_ms,
            slack: 8_000_000,
            overhead: 4,
            largest: 100,
            ..QosSpec::default()
        };
        let (policy, plan) = book.numbers().plan(&wanted);
        assert!(plan.is_complete());
        book.apply(&plan, now());
        let tuple = sag_pipeline::policy::Tuple {
            proto: 17,
            src: HOST.into(),
            dst: FAR.into(),
            sport: 1000,
            dport: 53,
        };
        let set = policy.classify(LAN, WAN, Mark::default(), || tuple).group.expect("a group").get();
        let raw = |a: [u8; 4]| u64::from(u32::from_le_bytes(a));
        let key = Key4 {
            addrs: raw(HOST) | raw(FAR) << 32,
            l4: l4_word(1000u16.to_be(), 53u16.to_be(), 17, Zone::Lan),
        };
        let a =
            Action { nexthop: 4, meter: set, act: FlowAct::Forward, flags: FLOW_METER, tunnel: 0, nh_gen: 9 };
        f.install4(2, key, |r| r.action.store(a.to_word(), Relaxed));
        let mut frame = v4(HOST, FAR, 17, udp(1000, 53, &[7; 972])).frame(None);
        // Congestion was met on the way: that stays.
        frame[15] = 34 << 2 | 3;
        frame[24..26].fill(0);
        let check = checksum::finish(checksum::sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&check.to_ne_bytes());
        Some(Flow { f, frame, book, len: 1000 })
    }

    /// Whether a frame passes; counts and books are checked.
    fn passes(&self) -> Result<(), DropReason> {
        let (r, before) = (&self.f.gw.flows4()[2], self.f.gw.stats(LAN).unwrap());
        let packets = r.packets.load(Relaxed);
        let run = self.f.run(&self.frame);
        let after = self.f.gw.stats(LAN).unwrap();
        if run.action == XDP_REDIRECT {
            assert_eq!(run.note, None);
            assert_eq!(run.frame[15], 46 << 2 | self.frame[15] & 3, "the mark of the CAR");
            assert_eq!(checksum::fold(checksum::sum(&run.frame[14..34])), 0xFFFF);
            assert_eq!((after.fast, r.packets.load(Relaxed)), (before.fast + 1, packets + 1));
            return Ok(());
        }
        assert_eq!(run.action, XDP_DROP);
        assert_eq!(run.frame, self.frame, "dropped, not changed");
        assert_eq!(r.packets.load(Relaxed), packets, "not forwarded, not counted");
        let moved = |r: &&DropReason| after.drops(**r) == before.drops(**r) + 1;
        Err(*DropReason::ALL.iter().find(moved).expect("a reason"))
    }

    /// Sends 80 packets through a full bucket of the least size at 1 Mbit/s, which has room for 24 and gains
    /// one every 8 ms: (passed, dropped), the latter by this reason alone.
    fn press(&self, reason: DropReason) -> (u64, u64) {
        let start = Instant::now();
        let got: Vec<_> = (0..80).map(|_| self.passes()).collect();
        let gained = start.elapsed().as_millis() as u64 / 8;
        let passed = got.iter().filter(|g| g.is_ok()).count() as u64;
        let dropped = got.iter().filter(|g| **g == Err(reason)).count() as u64;
        assert_eq!(passed + dropped, 80, "{got:?}");
        assert!((23..=25 + gained).contains(&passed) && passed < 80, "{passed}, {gained} gained: {got:?}");
        (passed, dropped)
    }

    fn car(&self) -> sag_pipeline::qos::MeterCounts {
        let (_, n) = self.book.owners().find(|(o, _)| format!("{o:?}").contains("Car")).unwrap();
        self.book.counted(n)
    }
}

/// The clock of `bpf_ktime_get_ns`.
fn now() -> Nanos {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time goes to a value that lives through the call.
    #[allow(unsafe_code)]
    let r = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    assert_eq!(r, 0);
    Nanos(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}

#[test]
fn a_burst_passes_and_what_is_over_it_is_dropped_by_name() {
    // A hundredth of a second of 1 Mbit/s is less than the least burst: 24,224 bytes and overhead.
    let Some(flow) = Flow::new(1, 10, None) else { return };
    let (passed, dropped) = flow.press(DropReason::CarExceeded);
    let car = flow.car();
    assert_eq!(car.passed, passed * (flow.len + 4));
    assert_eq!((car.over_car, car.over_link), (dropped * (flow.len + 4), 0));
}

#[test]
fn a_link_drops_by_its_own_name_and_what_it_drops_is_not_the_cars() {
    let Some(flow) = Flow::new(1000, 10, Some(1)) else { return };
    let (_, dropped) = flow.press(DropReason::LinkExceeded);
    let car = flow.car();
    assert_eq!((car.over_car, car.over_link), (0, dropped * 1004));
}

/// As fast as frames can be given to the program, for a third of a second.
#[test]
fn over_real_time_the_rate_is_the_one_ordered() {
    let Some(flow) = Flow::new(8, 100, None) else { return };
    while flow.passes().is_ok() {}
    let (start, mut passed) = (Instant::now(), 0u64);
    let mut longest = Duration::ZERO;
    let mut last = start;
    while start.elapsed() < Duration::from_millis(350) {
        passed += u64::from(flow.passes().is_ok());
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    // A byte in a microsecond; the bucket was empty.
    let fair = start.elapsed().as_micros() as u64;
    let bytes = passed * 1004;
    println!("{bytes} bytes in {fair} us, longest pause {longest:?}");
    assert!(bytes <= fair + 2008, "{bytes} bytes in {fair} us");
    if longest < Duration::from_millis(90) {
        // The last pause may have left something to pass.
        let paused = longest.as_micros() as u64;
        assert!((bytes + paused) * 100 >= fair * 98, "{bytes} bytes in {fair} us");
    }
}

/// What CPUs have charged a meter for ahead (`struct gw_stats`): of each, what is left, when it was charged, for which
/// group.
struct Ahead(MapHandle);

/// Byte offsets of `ahead`, `ahead_nanos` and `ahead_group`.
const LEFT: std::ops::Range<usize> = 16..24;
const AT: std::ops::Range<usize> = 24..32;
const GROUP: std::ops::Range<usize> = 32..36;

impl Ahead {
    fn of(flow: &Flow) -> Ahead {
        Ahead(MapHandle::from_pinned_path(flow.f.fs.pin_dir().join("gw_stats")).unwrap())
    }

    fn cpus(&self) -> Vec<Vec<u8>> {
        self.0.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap()
    }

    fn left(&self) -> u64 {
        self.cpus().iter().map(|c| u64::from_ne_bytes(c[LEFT].try_into().unwrap())).sum()
    }

    /// The same for all CPUs: the test may run on any.
    fn set(&self, group: u32, left: u64) {
        let mut cpus = self.cpus();
        for c in &mut cpus {
            c[LEFT].copy_from_slice(&left.to_ne_bytes());
            c[GROUP].copy_from_slice(&group.to_ne_bytes());
        }
        self.0.update_percpu(&0u32.to_ne_bytes(), &cpus, MapFlags::ANY).unwrap();
    }
}

#[test]
fn what_is_charged_ahead_passes_without_the_meter() {
    let Some(flow) = Flow::new(8, 100, None) else { return };
    let group = Action::from_word(flow.f.gw.flows4()[2].action.load(Relaxed)).meter;
    let no = flow.f.gw.meter_groups()[usize::from(group)].car.load(Relaxed);
    let meter = &flow.f.gw.meters()[usize::from(no)];
    let ahead = Ahead::of(&flow);
    assert!(flow.passes().is_ok());
    let (tat, passed) = (meter.tat.load(Relaxed), flow.car().passed);
    // A packet of 1,004 bytes takes 1,004 microseconds of this rate.
    let time = units(1_004_000);
    ahead.set(u32::from(group), 10 * time);
    let before = ahead.left();
    for _ in 0..3 {
        assert!(flow.passes().is_ok());
    }
    assert_eq!(meter.tat.load(Relaxed), tat, "the meter was charged before");
    assert_eq!(before - ahead.left(), 3 * time);
    assert_eq!(flow.car().passed - passed, 3 * 1004);
    // What is left of another group is not for this one.
    ahead.set(u32::from(group) + 1, 10 * time);
    assert!(flow.passes().is_ok());
    assert_eq!((ahead.left(), meter.tat.load(Relaxed) > tat), (before, true));
    // Too little is left, and no other CPU was there in this jiffy: the packet is charged by itself.
    let tat = meter.tat.load(Relaxed);
    ahead.set(u32::from(group), time - 1);
    assert!(flow.passes().is_ok());
    let more = meter.tat.load(Relaxed) - tat;
    assert!((time..2 * time).contains(&more), "{more} for a packet of {time}");
    let out = ahead.cpus().iter().filter(|c| c[GROUP] == [0; 4]).count();
    assert_eq!(out, 1, "its CPU charges single packets again");
}

/// Every CPU sends at once through one meter: together they get what one gets, to the byte that the
/// books say.
#[test]
fn cpus_that_share_a_meter_get_no_more_than_one() {
    // Twenty bytes a microsecond, a fraction of what the senders can offer.
    share_a_meter(160, true);
}

/// The same of a rate at which a CPU charges for several packets ahead.
#[test]
fn cpus_that_charge_ahead_get_no_more_than_one() {
    share_a_meter(40_000, false);
}

fn share_a_meter(mbits: u64, pressed: bool) {
    const SENDERS: u64 = 4;
    let Some(flow) = Flow::new(mbits, 10, None) else { return };
    let end = AtomicBool::new(false);
    let send = || {
        let (mut passed, mut dropped) = (0u64, 0u64);
        while !end.load(Relaxed) {
            let frame = TestFrame { bytes: &flow.frame, ifindex: 0, queue: 0 };
            match flow.f.gw.test_run(frame).unwrap().action {
                XDP_REDIRECT => passed += 1,
                XDP_DROP => dropped += 1,
                other => panic!("action {other}"),
            }
        }
        (passed, dropped)
    };
    // Empties the bucket. At 40 Gbit/s nobody can: a rate that is exceeded is not charged ahead.
    while pressed && flow.passes().is_ok() {}
    let burst = if pressed { 2008 } else { mbits * 125 * 10 };
    let before = flow.car();
    let (start, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    let several = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
    let ahead = Ahead::of(&flow);
    let charged_ahead = || ahead.cpus().iter().any(|c| c[AT] != [0; 8]);
    let has_happened = || pressed || !several || charged_ahead();
    let sums = std::thread::scope(|s| {
        let senders: Vec<_> = (0..SENDERS).map(|_| s.spawn(send)).collect();
        // On a busy machine it takes its time until one sender comes between another's look and charge.
        let enough =
            |t: Duration| t > Duration::from_millis(700) && (has_happened() || t > Duration::from_secs(30));
        while !enough(start.elapsed()) {
            std::thread::sleep(Duration::from_millis(1));
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        end.store(true, Relaxed);
        senders.into_iter().map(|t| t.join().expect("a sender")).collect::<Vec<_>>()
    });
    let fair = start.elapsed().as_micros() as u64 * mbits / 8;
    let (passed, dropped) = sums.iter().fold((0, 0), |(p, d), s| (p + s.0, d + s.1));
    let bytes = passed * 1004;
    println!(
        "{bytes} of {fair} bytes, {dropped} packets dropped by {SENDERS} senders, longest pause {longest:?}"
    );
    assert!(sums.iter().all(|s| s.0 + s.1 > 0), "{sums:?}");
    assert!(bytes <= fair + burst, "{bytes} bytes of {fair}");
    if pressed {
        assert!(dropped > 1000, "the meter was not pressed");
    }
    assert!(has_happened(), "no CPU came between two others");
    // While all senders wait for a CPU, the bucket of 10 ms may run over.
    if pressed && longest < Duration::from_millis(9) {
        assert!(bytes * 100 >= fair * 95, "{bytes} bytes of {fair}");
    }
    let after = flow.car();
    assert_eq!((after.passed - before.passed, after.over_car - before.over_car), (bytes, dropped * 1004));
}

#[test]
fn the_next_daemon_finds_the_meters_and_their_state() {
    let Some(flow) = Flow::new(1, 200, None) else { return };
    while flow.passes().is_ok() {}
    let emptied = Instant::now();
    let owners: Vec<_> = flow.book.owners().map(|(o, n)| (o.clone(), n)).collect();
    let Flow { f, frame, .. } = flow;
    let fresh = MeterTable::over(f.gw.meters(), f.gw.meter_groups(), f.gw.passed_bytes());
    for (_, n) in &owners {
        assert_eq!(fresh.counted(*n), Default::default(), "books begin with the daemon");
    }
    let passed = (0..20).filter(|_| f.run(&frame).action != XDP_DROP).count() as u64;
    // A full bucket would let all of them pass; an empty one gains a packet in 8 ms.
    let gained = emptied.elapsed().as_millis() as u64 / 8 + 1;
    assert!(passed <= gained, "{passed} packets of an empty bucket");
}
