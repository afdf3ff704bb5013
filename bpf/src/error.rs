//! What can go wrong, each with the remedy.

use std::io;
use std::path::PathBuf;

/// The gateway could not be loaded, taken over or unloaded. Nothing that was there has been changed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "another sag-vcpe is already running as pid {pid} (it holds {}): stop it first",
        lock.display()
    )]
    AlreadyRunning { pid: String, lock: PathBuf },
    #[error("{what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{} is not on a BPF file system: mount one (`mount -t bpf bpf /sys/fs/bpf`), or set \
         dataplane.pin_dir to a directory below one",
        path.display()
    )]
    NotBpffs { path: PathBuf },
    #[error(
        "{} holds the maps of layout version {found}, this program has {ours}: run `sag-vcpe unload` \
         (ends the established sessions) or start the version that made them",
        pin_dir.display()
    )]
    OtherVersion { pin_dir: PathBuf, found: String, ours: u32 },
    #[error(
        "{}/{map}: {what} is {found}, the configuration needs {wanted}: run `sag-vcpe unload` (ends \
         the established sessions), or go back to the earlier setting",
        pin_dir.display()
    )]
    OtherSize { pin_dir: PathBuf, map: String, what: &'static str, found: u64, wanted: u64 },
    #[error(
        "{} is no complete set of pins: {missing} is not there; run `sag-vcpe unload`",
        pin_dir.display()
    )]
    Incomplete { pin_dir: PathBuf, missing: String },
    #[error("{what}: {value} is out of range 1..={max}")]
    OutOfRange { what: &'static str, value: u64, max: u64 },
    #[error("the kernel refused the XDP program or its maps ({step}): {source}")]
    Kernel { step: &'static str, source: libbpf_rs::Error },
    #[error("{0}")]
    Map(#[from] MapError),
}

/// An operation on a loaded gateway failed.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    #[error("map {map}: {what}: {source}")]
    Map { map: &'static str, what: String, source: libbpf_rs::Error },
    #[error("map {map}: {what} is out of range 0..{limit}{remedy}")]
    Range { map: &'static str, what: String, limit: u64, remedy: &'static str },
    #[error(
        "devices {ifindex} and {held} (interface numbers) cannot both be ports: they share a slot of the \
         port table; make one of them anew (`ip link del`, `ip link add`) so that it gets another number"
    )]
    SlotTaken { ifindex: u32, held: u32 },
    #[error(
        "{ifname}: another XDP program is attached ({detail}): remove it (`ip link set dev {ifname} xdp off`, \
         or stop the program that put it there)"
    )]
    Busy { ifname: String, detail: String },
    #[error("{ifname}: cannot attach in {mode} mode: {source} ({hint})")]
    Attach { ifname: String, mode: &'static str, source: io::Error, hint: &'static str },
    #[error("{what} {path}: {source}", path = path.display())]
    Pin { what: &'static str, path: PathBuf, source: io::Error },
    #[error("test run: {source}")]
    TestRun { source: io::Error },
}
