//! Identifiers and small value types.

use crate::words::words;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Index of a gateway port (a `[[port]]` of the configuration) in every table of the dataplane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PortIdx(pub u8);

impl PortIdx {
    /// Ports that one gateway can drive; sized so that counters of a worker stay in L1/L2.
    pub const MAX: usize = 64;

    /// As an index of a table.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

words! {
    /// What a port is connected to (`role` of a `[[port]]`).
    pub enum Role {
        /// The branch's own network.
        Lan = "lan",
        /// The Internet.
        Wan = "wan",
        /// A leased line (express connect): private traffic.
        Express = "express",
        /// Left to the kernel: the gateway neither attaches to it nor forwards through it.
        Mgmt = "mgmt",
    }
}

/// Where a packet comes from or goes to, as policy sees it. Part of every flow's key, so that a
/// packet with a forged source on another side of the gateway never matches a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Zone {
    /// The branch.
    Lan = 1,
    /// The Internet.
    Wan = 2,
    /// Leased lines and tunnels: the private overlay.
    Overlay = 3,
}

/// Number of a VRF: routes, addresses and neighbors of its own (RFC 4364 3, VRF-lite). It is part of every flow's key,
/// so hosts of two VRFs may have the same address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VrfNo(u8);

impl VrfNo {
    /// The VRF of what names none.
    pub const DEFAULT: VrfNo = VrfNo(0);
    /// How many there are, the default one included: what is left of a byte above the zone.
    pub const COUNT: usize = 64;

    /// `None`: out of range.
    pub const fn new(no: u8) -> Option<VrfNo> {
        if (no as usize) < VrfNo::COUNT { Some(VrfNo(no)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The number, to index by.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Whether it is the VRF of what names none.
    pub const fn is_default(self) -> bool {
        self.0 == 0
    }
}

/// A zone of a VRF: where a packet comes from or goes to, in the byte that flow keys, XDP's ports and its tunnels have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VrfZone(u8);

impl VrfZone {
    /// This zone of a VRF.
    pub const fn new(zone: Zone, vrf: VrfNo) -> VrfZone {
        VrfZone(zone as u8 | vrf.0 << 2)
    }

    /// From the byte; `None`: it names no zone.
    pub const fn from_byte(byte: u8) -> Option<VrfZone> {
        if byte & 3 == 0 { None } else { Some(VrfZone(byte)) }
    }

    /// The byte: the zone, and the VRF above it.
    pub const fn byte(self) -> u8 {
        self.0
    }

    /// The zone.
    pub const fn zone(self) -> Zone {
        match self.0 & 3 {
            1 => Zone::Lan,
            2 => Zone::Wan,
            _ => Zone::Overlay,
        }
    }

    /// The VRF.
    pub const fn vrf(self) -> VrfNo {
        VrfNo(self.0 >> 2)
    }
}

impl From<Zone> for VrfZone {
    /// Of the default VRF.
    fn from(zone: Zone) -> VrfZone {
        VrfZone::new(zone, VrfNo::DEFAULT)
    }
}

impl Role {
    /// The zone of a port of this role; `None` for ports that are not ours.
    pub const fn zone(self) -> Option<Zone> {
        match self {
            Role::Lan => Some(Zone::Lan),
            Role::Wan => Some(Zone::Wan),
            Role::Express => Some(Zone::Overlay),
            Role::Mgmt => None,
        }
    }
}

/// 802.1Q VLAN identifier, 1..=4094.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct VlanId(u16);

impl VlanId {
    /// `None`: out of range.
    pub const fn new(id: u16) -> Option<VlanId> {
        if id >= 1 && id <= 4094 { Some(VlanId(id)) } else { None }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for VlanId {
    type Error = String;
    fn try_from(id: u16) -> Result<Self, String> {
        VlanId::new(id).ok_or_else(|| format!("VLAN {id} is out of range 1..4094"))
    }
}

impl From<VlanId> for u16 {
    fn from(v: VlanId) -> u16 {
        v.0
    }
}

/// 48-bit Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// No address.
    pub const ZERO: MacAddr = MacAddr([0; 6]);

    /// Whether it addresses a group, broadcast included.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not six hexadecimal bytes.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an Ethernet address (expected six hex bytes, as in 02:00:00:00:00:01)")]
pub struct MacParseError(String);

impl FromStr for MacAddr {
    type Err = MacParseError;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let mut out = [0u8; 6];
        let mut parts = s.split(':');
        for b in &mut out {
            let p = parts.next().filter(|p| p.len() == 2).ok_or_else(|| MacParseError(s.to_owned()))?;
            *b = u8::from_str_radix(p, 16).map_err(|_| MacParseError(s.to_owned()))?;
        }
        if parts.next().is_some() {
            return Err(MacParseError(s.to_owned()));
        }
        Ok(MacAddr(out))
    }
}

impl TryFrom<String> for MacAddr {
    type Error = MacParseError;
    fn try_from(s: String) -> Result<Self, Self::Error> {
        s.parse()
    }
}

impl From<MacAddr> for String {
    fn from(m: MacAddr) -> String {
        m.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_round_trip_and_rejects() {
        let m: MacAddr = "02:00:5e:10:00:ff".parse().unwrap();
        assert_eq!(m.to_string(), "02:00:5e:10:00:ff");
        for bad in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:ff:00",
            "2:0:5e:10:0:ff",
            "02-00-5e-10-00-ff",
            "zz:00:00:00:00:00",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn vlan_range() {
        assert!(VlanId::new(0).is_none() && VlanId::new(4095).is_none());
        assert_eq!(VlanId::new(4094).map(VlanId::get), Some(4094));
    }
}
