//! A DHCP client for WAN ports of IPType DHCP: an installed, well-kept one, run with a fixed
//! argument list. The device's name comes from the operator's file; nothing comes from the cloud.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Program and arguments before the device; each stays in the foreground.
const CLIENTS: [(&str, &[&str]); 5] = [
    ("/sbin/udhcpc", &["-f", "-S", "-t", "5", "-A", "10", "-i"]),
    ("/usr/sbin/udhcpc", &["-f", "-S", "-t", "5", "-A", "10", "-i"]),
    ("/usr/sbin/dhcpcd", &["-B", "-4", "-q"]),
    ("/sbin/dhclient", &["-d", "-4", "-q"]),
    ("/usr/sbin/dhclient", &["-d", "-4", "-q"]),
];

#[derive(Default)]
pub struct DhcpClients {
    running: BTreeMap<String, Child>,
    told: bool,
}

impl DhcpClients {
    pub fn runs_on(&self, device: &str) -> bool {
        self.running.contains_key(device)
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
        for device in devices {
            if self.running.contains_key(device) {
                continue;
            }
            let Some((program, args)) = CLIENTS.iter().find(|(p, _)| Path::new(p).exists()) else {
                if !self.told {
                    self.told = true;
                    tracing::warn!(
                        device,
                        "no DHCP client is installed; install udhcpc, dhcpcd or isc-dhcp-client"
                    );
                }
                return;
            };
            let started = Command::new(program)
                .args(*args)
                .arg(device)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::inherit())
                .spawn();
            match started {
                Ok(child) => {
                    tracing::info!(device, program, "DHCP client started");
                    self.running.insert(device.clone(), child);
                }
                Err(error) => tracing::warn!(device, program, %error, "cannot start the DHCP client"),
            }
        }
    }
}

fn end(child: &mut Child) {
    if let Ok(pid) = i32::try_from(child.id())
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
    {
        // It releases its lease on SIGTERM.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let _ = child.wait();
}

impl Drop for DhcpClients {
    fn drop(&mut self) {
        self.set(&[]);
    }
}
