//! TUN devices: network devices of the kernel whose packets a program reads and writes.

use crate::ifname::IfName;
use crate::nic::request_for;
use crate::sys::check;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// Opens the TUN device of a name, and makes it if there is none. Each read returns a whole IP packet with its
/// checksums, each write takes one; neither waits.
///
/// # Errors
/// The error of `open` or `ioctl`: no `/dev/net/tun`, no `CAP_NET_ADMIN`, `EINVAL` for a device of another kind,
/// `EBUSY` for one that another program has open.
pub fn open(name: IfName) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut request = request_for(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request reads and writes an ifreq, which lives until the call returns.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(file)
}

/// The name of the device whose packets the file has.
///
/// # Errors
/// The error of `ioctl`: `EBADFD` where the device has been deleted, `ENOTTY` for what is no TUN device.
pub fn name(device: &File) -> io::Result<IfName> {
    // SAFETY: an ifreq is plain data, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes an ifreq, which lives until the call returns.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    let bytes: Vec<u8> =
        request.ifr_name.iter().map(|c| c.cast_unsigned()).take_while(|byte| *byte != 0).collect();
    let name = std::str::from_utf8(&bytes).ok().and_then(IfName::new);
    name.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Has a device stay when it is closed, without carrier, until it is deleted as a link.
///
/// # Errors
/// The error of `ioctl`: `EBADFD` for a device that has been deleted.
pub fn persist(device: &File) -> io::Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETPERSIST, 1) })
}
