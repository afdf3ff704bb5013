//! The devices that requests are about.

use std::collections::HashMap;

use sag_southbound::Command;

use super::commands;
use super::cx::Cx;
use crate::api::Op;
use crate::domain::device::Device;
use crate::domain::device_config::{DeviceConfig, Task};
use crate::domain::gateway::Gateway;
use crate::error::Result;
use crate::store::devices::{self, Summary};
use crate::store::objects::Stored;
use crate::time::now_us;

/// Length of a device's key.
const KEY_LENGTH: usize = 32;

impl Cx {
    pub async fn device_by_sn(&mut self, sn: &str) -> Result<Option<Device>> {
        Ok(Device::by_sn(self.conn(), sn).await?)
    }

    /// The devices of a gateway, the first one of a pair in front.
    pub async fn devices_of(&mut self, sag: &str) -> Result<Vec<Device>> {
        Ok(Device::of_gateway(self.conn(), sag).await?)
    }

    /// The devices of each of the gateways without their documents.
    pub async fn device_summaries(&mut self, sags: &[&str]) -> Result<HashMap<String, Vec<Summary>>> {
        Ok(devices::summaries(self.conn(), sags).await?)
    }

    /// A sealed key for a device.
    pub fn new_device_key(&self) -> Result<String> {
        let key = self.new_secret(KEY_LENGTH)?;
        self.seal(&key)
    }

    pub async fn add_device(&mut self, gw: &Stored<Gateway>, sn: &str, slot: usize) -> Result<()> {
        let summary = Summary {
            sn: sn.to_owned(),
            uid: gw.uid,
            sag: gw.id.clone(),
            slot: slot as i64,
            revision: 1,
            sealed_key: self.new_device_key()?,
            ..Summary::default()
        };
        let config = serde_json::to_string(&DeviceConfig::initial(self.now))?;
        devices::insert(self.conn(), &summary, config, now_us()).await?;
        self.changed.insert(sn.to_owned());
        Ok(())
    }

    /// The device that the request names, on the gateway that it names; both usable.
    pub async fn device(&mut self) -> Result<Device> {
        let gw = self.gateway().await?;
        self.device_on(&gw).await
    }

    pub async fn device_on(&mut self, gw: &Stored<Gateway>) -> Result<Device> {
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
        // show. One operation reports just that, in a field of its answer.
        let local = device.state.local_changes == Some(true) && self.op != Op::DescribeSAGDeviceInfo;
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

    /// Stores a changed configuration; `section` is what `TaskStates` reports about.
    pub async fn save_device(&mut self, d: &mut Device, section: &str) -> Result<()> {
        d.revision += 1;
        let task = Task { revision: d.revision, create_time: self.now };
        d.config.tasks.insert(section.to_owned(), task);
        let config = d.config_text()?;
        devices::put_config(self.conn(), d, config, now_us()).await?;
        self.changed.insert(d.sn.clone());
        Ok(())
    }

    /// The gateway's own configuration changed: each of its devices has a new revision.
    pub async fn bump_revision(&mut self, sag: &str) -> Result<()> {
        let sns = devices::bump_revision(self.conn(), sag, now_us()).await?;
        self.changed.extend(sns);
        Ok(())
    }

    pub async fn bump_revisions(&mut self, sags: &[String]) -> Result<()> {
        for sag in sags {
            self.bump_revision(sag).await?;
        }
        Ok(())
    }

    /// Asks the agent to do something once (reboot, upgrade, diagnose, ...).
    pub async fn command(&mut self, d: &mut Device, command: Command) -> Result<()> {
        let name = command.name().to_owned();
        commands::issue(d, command);
        self.save_device(d, &name).await
    }
}
