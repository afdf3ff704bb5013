//! One session, as clients and filters see it.

use super::proto::IpProto;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

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
    /// VRF of the first packet; `null`: the default one.
    #[serde(default)]
    pub vrf: Option<String>,
    /// VRF that the forward direction goes to, likewise.
    #[serde(default)]
    pub to_vrf: Option<String>,
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
    /// VRF of the first packet; `None`: the default one.
    pub vrf: Option<&'a str>,
    /// VRF that the forward direction goes to, likewise.
    pub to_vrf: Option<&'a str>,
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
            vrf: self.vrf.as_deref(),
            to_vrf: self.to_vrf.as_deref(),
        }
    }
}
