//! Tunnels as XDP sees them, and what is learned of their paths.

use super::Daemon;
use sag_model::control;
use sag_model::{MacAddr, Nanos};
use sag_packet::encap::Encap;
use sag_pipeline::tunnel;
use sag_xsk::sys;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a path MTU that was learned is believed (RFC 1191 6.3).
const BELIEVED: Duration = Duration::from_secs(600);

impl Daemon {
    /// Tells XDP the tunnels of the snapshot; `ends`: also which received packets are of which.
    pub(super) fn publish_tunnels(&self, ends: bool) {
        let (records, tunnels) = (self.gateway.tunnels(), &self.snapshot.tunnels);
        for (no, record) in records.iter().enumerate().skip(1) {
            match tunnels.get(no as u8) {
                Some(t) => record.store(&t.entry()),
                None => record.clear(),
            }
        }
        if ends && let Err(error) = self.gateway.replace_tunnel_ends(&tunnels.xdp_ends()) {
            tracing::error!(%error, "cannot tell XDP the ends of tunnels: workers do its part");
        }
        let count = tunnels.iter().count() as u32;
        self.gateway.control().tunnels.store(count, Ordering::Release);
    }

    /// A tunnel has gone down, come back, or may take over: routes are chosen anew.
    fn tunnels_turned(&mut self) {
        for t in self.snapshot.tunnels.iter() {
            let up = t.state.is_up();
            if self.tunnels_up.insert(t.name.clone(), up).unwrap_or(true) == up {
                continue;
            }
            let w = t.state.watched();
            if up {
                tracing::info!(tunnel = t.name, rtt_us = w.rtt.map(|r| r / 1000), "the tunnel is up again");
            } else {
                tracing::warn!(
                    tunnel = t.name, remote = %t.remote, lost = t.probing.loss,
                    "the tunnel is down: its far end does not answer"
                );
            }
        }
        self.recompile(self.epoch);
        let n = self.compiler.nexthops.bump(|_, _| true);
        tracing::debug!(nexthops = n, "flows resolve their route anew");
    }

    /// What workers have learned goes to XDP; what is old is asked anew.
    pub(super) fn keep_tunnels(&mut self) {
        if self.snapshot.tunnels.is_empty() {
            return;
        }
        self.compiler.tunnels.esp.poll();
        if self.compiler.tunnels.look(&self.snapshot.tunnels) {
            self.tunnels_turned();
        }
        let now = Nanos(sys::now());
        for t in self.snapshot.tunnels.iter() {
            if let Some((mtu, since)) = t.state.learned()
                && now.saturating_sub(since) > Nanos(BELIEVED.as_nanos() as u64)
            {
                tracing::debug!(tunnel = t.name, mtu, "the path is asked anew what it carries");
                t.state.forget_path();
            }
            if let Some(record) = self.gateway.tunnels().get(usize::from(t.no)) {
                record.store(&t.entry());
            }
        }
    }

    pub(super) fn tunnels_report(&self) -> control::Tunnels {
        let row = |t: &sag_model::config::Tunnel| {
            let running = self.snapshot.tunnels.iter().find(|r| r.name == t.name);
            let path = running.and_then(|r| self.snapshot.outer_path(r.remote, 0));
            let mut out = control::Tunnel {
                name: t.name.clone(),
                kind: t.encap.kind().to_owned(),
                state: match (running, path) {
                    (None, _) => "off",
                    (Some(_), None) => "no-path",
                    (Some(r), Some(_)) if r.state.is_up() => "up",
                    _ => "down",
                }
                .to_owned(),
                local: t.local,
                remote: t.remote,
                port: path.and_then(|p| self.snapshot.port(p.port)).map(|p| p.name.clone()),
                mtu: 0,
                mtu_configured: t.mtu,
                path_mtu_learned: None,
                overhead: 0,
                remote_mac: None,
                rx_packets: 0,
                rx_bytes: 0,
                tx_packets: 0,
                tx_bytes: 0,
                path_mtu: 0,
                path_search: None,
                rtt_us: None,
                jitter_us: None,
                loss_percent: None,
                esp: self.keys_of(t, running),
                fec: t.fec.map(|f| control::TunnelFec {
                    window: f.window,
                    repairs: f.repairs,
                    delay_ms: f.delay,
                    ..Default::default()
                }),
                drops: 0,
            };
            if let Some(r) = running {
                out.mtu = r.whole_mtu();
                out.path_mtu_learned = r.state.learned().map(|(mtu, _)| mtu);
                out.overhead = r.overhead();
                out.path_mtu = r.path_mtu();
                let w = r.state.watched();
                if let Some(rtt) = w.rtt {
                    (out.rtt_us, out.jitter_us) = (Some(rtt / 1000), Some(w.jitter / 1000));
                    out.loss_percent = Some(f64::from(w.loss_permille) / 10.0);
                }
                out.path_search = r.state.probed().map(|_| w.path.name().to_owned());
                out.remote_mac = peer_mac(r);
                self.count_tunnel(r.no, &mut out);
            }
            out
        };
        control::Tunnels { tunnels: self.config.tunnels.iter().map(row).collect() }
    }

    fn keys_of(
        &self,
        t: &sag_model::config::Tunnel,
        running: Option<&tunnel::Tunnel>,
    ) -> Option<control::TunnelKeys> {
        let f = self.compiler.tunnels.esp.facts(&t.name)?;
        let peer = running.and_then(|r| r.state.source());
        Some(control::TunnelKeys {
            cipher: f.cipher.to_owned(),
            spi_in: f.spi_in,
            spi_out: f.spi_out,
            age_in_s: f.age_in,
            age_out_s: f.age_out,
            sequence: f.sequence,
            bytes: f.bytes,
            waiting: f.waits,
            peer,
            keepalives: 0,
        })
    }

    /// XDP's counters and the workers'.
    fn count_tunnel(&self, no: u8, out: &mut control::Tunnel) {
        let fast = self.gateway.tunnel_stats(no).unwrap_or_default();
        let base = self.tunnel_base.get(usize::from(no)).copied().unwrap_or_default();
        out.rx_packets = fast.rx_packets.saturating_sub(base.rx_packets);
        out.rx_bytes = fast.rx_bytes.saturating_sub(base.rx_bytes);
        out.tx_packets = fast.tx_packets.saturating_sub(base.tx_packets);
        out.tx_bytes = fast.tx_bytes.saturating_sub(base.tx_bytes);
        for w in &self.workers {
            let c = w.shared.counters.tunnel(no);
            out.rx_packets += c.rx_packets.get();
            out.rx_bytes += c.rx_bytes.get();
            out.tx_packets += c.tx_packets.get();
            out.tx_bytes += c.tx_bytes.get();
            out.drops += c.drops.get();
            if let Some(k) = &mut out.esp {
                k.keepalives += c.keepalives.get();
            }
            if let Some(f) = &mut out.fec {
                f.repairs_sent += c.fec_repairs.get();
                f.overhead_bytes += c.fec_overhead.get();
                f.recovered += c.fec_recovered.get();
                f.unrecoverable += c.fec_unrecoverable.get();
            }
        }
    }
}

fn peer_mac(t: &tunnel::Tunnel) -> Option<MacAddr> {
    match t.template.encap {
        Encap::Vxlan { remote_mac, .. } => Some(t.state.peer_mac().unwrap_or(remote_mac)),
        _ => None,
    }
}
