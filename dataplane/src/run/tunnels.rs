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

    /// What workers have learned goes to XDP; what is old is asked anew.
    pub(super) fn keep_tunnels(&mut self) {
        if self.snapshot.tunnels.is_empty() {
            return;
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
