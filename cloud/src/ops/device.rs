//! Devices: configuration with a revision, and what their agents report.

use std::collections::HashMap;

use sag_southbound::Command;
use serde_json::{Map, Value, json};

use super::commands;
use super::cx::Cx;
use super::device_fields::{Everything, Fields, Keep, LISTED};
use crate::api::Op;
use crate::args;
use crate::proto::error::Result;
use crate::proto::time::now_us;
use crate::store::conn::{Arg, Row};
use crate::store::objects::{CHUNK, Object, marks};

/// An agent that has been silent for longer is offline.
pub const ONLINE_MS: i64 = 60_000;

#[derive(Clone, Debug)]
pub struct Device {
    pub sn: String,
    pub uid: i64,
    pub sag: String,
    /// Grows with every change of the configuration.
    pub revision: i64,
    /// The last revision that the agent put in force, or failed to.
    pub applied: i64,
    /// Why the revision `applied` failed, or empty.
    pub failure: String,
    pub seen: i64,
    pub body: Map<String, Value>,
    pub report: Value,
}

pub const COLUMNS: &str = "sn, uid, sag, revision, applied, failure, seen, body, report";

impl Device {
    pub fn from_row(row: &Row) -> Result<Device> {
        Device::read(row, &Everything, &Everything)
    }

    /// With those parts of configuration and report alone that are to be kept.
    fn read<K: Keep>(row: &Row, body: &K, report: &K) -> Result<Device> {
        Ok(Device {
            sn: row.string(0)?,
            uid: row.int(1)?,
            sag: row.string(2)?,
            revision: row.int(3)?,
            applied: row.int(4)?,
            failure: row.string(5)?,
            seen: row.int(6)?,
            body: body.parse(row.text(7)?)?,
            report: Value::Object(report.parse(row.text(8)?)?),
        })
    }

    pub fn online(&self, now: i64) -> bool {
        self.seen > 0 && now - self.seen <= ONLINE_MS
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
pub fn initial(now: i64) -> Map<String, Value> {
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

impl Cx {
    pub async fn device_by_sn(&mut self, sn: &str) -> Result<Option<Device>> {
        let sql = format!("SELECT {COLUMNS} FROM devices WHERE sn = $1");
        let row = self.conn().row(&sql, args![sn]).await?;
        row.as_ref().map(Device::from_row).transpose()
    }

    pub async fn devices_of(&mut self, sag: &str) -> Result<Vec<Device>> {
        Ok(self.devices_of_all(&[sag]).await?.remove(sag).unwrap_or_default())
    }

    /// The devices of each of the gateways, the first one of a pair in front.
    pub async fn devices_of_all(&mut self, sags: &[&str]) -> Result<HashMap<String, Vec<Device>>> {
        self.read_devices(sags, &Everything, &Everything).await
    }

    /// The same with the named fields of their configuration, and what lists show of their reports.
    pub async fn devices_with(
        &mut self,
        sags: &[&str],
        fields: &'static [&'static str],
    ) -> Result<HashMap<String, Vec<Device>>> {
        self.read_devices(sags, &Fields(fields), &Fields(&LISTED)).await
    }

    /// Whether they are there and online, no more.
    pub async fn bare_devices(&mut self, sags: &[&str]) -> Result<HashMap<String, Vec<Device>>> {
        self.read_devices(sags, &Fields(&[]), &Fields(&[])).await
    }

    async fn read_devices<K: Keep>(
        &mut self,
        sags: &[&str],
        body: &K,
        report: &K,
    ) -> Result<HashMap<String, Vec<Device>>> {
        let mut out: HashMap<String, Vec<Device>> = HashMap::new();
        for part in sags.chunks(CHUNK) {
            let places = marks(1, part.len());
            let sql = format!("SELECT {COLUMNS} FROM devices WHERE sag IN ({places})");
            for row in self.conn().rows(&sql, part.iter().map(|s| Arg::from(*s)).collect()).await? {
                let d = Device::read(&row, body, report)?;
                out.entry(d.sag.clone()).or_default().push(d);
            }
        }
        for devices in out.values_mut() {
            devices.sort_by_key(|d| (d.get("Slot").as_i64(), d.sn.clone()));
        }
        Ok(out)
    }

    pub async fn add_device(&mut self, gw: &Object, sn: &str, slot: usize) -> Result<()> {
        let mut body = initial(self.now);
        body.insert("Slot".to_owned(), Value::from(slot));
        let key = self.cipher.token(crate::store::secrets::MIXED, 32);
        let key = key.map_err(crate::proto::error::ApiError::internal)?;
        body.insert("SealedKey".to_owned(), Value::from(self.seal(&key)?));
        sqlx::query(
            "INSERT INTO devices
                 (sn, uid, sag, revision, applied, failure, changed, seen, body, report)
             VALUES ($1, $2, $3, 1, 0, '', $4, 0, $5, '{}')",
        )
        .bind(sn.to_owned())
        .bind(gw.uid)
        .bind(gw.id.clone())
        .bind(now_us())
        .bind(serde_json::to_string(&body)?)
        .execute(self.conn().writer()?)
        .await?;
        self.changed.insert(sn.to_owned());
        Ok(())
    }

    /// The device that the request names, on the gateway that it names; both usable.
    pub async fn device(&mut self) -> Result<Device> {
        let gw = self.gateway().await?;
        self.device_on(&gw).await
    }

    pub async fn device_on(&mut self, gw: &Object) -> Result<Device> {
        let names = ["SmartAGSn", "SerialNumber", "SnNumber"];
        let sn = names.iter().find_map(|n| self.opt(n)).unwrap_or_default();
        let found = self.device_by_sn(&sn).await?.filter(|d| d.sag == gw.id);
        let Some(device) = found else {
            return Err(self.err(&[
                "InvalidId.SN",
                "Sag.DeviceNotExist",
                "SAG.InvalidSerialNumber",
                "InstanceNotExit",
                "SAG.InstanceNoFound",
            ]));
        };
        // What was set on the device itself would be overwritten by a change, and is not what a read would
        // show. One operation tells just that, in a field of its answer.
        let local = device.report["LocalChanges"] == true && self.op != Op::DescribeSAGDeviceInfo;
        self.refuse_if(local, &["ConfigUnsynchronized"])?;
        Ok(device)
    }

    /// The device, which must be connected.
    pub async fn online_device(&mut self) -> Result<Device> {
        let d = self.device().await?;
        self.must_be_online(&d)?;
        Ok(d)
    }

    pub fn must_be_online(&self, d: &Device) -> Result<()> {
        if d.online(self.now) {
            return Ok(());
        }
        Err(self.err(&["SmartAccessGatewayNotOnline", "SmartAccessGatewayOffline"]))
    }

    /// Stores a changed configuration; `section` is what `TaskStates` tells about.
    pub async fn save_device(&mut self, d: &mut Device, section: &str) -> Result<()> {
        d.revision += 1;
        let task = json!({"Revision": d.revision, "CreateTime": self.now});
        d.set_entry("Tasks", section, task);
        self.store_device(d).await?;
        self.changed.insert(d.sn.clone());
        Ok(())
    }

    async fn store_device(&mut self, d: &Device) -> Result<()> {
        sqlx::query("UPDATE devices SET revision = $1, changed = $2, body = $3 WHERE sn = $4")
            .bind(d.revision)
            .bind(now_us())
            .bind(serde_json::to_string(&d.body)?)
            .bind(d.sn.clone())
            .execute(self.conn().writer()?)
            .await?;
        Ok(())
    }

    /// The gateway's own configuration changed: each of its devices has a new revision.
    pub async fn touch(&mut self, sag: &str) -> Result<()> {
        let sql = "SELECT sn FROM devices WHERE sag = $1";
        let sns = self.conn().texts(sql, args![sag]).await?;
        if sns.is_empty() {
            return Ok(());
        }
        sqlx::query("UPDATE devices SET revision = revision + 1, changed = $1 WHERE sag = $2")
            .bind(now_us())
            .bind(sag.to_owned())
            .execute(self.conn().writer()?)
            .await?;
        self.changed.extend(sns);
        Ok(())
    }

    pub async fn touch_all(&mut self, sags: &[String]) -> Result<()> {
        for sag in sags {
            self.touch(sag).await?;
        }
        Ok(())
    }

    /// Asks the agent to do something once (reboot, upgrade, diagnose, ...).
    pub async fn command(&mut self, d: &mut Device, command: Command) -> Result<()> {
        let name = command.name().to_owned();
        commands::issue(d, command)?;
        self.save_device(d, &name).await
    }
}
