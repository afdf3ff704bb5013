//! The thread that tells the cloud: results of revisions until they arrive, and the latest state.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::agent::{Event, Generation};
use crate::backoff::Backoff;
use crate::client::{CallError, Client};
use crate::config::Config;
use crate::crash;

/// How long an endpoint without the extension is not given reports.
const ASK_AGAIN: Duration = Duration::from_secs(600);
/// How often a waiting thread looks whether its time is over.
const NAP: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub revision: i64,
    /// Empty: in force.
    pub failure: String,
    /// The device restarts when this has arrived.
    pub then_reboot: bool,
}

#[derive(Default)]
struct Pending {
    result: Option<Outcome>,
    state: Option<Value>,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    more: Condvar,
}

#[derive(Clone, Default)]
pub struct Reporter(Arc<Shared>);

impl Reporter {
    pub fn result(&self, outcome: Outcome) {
        let mut p = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
        // A newer result says all that an older one would, except that a restart is due.
        let reboot = p.result.as_ref().is_some_and(|r| r.then_reboot);
        p.result = Some(Outcome { then_reboot: outcome.then_reboot || reboot, ..outcome });
        self.0.more.notify_one();
    }

    pub fn state(&self, state: Value) {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner).state = Some(state);
        self.0.more.notify_one();
    }

    /// Forgets a result that belongs to another database.
    pub fn forget(&self) {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner).result = None;
    }

    pub fn run(self, client: &Client, config: &Config, events: &SyncSender<Event>, generation: &Generation) {
        let mut backoff = Backoff::new(config.retry_max);
        let mut quiet_until = Instant::now();
        loop {
            let (result, state) = {
                let mut p = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
                while p.result.is_none() && p.state.is_none() && !generation.over() {
                    let (next, _) = self.0.more.wait_timeout(p, NAP).unwrap_or_else(PoisonError::into_inner);
                    p = next;
                }
                if generation.over() {
                    return;
                }
                (p.result.clone(), p.state.take())
            };
            if Instant::now() < quiet_until {
                self.forget();
                continue;
            }
            let mut failed = None;
            if let Some(r) = result {
                crash::point("before-report");
                match send_result(client, config, &r) {
                    // A revision that the cloud no longer knows is not to be repeated.
                    Err(e) if !matches!(e, CallError::Api { status: 400..=403, .. }) || e.throttled() => {
                        failed = Some(e)
                    }
                    answer => {
                        if let Err(e) = answer {
                            tracing::warn!(revision = r.revision, "result refused: {e}");
                        }
                        crash::point("after-report");
                        let mut p = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
                        if p.result.as_ref() == Some(&r) {
                            p.result = None;
                        }
                        drop(p);
                        if r.then_reboot && events.send(Event::RebootNow).is_err() {
                            return;
                        }
                    }
                }
            }
            if let (None, Some(state)) = (&failed, state) {
                failed = send_state(client, config, &state).err();
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
}

fn send_result(client: &Client, config: &Config, r: &Outcome) -> crate::client::Result<Value> {
    let revision = r.revision.to_string();
    let success = r.failure.is_empty().to_string();
    let query = [
        ("SmartAGId", config.smart_ag_id.as_str()),
        ("SmartAGSn", config.smart_ag_sn.as_str()),
        ("Revision", revision.as_str()),
        ("Success", success.as_str()),
    ];
    let message: String = r.failure.chars().take(1000).collect();
    let form = [("Message", message.as_str())];
    client.call(
        "ReportSmartAGConfigResult",
        &query,
        if message.is_empty() { &[] } else { &form },
        Duration::ZERO,
    )
}

fn send_state(client: &Client, config: &Config, state: &Value) -> crate::client::Result<Value> {
    let text = state.to_string();
    let query = [("SmartAGId", config.smart_ag_id.as_str()), ("SmartAGSn", config.smart_ag_sn.as_str())];
    client.call("ReportSmartAGState", &query, &[("State", text.as_str())], Duration::ZERO)
}
