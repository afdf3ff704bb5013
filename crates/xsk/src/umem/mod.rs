//! The packet memory of one worker (UMEM) and its ledger: which chunk belongs to whom.

mod config;
mod ledger;
mod rings;
#[cfg(test)]
mod tests;

pub use config::{ChunkSize, UmemConfig, XDP_HEADROOM};
pub use ledger::Census;
pub(crate) use ledger::{CloseMark, Owner, SocketEntry};

use crate::area::Mapping;
use crate::error::UmemError;
use crate::frame::Frame;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};

/// How long chunks that the kernel may still read or write stay out of use after their socket was
/// closed: packets on their way out, and the receive ring of a zero-copy device, which the kernel
/// dismantles from a work queue some time after `close` has returned.
const RECLAIM_DELAY_NS: u64 = 1_000_000_000;

/// Packet memory shared by all sockets of one worker thread. Moves between threads, is used by one:
///
/// ```
/// fn moves<T: Send>() {}
/// moves::<(sag_xsk::Umem, sag_xsk::Socket, sag_xsk::Frame)>();
/// ```
/// ```compile_fail
/// fn is_shared<T: Sync>() {}
/// is_shared::<sag_xsk::Umem>();
/// ```
pub struct Umem {
    area: ManuallyDrop<Mapping>,
    huge: bool,
    chunk: ChunkSize,
    headroom: u16,
    frames: u32,
    id: u64,
    owners: Box<[Owner]>,
    /// Chunk numbers; a stack, so that the chunk used last, still in the cache, is used next.
    free: Vec<u32>,
    sockets: Vec<Option<SocketEntry>>,
    foreign: u64,
}

impl Umem {
    /// Maps the memory; all chunks are free.
    ///
    /// # Errors
    /// [`UmemError`]: a number or size out of range, or no memory.
    pub fn new(config: &UmemConfig) -> Result<Umem, UmemError> {
        let UmemConfig { frames, chunk, headroom, huge_pages } = *config;
        if !(64..=1 << 20).contains(&frames) {
            return Err(UmemError::FrameCount(frames));
        }
        if headroom % 8 != 0 || headroom > chunk.bytes() / 2 - XDP_HEADROOM {
            return Err(UmemError::Headroom { headroom, chunk: chunk.bytes() });
        }
        let bytes = frames as usize * usize::from(chunk.bytes());
        let (area, huge) =
            Mapping::packets(bytes, huge_pages).map_err(|source| UmemError::Map { bytes, source })?;
        static IDS: AtomicU64 = AtomicU64::new(1);
        Ok(Umem {
            area: ManuallyDrop::new(area),
            huge,
            chunk,
            headroom,
            frames,
            id: IDS.fetch_add(1, Ordering::Relaxed),
            owners: vec![Owner::FREE; frames as usize].into_boxed_slice(),
            free: (0..frames).rev().collect(),
            sockets: Vec::new(),
            foreign: 0,
        })
    }

    /// An empty frame for a packet that the program makes, with the usual headroom; `None` if no chunk is free.
    #[inline]
    pub fn alloc(&mut self) -> Option<Frame> {
        let index = self.pop_free(Owner::USER)?;
        // SAFETY: the chunk was on the free list, so nobody has it, and it is now the user's.
        Some(unsafe { self.frame(index, XDP_HEADROOM + self.headroom, 0) })
    }

    /// Returns a frame to the free list. A frame of another memory is not accepted: its chunk is lost,
    /// and [`Umem::foreign`] counts it.
    #[inline]
    pub fn release(&mut self, frame: Frame) {
        match self.index_of(&frame) {
            Some(index) => self.push_free(index),
            None => self.count_foreign(),
        }
        frame.disarm();
    }

    /// Releases all frames of a batch and leaves it empty.
    pub fn release_all(&mut self, frames: &mut Vec<Frame>) {
        for frame in frames.drain(..) {
            self.release(frame);
        }
    }

    /// Chunks on the free list.
    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// All chunks.
    pub fn frame_count(&self) -> usize {
        self.frames as usize
    }

    /// Size of a chunk.
    pub fn chunk_size(&self) -> ChunkSize {
        self.chunk
    }

    /// Whether reserved huge pages back the memory.
    pub fn huge_pages(&self) -> bool {
        self.huge
    }

    /// Room in front of a received packet.
    pub fn headroom(&self) -> usize {
        usize::from(XDP_HEADROOM + self.headroom)
    }

    /// The longest packet that can be received.
    pub fn largest_packet(&self) -> usize {
        usize::from(self.chunk.bytes()) - self.headroom()
    }

    /// Frames and ring entries refused because they did not belong here; 0 in a correct program on
    /// a correct kernel.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Counts all chunks by owner. Visits each of them: for reports and tests, not for the packet loop.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for owner in &self.owners {
            match (owner.socket(), *owner) {
                (None, Owner::FREE) => census.free += 1,
                (None, _) => census.user += 1,
                (Some((socket, _)), _) if self.is_closed(socket) => census.deferred += 1,
                (Some((_, false)), _) => census.receiving += 1,
                (Some((_, true)), _) => census.sending += 1,
            }
        }
        census
    }

    /// Returns the chunks of closed sockets to the free list, as far as the kernel is surely done
    /// with them: those posted to receive in copy mode at once, the rest after a second. Costs next
    /// to nothing while no socket has been closed; call it now and then.
    pub fn reclaim(&mut self, now: u64) -> usize {
        let before = self.free.len();
        for socket in 0..self.sockets.len() {
            let Some(Some(known)) = self.sockets.get_mut(socket) else { continue };
            let Some(closed_at) = known.close_mark.closed_at() else { continue };
            if now.saturating_sub(closed_at) >= RECLAIM_DELAY_NS {
                self.sweep(socket, true);
                self.sockets[socket] = None;
            } else if !known.zero_copy && !known.swept {
                known.swept = true;
                self.sweep(socket, false);
            }
        }
        self.free.len() - before
    }

    fn sweep(&mut self, socket: usize, sending_too: bool) {
        for index in 0..self.owners.len() {
            if let Some((owner, sending)) = self.owners[index].socket()
                && owner == socket
                && (!sending || sending_too)
            {
                self.push_free(index as u32);
            }
        }
    }

    fn is_closed(&self, socket: usize) -> bool {
        match self.sockets.get(socket) {
            Some(Some(known)) => known.close_mark.closed_at().is_some(),
            _ => true,
        }
    }

    /// # Safety
    /// The chunk's owner must just have become `USER`, with no other `Frame` of it around, and
    /// `index < frames`, `start + len <= chunk`.
    #[inline]
    unsafe fn frame(&self, index: u32, start: u16, len: u16) -> Frame {
        let offset = (index as usize) << self.chunk.shift();
        // SAFETY: index < frames, so the chunk lies within the area, which was zeroed by the kernel
        // and stays mapped while frames are out (see `drop`); the caller vouches for the rest.
        unsafe { Frame::new(self.area.addr().add(offset), self.chunk.bytes(), start, len) }
    }

    #[inline]
    fn index_of(&self, frame: &Frame) -> Option<u32> {
        let base = self.area.addr().as_ptr() as usize;
        let offset = (frame.chunk().as_ptr() as usize).wrapping_sub(base);
        let index = offset >> self.chunk.shift();
        (index < self.frames as usize).then_some(index as u32)
    }

    #[inline]
    fn pop_free(&mut self, to: Owner) -> Option<u32> {
        let index = self.free.pop()?;
        self.owners[index as usize] = to;
        Some(index)
    }

    /// Never reallocates: the list was made with room for every chunk, and none is in it twice.
    #[inline]
    fn push_free(&mut self, index: u32) {
        self.owners[index as usize] = Owner::FREE;
        self.free.push(index);
    }

    #[cold]
    fn count_foreign(&mut self) {
        self.foreign += 1;
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // Frames still out point into the area: leave it mapped for them. Sockets do not matter,
        // the kernel has its own hold on the pages.
        if !self.owners.contains(&Owner::USER) {
            // SAFETY: dropped once, here, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.area) };
        }
    }
}
