//! Devices that take no frames of XDP's redirects. The kernel drops what XDP sends to such a device, after XDP has counted
//! it as forwarded. So the device gets no place in XDP's map: flows that leave by it are the workers', whose frames every
//! device takes.
//!
//! Whether it does may change at any time: a veth takes redirects while its far end has GRO or an XDP program.

use super::lost::REFUSED;
use super::{Device, Devices};
use sag_bpf::{Attached, Gateway, Mode};

impl Device {
    /// Whether XDP may redirect to it. `all_generic`: whatever is sent to it comes from generic XDP, whose redirects every
    /// device takes.
    pub(super) fn takes_redirects(&self, all_generic: bool) -> bool {
        let refused = self.refused.is_some_and(|t| t.elapsed() < REFUSED);
        self.attached.as_ref().is_some_and(|a| all_generic || has_ndo_xmit(a)) && !refused
    }
}

/// What the kernel says (from Linux 6.3), else what is likely: a driver with native XDP transmits as well.
fn has_ndo_xmit(a: &Attached) -> bool {
    a.can_transmit.unwrap_or(a.mode == Mode::Native)
}

impl Devices {
    /// Brings XDP's map of devices in line with what the devices take now. Returns whether somebody else has removed one.
    pub(super) fn set_redirects(&mut self, gateway: &Gateway) -> bool {
        let attached = || self.by_slot.values().filter_map(|d| d.attached.as_ref());
        let all_generic = attached().all(|a| a.mode == Mode::Generic);
        let mut missing = false;
        for (slot, d) in self.by_slot.iter_mut().filter(|(_, d)| d.ifindex != 0 && d.attached.is_some()) {
            let wanted = d.takes_redirects(all_generic);
            let ifindex = d.xdp_device().0;
            let there = gateway.sends_by(*slot, ifindex);
            missing |= wanted && !there && d.redirects == Some(true);
            let done = match (wanted, there) {
                (true, false) => gateway.set_dev(*slot, ifindex),
                (false, true) => gateway.clear_dev(*slot),
                _ => Ok(()),
            };
            if let Err(error) = done {
                tracing::error!(device = d.name, %error, "cannot write the device to XDP's map");
                continue;
            }
            if d.redirects.replace(wanted).is_some_and(|before| before != wanted) {
                let who = if wanted { "XDP" } else { "workers" };
                tracing::info!(device = d.name, redirects = wanted, "{who} send by the device from now on");
            }
        }
        missing
    }

    /// Asks the kernel again which devices take redirects. Returns whether one has changed.
    pub(super) fn read_redirects(&mut self, gateway: &Gateway) -> bool {
        let mut changed = false;
        for d in self.by_slot.values_mut().filter(|d| d.ifindex != 0) {
            let ifindex = d.xdp_device().0;
            if let Some(a) = &mut d.attached {
                let now = gateway.can_transmit(ifindex);
                changed |= std::mem::replace(&mut a.can_transmit, now) != now;
            }
            if d.refused.is_some_and(|t| t.elapsed() >= REFUSED) {
                d.refused = None;
                changed = true;
            }
        }
        changed
    }
}
