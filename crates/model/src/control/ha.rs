//! The peer to which sessions follow.

use serde::{Deserialize, Serialize};

/// Arguments of `ha`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HaQuery {
    /// Leaves the sessions out, which are counted one by one: for who asks again and again whether the gateway is ready.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub state_only: bool,
}

/// Answer to `ha`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ha {
    /// The configuration has `[ha]`.
    pub configured: bool,
    /// This gateway's end of the link, `address:port`.
    pub listen: Option<String>,
    /// The peer's end.
    pub peer: Option<String>,
    /// There is a link.
    pub linked: bool,
    /// Seconds since it came, or was lost.
    pub since: u64,
    /// Milliseconds since the peer was last heard; there is a link.
    pub heard_ms: Option<u64>,
    /// This gateway has all sessions that the peer had when the link came.
    pub in_sync: bool,
    /// The peer has all of this gateway's.
    pub peer_in_sync: bool,
    /// This gateway may get the traffic: it is in sync or was so when the link was lost, or has had no peer for 5 s.
    pub ready: bool,
    /// Sessions whose packets come here.
    pub own: u64,
    /// Sessions whose packets go to the peer.
    pub replicas: u64,
    /// What was counted since the link was configured.
    pub totals: HaTotals,
    /// Why there is no link, or was none last.
    pub last_error: Option<String>,
}

/// What happens to sessions of two gateways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaTotals {
    /// Messages about sessions that were sent.
    pub sent: u64,
    /// The same that have come.
    pub received: u64,
    /// Bytes that were sent.
    pub bytes_sent: u64,
    /// Bytes that have come.
    pub bytes_received: u64,
    /// Sessions of the peer that were made here.
    pub installed: u64,
    /// Sessions of the peer whose packets came here.
    pub claimed: u64,
    /// Sessions of this gateway whose packets went to the peer.
    pub yielded: u64,
    /// Sessions of the peer that ended there.
    pub removed: u64,
    /// Sessions of the peer that were taken over when the link was lost.
    pub released: u64,
    /// Sessions of the peer for which there was no room.
    pub full: u64,
    /// Sessions of the peer that another session was in the way of.
    pub conflicts: u64,
    /// Sessions of a VRF that this gateway does not have.
    pub unknown_vrf: u64,
}

impl HaTotals {
    /// What happened to sessions, by name.
    pub fn events(&self) -> [(&'static str, u64); 8] {
        [
            ("installed", self.installed),
            ("claimed", self.claimed),
            ("yielded", self.yielded),
            ("removed", self.removed),
            ("released", self.released),
            ("full", self.full),
            ("conflict", self.conflicts),
            ("unknown-vrf", self.unknown_vrf),
        ]
    }
}
