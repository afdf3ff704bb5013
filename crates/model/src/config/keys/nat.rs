//! Keys of network address translation: `[nat]`, `[[snat]]`, `[[dnat]]`, `[[static_nat]]`, `[[nat64]]`; what is reached
//! from outside and protected by SYN cookies: `[[syn_cookies]]`.

use crate::config::schema::{
    AddressRanges, BlockSize, Identifier, Ipv4Unicast, NatPortRange, Network, Protocol, Spelled, Unicast,
    ZeroIsNone, key, table,
};
use crate::config::types::{
    AddressRange, ClosedPorts, DnatService, DnatType, MIN_NAT_PORT, NatBehavior, NatBehaviors, NatLog,
    NatPooling, NetworkMatch, PortRange, SynCookieMode, WanSessions, WhenFull,
};
use crate::ids::PortIdx;
use ipnet::{IpNet, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

table! {
    /// What all translations have in common.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Nat: Default as RawNat, NatKeys, ReadNat {
        /// Outside TCP and UDP ports for inside ports from 1024 up, of each address and protocol.
        pub port_range: PortRange as NatPortRange = PortRange { first: MIN_NAT_PORT, last: u16::MAX } =>
            key().allowed("within `1024/65535`").source("RFC 4787 section 4.2.1, RFC 6056 section 3.2");
        /// Translated sessions of one inside host.
        pub host_sessions: Option<u32> as ZeroIsNone<u32> = None =>
            key()
                .range(0, 8_388_608)
                .unit("sessions")
                .absent("0 = unlimited")
                .source("RFC 6888 REQ-4, REQ-5")
                .example("4096");
        /// An event is recorded when so much of a pool, or of a host's `host_sessions`, is in use.
        pub warn_percent: u8 = 80 => key().range(1, 100).unit("%").source("RFC 6888 REQ-11");
        /// Ports of an inside host come from blocks of this size; at most as many as `port_range` holds, and only
        /// where all mapping is `endpoint-independent`.
        pub port_block: Option<u16> as Option<BlockSize> = None =>
            key()
                .unit("ports")
                .allowed("64, 128, 256, 512, 1024, 2048, 4096")
                .absent("off: port by port")
                .source("RFC 6888 REQ-14, RFC 7422")
                .example("256");
        /// What is logged: begin and end of each translated session, or of each port block (with `port_block`).
        pub log: NatLog = NatLog::Off => key().source("RFC 6888 section 4 and REQ-12").example("\"blocks\"");
        /// Where to; there is one if there is a log.
        pub log_file: Option<PathBuf> = None =>
            key().absent("required unless `off`").example("\"/var/log/sag/nat.log\"");
        /// TCP connections from the Internet to a port of the gateway's own address, if source NAT uses it and neither a
        /// host inside nor a socket of the gateway has the port: dropped in silence, or refused by the kernel. Write
        /// `kernel` if the kernel serves ports without a socket (IPVS, nftables' `redirect` or `dnat`, TPROXY), or by one
        /// that is bound to a VLAN device.
        pub closed_ports: ClosedPorts = ClosedPorts::Drop => key().source("RFC 5382 REQ-4");
        /// When the routes prefer another WAN port, sessions that are translated to an address of the one before stay there
        /// while it can be used, or end at once, so that hosts begin anew by the preferred one.
        /// [Figures of both](wans.md#when-a-line-fails-and-comes-back).
        pub wan_sessions: WanSessions = WanSessions::Sticky => key();
        /// Inside hosts reach each other by their outside addresses.
        pub hairpin: bool = true => key().source("RFC 4787 REQ-9, RFC 5382 REQ-8, RFC 5508 REQ-7");
    }
}

impl Nat {
    /// First port that source NAT may use.
    pub const MIN_PORT: u16 = MIN_NAT_PORT;
}

table! {
    /// Source NAT to addresses of your choice, one or several: towards overlay and leased line, or to the Internet. Of
    /// overlapping blocks the longest wins. Entries that share an address have equal behaviours.
    /// [How hosts share several addresses](nat.md#several-addresses-for-an-entry).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Snat as RawSnat, SnatKeys, ReadSnat {
        /// Identifier; the default counts in the order of the file.
        id: String as Identifier => key().allowed("unique").absent("`snat-N`");
        /// Towards overlay and leased line, or by WAN ports to the Internet, in place of their own `snat`.
        pub r#type: DnatType = DnatType::Intranet => key();
        /// By this WAN port alone; its entries go before those without a port.
        port: Option<String> as Option<Spelled> =>
            key().called("port name").allowed("of role `wan`, with type `Internet`").absent("all WAN ports");
        /// Sources to translate.
        cidr_block: IpNet as Network =>
            key()
                .called("CIDR or group")
                .allowed("IPv4, once for a type and port")
                .source("AddSnatEntry `CidrBlock`")
                .refused_as("InvalidParameter")
                .missing("write the CIDR block to translate", "MissingParameter");
        /// What they become; may be an address of a port.
        pub snat_ip: Option<Ipv4Addr> as Option<Ipv4Unicast> =>
            key()
                .allowed("IPv4, not one that a DNAT forwards as a whole")
                .absent("required without `pool`")
                .source("AddSnatEntry `SnatIp`")
                .refused_as("InvalidParameter");
        /// Or one of these, beside `snat_ip`: addresses, `first-last` and prefixes, of which all addresses are used.
        pub pool: Vec<AddressRange> as AddressRanges =>
            key().allowed("IPv4; of all entries 64 addresses together").absent("`snat_ip` alone");
        /// All sessions of a host have one address of the pool, or each of its ports has its own.
        pub pooling: NatPooling = NatPooling::Paired => key().source("RFC 4787 REQ-2, RFC 7857 section 4");
        /// A session whose address has no port left is refused, or gets another address.
        pub when_full: WhenFull = WhenFull::Refuse => key().source("RFC 7857 section 4");
        /// Sessions that share an outside port.
        mapping: NatBehavior = NatBehaviors::default().mapping =>
            key().source("RFC 4787 section 4.1, REQ-1; RFC 5382 REQ-1").refused_as("InvalidParameter");
        /// Remote endpoints that reach it.
        filtering: NatBehavior = NatBehaviors::default().filtering =>
            key().source("RFC 4787 section 5, REQ-8; RFC 5382 REQ-3").refused_as("InvalidParameter");
    }
    parts {
        /// Unique identifier.
        id: String,
        /// The one WAN port by which it holds.
        port: Option<PortIdx>,
        /// Sources to translate.
        cidr_block: NetworkMatch,
        /// How it maps and filters.
        behavior: NatBehaviors,
    }
}

impl Snat {
    /// What sources become one of, each once, in order.
    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        each_once(self.snat_ip, &self.pool)
    }
}

fn each_once(first: Option<Ipv4Addr>, pool: &[AddressRange]) -> Vec<Ipv4Addr> {
    let mut all: Vec<_> = first.into_iter().collect();
    for addr in pool.iter().flat_map(|r| r.addresses()) {
        if !all.contains(&addr) {
            all.push(addr);
        }
    }
    all
}

table! {
    /// Destination NAT: what is reached from outside.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Dnat as RawDnat, DnatKeys, ReadDnat {
        /// Identifier; the default counts in the order of the file.
        id: String as Identifier => key().allowed("unique").absent("`fwd-N`");
        /// Arriving from overlay and leased line, or from the Internet.
        r#type: DnatType = DnatType::Intranet => key().source("AddDnatEntry `Type`").refused_as("IllegalParam");
        /// Protocol that is forwarded.
        ip_protocol: String as Spelled =>
            key()
                .called("word")
                .allowed("`tcp`, `udp`, `any`, in any case")
                .source("AddDnatEntry `IpProtocol`")
                .refused_as("IllegalParam")
                .missing("write \"tcp\", \"udp\" or \"any\"", "MissingParam");
        /// Address that is forwarded; `""`: all addresses of the WAN ports.
        external_ip: String as Spelled =>
            key()
                .called("IP address")
                .allowed("IPv4")
                .absent("`\"\"` with Internet, else required")
                .source("AddDnatEntry `ExternalIp`")
                .refused_as("IllegalParam");
        /// Ports that are forwarded.
        external_port: String as Protocol =>
            key()
                .called("port, range or group")
                .allowed("1..65535, as in `8080` or `8000/8010`; `any` with protocol `any`")
                .absent("required unless `any`")
                .source("AddDnatEntry `ExternalPort`; ranges are ours")
                .refused_as("IllegalParam")
                .missing(DNAT_PORTS, "MissingParam");
        /// Server in the branch; not the gateway itself.
        pub internal_ip: Ipv4Addr as Ipv4Unicast =>
            key()
                .allowed("IPv4")
                .source("AddDnatEntry `InternalIp`")
                .refused_as("IllegalParam")
                .missing("write the address of the server", "MissingParam");
        /// The VRF of the server, which needs a route that [leaks](vrf.md#leaks) to where packets for it come from.
        pub vrf: Option<String> as Option<Identifier> => key().called("VRF name").absent("the default VRF");
        /// The n-th external port becomes the n-th internal.
        internal_port: String as Protocol =>
            key()
                .called("port or range")
                .allowed("as many ports as `external_port`; `any` with protocol `any`")
                .absent("required unless `any` or a group, whose ports stay")
                .source("AddDnatEntry `InternalPort`; ranges are ours")
                .refused_as("IllegalParam")
                .missing(DNAT_PORTS, "MissingParam");
    }
    parts {
        /// Unique identifier.
        id: String,
        /// From where it is reached.
        kind: DnatType,
        /// `None` with [`DnatType::Internet`]: all addresses of the WAN ports.
        external_ip: Option<Ipv4Addr>,
        /// What is forwarded.
        service: DnatService,
    }
}

table! {
    /// Networks that are translated as a whole, one address for another, in both directions: IPv4 keeps the host bits,
    /// IPv6 is translated by RFC 6296 (NPTv6). [What it does](nat.md#whole-networks).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct StaticNat as RawStaticNat, StaticNatKeys, ReadStaticNat {
        /// Identifier; the default counts in the order of the file.
        id: String as Identifier => key().allowed("unique").absent("`static-N`");
        /// Towards the Internet, by WAN ports, or towards overlay and leased line.
        pub r#type: DnatType = DnatType::Internet => key();
        /// By this WAN port alone; its entries go before those without a port.
        port: Option<String> as Option<Spelled> =>
            key().called("port name").allowed("of role `wan`, with type `Internet`").absent("all WAN ports");
        /// The network as it is inside.
        internal: IpNet as Network =>
            key()
                .allowed("IPv6 of at most 64 bits")
                .source("RFC 6296 section 3")
                .missing("write the network inside", "");
        /// The VRF of the network inside.
        pub vrf: Option<String> as Option<Identifier> => key().called("VRF name").absent("the default VRF");
        /// The network by which it is known outside.
        external: IpNet as Network =>
            key()
                .allowed("of the same version; IPv4 of the same length, IPv6 of at most 64 bits")
                .missing("write the network by which it is known outside", "");
    }
    parts {
        /// Unique identifier.
        id: String,
        /// The one WAN port by which it holds.
        port: Option<PortIdx>,
        /// The network as it is inside.
        internal: IpNet,
        /// The network by which it is known outside.
        external: IpNet,
    }
}

table! {
    /// A prefix behind which IPv6 hosts reach IPv4 ones (RFC 6146): hosts of the LAN that have no IPv4 address. What they
    /// call by name they find there if the resolver does DNS64. [What it does](nat.md#nat64).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Nat64 as RawNat64, Nat64Keys, ReadNat64 {
        /// Identifier; the default counts in the order of the file.
        id: String as Identifier => key().allowed("unique").absent("`nat64-N`");
        /// The prefix. Behind the well-known one private addresses are not reached.
        pub prefix: Option<IpNet> as Option<Network> =>
            key()
                .allowed("IPv6 of 32, 40, 48, 56, 64 or 96 bits; none overlap")
                .absent("`64:ff9b::/96`")
                .source("RFC 6052 sections 2.1, 2.2 and 3.1");
        /// What sources become; may be an address of a port.
        pub snat_ip: Option<Ipv4Addr> as Option<Ipv4Unicast> =>
            key()
                .allowed("IPv4, not a DNAT's external address")
                .absent("without `pool`: the addresses of the WAN port by which they leave, as its `snat` has them");
        /// Or one of these, beside `snat_ip`, the same for all sessions of a host.
        pub pool: Vec<AddressRange> as AddressRanges =>
            key().allowed("IPv4; of all entries 64 addresses together").absent("`snat_ip` alone");
        /// Remote endpoints that reach an outside port of `snat_ip` and `pool`; those of a WAN port are its own
        /// `snat_filtering`'s.
        pub filtering: NatBehavior = NatBehaviors::default().filtering => key().source("RFC 6146 section 3.5.1");
    }
    parts {
        /// Unique identifier.
        id: String,
    }
}

impl Nat64 {
    /// 64:ff9b::/96 (RFC 6052 section 2.1).
    pub const WELL_KNOWN: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
    /// Lengths of a prefix (RFC 6052 section 2.2).
    pub const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

    /// The prefix.
    pub fn network(&self) -> Ipv6Net {
        match self.prefix {
            Some(IpNet::V6(n)) => n,
            _ => Nat64::WELL_KNOWN,
        }
    }

    /// What sources become one of, each once, in order; none: addresses of WAN ports.
    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        each_once(self.snat_ip, &self.pool)
    }
}

table! {
    /// A TCP service behind a WAN port that is protected from floods of SYNs; see [SYN cookies](syn-cookies.md).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct SynCookies as RawSynCookies, SynCookiesKeys, ReadSynCookies {
        /// Identifier; the default counts in the order of the file.
        id: String as Identifier => key().allowed("unique").absent("`syn-N`");
        /// The service's address as its clients know it: the external address of a `[[dnat]]` entry, or a server's own.
        pub address: Option<IpAddr> as Option<Unicast> =>
            key().allowed("unicast").absent("the IPv4 addresses of the WAN ports");
        /// The service's port as its clients know it.
        pub port: u16 => key().range(1, 65_535).missing("write the port of the service", "").example("443");
        /// When SYNs are answered with cookies.
        pub mode: SynCookieMode = SynCookieMode::Auto => key().source("RFC 4987 section 3.6");
        /// With `auto`: cookies are sent from so many new SYNs a second on, until fewer than half of that have come for
        /// half a minute.
        pub rate: u32 = 200 => key().range(1, 10_000_000).unit("1/s");
    }
    parts {
        /// Unique identifier.
        id: String,
    }
}

/// How ports of a DNAT entry are written.
pub(crate) const DNAT_PORTS: &str = "write a port from 1 to 65535, or first/last as in \"8000/8010\"";
