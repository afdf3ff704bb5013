//! When the parts of the daemon's housekeeping are due.

use std::time::{Duration, Instant};

/// What waits for the kernel's locks takes no more than this part of the time.
const SHARE: u32 = 20;
/// The longest pause for that.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Something that is done again and again.
#[derive(Debug)]
pub struct Interval {
    every: Duration,
    /// Longer than that, after what took long.
    pause: Duration,
    last: Instant,
}

impl Interval {
    fn new(every: Duration) -> Interval {
        Interval { every, pause: Duration::ZERO, last: Instant::now() }
    }

    /// Whether the interval has passed since it was last due.
    pub fn is_due(&mut self) -> bool {
        let due = self.last.elapsed() >= self.every.max(self.pause);
        if due {
            self.last = Instant::now();
        }
        due
    }

    /// What was due took so long: if that is much, the next time is later. The kernel has one lock for all that concerns
    /// devices and routes, and whoever asks for a device's program waits while somebody else changes many routes.
    pub fn took(&mut self, time: Duration) {
        self.pause = time.saturating_mul(SHARE).min(MAX_PAUSE);
    }
}

/// The intervals of the daemon's housekeeping.
#[derive(Debug)]
pub struct Timers {
    /// New sockets of the gateway are noticed.
    pub own_ports: Interval,
    /// Ports that hosts have asked for are looked over.
    pub port_mapping: Interval,
    /// More of the requests for ports may be answered.
    pub port_requests: Interval,
    /// Stale neighbors in use are probed.
    pub neighbors: Interval,
    /// XDP's maps are compared with what they should contain, and pins with those that were made.
    pub maps: Interval,
    /// The kernel's rules are compared with what they should be.
    pub source_rules: Interval,
    /// Devices are asked whether they still have the XDP program: detaching a link is not announced by netlink.
    pub attachments: Interval,
    /// Drops of the flood guard are looked at.
    pub floods: Interval,
    /// Rates of new SYNs are looked at.
    pub syn_cookies: Interval,
    /// The numbers of the metrics endpoint are brought up to date.
    pub metrics: Interval,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers {
            own_ports: Interval::new(Duration::from_secs(1)),
            port_mapping: Interval::new(Duration::from_millis(250)),
            port_requests: Interval::new(Duration::from_millis(50)),
            neighbors: Interval::new(Duration::from_secs(15)),
            maps: Interval::new(Duration::from_secs(1)),
            source_rules: Interval::new(Duration::from_secs(5)),
            attachments: Interval::new(Duration::from_millis(250)),
            floods: Interval::new(super::floods::INTERVAL),
            syn_cookies: Interval::new(Duration::from_millis(250)),
            metrics: Interval::new(Duration::from_millis(500)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_done_seldom() {
        let mut i = Interval::new(Duration::from_millis(250));
        let mut due_after = |took, passed: Duration| {
            i.took(Duration::from_millis(took));
            i.last = Instant::now() - passed;
            i.is_due()
        };
        assert!(due_after(0, Duration::from_millis(250)) && due_after(12, Duration::from_millis(250)));
        assert!(!due_after(100, Duration::from_millis(1_500)) && due_after(100, Duration::from_secs(2)));
        assert!(!due_after(60_000, Duration::from_secs(4)) && due_after(60_000, Duration::from_secs(5)));
    }
}
