//! ESP on the workers' path: the associations of all tunnels, and how a packet gets into and out
//! of one.

use super::{Carried, Tunnel, TunnelNo, Tunnels};
use crate::hash::AddrHash;
use arc_swap::{ArcSwap, Guard};
use sag_model::DropReason;
use sag_packet::encap::{Encap, Fields};
use sag_packet::proto::*;
use sag_packet::rewrite::FrameMut;
use sag_packet::{Family, Fragment, L4, Parsed};
use sag_tunnel::esp::{
    self, Datagram, Inbound, Inner, KEEPALIVE, OpenError, Outbound, SealError, UDP_HEADER, classify,
};
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

/// The associations of all tunnels as the workers use them. The control thread puts another set in
/// its place while packets are under way; reading takes no lock.
#[derive(Debug, Default)]
pub struct EspSaTable(ArcSwap<EspSas>);

/// Associations at a moment.
#[derive(Debug, Default)]
pub struct EspSas {
    /// By tunnel.
    outbound: Vec<Option<Arc<Outbound>>>,
    inbound: HashMap<u32, Vec<(TunnelNo, Arc<Inbound>)>, AddrHash>,
}

impl EspSas {
    /// The association by which a tunnel sends.
    pub fn send_by(&mut self, no: TunnelNo, sa: Arc<Outbound>) {
        let at = no.index();
        if self.outbound.len() <= at {
            self.outbound.resize(at + 1, None);
        }
        self.outbound[at] = Some(sa);
    }

    /// An association by which a tunnel receives.
    pub fn receive_by(&mut self, no: TunnelNo, sa: Arc<Inbound>) {
        self.inbound.entry(sa.spi()).or_default().push((no, sa));
    }

    /// The association by which a tunnel sends, if it has one.
    #[inline]
    pub fn outbound(&self, no: TunnelNo) -> Option<&Outbound> {
        self.outbound.get(no.index())?.as_deref()
    }

    /// The association of an SPI with an address of the gateway's (RFC 4301, 4.1).
    #[inline]
    fn inbound<'t>(&self, tunnels: &'t Tunnels, spi: u32, local: IpAddr) -> Option<(&'t Tunnel, &Inbound)> {
        self.inbound
            .get(&spi)?
            .iter()
            .find_map(|(no, sa)| tunnels.get(*no).filter(|t| t.local == local).map(|t| (t, &**sa)))
    }
}

impl EspSaTable {
    /// The associations at this moment.
    #[inline]
    pub fn load(&self) -> Guard<Arc<EspSas>> {
        self.0.load()
    }

    /// Puts other associations in their place.
    pub fn store(&self, sas: EspSas) {
        self.0.store(Arc::new(sas));
    }
}

/// Where ESP may arrive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EspEnds {
    /// Address and UDP port; 0: plain.
    ends: Vec<(IpAddr, u16)>,
}

impl EspEnds {
    pub(super) fn add(&mut self, local: IpAddr, udp: Option<u16>) {
        let end = (local, udp.unwrap_or(0));
        if !self.ends.contains(&end) {
            self.ends.push(end);
        }
    }

    /// Whether ESP arrives nowhere.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Addresses and UDP ports (0: plain ESP).
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
        self.ends.iter().copied()
    }

    /// Whether a fragment may be of an ESP packet.
    pub fn may_have(&self, local: IpAddr, proto: u8) -> bool {
        self.ends
            .iter()
            .any(|(a, port)| *a == local && (proto == ESP) == (*port == 0) && matches!(proto, ESP | UDP))
    }

    pub(super) fn has(&self, local: IpAddr, port: u16) -> bool {
        self.ends.contains(&(local, port))
    }
}

/// What a received packet is to ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EspPacket {
    /// No ESP for a tunnel of the gateway's.
    NotOurs,
    /// Its SPI is at this byte of the frame.
    At(usize),
    /// ESP that cannot be opened, for this reason.
    Drop(DropReason),
}

/// Looks at a whole packet that has been parsed.
#[inline]
pub fn find(tunnels: &Tunnels, p: &Parsed, frame: &[u8]) -> EspPacket {
    let ends = &tunnels.esp_ends;
    if ends.is_empty() || p.fragment != Fragment::Whole {
        return EspPacket::NotOurs;
    }
    let at = usize::from(p.l4_at);
    match p.proto {
        ESP if ends.has(p.dst(frame), 0) => EspPacket::At(at),
        UDP if p.l4 == L4::Udp && ends.has(p.dst(frame), p.ports().1) => {
            let end = usize::from(p.l3) + usize::from(p.ip_len);
            match classify(frame.get(at + UDP_HEADER..end).unwrap_or(&[])) {
                Datagram::Esp => EspPacket::At(at + UDP_HEADER),
                Datagram::Keepalive => EspPacket::Drop(DropReason::EspKeepalive),
                Datagram::NonEsp => EspPacket::NotOurs,
                Datagram::Short => EspPacket::Drop(DropReason::EspTruncated),
            }
        }
        _ => EspPacket::NotOurs,
    }
}

/// A packet that has left its ESP tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspOpened {
    /// The tunnel.
    pub tunnel: TunnelNo,
    /// What the packet carries.
    pub inner: Inner,
    /// Where what is inside lies.
    pub at: Range<usize>,
}

/// Opens the packet whose SPI is at `at`, where it lies.
pub fn open(
    tunnels: &Tunnels,
    p: &Parsed,
    frame: &mut [u8],
    at: usize,
) -> Result<EspOpened, (Option<TunnelNo>, DropReason)> {
    let (local, from) = (p.dst(frame), (p.src(frame), p.ports().0));
    let end = usize::from(p.l3) + usize::from(p.ip_len);
    let packet = frame.get_mut(at..end).ok_or((None, DropReason::EspTruncated))?;
    let spi = packet.first_chunk().map(|w| u32::from_be_bytes(*w)).ok_or((None, DropReason::EspTruncated))?;
    let sas = tunnels.esp.load();
    let Some((t, sa)) = sas.inbound(tunnels, spi, local) else {
        return Err((None, DropReason::EspUnknownSpi));
    };
    let opened = sa.open(packet).map_err(|e| (Some(t.no), reason(e)))?;
    // Only who has the key can move the peer to another address, and only by a packet that is newer than all before: of
    // the newest association that the peer sends by, and with its highest number.
    if opened.newest && p.proto == UDP && t.state.is_newest_sender(sa.order()) {
        t.state.see_source(from.into(), || sa.window().top() == opened.sequence);
    }
    Ok(EspOpened { tunnel: t.no, inner: opened.inner, at: at + opened.at.start..at + opened.at.end })
}

pub const fn reason(e: OpenError) -> DropReason {
    match e {
        OpenError::Truncated => DropReason::EspTruncated,
        OpenError::Replay => DropReason::EspReplay,
        OpenError::BadIcv => DropReason::EspBadIcv,
        OpenError::BadPadding => DropReason::EspBadPadding,
        OpenError::BadNextHeader => DropReason::EspBadNextHeader,
        OpenError::Dummy => DropReason::EspDummy,
    }
}

/// Packets in flight whose errors are believed: 64 Ki of 1,500 bytes are a second at 800 Mbit/s.
const RECENT: u32 = 1 << 16;

impl Tunnel {
    /// Whether the tunnel encrypts.
    #[inline]
    pub const fn is_esp(&self) -> bool {
        matches!(self.template.encap, Encap::Esp { .. })
    }

    /// Whether it does so in UDP.
    #[inline]
    pub const fn in_udp(&self) -> bool {
        matches!(self.template.encap, Encap::Esp { udp: Some(_) })
    }

    /// Writes the NAT keepalive (RFC 3948 2.3) as an IP packet to `room`: one byte 0xFF in UDP, from and to
    /// where ESP goes. `None`: no such tunnel, or no room.
    pub(crate) fn keepalive_in<'r>(&self, room: &'r mut [u8]) -> Option<&'r mut [u8]> {
        let ip = usize::from(self.template.ip);
        let packet = room.get_mut(..ip + UDP_HEADER + 1).filter(|_| self.in_udp())?;
        let mut template = self.template_now();
        template.len = (ip + UDP_HEADER) as u8;
        let fields = Fields {
            inner: template.outer,
            tos: self.outer_tos(0),
            dont_fragment: true,
            id: 0,
            hash: 0,
            sequence: 0,
        };
        packet[ip + UDP_HEADER] = KEEPALIVE;
        template.write(packet, &fields, false).then_some(packet)
    }

    /// Whether what follows an outer IP header, as far as it is quoted, can be of a packet that this tunnel
    /// has sent by its present association.
    pub(super) fn quotes_esp(&self, proto: u8, data: &[u8]) -> bool {
        let spi = |at: usize| data.get(at..)?.first_chunk().map(|w| u32::from_be_bytes(*w));
        let ours = |spi: u32| self.esp.load().outbound(self.no).is_some_and(|sa| sa.spi() == spi);
        match (self.template.encap, proto) {
            (Encap::Esp { udp: None }, ESP) => spi(0).is_some_and(ours),
            (Encap::Esp { udp: Some(port) }, UDP) => {
                data.first_chunk().is_some_and(|p| u16::from_be_bytes(*p) == port)
                    && spi(UDP_HEADER).is_none_or(ours)
            }
            _ => false,
        }
    }

    /// Whether the sequence number in such a quote is one of the last [`RECENT`] of that association.
    pub(super) fn quotes_recent(&self, proto: u8, data: &[u8]) -> bool {
        let at = if proto == UDP { UDP_HEADER } else { 0 };
        let quoted = data.get(at + 4..).and_then(|d| d.first_chunk()).map(|w| u32::from_be_bytes(*w));
        let next = self.esp.load().outbound(self.no).map(|sa| sa.next_sequence() as u32);
        matches!((quoted, next), (Some(q), Some(n)) if (1..=RECENT).contains(&n.wrapping_sub(q)))
    }

    /// Bytes inside of a packet whose outer one has no more than `outer`.
    #[inline]
    pub fn inside_of(&self, outer: u16) -> u16 {
        if self.is_esp() {
            let before = u16::from(self.template.len) - esp::HEADROOM as u16;
            return esp::inner_room(usize::from(outer.saturating_sub(before))) as u16;
        }
        outer.saturating_sub(self.overhead())
    }

    /// Encrypts the packet at `p.l3` of a frame, which begins with the outer IP header then.
    pub(super) fn enter_esp(
        &self,
        f: &mut FrameMut<'_>,
        p: &Parsed,
        fields: &Fields,
        carried: Carried<'_>,
    ) -> Result<(), DropReason> {
        let (l3, len, header) = (usize::from(p.l3), usize::from(p.ip_len), usize::from(self.template.len));
        let sas = self.esp.load();
        let sa = sas.outbound(self.no).ok_or(DropReason::EspNoKeys)?;
        let shim: &[u8] = if let Carried::Source(s) = carried { s } else { &[] };
        let (front, len) = (header + shim.len(), len + shim.len());
        f.push(l3, usize::from(p.ip_len), front).map_err(|_| DropReason::FrameTooBig)?;
        f.extend(esp::sealed_len(len) - esp::HEADROOM - len).map_err(|_| DropReason::FrameTooBig)?;
        let template = self.template_now();
        if !template.write(f.bytes_mut(), fields, false) {
            return Err(DropReason::FrameTooBig);
        }
        if let Some(room) = f.bytes_mut().get_mut(header..front) {
            room.copy_from_slice(shim);
        }
        let inner = match (carried, p.family) {
            (Carried::Source(_) | Carried::Repair, _) => Inner::Fec,
            (_, Family::V4) => Inner::V4,
            (_, Family::V6) => Inner::V6,
        };
        match sa.seal(f.bytes_mut(), header..header + len, inner) {
            Ok(_) => Ok(()),
            Err(SealError::Exhausted) => Err(DropReason::EspExhausted),
            Err(SealError::Unreserved) => Err(DropReason::EspUnreserved),
            Err(SealError::NoRoom) => Err(DropReason::FrameTooBig),
        }
    }
}
