//! Prefixes of filters: a bare address is the prefix of itself alone.

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::net::IpAddr;

/// Neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address or prefix (expected as in 192.0.2.0/24, 192.0.2.1 or 2001:db8::/32)")]
pub struct CidrError(String);

/// Reads a prefix, or a bare address as the prefix of itself alone.
pub fn parse_cidr(text: &str) -> Result<IpNet, CidrError> {
    text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| CidrError(text.to_owned()))
}

// `#[serde(with)]` of optional prefixes.

pub(super) fn serialize<S: Serializer>(net: &Option<IpNet>, s: S) -> Result<S::Ok, S::Error> {
    net.serialize(s)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<IpNet>, D::Error> {
    let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
    parse_cidr(&text).map(Some).map_err(de::Error::custom)
}

/// Whether a wanted prefix, if there is one, holds any of the addresses.
pub(super) fn within(want: &Option<IpNet>, have: impl IntoIterator<Item = IpAddr>) -> bool {
    want.as_ref().is_none_or(|net| have.into_iter().any(|a| net.contains(&a)))
}
