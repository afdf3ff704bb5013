//! What can go wrong: making the memory, opening a socket, using a socket.

use crate::ifname::IfName;
use std::io;

/// The packet memory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum UmemError {
    #[error("{0} frames asked for; an AF_XDP memory has between 64 and 1048576")]
    FrameCount(u32),
    #[error(
        "headroom of {headroom} bytes leaves no room for a packet in chunks of {chunk}; \
         it must be a multiple of 8 and at most half a chunk less 256"
    )]
    Headroom { headroom: u16, chunk: u16 },
    #[error("frames of {need} bytes (MTU {mtu}) do not fit into one 4096-byte chunk; lower the MTU to {max}")]
    MtuTooBig { mtu: u32, need: u32, max: u32 },
    #[error("mapping {bytes} bytes of packet memory: {source}; lower the number of frames or add memory")]
    Map { bytes: usize, source: io::Error },
}

/// A socket could not be opened on a device queue.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no network device named {0:?} in this network namespace")]
    NoDevice(String),
    #[error("device name {0:?} is empty or longer than 15 bytes")]
    BadName(String),
    #[error("ring of {0} entries; ring sizes are powers of two from 64 to 32768")]
    RingSize(u32),
    #[error(
        "{device} queue {queue} already has an AF_XDP socket; stop the program that holds it \
         (another gateway on this port?) or give this port another queue"
    )]
    QueueBusy { device: IfName, queue: u32 },
    #[error("{device} has no queue {queue}; `ethtool -l {device}` shows how many it has")]
    NoQueue { device: IfName, queue: u32 },
    #[error("{device} is down; bring it up with `ip link set {device} up`")]
    DeviceDown { device: IfName },
    #[error(
        "{device} queue {queue}: zero-copy was demanded and refused: {source}; allow copy mode for this port"
    )]
    ZeroCopyRefused { device: IfName, queue: u32, source: io::Error },
    #[error(
        "AF_XDP needs CAP_NET_RAW (and memory-lock rights, CAP_IPC_LOCK or `ulimit -l`): {step}: {source}; \
         run as root or grant both capabilities"
    )]
    Permission { step: &'static str, source: io::Error },
    #[error("this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS, Linux 5.15 or newer needed)")]
    NoAfXdp,
    #[error("{device} queue {queue}: {step}: {source}")]
    Os { device: IfName, queue: u32, step: &'static str, source: io::Error },
}

/// A socket that was open no longer works, or not at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The device was deleted or moved to another namespace. The socket will never work again:
    /// close it to get its frames back.
    #[error("{device} queue {queue}: the device is gone; its socket must be closed")]
    Gone { device: IfName, queue: u32 },
    /// The device is administratively down; the socket works again once it is up.
    #[error("{device} is down; traffic resumes when it is brought up")]
    Down { device: IfName },
    #[error("{device} queue {queue}: error {errno} from the kernel")]
    Os { device: IfName, queue: u32, errno: i32 },
}
