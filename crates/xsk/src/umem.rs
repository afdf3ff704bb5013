//! The packet memory of one worker and its ledger: which chunk belongs to whom.

use crate::area::Mapping;
use crate::error::UmemError;
use crate::frame::Frame;
use crate::sys;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Bytes that the kernel keeps free in front of every received packet, besides the headroom.
pub const XDP_HEADROOM: u16 = 256;

/// How long chunks that the kernel may still read or write stay out of use after their socket was
/// closed: packets on their way out, and the receive ring of a zero-copy device, which the kernel
/// dismantles from a work queue some time after `close` has returned.
const QUARANTINE_NS: u64 = 1_000_000_000;

/// Size of the piece of memory that holds one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkSize {
    B2048,
    B4096,
}

impl ChunkSize {
    /// The smaller size that holds frames of an MTU (with Ethernet header and two VLAN tags).
    pub fn for_mtu(mtu: u32, headroom: u16) -> Result<ChunkSize, UmemError> {
        const LINK: u32 = 14 + 8;
        let front = u32::from(XDP_HEADROOM) + u32::from(headroom);
        let need = mtu.saturating_add(LINK);
        match need.saturating_add(front) {
            0..=2048 => Ok(ChunkSize::B2048),
            2049..=4096 => Ok(ChunkSize::B4096),
            _ => Err(UmemError::MtuTooBig { mtu, need, max: 4096 - LINK - front.min(4096 - LINK) }),
        }
    }

    pub const fn bytes(self) -> u16 {
        match self {
            ChunkSize::B2048 => 2048,
            ChunkSize::B4096 => 4096,
        }
    }

    const fn shift(self) -> u32 {
        self.bytes().trailing_zeros()
    }
}

#[derive(Debug, Clone)]
pub struct UmemConfig {
    /// Number of chunks. Each open socket wants its fill level plus what may wait in its transmit
    /// ring; see `docs/decisions/0002-af-xdp-crate.md` for the sizing.
    pub frames: u32,
    pub chunk: ChunkSize,
    /// Room in front of received packets besides [`XDP_HEADROOM`]; a multiple of 8.
    pub headroom: u16,
    /// Try reserved huge pages (falls back to ordinary, possibly transparent huge, pages).
    pub huge_pages: bool,
}

impl Default for UmemConfig {
    fn default() -> Self {
        UmemConfig { frames: 16384, chunk: ChunkSize::B2048, headroom: 128, huge_pages: false }
    }
}

/// Who has how many chunks. The five counts add up to all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// On the free list.
    pub free: usize,
    /// Held by the program as [`Frame`]s.
    pub user: usize,
    /// In fill and receive rings of open sockets.
    pub receiving: usize,
    /// In transmit and completion rings of open sockets.
    pub sending: usize,
    /// Left behind by closed sockets, not yet reclaimed.
    pub quarantined: usize,
}

impl Census {
    pub fn total(&self) -> usize {
        self.free + self.user + self.receiving + self.sending + self.quarantined
    }
}

/// The owner of a chunk. A socket's two kinds of rings own separately, because they come back to us
/// in different ways and at different times once the socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(u16);

impl Owner {
    const FREE: Owner = Owner(0);
    const USER: Owner = Owner(1);
    /// Sockets that fit into the encoding, and open at a time on one memory.
    pub(crate) const MAX_SLOTS: usize = 1024;

    pub(crate) fn receiving(slot: u16) -> Owner {
        Owner(2 + 2 * slot)
    }

    pub(crate) fn sending(slot: u16) -> Owner {
        Owner(3 + 2 * slot)
    }

    fn slot(self) -> Option<(usize, bool)> {
        let n = usize::from(self.0.checked_sub(2)?);
        Some((n / 2, n % 2 == 1))
    }
}

/// Tells the memory that a socket's rings are unmapped and its descriptor closed.
#[derive(Debug, Default)]
pub(crate) struct Ticket {
    /// 0 while the socket is open, then the monotonic time of its end.
    closed_at: AtomicU64,
}

impl Ticket {
    pub(crate) fn close(&self) {
        self.closed_at.store(sys::now().max(1), Ordering::Release);
    }
}

/// What the memory knows of a socket opened on it.
pub(crate) struct Slot {
    pub(crate) ifindex: u32,
    pub(crate) queue: u32,
    pub(crate) zero_copy: bool,
    pub(crate) fd: Weak<OwnedFd>,
    pub(crate) ticket: Arc<Ticket>,
    swept: bool,
}

impl Slot {
    pub(crate) fn new(ifindex: u32, queue: u32, zero_copy: bool, fd: &Arc<OwnedFd>) -> Slot {
        let (fd, ticket) = (Arc::downgrade(fd), Arc::default());
        Slot { ifindex, queue, zero_copy, fd, ticket, swept: false }
    }
}

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
    slots: Vec<Option<Slot>>,
    foreign: u64,
}

impl Umem {
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
            slots: Vec::new(),
            foreign: 0,
        })
    }

    /// An empty frame for a packet of the program's own, with the usual room in front.
    #[inline]
    pub fn alloc(&mut self) -> Option<Frame> {
        let index = self.pop_free(Owner::USER)?;
        // SAFETY: the chunk was on the free list, so nobody has it, and it is now the user's.
        Some(unsafe { self.frame(index, XDP_HEADROOM + self.headroom, 0) })
    }

    /// Takes a frame back. A frame of another memory is not accepted: it stays lost to its own,
    /// and [`Umem::foreign`] counts it.
    #[inline]
    pub fn release(&mut self, frame: Frame) {
        match self.index_of(&frame) {
            Some(index) => self.push_free(index),
            None => self.count_foreign(),
        }
        frame.disarm();
    }

    /// Takes back all frames of a batch and leaves it empty.
    pub fn release_all(&mut self, frames: &mut Vec<Frame>) {
        for frame in frames.drain(..) {
            self.release(frame);
        }
    }

    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    pub fn frame_count(&self) -> usize {
        self.frames as usize
    }

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

    /// Counts all chunks by owner. Looks at each of them: for reports and tests, not for the loop.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for owner in &self.owners {
            match (owner.slot(), *owner) {
                (None, Owner::FREE) => census.free += 1,
                (None, _) => census.user += 1,
                (Some((slot, _)), _) if self.is_closed(slot) => census.quarantined += 1,
                (Some((_, false)), _) => census.receiving += 1,
                (Some((_, true)), _) => census.sending += 1,
            }
        }
        census
    }

    /// Returns the chunks of closed sockets to the free list, as far as the kernel is surely done
    /// with them: what waited to receive in copy mode at once, the rest after a second. Costs next
    /// to nothing while no socket has been closed; call it now and then.
    pub fn reclaim(&mut self, now: u64) -> usize {
        let before = self.free.len();
        for slot in 0..self.slots.len() {
            let Some(Some(known)) = self.slots.get_mut(slot) else { continue };
            let closed_at = known.ticket.closed_at.load(Ordering::Acquire);
            if closed_at == 0 {
                continue;
            }
            if now.saturating_sub(closed_at) >= QUARANTINE_NS {
                self.sweep(slot, true);
                self.slots[slot] = None;
            } else if !known.zero_copy && !known.swept {
                known.swept = true;
                self.sweep(slot, false);
            }
        }
        self.free.len() - before
    }

    fn sweep(&mut self, slot: usize, sending_too: bool) {
        for index in 0..self.owners.len() {
            if let Some((owner, sending)) = self.owners[index].slot()
                && owner == slot
                && (!sending || sending_too)
            {
                self.push_free(index as u32);
            }
        }
    }

    fn is_closed(&self, slot: usize) -> bool {
        match self.slots.get(slot) {
            Some(Some(known)) => known.ticket.closed_at.load(Ordering::Acquire) != 0,
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

/// What sockets do with the memory.
impl Umem {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn registration(&self) -> libc::xdp_umem_reg {
        // SAFETY: plain integers, for which zero is a value; later kernels' fields stay zero.
        let mut reg: libc::xdp_umem_reg = unsafe { std::mem::zeroed() };
        reg.addr = self.area.addr().as_ptr() as u64;
        reg.len = u64::from(self.frames) << self.chunk.shift();
        reg.chunk_size = u32::from(self.chunk.bytes());
        reg.headroom = u32::from(self.headroom);
        reg
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().flatten()
    }

    pub(crate) fn slot_count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_some()).count()
    }

    pub(crate) fn add_slot(&mut self, slot: Slot) -> u16 {
        let vacant = self.slots.iter().position(Option::is_none);
        let number = vacant.unwrap_or(self.slots.len());
        match vacant {
            Some(number) => self.slots[number] = Some(slot),
            None => self.slots.push(Some(slot)),
        }
        // `open` refuses more than MAX_SLOTS sockets.
        number as u16
    }

    /// A free chunk for the kernel to receive into, as a ring address.
    #[inline]
    pub(crate) fn lend(&mut self, to: Owner) -> Option<u64> {
        let index = self.pop_free(to)?;
        Some(u64::from(index) << self.chunk.shift())
    }

    /// A packet that the kernel received into a chunk lent by `from`.
    #[inline]
    pub(crate) fn received(&mut self, desc: libc::xdp_desc, from: Owner) -> Option<Frame> {
        let size = u64::from(self.chunk.bytes());
        let index = desc.addr >> self.chunk.shift();
        let start = desc.addr & (size - 1);
        let fits = start + u64::from(desc.len) <= size;
        match self.owners.get_mut(index as usize) {
            Some(owner) if *owner == from && fits => *owner = Owner::USER,
            _ => {
                self.count_foreign();
                return None;
            }
        }
        // SAFETY: the ledger said the kernel had the chunk, so there was no frame of it; it has
        // given it back and the user owns it now. The index was found in the ledger, and the range
        // was checked.
        Some(unsafe { self.frame(index as u32, start as u16, desc.len as u16) })
    }

    /// Takes a frame to be sent and makes it a ring entry; a frame of another memory comes back.
    #[inline]
    pub(crate) fn sending(&mut self, frame: Frame, to: Owner) -> Result<libc::xdp_desc, Frame> {
        let Some(index) = self.index_of(&frame) else {
            self.count_foreign();
            return Err(frame);
        };
        self.owners[index as usize] = to;
        let addr = (u64::from(index) << self.chunk.shift()) + u64::from(frame.start());
        let desc = libc::xdp_desc { addr, len: frame.len() as u32, options: 0 };
        frame.disarm();
        Ok(desc)
    }

    /// A chunk that the kernel has finished sending.
    #[inline]
    pub(crate) fn sent(&mut self, addr: u64, from: Owner) {
        let index = addr >> self.chunk.shift();
        match self.owners.get(index as usize) {
            Some(owner) if *owner == from => self.push_free(index as u32),
            _ => self.count_foreign(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Umem {
        Umem::new(&UmemConfig { frames: 64, ..UmemConfig::default() }).unwrap()
    }

    #[test]
    fn chunk_follows_the_mtu() {
        assert_eq!(ChunkSize::for_mtu(1500, 128).unwrap(), ChunkSize::B2048);
        assert_eq!(ChunkSize::for_mtu(1642, 128).unwrap(), ChunkSize::B2048);
        assert_eq!(ChunkSize::for_mtu(1643, 128).unwrap(), ChunkSize::B4096);
        let error = ChunkSize::for_mtu(9000, 128).unwrap_err().to_string();
        assert!(error.contains("MTU 9000") && error.contains("3690"), "{error}");
        assert!(ChunkSize::for_mtu(u32::MAX, 128).is_err());
    }

    #[test]
    fn bad_sizes_are_refused() {
        let config = |frames, headroom| UmemConfig { frames, headroom, ..UmemConfig::default() };
        assert!(matches!(Umem::new(&config(63, 128)), Err(UmemError::FrameCount(63))));
        assert!(matches!(Umem::new(&config(64, 4)), Err(UmemError::Headroom { .. })));
        assert!(matches!(Umem::new(&config(64, 1024)), Err(UmemError::Headroom { .. })));
    }

    #[test]
    fn frames_are_handed_out_once_and_come_back() {
        let mut umem = small();
        let mut frames = Vec::new();
        while let Some(mut frame) = umem.alloc() {
            let n = frames.len() as u8;
            assert!(frame.set_range(384, 64));
            frame.bytes_mut().fill(n);
            frames.push(frame);
        }
        assert_eq!((frames.len(), umem.free_count()), (64, 0));
        for (n, frame) in frames.iter().enumerate() {
            assert!(frame.bytes().iter().all(|&b| usize::from(b) == n));
        }
        assert_eq!(umem.census(), Census { user: 64, ..Census::default() });
        umem.release_all(&mut frames);
        assert_eq!(umem.census(), Census { free: 64, ..Census::default() });
    }

    #[test]
    fn a_packet_grows_at_the_front_and_stays_in_its_chunk() {
        let mut umem = small();
        let mut frame = umem.alloc().unwrap();
        assert_eq!((frame.headroom(), frame.len()), (384, 0));
        assert!(frame.set_range(384, 1664));
        assert_eq!(frame.tailroom(), 0);
        assert!(!frame.set_range(384, 1665) && !frame.set_range(2049, 0) && !frame.set_range(1, usize::MAX));
        frame.bytes_mut()[0] = 9;
        let (chunk, start, len) = frame.packet_mut();
        assert_eq!((chunk.len(), chunk[start]), (2048, 9));
        chunk[start - 50] = 7;
        assert!(frame.set_range(start - 50, len + 50));
        assert_eq!((frame.bytes()[0], frame.bytes()[50]), (7, 9));
        assert_eq!(frame.front(334).map(<[u8]>::len), Some(334));
        assert!(frame.front(335).is_none());
        umem.release(frame);
    }

    #[test]
    fn frames_outlive_their_memory_and_are_refused_by_another() {
        let (mut one, mut other) = (small(), small());
        let mut frame = one.alloc().unwrap();
        drop(one);
        assert!(frame.set_range(0, 2048));
        frame.bytes_mut().fill(1);
        other.release(frame);
        assert_eq!((other.foreign(), other.free_count()), (1, 64));
    }

    #[test]
    fn ring_entries_are_checked_against_the_ledger() {
        let mut umem = small();
        let (ours, theirs) = (Owner::receiving(0), Owner::receiving(1));
        let addr = umem.lend(ours).unwrap();
        let desc = |addr, len| libc::xdp_desc { addr, len, options: 0 };
        assert!(umem.received(desc(addr + 384, 60), theirs).is_none());
        assert!(umem.received(desc(addr + 384, 1665), ours).is_none());
        assert!(umem.received(desc(64 * 2048, 60), ours).is_none());
        assert!(umem.received(desc(u64::MAX, 60), ours).is_none());
        let frame = umem.received(desc(addr + 384, 60), ours).unwrap();
        assert!(umem.received(desc(addr + 384, 60), ours).is_none(), "handed out twice");
        assert_eq!(umem.foreign(), 5);
        let sent = umem.sending(frame, Owner::sending(0)).unwrap();
        umem.sent(sent.addr, Owner::sending(1));
        assert_eq!((umem.foreign(), umem.free_count()), (6, 63));
        umem.sent(sent.addr, Owner::sending(0));
        umem.sent(sent.addr, Owner::sending(0));
        assert_eq!((umem.foreign(), umem.free_count()), (7, 64));
    }

    #[test]
    #[cfg(debug_assertions)]
    fn dropping_a_frame_is_detected() {
        let mut umem = small();
        let frame = umem.alloc().unwrap();
        let lost = Frame::lost();
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(frame))).is_err());
        assert!(Frame::lost() > lost);
    }
}
