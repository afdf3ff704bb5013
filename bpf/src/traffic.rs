//! For programs that make and take traffic: live frames (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18) and
//! the attachments of a sink.

use crate::sys::{self, LiveRun};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// Frames to be made and sent by an XDP program, on the core of the calling thread.
///
/// The kernel makes frames of `frame`, and uses them again, with what became of their bytes
/// in between: the program must write every header. Where it redirects a frame to, the frame goes;
/// one that it drops counts as a run too.
#[derive(Debug, Clone, Copy)]
pub struct LiveFrames<'a> {
    /// Of 14 bytes at least.
    pub frame: &'a [u8],
    /// Runs of the program, at most `i32::MAX`.
    pub runs: u32,
    /// Frames between two flushes of what was redirected, 1 to 256.
    pub batch: u32,
    /// The run ends then at the latest.
    pub limit: Option<Duration>,
}

impl LiveFrames<'_> {
    /// Nanoseconds of a run on average, without setting up and tearing down; none if the time was over
    /// before the last one. Takes `SIGALRM` if there is a limit.
    ///
    /// # Errors
    /// The kernel's: it is older than 5.18, the frame is too long, or the process lacks the privilege.
    pub fn send(&self, prog: BorrowedFd<'_>) -> io::Result<Option<u32>> {
        let &LiveFrames { frame, runs, batch, limit } = self;
        sys::live_frames(prog, &LiveRun { frame, runs, batch, limit })
    }
}

/// Attaches a program to a device's ingress behind XDP (tcx, Linux 6.6) until the link is closed.
///
/// # Errors
/// The kernel's: the device is gone or takes no program, or has one.
pub fn attach_tcx(prog: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    sys::tcx_link_create(prog, ifindex)
}

/// Attaches a program to a device in its driver's XDP mode until the link is closed.
///
/// # Errors
/// The kernel's: the device is gone or takes no program, or has one.
pub fn attach_xdp(prog: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    sys::xdp_link_create(prog, ifindex, libbpf_rs::libbpf_sys::XDP_FLAGS_DRV_MODE)
}

/// Keeps the program among those that the kernel calls directly, while the descriptor is open: on a device where nothing
/// arrives. Otherwise each run of live frames changes what is called directly, twice, and waits tens of milliseconds.
///
/// # Errors
/// The kernel's: the device is gone or takes no program, or has one.
pub fn park_xdp(prog: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    sys::xdp_link_create(prog, ifindex, libbpf_rs::libbpf_sys::XDP_FLAGS_SKB_MODE)
}
