//! The segment size that TCP SYNs ask for.

use super::{BatchEntry, Pipeline};
use crate::snapshot::Snapshot;
use crate::stages::ForwardDecision;
use crate::tunnel::{Tunnel, TunnelNo};
use sag_model::PortIdx;
use sag_packet::mss;
use sag_packet::parse::{Family, L4};
use sag_packet::proto::TCP_SYN;
use sag_packet::rewrite::FrameMut;

impl Pipeline {
    /// A SYN that goes through a tunnel or out by a port, or has come that way, asks for segments that fit it.
    pub(super) fn clamp_segments(
        &self,
        snap: &Snapshot,
        s: &BatchEntry,
        decision: &ForwardDecision,
        f: &mut FrameMut<'_>,
    ) {
        if !matches!(s.p.l4, L4::Tcp { flags } if flags & TCP_SYN != 0) {
            return;
        }
        let most = |tunnel: Option<TunnelNo>, port: PortIdx| match tunnel {
            Some(_) => snap.tunnel(tunnel).filter(|t| t.mss_clamp).map(Tunnel::inner_mtu),
            None => snap.port(port).filter(|p| p.mss_clamp).map(|p| p.mtu),
        };
        // Answers go back in the other family, whose header is longer or shorter.
        let back = |mtu: u16| match (decision.crossing.is_any(), s.p.family) {
            (true, Family::V4) => mtu.saturating_sub(20),
            (true, Family::V6) => mtu.saturating_add(20),
            (false, _) => mtu,
        };
        // A route may have a smaller MTU than its port.
        let there = most(decision.tunnel, decision.port).map(|mtu| match decision.tunnel {
            Some(_) => mtu,
            None => mtu.min(decision.mtu),
        });
        let here = most(s.tunnel, s.ingress).map(back);
        if let Some(mtu) = there.into_iter().chain(here).min() {
            mss::clamp(f.bytes_mut(), &s.p, mtu);
        }
    }
}
