//! The tunnels of a cloud connect network: ESP with keys agreed by the gateways (docs/tunnels-keys.md).
//! The cloud carries addresses and public keys; a member that is a point of presence is the hub, else
//! every member has a tunnel to every other.

use std::net::Ipv4Addr;

use sag_model::control::{TunnelPeer, TunnelPeers};

use crate::desired::{Ccn, Member, Peer};

/// This end of the tunnels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalEndpoint {
    /// IPv4 addresses by device.
    pub addresses: Vec<(String, Ipv4Addr)>,
    pub pop: bool,
    /// Forward error correction of what is sent.
    pub fec: bool,
}

/// A tunnel to another device.
#[derive(Debug, Clone, PartialEq)]
pub struct Tunnel {
    pub name: String,
    pub remote: Ipv4Addr,
    pub peer: Peer,
    /// What is reached through it, and on whose behalf.
    pub blocks: Vec<(String, String)>,
    /// Preference among devices of one member.
    pub metric: i64,
}

/// Only devices that have announced an address and a key.
fn ready(m: &Member) -> impl Iterator<Item = (&Peer, Ipv4Addr)> {
    m.devices.iter().filter(|d| !d.public_key.is_empty()).filter_map(|d| Some((d, d.address.parse().ok()?)))
}

pub fn tunnels(ccn: &Ccn, pop: bool) -> Vec<Tunnel> {
    let is_hub = |m: &&Member| m.devices.iter().any(|d| d.pop);
    let hub = ccn.members.iter().find(is_hub).filter(|_| !pop);
    let mut out = Vec::new();
    for member in &ccn.members {
        if hub.is_some_and(|h| h.gateway != member.gateway) {
            continue;
        }
        // All others are reached through the hub.
        let behind = ccn.members.iter().filter(|m| hub.is_some() || m.gateway == member.gateway);
        let blocks: Vec<(String, String)> =
            behind.flat_map(|m| m.blocks.iter().map(|b| (b.clone(), m.gateway.clone()))).collect();
        for (n, (peer, remote)) in ready(member).enumerate() {
            out.push(Tunnel {
                name: format!("ccn-{}", peer.sn),
                remote,
                peer: peer.clone(),
                blocks: blocks.clone(),
                metric: n as i64,
            });
        }
    }
    out
}

/// The peers' public keys, for the gateway.
pub fn peer_keys(tunnels: &[Tunnel]) -> TunnelPeers {
    let row = |t: &Tunnel| TunnelPeer {
        tunnel: t.name.clone(),
        gateway: t.peer.sn.clone(),
        epoch: t.peer.epoch,
        public_key: t.peer.public_key.clone(),
        link: String::new(),
    };
    TunnelPeers { peers: tunnels.iter().map(row).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: u8, pop: bool, key: &str) -> Member {
        let peer = Peer {
            sn: format!("sn{n}"),
            address: format!("203.0.113.{n}"),
            epoch: 7,
            public_key: key.into(),
            pop,
        };
        Member { gateway: format!("sag-{n}"), blocks: vec![format!("10.{n}.0.0/16")], devices: vec![peer] }
    }

    fn names(t: &[Tunnel]) -> Vec<(&str, Vec<&str>)> {
        t.iter().map(|t| (t.name.as_str(), t.blocks.iter().map(|(b, _)| b.as_str()).collect())).collect()
    }

    #[test]
    fn by_the_hub_or_to_each_other() {
        let mesh = Ccn { id: "ccn-1".into(), members: vec![member(2, false, "aa"), member(3, false, "bb")] };
        let seen = tunnels(&mesh, false);
        assert_eq!(names(&seen), [("ccn-sn2", vec!["10.2.0.0/16"]), ("ccn-sn3", vec!["10.3.0.0/16"])]);
        let hub = Ccn { members: vec![member(2, false, "aa"), member(9, true, "cc")], ..mesh.clone() };
        let seen = tunnels(&hub, false);
        assert_eq!(names(&seen), [("ccn-sn9", vec!["10.2.0.0/16", "10.9.0.0/16"])]);
        assert_eq!(tunnels(&mesh, true).len(), 2, "the hub itself has a tunnel to each");
        let silent = Ccn { members: vec![member(2, false, "")], ..mesh };
        assert!(tunnels(&silent, false).is_empty(), "no key, no tunnel");
    }
}
