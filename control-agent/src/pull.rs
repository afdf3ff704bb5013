//! The thread that listens to the cloud: long polls where the endpoint has them, polling of the
//! documented operations where not.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use crate::agent::{Event, Generation};
use crate::backoff::Backoff;
use crate::client::{CallError, Client, Result};
use crate::config::{Config, Extension};
use crate::crash;
use crate::desired::{Command, Desired, commands};
use crate::json::int;
use crate::poll::Poller;

/// Seconds that the server may hold a poll.
const WAIT: u64 = 25;
/// A restored database may count to the same revision by another way, so everything is fetched now
/// and then whatever the revision.
const FULL_EVERY: Duration = Duration::from_secs(60);
/// How long an endpoint without the extension is not asked for it again.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// A configuration as it was fetched.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub desired: Desired,
    /// `None` from an endpoint that has no revisions.
    pub revision: Option<i64>,
    pub commands: Vec<Command>,
    /// The first after a time without contact.
    pub reconnected: bool,
}

pub struct Puller {
    pub client: Arc<Client>,
    pub config: Arc<Config>,
    pub events: SyncSender<Event>,
    pub generation: Generation,
    /// What is in force, for what the documented operations do not tell.
    pub last: Desired,
}

impl Puller {
    /// Runs until nobody listens any more.
    pub fn run(mut self) {
        let mut backoff = Backoff::new(self.config.retry_max);
        let mut no_extension: Option<Instant> = None;
        // After any failure the next fetch is a full one.
        let (mut have, mut full_at) = (0, Instant::now());
        let mut digest = String::new();
        let mut reconnected = true;
        loop {
            let polling = self.config.extension == Extension::Off
                || no_extension.is_some_and(|since| since.elapsed() < ASK_AGAIN);
            let fetched = if polling {
                Poller::new(&self.client, &self.config).read(&self.last).map(|desired| {
                    Some(Fetched { desired, revision: None, commands: Vec::new(), reconnected: false })
                })
            } else {
                let full = have == 0 || full_at.elapsed() > FULL_EVERY;
                if full {
                    full_at = Instant::now();
                }
                self.pull(if full { 0 } else { have }, have == 0)
            };
            if self.generation.over() {
                return;
            }
            match fetched {
                Ok(found) => {
                    backoff.reset();
                    if let Some(mut f) = found {
                        have = f.revision.unwrap_or(0);
                        let now = f.desired.digest();
                        let news = now != digest || reconnected || !f.commands.is_empty();
                        f.reconnected = std::mem::take(&mut reconnected);
                        if news || f.revision.is_some() {
                            digest = now;
                            self.last = f.desired.clone();
                            crash::point("pulled");
                            if self.events.send(Event::Fetched(Box::new(f))).is_err() {
                                return;
                            }
                        }
                    }
                    if polling {
                        std::thread::sleep(self.config.poll_interval);
                    }
                }
                Err(e) if e.unknown_action() && !polling && self.config.extension == Extension::Auto => {
                    tracing::info!("the endpoint has no long poll; polling its documented operations");
                    no_extension = Some(Instant::now());
                }
                Err(e) => {
                    (have, reconnected) = (0, true);
                    if self.failed(&e, &mut backoff).is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn failed(&self, e: &CallError, backoff: &mut Backoff) -> std::result::Result<(), ()> {
        let first = backoff.failures() == 0;
        let pause = backoff.next(e.throttled());
        if first {
            tracing::warn!("no configuration from the cloud: {e}; the gateway goes on with what it has");
        } else {
            tracing::debug!(pause_ms = pause.as_millis() as u64, "no configuration from the cloud: {e}");
        }
        self.events.send(Event::CloudLost(e.to_string())).map_err(|_| ())?;
        std::thread::sleep(pause);
        Ok(())
    }

    /// One long poll; `None` if nothing changed.
    fn pull(&self, have: i64, at_once: bool) -> Result<Option<Fetched>> {
        let (revision, wait) = (have.to_string(), if at_once { 0 } else { WAIT });
        let wait_text = wait.to_string();
        let params = [
            ("SmartAGId", self.config.smart_ag_id.as_str()),
            ("SmartAGSn", self.config.smart_ag_sn.as_str()),
            ("Revision", revision.as_str()),
            ("Wait", wait_text.as_str()),
        ];
        let answer = self.client.call("PullSmartAGConfig", &params, &[], Duration::from_secs(wait))?;
        let config = &answer["Config"];
        let Some(revision) = int(&answer, "Revision") else {
            return Err(CallError::Transport("PullSmartAGConfig answered without Revision".into()));
        };
        if !config.is_object() {
            return Ok(None);
        }
        Ok(Some(Fetched {
            desired: Desired::from_document(config),
            revision: Some(revision),
            commands: commands(config),
            reconnected: false,
        }))
    }
}
