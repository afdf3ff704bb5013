//! Which sessions are meant.

use super::facts::SessionFacts;
use super::proto::IpProto;
use crate::config::DEFAULT_VRF;
use crate::control::cidr::{self, within};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A session is meant when every field that is set agrees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionFilter {
    /// 4 or 6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<u8>,
    /// Only this protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<IpProto>,
    /// Only sources of this network.
    #[serde(skip_serializing_if = "Option::is_none", with = "cidr")]
    pub src: Option<IpNet>,
    /// Only destinations of this network.
    #[serde(skip_serializing_if = "Option::is_none", with = "cidr")]
    pub dst: Option<IpNet>,
    /// Source or destination, before or after translation.
    #[serde(skip_serializing_if = "Option::is_none", with = "cidr")]
    pub host: Option<IpNet>,
    /// Only this source port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Only this destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// With or without a translated address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat: Option<bool>,
    /// What the source was translated to; likewise the next three.
    #[serde(skip_serializing_if = "Option::is_none", with = "cidr")]
    pub nat_src: Option<IpNet>,
    /// Only this source port after translation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_sport: Option<u16>,
    /// Only destinations of this network after translation.
    #[serde(skip_serializing_if = "Option::is_none", with = "cidr")]
    pub nat_dst: Option<IpNet>,
    /// Only this destination port after translation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_dport: Option<u16>,
    /// Port of the gateway, ingress or egress, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Only sessions that began on this port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_port: Option<String>,
    /// Only sessions that leave by this port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_port: Option<String>,
    /// Only this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Identifier of the ACL rule that let it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The VRF that it comes from or goes to; `default`: the one without a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
    /// The VRF that it goes to, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_vrf: Option<String>,
    /// Seconds, inclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_age_s: Option<u64>,
    /// Idle for at least so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_idle_s: Option<u64>,
    /// Of both directions together, inclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_packets: Option<u64>,
    /// At least so many bytes, both directions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_bytes: Option<u64>,
}

impl SessionFilter {
    /// True if it admits every session.
    pub fn is_empty(&self) -> bool {
        *self == SessionFilter::default()
    }

    /// Whether the filter admits the session.
    pub fn matches(&self, s: &SessionFacts<'_>) -> bool {
        fn is<T: PartialEq>(want: &Option<T>, have: T) -> bool {
            want.as_ref().is_none_or(|w| *w == have)
        }
        fn named(want: &Option<String>, have: &[&str]) -> bool {
            want.as_ref().is_none_or(|w| have.contains(&w.as_str()))
        }
        fn least(want: Option<u64>, have: u64) -> bool {
            want.is_none_or(|w| have >= w)
        }
        let addresses = || [Some(s.src), Some(s.dst), s.nat_src, s.nat_dst].into_iter().flatten();
        // A translation may leave the port as it is.
        let nat_sport = s.nat_sport.or(s.nat_src.map(|_| s.sport));
        let nat_dport = s.nat_dport.or(s.nat_dst.map(|_| s.dport));
        let [vrf, to_vrf] = [s.vrf, s.to_vrf].map(|v| v.unwrap_or(DEFAULT_VRF));
        is(&self.family, if s.src.is_ipv4() { 4 } else { 6 })
            && is(&self.proto, s.proto)
            && is(&self.sport, s.sport)
            && is(&self.dport, s.dport)
            && within(&self.src, [s.src])
            && within(&self.dst, [s.dst])
            && within(&self.host, addresses())
            && is(&self.nat, s.nat_src.is_some() || s.nat_dst.is_some())
            && within(&self.nat_src, s.nat_src)
            && within(&self.nat_dst, s.nat_dst)
            && self.nat_sport.is_none_or(|w| nat_sport == Some(w))
            && self.nat_dport.is_none_or(|w| nat_dport == Some(w))
            && named(&self.port, &[s.in_port, s.out_port])
            && named(&self.in_port, &[s.in_port])
            && named(&self.out_port, &[s.out_port])
            && self.state.as_ref().is_none_or(|w| w.eq_ignore_ascii_case(s.state))
            && self.rule.as_ref().is_none_or(|w| s.rule == Some(w.as_str()))
            && named(&self.vrf, &[vrf, to_vrf])
            && named(&self.to_vrf, &[to_vrf])
            && least(self.min_age_s, s.age_s)
            && least(self.min_idle_s, s.idle_s)
            && least(self.min_packets, s.packets.saturating_add(s.reply_packets))
            && least(self.min_bytes, s.bytes.saturating_add(s.reply_bytes))
    }
}
