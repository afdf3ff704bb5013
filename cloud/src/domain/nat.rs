//! SNAT and DNAT entries of a gateway.

use serde::{Deserialize, Serialize};

use crate::store::Kind;
use crate::store::objects::{Columns, Entity};

/// Sources of a block get another address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SnatEntry {
    pub instance_id: String,
    pub region_id: String,
    pub cidr_block: String,
    pub snat_ip: String,
    pub create_time: i64,
}

impl Entity for SnatEntry {
    const KIND: Kind = Kind::SnatEntry;

    fn columns(&self) -> Columns<'_> {
        Columns::default()
    }
}

/// An address and port of the gateway leads to one behind it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DnatEntry {
    pub dnat_entry_id: String,
    pub region_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sag_id: Option<String>,
    /// `Intranet`, or `Internet` for the address of the WAN port.
    pub r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_ip: Option<String>,
    pub external_port: String,
    pub internal_ip: String,
    pub internal_port: String,
    /// `TCP`, `UDP` or `Any`, in the case of letters that it was sent in.
    pub ip_protocol: String,
    pub create_time: i64,
}

impl DnatEntry {
    /// Whether it is about packets of all protocols, and so about all ports.
    pub fn is_any_protocol(&self) -> bool {
        self.ip_protocol.eq_ignore_ascii_case("any")
    }
}

impl Entity for DnatEntry {
    const KIND: Kind = Kind::DnatEntry;

    fn columns(&self) -> Columns<'_> {
        Columns { variant: &self.r#type, ..Columns::default() }
    }
}
