//! Which of a WAN port's addresses a session gets: the one that the kernel would take for a connection of its own.

use super::spec::WanAddr;
use sag_model::PortIdx;
use std::net::{IpAddr, Ipv4Addr};

/// The sources of a WAN port, by their index in the policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WanSources {
    /// Network and mask; the first that has the next hop decides.
    networks: Vec<(u32, u32, u16)>,
    /// For other next hops.
    first: Option<u16>,
    /// Every address of the port.
    all: Vec<(Ipv4Addr, u16)>,
    /// That of packets by the default route: what the Internet sees.
    internet: Option<u16>,
}

impl WanSources {
    /// From addresses in the order in which they are preferred, with the indices of their sources, and the next hop of the
    /// default route with the source that it prefers.
    pub(super) fn new(
        addrs: Vec<(WanAddr, u16)>,
        default: Option<(Option<IpAddr>, Option<Ipv4Addr>)>,
    ) -> WanSources {
        let network = |(a, no): &(WanAddr, u16)| {
            let (network, mask) = a.network_words()?;
            Some((network, mask, *no))
        };
        let mut out = WanSources {
            networks: addrs.iter().filter_map(network).collect(),
            first: addrs.first().map(|a| a.1),
            all: addrs.iter().map(|(a, no)| (a.addr, *no)).collect(),
            internet: None,
        };
        let (hop, preferred) = default.unwrap_or((None, None));
        out.internet = out.choose(hop.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), preferred);
        out
    }

    /// The source of packets to a next hop: the one that the route prefers, else one in the next hop's network, else the
    /// first. `None`: the port has no address.
    pub(super) fn choose(&self, hop: IpAddr, preferred: Option<Ipv4Addr>) -> Option<u16> {
        if let Some(no) = preferred.and_then(|addr| self.number(addr)) {
            return Some(no);
        }
        let near = match hop {
            IpAddr::V4(hop) => self.networks.iter().find(|(net, mask, _)| hop.to_bits() & mask == *net),
            IpAddr::V6(_) => None,
        };
        near.map(|n| n.2).or(self.first)
    }

    /// The source that the Internet sees.
    pub(super) fn internet(&self) -> Option<u16> {
        self.internet
    }

    /// The source of one of the port's addresses.
    pub fn number(&self, addr: Ipv4Addr) -> Option<u16> {
        self.all.iter().find(|(a, _)| *a == addr).map(|a| a.1)
    }

    /// The source for next hops of no network.
    pub fn first(&self) -> Option<u16> {
        self.first
    }

    /// The addresses of the port, the preferred one first.
    pub fn addrs(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.all.iter().map(|a| a.0)
    }
}

/// Which of its addresses a LAN host shows to another one whom it reaches by an external address (RFC 4787 REQ-9a): the
/// one that it has where the external address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hairpin {
    /// On the Internet behind a WAN port with source NAT, if there is one.
    Wan(Option<PortIdx>),
    /// Towards overlay and leased line.
    Private,
}

impl Default for Hairpin {
    fn default() -> Hairpin {
        Hairpin::Wan(None)
    }
}
