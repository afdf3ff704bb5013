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
    /// For client apps, which have no devices; else for gateways.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub software: bool,
}

/// The types of lists: for gateways, for client apps.
const ACL_TYPES: [&str; 2] = ["acl-hardware", "acl-software"];

impl Acl {
    /// Whether this word is the type of lists for client apps.
    pub fn is_software_type(word: &str) -> bool {
        word == ACL_TYPES[1]
    }

    /// Its type, as the API has it.
    pub fn acl_type(&self) -> &'static str {
        ACL_TYPES[usize::from(self.software)]
    }

    /// The same in the column by which lists are filtered: lists that are older than types have nothing there.
    pub fn variant(software: bool) -> &'static str {
        if software { ACL_TYPES[1] } else { "" }
    }
}

impl Entity for Acl {
    const KIND: Kind = Kind::Acl;

    fn columns(&self) -> Columns<'_> {
        Columns {
            name: &self.name,
            resource_group: &self.resource_group_id,
            variant: Acl::variant(self.software),
            ..Columns::default()
        }
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

/// Protocols with a service name, as the console offers them (`SSH(22)`): TCP or UDP to one port.
const SERVICES: [(&str, &str, u16); 15] = [
    ("FTP", "TCP", 21),
    ("SSH", "TCP", 22),
    ("TELNET", "TCP", 23),
    ("SMTP", "TCP", 25),
    ("DNS", "UDP", 53),
    ("HTTP", "TCP", 80),
    ("POP3", "TCP", 110),
    ("IMAP", "TCP", 143),
    ("HTTPS", "TCP", 443),
    ("MS SQL", "TCP", 1433),
    ("ORACLE", "TCP", 1521),
    ("MYSQL", "TCP", 3306),
    ("RDP", "TCP", 3389),
    ("POSTGRESQL", "TCP", 5432),
    ("REDIS", "TCP", 6379),
];

/// Transport protocol and port of a protocol with a service name.
pub fn service(protocol: &str) -> Option<(&'static str, u16)> {
    let (name, rest) = protocol.split_once('(')?;
    let port: u16 = rest.strip_suffix(')')?.trim().parse().ok()?;
    let same = |known: &str| name.trim().eq_ignore_ascii_case(known);
    SERVICES
        .iter()
        .find(|(known, _, p)| *p == port && same(known))
        .map(|(_, transport, _)| (*transport, port))
}

/// Protocol and destination ports as a device knows them.
pub fn on_the_wire(protocol: String, dest_ports: String) -> (String, String) {
    match service(&protocol) {
        Some((transport, port)) => (transport.to_owned(), format!("{port}/{port}")),
        None => (protocol, dest_ports),
    }
}

impl AclRule {
    /// Whether it is about packets of the WAN ports.
    pub fn is_wan(&self) -> bool {
        self.r#type.as_deref() == Some("WAN")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services() {
        for (sent, expected) in [
            ("SSH(22)", Some(("TCP", 22))),
            ("telnet(23)", Some(("TCP", 23))),
            ("ms sql (1433)", Some(("TCP", 1433))),
            ("DNS(53)", Some(("UDP", 53))),
            ("SSH(23)", None),
            ("SSH", None),
            ("GOPHER(70)", None),
            ("SSH(22", None),
        ] {
            assert_eq!(service(sent), expected, "{sent}");
        }
        let wire = |a: &str, b: &str| on_the_wire(a.to_owned(), b.to_owned());
        assert_eq!(wire("HTTPS(443)", "-1/-1"), ("TCP".to_owned(), "443/443".to_owned()));
        assert_eq!(wire("UDP", "1/5"), ("UDP".to_owned(), "1/5".to_owned()));
    }
}
