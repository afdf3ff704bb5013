//! Tunnels and the flow log.

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
    pub encap: Encap,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encap {
    Vxlan {
        vni: u32,
        port: u16,
    },
    Gre {
        key: Option<u32>,
    },
    Ipip,
    Esp {
        spi_in: u32,
        spi_out: u32,
        key_in: Secret,
        key_out: Secret,
        /// UDP port of RFC 3948 encapsulation; `None`: plain ESP.
        udp_port: Option<u16>,
    },
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

/// Key material: never shown by `Debug` and friends.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Secret {
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
