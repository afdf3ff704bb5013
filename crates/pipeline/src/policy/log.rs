//! Rules that log: what of it is told, and how often.

use super::RuleStats;
use sag_model::{Nanos, PortIdx};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Entries of a rule in a second, over time.
const PER_SECOND: u64 = 10;

/// Entries that may come at once after a pause.
const BURST: u64 = 50;

/// Nanoseconds of one entry.
const INTERVAL: u64 = 1_000_000_000 / PER_SECOND;

/// The log of one rule: its rate, which all workers share, and what came of it.
#[derive(Debug, Default)]
pub struct RuleLog {
    /// Stands before the entry; may be empty.
    pub prefix: String,
    /// When the next entry is due at the rate, as a leaky bucket counts (GCRA).
    due: AtomicU64,
    /// Entries that were made.
    pub logged: AtomicU64,
    /// Entries that were over the rate.
    pub suppressed: AtomicU64,
}

impl RuleLog {
    /// With a prefix.
    pub fn new(prefix: String) -> RuleLog {
        RuleLog { prefix, ..RuleLog::default() }
    }

    /// Whether an entry may be made now; counts it.
    pub fn allows(&self, now: Nanos) -> bool {
        let mut due = self.due.load(Ordering::Relaxed);
        loop {
            if due > now.0.saturating_add((BURST - 1) * INTERVAL) {
                self.suppressed.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            let next = due.max(now.0) + INTERVAL;
            match self.due.compare_exchange_weak(due, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(other) => due = other,
            }
        }
        self.logged.fetch_add(1, Ordering::Relaxed);
        true
    }
}

/// What a rule has judged, for its log.
#[derive(Debug, Clone)]
pub struct RuleLogged {
    /// Name and prefix of the rule.
    pub rule: Arc<RuleStats>,
    /// It accepts.
    pub accept: bool,
    /// The port by which the packet came.
    pub port: PortIdx,
    /// IP protocol.
    pub proto: u8,
    /// Source address as the packet came.
    pub src: IpAddr,
    /// Its source port, in host order.
    pub sport: u16,
    /// Destination address as the packet came.
    pub dst: IpAddr,
    /// Its destination port.
    pub dport: u16,
    /// Bytes of the IP packet.
    pub bytes: u16,
}

impl PartialEq for RuleLogged {
    fn eq(&self, other: &RuleLogged) -> bool {
        let facts = |e: &RuleLogged| (e.accept, e.port, e.proto, e.src, e.sport, e.dst, e.dport, e.bytes);
        Arc::ptr_eq(&self.rule, &other.rule) && facts(self) == facts(other)
    }
}

impl Eq for RuleLogged {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_and_then_the_rate() {
        let log = RuleLog::new("scan".into());
        let start = Nanos::from_secs(5);
        let made = (0..200).filter(|_| log.allows(start)).count() as u64;
        assert_eq!((made, log.suppressed.load(Ordering::Relaxed)), (BURST, 200 - BURST));
        let later = start + Duration::from_secs(2);
        let made = (0..200).filter(|_| log.allows(later)).count() as u64;
        assert_eq!(made, 2 * PER_SECOND);
        // A worker whose clock reads a little less gets nothing out of it.
        assert!(!log.allows(start));
        assert_eq!(log.logged.load(Ordering::Relaxed), BURST + 2 * PER_SECOND);
    }
}
