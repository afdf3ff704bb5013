//! Daemons that others have written, under a service of ours: started and waited for, started again when they end by
//! themselves, with pauses that grow, and ended when nothing needs them or the service ends. What a service that was
//! killed has left behind is found by its pid file and ended by the next one.
//!
//! ```
//! use sag_daemons::{Supervisor, Unit};
//!
//! let dir = std::env::temp_dir();
//! let unit = Unit {
//!     name: "sleep",
//!     program: "/bin/sleep".into(),
//!     args: vec!["60".into()],
//!     ready: Vec::new(),
//!     pid_file: dir.join("sleep.pid"),
//!     mark: "60".into(),
//! };
//! let mut daemons = Supervisor::default();
//! assert!(daemons.start_if_due(&unit));
//! assert!(daemons.runs("sleep") && daemons.state("sleep").pid.is_some());
//! daemons.end("sleep");
//! assert!(!daemons.runs("sleep"));
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};
use serde::{Deserialize, Serialize};

pub use rustix::process::Signal;

/// Pauses before a daemon that has ended is started again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A daemon that has run for so long starts at once, however often it has ended before.
const STEADY: Duration = Duration::from_secs(60);
/// How long a daemon has until it is ready.
const READY: Duration = Duration::from_secs(5);
/// How long a daemon has to end.
const END: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(10);

/// A daemon, and how it is started. It stays in the foreground, and logs to its standard output or error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name, for messages.
    pub name: &'static str,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Files that it makes when it is ready, such as sockets. Those that are there before it starts are removed.
    pub ready: Vec<PathBuf>,
    /// Where it writes its process identifier.
    pub pid_file: PathBuf,
    /// An argument that no daemon has but those of this service, such as a path of its own.
    pub mark: OsString,
}

/// How a daemon is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct State {
    /// Its name.
    pub name: String,
    /// Its process; absent: it does not run.
    pub pid: Option<u32>,
    /// How often it has ended by itself.
    pub restarts: u64,
    /// Why it does not run, or ended last.
    pub problem: String,
}

#[derive(Debug, Default)]
struct Slot {
    child: Option<Child>,
    started: Option<Instant>,
    restarts: u64,
    failures: u32,
    not_before: Option<Instant>,
    problem: String,
}

/// The daemons of one service. They end with it.
#[derive(Debug, Default)]
pub struct Supervisor {
    slots: BTreeMap<&'static str, Slot>,
}

impl Unit {
    /// Ends the process that an earlier service left behind when it was killed.
    pub fn end_leftover(&self) {
        let Some(pid) = self.leftover() else { return };
        let number = pid.as_raw_nonzero().get();
        tracing::warn!(daemon = self.name, pid = number, "left behind by an earlier service; ended");
        let _ = kill_process(pid, Signal::TERM);
        let until = Instant::now() + END;
        while self.leftover().is_some() && Instant::now() < until {
            std::thread::sleep(STEP);
        }
        if self.leftover().is_some() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// The process of the pid file, if it is such a daemon: the number may be another process's by now.
    fn leftover(&self) -> Option<Pid> {
        let text = fs::read_to_string(&self.pid_file).ok()?;
        let pid: i32 = text.trim().parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words: Vec<&[u8]> = command.split(|b| *b == 0).collect();
        let name = self.program.file_name()?.as_encoded_bytes();
        let ours = words.first().is_some_and(|p| p.ends_with(name))
            && words.contains(&self.mark.as_os_str().as_encoded_bytes());
        Pid::from_raw(pid).filter(|_| ours)
    }

    fn is_ready(&self) -> bool {
        self.ready.iter().all(|p| p.exists())
    }

    /// Starts it and waits until it is ready.
    fn spawn(&self) -> io::Result<Child> {
        // Sockets of one that was killed look as if it were ready.
        for path in &self.ready {
            let _ = fs::remove_file(path);
        }
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null());
        command.stdout(Stdio::from(io::stderr())).stderr(Stdio::inherit());
        let mut child = command.spawn()?;
        let until = Instant::now() + READY;
        while !self.is_ready() {
            if let Some(status) = child.try_wait()? {
                return Err(io::Error::other(format!("it ended at its start ({})", how(status))));
            }
            if Instant::now() >= until {
                end(&mut child);
                return Err(io::Error::other("it was not ready in time"));
            }
            std::thread::sleep(STEP);
        }
        Ok(child)
    }
}

impl Supervisor {
    /// Starts it if it does not run and its pause is over. True: it has started.
    pub fn start_if_due(&mut self, unit: &Unit) -> bool {
        let slot = self.slots.entry(unit.name).or_default();
        if slot.child.is_some() || slot.not_before.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        match unit.spawn() {
            Ok(child) => {
                tracing::info!(daemon = unit.name, pid = child.id(), "daemon started");
                slot.started = Some(Instant::now());
                slot.child = Some(child);
                slot.not_before = None;
                true
            }
            Err(error) => {
                let why = error.to_string();
                if slot.problem != why {
                    tracing::error!(daemon = unit.name, %error, "cannot start the daemon");
                }
                slot.problem = why;
                slot.pause();
                false
            }
        }
    }

    /// Whether it runs, as far as is known: see [`Supervisor::notice_end`].
    pub fn runs(&self, name: &str) -> bool {
        self.slots.get(name).is_some_and(|s| s.child.is_some())
    }

    /// Whether it has ended by itself since the last call. It may start again after a pause.
    pub fn notice_end(&mut self, name: &str) -> bool {
        let Some(slot) = self.slots.get_mut(name) else { return false };
        let Some(child) = &mut slot.child else { return false };
        let Ok(Some(status)) = child.try_wait() else { return false };
        slot.child = None;
        slot.restarts += 1;
        slot.problem = format!("it has ended ({}) and is started again", how(status));
        if slot.started.is_some_and(|at| at.elapsed() >= STEADY) {
            slot.failures = 0;
        }
        slot.pause();
        tracing::warn!(daemon = name, %status, "a daemon has ended");
        true
    }

    /// Has it read its configuration again, or whatever the signal means to it. False: it does not run.
    pub fn signal(&self, name: &str, signal: Signal) -> bool {
        let child = self.slots.get(name).and_then(|s| s.child.as_ref());
        child.and_then(pid_of).is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    /// Ends it, and forgets its past: it is not needed any more.
    pub fn end(&mut self, name: &str) {
        let Some(mut slot) = self.slots.remove(name) else { return };
        if let Some(child) = &mut slot.child {
            end(child);
            tracing::info!(daemon = name, "daemon ended");
        }
    }

    /// Ends it; it may start again at once.
    pub fn stop(&mut self, name: &str) {
        if let Some(mut child) = self.slots.get_mut(name).and_then(|s| s.child.take()) {
            end(&mut child);
        }
    }

    /// How it is.
    pub fn state(&self, name: &str) -> State {
        let slot = self.slots.get(name);
        let pid = slot.and_then(|s| s.child.as_ref()).map(Child::id);
        // Why it ended some time ago is not what is wrong now.
        let steady = pid.is_some() && slot.and_then(|s| s.started).is_some_and(|at| at.elapsed() >= STEADY);
        State {
            name: name.to_owned(),
            pid,
            restarts: slot.map_or(0, |s| s.restarts),
            problem: slot.filter(|_| !steady).map(|s| s.problem.clone()).unwrap_or_default(),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let names: Vec<&'static str> = self.slots.keys().rev().copied().collect();
        for name in names {
            self.end(name);
        }
    }
}

impl Slot {
    /// Twice as long each time.
    fn pause(&mut self) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + pause);
    }
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, code) => format!("code {}", code.unwrap_or(-1)),
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn end(child: &mut Child) {
    if let Some(pid) = pid_of(child) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let until = Instant::now() + END;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= until {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A shell that writes its process identifier, makes a file and sleeps.
    fn shell(dir: &Path, script: &str) -> Unit {
        let mark = dir.as_os_str().to_owned();
        Unit {
            name: "shell",
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into(), mark.clone()],
            ready: vec![dir.join("ready")],
            pid_file: dir.join("pid"),
            mark,
        }
    }

    const RUNS: &str = "echo $$ > $0/pid; > $0/ready; while :; do sleep 0.05; done";

    fn within(what: &str, mut holds: impl FnMut() -> bool) {
        let until = Instant::now() + Duration::from_secs(5);
        while !holds() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(STEP);
        }
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let mut slot = Slot::default();
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            slot.pause();
            let pause = slot.not_before.expect("a time").saturating_duration_since(Instant::now());
            assert!(pause + Duration::from_millis(50) >= last && pause <= LONGEST_PAUSE);
            last = pause;
        }
        assert!(last > LONGEST_PAUSE - Duration::from_secs(1));
    }

    #[test]
    fn one_that_ends_starts_again_after_a_pause() {
        let dir = tempfile::tempdir().expect("dir");
        let unit = shell(dir.path(), RUNS);
        let mut daemons = Supervisor::default();
        assert!(daemons.start_if_due(&unit) && !daemons.start_if_due(&unit));
        let first = daemons.state("shell");
        assert!(first.pid.is_some() && first.problem.is_empty() && !daemons.notice_end("shell"));
        assert!(daemons.signal("shell", Signal::KILL));
        within("its end is noticed", || daemons.notice_end("shell"));
        assert!(!daemons.runs("shell") && !daemons.start_if_due(&unit), "there is a pause");
        within("it starts again", || daemons.start_if_due(&unit));
        let second = daemons.state("shell");
        assert!(second.pid != first.pid && second.restarts == 1);
        assert!(second.problem.contains("signal 9"), "{second:?}");
        daemons.end("shell");
        assert!(!daemons.signal("shell", Signal::TERM));
        assert_eq!(daemons.state("shell"), State { name: "shell".to_owned(), ..State::default() });
    }

    #[test]
    fn one_that_ends_at_its_start_is_named() {
        let dir = tempfile::tempdir().expect("dir");
        let unit = shell(dir.path(), "exit 3");
        let mut daemons = Supervisor::default();
        assert!(!daemons.start_if_due(&unit));
        let state = daemons.state("shell");
        assert!(state.pid.is_none() && state.problem.contains("ended at its start (code 3)"), "{state:?}");
        assert!(daemons.slots["shell"].not_before.is_some_and(|at| at > Instant::now()));
    }

    /// One that was left behind is ended; a process that has its number by chance is not.
    #[test]
    fn what_was_left_behind_is_ended() {
        let dir = tempfile::tempdir().expect("dir");
        let unit = shell(dir.path(), RUNS);
        let mut left = unit.spawn().expect("started");
        within("its pid", || unit.leftover() == pid_of(&left));
        let other = Unit { mark: "/another/place".into(), ..unit.clone() };
        other.end_leftover();
        assert!(matches!(left.try_wait(), Ok(None)), "another service's");
        // Somebody has to wait for it, as init does.
        let waiter = std::thread::spawn(move || left.wait());
        unit.end_leftover();
        assert!(!waiter.join().expect("thread").expect("status").success());
        assert_eq!(unit.leftover(), None);
    }

    #[test]
    fn they_end_with_their_service() {
        let dir = tempfile::tempdir().expect("dir");
        let unit = shell(dir.path(), RUNS);
        let mut daemons = Supervisor::default();
        assert!(daemons.start_if_due(&unit));
        drop(daemons);
        assert_eq!(unit.leftover(), None);
    }
}
