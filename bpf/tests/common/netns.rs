//! A network namespace of the test's own, and raw frames.
// Entering a namespace and sending raw frames are system calls.
#![allow(unsafe_code)]

use super::skip;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A network namespace with a veth pair va-vb; this thread is inside while it lives.
pub struct Netns {
    name: String,
    home: std::fs::File,
}

pub fn ip(args: &[&str]) -> Result<(), String> {
    match Command::new("ip").args(args).output() {
        Ok(o) if o.status.success() => Ok(()),
        Ok(o) => Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&o.stderr).trim())),
        Err(e) => Err(format!("ip: {e}")),
    }
}

fn enter(ns: &std::fs::File) {
    // SAFETY: an open descriptor, no memory is passed; only this thread changes its namespace.
    let r = unsafe { libc::setns(ns.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(r, 0, "{}", std::io::Error::last_os_error());
}

impl Netns {
    pub fn new() -> Option<Netns> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("bpf-t-{}-{serial}", std::process::id());
        if let Err(e) = ip(&["netns", "add", &name]) {
            skip(&e);
            return None;
        }
        let home = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let ns = Netns { name, home };
        enter(&std::fs::File::open(format!("/run/netns/{}", ns.name)).unwrap());
        ip(&["link", "add", "va", "type", "veth", "peer", "name", "vb"]).unwrap();
        for dev in ["va", "vb", "lo"] {
            ip(&["link", "set", dev, "up"]).unwrap();
        }
        Some(ns)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        enter(&self.home);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

pub fn ifindex(dev: &str) -> u32 {
    let dev = std::ffi::CString::new(dev).unwrap();
    // SAFETY: a NUL-terminated string that lives through the call.
    unsafe { libc::if_nametoindex(dev.as_ptr()) }
}

/// Sends a frame out of a device.
pub fn send_raw(dev: &str, frame: &[u8]) {
    // SAFETY: plain system calls on values and buffers that live through them; the descriptor is
    // closed at the end.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        let mut to: libc::sockaddr_ll = std::mem::zeroed();
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = ifindex(dev) as i32;
        let len = size_of::<libc::sockaddr_ll>() as u32;
        let n = libc::sendto(fd, frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), len);
        assert_eq!(n, frame.len() as isize, "{}", std::io::Error::last_os_error());
        libc::close(fd);
    }
}

/// Hears every frame that arrives at a device, from now on.
pub struct Ear(OwnedFd);

impl Ear {
    pub fn new(dev: &str) -> Ear {
        // SAFETY: plain system calls on values that live through them; the descriptor is ours alone.
        unsafe {
            let all = (libc::ETH_P_ALL as u16).to_be();
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "{}", std::io::Error::last_os_error());
            let fd = OwnedFd::from_raw_fd(fd);
            let mut at: libc::sockaddr_ll = std::mem::zeroed();
            at.sll_family = libc::AF_PACKET as u16;
            at.sll_protocol = all;
            at.sll_ifindex = ifindex(dev) as i32;
            let len = size_of::<libc::sockaddr_ll>() as u32;
            let r = libc::bind(fd.as_raw_fd(), (&raw const at).cast(), len);
            assert_eq!(r, 0, "{}", std::io::Error::last_os_error());
            Ear(fd)
        }
    }

    /// The next frame that `wanted` says yes to; `None` after a second without one.
    pub fn hear(&self, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(1);
        let mut buffer = vec![0; 65536];
        while std::time::Instant::now() < end {
            // SAFETY: an open descriptor and a buffer of the length given.
            let n = unsafe {
                let fd = self.0.as_raw_fd();
                libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
            };
            match usize::try_from(n) {
                Ok(n) if wanted(&buffer[..n]) => return Some(buffer[..n].to_vec()),
                Ok(_) => {}
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        }
        None
    }
}

/// Lets a socket hear one device only.
pub fn bind_to_device(socket: &impl AsRawFd, dev: &str) {
    // SAFETY: an open descriptor and a name of the length given.
    let r = unsafe {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
        libc::setsockopt(socket.as_raw_fd(), level, name, dev.as_ptr().cast(), dev.len() as u32)
    };
    assert_eq!(r, 0, "{}", std::io::Error::last_os_error());
}
