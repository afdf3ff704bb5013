//! The ledger of the packet memory: which chunk belongs to whom.

use crate::sys;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// How many chunks each kind of owner has. The five counts add up to all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// On the free list.
    pub free: usize,
    /// Held by the program as [`Frame`](crate::Frame)s.
    pub user: usize,
    /// In fill and receive rings of open sockets.
    pub receiving: usize,
    /// In transmit and completion rings of open sockets.
    pub sending: usize,
    /// Left behind by closed sockets, not yet reclaimed.
    pub deferred: usize,
}

impl Census {
    /// All chunks.
    pub fn total(&self) -> usize {
        self.free + self.user + self.receiving + self.sending + self.deferred
    }
}

/// The owner of a chunk. A socket's two kinds of rings own separately, because they are returned
/// in different ways and at different times once the socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(u16);

impl Owner {
    pub(super) const FREE: Owner = Owner(0);
    pub(super) const USER: Owner = Owner(1);
    /// Sockets that fit into the encoding, and open at a time on one memory.
    pub(crate) const MAX_SOCKETS: usize = 1024;

    pub(crate) fn receiving(socket: u16) -> Owner {
        Owner(2 + 2 * socket)
    }

    pub(crate) fn sending(socket: u16) -> Owner {
        Owner(3 + 2 * socket)
    }

    pub(super) fn socket(self) -> Option<(usize, bool)> {
        let n = usize::from(self.0.checked_sub(2)?);
        Some((n / 2, n % 2 == 1))
    }
}

/// Set when a socket's rings are unmapped and its descriptor is closed.
#[derive(Debug, Default)]
pub(crate) struct CloseMark {
    /// 0 while the socket is open, then the monotonic time of its end.
    closed_at: AtomicU64,
}

impl CloseMark {
    /// The monotonic time at which the socket was closed, in nanoseconds; `None` while it is open.
    pub(super) fn closed_at(&self) -> Option<u64> {
        Some(self.closed_at.load(Ordering::Acquire)).filter(|&at| at != 0)
    }

    pub(crate) fn close(&self) {
        self.closed_at.store(sys::now().max(1), Ordering::Release);
    }
}

/// What the memory knows of a socket opened on it.
pub(crate) struct SocketEntry {
    pub(crate) ifindex: u32,
    pub(crate) queue: u32,
    pub(crate) zero_copy: bool,
    pub(crate) fd: Weak<OwnedFd>,
    pub(crate) close_mark: Arc<CloseMark>,
    pub(super) swept: bool,
}

impl SocketEntry {
    pub(crate) fn new(ifindex: u32, queue: u32, zero_copy: bool, fd: &Arc<OwnedFd>) -> SocketEntry {
        let (fd, close_mark) = (Arc::downgrade(fd), Arc::default());
        SocketEntry { ifindex, queue, zero_copy, fd, close_mark, swept: false }
    }
}
