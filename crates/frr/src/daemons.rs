//! The daemons of FRR: which of them are needed, how each is started, and that none runs without zebra.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sag_daemons::{Supervisor, Unit};

use crate::settings::Settings;
use crate::status::Daemon;
use crate::tools::Places;

/// The daemons in the order in which they start.
pub(crate) const NAMES: [&str; 4] = ["zebra", "bfdd", "bgpd", "ospfd"];

/// Seconds for which zebra keeps routes in the kernel that it finds there when it starts, until their daemon has
/// announced them again: a zebra that has ended costs no traffic.
const KEEP_ROUTES: &str = "30";

/// What zebra needs to remove them from the kernel when nobody wants them any more.
const SWEEP: Duration = Duration::from_secs(1);

/// Daemons that the settings need.
pub(crate) fn needed(settings: &Settings) -> Vec<&'static str> {
    let wants = |name: &&str| match *name {
        "bfdd" => settings.bfd && !settings.is_off(),
        "bgpd" => settings.bgp.is_some(),
        "ospfd" => settings.ospf.is_some(),
        _ => !settings.is_off(),
    };
    NAMES.into_iter().filter(wants).collect()
}

/// The daemons of one service.
pub(crate) struct Daemons {
    frr_dir: PathBuf,
    places: Places,
    user: String,
    supervisor: Supervisor,
}

impl Daemons {
    pub(crate) fn new(frr_dir: &Path, places: &Places, user: &str) -> Daemons {
        let (user, supervisor) = (user.to_owned(), Supervisor::default());
        Daemons { frr_dir: frr_dir.to_owned(), places: places.clone(), user, supervisor }
    }

    /// How a daemon is started.
    fn unit(&self, name: &'static str) -> Unit {
        let run = &self.places.run;
        let zserv = run.join("zserv.api");
        let pid_file = run.join(format!("{name}.pid"));
        let mut args: Vec<OsString> = ["-u", &self.user, "-g", &self.user, "-P", "0", "-f", "/dev/null"]
            .into_iter()
            .chain(["--log", "stdout", "--log-level", "notifications"])
            .map(OsString::from)
            .collect();
        args.extend(["-i".into(), pid_file.clone().into(), "-z".into(), zserv.clone().into()]);
        args.extend(["--vty_socket".into(), run.clone().into()]);
        let mut ready = vec![self.places.vty(name)];
        match name {
            "zebra" => {
                args.extend(["-K".into(), KEEP_ROUTES.into()]);
                ready.push(zserv);
            }
            "bfdd" => args.extend(["--bfdctl".into(), run.join("bfdd.sock").into()]),
            _ => {}
        }
        Unit {
            name,
            program: self.frr_dir.join(name),
            args,
            ready,
            pid_file,
            mark: run.clone().into_os_string(),
        }
    }

    /// Ends what an earlier service left behind that was killed; whether there may be routes of it in the kernel. They stay
    /// for traffic until other daemons have them again or nobody wants them, so zebra, which would remove them, is ended
    /// first and not in order.
    pub(crate) fn end_leftovers(&self) -> bool {
        // It goes with the directory when a service ends in order.
        let was_there = self.unit("zebra").pid_file.exists();
        for name in NAMES {
            self.unit(name).kill_leftover();
        }
        was_there
    }

    /// Removes the routes of daemons that have ended without doing so, when none is needed that would take them over: zebra
    /// does that at its start.
    pub(crate) fn sweep(&mut self) {
        let mut unit = self.unit("zebra");
        if let Some(at) = unit.args.iter().position(|a| a == "-K") {
            unit.args.drain(at..at + 2);
        }
        if self.supervisor.start_if_due(&unit) {
            std::thread::sleep(SWEEP);
            tracing::warn!("routes of daemons that were killed are removed");
        }
        self.supervisor.end("zebra");
    }

    /// Starts what is needed and does not run, and ends what is not. Returns the names of those that have started and
    /// have no configuration yet.
    pub(crate) fn reconcile(&mut self, needed: &[&'static str]) -> Vec<&'static str> {
        for name in NAMES.into_iter().rev().filter(|n| !needed.contains(n)) {
            self.supervisor.end(name);
        }
        self.notice_ends(needed);
        // The others do not find another zebra by themselves: nothing of theirs would reach the kernel.
        if !self.runs("zebra") {
            self.stop_all();
        }
        let mut fresh = Vec::new();
        for name in needed {
            // Without zebra nobody knows an interface.
            let has_zebra = *name == "zebra" || self.runs("zebra");
            if has_zebra && self.supervisor.start_if_due(&self.unit(name)) {
                fresh.push(*name);
            }
        }
        fresh
    }

    pub(crate) fn runs(&self, name: &str) -> bool {
        self.supervisor.runs(name)
    }

    /// Whether it has answered a question; see [`Supervisor::heard`].
    pub(crate) fn heard(&mut self, name: &str, answered: bool) {
        self.supervisor.heard(name, answered);
    }

    /// Whether every daemon that is needed runs.
    pub(crate) fn all_run(&self, needed: &[&'static str]) -> bool {
        needed.iter().all(|n| self.runs(n))
    }

    /// Whether one has ended since the last call.
    pub(crate) fn notice_ends(&mut self, needed: &[&'static str]) -> bool {
        needed.iter().fold(false, |any, name| self.supervisor.notice_end(name) | any)
    }

    /// Ends all: those that announce first, and zebra, which takes their routes out of the kernel, last.
    pub(crate) fn end_all(&mut self) {
        for name in NAMES.into_iter().rev() {
            self.supervisor.end(name);
        }
    }

    /// Ends what runs; it starts anew in the next round.
    pub(crate) fn stop_all(&mut self) {
        for name in NAMES.into_iter().rev() {
            self.supervisor.stop(name);
        }
    }

    pub(crate) fn status(&self, needed: &[&'static str]) -> Vec<Daemon> {
        needed.iter().map(|name| self.supervisor.state(name)).collect()
    }
}

impl Drop for Daemons {
    fn drop(&mut self) {
        self.end_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Authentication, Ospf};

    fn ospf(bfd: bool) -> Settings {
        let ospf = Ospf {
            router_id: "192.0.2.1".parse().expect("address"),
            area: 1,
            hello: 1,
            dead: 4,
            authentication: Authentication::None,
            interfaces: Vec::new(),
            passive: Vec::new(),
            beyond: Vec::new(),
        };
        Settings { ospf: Some(ospf), bfd, ..Settings::default() }
    }

    #[test]
    fn only_what_is_needed() {
        assert!(needed(&Settings { bfd: true, ..Settings::default() }).is_empty());
        assert_eq!(needed(&ospf(false)), ["zebra", "ospfd"]);
        assert_eq!(needed(&ospf(true)), ["zebra", "bfdd", "ospfd"]);
    }

    /// One that cannot run is named; without zebra no other starts.
    #[test]
    fn nothing_runs_without_zebra() {
        let dir = tempfile::tempdir().expect("dir");
        std::os::unix::fs::symlink("/bin/false", dir.path().join("zebra")).expect("link");
        std::os::unix::fs::symlink("/bin/true", dir.path().join("ospfd")).expect("link");
        let places = Places::new(dir.path());
        let mut daemons = Daemons::new(dir.path(), &places, "nobody");
        let wanted = needed(&ospf(false));
        assert!(daemons.reconcile(&wanted).is_empty());
        let status = daemons.status(&wanted);
        assert!(status[0].problem.contains("ended at its start"), "{status:?}");
        assert_eq!((status[0].pid, status[1].pid, status[1].problem.as_str()), (None, None, ""));
    }
}
