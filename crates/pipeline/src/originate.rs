//! Packets that the gateway makes: ICMP errors (when, to whom, from which address, how often) and
//! the fragments of packets that do not fit.

use crate::snapshot::{Route, Snapshot};
use crate::stages::{egress, ethertype};
use crate::tunnel::{Tunnel, TunnelNo};
use sag_model::{DropReason, MacAddr, Nanos, PortIdx, VrfNo};
use sag_packet::icmp::{self, IcmpError};
use sag_packet::proto::{ETH_LEN, FRAGMENT, IPV4_LEN, IPV6_LEN};
use sag_packet::rewrite::{FrameMut, LinkHeader};
use sag_packet::{Family, Fragment, L4, Parsed, checksum};
use std::net::IpAddr;

/// Room for link header, tag and a tunnel's header in front of a packet under construction.
pub const LINK_ROOM: usize = 128;

/// Takes what the pipeline makes. The frame must be copied; false if it could not be sent.
pub trait Emit {
    /// Sends a frame by a port.
    fn emit(&mut self, port: PortIdx, frame: &[u8]) -> bool;

    /// Gives a frame to the kernel as it was received on a device. False: there is no way.
    fn to_kernel(&mut self, _dev: u8, _frame: &[u8]) -> bool {
        false
    }

    /// Gives an IP packet to the kernel as it was received by the device of a tunnel. False: it was not taken.
    fn to_tunnel_device(&mut self, _tunnel: TunnelNo, _packet: &[u8]) -> bool {
        false
    }
}

/// Errors a port may send per second, with a burst of a twentieth of that (at least 10): the generic
/// cell rate algorithm on one time stamp.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limiter {
    /// When the next error is due at the steady rate.
    due: u64,
}

impl Limiter {
    /// Whether one more may be sent now, at `rate` a second.
    pub fn allow(&mut self, now: Nanos, rate: u32) -> bool {
        if rate == 0 {
            return false;
        }
        let interval = 1_000_000_000 / u64::from(rate);
        let burst = interval * u64::from(rate / 20).max(10);
        let due = self.due.max(now.0);
        if due - now.0 > burst {
            return false;
        }
        self.due = due + interval;
        true
    }

    /// Gives the last permission back: it was not used.
    pub fn refund(&mut self, rate: u32) {
        self.due = self.due.saturating_sub(1_000_000_000 / u64::from(rate.max(1)));
    }
}

/// An ICMP error ready to go, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpResult {
    /// Send `buf[start..start + len]` by this port.
    Ready {
        /// The egress port.
        port: PortIdx,
        /// First byte in `buf`.
        start: usize,
        /// Bytes of the frame.
        len: usize,
    },
    /// The RFCs forbid an error about this packet.
    Forbidden,
    /// No route back, no address to speak from, or the next hop is not resolved.
    NoRoute,
}

/// Packets about which no error may be sent (RFC 1812 4.3.2.7, RFC 4443 2.4 e).
pub fn forbidden(p: &Parsed, frame: &[u8]) -> bool {
    let link_group = frame.first().is_some_and(|b| b & 1 != 0);
    let bad_source = match p.src(frame) {
        IpAddr::V4(a) => {
            a.is_unspecified()
                || a.is_loopback()
                || a.is_multicast()
                || a.is_broadcast()
                || a.octets()[0] >= 240
        }
        IpAddr::V6(a) => a.is_unspecified() || a.is_multicast(),
    };
    let about_error = matches!(p.l4, L4::IcmpError { .. });
    link_group
        || bad_source
        || about_error
        || p.dst(frame).is_multicast()
        || matches!(p.fragment, Fragment::Later { .. })
}

/// How a packet of the gateway's own reaches `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyPath {
    /// The egress port.
    pub port: PortIdx,
    /// The tunnel into which it goes.
    pub tunnel: Option<TunnelNo>,
    dmac: MacAddr,
    /// Address to speak from.
    pub from: IpAddr,
    /// Bytes of the packet that leave in one piece.
    pub mtu: u16,
}

/// The way by the routing table (RFC 1812 4.3.2.4 wants the address of the interface that sends), by the same line to the
/// Internet by which the packet in question came.
/// `vrf`: where `to` is. `near`: where who waits for the packet is, and its link address, if it did not come by a tunnel.
pub fn reply_path(
    snap: &Snapshot,
    (vrf, to): (VrfNo, IpAddr),
    near: Option<(PortIdx, MacAddr)>,
) -> Option<ReplyPath> {
    let back = |m| near.map_or(m, |(asked, _)| snap.return_member(m, (vrf, to), asked));
    let routed = match snap.route_in(vrf, to) {
        Some(Route::Via(members)) => snap.choose(members, 0).and_then(|m| egress(snap, back(m), to, 0).ok()),
        _ => None,
    };
    let (port, tunnel, next, mtu) = match routed {
        Some(e) => (e.port, e.tunnel, e.to, e.mtu),
        None => (near?.0, None, to, u16::MAX),
    };
    snap.port(port).filter(|p| p.up)?;
    // A next hop's link-local address is no reason to speak from one: the error goes further.
    let towards = match next {
        IpAddr::V6(a) if a.is_unicast_link_local() => to,
        near => near,
    };
    let from = match snap.tunnel(tunnel) {
        Some(t) => t.source_for(to).or_else(|| snap.inside_source(t.vrf, to))?,
        None => snap.source_for(port, towards)?,
    };
    let resolved = snap.resolved(port, next);
    let dmac = match (resolved, near) {
        (Some(nh), _) => nh.dmac,
        // Who sent the packet is on this link and will take its answer.
        (None, Some((ingress, mac))) if port == ingress && tunnel.is_none() => mac,
        _ => return None,
    };
    Some(ReplyPath { port, tunnel, dmac, from, mtu })
}

/// Puts tunnel and link header in front of the packet of `len` bytes at [`LINK_ROOM`].
pub fn push_headers(
    snap: &Snapshot,
    path: &ReplyPath,
    family: Family,
    len: usize,
    buf: &mut [u8],
) -> IcmpResult {
    let Some(out) = snap.port(path.port) else { return IcmpResult::NoRoute };
    let link = LinkHeader { dst: path.dmac, src: out.mac, vlan: out.vlan, ethertype: ethertype(family) };
    let mut f = FrameMut::new(buf, LINK_ROOM - ETH_LEN, ETH_LEN + len);
    let done = match snap.tunnel(path.tunnel) {
        None => f.set_link(ETH_LEN, len, &link).is_ok(),
        Some(t) => {
            let p = Parsed {
                family,
                l3: ETH_LEN as u16,
                ip_len: len as u16,
                dont_fragment: true,
                tos: 0xC0,
                ..Parsed::NONE
            };
            enter(t, &mut f, &p, 0, false, link).is_ok()
        }
    };
    match done {
        true => IcmpResult::Ready { port: path.port, start: f.start(), len: f.len() },
        false => IcmpResult::NoRoute,
    }
}

/// A tunnel's header in front of the packet at `p.l3`, and the link header of the way out.
///
/// # Errors
///
/// The reason to drop the packet, as of [`Tunnel::enter`] and [`put_link`].
pub fn enter(
    t: &Tunnel,
    f: &mut FrameMut<'_>,
    p: &Parsed,
    hash: u64,
    split: bool,
    link: LinkHeader,
) -> Result<(), DropReason> {
    t.enter(f, p, hash, split)?;
    put_link(t, f, link)
}

/// The link header in front of an outer packet.
///
/// # Errors
///
/// [`DropReason::FrameTooBig`]: no room in front of the packet.
pub fn put_link(t: &Tunnel, f: &mut FrameMut<'_>, link: LinkHeader) -> Result<(), DropReason> {
    let link = LinkHeader { ethertype: ethertype(t.template.outer), ..link };
    let len = f.len();
    f.set_link(0, len, &link).map_err(|_| DropReason::FrameTooBig)
}

/// Builds the error about `frame`, a packet of a VRF, into `buf`. `near`: the port at which it came, unless by a tunnel.
pub fn icmp_error(
    snap: &Snapshot,
    (vrf, near): (VrfNo, Option<PortIdx>),
    p: &Parsed,
    frame: &[u8],
    error: IcmpError,
    buf: &mut [u8],
) -> IcmpResult {
    if forbidden(p, frame) {
        return IcmpResult::Forbidden;
    }
    let to = p.src(frame);
    let mac = frame.get(6..12).and_then(|m| m.first_chunk()).map(|m| MacAddr(*m));
    let Some(path) = reply_path(snap, (vrf, to), near.zip(mac)) else { return IcmpResult::NoRoute };
    // What goes through a tunnel must fit it.
    let end = buf.len().min(LINK_ROOM + usize::from(path.mtu));
    let Some(room) = buf.get_mut(LINK_ROOM..end) else { return IcmpResult::NoRoute };
    let packet = p.ip(frame);
    let built = match (path.from, to) {
        (IpAddr::V4(f), IpAddr::V4(t)) => icmp::build_v4(room, f, t, error, packet),
        (IpAddr::V6(f), IpAddr::V6(t)) => icmp::build_v6(room, f, t, error, packet),
        _ => None,
    };
    let Some(len) = built else { return IcmpResult::NoRoute };
    push_headers(snap, &path, p.family, len, buf)
}

/// Splits an IPv4 packet (RFC 791 3.2): `packet` is the whole IP packet, TTL already counted down.
/// Calls `send` with each fragment; options that are not to be copied stay in the first only.
pub fn split_ipv4(
    packet: &[u8],
    mtu: u16,
    buf: &mut [u8],
    mut send: impl FnMut(&mut [u8], usize) -> bool,
) -> u32 {
    let Some(first) = packet.first() else { return 0 };
    let ihl = usize::from(first & 0x0F) * 4;
    let Some((header, data)) = packet.split_at_checked(ihl).filter(|_| ihl >= IPV4_LEN) else { return 0 };
    let word = u16::from_be_bytes([header[6], header[7]]);
    let (base, more) = (usize::from(word & 0x1FFF) * 8, word & 0x2000 != 0);
    let copied = copied_options(&header[IPV4_LEN..]);
    let mut sent = 0;
    let mut at = 0;
    while at < data.len() {
        let hlen = if at == 0 { ihl } else { IPV4_LEN + copied.1 };
        let room = usize::from(mtu).saturating_sub(hlen) & !7;
        if room == 0 {
            return sent;
        }
        let n = room.min(data.len() - at);
        let last = at + n == data.len();
        let len = hlen + n;
        let Some(out) = buf.get_mut(LINK_ROOM..LINK_ROOM + len) else { return sent };
        out[..IPV4_LEN].copy_from_slice(&header[..IPV4_LEN]);
        match at {
            0 => out[IPV4_LEN..ihl].copy_from_slice(&header[IPV4_LEN..]),
            _ => out[IPV4_LEN..hlen].copy_from_slice(&copied.0[..copied.1]),
        }
        out[hlen..].copy_from_slice(&data[at..at + n]);
        out[0] = 0x40 | (hlen / 4) as u8;
        out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        let flags = (word & 0xC000) | if last && !more { 0 } else { 0x2000 };
        let offset = ((base + at) / 8) as u16;
        out[6..8].copy_from_slice(&(flags | offset).to_be_bytes());
        out[10..12].fill(0);
        let check = checksum::finish(checksum::sum(&out[..hlen]));
        out[10..12].copy_from_slice(&check.to_ne_bytes());
        sent += u32::from(send(buf, len));
        at += n;
    }
    sent
}

/// Splits an IPv6 packet without extension headers (RFC 8200 4.5), or one that is a fragment already and has no other
/// header. Calls `send` as [`split_ipv4`] does.
pub fn split_ipv6(
    packet: &[u8],
    mtu: u16,
    id: u32,
    buf: &mut [u8],
    mut send: impl FnMut(&mut [u8], usize) -> bool,
) -> u32 {
    const HEADERS: usize = IPV6_LEN + 8;
    let Some((header, data)) = packet.split_at_checked(IPV6_LEN) else { return 0 };
    let whole = Piece { next: header[6], base: 0, more: 0, id };
    let (of, data) = match data.split_first_chunk::<8>().filter(|_| header[6] == FRAGMENT) {
        Some((h, data)) => (Piece::of(h), data),
        None => (whole, data),
    };
    let room = usize::from(mtu).saturating_sub(HEADERS) & !7;
    if room == 0 {
        return 0;
    }
    let mut sent = 0;
    for (n, part) in data.chunks(room).enumerate() {
        let len = HEADERS + part.len();
        let Some(out) = buf.get_mut(LINK_ROOM..LINK_ROOM + len) else { return sent };
        out[..IPV6_LEN].copy_from_slice(header);
        out[4..6].copy_from_slice(&((len - IPV6_LEN) as u16).to_be_bytes());
        out[6] = FRAGMENT;
        (out[40], out[41]) = (of.next, 0);
        let more = if n * room + part.len() < data.len() { 1 } else { of.more };
        out[42..44].copy_from_slice(&(of.base.wrapping_add((n * room) as u16) | more).to_be_bytes());
        out[44..48].copy_from_slice(&of.id.to_be_bytes());
        out[HEADERS..].copy_from_slice(part);
        sent += u32::from(send(buf, len));
    }
    sent
}

/// What a fragment header says.
#[derive(Debug, Clone, Copy)]
struct Piece {
    next: u8,
    base: u16,
    more: u16,
    id: u32,
}

impl Piece {
    fn of(h: &[u8; 8]) -> Piece {
        let word = u16::from_be_bytes([h[2], h[3]]);
        let id = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
        Piece { next: h[0], base: word & 0xFFF8, more: word & 1, id }
    }
}

/// The options with the "copied" bit, padded to whole words.
fn copied_options(mut opts: &[u8]) -> ([u8; 40], usize) {
    let mut out = [0u8; 40];
    let mut n = 0;
    while let Some(&kind) = opts.first() {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(opts.get(1).copied().unwrap_or(0)),
        };
        let Some(option) = opts.get(..len).filter(|_| len > 0) else { break };
        if kind & 0x80 != 0 && n + len <= out.len() {
            out[n..n + len].copy_from_slice(option);
            n += len;
        }
        opts = &opts[len..];
    }
    (out, n.next_multiple_of(4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Ipv4HeaderSlice, PacketBuilder};
    use proptest::prelude::*;

    #[test]
    fn limiter_allows_the_rate_and_a_burst() {
        let mut l = Limiter::default();
        let burst = (0..1000).filter(|_| l.allow(Nanos(0), 1000)).count();
        assert_eq!(burst, 51);
        let steady = (0..10_000u64).filter(|i| l.allow(Nanos(i * 100_000), 1000)).count();
        assert!((950..=1051).contains(&steady), "{steady}");
        assert!(!Limiter::default().allow(Nanos(0), 0));
    }

    proptest! {
        #[test]
        fn fragments_put_together_again(data in prop::collection::vec(any::<u8>(), 1..4000), mtu in 68u16..1500, options in any::<bool>()) {
            let mut packet = Vec::new();
            PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 9).udp(1, 2).write(&mut packet, &data).unwrap();
            packet[6..8].fill(0);
            if options {
                // Router alert (copied) and record route (not copied).
                packet.splice(20..20, [148, 4, 0, 0, 7, 3, 4, 0]);
                packet[0] = 0x47;
                let len = packet.len() as u16;
                packet[2..4].copy_from_slice(&len.to_be_bytes());
            }
            let ihl = usize::from(packet[0] & 15) * 4;
            let mut buf = vec![0; 5000];
            let mut whole = Vec::new();
            let mut pieces = 0;
            let mut bad = None;
            let sent = split_ipv4(&packet, mtu, &mut buf, |b, len| {
                let f = &b[LINK_ROOM..LINK_ROOM + len];
                let h = Ipv4HeaderSlice::from_slice(f).unwrap();
                let more = h.more_fragments();
                let ok = len <= usize::from(mtu)
                    && h.header_checksum() == h.to_header().calc_header_checksum()
                    && usize::from(h.fragments_offset().value()) * 8 == whole.len()
                    && h.options().starts_with(if options { &[148, 4, 0, 0] } else { &[] });
                if !ok { bad = Some(f.to_vec()); }
                whole.extend_from_slice(&f[usize::from(h.ihl()) * 4..]);
                pieces += 1;
                if !more { pieces += 1000; }
                true
            });
            prop_assert_eq!(bad, None);
            prop_assert_eq!(sent + 1000, pieces);
            prop_assert_eq!(&whole[..], &packet[ihl..]);
        }
    }
}
