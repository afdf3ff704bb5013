//! The service manager: it is told when the program is ready, and that its event loop still runs.

use sd_notify::NotifyState;
use std::time::{Duration, Instant};

/// Speaks to systemd, if it has started the program (`NOTIFY_SOCKET`, `WATCHDOG_USEC`); otherwise to nobody.
#[derive(Debug)]
pub struct Supervisor {
    /// Time between two signs of life; `None`: nobody waits for them.
    every: Option<Duration>,
    last: Option<Instant>,
}

impl Default for Supervisor {
    fn default() -> Supervisor {
        Supervisor::new()
    }
}

impl Supervisor {
    /// Asks the environment who waits for signs of life. Twice as many are given as are needed.
    pub fn new() -> Supervisor {
        Supervisor { every: sd_notify::watchdog_enabled().map(|limit| limit / 2), last: None }
    }

    /// The program does what it is for from now on.
    pub fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    /// The event loop has made a round.
    pub fn alive(&mut self) {
        let Some(every) = self.every else { return };
        if self.last.is_none_or(|t| t.elapsed() >= every) {
            self.last = Some(Instant::now());
            notify(&[NotifyState::Watchdog]);
        }
    }

    /// The time between two calls of [`Supervisor::alive`] that is short enough; `None`: nobody waits for them.
    pub fn interval(&self) -> Option<Duration> {
        self.every.map(|e| e / 2)
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
