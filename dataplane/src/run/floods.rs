//! Floods of new flows: XDP bounds what reaches the workers and counts the rest; this tells when it
//! begins and ends.

use super::Daemon;
use sag_model::{DropReason, PortIdx};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_secs(1);
/// Without a packet over the rate for so long, a flood is over.
const QUIET: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Floods {
    looked: Instant,
    ports: BTreeMap<PortIdx, Watch>,
}

/// What is known of a port.
#[derive(Debug, Default)]
struct Watch {
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

/// What changed at a port.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Begins(u64),
    Over { dropped: u64, lasted: Duration },
}

impl Watch {
    fn look(&mut self, dropped: u64, now: Instant) -> Option<News> {
        let new = dropped.saturating_sub(self.dropped);
        let before = std::mem::replace(&mut self.dropped, dropped);
        match &mut self.flood {
            None if new > 0 => {
                self.flood = Some(Flood { since: now, last: now, before });
                Some(News::Begins(new))
            }
            Some(f) if new > 0 => {
                f.last = now;
                None
            }
            Some(f) if now - f.last >= QUIET => {
                let news = News::Over { dropped: dropped - f.before, lasted: f.last - f.since + LOOK };
                self.flood = None;
                Some(news)
            }
            _ => None,
        }
    }
}

impl Default for Floods {
    fn default() -> Self {
        Floods { looked: Instant::now(), ports: BTreeMap::new() }
    }
}

impl Daemon {
    pub(super) fn look_for_floods(&mut self) {
        let now = Instant::now();
        if now - self.floods.looked < LOOK {
            return;
        }
        self.floods.looked = now;
        for b in self.bindings.iter().filter(|b| b.ours()) {
            let Ok(stats) = self.gateway.stats(b.idx) else { continue };
            let dropped = stats.drops(DropReason::FloodGuard);
            let name = self.config.ports.get(b.idx.index()).map_or("?", |p| p.name.as_str());
            // What a predecessor counted is no news.
            let base = self.base.get(b.idx.index()).map_or(0, |s| s.drops(DropReason::FloodGuard));
            let watch =
                self.floods.ports.entry(b.idx).or_insert_with(|| Watch { dropped: base, flood: None });
            match watch.look(dropped, now) {
                Some(News::Begins(packets)) => tracing::warn!(
                    port = name,
                    packets,
                    rate = self.config.dataplane.new_flow_rate,
                    "flood of new flows: what is over dataplane.new_flow_rate is dropped (flood-guard)"
                ),
                Some(News::Over { dropped, lasted }) => {
                    tracing::info!(port = name, dropped, seconds = lasted.as_secs(), "the flood is over");
                }
                None => {}
            }
        }
    }

    /// Ports under a flood, as warnings.
    pub(super) fn flood_warnings(&self) -> Vec<String> {
        let line = |(idx, w): (&PortIdx, &Watch)| {
            let f = w.flood.as_ref()?;
            let name = self.config.ports.get(idx.index()).map_or("?", |p| p.name.as_str());
            Some(format!(
                "port {name}: flood of new flows since {} s, {} packets over dataplane.new_flow_rate dropped",
                f.since.elapsed().as_secs(),
                w.dropped - f.before
            ))
        };
        self.floods.ports.iter().filter_map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_begins_once_and_ends_when_it_is_quiet() {
        let (mut w, t) = (Watch { dropped: 100, flood: None }, Instant::now());
        let at = |s| t + Duration::from_secs(s);
        assert_eq!(w.look(100, at(0)), None);
        assert_eq!(w.look(130, at(1)), Some(News::Begins(30)));
        assert_eq!(w.look(150, at(2)), None);
        assert_eq!(w.look(150, at(6)), None);
        assert_eq!(w.look(150, at(7)), Some(News::Over { dropped: 50, lasted: Duration::from_secs(2) }));
        assert_eq!(w.look(150, at(20)), None);
        assert_eq!(w.look(151, at(21)), Some(News::Begins(1)));
    }
}
