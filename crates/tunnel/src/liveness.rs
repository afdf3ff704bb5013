//! Liveness of a tunnel: whether its far end answers probes.

use std::fmt;

/// Probes that may be on their way at once.
const OUTSTANDING: usize = 16;
/// Probes over which loss is measured.
pub const LOSS_WINDOW: u32 = 64;
/// A probe is not given up sooner, however short the round trip.
const MIN_TIMEOUT: u64 = 50_000_000;

/// When to probe and what the results mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Nanoseconds between two probes.
    pub interval: u64,
    /// Probes lost in a row after which the tunnel is down.
    pub fall: u32,
    /// Probes answered in a row after which a tunnel that was down is up.
    pub rise: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { interval: 1_000_000_000, fall: 3, rise: 3 }
    }
}

/// State of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No result yet: used as if it were up.
    Starting,
    /// The far end answers.
    Up,
    /// It does not.
    Down,
}

impl State {
    /// Whether the tunnel may be used.
    pub const fn usable(self) -> bool {
        !matches!(self, State::Down)
    }

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Up => "up",
            State::Down => "down",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Measured quality of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quality {
    /// Round trip in nanoseconds, smoothed as by RFC 6298.
    pub rtt: Option<u64>,
    /// Jitter of the round trip in nanoseconds, smoothed as by RFC 3550 6.4.1.
    pub jitter: u64,
    /// Lost of the last [`LOSS_WINDOW`] probes whose result is known, in thousandths.
    pub loss_permille: u32,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    sequence: u32,
    at: u64,
    given_up: bool,
}

/// One tunnel's liveness.
///
/// A probe is given up after its smoothed round trip and four times its variation, so that the loss of `fall`
/// probes in a row is noticed that long after the last of them was sent. An answer that comes later still
/// counts as one.
#[derive(Debug, Clone)]
pub struct Liveness {
    settings: Settings,
    state: State,
    since: u64,
    due: u64,
    sequence: u32,
    sent: [Option<Sent>; OUTSTANDING],
    lost_in_row: u32,
    answered_in_row: u32,
    srtt: Option<u64>,
    variation: u64,
    last_rtt: Option<u64>,
    /// Times 16, so that small changes are not lost.
    jitter16: u64,
    /// A bit for each of the last probes: lost.
    history: u64,
    known: u32,
    /// Probes sent.
    pub probes: u64,
    /// Answers received.
    pub answers: u64,
}

impl Liveness {
    /// A measurement that begins now. Settings are raised to the least that works: 1 ms, 1, 1.
    pub fn new(settings: Settings, now: u64) -> Liveness {
        let settings = Settings {
            interval: settings.interval.max(1_000_000),
            fall: settings.fall.max(1),
            rise: settings.rise.max(1),
        };
        Liveness {
            settings,
            state: State::Starting,
            since: now,
            due: now,
            sequence: 0,
            sent: [None; OUTSTANDING],
            lost_in_row: 0,
            answered_in_row: 0,
            srtt: None,
            variation: 0,
            last_rtt: None,
            jitter16: 0,
            history: 0,
            known: 0,
            probes: 0,
            answers: 0,
        }
    }

    /// A new measurement with the same settings.
    pub fn restarted(&self, now: u64) -> Liveness {
        Liveness::new(self.settings, now)
    }

    /// The state.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The time at which it entered this state.
    pub const fn since(&self) -> u64 {
        self.since
    }

    /// The quality measured so far.
    pub fn quality(&self) -> Quality {
        let lost = self.history.count_ones();
        Quality {
            rtt: self.srtt,
            jitter: self.jitter16 / 16,
            loss_permille: (lost * 1000).checked_div(self.known).unwrap_or(0),
        }
    }

    /// Nanoseconds after which a probe without an answer is lost.
    pub fn timeout(&self) -> u64 {
        match self.srtt {
            Some(rtt) => {
                (rtt + 4 * self.variation).clamp(MIN_TIMEOUT, MIN_TIMEOUT.max(self.settings.interval))
            }
            None => self.settings.interval.max(MIN_TIMEOUT),
        }
    }

    /// The sequence number of a probe to send now, if one is due.
    pub fn send(&mut self, now: u64) -> Option<u32> {
        if now < self.due {
            return None;
        }
        // No burst after the caller has paused.
        self.due = (self.due + self.settings.interval).max(now + self.settings.interval / 2);
        self.sequence = self.sequence.wrapping_add(1);
        let place = &mut self.sent[self.sequence as usize % OUTSTANDING];
        let overrun = place.replace(Sent { sequence: self.sequence, at: now, given_up: false });
        self.probes += 1;
        if overrun.is_some_and(|s| !s.given_up) {
            self.lost();
        }
        Some(self.sequence)
    }

    /// An answer to probe `sequence` has arrived. True: the state has changed.
    pub fn answered(&mut self, sequence: u32, now: u64) -> bool {
        let place = &mut self.sent[sequence as usize % OUTSTANDING];
        let Some(sent) = place.take_if(|s| s.sequence == sequence) else { return false };
        self.answers += 1;
        self.measure(now.saturating_sub(sent.at));
        if sent.given_up {
            // It was counted as lost.
            self.history &= !(1 << self.given_up_after(sequence).min(63));
        } else {
            self.remember(false);
        }
        self.lost_in_row = 0;
        self.answered_in_row = self.answered_in_row.saturating_add(1);
        match self.state {
            State::Starting => self.enter(State::Up, now),
            State::Down if self.answered_in_row >= self.settings.rise => self.enter(State::Up, now),
            _ => false,
        }
    }

    /// As [`Liveness::answered`], with a round trip that was measured elsewhere.
    pub fn answered_after(&mut self, sequence: u32, rtt: Option<u64>, now: u64) -> bool {
        let place = &mut self.sent[sequence as usize % OUTSTANDING];
        if let (Some(s), Some(rtt)) = (place, rtt)
            && s.sequence == sequence
        {
            s.at = now.saturating_sub(rtt);
        }
        self.answered(sequence, now)
    }

    /// Gives up on probes whose time is over. True: the state has changed.
    pub fn poll(&mut self, now: u64) -> bool {
        let timeout = self.timeout();
        for i in 0..OUTSTANDING {
            // In the order they were sent.
            let at = (self.sequence as usize + 1 + i) % OUTSTANDING;
            if let Some(s) = &mut self.sent[at]
                && !s.given_up
                && now.saturating_sub(s.at) >= timeout
            {
                s.given_up = true;
                self.lost();
            }
        }
        self.lost_in_row >= self.settings.fall && self.state != State::Down && self.enter(State::Down, now)
    }

    /// When to call [`Liveness::poll`] or [`Liveness::send`] next.
    pub fn next(&self) -> u64 {
        let timeout = self.timeout();
        let waited = self.sent.iter().flatten().filter(|s| !s.given_up).map(|s| s.at + timeout);
        waited.min().map_or(self.due, |t| t.min(self.due))
    }

    fn enter(&mut self, state: State, now: u64) -> bool {
        self.state = state;
        self.since = now;
        true
    }

    fn lost(&mut self) {
        self.remember(true);
        self.lost_in_row = self.lost_in_row.saturating_add(1);
        self.answered_in_row = 0;
    }

    fn remember(&mut self, lost: bool) {
        self.history = self.history << 1 | u64::from(lost);
        self.known = (self.known + 1).min(LOSS_WINDOW);
    }

    /// How many results were recorded after that of a probe that was given up: those of later probes.
    fn given_up_after(&self, sequence: u32) -> u32 {
        let later = self.sequence.wrapping_sub(sequence);
        let open = self.sent.iter().flatten().filter(|s| !s.given_up).count() as u32;
        later.saturating_sub(open)
    }

    fn measure(&mut self, rtt: u64) {
        match self.srtt {
            None => (self.srtt, self.variation) = (Some(rtt), rtt / 2),
            Some(srtt) => {
                self.variation = (3 * self.variation + srtt.abs_diff(rtt)) / 4;
                self.srtt = Some((7 * srtt + rtt) / 8);
            }
        }
        if let Some(last) = self.last_rtt.replace(rtt) {
            self.jitter16 = self.jitter16 + last.abs_diff(rtt) - self.jitter16 / 16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    /// Runs until `end`; `path` says how long the answer to a probe sent at a moment takes.
    fn run(l: &mut Liveness, from: u64, end: u64, path: impl Fn(u64) -> Option<u64>) -> Vec<(u64, State)> {
        let (mut events, mut answers) = (Vec::new(), Vec::<(u64, u32)>::new());
        let mut now = from;
        while now < end {
            answers.sort_unstable();
            while answers.first().is_some_and(|a| a.0 <= now) {
                if l.answered(answers.remove(0).1, now) {
                    events.push((now, l.state()));
                }
            }
            if l.poll(now) {
                events.push((now, l.state()));
            }
            if let Some(sequence) = l.send(now)
                && let Some(rtt) = path(now)
            {
                answers.push((now + rtt, sequence));
            }
            now = answers.iter().map(|a| a.0).fold(l.next(), u64::min).max(now + 1);
        }
        events
    }

    #[test]
    fn three_lost_probes_are_noticed_within_100_ms_of_the_last() {
        for failure in [10_000 * MS, 10_000 * MS + 1, 10_500 * MS, 10_999 * MS] {
            let mut l = Liveness::new(Settings::default(), 0);
            let events = run(&mut l, 0, 20_000 * MS, |t| (t < failure).then_some(20 * MS));
            assert_eq!(events[0].1, State::Up);
            let (down, state) = events[1];
            assert_eq!(state, State::Down);
            assert!(down - failure <= 3_100 * MS, "{}", down - failure);
        }
    }

    #[test]
    fn one_or_two_lost_probes_are_not_a_failure() {
        let mut l = Liveness::new(Settings::default(), 0);
        let path = |t: u64| (!(t / (1000 * MS)).is_multiple_of(3)).then_some(5 * MS);
        let events = run(&mut l, 500, 100_000 * MS, path);
        assert_eq!(events.iter().map(|e| e.1).collect::<Vec<_>>(), [State::Up]);
        let q = l.quality();
        assert!((300..=360).contains(&q.loss_permille), "{q:?}");
    }

    #[test]
    fn it_comes_back_after_three_answers() {
        let mut l = Liveness::new(Settings::default(), 0);
        let path = |t: u64| (!(5_000 * MS..15_000 * MS).contains(&t)).then_some(MS);
        let events = run(&mut l, 0, 30_000 * MS, path);
        assert_eq!(events.iter().map(|e| e.1).collect::<Vec<_>>(), [State::Up, State::Down, State::Up]);
        let back = events[2].0;
        assert!((17_000 * MS..=18_100 * MS).contains(&back), "{back}");
    }

    #[test]
    fn a_tunnel_that_never_answers_goes_down() {
        let mut l = Liveness::new(Settings::default(), 0);
        let events = run(&mut l, 0, 10_000 * MS, |_| None);
        assert_eq!(events, [(3_000 * MS, State::Down)]);
        assert_eq!(l.quality().loss_permille, 1000);
    }

    #[test]
    fn a_late_answer_is_an_answer() {
        let mut l = Liveness::new(Settings::default(), 0);
        // The round trip grows from one moment to the next, beyond the time an answer is waited for.
        let path = |t: u64| Some(if t < 5_000 * MS { 2 * MS } else { 700 * MS });
        let events = run(&mut l, 0, 60_000 * MS, path);
        assert_eq!(events.len(), 1);
        assert_eq!(l.quality().loss_permille, 0);
        let rtt = l.quality().rtt.unwrap();
        assert!((680 * MS..=700 * MS).contains(&rtt), "{rtt}");
    }

    #[test]
    fn jitter_is_that_of_rfc_3550() {
        let mut l = Liveness::new(Settings::default(), 0);
        let path = |t: u64| Some(if (t / (1000 * MS)).is_multiple_of(2) { 10 * MS } else { 30 * MS });
        run(&mut l, 0, 200_000 * MS, path);
        let j = l.quality().jitter;
        assert!((19 * MS..=20 * MS).contains(&j), "{j}");
    }

    proptest! {
        #[test]
        fn unsolicited_and_repeated_answers_change_nothing(answers in proptest::collection::vec(any::<u32>(), 0..50)) {
            let mut l = Liveness::new(Settings::default(), 0);
            let first = l.send(0).unwrap();
            for a in answers.into_iter().filter(|a| *a != first) {
                prop_assert!(!l.answered(a, 5));
            }
            prop_assert_eq!(l.state(), State::Starting);
            prop_assert!(l.answered(first, 10) && !l.answered(first, 11));
            prop_assert_eq!(l.answers, 1);
        }

        #[test]
        fn states_alternate_and_down_takes_three_in_a_row(lost in proptest::collection::vec(any::<bool>(), 10..200)) {
            let mut l = Liveness::new(Settings::default(), 0);
            let path = |t: u64| match lost.get((t / (1000 * MS)) as usize) {
                Some(true) => None,
                _ => Some(10 * MS),
            };
            let events = run(&mut l, 0, (lost.len() as u64 + 10) * 1000 * MS, path);
            prop_assert!(events.windows(2).all(|w| w[0].1 != w[1].1));
            let longest = lost.split(|l| !l).map(<[bool]>::len).max().unwrap_or(0);
            prop_assert_eq!(events.iter().any(|e| e.1 == State::Down), longest >= 3);
            prop_assert_eq!(l.state(), State::Up);
        }
    }
}
