//! Sessions: what a client sees of one, how it picks some out of millions, and who uses most.
//!
//! [`Picker`] and [`TopCollector`] take borrowed [`SessionFacts`] in one pass over a table, so that
//! a gateway spells out only the sessions that it sends.

mod filter;
mod pick;
mod proto;
mod top;

pub use filter::SessionFilter;
pub use pick::Picker;
pub use proto::{IpProto, ProtoError};
pub use top::{Top, TopBy, TopCollector, TopGroup, TopQuery, TopRow};

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Sessions listed unless the request says otherwise.
pub const DEFAULT_LIMIT: u32 = 100;
/// Most sessions in one answer.
pub const MAX_LIMIT: u32 = 100_000;

/// Answer to `sessions`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sessions {
    /// The sessions that were selected, at most `limit`.
    pub sessions: Vec<Session>,
    /// Number of sessions that the filter admits, listed or not.
    pub total: u64,
}

/// Both directions of a flow. `src` and the counters without prefix belong to the direction of the
/// first packet, as it arrived; the `nat_` fields are what stands in it after translation, `null`
/// where nothing is translated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// 4 or 6.
    pub family: u8,
    /// IP protocol.
    pub proto: IpProto,
    /// Source address of the first packet.
    pub src: IpAddr,
    /// Source port, ICMP identifier, or 0.
    pub sport: u16,
    /// Destination address of the first packet.
    pub dst: IpAddr,
    /// Destination port, or 0.
    pub dport: u16,
    /// Source address after translation.
    pub nat_src: Option<IpAddr>,
    /// Source port after translation.
    pub nat_sport: Option<u16>,
    /// Destination address after translation.
    pub nat_dst: Option<IpAddr>,
    /// Destination port after translation.
    pub nat_dport: Option<u16>,
    /// Name of the state, as `established`.
    pub state: String,
    /// Seconds since the first packet.
    pub age_s: u64,
    /// Seconds since the last packet.
    pub idle_s: u64,
    /// Packets of the forward direction.
    pub packets: u64,
    /// IP bytes of the forward direction.
    pub bytes: u64,
    /// Packets of the replies.
    pub reply_packets: u64,
    /// IP bytes of the replies.
    pub reply_bytes: u64,
    /// Name of the port of the first packet.
    pub in_port: String,
    /// Name of the port that the forward direction leaves by.
    pub out_port: String,
    /// The ACL rule that let it in; `null`: the default verdict.
    pub rule: Option<String>,
}

/// What filters and orders look at, without an allocation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SessionFacts<'a> {
    /// IP protocol.
    pub proto: IpProto,
    /// Source address of the first packet.
    pub src: IpAddr,
    /// Source port, ICMP identifier, or 0.
    pub sport: u16,
    /// Destination address of the first packet.
    pub dst: IpAddr,
    /// Destination port, or 0.
    pub dport: u16,
    /// Source address after translation.
    pub nat_src: Option<IpAddr>,
    /// Source port after translation.
    pub nat_sport: Option<u16>,
    /// Destination address after translation.
    pub nat_dst: Option<IpAddr>,
    /// Destination port after translation.
    pub nat_dport: Option<u16>,
    /// Name of the state, as `established`.
    pub state: &'a str,
    /// Seconds since the first packet.
    pub age_s: u64,
    /// Seconds since the last packet.
    pub idle_s: u64,
    /// Packets of the forward direction.
    pub packets: u64,
    /// IP bytes of the forward direction.
    pub bytes: u64,
    /// Packets of the replies.
    pub reply_packets: u64,
    /// IP bytes of the replies.
    pub reply_bytes: u64,
    /// Name of the port of the first packet.
    pub in_port: &'a str,
    /// Name of the port that the forward direction leaves by.
    pub out_port: &'a str,
    /// The ACL rule that let it in; `None`: the default verdict.
    pub rule: Option<&'a str>,
}

impl Session {
    /// The same without an allocation.
    pub fn facts(&self) -> SessionFacts<'_> {
        SessionFacts {
            proto: self.proto,
            src: self.src,
            sport: self.sport,
            dst: self.dst,
            dport: self.dport,
            nat_src: self.nat_src,
            nat_sport: self.nat_sport,
            nat_dst: self.nat_dst,
            nat_dport: self.nat_dport,
            state: &self.state,
            age_s: self.age_s,
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

/// Order of a listing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionSort {
    /// Most bytes (both directions) first.
    #[default]
    Bytes,
    /// Most packets (both directions) first.
    Packets,
    /// Oldest first.
    Age,
    /// Longest idle first.
    Idle,
}

/// Arguments of `sessions`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionQuery {
    /// What is selected.
    pub filter: SessionFilter,
    /// Order.
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
    /// What is selected.
    pub filter: SessionFilter,
    /// Must be set if the filter is empty: flushing everything is never a slip.
    pub all: bool,
}

/// Answer to `sessions-flush`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Flushed {
    /// Sessions that were removed.
    pub flushed: u64,
}
