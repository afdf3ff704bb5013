//! Containers of QoS rules: traffic classes and rate limits.

use serde::{Deserialize, Serialize};

use crate::store::Kind;
use crate::store::objects::{Columns, Entity};

/// A container of traffic classes and rate limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Qos {
    pub qos_id: String,
    pub region_id: String,
    pub qos_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos_description: Option<String>,
    pub resource_group_id: String,
}

impl Entity for Qos {
    const KIND: Kind = Kind::Qos;

    fn columns(&self) -> Columns<'_> {
        Columns { name: &self.qos_name, resource_group: &self.resource_group_id, ..Columns::default() }
    }
}

/// A traffic class: packets that get a priority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct QosPolicy {
    pub qos_policy_id: String,
    pub qos_id: String,
    pub region_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// 1 to 7.
    pub priority: i64,
    pub source_cidr: String,
    pub dest_cidr: String,
    pub ip_protocol: String,
    pub source_port_range: String,
    pub dest_port_range: String,
    /// From when it is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// Until when it is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpi_signature_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpi_group_ids: Option<Vec<String>>,
}

impl Entity for QosPolicy {
    const KIND: Kind = Kind::QosPolicy;

    fn columns(&self) -> Columns<'_> {
        Columns {
            name: self.name.as_deref().unwrap_or_default(),
            description: self.description.as_deref().unwrap_or_default(),
            priority: self.priority,
            ..Columns::default()
        }
    }
}

/// The rate limit of one priority.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct QosCar {
    pub qos_car_id: String,
    pub qos_id: String,
    pub region_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// 1 to 7.
    pub priority: i64,
    /// `Absolute` or `Percent`.
    pub limit_type: String,
    /// Mbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_bandwidth_abs: Option<i64>,
    /// Mbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bandwidth_abs: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_bandwidth_percent: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bandwidth_percent: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent_source_type: Option<String>,
}

/// What a percentage is of, unless the request says it.
const PERCENT_SOURCE: &str = "InternetUpBandwidth";

impl QosCar {
    /// A limit in Mbit/s answers it too, as the documents' example does.
    pub fn shown_percent_source(&self) -> String {
        self.percent_source_type.clone().unwrap_or_else(|| PERCENT_SOURCE.to_owned())
    }
}

impl Entity for QosCar {
    const KIND: Kind = Kind::QosCar;

    fn columns(&self) -> Columns<'_> {
        Columns {
            name: self.name.as_deref().unwrap_or_default(),
            description: self.description.as_deref().unwrap_or_default(),
            priority: self.priority,
            ..Columns::default()
        }
    }
}
