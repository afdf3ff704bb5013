//! tc mode: the pair of devices (veth) by which XDP gets what tc leaves of a port, and by which the port gets what XDP and the
//! workers send.
//!
//! A port with XDP has no segmentation offload: drivers switch it off, and so does the far end of a veth. In tc mode
//! established flows pass as the socket buffers that they come in (`bpf/src/tc.bpf.c`), and XDP, sockets and workers are at
//! one end of the pair, where the kernel delivers single segments.

use super::{Device, Surroundings};
use anyhow::{Context, Result};
use sag_bpf::{AttachMode, Gateway, TcPair};
use sag_rtnl::{DeviceChange, DeviceEditor};
use sag_xsk::{IfName, nic};

/// The alias of both devices begins with it (`ip link`), and goes on with the name of the port's device.
const ALIAS: &str = "sag-vcpe tc ";
const TC_END: &str = "sag-t";
const XDP_END: &str = "sag-x";
/// As long as frames may be on a veth with XDP, whatever the page has beside them.
const MTU: u32 = 3400;
const ETHERNET: u32 = 14;

/// A pair: interface numbers and names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    tc: (u32, String),
    xdp: (u32, String),
}

/// Whether a device is an end of a pair, by its name.
pub fn is_pair_end(name: &str) -> bool {
    [TC_END, XDP_END].iter().any(|p| name.strip_prefix(p).is_some_and(|n| n.parse::<u32>().is_ok()))
}

impl Pair {
    /// The device with XDP.
    pub fn xdp_end(&self) -> (u32, &str) {
        (self.xdp.0, &self.xdp.1)
    }

    /// For the capability line.
    pub fn line(&self) -> String {
        format!(", tc (GSO is forwarded whole; XDP on {})", self.xdp.1)
    }

    fn programs<'n>(&'n self, port: (u32, &'n str)) -> TcPair<'n> {
        let limit = MTU + ETHERNET;
        TcPair { port, tc_end: (self.tc.0, &self.tc.1), xdp_end: (self.xdp.0, &self.xdp.1), limit }
    }

    /// What is wrong with the tc programs.
    pub fn broken(&self, gateway: &Gateway, port: (u32, &str)) -> Option<&'static str> {
        (!gateway.tc_is_intact(&self.programs(port))).then_some("somebody has taken a tc program off")
    }

    /// Takes the programs off and removes the devices.
    pub fn detach(&self, gateway: &Gateway, port: &str) {
        for name in [port, &self.tc.1, &self.xdp.1] {
            if let Err(error) = gateway.detach_tc(name) {
                tracing::debug!(device = name, %error, "detaching");
            }
        }
        // The other end goes with it.
        if let Err(error) = DeviceEditor::open().and_then(|mut editor| editor.delete(self.tc.0)) {
            tracing::debug!(device = self.tc.1, %error, "removing");
        }
    }
}

/// The pair of a device, made if it is not there.
fn make(port: u32, name: &str) -> Result<Pair> {
    let names = [TC_END, XDP_END].map(|end| format!("{end}{port}"));
    let mut editor = DeviceEditor::open()?;
    let find = |editor: &mut DeviceEditor| -> Result<Option<Pair>> {
        let all = editor.devices()?;
        let number = |name: &String| all.iter().find(|d| d.name == *name).map(|d| d.ifindex);
        let [tc, xdp] = [number(&names[0]), number(&names[1])];
        Ok(tc.zip(xdp).map(|(tc, xdp)| Pair { tc: (tc, names[0].clone()), xdp: (xdp, names[1].clone()) }))
    };
    let pair = match find(&mut editor)? {
        Some(pair) => pair,
        None => {
            editor.add_veth(&names[0], &names[1])?;
            find(&mut editor)?.context("the pair of devices is not there")?
        }
    };
    let alias = format!("{ALIAS}{name}");
    let change = DeviceChange {
        alias: Some(&alias),
        mtu: Some(MTU),
        up: Some(true),
        link_local: Some(false),
        carrier: None,
    };
    for ifindex in [pair.xdp.0, pair.tc.0] {
        editor.change(ifindex, &change)?;
    }
    let end = IfName::new(&pair.tc.1).context("no name of a device")?;
    // XDP sends to a veth whose far end has GRO, and sees tags that are in the frame.
    for (offload, on) in [("rx-gro", true), ("tx-vlan-hw-insert", false), ("tx-vlan-stag-hw-insert", false)] {
        nic::set_offload(end, offload, on).with_context(|| format!("{}: {offload}", pair.tc.1))?;
    }
    Ok(pair)
}

/// Puts a device in tc mode.
pub(super) fn attach(s: &Surroundings<'_>, d: &mut Device) -> Result<()> {
    // Of an earlier daemon with another mode.
    s.gateway.detach(&d.name)?;
    let pair = make(d.ifindex, &d.name).context("tc mode: the pair of devices cannot be made")?;
    let (ifindex, name) = pair.xdp_end();
    d.queues = 1;
    d.attached = Some(s.gateway.attach(ifindex, name, AttachMode::Native)?);
    s.gateway.attach_tc(&pair.programs((d.ifindex, &d.name)))?;
    d.pair = Some(pair);
    Ok(())
}

/// Removes pairs of ports that are none any more, or not in tc mode.
pub(super) fn remove_unused(gateway: &Gateway, used: &[&Pair]) {
    let remove = || -> sag_rtnl::Result<()> {
        let mut editor = DeviceEditor::open()?;
        let ours =
            editor.devices()?.into_iter().filter(|d| d.alias.starts_with(ALIAS) && is_pair_end(&d.name));
        let in_use = |ifindex| used.iter().any(|p| p.tc.0 == ifindex || p.xdp.0 == ifindex);
        for d in ours.filter(|d| !in_use(d.ifindex)) {
            let _ = gateway.detach_tc(&d.name);
            gateway.clear_port(d.ifindex);
            editor.delete(d.ifindex)?;
        }
        Ok(())
    };
    if let Err(error) = remove() {
        tracing::warn!(%error, "pairs of devices that are not needed any more stay");
    }
}

/// Removes all pairs. Returns how many there were.
pub fn remove_pairs() -> sag_rtnl::Result<usize> {
    let mut editor = DeviceEditor::open()?;
    let ours: Vec<_> = editor.devices()?.into_iter().filter(|d| d.alias.starts_with(ALIAS)).collect();
    for d in ours.iter().filter(|d| d.name.starts_with(TC_END)) {
        editor.delete(d.ifindex)?;
    }
    Ok(ours.len().div_ceil(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_pairs_are_known_by_name() {
        for (name, is) in [
            ("sag-t5", true),
            ("sag-x4294967295", true),
            ("sag-t", false),
            ("sag-tun", false),
            ("eth0", false),
        ] {
            assert_eq!(is_pair_end(name), is, "{name}");
        }
    }
}
