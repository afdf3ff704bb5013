//! One line: dialed, watched, dialed again.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sag_daemons::{Supervisor, Unit};
use sag_rtnl::Device;

use super::bridge::{Ends, Given, Kernel, Pair, named};
use super::options::{self, render};
use crate::settings::{PppoeDevices, PppoeLine};
use crate::status::PppoeState;
use crate::tools::{PPPD, Places};

const NAME: &str = "pppd";
/// Of files of a line.
const PREFIX: &str = "pppoe-";
/// A session that has lasted so long was none that fails at once.
const STEADY: Duration = Duration::from_secs(60);
/// The pause after something that the kernel has refused.
const RETRY: Duration = Duration::from_secs(5);

/// A line by PPPoE.
pub(super) struct Line {
    pub(super) wanted: PppoeLine,
    names: PppoeDevices,
    places: Places,
    supervisor: Supervisor,
    session: Option<Session>,
    /// The Ethernet device was set up once; who sets it down later has his reasons.
    is_ready: bool,
    /// Attempts without a session that has lasted.
    attempts: u32,
    sessions: u64,
    not_before: Instant,
    problem: String,
}

struct Session {
    given: Given,
    pair: Pair,
    /// That of the default route.
    metric: Option<u32>,
    since: Instant,
}

fn file(places: &Places, device: &str, ending: &str) -> PathBuf {
    places.own.join(format!("{PREFIX}{device}.{ending}"))
}

fn remove_files(places: &Places, device: &str) {
    for ending in ["conf", "new", "pid"] {
        let _ = std::fs::remove_file(file(places, device, ending));
    }
}

fn unit(places: &Places, device: &str) -> Unit {
    let options = file(places, device, "conf");
    Unit {
        name: NAME,
        program: PPPD.into(),
        args: vec!["file".into(), options.clone().into()],
        ready: Vec::new(),
        pid_file: file(places, device, "pid"),
        mark: options.into(),
    }
}

/// Ends what an earlier service left behind when it was killed.
pub(super) fn end_leftovers(places: &Places) {
    for entry in std::fs::read_dir(&places.own).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let device = name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.strip_suffix(".pid"));
        if let Some(device) = device {
            unit(places, device).end_leftover();
            remove_files(places, device);
        }
    }
}

impl Line {
    /// `None`: the device has a name that cannot be used, which [`options::fault`] says.
    pub(super) fn new(wanted: PppoeLine, places: &Places) -> Option<Line> {
        Some(Line {
            names: PppoeDevices::of(&wanted.device)?,
            wanted,
            places: places.clone(),
            supervisor: Supervisor::default(),
            session: None,
            is_ready: false,
            attempts: 0,
            sessions: 0,
            not_before: Instant::now(),
            problem: String::new(),
        })
    }

    pub(super) fn port_device(&self) -> &str {
        &self.names.port
    }

    fn file(&self, ending: &str) -> PathBuf {
        file(&self.places, &self.wanted.device, ending)
    }

    /// Other settings for the same device: a new session, unless the metric alone differs.
    pub(super) fn change(&mut self, wanted: &PppoeLine, kernel: &mut Kernel) {
        let same = PppoeLine { metric: self.wanted.metric, port: self.wanted.port.clone(), ..wanted.clone() };
        if same != self.wanted {
            self.hang_up(kernel);
            (self.attempts, self.not_before) = (0, Instant::now());
            self.problem.clear();
        }
        self.wanted = wanted.clone();
    }

    /// One round: what shall be is compared with what is.
    pub(super) fn round(&mut self, kernel: &mut Kernel, devices: &[Device], alias: &str) {
        if self.supervisor.notice_end(NAME) {
            self.ended(kernel);
        }
        if self.session.is_none() && Instant::now() < self.not_before {
            return;
        }
        if let Err(why) = self.go_on(kernel, devices, alias) {
            self.hang_up(kernel);
            self.fail(why, RETRY);
        }
    }

    fn go_on(&mut self, kernel: &mut Kernel, devices: &[Device], alias: &str) -> Result<(), String> {
        if let Some(why) = options::fault(&self.wanted) {
            return Err(why);
        }
        let ethernet = &self.wanted.device;
        let Some(ethernet) = named(devices, ethernet) else {
            return Err(format!("no network device {ethernet}; correct [ports] of agent.toml"));
        };
        if !self.is_ready {
            kernel.set_up(ethernet, true)?;
            self.is_ready = true;
        }
        let session = named(devices, &self.names.session).filter(|d| d.up);
        match (&self.session, session) {
            (Some(s), Some(d)) if d.ifindex == s.given.session => self.keep(kernel, ethernet.carrier, alias),
            (Some(_), _) => {
                // pppd ends in a moment, and says why.
                self.part(kernel);
                Ok(())
            }
            (None, Some(d)) if self.supervisor.runs(NAME) => self.begin(kernel, d, alias),
            (None, _) if self.supervisor.runs(NAME) => Ok(()),
            (None, _) => {
                // The port is there before its first session. Without a session its other end is down, unless a service
                // was killed; the next session may have another address.
                let pair = kernel.pair(&self.names, alias)?;
                if pair.link.up {
                    kernel.clear(&pair)?;
                }
                if !ethernet.carrier {
                    self.note(format!("{} has no carrier", self.wanted.device));
                    return Ok(());
                }
                self.dial()
            }
        }
    }

    fn dial(&mut self) -> Result<(), String> {
        if self.attempts == 0 {
            self.problem.clear();
        }
        let write = |path: PathBuf, text: &str| -> io::Result<()> {
            let new = path.with_extension("new");
            let _ = std::fs::remove_file(&new);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(text.as_bytes())?;
            std::fs::rename(new, path)
        };
        let said = |e: io::Error| format!("the options of pppd: {e}");
        write(self.file("conf"), &render(&self.wanted, &self.names)).map_err(said)?;
        let unit = unit(&self.places, &self.wanted.device);
        // Who has been left behind would be a second session of the same subscriber.
        unit.end_leftover();
        self.supervisor.end(NAME);
        if !self.supervisor.start_if_due(&unit) {
            return Err(self.supervisor.state(NAME).problem);
        }
        let pid = self.supervisor.state(NAME).pid.unwrap_or(0);
        write(self.file("pid"), &format!("{pid}\n")).map_err(said)
    }

    /// pppd's device is there; it has an address as soon as both ends have agreed on one.
    fn begin(&mut self, kernel: &mut Kernel, device: &Device, alias: &str) -> Result<(), String> {
        let Ends { v4, link_local } = kernel.ends(device.ifindex)?;
        let Some((address, peer)) = v4 else { return Ok(()) };
        let given = Given { address, peer, link_local, session: device.ifindex, mtu: device.mtu };
        let pair = kernel.pair(&self.names, alias)?;
        let metric = self.wanted.metric;
        kernel.join(&pair, &given)?;
        kernel.give(&pair, &given, metric)?;
        kernel.set_up(&pair.link, true)?;
        tracing::info!(port = self.wanted.port, %address, %peer, mtu = given.mtu, "PPPoE session");
        self.sessions += 1;
        self.problem.clear();
        self.session = Some(Session { given, pair, metric, since: Instant::now() });
        Ok(())
    }

    /// The port keeps what the session has given to it. Without a carrier of the Ethernet device it has none either: others
    /// are preferred at once, not only when echo requests stay unanswered.
    fn keep(&mut self, kernel: &mut Kernel, carrier: bool, alias: &str) -> Result<(), String> {
        let Some(s) = &mut self.session else { return Ok(()) };
        let pair = kernel.pair(&self.names, alias)?;
        if pair.port.ifindex != s.pair.port.ifindex || pair.link.ifindex != s.pair.link.ifindex {
            kernel.join(&pair, &s.given)?;
        }
        s.pair = pair;
        if s.given.link_local.is_none() {
            s.given.link_local = kernel.ends(s.given.session)?.link_local;
        }
        if s.metric != self.wanted.metric {
            kernel.give(&s.pair, &s.given, self.wanted.metric)?;
            kernel.remove_default(&s.pair, s.given.peer, s.metric)?;
            s.metric = self.wanted.metric;
        }
        kernel.set_up(&s.pair.link, carrier)?;
        kernel.give(&s.pair, &s.given, s.metric)?;
        let problem = if carrier { String::new() } else { format!("{} has no carrier", self.wanted.device) };
        self.note(problem);
        Ok(())
    }

    fn ended(&mut self, kernel: &mut Kernel) {
        self.part(kernel);
        let end = options::end(self.supervisor.exit_code(NAME));
        self.attempts = self.attempts.saturating_add(1);
        self.fail(end.why.to_owned(), options::pause(self.attempts, end.lasts));
    }

    fn fail(&mut self, why: String, pause: Duration) {
        self.not_before = Instant::now() + pause;
        self.note(why);
    }

    pub(super) fn note(&mut self, problem: String) {
        if self.problem != problem && !problem.is_empty() {
            tracing::warn!(port = self.wanted.port, "PPPoE: {problem}");
        }
        self.problem = problem;
    }

    /// The port is without a session.
    fn part(&mut self, kernel: &mut Kernel) {
        let Some(s) = self.session.take() else { return };
        if s.since.elapsed() >= STEADY {
            self.attempts = 0;
        }
        if let Err(why) = kernel.part(&s.pair, &s.given, s.metric) {
            tracing::warn!(port = self.wanted.port, "PPPoE: {why}");
        }
    }

    /// Ends the session; its files go.
    pub(super) fn hang_up(&mut self, kernel: &mut Kernel) {
        self.part(kernel);
        self.supervisor.end(NAME);
        remove_files(&self.places, &self.wanted.device);
    }

    pub(super) fn state(&self) -> PppoeState {
        let s = self.session.as_ref();
        let wait = self.not_before.saturating_duration_since(Instant::now());
        let waits = s.is_none() && !self.supervisor.runs(NAME) && !wait.is_zero();
        PppoeState {
            port: self.wanted.port.clone(),
            device: self.names.port.clone(),
            ethernet: self.wanted.device.clone(),
            up: s.is_some() && self.problem.is_empty(),
            address: s.map_or_else(String::new, |s| s.given.address.to_string()),
            peer: s.map_or_else(String::new, |s| s.given.peer.to_string()),
            mtu: s.map(|s| s.given.mtu),
            since: s.map(|s| s.since.elapsed().as_secs()),
            sessions: self.sessions,
            next_attempt: waits.then(|| wait.as_secs().saturating_add(1)),
            problem: self.problem.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a killed service has left is found by its files, whatever the next one shall do.
    #[test]
    fn leftovers_are_ended() {
        let dir = tempfile::tempdir().expect("dir");
        let places = Places::new(dir.path());
        let options = file(&places, "eth0", "conf");
        std::fs::write(&options, "").expect("written");
        end_leftovers(&places);
        assert!(options.exists(), "without a number of a process there is nothing to end");
        std::fs::write(file(&places, "eth0", "pid"), "2147483647\n").expect("written");
        end_leftovers(&places);
        assert!(!options.exists() && !file(&places, "eth0", "pid").exists());
    }
}
