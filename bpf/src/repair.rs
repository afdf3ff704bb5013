//! What somebody has changed behind the daemon's back is noticed by comparing, and put right: programs taken off devices,
//! pins removed.

use crate::error::{LoadError, MapError};
use crate::gateway::Gateway;
use crate::held::{HeldLink, lock};
use crate::load;
use crate::mode::Mode;
use crate::pins::{self, FileId};
use crate::sys;
use libbpf_rs::libbpf_sys as raw;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What is attached to a device that has, or had, the gateway's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attachment {
    /// The gateway's program.
    Intact,
    /// Nothing: somebody has detached it.
    Detached,
    /// The gateway's link with another program, which somebody has put into it.
    Exchanged(u32),
    /// Another program, which somebody has attached after detaching the gateway's.
    Foreign(u32),
    /// The device itself is gone.
    NoDevice,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attachment::Intact => f.write_str("the gateway's XDP program is attached"),
            Attachment::Detached => f.write_str("the XDP program was detached from outside"),
            Attachment::Exchanged(id) => {
                write!(f, "the XDP program was exchanged from outside for program id {id}")
            }
            Attachment::Foreign(id) => {
                write!(f, "XDP program id {id} was attached in place of the gateway's")
            }
            Attachment::NoDevice => f.write_str("the device is gone"),
        }
    }
}

/// Pins that are missing or are somebody else's, and why they cannot be made again.
#[derive(Debug, thiserror::Error)]
#[error("{} of the pins in {} are missing, and cannot be made again: {source}", missing.len(), dir.display())]
pub struct PinsMissing {
    /// Their names.
    pub missing: Vec<String>,
    /// Where they should be.
    pub dir: std::path::PathBuf,
    /// Why they are not there.
    pub source: Box<LoadError>,
}

impl Gateway {
    /// What is attached to a device, by the kernel's word at this moment. A device that [`Gateway::attach`] was not called for
    /// is [`Attachment::Detached`].
    pub fn attachment(&self, ifindex: u32, ifname: &str) -> Attachment {
        let on = self.held.links().get(ifname).and_then(|l| sys::xdp_link_info(l.fd.as_fd()).ok());
        match on {
            Some((i, program)) if i == ifindex => match self.program_info() {
                Ok(ours) if ours.id != program => Attachment::Exchanged(program),
                _ => Attachment::Intact,
            },
            _ => match sys::xdp_query(ifindex) {
                Err(_) => Attachment::NoDevice,
                Ok(q) if u32::from(q.attach_mode) != raw::XDP_ATTACHED_NONE => Attachment::Foreign(q.prog_id),
                Ok(_) => Attachment::Detached,
            },
        }
    }

    /// Puts the program back on a device that has lost it, in the mode that it had. A program that netlink has attached meanwhile
    /// is pushed aside; one that has a link cannot be.
    ///
    /// # Errors
    /// [`MapError::Busy`] if another program holds the device by a link, [`MapError::Attach`] if the device takes the program in
    /// this mode no more.
    pub fn reattach(&self, ifindex: u32, ifname: &str) -> Result<(), MapError> {
        match self.attachment(ifindex, ifname) {
            Attachment::Intact => return Ok(()),
            Attachment::Exchanged(_) => {
                let links = self.held.links();
                let Some(link) = links.get(ifname) else { return Ok(()) };
                return sys::link_update(link.fd.as_fd(), self.prog.as_fd()).map_err(|source| {
                    MapError::Pin {
                        what: "cannot put the program back into the link",
                        path: self.pins.link(ifname),
                        source,
                    }
                });
            }
            Attachment::Foreign(_) => self.displace(ifindex),
            Attachment::Detached | Attachment::NoDevice => {}
        }
        let mode = self.held.links().get(ifname).map_or(Mode::Generic, |l| l.mode);
        let fd = self.create(ifindex, ifname, mode)?;
        self.hold(ifname, fd, mode);
        Ok(())
    }

    /// Takes off a device the program that netlink has attached to it. One that is attached by a link stays.
    pub fn displace(&self, ifindex: u32) {
        let Ok(q) = sys::xdp_query(ifindex) else { return };
        let flags = match u32::from(q.attach_mode) {
            raw::XDP_ATTACHED_DRV => raw::XDP_FLAGS_DRV_MODE,
            raw::XDP_ATTACHED_SKB => raw::XDP_FLAGS_SKB_MODE,
            raw::XDP_ATTACHED_HW => raw::XDP_FLAGS_HW_MODE,
            _ => return,
        };
        // What cannot be taken off is named when the gateway's own program finds no place.
        let _ = sys::xdp_detach(ifindex, flags);
    }

    /// Keeps a link, and makes its pin. A pin that cannot be made is one of those that [`Gateway::repair_pins`] misses.
    pub(crate) fn hold(&self, ifname: &str, fd: OwnedFd, mode: Mode) {
        let name = pins::link_name(ifname);
        let made = self.pins.put(&name, fd.as_fd()).ok().and_then(|()| FileId::of(&self.pins.join(&name)));
        let mut pins = lock(&self.held.pins);
        match made {
            Some(id) => pins.insert(name, id),
            None => pins.remove(&name),
        };
        drop(pins);
        self.held.links().insert(ifname.to_owned(), HeldLink { fd, mode });
    }

    /// Lets go of a link and of its pin.
    pub(crate) fn release(&self, ifname: &str) -> Option<HeldLink> {
        lock(&self.held.pins).remove(&pins::link_name(ifname));
        self.held.links().remove(ifname)
    }

    /// Remembers the pins that are there as this gateway's.
    pub(crate) fn note_pins(&self) {
        let names = self.maps.all().map(|(name, _)| name).chain([pins::PROGRAM]).map(str::to_owned);
        let links: Vec<String> = self.held.links().keys().map(|n| pins::link_name(n)).collect();
        let all = names.chain(links);
        *lock(&self.held.pins) =
            all.filter_map(|name| Some((name.clone(), FileId::of(&self.pins.join(&name))?))).collect();
    }

    /// Makes again what is missing of the pins, or was replaced by something else. Returns the names.
    ///
    /// # Errors
    /// [`PinsMissing`] if they cannot be made: the BPF file system is not mounted, as a rule.
    pub fn repair_pins(&self) -> Result<Vec<String>, PinsMissing> {
        let links = self.held.links();
        let known = lock(&self.held.pins).clone();
        let objects = || {
            let fixed = self.maps.all().chain([(pins::PROGRAM, self.prog.as_fd())]);
            let links = links.iter().map(|(n, l)| (pins::link_name(n), l.fd.as_fd()));
            fixed.map(|(name, fd)| (name.to_owned(), fd)).chain(links)
        };
        let is_there =
            |name: &String| known.get(name).is_some_and(|id| FileId::of(&self.pins.join(name)) == Some(*id));
        let missing: Vec<(String, BorrowedFd<'_>)> = objects().filter(|(name, _)| !is_there(name)).collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<String> = missing.iter().map(|(name, _)| name.clone()).collect();
        let made = self.pins.prepare().and_then(|()| {
            if missing.len() == objects().count() && self.pins.entries()?.is_empty() {
                let links = links.iter().map(|(n, l)| (pins::link_name(n), l.fd.as_fd()));
                return load::pin_all(&self.pins, &self.maps, &self.prog, links);
            }
            missing.iter().try_for_each(|(name, fd)| self.pins.put(name, *fd))
        });
        drop(links);
        match made {
            Ok(()) => {
                self.note_pins();
                Ok(names)
            }
            Err(e) => {
                let dir = self.pins.path().to_owned();
                Err(PinsMissing { missing: names, dir, source: Box::new(e) })
            }
        }
    }
}
