//! What the service says of the daemons, and how it is read from their answers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use sag_daemons::State as Daemon;

/// The state of BGP and OSPF. Names are those of the state report of the device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Status {
    /// Version of the service.
    pub version: String,
    /// What is installed of BGP and OSPF, and what is missing.
    pub installed: Installed,
    /// The daemons that shall run.
    pub daemons: Vec<Daemon>,
    /// Neighbors, those of BGP first.
    pub neighbors: Vec<Neighbor>,
    /// Routes by their source.
    pub routes: Vec<RouteCount>,
    /// The virtual address.
    pub vrrp: Option<VrrpState>,
    /// Lines to the Internet by PPPoE.
    pub pppoe: Vec<PppoeState>,
    /// What is not in force, and why.
    pub problems: Vec<Problem>,
}

/// State of a virtual address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VrrpState {
    /// The port.
    pub port: String,
    /// Its device.
    pub device: String,
    /// The virtual address.
    pub address: String,
    /// Number of the virtual router.
    pub router: u8,
    /// This device's priority.
    pub priority: u8,
    /// `MASTER`: this device has the address; `BACKUP`, `FAULT`, `STOP`: it has not; empty: not known yet.
    pub state: String,
    /// Why this device may not have the address; empty: it may.
    pub obstacle: String,
}

impl VrrpState {
    /// Whether this device has the address.
    pub fn is_master(&self) -> bool {
        self.state == "MASTER"
    }
}

/// State of a line by PPPoE.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PppoeState {
    /// The port.
    pub port: String,
    /// The gateway's device.
    pub device: String,
    /// The Ethernet device.
    pub ethernet: String,
    /// Whether there is a session.
    pub up: bool,
    /// The own address; empty: none.
    pub address: String,
    /// The access concentrator's address; empty: none.
    pub peer: String,
    /// IP bytes that both ends take; none: no session.
    pub mtu: Option<u32>,
    /// Seconds since the session began.
    pub since: Option<u64>,
    /// Sessions so far.
    pub sessions: u64,
    /// Seconds until the next attempt.
    pub next_attempt: Option<u64>,
    /// Why there is no session; empty: there is one, or the first attempt goes on.
    pub problem: String,
}

/// What is installed of FRR.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Installed {
    /// BGP can be used.
    pub bgp: bool,
    /// OSPF can be used.
    pub ospf: bool,
    /// A virtual address can be had.
    pub vrrp: bool,
    /// Packages that are missing for BGP and OSPF.
    pub missing: Vec<String>,
    /// Lines by PPPoE can be had.
    pub pppoe: bool,
    /// Why not; empty: they can.
    pub pppoe_obstacle: String,
}

/// A neighbor of BGP or OSPF.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Neighbor {
    /// `BGP` or `OSPF`.
    pub protocol: String,
    /// Its address.
    pub address: String,
    /// OSPF: the device on which it is.
    pub device: String,
    /// OSPF: its router identifier.
    pub router_id: String,
    /// BGP: its autonomous system.
    pub remote_as: Option<u32>,
    /// The state, in FRR's words: `Established`, `Active`, `Full/DR`.
    pub state: String,
    /// Whether routes are exchanged.
    pub up: bool,
    /// Seconds in this state; absent: it has never been up.
    pub since: Option<u64>,
    /// BGP: prefixes that it has announced, and that were announced to it.
    pub received: Option<u64>,
    /// See `received`.
    pub sent: Option<u64>,
    /// State of its BFD session; empty: none.
    pub bfd: String,
}

/// Routes of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RouteCount {
    /// 4 or 6.
    pub family: u8,
    /// `bgp`, `ospf`, `connected`, `kernel`, ….
    pub source: String,
    /// Routes that are known.
    pub known: u64,
    /// Routes that are in the kernel's table.
    pub installed: u64,
}

/// Something that is not in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Problem {
    /// The member of the device document that it comes from; empty: none.
    pub section: String,
    /// What it is about.
    pub object: String,
    /// Why.
    pub reason: String,
}

fn number(of: &Value, key: &str) -> Option<u64> {
    of.get(key)?.as_u64()
}

fn text(of: &Value, key: &str) -> String {
    of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Reads `show bgp summary json`: each family with its peers.
pub(crate) fn bgp_neighbors(answer: &Value) -> Vec<Neighbor> {
    let families = answer.as_object().into_iter().flat_map(|o| o.values());
    let peers = families.filter_map(|f| f.get("peers")?.as_object()).flatten();
    let mut out: Vec<Neighbor> = peers
        .map(|(address, p)| {
            let state = text(p, "state");
            let up = state == "Established";
            Neighbor {
                protocol: "BGP".to_owned(),
                address: address.clone(),
                remote_as: number(p, "remoteAs").and_then(|n| u32::try_from(n).ok()),
                since: number(p, "peerUptimeMsec").filter(|ms| *ms > 0).map(|ms| ms / 1000),
                received: number(p, "pfxRcd"),
                sent: number(p, "pfxSnt"),
                up,
                state,
                ..Neighbor::default()
            }
        })
        .collect();
    // As addresses, not as texts.
    out.sort_by_cached_key(|n| n.address.parse::<IpAddr>().ok());
    out
}

/// Reads `show ip ospf neighbor json`: a list for each router identifier, of FRR 8, or of older ones without the level in
/// between.
pub(crate) fn ospf_neighbors(answer: &Value) -> Vec<Neighbor> {
    let all = answer.get("neighbors").unwrap_or(answer).as_object().into_iter().flatten();
    let mut out = Vec::new();
    for (router_id, entries) in all {
        for n in entries.as_array().into_iter().flatten() {
            let state = [text(n, "nbrState"), text(n, "state")].into_iter().find(|s| !s.is_empty());
            let state = state.unwrap_or_default();
            let device = text(n, "ifaceName");
            let up_for = number(n, "upTimeInMsec").or_else(|| number(n, "lastPrgrsvChangeMsec"));
            out.push(Neighbor {
                protocol: "OSPF".to_owned(),
                address: [text(n, "ifaceAddress"), text(n, "address")]
                    .into_iter()
                    .find(|s| !s.is_empty())
                    .unwrap_or_default(),
                device: device.split(':').next().unwrap_or_default().to_owned(),
                router_id: router_id.clone(),
                up: state.starts_with("Full"),
                since: up_for.map(|ms| ms / 1000),
                state,
                ..Neighbor::default()
            });
        }
    }
    out
}

/// Reads `show bfd peers json`: the state by the peer's address.
pub(crate) fn bfd_states(answer: &Value) -> BTreeMap<String, String> {
    let peers = answer.as_array().into_iter().flatten();
    peers.map(|p| (text(p, "peer"), text(p, "status"))).collect()
}

/// Reads `show ip route summary json`.
pub(crate) fn route_counts(family: u8, answer: &Value) -> Vec<RouteCount> {
    let rows = answer.get("routes").and_then(Value::as_array).into_iter().flatten();
    rows.map(|r| RouteCount {
        family,
        source: text(r, "type"),
        known: number(r, "rib").unwrap_or(0),
        installed: number(r, "fib").unwrap_or(0),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bgp_of_both_families() {
        let answer = json!({
            "ipv4Unicast": {"routerId": "10.1.0.1", "peers": {
                "10.1.0.20": {"remoteAs": 65002, "peerUptimeMsec": 0, "pfxRcd": 0, "pfxSnt": 0, "state": "Active"},
                "10.1.0.3": {"remoteAs": 4200000000u32, "peerUptimeMsec": 61_500, "pfxRcd": 7, "pfxSnt": 2,
                    "state": "Established"}}},
            "ipv6Unicast": {"peers": {"2001:db8::2": {"remoteAs": 65002, "state": "Idle (PfxCt)"}}}});
        let read = bgp_neighbors(&answer);
        let row = |n: &Neighbor| (n.address.clone(), n.up, n.since, n.received);
        assert_eq!(
            read.iter().map(row).collect::<Vec<_>>(),
            [
                ("10.1.0.3".to_owned(), true, Some(61), Some(7)),
                ("10.1.0.20".to_owned(), false, None, Some(0)),
                ("2001:db8::2".to_owned(), false, None, None),
            ]
        );
        assert_eq!(read[0].remote_as, Some(4_200_000_000));
        assert!(bgp_neighbors(&json!({})).is_empty() && bgp_neighbors(&json!([1])).is_empty());
    }

    #[test]
    fn ospf_of_both_forms() {
        let one = json!([{"priority": 1, "state": "Full/Backup", "address": "192.0.2.3", "upTimeInMsec": 9000,
            "ifaceName": "lan-a:192.0.2.1"}]);
        for answer in [json!({"neighbors": {"9.9.9.9": one}}), json!({"9.9.9.9": one})] {
            let read = ospf_neighbors(&answer);
            assert_eq!(read.len(), 1);
            let n = &read[0];
            assert_eq!(
                (n.device.as_str(), n.address.as_str(), n.up, n.since),
                ("lan-a", "192.0.2.3", true, Some(9))
            );
            assert_eq!(n.router_id, "9.9.9.9");
        }
    }

    #[test]
    fn counts_and_bfd() {
        let answer = json!({"routes": [{"fib": 2, "rib": 3, "type": "bgp"}], "routesTotal": 3});
        assert_eq!(
            route_counts(4, &answer),
            [RouteCount { family: 4, source: "bgp".into(), known: 3, installed: 2 }]
        );
        let bfd = bfd_states(&json!([{"peer": "192.0.2.3", "status": "up"}]));
        assert_eq!(bfd.get("192.0.2.3").map(String::as_str), Some("up"));
    }
}
