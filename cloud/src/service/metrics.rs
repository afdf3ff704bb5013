//! Counters for Prometheus.

use std::sync::atomic::AtomicI64;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::store::Count;

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
    pub fn new(statements: Count, polls: Gauge<i64, AtomicI64>) -> Metrics {
        let mut registry = Registry::with_prefix("sag_cloud");
        let calls = Family::default();
        let seconds = Histogram::new(exponential_buckets(0.0005, 2.0, 14));
        registry.register("requests", "Calls by action and result code", calls.clone());
        registry.register("request_seconds", "Time to answer, long polls left out", seconds.clone());
        registry.register("long_polls", "Devices that wait for a change", polls);
        registry.register_collector(Box::new(Statements(statements)));
        Metrics { registry, calls, seconds }
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}

/// The count of the store as a metric.
#[derive(Debug)]
struct Statements(Count);

impl Collector for Statements {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let count = ConstCounter::new(self.0.get());
        let help = "Statements sent to the database, beginnings and ends of transactions included";
        let metric = encoder.encode_descriptor("statements", help, None, count.metric_type())?;
        count.encode(metric)
    }
}
