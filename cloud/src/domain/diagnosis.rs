//! The diagnosis of a device as it is stored and shown.

use sag_southbound::wire_field;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Diagnosis {
    pub diagnose_id: String,
    pub instance_id: String,
    #[serde(rename = "SN")]
    pub sn: String,
    #[serde(rename = "UId")]
    pub uid: i64,
    pub box_type: String,
    #[serde(deserialize_with = "wire_field", skip_serializing_if = "Option::is_none")]
    pub box_version: Option<String>,
    #[serde(deserialize_with = "wire_field", skip_serializing_if = "Option::is_none")]
    pub monitor_version: Option<String>,
    pub state: String,
    pub percent: i64,
    /// Milliseconds since 1970, as all times here.
    pub start_time: i64,
    pub end_time: i64,
    pub total_number: i64,
    pub finished_number: i64,
    pub user_level: String,
    pub store_type: String,
    #[serde(rename = "ReportSLSSuccess")]
    pub report_sls_success: i64,
    pub statistics: Statistics,
    pub details: Vec<Details>,
    pub level: Levels,
}

/// How many of the checks came out how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Statistics {
    pub total: i64,
    pub error: i64,
    pub warning: i64,
    pub info: i64,
}

/// The checks of one group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Details {
    /// `config`, `biz` or `internet`.
    pub r#type: String,
    pub items: Vec<Item>,
    pub statistics: Statistics,
}

/// One check, in both languages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Item {
    pub r#type: String,
    pub item_name: String,
    /// `error` or `info`.
    pub level: String,
    pub start_time: i64,
    pub end_time: i64,
    #[serde(rename = "EN")]
    pub en: ItemText,
    #[serde(rename = "CN")]
    pub cn: ItemText,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ItemText {
    pub item_name: String,
    pub item_type: String,
    pub item_level: String,
    pub details: Vec<String>,
    pub advice: Vec<String>,
}

/// The worst result of each group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Levels {
    pub biz: String,
    pub configuration: String,
    pub total: String,
}
