//! Floors, ceilings and a link between them.

use super::*;

const LEN: u64 = 1250; // 10^4 bits

/// Classes on one link, the first the most important: (floor, ceiling) in Mbit/s.
struct Lab {
    meters: Vec<Meter>,
    sets: Vec<MeterGroup>,
    now: u64,
}

/// Burst of every rate.
const BURST_MS: u64 = 200;

impl Lab {
    fn new(link_mbps: u64, classes: &[(u64, u64)]) -> Lab {
        let wire = Bucket::new(link_mbps, BURST_MS);
        let mut meters = vec![Meter::default(), link(wire)];
        let mut sets = Vec::new();
        for (i, &(floor, ceiling)) in classes.iter().enumerate() {
            let floor = (floor != 0).then(|| Bucket::new(floor, BURST_MS));
            meters.push(car(Bucket::new(ceiling, BURST_MS), floor));
            // The marks of the classes, over the upper half of the burst.
            let window = wire.burst - wire.burst / (2 * classes.len() as u64) * i as u64;
            sets.push(set(meters.len() as u16 - 1, &[(1, window)]));
        }
        Lab { meters, sets, now: START }
    }

    /// So many milliseconds in which each class offers so many Mbit/s; what each gets, in Mbit/s.
    fn run(&mut self, ms: u64, offered: &[u64]) -> Vec<f64> {
        let (mut due, mut got) = (vec![0u64; offered.len()], vec![0u64; offered.len()]);
        // Steps of 10 µs: a packet of 10^4 bits is 1 Gbit/s.
        for _ in 0..ms * 100 {
            self.now += 10_000;
            for (i, &mbps) in offered.iter().enumerate() {
                due[i] += mbps * 10;
                while due[i] >= LEN * 8 {
                    due[i] -= LEN * 8;
                    got[i] += u64::from(passes(&self.sets[i], &self.meters, LEN, self.now));
                }
            }
        }
        got.iter().map(|n| (n * LEN * 8) as f64 / 1000.0 / ms as f64).collect()
    }
}

#[track_caller]
fn about(got: f64, want: f64, percent: f64) {
    assert!((got - want).abs() <= want * percent / 100.0, "{got} is not {want} within {percent} %");
}

#[test]
fn a_floor_holds_against_anyone() {
    let mut lab = Lab::new(100, &[(20, 100), (10, 100), (5, 100)]);
    lab.run(3000, &[500, 500, 500]);
    let got = lab.run(5000, &[500, 500, 500]);
    about(got[1], 10.0, 1.0);
    about(got[2], 5.0, 1.0);
    about(got[0], 85.0, 1.0);
}

#[test]
fn what_is_left_goes_to_the_most_important_that_wants_it() {
    let mut lab = Lab::new(100, &[(0, 30), (0, 100), (10, 100)]);
    lab.run(3000, &[500, 500, 500]);
    let got = lab.run(5000, &[500, 500, 500]);
    about(got[0], 30.0, 1.0);
    about(got[1], 60.0, 1.0);
    about(got[2], 10.0, 1.0);
}

#[test]
fn nobody_passes_the_ceiling_on_an_idle_link() {
    let mut lab = Lab::new(1000, &[(5, 40)]);
    lab.run(1000, &[500]);
    about(lab.run(5000, &[500])[0], 40.0, 0.5);
}

#[test]
fn what_was_lent_is_given_back_at_once() {
    let mut lab = Lab::new(100, &[(40, 100), (10, 100)]);
    lab.run(2000, &[0, 500]);
    about(lab.run(2000, &[0, 500])[1], 100.0, 1.0);
    // The first class comes back: within 100 ms it has its floor, and the other what is left.
    let first = lab.run(100, &[60, 500]);
    assert!(first[0] >= 40.0 && first[1] <= 60.0, "{first:?}");
    let later = lab.run(1000, &[60, 500]);
    about(later[0], 60.0, 1.0);
    about(later[1], 40.0, 2.0);
}

#[test]
fn the_guest_leaves_at_once_whichever_goes_first() {
    for owner in [0, 1] {
        let mut classes = [(0, 100), (0, 100)];
        classes[owner] = (40, 40);
        let mut lab = Lab::new(100, &classes);
        let mut offered = [110, 110];
        offered[owner] = 0;
        lab.run(2000, &offered);
        offered[owner] = 110;
        let first = lab.run(100, &offered);
        assert!(first[owner] >= 40.0, "{first:?}");
        // What the owner's own burst takes is not the guest's either.
        assert!(first[1 - owner] <= 60.0, "{first:?}");
        let later = lab.run(1000, &offered);
        assert!(later[1 - owner] <= 61.0, "{later:?}");
    }
}

#[test]
fn the_link_carries_no_more_than_its_rate() {
    let classes = [(20, 100), (10, 80), (30, 100), (0, 50)];
    let mut lab = Lab::new(100, &classes);
    let got = lab.run(10_000, &[90, 200, 300, 40]);
    let total: f64 = got.iter().sum::<f64>() * 10_000.0;
    // Mbit/s times ms; the link's burst, and those of the floors.
    let bursts = (100.0 + 60.0) * BURST_MS as f64;
    assert!(total <= 100.0 * 10_000.0 + bursts, "{total}");
    let steady = lab.run(5_000, &[90, 200, 300, 40]);
    about(steady.iter().sum(), 100.0, 0.5);
}

#[test]
fn a_floor_that_is_all_of_the_ceiling() {
    let mut lab = Lab::new(100, &[(0, 100), (25, 25)]);
    lab.run(2000, &[400, 400]);
    let got = lab.run(3000, &[400, 400]);
    about(got[1], 25.0, 1.0);
    about(got[0], 75.0, 1.0);
}

#[test]
fn what_is_dropped_is_charged_nowhere() {
    let mut lab = Lab::new(10, &[(0, 100), (0, 5)]);
    lab.run(2000, &[100, 100]);
    let tats = |lab: &Lab| lab.meters.iter().map(|m| m.tat.load(Relaxed)).collect::<Vec<_>>();
    let before = tats(&lab);
    let s = &lab.sets[1];
    for _ in 0..100 {
        assert_eq!(police(s, &lab.meters, LEN, lab.now, 0), Policed::OverLink);
    }
    assert_eq!(tats(&lab), before);
}
