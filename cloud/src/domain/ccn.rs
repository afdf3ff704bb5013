//! Cloud connect networks.

use serde::{Deserialize, Serialize};

use crate::store::Kind;
use crate::store::objects::{Columns, Entity};

/// A cloud connect network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ccn {
    pub ccn_id: String,
    pub region_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidr_block: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snat_cidr_block: Option<String>,
    pub interworking_status: String,
    /// Stored for clients that set it, and answered; nothing depends on it.
    pub is_default: bool,
    /// The member that is the hub, as the owner says; none: every member has a tunnel to every other.
    #[serde(rename = "HubSmartAGId", skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    pub status: String,
    pub resource_group_id: String,
    pub create_time: i64,
}

impl Entity for Ccn {
    const KIND: Kind = Kind::Ccn;

    fn columns(&self) -> Columns<'_> {
        Columns {
            name: self.name.as_deref().unwrap_or_default(),
            status: &self.status,
            resource_group: &self.resource_group_id,
            description: self.description.as_deref().unwrap_or_default(),
            ..Columns::default()
        }
    }
}

/// What a network says in which the members do not reach each other.
pub const APART: &str = "disable";

impl Ccn {
    /// Whether its members reach each other.
    pub fn is_interworking(&self) -> bool {
        self.interworking_status != APART
    }

    /// Its blocks, host bits cleared.
    pub fn blocks(&self) -> Vec<ipnet::Ipv4Net> {
        super::net::cidr_list(self.cidr_block.as_deref().unwrap_or_default()).unwrap_or_default()
    }

    /// The blocks that its members' addresses are translated to, host bits cleared.
    pub fn snat_blocks(&self) -> Vec<ipnet::Ipv4Net> {
        super::net::cidr_list(self.snat_cidr_block.as_deref().unwrap_or_default()).unwrap_or_default()
    }
}
