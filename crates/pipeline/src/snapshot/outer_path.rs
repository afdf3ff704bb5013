//! Where the outer packets of a tunnel go.

use super::{Route, Snapshot};
use sag_model::PortIdx;
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
    /// Where outer packets to `remote` go: by the longest prefix of the default VRF, but never through a tunnel.
    pub fn outer_path(&self, remote: IpAddr, hash: u64) -> Option<OuterPath> {
        let Route::Via(members) = self.route(remote)? else { return None };
        let m = self.choose(members, hash).filter(|m| m.tunnel.is_none())?;
        let port = self.port(m.port)?;
        let mtu = if m.mtu != 0 { m.mtu.min(port.mtu) } else { port.mtu };
        Some(OuterPath { port: m.port, to: m.via.unwrap_or(remote), mtu })
    }
}
