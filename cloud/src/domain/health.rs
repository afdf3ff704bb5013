//! Health checks of a gateway.

use serde::{Deserialize, Serialize};

use crate::store::Kind;
use crate::store::objects::{Columns, Entity};

/// A destination that the gateway probes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthCheck {
    pub hc_instance_id: String,
    pub region_id: String,
    #[serde(rename = "SmartAGId")]
    pub smart_ag_id: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub r#type: String,
    pub dst_ip_addr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<i64>,
    pub src_ip_addr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_port: Option<i64>,
    /// Milliseconds.
    pub probe_interval: i64,
    pub probe_count: i64,
    /// Milliseconds.
    pub probe_timeout: i64,
    /// Milliseconds; -1 is none.
    pub rtt_threshold: i64,
    pub rtt_fail_threshold: i64,
    pub fail_count_threshold: i64,
    pub create_time: i64,
}

impl Entity for HealthCheck {
    const KIND: Kind = Kind::HealthCheck;

    fn columns(&self) -> Columns<'_> {
        Columns {
            name: &self.name,
            description: self.description.as_deref().unwrap_or_default(),
            ..Columns::default()
        }
    }
}
