//! The agent's main loop: one thread decides; others listen to the cloud, tell it, and probe.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::apply::{Applier, Fault, LastGood};
use crate::client::Client;
use crate::config::{Config, Extension, OnReboot, is_local};
use crate::desired::Desired;
use crate::files;
use crate::health::Checks;
use crate::pull::{Fetched, Puller};
use crate::report::{self, Facts, Rates};
use crate::reporter::{Outcome, Reporter};

/// How the process ends when the cloud asked for a restart: its supervisor starts it again.
pub const EXIT_REBOOT: u8 = 86;

/// How often a configuration that could not be handed over is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// How often what is in force is compared with what shall be.
const LOOK: Duration = Duration::from_secs(1);
/// The least time between two reports of state.
const REPORT_GAP: Duration = Duration::from_secs(1);

pub enum Event {
    Fetched(Box<Fetched>),
    CloudLost(String),
    HealthChanged,
    /// The cloud has the result that a restart waits for.
    RebootNow,
    Stop,
}

/// Which threads talk to the cloud: those of an earlier generation end as soon as they notice.
#[derive(Clone)]
pub struct Generation {
    current: Arc<AtomicU64>,
    mine: u64,
}

impl Generation {
    fn first() -> Generation {
        Generation { current: Arc::default(), mine: 0 }
    }

    fn next(&self) -> Generation {
        let mine = self.current.fetch_add(1, Ordering::Relaxed) + 1;
        Generation { current: self.current.clone(), mine }
    }

    pub fn over(&self) -> bool {
        self.current.load(Ordering::Relaxed) != self.mine
    }
}

struct Agent {
    config: Arc<Config>,
    client: Arc<Client>,
    events: SyncSender<Event>,
    generation: Generation,
    applier: Applier,
    checks: Checks,
    reporter: Option<Reporter>,
    rates: Rates,
    /// What shall be put in force and is not yet.
    pending: Option<Box<Fetched>>,
    revision: Option<i64>,
    done: BTreeSet<(i64, String)>,
    /// The last complaint, so that it is logged once.
    complaint: String,
    /// What the other members of the network were last told.
    announced: Option<serde_json::Value>,
    retry_at: Instant,
    look_at: Instant,
    report_at: Instant,
    reported: Instant,
}

pub fn run(config: Config) -> Result<u8> {
    let config = Arc::new(config);
    files::make_dir(&config.state_dir)
        .with_context(|| format!("state_dir {}", config.state_dir.display()))?;
    let _lock = alone(&config)?;
    // A queue that holds little: whoever listens to the cloud asks it again only when the last answer was
    // taken, and then gets the newest.
    let (events, inbox) = sync_channel(1);
    on_signals(events.clone())?;
    let client = Arc::new(Client::new(&config)?);
    let mut agent = Agent::new(config, client, events);
    agent.boot();
    agent.connect()?;
    agent.serve(&inbox)
}

/// Two agents with one state would undo each other's work.
fn alone(config: &Config) -> Result<File> {
    let path = config.state_dir.join("lock");
    let file = File::create(&path).with_context(|| path.display().to_string())?;
    let mode = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    if rustix::fs::flock(&file, mode).is_err() {
        bail!("{}: another sag-agent runs with this state_dir; end it first", path.display());
    }
    Ok(file)
}

fn on_signals(events: SyncSender<Event>) -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    spawn("signals", move || {
        for _ in signals.forever() {
            if events.send(Event::Stop).is_err() {
                return;
            }
        }
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.into()).spawn(work).context("cannot start a thread")?;
    Ok(())
}

impl Agent {
    fn new(config: Arc<Config>, client: Arc<Client>, events: SyncSender<Event>) -> Agent {
        let now = Instant::now();
        let reports = config.extension == Extension::Auto;
        Agent {
            applier: Applier::new(config.clone()),
            config,
            client,
            checks: {
                let events = events.clone();
                Checks::new(move || {
                    let _ = events.send(Event::HealthChanged);
                })
            },
            events,
            generation: Generation::first(),
            reporter: reports.then(Reporter::default),
            rates: Rates::default(),
            pending: None,
            revision: None,
            done: BTreeSet::new(),
            complaint: String::new(),
            announced: None,
            retry_at: now,
            look_at: now,
            report_at: now,
            reported: now.checked_sub(REPORT_GAP).unwrap_or(now),
        }
    }

    /// Starts the threads that talk to the cloud, by connections of their own.
    fn connect(&mut self) -> Result<()> {
        self.generation = self.generation.next();
        let (client, config, generation) = (&self.client, &self.config, &self.generation);
        if let Some(reporter) = self.reporter.clone() {
            let (client, config) = (client.clone(), config.clone());
            let (events, generation) = (self.events.clone(), generation.clone());
            spawn("reporter", move || reporter.run(&client, &config, &events, &generation))?;
        }
        let last = self.applier.last_good().map_or_else(Desired::default, |g| g.desired);
        let puller = Puller {
            client: client.clone(),
            config: config.clone(),
            events: self.events.clone(),
            generation: generation.clone(),
            last,
        };
        spawn("puller", move || puller.run())
    }

    /// Connections from an address that is gone would hang until they time out.
    fn reconnect_if_moved(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.applier.moved) {
            return Ok(());
        }
        self.client = Arc::new(self.client.afresh(&self.config)?);
        self.connect()
    }

    /// The last good configuration, before the cloud is asked.
    fn boot(&mut self) {
        tracing::info!(
            version = crate::VERSION,
            endpoint = self.config.endpoint,
            gateway = self.config.smart_ag_id,
            device = self.config.smart_ag_sn,
            "started"
        );
        let authority = self.config.endpoint.strip_prefix("http://");
        if authority.is_some_and(|a| !is_local(a)) {
            tracing::warn!(
                "the endpoint is plain http: configuration, with secrets, is readable on the way. Remedy: https"
            );
        }
        if let Some(good) = self.applier.last_good() {
            tracing::info!(revision = good.revision, "the last good configuration comes first");
            self.target(Box::new(Fetched {
                desired: good.desired,
                revision: None,
                commands: Vec::new(),
                reconnected: false,
            }));
        }
    }

    fn serve(mut self, inbox: &Receiver<Event>) -> Result<u8> {
        loop {
            let now = Instant::now();
            let mut next = self.look_at.min(self.report_at);
            if self.pending.is_some() {
                next = next.min(self.retry_at);
            }
            match inbox.recv_timeout(next.saturating_duration_since(now)) {
                Ok(Event::Fetched(f)) => self.fetched(f),
                Ok(Event::CloudLost(why)) => tracing::debug!("cloud: {why}"),
                Ok(Event::HealthChanged) => self.health_changed(),
                Ok(Event::RebootNow) => return self.reboot(),
                Ok(Event::Stop) => {
                    tracing::info!("ending; the gateway goes on with what it has");
                    return Ok(0);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("all threads ended"),
            }
            self.due();
            self.reconnect_if_moved()?;
        }
    }

    /// What the clock asks for.
    fn due(&mut self) {
        let now = Instant::now();
        if self.pending.is_some() && now >= self.retry_at {
            self.settle();
        }
        if now >= self.look_at {
            self.look_at = now + LOOK;
            if self.pending.is_none()
                && let Err(fault) = self.applier.tend(&self.checks.verdicts())
            {
                self.complain(&fault);
            }
            // A new key, or a new address: the others wait for it.
            if self.applier.announcement() != self.announced {
                self.report_soon();
            }
        }
        if now >= self.report_at {
            self.report();
        }
    }

    fn fetched(&mut self, f: Box<Fetched>) {
        if f.reconnected {
            tracing::info!(revision = f.revision, "in contact with the cloud");
            // Revisions of another database say nothing about this one.
            self.done.clear();
            if let Some(reporter) = &self.reporter {
                reporter.forget();
            }
        }
        self.target(f);
    }

    fn target(&mut self, f: Box<Fetched>) {
        self.pending = Some(f);
        self.settle();
    }

    /// Tries to put the pending configuration in force.
    fn settle(&mut self) {
        let Some(f) = self.pending.take() else { return };
        let good = LastGood { revision: f.revision, desired: f.desired.clone() };
        // The revision alone is no reason to write it down anew.
        let good = match &self.applier.current {
            Some(c) if c.good.desired == good.desired => c.good.clone(),
            _ => good,
        };
        match self.applier.apply(good, &self.checks.verdicts()) {
            Ok(changed) => {
                if changed {
                    tracing::info!(revision = f.revision, "in force");
                }
                self.complaint.clear();
                self.checks.set(&f.desired.health_checks);
                self.finish(&f, String::new());
            }
            Err(Fault::Refused(why)) => {
                self.complain(&Fault::Refused(why.clone()));
                self.finish(&f, why);
            }
            Err(away) => {
                self.complain(&away);
                self.retry_at = Instant::now() + RETRY;
                self.pending = Some(f);
            }
        }
    }

    fn complain(&mut self, fault: &Fault) {
        let text = match fault {
            Fault::Away(why) => format!("waiting for the gateway: {why}"),
            Fault::Refused(why) => format!("not put in force, the last good configuration stays: {why}"),
        };
        if self.complaint != text {
            tracing::warn!("{text}");
            self.complaint = text;
        }
    }

    /// Tells the cloud how it went, and does what is to be done once.
    fn finish(&mut self, f: &Fetched, failure: String) {
        let mut then_reboot = false;
        for c in &f.commands {
            if !self.done.insert((c.revision, c.name.clone())) {
                continue;
            }
            tracing::info!(command = c.name, revision = c.revision, "asked by the cloud");
            match c.name.as_str() {
                "Reboot" => then_reboot = true,
                "Upgrade" => tracing::warn!(
                    version = c.args["VersionCode"].as_str(),
                    "upgrades are installed by the machine's package manager, not by the cloud"
                ),
                // A fresh report answers the others.
                _ => self.reported = Instant::now().checked_sub(REPORT_GAP).unwrap_or(self.reported),
            }
        }
        if let Some(revision) = f.revision {
            self.revision = Some(revision);
            if let Some(reporter) = &self.reporter {
                reporter.result(Outcome { revision, failure, then_reboot });
            }
        }
        self.report_soon();
    }

    fn health_changed(&mut self) {
        if self.pending.is_none()
            && let Err(fault) = self.applier.tend(&self.checks.verdicts())
        {
            self.complain(&fault);
        }
        self.report_soon();
    }

    fn report_soon(&mut self) {
        self.report_at = self.report_at.min(self.reported + REPORT_GAP);
    }

    fn report(&mut self) {
        let now = Instant::now();
        (self.reported, self.report_at) = (now, now + self.config.report_interval);
        let Some(reporter) = &self.reporter else { return };
        let health = self.checks.states();
        let announcement = self.applier.announcement();
        self.announced.clone_from(&announcement);
        let facts = Facts {
            compiled: self.applier.current.as_ref().map(|c| &c.compiled),
            health: &health,
            tables: self.applier.system.as_mut().and_then(|s| s.tables().ok()),
            revision: self.revision,
            clock_offset: self.client.clock.seconds(),
            announcement,
        };
        match report::state(&self.applier.vcpe, &mut self.rates, &facts) {
            Ok(state) => reporter.state(state),
            Err(error) => tracing::debug!(%error, "nothing to report"),
        }
    }

    /// Restarts the service: the gateway's process and this one end, and are started again.
    fn reboot(self) -> Result<u8> {
        tracing::warn!("restarting, as the cloud asked");
        if self.config.on_reboot == OnReboot::Gateway {
            let pid = self.applier.vcpe.peer().ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid
                && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
            {
                tracing::error!(%error, "cannot end sag-vcpe; the agent needs its user or CAP_KILL");
            }
        }
        Ok(EXIT_REBOOT)
    }
}
