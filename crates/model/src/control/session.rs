//! Sessions: what a client sees of one, how it picks some out of millions, and who uses most.
//!
//! [`Picker`] and [`TopCollector`] take borrowed [`SessionFacts`] in one pass over a table, so that
//! a gateway spells out only the sessions that it sends.

mod pick;
mod proto;
mod top;

pub use pick::Picker;
pub use proto::{IpProto, ProtoError};
pub use top::{Top, TopBy, TopCollector, TopGroup, TopQuery, TopRow};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Sessions listed unless the request says otherwise.
pub const DEFAULT_LIMIT: u32 = 100;
/// Most sessions in one answer.
pub const MAX_LIMIT: u32 = 100_000;

/// Answer to `sessions`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sessions {
    pub sessions: Vec<Session>,
    /// Number of sessions that the filter admits, listed or not.
    pub total: u64,
}

/// Both directions of a flow. `src` and the counters without prefix belong to the direction of the
/// first packet, as it arrived; the `nat_` fields are `null` where nothing is translated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// 4 or 6.
    pub family: u8,
    pub proto: IpProto,
    pub src: IpAddr,
    pub sport: u16,
    pub dst: IpAddr,
    pub dport: u16,
    pub nat_src: Option<IpAddr>,
    pub nat_sport: Option<u16>,
    pub nat_dst: Option<IpAddr>,
    pub nat_dport: Option<u16>,
    pub state: String,
    pub age_s: u64,
    pub idle_s: u64,
    pub packets: u64,
    pub bytes: u64,
    pub reply_packets: u64,
    pub reply_bytes: u64,
    pub in_port: String,
    pub out_port: String,
    /// The ACL rule that let it in; `null`: the default verdict.
    pub rule: Option<String>,
}

/// What filters and orders look at, without an allocation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SessionFacts<'a> {
    pub proto: IpProto,
    pub src: IpAddr,
    pub sport: u16,
    pub dst: IpAddr,
    pub dport: u16,
    pub nat_src: Option<IpAddr>,
    pub nat_dst: Option<IpAddr>,
    pub state: &'a str,
    pub idle_s: u64,
    pub packets: u64,
    pub bytes: u64,
    pub reply_packets: u64,
    pub reply_bytes: u64,
    pub in_port: &'a str,
    pub out_port: &'a str,
    pub rule: Option<&'a str>,
}

impl Session {
    pub fn facts(&self) -> SessionFacts<'_> {
        SessionFacts {
            proto: self.proto,
            src: self.src,
            sport: self.sport,
            dst: self.dst,
            dport: self.dport,
            nat_src: self.nat_src,
            nat_dst: self.nat_dst,
            state: &self.state,
            idle_s: self.idle_s,
            packets: self.packets,
            bytes: self.bytes,
            reply_packets: self.reply_packets,
            reply_bytes: self.reply_bytes,
            in_port: &self.in_port,
            out_port: &self.out_port,
            rule: self.rule.as_deref(),
        }
    }
}

/// A session is meant when every field that is set agrees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionFilter {
    /// 4 or 6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<IpProto>,
    #[serde(skip_serializing_if = "Option::is_none", with = "cidr")]
    pub src: Option<IpNet>,
    #[serde(skip_serializing_if = "Option::is_none", with = "cidr")]
    pub dst: Option<IpNet>,
    /// Source or destination, before or after translation.
    #[serde(skip_serializing_if = "Option::is_none", with = "cidr")]
    pub host: Option<IpNet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Port of the gateway, ingress or egress, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Identifier of the ACL rule that let it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

impl SessionFilter {
    /// True if it admits every session.
    pub fn is_empty(&self) -> bool {
        *self == SessionFilter::default()
    }

    pub fn matches(&self, s: &SessionFacts<'_>) -> bool {
        fn is<T: PartialEq>(want: &Option<T>, have: T) -> bool {
            want.as_ref().is_none_or(|w| *w == have)
        }
        fn within(want: &Option<IpNet>, have: impl IntoIterator<Item = IpAddr>) -> bool {
            want.as_ref().is_none_or(|net| have.into_iter().any(|a| net.contains(&a)))
        }
        let addresses = || [Some(s.src), Some(s.dst), s.nat_src, s.nat_dst].into_iter().flatten();
        is(&self.family, if s.src.is_ipv4() { 4 } else { 6 })
            && is(&self.proto, s.proto)
            && is(&self.sport, s.sport)
            && is(&self.dport, s.dport)
            && within(&self.src, [s.src])
            && within(&self.dst, [s.dst])
            && within(&self.host, addresses())
            && self.port.as_ref().is_none_or(|p| p == s.in_port || p == s.out_port)
            && self.state.as_ref().is_none_or(|w| w.eq_ignore_ascii_case(s.state))
            && self.rule.as_ref().is_none_or(|w| s.rule == Some(w.as_str()))
    }
}

/// Order of a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionSort {
    /// Most bytes (both directions) first.
    #[default]
    Bytes,
    Packets,
    /// Longest idle first.
    Idle,
}

/// Arguments of `sessions`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionQuery {
    pub filter: SessionFilter,
    pub sort: SessionSort,
    /// Absent: [`DEFAULT_LIMIT`]; at most [`MAX_LIMIT`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only the number.
    pub count: bool,
}

impl SessionQuery {
    /// How many sessions to list.
    pub fn wanted(&self) -> usize {
        if self.count { 0 } else { self.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT) as usize }
    }
}

/// Arguments of `sessions-flush`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionFlush {
    pub filter: SessionFilter,
    /// Must be set if the filter is empty: flushing everything is never a slip.
    pub all: bool,
}

/// Answer to `sessions-flush`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Flushed {
    pub flushed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address or prefix (expected as in 192.0.2.0/24, 192.0.2.1 or 2001:db8::/32)")]
pub struct CidrError(String);

/// Reads a prefix, or a bare address as the prefix of itself alone.
pub fn parse_cidr(text: &str) -> Result<IpNet, CidrError> {
    text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| CidrError(text.to_owned()))
}

/// [`parse_cidr`] for serde.
mod cidr {
    use ipnet::IpNet;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub fn serialize<S: Serializer>(net: &Option<IpNet>, s: S) -> Result<S::Ok, S::Error> {
        net.serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<IpNet>, D::Error> {
        let Some(text) = Option::<String>::deserialize(d)? else { return Ok(None) };
        super::parse_cidr(&text).map(Some).map_err(de::Error::custom)
    }
}
