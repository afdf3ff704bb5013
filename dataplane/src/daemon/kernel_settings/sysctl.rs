//! Settings of the kernel (`net.*`) below a directory, which is `/proc/sys/net` but in tests, and offloads of its devices.

use sag_xsk::{IfName, nic};
use std::io;
use std::path::{Path, PathBuf};

/// Where the settings are.
#[derive(Debug, Clone)]
pub struct Sysctl {
    dir: PathBuf,
    /// Offloads are files like the rest, for tests.
    imitated: bool,
}

/// A setting of one device, or of all of them (device `all`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `ipv4`, `ipv6`, or `ethtool` for an offload.
    pub family: &'static str,
    pub leaf: &'static str,
}

impl Key {
    pub const fn v4(leaf: &'static str) -> Key {
        Key { family: "ipv4", leaf }
    }

    pub const fn v6(leaf: &'static str) -> Key {
        Key { family: "ipv6", leaf }
    }

    /// An offload of a device, by the kernel's name.
    pub const fn offload(leaf: &'static str) -> Key {
        Key { family: "ethtool", leaf }
    }

    pub fn is_offload(self) -> bool {
        self.family == "ethtool"
    }

    /// As `sysctl` has it. Dots in the names of devices are slashes there.
    pub fn name(self, device: &str) -> String {
        if self.is_offload() {
            return format!("ethtool.{}.{}", device.replace('.', "/"), self.leaf);
        }
        format!("net.{}.conf.{}.{}", self.family, device.replace('.', "/"), self.leaf)
    }
}

impl Default for Sysctl {
    fn default() -> Sysctl {
        Sysctl { dir: "/proc/sys/net".into(), imitated: false }
    }
}

impl Sysctl {
    #[cfg(test)]
    pub fn at(dir: &Path) -> Sysctl {
        Sysctl { dir: dir.to_owned(), imitated: true }
    }

    fn path(&self, key: Key, device: &str) -> PathBuf {
        // Names of devices have no slash, and "." and ".." are none either.
        self.dir.join(key.family).join("conf").join(device).join(key.leaf)
    }

    /// `None`: the kernel does not have it, or it is no number.
    pub fn read(&self, key: Key, device: &str) -> Option<i32> {
        if key.is_offload() && !self.imitated {
            return nic::offload(IfName::new(device)?, key.leaf).map(i32::from);
        }
        read_number(&self.path(key, device))
    }

    /// `net.mpls.conf.DEVICE.input`.
    pub fn mpls_input(&self, device: &str) -> bool {
        read_number(&self.dir.join("mpls/conf").join(device).join("input")) == Some(1)
    }

    pub fn write(&self, key: Key, device: &str, value: i32) -> io::Result<()> {
        if key.is_offload() && !self.imitated {
            let name = IfName::new(device).ok_or(io::ErrorKind::InvalidInput)?;
            return nic::set_offload(name, key.leaf, value != 0);
        }
        // Not created: a setting that is not there is none.
        use std::io::Write;
        let path = self.path(key, device);
        std::fs::OpenOptions::new().write(true).open(path)?.write_all(format!("{value}\n").as_bytes())
    }

    /// The devices that have settings of IPv4.
    pub fn devices(&self) -> Vec<String> {
        let Ok(dir) = std::fs::read_dir(self.dir.join("ipv4/conf")) else { return Vec::new() };
        let names = dir.filter_map(|e| e.ok()?.file_name().into_string().ok());
        let mut names: Vec<_> = names.filter(|n| !matches!(n.as_str(), "all" | "default" | "lo")).collect();
        names.sort();
        names
    }
}

fn read_number(path: &Path) -> Option<i32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
