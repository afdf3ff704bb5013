//! Memory mappings: the packet area and the rings of a socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// Size of a huge page; the area is aligned to it so that the kernel can back it with huge pages.
const HUGE: usize = 2 << 20;

/// A mapping that is unmapped when dropped. Who may access it is up to the types built
/// over it.
#[derive(Debug)]
pub(crate) struct Mapping {
    addr: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to the thread that made it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a socket's ring at the page offset `offset`.
    pub(crate) fn ring(fd: BorrowedFd<'_>, len: usize, offset: libc::off_t) -> io::Result<Mapping> {
        map(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    /// Maps `len` bytes of a file from its beginning.
    pub(crate) fn file(fd: BorrowedFd<'_>, len: usize) -> io::Result<Mapping> {
        map(len, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), 0)
    }

    /// Zeroed private memory for packets. With `huge`, reserved huge pages are tried first; in any
    /// case the area is aligned to and advised for transparent ones. The flag says whether reserved
    /// huge pages back it.
    pub(crate) fn packets(bytes: usize, huge: bool) -> io::Result<(Mapping, bool)> {
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let rounded = bytes.next_multiple_of(HUGE);
        if huge {
            let flags = anonymous | libc::MAP_HUGETLB | libc::MAP_POPULATE;
            if let Ok(mapping) = map(rounded, flags, -1, 0) {
                mapping.exclude_from_fork();
                return Ok((mapping, true));
            }
        }
        let mapping = map(rounded + HUGE, anonymous, -1, 0)?.trimmed_to_huge_alignment(rounded);
        mapping.exclude_from_fork();
        // SAFETY: the range is a mapping of ours; advice does not change its contents. A kernel
        // without transparent huge pages refuses, which costs only speed.
        unsafe { libc::madvise(mapping.addr.as_ptr().cast(), mapping.len, libc::MADV_HUGEPAGE) };
        Ok((mapping, false))
    }

    pub(crate) fn addr(&self) -> NonNull<u8> {
        self.addr
    }

    /// The device writes into these pages: a forked child must not get them copied or shared.
    fn exclude_from_fork(&self) {
        // SAFETY: the range is a mapping of ours and the advice concerns children only.
        unsafe { libc::madvise(self.addr.as_ptr().cast(), self.len, libc::MADV_DONTFORK) };
    }

    /// Gives back what lies before the first huge-page boundary and after `len` bytes from it.
    fn trimmed_to_huge_alignment(self, len: usize) -> Mapping {
        let front = self.addr.as_ptr().align_offset(HUGE);
        if front > self.len - len {
            return self;
        }
        let whole = std::mem::ManuallyDrop::new(self);
        let back = whole.len - front - len;
        // SAFETY: front + len + back is the length of the mapping, so all three pieces lie in it;
        // the outer two are unmapped once and are not part of what is returned.
        unsafe {
            let start = whole.addr.add(front);
            if front > 0 {
                libc::munmap(whole.addr.as_ptr().cast(), front);
            }
            if back > 0 {
                libc::munmap(start.add(len).as_ptr().cast(), back);
            }
            Mapping { addr: start, len }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map` and is unmapped only here; types over a mapping
        // hold no reference into it once they drop it.
        unsafe { libc::munmap(self.addr.as_ptr().cast(), self.len) };
    }
}

fn map(len: usize, flags: i32, fd: i32, offset: libc::off_t) -> io::Result<Mapping> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: no address is requested, so no existing mapping is replaced.
    let addr = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, offset) };
    if addr == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    match NonNull::new(addr.cast::<u8>()) {
        Some(addr) => Ok(Mapping { addr, len }),
        None => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_area_is_zeroed_writable_and_aligned() {
        for huge in [false, true] {
            let (area, _) = Mapping::packets(3 << 20, huge).unwrap();
            assert_eq!(area.len, 4 << 20);
            assert_eq!(area.addr().as_ptr() as usize % HUGE, 0);
            // SAFETY: the mapping is ours alone in this test and `len` bytes long.
            let bytes = unsafe { std::slice::from_raw_parts_mut(area.addr().as_ptr(), area.len) };
            assert!(bytes.iter().all(|&b| b == 0));
            bytes[area.len - 1] = 7;
        }
    }
}
