//! The addresses of this box: what XDP gives to the kernel, and which of them NAT shares.

use crate::abi::NAT_SLOTS;
use crate::error::MapError;
use crate::gateway::Gateway;
use crate::maps;
use sag_model::VrfNo;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bits of a value of `gw_local4` (`enum gw_local_flags`).
pub(crate) const LOCAL_ON: u32 = 1 << 0;
pub(crate) const LOCAL_ANY: u32 = 1 << 1;
pub(crate) const LOCAL_TUNNEL: u32 = 1 << 2;
pub(crate) const LOCAL_SILENT: u32 = 1 << 3;
const SLOT_SHIFT: u32 = 8;
pub(crate) const VRF_SHIFT: u32 = 16;

fn in_vrf(vrf: VrfNo) -> u32 {
    u32::from(vrf.get()) << VRF_SHIFT
}

/// An IPv4 address of this box, or a subnet broadcast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LocalAddr {
    /// The address.
    pub addr: Ipv4Addr,
    /// The address is an outside address of NAT as well: the slot of its bits in
    /// [`Gateway::nat_ports`], below 64.
    pub nat_slot: Option<u8>,
    /// Every protocol and port of the address is mapped inside.
    pub any: bool,
    /// Tunnels end here.
    pub tunnel: bool,
    /// A SYN from the Internet that neither a host inside nor a socket of the box wants is dropped.
    pub silent: bool,
    /// The VRF in which it is.
    pub vrf: VrfNo,
}

impl LocalAddr {
    /// An address of the default VRF that is the kernel's alone.
    pub const fn plain(addr: Ipv4Addr) -> LocalAddr {
        LocalAddr { addr, nat_slot: None, any: false, tunnel: false, silent: false, vrf: VrfNo::DEFAULT }
    }

    fn value(&self) -> Result<u32, MapError> {
        let slot = match self.nat_slot {
            None => 0,
            Some(n) if usize::from(n) < NAT_SLOTS => u32::from(n) + 1,
            Some(n) => {
                return Err(MapError::Range {
                    map: "gw_local4",
                    what: format!("NAT slot {n} of {}", self.addr),
                    limit: NAT_SLOTS as u64,
                    remedy: "",
                });
            }
        };
        let flags = [(self.any, LOCAL_ANY), (self.tunnel, LOCAL_TUNNEL), (self.silent, LOCAL_SILENT)];
        let flags = flags.iter().filter(|(on, _)| *on).fold(LOCAL_ON, |all, (_, flag)| all | flag);
        Ok(flags | slot << SLOT_SHIFT | in_vrf(self.vrf))
    }
}

impl Gateway {
    /// Adds or removes an address of this box (or a subnet broadcast): packets to it that belong to
    /// no session go to the kernel.
    ///
    /// # Errors
    /// [`MapError::Map`] if the kernel refuses an entry: the map is full.
    pub fn set_local4(&self, addr: Ipv4Addr, local: bool) -> Result<(), MapError> {
        set(&self.maps.local4, "gw_local4", addr, &addr.octets(), local)
    }

    /// The same for IPv6.
    ///
    /// # Errors
    /// [`MapError::Map`] if the kernel refuses an entry: the map is full.
    pub fn set_local6(&self, addr: Ipv6Addr, local: bool) -> Result<(), MapError> {
        set(&self.maps.local6, "gw_local6", addr, &addr.octets(), local)
    }

    /// Makes the local addresses exactly these, without a moment in which one that stays is missing.
    /// Clear the bits of a slot before an address gets it. True if one of them was not there.
    ///
    /// # Errors
    /// [`MapError::Range`] if a NAT slot is out of range; [`MapError::Map`] if the kernel refuses an entry.
    pub fn replace_local4(&self, addrs: &[LocalAddr]) -> Result<bool, MapError> {
        let entries = addrs
            .iter()
            .map(|a| Ok((a.addr.octets().to_vec(), a.value()?)))
            .collect::<Result<Vec<_>, MapError>>()?;
        maps::replace(&self.maps.local4, "gw_local4", &entries)
    }

    /// The same for IPv6, each with its VRF; tunnels end at those of `ends`.
    ///
    /// # Errors
    /// [`MapError::Map`] if the kernel refuses an entry: the map is full.
    pub fn replace_local6(&self, addrs: &[(VrfNo, Ipv6Addr)], ends: &[Ipv6Addr]) -> Result<bool, MapError> {
        let value = |vrf, a| in_vrf(vrf) | LOCAL_ON | if ends.contains(a) { LOCAL_TUNNEL } else { 0 };
        let entries: Vec<_> = addrs.iter().map(|(vrf, a)| (a.octets().to_vec(), value(*vrf, a))).collect();
        maps::replace(&self.maps.local6, "gw_local6", &entries)
    }
}

fn set(
    map: &libbpf_rs::MapHandle,
    name: &'static str,
    addr: impl std::fmt::Display,
    key: &[u8],
    local: bool,
) -> Result<(), MapError> {
    if local {
        maps::put(map, name, addr, key, &LOCAL_ON.to_ne_bytes())
    } else {
        maps::take(map, name, addr, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_carry_slot_and_flags() {
        let addr = Ipv4Addr::new(192, 0, 2, 1);
        let value = |nat_slot, any| LocalAddr { nat_slot, any, ..LocalAddr::plain(addr) }.value();
        assert_eq!(value(None, false).unwrap(), 0x001);
        assert_eq!(value(Some(0), false).unwrap(), 0x101);
        assert_eq!(value(Some(63), true).unwrap(), 0x4003);
        let tunnel = LocalAddr { tunnel: true, ..LocalAddr::plain(addr) };
        assert_eq!(tunnel.value().unwrap(), 0x005);
        let silent = LocalAddr { nat_slot: Some(1), silent: true, ..LocalAddr::plain(addr) };
        assert_eq!(silent.value().unwrap(), 0x209);
        let vrf = VrfNo::new(63).unwrap();
        assert_eq!(LocalAddr { vrf, ..tunnel }.value().unwrap(), 0x3F_0005);
        let e = value(Some(64), false).unwrap_err().to_string();
        assert!(e.contains("NAT slot 64 of 192.0.2.1"), "{e}");
    }
}
