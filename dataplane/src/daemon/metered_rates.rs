//! What each meter has let pass in the last full second.

use sag_model::Nanos;
use sag_pipeline::qos::{MeterTable, Owner};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Over how long a rate is measured.
const SAMPLE: Duration = Duration::from_secs(1);

/// Measured rates by the owners of the meters.
#[derive(Debug, Default)]
pub struct MeteredRates {
    taken: Option<Instant>,
    passed: HashMap<Owner, u64>,
    bps: HashMap<Owner, u64>,
}

impl MeteredRates {
    /// Measures once a second, and keeps the times in the meters comparable with the clock.
    pub fn sample(&mut self, meters: &MeterTable, now: Nanos) {
        let elapsed = self.taken.map(|t| t.elapsed());
        if elapsed.is_some_and(|e| e < SAMPLE) {
            return;
        }
        meters.refresh(now);
        let passed: HashMap<_, _> =
            meters.owners().map(|(o, n)| (o.clone(), meters.counted(n).passed)).collect();
        let bps = |(owner, now): (&Owner, &u64)| {
            let then = self.passed.get(owner)?;
            let bits = now.saturating_sub(*then) as f64 * 8.0;
            Some((owner.clone(), (bits / elapsed?.as_secs_f64()).round() as u64))
        };
        let bps = passed.iter().filter_map(bps).collect();
        *self = MeteredRates { taken: Some(Instant::now()), passed, bps };
    }

    /// Bit/s that the meters of an owner let pass.
    pub fn bps(&self, owner: &Owner) -> u64 {
        self.bps.get(owner).copied().unwrap_or(0)
    }
}
