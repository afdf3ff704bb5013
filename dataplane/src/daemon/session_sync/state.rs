//! What reports read of the thread.

use sag_ha::Totals;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// So long without a link the peer is not waited for: this gateway is as complete as it will be.
const NO_PEER: Duration = Duration::from_secs(5);

/// What reports read.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Listening and peer's address.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    pub linked: bool,
    /// Since when there is a link, or none.
    pub since: Option<Instant>,
    /// When the peer was last heard.
    pub heard: Option<Instant>,
    pub has_all: bool,
    /// The last link was lost when this gateway had all sessions of the peer.
    pub was_complete: bool,
    pub peer_has_all: bool,
    pub totals: Totals,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub last_error: Option<String>,
}

impl State {
    /// Whether the gateway may get the traffic: it has the peer's sessions, as far as there is a peer.
    pub fn is_ready(&self) -> bool {
        if self.addresses.is_none() {
            return true;
        }
        let is_alone = || self.was_complete || self.since.is_none_or(|s| s.elapsed() >= NO_PEER);
        self.has_all || (!self.linked && is_alone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_ready_with_the_sessions_of_its_peer_or_without_a_peer() {
        let ago = |s| Instant::now().checked_sub(Duration::from_secs(s));
        assert!(State { since: ago(0), ..State::default() }.is_ready(), "no peer is configured");
        let ends = ("192.0.2.1:7788".parse().unwrap(), "192.0.2.2:7788".parse().unwrap());
        let fresh = State { since: ago(0), addresses: Some(ends), ..State::default() };
        assert!(!fresh.is_ready(), "the peer may come yet");
        assert!(State { since: ago(6), ..fresh.clone() }.is_ready(), "there is none");
        let linked = State { linked: true, since: ago(9), ..fresh.clone() };
        assert!(!linked.is_ready(), "half of the sessions have come");
        assert!(State { has_all: true, ..linked }.is_ready());
        // The peer dies: whoever has everything may follow it at once.
        assert!(State { was_complete: true, ..fresh }.is_ready());
    }
}
