//! Memory-mapped arrays as slices of atomics, for the life of the process.

use crate::abi::{MAX_DEVS, MAX_NEXTHOPS, PORT_SLOTS, QUEUES_PER_DEV};
use crate::maps::Maps;
use crate::sys;
use libbpf_rs::{MapCore, MapHandle};
use sag_model::flow::{
    Bucket, ControlBlock, FlowRecord4, FlowRecord6, NextHopRecord, RevalidationQueue, SynCookieControl,
};
use sag_model::meter::{Meter, MeterGroup};
use sag_model::tunnel::TunnelRecord;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;

/// Types that may lie over map memory that the XDP program changes at any time.
///
/// # Safety
/// Every byte must belong to an atomic integer, so that all bit patterns are values and concurrent
/// change is allowed, and the alignment must be at most a page.
unsafe trait Shared {}

// SAFETY: these are `repr(C)` structures of atomics without padding; `abi` asserts their layouts.
unsafe impl Shared for Bucket {}
// SAFETY: as above.
unsafe impl Shared for ControlBlock {}
// SAFETY: as above.
unsafe impl Shared for FlowRecord4 {}
// SAFETY: as above.
unsafe impl Shared for FlowRecord6 {}
// SAFETY: as above.
unsafe impl Shared for NextHopRecord {}

// SAFETY: as above.
unsafe impl Shared for Meter {}
// SAFETY: as above.
unsafe impl Shared for MeterGroup {}
// SAFETY: as above.
unsafe impl Shared for TunnelRecord {}
// SAFETY: as above.
unsafe impl Shared for SharedBlock {}
// SAFETY: atomics alone.
unsafe impl Shared for NatLine {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}

/// `struct gw_nat_line`.
pub(crate) type NatLine = [AtomicU64; 8];

/// `struct gw_port`: flags, zone, port, device slot and interface number; then the address.
#[repr(C, align(16))]
#[derive(Debug)]
pub(crate) struct PortSlot {
    pub(crate) head: AtomicU64,
    pub(crate) mac: AtomicU64,
}

/// `struct gw_shared`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct SharedBlock {
    pub(crate) control: ControlBlock,
    pub(crate) ports: [PortSlot; PORT_SLOTS],
    pub(crate) nexthops: [NextHopRecord; MAX_NEXTHOPS],
    pub(crate) revalidations: [RevalidationQueue; (MAX_DEVS * QUEUES_PER_DEV) as usize],
    pub(crate) syn: SynCookieControl,
}

/// The memory-mapped maps of a gateway.
#[derive(Clone, Copy)]
pub(crate) struct Mapped {
    pub(crate) shared: &'static SharedBlock,
    pub(crate) flows4: &'static [FlowRecord4],
    pub(crate) flows6: &'static [FlowRecord6],
    pub(crate) index4: &'static [Bucket],
    pub(crate) index6: &'static [Bucket],
    pub(crate) nat_ports: &'static [AtomicU64],
    pub(crate) ip_ids: &'static [AtomicU64],
    pub(crate) meters: &'static [Meter],
    pub(crate) meter_groups: &'static [MeterGroup],
    pub(crate) passed: &'static [AtomicU64],
    pub(crate) tunnels: &'static [TunnelRecord],
    pub(crate) sequences4: &'static [AtomicU64],
    pub(crate) sequences6: &'static [AtomicU64],
}

impl fmt::Debug for Mapped {
    /// Sizes: the contents are megabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapped")
            .field("flows4", &self.flows4.len())
            .field("flows6", &self.flows6.len())
            .field("index4", &self.index4.len())
            .field("index6", &self.index6.len())
            .finish_non_exhaustive()
    }
}

impl Mapped {
    pub(crate) fn new(maps: &Maps) -> io::Result<Mapped> {
        Ok(Mapped {
            shared: &map(&maps.shared)?[0],
            flows4: map(&maps.flows4)?,
            flows6: map(&maps.flows6)?,
            index4: map(&maps.index4)?,
            index6: map(&maps.index6)?,
            nat_ports: map::<NatLine>(&maps.nat_ports)?.as_flattened(),
            ip_ids: map(&maps.ip_ids)?,
            meters: map(&maps.meters)?,
            meter_groups: map(&maps.meter_groups)?,
            passed: map(&maps.passed)?,
            tunnels: map(&maps.tunnels)?,
            sequences4: map(&maps.sequences4)?,
            sequences6: map(&maps.sequences6)?,
        })
    }
}

fn map<T: Shared>(map: &MapHandle) -> io::Result<&'static [T]> {
    let entries = map.max_entries() as usize;
    if map.value_size() as usize != size_of::<T>() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the map's values have another size"));
    }
    let start = sys::map_forever(map.as_fd(), entries * size_of::<T>())?;
    // SAFETY: the mapping is page-aligned, `entries` values long, zeroed or written by the peer
    // program, never unmapped, and `T` is made of atomics (`Shared`). Array elements whose size is
    // a multiple of 8 lie one after another.
    Ok(unsafe { std::slice::from_raw_parts(start.cast::<T>(), entries) })
}
