//! The four rings of a socket: single-producer single-consumer queues shared with the kernel.
//!
//! Indices are free-running 32-bit counters, so an entry is at `counter & mask`. The side that owns a
//! counter keeps a private copy of it; the other side's counter is read only when the private view
//! says "empty" or "full", so that the shared cache lines are seldom touched.

use crate::area::Mapping;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the kernel put the parts of a ring within its mapping.
pub(crate) struct Layout {
    pub(crate) offsets: libc::xdp_ring_offset,
    pub(crate) page_offset: libc::off_t,
    pub(crate) entries: u32,
}

struct Shared<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<T>,
    mask: u32,
    _mapping: Mapping,
}

// SAFETY: the pointers lead into the owned mapping, which any thread may use; `T` is plain data.
unsafe impl<T: Copy + Send> Send for Shared<T> {}

impl<T: Copy> Shared<T> {
    fn new(fd: BorrowedFd<'_>, layout: &Layout) -> io::Result<Shared<T>> {
        let entries = layout.entries as usize;
        let offsets = &layout.offsets;
        let len = offsets.desc as usize + entries * size_of::<T>();
        let mapping = Mapping::ring(fd, len, layout.page_offset)?;
        let word = |offset: u64| -> io::Result<NonNull<AtomicU32>> {
            let offset = offset as usize;
            if !offset.is_multiple_of(align_of::<AtomicU32>()) || offset + size_of::<AtomicU32>() > len {
                return Err(io::Error::from_raw_os_error(libc::EPROTO));
            }
            // SAFETY: the word lies within the mapping, checked on the line above.
            Ok(unsafe { mapping.addr().add(offset) }.cast())
        };
        if !offsets.desc.is_multiple_of(align_of::<T>() as u64) || !layout.entries.is_power_of_two() {
            return Err(io::Error::from_raw_os_error(libc::EPROTO));
        }
        // SAFETY: the mapping was made `desc + entries * size_of::<T>()` bytes long.
        let slots = unsafe { mapping.addr().add(offsets.desc as usize) }.cast();
        Ok(Shared {
            producer: word(offsets.producer)?,
            consumer: word(offsets.consumer)?,
            flags: word(offsets.flags)?,
            slots,
            mask: layout.entries - 1,
            _mapping: mapping,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: points at an aligned word of the mapping, which lives as long as self.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // SAFETY: as in `producer`.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    fn slot(&self, counter: u32) -> NonNull<T> {
        // SAFETY: masked, so within the `mask + 1` slots of the mapping.
        unsafe { self.slots.add((counter & self.mask) as usize) }
    }
}

/// A ring that we produce and the kernel consumes: fill ring and TX ring.
pub(crate) struct Producer<T> {
    shared: Shared<T>,
    /// Written so far, published or not.
    head: u32,
    /// The kernel's counter when last looked at.
    seen: u32,
}

impl<T: Copy> Producer<T> {
    pub(crate) fn new(fd: BorrowedFd<'_>, layout: &Layout) -> io::Result<Producer<T>> {
        let shared = Shared::new(fd, layout)?;
        let head = shared.producer().load(Ordering::Relaxed);
        let seen = shared.consumer().load(Ordering::Acquire);
        Ok(Producer { shared, head, seen })
    }

    /// Free entries, looking at the kernel's counter only if fewer than `want` are known to be.
    pub(crate) fn room(&mut self, want: u32) -> u32 {
        let known = self.room_known();
        if known >= want {
            return known;
        }
        self.seen = self.shared.consumer().load(Ordering::Acquire);
        self.room_known()
    }

    fn room_known(&self) -> u32 {
        // Saturating: whatever the shared counter says, slots in use are never offered twice.
        (self.shared.mask + 1).saturating_sub(self.head.wrapping_sub(self.seen))
    }

    /// Writes one entry, unseen by the kernel until `publish`; false if the ring is full.
    #[inline]
    pub(crate) fn push(&mut self, entry: T) -> bool {
        if self.room(1) == 0 {
            return false;
        }
        // SAFETY: the slot is within the ring, and the kernel does not read it before `publish`.
        unsafe { self.shared.slot(self.head).write(entry) };
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Publishes everything written so far.
    #[inline]
    pub(crate) fn publish(&mut self) {
        self.shared.producer().store(self.head, Ordering::Release);
    }

    pub(crate) fn entries(&self) -> u32 {
        self.shared.mask + 1
    }

    /// Entries that the kernel has not taken yet.
    pub(crate) fn pending(&self) -> u32 {
        self.head.wrapping_sub(self.shared.consumer().load(Ordering::Relaxed))
    }

    pub(crate) fn needs_wakeup(&self) -> bool {
        self.shared.needs_wakeup()
    }
}

/// A ring that the kernel produces and we consume: RX ring and completion ring.
pub(crate) struct Consumer<T> {
    shared: Shared<T>,
    /// Taken so far, given back or not.
    tail: u32,
    /// The kernel's counter when last looked at.
    seen: u32,
}

impl<T: Copy> Consumer<T> {
    pub(crate) fn new(fd: BorrowedFd<'_>, layout: &Layout) -> io::Result<Consumer<T>> {
        let shared = Shared::new(fd, layout)?;
        let tail = shared.consumer().load(Ordering::Relaxed);
        let seen = shared.producer().load(Ordering::Acquire);
        Ok(Consumer { shared, tail, seen })
    }

    /// Entries to take, at most `max`; looks at the kernel's counter if fewer than `max` are known.
    #[inline]
    pub(crate) fn available(&mut self, max: u32) -> u32 {
        if self.seen.wrapping_sub(self.tail) < max {
            self.seen = self.shared.producer().load(Ordering::Acquire);
        }
        self.seen.wrapping_sub(self.tail).min(max)
    }

    /// The next entry. Call at most as often as `available` said, then `release`.
    #[inline]
    pub(crate) fn take(&mut self) -> T {
        // SAFETY: the slot is within the ring and holds plain data; the acquire load of the
        // kernel's counter in `available` made its write visible.
        let entry = unsafe { self.shared.slot(self.tail).read() };
        self.tail = self.tail.wrapping_add(1);
        entry
    }

    /// Returns the taken entries to the kernel.
    #[inline]
    pub(crate) fn release(&mut self) {
        self.shared.consumer().store(self.tail, Ordering::Release);
    }
}
