//! Tunnels and the flow log.

use crate::ids::MacAddr;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

words! {
    pub enum NetflowVersion {
        V5 = "V5",
        V9 = "V9",
        /// IPFIX, RFC 7011.
        V10 = "V10",
    }
}

words! {
    /// "Don't fragment" of the outer IPv4 header.
    pub enum OuterDf {
        Set = "set",
        /// As in the packet inside; set over IPv6.
        Copy = "copy",
        Clear = "clear",
    }

    /// Where a packet is split that is larger than the tunnel carries.
    pub enum FragmentAt {
        /// Before it enters the tunnel, if it may be: its receiver puts it together.
        Inner = "inner",
        /// The outer packet is split: the tunnel's other end puts it together.
        Outer = "outer",
    }
}

words! {
    /// How ESP encrypts; the key's length decides between AES-128 and AES-256.
    pub enum EspCipher {
        /// RFC 4106.
        AesGcm = "aes-gcm",
        /// RFC 7634.
        ChaCha20Poly1305 = "chacha20-poly1305",
    }

    /// Where the keys of an ESP tunnel come from.
    pub enum Keying {
        /// The file, or `sagctl tunnels rekey`.
        Manual = "manual",
        /// Agreed with the peer; a controller carries the public keys.
        Agreed = "agreed",
    }
}

/// Whether the far end answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probing {
    /// Milliseconds between probes; 0: none.
    pub interval: u32,
    /// Probes lost one after the other that make the tunnel down.
    pub loss: u8,
    /// Pinged inside the tunnel, for a peer that is no `sag-vcpe`; `None`: the peer itself is asked.
    pub target: Option<IpAddr>,
}

/// Forward error correction of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fec {
    /// Packets of a window.
    pub window: u8,
    /// Repairs sent after each.
    pub repairs: u8,
    /// Milliseconds after which a window is closed, full or not.
    pub delay: u32,
}

/// The outer header's code point (RFC 2983).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OuterDscp {
    /// Copied from the inside at the entry; at the exit the packet keeps its own (pipe model).
    Copy,
    /// Copied at the entry, and back at the exit (uniform model).
    Uniform,
    /// 0..=63, whatever the packet inside has, which keeps its own.
    Fixed(u8),
}

/// Tunnels that one gateway can have: flow records name them by one byte.
pub const MAX_TUNNELS: usize = 255;

/// Index of a `[[tunnel]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelIdx(pub u16);

impl TunnelIdx {
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    pub name: String,
    pub local: IpAddr,
    pub remote: IpAddr,
    /// `None`: from the path.
    pub mtu: Option<u16>,
    /// The gateway's own addresses inside the tunnel.
    pub addresses: Vec<IpNet>,
    pub ttl: u8,
    pub df: OuterDf,
    pub dscp: OuterDscp,
    pub fragment: FragmentAt,
    pub mss_clamp: bool,
    pub probing: Probing,
    /// Seconds without another packet after which NAT is reminded (RFC 3948 4); 0: never, as without UDP.
    pub keepalive: u16,
    /// Kind `esp` only.
    pub fec: Option<Fec>,
    pub encap: Encap,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encap {
    Vxlan {
        vni: u32,
        port: u16,
        /// Sent over IPv6 (RFC 6935 lets a tunnel leave it out), or over IPv4.
        udp_checksum: bool,
        /// Of the gateway inside; `None`: made of local address and VNI.
        mac: Option<MacAddr>,
        /// Of the peer inside; `None`: learned, until then made of remote address and VNI.
        remote_mac: Option<MacAddr>,
    },
    Gre {
        key: Option<u32>,
        /// Checksum and sequence number are sent.
        checksum: bool,
        sequence: bool,
    },
    Ipip,
    Esp {
        cipher: EspCipher,
        /// `None`: keys are agreed.
        manual: Option<ManualKeys>,
        /// Extended sequence numbers (RFC 4303, 2.2.1).
        esn: bool,
        /// Sequence numbers.
        replay_window: u32,
        /// UDP port of RFC 3948 encapsulation; `None`: plain ESP.
        udp_port: Option<u16>,
    },
}

/// A pair of associations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManualKeys {
    pub spi_in: u32,
    pub spi_out: u32,
    pub key_in: Secret,
    pub key_out: Secret,
}

impl Encap {
    /// The word for `kind`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Encap::Vxlan { .. } => "vxlan",
            Encap::Gre { .. } => "gre",
            Encap::Ipip => "ipip",
            Encap::Esp { .. } => "esp",
        }
    }
}

/// Key material: never shown by `Debug` and friends, and wiped at the end.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(zeroize::Zeroizing<Vec<u8>>);

impl Secret {
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(bytes.into())
    }

    /// AES-GCM key followed by the 4-byte salt (RFC 4106).
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowLog {
    /// Seconds between reports on a living flow.
    pub active_aging: u32,
    /// Seconds of silence after which a flow is reported as ended.
    pub inactive_aging: u32,
    pub netflow_server: SocketAddr,
    pub netflow_version: NetflowVersion,
}
