//! A packet as the stages see it, and what the session table knows of it.

use super::crossing::Nat64Context;
use super::decision::{Draft, drop_packet};
use super::{Disposition, Stage, Tracer};
use crate::family::EndpointPair;
use crate::ids::{MeterGroupNo, TunnelNo};
use crate::nat::NatState;
use crate::policy::Tuple;
use crate::snapshot::Snapshot;
use sag_model::ids::{VrfNo, VrfZone, Zone};
use sag_model::{DropReason, PortIdx};
use sag_packet::Parsed;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// What the stages know of a packet before the first of them runs.
#[derive(Debug, Clone, Copy)]
pub struct PacketContext<'f> {
    /// The parsed headers.
    pub p: &'f Parsed,
    /// The frame, from its link header on.
    pub frame: &'f [u8],
    /// The port by which it arrived.
    pub ingress: PortIdx,
    /// The tunnel through which it came.
    pub tunnel: Option<TunnelNo>,
    /// The zone that it comes from.
    pub zone: Zone,
    /// The VRF that it comes from.
    pub vrf: VrfNo,
    /// Flow hash, for multipath.
    pub hash: u64,
    /// What an existing session says, if there is one.
    pub session: Known,
    /// It goes in the reverse direction of that session.
    pub reply: bool,
    /// An ICMP error about a session that comes in where packets of the session do.
    pub on_path: bool,
    /// A TCP reset whose numbers cannot be those of its connection.
    pub out_of_window: bool,
    /// The meter group that its flow passes, if there is one; `None`: not classified in this epoch.
    pub metered: Option<Option<MeterGroupNo>>,
    /// Where that session's packets in this direction go.
    pub leaves_to: Option<VrfZone>,
    /// The VRF in which the session has the destination, if that may be another one than the packet's.
    pub to_vrf: Option<VrfNo>,
    /// What the session makes of the destination, if it is another one.
    pub to: Option<IpAddr>,
    /// The port that goes with it.
    pub to_port: Option<u16>,
    /// The translation of an IPv4 session that the packet belongs to.
    pub translation: Option<Translation>,
    /// The same of an IPv6 session.
    pub translation6: Option<Translation6>,
    /// What of the packet is NAT64's; then it has neither of the two above.
    pub nat64: Nat64Context,
    /// The line to the Internet that its session holds on to.
    pub line: Option<Line>,
    /// The bindings that are in use.
    pub nat: &'f NatState,
}

/// The line to the Internet that a session holds on to, whatever the routes prefer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// The port by which the question came that the packet answers; it was to an address that is translated.
    Question(PortIdx),
    /// The port whose address the session's source has become.
    Source(PortIdx),
}

/// The endpoints of a session's first packet, before and after translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// The zone that the first packet came from.
    pub from: Zone,
    /// The session's protocol; the packet in hand may be an ICMP error about it.
    pub proto: u8,
    /// Source and destination as the first packet arrived.
    pub old: EndpointPair,
    /// Source and destination as it left; what is translated is in the VRF that it went to.
    pub new: EndpointPair,
    /// The packet in hand is in the reverse direction.
    pub reply: bool,
}

/// The addresses of an IPv6 session's first packet, before and after translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation6 {
    /// Where the first packet came from.
    pub from: VrfZone,
    /// The VRF that it went to.
    pub to_vrf: VrfNo,
    /// Source and destination as the first packet arrived.
    pub old: (Ipv6Addr, Ipv6Addr),
    /// Source and destination as it left.
    pub new: (Ipv6Addr, Ipv6Addr),
    /// The packet in hand is in the reverse direction.
    pub reply: bool,
}

/// What the session table knows of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It belongs to no session.
    New,
    /// It belongs to a session that was admitted under the current epoch.
    Established,
    /// It belongs to a session of an older epoch: the rules decide again, about the tuple and zones of the session's
    /// first packet.
    Revalidate {
        /// Tuple of the first packet, with the translated destination.
        initiator: Tuple,
        /// Where the first packet came from.
        from: VrfZone,
        /// The zone that it went to.
        to: Zone,
    },
    /// An ICMP error about a packet of a session.
    Related,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Known::New => "none",
            Known::Established => "known, admitted under this epoch",
            Known::Revalidate { .. } => "known, of an older epoch: revalidated",
            Known::Related => "ICMP error about a known session",
        })
    }
}

/// The session stage. The lookup itself is the worker's; here is what it found.
#[inline(always)]
pub(super) fn session<T: Tracer>(
    _: &Snapshot,
    ctx: &PacketContext<'_>,
    _: &mut Draft,
    trace: &mut T,
) -> Result<(), Disposition> {
    trace.step(Stage::Session, || ctx.session.to_string());
    if ctx.out_of_window {
        return Err(drop_packet(DropReason::TcpOutOfWindow, None));
    }
    Ok(())
}
