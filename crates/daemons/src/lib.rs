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

mod process;
mod socket;

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
pub use socket::{connect, is_timeout, named};

use process::Process;

/// Pauses before a daemon that has ended is started again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A daemon that has run for so long starts at once, however often it has ended before.
const STEADY: Duration = Duration::from_secs(60);
/// How long a daemon has until it is ready.
const READY: Duration = Duration::from_secs(5);
/// How long a daemon has to end.
const END: Duration = Duration::from_secs(3);
/// A daemon that has not been heard for so long is said to hang.
const SILENT: Duration = Duration::from_secs(3);
/// One that has neither been heard nor worked for so long is ended, and started again.
const HANGS: Duration = Duration::from_secs(15);
/// The same of one that works: a routing daemon with a full table has other things to do than to answer.
const BUSY: Duration = Duration::from_secs(120);
/// Ticks of a processor (hundredths of a second) that are work. Timers that go off take less.
const WORK: u64 = 10;
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
    /// Why it does not run, or ended last, or how it hangs.
    pub problem: String,
    /// It runs, but is stopped or does not answer.
    pub hangs: bool,
}

impl State {
    /// Whether it does what it is for.
    pub fn is_well(&self) -> bool {
        self.pid.is_some() && !self.hangs
    }
}

#[derive(Debug, Default)]
struct Slot {
    child: Option<Child>,
    started: Option<Instant>,
    restarts: u64,
    failures: u32,
    not_before: Option<Instant>,
    /// The code with which it has ended last; none: by a signal, or not yet.
    exit_code: Option<i32>,
    problem: String,
    /// It was asked and has not answered.
    unanswered: bool,
    silence: Option<Silence>,
}

/// Since when a daemon has not been heard.
#[derive(Debug)]
struct Silence {
    since: Instant,
    how: &'static str,
    /// Its work until then, in ticks, and when that was last more.
    worked: u64,
    worked_at: Instant,
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
        self.warn_of(pid);
        let all = ask_to_end(pid);
        self.wait_for_leftover();
        // Those that it has made and not ended, too.
        all.into_iter().for_each(Process::kill);
    }

    /// The same, but without a chance to undo what it has done.
    pub fn kill_leftover(&self) {
        let Some(pid) = self.leftover() else { return };
        self.warn_of(pid);
        process::tree(pid).into_iter().for_each(Process::kill);
        self.wait_for_leftover();
    }

    fn warn_of(&self, pid: Pid) {
        let number = pid.as_raw_nonzero().get();
        tracing::warn!(daemon = self.name, pid = number, "left behind by an earlier service; ended");
    }

    fn wait_for_leftover(&self) {
        let until = Instant::now() + END;
        while self.leftover().is_some() && Instant::now() < until {
            std::thread::sleep(STEP);
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
        // Sockets of one that was killed look as if it were ready, and its process identifier, which may be another process's by
        // now, as if it ran: keepalived does not start beside it.
        for path in self.ready.iter().chain([&self.pid_file]) {
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
                (slot.unanswered, slot.silence) = (false, None);
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

    /// Whether it has ended by itself since the last call, or was ended because it hangs. It may start again after a pause.
    pub fn notice_end(&mut self, name: &str) -> bool {
        let Some(slot) = self.slots.get_mut(name) else { return false };
        let Some(child) = &mut slot.child else { return false };
        let why = match child.try_wait() {
            Ok(Some(status)) => {
                slot.exit_code = status.code();
                format!("it has ended ({})", how(status))
            }
            _ => match slot.hangs_for_good(Instant::now()) {
                Some(why) => {
                    slot.exit_code = None;
                    slot.kill();
                    why
                }
                None => return false,
            },
        };
        tracing::warn!(daemon = name, why, "a daemon has ended");
        slot.ended(&why);
        true
    }

    /// The code with which it has ended last by itself; `None`: by a signal, or it never has.
    pub fn exit_code(&self, name: &str) -> Option<i32> {
        self.slots.get(name).and_then(|s| s.exit_code)
    }

    /// Whether it has answered a question. One that goes on without an answer is ended in
    /// [`notice_end`](Supervisor::notice_end); one that is stopped by a signal is found there without a question.
    pub fn heard(&mut self, name: &str, answered: bool) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.unanswered = !answered;
        }
    }

    /// Whether it has not been heard for a while. What it is asked, it will not answer either.
    pub fn hangs(&self, name: &str) -> bool {
        self.slots.get(name).is_some_and(|s| s.hanging().is_some())
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
        let hanging = slot.and_then(Slot::hanging);
        let past = || slot.filter(|_| !steady).map(|s| s.problem.clone()).unwrap_or_default();
        State {
            name: name.to_owned(),
            pid,
            restarts: slot.map_or(0, |s| s.restarts),
            problem: hanging.map_or_else(past, |how| format!("it {how}")),
            hangs: hanging.is_some(),
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
    /// Looks whether it hangs. The reason: it has done so for too long.
    fn hangs_for_good(&mut self, now: Instant) -> Option<String> {
        let pid = self.child.as_ref().and_then(pid_of)?;
        let how = if process::is_stopped(&process::tree(pid)) {
            "is stopped by a signal"
        } else if self.unanswered {
            "does not answer"
        } else {
            self.silence = None;
            return None;
        };
        let worked = process::look(pid).map_or(0, |l| l.worked);
        let silence = self.silence.get_or_insert(Silence { since: now, how, worked, worked_at: now });
        silence.how = how;
        if worked >= silence.worked + WORK {
            (silence.worked, silence.worked_at) = (worked, now);
        }
        let (idle, all) = (now - silence.worked_at, now - silence.since);
        (idle >= HANGS || all >= BUSY).then(|| format!("it {how}, for {} s", all.as_secs()))
    }

    /// How it hangs, if it does so for longer than a moment.
    fn hanging(&self) -> Option<&'static str> {
        self.child.as_ref()?;
        self.silence.as_ref().filter(|s| s.since.elapsed() >= SILENT).map(|s| s.how)
    }

    /// It has ended for this reason, and nobody wanted that.
    fn ended(&mut self, why: &str) {
        self.child = None;
        self.restarts += 1;
        self.problem = format!("{why}; it is started again");
        if self.started.is_some_and(|at| at.elapsed() >= STEADY) {
            self.failures = 0;
        }
        (self.unanswered, self.silence) = (false, None);
        self.pause();
    }

    /// Ends it and those that it has made at once: who hangs does not end in order.
    fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(pid) = pid_of(&child) {
            process::tree(pid).into_iter().for_each(Process::kill);
        }
        reap(&mut child);
    }

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
    let all = pid_of(child).map(ask_to_end).unwrap_or_default();
    if !reap(child) {
        let _ = child.kill();
    }
    // Those that it has made and not ended, too.
    all.into_iter().for_each(Process::kill);
    reap(child);
}

/// Has a daemon and those that it has made end in order, the stopped ones too: what it is and they are.
fn ask_to_end(pid: Pid) -> Vec<Process> {
    let all = process::tree(pid);
    let _ = kill_process(pid, Signal::TERM);
    all.iter().for_each(|p| p.go_on());
    all
}

/// Waits for its end, for a while. False: it goes on.
fn reap(child: &mut Child) -> bool {
    let until = Instant::now() + END;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(STEP);
    }
    true
}

#[cfg(test)]
#[path = "lib_tests.rs"]
mod tests;
