//! Orders.

use serde::{Deserialize, Serialize};

use crate::store::Kind;
use crate::store::objects::{Columns, Entity};

/// An order for a gateway, as it was given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Order {
    pub order_id: String,
    pub region_id: String,
    #[serde(rename = "SmartAGId")]
    pub smart_ag_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_pay: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub band_width_spec: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_band_width: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub charge_type: Option<String>,
    pub create_time: i64,
}

impl Entity for Order {
    const KIND: Kind = Kind::Order;

    fn columns(&self) -> Columns<'_> {
        Columns::default()
    }
}
