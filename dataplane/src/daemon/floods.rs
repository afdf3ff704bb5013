//! Floods of new flows: XDP limits what reaches the workers and counts the rest; the log says when a flood begins and ends.

use sag_model::PortIdx;
use sag_model::config::Config;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often drops of the flood guard are looked at.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Without a packet over the rate for so long, a flood is over.
const QUIET: Duration = Duration::from_secs(5);

/// Floods by port.
#[derive(Debug, Default)]
pub struct Floods {
    ports: BTreeMap<PortIdx, Watch>,
}

/// Watches a counter of refusals: what it counts begins with the first, and is over when there are none for a while.
#[derive(Debug, Default)]
pub struct Watch {
    /// Packets over the rate so far.
    dropped: u64,
    flood: Option<Flood>,
}

#[derive(Debug)]
struct Flood {
    since: Instant,
    last: Instant,
    /// The counter when it began.
    before: u64,
}

/// What changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// With so many refusals.
    Begins(u64),
    /// After so many.
    Over { dropped: u64, lasted: Duration },
}

impl Watch {
    /// For how long it goes on, and how many refusals there were.
    pub fn going_on(&self) -> Option<(Duration, u64)> {
        let f = self.flood.as_ref()?;
        Some((f.since.elapsed(), self.dropped - f.before))
    }

    /// Takes the counter's new value in.
    pub fn update(&mut self, dropped: u64, now: Instant) -> Option<Change> {
        let new = dropped.saturating_sub(self.dropped);
        let before = std::mem::replace(&mut self.dropped, dropped);
        match &mut self.flood {
            None if new > 0 => {
                self.flood = Some(Flood { since: now, last: now, before });
                Some(Change::Begins(new))
            }
            Some(f) if new > 0 => {
                f.last = now;
                None
            }
            Some(f) if now - f.last >= QUIET => {
                let change =
                    Change::Over { dropped: dropped - f.before, lasted: f.last - f.since + INTERVAL };
                self.flood = None;
                Some(change)
            }
            _ => None,
        }
    }
}

impl Floods {
    /// Looks for floods that have begun or ended, and logs them. `dropped`: for each port the packets over the rate, now and
    /// when the daemon started.
    pub fn check(&mut self, config: &Config, dropped: &[(PortIdx, u64, u64)]) {
        let now = Instant::now();
        for &(idx, dropped, base) in dropped {
            let name = port_name(config, idx);
            // What the predecessor counted is not part of a flood of now.
            let watch = self.ports.entry(idx).or_insert_with(|| Watch { dropped: base, flood: None });
            match watch.update(dropped, now) {
                Some(Change::Begins(packets)) => tracing::warn!(
                    port = name,
                    packets,
                    rate = config.dataplane.new_flow_rate,
                    "flood of new flows: what is over dataplane.new_flow_rate is dropped (flood-guard)"
                ),
                Some(Change::Over { dropped, lasted }) => {
                    tracing::info!(port = name, dropped, seconds = lasted.as_secs(), "the flood is over");
                }
                None => {}
            }
        }
    }

    /// Ports under a flood, as warnings.
    pub fn warnings(&self, config: &Config) -> Vec<String> {
        let line = |(idx, w): (&PortIdx, &Watch)| {
            let (since, dropped) = w.going_on()?;
            let name = port_name(config, *idx);
            Some(format!(
                "port {name}: flood of new flows since {} s, {dropped} packets over dataplane.new_flow_rate dropped",
                since.as_secs()
            ))
        };
        self.ports.iter().filter_map(line).collect()
    }
}

fn port_name(config: &Config, idx: PortIdx) -> &str {
    config.port(idx).map_or("?", |p| p.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_begins_once_and_ends_when_it_is_quiet() {
        let (mut w, t) = (Watch { dropped: 100, flood: None }, Instant::now());
        let at = |s| t + Duration::from_secs(s);
        assert_eq!(w.update(100, at(0)), None);
        assert_eq!(w.update(130, at(1)), Some(Change::Begins(30)));
        assert_eq!(w.update(150, at(2)), None);
        assert_eq!(w.update(150, at(6)), None);
        assert_eq!(w.update(150, at(7)), Some(Change::Over { dropped: 50, lasted: Duration::from_secs(2) }));
        assert_eq!(w.update(150, at(20)), None);
        assert_eq!(w.update(151, at(21)), Some(Change::Begins(1)));
    }
}
