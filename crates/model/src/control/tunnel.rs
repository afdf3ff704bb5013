//! `tunnels`: each tunnel, what it carries and what it has carried.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Answer to `tunnels`, in the order of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tunnels {
    pub tunnels: Vec<Tunnel>,
}

/// A tunnel. Packets and bytes are those inside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tunnel {
    pub name: String,
    /// `vxlan`, `gre`, `ipip` or `esp`.
    pub kind: String,
    /// `up`, `down`, `no-path` (no port leads to the remote address) or `off` (not enforced).
    pub state: String,
    pub local: IpAddr,
    pub remote: IpAddr,
    /// Port by which outer packets leave; `null`: there is none.
    pub port: Option<String>,
    /// IP bytes inside that leave in one piece.
    pub mtu: u16,
    /// As configured; `null`: from the path.
    pub mtu_configured: Option<u16>,
    /// Outer bytes that the path was found to carry; `null`: nothing was learned.
    pub path_mtu_learned: Option<u16>,
    /// Bytes that the tunnel adds to a packet.
    pub overhead: u16,
    /// VXLAN: the peer's Ethernet address inside.
    pub remote_mac: Option<crate::MacAddr>,
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Packets of the tunnel that were dropped at its entry or exit; the reasons are among those of the
    /// ports.
    pub drops: u64,
}
