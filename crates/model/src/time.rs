//! Time as the packet path sees it: handed in, never read.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds of the monotonic clock (`CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nanos(pub u64);

/// Bits dropped from nanoseconds to make a [`Tick`]: 2^24 ns, about 16.8 ms.
pub const TICK_SHIFT: u32 = 24;

/// Coarse time stamp of a flow record, 2^24 ns each; wraps after 2.2 years of uptime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tick(pub u32);

impl Nanos {
    /// The start of the clock.
    pub const ZERO: Nanos = Nanos(0);

    /// Saturating.
    pub const fn from_millis(ms: u64) -> Nanos {
        Nanos(ms.saturating_mul(1_000_000))
    }

    /// Saturating.
    pub const fn from_secs(s: u64) -> Nanos {
        Nanos(s.saturating_mul(1_000_000_000))
    }

    /// Rounded down.
    pub const fn tick(self) -> Tick {
        Tick((self.0 >> TICK_SHIFT) as u32)
    }

    /// 0 where `earlier` is later.
    pub const fn saturating_sub(self, earlier: Nanos) -> Nanos {
        Nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Tick {
    /// Time since `earlier`, in ticks, correct over one wrap.
    pub const fn since(self, earlier: Tick) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Ticks in a duration, rounded up.
    pub const fn of(d: Duration) -> u32 {
        let n = d.as_nanos() >> TICK_SHIFT;
        if n >= u32::MAX as u128 { u32::MAX } else { n as u32 + 1 }
    }
}

impl Add<Duration> for Nanos {
    type Output = Nanos;
    fn add(self, d: Duration) -> Nanos {
        Nanos(self.0.saturating_add(d.as_nanos() as u64))
    }
}

impl Sub for Nanos {
    type Output = Duration;
    fn sub(self, earlier: Nanos) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tick_difference_survives_the_wrap() {
        assert_eq!(Tick(2).since(Tick(u32::MAX)), 3);
        assert_eq!(Tick::of(Duration::from_secs(30)), 1789);
    }
}
