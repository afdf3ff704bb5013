//! By which lines to the Internet the overlay gets through, as its tunnels have measured it. Where there are tunnels by
//! several lines to a device, each is judged by itself. Where all tunnels end at one line, one of them or one peer may
//! be down for reasons of its own; when all of a line's are, or lose much, the next line is tried.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sag_model::control::Tunnel;

/// Loss from which on a tunnel is no better than one that is down, in percent.
const MUCH: f64 = 20.0;
/// How long a line is passed over the first time; each time within [`MEMORY`] of the last twice as long.
const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
const MEMORY: Duration = Duration::from_secs(600);

/// What was given up for a while, by name.
#[derive(Debug, Default)]
struct PassedOver(BTreeMap<String, Pause>);

#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

impl PassedOver {
    /// Begins a pause, unless there is one; returns its length.
    fn add(&mut self, name: &str, now: Instant) -> Option<Duration> {
        if self.has(name, now) {
            return None;
        }
        let length = match self.0.get(name) {
            Some(u) if now.saturating_duration_since(u.until) < MEMORY => (u.length * 2).min(LONGEST),
            _ => FIRST,
        };
        self.0.insert(name.to_owned(), Pause { until: now + length, length });
        Some(length)
    }

    fn has(&self, name: &str, now: Instant) -> bool {
        self.0.get(name).is_some_and(|u| now < u.until)
    }
}

fn loses_much(t: &Tunnel) -> bool {
    t.loss_percent.is_some_and(|l| l >= MUCH)
}

/// What the tunnels have shown of each line, by device.
#[derive(Debug, Default)]
pub struct Lines(PassedOver);

impl Lines {
    /// Notes how the tunnels are that end at a line. Those whose far end has never answered say nothing.
    pub fn note<'t>(&mut self, device: &str, tunnels: impl IntoIterator<Item = &'t Tunnel>, now: Instant) {
        let known = tunnels.into_iter().filter(|t| t.rtt_us.is_some() || t.loss_percent.is_some());
        let verdicts: Vec<bool> = known.map(|t| t.state != "up" || loses_much(t)).collect();
        if verdicts.is_empty() || verdicts.contains(&false) {
            return;
        }
        if let Some(pause) = self.0.add(device, now) {
            let seconds = pause.as_secs();
            tracing::warn!(device, seconds, "no tunnel of the network gets through by this line");
        }
    }

    /// Lines that are passed over where there are others.
    pub fn unfit(&self, now: Instant) -> BTreeSet<String> {
        self.0.0.keys().filter(|d| self.0.has(d, now)).cloned().collect()
    }
}

/// What each tunnel has shown, where there are several to a device, by different lines.
#[derive(Debug, Default)]
pub struct Quality {
    answered: BTreeSet<String>,
    passed_over: PassedOver,
}

impl Quality {
    /// Notes how the tunnels are. One that is down needs no judgement: the gateway itself takes another one. How much it
    /// has lost is known of the last minute, so one that has come back waits for as long.
    pub fn note<'t>(&mut self, tunnels: impl IntoIterator<Item = &'t Tunnel>, now: Instant) {
        self.answered.clear();
        for t in tunnels {
            if t.rtt_us.is_none() {
                continue;
            }
            self.answered.insert(t.name.clone());
            if t.state == "up"
                && loses_much(t)
                && let Some(pause) = self.passed_over.add(&t.name, now)
            {
                let (seconds, percent) = (pause.as_secs(), t.loss_percent);
                tracing::warn!(tunnel = t.name, percent, seconds, "others are preferred: it loses much");
            }
        }
        let answered = &self.answered;
        self.passed_over.0.retain(|name, p| answered.contains(name) || now < p.until);
    }

    /// Tunnels whose far end has answered, and that lose little.
    pub fn fit(&self, now: Instant) -> BTreeSet<String> {
        self.answered.iter().filter(|t| !self.passed_over.has(t, now)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tunnel(state: &str, loss: Option<f64>) -> Tunnel {
        let row = json!({"name": "ccn-a", "kind": "esp", "state": state, "local": "203.0.113.2", "remote": "203.0.113.9",
            "port": "0", "mtu": 1400, "mtu_configured": null, "path_mtu_learned": null, "overhead": 50, "remote_mac": null,
            "rx_packets": 0, "rx_bytes": 0, "tx_packets": 0, "tx_bytes": 0, "drops": 0, "loss_percent": loss});
        serde_json::from_value(row).expect("a row of `sagctl tunnels`")
    }

    #[test]
    fn a_line_is_given_up_when_all_its_tunnels_are_bad() {
        let start = Instant::now();
        for (tunnels, given_up) in [
            (vec![], false),
            (vec![tunnel("down", None)], false),
            (vec![tunnel("down", Some(100.0))], true),
            (vec![tunnel("down", Some(100.0)), tunnel("up", Some(1.0))], false),
            (vec![tunnel("up", Some(25.0)), tunnel("down", Some(90.0)), tunnel("up", None)], true),
        ] {
            let mut lines = Lines::default();
            lines.note("wan", &tunnels, start);
            assert_eq!(lines.unfit(start).contains("wan"), given_up, "{tunnels:?}");
            assert!(lines.unfit(start + FIRST).is_empty(), "it is tried again");
        }
    }

    #[test]
    fn a_tunnel_is_fit_when_it_has_answered_and_loses_little() {
        let start = Instant::now();
        let answered = |state, loss| Tunnel { rtt_us: Some(900), ..tunnel(state, loss) };
        for (seen, fit) in [
            (tunnel("up", None), false),
            (tunnel("up", Some(0.0)), false),
            (answered("up", None), true),
            (answered("up", Some(19.0)), true),
            (answered("up", Some(21.0)), false),
            // That it is down is the gateway's business.
            (answered("down", Some(100.0)), true),
        ] {
            let mut quality = Quality::default();
            quality.note([&seen], start);
            assert_eq!(quality.fit(start).contains("ccn-a"), fit, "{seen:?}");
        }
        let mut quality = Quality::default();
        quality.note([&answered("up", Some(50.0))], start);
        let later = start + FIRST;
        quality.note([&answered("up", Some(1.0))], later);
        assert!(quality.fit(later - Duration::from_secs(1)).is_empty(), "not before the pause is over");
        assert!(quality.fit(later).contains("ccn-a"));
        // The far end of another tunnel of that name has not answered yet.
        quality.note([&tunnel("up", None)], later);
        assert!(quality.fit(later).is_empty());
    }

    #[test]
    fn it_is_passed_over_for_longer_each_time() {
        let (mut lines, bad) = (Lines::default(), [tunnel("down", Some(100.0))]);
        let mut now = Instant::now();
        for pause in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            lines.note("wan", &bad, now);
            let before = now + Duration::from_secs(pause - 1);
            // What is seen meanwhile is of another line.
            lines.note("wan", &bad, before);
            assert!(lines.unfit(before).contains("wan"), "{pause}");
            now = before + Duration::from_secs(1);
            assert!(lines.unfit(now).is_empty(), "{pause}");
        }
        now += MEMORY;
        lines.note("wan", &bad, now);
        assert!(lines.unfit(now + FIRST).is_empty(), "it was good for long");
    }
}
