//! Grants to other accounts.

use serde::{Deserialize, Serialize};

use crate::store::Kind;
use crate::store::objects::{Columns, Entity};

/// A gateway granted to the network of another account. Its identifier is `gateway/network`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CcnGrant {
    pub instance_id: String,
    pub region_id: String,
    #[serde(rename = "SmartAGId")]
    pub smart_ag_id: String,
    pub ccn_instance_id: String,
    pub ccn_uid: i64,
    pub grant_traffic_service: bool,
    pub create_time: i64,
}

impl Entity for CcnGrant {
    const KIND: Kind = Kind::CcnGrant;

    fn columns(&self) -> Columns<'_> {
        Columns::default()
    }
}

/// A network granted to the enterprise network of another account. Its identifier is `network/enterprise network`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CenGrant {
    pub grant_rule_id: String,
    pub region_id: String,
    pub ccn_instance_id: String,
    pub ccn_uid: i64,
    pub cen_instance_id: String,
    pub cen_uid: i64,
    pub grant_traffic_service: bool,
    /// The block that the network uses towards the enterprise network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    pub gmt_create: i64,
    pub gmt_modified: i64,
}

impl Entity for CenGrant {
    const KIND: Kind = Kind::CenGrant;

    fn columns(&self) -> Columns<'_> {
        Columns::default()
    }
}

/// A gateway granted to a border router of another account. Its identifier is `gateway/router`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VbrGrant {
    pub instance_id: String,
    pub region_id: String,
    #[serde(rename = "SmartAGId")]
    pub smart_ag_id: String,
    #[serde(rename = "SmartAGUid")]
    pub smart_ag_uid: i64,
    pub vbr_instance_id: String,
    pub vbr_region_id: String,
    pub vbr_uid: i64,
    pub create_time: i64,
}

impl Entity for VbrGrant {
    const KIND: Kind = Kind::VbrGrant;

    fn columns(&self) -> Columns<'_> {
        Columns { variant: &self.vbr_instance_id, ..Columns::default() }
    }
}
