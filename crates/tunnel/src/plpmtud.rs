//! Path MTU discovery by probing (DPLPMTUD, RFC 8899). Sizes are bytes of the outer IP packet.

use std::fmt;

/// MAX_PROBES: losses of a probe size after which it is too large (RFC 8899 5.1.2).
pub const MAX_PROBES: u32 = 3;
/// BASE_PLPMTU: confirmed before anything larger is tried (RFC 8899 5.1.2).
pub const BASE: u16 = 1200;
/// Nanoseconds between two hints by ICMP.
const HINTS: u64 = 1_000_000_000;
/// PMTU_RAISE_TIMER, nanoseconds (RFC 8899 5.1.1).
const RAISE: u64 = 600_000_000_000;

/// Bounds and intervals of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// MIN_PLPMTU: used when not even [`BASE`] passes.
    pub min: u16,
    /// MAX_PLPMTU: MTU of the outer link.
    pub max: u16,
    /// Sizes are multiples of it: 4 for ESP, which pads to words.
    pub step: u16,
    /// CONFIRMATION_TIMER: nanoseconds between two probes that confirm the size in use.
    pub confirm: u64,
}

/// State of the search (RFC 8899 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Confirming that [`BASE`] passes.
    Base,
    /// Searching for a larger size.
    Search,
    /// The largest size is found; it is confirmed now and then.
    SearchComplete,
    /// [`BASE`] does not pass.
    Error,
}

impl State {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            State::Base => "base",
            State::Search => "search",
            State::SearchComplete => "search-complete",
            State::Error => "error",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    id: u32,
    size: u16,
    at: u64,
}

/// The search for one tunnel.
///
/// Probes are lost for other reasons than their size, too: while the tunnel is down, the caller does not
/// call [`Plpmtud::send`], and calls [`Plpmtud::resume`] after.
#[derive(Debug, Clone)]
pub struct Plpmtud {
    settings: Settings,
    state: State,
    /// PLPMTU: the size in use.
    plpmtu: u16,
    /// The smallest size known not to pass.
    too_large: u16,
    pending: Option<Pending>,
    failures: u32,
    /// When the next probe is due.
    due: u64,
    raise_at: u64,
    next_id: u32,
    /// What ICMP says that passes; a search tries it first, and then the next size.
    hint: Option<u16>,
    /// When the next hint is taken.
    hints_from: u64,
}

impl Plpmtud {
    /// A search that begins now, with [`BASE`] in use.
    pub fn new(settings: Settings, now: u64) -> Plpmtud {
        let step = settings.step.max(1);
        let down = |n: u16| n - n % step;
        let min = down(settings.min);
        let settings = Settings { min, max: down(settings.max).max(min), step, ..settings };
        let base = BASE.min(settings.max);
        Plpmtud {
            settings,
            state: State::Base,
            plpmtu: base,
            too_large: settings.max.saturating_add(step),
            pending: None,
            failures: 0,
            due: now,
            raise_at: now,
            next_id: 0,
            hint: None,
            hints_from: now,
        }
    }

    /// The state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Size of the largest outer packet that is known to pass; [`BASE`] until it is known.
    pub const fn mtu(&self) -> u16 {
        self.plpmtu
    }

    /// The time of the next probe.
    pub const fn next(&self) -> u64 {
        self.due
    }

    fn base(&self) -> u16 {
        BASE.min(self.settings.max)
    }

    /// The size to try next.
    fn candidate(&self) -> Option<u16> {
        let Settings { max, step, .. } = self.settings;
        match self.state {
            State::Base | State::Error => Some(self.base()),
            State::SearchComplete => Some(self.plpmtu),
            State::Search => {
                match self.hint {
                    Some(hint) if hint > self.plpmtu && hint < self.too_large => return Some(hint),
                    // Right behind it, the search may be over at once.
                    Some(hint) if hint == self.plpmtu && hint + step < self.too_large => {
                        return Some(hint + step);
                    }
                    _ => {}
                }
                if self.too_large > max {
                    // Most paths carry the link's MTU.
                    return (self.plpmtu < max).then_some(max);
                }
                let middle = self.plpmtu + (self.too_large - self.plpmtu) / 2;
                let middle = middle - middle % step;
                (middle > self.plpmtu).then_some(middle)
            }
        }
    }

    /// A probe to send now: its identifier and the size of its outer packet. `timeout` is how long an
    /// answer may take; it must come by [`Plpmtud::answered`].
    pub fn send(&mut self, now: u64, timeout: u64) -> Option<(u32, u16)> {
        if now < self.due {
            return None;
        }
        if self.pending.take().is_some() {
            self.failed(now);
        }
        if self.state == State::SearchComplete && now >= self.raise_at {
            self.search(now);
        }
        let size = loop {
            match self.candidate() {
                Some(size) => break size,
                None => self.complete(now),
            }
        };
        if now < self.due {
            return None;
        }
        self.next_id = self.next_id.wrapping_add(1);
        self.pending = Some(Pending { id: self.next_id, size, at: now });
        self.due = now.saturating_add(timeout.max(1_000_000));
        Some((self.next_id, size))
    }

    /// A probe was answered. True: the MTU has changed.
    pub fn answered(&mut self, id: u32, now: u64) -> bool {
        let Some(p) = self.pending.take_if(|p| p.id == id) else { return false };
        debug_assert!(p.at <= now);
        self.failures = 0;
        let before = self.plpmtu;
        match self.state {
            State::Base | State::Error => {
                self.plpmtu = p.size;
                self.search(now);
            }
            State::Search => {
                self.plpmtu = p.size;
                self.due = now;
                if self.candidate().is_none() {
                    self.complete(now);
                }
            }
            State::SearchComplete => self.due = now.saturating_add(self.settings.confirm),
        }
        self.plpmtu != before
    }

    /// ICMP says that the path takes `size` (RFC 8899 4.6.2). Whoever knows the tunnel's addresses can say so, so it
    /// changes nothing by itself: the size in use is confirmed at once rather than at the next interval, and a search
    /// tries `size` first. A hint is taken once a second at most.
    pub fn packet_too_big(&mut self, size: u16, now: u64) {
        let size = size - size % self.settings.step;
        if size < self.settings.min || size >= self.too_large || now < self.hints_from {
            return;
        }
        self.hints_from = now.saturating_add(HINTS);
        self.hint = Some(size);
        if self.state == State::SearchComplete && size < self.plpmtu && self.pending.is_none() {
            self.due = now;
        }
    }

    /// Probing goes on after a pause: a probe from before does not count.
    pub fn resume(&mut self, now: u64) {
        self.pending = None;
        self.failures = 0;
        self.due = now;
    }

    /// The outer link has another MTU. True: the MTU in use has changed.
    pub fn link(&mut self, max: u16, now: u64) -> bool {
        let settings = Settings { max, ..self.settings };
        if max - max % settings.step == self.settings.max {
            return false;
        }
        let (before, id) = (self.plpmtu, self.next_id);
        *self = Plpmtud { next_id: id, ..Plpmtud::new(settings, now) };
        self.plpmtu != before
    }

    fn search(&mut self, now: u64) {
        self.state = State::Search;
        self.too_large = self.settings.max.saturating_add(self.settings.step);
        self.failures = 0;
        self.due = now;
    }

    fn complete(&mut self, now: u64) {
        self.state = State::SearchComplete;
        self.hint = None;
        self.failures = 0;
        self.raise_at = now.saturating_add(RAISE);
        self.due = now.saturating_add(self.settings.confirm);
    }

    fn failed(&mut self, now: u64) {
        self.failures += 1;
        if self.failures < MAX_PROBES {
            return;
        }
        self.failures = 0;
        match self.state {
            State::Base => {
                self.state = State::Error;
                self.plpmtu = self.settings.min.min(self.plpmtu);
                self.due = now;
            }
            // Probed again at every confirmation: the path may improve.
            State::Error => self.due = now.saturating_add(self.settings.confirm),
            State::Search => {
                // The candidate that failed.
                self.too_large = self.candidate().unwrap_or(self.too_large);
            }
            // A black hole: the confirmed size does not pass any more (RFC 8899 4.3).
            State::SearchComplete => {
                self.state = State::Base;
                self.plpmtu = self.base().min(self.plpmtu);
                self.too_large = self.settings.max.saturating_add(self.settings.step);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;
    const TIMEOUT: u64 = 100 * MS;

    fn settings(max: u16, step: u16) -> Settings {
        Settings { min: 576, max, step, confirm: 1000 * MS }
    }

    /// Runs for `time`; `passes` says whether a packet of a size passes at a moment.
    fn run(p: &mut Plpmtud, from: u64, time: u64, passes: impl Fn(u64, u16) -> bool) -> u64 {
        let mut now = from;
        while now < from + time {
            if let Some((id, size)) = p.send(now, TIMEOUT) {
                assert!(size <= p.settings.max && size % p.settings.step == 0);
                if passes(now, size) {
                    p.answered(id, now + 10 * MS);
                }
            }
            now = p.next().max(now + 11 * MS);
        }
        now
    }

    #[test]
    fn the_links_mtu_is_found_with_two_probes() {
        let mut p = Plpmtud::new(settings(1500, 4), 0);
        assert_eq!((p.state(), p.mtu()), (State::Base, 1200));
        run(&mut p, 0, 50 * MS, |_, _| true);
        assert_eq!((p.state(), p.mtu()), (State::SearchComplete, 1500));
    }

    #[test]
    fn a_hop_that_takes_1300_is_found_in_seconds() {
        for (step, want) in [(1, 1300), (4, 1300)] {
            let mut p = Plpmtud::new(settings(1500, step), 0);
            run(&mut p, 0, 4_000 * MS, |_, size| size <= 1300);
            assert_eq!((p.state(), p.mtu()), (State::SearchComplete, want));
        }
    }

    #[test]
    fn a_path_that_shrinks_is_noticed_and_searched_again() {
        let mut p = Plpmtud::new(settings(1500, 4), 0);
        let now = run(&mut p, 0, 5_000 * MS, |_, _| true);
        assert_eq!(p.mtu(), 1500);
        let now = run(&mut p, now, 1_400 * MS, |_, size| size <= 1300);
        assert!(p.mtu() <= 1300, "{} {}", p.state(), p.mtu());
        let now = run(&mut p, now, 10_000 * MS, |_, size| size <= 1300);
        assert_eq!((p.state(), p.mtu()), (State::SearchComplete, 1300));
        // And one that grows, after ten minutes.
        run(&mut p, now, 620_000 * MS, |_, _| true);
        assert_eq!(p.mtu(), 1500);
    }

    #[test]
    fn below_the_base_the_least_is_used_until_the_base_passes() {
        let mut p = Plpmtud::new(settings(1500, 4), 0);
        let now = run(&mut p, 0, 5_000 * MS, |_, size| size <= 1000);
        assert_eq!((p.state(), p.mtu()), (State::Error, 576));
        run(&mut p, now, 5_000 * MS, |_, _| true);
        assert_eq!((p.state(), p.mtu()), (State::SearchComplete, 1500));
    }

    #[test]
    fn icmp_shortens_the_search_and_cannot_make_it_absurd() {
        let mut p = Plpmtud::new(settings(1500, 4), 0);
        let now = run(&mut p, 0, 1_000 * MS, |_, _| true);
        for absurd in [0, 100, 9000] {
            let due = p.next();
            p.packet_too_big(absurd, now);
            assert_eq!((p.next(), p.mtu()), (due, 1500));
        }
        // The first loss is noticed at once, and the search ends with the size that ICMP has named.
        p.packet_too_big(1302, now);
        let tried = std::cell::RefCell::new(Vec::new());
        run(&mut p, now, 2_500 * MS, |_, size| {
            tried.borrow_mut().push(size);
            size <= 1302
        });
        let tried = tried.into_inner();
        assert_eq!((p.mtu(), p.state()), (1300, State::SearchComplete), "{tried:?}");
        assert_eq!(tried[..8], [1500, 1500, 1500, 1200, 1300, 1304, 1304, 1304]);
    }

    /// As often and as small as somebody likes to say: what is in use is probed and stays in use.
    #[test]
    fn forged_errors_change_nothing() {
        let mut p = Plpmtud::new(settings(1500, 4), 0);
        let mut now = run(&mut p, 0, 1_000 * MS, |_, _| true);
        let mut probes = 0;
        for n in 0..100_000u64 {
            p.packet_too_big([576, 1000, 1280, 1400][n as usize % 4], now);
            if let Some((id, size)) = p.send(now, TIMEOUT) {
                assert_eq!(size, 1500);
                p.answered(id, now + MS);
                probes += 1;
            }
            now += MS / 10;
            assert_eq!(p.mtu(), 1500);
        }
        assert!(probes <= 16, "{probes} probes in ten seconds");
        // During a search they do not end it early.
        let mut p = Plpmtud::new(settings(1500, 4), 0);
        let mut now = 0;
        while p.state() != State::SearchComplete && now < 60_000 * MS {
            p.packet_too_big(1204, now);
            if let Some((id, size)) = p.send(now, TIMEOUT)
                && size <= 1452
            {
                p.answered(id, now + MS);
            }
            now += 10 * MS;
        }
        assert_eq!(p.mtu(), 1452);
    }

    #[test]
    fn a_small_link_has_a_small_base() {
        let mut p = Plpmtud::new(settings(1000, 1), 0);
        assert_eq!(p.mtu(), 1000);
        run(&mut p, 0, 3_000 * MS, |_, _| true);
        assert_eq!((p.state(), p.mtu()), (State::SearchComplete, 1000));
    }

    proptest! {
        #[test]
        fn the_paths_mtu_is_found_whatever_it_is(path in 1200u16..9000, max in 1200u16..9000, step in prop::sample::select(vec![1u16, 4])) {
            let mut p = Plpmtud::new(settings(max, step), 0);
            let base = p.mtu();
            run(&mut p, 0, 20_000 * MS, |_, size| size <= path);
            let most = path.min(max);
            prop_assert_eq!(p.state(), State::SearchComplete);
            prop_assert_eq!(p.mtu(), (most - most % step).max(base.min(most)));
        }

        #[test]
        fn what_is_in_use_is_within_bounds_under_any_loss(
            path in 576u16..3000,
            coins in proptest::collection::vec(any::<bool>(), 1..300),
            reported in proptest::collection::vec(any::<u16>(), 0..10),
        ) {
            let mut p = Plpmtud::new(settings(1500, 4), 0);
            let mut now = 0;
            for (i, coin) in coins.iter().enumerate() {
                if let Some((id, size)) = p.send(now, TIMEOUT) && *coin && size <= path {
                    p.answered(id, now);
                }
                if let Some(t) = reported.get(i) {
                    p.packet_too_big(*t, now);
                }
                prop_assert!((576..=1500).contains(&p.mtu()));
                now = p.next().max(now + 1);
            }
        }
    }
}
