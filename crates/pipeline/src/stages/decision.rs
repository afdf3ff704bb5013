//! What the stages decide about a packet.

use super::crossing::{Crossing, Seen64};
use super::{Egress, PacketContext, Stage};
use crate::ids::{MeterGroupNo, NhIdx, RuleSlot, TunnelNo};
use crate::nat::{BindingNo, Endpoint, Snat, Translated6};
use sag_model::ids::{VrfNo, VrfZone, Zone};
use sag_model::{DropReason, PortIdx};
use sag_packet::icmp::IcmpError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// How a packet is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardDecision {
    /// The port by which it leaves.
    pub port: PortIdx,
    /// The tunnel that it enters.
    pub tunnel: Option<TunnelNo>,
    /// Where it goes to.
    pub zone: VrfZone,
    /// The next hop's address.
    pub to: IpAddr,
    /// The next hop's record.
    pub nexthop: NhIdx,
    /// Slot of the rule that admitted the packet, if a rule decided.
    pub rule: Option<RuleSlot>,
    /// IP bytes that fit.
    pub mtu: u16,
    /// What is done if the packet is larger than that.
    pub fragmentation: Fragmentation,
    /// Destination translation of a new session.
    pub dnat: Option<Dnat>,
    /// Source translation of a new session.
    pub snat: Option<Snat>,
    /// Translation of a new IPv6 session, or of who sends an ICMP error about one.
    pub npt: Translated6,
    /// Whether it goes from one family to the other.
    pub crossing: Crossing,
    /// The meter group that it passes.
    pub meters: Option<MeterGroupNo>,
    /// A worker has to look at every packet of the flow, since a rule drops some of them for their header.
    pub watched: bool,
}

/// How a packet is cut to size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragmentation {
    /// It fits.
    NotNeeded,
    /// The packet itself is fragmented.
    Packet,
    /// The packet is fragmented together with the tunnel's header.
    Outer,
}

/// The destination translation of a new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dnat {
    /// The inside endpoint.
    pub to: Endpoint,
    /// The binding through which a packet from outside came in.
    pub binding: Option<BindingNo>,
    /// The external address by which it came.
    pub external: Ipv4Addr,
}

/// What becomes of a packet that is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It is for the gateway itself.
    Kernel,
    /// It is dropped.
    Drop {
        /// Why.
        reason: DropReason,
        /// The ICMP error that its sender gets.
        icmp: Option<IcmpError>,
        /// Slot of the rule that denied it.
        rule: Option<RuleSlot>,
        /// It is for what is in its header: other packets of its flow may pass.
        alone: bool,
    },
    /// The translation of its session is not the one that the configuration asks for any more: the session ends, and
    /// the packet is evaluated as a first one.
    SessionInvalid,
    /// The next hop's link address is not known yet.
    Unresolved {
        /// The port that the next hop is on.
        port: PortIdx,
        /// The next hop's address.
        to: IpAddr,
    },
}

impl Disposition {
    /// In debug builds: the reason of a drop is one that [`Stage::of`] knows of this stage.
    #[inline(always)]
    pub(super) fn check_stage(&self, stage: Stage) {
        if let Disposition::Drop { reason, .. } = self {
            debug_assert!(Stage::of(*reason).contains(&stage), "{reason} at stage {stage}");
        }
    }
}

impl fmt::Display for Disposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Disposition::Kernel => f.write_str("for the gateway itself"),
            Disposition::Drop { reason, .. } => f.write_str(reason.text()),
            Disposition::SessionInvalid => f.write_str("the session's translation is out of date: it ends"),
            Disposition::Unresolved { to, .. } => write!(f, "{to} is not resolved yet"),
        }
    }
}

pub(super) const fn drop_packet(reason: DropReason, icmp: Option<IcmpError>) -> Disposition {
    Disposition::Drop { reason, icmp, rule: None, alone: false }
}

/// A decision in the making. Each field names the stage that writes it; later stages read it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draft {
    /// The source as the packet arrived.
    pub src: IpAddr,
    /// The destination as the packet arrived.
    pub wire_dst: IpAddr,
    /// Dnat: the destination after translation.
    pub dst: IpAddr,
    /// Dnat: the VRF in which that is looked up.
    pub vrf: VrfNo,
    /// Dnat: whether the session or a new translation gives the packet another destination.
    pub translated: bool,
    /// Dnat.
    pub dnat: Option<Dnat>,
    /// Route.
    pub egress: Egress,
    /// Route: the zone that the packet goes to.
    pub zone: Zone,
    /// Route: the VRF that it goes to.
    pub egress_vrf: VrfNo,
    /// Route: the egress port has a link.
    pub link_up: bool,
    /// Acl.
    pub rule: Option<RuleSlot>,
    /// Acl.
    pub watched: bool,
    /// Qos.
    pub meters: Option<MeterGroupNo>,
    /// Snat.
    pub snat: Option<Snat>,
    /// Dnat and Snat, of IPv6.
    pub npt: Translated6,
    /// Dnat and Snat.
    pub crossing: Crossing,
    /// Dnat: a packet through NAT64 as rules and meters see it.
    pub seen64: Option<Seen64>,
    /// Mtu.
    pub fragmentation: Fragmentation,
    /// Neighbor.
    pub nexthop: NhIdx,
}

impl Draft {
    #[inline(always)]
    pub fn new(ctx: &PacketContext<'_>) -> Draft {
        let (src, wire_dst) = (ctx.p.src(ctx.frame), ctx.p.dst(ctx.frame));
        Draft {
            src,
            wire_dst,
            dst: wire_dst,
            vrf: ctx.to_vrf.unwrap_or(ctx.vrf),
            translated: false,
            dnat: None,
            egress: Egress { port: ctx.ingress, tunnel: None, to: wire_dst, mtu: 0, most: 0, source: None },
            zone: ctx.zone,
            egress_vrf: ctx.vrf,
            link_up: false,
            rule: None,
            watched: false,
            meters: None,
            snat: None,
            npt: Translated6::default(),
            crossing: Crossing::None,
            seen64: None,
            fragmentation: Fragmentation::NotNeeded,
            nexthop: NhIdx(0),
        }
    }

    #[inline(always)]
    pub fn finish(self) -> ForwardDecision {
        ForwardDecision {
            port: self.egress.port,
            tunnel: self.egress.tunnel,
            zone: VrfZone::new(self.zone, self.egress_vrf),
            to: self.egress.to,
            nexthop: self.nexthop,
            rule: self.rule,
            watched: self.watched,
            mtu: self.egress.mtu,
            fragmentation: self.fragmentation,
            dnat: self.dnat,
            snat: self.snat,
            npt: self.npt,
            crossing: self.crossing,
            meters: self.meters,
        }
    }
}
