//! One AF_XDP socket on one device queue, with its four rings.

use crate::binding::Binding;
use crate::error::{OpenError, SocketError};
use crate::frame::Frame;
use crate::ifname::IfName;
use crate::ring::{Consumer, Producer};
use crate::sys;
use crate::umem::{CloseMark, Owner, Umem};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

mod open;
mod stats;

pub use stats::Stats;

/// Who copies packets between the device and the packet memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Zero-copy if the driver can, else copy.
    #[default]
    Auto,
    /// Always copy. Needed where the XDP program is attached in generic mode.
    Copy,
    /// Zero-copy, or the socket is not opened.
    ZeroCopy,
}

/// Busy polling: the thread that reads the socket also drives the device's receive work, instead of
/// an interrupt doing so. Pays off on physical NICs with `napi_defer_hard_irqs` and
/// `gro_flush_timeout` set; see the decision page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusyPoll {
    /// Microseconds to poll when no packet is waiting (`SO_BUSY_POLL`).
    pub microseconds: u16,
    /// Packets per poll (`SO_BUSY_POLL_BUDGET`).
    pub budget: u16,
}

/// How to open a socket.
#[derive(Debug, Clone)]
pub struct SocketConfig {
    /// The device.
    pub device: String,
    /// The queue, from 0.
    pub queue: u32,
    /// Who copies packets.
    pub mode: Mode,
    /// Entries of the receive ring; ring sizes are powers of two.
    pub rx_ring: u32,
    /// Entries of the transmit ring; the completion ring gets as many.
    pub tx_ring: u32,
    /// Entries of the fill ring.
    pub fill_ring: u32,
    /// Chunks that `refill` keeps posted to receive into, at most `fill_ring`.
    pub fill_level: u32,
    /// Busy polling; `None` for interrupts.
    pub busy_poll: Option<BusyPoll>,
}

impl SocketConfig {
    /// The defaults: [`Mode::Auto`], rings of 2048 entries, all of the fill ring posted, no busy polling.
    pub fn new(device: &str, queue: u32) -> SocketConfig {
        SocketConfig {
            device: device.to_owned(),
            queue,
            mode: Mode::Auto,
            rx_ring: 2048,
            tx_ring: 2048,
            fill_ring: 2048,
            fill_level: 2048,
            busy_poll: None,
        }
    }
}

/// An AF_XDP socket, used by the thread that has its memory. All calls that move frames take the
/// memory that the socket was opened on.
///
/// The loop of a worker, for each socket: `complete`, `refill`, `rx`, process, `send` on the sockets
/// of the egress ports, then `flush` on each of these.
///
/// # Panics
/// Those calls panic if given another memory than the socket's own.
pub struct Socket {
    // The order of the fields matters: the kernel ends a socket when its rings are unmapped and its
    // descriptor is closed, and the close_mark may say so only after that.
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    fd: Arc<OwnedFd>,
    _close_mark: MarkOnDrop,
    umem: u64,
    receiving: Owner,
    sending: Owner,
    device: IfName,
    ifindex: u32,
    queue: u32,
    binding: Binding,
    busy_poll: bool,
    /// Packets that the kernel sends per system call.
    tx_budget: u32,
    fill_level: u32,
    /// Chunks in the fill ring and the RX ring.
    rx_posted: u32,
    /// Chunks in the TX ring and the completion ring.
    in_flight: u32,
}

struct MarkOnDrop(Arc<CloseMark>);

impl Drop for MarkOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Socket {
    /// Opens a socket on a device queue. Receiving starts once an XDP program redirects to its
    /// [`Socket::fd`]; the fill ring is filled already.
    ///
    /// # Errors
    /// [`OpenError`] says what to change.
    pub fn open(umem: &mut Umem, config: &SocketConfig) -> Result<Socket, OpenError> {
        let mut socket = open::open(umem, config)?;
        socket.refill(umem);
        Ok(socket)
    }

    /// Takes up to `max` received packets, as many as fit into `frames` without growing it.
    #[inline]
    pub fn rx(&mut self, umem: &mut Umem, frames: &mut Vec<Frame>, max: usize) -> usize {
        self.check_owner(umem);
        let max = max.min(frames.capacity() - frames.len());
        let count = self.rx.available(max as u32);
        if count == 0 {
            return 0;
        }
        let before = frames.len();
        for _ in 0..count {
            let desc = self.rx.take();
            if let Some(frame) = umem.received(desc, self.receiving) {
                frames.push(frame);
            }
        }
        self.rx.release();
        self.rx_posted = self.rx_posted.saturating_sub(count);
        frames.len() - before
    }

    /// Puts a packet into the TX ring, to be sent with the next `flush`.
    ///
    /// # Errors
    /// The frame, if the ring is full or it is too short to be an Ethernet frame.
    #[inline]
    pub fn send(&mut self, umem: &mut Umem, frame: Frame) -> Result<(), Frame> {
        self.check_owner(umem);
        // An empty descriptor would be swallowed by the kernel and never completed. What is in
        // flight is bounded by the completion ring, so an entry of the transmit ring is free too.
        if frame.len() < ETHERNET_HEADER || self.room() == 0 {
            return Err(frame);
        }
        let desc = umem.sending(frame, self.sending)?;
        self.tx.push(desc);
        self.in_flight += 1;
        Ok(())
    }

    /// Sends from the front of `frames` as many as the ring has room for; returns how many that was.
    /// Frames too short to be sent are released to the memory on the way and not counted.
    pub fn tx(&mut self, umem: &mut Umem, frames: &mut Vec<Frame>) -> usize {
        let count = frames.len().min(self.room() as usize);
        let mut sent = 0;
        for frame in frames.drain(..count) {
            match self.send(umem, frame) {
                Ok(()) => sent += 1,
                Err(frame) => umem.release(frame),
            }
        }
        sent
    }

    /// Publishes what `send` wrote and wakes the kernel if it has set the need-wakeup flag. One system call, or
    /// none; before Linux 6.17, in copy mode, one for every 32 packets. Call it even with nothing
    /// new to send: what the device could not take the last time is tried again.
    ///
    /// # Errors
    /// [`SocketError`] if the device is gone or down.
    pub fn flush(&mut self) -> Result<(), SocketError> {
        if self.in_flight == 0 {
            return Ok(());
        }
        self.tx.publish();
        let mut pending = self.tx.pending();
        while pending > 0 && self.tx.needs_wakeup() {
            // SAFETY: no buffer and no address are passed.
            let result = unsafe {
                libc::sendto(
                    self.fd.as_raw_fd(),
                    std::ptr::null(),
                    0,
                    libc::MSG_DONTWAIT,
                    std::ptr::null(),
                    0,
                )
            };
            let done = result >= 0;
            if !done {
                self.errno_to_result(last_errno())?;
            }
            let left = self.tx.pending();
            if done || left >= pending || pending <= self.tx_budget {
                break;
            }
            pending = left;
        }
        Ok(())
    }

    /// Takes the chunks of packets that have been sent from the completion ring. Returns how many.
    #[inline]
    pub fn complete(&mut self, umem: &mut Umem) -> usize {
        self.check_owner(umem);
        if self.in_flight == 0 {
            return 0;
        }
        let count = self.completion.available(self.in_flight);
        for _ in 0..count {
            umem.sent(self.completion.take(), self.sending);
        }
        if count > 0 {
            self.completion.release();
            self.in_flight -= count;
        }
        count as usize
    }

    /// Posts free chunks to the fill ring for the kernel to receive into, up to the fill level. Returns how many.
    #[inline]
    pub fn refill(&mut self, umem: &mut Umem) -> usize {
        self.check_owner(umem);
        let want = self.fill_level.saturating_sub(self.rx_posted);
        // In batches: the cache lines of the ring that the kernel uses are left alone meanwhile.
        if want == 0 || (want < FILL_BATCH && self.rx_posted >= FILL_BATCH) {
            return 0;
        }
        let want = want.min(self.fill.room(want));
        let mut count = 0;
        while count < want {
            let Some(addr) = umem.post_rx(self.receiving) else { break };
            self.fill.push(addr);
            count += 1;
        }
        if count > 0 {
            self.fill.publish();
            self.rx_posted += count;
        }
        count as usize
    }

    /// Makes the driver look for packets and free chunks, if the need-wakeup flag of the fill ring is set or if
    /// this thread polls the device itself; else does nothing.
    ///
    /// # Errors
    /// As [`Socket::probe`].
    #[inline]
    pub fn wake_if_needed(&mut self) -> Result<(), SocketError> {
        if self.busy_poll || self.fill.needs_wakeup() { self.probe() } else { Ok(()) }
    }

    /// Checks with the kernel whether the socket still works. A socket that only receives sees no other
    /// sign of its device being gone, so call it now and then, or when the link state has changed.
    ///
    /// # Errors
    /// [`SocketError`] if the device is gone or down.
    pub fn probe(&self) -> Result<(), SocketError> {
        let (fd, none) = (self.fd.as_raw_fd(), std::ptr::null_mut());
        // SAFETY: no buffer and no address are passed.
        let result =
            unsafe { libc::recvfrom(fd, none, 0, libc::MSG_DONTWAIT, none.cast(), std::ptr::null_mut()) };
        if result >= 0 { Ok(()) } else { self.errno_to_result(last_errno()) }
    }

    /// Ends the socket and returns its chunks to the memory, as far as they can be at once (see
    /// [`Umem::reclaim`]). Dropping a socket does the same, only later: at the next `reclaim`.
    pub fn close(self, umem: &mut Umem) {
        self.check_owner(umem);
        drop(self);
        umem.reclaim(sys::now());
    }

    /// Packets that `send` would take now.
    #[inline]
    pub fn room(&self) -> u32 {
        self.tx.entries().saturating_sub(self.in_flight)
    }

    /// Packets waiting in the transmit ring or on their way out of the device.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Chunks posted to the kernel to receive into, used or not.
    pub fn rx_posted(&self) -> u32 {
        self.rx_posted
    }

    /// Changes how many chunks `refill` keeps posted.
    pub fn set_fill_level(&mut self, chunks: u32) {
        self.fill_level = chunks.min(self.fill.entries());
    }

    /// The kernel's counters of this socket.
    ///
    /// # Errors
    /// The error of `getsockopt`.
    pub fn stats(&self) -> std::io::Result<Stats> {
        stats::read(self.fd.as_fd())
    }

    /// The descriptor, for the XSKMAP and for `poll`. Do not duplicate it: the kernel ends a socket with its last
    /// descriptor, and its chunks are reused from then on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The device.
    pub fn device(&self) -> IfName {
        self.device
    }

    /// The index of the device.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The queue.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// How the socket was bound.
    pub fn binding(&self) -> Binding {
        self.binding
    }

    #[inline]
    fn check_owner(&self, umem: &Umem) {
        assert!(umem.id() == self.umem, "a socket was used with another memory than its own");
    }

    #[cold]
    fn errno_to_result(&self, errno: i32) -> Result<(), SocketError> {
        let (device, queue) = (self.device, self.queue);
        match errno {
            // The device's queue or the socket's share of memory is used up: a later call succeeds.
            libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR => Ok(()),
            libc::ENETDOWN => Err(SocketError::Down { device }),
            libc::ENXIO | libc::ENODEV | libc::EBADF => Err(SocketError::Gone { device, queue }),
            errno => Err(SocketError::Os { device, queue, errno }),
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("device", &self.device)
            .field("queue", &self.queue)
            .field("binding", &self.binding)
            .field("rx_posted", &self.rx_posted)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

/// The shortest frame that can be sent: a header and nothing in it.
const ETHERNET_HEADER: usize = 14;

/// Chunks posted at a time, unless the kernel is about to run out.
const FILL_BATCH: u32 = 32;

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
