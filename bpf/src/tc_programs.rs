//! The tc programs as they are loaded, on the maps of XDP.

use crate::error::MapError;
use crate::maps;
use crate::skel::TC_OBJECT;
use libbpf_rs::{MapCore, MapHandle, ObjectBuilder};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

/// The map that says what a device is joined with.
const DEVICES: &str = "gw_tc_devices";

/// Interface number and name.
pub(crate) type Interface<'n> = (u32, &'n str);

/// The tc programs, once a port needs them.
#[derive(Debug, Default)]
pub(crate) struct Tc {
    pub(crate) programs: Mutex<Option<Programs>>,
    /// By the names of the devices.
    pub(crate) links: Mutex<BTreeMap<String, OwnedFd>>,
}

/// The programs of `tc.bpf.c`, and the map that is theirs alone.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) port: OwnedFd,
    pub(crate) from_xdp: OwnedFd,
    pub(crate) to_kernel: OwnedFd,
    devices: MapHandle,
}

impl Programs {
    pub(crate) fn load(maps: &maps::Maps) -> libbpf_rs::Result<Programs> {
        let mut open = ObjectBuilder::default().name("gw_tc")?.open_memory(TC_OBJECT)?;
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            // All global variables are one, of that name.
            let name = if name.ends_with(".bss") { "gw_shared" } else { &name };
            if let Some((_, shared)) = maps.all().find(|(known, _)| *known == name) {
                map.reuse_fd(shared)?;
            }
        }
        let object = open.load()?;
        let missing = |what: &str| io::Error::new(io::ErrorKind::NotFound, what.to_owned());
        let program = |name: &str| {
            let found = object.progs().find(|p| p.name() == name);
            found.ok_or_else(|| missing(name))?.as_fd().try_clone_to_owned()
        };
        let devices = object.maps().find(|m| m.name() == DEVICES).ok_or_else(|| missing(DEVICES))?;
        Ok(Programs {
            port: program("gw_tc_port")?,
            from_xdp: program("gw_tc_from_xdp")?,
            to_kernel: program("gw_tc_to_kernel")?,
            devices: MapHandle::try_from(&devices)?,
        })
    }

    /// Says what a device is joined with (`struct gw_tc_device`).
    pub(crate) fn join(&self, device: Interface<'_>, other: u32, limit: u32) -> Result<(), MapError> {
        let value = [other, limit].map(u32::to_ne_bytes).concat();
        maps::put(&self.devices, DEVICES, device.1, &device.0.to_ne_bytes(), &value)
    }
}
