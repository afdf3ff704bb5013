//! Opening a socket: registration of the memory, rings, binding.
//!
//! The kernel lets the sockets of one memory registration be either all zero-copy or all copying. A
//! worker may serve ports of both kinds, so the same memory is registered at most twice, once for
//! each kind; further sockets of a kind share its registration (`XDP_SHARED_UMEM`) through whichever
//! of its sockets is open and bound at the time. Where sharing fails because that socket's device
//! has just vanished, the memory is registered again: registrations are independent of each other,
//! and the ledger knows only chunks and sockets.

use super::{MarkOnDrop, Mode, Socket, SocketConfig};
use crate::binding::Binding;
use crate::error::OpenError;
use crate::ifname::IfName;
use crate::nic;
use crate::ring::{Consumer, Layout, Producer};
use crate::sys::check;
use crate::umem::{Owner, SocketEntry, Umem};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Packets that the kernel sends per system call in copy mode by default.
const DEFAULT_TX_BUDGET: u32 = 32;
/// Socket option to raise that (Linux 6.17), not yet in libc.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// Bytes of packets that copy mode may have on their way out of the device.
const SEND_BUFFER: libc::c_int = 16 << 20;

/// MarkOnDrop a socket frees its queue a moment after the descriptor is gone.
const BUSY_RETRIES: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

struct Target<'a> {
    config: &'a SocketConfig,
    device: IfName,
    ifindex: u32,
}

/// A socket with its rings, bound.
struct Bound {
    fd: OwnedFd,
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    tx_budget: u32,
}

/// The step of opening that failed, and how.
struct Failure {
    step: &'static str,
    source: io::Error,
}

impl Failure {
    fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure { step, source }
}

pub(super) fn open(umem: &mut Umem, config: &SocketConfig) -> Result<Socket, OpenError> {
    for size in [config.rx_ring, config.tx_ring, config.fill_ring] {
        if !size.is_power_of_two() || !(64..=32768).contains(&size) {
            return Err(OpenError::RingSize(size));
        }
    }
    let device = IfName::new(&config.device).ok_or_else(|| OpenError::BadName(config.device.clone()))?;
    let ifindex = nic::ifindex(device).ok_or_else(|| OpenError::NoDevice(config.device.clone()))?;
    let target = Target { config, device, ifindex };
    let queue = config.queue;
    umem.reclaim(crate::sys::now());
    let ours = |s: &&SocketEntry| s.ifindex == ifindex && s.queue == queue && s.fd.strong_count() > 0;
    if umem.sockets().find(ours).is_some() || umem.socket_count() >= Owner::MAX_SOCKETS {
        return Err(OpenError::QueueBusy { device, queue });
    }

    let (bound, binding) = bind_by_mode(umem, &target)?;
    let fd = Arc::new(bound.fd);
    let entry = SocketEntry::new(ifindex, queue, binding.is_zero_copy(), &fd);
    let close_mark = MarkOnDrop(Arc::clone(&entry.close_mark));
    let number = umem.add_socket(entry);
    Ok(Socket {
        rx: bound.rx,
        tx: bound.tx,
        fill: bound.fill,
        completion: bound.completion,
        fd,
        _close_mark: close_mark,
        umem: umem.id(),
        receiving: Owner::receiving(number),
        sending: Owner::sending(number),
        device,
        ifindex,
        queue,
        binding,
        busy_poll: config.busy_poll.is_some(),
        tx_budget: bound.tx_budget,
        fill_level: config.fill_level.min(config.fill_ring),
        rx_posted: 0,
        in_flight: 0,
    })
}

fn bind_by_mode(umem: &Umem, target: &Target<'_>) -> Result<(Bound, Binding), OpenError> {
    let refused = match target.config.mode {
        Mode::Copy => None,
        Mode::Auto | Mode::ZeroCopy => match bind(umem, target, true) {
            Ok(bound) => return Ok((bound, Binding::ZeroCopy)),
            Err(failure) if !is_refusal(failure.errno()) => return Err(target.explain(failure)),
            Err(Failure { source, .. }) if target.config.mode == Mode::ZeroCopy => {
                let (device, queue) = (target.device, target.config.queue);
                return Err(OpenError::ZeroCopyRefused { device, queue, source });
            }
            Err(failure) => Some(failure.errno()),
        },
    };
    match bind(umem, target, false) {
        Ok(bound) => Ok((bound, Binding::Copy { refused })),
        Err(failure) => Err(target.explain(failure)),
    }
}

/// Errors that concern zero-copy, not the queue or our rights.
fn is_refusal(errno: i32) -> bool {
    !matches!(
        errno,
        libc::EBUSY | libc::EPERM | libc::EACCES | libc::ENODEV | libc::ENETDOWN | libc::EAFNOSUPPORT
    )
}

/// Binds a new socket, sharing the memory's registration with an open socket of the same kind if
/// there is one. Every attempt takes a fresh socket: a failed one cannot be bound again.
fn bind(umem: &Umem, target: &Target<'_>, zero_copy: bool) -> Result<Bound, Failure> {
    let same_kind = umem.sockets().filter(|s| s.zero_copy == zero_copy);
    for partner in same_kind.filter_map(|s| s.fd.upgrade()) {
        match bind_retrying(umem, target, zero_copy, Some(partner.as_fd())) {
            // The partner is not bound any more: its device vanished and it awaits being closed.
            Err(failure) if failure.errno() == libc::EBADF => {}
            other => return other,
        }
    }
    bind_retrying(umem, target, zero_copy, None)
}

fn bind_retrying(
    umem: &Umem,
    target: &Target<'_>,
    zero_copy: bool,
    partner: Option<BorrowedFd<'_>>,
) -> Result<Bound, Failure> {
    let mut tries = 0;
    loop {
        match bind_once(umem, target, zero_copy, partner) {
            Err(failure) if failure.errno() == libc::EBUSY && tries < BUSY_RETRIES => {
                tries += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            other => return other,
        }
    }
}

fn bind_once(
    umem: &Umem,
    target: &Target<'_>,
    zero_copy: bool,
    partner: Option<BorrowedFd<'_>>,
) -> Result<Bound, Failure> {
    let config = target.config;
    // SAFETY: takes integers only; a descriptor it returns is new and belongs to nobody else.
    let fd = unsafe {
        let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        check(fd).map_err(step("socket"))?;
        OwnedFd::from_raw_fd(fd)
    };
    let at = fd.as_fd();
    if partner.is_none() {
        set_option(at, libc::SOL_XDP, libc::XDP_UMEM_REG, &umem.registration())
            .map_err(step("registering the packet memory"))?;
    }
    for (option, entries) in [
        (libc::XDP_UMEM_FILL_RING, config.fill_ring),
        (libc::XDP_UMEM_COMPLETION_RING, config.tx_ring),
        (libc::XDP_RX_RING, config.rx_ring),
        (libc::XDP_TX_RING, config.tx_ring),
    ] {
        set_option(at, libc::SOL_XDP, option, &entries).map_err(step("making the rings"))?;
    }
    // SAFETY: plain integers; kernels since 5.4 fill in all of it.
    let offsets: libc::xdp_mmap_offsets =
        unsafe { get_option(at, libc::XDP_MMAP_OFFSETS) }.map_err(step("reading the ring layout"))?;
    let layout = |offsets, page_offset, entries| Layout { offsets, page_offset, entries };
    let map = step("mapping the rings");
    let rings = || -> io::Result<_> {
        let fill_page = libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t;
        let completion_page = libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t;
        Ok((
            Consumer::new(at, &layout(offsets.rx, libc::XDP_PGOFF_RX_RING, config.rx_ring))?,
            Producer::new(at, &layout(offsets.tx, libc::XDP_PGOFF_TX_RING, config.tx_ring))?,
            Producer::new(at, &layout(offsets.fr, fill_page, config.fill_ring))?,
            Consumer::new(at, &layout(offsets.cr, completion_page, config.tx_ring))?,
        ))
    };
    let (rx, tx, fill, completion) = rings().map_err(map)?;
    let tx_budget = tune(at, config)?;

    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: match (partner, zero_copy) {
            // A sharing socket inherits the rest from its partner and may not name it.
            (Some(_), _) => libc::XDP_SHARED_UMEM,
            (None, true) => libc::XDP_ZEROCOPY | libc::XDP_USE_NEED_WAKEUP,
            (None, false) => libc::XDP_COPY | libc::XDP_USE_NEED_WAKEUP,
        },
        sxdp_ifindex: target.ifindex,
        sxdp_queue_id: config.queue,
        sxdp_shared_umem_fd: partner.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    // SAFETY: passes an address of the size stated.
    let result = unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
    };
    check(result).map_err(step("binding"))?;
    Ok(Bound { fd, rx, tx, fill, completion, tx_budget })
}

/// Options that make the socket faster. Returns how many packets go out per system call.
fn tune(fd: BorrowedFd<'_>, config: &SocketConfig) -> Result<u32, Failure> {
    // Copy mode charges every packet in flight to the socket. Without the right to exceed the
    // system's limit, take what it allows.
    if set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER).is_err() {
        let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &SEND_BUFFER);
    }
    if let Some(busy) = config.busy_poll {
        for (option, value) in [
            (libc::SO_PREFER_BUSY_POLL, 1),
            (libc::SO_BUSY_POLL, libc::c_int::from(busy.microseconds)),
            (libc::SO_BUSY_POLL_BUDGET, libc::c_int::from(busy.budget)),
        ] {
            set_option(fd, libc::SOL_SOCKET, option, &value).map_err(step("turning on busy polling"))?;
        }
    }
    match set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &config.tx_ring) {
        Ok(()) => Ok(config.tx_ring),
        Err(_) => Ok(DEFAULT_TX_BUDGET),
    }
}

impl Target<'_> {
    fn explain(&self, failure: Failure) -> OpenError {
        let (device, queue) = (self.device, self.config.queue);
        let Failure { step, source } = failure;
        match source.raw_os_error() {
            Some(libc::EAFNOSUPPORT) => OpenError::NoAfXdp,
            Some(libc::EPERM | libc::EACCES) => OpenError::Permission { step, source },
            // Memory beyond the lock limit is reported as this.
            Some(libc::ENOBUFS) if step != "binding" => OpenError::Permission { step, source },
            Some(libc::EBUSY) => OpenError::QueueBusy { device, queue },
            Some(libc::ENETDOWN) => OpenError::DeviceDown { device },
            Some(libc::ENODEV) => OpenError::NoDevice(self.config.device.clone()),
            Some(libc::EINVAL) if step == "binding" && queue >= nic::queue_count(device) => {
                OpenError::NoQueue { device, queue }
            }
            _ => OpenError::Os { device, queue, step, source },
        }
    }
}

fn set_option<T: Copy>(fd: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `size` bytes of `value` at most; all callers pass plain integers or
    // structs of them without padding.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const *value).cast(), size) })
}

/// # Safety
/// `T` must be plain data for which all-zero and whatever the kernel writes are values.
pub(super) unsafe fn get_option<T: Copy>(fd: BorrowedFd<'_>, option: i32) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes into `value`.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, value.as_mut_ptr().cast(), &raw mut size)
    })?;
    // SAFETY: zeroed, then written by the kernel; the caller vouches for `T`.
    Ok(unsafe { value.assume_init() })
}
