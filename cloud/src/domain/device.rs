//! Devices: configuration with a revision, and what their agents report.

use std::ops::{Deref, DerefMut};

use serde_json::{Map, Value, json};

use crate::store::devices::{Documents, Summary};
use crate::store::{Result, Tx, devices};

/// An agent that has been silent for longer is offline.
pub const ONLINE_MS: i64 = 60_000;

impl Summary {
    pub fn online(&self, now: i64) -> bool {
        self.seen > 0 && now - self.seen <= ONLINE_MS
    }
}

/// A device with its documents.
#[derive(Clone, Debug)]
pub struct Device {
    pub summary: Summary,
    /// The configuration: sections with their names in the device document.
    pub body: Map<String, Value>,
    pub report: Value,
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

impl Device {
    fn read(summary: Summary, (config, report): Documents<'_>) -> Result<Device> {
        Ok(Device { summary, body: serde_json::from_str(config)?, report: serde_json::from_str(report)? })
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

    /// The configuration as it is stored.
    ///
    /// # Errors
    /// A number that JSON cannot hold.
    pub fn config_text(&self) -> Result<String> {
        Ok(serde_json::to_string(&self.body)?)
    }

    pub fn get(&self, section: &str) -> &Value {
        self.body.get(section).unwrap_or(&Value::Null)
    }

    pub fn rows(&self, section: &str) -> Vec<Value> {
        self.get(section).as_array().cloned().unwrap_or_default()
    }

    pub fn set(&mut self, section: &str, value: Value) {
        self.body.insert(section.to_owned(), value);
    }

    /// One entry of a section that is keyed by port name.
    pub fn entry(&self, section: &str, key: &str) -> &Value {
        self.get(section).get(key).unwrap_or(&Value::Null)
    }

    pub fn set_entry(&mut self, section: &str, key: &str, value: Value) {
        let map = self.body.entry(section).or_insert_with(|| json!({}));
        map[key] = value;
    }

    pub fn remove_entry(&mut self, section: &str, key: &str) {
        if let Some(map) = self.body.get_mut(section).and_then(Value::as_object_mut) {
            map.remove(key);
        }
    }

    /// The configured ports, with those that only the agent knows.
    pub fn ports(&self) -> Vec<Value> {
        let mut ports = self.rows("Ports");
        for seen in self.report["Ports"].as_array().into_iter().flatten() {
            match ports.iter_mut().find(|p| p["PortName"] == seen["PortName"]) {
                Some(p) => {
                    p["Status"] = seen["Status"].clone();
                    p["Mac"] = seen["Mac"].clone();
                }
                None => ports.push(seen.clone()),
            }
        }
        ports
    }

    pub fn port(&self, name: &str) -> Option<Value> {
        self.ports().into_iter().find(|p| p["PortName"] == name)
    }

    pub fn role(&self, name: &str) -> String {
        let port = self.port(name).unwrap_or_default();
        port["Role"].as_str().unwrap_or("NONE").to_owned()
    }

    /// `TaskStates` of a section: how far its last change has come.
    pub fn tasks(&self, section: &str, now: i64) -> Value {
        let task = self.entry("Tasks", section);
        let Some(revision) = task["Revision"].as_i64() else {
            return json!([{
                "State": "Succeed", "CreateTime": self.body.get("CreateTime"),
                "ErrorCode": "200", "ErrorMessage": "Successful",
            }]);
        };
        let (state, code, message) = if self.applied >= revision && self.failure.is_empty() {
            ("Succeed", "200", "Successful")
        } else if self.applied >= revision {
            ("Failed", "500", self.failure.as_str())
        } else if self.online(now) {
            ("Processing", "ConfigUnsynchronized", "The network configuration is not synchronized.")
        } else {
            ("Offline", "SmartAccessGatewayNotOnline", "The device is offline.")
        };
        json!([{
            "State": state, "CreateTime": task["CreateTime"],
            "ErrorCode": code, "ErrorMessage": message,
        }])
    }
}

const PORT_ROLES: [&str; 6] = ["WAN", "LAN", "MGT", "ECC", "NONE", "NONE"];

/// The configuration that a device starts with.
pub fn initial_config(now: i64) -> Map<String, Value> {
    let ports: Vec<Value> = PORT_ROLES
        .iter()
        .enumerate()
        .map(|(i, role)| json!({"PortName": i.to_string(), "Role": role, "Status": "Down", "Mac": ""}))
        .collect();
    let body = json!({
        "CreateTime": now,
        "Ports": ports,
        "Wan": {"0": {"IPType": "DHCP", "Priority": 10, "Weight": 100}},
        "RouteProtocol": "STATIC",
        "Snat": "DISABLE",
        "Ha": {"Mode": "NONE"},
    });
    body.as_object().cloned().unwrap_or_default()
}
