//! Where the outer packets of a tunnel go.

use super::{Route, Snapshot};
use crate::tunnel::Tunnel;
use sag_model::{PortIdx, VrfNo};
use std::net::IpAddr;

/// The path of a tunnel's outer packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OuterPath {
    /// The egress port.
    pub port: PortIdx,
    /// The next hop's address.
    pub to: IpAddr,
    /// Bytes of an outer packet that the link carries.
    pub mtu: u16,
}

impl Snapshot {
    /// Where outer packets of a tunnel go to `remote`: by the longest prefix of the default VRF, but never through a tunnel.
    /// Of several lines to the Internet it is the one whose address the tunnel has.
    pub fn outer_path(&self, t: &Tunnel, remote: IpAddr, hash: u64) -> Option<OuterPath> {
        let Route::Via(members) = self.route(remote)? else { return None };
        let usual = self.choose(members, hash).filter(|m| m.tunnel.is_none())?;
        let m = match t.line {
            Some(line) => self.return_member(usual, (VrfNo::DEFAULT, remote), line),
            None => usual,
        };
        let port = self.port(m.port)?;
        let mtu = if m.mtu != 0 { m.mtu.min(port.mtu) } else { port.mtu };
        Some(OuterPath { port: m.port, to: m.via.unwrap_or(remote), mtu })
    }

    /// The line to the Internet that has an address.
    pub(super) fn line_of(&self, addr: IpAddr) -> Option<PortIdx> {
        let has = |p: &super::Port| match addr {
            IpAddr::V4(addr) => p.addrs4.iter().any(|a| a.0 == addr),
            IpAddr::V6(addr) => p.addrs6.iter().any(|a| a.0 == addr),
        };
        let ports = self.ports.iter().zip(0u8..).filter(|(p, _)| p.vrf.is_default() && has(p));
        ports.map(|(_, no)| PortIdx(no)).find(|no| self.is_line(*no))
    }
}
