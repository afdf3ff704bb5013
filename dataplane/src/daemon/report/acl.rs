//! `acl`.

use super::sessions::seconds;
use crate::daemon::view::View;
use sag_model::Nanos;
use sag_model::config::{AclRule, protocol_name};
use sag_model::control::{self, Error, ErrorCode};
use sag_model::time::Tick;
use sag_pipeline::policy::{RuleLog, SessionLimit};
use sag_xsk::sys;
use std::sync::atomic::{AtomicU64, Ordering};

impl View<'_> {
    /// `acl`, with the findings of the analysis.
    pub fn acl(
        &self,
        query: &control::AclQuery,
        findings: Vec<control::Finding>,
    ) -> Result<control::AclReport, Error> {
        if let Some(id) = &query.acl
            && !self.running.config.acls.iter().any(|a| a.id == *id)
        {
            let ids: Vec<_> = self.running.config.acls.iter().map(|a| a.id.as_str()).collect();
            let remedy = match ids.is_empty() {
                true => "no ACL is configured".to_owned(),
                false => format!("the ACLs are: {}", ids.join(", ")),
            };
            return Err(Error::new(ErrorCode::NotFound, format!("no ACL has the id {id:?}"), remedy));
        }
        self.flows.update_rule_counters(&self.publisher.snapshot);
        let now = Nanos(sys::now()).tick();
        let row = |acl: &str, r: &AclRule| {
            let stats = self.compiler.acl.stats(acl, &r.id);
            let last = stats.as_ref().map_or(0, |s| s.last_hit.load(Ordering::Relaxed));
            let log = |of: fn(&RuleLog) -> &AtomicU64| {
                stats.as_ref().and_then(|s| s.log.as_ref()).map(|l| of(l).load(Ordering::Relaxed))
            };
            let limit = stats.as_ref().and_then(|s| s.limit.as_ref());
            control::AclRule {
                id: r.id.clone(),
                direction: r.direction.to_string(),
                kind: r.kind.to_string(),
                policy: r.policy.to_string(),
                ip_protocol: protocol_name(r.tuple.protocol),
                source_cidr: r.tuple.source.to_string(),
                dest_cidr: r.tuple.dest.to_string(),
                source_port_range: r.tuple.source_ports.to_string(),
                dest_port_range: r.tuple.dest_ports.to_string(),
                header: r.header_text(),
                vrf: r.vrf.clone(),
                priority: u32::from(r.priority),
                hits: stats.as_ref().map_or(0, |s| s.packets.load(Ordering::Relaxed)),
                bytes: stats.as_ref().map_or(0, |s| s.bytes.load(Ordering::Relaxed)),
                logged: log(|l| &l.logged),
                log_suppressed: log(|l| &l.suppressed),
                sessions: limit.map(SessionLimit::live),
                max_sessions: r.max_sessions,
                max_sessions_per_source: r.max_sessions_per_source,
                refused: limit.map(|l| l.refused.load(Ordering::Relaxed)),
                last_hit_s: (last != 0).then(|| seconds(now.since(Tick(last)))),
            }
        };
        let acls = self
            .running
            .config
            .acls
            .iter()
            .filter(|a| query.acl.as_ref().is_none_or(|id| a.id == *id))
            .map(|a| control::Acl {
                id: a.id.clone(),
                rules: a.rules.iter().map(|r| row(&a.id, r)).collect(),
            })
            .collect();
        Ok(control::AclReport {
            acls,
            default: self.running.config.dataplane.acl_default.to_string(),
            findings,
            log: if query.log { self.telemetry.journal.rules.last() } else { Vec::new() },
        })
    }
}
