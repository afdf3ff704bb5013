//! The devices that requests are about.

use sag_southbound::Command;

use super::commands;
use super::cx::Cx;
use crate::api::Op;
use crate::domain::device::Device;
use crate::domain::device_config::{DeviceConfig, Task};
use crate::domain::gateway::Gateway;
use crate::domain::objects::{Authorised, Linked};
use crate::error::Result;
use crate::store::devices::Summary;

/// Length of a device's key.
const KEY_LENGTH: usize = 32;

impl Cx {
    /// A sealed key for a device.
    pub fn new_device_key(&self) -> Result<String> {
        let key = self.new_secret(KEY_LENGTH)?;
        self.seal(&key)
    }

    /// Gives the gateway a device that was never heard of.
    pub async fn new_device(&mut self, gw: &Authorised<Gateway>, sn: &str, slot: usize) -> Result<()> {
        let summary = Summary {
            sn: sn.to_owned(),
            slot: slot as i64,
            revision: 1,
            sealed_key: self.new_device_key()?,
            ..Summary::default()
        };
        let config = serde_json::to_string(&DeviceConfig::initial(self.now))?;
        self.add_device(gw, summary, config).await?;
        self.changed.insert(sn.to_owned());
        Ok(())
    }

    /// The device that the request names, on the gateway that it names; both usable.
    pub async fn device(&mut self) -> Result<Device> {
        let gw = self.gateway().await?;
        self.device_on(&gw).await
    }

    pub async fn device_on(&mut self, gw: &Authorised<Gateway>) -> Result<Device> {
        let sn = self.named(&["SmartAGSn", "SagSn", "Sn", "SerialNumber", "SnNumber"]);
        let Some(device) = self.device_of(gw, &sn).await? else {
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

    /// The connected ones among the device that the request names, or all devices of the gateway if it names none.
    pub async fn online_devices(&mut self, gw: &Authorised<Gateway>, named: bool) -> Result<Vec<Device>> {
        let mut devices = match named {
            true => vec![self.device_on(gw).await?],
            false => self.devices_of(gw).await?,
        };
        devices.retain(|d| d.online(self.now));
        if devices.is_empty() {
            return Err(self.err(&["SmartAccessGatewayNotOnline"]));
        }
        Ok(devices)
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
        self.put_config(d).await?;
        self.changed.insert(d.sn.clone());
        Ok(())
    }

    /// The gateway's own configuration changed: each of its devices has a new revision.
    pub async fn renew(&mut self, gw: &Authorised<Gateway>) -> Result<()> {
        let sns = self.bump_revision(gw).await?;
        self.changed.extend(sns);
        Ok(())
    }

    /// What the gateway publishes, or takes of what others publish, changed: it has a new configuration, and so have the
    /// other members of its network.
    pub async fn publication_changed(&mut self, gw: &Authorised<Gateway>) -> Result<()> {
        self.renew(gw).await?;
        let sns = self.blocks_changed(gw).await?;
        self.changed.extend(sns);
        Ok(())
    }

    /// What the gateways share changed: each of their devices has a new revision.
    pub async fn renew_all(&mut self, gws: &Linked) -> Result<()> {
        let sns = self.bump_revisions(gws).await?;
        self.changed.extend(sns);
        Ok(())
    }

    /// Asks the agent to do something once (reboot, upgrade, diagnose, ...).
    pub async fn command(&mut self, d: &mut Device, command: Command) -> Result<()> {
        let name = command.name().to_owned();
        commands::issue(d, command);
        self.save_device(d, &name).await
    }
}
