//! XDP's maps of tunnels and of the gateway's own addresses.

use super::Publisher;
use sag_bpf::LocalAddr;
use sag_pipeline::ids::TunnelNo;
use std::net::IpAddr;
use std::sync::atomic::Ordering;

impl Publisher {
    /// Writes the record of every tunnel of the snapshot, and clears the others.
    pub(super) fn write_tunnel_records(&self) {
        for (no, record) in self.gateway.tunnels().iter().enumerate().skip(1) {
            match TunnelNo::new(no as u8).and_then(|no| self.snapshot.tunnels.get(no)) {
                Some(t) => record.store(&t.entry()),
                None => record.clear(),
            }
        }
    }

    /// Writes the records of the running tunnels again: they hold what workers have learned of the paths.
    pub fn refresh_tunnel_records(&self) {
        for t in self.snapshot.tunnels.iter() {
            if let Some(record) = self.gateway.tunnels().get(t.no.index()) {
                record.store(&t.entry());
            }
        }
    }

    /// Which received packets are for which tunnel, if that has changed, and how many tunnels there are.
    pub(super) fn write_tunnel_ends(&self, changed: bool) {
        let tunnels = &self.snapshot.tunnels;
        if changed && let Err(error) = self.gateway.replace_tunnel_ends(&tunnels.xdp_ends()) {
            tracing::error!(%error, "cannot write the ends of tunnels to XDP's map: workers decapsulate instead");
        }
        let count = tunnels.iter().count() as u32;
        self.gateway.control().tunnels.store(count, Ordering::Release);
    }

    /// XDP's view of the gateway's own addresses; true if one was missing.
    pub(super) fn write_local_addresses(&self) -> bool {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let ends = self.snapshot.tunnels.iter().filter_map(|t| match t.local {
            IpAddr::V6(a) => Some(a),
            IpAddr::V4(_) => None,
        });
        let ends: Vec<_> = ends.collect();
        for (vrf, a) in self.snapshot.kernel_addresses() {
            match a {
                IpAddr::V4(addr) => {
                    let external = self.snapshot.nat.externals.get(&addr.to_bits());
                    let pool = external.and_then(|_| self.records.nat.pool_of(addr));
                    let any = external.is_some_and(|e| e.internet.has_any() || e.intranet.has_any());
                    let tunnel = self.snapshot.tunnels.end_at((addr).into());
                    let silent = self.snapshot.nat.is_silent(addr);
                    v4.push(LocalAddr { addr, nat_slot: pool.map(|p| p.no), any, tunnel, silent, vrf });
                }
                IpAddr::V6(a) => v6.push((vrf, a)),
            }
        }
        let mut missing = false;
        for done in [self.gateway.replace_local4(&v4), self.gateway.replace_local6(&v6, &ends)] {
            match done {
                Ok(new) => missing |= new,
                Err(error) => {
                    tracing::error!(%error, "cannot write the gateway's own addresses to XDP's map")
                }
            }
        }
        missing
    }

    /// Services that SYN cookies protect, and the segment sizes that XDP announces for them; true if one was missing.
    pub(super) fn write_syn_services(&self) -> bool {
        let cookies = &self.snapshot.syn_cookies;
        let services: Vec<_> = cookies.services().collect();
        let control = self.gateway.syn_cookies();
        // What every port takes: a server may be behind any.
        let mtu = self.snapshot.ports.iter().map(|p| p.mtu).filter(|mtu| *mtu > 0).min().unwrap_or(1500);
        control.mss4.store(mtu.saturating_sub(40).max(536).into(), Ordering::Relaxed);
        control.mss6.store(mtu.saturating_sub(60).max(1220).into(), Ordering::Relaxed);
        let missing = self.gateway.replace_syn_services(&services).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot write the services of [[syn_cookies]] to XDP's map");
            false
        });
        control.services.store(services.len() as u32, Ordering::Release);
        missing
    }

    /// Writes own addresses and ends of tunnels again where somebody has changed XDP's maps from outside. Returns what
    /// was missing.
    pub fn repair_addresses(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if self.write_local_addresses() {
            missing.push("addresses");
        }
        match self.gateway.replace_tunnel_ends(&self.snapshot.tunnels.xdp_ends()) {
            Ok(true) => missing.push("ends of tunnels"),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the ends of tunnels cannot be written again"),
        }
        if self.write_syn_services() {
            missing.push("services of SYN cookies");
        }
        missing
    }
}
