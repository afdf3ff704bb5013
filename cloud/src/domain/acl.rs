//! Access control lists and their rules.

use serde::{Deserialize, Serialize};

use crate::store::Kind;
use crate::store::objects::{Columns, Entity};

/// An access control list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Acl {
    pub acl_id: String,
    pub region_id: String,
    pub name: String,
    pub resource_group_id: String,
}

impl Entity for Acl {
    const KIND: Kind = Kind::Acl;

    fn columns(&self) -> Columns<'_> {
        Columns { name: &self.name, resource_group: &self.resource_group_id, ..Columns::default() }
    }
}

/// A rule of an access control list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct AclRule {
    /// Its identifier.
    pub acr_id: String,
    pub acl_id: String,
    pub region_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `in` or `out`.
    pub direction: String,
    pub source_cidr: String,
    pub dest_cidr: String,
    /// In capitals; `ALL` is any.
    pub ip_protocol: String,
    /// `first/last`; `-1/-1` is any.
    pub source_port_range: String,
    /// `first/last`; `-1/-1` is any.
    pub dest_port_range: String,
    /// `accept` or `drop`.
    pub policy: String,
    /// The smallest is looked at first.
    pub priority: i64,
    /// `LAN` or `WAN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpi_signature_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpi_group_ids: Option<Vec<String>>,
    /// Milliseconds since 1970.
    pub gmt_create: i64,
}

impl Entity for AclRule {
    const KIND: Kind = Kind::AclRule;

    fn columns(&self) -> Columns<'_> {
        Columns {
            name: self.name.as_deref().unwrap_or_default(),
            variant: &self.direction,
            description: self.description.as_deref().unwrap_or_default(),
            priority: self.priority,
            ..Columns::default()
        }
    }
}

impl AclRule {
    /// Whether it is about packets of the WAN ports.
    pub fn is_wan(&self) -> bool {
        self.r#type.as_deref() == Some("WAN")
    }
}
