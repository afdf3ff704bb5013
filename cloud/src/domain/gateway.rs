//! Gateway instances.

use serde::{Deserialize, Serialize};

use crate::store::Kind;
use crate::store::objects::{Columns, Entity};

/// The edition of client-app instances; any other instance is a device.
pub const SOFTWARE: &str = "software";

/// A gateway instance: what was ordered, and its settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Gateway {
    #[serde(rename = "SmartAGId")]
    pub smart_ag_id: String,
    pub region_id: String,
    /// The account that owns it.
    #[serde(rename = "SmartAGUid")]
    pub smart_ag_uid: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What the last operation made of it; see [`Gateway::edition`] for what it is.
    pub status: String,
    pub instance_type: String,
    pub hardware_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ha_type: Option<String>,
    pub city: String,
    pub resource_group_id: String,
    /// Milliseconds since 1970.
    pub create_time: i64,
    /// Until when it is paid, in milliseconds since 1970.
    pub end_time: i64,
    /// Mbit/s.
    pub bandwidth: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_band_width: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_count: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_plan: Option<i64>,
    pub routing_strategy: String,
    /// Blocks behind the gateway, separated by commas.
    pub cidr_block: String,
    /// Seconds for which its devices may be offline; 0: for ever.
    pub security_lock_threshold: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<bool>,
    /// When it was last unlocked, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlocked: Option<i64>,
    pub access_point_id: i64,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_probe: Option<i64>,
    pub up_bandwidth4_g: i64,
    pub up_bandwidth_wan: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routable_address: Option<String>,
    /// Where the device stands, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Where the border router is that the gateway is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vbr_region_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enterprise_code: Option<String>,
    /// DNS servers of a client-app instance.
    #[serde(rename = "AppDNS", skip_serializing_if = "Option::is_none")]
    pub app_dns: Option<Vec<String>>,
    /// Whether its devices report their state every other second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advanced_monitor: Option<bool>,
    /// The package that its bandwidth for application acceleration is of; packages belong to another API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_bandwidth_package_id: Option<String>,
    /// Mbit/s of that package.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accelerate_bandwidth: Option<i64>,
    pub dpi_status: String,
    pub dpi_monitor_status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sls_region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sls_log_store: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sls_project_name: Option<String>,
}

impl Entity for Gateway {
    const KIND: Kind = Kind::Gateway;

    fn columns(&self) -> Columns<'_> {
        Columns {
            name: self.name.as_deref().unwrap_or_default(),
            variant: self.edition(),
            status: &self.status,
            model: &self.hardware_version,
            resource_group: &self.resource_group_id,
            description: self.description.as_deref().unwrap_or_default(),
            code: self.enterprise_code.as_deref().unwrap_or_default(),
            expires: self.end_time,
            ..Columns::default()
        }
    }
}

impl Gateway {
    /// Whether it is an instance of the client-app edition, without devices.
    pub fn is_software(&self) -> bool {
        self.instance_type == SOFTWARE
    }

    /// `software` or `hardware`.
    pub fn edition(&self) -> &'static str {
        if self.is_software() { SOFTWARE } else { "hardware" }
    }

    /// Its name, or nothing.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// Its blocks, host bits cleared.
    pub fn blocks(&self) -> Vec<ipnet::Ipv4Net> {
        super::net::cidr_list(&self.cidr_block).unwrap_or_default()
    }
}
