//! Devices, which are parts of gateways.

use std::collections::HashMap;

use super::{Authorised, Linked, Objects};
use crate::domain::device::Device;
use crate::domain::gateway::Gateway;
use crate::domain::lock;
use crate::error::Result;
use crate::store::devices::{self, Summary};
use crate::store::{Kind, objects};
use crate::time::now_us;

impl Objects {
    /// The devices of a gateway, the first one of a pair in front.
    pub async fn devices_of(&mut self, gw: &Authorised<Gateway>) -> Result<Vec<Device>> {
        Ok(Device::of_gateway(&mut self.tx, &gw.id).await?)
    }

    /// The device of the gateway with this serial number.
    pub async fn device_of(&mut self, gw: &Authorised<Gateway>, sn: &str) -> Result<Option<Device>> {
        Ok(Device::by_sn(&mut self.tx, sn).await?.filter(|d| d.sag == gw.id))
    }

    /// Whether any account has a device with this serial number.
    pub async fn is_serial_number_taken(&mut self, sn: &str) -> Result<bool> {
        Ok(Device::by_sn(&mut self.tx, sn).await?.is_some())
    }

    /// The devices of each of the gateways without their documents.
    pub async fn device_summaries(
        &mut self,
        gws: &[Authorised<Gateway>],
    ) -> Result<HashMap<String, Vec<Summary>>> {
        let ids: Vec<&str> = gws.iter().map(|gw| gw.id.as_str()).collect();
        Ok(devices::summaries(&mut self.tx, &ids).await?)
    }

    /// How many of the gateways have a connected device.
    pub async fn count_online(&mut self, gws: &[String], now: i64) -> Result<usize> {
        let ids: Vec<&str> = gws.iter().map(String::as_str).collect();
        let devices = devices::summaries(&mut self.tx, &ids).await?;
        Ok(devices.values().filter(|of| of.iter().any(|d| d.online(now))).count())
    }

    pub async fn add_device(
        &mut self,
        gw: &Authorised<Gateway>,
        mut device: Summary,
        config: String,
    ) -> Result<()> {
        device.uid = gw.uid;
        device.sag.clone_from(&gw.id);
        Ok(devices::insert(&mut self.tx, &device, config, now_us()).await?)
    }

    /// Stores a changed configuration with its revision.
    pub async fn put_config(&mut self, d: &Device) -> Result<()> {
        Ok(devices::put_config(&mut self.tx, d, d.config_text()?, now_us()).await?)
    }

    /// Stores how far the agent has come.
    pub async fn put_result(&mut self, d: &Device) -> Result<()> {
        Ok(devices::put_result(&mut self.tx, d, d.config_text()?).await?)
    }

    /// A device of the gateway is heard; whose devices have to know if that locks it ([`lock::after_silence`]).
    pub async fn lock_after_silence(&mut self, gw: &Authorised<Gateway>, now: i64) -> Result<Vec<String>> {
        Ok(lock::after_silence(&mut self.tx, &gw.id, now).await?)
    }

    /// Stores what the agent reported, and from which address.
    pub async fn put_report(
        &mut self,
        d: &Device,
        report: &sag_southbound::StateReport,
        seen: i64,
        from: &str,
    ) -> Result<()> {
        Ok(devices::put_report(&mut self.tx, &d.sn, report, seen, from).await?)
    }

    /// Gives each device of the gateways a new revision; returns their serial numbers.
    pub async fn bump_revisions(&mut self, gws: &Linked) -> Result<Vec<String>> {
        let mut out = Vec::new();
        for gw in &gws.ids {
            out.extend(devices::bump_revision(&mut self.tx, gw, now_us()).await?);
        }
        Ok(out)
    }

    /// Gives each device of the gateway a new revision; returns their serial numbers.
    pub async fn bump_revision(&mut self, gw: &Authorised<Gateway>) -> Result<Vec<String>> {
        Ok(devices::bump_revision(&mut self.tx, &gw.id, now_us()).await?)
    }

    /// Gives each device of the gateway of a part a new revision; returns their serial numbers.
    pub async fn bump_revision_of_parent<T>(&mut self, part: &Authorised<T>) -> Result<Vec<String>> {
        Ok(devices::bump_revision(&mut self.tx, &part.parent, now_us()).await?)
    }

    pub async fn delete_device(&mut self, d: &Device) -> Result<()> {
        objects::delete(&mut self.tx, Kind::Announcement, &d.sn).await?;
        Ok(devices::delete(&mut self.tx, &d.sn).await?)
    }

    /// Removes the devices of a gateway; returns their serial numbers.
    pub async fn delete_devices(&mut self, gw: &Authorised<Gateway>) -> Result<Vec<String>> {
        Ok(devices::delete_of_gateway(&mut self.tx, &gw.id).await?)
    }
}
