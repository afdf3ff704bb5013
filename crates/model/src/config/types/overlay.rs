//! Tunnels and the flow log.

use crate::ids::MacAddr;
use crate::words::words;
use std::fmt;
use std::net::IpAddr;

words! {
    /// Format of flow records.
    pub enum NetflowVersion {
        /// NetFlow version 5.
        V5 = "V5",
        /// RFC 3954.
        V9 = "V9",
        /// IPFIX, RFC 7011.
        V10 = "V10",
    }
}

words! {
    /// "Don't fragment" of the outer IPv4 header.
    pub enum OuterDf {
        /// Set.
        Set = "set",
        /// As in the packet inside; set over IPv6.
        Copy = "copy",
        /// Clear.
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
    /// Kinds of tunnel.
    pub enum TunnelKind {
        /// RFC 7348.
        Vxlan = "vxlan",
        /// RFC 2784, RFC 2890.
        Gre = "gre",
        /// RFC 2003, RFC 2473.
        Ipip = "ipip",
        /// RFC 4303.
        Esp = "esp",
    }

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
    /// Pinged inside the tunnel, for a peer that is no `sag-vcpe`; `None`: the peer itself answers.
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

/// As the file writes it.
impl fmt::Display for OuterDscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OuterDscp::Copy => f.write_str("copy"),
            OuterDscp::Uniform => f.write_str("uniform"),
            OuterDscp::Fixed(n) => write!(f, "{n}"),
        }
    }
}

/// Tunnels that one gateway can have: flow records name them by one byte.
pub const MAX_TUNNELS: usize = 255;

/// Index of a `[[tunnel]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelIdx(pub u16);

impl TunnelIdx {
    /// As an index of a table.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Kind of a tunnel and the keys of that kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encap {
    /// RFC 7348.
    Vxlan {
        /// Network identifier, 24 bits.
        vni: u32,
        /// UDP port.
        port: u16,
        /// Sent over IPv6 (RFC 6935 lets a tunnel leave it out), or over IPv4.
        udp_checksum: bool,
        /// Of the gateway inside; `None`: made of local address and VNI.
        mac: Option<MacAddr>,
        /// Of the peer inside; `None`: learned, until then made of remote address and VNI.
        remote_mac: Option<MacAddr>,
    },
    /// RFC 2784, RFC 2890.
    Gre {
        /// Sent and expected.
        key: Option<u32>,
        /// A checksum is sent.
        checksum: bool,
        /// A sequence number is sent.
        sequence: bool,
    },
    /// RFC 2003, RFC 2473.
    Ipip,
    /// RFC 4303.
    Esp {
        /// How it encrypts.
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
    /// Security parameters index that is received.
    pub spi_in: u32,
    /// Security parameters index that is sent.
    pub spi_out: u32,
    /// Key and salt for what is received.
    pub key_in: Secret,
    /// Key and salt for what is sent.
    pub key_out: Secret,
}

impl Encap {
    /// The word for `kind`.
    pub const fn kind(&self) -> &'static str {
        self.tunnel_kind().as_str()
    }

    /// The kind.
    pub const fn tunnel_kind(&self) -> TunnelKind {
        match self {
            Encap::Vxlan { .. } => TunnelKind::Vxlan,
            Encap::Gre { .. } => TunnelKind::Gre,
            Encap::Ipip => TunnelKind::Ipip,
            Encap::Esp { .. } => TunnelKind::Esp,
        }
    }
}

/// Key material: never shown by `Debug` and friends, and wiped at the end.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(zeroize::Zeroizing<Vec<u8>>);

impl Secret {
    /// The key and its salt.
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
