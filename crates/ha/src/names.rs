//! Which numbers a gateway has for its VRFs and ports, and what they are at the other one: configurations have names in
//! common, numbers are each gateway's own.

use crate::wire::{Item, Kind, write};
use sag_model::VrfNo;
use sag_model::ids::VrfZone;
use std::collections::BTreeMap;

/// The numbers of one gateway by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// VRFs beside the default one.
    pub vrfs: BTreeMap<String, u8>,
    /// Ports.
    pub ports: BTreeMap<String, u8>,
}

/// The number that stands for a port of which nothing is known here.
const NO_PORT: u8 = u8::MAX;

impl Names {
    /// Writes them as items.
    pub(crate) fn say(&self, out: &mut Vec<u8>) {
        for (kind, names) in [(Kind::Vrf, &self.vrfs), (Kind::Port, &self.ports)] {
            for (name, number) in names {
                write(&Item::Name { kind, number: *number, name }, out);
            }
        }
        write(&Item::Named, out);
    }

    /// Adds one. Later ones of the same name replace it, so there are no more than numbers.
    pub(crate) fn hear(&mut self, kind: Kind, number: u8, name: &str) {
        let names = match kind {
            Kind::Vrf => &mut self.vrfs,
            Kind::Port => &mut self.ports,
        };
        names.retain(|_, n| *n != number);
        names.insert(name.to_owned(), number);
    }
}

/// From the numbers of the peer to those of here.
#[derive(Debug, Clone)]
pub(crate) struct Translation {
    vrfs: BTreeMap<u8, u8>,
    ports: BTreeMap<u8, u8>,
}

impl Translation {
    pub fn new(peer: &Names, own: &Names) -> Translation {
        let common = |peer: &BTreeMap<String, u8>, own: &BTreeMap<String, u8>| {
            peer.iter().filter_map(|(name, no)| Some((*no, *own.get(name)?))).collect()
        };
        Translation { vrfs: common(&peer.vrfs, &own.vrfs), ports: common(&peer.ports, &own.ports) }
    }

    /// A zone of a VRF of the peer; `None`: there is no such VRF here.
    pub fn side(&self, of_peer: VrfZone) -> Option<VrfZone> {
        if of_peer.vrf().is_default() {
            return Some(of_peer);
        }
        let vrf = VrfNo::new(*self.vrfs.get(&of_peer.vrf().get())?)?;
        Some(VrfZone::new(of_peer.zone(), vrf))
    }

    pub fn port(&self, of_peer: u8) -> u8 {
        self.ports.get(&of_peer).copied().unwrap_or(NO_PORT)
    }
}
