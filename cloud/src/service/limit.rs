//! Token buckets: calls of each access key, and lines of the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A bucket for each key. Only keys that exist have one, so the table is as large as the number of keys in use.
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

    /// Forgets buckets that are full again.
    pub fn sweep(&self, now: Instant) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.retain(|_, (_, at)| now.saturating_duration_since(*at) < Duration::from_secs(1));
    }
}

/// So many events a second are written down, the others counted.
pub struct Sampler {
    rate: u32,
    inner: Mutex<Option<Second>>,
}

struct Second {
    began: Instant,
    events: u64,
}

impl Sampler {
    pub fn new(rate: u32) -> Sampler {
        Sampler { rate, inner: Mutex::default() }
    }

    /// Whether to write this one down. Says how many were not, once their second is over.
    pub fn allow(&self, now: Instant) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *inner {
            Some(s) if now.saturating_duration_since(s.began) < Duration::from_secs(1) => {
                s.events += 1;
                s.events <= u64::from(self.rate)
            }
            second => {
                let left_out = second.as_ref().map_or(0, |s| s.events.saturating_sub(self.rate.into()));
                if left_out > 0 {
                    tracing::info!(
                        calls = left_out,
                        "calls without a valid signature that are not in the log"
                    );
                }
                *second = Some(Second { began: now, events: 1 });
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gets_its_rate_and_no_more() {
        let l = Limiter::new(2);
        let t = Instant::now();
        assert!(l.allow("a", t) && l.allow("a", t) && !l.allow("a", t));
        assert!(l.allow("b", t));
        assert!(l.allow("a", t + Duration::from_millis(500)));
        assert!(!l.allow("a", t + Duration::from_millis(500)));
        l.sweep(t + Duration::from_millis(1400));
        assert_eq!(l.buckets.lock().unwrap().keys().collect::<Vec<_>>(), ["a"]);
        l.sweep(t + Duration::from_secs(2));
        assert!(l.buckets.lock().unwrap().is_empty());
    }

    #[test]
    fn so_many_a_second_are_written_down() {
        let s = Sampler::new(3);
        let t = Instant::now();
        assert_eq!((0..10).filter(|_| s.allow(t)).count(), 3);
        assert_eq!((0..10).filter(|_| s.allow(t + Duration::from_secs(1))).count(), 3);
    }
}
