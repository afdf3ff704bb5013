//! The agent's main loop: one thread decides; others listen to the cloud, report to it, and probe.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sag_sandbox::{CapabilitySet, Profile, Program, Supervisor, directories_to};
use sag_southbound::{AccessPoint, Announcement, Command, LinkBackup, SessionLink};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::apply::{Applier, Fault, LastGood};
use crate::client::Client;
use crate::commands::{CommandLog, Effect};
use crate::config::{Config, Dhcp, Extension, OnReboot, is_local};
use crate::desired::Desired;
use crate::diagnosis;
use crate::dns;
use crate::events::{Event, Fetched, Generation};
use crate::files;
use crate::health::Checks;
use crate::lan_services;
use crate::measure::{Job, Measurer};
use crate::probes::Probes;
use crate::pull::Puller;
use crate::report::{self, Facts, Rates};
use crate::reporter::{Outcome, Reporter};
use crate::routing::{self, Routing};

/// How the process ends when the cloud has sent the command to restart: its supervisor starts it again.
pub const EXIT_REBOOT: u8 = 86;

/// How often a configuration that could not be handed over is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// How often the gateway is compared with the last good configuration.
const RECONCILE: Duration = Duration::from_secs(1);
/// The least time between two reports of state.
const REPORT_GAP: Duration = Duration::from_secs(1);
/// The silence after which a device counts as offline.
const OFFLINE: Duration = Duration::from_secs(60);
/// The time between two reports of state with advanced monitoring.
const ADVANCED_REPORT: Duration = Duration::from_secs(2);

struct Agent {
    config: Arc<Config>,
    client: Arc<Client>,
    events: SyncSender<Event>,
    generation: Generation,
    applier: Applier,
    checks: Checks,
    probes: Probes,
    measurer: Measurer,
    reporter: Option<Reporter>,
    rates: Rates,
    /// The configuration that is not in force yet.
    pending: Option<Box<Fetched>>,
    revision: Option<i64>,
    commands: CommandLog,
    /// The last complaint, so that it is logged once.
    complaint: String,
    /// What the cloud has for the other members of the network.
    announced: Option<Announcement>,
    /// What the cloud has for the other device of the instance.
    session_link: Option<SessionLink>,
    /// What the cloud knows of the links that stand in for each other.
    link_backup: Vec<LinkBackup>,
    retry_at: Instant,
    reconcile_at: Instant,
    report_at: Instant,
    reported: Instant,
    /// When the paths to access points are measured again.
    points_at: Instant,
}

pub fn run(config: Config) -> Result<u8> {
    let config = Arc::new(config);
    files::make_dir(&config.state_dir)
        .with_context(|| format!("state_dir {}", config.state_dir.display()))?;
    if let Some(file) = &config.base_config {
        files::warn_of_exposed_keys(file);
    }
    let _lock = lock_state_dir(&config)?;
    lan_services::make_place(&config);
    // It needs more than what is left afterwards.
    let service = routing::start_service(&config);
    // Before there are other threads.
    confine(&config);
    // The queue holds one event: the thread that listens to the cloud polls again only when the last answer was
    // taken, and then gets the newest.
    let (events, inbox) = sync_channel(1);
    on_signals(events.clone())?;
    let client = Arc::new(Client::new(&config)?);
    let routing = {
        let events = events.clone();
        Routing::new(&config, service, move || {
            let _ = events.send(Event::RoutingChanged);
        })
    };
    let mut agent = Agent::new(config, client, events, routing);
    agent.boot();
    agent.connect()?;
    agent.serve(&inbox)
}

/// Gives up what the agent does not need. DHCP clients and dnsmasq, which it runs, need more than itself.
fn confine(config: &Config) {
    sag_sandbox::protect_memory();
    let clients = config.dhcp_client != Dhcp::Off || config.ipv6.uses_dhcp();
    let lan = lan_services::may_run(config);
    let children = clients || lan;
    let mut capabilities = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
    if children {
        capabilities |= CapabilitySet::NET_BIND_SERVICE;
    }
    if rustix::process::geteuid().is_root() {
        // The gateway, which it ends on request, and its socket may be another user's; so may state and configurations be,
        // and what it writes there remains that user's.
        capabilities |=
            CapabilitySet::KILL | CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER | CapabilitySet::CHOWN;
        if children {
            // They become other users.
            capabilities |= CapabilitySet::SETUID | CapabilitySet::SETGID;
        }
        if clients {
            // In directories of their own.
            capabilities |= CapabilitySet::SYS_CHROOT;
        }
    }
    let mut write = vec![config.state_dir.clone()];
    write.extend(config.vcpe_config.iter().filter_map(|f| f.parent()).map(Path::to_owned));
    if lan {
        write.extend(config.lan.dir.parent().map(Path::to_owned));
    }
    if clients {
        write.extend(["/etc", "/run", "/var", "/tmp"].map(PathBuf::from));
    }
    let files = [
        Some(&config.file),
        config.ca_file.as_ref(),
        config.base_config.as_ref(),
        Some(&config.vcpe_socket),
        Some(&config.resolv_conf),
    ];
    let read = files.into_iter().flatten().flat_map(|f| directories_to(f)).collect();
    let program = Program::Agent { children };
    sag_sandbox::confine(
        config.sandbox,
        &Profile { program, capabilities, read, write, entries: Vec::new() },
    );
}

/// Two agents with one state directory would undo each other's work. The directory itself is locked, not a file in it:
/// that may not be possible to make on a disk that is full or read-only, and then the last good configuration is needed
/// all the same.
fn lock_state_dir(config: &Config) -> Result<File> {
    let path = &config.state_dir;
    let dir = File::open(path).with_context(|| path.display().to_string())?;
    let mode = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    if rustix::fs::flock(&dir, mode).is_err() {
        bail!("{}: another sag-agent runs with this state_dir; end it first", path.display());
    }
    Ok(dir)
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
    fn new(config: Arc<Config>, client: Arc<Client>, events: SyncSender<Event>, routing: Routing) -> Agent {
        let now = Instant::now();
        let reports = config.extension == Extension::Auto;
        Agent {
            applier: Applier::new(config.clone(), routing),
            config,
            client,
            checks: {
                let events = events.clone();
                Checks::new(move || {
                    let _ = events.send(Event::HealthChanged);
                })
            },
            probes: {
                let events = events.clone();
                Probes::new(move || {
                    let _ = events.send(Event::ProbesChanged);
                })
            },
            measurer: {
                let events = events.clone();
                Measurer::new(move || {
                    let _ = events.send(Event::Measured);
                })
            },
            events,
            generation: Generation::first(),
            reporter: reports.then(Reporter::default),
            rates: Rates::default(),
            pending: None,
            revision: None,
            commands: CommandLog::default(),
            complaint: String::new(),
            announced: None,
            session_link: None,
            link_backup: Vec::new(),
            retry_at: now,
            reconcile_at: now,
            report_at: now,
            reported: now.checked_sub(REPORT_GAP).unwrap_or(now),
            points_at: now,
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
        self.client = Arc::new(self.client.reconnected(&self.config)?);
        self.connect()
    }

    /// Applies the last good configuration before there is contact with the cloud.
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
            tracing::info!(revision = good.revision, "the last good configuration is applied first");
            self.target(Box::new(Fetched {
                desired: good.desired,
                revision: None,
                commands: Vec::new(),
                reconnected: false,
            }));
        }
    }

    fn serve(mut self, inbox: &Receiver<Event>) -> Result<u8> {
        let mut supervisor = Supervisor::new();
        supervisor.ready();
        loop {
            supervisor.alive();
            let now = Instant::now();
            let mut next = self.reconcile_at.min(self.report_at);
            if self.pending.is_some() {
                next = next.min(self.retry_at);
            }
            if let Some(interval) = supervisor.interval() {
                next = next.min(now + interval);
            }
            match inbox.recv_timeout(next.saturating_duration_since(now)) {
                Ok(Event::Fetched(f)) => self.fetched(f),
                Ok(Event::Unreadable { revision, reason }) => self.unreadable(revision, reason),
                Ok(Event::CloudLost(why)) => tracing::debug!("cloud: {why}"),
                Ok(Event::HealthChanged) => self.health_changed(),
                Ok(Event::ProbesChanged | Event::RoutingChanged) => self.report_soon(),
                Ok(Event::Measured) => self.report_at_once(),
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

    /// Does what is due by the clock.
    fn due(&mut self) {
        let now = Instant::now();
        self.applier.clock_offset = self.client.clock.seconds();
        self.applier.acceptance = self.reporter.as_ref().and_then(Reporter::acceptance);
        if self.pending.is_some() && now >= self.retry_at {
            self.apply_pending();
        }
        if now >= self.reconcile_at {
            self.reconcile_at = now + RECONCILE;
            if self.pending.is_none()
                && let Err(fault) = self.applier.reconcile(&self.checks.verdicts())
            {
                self.complain(&fault);
            }
            self.route_checks();
            if self.applier.tend_daemons() {
                self.report_soon();
            }
            // The other members of the network need a new key or address at once.
            if self.applier.announcement() != self.announced
                || self.applier.session_link() != self.session_link
                || self.applier.link_backup(&self.checks.verdicts()) != self.link_backup
            {
                self.report_soon();
            }
        }
        self.lock_if_silent();
        self.measure_points(now);
        if now >= self.report_at {
            self.report();
        }
    }

    /// Health checks go the way of the traffic that they are about.
    fn route_checks(&mut self) {
        let applier = &mut self.applier;
        self.checks.go_by(|dst| applier.device_to(dst));
    }

    /// Leaves the network when the cloud has not been heard for too long: whoever has cut the device off may have it open on
    /// a table. The next configuration says whether it may come back.
    fn lock_if_silent(&mut self) {
        let threshold = self.applier.current.as_ref().and_then(|c| c.good.desired.security_lock);
        let silent =
            threshold.is_some_and(|s| self.client.heard().elapsed() > OFFLINE + Duration::from_secs(s));
        if silent && !self.applier.silent {
            self.applier.silent = true;
            self.reconcile_at = Instant::now();
        }
    }

    /// Measures the paths to the access points, when it is time and the cloud has any.
    fn measure_points(&mut self, now: Instant) {
        let (Some(interval), Some(current)) = (self.config.access_point_interval, &self.applier.current)
        else {
            return;
        };
        let points = &current.good.desired.access_points;
        if now < self.points_at || points.is_empty() || self.reporter.is_none() {
            return;
        }
        self.points_at = now + interval;
        let points = points.iter().map(|p| AccessPoint { id: p.id, address: p.address.clone() }).collect();
        self.measurer.begin(Job::Probe { id: None, points, clock_offset: self.client.clock.seconds() });
    }

    fn fetched(&mut self, f: Box<Fetched>) {
        self.applier.silent = false;
        if f.reconnected {
            tracing::info!(revision = f.revision, "in contact with the cloud");
            // Revisions of another database say nothing about this one.
            self.commands.clear();
            if let Some(reporter) = &self.reporter {
                reporter.forget();
            }
        }
        self.target(f);
    }

    fn target(&mut self, f: Box<Fetched>) {
        self.pending = Some(f);
        self.apply_pending();
    }

    /// Tries to put the pending configuration in force.
    fn apply_pending(&mut self) {
        let Some(f) = self.pending.take() else { return };
        let good = LastGood { revision: f.revision, desired: f.desired.clone() };
        // Another revision of the same configuration is not written down.
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
                self.checks.set(&f.desired.known_checks());
                self.route_checks();
                self.probes.set(&f.desired.probes);
                self.finish(&f, String::new());
            }
            Err(Fault::Refused(why)) => {
                self.complain(&Fault::Refused(why.clone()));
                self.finish(&f, why);
            }
            Err(unavailable) => {
                self.complain(&unavailable);
                self.retry_at = Instant::now() + RETRY;
                self.pending = Some(f);
            }
        }
    }

    fn complain(&mut self, fault: &Fault) {
        let text = match fault {
            Fault::Unavailable(why) => format!("waiting for the gateway: {why}"),
            Fault::Refused(why) => format!("not put in force, the last good configuration stays: {why}"),
        };
        if self.complaint != text {
            tracing::warn!("{text}");
            self.complaint = text;
        }
    }

    /// A configuration that this version cannot read is refused like one that cannot be put in force.
    fn unreadable(&mut self, revision: i64, reason: String) {
        self.complain(&Fault::Refused(reason.clone()));
        let deviations = None;
        self.conclude(Outcome {
            revision,
            failure: reason,
            commands: Vec::new(),
            deviations,
            then_reboot: false,
        });
        self.report_soon();
    }

    /// Carries out the commands of a configuration that is in force or refused, and reports the result.
    fn finish(&mut self, f: &Fetched, failure: String) {
        let (mut commands, mut then_reboot) = (Vec::new(), false);
        for issued in &f.commands {
            let (result, effect) = self.commands.take(issued);
            tracing::info!(
                command = result.name,
                revision = result.revision,
                outcome = result.outcome.as_str(),
                "command of the cloud"
            );
            match effect {
                Effect::None => {}
                Effect::Report => self.report_at_once(),
                Effect::Measure => self.measure(&issued.command),
                Effect::Restart => then_reboot = true,
            }
            commands.push(result);
        }
        if let Some(revision) = f.revision {
            let deviations = failure.is_empty().then(|| report::bounded(self.applier.deviations()));
            self.conclude(Outcome { revision, failure, commands, deviations, then_reboot });
        }
        self.report_soon();
    }

    fn conclude(&mut self, outcome: Outcome) {
        self.revision = Some(outcome.revision);
        if let Some(reporter) = &self.reporter {
            reporter.result(outcome);
        }
    }

    fn health_changed(&mut self) {
        if self.pending.is_none()
            && let Err(fault) = self.applier.reconcile(&self.checks.verdicts())
        {
            self.complain(&fault);
        }
        self.report_soon();
    }

    fn report_soon(&mut self) {
        self.report_at = self.report_at.min(self.reported + REPORT_GAP);
    }

    fn report_interval(&self) -> Duration {
        match &self.applier.current {
            Some(c) if c.good.desired.advanced_monitor => self.config.report_interval.min(ADVANCED_REPORT),
            _ => self.config.report_interval,
        }
    }

    /// Somebody waits for what there is to report.
    fn report_at_once(&mut self) {
        self.reported = Instant::now().checked_sub(REPORT_GAP).unwrap_or(self.reported);
        self.report_soon();
    }

    /// Begins what a command asks for.
    fn measure(&mut self, command: &Command) {
        let job = match command {
            Command::Diagnose(args) => {
                let compiled = self.applier.current.as_ref().map(|c| &c.compiled.notices);
                let mut notices = self.applier.network_notices();
                notices.extend(compiled.into_iter().flatten().cloned());
                let tables = self.applier.system.as_mut().and_then(|s| s.tables().ok());
                let facts = diagnosis::Facts {
                    endpoint: self.config.endpoint.clone(),
                    clock_offset: self.client.clock.seconds(),
                    notices,
                    routers: tables.map(diagnosis::routers).unwrap_or_default(),
                    resolv_conf: self.config.resolv_conf.clone(),
                    vcpe_socket: self.config.vcpe_socket.clone(),
                };
                Job::Diagnose { id: args.diagnose_id.clone(), facts: Box::new(facts) }
            }
            Command::ProbeAccessPoints(args) => {
                let (id, points) = (Some(args.probe_id.clone()), args.access_points.clone());
                Job::Probe { id, points, clock_offset: self.client.clock.seconds() }
            }
            _ => return,
        };
        self.measurer.begin(job);
    }

    fn report(&mut self) {
        let now = Instant::now();
        (self.reported, self.report_at) = (now, now + self.report_interval());
        let Some(reporter) = &self.reporter else { return };
        let health = self.checks.states();
        let announcement = self.applier.announcement();
        self.announced.clone_from(&announcement);
        self.session_link = self.applier.session_link();
        self.link_backup = self.applier.link_backup(&self.checks.verdicts());
        let mut network = self.applier.network_notices();
        network.extend(self.applier.lan.deviations().iter().map(ToString::to_string));
        let deviations = report::bounded(self.applier.deviations());
        let facts = Facts {
            compiled: self.applier.current.as_ref().map(|c| &c.compiled),
            health: &health,
            probes: self.probes.states(),
            tables: self.applier.system.as_mut().and_then(|s| s.tables().ok()),
            revision: self.revision,
            clock_offset: self.client.clock.seconds(),
            announcement,
            session_link: self.session_link.clone(),
            link_backup: self.link_backup.clone(),
            network,
            deviations,
            dns: self.applier.lan.servers().or_else(|| dns::servers(&self.config.resolv_conf).ok()),
            measured: self.measurer.measured(),
            access_point_interval: self.config.access_point_interval,
            routing: &self.applier.routing,
            lan: self.applier.lan.capabilities(),
        };
        match report::state(&self.applier.vcpe, &mut self.rates, &facts) {
            Ok(state) => reporter.state(state),
            Err(error) => tracing::debug!(%error, "nothing to report"),
        }
    }

    /// Restarts the service: the gateway's process and this one end, and are started again.
    fn reboot(self) -> Result<u8> {
        tracing::warn!("restarting by a command of the cloud");
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
