//! What a rule's verdict leaves behind besides the packet's fate: its counters and its log.

use super::{BatchEntry, Env, Pipeline};
use crate::ids::RuleSlot;
use crate::nat::Event;
use crate::policy::RuleLogged;
use crate::snapshot::Snapshot;
use sag_model::Nanos;

impl Pipeline {
    /// Notes what a rule has judged, if the rule logs and its rate allows it.
    pub(super) fn log_rule(
        &mut self,
        env: &Env<'_>,
        rule: Option<RuleSlot>,
        accept: bool,
        s: &BatchEntry,
        frame: &[u8],
    ) {
        let Some(rule) = rule.and_then(|slot| env.snap.acl.shared_stats(slot)) else { return };
        if !rule.log.as_ref().is_some_and(|log| log.allows(env.now)) {
            return;
        }
        let (sport, dport) = s.p.ports();
        self.sessions.events.push(Event::Rule(RuleLogged {
            rule: rule.clone(),
            accept,
            port: s.ingress,
            proto: s.p.proto,
            src: s.p.src(frame),
            sport,
            dst: s.p.dst(frame),
            dport,
            bytes: s.p.ip_len,
        }));
    }
}

/// Counts a packet that no session counts for its rule.
pub(super) fn hit(snap: &Snapshot, rule: Option<RuleSlot>, s: &BatchEntry, now: Nanos) {
    if let Some(stats) = rule.and_then(|r| snap.acl.stats(r)) {
        stats.hit(1, u64::from(s.p.ip_len), now.tick().0);
    }
}
