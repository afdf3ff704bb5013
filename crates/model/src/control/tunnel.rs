//! `tunnels`: each tunnel, what it carries and what it has carried.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Answer to `tunnels`, in the order of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tunnels {
    /// Every tunnel.
    pub tunnels: Vec<Tunnel>,
}

/// The associations of an ESP tunnel; nothing secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelKeys {
    /// Word for the cipher, as in the configuration.
    pub cipher: String,
    /// Received by; the newest last.
    pub spi_in: Vec<u32>,
    /// Sent by.
    pub spi_out: u32,
    /// Seconds in use.
    pub age_in_s: u64,
    /// Seconds that the association is sent by.
    pub age_out_s: u64,
    /// The next to be sent.
    pub sequence: u64,
    /// Encrypted by the association that is sent by.
    pub bytes: u64,
    /// A newer pair waits for the peer to send by it.
    pub waiting: bool,
    /// Where the peer's packets come from, if not from `remote`.
    pub peer: Option<std::net::SocketAddr>,
    /// NAT keepalives sent (RFC 3948).
    #[serde(default)]
    pub keepalives: u64,
    /// Why nothing is sent under the static keys, and what to do; `null`: nothing is against it.
    #[serde(default)]
    pub withheld: Option<String>,
}

/// Error correction of an ESP tunnel: what is sent with it, and what it has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelFec {
    /// Packets of a window, repairs for them, and milliseconds after which a window is closed.
    pub window: u8,
    /// Repairs for each window.
    pub repairs: u8,
    /// Milliseconds after which a window is closed.
    pub delay_ms: u32,
    /// Repairs sent, since start.
    pub repairs_sent: u64,
    /// Of repairs and of the headers in front of packets.
    pub overhead_bytes: u64,
    /// Packets that were lost on the way here and were made of repairs.
    pub recovered: u64,
    /// Windows with packets that could not be.
    pub unrecoverable: u64,
}

/// A tunnel. Packets and bytes are those inside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Name, as in the configuration.
    pub name: String,
    /// `vxlan`, `gre`, `ipip` or `esp`.
    pub kind: String,
    /// `up`, `down`, `no-path` (no port leads to the remote address) or `off` (not enforced).
    pub state: String,
    /// Outer address of the gateway.
    pub local: IpAddr,
    /// Outer address of the peer.
    pub remote: IpAddr,
    /// Port by which outer packets leave; `null`: there is none.
    pub port: Option<String>,
    /// IP bytes inside that leave in one piece.
    pub mtu: u16,
    /// As configured; `null`: from the path.
    pub mtu_configured: Option<u16>,
    /// Outer bytes that the path was found to carry; `null`: nothing was learned.
    pub path_mtu_learned: Option<u16>,
    /// ICMP errors about outer packets that quote none that was sent, and changed nothing.
    #[serde(default)]
    pub icmp_refused: u64,
    /// Bytes that the tunnel adds to a packet.
    pub overhead: u16,
    /// VXLAN: the peer's Ethernet address inside.
    pub remote_mac: Option<crate::MacAddr>,
    /// Packets received.
    pub rx_packets: u64,
    /// IP bytes received.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// IP bytes sent.
    pub tx_bytes: u64,
    /// Outer bytes that the path carries, as far as is known.
    #[serde(default)]
    pub path_mtu: u16,
    /// `base`, `search`, `search-complete` or `error` of probing (RFC 8899); `null`: the far end has not answered.
    #[serde(default)]
    pub path_search: Option<String>,
    /// Round trip through the tunnel and its variation, smoothed; `null`: the far end has not answered.
    #[serde(default)]
    pub rtt_us: Option<u64>,
    /// Mean difference of two round-trip times in a row, in microseconds.
    #[serde(default)]
    pub jitter_us: Option<u64>,
    /// Of the last 64 questions to the far end.
    #[serde(default)]
    pub loss_percent: Option<f64>,
    /// Kind `esp`.
    #[serde(default)]
    pub esp: Option<TunnelKeys>,
    /// `null`: it is off.
    #[serde(default)]
    pub fec: Option<TunnelFec>,
    /// Packets of the tunnel that were dropped at its entry or exit; the reasons are among those of the
    /// ports.
    pub drops: u64,
    /// The kernel's device of the tunnel; `null`: it has none.
    #[serde(default)]
    pub device: Option<TunnelDevice>,
}

/// The kernel's device of a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelDevice {
    /// Its name.
    pub name: String,
    /// What the kernel sends by it at most, in IP bytes.
    pub mtu: u16,
    /// Why it is not as it should be; `null`: it is.
    pub problem: Option<String>,
    /// Packets of the machine's own that found no room on the way to a worker.
    pub lost: u64,
    /// Packets that were given to the kernel.
    #[serde(default)]
    pub rx_packets: u64,
    /// Packets of the machine's own that were sent through the tunnel.
    #[serde(default)]
    pub tx_packets: u64,
    /// The same that were dropped, by reason.
    #[serde(default)]
    pub drops: Vec<TunnelDeviceDrop>,
}

/// Packets of the machine's own that were dropped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelDeviceDrop {
    /// The name of the drop reason, or `malformed`.
    pub reason: String,
    /// How many.
    pub packets: u64,
}
