//! Flow logs.

use serde::{Deserialize, Serialize};

use crate::store::Kind;
use crate::store::objects::{Columns, Entity};

/// Where gateways write what flowed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct FlowLog {
    pub flow_log_id: String,
    pub region_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub status: String,
    pub resource_group_id: String,
    /// Seconds.
    pub active_aging: i64,
    /// Seconds.
    pub inactive_aging: i64,
    /// `sls`, `netflow` or `all`.
    pub output_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sls_region_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logstore_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netflow_server_ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netflow_server_port: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netflow_version: Option<String>,
}

impl Entity for FlowLog {
    const KIND: Kind = Kind::FlowLog;

    fn columns(&self) -> Columns<'_> {
        Columns {
            name: self.name.as_deref().unwrap_or_default(),
            variant: &self.output_type,
            status: &self.status,
            resource_group: &self.resource_group_id,
            description: self.description.as_deref().unwrap_or_default(),
            ..Columns::default()
        }
    }
}
