//! Tunnels: what the workers know of them (`Tunnels`, in the snapshot), and what of that changes
//! without a new snapshot (`TunnelState`, shared with the control thread).

mod decap;
mod esp;
mod fast;
mod keepalive;
mod monitor;
mod path_mtu;
mod peer_mac;
mod reassembler;
mod source;
mod state;

pub use decap::{Decapsulated, decapsulate};
pub use esp::{EspEnds, EspOpened, EspPacket, EspSaTable, EspSas, find as find_esp, open as open_esp};
pub use keepalive::Keepalive;
pub use monitor::{Monitor, Question};
pub use path_mtu::{QuotedInside, learn_path_mtu};
pub use peer_mac::PeerMac;
pub use reassembler::{GivenUp, Put, Reassembler};
pub use state::{TunnelState, Watched};

use crate::hash::AddrHash;
pub use crate::ids::TunnelNo;
use crate::networks::Networks;
use sag_model::config::{Fec, FragmentAt, OuterDf, OuterDscp, Probing, ReversePath};
use sag_model::{DropReason, PortIdx, VrfNo, VrfZone, Zone};
use sag_packet::encap::{Encap, Fields, Template};
use sag_packet::proto::{IPV4_LEN, IPV6_LEN};
use sag_packet::rewrite::FrameMut;
use sag_packet::{Family, Parsed};
use sag_tunnel::fec::{REPAIR_HEADER, SOURCE_HEADER};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What an ESP packet carries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Carried<'a> {
    Packet,
    /// A packet with this in front of it.
    Source(&'a [u8; SOURCE_HEADER]),
    Repair,
}

/// Smallest MTU of an IPv6 link (RFC 8200 5): packets up to it are never refused as too big.
pub const MIN_MTU6: u16 = 1280;

/// What tells the packets of tunnels apart at their receiver, but for VNI and key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct End {
    /// The gateway's address.
    pub local: IpAddr,
    /// The peer's address.
    pub remote: IpAddr,
    /// IP protocol; [`sag_packet::proto::IPIP`] for both families inside.
    pub proto: u8,
    /// UDP port; 0 for other protocols.
    pub port: u16,
}

/// A tunnel.
#[derive(Debug, Clone)]
pub struct Tunnel {
    /// Its number.
    pub no: TunnelNo,
    /// Its name in the configuration.
    pub name: String,
    /// The gateway's outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: IpAddr,
    /// The headers that go in front of a packet.
    pub template: Template,
    /// The outer header's bit "don't fragment".
    pub df: OuterDf,
    /// The outer header's DSCP.
    pub dscp: OuterDscp,
    /// Whether packets are split inside the tunnel or outside.
    pub fragment: FragmentAt,
    /// The MSS of TCP is lowered to what fits.
    pub mss_clamp: bool,
    /// The outer UDP header has a checksum.
    pub udp_checksum: bool,
    /// The peer's Ethernet address inside is taken from what it sends.
    pub learns_mac: bool,
    /// The gateway answers on the inner link for hosts that it forwards to.
    pub proxy_arp: bool,
    /// Configured; `None`: from the path.
    pub mtu: Option<u16>,
    /// The gateway's own addresses inside.
    pub addrs4: Vec<(Ipv4Addr, u8)>,
    /// The same of IPv6.
    pub addrs6: Vec<(Ipv6Addr, u8)>,
    /// The kernel has a device of it, and gets what comes out of it for the gateway itself.
    pub device: bool,
    /// Packets a second that each worker gives to the device.
    pub device_rate: u32,
    /// Networks from which packets for the machine itself may come out of it, whatever routes say.
    pub device_sources: Arc<Networks>,
    /// Networks from which packets may come out of it; `None`: by `reverse_path`.
    pub sources: Option<Arc<Networks>>,
    /// Which sources may come out of it.
    pub reverse_path: ReversePath,
    /// The VRF of the packets inside; those outside are in the default one.
    pub vrf: VrfNo,
    /// The ports by which the peer's packets may come in, a bit for each.
    pub ingress: u64,
    /// The line to the Internet that has the gateway's outer address: no other carries packets from it.
    pub line: Option<PortIdx>,
    /// What changes without a new snapshot.
    pub state: Arc<TunnelState>,
    /// How the peer and the path are probed.
    pub probing: Probing,
    /// Seconds of silence after which NAT is reminded; 0: never.
    pub keepalive: u16,
    /// Error correction of what is sent; of kind `esp` only.
    pub fec: Option<Fec>,
    /// Where its associations are, if it encrypts.
    pub esp: Arc<EspSaTable>,
}

impl Tunnel {
    /// Where the packets inside come from.
    #[inline]
    pub const fn side(&self) -> VrfZone {
        VrfZone::new(Zone::Overlay, self.vrf)
    }

    /// Where its packets arrive.
    pub fn end(&self) -> End {
        let (proto, port) = match self.template.encap {
            Encap::Vxlan { port, .. } => (sag_packet::proto::UDP, port),
            Encap::Gre { .. } => (sag_packet::proto::GRE, 0),
            Encap::Ipip => (sag_packet::proto::IPIP, 0),
            Encap::Esp { udp: None } => (sag_packet::proto::ESP, 0),
            Encap::Esp { udp: Some(port) } => (sag_packet::proto::UDP, port),
        };
        End { local: self.local, remote: self.remote, proto, port }
    }

    /// The word for `kind`.
    pub const fn kind(&self) -> &'static str {
        match self.template.encap {
            Encap::Vxlan { .. } => "vxlan",
            Encap::Gre { .. } => "gre",
            Encap::Ipip => "ipip",
            Encap::Esp { .. } => "esp",
        }
    }

    /// VNI or key.
    pub fn id(&self) -> Option<u32> {
        match self.template.encap {
            Encap::Vxlan { vni, .. } => Some(vni),
            Encap::Gre { key, .. } => key,
            Encap::Ipip | Encap::Esp { .. } => None,
        }
    }

    /// Bytes that the tunnel adds to a packet.
    pub fn overhead(&self) -> u16 {
        self.template.overhead()
    }

    /// Bytes of an outer packet that the path carries in one piece.
    #[inline]
    pub fn path_mtu(&self) -> u16 {
        self.state.path_mtu()
    }

    /// Bytes of a packet inside that leave in one piece.
    #[inline]
    pub fn whole_mtu(&self) -> u16 {
        let most = self.inside_of(self.path_mtu());
        // A repair of the longest packet is to pass as well.
        let most = if self.fec.is_some() { most.saturating_sub(REPAIR_HEADER as u16) } else { most };
        most.min(self.mtu.unwrap_or(u16::MAX))
    }

    /// Bytes of a packet inside that the tunnel takes.
    #[inline]
    pub fn inner_mtu(&self) -> u16 {
        match self.fragment {
            FragmentAt::Inner => self.whole_mtu(),
            FragmentAt::Outer => self.mtu.unwrap_or_else(|| self.state.link_mtu()),
        }
    }

    /// Whether the XDP program can do all that the tunnel's packets need.
    pub fn is_plain(&self) -> bool {
        let more = match self.template.encap {
            Encap::Vxlan { .. } | Encap::Ipip => false,
            Encap::Gre { checksum, sequence, .. } => checksum || sequence,
            Encap::Esp { .. } => true,
        };
        !more && self.fragment == FragmentAt::Inner
    }

    /// The traffic class outside of a packet that has `tos` inside (RFC 6040 4.1, RFC 2983).
    #[inline]
    pub const fn outer_tos(&self, tos: u8) -> u8 {
        match self.dscp {
            OuterDscp::Fixed(n) => n << 2 | tos & 0b11,
            _ => tos,
        }
    }

    /// Puts the tunnel's header in front of the packet at `l3` of a frame, which begins with the
    /// outer IP header then. `split`: the outer packet will be split.
    ///
    /// # Errors
    ///
    /// The reason to drop the packet: [`DropReason::FrameTooBig`] without room for the headers; of kind `esp`
    /// [`DropReason::EspNoKeys`], [`DropReason::EspExhausted`] or [`DropReason::EspUnreserved`] without an association
    /// that can encrypt.
    pub fn enter(&self, f: &mut FrameMut<'_>, p: &Parsed, hash: u64, split: bool) -> Result<(), DropReason> {
        self.enter_as(f, p, hash, split, Carried::Packet)
    }

    /// The same with what error correction says of it, which is for ESP only.
    pub(crate) fn enter_as(
        &self,
        f: &mut FrameMut<'_>,
        p: &Parsed,
        hash: u64,
        split: bool,
        carried: Carried<'_>,
    ) -> Result<(), DropReason> {
        let (l3, len) = (usize::from(p.l3), usize::from(p.ip_len));
        if len + usize::from(self.overhead()) > usize::from(u16::MAX) {
            return Err(DropReason::FrameTooBig);
        }
        let df = !split
            && match self.df {
                OuterDf::Set => true,
                OuterDf::Copy => p.dont_fragment,
                OuterDf::Clear => false,
            };
        let fields = Fields {
            inner: p.family,
            tos: self.outer_tos(p.tos),
            dont_fragment: df,
            id: if df { 0 } else { self.state.next_id() },
            hash,
            sequence: match self.template.encap {
                Encap::Gre { sequence: true, .. } => self.state.sequence.fetch_add(1, Ordering::Relaxed),
                _ => 0,
            },
        };
        if self.is_esp() {
            return self.enter_esp(f, p, &fields, carried);
        }
        f.push(l3, len, usize::from(self.template.len)).map_err(|_| DropReason::FrameTooBig)?;
        let template = self.template_now();
        match template.write(f.bytes_mut(), &fields, self.udp_checksum) {
            true => Ok(()),
            false => Err(DropReason::FrameTooBig),
        }
    }

    /// The template with the peer's addresses as they are known by now.
    pub fn template_now(&self) -> Template {
        let mut t = self.template;
        if let (Encap::Vxlan { .. }, Some(mac)) = (t.encap, self.state.peer_mac()) {
            let at = usize::from(t.len) - sag_packet::proto::ETH_LEN;
            t.bytes[at..at + 6].copy_from_slice(&mac.0);
        }
        if let (Encap::Esp { udp: Some(_) }, Some(peer)) = (t.encap, self.state.source()) {
            let udp = match (t.outer, peer.ip()) {
                (Family::V4, IpAddr::V4(a)) => {
                    t.bytes[16..20].copy_from_slice(&a.octets());
                    IPV4_LEN
                }
                (Family::V6, IpAddr::V6(a)) => {
                    t.bytes[24..40].copy_from_slice(&a.octets());
                    IPV6_LEN
                }
                _ => return t,
            };
            t.bytes[udp + 2..udp + 4].copy_from_slice(&peer.port().to_be_bytes());
        }
        t
    }

    /// Where the peer is: its packets may come from another address than the configured one.
    #[inline]
    pub fn remote_now(&self) -> IpAddr {
        match self.state.source() {
            Some(peer) if self.is_esp() => peer.ip(),
            _ => self.remote,
        }
    }

    /// The gateway's Ethernet address inside.
    pub fn mac(&self) -> Option<sag_model::MacAddr> {
        match self.template.encap {
            Encap::Vxlan { mac, .. } => Some(mac),
            _ => None,
        }
    }

    /// The address from which the gateway speaks through the tunnel to `to`.
    pub fn source_for(&self, to: IpAddr) -> Option<IpAddr> {
        match to {
            IpAddr::V4(_) => self.addrs4.first().map(|a| a.0.into()),
            IpAddr::V6(_) => self.addrs6.first().map(|a| a.0.into()),
        }
    }

    /// Whether an IPv4 address is another one of the networks of the gateway's addresses inside: the peer's.
    pub fn reaches(&self, a: Ipv4Addr) -> bool {
        let same = |(own, len): &(Ipv4Addr, u8)| {
            let host = u32::MAX.checked_shr(u32::from(*len)).unwrap_or(0);
            *own != a && (own.to_bits() ^ a.to_bits()) & !host == 0
        };
        self.addrs4.iter().any(same)
    }

    /// The gateway's address inside, and the peer's, where the network has no more than the two.
    pub fn peer_inside(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        self.addrs4.iter().find_map(|&(own, len)| {
            let bits = own.to_bits();
            match len {
                31 => Some((own, Ipv4Addr::from_bits(bits ^ 1))),
                30 if matches!(bits & 3, 1 | 2) => Some((own, Ipv4Addr::from_bits(bits ^ 3))),
                _ => None,
            }
        })
    }

    /// Whether an address is the gateway's inside this tunnel.
    pub fn has_address(&self, a: IpAddr) -> bool {
        match a {
            IpAddr::V4(a) => self.addrs4.iter().any(|(own, _)| *own == a),
            IpAddr::V6(a) => self.addrs6.iter().any(|(own, _)| *own == a),
        }
    }
}

/// All tunnels of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Tunnels {
    /// By number.
    list: Vec<Option<Tunnel>>,
    /// By what a received packet says; VNI or key decide between several.
    ends: HashMap<End, Vec<(Option<u32>, TunnelNo)>, AddrHash>,
    /// UDP ports of tunnels.
    ports: Vec<u16>,
    /// Where ESP may arrive.
    pub esp_ends: EspEnds,
    /// Associations of the tunnels that encrypt.
    pub esp: Arc<EspSaTable>,
    /// Those with error correction.
    fec: Vec<TunnelNo>,
}

impl Tunnels {
    /// Of these tunnels, whose numbers differ.
    pub fn new(tunnels: impl IntoIterator<Item = Tunnel>) -> Tunnels {
        let mut out = Tunnels::default();
        for t in tunnels {
            let (at, end) = (t.no.index(), t.end());
            if out.list.len() <= at {
                out.list.resize_with(at + 1, || None);
            }
            if let Encap::Esp { udp } = t.template.encap {
                out.esp_ends.add(t.local, udp);
                out.esp = t.esp.clone();
                out.fec.extend(t.fec.map(|_| t.no));
                out.list[at] = Some(t);
                continue;
            }
            out.ends.entry(end).or_default().push((t.id(), t.no));
            if end.port != 0 && !out.ports.contains(&end.port) {
                out.ports.push(end.port);
            }
            out.list[at] = Some(t);
        }
        out
    }

    /// Whether there is no tunnel.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// A tunnel by its number.
    #[inline]
    pub fn get(&self, no: TunnelNo) -> Option<&Tunnel> {
        self.list.get(no.index())?.as_ref()
    }

    /// All tunnels, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Tunnel> {
        self.list.iter().flatten()
    }

    pub(crate) fn set_outside(&mut self, no: TunnelNo, ingress: u64, line: Option<PortIdx>) {
        if let Some(Some(t)) = self.list.get_mut(no.index()) {
            (t.ingress, t.line) = (ingress, line);
        }
    }

    /// Those that send with error correction.
    #[inline]
    pub fn with_fec(&self) -> &[TunnelNo] {
        &self.fec
    }

    /// Where tunnels of other kinds than `esp` end, with the identifiers and numbers of the tunnels there.
    pub fn ends(&self) -> impl Iterator<Item = (&End, &[(Option<u32>, TunnelNo)])> {
        self.ends.iter().map(|(e, l)| (e, &l[..]))
    }

    /// The tunnels of an end of which a packet can be.
    #[inline]
    pub fn at(&self, end: &End) -> Option<&[(Option<u32>, TunnelNo)]> {
        self.ends.get(end).map(Vec::as_slice)
    }

    /// Whether an address is the gateway's inside some tunnel of a VRF, and the kernel knows nothing of it.
    pub fn owns(&self, vrf: VrfNo, a: IpAddr) -> bool {
        self.iter().any(|t| t.vrf == vrf && !t.device && t.has_address(a))
    }

    /// Whether some tunnel has this UDP port.
    #[inline]
    pub fn has_port(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }

    /// Whether what comes from `remote` to a port of `local` (0: a protocol without) is a tunnel's. No session of NAT may have
    /// that as one of its directions: XDP looks for sessions before it looks for tunnels.
    pub fn takes(&self, local: IpAddr, remote: IpAddr, (proto, port): (u8, u16)) -> bool {
        if self.is_empty() {
            return false;
        }
        let is_peer = |t: &Tunnel| t.local == local && (t.remote == remote || t.remote_now() == remote);
        let esp = |port| self.esp_ends.has(local, port) && self.iter().any(is_peer);
        let end = |proto, port| self.ends.contains_key(&End { local, remote, proto, port });
        match proto {
            sag_packet::proto::UDP => esp(port) || end(proto, port),
            sag_packet::proto::ESP => esp(0),
            sag_packet::proto::IPV6_IN_IP => end(sag_packet::proto::IPIP, 0),
            _ => end(proto, 0),
        }
    }

    /// Own addresses and UDP ports at which tunnels end.
    pub fn udp_ports(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        let plain = self.ends.keys().map(|e| (e.local, e.port));
        plain.chain(self.esp_ends.iter()).filter(|(_, port)| *port != 0)
    }

    /// Whether a fragment from `remote` may be of a tunnel's packet. Only the first says its port.
    pub fn may_have(&self, local: IpAddr, remote: IpAddr, proto: u8) -> bool {
        let end = |port| End { local, remote, proto, port };
        if self.esp_ends.may_have(local, proto) {
            return true;
        }
        match proto {
            sag_packet::proto::UDP => self.ports.iter().any(|p| self.ends.contains_key(&end(*p))),
            sag_packet::proto::IPV6_IN_IP => {
                self.ends.contains_key(&End { proto: sag_packet::proto::IPIP, ..end(0) })
            }
            _ => self.ends.contains_key(&end(0)),
        }
    }
}

/// The family of an EtherType.
pub(crate) const fn family_of(ethertype: u16) -> Option<Family> {
    match ethertype {
        sag_packet::proto::ETHERTYPE_IPV4 => Some(Family::V4),
        sag_packet::proto::ETHERTYPE_IPV6 => Some(Family::V6),
        _ => None,
    }
}
