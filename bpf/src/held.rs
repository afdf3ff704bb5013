//! What the running daemon holds by descriptors of its own: the links of its devices beside their pins. So whoever
//! removes a pin, or unmounts the BPF file system, takes nothing away from the traffic.

use crate::mode::Mode;
use crate::pins::FileId;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A link, and the mode in which it attaches the program.
#[derive(Debug)]
pub(crate) struct HeldLink {
    pub(crate) fd: OwnedFd,
    pub(crate) mode: Mode,
}

/// Links by the names of their devices, and the pins as they were made.
#[derive(Debug, Default)]
pub(crate) struct Held {
    links: Mutex<BTreeMap<String, HeldLink>>,
    pub(crate) pins: Mutex<BTreeMap<String, FileId>>,
}

/// The maps hold plain descriptors: a thread that panicked has not left them half changed.
pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Held {
    pub(crate) fn links(&self) -> MutexGuard<'_, BTreeMap<String, HeldLink>> {
        lock(&self.links)
    }
}
