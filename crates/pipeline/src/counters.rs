//! Counters of one worker. Every packet given to the pipeline ends in exactly one of `forwarded`,
//! `to_kernel`, `dropped` or (for a while) `held`, counted at the port where it arrived.

pub use sag_model::books::{Counter, PortCounters};
use sag_model::{DropReason, PortIdx};
use std::sync::Arc;

/// Where the books of the ports lie.
#[derive(Debug)]
enum Books {
    Private(Box<[PortCounters]>),
    Shared(&'static [PortCounters]),
}

/// Everything that one worker counts.
#[derive(Debug)]
pub struct Counters {
    ports: Books,
    pub sessions_created: Counter,
    pub sessions_ended: Counter,
    pub batches: Counter,
    pub packets: Counter,
    /// Time spent on batches with packets, for the busy percentage.
    pub busy_ns: Counter,
}

impl Counters {
    /// Books of its own.
    pub fn new() -> Arc<Counters> {
        Counters::with(Books::Private((0..PortIdx::MAX).map(|_| PortCounters::default()).collect()))
    }

    /// Books in shared memory, which go on where they stand: one entry per port.
    pub fn over(ports: &'static [PortCounters]) -> Arc<Counters> {
        assert!(ports.len() == PortIdx::MAX, "books of every port");
        Counters::with(Books::Shared(ports))
    }

    fn with(ports: Books) -> Arc<Counters> {
        Arc::new(Counters {
            ports,
            sessions_created: Counter::default(),
            sessions_ended: Counter::default(),
            batches: Counter::default(),
            packets: Counter::default(),
            busy_ns: Counter::default(),
        })
    }

    /// Counters of a port; indices beyond the table share the last one.
    #[inline]
    pub fn port(&self, port: PortIdx) -> &PortCounters {
        let ports = match &self.ports {
            Books::Private(p) => &p[..],
            Books::Shared(p) => p,
        };
        &ports[port.index().min(PortIdx::MAX - 1)]
    }

    #[inline]
    pub fn count_drop(&self, port: PortIdx, reason: DropReason) {
        self.port(port).drops[reason.index() % DropReason::COUNT].add(1);
    }
}
