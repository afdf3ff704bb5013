//! Lines to the Internet by PPPoE (RFC 2516): pppd dials, and the gateway's port has what its session gives. Packets go
//! between the port and pppd's device by filters of the kernel (`docs/pppoe.md`).

mod bridge;
mod line;
mod options;

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};

use self::bridge::Kernel;
use self::line::Line;
use crate::settings::PppoeLine;
use crate::status::{PppoeState, Problem};
use crate::tools::{PPPD, Places};

/// Where plugins of pppd are, by the versions of Debian and Ubuntu.
const PLUGINS: [&str; 2] = ["/usr/lib/pppd", "/usr/lib"];
const PLUGIN: &str = "pppoe.so";
/// How often it is looked whether a machine that cannot can by now.
const CHECK: Duration = Duration::from_secs(60);
/// Sockets of PPP over something (`socket(2)` has no word of it).
const AF_PPPOX: u16 = 24;

/// Whether pppd and its plugin are installed.
pub(crate) fn is_installed() -> bool {
    let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let in_versions = |dir: &Path| entries(dir).any(|version| version.join(PLUGIN).exists());
    let [own, libraries] = PLUGINS.map(Path::new);
    let by_architecture = || entries(libraries).any(|of| in_versions(&of.join("pppd")));
    Path::new(PPPD).exists() && (in_versions(own) || by_architecture())
}

/// Why there can be no line by PPPoE on this machine; empty: there can.
fn obstacle() -> String {
    if !is_installed() {
        return "not installed: ppp".to_owned();
    }
    let no_kernel =
        "the kernel has no PPP (modules ppp_generic, pppoe): use one that has, on Debian linux-image-amd64";
    match socket(AddressFamily::from_raw(AF_PPPOX), SocketType::STREAM, None) {
        Ok(_) if Path::new("/dev/ppp").exists() => String::new(),
        Ok(_) => "no /dev/ppp: run modprobe ppp_generic".to_owned(),
        Err(Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::INVAL) => no_kernel.to_owned(),
        Err(error) => format!("a socket for PPPoE: {error}"),
    }
}

/// All lines of a device.
pub(crate) struct Pppoe {
    places: Places,
    /// What devices of this service are called beside their names.
    alias: String,
    /// What is in force; none: not known, and devices of an earlier service may be there.
    wanted: Option<Vec<PppoeLine>>,
    lines: Vec<Line>,
    kernel: Option<Kernel>,
    /// What cannot be tried at all.
    refused: Vec<Problem>,
    /// Why there can be no line, and when that was looked at.
    obstacle: Option<(String, Instant)>,
}

impl Pppoe {
    pub(crate) fn new(places: &Places) -> Pppoe {
        Pppoe {
            places: places.clone(),
            alias: format!("sag-vcpe PPPoE {}", places.own.display()),
            wanted: None,
            lines: Vec::new(),
            kernel: None,
            refused: Vec::new(),
            obstacle: None,
        }
    }

    /// Why there can be no line; empty: there can. A machine that can once can always.
    pub(crate) fn obstacle(&mut self) -> &str {
        let known = |(why, at): &(String, Instant)| why.is_empty() || at.elapsed() < CHECK;
        if !self.obstacle.as_ref().is_some_and(known) {
            self.obstacle = Some((obstacle(), Instant::now()));
        }
        self.obstacle.as_ref().map(|(why, _)| why.as_str()).unwrap_or_default()
    }

    /// Has these lines from now on.
    pub(crate) fn set(&mut self, wanted: &[PppoeLine]) {
        if self.wanted.as_deref() == Some(wanted) {
            return;
        }
        match self.reconcile(wanted) {
            Ok(()) => self.wanted = Some(wanted.to_vec()),
            Err(why) => self.refused = wanted.iter().map(|l| problem(l, why.clone())).collect(),
        }
    }

    fn reconcile(&mut self, wanted: &[PppoeLine]) -> Result<(), String> {
        let mut kernel = match self.kernel.take() {
            Some(kernel) => kernel,
            None => Kernel::open()?,
        };
        if self.wanted.is_none() {
            line::end_leftovers(&self.places);
        }
        self.refused.clear();
        let (kept, gone): (Vec<Line>, Vec<Line>) = std::mem::take(&mut self.lines)
            .into_iter()
            .partition(|l| wanted.iter().any(|w| w.device == l.wanted.device));
        self.lines = kept;
        for mut line in gone {
            line.hang_up(&mut kernel);
        }
        for w in wanted {
            if let Some(line) = self.lines.iter_mut().find(|l| l.wanted.device == w.device) {
                line.change(w, &mut kernel);
                continue;
            }
            match Line::new(w.clone(), &self.places) {
                Some(line) => self.lines.push(line),
                None => self.refused.push(problem(w, options::fault(w).unwrap_or_default())),
            }
        }
        let keep: Vec<String> = self.lines.iter().map(|l| l.port_device().to_owned()).collect();
        kernel.remove_others(&self.alias, &keep)?;
        self.kernel = Some(kernel);
        Ok(())
    }

    /// One round: what shall be is compared with what is.
    pub(crate) fn round(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let obstacle = self.obstacle().to_owned();
        let Some(kernel) = &mut self.kernel else { return };
        let devices = match kernel.devices.devices() {
            Ok(devices) => devices,
            Err(error) => return tracing::warn!(%error, "PPPoE"),
        };
        for line in &mut self.lines {
            match obstacle.as_str() {
                "" => line.round(kernel, &devices, &self.alias),
                why => line.note(why.to_owned()),
            }
        }
    }

    /// Ends all sessions and removes the ports' devices.
    pub(crate) fn end(&mut self) {
        self.set(&[]);
    }

    pub(crate) fn status(&self) -> Vec<PppoeState> {
        self.lines.iter().map(Line::state).collect()
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        let of_line = |l: &Line| {
            let state = l.state();
            (!state.problem.is_empty()).then(|| problem(&l.wanted, state.problem))
        };
        self.refused.iter().cloned().chain(self.lines.iter().filter_map(of_line)).collect()
    }
}

fn problem(line: &PppoeLine, why: String) -> Problem {
    let object = format!("PPPoE on port {}", line.port);
    Problem { section: "Wan".to_owned(), object, reason: why }
}
