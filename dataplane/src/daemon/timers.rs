//! When the parts of the daemon's housekeeping are due.

use std::time::{Duration, Instant};

/// Something that is done again and again.
#[derive(Debug)]
pub struct Interval {
    every: Duration,
    last: Instant,
}

impl Interval {
    fn new(every: Duration) -> Interval {
        Interval { every, last: Instant::now() }
    }

    /// Whether the interval has passed since it was last due.
    pub fn is_due(&mut self) -> bool {
        let due = self.last.elapsed() >= self.every;
        if due {
            self.last = Instant::now();
        }
        due
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
