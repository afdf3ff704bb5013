//! The validated configuration: what the other crates read. Every value is in range, every
//! reference resolved, every default filled in.

use crate::ids::{MacAddr, PortIdx, Role, VlanId, Zone};
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Declares an enum together with the words that the file uses for it.
macro_rules! words {
    ($( $(#[$meta:meta])* pub enum $name:ident { $( $(#[$vmeta:meta])* $variant:ident = $word:literal, )* } )*) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $( $(#[$vmeta])* #[serde(rename = $word)] $variant, )* }

        impl $name {
            pub const WORDS: &'static [(&'static str, $name)] = &[$( ($word, $name::$variant) ),*];

            pub const fn as_str(self) -> &'static str {
                match self { $( $name::$variant => $word, )* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    )* };
}

mod nat;
mod overlay;
mod policy;

pub use nat::*;
pub use overlay::*;
pub use policy::*;

words! {
    /// How XDP attaches.
    pub enum XdpMode {
        /// Native where the driver has it, else generic.
        Auto = "auto",
        Native = "native",
        Generic = "generic",
    }

    /// How AF_XDP sockets bind.
    pub enum ZeroCopy {
        Auto = "auto",
        On = "on",
        Off = "off",
    }

    /// What the XDP program does with packets that need the daemon while it is away.
    pub enum FailAction {
        Drop = "drop",
        PassToKernel = "pass_to_kernel",
    }

    /// Verdict of an ACL rule, and of the ACLs as a whole where no rule matches.
    pub enum Policy {
        Accept = "accept",
        Drop = "drop",
    }
}

/// One device's whole configuration. The default has no port, which a file may not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    pub dataplane: Dataplane,
    pub timeouts: Timeouts,
    pub bandwidth: Bandwidth,
    /// The position is the port's [`PortIdx`]: that in the file, unless [`Config::keep_numbers`] has given it another.
    pub ports: Vec<Port>,
    pub neighbors: Vec<Neighbor>,
    pub routes: Vec<Route>,
    pub acls: Vec<Acl>,
    pub qos: Vec<Qos>,
    pub nat: Nat,
    pub snat: Vec<Snat>,
    pub dnat: Vec<Dnat>,
    pub tunnels: Vec<Tunnel>,
    pub flow_log: Option<FlowLog>,
}

impl Config {
    pub fn port(&self, idx: PortIdx) -> Option<&Port> {
        self.ports.get(idx.index())
    }

    pub fn port_by_name(&self, name: &str) -> Option<PortIdx> {
        self.ports().find(|(_, p)| p.name == name).map(|(i, _)| i)
    }

    /// All ports with their indexes, those of role `mgmt` included.
    pub fn ports(&self) -> impl Iterator<Item = (PortIdx, &Port)> {
        (0..=u8::MAX).map(PortIdx).zip(&self.ports)
    }

    pub fn tunnel(&self, idx: TunnelIdx) -> Option<&Tunnel> {
        self.tunnels.get(idx.index())
    }

    /// Gives each port the number that it had until now, so that what was counted or remembered under
    /// a number stays that port's. Ports that are new, or whose number is beyond the last one, get those
    /// that are left, in the order of the file.
    pub fn keep_numbers(&mut self, until_now: impl Fn(&Port) -> Option<PortIdx>) {
        let mut places: Vec<Option<usize>> = vec![None; self.ports.len()];
        let mut new_number = vec![None; self.ports.len()];
        for (i, p) in self.ports.iter().enumerate() {
            if let Some(number) = until_now(p)
                && let Some(place @ None) = places.get_mut(number.index())
            {
                *place = Some(i);
                new_number[i] = Some(number);
            }
        }
        let mut left = places.iter().enumerate().filter(|(_, p)| p.is_none()).map(|(n, _)| n);
        for number in new_number.iter_mut().filter(|n| n.is_none()) {
            *number = left.next().and_then(|n| u8::try_from(n).ok()).map(PortIdx);
        }
        let number = |old: PortIdx| new_number.get(old.index()).copied().flatten().unwrap_or(old);
        let mut ports: Vec<_> = (0..=u8::MAX).map(PortIdx).zip(std::mem::take(&mut self.ports)).collect();
        ports.sort_by_key(|(old, _)| number(*old));
        self.ports = ports.into_iter().map(|(_, p)| p).collect();
        for n in &mut self.neighbors {
            n.port = number(n.port);
        }
        for r in &mut self.routes {
            if let RouteTarget::Via { port: Some(port), .. } | RouteTarget::OnLink(port) = &mut r.target {
                *port = number(*port);
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataplane {
    /// `None`: one per core, at most one per queue.
    pub workers: Option<u8>,
    pub mode: XdpMode,
    pub zero_copy: ZeroCopy,
    pub busy_poll: bool,
    /// Established flows are forwarded by XDP; off: by the workers, for comparison and diagnosis.
    pub fast_path: bool,
    /// Capacity of the IPv4 flow table in records.
    pub flows: u32,
    pub state_dir: PathBuf,
    pub pin_dir: PathBuf,
    pub control: PathBuf,
    /// `None`: no metrics listener.
    pub metrics: Option<SocketAddr>,
    /// Filter of the log in the syntax `level` or `target=level,...`.
    pub log: String,
    pub acl_default: Policy,
    pub acl_stateful: bool,
    pub fail_action: FailAction,
    /// ICMP errors that the gateway originates, per port and second; 0: none.
    pub icmp_rate: u32,
    /// Packets of no known flow that a receive queue of a port gives to its worker, per second; 0: all.
    pub new_flow_rate: u32,
    /// Packets of a receive queue that may be under way to ask for a new verdict after a commit; 0: all ask.
    pub revalidation_credit: u32,
    /// Seconds after which the gateway makes itself a new key, for tunnels with agreed keys.
    pub rekey_time: u32,
    /// Bytes under one agreed association: a new key is made after half of them.
    pub rekey_bytes: i64,
}

impl Default for Dataplane {
    fn default() -> Self {
        Dataplane {
            workers: None,
            mode: XdpMode::Auto,
            zero_copy: ZeroCopy::Auto,
            busy_poll: false,
            fast_path: true,
            flows: 1_048_576,
            state_dir: "/var/lib/sag".into(),
            pin_dir: "/sys/fs/bpf/sag".into(),
            control: "/run/sag/vcpe.sock".into(),
            metrics: Some(([127, 0, 0, 1], 9477).into()),
            log: "info".to_owned(),
            acl_default: Policy::Accept,
            acl_stateful: true,
            fail_action: FailAction::Drop,
            icmp_rate: 1_000,
            new_flow_rate: 250_000,
            revalidation_credit: 256,
            rekey_time: 3_600,
            rekey_bytes: 1 << 40,
        }
    }
}

impl Dataplane {
    /// Capacity of the IPv6 flow table in records.
    pub const fn flows_v6(&self) -> u32 {
        self.flows / 8
    }
}

/// How long a session lives without traffic, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub tcp_established: u32,
    /// Closing and reset connections.
    pub tcp_transitory: u32,
    /// Connections whose handshake is not complete.
    pub tcp_syn: u32,
    pub udp: u32,
    pub icmp: u32,
    pub other: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            // RFC 5382 REQ-5: 2 hours 4 minutes, and 4 minutes while opening or closing; RFC 7857
            // (section 2) separates these two and keeps the default.
            tcp_established: 7_440,
            tcp_transitory: 240,
            tcp_syn: 240,
            // RFC 4787 REQ-5: 5 minutes are recommended, 2 the least.
            udp: 300,
            // RFC 5508 REQ-2.
            icmp: 60,
            other: 600,
        }
    }
}

/// Bandwidth in Mbit/s (10⁶ bit/s), never zero: "unlimited" is the absence of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mbps(pub u32);

impl Mbps {
    pub const fn bytes_per_second(self) -> u64 {
        self.0 as u64 * 125_000
    }
}

/// What percentages refer to; `None`: unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bandwidth {
    pub ccn: Option<Mbps>,
    pub internet_up: Option<Mbps>,
    /// Bytes that meters add to the IP length of every packet.
    pub overhead: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    /// Linux network device.
    pub device: String,
    /// The port is this 802.1Q VLAN of the device; `None`: its untagged traffic.
    pub vlan: Option<VlanId>,
    pub role: Role,
    /// Addresses in addition to the kernel's, with the prefix of the attached network.
    pub addresses: Vec<IpNet>,
    /// In place of the device's.
    pub mac: Option<MacAddr>,
    /// In place of the device's.
    pub mtu: Option<u16>,
    /// Source NAT to the port's own address (ModifySagWanSnat).
    pub snat: bool,
    /// Of `snat`.
    pub snat_behavior: NatBehaviors,
    /// `None`: unlimited.
    pub bandwidth: Option<Mbps>,
}

impl Port {
    pub const fn zone(&self) -> Option<Zone> {
        self.role.zone()
    }
}

/// A static entry of the neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbor {
    pub port: PortIdx,
    pub address: IpAddr,
    pub mac: MacAddr,
}

/// A static route. Routes of equal destination and metric share the traffic by weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Without host bits.
    pub destination: IpNet,
    pub target: RouteTarget,
    /// The lowest wins.
    pub metric: u32,
    /// Share among routes of equal destination and metric.
    pub weight: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteTarget {
    /// Without a port, the port is the one whose network holds the next hop.
    Via {
        next_hop: IpAddr,
        port: Option<PortIdx>,
    },
    /// Destinations are neighbours on the port.
    OnLink(PortIdx),
    Tunnel(TunnelIdx),
    Reject(RejectKind),
}

words! {
    /// Routes that do not forward.
    pub enum RejectKind {
        /// Dropped silently.
        Blackhole = "blackhole",
        /// Answered with ICMP host unreachable.
        Unreachable = "unreachable",
        /// Answered with ICMP administratively prohibited.
        Prohibit = "prohibit",
    }
}
