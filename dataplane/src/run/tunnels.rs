//! Tunnels as XDP sees them, and what is learned of their paths.

use super::Daemon;
use sag_model::Nanos;
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
}
