//! The few system calls that a worker thread needs beside its sockets: clock, pinning, grace
//! periods, waiting.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Nanoseconds of the monotonic clock, the one that BPF programs read.
#[inline]
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec; this clock exists on every kernel.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    // The clock starts at boot and is never negative.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds between two steps of the coarse monotonic clock.
pub fn coarse_resolution() -> u64 {
    let mut step = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec; this clock exists on every kernel.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut step) };
    step.tv_sec as u64 * 1_000_000_000 + step.tv_nsec as u64
}

/// Pins the calling thread to one CPU.
///
/// # Errors
/// `EINVAL` if there is no such CPU or the thread may not run on it.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: a CPU set is plain bits, for which zero is a value; `cpu` is below its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        set
    };
    // SAFETY: passes a set of the size stated; 0 means the calling thread.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) })
}

/// The CPUs that the calling thread may run on, in ascending order.
///
/// # Errors
/// The error of `sched_getaffinity`.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: as in `pin_to_cpu`, the kernel fills in the set.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        check(libc::sched_getaffinity(0, size_of_val(&set), &raw mut set))?;
        set
    };
    // SAFETY: every index is below the size of the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

/// Waits until every RCU read-side section that had begun when it was called has ended. XDP programs
/// run in such sections: after the call none of them uses what was removed before it.
///
/// # Errors
/// `ENOSYS` on a kernel without `membarrier`.
pub fn rcu_barrier() -> io::Result<()> {
    const GLOBAL: libc::c_int = 1;
    // SAFETY: takes integers only.
    match unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A descriptor to wait for, and the events to wait for.
pub type PollFd = libc::pollfd;

/// An entry for [`poll`] that waits for `fd` to become readable.
pub fn readable(fd: BorrowedFd<'_>) -> PollFd {
    PollFd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }
}

/// Waits until one of `fds` is ready or `timeout_ms` have passed (negative: forever). Returns how
/// many are ready; an interrupting signal counts as none.
///
/// # Errors
/// The error of `poll`.
pub fn poll(fds: &mut [PollFd], timeout_ms: i32) -> io::Result<usize> {
    // SAFETY: the kernel writes `revents` of the entries of this slice only.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
    if ready >= 0 {
        return Ok(ready as usize);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        error => Err(error),
    }
}

/// The supplementary groups that the process at the other end of a Unix socket had when it connected.
///
/// # Errors
/// The error of `getsockopt`; one of Linux before 4.13 among them.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<libc::gid_t>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut len = (groups.len() * size_of::<libc::gid_t>()) as libc::socklen_t;
        // SAFETY: `groups` is writable and `len` is its size in bytes; a group is a plain integer.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let needed = len as usize / size_of::<libc::gid_t>();
        match check(result) {
            Ok(()) => {
                groups.truncate(needed);
                return Ok(groups);
            }
            // The kernel says how much it takes; a process is in 65,536 groups at most.
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) && needed > groups.len() => {
                groups.resize(needed, 0)
            }
            Err(e) => return Err(e),
        }
    }
}

/// Has a socket receive only what arrives by a device, and send by it.
///
/// # Errors
/// `ENODEV` if there is none of that name; `EPERM` without `CAP_NET_RAW` before Linux 5.7.
pub fn bind_to_device(socket: BorrowedFd<'_>, device: &str) -> io::Result<()> {
    // SAFETY: the kernel reads that many bytes of the name; it takes one that is not terminated.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            device.as_ptr().cast(),
            device.len() as libc::socklen_t,
        )
    })
}

pub(crate) fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_clock_goes_forward() {
        let before = now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!((2_000_000..2_000_000_000).contains(&(now() - before)));
    }

    #[test]
    fn pinning_takes_effect() {
        std::thread::spawn(|| {
            let cpu = allowed_cpus().unwrap()[0];
            pin_to_cpu(cpu).unwrap();
            assert_eq!(allowed_cpus().unwrap(), [cpu]);
            assert!(pin_to_cpu(1 << 20).is_err());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_socket_is_bound_to_a_device() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        bind_to_device(socket.as_fd(), "lo").unwrap();
        let to = socket.local_addr().unwrap();
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", to).unwrap();
        assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 1);
        let none = bind_to_device(socket.as_fd(), "no-such-device");
        assert_eq!(none.unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn a_grace_period_passes() {
        rcu_barrier().unwrap();
    }

    #[test]
    fn poll_sees_input_and_timeouts() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut fds = [readable(reader.as_fd())];
        assert_eq!(poll(&mut fds, 0).unwrap(), 0);
        io::Write::write_all(&mut writer, b"x").unwrap();
        assert_eq!(poll(&mut fds, 1000).unwrap(), 1);
    }
}
