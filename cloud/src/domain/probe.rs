//! Probe tasks of a device.

use serde::{Deserialize, Serialize};

use crate::store::Kind;
use crate::store::objects::{Column, Columns, Entity, Filter};

/// A destination that a device of the gateway, its parent, probes all the time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ProbeTask {
    pub probe_task_id: String,
    pub region_id: String,
    pub sag_id: String,
    /// Serial number of the device.
    pub sn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_name: Option<String>,
    /// `Internet` or `Intranet`.
    pub r#type: String,
    /// `ICMP`, `TCP` or `HTTP`.
    pub protocol: String,
    /// Name or address of the destination; of HTTP its URL.
    pub domain: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// Packets a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet_number: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe_task_source_address: Option<String>,
    pub enable: bool,
    /// Milliseconds since 1970.
    pub gmt_create: i64,
    /// Milliseconds since 1970.
    pub gmt_modify: i64,
}

impl ProbeTask {
    fn status(&self) -> &'static str {
        if self.enable { "enabled" } else { "disabled" }
    }

    /// Those that a device of the gateway has to carry out.
    pub fn enabled_on(gateway: &str, sn: &str) -> Filter {
        Filter::under(gateway).equals(Column::Code, Some(sn)).equals(Column::Status, Some("enabled"))
    }
}

impl Entity for ProbeTask {
    const KIND: Kind = Kind::ProbeTask;

    fn columns(&self) -> Columns<'_> {
        Columns {
            name: self.task_name.as_deref().unwrap_or_default(),
            variant: &self.protocol,
            status: self.status(),
            code: &self.sn,
            ..Columns::default()
        }
    }
}
