//! The peer to which sessions follow, for `sagctl ha` and the metrics.

use crate::daemon::session_sync::State;
use crate::daemon::view::View;
use sag_model::control::{Ha, HaTotals};

impl View<'_> {
    /// The whole report; it looks at every session.
    pub fn ha_report(&self) -> Ha {
        let replicas = sag_ha::replicas(&self.flows.tables);
        let live = u64::from(self.flows.tables.v4.live()) + u64::from(self.flows.tables.v6.live());
        Ha { replicas, own: live.saturating_sub(replicas), ..self.ha_state() }
    }

    /// The same without a look at the sessions.
    pub fn ha_state(&self) -> Ha {
        report(&self.session_sync.state())
    }
}

fn report(s: &State) -> Ha {
    let t = &s.totals;
    let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    Ha {
        configured: s.addresses.is_some(),
        listen: s.addresses.map(|(listen, _)| listen.to_string()),
        peer: s.addresses.map(|(_, peer)| peer.to_string()),
        linked: s.linked,
        since: s.since.map_or(0, |since| since.elapsed().as_secs()),
        heard_ms: s.heard.filter(|_| s.linked).map(|heard| millis(heard.elapsed())),
        in_sync: s.has_all,
        peer_in_sync: s.peer_has_all,
        ready: s.is_ready(),
        own: 0,
        replicas: 0,
        totals: HaTotals {
            sent: t.sent,
            received: t.received,
            bytes_sent: s.bytes_sent,
            bytes_received: s.bytes_received,
            installed: t.installed,
            claimed: t.claimed,
            yielded: t.yielded,
            removed: t.removed,
            released: t.released,
            full: t.full,
            conflicts: t.conflicts,
            unknown_vrf: t.unknown_vrf,
        },
        last_error: s.last_error.clone(),
    }
}
