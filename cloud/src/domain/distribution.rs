//! Route publication strategies of a gateway.

use serde::{Deserialize, Serialize};

use crate::store::Kind;
use crate::store::objects::{Columns, Entity};

/// How one route of a gateway is published.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RouteStrategy {
    pub region_id: String,
    #[serde(rename = "SmartAGId")]
    pub smart_ag_id: String,
    /// `local` or `cloud`.
    pub source_type: String,
    pub route_source: String,
    pub dest_cidr_block: String,
    pub route_distribution: String,
    /// The health check that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hc_instance_id: Option<String>,
    pub create_time: i64,
}

impl Entity for RouteStrategy {
    const KIND: Kind = Kind::RouteStrategy;

    fn columns(&self) -> Columns<'_> {
        Columns { variant: &self.source_type, ..Columns::default() }
    }
}
