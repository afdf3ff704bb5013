//! Devices in network namespaces.

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, fstat, open, stat};
use rustix::thread::{CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_setaffinity};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::str::FromStr;

/// `NAMESPACE:DEVICE`, or `DEVICE` in the namespace of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub namespace: Option<String>,
    pub device: String,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(s: &str) -> Result<Place, String> {
        let (namespace, device) = s.split_once(':').map_or((None, s), |(n, d)| (Some(n), d));
        let ok = |s: &str| !s.is_empty() && !s.contains(['/', ':']) && s != "." && s != "..";
        if !ok(device) || device.len() > 15 || !namespace.is_none_or(ok) {
            return Err(format!("'{s}' is no device: NAMESPACE:DEVICE, or DEVICE with --dev"));
        }
        Ok(Place { namespace: namespace.map(str::to_owned), device: device.to_owned() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(n) => write!(f, "{n}:{}", self.device),
            None => f.write_str(&self.device),
        }
    }
}

/// The namespace that the calling thread is in; dropping this goes back there.
#[derive(Debug)]
pub struct Home(OwnedFd);

impl Home {
    pub fn new() -> Result<Home> {
        Ok(Home(file("/proc/thread-self/ns/net")?))
    }

    /// Enters the place's namespace; gives the device's number. Refuses devices of the namespace that
    /// the process was started in, which is the machine's most of the time, unless `host`.
    pub fn enter(&self, place: &Place, host: bool) -> Result<u32> {
        match &place.namespace {
            Some(n) => {
                let ns = file(&format!("/run/netns/{n}"))
                    .with_context(|| format!("no network namespace {n} (ip netns add {n})"))?;
                go(&ns)?;
            }
            None => go(&self.0)?,
        }
        if !host && same(&self.0)? {
            bail!(
                "{place} is a device of this network namespace: give --dev if its network is to get the \
                 traffic, or NAMESPACE:DEVICE"
            );
        }
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
        rustix::net::netdevice::name_to_index(socket.as_fd(), &place.device)
            .with_context(|| format!("no device {place}"))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Where that cannot be, there is nothing to be done about it.
        let _ = go(&self.0);
    }
}

fn file(path: &str) -> Result<OwnedFd> {
    open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).with_context(|| path.to_owned())
}

fn go(ns: &OwnedFd) -> Result<()> {
    move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot enter the network namespace (needs root)")
}

/// Whether this thread is where the process was started.
fn same(home: &OwnedFd) -> Result<bool> {
    let (there, here) = (fstat(home)?, stat("/proc/thread-self/ns/net")?);
    Ok((there.st_dev, there.st_ino) == (here.st_dev, here.st_ino))
}

/// The calling thread stays on one core.
pub fn keep_to_core(core: usize) -> Result<()> {
    if core >= CpuSet::MAX_CPU {
        bail!("no core {core}");
    }
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot stay on core {core}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let p: Place = "lab-lan:eth0".parse().unwrap();
        assert_eq!((p.namespace.as_deref(), p.device.as_str()), (Some("lab-lan"), "eth0"));
        assert_eq!("eth0".parse::<Place>().unwrap().namespace, None);
        assert_eq!(p.to_string(), "lab-lan:eth0");
        for bad in ["", ":", "a:", ":b", "a:b:c", "../x:eth0", "a/b", "sixteencharacters"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }
}
