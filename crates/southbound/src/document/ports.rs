//! Ports, addresses and routing.

use crate::wire::{Secret, wire_object};
use crate::words::{AddressMode, HaMode, PortRole, RouteProtocol};

wire_object! {
    /// A port of the device (ModifySagPortRole, DescribeSagPortList).
    pub struct PortEntry {
        /// Name of the port, such as `0`.
        port_name: String = "PortName",
        /// What it is for; absent: not used.
        role: Option<PortRole> = "Role",
        /// `Up` or `Down`.
        status: String = "Status",
        /// Ethernet address.
        mac: String = "Mac",
    }

    /// A WAN port (ModifySagWan).
    pub struct Wan {
        /// How the port gets its address.
        ip_type: Option<AddressMode> = "IPType",
        /// The address, if it is static.
        ip: String = "IP",
        /// Its mask, such as `255.255.255.0`.
        mask: String = "Mask",
        /// The next hop of the port's default route.
        gateway: String = "Gateway",
        /// Metric of the default route; the lowest is preferred.
        priority: Option<i64> = "Priority",
        /// Share among ports of one priority.
        weight: Option<i64> = "Weight",
        /// `CT`, `CM`, `CU` or `Other`.
        isp: String = "ISP",
        /// Mbit/s; 0: not limited.
        bandwidth: Option<i64> = "Bandwidth",
        /// User name for PPPoE.
        username: String = "Username",
        /// Password for PPPoE.
        password: Secret = "Password",
    }

    /// A LAN port (ModifySagLan).
    pub struct Lan {
        /// `Dhcp`: the device serves addresses on the port.
        ip_type: Option<AddressMode> = "IPType",
        /// The device's address.
        ip: String = "IP",
        /// Its mask.
        mask: String = "Mask",
        /// First address that is served.
        start_ip: String = "StartIp",
        /// Last address that is served.
        end_ip: String = "EndIp",
        /// How long an address is served.
        lease: String = "Lease",
    }

    /// A leased line: a whole port, or one of its VLANs (CreateSagExpressConnectInterface).
    pub struct LeasedLine {
        /// 0..4094; 0 is the whole port.
        vlan: Option<i64> = "Vlan",
        /// The device's address.
        ip: String = "IP",
        /// Its mask.
        mask: String = "Mask",
    }

    /// Address of the management port (ModifySagManagementPort).
    pub struct Management {
        /// The address.
        ip: String = "IP",
        /// Its mask.
        mask: String = "Mask",
        /// The next hop.
        gateway: String = "Gateway",
    }

    /// BGP of the device (ModifySagRouteProtocolBgp).
    pub struct Bgp {
        /// Router identifier.
        router_id: String = "RouterId",
        /// The device's autonomous system.
        local_as: Option<i64> = "LocalAs",
        /// Seconds.
        hold_time: Option<i64> = "HoldTime",
        /// Seconds.
        keep_alive: Option<i64> = "KeepAlive",
    }

    /// OSPF of the device (ModifySagRouteProtocolOspf).
    pub struct Ospf {
        /// Router identifier.
        router_id: String = "RouterId",
        /// The area.
        area_id: Option<i64> = "AreaId",
        /// Seconds.
        dead_time: Option<i64> = "DeadTime",
        /// Seconds.
        hello_time: Option<i64> = "HelloTime",
        /// `NONE`, `CLEARTEXT` or `MD5`.
        authentication_type: String = "AuthenticationType",
        /// Number of the MD5 key.
        md5_key_id: Option<i64> = "Md5KeyId",
        /// The MD5 key.
        md5_key: Secret = "Md5Key",
        /// The password of clear-text authentication.
        password: Secret = "Password",
    }

    /// Routing protocol of a port (ModifySagPortRouteProtocol).
    pub struct PortProtocol {
        /// The protocol.
        route_protocol: Option<RouteProtocol> = "RouteProtocol",
        /// VLAN of a leased line.
        vlan: Option<i64> = "Vlan",
        /// BGP: the peer.
        remote_ip: String = "RemoteIp",
        /// BGP: the peer's autonomous system.
        remote_as: String = "RemoteAs",
    }

    /// A static route (CreateSagStaticRoute).
    pub struct StaticRoute {
        /// Port that it leaves by.
        port_name: String = "PortName",
        /// VLAN of a leased line; 0: none.
        vlan: Option<i64> = "Vlan",
        /// The destination block.
        destination: String = "DestinationCidr",
        /// Address of the next hop.
        next_hop: String = "NextHop",
    }

    /// DNS servers (ModifySagUserDns).
    pub struct Dns {
        /// The first server.
        master: String = "MasterDns",
        /// The second server.
        slave: String = "SlaveDns",
    }

    /// A domain with DNS servers of its own (AddSmartAccessGatewayDnsForward).
    pub struct DnsForward {
        /// Identifier.
        id: String = "InstanceId",
        /// The domain; `*.` in front stands for every name below it.
        domain: String = "Domain",
        /// The first server.
        master: String = "MasterIp",
        /// The second server.
        slave: String = "SlaveIp",
        /// How queries leave: `Tunnel`, `PhysicalPort` or empty.
        outbound_port_type: String = "OutboundPortType",
        /// Number of the port that queries leave by.
        outbound_port_index: Option<i64> = "OutboundPortIndex",
        /// Name of the port that queries leave by.
        outbound_port_name: String = "OutboundPortName",
    }

    /// High availability (ModifySagHa).
    pub struct HighAvailability {
        /// How.
        mode: Option<HaMode> = "Mode",
        /// LAN port of the virtual address.
        port_name: String = "PortName",
        /// The virtual address.
        virtual_ip: String = "VirtualIp",
    }

    /// A device's end of the link by which sessions follow to the other device of its instance.
    pub struct SessionLink {
        /// Where the link ends.
        address: String = "Address",
        /// 64 hexadecimal digits, an X25519 public key.
        public_key: String = "PublicKey",
        /// Who signed: 64 hexadecimal digits, an Ed25519 public key.
        identity: String = "Identity",
        /// The signature: 128 hexadecimal digits.
        signature: String = "Signature",
    }

    /// The other device's end.
    pub struct SessionPeer {
        /// Serial number.
        smart_ag_sn: String = "SmartAGSn",
        /// As the device has announced it.
        link: SessionLink = "SessionLink",
    }
}
