//! The devices of a line: a pair whose one end is the gateway's port, and filters that carry packets between its other end
//! and pppd's device, which has no link headers and takes no frames of XDP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sag_rtnl::{Device, DeviceChange, DeviceEditor, Editor, LinkHeader, Redirects};
use sag_xsk::{IfName, nic};

use crate::settings::PppoeDevices;

type Result<T> = std::result::Result<T, String>;

/// The kernel's interfaces by which devices are changed.
pub(super) struct Kernel {
    pub(super) devices: DeviceEditor,
    editor: Editor,
    redirects: Redirects,
}

/// The pair of a line, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) port: Device,
    pub(super) link: Device,
}

/// What the session gives to the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) address: Ipv4Addr,
    pub(super) peer: Ipv4Addr,
    /// Link-local addresses of both ends, once they have agreed on them (IPv6CP).
    pub(super) link_local: Option<(Ipv6Addr, Ipv6Addr)>,
    /// pppd's device.
    pub(super) session: u32,
    pub(super) mtu: u32,
}

/// Addresses of this end and the other.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) v4: Option<(Ipv4Addr, Ipv4Addr)>,
    pub(super) link_local: Option<(Ipv6Addr, Ipv6Addr)>,
}

fn text(e: impl ToString) -> String {
    e.to_string()
}

pub(super) fn named<'d>(all: &'d [Device], name: &str) -> Option<&'d Device> {
    all.iter().find(|d| d.name == name)
}

impl Kernel {
    pub(super) fn open() -> Result<Kernel> {
        Ok(Kernel {
            devices: DeviceEditor::open().map_err(text)?,
            editor: Editor::open().map_err(text)?,
            redirects: Redirects::open().map_err(text)?,
        })
    }

    /// The pair of a line, which is made if it is not there. `alias` says whose it is.
    pub(super) fn pair(&mut self, names: &PppoeDevices, alias: &str) -> Result<Pair> {
        let mut all = self.devices.devices().map_err(text)?;
        if named(&all, &names.port).is_none() && named(&all, &names.link).is_none() {
            self.devices.add_veth(&names.port, &names.link).map_err(text)?;
            all = self.devices.devices().map_err(text)?;
            for name in [&names.port, &names.link] {
                let Some(d) = named(&all, name) else { continue };
                // The port has the session's link-local address, the other end is no host.
                let change =
                    DeviceChange { alias: Some(alias), link_local: Some(false), ..DeviceChange::default() };
                self.devices.change(d.ifindex, &change).map_err(text)?;
            }
            tracing::info!(device = names.port, "device made for PPPoE");
        }
        let one = |name: &String| match named(&all, name) {
            Some(d) if d.alias.is_empty() || d.alias == alias => Ok(d.clone()),
            Some(_) => Err(format!("a network device {name} is there that is another's; remove it")),
            None => Err(format!("no network device {name}; remove the other end of the pair")),
        };
        let pair = Pair { port: one(&names.port)?, link: one(&names.link)? };
        // Its other end takes frames of XDP only so.
        let name = IfName::new(&names.link).ok_or_else(|| format!("{}: no name", names.link))?;
        if nic::offload(name, "rx-gro") != Some(true) {
            nic::set_offload(name, "rx-gro", true).map_err(|e| format!("{}: GRO: {e}", names.link))?;
        }
        self.set_up(&pair.port, true)?;
        Ok(pair)
    }

    /// IPv4 addresses of both ends of a session, and link-local ones; each as soon as they have agreed on them.
    pub(super) fn ends(&mut self, session: u32) -> Result<Ends> {
        let mut out = Ends::default();
        for ends in self.devices.point_to_point(session).map_err(text)? {
            match ends {
                (IpAddr::V4(own), IpAddr::V4(peer)) => out.v4 = Some((own, peer)),
                (IpAddr::V6(own), IpAddr::V6(peer)) => out.link_local = Some((own, peer)),
                _ => {}
            }
        }
        Ok(out)
    }

    pub(super) fn set_up(&mut self, device: &Device, up: bool) -> Result<()> {
        if device.up == up {
            return Ok(());
        }
        let change = DeviceChange { up: Some(up), ..DeviceChange::default() };
        self.devices.change(device.ifindex, &change).map_err(text)
    }

    fn set_mtu(&mut self, device: &Device, mtu: u32) -> Result<()> {
        if device.mtu == mtu {
            return Ok(());
        }
        let change = DeviceChange { mtu: Some(mtu), ..DeviceChange::default() };
        self.devices.change(device.ifindex, &change).map_err(text)
    }

    /// Packets go both ways between port and session from now on.
    pub(super) fn join(&mut self, pair: &Pair, given: &Given) -> Result<()> {
        for device in [&pair.port, &pair.link] {
            self.set_mtu(device, given.mtu)?;
        }
        let mac = |d: &Device| d.mac.ok_or_else(|| format!("{}: no Ethernet address", d.name));
        let header = LinkHeader::Push { dst: mac(&pair.port)?, src: mac(&pair.link)? };
        self.redirects.set(given.session, pair.link.ifindex, header).map_err(text)?;
        self.redirects.set(pair.link.ifindex, given.session, LinkHeader::Pop).map_err(text)?;
        // The address is the port's, where the gateway looks for it, and of no other device.
        self.editor.remove_peer_address(given.session, given.address, given.peer).map_err(text)
    }

    /// The port has what the session has given to it; what is there already is left alone.
    pub(super) fn give(&mut self, pair: &Pair, given: &Given, metric: Option<u32>) -> Result<()> {
        let Given { address, peer, .. } = *given;
        let port = pair.port.ifindex;
        let has = self.devices.point_to_point(port).map_err(text)?;
        if !has.contains(&(address.into(), peer.into())) {
            self.editor.add_peer_address(port, address, peer).map_err(text)?;
        }
        let Some(mac) = pair.link.mac else { return Ok(()) };
        self.editor.add_neighbor(port, peer.into(), mac).map_err(text)?;
        if let Some((own, peer)) = given.link_local {
            self.editor.add_link_local(port, own).map_err(text)?;
            self.editor.add_neighbor(port, peer.into(), mac).map_err(text)?;
        }
        metric.map_or(Ok(()), |metric| self.editor.add_default(port, peer, metric).map_err(text))
    }

    pub(super) fn remove_default(&mut self, pair: &Pair, peer: Ipv4Addr, metric: Option<u32>) -> Result<()> {
        let port = pair.port.ifindex;
        metric.map_or(Ok(()), |metric| self.editor.remove_default(port, peer, metric).map_err(text))
    }

    /// The port has nothing any more, and no carrier. All is tried, whatever fails.
    pub(super) fn part(&mut self, pair: &Pair, given: &Given, metric: Option<u32>) -> Result<()> {
        let down = DeviceChange { up: Some(false), ..DeviceChange::default() };
        let mut done = self.devices.change(pair.link.ifindex, &down).map_err(text);
        done = done.and(self.remove_default(pair, given.peer, metric));
        let port = pair.port.ifindex;
        done = done.and(self.editor.remove_neighbor(port, given.peer.into()).map_err(text));
        if let Some((own, peer)) = given.link_local {
            done = done
                .and(self.editor.remove_neighbor(port, peer.into()).map_err(text))
                .and(self.editor.remove_link_local(port, own).map_err(text));
        }
        done = done.and(self.redirects.clear(pair.link.ifindex).map_err(text));
        for (address, peer) in self.devices.point_to_point(port).unwrap_or_default() {
            if let (IpAddr::V4(a), IpAddr::V4(p)) = (address, peer) {
                done = done.and(self.editor.remove_peer_address(port, a, p).map_err(text));
            }
        }
        done
    }

    /// What a service that was killed has left on the port goes: with its being down, routes and neighbors do.
    pub(super) fn clear(&mut self, pair: &Pair) -> Result<()> {
        let set = |up: bool| DeviceChange { up: Some(up), ..DeviceChange::default() };
        let port = pair.port.ifindex;
        for device in [pair.link.ifindex, port] {
            self.devices.change(device, &set(false)).map_err(text)?;
        }
        for ends in self.devices.point_to_point(port).map_err(text)? {
            if let (IpAddr::V4(own), IpAddr::V4(peer)) = ends {
                self.editor.remove_peer_address(port, own, peer).map_err(text)?;
            }
        }
        self.redirects.clear(pair.link.ifindex).map_err(text)?;
        self.devices.change(port, &set(true)).map_err(text)
    }

    /// Removes the pairs of this alias, but for these ports.
    pub(super) fn remove_others(&mut self, alias: &str, keep: &[String]) -> Result<()> {
        for d in self.devices.devices().map_err(text)? {
            if d.alias == alias && PppoeDevices::ethernet(&d.name).is_some() && !keep.contains(&d.name) {
                tracing::info!(device = d.name, "device of PPPoE removed");
                self.devices.delete(d.ifindex).map_err(text)?;
            }
        }
        Ok(())
    }
}
