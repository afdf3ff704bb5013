//! One AF_XDP socket on one device queue, with its four rings.

use crate::binding::Binding;
use crate::error::{OpenError, SocketError};
use crate::frame::Frame;
use crate::ifname::IfName;
use crate::ring::{Consumer, Producer};
use crate::sys;
use crate::umem::{Owner, Ticket, Umem};
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
    pub microseconds: u16,
    /// Packets per poll.
    pub budget: u16,
}

#[derive(Debug, Clone)]
pub struct SocketConfig {
    pub device: String,
    pub queue: u32,
    pub mode: Mode,
    /// Entries of the receive ring; ring sizes are powers of two.
    pub rx_ring: u32,
    /// Entries of the transmit ring; the completion ring gets as many.
    pub tx_ring: u32,
    /// Entries of the fill ring.
    pub fill_ring: u32,
    /// Chunks that `refill` keeps with the kernel to receive into, at most `fill_ring`.
    pub fill_level: u32,
    pub busy_poll: Option<BusyPoll>,
}

impl SocketConfig {
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
    // descriptor is closed, and the ticket may say so only after that.
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    fd: Arc<OwnedFd>,
    _ticket: Closing,
    umem: u64,
    receiving: Owner,
    sending: Owner,
    device: IfName,
    ifindex: u32,
    queue: u32,
    binding: Binding,
    busy_poll: bool,
    /// Packets that the kernel sends per system call.
    kick_budget: u32,
    fill_level: u32,
    /// Chunks in the fill and receive rings.
    lent: u32,
    /// Chunks in the transmit and completion rings.
    in_flight: u32,
}

struct Closing(Arc<Ticket>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Socket {
    /// Opens a socket on a device queue. Receiving starts once an XDP program redirects to its
    /// [`Socket::fd`]; the fill ring is filled already.
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
        self.lent = self.lent.saturating_sub(count);
        frames.len() - before
    }

    /// Puts a packet into the transmit ring, to go out with the next `flush`. It comes back if the
    /// ring is full or if it is too short to be an Ethernet frame.
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

    /// Shows the kernel what `send` wrote and wakes it if it wants to be woken. One system call, or
    /// none; before Linux 6.17, in copy mode, one for every 32 packets. Call it even with nothing
    /// new to send: what the device could not take the last time is tried again.
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
            if done || left >= pending || pending <= self.kick_budget {
                break;
            }
            pending = left;
        }
        Ok(())
    }

    /// Takes back the chunks of packets that have been sent.
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

    /// Lends the kernel free chunks to receive into, up to the fill level.
    #[inline]
    pub fn refill(&mut self, umem: &mut Umem) -> usize {
        self.check_owner(umem);
        let want = self.fill_level.saturating_sub(self.lent);
        // In batches: the kernel's side of the ring is left alone for a few packets' time.
        if want == 0 || (want < FILL_BATCH && self.lent >= FILL_BATCH) {
            return 0;
        }
        let want = want.min(self.fill.room(want));
        let mut count = 0;
        while count < want {
            let Some(addr) = umem.lend(self.receiving) else { break };
            self.fill.push(addr);
            count += 1;
        }
        if count > 0 {
            self.fill.publish();
            self.lent += count;
        }
        count as usize
    }

    /// Makes the driver look for packets and free chunks, if it asked to be woken or if this thread
    /// polls the device itself; else does nothing.
    #[inline]
    pub fn wake_if_needed(&mut self) -> Result<(), SocketError> {
        if self.busy_poll || self.fill.needs_wakeup() { self.probe() } else { Ok(()) }
    }

    /// Asks the kernel whether the socket still works. A socket that only receives sees no other
    /// sign of its device being gone, so call it now and then, or when the link state has changed.
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

    /// Chunks lent to the kernel to receive into, used or not.
    pub fn lent(&self) -> u32 {
        self.lent
    }

    /// Changes how many chunks `refill` keeps with the kernel.
    pub fn set_fill_level(&mut self, chunks: u32) {
        self.fill_level = chunks.min(self.fill.entries());
    }

    /// The kernel's counters of this socket.
    pub fn stats(&self) -> std::io::Result<Stats> {
        stats::read(self.fd.as_fd())
    }

    /// For the XSKMAP and for `poll`. Do not duplicate it: the kernel ends a socket with its last
    /// descriptor, and its chunks are reused from then on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn device(&self) -> IfName {
        self.device
    }

    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    pub fn queue(&self) -> u32 {
        self.queue
    }

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
            // The device's queue or the socket's share of memory is used up: later.
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
            .field("lent", &self.lent)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

/// The shortest frame that can be sent: a header and nothing in it.
const ETHERNET_HEADER: usize = 14;

/// Chunks lent at a time, unless the kernel is about to run out.
const FILL_BATCH: u32 = 32;

fn last_errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
