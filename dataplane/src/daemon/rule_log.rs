//! What ACL rules with `log = true` have judged: a line in the daemon's log, and the last ones for `sagctl acl --log`.
//!
//! Workers put entries among their events, which are bounded; the journal's thread brings them here.

use crate::server::rfc3339_millis;
use sag_model::config::{Config, protocol_name};
use sag_model::control::AclLogEntry;
use sag_pipeline::policy::RuleLogged;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Entries that are kept to be shown.
const KEPT: usize = 1000;

/// Shared by the journal's thread, which writes, and the control thread, which reads. No worker comes here.
#[derive(Debug, Clone, Default)]
pub struct RuleLogBook(Arc<Mutex<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    /// Names of the ports, by number.
    ports: Vec<String>,
    entries: VecDeque<AclLogEntry>,
}

impl RuleLogBook {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        // Nobody panics with it, and an entry is there or not.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the names of the ports.
    pub fn name_ports(&self, config: &Config) {
        self.pages().ports = config.ports.iter().map(|p| p.name.clone()).collect();
    }

    /// The last entries, the oldest first.
    pub fn last(&self) -> Vec<AclLogEntry> {
        self.pages().entries.iter().cloned().collect()
    }

    /// Writes an entry.
    pub fn note(&self, e: &RuleLogged) {
        let mut pages = self.pages();
        let port = pages.ports.get(e.port.index()).cloned().unwrap_or_default();
        let entry = AclLogEntry {
            time: rfc3339_millis(SystemTime::now()),
            rule: e.rule.name.clone(),
            prefix: e.rule.log.as_ref().map(|l| l.prefix.clone()).unwrap_or_default(),
            verdict: if e.accept { "accept" } else { "drop" }.to_owned(),
            port,
            proto: protocol_name(Some(e.proto)),
            src: e.src,
            sport: e.sport,
            dst: e.dst,
            dport: e.dport,
            bytes: e.bytes,
        };
        tracing::info!(
            event = "acl-rule",
            rule = entry.rule,
            verdict = entry.verdict,
            port = entry.port,
            proto = entry.proto,
            src = %e.src,
            sport = e.sport,
            dst = %e.dst,
            dport = e.dport,
            bytes = e.bytes,
            "{}",
            entry.prefix
        );
        if pages.entries.len() == KEPT {
            pages.entries.pop_front();
        }
        pages.entries.push_back(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_model::PortIdx;
    use sag_pipeline::policy::{RuleLog, RuleStats};

    #[test]
    fn the_last_entries_are_kept() {
        let book = RuleLogBook::default();
        let log = Some(RuleLog::new("scan".into()));
        let rule = Arc::new(RuleStats { name: "a/r".into(), log, ..RuleStats::default() });
        for n in 0..KEPT as u16 + 5 {
            let src = "192.0.2.1".parse().expect("address");
            let dst = "2001:db8::1".parse().expect("address");
            let port = PortIdx(0);
            let rule = rule.clone();
            book.note(&RuleLogged {
                rule,
                accept: false,
                port,
                proto: 6,
                src,
                sport: n,
                dst,
                dport: 80,
                bytes: 40,
            });
        }
        let entries = book.last();
        assert_eq!((entries.len(), entries[0].sport), (KEPT, 5));
        let e = &entries[KEPT - 1];
        assert_eq!((&*e.rule, &*e.prefix, &*e.verdict, &*e.proto), ("a/r", "scan", "drop", "tcp"));
    }
}
