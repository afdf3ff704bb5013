//! XDP's maps are pinned, so others can reach them: what somebody took out of them comes back.

use super::Daemon;
use sag_model::VlanId;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How often what XDP knows is made what it shall know.
const TEND: Duration = Duration::from_secs(1);

impl Daemon {
    /// Devices, sockets, ports, addresses and ends of tunnels again; each that is right stays as it is.
    pub(super) fn tend_maps(&mut self) {
        if self.live.is_none() || self.tended.elapsed() < TEND {
            return;
        }
        self.tended = Instant::now();
        let mut lost = Vec::new();
        for (slot, d) in self.devices.iter().filter(|(_, d)| d.ifindex != 0 && d.attached.is_some()) {
            let known = |b: &crate::compile::PortBinding| {
                self.gateway.port_of(d.ifindex, VlanId::new(b.port.vlan)) == Some((b.idx, *slot))
            };
            if self.bindings.iter().any(|b| b.ours() && b.port.dev == *slot && !known(b)) {
                lost.push("ports");
            }
            if !self.gateway.sends_by(*slot, d.ifindex) {
                lost.push("devices");
                if let Err(error) = self.gateway.set_dev(*slot, d.ifindex) {
                    tracing::error!(device = d.name, %error, "XDP cannot send out of the device");
                }
            }
            // Nobody can read from this map which socket is there.
            for (queue, socket) in &d.sockets {
                if let Err(error) = self.gateway.set_xsk(*slot, *queue, socket.as_fd()) {
                    tracing::debug!(device = d.name, queue, %error, "the socket cannot be set again");
                }
            }
        }
        if lost.contains(&"ports") {
            self.publish_ports();
        }
        if self.publish_addresses() {
            lost.push("addresses");
        }
        match self.gateway.replace_tunnel_ends(&self.snapshot.tunnels.xdp_ends()) {
            Ok(true) => lost.push("ends of tunnels"),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the ends of tunnels cannot be set again"),
        }
        if !lost.is_empty() {
            lost.dedup();
            tracing::warn!(lost = lost.join(", "), "XDP's maps were changed from outside; put right");
        }
    }
}
