//! `[ha]`: sessions follow to the other device of the instance, which has the virtual address in turn (ModifySagHa, STATIC).
//! The link is in the network of that address.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use sag_model::Role;
use sag_southbound::Effect;
use toml::{Table, Value};

use super::isolation::deviation;
use super::{Base, Compiler, optional, table};
use crate::session_link::AgreedPeer;

/// TCP port of the link.
const PORT: u16 = 7788;

/// The other devices of the instance, or why there is no link to one.
pub type SessionPeers = Vec<Result<AgreedPeer, String>>;

impl Base {
    /// The same where these are the other devices of the instance.
    #[must_use]
    pub fn beside(self, peers: SessionPeers) -> Base {
        Base { peers, ..self }
    }

    /// What a running gateway shows, without the link to a device that an agent had it make: the key is masked there.
    pub fn from_running(text: &str) -> Result<Base, String> {
        let mut base = Base::from_toml(text)?;
        if base.sections.get("ha").is_some_and(|ha| ha.get("key").is_some()) {
            base.sections.remove("ha");
        }
        Ok(base)
    }
}

impl Compiler<'_> {
    /// Writes `[ha]`, and returns the address at which this end of the link is: the other device has to know it.
    pub(super) fn session_link(&mut self) -> Option<Ipv4Addr> {
        // The operator's own link wins.
        if self.out.contains_key("ha") {
            return None;
        }
        let desired = self.desired;
        let ha = desired.ha.as_ref()?;
        let shared: Ipv4Addr = ha.virtual_ip.parse().ok()?;
        let own = self.own_end(&ha.port, shared)?;
        let (there, problems): (Vec<_>, Vec<_>) = self.base.peers.iter().partition(|p| p.is_ok());
        let mut problems: Vec<String> = problems.into_iter().filter_map(|p| p.clone().err()).collect();
        let mut peers = there.into_iter().filter_map(|p| p.as_ref().ok());
        if let Some(peer) = peers.next() {
            match peer.address {
                IpAddr::V4(a) if a != own.addr() && a != shared && own.contains(&a) => {
                    let section = section(own.addr(), a, peer);
                    self.out.insert("ha".to_owned(), Value::Table(section));
                    self.session_peer = Some((peer.sn.clone(), peer.identity));
                }
                address => {
                    let why = format!(
                        "its address {address} is no other one of the port's network {}",
                        own.trunc()
                    );
                    problems.push(format!("device {}: {why}", peer.sn));
                }
            }
        }
        problems.extend(peers.map(|p| format!("device {}: another one has the link", p.sn)));
        for why in problems {
            let object = format!("sessions of port {}", ha.port);
            let why = format!("they do not follow to the other device: {why}");
            self.deviations.push(deviation("Ha", object, Effect::Partial, why));
        }
        Some(own.addr())
    }

    /// The device's own address in the network of the virtual one: the cloud's, else one that the port has.
    fn own_end(&self, port: &str, shared: Ipv4Addr) -> Option<Ipv4Net> {
        let lan = |(name, _, role): &&(String, String, Role)| name == port && *role == Role::Lan;
        let (_, device, _) = self.ports.iter().find(lan)?;
        let set = self.desired.lans.get(port).and_then(|lan| {
            let (ip, mask) = (lan.ip.parse().ok()?, lan.mask.parse().ok()?);
            Ipv4Net::with_netmask(ip, mask).ok()
        });
        let there = self.base.present.iter().filter(|(d, _)| d == device).map(|(_, net)| *net);
        // What keepalived sets has no network.
        let fits = |net: &Ipv4Net| net.addr() != shared && net.prefix_len() < 31 && net.contains(&shared);
        set.into_iter().chain(there).find(fits)
    }
}

fn section(own: Ipv4Addr, peer: Ipv4Addr, agreed: &AgreedPeer) -> Table {
    table! {
        "listen": &format!("{own}:{PORT}"),
        "peer": &format!("{peer}:{PORT}"),
        "key": &hex::encode(agreed.key.expose()),
    }
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
