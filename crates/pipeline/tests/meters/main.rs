//! Meters in virtual time: what they promise for any packet sizes, any moments and any number of
//! cores.

mod borrowing;
mod bounds;
mod cores;
mod librte;

use sag_model::meter::{Meter, MeterGroup};
use sag_pipeline::qos::meter::{Policed, Rate, police, units};
use std::sync::atomic::Ordering::Relaxed;

/// A rate and how much it lets pass at once.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: Rate,
    /// Nanoseconds of the rate.
    burst: u64,
}

impl Bucket {
    const fn new(mbps: u64, burst_ms: u64) -> Bucket {
        Bucket { rate: Rate::mbps(mbps), burst: burst_ms * 1_000_000 }
    }
}

/// The moment at which every test begins; the rates were idle before.
const START: u64 = 1_000_000_000_000;

fn link(b: Bucket) -> Meter {
    let m = Meter::default();
    m.cost.store(b.rate.cost(), Relaxed);
    m.burst.store(units(b.burst), Relaxed);
    m
}

fn car(ceiling: Bucket, floor: Option<Bucket>) -> Meter {
    let m = link(ceiling);
    if let Some(f) = floor {
        m.committed_cost.store(f.rate.cost(), Relaxed);
        m.committed_burst.store(units(f.burst), Relaxed);
    }
    m
}

/// A set of a CAR (a meter's number or 0) and links with their windows in nanoseconds.
fn set(car: u16, links: &[(u16, u64)]) -> MeterGroup {
    let s = MeterGroup::default();
    s.car.store(car, Relaxed);
    for ((n, window), (to_n, to_window)) in links.iter().zip(s.links.iter().zip(&s.borrow_limit)) {
        to_n.store(*n, Relaxed);
        to_window.store(units(*window), Relaxed);
    }
    s
}

fn passes(s: &MeterGroup, meters: &[Meter], len: u64, now: u64) -> bool {
    police(s, meters, len, now, 0) == Policed::Pass
}

/// A token bucket without any rounding: bits times 10^9.
struct Exact {
    rate: i128,
    depth: i128,
    level: i128,
    at: u64,
}

impl Exact {
    fn new(b: Bucket, now: u64) -> Exact {
        let depth = i128::from(b.rate.0) * i128::from(b.burst);
        Exact { rate: b.rate.0.into(), depth, level: depth, at: now }
    }

    fn advance(&mut self, now: u64) {
        let gained = self.rate * i128::from(now.saturating_sub(self.at));
        self.level = (self.level + gained).min(self.depth);
        self.at = self.at.max(now);
    }

    /// Takes a packet out; what is left is negative if it should not have passed.
    fn take(&mut self, bytes: u64) -> i128 {
        self.level -= i128::from(bytes) * 8_000_000_000;
        self.level
    }
}
