//! The machine's own traffic through tunnels: what the kernel sends by the device of a tunnel, and what comes out of a
//! tunnel for the machine itself.

use super::{BatchEntry, Pipeline, Verdict, drop_at, fec};
use crate::originate::{Emit, LINK_ROOM, put_link};
use crate::snapshot::Snapshot;
use crate::tunnel::{Tunnel, TunnelNo};
use sag_model::{DropReason, Nanos};
use sag_packet::parse::{self, Family, Fragment, Parsed};
use sag_packet::proto::{ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use sag_packet::rewrite::{FrameMut, LinkHeader};
use std::net::IpAddr;

/// The longest packet that a device of a tunnel carries.
pub const DEVICE_MAX_MTU: u16 = 3_840;
/// What every link carries of IPv6 (RFC 8200 5).
const IPV6_LEAST: u16 = 1_280;
/// Bytes of a buffer for [`Pipeline::send_from_device`]: what encryption appends is behind the packet.
pub const DEVICE_BUFFER: usize = LINK_ROOM + DEVICE_MAX_MTU as usize + 64;

impl Tunnel {
    /// The MTU of the kernel's device: what the tunnel takes. IPv6 needs 1,280 bytes; where the tunnel
    /// carries less in one piece, outer packets are split (RFC 2473 7.1).
    pub fn device_mtu(&self) -> u16 {
        self.inner_mtu().clamp(IPV6_LEAST, DEVICE_MAX_MTU)
    }
}

impl Pipeline {
    /// A packet from a tunnel for the gateway itself goes to the kernel, as received by the tunnel's device.
    #[cold]
    pub(super) fn deliver_to_device(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        t: &Tunnel,
        s: &BatchEntry,
        frame: &[u8],
        emit: &mut impl Emit,
    ) -> Verdict {
        let limit = self.tunnels.to_kernel.get_mut(t.no.index());
        let taken = check_sender(snap, t, s, frame).and_then(|()| {
            // A peer is not to spend a worker on the machine's own business.
            if !limit.is_some_and(|l| l.allow(now, t.device_rate)) {
                Err(DropReason::TunnelLocalRate)
            } else if !emit.to_tunnel_device(t.no, s.p.ip(frame)) {
                Err(DropReason::NoKernelPath)
            } else {
                Ok(())
            }
        });
        match taken {
            Ok(()) => {
                self.counters.port(s.ingress).to_kernel.add(1);
                self.counters.tunnel(t.no).device.rx_packets.add(1);
                Verdict::Emitted
            }
            Err(reason) => {
                self.counters.tunnel(t.no).drops.add(1);
                drop_at(&self.counters, s.ingress, reason)
            }
        }
    }

    /// Sends a packet that the kernel has given to a tunnel's device through the tunnel. It lies at [`LINK_ROOM`] of a
    /// buffer of [`DEVICE_BUFFER`] bytes and has `len` bytes. Neither ACL nor NAT look at it, as at nothing that the
    /// machine itself sends by a port. False: it was dropped, which the tunnel counts by reason ([`DEVICE_DROPS`]).
    ///
    /// [`DEVICE_DROPS`]: crate::counters::DEVICE_DROPS
    pub fn send_from_device(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        no: TunnelNo,
        (buf, len): (&mut [u8], usize),
        emit: &mut impl Emit,
    ) -> bool {
        let sent = self.try_send_from_device(snap, now, no, (buf, len), emit);
        let c = self.counters.tunnel(no);
        match sent {
            Ok(()) => c.device.tx_packets.add(1),
            Err(reason) => {
                c.drops.add(1);
                c.device.dropped(reason);
            }
        }
        sent.is_ok()
    }

    fn try_send_from_device(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        no: TunnelNo,
        (buf, len): (&mut [u8], usize),
        emit: &mut impl Emit,
    ) -> Result<(), DropReason> {
        let t = snap.tunnel(Some(no)).filter(|t| t.device && t.state.is_up());
        let t = t.ok_or(DropReason::TunnelDown)?;
        let (ethertype, p) = parse_own(snap, t, buf, len)?;
        if p.ip_len > t.device_mtu() {
            return Err(DropReason::MtuExceeded);
        }
        let mut f = FrameMut::new(buf, LINK_ROOM - ETH_LEN, ETH_LEN + usize::from(p.ip_len));
        let hash = match (p.fragment, p.family) {
            (Fragment::Whole, Family::V4) => self.tables.v4.hash(&p.key4(t.side())),
            (Fragment::Whole, Family::V6) => self.tables.v6.hash(&p.key6(f.bytes(), t.side())),
            // Only the first fragment has ports, and all are to take one path.
            (Fragment::First { .. } | Fragment::Later { .. }, _) => 0,
        };
        let path = snap.outer_path(t, t.remote_now(), hash).ok_or(DropReason::TunnelDown)?;
        let Some(nh) = snap.resolved(path.port, path.to) else {
            self.neighbors.request((path.port, path.to));
            return Err(DropReason::NeighborFailed);
        };
        let link = LinkHeader { dst: nh.dmac, src: nh.smac, vlan: nh.vlan, ethertype };
        if p.ip_len > t.whole_mtu() {
            t.enter(&mut f, &p, hash, true)?;
            let sent = self.send_pieces(t, (path.port, link), f.bytes(), emit);
            self.counters.port(path.port).originated.add(u64::from(sent));
            (sent > 0).then_some(()).ok_or(DropReason::TxRingFull)?;
        } else {
            self.tunnels.fec.at(now);
            fec::enter(&self.tunnels.fec.senders, &self.counters, t, &mut f, &p, hash)?;
            put_link(t, &mut f, link)?;
            emit.emit(path.port, f.bytes()).then_some(()).ok_or(DropReason::TxRingFull)?;
            let out = self.counters.port(path.port);
            out.tx_packets.add(1);
            out.tx_bytes.add(f.len() as u64);
            out.originated.add(1);
        }
        self.counters.tunnel(no).sent(usize::from(p.ip_len));
        Ok(())
    }
}

/// The headers of a packet of the machine's own. An error: it does not parse, or is none: the kernel forwards it for
/// somebody else, past ACL and NAT.
fn parse_own(snap: &Snapshot, t: &Tunnel, buf: &mut [u8], len: usize) -> Result<(u16, Parsed), DropReason> {
    let ethertype = match buf.get(LINK_ROOM).map_or(0, |first| first >> 4) {
        4 => ETHERTYPE_IPV4,
        6 => ETHERTYPE_IPV6,
        _ => return Err(DropReason::Ip4BadVersion),
    };
    let frame = buf.get_mut(LINK_ROOM - ETH_LEN..LINK_ROOM + len).ok_or(DropReason::EthTruncated)?;
    let link = frame.first_chunk_mut::<ETH_LEN>().ok_or(DropReason::EthTruncated)?;
    link[..12].fill(0);
    link[12..].copy_from_slice(&ethertype.to_be_bytes());
    let mut p = Parsed::NONE;
    if !parse::parse_into(frame, ethertype, ETH_LEN, &mut p).map_err(|_| DropReason::EthTruncated)? {
        return Err(DropReason::EthTruncated);
    }
    let (src, group) = (p.src(frame), p.dst(frame).is_multicast());
    // Membership reports of a host that has no address yet (RFC 3376 4.2.13, RFC 3810 5.2.13).
    let own = snap.is_local(t.vrf, src) || group && src.is_unspecified();
    if own { Ok((ethertype, p)) } else { Err(DropReason::TunnelSource) }
}

/// Whether a packet that came out of a tunnel for the gateway itself may have its source.
fn check_sender(snap: &Snapshot, t: &Tunnel, s: &BatchEntry, frame: &[u8]) -> Result<(), DropReason> {
    let (src, dst) = (s.p.src(frame), s.p.dst(frame));
    let near = |a: IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
    // What stays on the tunnel's link has the peer's address there, which no route names.
    if near(src) && (near(dst) || dst.is_multicast()) || src.is_unspecified() && dst.is_multicast() {
        return Ok(());
    }
    let bad = match src {
        IpAddr::V4(a) => a.octets()[0] == 0 || a.octets()[0] >= 224 || a.is_loopback(),
        IpAddr::V6(a) => {
            a.is_multicast() || a.is_unspecified() || a.is_loopback() || a.to_ipv4_mapped().is_some()
        }
    };
    if bad {
        return Err(DropReason::SourceMartian);
    }
    if snap.is_local(t.vrf, src) {
        return Err(DropReason::SourceIsOurs);
    }
    if t.device_sources.contains(src) {
        return Ok(());
    }
    snap.check_source(src, s.ingress, s.tunnel)
}
