//! Makes the devices of tunnels, keeps them as they are wanted, and removes those that no tunnel has any more.
//!
//! A TUN device has a carrier while somebody has it open. Where there is a service manager it has, too, so a restart or
//! crash is nothing that routing daemons would see.

use ipnet::IpNet;
use sag_pipeline::tunnel::TunnelNo;
use sag_rtnl::{Device, DeviceChange, DeviceEditor};
use sag_sandbox::FdStore;
use sag_xsk::{IfName, nic, tun};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
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
    file: Arc<File>,
}

pub struct Keeper {
    editor: DeviceEditor,
    /// By name.
    open: BTreeMap<String, Open>,
    /// Those that were open when the last daemon ended, by name.
    stored: BTreeMap<String, File>,
    store: FdStore,
    /// Nothing of an earlier daemon is left.
    is_clean: bool,
}

/// Why a device is not as it should be, by its name.
pub type Problems = BTreeMap<String, String>;

impl Keeper {
    /// `stored`: open devices that the service manager has kept for this process.
    pub fn open(stored: Vec<File>) -> sag_rtnl::Result<Keeper> {
        let named = |file: File| Some((tun::name(&file).ok()?.to_string(), file));
        Ok(Keeper {
            editor: DeviceEditor::open()?,
            open: BTreeMap::new(),
            stored: stored.into_iter().filter_map(named).collect(),
            store: FdStore::new(),
            is_clean: false,
        })
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
        for name in std::mem::take(&mut self.stored).into_keys() {
            self.store.remove(&name);
        }
        problems
    }

    /// Lets go of devices that are not wanted, and gives those that are another tunnel's now to that one.
    fn close_others(&mut self, wanted: &[Wanted], changed: &mut dyn FnMut(Change)) {
        let wanted_of = |name: &str| wanted.iter().find(|w| w.name == name);
        for (name, open) in self.open.iter().filter(|(name, o)| wanted_of(name).is_none_or(|w| w.no != o.no))
        {
            tracing::debug!(device = name, tunnel = open.no.get(), "let go");
            changed(Change::Closed(open.no));
        }
        let store = &self.store;
        self.open.retain(|name, _| {
            let keep = wanted_of(name).is_some();
            if !keep {
                store.remove(name);
            }
            keep
        });
        // Numbers may have changed places, so all are free first.
        for (name, open) in &mut self.open {
            if let Some(w) = wanted_of(name).filter(|w| w.no != open.no) {
                open.no = w.no;
                changed(Change::Opened(w.no, open.file.clone()));
            }
        }
    }

    fn keep_one(
        &mut self,
        w: &Wanted,
        there: Option<&Device>,
        changed: &mut dyn FnMut(Change),
    ) -> Result<(), String> {
        let is_open = |ifindex| self.open.get(&w.name).is_some_and(|o| o.ifindex == ifindex);
        // One that is open is ours, whatever alias somebody has given it.
        if let Some(d) = there.filter(|d| !d.alias.starts_with(ALIAS) && !is_open(d.ifindex)) {
            return Err(format!(
                "there is a device {} that is none of the gateway's; rename one of the two",
                d.name
            ));
        }
        let mut there = there.cloned();
        if !there.as_ref().is_some_and(|d| is_open(d.ifindex)) {
            let adopted = self.adopt(w, there.as_ref(), changed);
            let ifindex = match adopted {
                Some(ifindex) => ifindex,
                None => self.open_one(w, changed)?,
            };
            // A new one has neither address nor carrier of ours; one of a predecessor has what is in the list. To open one
            // gives it a carrier.
            there = there.filter(|d| d.ifindex == ifindex);
            there = there.map(|d| Device { carrier: d.carrier || adopted.is_none(), ..d });
            there.get_or_insert_with(|| Device {
                ifindex,
                name: w.name.clone(),
                alias: w.alias(),
                mac: None,
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
            link_local: None,
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

    /// Takes over the device that is there, if the service manager has kept it open.
    fn adopt(&mut self, w: &Wanted, there: Option<&Device>, changed: &mut dyn FnMut(Change)) -> Option<u32> {
        let file = self.stored.remove(&w.name)?;
        let is_it = tun::name(&file).is_ok_and(|name| name.as_str() == w.name);
        let Some(device) = there.filter(|_| is_it) else {
            self.store.remove(&w.name);
            return None;
        };
        tracing::info!(device = w.name, "the device has been open all the while");
        self.note_open(w, device.ifindex, file, changed);
        Some(device.ifindex)
    }

    fn note_open(&mut self, w: &Wanted, ifindex: u32, file: File, changed: &mut dyn FnMut(Change)) {
        let file = Arc::new(file);
        self.open.insert(w.name.clone(), Open { no: w.no, ifindex, file: file.clone() });
        changed(Change::Opened(w.no, file));
    }

    fn open_one(&mut self, w: &Wanted, changed: &mut dyn FnMut(Change)) -> Result<u32, String> {
        if let Some(gone) = self.open.remove(&w.name) {
            changed(Change::Closed(gone.no));
            self.store.remove(&w.name);
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
        self.store.put(&w.name, file.as_fd());
        self.note_open(w, ifindex, file, changed);
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
