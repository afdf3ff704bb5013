//! Changes of the kernel's routes on their way to the workers.
//!
//! A few changes take effect at once. Where they come without pause, they are published together at intervals, a bounded
//! number at a time, so that neither workers nor who asks the control thread wait for them; and flows look their route up
//! again at longer intervals, because each of them goes to a worker for that.

use super::core::Daemon;
use super::stale_flows::{StaleFlows, of_prefixes, of_rerouted};
use ipnet::IpNet;
use sag_compile::{NextHopPlan, RouteChange, RouteUpdate};
use sag_model::Nanos;
use sag_xsk::sys;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Prefixes that are decided at a time: some milliseconds.
pub const BATCH: usize = 256;
/// Publications of routes that may come at once, and the time after which there is one more.
const PUBLICATIONS: (u32, Duration) = (16, Duration::from_millis(12));
/// The same of moments at which flows look their route up again, as far as routes alone have changed.
const LOOKUPS: (u32, Duration) = (8, Duration::from_millis(500));

/// How often something may be done.
#[derive(Debug)]
struct Pace {
    left: u32,
    most: u32,
    every: Duration,
    since: Instant,
}

impl Pace {
    fn new((most, every): (u32, Duration)) -> Pace {
        Pace { left: most, most, every, since: Instant::now() }
    }

    fn is_due(&mut self) -> bool {
        let more = self.since.elapsed().as_millis() / self.every.as_millis();
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(self.most);
            self.since = Instant::now();
        }
        self.left > 0
    }

    fn done(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

/// What has changed and is not published yet.
#[derive(Debug)]
pub struct RouteChanges {
    prefixes: BTreeSet<IpNet>,
    /// Flows that are to look their route up again.
    stale: BTreeSet<StaleFlows>,
    publications: Pace,
    lookups: Pace,
}

impl Default for RouteChanges {
    fn default() -> RouteChanges {
        RouteChanges {
            prefixes: BTreeSet::new(),
            stale: BTreeSet::new(),
            publications: Pace::new(PUBLICATIONS),
            lookups: Pace::new(LOOKUPS),
        }
    }
}

impl RouteChanges {
    /// Prefixes whose routes in the kernel have changed.
    pub fn note(&mut self, prefixes: impl IntoIterator<Item = IpNet>) {
        self.prefixes.extend(prefixes);
    }

    /// All routes have been looked at.
    pub fn forget(&mut self) {
        self.prefixes.clear();
    }

    /// Whether there is work that does not wait for the next round of housekeeping.
    pub fn has_more(&self) -> bool {
        self.prefixes.len() >= BATCH
    }

    /// What is to be decided now. `flooded`: the kernel has more to say, and what it has no room for is lost.
    fn next_batch(&mut self, flooded: bool) -> Vec<IpNet> {
        if self.prefixes.is_empty() || !self.publications.is_due() && (flooded || !self.has_more()) {
            return Vec::new();
        }
        self.publications.done();
        let batch: Vec<IpNet> = std::iter::from_fn(|| self.prefixes.pop_first()).take(BATCH).collect();
        batch
    }

    /// Flows that look their route up again with the next publication, besides these.
    pub fn take_stale(&mut self, more: &[StaleFlows]) -> Vec<StaleFlows> {
        let mut all = std::mem::take(&mut self.stale);
        all.extend(more);
        all.into_iter().collect()
    }

    fn take_due_stale(&mut self) -> Vec<StaleFlows> {
        if self.stale.is_empty() || !self.lookups.is_due() {
            return Vec::new();
        }
        self.lookups.done();
        self.take_stale(&[])
    }
}

impl Daemon {
    /// Publishes what has changed of the routes, if it is time.
    pub fn apply_route_changes(&mut self) {
        if !self.route_changes.has_more() {
            let more = self.compiler.next_undecided(self.kernel.tables());
            self.route_changes.note(more);
        }
        let batch = self.route_changes.next_batch(self.kernel.has_more());
        if !batch.is_empty() {
            self.change_routes(&batch);
        }
        let stale = self.route_changes.take_due_stale();
        if !stale.is_empty() {
            let snapshot = (*self.publisher.snapshot).clone();
            self.publisher.publish_routes(snapshot, &NextHopPlan::default(), &stale, &self.workers);
            self.session_sync.send_snapshot(&self.publisher.snapshot);
        }
    }

    fn change_routes(&mut self, prefixes: &[IpNet]) {
        let config = &self.running.config;
        let published = (&self.publisher.bindings[..], &*self.publisher.snapshot);
        let now = Nanos(sys::now());
        match self.compiler.change_routes(config, self.kernel.tables(), published, prefixes, now) {
            RouteUpdate::Everything => {
                let others = self.route_changes.prefixes.iter();
                let all: Vec<IpNet> = prefixes.iter().chain(others).copied().collect();
                let stale = of_prefixes(&all, &self.compiler.routes);
                self.recompile(self.publisher.epoch(), &stale, prefixes);
                self.set_source_routes(false);
            }
            RouteUpdate::Policy(rerouted) => {
                let stale: Vec<_> = of_rerouted(&rerouted).into_iter().collect();
                self.recompile(self.publisher.epoch(), &stale, &[]);
                self.set_source_routes(false);
            }
            RouteUpdate::Routes(change) => self.publish_route_change(*change),
        }
    }

    fn publish_route_change(&mut self, change: RouteChange) {
        let RouteChange { snapshot, nexthops, rerouted, routers, of_file, problems } = change;
        if snapshot.epoch != self.publisher.epoch() {
            tracing::debug!(epoch = snapshot.epoch, "sources may come in by other ports than before");
        }
        self.route_changes.stale.extend(of_rerouted(&rerouted));
        let stale = self.route_changes.take_due_stale();
        self.publisher.report_more(problems);
        self.publisher.publish_routes(snapshot, &nexthops, &stale, &self.workers);
        self.session_sync.send_snapshot(&self.publisher.snapshot);
        if routers {
            self.keep_routers();
        }
        if of_file {
            self.keep_kernel_routes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_model::PortIdx;

    fn nets(from: u32, count: u32) -> impl Iterator<Item = IpNet> {
        (from..from + count).map(|n| IpNet::new(std::net::Ipv4Addr::from_bits(n << 8).into(), 24).unwrap())
    }

    fn passes(pace: &mut Pace, time: Duration) {
        pace.since -= time;
    }

    #[test]
    fn a_few_changes_are_published_at_once_and_a_flood_in_parts() {
        let mut c = RouteChanges::default();
        for n in 0..PUBLICATIONS.0 {
            assert!(c.next_batch(false).is_empty(), "nothing costs nothing");
            c.note(nets(n, 1));
            assert_eq!(c.next_batch(false).len(), 1);
        }
        c.note(nets(0, 5));
        assert!(c.next_batch(false).is_empty() && !c.has_more(), "the next ones wait");
        passes(&mut c.publications, PUBLICATIONS.1);
        assert_eq!(c.next_batch(false).len(), 5, "not long");
        c.note(nets(0, BATCH as u32 + 7));
        assert!(c.has_more());
        assert!(c.next_batch(true).is_empty(), "first what the kernel says");
        assert_eq!(c.next_batch(false).len(), BATCH);
        assert!(c.next_batch(false).is_empty() && c.prefixes.len() == 7);
        passes(&mut c.publications, PUBLICATIONS.1);
        assert_eq!(c.next_batch(true).len(), 7, "whatever the kernel says");
    }

    #[test]
    fn flows_look_their_route_up_at_intervals() {
        let mut c = RouteChanges::default();
        let one = StaleFlows::Gateway(PortIdx(1), [192, 0, 2, 1].into());
        for _ in 0..LOOKUPS.0 {
            assert_eq!(c.take_due_stale(), []);
            c.stale.insert(one);
            assert_eq!(c.take_due_stale(), [one]);
        }
        c.stale.insert(one);
        assert_eq!(c.take_due_stale(), []);
        passes(&mut c.lookups, LOOKUPS.1);
        assert_eq!(c.take_due_stale(), [one]);
        // With another publication they go at once.
        c.stale.insert(one);
        assert_eq!(c.take_stale(&[StaleFlows::All]), [StaleFlows::All, one]);
        assert_eq!(c.take_stale(&[]), []);
    }
}
