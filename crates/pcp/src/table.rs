//! The mappings that there are.

use crate::nat::{Admission, Held, Host, Inside, Protocol};
use crate::pcp::Filter;
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::time::Duration;

/// Which mapping. Those of a host, and of an endpoint of it, lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub inside: Inside,
    /// The remote endpoint of PEER; `None`: MAP.
    pub peer: Option<SocketAddrV4>,
}

/// A port that a host has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The endpoint that is reached.
    pub inside: Inside,
    /// The remote endpoint, if it is for one only (PEER).
    pub peer: Option<SocketAddrV4>,
    /// Where it is reached from outside.
    pub external: SocketAddrV4,
    /// Who may reach it; empty: everybody, or the one of `peer`.
    pub filters: Vec<Filter>,
    /// It was asked for by NAT-PMP.
    pub nat_pmp: bool,
    /// When it ends.
    pub expires: Duration,
    pub(crate) hold: Option<u32>,
    /// `None` with NAT-PMP, which has none.
    pub(crate) nonce: Option<[u8; 12]>,
}

impl Mapping {
    pub(crate) fn key(&self) -> Key {
        Key { inside: self.inside, peer: self.peer }
    }

    pub(crate) fn held(&self) -> Held {
        Held { external: self.external, hold: self.hold }
    }

    /// Whether somebody may renew or end it. What NAT-PMP has made is its host's whatever it speaks now.
    pub(crate) fn is_of(&self, nonce: Option<[u8; 12]>) -> bool {
        self.nonce.is_none() || self.nonce == nonce
    }
}

#[derive(Debug, Default)]
pub(crate) struct Table(BTreeMap<Key, Mapping>);

impl Table {
    pub(crate) fn get(&self, key: &Key) -> Option<&Mapping> {
        self.0.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &Key) -> Option<&mut Mapping> {
        self.0.get_mut(key)
    }

    pub(crate) fn insert(&mut self, m: Mapping) {
        self.0.insert(m.key(), m);
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Mapping> {
        self.0.remove(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.0.values()
    }

    /// Those of a host.
    pub(crate) fn of_host(&self, host: Host) -> impl Iterator<Item = &Mapping> {
        let first = Key { inside: Inside { host, protocol: Protocol::Tcp, port: 0 }, peer: None };
        self.0.range(first..).map(|(_, m)| m).take_while(move |m| m.inside.host == host)
    }

    /// Those of an endpoint of a host.
    fn of_endpoint(&self, inside: Inside) -> impl Iterator<Item = &Mapping> {
        let first = Key { inside, peer: None };
        self.0.range((Included(first), Unbounded)).map(|(_, m)| m).take_while(move |m| m.inside == inside)
    }

    /// Whom the mappings of an endpoint admit together; `None`: there are none.
    pub(crate) fn admission(&self, inside: Inside) -> Option<Admission> {
        let mut out: Option<Admission> = None;
        for m in self.of_endpoint(inside) {
            let a = out.get_or_insert_default();
            match m.peer {
                Some(peer) => {
                    let (address, port) = (*peer.ip(), Some(peer.port()));
                    a.peers.push(Filter { address, prefix_len: 32, port });
                }
                None if m.filters.is_empty() => a.anyone = true,
                None => {
                    a.exclusive = true;
                    a.peers.extend_from_slice(&m.filters);
                }
            }
        }
        if let Some(a) = out.as_mut().filter(|a| a.anyone) {
            *a = Admission { anyone: true, ..Admission::default() };
        }
        out
    }

    /// Those for which `which` holds.
    pub(crate) fn keys_where(&self, which: impl Fn(&Mapping) -> bool) -> Vec<Key> {
        self.0.values().filter(|m| which(m)).map(Mapping::key).collect()
    }

    /// The first one after a key, that of the first call being `None`; for walks that change the table.
    pub(crate) fn after(&self, key: Option<Key>) -> Option<&Mapping> {
        let from = key.map_or(Unbounded, Excluded);
        self.0.range((from, Unbounded)).next().map(|(_, m)| m)
    }
}
