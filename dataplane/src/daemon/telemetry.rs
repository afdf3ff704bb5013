//! What the daemon remembers for its reports, and the threads that log and publish them.

use super::file_health::FileHealth;
use super::floods::Floods;
use super::journal::JournalKeeper;
use super::metered_rates::MeteredRates;
use super::neighbors::NeighborEvents;
use super::port_counters::{not_received, port_counters};
use super::publisher::Publisher;
use super::repairs::Repairs;
use super::saver::Saver;
use super::syn_cookies::SynCookieKeeper;
use super::workers::Workers;
use crate::server::MetricsSnapshot;
use anyhow::{Context, Result};
use sag_bpf::{Gateway, PortStats, TunnelStats};
use sag_model::PortIdx;
use sag_pipeline::ids::TunnelNo;
use sag_pipeline::tunnel::Tunnels;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Where counters began, measured rates, and the NAT log.
pub struct Telemetry {
    pub started: Instant,
    /// XDP's counters when this daemon started: reports count from there.
    xdp_base: Vec<PortStats>,
    tunnel_base: Vec<TunnelStats>,
    /// Packets left in the rings of sockets that were closed.
    lost_in_closed_sockets: BTreeMap<PortIdx, u64>,
    pub floods: Floods,
    pub syn_cookies: SynCookieKeeper,
    pub neighbors: NeighborEvents,
    pub repairs: Repairs,
    pub rates: MeteredRates,
    /// The last known state of tunnels: up or down.
    tunnels_up: HashMap<String, bool>,
    pub journal: JournalKeeper,
    pub saver: Saver,
    /// The files that these two write.
    pub files: FileHealth,
    metrics: Arc<Mutex<MetricsSnapshot>>,
}

/// The threads that write files. They keep the access to files that the caller has when it starts them.
pub struct Writers {
    journal: JournalKeeper,
    saver: Saver,
    files: FileHealth,
}

impl Writers {
    /// `sessions`: what the IPv4 flow table has room for.
    pub fn start(sessions: u32) -> Result<Writers> {
        let files = FileHealth::default();
        Ok(Writers {
            journal: JournalKeeper::start(files.clone(), sessions)
                .context("cannot start the thread of the NAT log")?,
            saver: Saver::start(files.clone()).context("cannot start the thread that saves files")?,
            files,
        })
    }
}

impl Telemetry {
    pub fn start(gateway: &Gateway, writers: Writers) -> Telemetry {
        let stats = |i| gateway.stats(PortIdx(i)).unwrap_or_default();
        let Writers { journal, saver, files } = writers;
        Telemetry {
            started: Instant::now(),
            xdp_base: (0..PortIdx::MAX as u8).map(stats).collect(),
            tunnel_base: (0..=u8::MAX).map(|no| gateway.tunnel_stats(no).unwrap_or_default()).collect(),
            lost_in_closed_sockets: BTreeMap::new(),
            floods: Floods::default(),
            syn_cookies: SynCookieKeeper::start(gateway),
            neighbors: NeighborEvents::default(),
            repairs: Repairs::default(),
            rates: MeteredRates::default(),
            tunnels_up: HashMap::new(),
            journal,
            saver,
            files,
            metrics: Arc::default(),
        }
    }

    /// XDP's counters of a port when the daemon started.
    pub fn xdp_base(&self, idx: PortIdx) -> PortStats {
        self.xdp_base.get(idx.index()).copied().unwrap_or_default()
    }

    /// XDP's counters of a tunnel when the daemon started.
    pub fn tunnel_base(&self, no: TunnelNo) -> TunnelStats {
        self.tunnel_base.get(no.index()).copied().unwrap_or_default()
    }

    pub fn lost_in_closed_sockets(&self, idx: PortIdx) -> u64 {
        self.lost_in_closed_sockets.get(&idx).copied().unwrap_or(0)
    }

    /// To be called when a device has no socket: what XDP handed over until now and no worker has received is lost.
    pub fn note_closed_sockets(&mut self, dev: u8, publisher: &Publisher, workers: &Workers) {
        for b in publisher.bindings.iter().filter(|b| b.port.dev == dev) {
            let punted = port_counters(b.idx, publisher, workers, self).punted;
            self.lost_in_closed_sockets.insert(b.idx, not_received(b.idx, punted, workers));
        }
    }

    /// Logs which tunnels have gone down or come back since the last call.
    pub fn log_tunnel_changes(&mut self, tunnels: &Tunnels) {
        self.tunnels_up.retain(|name, _| tunnels.iter().any(|t| t.name == *name));
        for t in tunnels.iter() {
            let up = t.state.is_up();
            if self.tunnels_up.insert(t.name.clone(), up).unwrap_or(true) == up {
                continue;
            }
            let w = t.state.watched();
            if up {
                tracing::info!(tunnel = t.name, rtt_us = w.rtt.map(|r| r / 1000), "the tunnel is up again");
            } else {
                tracing::warn!(
                    tunnel = t.name, remote = %t.remote, lost = t.probing.loss,
                    "the tunnel is down: its far end does not answer"
                );
            }
        }
    }

    /// Where the metrics endpoint reads.
    pub fn metrics(&self) -> Arc<Mutex<MetricsSnapshot>> {
        self.metrics.clone()
    }

    pub fn publish_metrics(&self, snapshot: MetricsSnapshot) {
        match self.metrics.lock() {
            Ok(mut d) => *d = snapshot,
            Err(e) => *e.into_inner() = snapshot,
        }
    }
}
