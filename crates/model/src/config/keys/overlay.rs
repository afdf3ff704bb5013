//! Keys of tunnels and of the flow log: `[[tunnel]]`, `[flow_log]`.

use crate::config::schema::{
    Collector, HexKey, Identifier, List, NetworkDevice, OrZero, Unicast, ZeroIsNone, key, table,
};
use crate::config::types::{
    Encap, EspCipher, Fec, FragmentAt, Keying, NetflowVersion, OuterDf, OuterDscp, Probing, ReversePath,
    Secret, TunnelKind,
};
use crate::ids::MacAddr;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

table! {
    /// A tunnel.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Tunnel as RawTunnel, TunnelKeys, ReadTunnel {
        /// What routes, logs and metrics call it.
        pub name: String as Identifier =>
            key()
                .allowed("unique among ports and tunnels")
                .missing("name the tunnel, as in name = \"pop1\"", "");
        /// Kind of tunnel.
        kind: TunnelKind => key().source("RFC 7348, 2784 and 2890, 2003, 4303");
        /// Outer address of the gateway.
        pub local: IpAddr as Unicast => key().allowed("unicast").missing("write the gateway's outer address", "");
        /// Outer address of the peer.
        pub remote: IpAddr as Unicast =>
            key().allowed("unicast, of the same version").missing("write the peer's outer address", "");
        /// The VRF of the packets inside; those outside are in the default one.
        pub vrf: Option<String> as Option<Identifier> => key().called("VRF name").absent("the default VRF");
        /// IP bytes inside; 0: from the path.
        pub mtu: Option<u16> as ZeroIsNone<u16> = None =>
            key()
                .range(576, 65_535)
                .unit("bytes")
                .allowed("0, 576..65535")
                .remedy("write a number from 576 to 65535, or 0 for the path's");
        /// The gateway's own addresses inside; their networks are reached through the tunnel.
        addresses: Vec<IpNet> as List => key().allowed("unicast, no address of a port").absent("none");
        /// Name of [the kernel's device of the tunnel](tunnels.md#a-device-of-the-kernel), by which the machine's own
        /// programs use it.
        pub device: Option<String> as Option<NetworkDevice> =>
            key().called("device name").allowed("a name that no device has, at most 15 bytes").absent("none");
        /// Packets for the machine itself that each worker gives to the device; more are dropped (`tunnel-local-rate`).
        pub device_rate: u32 = 50_000 => key().range(1, 10_000_000).unit("1/s");
        /// Networks from which packets for the machine itself may come out of the tunnel, whether a route leads there or not.
        device_sources: Vec<IpNet> as List => key().allowed("networks").absent("as for all others");
        /// Networks from which packets may come out of the tunnel, in place of `reverse_path`; the networks of
        /// `addresses` may in any case.
        sources: Vec<IpNet> as List => key().allowed("networks").absent("by `reverse_path`");
        /// Which sources may [come out of the tunnel](tunnels.md#sources): those to which the route leads back into it;
        /// those of all routes into it, in use or not; any that has a route; all.
        pub reverse_path: ReversePath = ReversePath::Feasible => key().source("RFC 3704, RFC 8704");
        /// TTL or hop limit outside.
        pub ttl: u8 = 64 => key().range(1, 255).source("RFC 2003 3.1");
        /// "Don't fragment" of the outer IPv4 header: set, as inside, clear.
        pub df: OuterDf = OuterDf::Set => key().source("RFC 2003 3.1, RFC 6864");
        /// Code point outside: copied in; copied in and back out; fixed.
        pub dscp: OuterDscp = OuterDscp::Copy => key().allowed("`copy`, `uniform`, 0..63").source("RFC 2983, RFC 6040");
        /// Which packet is split if it is too large; `outer` excludes `df = "set"`.
        pub fragment: FragmentAt = FragmentAt::Inner => key().source("RFC 4459");
        /// TCP SYNs that pass get an MSS that fits.
        pub mss_clamp: bool = true => key().source("RFC 9293 3.7.1");
        /// Network identifier.
        vni: u32 =>
            key()
                .range(0, 0xff_ffff)
                .of_kind("vxlan")
                .missing("write the VXLAN network identifier", "")
                .source("RFC 7348")
                .example("100");
        /// UDP port.
        port: u16 = 4789 => key().range(1, 65_535).of_kind("vxlan").source("RFC 7348");
        /// Sent with a UDP checksum; what is neither TCP nor UDP then
        /// [goes through a worker](tunnels.md#fast-path).
        udp_checksum: Option<bool> =>
            key()
                .of_kind("vxlan")
                .absent("`true` over IPv6, `false` over IPv4")
                .source("RFC 6935, 6936");
        /// The gateway's address inside.
        mac: Option<MacAddr> => key().of_kind("vxlan").allowed("unicast").absent("derived from `local` and `vni`");
        /// ARP requests and neighbor solicitations through the tunnel are answered for hosts that the gateway forwards to,
        /// [for a far end whose route names no router](tunnels.md#ethernet-inside-vxlan).
        pub proxy_arp: bool = true => key().of_kind("vxlan").source("RFC 1027, RFC 4861 7.2.8");
        /// The peer's address inside.
        remote_mac: Option<MacAddr> => key().of_kind("vxlan").allowed("unicast").absent("learned");
        /// Sent and expected; without it packets with a key are refused.
        key: Option<u32> => key().range(0, u32::MAX as i64).of_kind("gre").absent("none").source("RFC 2890");
        /// Sent; one that is received is checked anyway. Packets then go through a worker.
        checksum: bool = false => key().of_kind("gre").source("RFC 2784");
        /// Sent; those that are received are ignored. Packets then go through a worker.
        sequence: bool = false => key().of_kind("gre").source("RFC 2890");
        /// Association that we receive.
        spi_in: u32 =>
            key()
                .range(256, u32::MAX as i64)
                .of_kind("esp")
                .missing("write the security parameters index", "")
                .source("RFC 4303 2.1");
        /// Association that we send.
        spi_out: u32 =>
            key()
                .range(256, u32::MAX as i64)
                .of_kind("esp")
                .missing("write the security parameters index", "")
                .source("RFC 4303 2.1");
        /// AES-128 or AES-256-GCM key, then the 4-byte salt; 72 digits for ChaCha20-Poly1305. Sample values: make
        /// your own with `openssl rand -hex 36`, one for each direction.
        key_in: Secret as HexKey =>
            key().allowed("40 or 72 digits").of_kind("esp").secret().source("RFC 4106, RFC 7634");
        /// Likewise; never the same as another key.
        key_out: Secret as HexKey => key().allowed("40 or 72 digits").of_kind("esp").secret().source("RFC 4106");
        /// ESP in UDP.
        udp_encap: bool = false => key().of_kind("esp").source("RFC 3948");
        /// UDP port of both ends.
        udp_port: u16 = 4500 => key().range(1, 65_535).of_kind("esp").source("RFC 3948");
        /// With `udp_encap`: nothing sent for so long, one byte 0xFF keeps NAT's binding; 0: never.
        pub keepalive: u16 = 20 => key().range(0, 3_600).unit("s").of_kind("esp").source("RFC 3948 2.3, 4");
        /// Cipher; the key's length decides between AES-128 and AES-256.
        cipher: EspCipher = EspCipher::AesGcm => key().of_kind("esp").source("RFC 4106, RFC 7634");
        /// `agreed`: no `spi_*` and `key_*`; [tunnels-keys.md](tunnels-keys.md).
        keying: Keying = Keying::Manual => key().of_kind("esp").source("RFC 9061");
        /// 64-bit sequence numbers; both ends alike.
        esn: bool = true => key().of_kind("esp").source("RFC 4303 2.2.1");
        /// Packets that others of the tunnel overtake by more, from a shorter queue of another worker, are lost
        /// (`esp-replay`).
        replay_window: u32 = 16_384 =>
            key().range(64, 1 << 20).unit("packets").of_kind("esp").source("RFC 4303 3.4.3");
        /// Forward error correction of what is sent: [tunnels.md](tunnels.md#forward-error-correction); excludes
        /// `fragment = "outer"`.
        fec: bool = false => key().of_kind("esp").source("`OptimizationType` \"fec\"");
        /// After so many packets the repairs are sent.
        fec_window: u8 = 20 => key().range(2, 32).unit("packets").of_kind("esp");
        /// Lost packets of a window that can be recovered, at most `fec_window`; one: exclusive or, more: Reed-Solomon.
        fec_repairs: u8 = 4 => key().range(1, 8).unit("packets").of_kind("esp");
        /// After which a window gets its repairs though it is not full.
        fec_delay: u32 = 20 => key().range(1, 1_000).unit("ms").of_kind("esp");
        /// Between probes of the far end; 0: never. A peer that has never answered is not taken for down.
        probe_interval: u32 as OrZero<u32> = 1_000 =>
            key()
                .range(20, 60_000)
                .unit("ms")
                .allowed("0, 20..60000")
                .remedy("write 20 to 60000 milliseconds, or 0 for no probes");
        /// Probes without answer, one after the other, that make the tunnel down.
        probe_loss: u8 = 3 => key().range(1, 20);
        /// Pinged inside the tunnel, if the peer is no `sag-vcpe`.
        probe_target: Option<IpAddr> as Option<Unicast> => key().allowed("unicast").absent("none");
    }
    parts {
        /// The gateway's own addresses inside the tunnel.
        addresses: Vec<IpNet>,
        /// Networks from which the machine itself may be spoken to.
        device_sources: Vec<IpNet>,
        /// Networks behind the peer; none: by `reverse_path`.
        sources: Vec<IpNet>,
        /// Whether the far end answers.
        probing: Probing,
        /// Forward error correction; kind `esp` only.
        fec: Option<Fec>,
        /// Kind, and the keys of that kind.
        encap: Encap,
    }
}

table! {
    /// Export of flow records.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct FlowLog as RawFlowLog, FlowLogKeys, ReadFlowLog {
        /// Between reports on a living flow.
        pub active_aging: u32 = 300 =>
            key()
                .range(60, 6_000)
                .unit("s")
                .source("CreateFlowLog `ActiveAging`")
                .refused_as("IllegalParam.ActiveAging");
        /// Silence after which a flow is reported as ended.
        pub inactive_aging: u32 = 15 =>
            key()
                .range(10, 600)
                .unit("s")
                .source("CreateFlowLog `InactiveAging`")
                .refused_as("IllegalParam.InactiveAging");
        /// Collector.
        pub netflow_server: SocketAddr as Collector =>
            key()
                .allowed("`address:port`; port 9995 if left out")
                .source("CreateFlowLog `NetflowServerIp`, `NetflowServerPort`")
                .refused_as("IllegalParam.NetflowServerIp")
                .missing(
                    "write the collector's address and port, as in \"192.0.2.10:9995\"",
                    "MissingParam.NetflowServerIp",
                );
        /// Format; `V10` is IPFIX.
        pub netflow_version: NetflowVersion = NetflowVersion::V9 =>
            key()
                .source("CreateFlowLog `NetflowVersion`, RFC 3954, RFC 7011")
                .refused_as("IllegalParam.NetflowVersion");
    }
}
