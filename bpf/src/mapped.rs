//! Memory-mapped arrays as slices of atomics, for the life of the process.

use crate::sys;
use sag_model::flow::{Bucket, ControlBlock, FlowRecord4, FlowRecord6, NextHopRecord};
use std::io;
use std::os::fd::BorrowedFd;

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

/// The memory-mapped maps of a gateway.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mapped {
    pub(crate) control: &'static ControlBlock,
    pub(crate) nexthops: &'static [NextHopRecord],
    pub(crate) flows4: &'static [FlowRecord4],
    pub(crate) flows6: &'static [FlowRecord6],
    pub(crate) index4: &'static [Bucket],
    pub(crate) index6: &'static [Bucket],
}

fn map<T: Shared>(fd: BorrowedFd<'_>, entries: u32) -> io::Result<&'static [T]> {
    let len = entries as usize * size_of::<T>();
    let start = sys::map_forever(fd, len)?;
    // SAFETY: the mapping is page-aligned, `len` bytes long, zeroed or written by the peer program,
    // never unmapped, and `T` is made of atomics (`Shared`). Array elements whose size is a multiple
    // of 8 lie one after another.
    Ok(unsafe { std::slice::from_raw_parts(start.cast::<T>(), entries as usize) })
}

pub(crate) fn control(fd: BorrowedFd<'_>) -> io::Result<&'static ControlBlock> {
    map(fd, 1).map(|s: &'static [ControlBlock]| &s[0])
}

pub(crate) fn nexthops(fd: BorrowedFd<'_>, entries: u32) -> io::Result<&'static [NextHopRecord]> {
    map(fd, entries)
}

pub(crate) fn flows4(fd: BorrowedFd<'_>, entries: u32) -> io::Result<&'static [FlowRecord4]> {
    map(fd, entries)
}

pub(crate) fn flows6(fd: BorrowedFd<'_>, entries: u32) -> io::Result<&'static [FlowRecord6]> {
    map(fd, entries)
}

pub(crate) fn index(fd: BorrowedFd<'_>, entries: u32) -> io::Result<&'static [Bucket]> {
    map(fd, entries)
}
