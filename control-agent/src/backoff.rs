//! How long to wait after failures: twice as long each time up to a limit, with jitter, so that
//! many gateways do not come back to a restarted cloud all at once.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

const FIRST: Duration = Duration::from_millis(500);
/// What a cloud that throttles is given at least.
const THROTTLED: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Backoff {
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(max: Duration) -> Backoff {
        Backoff { max, failures: 0 }
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The next pause: between half of and the whole step.
    pub fn next(&mut self, throttled: bool) -> Duration {
        let step = FIRST.saturating_mul(1 << self.failures.min(16)).min(self.max);
        self.failures = self.failures.saturating_add(1);
        let step = if throttled { step.max(THROTTLED.min(self.max)) } else { step };
        step.mul_f64(0.5 + 0.5 * fraction())
    }
}

/// A number from 0 to 1.
fn fraction() -> f64 {
    let mut bytes = [0; 4];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_limit_and_starts_over() {
        let mut b = Backoff::new(Duration::from_secs(8));
        for step in [500, 1000, 2000, 4000, 8000, 8000, 8000] {
            let step = Duration::from_millis(step);
            let wait = b.next(false);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} of {step:?}");
        }
        b.reset();
        assert!(b.next(false) <= FIRST);
        assert!(b.next(true) >= THROTTLED / 2);
    }
}
