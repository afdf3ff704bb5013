//! `status`, and the numbers of the metrics endpoint.

use crate::daemon::port_counters::punts_by_reason;
use crate::daemon::view::View;
use crate::server::{LimitedRule, MetricsSnapshot, NextHopUse, PortPunt, rfc3339};
use sag_bpf::PuntReason;
use sag_model::config::{Acl, AclRule};
use sag_model::control;
use sag_packet::parse::Family;
use sag_pipeline::family::FlowFamily;
use sag_pipeline::session::{self, Worth};
use sag_pipeline::table::FlowTable;
use std::sync::atomic::Ordering;

impl View<'_> {
    /// `status`.
    pub fn status(&self) -> control::Status {
        let mut fast = 0;
        let mut punted = 0;
        let mut punts: Vec<control::PuntRow> = PuntReason::ALL
            .iter()
            .map(|r| control::PuntRow { reason: r.name().to_owned(), packets: 0 })
            .collect();
        for b in self.own_ports() {
            let c = self.counters(b.idx);
            fast += c.fast;
            punted += c.punted;
            for (row, n) in punts.iter_mut().zip(punts_by_reason(b.idx, self.publisher, self.telemetry)) {
                row.packets += n;
            }
        }
        punts.retain(|p| p.packets > 0);
        control::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_s: self.telemetry.started.elapsed().as_secs(),
            config_epoch: self.publisher.epoch(),
            config_file: self.running.source.clone(),
            config_applied: rfc3339(self.running.applied),
            workers: self.worker_rows(),
            sessions: self.session_totals(),
            fastpath_packets: fast,
            punted_packets: punted,
            punts,
            syn_cookies: self.telemetry.syn_cookies.rows(&self.publisher.gateway),
            warnings: [
                self.running.warnings.clone(),
                self.devices.warnings(),
                self.telemetry.repairs.warnings(),
                self.telemetry.files.warnings(),
                self.telemetry.floods.warnings(&self.running.config),
                self.telemetry.syn_cookies.warnings(std::time::Instant::now()),
                self.telemetry.neighbors.warnings(&self.running.config),
                self.settings.report().warnings,
            ]
            .concat(),
            deviations: self.running.deviations.clone(),
        }
    }

    /// The numbers of the metrics endpoint.
    pub fn metrics(&self) -> MetricsSnapshot {
        let ports = self.port_rows();
        let mut punts = Vec::new();
        for b in self.own_ports() {
            for (r, packets) in
                PuntReason::ALL.iter().zip(punts_by_reason(b.idx, self.publisher, self.telemetry))
            {
                punts.push(PortPunt { port: b.port.name.clone(), reason: r.name().to_owned(), packets });
            }
        }
        MetricsSnapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.telemetry.started.elapsed().as_secs(),
            config_epoch: self.publisher.epoch(),
            ports,
            drops: self.drop_rows(),
            punts,
            sessions: self.session_totals(),
            next_hops: self.next_hop_use(),
            nat: self.nat_use(),
            workers: self.worker_rows(),
            cars: self.car_counters(),
            tunnels: self.tunnels_report().tunnels,
            repairs: self.telemetry.repairs.counts(),
            pins_missing: self.telemetry.repairs.pins_missing(),
            files: self.telemetry.files.rows(),
            syn_cookies: self.telemetry.syn_cookies.rows(&self.publisher.gateway),
            port_mappings: self.port_mapping.usage(),
            ha: self.ha_state(),
            limited_rules: self.limited_rules(),
            ..MetricsSnapshot::default()
        }
    }

    fn limited_rules(&self) -> Vec<LimitedRule> {
        let rules = self.running.config.acls.iter().flat_map(|a| a.rules.iter().map(move |r| (a, r)));
        let row = |(acl, rule): (&Acl, &AclRule)| {
            let stats = self.compiler.acl.stats(&acl.id, &rule.id)?;
            let limit = stats.limit.as_ref()?;
            let (sessions, refused) = (limit.live(), limit.refused.load(Ordering::Relaxed));
            Some(LimitedRule { rule: stats.name.clone(), sessions, refused })
        };
        rules
            .filter(|(_, r)| r.max_sessions.or(r.max_sessions_per_source).is_some())
            .filter_map(row)
            .collect()
    }

    fn next_hop_use(&self) -> NextHopUse {
        let (used, capacity) = self.compiler.numbers.nexthops.usage();
        NextHopUse { used, capacity, incomplete: self.kernel.resolver.incomplete() }
    }

    fn session_totals(&self) -> control::SessionTotals {
        let evicted = &self.flows.tables.nat.totals.evicted;
        let evicted = |w: Worth| evicted[w as usize].load(Ordering::Relaxed);
        control::SessionTotals {
            ipv4: u64::from(self.flows.tables.v4.live()),
            ipv6: u64::from(self.flows.tables.v6.live()),
            capacity_ipv4: u64::from(self.flows.tables.v4.capacity()),
            capacity_ipv6: u64::from(self.flows.tables.v6.capacity()),
            created: self.workers.shared().map(|w| w.counters.sessions_created.get()).sum(),
            evicted: Worth::ALL.into_iter().map(evicted).sum(),
            evicted_established: evicted(Worth::Established),
            heaviest: [self.heaviest(&self.flows.tables.v4), self.heaviest(&self.flows.tables.v6)]
                .into_iter()
                .flatten()
                .collect(),
            memory_bytes: self.flows.tables.memory() as u64,
        }
    }

    fn heaviest<R: FlowFamily>(&self, table: &FlowTable<R>) -> Option<control::HeaviestHost> {
        let (host, sessions) = session::heaviest(table)?;
        let (host, prefix, vrf) = R::named(host);
        Some(control::HeaviestHost {
            family: if R::FAMILY == Family::V4 { 4 } else { 6 },
            host: format!("{host}/{prefix}"),
            vrf: vrf.and_then(|no| self.compiler.vrfs.name(no)).map(str::to_owned),
            sessions: sessions.into(),
        })
    }

    fn worker_rows(&self) -> Vec<control::Worker> {
        self.workers
            .iter()
            .map(|w| control::Worker {
                id: w.shared.id,
                cpu: w.shared.cpu.map(|c| c as u32),
                batches: w.shared.counters.batches.get(),
                packets: w.shared.counters.packets.get(),
                busy_percent: (w.busy_percent() * 10.0).round() / 10.0,
            })
            .collect()
    }
}
