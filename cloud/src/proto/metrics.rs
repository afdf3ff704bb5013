//! Counters for Prometheus.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

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
    pub polls: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("sag_cloud");
        let calls = Family::default();
        let seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 14));
        let polls = Gauge::default();
        registry.register("requests", "Calls by action and result code", calls.clone());
        registry.register("request_seconds", "Time to answer, long polls left out", seconds.clone());
        registry.register("long_polls", "Devices that wait for a change", polls.clone());
        Metrics { registry, calls, seconds, polls }
    }
}

impl Metrics {
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}
