//! Makes the devices of tunnels, keeps them as they are wanted, and removes those that no tunnel has any more.

use ipnet::IpNet;
use sag_pipeline::tunnel::TunnelNo;
use sag_rtnl::{Device, DeviceChange, DeviceEditor};
use sag_xsk::{IfName, nic, tun};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// The alias of a device begins with it (`ip link`), and goes on with the tunnel's name: by it the next daemon knows
/// its predecessor's.
const ALIAS: &str = "sag-vcpe tunnel ";

/// The device that a tunnel is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub no: TunnelNo,
    pub tunnel: String,
    pub name: String,
    pub mtu: u16,
    /// The tunnel is up: the device has a carrier.
    pub up: bool,
    pub addresses: Vec<IpNet>,
}

impl Wanted {
    fn alias(&self) -> String {
        format!("{ALIAS}{}", self.tunnel)
    }
}

/// What others have to know.
#[derive(Debug)]
pub enum Change {
    Opened(TunnelNo, Arc<File>),
    Closed(TunnelNo),
}

struct Open {
    no: TunnelNo,
    ifindex: u32,
}

pub struct Keeper {
    editor: DeviceEditor,
    /// By name.
    open: BTreeMap<String, Open>,
    /// Nothing of an earlier daemon is left.
    is_clean: bool,
}

/// Why a device is not as it should be, by its name.
pub type Problems = BTreeMap<String, String>;

impl Keeper {
    pub fn open() -> sag_rtnl::Result<Keeper> {
        Ok(Keeper { editor: DeviceEditor::open()?, open: BTreeMap::new(), is_clean: false })
    }

    /// One round: what differs is changed.
    pub fn keep(&mut self, wanted: &[Wanted], changed: &mut dyn FnMut(Change)) -> Problems {
        let mut problems = Problems::new();
        if wanted.is_empty() && self.open.is_empty() && self.is_clean {
            return problems;
        }
        let devices = match self.editor.devices() {
            Ok(devices) => devices,
            Err(error) => {
                problems.extend(wanted.iter().map(|w| (w.name.clone(), error.to_string())));
                return problems;
            }
        };
        self.close_others(wanted, changed);
        self.is_clean = true;
        let is_wanted = |d: &Device| wanted.iter().any(|w| w.name == d.name);
        for d in devices.iter().filter(|d| d.alias.starts_with(ALIAS) && !is_wanted(d)) {
            match self.editor.delete(d.ifindex) {
                Ok(()) => tracing::info!(device = d.name, alias = d.alias, "device removed"),
                Err(error) => {
                    self.is_clean = false;
                    problems.insert(d.name.clone(), error.to_string());
                }
            }
        }
        for w in wanted {
            let there = devices.iter().find(|d| d.name == w.name);
            if let Err(why) = self.keep_one(w, there, changed) {
                problems.insert(w.name.clone(), why);
            }
        }
        problems
    }

    /// Lets go of devices that are not wanted, or not for the same tunnel.
    fn close_others(&mut self, wanted: &[Wanted], changed: &mut dyn FnMut(Change)) {
        self.open.retain(|name, open| {
            let keep = wanted.iter().any(|w| w.name == *name && w.no == open.no);
            if !keep {
                changed(Change::Closed(open.no));
            }
            keep
        });
    }

    fn keep_one(
        &mut self,
        w: &Wanted,
        there: Option<&Device>,
        changed: &mut dyn FnMut(Change),
    ) -> Result<(), String> {
        if let Some(d) = there.filter(|d| !d.alias.starts_with(ALIAS)) {
            return Err(format!(
                "there is a device {} that is none of the gateway's; rename one of the two",
                d.name
            ));
        }
        let mut there = there.cloned();
        let is_open = |ifindex| self.open.get(&w.name).is_some_and(|o| o.ifindex == ifindex);
        if !there.as_ref().is_some_and(|d| is_open(d.ifindex)) {
            let ifindex = self.open_one(w, changed)?;
            // A new one has neither address nor carrier of ours; one of a predecessor has what is in the list.
            there = there.filter(|d| d.ifindex == ifindex).map(|d| Device { carrier: true, ..d });
            there.get_or_insert_with(|| Device {
                ifindex,
                name: w.name.clone(),
                alias: w.alias(),
                mtu: 0,
                up: false,
                carrier: true,
            });
        }
        let Some(d) = there else { return Ok(()) };
        let alias = w.alias();
        let change = DeviceChange {
            alias: (d.alias != alias).then_some(&alias),
            mtu: (d.mtu != u32::from(w.mtu)).then_some(w.mtu.into()),
            up: (!d.up).then_some(true),
            carrier: (d.carrier != w.up || !d.up).then_some(w.up),
        };
        let failed = |error: sag_rtnl::Error| error.to_string();
        if change != DeviceChange::default() {
            self.editor.change(d.ifindex, &change).map_err(failed)?;
        }
        self.keep_addresses(d.ifindex, &w.addresses).map_err(failed)
    }

    /// Addresses of the configuration; those that somebody else has added stay. One that cannot be set (a family that
    /// is switched off) does not keep others from theirs.
    fn keep_addresses(&mut self, ifindex: u32, wanted: &[IpNet]) -> sag_rtnl::Result<()> {
        let there: Vec<_> = self.editor.addresses()?.into_iter().filter(|(i, ..)| *i == ifindex).collect();
        let mut done = Ok(());
        for (_, net, _) in there.iter().filter(|(_, net, ours)| *ours && !wanted.contains(net)) {
            done = done.and(self.editor.remove_address(ifindex, *net));
        }
        for net in wanted.iter().filter(|net| !there.iter().any(|(_, have, _)| have == *net)) {
            done = done.and(self.editor.add_address(ifindex, *net));
        }
        done
    }

    fn open_one(&mut self, w: &Wanted, changed: &mut dyn FnMut(Change)) -> Result<u32, String> {
        if let Some(gone) = self.open.remove(&w.name) {
            changed(Change::Closed(gone.no));
        }
        let failed = |what: &str, error: &dyn std::fmt::Display| format!("cannot {what} it: {error}");
        let name = IfName::new(&w.name).ok_or_else(|| "no device can have this name".to_owned())?;
        let file = tun::open(name).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => "there is no /dev/net/tun: load the module tun".to_owned(),
            io::ErrorKind::ResourceBusy => "another program has it open".to_owned(),
            _ => failed("open", &e),
        })?;
        let ifindex = nic::ifindex(name).ok_or_else(|| "it was deleted at once".to_owned())?;
        // Only then does it outlive this process: nothing is left that nobody knows.
        let change = DeviceChange { alias: Some(&w.alias()), ..DeviceChange::default() };
        self.editor.change(ifindex, &change).map_err(|e| failed("name", &e))?;
        tun::persist(&file).map_err(|e| failed("keep", &e))?;
        self.open.insert(w.name.clone(), Open { no: w.no, ifindex });
        changed(Change::Opened(w.no, Arc::new(file)));
        Ok(ifindex)
    }
}

/// Removes the devices of tunnels of a daemon that does not run any more; how many those were.
pub fn remove_all() -> sag_rtnl::Result<usize> {
    let mut editor = DeviceEditor::open()?;
    let ours: Vec<_> = editor.devices()?.into_iter().filter(|d| d.alias.starts_with(ALIAS)).collect();
    for d in &ours {
        editor.delete(d.ifindex)?;
    }
    Ok(ours.len())
}
