//! SYN cookies: the secrets that XDP and workers make them by, and whether the SYNs of a service are answered with them.

use ring::rand::{SecureRandom, SystemRandom};
use sag_bpf::{Gateway, SynCounts};
use sag_model::config::{Config, SynCookieMode, SynCookies};
use sag_model::control::SynCookieRow;
use sag_model::flow::{SYN_SERVICES, SynCookieControl};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A secret makes cookies for so long and is good for as long again: a client's answer takes as long as a round trip.
const SLOT: Duration = Duration::from_secs(64);
/// Below half the rate for so long, a flood is over.
const QUIET: Duration = Duration::from_secs(30);

/// The protected services.
#[derive(Debug)]
pub struct SynCookieKeeper {
    services: Vec<Watch>,
    rotated: Instant,
    looked: Instant,
}

/// A service, by its place in the file.
#[derive(Debug)]
struct Watch {
    config: SynCookies,
    /// Where the counters were when this daemon, or the service, began.
    base: SynCounts,
    counts: SynCounts,
    trigger: Trigger,
}

impl SynCookieKeeper {
    pub fn start(gateway: &Gateway) -> SynCookieKeeper {
        let control = gateway.syn_cookies();
        // Clients of the predecessor may still answer its cookies.
        for slot in 0..2 {
            if control.secret[slot].iter().all(|w| w.load(Ordering::Relaxed) == 0) {
                renew(control, slot);
            }
        }
        let now = Instant::now();
        SynCookieKeeper { services: Vec::new(), rotated: now, looked: now }
    }

    /// Looks at the rates of new SYNs, and at the age of the secret.
    pub fn check(&mut self, config: &Config, gateway: &Gateway, now: Instant) {
        let control = gateway.syn_cookies();
        if now - self.rotated >= SLOT && !config.syn_cookies.is_empty() {
            let next = 1 - (control.slot.load(Ordering::Relaxed) as usize & 1);
            if renew(control, next) {
                control.slot.store(next as u32, Ordering::Release);
                self.rotated = now;
            }
        }
        let elapsed = now - std::mem::replace(&mut self.looked, now);
        self.services.truncate(config.syn_cookies.len());
        let mut active = 0;
        for (n, service) in config.syn_cookies.iter().take(SYN_SERVICES).enumerate() {
            let counts = gateway.syn_counts(n as u8).unwrap_or_default();
            let begun =
                || Watch { config: service.clone(), base: counts, counts, trigger: Trigger::default() };
            match self.services.get_mut(n) {
                Some(w) if w.config == *service => {}
                Some(w) => *w = begun(),
                None => self.services.push(begun()),
            }
            let Some(w) = self.services.get_mut(n) else { continue };
            let syns = counts.syns - std::mem::replace(&mut w.counts, counts).syns.min(counts.syns);
            let on = match service.mode {
                SynCookieMode::Off => false,
                SynCookieMode::Always => true,
                SynCookieMode::Auto => w.look(syns, elapsed, now),
            };
            active |= u64::from(on) << n;
        }
        control.active.store(active, Ordering::Release);
    }

    /// What `status` and the metrics show.
    pub fn rows(&self, gateway: &Gateway) -> Vec<SynCookieRow> {
        let rows = self.services.iter().enumerate().map(|(n, w)| {
            let now = gateway.syn_counts(n as u8).unwrap_or(w.counts);
            let since = |f: fn(&SynCounts) -> u64| f(&now).saturating_sub(f(&w.base));
            SynCookieRow {
                id: w.config.id.clone(),
                address: w.config.address,
                port: w.config.port,
                mode: w.config.mode.as_str().to_owned(),
                active: gateway.syn_cookies().is_active(n as u8),
                syns: since(|c| c.syns),
                sent: since(|c| c.sent),
                accepted: since(|c| c.accepted),
                refused: since(|c| c.refused),
            }
        });
        rows.collect()
    }

    /// Services under a flood, as warnings.
    pub fn warnings(&self, now: Instant) -> Vec<String> {
        let line = |w: &Watch| {
            let since = w.trigger.on?;
            Some(format!(
                "{}: flood of SYNs since {} s; they are answered with SYN cookies",
                w.config.id,
                (now - since).as_secs()
            ))
        };
        self.services.iter().filter_map(line).collect()
    }
}

impl Watch {
    fn look(&mut self, syns: u64, elapsed: Duration, now: Instant) -> bool {
        let was = self.trigger.on;
        let rate = (syns as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
        self.trigger.update(rate, self.config.rate.into(), now);
        match (was, self.trigger.on) {
            (None, Some(_)) => tracing::warn!(
                service = self.config.id,
                rate,
                threshold = self.config.rate,
                "flood of SYNs: they are answered with SYN cookies"
            ),
            (Some(since), None) => {
                let seconds = (now - since).as_secs();
                tracing::info!(service = self.config.id, seconds, "the flood of SYNs is over");
            }
            _ => {}
        }
        self.trigger.on.is_some()
    }
}

/// On at a rate, off again when fewer than half of that have come for a while.
#[derive(Debug, Default)]
struct Trigger {
    on: Option<Instant>,
    quiet: Option<Instant>,
}

impl Trigger {
    fn update(&mut self, rate: u64, threshold: u64, now: Instant) {
        if rate >= threshold {
            self.on.get_or_insert(now);
        }
        if rate * 2 >= threshold {
            self.quiet = None;
        } else if now - *self.quiet.get_or_insert(now) >= QUIET {
            self.on = None;
        }
    }
}

/// False: there are no random numbers, and the secret stays.
fn renew(control: &SynCookieControl, slot: usize) -> bool {
    let mut bytes = [0; 16];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        tracing::error!("no random numbers for the secret of SYN cookies: the old one stays");
        return false;
    }
    for (word, bytes) in control.secret[slot].iter().zip(bytes.as_chunks::<8>().0) {
        word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_begin_at_the_rate_and_end_after_a_quiet_while() {
        let (mut t, start) = (Trigger::default(), Instant::now());
        let mut at = |seconds, rate| {
            t.update(rate, 200, start + Duration::from_secs(seconds));
            t.on.is_some()
        };
        assert!(!at(0, 199));
        assert!(at(1, 200));
        assert!(at(2, 150), "half the rate keeps them");
        assert!(at(3, 99) && at(32, 99), "not yet");
        assert!(at(33, 100) && at(34, 0) && at(63, 0), "the while begins anew");
        assert!(!at(64, 0));
        assert!(!at(65, 199) && at(66, 1000));
    }

    #[test]
    fn each_secret_is_another() {
        let control = SynCookieControl::default();
        assert!(renew(&control, 0) && renew(&control, 1));
        let words: Vec<_> = control.secret.as_flattened().iter().map(|w| w.load(Ordering::Relaxed)).collect();
        assert!(words.iter().all(|w| *w != 0));
        assert_ne!(words[..2], words[2..]);
    }
}
