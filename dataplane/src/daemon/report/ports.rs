//! `ports` and `drops`.

use crate::daemon::kernel_settings;
use crate::daemon::view::View;
use ipnet::IpNet;
use sag_bpf::Attachment;
use sag_compile::PortBinding;
use sag_model::control;
use sag_model::{DropReason, VlanId};
use sag_xsk::nic;

impl View<'_> {
    pub fn port_rows(&self) -> Vec<control::Port> {
        let mut settings = self.settings.report().settings;
        let row = |b: &PortBinding| {
            let mut row = self.port_row(b);
            let tables = self.kernel.tables();
            // Those of macvlan devices above the port and of cards below it come behind its own.
            let above = tables.links().filter(|l| b.l3_ifindex.is_some() && l.parent == b.l3_ifindex);
            let below = kernel_settings::below(tables, b.port.ifindex).into_iter().map(|l| l.ifindex);
            for ifindex in b.l3_ifindex.into_iter().chain(above.map(|l| l.ifindex)).chain(below) {
                row.kernel_settings.extend(settings.remove(&ifindex).unwrap_or_default());
            }
            row
        };
        self.publisher.bindings.iter().map(row).collect()
    }

    /// Frames that XDP has sent by the device of a port and that it has not taken. The first of its ports has all.
    fn lost_behind(&self, b: &PortBinding) -> u64 {
        if self.is_first_of_device(b) { self.devices.lost_by(b.port.dev) } else { 0 }
    }

    fn is_first_of_device(&self, b: &PortBinding) -> bool {
        self.own_ports().find(|p| p.port.dev == b.port.dev).is_some_and(|p| p.idx == b.idx)
    }

    /// The same as [`View::port_rows`], and what the drivers count, which takes them longer.
    pub fn port_rows_with_drivers(&self) -> Vec<control::Port> {
        let mut rows = self.port_rows();
        for (row, b) in rows.iter_mut().zip(&self.publisher.bindings) {
            if b.ours() && self.is_first_of_device(b) {
                row.driver_losses = nic::loss_counters(&b.device).into_iter().collect();
            }
        }
        rows
    }

    fn port_row(&self, b: &PortBinding) -> control::Port {
        let mut row = control::Port::new(&b.port.name, &b.device, b.role);
        row.vlan = VlanId::new(b.port.vlan);
        row.up = b.port.up;
        row.mtu = u32::from(b.port.mtu);
        row.mac = Some(b.port.mac);
        let v4 = b.port.addrs4.iter().filter_map(|(a, l)| IpNet::new((*a).into(), *l).ok());
        let v6 = b.port.addrs6.iter().filter_map(|(a, l)| IpNet::new((*a).into(), *l).ok());
        row.addresses = v4.chain(v6).collect();
        if !b.ours() {
            row.capability = format!("{}: left to the kernel", b.device);
            return row;
        }
        if let Some(d) = self.devices.get(b.port.dev) {
            row.capability = d.capability();
            let (ifindex, device) = d.xdp_device();
            let attached = || self.publisher.gateway.attachment(ifindex, device) == Attachment::Intact;
            row.xdp_mode = if d.attached.is_some() && attached() { d.mode_name() } else { "none" }.to_owned();
            row.xsk_mode = match d.binding {
                Some(x) if x.is_zero_copy() => "zero-copy",
                Some(_) => "copy",
                None => "none",
            }
            .to_owned();
            row.queues = d.queues;
            row.tx_lost = self.lost_behind(b);
        }
        if self.workers.shared().any(|w| w.counters.port(b.idx).partial_checksums.get() > 0) {
            row.capability += ", completes partial checksums";
        }
        let c = self.counters(b.idx);
        row.rx_packets = c.rx_packets;
        row.rx_bytes = c.rx_bytes;
        row.tx_packets = c.tx_packets;
        row.tx_bytes = c.tx_bytes;
        row.forwarded = c.forwarded;
        row.to_kernel = c.to_kernel;
        row.held = c.held;
        row.dropped = c.drops.iter().sum();
        row.originated = c.originated;
        row.punted = c.punted;
        row.fast = c.fast;
        row
    }

    pub fn drop_rows(&self) -> Vec<control::DropRow> {
        let mut rows = Vec::new();
        for b in self.own_ports() {
            let c = self.counters(b.idx);
            for r in DropReason::ALL {
                let n = c.drops[r.index()];
                if n > 0 {
                    rows.push(control::DropRow::new(&b.port.name, *r, n));
                }
            }
            let lost = self.lost_behind(b);
            if lost > 0 {
                rows.push(control::DropRow::new(&b.port.name, DropReason::TxLost, lost));
            }
        }
        rows
    }
}
