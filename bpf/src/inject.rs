//! Hands frames to the kernel's stack as if a device had received them: a worker sometimes holds a
//! packet that turns out to be the kernel's.

use crate::sys;
use libbpf_rs::libbpf_sys::xdp_md;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A link header, the least that the kernel takes.
const MIN_FRAME: usize = 14;
/// Interface numbers are positive `int`s, so this one is nobody's.
const NO_DEVICE: u32 = u32::MAX;

/// Gives frames to the kernel. Clones share a descriptor; any thread of the process may use one that
/// is in the network namespace of the devices.
#[derive(Debug, Clone)]
pub struct Injector {
    prog: Arc<OwnedFd>,
    /// Longest frame; or the error number of the kernel that does not take any.
    room: Result<usize, i32>,
}

impl Injector {
    /// Finds out what the kernel takes without giving it a frame.
    pub(crate) fn new(prog: OwnedFd) -> Injector {
        let room = probe(prog.as_fd());
        Injector { prog: Arc::new(prog), room }
    }

    /// Whether this kernel takes frames at all.
    pub fn available(&self) -> bool {
        self.room.is_ok()
    }

    /// Why it takes none.
    pub fn why_not(&self) -> Option<String> {
        let code = self.room.err()?;
        Some(match code {
            libc::EINVAL | libc::E2BIG => {
                "this kernel cannot be given frames: that takes Linux 5.18 or later".to_owned()
            }
            _ => format!("the kernel refuses frames: {}", io::Error::from_raw_os_error(code)),
        })
    }

    /// Bytes of the longest frame that the kernel takes: one page less what it needs itself, about
    /// 3.5 KB where pages have 4 KiB.
    pub fn max_frame(&self) -> usize {
        self.room.unwrap_or(0)
    }

    /// Gives a frame to the stack as received on a device, which takes it as it takes every other:
    /// only if it is addressed to the device and all its checksums are right, for none is marked as
    /// verified. A tagged frame belongs on the device that carries the VLAN. What the stack makes of
    /// the frame does not come back; success means that it got it.
    ///
    /// A system call that allocates: for the odd packet, not for streams of them.
    ///
    /// # Errors
    /// `Unsupported`: this kernel takes no frames. `InvalidInput`: the frame's length. Others are the kernel's, `ENODEV`
    /// among them.
    pub fn inject(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let bad = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        let Ok(max) = self.room else {
            let why = self.why_not().unwrap_or_default();
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        };
        let len = frame.len();
        if len < MIN_FRAME {
            return bad(format!("a frame of {len} bytes has no link header"));
        }
        if len > max {
            return bad(format!("a frame of {len} bytes is too long for the kernel, which takes {max}"));
        }
        if ifindex == 0 {
            // The kernel would take it for the loopback device.
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        run(self.prog.as_fd(), ifindex, frame)
    }
}

fn run(prog: BorrowedFd<'_>, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let ctx = xdp_md { data_end: frame.len() as u32, ingress_ifindex: ifindex, ..Default::default() };
    sys::live_run(prog, frame, ctx)
}

/// The longest frame that the kernel takes. It looks at the length before it looks for the device,
/// and there is none, so nothing is received anywhere.
fn probe(prog: BorrowedFd<'_>) -> Result<usize, i32> {
    let frame = vec![0; sys::page_size()];
    let takes = |len: usize| match run(prog, NO_DEVICE, &frame[..len]).map_err(|e| e.raw_os_error()) {
        Err(Some(libc::ENODEV)) => Ok(()),
        Err(code) => Err(code.unwrap_or(0)),
        Ok(()) => Err(0),
    };
    takes(MIN_FRAME)?;
    let (mut fits, mut too_long) = (MIN_FRAME, frame.len() + 1);
    while too_long - fits > 1 {
        let middle = fits + (too_long - fits) / 2;
        if takes(middle).is_ok() { fits = middle } else { too_long = middle }
    }
    Ok(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_takes_no_frames_is_known_by_its_version() {
        let no = |code| Injector {
            prog: Arc::new(std::fs::File::open("/dev/null").unwrap().into()),
            room: Err(code),
        };
        let old = no(libc::EINVAL);
        assert!(!old.available());
        assert_eq!(old.max_frame(), 0);
        let e = old.inject(1, &[0; 60]).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::Unsupported);
        assert!(e.to_string().contains("5.18"), "{e}");
        assert!(no(libc::EPERM).why_not().unwrap().contains("not permitted"));
    }
}
