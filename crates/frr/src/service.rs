//! The service that owns FRR's daemons.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use sag_sandbox::{CapabilitySet, Mode, Profile, Program};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::client::{CONTROL, MAX_LINE, Request};
use crate::daemons::{Daemons, needed};
use crate::keepalived::Keepalived;
use crate::observe::{first_silent, observe};
use crate::pppoe::Pppoe;
use crate::render::{Forwarding, Owner, Rendered, checked, render};
use crate::settings::Settings;
use crate::status::{Installed, Problem, Status};
use crate::takeover::{ASK, Sessions, Takeover};
use crate::tools::{self, FRR_DIR, Places, ToolError};

/// The user of FRR's daemons, which their package makes.
const FRR_USER: &str = "frr";
/// How often daemons are looked after.
const ROUND: Duration = Duration::from_millis(250);
/// How often they are asked for their neighbors.
const OBSERVE: Duration = Duration::from_millis(500);
/// The same while one does not answer, for which everybody else has to wait.
const SILENT: Duration = Duration::from_secs(4);
/// How long routes that an earlier service has left stay while nobody says what is needed.
const UNSWEPT: Duration = Duration::from_secs(30);
/// How long a caller has to say what it wants.
const CALLER: Duration = Duration::from_secs(2);
/// The pause after a configuration that could not be applied.
const RETRY: Duration = Duration::from_secs(5);
/// Rounds in which what FRR's checker refuses is left out.
const CHECKS: usize = 8;

/// How the service is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its directory; made if it is missing.
    pub dir: PathBuf,
    /// The user who may set something, beside root.
    pub user: Option<String>,
    /// End when the standard input ends: the agent that has started it is gone.
    pub with_parent: bool,
    /// How far it is confined.
    pub sandbox: Mode,
    /// What it reports as its version.
    pub version: String,
}

/// Why the service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A file or directory of it.
    #[error("{0}: {1}")]
    Place(String, io::Error),
    /// Another one runs there.
    #[error("{0}: another routing service runs here; end it first")]
    Taken(String),
    /// No such user.
    #[error("no user {0} in /etc/passwd")]
    NoUser(String),
}

/// What the service keeps: FRR's daemons begin as root and become another user, who has these.
pub fn capabilities() -> CapabilitySet {
    CapabilitySet::NET_ADMIN
        | CapabilitySet::NET_RAW
        | CapabilitySet::NET_BIND_SERVICE
        | CapabilitySet::SYS_ADMIN
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::CHOWN
        | CapabilitySet::FOWNER
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::KILL
}

/// Numbers of a user and its group.
fn user(name: &str) -> Option<(u32, u32)> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields =
        text.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|f| f[0] == name)?.into_iter();
    let uid = fields.nth(2)?.parse().ok()?;
    Some((uid, fields.next()?.parse().ok()?))
}

/// Runs until a signal ends it, or its parent is gone. The daemons end with it, and their routes go. `gateway` asks the
/// gateway for its sessions while there is a virtual address; `None`: it does not answer.
///
/// # Errors
/// [`ServiceError`].
pub fn run(options: &Options, gateway: &dyn Fn() -> Option<Sessions>) -> Result<(), ServiceError> {
    let at = |path: &Path| {
        let path = path.display().to_string();
        move |e| ServiceError::Place(path, e)
    };
    let dir = &options.dir;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let places = Places::new(dir);
    for (path, mode) in [(dir, 0o755), (&places.run, 0o750)] {
        fs::create_dir_all(path).map_err(at(path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(at(path))?;
    }
    let lock = fs::File::open(dir).map_err(at(dir))?;
    let mode = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&lock, mode).map_err(|_| ServiceError::Taken(dir.display().to_string()))?;
    if let Some((uid, gid)) = user(FRR_USER) {
        chown(&places.run, Some(uid), Some(gid)).map_err(at(&places.run))?;
    }
    let setter = match &options.user {
        None => None,
        Some(name) => Some(user(name).ok_or_else(|| ServiceError::NoUser(name.clone()))?),
    };
    sag_sandbox::protect_memory();
    let profile = Profile {
        program: Program::Routing,
        capabilities: capabilities(),
        read: Vec::new(),
        write: vec![dir.clone()],
        entries: Vec::new(),
    };
    sag_sandbox::confine(options.sandbox, &profile);
    let socket = dir.join(CONTROL);
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(at(&socket))?;
    listener.set_nonblocking(true).map_err(at(&socket))?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).map_err(at(&socket))?;
    if let Some((uid, gid)) = setter {
        chown(&socket, Some(uid), Some(gid)).map_err(at(&socket))?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, stop.clone()).map_err(at(&socket))?;
    }
    let mut service = Service::new(&places, options, setter.map(|(uid, _)| uid));
    service.unswept = service.daemons.end_leftovers().then(|| Instant::now() + UNSWEPT);
    service.keepalived.end_leftover();
    service.serve(&listener, options.with_parent, &stop, gateway);
    service.pppoe.end();
    service.keepalived.end();
    service.daemons.end_all();
    for file in [socket, dir.join("frr.conf")] {
        let _ = fs::remove_file(file);
    }
    let _ = fs::remove_dir_all(&places.run);
    Ok(())
}

/// Lines that a daemon has refused.
#[derive(Debug)]
struct Rejected {
    owner: Owner,
    lines: Vec<String>,
    why: String,
}

struct Service {
    places: Places,
    version: String,
    setter: Option<u32>,
    wanted: Settings,
    daemons: Daemons,
    keepalived: Keepalived,
    pppoe: Pppoe,
    takeover: Takeover,
    ask_at: Instant,
    /// What the daemons have; none: not known.
    applied: Option<Rendered>,
    /// Daemons that have started and have nothing yet.
    fresh: BTreeSet<&'static str>,
    /// What FRR's checker leaves of `wanted`, and the machine's forwarding at the time.
    plan: Option<(Settings, Forwarding, Rendered)>,
    /// What cannot be put in force at all.
    refused: Vec<Problem>,
    /// What daemons have refused, though the checker takes it.
    rejected: Vec<Rejected>,
    /// Why it is not applied.
    unapplied: Option<String>,
    retry_at: Instant,
    observe_at: Instant,
    /// When routes that an earlier service may have left are removed, if no protocol is in use by then.
    unswept: Option<Instant>,
    status: Status,
}

impl Service {
    fn new(places: &Places, options: &Options, setter: Option<u32>) -> Service {
        let now = Instant::now();
        let version = options.version.clone();
        Service {
            places: places.clone(),
            version: version.clone(),
            setter,
            wanted: Settings::default(),
            daemons: Daemons::new(Path::new(FRR_DIR), places, FRR_USER),
            keepalived: Keepalived::new(places),
            pppoe: Pppoe::new(places),
            takeover: Takeover::default(),
            ask_at: now,
            applied: None,
            fresh: BTreeSet::new(),
            plan: None,
            refused: Vec::new(),
            rejected: Vec::new(),
            unapplied: None,
            retry_at: now,
            observe_at: now,
            unswept: None,
            status: Status::default(),
        }
    }

    fn serve(
        &mut self,
        listener: &UnixListener,
        with_parent: bool,
        stop: &AtomicBool,
        gateway: &dyn Fn() -> Option<Sessions>,
    ) {
        let stdin = io::stdin();
        while !stop.load(Ordering::Relaxed) {
            let ready = wait(listener, with_parent.then_some(&stdin));
            if ready.1 && parent_is_gone() {
                return;
            }
            if ready.0 {
                while let Ok((stream, _)) = listener.accept() {
                    if let Err(error) = self.answer(stream) {
                        tracing::debug!(%error, "a caller went away");
                    }
                }
            }
            self.ask(gateway);
            self.round();
        }
    }

    /// Asks the gateway whether this device may have the virtual address.
    fn ask(&mut self, gateway: &dyn Fn() -> Option<Sessions>) {
        let now = Instant::now();
        if self.wanted.vrrp.is_none() {
            self.takeover = Takeover::default();
        } else if now >= self.ask_at {
            self.ask_at = now + ASK;
            self.takeover.hear(gateway(), self.keepalived.is_master(), now);
        }
    }

    fn answer(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(CALLER))?;
        stream.set_write_timeout(Some(CALLER))?;
        let caller = socket_peercred(&stream)?.uid.as_raw();
        let mut line = Vec::new();
        BufReader::new(&stream).take(MAX_LINE).read_until(b'\n', &mut line)?;
        let answer: Result<&Status, String> = match serde_json::from_slice(&line) {
            Ok(Request::Show) => Ok(self.now()),
            Ok(Request::Set(settings)) if caller == 0 || Some(caller) == self.setter => {
                self.set(*settings);
                Ok(self.now())
            }
            Ok(Request::Set(_)) => Err(format!("user {caller} may only look")),
            Err(e) => Err(format!("the request cannot be read: {e}")),
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        (&stream).write_all(&text)
    }

    fn set(&mut self, settings: Settings) {
        // Now it is known what is needed.
        self.unswept = self.unswept.map(|_| Instant::now());
        self.pppoe.set(&settings.pppoe);
        if settings != self.wanted {
            self.wanted = settings;
            self.plan = None;
            self.retry_at = Instant::now();
        }
    }

    fn now(&mut self) -> &Status {
        let needed = self.plan.as_ref().map(|(s, ..)| needed(s)).unwrap_or_default();
        self.status.version.clone_from(&self.version);
        self.status.installed = self.installed();
        let obstacle = self.pppoe.obstacle();
        self.status.installed.pppoe = obstacle.is_empty();
        obstacle.clone_into(&mut self.status.installed.pppoe_obstacle);
        self.status.daemons = self.daemons.status(&needed);
        self.status.daemons.extend(self.keepalived.daemon());
        self.status.vrrp = self.keepalived.status();
        self.status.pppoe = self.pppoe.status();
        self.status.problems.clone_from(&self.refused);
        let unapplied = self.unapplied.iter().map(|why| Problem {
            object: "the configuration of FRR".to_owned(),
            reason: why.clone(),
            section: String::new(),
        });
        self.status.problems.extend(unapplied);
        self.status.problems.extend(self.keepalived.problem().cloned());
        self.status.problems.extend(self.pppoe.problems());
        &self.status
    }

    fn installed(&self) -> Installed {
        tools::installed(Path::new(FRR_DIR))
    }

    /// One round: what shall be is compared with what is.
    fn round(&mut self) {
        self.pppoe.round();
        self.keepalived.round(self.wanted.vrrp.as_ref(), self.takeover.obstacle());
        let forwarding = forwarding();
        if self.plan.as_ref().is_none_or(|(_, at, _)| *at != forwarding) && Instant::now() >= self.retry_at {
            self.plan(forwarding);
        }
        let Some((good, ..)) = &self.plan else { return };
        let needed = needed(good);
        self.fresh.extend(self.daemons.reconcile(&needed));
        if needed.is_empty() {
            self.applied = None;
            self.fresh.clear();
            self.unapplied = None;
            self.status = Status::default();
            if self.unswept.take_if(|at| Instant::now() >= *at).is_some() {
                self.daemons.sweep();
            }
            return;
        }
        // zebra keeps them for a while, in which their daemon may announce them again.
        self.unswept = None;
        self.apply(&needed);
        if Instant::now() >= self.observe_at {
            let seen = observe(&mut self.daemons, &self.places);
            self.observe_at = Instant::now() + if seen.silent { SILENT } else { OBSERVE };
            (self.status.neighbors, self.status.routes) = (seen.neighbors, seen.routes);
        }
    }

    /// Makes the configuration, without what FRR's checker refuses.
    fn plan(&mut self, forwarding: Forwarding) {
        let (mut good, mut problems) = checked(&self.wanted);
        let installed = self.installed();
        let lacking = format!("not installed: {}", installed.missing.join(", "));
        for (wanted, has, section, object) in [
            (good.bgp.is_some(), installed.bgp, "Bgp", "BGP"),
            (good.ospf.is_some(), installed.ospf, "Ospf", "OSPF"),
        ] {
            if wanted && !has {
                let (section, object) = (section.to_owned(), object.to_owned());
                problems.push(Problem { section, object, reason: lacking.clone() });
            }
        }
        good.bgp = good.bgp.filter(|_| installed.bgp);
        good.ospf = good.ospf.filter(|_| installed.ospf);
        for _ in 0..CHECKS {
            let rendered = render(&good, forwarding);
            // With other lines it may be another matter.
            let before = problems.len();
            for r in self.rejected.iter().filter(|r| rendered.lines_of(&r.owner) == r.lines) {
                problems.push(r.owner.problem(&self.wanted, &r.why));
                r.owner.remove_from(&mut good);
            }
            if problems.len() > before {
                continue;
            }
            if good.is_off() {
                return self.planned(good, forwarding, rendered, problems);
            }
            match tools::check(&self.places, &rendered) {
                Ok(refused) if refused.owned.is_empty() && refused.other.is_empty() => {
                    return self.planned(good, forwarding, rendered, problems);
                }
                Ok(refused) if refused.owned.is_empty() => return self.postpone(refused.other.join("; ")),
                Ok(refused) => {
                    for (owner, why) in refused.owned {
                        let problem = owner.problem(&self.wanted, why);
                        if !problems.iter().any(|p| p.object == problem.object) {
                            problems.push(problem);
                        }
                        owner.remove_from(&mut good);
                    }
                }
                Err(error) => return self.postpone(error.to_string()),
            }
        }
        self.postpone("FRR refuses more and more of it".to_owned());
    }

    fn planned(&mut self, good: Settings, at: Forwarding, rendered: Rendered, problems: Vec<Problem>) {
        for p in problems.iter().filter(|p| !self.refused.contains(p)) {
            tracing::warn!("{}: {}", p.object, p.reason);
        }
        self.refused = problems;
        self.unapplied = None;
        self.plan = Some((good, at, rendered));
    }

    /// What runs goes on.
    fn postpone(&mut self, why: String) {
        self.retry_at = Instant::now() + RETRY;
        if self.unapplied.as_ref() != Some(&why) {
            tracing::error!("the routing configuration is not applied: {why}");
        }
        self.unapplied = Some(why);
    }

    fn apply(&mut self, needed: &[&'static str]) {
        let Some((_, _, rendered)) = &self.plan else { return };
        let is_applied = self.applied.as_ref() == Some(rendered) && self.fresh.is_empty();
        if is_applied || !self.daemons.all_run(needed) || Instant::now() < self.retry_at {
            return;
        }
        // FRR's tools would wait for it, and everybody for them.
        if let Some(silent) = first_silent(&mut self.daemons, &self.places, needed) {
            return self.postpone(format!("{silent} does not answer"));
        }
        let began = Instant::now();
        let fresh = self.fresh.iter().copied().collect::<Vec<_>>().join(" ");
        let loaded = self.fresh.iter().try_for_each(|name| tools::load(&self.places, rendered, name));
        // With nothing but new daemons there is nothing that could differ.
        let others = self.fresh.len() < needed.len();
        let differs = others && self.applied.as_ref() != Some(rendered);
        let done = loaded.and_then(|()| if differs { tools::reload(&self.places, rendered) } else { Ok(()) });
        match done {
            Ok(()) => {
                let ms = began.elapsed().as_millis() as u64;
                tracing::info!(new = fresh, changed = differs, ms, "routing configuration in force");
                self.applied = Some(rendered.clone());
                self.fresh.clear();
                self.unapplied = None;
                self.observe_at = Instant::now();
            }
            Err(error) => self.failed(&error, needed),
        }
    }

    /// A daemon that has ended meanwhile gets the whole configuration when it runs again. Otherwise a reload that fails may
    /// have done a half: all daemons start anew, which ends their sessions.
    fn failed(&mut self, error: &ToolError, needed: &[&'static str]) {
        if self.daemons.notice_ends(needed) {
            tracing::info!(%error, "a routing daemon has ended meanwhile");
            return;
        }
        match (error, &self.plan) {
            (ToolError::Lines(lines), Some((_, _, rendered))) => {
                let mut owners = BTreeSet::new();
                for (owner, why) in lines.iter().filter(|(owner, _)| owners.insert(owner)) {
                    self.rejected.retain(|r| r.owner != *owner);
                    let (owner, lines) = (owner.clone(), rendered.lines_of(owner));
                    self.rejected.push(Rejected { owner, lines, why: why.clone() });
                }
                self.plan = None;
            }
            _ => self.postpone(error.to_string()),
        }
        tracing::warn!("the routing daemons start anew with the whole configuration");
        self.daemons.stop_all();
        self.applied = None;
        self.fresh.clear();
    }
}

/// Waits for a caller, for the end of the parent, or for the next round: who of the first two it is.
fn wait(listener: &UnixListener, parent: Option<&io::Stdin>) -> (bool, bool) {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::try_from(ROUND.as_nanos()).unwrap_or(0) };
    let mut fds = vec![PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
    if let Some(stdin) = parent {
        fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
    }
    // A signal ends the wait early, and the loop looks at it.
    if poll(&mut fds, Some(&timeout)).is_err() {
        return (false, false);
    }
    let is_ready = |n: usize| fds.get(n).is_some_and(|fd| !fd.revents().is_empty());
    (is_ready(0), is_ready(1))
}

/// Whether the standard input has ended; the parent writes nothing.
fn parent_is_gone() -> bool {
    let mut byte = [0];
    !matches!(io::stdin().read(&mut byte), Ok(1..))
}

/// Whether the machine's own settings have the kernel forward.
fn forwarding() -> Forwarding {
    let on = |path: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() != "0");
    Forwarding {
        ipv4: on("/proc/sys/net/ipv4/ip_forward"),
        ipv6: on("/proc/sys/net/ipv6/conf/all/forwarding"),
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
