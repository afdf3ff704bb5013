//! Who is connected to the control socket, and who was sent away: counted by the control thread, read by the metrics.

use super::metrics::Clients;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Why a client was closed that would have stayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Another one needed the place.
    Clients,
    /// It did not read its answers.
    Unread,
    /// It did not finish a request.
    HalfRequest,
    /// The daemon had no descriptor left.
    Descriptors,
}

impl Ended {
    const ALL: [Ended; 4] = [Ended::Clients, Ended::Unread, Ended::HalfRequest, Ended::Descriptors];

    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Ended::Clients => "clients",
            Ended::Unread => "unread",
            Ended::HalfRequest => "half-request",
            Ended::Descriptors => "descriptors",
        }
    }
}

/// Counters of the control socket.
#[derive(Debug, Default)]
pub struct Counts {
    open: AtomicUsize,
    ended: [AtomicU64; Ended::ALL.len()],
}

impl Counts {
    pub(super) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, why: Ended) {
        for (reason, count) in Ended::ALL.iter().zip(&self.ended) {
            if *reason == why {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// As they are now.
    pub fn read(&self) -> Clients {
        let ended = Ended::ALL.iter().zip(&self.ended).map(|(r, n)| (r.name(), n.load(Ordering::Relaxed)));
        Clients { open: self.open.load(Ordering::Relaxed), ended: ended.collect() }
    }
}
