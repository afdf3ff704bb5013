//! Whether a device may take the virtual address. Where sessions follow from one gateway to the other, one that comes back
//! takes it only when it has them; a gateway that has died does not keep it.

use std::time::{Duration, Instant};

/// How often the gateway is asked.
pub(crate) const ASK: Duration = Duration::from_millis(500);
/// A gateway that has said nothing for so long is dead; a restart is quicker.
const SILENCE: Duration = Duration::from_secs(5);

/// What the gateway says of the sessions that two gateways share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sessions {
    /// They follow from one gateway to the other.
    pub follow: bool,
    /// This one has what the other one has, as far as there is another one.
    pub ready: bool,
}

/// What is known of the gateway.
#[derive(Debug, Default)]
pub(crate) struct Takeover {
    follows: bool,
    silent_since: Option<Instant>,
    obstacle: Option<&'static str>,
}

impl Takeover {
    /// The gateway has said this, or nothing.
    pub(crate) fn hear(&mut self, said: Option<Sessions>, is_master: bool, now: Instant) {
        let Some(sessions) = said else {
            let since = *self.silent_since.get_or_insert(now);
            if self.follows && now.saturating_duration_since(since) >= SILENCE {
                self.obstacle = Some("the gateway does not answer");
            }
            return;
        };
        (self.follows, self.silent_since) = (sessions.follow, None);
        // Who has the traffic has the sessions, whatever it has yet to hear of the other one.
        let waits = sessions.follow && !sessions.ready && !is_master;
        self.obstacle = waits.then_some("the other device's sessions are not here yet");
    }

    /// Why the device may not have the address.
    pub(crate) fn obstacle(&self) -> Option<&'static str> {
        self.obstacle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(follow: bool, ready: bool) -> Option<Sessions> {
        Some(Sessions { follow, ready })
    }

    #[test]
    fn a_gateway_that_comes_waits_for_the_sessions() {
        let (mut t, now) = (Takeover::default(), Instant::now());
        assert_eq!(t.obstacle(), None, "nothing is known of any sessions");
        t.hear(said(true, false), false, now);
        assert!(t.obstacle().is_some_and(|why| why.contains("not here yet")));
        t.hear(said(true, true), false, now);
        assert_eq!(t.obstacle(), None);
        // The other one comes, and says what it has.
        t.hear(said(true, false), true, now);
        assert_eq!(t.obstacle(), None, "a master has the sessions");
        t.hear(said(false, false), false, now);
        assert_eq!(t.obstacle(), None, "none follow");
    }

    #[test]
    fn a_gateway_that_has_died_gives_the_address_away() {
        let (mut t, now) = (Takeover::default(), Instant::now());
        t.hear(said(true, true), true, now);
        t.hear(None, true, now);
        t.hear(None, true, now + SILENCE / 2);
        assert_eq!(t.obstacle(), None, "it may be restarting");
        t.hear(None, true, now + SILENCE);
        assert!(t.obstacle().is_some_and(|why| why.contains("does not answer")));
        t.hear(said(true, false), false, now + SILENCE);
        assert!(t.obstacle().is_some(), "it waits for what has changed meanwhile");
        t.hear(said(true, true), false, now + SILENCE);
        assert_eq!(t.obstacle(), None);
    }

    /// Where no sessions follow, keepalived does what it did before.
    #[test]
    fn without_sessions_nothing_changes() {
        let (mut t, now) = (Takeover::default(), Instant::now());
        for said in [None, said(false, false)] {
            t.hear(said, false, now);
            t.hear(None, false, now + 2 * SILENCE);
            assert_eq!(t.obstacle(), None);
        }
    }
}
