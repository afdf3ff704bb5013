//! `nat` and `nat-bindings`: entries, pools of outside ports, and who holds which.

use super::cidr::{self, within};
use super::largest::Largest;
use super::session::{DEFAULT_LIMIT, IpProto, MAX_LIMIT};
use crate::config::{AddressRange, Config, DEFAULT_VRF, Dnat, DnatService, DnatType, NatBehavior, PortRange};
use crate::ids::PortIdx;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// Answer to `nat`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Nat {
    /// Every entry of the configuration.
    pub entries: Vec<NatEntry>,
    /// Every pool of outside ports.
    pub pools: Vec<NatPool>,
    /// Sums over all of them.
    pub totals: NatTotals,
}

/// Where an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatKind {
    /// `snat` of a `[[port]]`.
    WanSnat,
    /// Source NAT.
    Snat,
    /// Destination NAT.
    Dnat,
    /// A network, address by address.
    StaticNat,
    /// From IPv6 to IPv4.
    Nat64,
}

impl NatKind {
    /// The word in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            NatKind::WanSnat => "wan-snat",
            NatKind::Snat => "snat",
            NatKind::Dnat => "dnat",
            NatKind::StaticNat => "static-nat",
            NatKind::Nat64 => "nat64",
        }
    }
}

/// A translation of the configuration, and its use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NatEntry {
    /// That of the configuration; `port NAME` for a port's source NAT.
    pub id: String,
    /// Source or destination NAT.
    pub kind: NatKind,
    /// Where it holds; `null` for the source NAT of a port.
    #[serde(rename = "type")]
    pub dnat_type: Option<DnatType>,
    /// `tcp`, `udp` or `any`.
    pub protocol: String,
    /// As in `203.0.113.2`, `203.0.113.2:8080` or `203.0.113.2:8000-8010`; `wan` stands for all
    /// addresses of the WAN ports, and an empty text for an address that is not there yet. A port's source NAT shows the
    /// address that is used first.
    pub external: String,
    /// A prefix, or likewise.
    pub internal: String,
    /// VRF of `internal`; `null`: the default one, and for source NAT, which holds in all of them.
    #[serde(default)]
    pub vrf: Option<String>,
    /// `null` for DNAT.
    pub mapping: Option<NatBehavior>,
    /// Remote endpoints that reach an outside port; `null` for destination NAT.
    pub filtering: Option<NatBehavior>,
    /// Live.
    pub sessions: u64,
    /// Sessions since start.
    pub hits: u64,
}

impl NatEntry {
    /// All translations of a configuration, unused, in its order. `own` tells the address of a WAN
    /// port that source NAT translates to.
    pub fn of(config: &Config, own: impl Fn(PortIdx) -> Option<Ipv4Addr>) -> Vec<NatEntry> {
        let wan = config.ports().filter(|(_, p)| p.snat).map(|(idx, p)| NatEntry {
            mapping: Some(p.snat_behavior.mapping),
            filtering: Some(p.snat_behavior.filtering),
            ..NatEntry::new(
                NatEntry::port_id(&p.name),
                NatKind::WanSnat,
                own(idx).map(|a| a.to_string()).unwrap_or_default(),
                "0.0.0.0/0".to_owned(),
            )
        });
        let snat = config.snat.iter().map(|s| NatEntry {
            mapping: Some(s.behavior.mapping),
            filtering: Some(s.behavior.filtering),
            dnat_type: Some(s.r#type),
            ..NatEntry::new(s.id.clone(), NatKind::Snat, pool(s.snat_ip, &s.pool), s.cidr_block.to_string())
        });
        let prefixes = config.static_nat.iter().map(|s| NatEntry {
            dnat_type: Some(s.r#type),
            vrf: s.vrf.clone(),
            ..NatEntry::new(s.id.clone(), NatKind::StaticNat, s.external.to_string(), s.internal.to_string())
        });
        let nat64 = config.nat64.iter().map(|n| {
            let external = if n.addresses().is_empty() { "wan".to_owned() } else { pool(n.snat_ip, &n.pool) };
            NatEntry {
                filtering: (external != "wan").then_some(n.filtering),
                mapping: (external != "wan").then_some(NatBehavior::EndpointIndependent),
                ..NatEntry::new(n.id.clone(), NatKind::Nat64, external, n.network().to_string())
            }
        });
        let inside = wan.chain(snat).chain(config.dnat.iter().map(NatEntry::dnat));
        inside.chain(prefixes).chain(nat64).collect()
    }

    /// The `id` of a port's source NAT.
    pub fn port_id(port: &str) -> String {
        format!("port {port}")
    }

    fn new(id: String, kind: NatKind, external: String, internal: String) -> NatEntry {
        NatEntry {
            id,
            kind,
            dnat_type: None,
            protocol: "any".to_owned(),
            external,
            internal,
            vrf: None,
            mapping: None,
            filtering: None,
            sessions: 0,
            hits: 0,
        }
    }

    fn dnat(d: &Dnat) -> NatEntry {
        let outside = d.external_ip.map_or("wan".to_owned(), |ip| ip.to_string());
        let inside = d.internal_ip.to_string();
        let (protocol, external, internal) = match &d.service {
            DnatService::Any => ("any".to_owned(), outside, inside),
            DnatService::Port { protocol, external, internal } => (
                IpProto(*protocol).to_string(),
                format!("{outside}:{}", ports(*external)),
                format!("{inside}:{}", ports(*internal)),
            ),
            DnatService::Group { protocol, ports } => (
                IpProto(*protocol).to_string(),
                format!("{outside}:@{}", ports.id),
                format!("{inside}:@{}", ports.id),
            ),
        };
        NatEntry {
            dnat_type: Some(d.kind),
            vrf: d.vrf.clone(),
            protocol,
            ..NatEntry::new(d.id.clone(), NatKind::Dnat, external, internal)
        }
    }
}

/// The addresses of an entry: as `10.0.0.1, 10.0.0.8-10.0.0.11`.
fn pool(own: Option<Ipv4Addr>, pool: &[AddressRange]) -> String {
    let own = own.map(|ip| ip.to_string());
    let all: Vec<_> = own.into_iter().chain(pool.iter().map(AddressRange::to_string)).collect();
    all.join(", ")
}

fn ports(range: PortRange) -> String {
    match range.count() {
        1 => range.first.to_string(),
        _ => format!("{}-{}", range.first, range.last),
    }
}

/// The outside ports of one address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NatPool {
    /// Outside address.
    pub address: Ipv4Addr,
    /// The `id` of the entry that draws from it; of several, all, joined by commas.
    pub source: String,
    /// Sessions that share an outside port.
    pub mapping: NatBehavior,
    /// Remote endpoints that reach an outside port.
    pub filtering: NatBehavior,
    /// Ports of TCP.
    pub tcp: PortUse,
    /// Ports of UDP.
    pub udp: PortUse,
    /// Identifiers of queries.
    pub icmp: PortUse,
    /// Packets that would have begun a session and found no free port.
    pub exhausted: u64,
    /// Packets from outside that the filtering turned away.
    pub filtered: u64,
    /// Used beyond `nat.warn_percent`.
    pub warned: bool,
}

/// Use of a pool of ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortUse {
    /// Ports in use.
    pub used: u32,
    /// Ports in the pool.
    pub capacity: u32,
    /// Most used at a time since start.
    pub peak: u32,
}

/// Sums over all entries and pools.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NatTotals {
    /// Outside ports and identifiers held.
    pub bindings: u64,
    /// Inside hosts that hold any.
    pub hosts: u64,
    /// `nat.host_sessions`; `null`: unlimited.
    pub host_limit: Option<u32>,
    /// Packets turned away by that limit.
    pub host_limit_hits: u64,
    /// Unanswered sessions that gave way to new ones in a full table, translated or not.
    pub evicted: u64,
    /// Sessions between inside hosts by their outside addresses.
    pub hairpinned: u64,
    /// Hosts and permits that found no room to be counted: a session of such a host is not limited,
    /// an address of such a permit may only answer.
    #[serde(default)]
    pub uncounted: u64,
    /// Events that are in no record of the NAT log.
    pub log_lost: u64,
}

/// An outside port and who holds it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NatBinding {
    /// IP protocol.
    pub protocol: IpProto,
    /// Inside address; of NAT64 one of IPv6.
    pub inside: IpAddr,
    /// For ICMP: the identifier.
    pub inside_port: u16,
    /// Outside address.
    pub outside: Ipv4Addr,
    /// Outside port.
    pub outside_port: u16,
    /// Sessions that use the binding.
    pub sessions: u64,
    /// Sessions that share an outside port.
    pub mapping: NatBehavior,
    /// VRF of the inside address; `null`: the default one.
    #[serde(default)]
    pub vrf: Option<String>,
}

/// Answer to `nat-bindings`, the bindings of most sessions first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NatBindings {
    /// The bindings that were selected, at most `limit`.
    pub bindings: Vec<NatBinding>,
    /// Number of bindings that the filter admits, listed or not.
    pub total: u64,
}

/// A binding is meant when every field that is set agrees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatBindingFilter {
    /// Only this protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<IpProto>,
    /// Only inside addresses of this network.
    #[serde(skip_serializing_if = "Option::is_none", with = "cidr")]
    pub inside: Option<IpNet>,
    /// Only this inside port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside_port: Option<u16>,
    /// Only outside addresses of this network.
    #[serde(skip_serializing_if = "Option::is_none", with = "cidr")]
    pub outside: Option<IpNet>,
    /// Only this outside port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside_port: Option<u16>,
    /// Only bindings of this mapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping: Option<NatBehavior>,
    /// Inclusive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_sessions: Option<u64>,
    /// VRF of the inside address; `default`: the one without a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vrf: Option<String>,
}

impl NatBindingFilter {
    /// Whether the filter admits the binding.
    pub fn matches(&self, b: &NatBinding) -> bool {
        self.protocol.is_none_or(|w| w == b.protocol)
            && within(&self.inside, [b.inside])
            && self.inside_port.is_none_or(|w| w == b.inside_port)
            && within(&self.outside, [b.outside.into()])
            && self.outside_port.is_none_or(|w| w == b.outside_port)
            && self.mapping.is_none_or(|w| w == b.mapping)
            && self.min_sessions.is_none_or(|w| b.sessions >= w)
            && self.vrf.as_ref().is_none_or(|w| w == b.vrf.as_deref().unwrap_or(DEFAULT_VRF))
    }
}

/// Arguments of `nat-bindings`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatBindingQuery {
    /// What is selected.
    pub filter: NatBindingFilter,
    /// Absent: [`DEFAULT_LIMIT`]; at most [`MAX_LIMIT`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only the number.
    pub count: bool,
}

impl NatBindingQuery {
    /// How many bindings to list.
    pub fn wanted(&self) -> usize {
        if self.count { 0 } else { self.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT) as usize }
    }
}

/// Picks the bindings to list in one pass over a table and bounded memory.
#[derive(Debug)]
pub struct NatBindingPicker<'q> {
    filter: &'q NatBindingFilter,
    kept: Largest<NatBinding>,
}

impl<'q> NatBindingPicker<'q> {
    /// For one query.
    pub fn new(query: &'q NatBindingQuery) -> NatBindingPicker<'q> {
        NatBindingPicker { filter: &query.filter, kept: Largest::new(query.wanted()) }
    }

    /// Takes the binding if it is selected.
    pub fn offer(&mut self, b: &NatBinding) {
        if self.filter.matches(b) {
            self.kept.offer(b.sessions, b.clone());
        }
    }

    /// The answer.
    pub fn finish(self) -> NatBindings {
        let (bindings, total) = self.kept.finish();
        NatBindings { bindings, total }
    }
}

/// How a host has asked for a port outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatMappingKind {
    /// By MAP of PCP: for all remote endpoints, or those of its filters.
    Map,
    /// By PEER of PCP: for one remote endpoint.
    Peer,
    /// By NAT-PMP: for all remote endpoints.
    NatPmp,
}

impl NatMappingKind {
    /// The word in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            NatMappingKind::Map => "map",
            NatMappingKind::Peer => "peer",
            NatMappingKind::NatPmp => "nat-pmp",
        }
    }
}

/// A port outside that a host has asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NatMapping {
    /// How.
    pub kind: NatMappingKind,
    /// TCP or UDP.
    pub protocol: IpProto,
    /// Inside address.
    pub inside: Ipv4Addr,
    /// Its VRF; `null`: the default one.
    #[serde(default)]
    pub vrf: Option<String>,
    /// Inside port.
    pub inside_port: u16,
    /// Outside address.
    pub outside: Ipv4Addr,
    /// Outside port.
    pub outside_port: u16,
    /// Who may reach it, as in `198.51.100.0/24`, or `198.51.100.7/32:53` of one port; empty: everybody.
    pub remote: Vec<String>,
    /// Seconds until it ends, unless the host asks again.
    pub lifetime: u64,
}

/// Answer to `nat-mappings`, in the order of inside endpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NatMappings {
    /// All of them.
    pub mappings: Vec<NatMapping>,
    /// Requests that were answered, since the daemon has started.
    pub answered: u64,
    /// Of these, refused.
    pub refused: u64,
}
