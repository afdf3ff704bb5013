//! A DHCP client for WAN ports of IPType DHCP: one that is installed, run with a fixed
//! argument list. The device's name comes from the operator's file; nothing comes from the cloud.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::config::Dhcp;
use crate::files::{self, Unwritten};

/// Each stays in the foreground, and leaves the address where it is when it ends: the gateway goes on.
const CLIENTS: [(Dhcp, &str, &[&str]); 5] = [
    (Dhcp::Udhcpc, "/sbin/udhcpc", &["-f", "-S", "-t", "5", "-A", "10", "-i"]),
    (Dhcp::Udhcpc, "/usr/sbin/udhcpc", &["-f", "-S", "-t", "5", "-A", "10", "-i"]),
    (Dhcp::Dhcpcd, "/usr/sbin/dhcpcd", &["-B", "-4", "-q", "-p"]),
    (Dhcp::Dhclient, "/sbin/dhclient", &["-d", "-4", "-q"]),
    (Dhcp::Dhclient, "/usr/sbin/dhclient", &["-d", "-4", "-q"]),
];

pub struct DhcpClients {
    choice: Dhcp,
    state_dir: PathBuf,
    running: BTreeMap<String, Child>,
    /// Devices whose address came from a client that this or an earlier process ran.
    known: BTreeSet<String>,
    warned: bool,
    unwritten: Unwritten,
}

impl DhcpClients {
    pub fn new(choice: Dhcp, state_dir: &Path) -> DhcpClients {
        let known = std::fs::read(state_dir.join("dhcp.json")).ok();
        let known = known.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        DhcpClients {
            choice,
            state_dir: state_dir.to_owned(),
            running: BTreeMap::new(),
            known,
            warned: false,
            unwritten: Unwritten::default(),
        }
    }

    /// The device's address is a client's: of one that runs, or of one that has to be started again,
    /// for nobody else renews the lease.
    pub fn serves(&self, device: &str) -> bool {
        self.known.contains(device)
    }

    /// Starts a client on each of these devices and ends those of all others.
    pub fn set(&mut self, devices: &[String]) {
        self.running.retain(|device, child| {
            let keep = devices.contains(device) && matches!(child.try_wait(), Ok(None));
            if !keep {
                end(child);
            }
            keep
        });
        for device in devices.iter().filter(|d| !self.running.contains_key(*d)).cloned().collect::<Vec<_>>() {
            let Some((kind, program, args)) = self.client() else {
                if !self.warned {
                    self.warned = true;
                    tracing::warn!(
                        device,
                        "no DHCP client is installed; install udhcpc, dhcpcd or isc-dhcp-client"
                    );
                }
                break;
            };
            let started = Command::new(program)
                .args(*args)
                .args(self.files_of(*kind, &device))
                .arg(&device)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::inherit())
                .spawn();
            match started {
                Ok(child) => {
                    tracing::info!(device, program, "DHCP client started");
                    self.running.insert(device, child);
                }
                Err(error) => tracing::warn!(device, program, %error, "cannot start the DHCP client"),
            }
        }
        self.remember();
    }

    fn client(&self) -> Option<&'static (Dhcp, &'static str, &'static [&'static str])> {
        let chosen = |kind: Dhcp| self.choice == Dhcp::Auto || self.choice == kind;
        CLIENTS.iter().find(|(kind, program, _)| chosen(*kind) && Path::new(program).exists())
    }

    /// dhclient keeps leases; the state directory is what the agent's unit lets it write to.
    fn files_of(&self, kind: Dhcp, device: &str) -> Vec<OsString> {
        if kind != Dhcp::Dhclient {
            return Vec::new();
        }
        let file = |ending: &str| self.state_dir.join(format!("dhclient.{device}.{ending}")).into_os_string();
        vec!["-lf".into(), file("leases"), "-pf".into(), file("pid")]
    }

    fn remember(&mut self) {
        let now: BTreeSet<String> = self.running.keys().cloned().collect();
        if now == self.known {
            return;
        }
        let text = serde_json::to_vec(&now).unwrap_or_default();
        let file = self.state_dir.join("dhcp.json");
        // Otherwise it is tried again the next time.
        if self.unwritten.note("list of ports with DHCP", &file, files::replace(&file, &text)) {
            self.known = now;
        }
    }
}

fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id())
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let _ = child.wait();
}

impl Drop for DhcpClients {
    /// The clients end with the agent; which devices they served stays on the disk.
    fn drop(&mut self) {
        self.running.values_mut().for_each(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_of_an_earlier_process_is_served_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("dhcp.json"), r#"["eth0"]"#).unwrap();
        let mut clients = DhcpClients::new(Dhcp::Auto, dir.path());
        assert!(clients.serves("eth0") && !clients.serves("eth1"));
        // The port has a static address now.
        clients.set(&[]);
        assert!(!clients.serves("eth0"));
        assert!(!DhcpClients::new(Dhcp::Auto, dir.path()).serves("eth0"));
    }
}
