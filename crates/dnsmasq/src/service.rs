//! The daemon: its files, its start, what it reads again, and its end.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use sag_daemons::{Signal, Supervisor, Unit};

use crate::leases::{self, Lease};
use crate::place::STATUS;
use crate::render::{Files, Rendered, checked, render};
use crate::settings::{Serves, Settings, Upstream};
use crate::status::{PortStatus, Problem, Status, all_of};

const NAME: &str = "dnsmasq";
/// A list of leases that is longer is not read.
const MAX_LEASE_FILE: u64 = 16 << 20;
/// Of what the checker says.
const MAX_SAID: usize = 400;

/// Where the service has its files.
#[derive(Debug, Clone)]
pub struct Places {
    /// Its directory for what lasts as long as it runs; made when it is needed.
    pub run: PathBuf,
    /// The list of leases, which outlives it.
    pub leases: PathBuf,
}

impl Places {
    fn at(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }
}

/// Serves the LANs as the [`Settings`] say, for as long as it lives.
#[derive(Debug)]
pub struct Service {
    /// Or why there is none.
    program: Result<PathBuf, String>,
    places: Places,
    version: String,
    wanted: Settings,
    /// What of `wanted` can be put in force.
    good: Settings,
    /// What the daemon has; none: nothing runs.
    applied: Option<Rendered>,
    /// What of `wanted` is not in force, but for the daemon's own state.
    problems: Vec<Problem>,
    /// Its files could not be written: it is tried again.
    unwritten: bool,
    daemons: Supervisor,
    leases: Vec<Lease>,
    /// Length and time of the list of leases that was read.
    leases_read: Option<(u64, SystemTime)>,
    written: Option<Status>,
    /// The problems of the last round.
    seen: Vec<Problem>,
}

impl Service {
    /// A service that serves nothing yet. Without a program it never does, and says why.
    pub fn new(program: Result<PathBuf, String>, places: Places, version: &str) -> Service {
        let it = Service {
            program,
            places,
            version: version.to_owned(),
            wanted: Settings::default(),
            good: Settings::default(),
            applied: None,
            problems: Vec::new(),
            unwritten: false,
            daemons: Supervisor::default(),
            leases: Vec::new(),
            leases_read: None,
            written: None,
            seen: Vec::new(),
        };
        if let Ok(program) = &it.program {
            it.unit(program).end_leftover();
        }
        it
    }

    /// Whether the program is there.
    pub fn is_able(&self) -> bool {
        self.program.is_ok()
    }

    /// Has the LANs be served so from now on.
    pub fn set(&mut self, wanted: Settings) {
        if wanted == self.wanted && !self.unwritten {
            return;
        }
        self.wanted = wanted;
        self.put_in_force();
        self.write_status();
    }

    /// Starts a daemon that has ended, and writes down how things are. To be called once a second. True: something has
    /// begun or ended to be in force.
    pub fn tend(&mut self) -> bool {
        if self.unwritten {
            self.put_in_force();
        }
        self.daemons.notice_end(NAME);
        self.start();
        self.read_leases();
        self.write_status();
        let now = self.problems();
        std::mem::replace(&mut self.seen, now.clone()) != now
    }

    /// What is not in force.
    pub fn problems(&self) -> Vec<Problem> {
        let mut out = self.problems.clone();
        let state = self.daemons.state(NAME);
        if self.applied.is_some() && !state.is_well() {
            let why = state.problem;
            let more =
                if why.contains("code 2)") { "; another program has the port, or it may not" } else { "" };
            out.extend(all_of(&self.good, &format!("dnsmasq: {why}{more}")));
        }
        out
    }

    /// How the LANs are served.
    pub fn status(&self) -> Status {
        let status = Status {
            version: self.version.clone(),
            unable: self.program.clone().err().unwrap_or_default(),
            daemon: self.applied.is_some().then(|| self.daemons.state(NAME)),
            ports: self.good.ports.iter().map(|p| PortStatus::new(p, &self.leases)).collect(),
            leases: self.leases.clone(),
            problems: self.problems(),
            ..Status::default()
        };
        status.with_dns(&self.good)
    }

    /// The DNS servers that the cloud has set and that are in use.
    pub fn servers(&self) -> Option<Vec<IpAddr>> {
        let dns = self.good.dns.as_ref().filter(|_| self.daemons.state(NAME).is_well())?;
        match &dns.upstream {
            Upstream::Servers(servers) => Some(servers.clone()),
            Upstream::File(_) => None,
        }
    }

    fn unit(&self, program: &Path) -> Unit {
        let conf = format!("--conf-file={}", self.places.at("dnsmasq.conf").display());
        let pid_file = self.places.at("dnsmasq.pid");
        Unit {
            name: NAME,
            program: program.to_owned(),
            args: vec![conf.clone().into()],
            // It writes this when its sockets are there.
            ready: vec![pid_file.clone()],
            pid_file,
            mark: conf.into(),
        }
    }

    fn put_in_force(&mut self) {
        let was_unwritten = std::mem::take(&mut self.unwritten);
        self.leases_read = None;
        let program = match &self.program {
            Ok(program) => program.clone(),
            Err(why) => {
                self.problems = all_of(&self.wanted, why);
                return;
            }
        };
        let (good, problems) = checked(&self.wanted);
        self.problems = problems;
        if good.is_off() {
            self.good = good;
            self.end();
            return;
        }
        let rendered = render(
            &good,
            &Files {
                servers: &self.places.at("servers.conf"),
                hosts: &self.places.at("hosts.conf"),
                leases: &self.places.leases,
                pid: &self.places.at("dnsmasq.pid"),
            },
        );
        match self.exchange(&program, &rendered) {
            Ok(()) => {
                self.good = good;
                self.applied = Some(rendered);
                self.start();
            }
            Err(error) => {
                if !was_unwritten {
                    tracing::error!(%error, "the LANs are served as before");
                }
                self.problems.extend(all_of(&self.wanted, &error.to_string()));
                // What the checker refuses it refuses again.
                self.unwritten = error.kind() != io::ErrorKind::InvalidData;
            }
        }
    }

    /// Replaces the files by those that differ, and has the daemon read them. What cannot be read leaves those before.
    fn exchange(&mut self, program: &Path, new: &Rendered) -> io::Result<()> {
        let old = self.applied.as_ref();
        if old == Some(new) {
            return Ok(());
        }
        // The daemon of root becomes another user, who reads them.
        fs::create_dir_all(&self.places.run)?;
        fs::set_permissions(&self.places.run, Permissions::from_mode(0o755))?;
        if rustix::process::geteuid().is_root()
            && let Some(closed) = self.places.run.ancestors().find(|dir| !may_enter(dir))
        {
            let why = format!("{}: the user of dnsmasq may not enter it; set [lan] dir", closed.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let main = self.places.at("dnsmasq.conf");
        let is_new = old.is_none_or(|o| o.main != new.main);
        // When dnsmasq reads its servers again, one whose device is no more, or that needs none now, keeps the one before.
        let is_stale = old.is_some_and(|o| by_device(&o.servers).ne(by_device(&new.servers)));
        if is_new {
            let draft = self.places.at("dnsmasq.conf.new");
            write(&draft, &new.main, 0o644)?;
            check(program, &draft)?;
            fs::rename(&draft, &main)?;
        }
        write(&self.places.at("servers.conf"), &new.servers, 0o644)?;
        write(&self.places.at("hosts.conf"), &new.hosts, 0o644)?;
        if !is_new && !is_stale && self.daemons.signal(NAME, Signal::HUP) {
            tracing::info!("dnsmasq reads its DNS servers and reservations again");
        } else if self.daemons.runs(NAME) {
            self.daemons.stop(NAME);
        } else {
            // Its pause was for other files.
            self.daemons.end(NAME);
        }
        Ok(())
    }

    fn start(&mut self) {
        if let Ok(program) = &self.program
            && self.applied.is_some()
        {
            let unit = self.unit(program);
            self.daemons.start_if_due(&unit);
        }
    }

    fn end(&mut self) {
        self.daemons.end(NAME);
        if self.applied.take().is_some() {
            for file in ["dnsmasq.conf", "dnsmasq.pid", "servers.conf", "hosts.conf"] {
                let _ = fs::remove_file(self.places.at(file));
            }
        }
    }

    fn read_leases(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let meta = fs::metadata(&self.places.leases).ok().filter(|m| m.len() <= MAX_LEASE_FILE);
        let mark = meta.and_then(|m| Some((m.len(), m.modified().ok()?)));
        self.leases.retain(|l| l.expires == 0 || l.expires > now);
        if mark == self.leases_read {
            return;
        }
        let text = fs::read_to_string(&self.places.leases).unwrap_or_default();
        self.leases = leases::parse(&text, now);
        self.leases_read = mark;
        for lease in &mut self.leases {
            let of = self.good.ports.iter().find(|p| match &p.serves {
                Some(Serves::Range(r)) => r.network.contains(&lease.address),
                _ => false,
            });
            lease.port = of.map(|p| p.name.clone()).unwrap_or_default();
        }
    }

    fn write_status(&mut self) {
        let needed = !self.wanted.is_off();
        let file = self.places.at(STATUS);
        if !needed {
            if self.written.take().is_some() {
                let _ = fs::remove_file(file);
            }
            return;
        }
        let now = self.status();
        if self.written.as_ref() == Some(&now) {
            return;
        }
        let text = serde_json::to_string(&now).unwrap_or_default();
        let made = fs::create_dir_all(&self.places.run);
        // Names and addresses of hosts: for the agent's user and group.
        let draft = self.places.at("status.json.new");
        match made.and_then(|()| write(&draft, &text, 0o640)).and_then(|()| fs::rename(&draft, &file)) {
            Ok(()) => self.written = Some(now),
            Err(error) => tracing::debug!(%error, "the state of the LANs is not written"),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end();
        if self.written.is_some() {
            let _ = fs::remove_file(self.places.at(STATUS));
        }
        // Only if nothing else is there.
        let _ = fs::remove_dir(&self.places.run);
    }
}

/// Servers that are reached by a certain device.
fn by_device(servers: &str) -> impl Iterator<Item = &str> {
    servers.lines().filter(|line| line.contains('@'))
}

/// Whether every user may enter the directory.
fn may_enter(dir: &Path) -> bool {
    dir.as_os_str().is_empty() || fs::metadata(dir).is_ok_and(|m| m.permissions().mode() & 0o001 != 0)
}

/// Has dnsmasq's own checker read a file.
fn check(program: &Path, file: &Path) -> io::Result<()> {
    let done = Command::new(program).arg("--test").arg(format!("--conf-file={}", file.display())).output()?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let said: String = said.trim().replace('\n', "; ").chars().take(MAX_SAID).collect();
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("dnsmasq refuses it: {said}")))
}

/// Replaces a file.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    // Not what another has put there.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
