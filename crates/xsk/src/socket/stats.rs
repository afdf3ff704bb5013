//! The kernel's counters of a socket (`XDP_STATISTICS`).

use super::open::get_option;
use std::io;
use std::os::fd::BorrowedFd;

/// Packets and descriptors that the kernel could not use, since the socket was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Lost for other reasons than the next two, such as being longer than a chunk.
    pub rx_dropped: u64,
    /// Lost because the receive ring was full: the worker is too slow.
    pub rx_ring_full: u64,
    /// Lost because no chunk was there to receive into: the worker is too slow or the memory too small.
    pub rx_fill_ring_empty: u64,
    /// Invalid entries of the fill ring; 0 in a correct program.
    pub rx_invalid_descs: u64,
    /// Invalid entries of the TX ring; 0 in a correct program.
    pub tx_invalid_descs: u64,
    /// Times that the kernel found nothing to send.
    pub tx_ring_empty: u64,
}

pub(super) fn read(fd: BorrowedFd<'_>) -> io::Result<Stats> {
    // SAFETY: `xdp_statistics` is plain integers, and older kernels fill in the front of it only.
    let stats: libc::xdp_statistics = unsafe { get_option(fd, libc::XDP_STATISTICS)? };
    Ok(Stats {
        rx_dropped: stats.rx_dropped,
        rx_ring_full: stats.rx_ring_full,
        rx_fill_ring_empty: stats.rx_fill_ring_empty_descs,
        rx_invalid_descs: stats.rx_invalid_descs,
        tx_invalid_descs: stats.tx_invalid_descs,
        tx_ring_empty: stats.tx_ring_empty_descs,
    })
}
