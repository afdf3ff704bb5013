//! By which lines to the Internet the overlay gets through, as its tunnels have measured it. One tunnel or one peer may be
//! down for reasons of its own; when all of a line's are, or lose much, the next line is tried.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sag_model::control::Tunnel;

/// Loss from which on a tunnel is no better than one that is down, in percent.
const MUCH: f64 = 20.0;
/// How long a line is passed over the first time; each time within [`MEMORY`] of the last twice as long.
const FIRST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
const MEMORY: Duration = Duration::from_secs(600);

/// A line that was given up.
#[derive(Debug, Clone, Copy)]
struct Unfit {
    until: Instant,
    pause: Duration,
}

/// What the tunnels have shown of each line, by device.
#[derive(Debug, Default)]
pub struct Lines(BTreeMap<String, Unfit>);

impl Lines {
    /// Notes how the tunnels are that end at a line. Those whose far end has never answered say nothing.
    pub fn note<'t>(&mut self, device: &str, tunnels: impl IntoIterator<Item = &'t Tunnel>, now: Instant) {
        let known = tunnels.into_iter().filter(|t| t.rtt_us.is_some() || t.loss_percent.is_some());
        let bad = |t: &Tunnel| t.state != "up" || t.loss_percent.is_some_and(|l| l >= MUCH);
        let verdicts: Vec<bool> = known.map(bad).collect();
        if verdicts.is_empty() || verdicts.contains(&false) || self.is_unfit(device, now) {
            return;
        }
        let pause = match self.0.get(device) {
            Some(u) if now.saturating_duration_since(u.until) < MEMORY => (u.pause * 2).min(LONGEST),
            _ => FIRST,
        };
        tracing::warn!(
            device,
            seconds = pause.as_secs(),
            "no tunnel of the network gets through by this line"
        );
        self.0.insert(device.to_owned(), Unfit { until: now + pause, pause });
    }

    fn is_unfit(&self, device: &str, now: Instant) -> bool {
        self.0.get(device).is_some_and(|u| now < u.until)
    }

    /// Lines that are passed over where there are others.
    pub fn unfit(&self, now: Instant) -> BTreeSet<String> {
        self.0.keys().filter(|d| self.is_unfit(d, now)).cloned().collect()
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
