//! Meters that are wide open or shut for hours, so that the two clocks come to the same verdict; and
//! what a packet did to them.

use sag_bpf::Gateway;
use sag_model::Dscp;
use sag_model::meter::{Meter, MeterGroup};
use sag_pipeline::policy::Verdict;
use sag_pipeline::qos::meter::units;
use sag_pipeline::qos::{MeterTable, Rate};
use sag_testkit::*;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Meters and sets that are looked at: a story has fewer.
const METERS: usize = 64;
const SETS: usize = 256;

#[derive(Debug, Clone, Copy)]
pub struct Memory {
    meters: &'static [Meter],
    sets: &'static [MeterGroup],
    by_xdp: &'static [AtomicU64],
}

/// The moments of the meters, and what the sets have counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    tats: Vec<[u64; 2]>,
    counts: Vec<[u64; 3]>,
}

/// Which moments a packet moved, and what it counted where.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    moved: Vec<(usize, [bool; 2])>,
    counted: Vec<(usize, [u64; 3])>,
}

impl Change {
    pub fn charged(&self) -> bool {
        !self.moved.is_empty()
    }
}

impl Memory {
    pub fn of(gw: &Gateway) -> Memory {
        Memory { meters: gw.meters(), sets: gw.meter_groups(), by_xdp: gw.passed_bytes() }
    }

    /// An empty book over cleared memory.
    pub fn book(&self) -> MeterTable {
        for m in self.meters {
            m.id.store(0, Relaxed);
        }
        for s in self.sets {
            s.car.store(0, Relaxed);
            s.links.iter().for_each(|l| l.store(0, Relaxed));
        }
        MeterTable::over(self.meters, self.sets, &[])
    }

    pub fn state(&self) -> State {
        let meters = self.meters.iter().take(METERS);
        let sets = self.sets.iter().take(SETS);
        let load = |w: &std::sync::atomic::AtomicU64| w.load(Relaxed);
        State {
            tats: meters.map(|m| [load(&m.tat), load(&m.committed_tat)]).collect(),
            counts: sets
                .enumerate()
                .map(|(n, s)| {
                    let passed = load(&s.passed_bytes).wrapping_add(self.by_xdp(n));
                    [passed, load(&s.car_dropped_bytes), load(&s.link_dropped_bytes)]
                })
                .collect(),
        }
    }

    fn by_xdp(&self, set: usize) -> u64 {
        let words = self.by_xdp.iter().skip(set).step_by(self.sets.len());
        words.map(|w| w.load(Relaxed)).fold(0, u64::wrapping_add)
    }

    pub fn restore(&self, to: &State) {
        for (m, [tat, floor]) in self.meters.iter().zip(&to.tats) {
            m.tat.store(*tat, Relaxed);
            m.committed_tat.store(*floor, Relaxed);
        }
        for (n, (s, [a, b, c])) in self.sets.iter().zip(&to.counts).enumerate() {
            s.passed_bytes.store(a.wrapping_sub(self.by_xdp(n)), Relaxed);
            s.car_dropped_bytes.store(*b, Relaxed);
            s.link_dropped_bytes.store(*c, Relaxed);
        }
    }

    /// Opens and shuts meters at random. `now`: the later of the clocks.
    pub fn shuffle(&self, d: &mut Rng, now: u64) {
        assert!(self.meters[METERS..].iter().all(|m| m.id.load(Relaxed) == 0));
        for m in self.meters.iter().take(METERS) {
            for w in [&m.tat, &m.committed_tat] {
                let hours = units(now + 10_000_000_000_000);
                w.store(if d.once_in(5) { hours } else { 0 }, Relaxed);
            }
        }
    }
}

pub fn change(before: &State, after: &State) -> Change {
    let moved = before.tats.iter().zip(&after.tats).enumerate();
    let counted = before.counts.iter().zip(&after.counts).enumerate();
    Change {
        moved: moved
            .filter(|(_, (b, a))| b != a)
            .map(|(n, (b, a))| (n, [b[0] != a[0], b[1] != a[1]]))
            .collect(),
        counted: counted
            .filter(|(_, (b, a))| b != a)
            .map(|(n, (b, a))| (n, std::array::from_fn(|i| a[i] - b[i])))
            .collect(),
    }
}

/// CARs, policies and bandwidths, more or less.
pub fn qos(d: &mut Rng, n: &mut Net) {
    if d.once_in(3) {
        return;
    }
    for port in [LAN, WAN, LINE] {
        if d.once_in(3) {
            n.port_rates.insert(port, Rate::mbps(d.pick(&[10, 1000])));
        }
    }
    n.qos.overlay = d.once_in(2).then_some(Rate::mbps(100));
    n.qos.internet_up = d.once_in(2).then_some(Rate::mbps(50));
    n.qos.overhead = d.pick(&[0, 18]);
    n.qos.slack = 8_000_000;
    for (i, id) in ["voice", "bulk", "rest"].into_iter().enumerate() {
        n.car(id, i as u8 + 1, d.pick(&[0, 1, 5]), d.pick(&[5, 20]));
    }
    let any = sag_acl::Rule {
        proto: None,
        src: sag_acl::Prefix::ANY,
        dst: sag_acl::Prefix::ANY,
        sport: sag_acl::PortRange::ANY,
        dport: sag_acl::PortRange::ANY,
        header: sag_acl::HeaderMatch::ANY,
    };
    let inside = sag_acl::Prefix::new(u32::from_be_bytes([192, 168, 0, 0]), 16).expect("a prefix");
    n.meter(sag_acl::Rule { proto: Some(17), src: inside, ..any }, "voice");
    // Some CARs mark what they let pass, some policies ask for a mark.
    for car in &mut n.qos.cars {
        car.remark = d.once_in(2).then(|| Dscp::new(d.below(64) as u8)).flatten();
    }
    let asked = Dscp::new(d.below(64) as u8).expect("in range");
    n.meter_marked(any, asked, "bulk");
    n.meter(sag_acl::Rule { dst: inside, ..any }, "bulk");
    if d.once_in(2) {
        n.meter(any, "rest");
    }
    let any6 = sag_acl::Rule {
        proto: None,
        src: sag_acl::Prefix::ANY,
        dst: sag_acl::Prefix::ANY,
        sport: sag_acl::PortRange::ANY,
        dport: sag_acl::PortRange::ANY,
        header: sag_acl::HeaderMatch::ANY,
    };
    n.qos.v6.push((any6, Verdict { accept: true, slot: d.below(3) as u32 }));
}
