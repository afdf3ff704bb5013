//! The arithmetic of meters: the same in `bpf/include/gw_meter.h`.
//!
//! Time is counted modulo 2^64 units; two moments are compared by their difference, which is good for
//! a year between them. Every rounding is to the disadvantage of the packet, by at most one unit
//! (2^-8 ns) each.

use sag_model::DropReason;
use sag_model::meter::{COST_SHIFT, MAX_DEBT, Meter, MeterGroup, UNIT_SHIFT};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// A rate in bit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u64);

impl Rate {
    /// The slowest: below it, the time of a large packet would not fit its word.
    pub const MIN: Rate = Rate(10_000);

    /// `n` million bits a second.
    pub const fn mbps(n: u64) -> Rate {
        Rate(n * 1_000_000)
    }

    /// Time of a byte, as a meter has it; rounded up.
    pub const fn cost(self) -> u64 {
        let bits = if self.0 < Self::MIN.0 { Self::MIN.0 } else { self.0 };
        // 8 bits of a byte, 10^9 ns of a second.
        (8_000_000_000u64 << (UNIT_SHIFT + COST_SHIFT)).div_ceil(bits)
    }

    /// Time of so many bytes in nanoseconds, rounded up.
    pub const fn nanos(self, bytes: u64) -> u64 {
        let bits = if self.0 < Self::MIN.0 { Self::MIN.0 } else { self.0 };
        (bytes * 8_000_000_000).div_ceil(bits)
    }
}

/// Nanoseconds as meter time.
#[inline]
pub const fn units(nanos: u64) -> u64 {
    nanos << UNIT_SHIFT
}

/// Time of a packet; rounded up.
#[inline]
pub const fn time_of(bytes: u64, cost: u64) -> u64 {
    (bytes.wrapping_mul(cost).wrapping_add((1 << COST_SHIFT) - 1)) >> COST_SHIFT
}

/// Whether moment `a` is before `b`.
#[inline]
pub const fn before(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
}

/// Where a rate would stand after a packet: never behind `base`, which is now.
#[inline]
const fn after(tat: u64, time: u64, base: u64) -> u64 {
    let from = if before(tat, base) { base } else { tat };
    from.wrapping_add(time)
}

/// Whether a packet would pass.
#[inline]
pub fn fits(tat: &AtomicU64, time: u64, base: u64, limit: u64) -> bool {
    !before(limit, after(tat.load(Acquire), time, base))
}

/// Lets a packet pass if the rate allows it.
#[inline]
pub fn charge(tat: &AtomicU64, time: u64, base: u64, limit: u64) -> bool {
    let mut old = tat.load(Acquire);
    loop {
        let next = after(old, time, base);
        if before(limit, next) {
            return false;
        }
        match tat.compare_exchange_weak(old, next, AcqRel, Acquire) {
            Ok(_) => return true,
            Err(seen) => old = seen,
        }
    }
}

/// What came of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policed {
    /// It may go on.
    Pass,
    /// Over the peak rate of its CAR.
    OverCar,
    /// A link had nothing left for it.
    OverLink,
}

impl Policed {
    /// Why the packet is dropped; `None`: it is not.
    pub const fn reason(self) -> Option<DropReason> {
        match self {
            Policed::Pass => None,
            Policed::OverCar => Some(DropReason::CarExceeded),
            Policed::OverLink => Some(DropReason::LinkExceeded),
        }
    }
}

/// A packet of `len` IP bytes through a meter group at `now` nanoseconds. `slack`: how far that
/// clock may be behind, in nanoseconds.
///
/// First it is looked at whether all rates allow the packet, then they are charged, so that a packet
/// that is dropped is charged nowhere. A core that comes between the look and the charge may make an
/// exception: then the packet is dropped, and what it was charged so far stays charged.
pub fn police(group: &MeterGroup, meters: &[Meter], len: u64, now: u64, slack: u64) -> Policed {
    let (base, at) = (units(now.wrapping_add(slack)), units(now));
    let bytes = len + u64::from(group.overhead.load(Relaxed));
    let limit = |m: &AtomicU64| at.wrapping_add(m.load(Relaxed));
    let car = meters.get(usize::from(group.car.load(Relaxed))).filter(|_| group.car.load(Relaxed) != 0);
    let mut committed = false;
    if let Some(car) = car {
        let time = time_of(bytes, car.cost.load(Relaxed));
        if !fits(&car.tat, time, base, limit(&car.burst)) {
            return Policed::OverCar;
        }
        let cost = car.committed_cost.load(Relaxed);
        committed =
            cost != 0 && charge(&car.committed_tat, time_of(bytes, cost), base, limit(&car.committed_burst));
    }
    let links = || {
        let numbered = group.links.iter().zip(&group.borrow_limit).map(|(n, w)| (n.load(Relaxed), w));
        numbered.take_while(|(n, _)| *n != 0).filter_map(|(n, w)| {
            let m = meters.get(usize::from(n))?;
            // What is within the committed rate passes whatever the link has left, and is charged to it.
            let limit = at.wrapping_add(if committed { MAX_DEBT } else { w.load(Relaxed) });
            Some((m, time_of(bytes, m.cost.load(Relaxed)), limit))
        })
    };
    if !links().all(|(m, time, limit)| fits(&m.tat, time, base, limit)) {
        return Policed::OverLink;
    }
    if !links().all(|(m, time, limit)| charge(&m.tat, time, base, limit)) {
        return Policed::OverLink;
    }
    match car {
        Some(car) if !charge(&car.tat, time_of(bytes, car.cost.load(Relaxed)), base, limit(&car.burst)) => {
            Policed::OverCar
        }
        _ => Policed::Pass,
    }
}

/// Counts a packet where it was metered.
#[inline]
pub fn count(group: &MeterGroup, len: u64, policed: Policed) {
    let bytes = len + u64::from(group.overhead.load(Relaxed));
    let counter = match policed {
        Policed::Pass => &group.passed_bytes,
        Policed::OverCar => &group.car_dropped_bytes,
        Policed::OverLink => &group.link_dropped_bytes,
    };
    counter.fetch_add(bytes, Relaxed);
}
