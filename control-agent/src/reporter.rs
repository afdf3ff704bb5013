//! The thread that reports to the cloud: results of revisions until they arrive, and the latest state.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sag_southbound::{
    Acceptance, Action, CommandResult, Deviation, ReportAnswer, ResultReport, StateReport, Version,
};
use serde_json::Value;

use crate::backoff::Backoff;
use crate::client::{CallError, Client, Result, borrowed};
use crate::config::Config;
use crate::crash;
use crate::events::{Event, Generation};

/// How long an endpoint without the extension is not given reports.
const ASK_AGAIN: Duration = Duration::from_secs(600);
/// How often a waiting thread looks whether its time is over.
const NAP: Duration = Duration::from_secs(1);

/// What became of a revision.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub revision: i64,
    /// Empty: in force.
    pub failure: String,
    pub commands: Vec<CommandResult>,
    /// What of it is not in force as it is; none where it is refused as a whole.
    pub deviations: Option<Vec<Deviation>>,
    /// The device restarts when this has arrived.
    pub then_reboot: bool,
}

#[derive(Default)]
struct Pending {
    result: Option<Outcome>,
    state: Option<Box<StateReport>>,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    more: Condvar,
    /// What the cloud made of the last announcement; absent before the first answer.
    acceptance: Mutex<Option<Acceptance>>,
}

/// Hands results and states to the thread that sends them.
#[derive(Clone, Default)]
pub struct Reporter(Arc<Shared>);

impl Reporter {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports the outcome of a revision. It replaces an older one that was not delivered yet, except that results of
    /// commands are still reported and a restart is still due.
    pub fn result(&self, mut outcome: Outcome) {
        let mut p = self.pending();
        if let Some(older) = p.result.take() {
            outcome.then_reboot |= older.then_reboot;
            let newer = std::mem::replace(&mut outcome.commands, older.commands);
            outcome.commands.retain(|c| !newer.contains(c));
            outcome.commands.extend(newer);
        }
        p.result = Some(outcome);
        self.0.more.notify_one();
    }

    /// Reports a state; it replaces one that was not delivered yet.
    pub fn state(&self, state: StateReport) {
        self.pending().state = Some(Box::new(state));
        self.0.more.notify_one();
    }

    /// What the cloud has answered to the last announcement of this device.
    pub fn acceptance(&self) -> Option<Acceptance> {
        self.0.acceptance.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets a result that belongs to another database.
    pub fn forget(&self) {
        self.pending().result = None;
    }

    /// Waits for something to send; `None`: another generation has begun.
    fn next(&self, generation: &Generation) -> Option<(Option<Outcome>, Option<Box<StateReport>>)> {
        let mut p = self.pending();
        while p.result.is_none() && p.state.is_none() && !generation.over() {
            let (next, _) = self.0.more.wait_timeout(p, NAP).unwrap_or_else(PoisonError::into_inner);
            p = next;
        }
        if generation.over() {
            return None;
        }
        Some((p.result.clone(), p.state.take()))
    }

    /// Sends until another generation begins or nobody takes events any more.
    pub fn run(self, client: &Client, config: &Config, events: &SyncSender<Event>, generation: &Generation) {
        let mut backoff = Backoff::new(config.retry_max);
        let mut quiet_until = Instant::now();
        while let Some((result, state)) = self.next(generation) {
            if Instant::now() < quiet_until {
                self.forget();
                continue;
            }
            let mut failed = None;
            if let Some(r) = result {
                match self.deliver(client, config, &r) {
                    Ok(()) if r.then_reboot && events.send(Event::RebootNow).is_err() => return,
                    Ok(()) => {}
                    Err(e) => failed = Some(e),
                }
            }
            if let (None, Some(state)) = (&failed, state) {
                match send_state(client, config, &state) {
                    Ok(answer) => {
                        let known = &mut *self.0.acceptance.lock().unwrap_or_else(PoisonError::into_inner);
                        // A cloud before version 1.2 of the protocol does not say.
                        *known = answer.overlay.or(known.take().filter(|_| state.overlay.is_none()));
                    }
                    Err(e) => failed = Some(e),
                }
            }
            match failed {
                None => backoff.reset(),
                // The endpoint takes no reports at all.
                Some(e) if e.unknown_action() => {
                    self.forget();
                    quiet_until = Instant::now() + ASK_AGAIN;
                }
                Some(e) => {
                    let pause = backoff.next(e.throttled());
                    tracing::debug!(pause_ms = pause.as_millis() as u64, "report not delivered: {e}");
                    std::thread::sleep(pause);
                }
            }
        }
    }

    /// Sends a result; an error means that it has to be sent again.
    fn deliver(&self, client: &Client, config: &Config, r: &Outcome) -> Result<()> {
        crash::point("before-report");
        match send_result(client, config, r) {
            // A revision that the cloud no longer knows is not to be repeated.
            Err(e) if !matches!(e, CallError::Api { status: 400..=403, .. }) || e.throttled() => {
                return Err(e);
            }
            Err(e) => tracing::warn!(revision = r.revision, "result refused: {e}"),
            Ok(_) => {}
        }
        crash::point("after-report");
        let mut p = self.pending();
        if p.result.as_ref() == Some(r) {
            p.result = None;
        }
        Ok(())
    }
}

fn send_result(client: &Client, config: &Config, r: &Outcome) -> Result<Value> {
    let report = ResultReport {
        smart_ag_id: config.smart_ag_id.clone(),
        smart_ag_sn: config.smart_ag_sn.clone(),
        revision: r.revision,
        failure: r.failure.clone(),
        commands: r.commands.clone(),
        deviations: r.deviations.clone(),
        version: Version::CURRENT,
    };
    let (query, form) = (report.query(), report.form());
    client.call(Action::ReportResult.name(), &borrowed(&query), &borrowed(&form), Duration::ZERO)
}

fn send_state(client: &Client, config: &Config, state: &StateReport) -> Result<ReportAnswer> {
    let text = serde_json::to_string(state).unwrap_or_default();
    let query = [("SmartAGId", config.smart_ag_id.as_str()), ("SmartAGSn", config.smart_ag_sn.as_str())];
    client.call(Action::ReportState.name(), &query, &[("State", text.as_str())], Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_southbound::CommandOutcome;

    #[test]
    fn a_newer_result_keeps_what_an_older_one_alone_says() {
        let result = |name: &str, revision| CommandResult {
            name: name.into(),
            revision,
            outcome: CommandOutcome::Done,
            message: String::new(),
        };
        let outcome = |revision, commands: &[CommandResult], then_reboot| Outcome {
            revision,
            failure: String::new(),
            commands: commands.to_vec(),
            deviations: None,
            then_reboot,
        };
        let reporter = Reporter::default();
        reporter.result(outcome(4, &[result("Reboot", 4)], true));
        reporter.result(outcome(5, &[result("Reboot", 4), result("Diagnose", 5)], false));
        let merged = reporter.pending().result.clone();
        assert_eq!(merged, Some(outcome(5, &[result("Reboot", 4), result("Diagnose", 5)], true)));
    }
}
