//! A token bucket for each access key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

pub struct Limiter {
    /// Requests a second; 0 turns the limit off.
    rate: f64,
    buckets: Mutex<HashMap<String, (f64, Instant)>>,
}

impl Limiter {
    pub fn new(rate: u32) -> Limiter {
        Limiter { rate: f64::from(rate), buckets: Mutex::default() }
    }

    /// A bucket holds one second's worth.
    pub fn allow(&self, key: &str, now: Instant) -> bool {
        if self.rate == 0.0 {
            return true;
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, at) = buckets.entry(key.to_owned()).or_insert((self.rate, now));
        let gained = now.saturating_duration_since(*at).as_secs_f64() * self.rate;
        *tokens = (*tokens + gained).min(self.rate);
        *at = now;
        let ok = *tokens >= 1.0;
        if ok {
            *tokens -= 1.0;
        }
        ok
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_gets_its_rate_and_no_more() {
        let l = Limiter::new(2);
        let t = Instant::now();
        assert!(l.allow("a", t) && l.allow("a", t) && !l.allow("a", t));
        assert!(l.allow("b", t));
        assert!(l.allow("a", t + Duration::from_millis(500)));
        assert!(!l.allow("a", t + Duration::from_millis(500)));
    }
}
