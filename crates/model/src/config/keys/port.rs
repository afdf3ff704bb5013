//! Keys of VRFs, ports, neighbours and routes: `[[vrf]]`, `[[port]]`, `[[neighbor]]`, `[[route]]`.

use crate::config::schema::{Identifier, List, Network, NetworkDevice, Spelled, Unicast, key, table};
use crate::config::types::{MAX_MBPS, Mbps, NatBehavior, NatBehaviors, RejectKind, ReversePath, RouteTarget};
use crate::ids::{MacAddr, PortIdx, Role, VlanId, Zone};
use ipnet::IpNet;
use std::net::IpAddr;

table! {
    /// A VRF: ports, tunnels and routes apart from those of others, whose networks may overlap. [What is apart, and how
    /// one leads into another](vrf.md).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Vrf as RawVrf, VrfKeys, ReadVrf {
        /// What ports, tunnels, routes and translations call it.
        pub name: String as Identifier =>
            key().allowed("unique; of at most 63").missing("name the VRF, as in name = \"branch-a\"", "").source("RFC 4364 3");
        /// The kernel's routing table whose routes are the VRF's, see [VRFs](vrf.md#the-kernel).
        pub table: Option<u32> = None =>
            key().range(1, 4_294_967_295).absent("that of the kernel's VRF device in which the VRF's ports are, if any");
    }
}

table! {
    /// A port of the gateway.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Port as RawPort, PortKeys, ReadPort {
        /// What the rest of the file, logs and metrics call it.
        pub name: String as Identifier =>
            key()
                .allowed("unique among ports and tunnels")
                .missing("name the port, as in name = \"0\"", "")
                .source("`PortName`");
        /// Linux network device; its addresses, neighbours and routes come from the kernel.
        pub device: String as NetworkDevice =>
            key()
                .allowed("1..15 bytes")
                .missing("name the Linux network device, as in device = \"eth0\"", "");
        /// The port is this 802.1Q VLAN of the device.
        pub vlan: Option<VlanId> =>
            key()
                .allowed("1..4094")
                .absent("untagged")
                .source("CreateSagStaticRoute `Vlan`")
                .refused_as("Sag.EccVlanNotExist");
        /// The VRF that it is in, with its addresses and networks.
        pub vrf: Option<String> as Option<Identifier> => key().called("VRF name").absent("the default VRF");
        /// Branch network, Internet, leased line (express), or left to the kernel (mgmt).
        pub role: Role => key().refused_as("Sag.PortRoleInvalid").missing("", "Sag.PortRoleInvalid");
        /// In addition to the kernel's: for `sag-vcpe replay`, and for VLANs that the kernel does not know.
        addresses: Vec<IpNet> as List =>
            key().allowed("host addresses with the network's prefix length").absent("none");
        /// In place of the device's.
        pub mac: Option<MacAddr> => key().allowed("unicast").absent("the device's");
        /// In place of the device's.
        pub mtu: Option<u16> => key().range(68, 65_535).unit("bytes").absent("the device's");
        /// TCP SYNs that come or leave by the port get an MSS that fits its MTU: for lines whose far ends do not hear of a
        /// smaller MTU, such as [PPPoE](pppoe.md).
        pub mss_clamp: bool = false => key().allowed("not of role `mgmt`").source("RFC 9293 3.7.1, RFC 2923 section 2.1");
        /// Translate IPv4 sources to an address of the port.
        pub snat: bool = false => key().allowed("`wan` only").source("ModifySagWanSnat `Snat`");
        /// As `mapping` of [snat](#source-nat-snat); only with `snat = true`.
        snat_mapping: NatBehavior = NatBehaviors::default().mapping =>
            key().source("RFC 4787 REQ-1, RFC 5382 REQ-1");
        /// As `filtering` of [snat](#source-nat-snat); only with `snat = true`.
        snat_filtering: NatBehavior = NatBehaviors::default().filtering =>
            key().source("RFC 4787 REQ-8, RFC 5382 REQ-3");
        /// In place of the metric of the port's default routes: the lowest is preferred, ports of one priority share what
        /// begins by `weight`. -1 of a `mgmt` port: its default routes are the kernel's alone. [Several
        /// WANs](wans.md).
        pub priority: Option<i64> =>
            key()
                .range(-1, 65_535)
                .allowed("`wan`; -1 is for `mgmt`")
                .absent("the metric of the route")
                .source("ModifySagWan `Priority`");
        /// Share among the WAN ports of one `priority`.
        pub weight: u16 = 100 => key().range(1, 100).allowed("`wan` only").source("ModifySagWan `Weight`");
        /// What watches the line has found that it leads nowhere: as with a dead link others are preferred, and what is
        /// translated to its addresses ends. Without others it is used all the same.
        pub failed: bool = false => key().allowed("`wan` only").source("CreateHealthCheck");
        /// Hosts behind it may ask for ports outside, within [their limits](#port-mapping-port_mapping).
        pub port_mapping: bool = false => key().allowed("`lan` only").source("RFC 6887, RFC 6886");
        /// Which sources may [come in by the port](limits.md#sources): those to which the route leads back by it; by it
        /// as far as any route goes, or by a port of its role; any that has a route; all.
        pub reverse_path: Option<ReversePath> =>
            key().absent("`strict` of role `lan`, else `feasible`").source("RFC 3704, RFC 8704");
        /// Each direction by itself: what leaves by the port, and what arrived by it and leaves by another.
        pub bandwidth: Option<Mbps> = None =>
            key()
                .range(0, MAX_MBPS)
                .unit("Mbit/s")
                .absent("0 = unlimited")
                .source("ModifySagWan `Bandwidth`");
    }
    parts {
        /// Addresses in addition to the kernel's, with the prefix length of the attached network.
        addresses: Vec<IpNet>,
        /// How `snat` maps and filters.
        snat_behavior: NatBehaviors,
    }
}

impl Port {
    /// The zone of its role; `None` for ports that are left to the kernel.
    pub const fn zone(&self) -> Option<Zone> {
        self.role.zone()
    }

    /// Which sources may come in by it.
    pub fn reverse_path(&self) -> ReversePath {
        self.reverse_path.unwrap_or(ReversePath::of_role(self.role))
    }
}

table! {
    /// A static entry of the neighbour table.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Neighbor as RawNeighbor, NeighborKeys, ReadNeighbor {
        /// Where the neighbour is.
        port: String as Spelled => key().called("port name").allowed("not of role `mgmt`").missing("name the port", "");
        /// The neighbour's address.
        pub address: IpAddr as Unicast =>
            key().allowed("unicast, not the gateway's").missing("write the neighbour's IP address", "");
        /// The neighbour's Ethernet address.
        pub mac: MacAddr => key().allowed("unicast").missing("write the neighbour's Ethernet address", "");
    }
    parts {
        /// Where the neighbour is.
        port: PortIdx,
    }
}

table! {
    /// A static route. Routes of equal destination and metric share the traffic by weight.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Route as RawRoute, RouteKeys, ReadRoute {
        /// Network that the route leads to.
        pub destination: IpNet as Network =>
            key()
                .allowed("unicast")
                .missing("write the CIDR block that the route leads to", "")
                .source("CreateSagStaticRoute `DestinationCidr`");
        /// The VRF whose packets go by it. Port and tunnel may be of another one: then the route [leaks](vrf.md#leaks).
        pub vrf: Option<String> as Option<Identifier> => key().called("VRF name").absent("the default VRF");
        /// Next router.
        next_hop: Option<IpAddr> as Option<Unicast> =>
            key().allowed("of the destination's IP version").source("CreateSagStaticRoute `NextHop`");
        /// Beside `next_hop`: where it is; alone: destinations are neighbours there.
        port: Option<String> as Option<Spelled> =>
            key()
                .called("port name").allowed("not of role `mgmt`")
                .absent("by `next_hop`")
                .source("CreateSagStaticRoute `PortName`");
        /// Through that tunnel.
        tunnel: Option<String> as Option<Spelled> => key().called("tunnel name");
        /// Drop silently, or answer host unreachable or administratively prohibited.
        r#type: Option<RejectKind> => key();
        /// The lowest wins.
        pub metric: u32 = 0 => key().range(0, u32::MAX as i64);
        /// Share among equals.
        pub weight: u16 = 1 => key().range(1, 256);
    }
    parts {
        /// Where the route leads.
        target: RouteTarget,
    }
}
