//! The DHCPv6 client of a WAN port: dhcpcd, in the foreground and in a group of processes of its own, since it leaves
//! its helpers behind when it is killed, and they keep its port.
//!
//! dhcpcd speaks with the server, sets the address of the port itself, and keeps the lease in a file. Router
//! advertisements are the kernel's, networks of LAN ports the agent's.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::lease::{self, Lease};
use crate::config::{Wan6, Wan6Address};
use crate::files;

const PROGRAMS: [&str; 2] = ["/usr/sbin/dhcpcd", "/sbin/dhcpcd"];
/// Where dhcpcd keeps leases; it has no option for that.
const LEASES: &str = "/var/lib/dhcpcd";
/// Identifiers of the associations of addresses and of prefixes (RFC 8415 section 12).
const ADDRESSES: u32 = 1;
const PREFIXES: u32 = 2;

/// Pauses before a client that has ended is started again.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long it has to end.
const END: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(10);

/// What dhcpcd needs of the kernel and may not set itself. `None`: it is there.
fn missing_setting(device: &str) -> Option<String> {
    let name = format!("net/ipv4/conf/{device}/promote_secondaries");
    let value = fs::read_to_string(Path::new("/proc/sys").join(&name)).ok()?;
    let remedy = "the gateway sets it, unless dataplane.kernel_settings is \"keep\"";
    (value.trim() == "0").then(|| format!("dhcpcd needs {} = 1; {remedy}", name.replace('/', ".")))
}

/// The program.
pub fn program() -> Option<&'static Path> {
    PROGRAMS.iter().map(Path::new).find(|p| p.exists())
}

/// A client of one device.
#[derive(Debug)]
pub struct Client {
    device: String,
    config: String,
    /// Its configuration, and the number of its group of processes.
    config_file: PathBuf,
    group_file: PathBuf,
    child: Option<Child>,
    failures: u32,
    started: Option<Instant>,
    not_before: Option<Instant>,
    /// Why it does not run.
    pub problem: String,
    /// When the lease that was read last was given.
    read: Option<SystemTime>,
}

/// What has become of the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Nothing new.
    None,
    /// A lease, and how many seconds ago the server gave it.
    Lease(Lease, u64),
    /// There is none any more.
    Lost,
}

impl Client {
    pub fn new(wan: &Wan6, state_dir: &Path) -> Client {
        let at = |ending: &str| state_dir.join(format!("dhcpcd6.{}.{ending}", wan.device));
        Client {
            device: wan.device.clone(),
            config: config(wan),
            config_file: at("conf"),
            group_file: at("pid"),
            child: None,
            failures: 0,
            started: None,
            not_before: None,
            problem: String::new(),
            read: None,
        }
    }

    /// Starts it if it does not run.
    pub fn tend(&mut self, program: &Path) {
        if let Some(child) = &mut self.child {
            let Ok(Some(status)) = child.try_wait() else { return };
            tracing::warn!(device = self.device, %status, "the DHCPv6 client has ended");
            let why = missing_setting(&self.device);
            self.problem = why.unwrap_or_else(|| format!("dhcpcd has ended ({status}) and is started again"));
            self.child = None;
            if self.started.is_some_and(|at| at.elapsed() > LONGEST_PAUSE) {
                self.failures = 0;
            }
            self.pause();
        }
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return;
        }
        end_group(&self.group_file);
        match self.start(program) {
            Ok(child) => {
                tracing::info!(device = self.device, pid = child.id(), "DHCPv6 client started");
                (self.child, self.started, self.problem) = (Some(child), Some(Instant::now()), String::new());
            }
            Err(error) => {
                let why = format!("cannot start dhcpcd: {error}");
                if self.problem != why {
                    tracing::error!(device = self.device, "{why}");
                }
                self.problem = why;
                self.pause();
            }
        }
    }

    fn start(&self, program: &Path) -> io::Result<Child> {
        files::replace(&self.config_file, self.config.as_bytes())?;
        let mut command = Command::new(program);
        // The lease outlives it: the gateway goes on. Its own scripts would write resolv.conf.
        command.args(["-6", "-B", "-q", "-p", "-c", "", "-f"]).arg(&self.config_file).arg(&self.device);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).process_group(0);
        let mut child = command.spawn()?;
        if let Err(error) = files::replace(&self.group_file, child.id().to_string().as_bytes()) {
            end(&mut child);
            return Err(error);
        }
        Ok(child)
    }

    fn pause(&mut self) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + pause);
    }

    /// What is new of the lease.
    pub fn news(&mut self) -> News {
        let file = lease_file(&self.device);
        let given = fs::metadata(&file).and_then(|m| m.modified()).ok();
        if given == self.read {
            return News::None;
        }
        let Some(given) = given else {
            self.read = None;
            return News::Lost;
        };
        let Some(lease) = fs::read(&file).ok().and_then(|bytes| lease::parse(&bytes)) else {
            // It is being written.
            return News::None;
        };
        // What changes while the agent looks was given just now, whatever the clock is set to meanwhile.
        let age = match self.read.replace(given) {
            Some(_) => 0,
            None => given.elapsed().map_or(0, |age| age.as_secs()),
        };
        News::Lease(lease, age)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            end(child);
        }
        end_group(&self.group_file);
    }
}

/// Ends clients that earlier agents ran on devices other than these.
pub fn retire_others(state_dir: &Path, devices: &[String]) {
    for entry in fs::read_dir(state_dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let device = name.to_str().and_then(|n| n.strip_prefix("dhcpcd6.")?.strip_suffix(".conf"));
        let Some(device) = device.filter(|d| !devices.iter().any(|other| other == d)) else { continue };
        end_group(&state_dir.join(format!("dhcpcd6.{device}.pid")));
        let _ = fs::remove_file(entry.path());
    }
}

fn lease_file(device: &str) -> PathBuf {
    Path::new(LEASES).join(format!("{device}.lease6"))
}

/// Its configuration. Without an interface behind the prefix dhcpcd would give networks to all that it knows.
fn config(wan: &Wan6) -> String {
    let mut out = String::from("# Written by sag-agent; changes are lost.\nipv6only\nnoipv6rs\nduid\n");
    out.push_str(&format!("interface {}\n", wan.device));
    if wan.address == Wan6Address::Dhcp {
        out.push_str(&format!("ia_na {ADDRESSES}\n"));
    }
    if !wan.lans.is_empty() {
        let hint = wan.prefix_length.map(|len| format!("/::/{len}")).unwrap_or_default();
        out.push_str(&format!("ia_pd {PREFIXES}{hint} -\n"));
    }
    out
}

/// Ends what is left of a group of processes, if it is of dhcpcd: the number may be another's by now.
fn end_group(file: &Path) {
    let number = fs::read_to_string(file).ok().and_then(|t| t.trim().parse::<i32>().ok());
    let Some(group) = number.filter(|n| *n > 1).and_then(Pid::from_raw) else { return };
    let left = || {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter_map(|p| fs::read_to_string(p.path().join("stat")).ok())
            .any(|stat| is_of(&stat, group))
    };
    if left() {
        // The first process ends the others; without it they heed no other signal than this.
        let _ = kill_process_group(group, Signal::TERM);
        let until = Instant::now() + Duration::from_millis(300);
        while left() && Instant::now() < until {
            std::thread::sleep(STEP);
        }
        if left() {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
    let _ = fs::remove_file(file);
}

/// Whether /proc/PID/stat is of a process of dhcpcd that runs in the group.
fn is_of(stat: &str, group: Pid) -> bool {
    // 30373 (dhcpcd) S 1 30304 …: state, parent, group.
    let Some((head, rest)) = stat.rsplit_once(')') else { return false };
    let mut words = rest.split_ascii_whitespace();
    let (state, _, of) = (words.next(), words.next(), words.next());
    head.ends_with("(dhcpcd")
        && state != Some("Z")
        && of.and_then(|n| n.parse::<i32>().ok()) == Some(group.as_raw_nonzero().get())
}

fn end(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
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

    #[test]
    fn what_dhcpcd_is_asked_for() {
        let mut wan = Wan6 {
            port: "0".into(),
            device: "eth0".into(),
            address: Wan6Address::Dhcp,
            prefix_length: Some(56),
            lans: [("1".to_owned(), 0)].into(),
        };
        let text = config(&wan);
        assert!(text.ends_with("noipv6rs\nduid\ninterface eth0\nia_na 1\nia_pd 2/::/56 -\n"), "{text}");
        (wan.address, wan.prefix_length) = (Wan6Address::Ra, None);
        assert!(config(&wan).ends_with("interface eth0\nia_pd 2 -\n"));
        wan.address = Wan6Address::Dhcp;
        wan.lans.clear();
        assert!(config(&wan).ends_with("interface eth0\nia_na 1\n"));
    }

    #[test]
    fn helpers_are_known_by_their_group() {
        let group = Pid::from_raw(30304).expect("pid");
        assert!(is_of("30373 (dhcpcd) S 1 30304 14889 0 -1", group));
        for other in [
            "30373 (dhcpcd) S 1 30305 14889 0 -1",
            "30373 (dhcpcd) Z 1 30304 14889 0 -1",
            "30373 (bash) S 1 30304 14889 0 -1",
            "30373 (x) (dhcpcd",
            "",
        ] {
            assert!(!is_of(other, group), "{other}");
        }
    }
}
