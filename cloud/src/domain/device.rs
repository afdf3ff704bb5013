//! Devices: configuration with a revision, and what their agents report.

use std::ops::{Deref, DerefMut};

use sag_southbound::{Capability, StateReport};

use super::device_config::{DeviceConfig, Port, Task};
use crate::store::devices::{Documents, Summary};
use crate::store::{Result, Tx, devices};

/// An agent that has been silent for longer is offline.
pub const ONLINE_MS: i64 = 60_000;

impl Summary {
    pub fn online(&self, now: i64) -> bool {
        self.seen > 0 && now - self.seen <= ONLINE_MS
    }
}

/// Deviations that the state of a task names.
const SAID: usize = 5;

/// A device with its documents.
#[derive(Clone, Debug)]
pub struct Device {
    pub summary: Summary,
    pub config: DeviceConfig,
    /// The state that its agent reported last.
    pub state: StateReport,
}

impl Deref for Device {
    type Target = Summary;

    fn deref(&self) -> &Summary {
        &self.summary
    }
}

impl DerefMut for Device {
    fn deref_mut(&mut self) -> &mut Summary {
        &mut self.summary
    }
}

/// How far the last change of a section has come.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskState {
    pub state: &'static str,
    /// Milliseconds since 1970.
    pub create_time: i64,
    pub error_code: &'static str,
    pub error_message: String,
}

impl Device {
    fn read(summary: Summary, (config, report): Documents<'_>) -> Result<Device> {
        // A report of an unknown form counts as none; the agent sends the next one soon.
        let state = serde_json::from_str(report).unwrap_or_else(|e| {
            tracing::warn!(device = summary.sn, error = %e, "cannot read the stored report");
            StateReport::default()
        });
        Ok(Device { config: serde_json::from_str(config)?, summary, state })
    }

    /// # Errors
    /// The database fails.
    pub async fn by_sn(tx: &mut Tx, sn: &str) -> Result<Option<Device>> {
        devices::get(tx, sn, Device::read).await
    }

    /// The devices of a gateway, the first one of a pair in front.
    ///
    /// # Errors
    /// The database fails.
    pub async fn of_gateway(tx: &mut Tx, sag: &str) -> Result<Vec<Device>> {
        devices::of_gateway(tx, sag, Device::read).await
    }

    /// All devices of all accounts, by serial number.
    ///
    /// # Errors
    /// The database fails.
    pub async fn all(tx: &mut Tx) -> Result<Vec<Device>> {
        devices::all(tx, Device::read).await
    }

    /// The configuration as it is stored.
    ///
    /// # Errors
    /// A number that JSON cannot hold.
    pub fn config_text(&self) -> Result<String> {
        Ok(serde_json::to_string(&self.config)?)
    }

    /// Addresses of the neighbors of BGP and OSPF on a port with which routes are exchanged.
    pub fn route_neighbors(&self, port: &str) -> Vec<String> {
        let here = self.state.route_neighbors.iter().filter(|n| n.port_name == port && n.up == Some(true));
        here.map(|n| n.address.clone()).collect()
    }

    /// The configured ports as they are now, with those that only the agent knows.
    pub fn current_ports(&self) -> Vec<Port> {
        let mut ports = self.config.ports.clone();
        for seen in &self.state.ports {
            match ports.iter_mut().find(|p| p.port_name == seen.port_name) {
                Some(p) => {
                    p.status.clone_from(&seen.status);
                    p.mac.clone_from(&seen.mac);
                }
                None => ports.push(Port {
                    port_name: seen.port_name.clone(),
                    role: seen.role.as_ref().map(ToString::to_string).unwrap_or_default(),
                    status: seen.status.clone(),
                    mac: seen.mac.clone(),
                }),
            }
        }
        ports
    }

    pub fn port(&self, name: &str) -> Option<Port> {
        self.current_ports().into_iter().find(|p| p.port_name == name)
    }

    /// Whether the device has said which ports it has, and this is none of them.
    pub fn lacks_port(&self, name: &str) -> bool {
        self.state.wired_ports.as_ref().is_some_and(|wired| !wired.iter().any(|w| w == name))
    }

    /// What of a section is not in force as it is, and why; empty: all of it is.
    fn deviations(&self, section: &str) -> String {
        let all = self.state.deviations.iter().flatten().filter(|d| d.section == section);
        let said: Vec<String> = all.take(SAID).map(|d| d.to_string()).collect();
        said.join("; ")
    }

    /// The role of a port; `NONE` if there is no such port.
    pub fn role(&self, name: &str) -> String {
        let role = self.port(name).map(|p| p.role).filter(|role| !role.is_empty());
        role.unwrap_or_else(|| "NONE".to_owned())
    }

    /// Whether the device has reported what it can do and this is not part of it.
    pub fn lacks(&self, capability: &Capability) -> bool {
        self.state.capabilities.as_ref().is_some_and(|have| !have.contains(capability))
    }

    /// Whether the device ignores what is set in the section.
    fn ignores(&self, section: &str) -> bool {
        let needed = match section {
            "Bgp" => Capability::Bgp,
            "Ospf" => Capability::Ospf,
            "Dns" if self.config.dns.is_some() => Capability::Dns,
            "Ha" if self.config.ha.mode != "NONE" => Capability::Vrrp,
            "Management" => Capability::ManagementPort,
            _ => return false,
        };
        self.lacks(&needed)
    }

    /// How far the last change of a section has come.
    pub fn task_state(&self, section: &str, now: i64) -> TaskState {
        let task = self.config.tasks.get(section);
        let deviations = self.deviations(section);
        let done = |task: &Task| self.applied >= task.revision && self.failure.is_empty();
        let (state, error_code, message) = match task {
            // The rest of the revision is in force.
            task if !deviations.is_empty() && task.is_none_or(done) => {
                ("HardwareError", "500", deviations.as_str())
            }
            Some(task) if self.applied >= task.revision && self.ignores(section) => {
                ("VersionNotSupport", "FeatureNotSupport", "The software of the device does not do this.")
            }
            None => ("Succeed", "200", "Successful"),
            Some(task) if done(task) => ("Succeed", "200", "Successful"),
            Some(task) if self.applied >= task.revision => ("HardwareError", "500", self.failure.as_str()),
            Some(_) if self.online(now) => {
                ("Processing", "ConfigUnsynchronized", "The network configuration is not synchronized.")
            }
            Some(_) => ("Offline", "SmartAccessGatewayNotOnline", "The device is offline."),
        };
        TaskState {
            state,
            create_time: task.map_or(self.config.create_time, |t| t.create_time),
            error_code,
            error_message: message.to_owned(),
        }
    }
}
