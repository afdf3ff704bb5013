//! What the load generators share: a core of their own, programs and devices.

use anyhow::{Context, Result, bail};
use libbpf_rs::{Object, libbpf_sys};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

pub fn program<'o>(lab: &'o Object, name: &str) -> Result<BorrowedFd<'o>> {
    let p = lab.progs().find(|p| p.name() == name).with_context(|| name.to_owned())?;
    // SAFETY: the program lives as long as the object, which the caller keeps.
    Ok(unsafe { BorrowedFd::borrow_raw(p.as_fd().as_raw_fd()) })
}

/// A program on a device, until this is dropped.
pub struct Link(i32);

impl Drop for Link {
    fn drop(&mut self) {
        // SAFETY: our own descriptor, closed once.
        unsafe { libc::close(self.0) };
    }
}

pub fn attach(prog: BorrowedFd<'_>, dev: &str, kind: libbpf_sys::bpf_attach_type) -> Result<Link> {
    let opts = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
        flags: if kind == libbpf_sys::BPF_XDP { libbpf_sys::XDP_FLAGS_DRV_MODE } else { 0 },
        ..Default::default()
    };
    let ifindex = ifindex(dev)? as i32;
    // SAFETY: `opts` says its size and lives through the call.
    let fd = unsafe { libbpf_sys::bpf_link_create(prog.as_raw_fd(), ifindex, kind, &opts) };
    if fd < 0 {
        bail!("attach to {dev}: {}", std::io::Error::from_raw_os_error(-fd));
    }
    Ok(Link(fd))
}

pub fn ifindex(dev: &str) -> Result<u32> {
    let name = std::ffi::CString::new(dev)?;
    // SAFETY: a NUL-terminated string that lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => bail!("no device {dev}"),
        n => Ok(n),
    }
}

/// One core, before what else runs there.
pub fn keep_to_core(core: usize) -> Result<()> {
    // SAFETY: plain structures that live through the calls; they concern this thread only.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        if libc::sched_setaffinity(0, size_of_val(&set), &set) != 0 {
            bail!("cannot stay on core {core}: {}", std::io::Error::last_os_error());
        }
        let p = libc::sched_param { sched_priority: 10 };
        if libc::sched_setscheduler(0, libc::SCHED_FIFO, &p) != 0 {
            bail!("cannot take precedence: {}", std::io::Error::last_os_error());
        }
    }
    Ok(())
}
