//! The thread that listens to the cloud: long polls where the endpoint has them, polling of the
//! documented operations where not.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use sag_southbound::{Action, PullAnswer, PullRequest, Version};
use serde_json::Value;

use crate::backoff::Backoff;
use crate::client::{CallError, Client, Result, borrowed};
use crate::config::{Config, Extension};
use crate::crash;
use crate::desired::{Desired, read_document};
use crate::events::{Event, Fetched, Generation};
use crate::poll::Poller;

/// Seconds that the server may hold a poll.
const WAIT: u64 = 25;
/// A restored database may count to the same revision by another way, so everything is fetched now
/// and then whatever the revision.
const FULL_EVERY: Duration = Duration::from_secs(60);
/// How long an endpoint without the extension is not tried again.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// Listens to the cloud.
pub struct Puller {
    pub client: Arc<Client>,
    pub config: Arc<Config>,
    pub events: SyncSender<Event>,
    pub generation: Generation,
    /// What is in force, for what the documented operations leave out.
    pub last: Desired,
}

/// What a poll brought.
enum Pulled {
    Unchanged,
    Configuration(Box<Fetched>),
    /// A configuration that this version cannot read.
    Unreadable {
        revision: i64,
        reason: String,
    },
}

/// Nobody takes events any more.
struct Closed;

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
            let pulled = if polling {
                self.poll()
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
            match pulled {
                Ok(Pulled::Unchanged) => backoff.reset(),
                Ok(Pulled::Unreadable { revision, reason }) => {
                    backoff.reset();
                    have = revision;
                    if self.events.send(Event::Unreadable { revision, reason }).is_err() {
                        return;
                    }
                }
                Ok(Pulled::Configuration(mut f)) => {
                    backoff.reset();
                    have = f.revision.unwrap_or(0);
                    let now = f.desired.digest();
                    let news = now != digest || reconnected || !f.commands.is_empty();
                    f.reconnected = std::mem::take(&mut reconnected);
                    if news || f.revision.is_some() {
                        digest = now;
                        self.last = f.desired.clone();
                        crash::point("pulled");
                        if self.events.send(Event::Fetched(f)).is_err() {
                            return;
                        }
                    }
                }
                Err(e) if e.unknown_action() && !polling && self.config.extension == Extension::Auto => {
                    tracing::info!("the endpoint has no long poll; polling its documented operations");
                    no_extension = Some(Instant::now());
                    continue;
                }
                Err(e) => {
                    (have, reconnected) = (0, true);
                    if self.failed(&e, &mut backoff).is_err() {
                        return;
                    }
                    continue;
                }
            }
            if polling {
                std::thread::sleep(self.config.poll_interval);
            }
        }
    }

    fn failed(&self, e: &CallError, backoff: &mut Backoff) -> std::result::Result<(), Closed> {
        let first = backoff.failures() == 0;
        let pause = backoff.next(e.throttled());
        if first {
            tracing::warn!("no configuration from the cloud: {e}; the gateway goes on with what it has");
        } else {
            tracing::debug!(pause_ms = pause.as_millis() as u64, "no configuration from the cloud: {e}");
        }
        self.events.send(Event::CloudLost(e.to_string())).map_err(|_| Closed)?;
        std::thread::sleep(pause);
        Ok(())
    }

    /// Everything by the documented operations.
    fn poll(&self) -> Result<Pulled> {
        let desired = Poller::new(&self.client, &self.config).read(&self.last)?;
        let fetched = Fetched { desired, revision: None, commands: Vec::new(), reconnected: false };
        Ok(Pulled::Configuration(Box::new(fetched)))
    }

    /// One long poll.
    fn pull(&self, have: i64, at_once: bool) -> Result<Pulled> {
        let request = PullRequest {
            smart_ag_id: self.config.smart_ag_id.clone(),
            smart_ag_sn: self.config.smart_ag_sn.clone(),
            revision: have.unsigned_abs(),
            wait: if at_once { 0 } else { WAIT },
            version: Version::CURRENT,
        };
        let params = request.parameters();
        let wait = Duration::from_secs(request.wait);
        let answer: PullAnswer<Value> =
            self.client.call(Action::Pull.name(), &borrowed(&params), &[], wait)?;
        let Some(config) = answer.config else { return Ok(Pulled::Unchanged) };
        Ok(match read_document(config) {
            Ok((mut document, unreadable)) => {
                let commands = std::mem::take(&mut document.commands);
                let revision = Some(answer.revision);
                Pulled::Configuration(Box::new(Fetched {
                    desired: Desired { unreadable, ..document.into() },
                    revision,
                    commands,
                    reconnected: false,
                }))
            }
            Err(e) => Pulled::Unreadable { revision: answer.revision, reason: e.to_string() },
        })
    }
}
