//! `tunnels` and its metrics.

use crate::daemon::view::View;
use sag_model::MacAddr;
use sag_model::control;
use sag_packet::encap::Encap;
use sag_pipeline::counters::DEVICE_DROPS;
use sag_pipeline::tunnel::{self, TunnelNo};

impl View<'_> {
    pub fn tunnels_report(&self) -> control::Tunnels {
        let row = |t: &sag_model::config::Tunnel| {
            let running = self.publisher.snapshot.tunnels.iter().find(|r| r.name == t.name);
            let path = running.and_then(|r| self.publisher.snapshot.outer_path(r, r.remote, 0));
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
                port: path.and_then(|p| self.publisher.snapshot.port(p.port)).map(|p| p.name.clone()),
                mtu: 0,
                mtu_configured: t.mtu,
                path_mtu_learned: None,
                icmp_refused: 0,
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
                device: None,
            };
            if let Some(r) = running {
                out.mtu = r.whole_mtu();
                out.path_mtu_learned = r.state.learned().map(|(mtu, _)| mtu);
                out.icmp_refused = r.state.refused_errors();
                out.overhead = r.overhead();
                out.path_mtu = r.path_mtu();
                let w = r.state.watched();
                if let Some(rtt) = w.rtt {
                    (out.rtt_us, out.jitter_us) = (Some(rtt / 1000), Some(w.jitter / 1000));
                    out.loss_percent = Some(f64::from(w.loss_permille) / 10.0);
                }
                out.path_search = r.state.probed().map(|_| w.path.name().to_owned());
                out.remote_mac = peer_mac(r);
                out.device = t.device.as_ref().map(|name| control::TunnelDevice {
                    name: name.clone(),
                    mtu: r.device_mtu(),
                    problem: self.tunnel_devices.problem(name),
                    lost: self.tunnel_devices.lost(r.no),
                    ..self.count_device(r.no)
                });
                self.count_tunnel(r.no, &mut out);
            }
            out
        };
        control::Tunnels { tunnels: self.running.config.tunnels.iter().map(row).collect() }
    }

    fn keys_of(
        &self,
        t: &sag_model::config::Tunnel,
        running: Option<&tunnel::Tunnel>,
    ) -> Option<control::TunnelKeys> {
        let f = self.keys.facts(&t.name)?;
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
            withheld: f.withheld,
        })
    }

    /// The workers' counters of the machine's own traffic.
    fn count_device(&self, no: TunnelNo) -> control::TunnelDevice {
        let mut out = control::TunnelDevice::default();
        let mut drops = [0; DEVICE_DROPS.len() + 1];
        for w in self.workers.shared() {
            let c = &w.counters.tunnel(no).device;
            out.rx_packets += c.rx_packets.get();
            out.tx_packets += c.tx_packets.get();
            for (sum, of_worker) in drops.iter_mut().zip(c.drops.iter().chain([&c.malformed])) {
                *sum += of_worker.get();
            }
        }
        let names = DEVICE_DROPS.iter().map(|r| r.name()).chain(["malformed"]);
        let row =
            |(reason, packets): (&str, u64)| control::TunnelDeviceDrop { reason: reason.to_owned(), packets };
        out.drops = names.zip(drops).filter(|(_, packets)| *packets > 0).map(row).collect();
        out
    }

    /// XDP's counters and the workers'.
    fn count_tunnel(&self, no: TunnelNo, out: &mut control::Tunnel) {
        let fast = self.publisher.gateway.tunnel_stats(no.get()).unwrap_or_default();
        let base = self.telemetry.tunnel_base(no);
        out.rx_packets = fast.rx_packets.saturating_sub(base.rx_packets);
        out.rx_bytes = fast.rx_bytes.saturating_sub(base.rx_bytes);
        out.tx_packets = fast.tx_packets.saturating_sub(base.tx_packets);
        out.tx_bytes = fast.tx_bytes.saturating_sub(base.tx_bytes);
        for w in self.workers.shared() {
            let c = w.counters.tunnel(no);
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
