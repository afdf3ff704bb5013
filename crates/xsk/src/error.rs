//! Errors of making the memory, opening a socket, and using a socket.

use crate::ifname::IfName;
use std::io;

/// The packet memory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum UmemError {
    /// Not between 64 and 1048576 chunks.
    #[error("{0} frames requested; an AF_XDP memory has between 64 and 1048576")]
    FrameCount(u32),
    /// The headroom leaves no room for a packet, or is no multiple of 8.
    #[error(
        "headroom of {headroom} bytes leaves no room for a packet in chunks of {chunk}; \
         it must be a multiple of 8 and at most half a chunk less 256"
    )]
    Headroom {
        /// Bytes requested.
        headroom: u16,
        /// Bytes of a chunk.
        chunk: u16,
    },
    /// Frames of the MTU do not fit into a chunk.
    #[error("frames of {need} bytes (MTU {mtu}) do not fit into one 4096-byte chunk; lower the MTU to {max}")]
    MtuTooBig {
        /// The MTU.
        mtu: u32,
        /// Bytes of its frames with link header.
        need: u32,
        /// The largest MTU that fits.
        max: u32,
    },
    /// The kernel does not give the memory.
    #[error("mapping {bytes} bytes of packet memory: {source}; lower the number of frames or add memory")]
    Map {
        /// Bytes requested.
        bytes: usize,
        /// The kernel's error.
        source: io::Error,
    },
}

/// A socket could not be opened on a device queue.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such device in this network namespace.
    #[error("no network device named {0:?} in this network namespace")]
    NoDevice(String),
    /// No device can have this name.
    #[error("device name {0:?} is empty or longer than 15 bytes")]
    BadName(String),
    /// Not a power of two from 64 to 32768.
    #[error("ring of {0} entries; ring sizes are powers of two from 64 to 32768")]
    RingSize(u32),
    /// Another socket is bound to the queue.
    #[error(
        "{device} queue {queue} already has an AF_XDP socket; stop the program that holds it \
         (another gateway on this port?) or give this port another queue"
    )]
    QueueBusy {
        /// The device.
        device: IfName,
        /// The queue.
        queue: u32,
    },
    /// The device has no such queue.
    #[error("{device} has no queue {queue}; `ethtool -l {device}` shows how many it has")]
    NoQueue {
        /// The device.
        device: IfName,
        /// The queue.
        queue: u32,
    },
    /// The device is administratively down.
    #[error("{device} is down; bring it up with `ip link set {device} up`")]
    DeviceDown {
        /// The device.
        device: IfName,
    },
    /// [`Mode::ZeroCopy`](crate::Mode::ZeroCopy) was demanded, and the driver cannot.
    #[error(
        "{device} queue {queue}: zero-copy was demanded and refused: {source}; allow copy mode for this port"
    )]
    ZeroCopyRefused {
        /// The device.
        device: IfName,
        /// The queue.
        queue: u32,
        /// The driver's error.
        source: io::Error,
    },
    /// A capability is missing.
    #[error(
        "AF_XDP needs CAP_NET_RAW (and memory-lock rights, CAP_IPC_LOCK or `ulimit -l`): {step}: {source}; \
         run as root or grant both capabilities"
    )]
    Permission {
        /// What was being done.
        step: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel is built without AF_XDP.
    #[error("this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS, Linux 5.15 or newer needed)")]
    NoAfXdp,
    /// Another error of the kernel.
    #[error("{device} queue {queue}: {step}: {source}")]
    Os {
        /// The device.
        device: IfName,
        /// The queue.
        queue: u32,
        /// What was being done.
        step: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

/// A socket that was open no longer works, or not at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The device was deleted or moved to another namespace. The socket will never work again:
    /// close it to get its frames back.
    #[error("{device} queue {queue}: the device is gone; its socket must be closed")]
    Gone {
        /// The device.
        device: IfName,
        /// The queue.
        queue: u32,
    },
    /// The device is administratively down; the socket works again once it is up.
    #[error("{device} is down; traffic resumes when it is brought up")]
    Down {
        /// The device.
        device: IfName,
    },
    /// Another error of the kernel.
    #[error("{device} queue {queue}: error {errno} from the kernel")]
    Os {
        /// The device.
        device: IfName,
        /// The queue.
        queue: u32,
        /// The error number.
        errno: i32,
    },
}
