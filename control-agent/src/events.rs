//! What the threads that talk to the cloud say to the main loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sag_southbound::IssuedCommand;

use crate::desired::Desired;

/// A configuration as it was fetched.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// What the device shall do.
    pub desired: Desired,
    /// `None` from an endpoint that has no revisions.
    pub revision: Option<i64>,
    /// What the device shall do once.
    pub commands: Vec<IssuedCommand>,
    /// The first after a time without contact.
    pub reconnected: bool,
}

/// A reason for the main loop to look.
pub enum Event {
    /// A probe task has its first result, or another outcome than before.
    ProbesChanged,
    /// There is a configuration.
    Fetched(Box<Fetched>),
    /// There is a configuration that this version cannot read; it is refused.
    Unreadable {
        /// Its revision.
        revision: i64,
        /// Why it cannot be read.
        reason: String,
    },
    /// The cloud does not answer.
    CloudLost(String),
    /// Neighbors or daemons of BGP and OSPF are others than before.
    RoutingChanged,
    /// A health check has another verdict.
    HealthChanged,
    /// What a command asked to be measured has been.
    Measured,
    /// The cloud has the result that a restart waits for.
    RebootNow,
    /// A signal asks the process to end.
    Stop,
}

/// Which threads talk to the cloud: those of an earlier generation end as soon as they notice.
#[derive(Clone)]
pub struct Generation {
    current: Arc<AtomicU64>,
    mine: u64,
}

impl Generation {
    /// The generation before any thread.
    pub fn first() -> Generation {
        Generation { current: Arc::default(), mine: 0 }
    }

    /// Begins another generation; all before it are over.
    pub fn next(&self) -> Generation {
        let mine = self.current.fetch_add(1, Ordering::Relaxed) + 1;
        Generation { current: self.current.clone(), mine }
    }

    /// Whether another generation has begun.
    pub fn over(&self) -> bool {
        self.current.load(Ordering::Relaxed) != self.mine
    }
}
