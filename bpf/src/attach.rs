//! Attaching the program to devices by pinned links, which outlive the daemon.

use crate::error::{LoadError, MapError};
use crate::gateway::Gateway;
use crate::mode::Mode;
use crate::sys;
use libbpf_rs::libbpf_sys as raw;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// How the configuration wants the program attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
    /// Native, or generic where the driver has no native XDP.
    Auto,
}

impl AttachMode {
    fn accepts(self, mode: Mode) -> bool {
        matches!(
            (self, mode),
            (AttachMode::Auto, _) | (AttachMode::Native, Mode::Native) | (AttachMode::Generic, Mode::Generic)
        )
    }
}

/// The outcome of attaching to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The mode that the device has.
    pub mode: Mode,
    /// Why the mode is generic although native was tried.
    pub reason: Option<String>,
    /// The link of an earlier run is reused.
    pub reused: bool,
    /// XDP can send out of this device (`ndo_xdp_xmit`). A veth can while its peer has XDP or GRO
    /// on. `None`: the kernel (before 6.3) does not say.
    pub can_transmit: Option<bool>,
    /// The driver has AF_XDP zero-copy. `None`: the kernel does not say.
    pub zero_copy: Option<bool>,
}

// enum netdev_xdp_act of linux/netdev.h.
const ACT_BASIC: u64 = 1 << 0;
const ACT_NDO_XMIT: u64 = 1 << 2;
const ACT_XSK_ZEROCOPY: u64 = 1 << 3;

impl Gateway {
    /// Attaches the program to a device of the caller's network namespace, or reuses the link of an
    /// earlier run if it is of the same device and a mode that will do. The link is held open, and pinned as well as it can
    /// be: [`Gateway::repair_pins`] makes a pin that is missing.
    ///
    /// # Errors
    /// [`MapError::Busy`] if another program is there, [`MapError::Attach`] if the device takes none in this mode,
    /// [`MapError::Pin`] if the pinned link of an earlier run cannot be used or removed.
    pub fn attach(&self, ifindex: u32, ifname: &str, mode: AttachMode) -> Result<Attached, MapError> {
        let pin = self.pins.link(ifname);
        let held = self.release(ifname).map(|l| l.fd);
        let pinned = open_link(&pin)?;
        for link in held.into_iter().chain(pinned) {
            if let Some(current) = self.usable(&link, ifindex, mode) {
                pin_io(
                    "cannot exchange the program of",
                    &pin,
                    sys::link_update(link.as_fd(), self.prog.as_fd()),
                )?;
                self.hold(ifname, link, current);
                return Ok(outcome(ifindex, current, None, true));
            }
            // Another device's, or the wrong mode. Detaching fails if the device is gone: good.
            let _ = sys::link_detach(link.as_fd());
        }
        remove(&pin)?;
        let (link, mode, reason) = match mode {
            AttachMode::Native => (self.create(ifindex, ifname, Mode::Native)?, Mode::Native, None),
            AttachMode::Generic => (self.create(ifindex, ifname, Mode::Generic)?, Mode::Generic, None),
            AttachMode::Auto => match self.create(ifindex, ifname, Mode::Native) {
                Ok(link) => (link, Mode::Native, None),
                Err(MapError::Attach { source, hint, .. }) => (
                    self.create(ifindex, ifname, Mode::Generic)?,
                    Mode::Generic,
                    Some(format!("no native XDP: {source} ({hint})")),
                ),
                Err(e) => return Err(e),
            },
        };
        self.hold(ifname, link, mode);
        Ok(outcome(ifindex, mode, reason, false))
    }

    /// [`Attached::can_transmit`] at this moment: of a veth it changes with the settings of its far end.
    pub fn can_transmit(&self, ifindex: u32) -> Option<bool> {
        features(ifindex).map(|f| f & ACT_NDO_XMIT != 0)
    }

    /// Takes the program off a device; false if it was not attached by us. Works for devices that
    /// are gone.
    ///
    /// # Errors
    /// [`MapError::Pin`] if the pin cannot be opened or removed.
    pub fn detach(&self, ifname: &str) -> Result<bool, MapError> {
        let pin = self.pins.link(ifname);
        let held = self.release(ifname).map(|l| l.fd);
        let mut found = false;
        for link in held.into_iter().chain(open_link(&pin)?) {
            // Fails only if the device is gone, and then there is nothing to detach.
            let _ = sys::link_detach(link.as_fd());
            found = true;
        }
        remove(&pin)?;
        Ok(found)
    }

    /// Names of the devices with a pinned link, of this run or an earlier one.
    ///
    /// # Errors
    /// [`LoadError::Io`] if the directory of the pins cannot be read.
    pub fn attached(&self) -> Result<Vec<String>, LoadError> {
        self.pins.links()
    }

    /// The mode of an existing link, if it will do.
    fn usable(&self, link: &OwnedFd, ifindex: u32, wanted: AttachMode) -> Option<Mode> {
        if sys::xdp_link_info(link.as_fd()).ok()?.0 != ifindex {
            return None;
        }
        let mode = match u32::from(sys::xdp_query(ifindex).ok()?.attach_mode) {
            raw::XDP_ATTACHED_DRV => Mode::Native,
            raw::XDP_ATTACHED_SKB => Mode::Generic,
            _ => return None,
        };
        wanted.accepts(mode).then_some(mode)
    }

    pub(crate) fn create(&self, ifindex: u32, ifname: &str, mode: Mode) -> Result<OwnedFd, MapError> {
        sys::xdp_link_create(self.prog.as_fd(), ifindex, mode.flags()).map_err(|source| {
            let code = source.raw_os_error();
            if matches!(code, Some(libc::EBUSY | libc::EEXIST)) {
                let detail = match sys::xdp_query(ifindex) {
                    Ok(q) => format!("program id {}", q.prog_id),
                    Err(_) => source.to_string(),
                };
                return MapError::Busy { ifname: ifname.to_owned(), detail };
            }
            MapError::Attach { ifname: ifname.to_owned(), mode: mode.name(), hint: hint(code), source }
        })
    }
}

fn open_link(pin: &Path) -> Result<Option<OwnedFd>, MapError> {
    match sys::obj_get(pin) {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => pin_io("cannot open", pin, Err(e)),
    }
}

/// Removes a pin, if it is there.
fn remove(pin: &Path) -> Result<(), MapError> {
    match fs::remove_file(pin) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => pin_io("cannot remove", pin, done),
    }
}

fn pin_io<T>(what: &'static str, path: &Path, r: io::Result<T>) -> Result<T, MapError> {
    r.map_err(|source| MapError::Pin { what, path: path.to_owned(), source })
}

fn outcome(ifindex: u32, mode: Mode, reason: Option<String>, reused: bool) -> Attached {
    let features = features(ifindex);
    Attached {
        mode,
        reason,
        reused,
        can_transmit: features.map(|f| f & ACT_NDO_XMIT != 0),
        zero_copy: features.map(|f| f & ACT_XSK_ZEROCOPY != 0),
    }
}

/// What the driver says of its XDP (`NETDEV_A_DEV_XDP_FEATURES`). One with any at all says at least that; nothing said
/// means an older kernel, or a driver without native XDP.
fn features(ifindex: u32) -> Option<u64> {
    let features = sys::xdp_query(ifindex).map_or(0, |q| q.feature_flags);
    (features & ACT_BASIC != 0).then_some(features)
}

fn hint(code: Option<i32>) -> &'static str {
    match code {
        Some(libc::EOPNOTSUPP) => "the driver has no native XDP",
        Some(libc::ENODEV | libc::ENXIO) => "no such device in this network namespace",
        Some(libc::EINVAL | libc::ERANGE | libc::EFBIG) => {
            "the driver refuses: often an MTU above about 3500, LRO or hardware GRO on, or too few queues"
        }
        Some(libc::ENOMEM | libc::ENOSPC) => "the driver has no queues or memory left for XDP",
        Some(libc::EPERM | libc::EACCES) => "needs CAP_NET_ADMIN and CAP_BPF",
        _ => "see the kernel log",
    }
}
