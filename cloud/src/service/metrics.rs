//! Counters for Prometheus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use sag_http::Gate;

use crate::south::Agents;
use crate::store::{Count, Store};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Call {
    /// The operation, or `other`: names that clients invent must not become series.
    pub action: String,
    pub code: String,
}

pub struct Metrics {
    registry: Registry,
    pub calls: Family<Call, Counter>,
    pub seconds: Histogram,
}

impl Metrics {
    pub fn new(store: &Store, agents: &Agents, gate: Arc<Gate>, unaudited: Arc<AtomicU64>) -> Metrics {
        let mut registry = Registry::with_prefix("sag_cloud");
        let calls = Family::default();
        let seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 14));
        registry.register("requests", "Calls by action and result code", calls.clone());
        registry.register("request_seconds", "Time to answer, long polls left out", seconds.clone());
        registry.register("long_polls", "Devices that wait for a change", agents.polls.clone());
        let statements = store.statements.clone();
        registry.register_collector(Box::new(Read { statements, gate, unaudited }));
        Metrics { registry, calls, seconds }
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}

/// What others count.
#[derive(Debug)]
struct Read {
    statements: Count,
    gate: Arc<Gate>,
    unaudited: Arc<AtomicU64>,
}

impl Collector for Read {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut counter = |name: &str, help: &str, value: u64| {
            let count = ConstCounter::new(value);
            count.encode(encoder.encode_descriptor(name, help, None, count.metric_type())?)
        };
        let help = "Statements sent to the database, beginnings and ends of transactions included";
        counter("statements", help, self.statements.get())?;
        let help = "Refused calls that have no entry in the audit log, because their key sent too many";
        counter("audit_left_out", help, self.unaudited.load(Ordering::Relaxed))?;
        counter("connections_accepted", "Connections that were let in", self.gate.accepted())?;
        let mut gauge = |name: &str, help: &str, value: usize| {
            let gauge = ConstGauge::new(value as f64);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        gauge("connections", "Connections that are open", self.gate.open())?;
        let help = "Bytes of bodies and answers in memory, beyond the first 16 KiB of each connection";
        gauge("buffered_bytes", help, self.gate.buffered())?;
        let help = "Connections and calls that were refused or ended, by what ran out";
        let mut ended = encoder.encode_descriptor("connections_ended", help, None, MetricType::Counter)?;
        for (reason, n) in self.gate.ended() {
            ConstCounter::new(n).encode(ended.encode_family(&[("reason", reason.name())])?)?;
        }
        Ok(())
    }
}
