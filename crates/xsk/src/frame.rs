//! The owned handle of one chunk of packet memory.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Frames dropped instead of being released, in this process.
static LOST: AtomicU64 = AtomicU64::new(0);

/// One chunk of a [`Umem`](crate::Umem), holding one packet. Whoever has the `Frame` is the only one
/// who can reach its bytes.
///
/// A frame must be passed on: to a socket ([`Socket::send`](crate::Socket::send)) or back to
/// its memory ([`Umem::release`](crate::Umem::release)). Dropping one loses its chunk:
/// debug builds panic, release builds count it ([`Frame::lost`]).
#[must_use = "a frame must be sent or released, or its chunk is lost"]
pub struct Frame {
    chunk: NonNull<u8>,
    size: u16,
    start: u16,
    len: u16,
}

// SAFETY: a frame is the sole access to its chunk, and the chunk stays mapped while the frame lives.
unsafe impl Send for Frame {}
// SAFETY: a shared reference only reads the chunk, and nobody else can write it.
unsafe impl Sync for Frame {}

impl Frame {
    /// # Safety
    /// `chunk` must point at `size` initialised bytes that stay mapped and that nothing else
    /// accesses while the frame lives; `start + len <= size`.
    pub(crate) unsafe fn new(chunk: NonNull<u8>, size: u16, start: u16, len: u16) -> Frame {
        debug_assert!(usize::from(start) + usize::from(len) <= usize::from(size));
        Frame { chunk, size, start, len }
    }

    /// The packet.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: start + len <= size, an invariant of the type, and `&self` keeps writers away.
        unsafe {
            let data = self.chunk.add(usize::from(self.start));
            std::slice::from_raw_parts(data.as_ptr(), usize::from(self.len))
        }
    }

    /// The packet, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, with `&mut self` for exclusive access.
        unsafe {
            let data = self.chunk.add(usize::from(self.start));
            std::slice::from_raw_parts_mut(data.as_ptr(), usize::from(self.len))
        }
    }

    /// The whole chunk, where in it the packet starts, and how long it is. After moving the packet within the
    /// chunk, call [`Frame::set_range`].
    #[inline]
    pub fn packet_mut(&mut self) -> (&mut [u8], usize, usize) {
        let (start, len) = (usize::from(self.start), usize::from(self.len));
        // SAFETY: the chunk is `size` bytes long and ours alone.
        let chunk = unsafe { std::slice::from_raw_parts_mut(self.chunk.as_ptr(), usize::from(self.size)) };
        (chunk, start, len)
    }

    /// Sets where in the chunk the packet is. False, changing nothing, if it would not fit.
    #[inline]
    #[must_use]
    pub fn set_range(&mut self, start: usize, len: usize) -> bool {
        let fits = start <= usize::from(self.size) && len <= usize::from(self.size) - start;
        if fits {
            // Both are at most `size`, which is a u16.
            self.start = start as u16;
            self.len = len as u16;
        }
        fits
    }

    /// The `n` bytes right in front of the packet, where an XDP program leaves its metadata. The
    /// kernel does not say whether it left any: the program and the reader must agree on a magic value.
    #[inline]
    pub fn front(&self, n: usize) -> Option<&[u8]> {
        let from = usize::from(self.start).checked_sub(n)?;
        // SAFETY: from + n = start <= size, so the range lies within the chunk.
        Some(unsafe { std::slice::from_raw_parts(self.chunk.add(from).as_ptr(), n) })
    }

    /// Bytes of the chunk in front of the packet.
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.start)
    }

    /// Bytes of the chunk behind the packet.
    #[inline]
    pub fn tailroom(&self) -> usize {
        usize::from(self.size - self.start - self.len)
    }

    /// Bytes of the packet.
    #[inline]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the packet has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Frames of this process that were dropped instead of released; 0 in a correct program.
    pub fn lost() -> u64 {
        LOST.load(Ordering::Relaxed)
    }

    pub(crate) fn chunk(&self) -> NonNull<u8> {
        self.chunk
    }

    pub(crate) fn start(&self) -> u16 {
        self.start
    }

    /// Ends the handle without counting it as lost: its chunk has another owner now.
    #[inline]
    pub(crate) fn disarm(self) {
        let _ = ManuallyDrop::new(self);
    }
}

impl Drop for Frame {
    #[cold]
    fn drop(&mut self) {
        LOST.fetch_add(1, Ordering::Relaxed);
        // A panic during a panic would abort and hide the first one.
        if cfg!(debug_assertions) && !std::thread::panicking() {
            panic!("a frame was dropped; send it or release it to its memory");
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("start", &self.start).field("len", &self.len).finish_non_exhaustive()
    }
}
