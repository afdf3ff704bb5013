//! Frames that XDP has sent and a device has not taken, by the kernel's tracepoints (`lost.bpf.c`).

use crate::error::LoadError;
use crate::gateway::Gateway;
use crate::skel::LostSkelBuilder;
use crate::sys;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// `GW_LOST_SLOT` of `lost.bpf.c`.
const SLOT: u32 = 1 << 31;

/// Frames of one device that were lost for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// The interface; `None`: the device is named by its slot.
    pub ifindex: Option<u32>,
    /// The slot in the map of devices; `None`: the device is named by its interface.
    pub slot: Option<u8>,
    /// What the kernel said (`errno`); 0: the device's queue was full, or a frame is too long for the device.
    pub error: i32,
    /// How many, since the program was attached.
    pub frames: u64,
}

/// Counts what devices do not take of XDP's redirects, while it is open.
#[derive(Debug)]
pub struct LostFrames {
    counts: MapHandle,
    _attached: [OwnedFd; 2],
}

impl Gateway {
    /// The kernel's number of the map of devices, for [`LostFrames::open`]; 0 if it cannot be read, which is none.
    pub fn device_map(&self) -> u32 {
        self.maps.devs.info().map_or(0, |m| m.info.id)
    }
}

impl LostFrames {
    /// Begins to count what devices do not take of redirects by a map of devices. Reading the kernel's types takes some tens
    /// of milliseconds.
    ///
    /// # Errors
    /// [`LoadError::Kernel`] if the kernel does not have the tracepoints, or their types (BTF).
    pub fn open(device_map: u32) -> Result<LostFrames, LoadError> {
        let failed = |step| move |source| LoadError::Kernel { step, source };
        let mut store = MaybeUninit::uninit();
        let mut open = LostSkelBuilder::default().open(&mut store).map_err(failed("open"))?;
        if let Some(constants) = &mut open.maps.rodata_data {
            constants.gw_netns = fs::metadata("/proc/self/ns/net").map_or(0, |m| m.ino()) as u32;
            constants.gw_devs_id = device_map;
        }
        let skel = open.load().map_err(failed("load"))?;
        let attach = |prog| sys::tracepoint_open(prog).map_err(|e| failed("attach to tracepoints")(e.into()));
        let attached =
            [attach(skel.progs.gw_devmap_xmit.as_fd())?, attach(skel.progs.gw_redirect_err.as_fd())?];
        let counts = MapHandle::try_from(&skel.maps.gw_lost).map_err(failed("open maps"))?;
        Ok(LostFrames { counts, _attached: attached })
    }

    /// All that was lost so far.
    pub fn read(&self) -> Vec<Lost> {
        let of = |key: Vec<u8>| {
            let value = self.counts.lookup(&key, MapFlags::ANY).ok().flatten()?;
            let device = u32::from_ne_bytes(key.get(..4)?.try_into().ok()?);
            let error = i32::from_ne_bytes(key.get(4..8)?.try_into().ok()?);
            let is_slot = device & SLOT != 0;
            Some(Lost {
                ifindex: (!is_slot).then_some(device),
                slot: is_slot.then_some((device & !SLOT) as u8),
                error: error.saturating_neg(),
                frames: u64::from_ne_bytes(value.try_into().ok()?),
            })
        };
        self.counts.keys().filter_map(of).collect()
    }
}
