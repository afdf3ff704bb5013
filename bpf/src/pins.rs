//! The pin directory: names, a private place to build a new set in, and its removal.

use crate::error::LoadError;
use crate::lock::Lock;
use crate::sys;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(crate) const PROGRAM: &str = "gw_ingress";
const LINK_PREFIX: &str = "link-";
const TC_PREFIX: &str = "tc-";
/// Where the system mounts the BPF file system.
const SYS_BPF: &str = "/sys/fs/bpf";

/// Which file is at a path; another one that is put there is another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(crate) fn of(path: &Path) -> Option<FileId> {
        let m = fs::symlink_metadata(path).ok()?;
        Some(FileId { device: m.dev(), inode: m.ino() })
    }
}

/// The name of the pin of a device's link. The BPF file system reserves dots for itself and `/` is not a file name, so
/// everything that is not plainly harmless is written as `%XX`.
pub(crate) fn link_name(ifname: &str) -> String {
    format!("{LINK_PREFIX}{}", escape(ifname))
}

/// The name of the pin of a device's link to a tc program.
pub(crate) fn tc_name(ifname: &str) -> String {
    format!("{TC_PREFIX}{}", escape(ifname))
}

/// Whether a pin is of a link, to an XDP or a tc program.
fn is_link(name: &str) -> bool {
    name.starts_with(LINK_PREFIX) || name.starts_with(TC_PREFIX)
}

pub(crate) fn pin(at: &Path, object: BorrowedFd<'_>) -> Result<(), LoadError> {
    let failed = |source| LoadError::Io { what: "cannot pin at", path: at.to_owned(), source };
    sys::obj_pin(object, at).map_err(failed)
}

/// Paths below the pin directory.
#[derive(Debug, Clone)]
pub(crate) struct PinDir {
    dir: PathBuf,
}

impl PinDir {
    pub(crate) fn new(dir: &Path) -> PinDir {
        PinDir { dir: dir.to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The pin of a device's link.
    pub(crate) fn link(&self, ifname: &str) -> PathBuf {
        self.dir.join(link_name(ifname))
    }

    /// Pins an object under a name, in place of whatever has the name.
    pub(crate) fn put(&self, name: &str, object: BorrowedFd<'_>) -> Result<(), LoadError> {
        let (new, path) = (self.dir.join("new-pin"), self.dir.join(name));
        let _ = fs::remove_file(&new);
        pin(&new, object)?;
        let put = fs::rename(&new, &path);
        put.map_err(|source| LoadError::Io { what: "cannot replace the pin", path, source })
    }

    /// Names of devices with a pinned link.
    pub(crate) fn links(&self) -> Result<Vec<String>, LoadError> {
        let mut names: Vec<String> =
            self.entries()?.iter().filter_map(|n| n.strip_prefix(LINK_PREFIX)).filter_map(unescape).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Everything in the directory; empty if there is none.
    pub(crate) fn entries(&self) -> Result<Vec<String>, LoadError> {
        let io = |source| LoadError::Io { what: "cannot read", path: self.dir.clone(), source };
        let list = match fs::read_dir(&self.dir) {
            Ok(l) => l,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(io(e)),
        };
        list.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()).map_err(io)).collect()
    }

    /// Makes sure that pins can be made here, mounting the system's BPF file system if it is merely
    /// not mounted yet.
    pub(crate) fn prepare(&self) -> Result<(), LoadError> {
        if !on_bpffs(&self.dir)? {
            let below_sys = self.dir.starts_with(SYS_BPF);
            if below_sys && !sys::is_bpffs(Path::new(SYS_BPF)).unwrap_or(false) {
                sys::mount_bpffs(Path::new(SYS_BPF)).map_err(|source| LoadError::Io {
                    what: "cannot mount the BPF file system at",
                    path: SYS_BPF.into(),
                    source,
                })?;
            }
            if !on_bpffs(&self.dir)? {
                return Err(LoadError::NotBpffs { path: self.dir.clone() });
            }
        }
        Ok(())
    }

    /// An empty directory beside ours to fill before it takes our name. Only the holder of the lock
    /// calls this, so what a dead predecessor left there is garbage.
    pub(crate) fn staging(&self) -> Result<PinDir, LoadError> {
        let staging = self.beside();
        staging.remove()?;
        let io = |source| LoadError::Io { what: "cannot create", path: staging.dir.clone(), source };
        fs::create_dir_all(&staging.dir).map_err(io)?;
        Ok(staging)
    }

    /// Puts a filled staging directory in place.
    pub(crate) fn adopt(&self, staging: PinDir) -> Result<(), LoadError> {
        fs::rename(&staging.dir, &self.dir).map_err(|source| LoadError::Io {
            what: "cannot put the new pins in place at",
            path: self.dir.clone(),
            source,
        })
    }

    /// Removes every pin and the directory; true if there was something.
    pub(crate) fn remove(&self) -> Result<bool, LoadError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| LoadError::Io { what: "cannot remove", path, source }
        };
        let mut names = self.entries()?;
        // Links first: no packet should meet a program whose maps are on their way out.
        names.sort_by_key(|n| !is_link(n));
        for name in &names {
            let path = self.dir.join(name);
            if is_link(name)
                && let Ok(link) = sys::obj_get(&path)
            {
                // Fails only if the device is gone, and then there is nothing to detach.
                let _ = sys::link_detach(link.as_fd());
            }
            fs::remove_file(&path).map_err(io(&path))?;
        }
        match fs::remove_dir(&self.dir) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(io(&self.dir)(e)),
        }
    }

    fn beside(&self) -> PinDir {
        let mut name = self.dir.file_name().unwrap_or_default().to_os_string();
        name.push("-new");
        PinDir { dir: self.dir.with_file_name(name) }
    }
}

/// Whether `path`, or the closest directory above it that exists, is on a BPF file system.
pub(crate) fn on_bpffs(path: &Path) -> Result<bool, LoadError> {
    for p in path.ancestors() {
        match sys::is_bpffs(p) {
            Ok(yes) => return Ok(yes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(LoadError::Io { what: "cannot inspect", path: p.to_owned(), source }),
        }
    }
    Ok(false)
}

/// Takes the gateway out of the kernel: links, program, maps and the directory. Needs neither a
/// matching version nor a loadable program. False if there was nothing.
///
/// # Errors
/// [`LoadError::AlreadyRunning`] while a gateway is open; [`LoadError::NotBpffs`]; [`LoadError::Io`] if a pin cannot be
/// removed.
pub fn unload(pin_dir: &Path, lock_file: &Path) -> Result<bool, LoadError> {
    let _lock = Lock::take(lock_file)?;
    let pins = PinDir::new(pin_dir);
    if pins.entries()?.is_empty() && !pin_dir.exists() {
        return Ok(false);
    }
    if !on_bpffs(pin_dir)? {
        return Err(LoadError::NotBpffs { path: pin_dir.to_owned() });
    }
    let found = pins.remove()?;
    Ok(pins.beside().remove()? || found)
}

fn escape(ifname: &str) -> String {
    ifname
        .bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

fn unescape(name: &str) -> Option<String> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        if b == b'%' {
            let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok())?;
            out.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &tail[2..];
        } else {
            out.push(b);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_device_names_make_safe_pins() {
        for (name, pin) in [
            ("eth0", "eth0"),
            ("eth0.100", "eth0%2E100"),
            ("a/b", "a%2Fb"),
            ("..", "%2E%2E"),
            ("é", "%C3%A9"),
        ] {
            assert_eq!(escape(name), pin);
            assert_eq!(unescape(pin).as_deref(), Some(name));
        }
        assert_eq!(unescape("%4"), None);
        assert_eq!(unescape("%zz"), None);
    }
}
