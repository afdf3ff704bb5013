//! What can go wrong, each with the remedy.

use std::io;
use std::path::PathBuf;

/// The gateway could not be loaded, taken over or unloaded. Nothing that was there has been changed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Another process holds the lock.
    #[error(
        "another sag-vcpe is already running as pid {pid} (it holds {}): stop it first",
        lock.display()
    )]
    AlreadyRunning {
        /// Process number of the holder, as its lock file has it.
        pid: String,
        /// The lock file.
        lock: PathBuf,
    },
    /// A file operation failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What failed.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The pin directory is on no BPF file system.
    #[error(
        "{} is not on a BPF file system: mount one (`mount -t bpf bpf /sys/fs/bpf`), or set \
         dataplane.pin_dir to a directory below one",
        path.display()
    )]
    NotBpffs {
        /// The file or directory.
        path: PathBuf,
    },
    /// The pinned maps are of another layout.
    #[error(
        "{} holds the maps of layout version {found}, this program has {ours}: run `sag-vcpe unload` \
         (ends the established sessions) or start the version that made them",
        pin_dir.display()
    )]
    OtherVersion {
        /// The directory of the pins.
        pin_dir: PathBuf,
        /// What is there.
        found: String,
        /// What this program has.
        ours: u32,
    },
    /// A pinned map is not as the configuration wants it.
    #[error(
        "{}/{map}: {what} is {found}, the configuration needs {wanted}: run `sag-vcpe unload` (ends \
         the established sessions), or go back to the earlier setting",
        pin_dir.display()
    )]
    OtherSize {
        /// The directory of the pins.
        pin_dir: PathBuf,
        /// Name of the map.
        map: String,
        /// What differs.
        what: &'static str,
        /// What is there.
        found: u64,
        /// What the configuration needs.
        wanted: u64,
    },
    /// A pin is missing.
    #[error(
        "{} is no complete set of pins: {missing} is not there; run `sag-vcpe unload`",
        pin_dir.display()
    )]
    Incomplete {
        /// The directory of the pins.
        pin_dir: PathBuf,
        /// Name of the pin.
        missing: String,
    },
    /// An option is out of range.
    #[error("{what}: {value} is out of range 1..={max}")]
    OutOfRange {
        /// What was given.
        what: &'static str,
        /// What was given.
        value: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// The kernel refused the program or its maps.
    #[error("the kernel refused the XDP program or its maps ({step}): {source}")]
    Kernel {
        /// What was being done.
        step: &'static str,
        /// What the kernel says.
        source: libbpf_rs::Error,
    },
    /// An operation on the loaded gateway failed.
    #[error("{0}")]
    Map(#[from] MapError),
}

/// An operation on a loaded gateway failed.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The kernel refused an operation on a map.
    #[error("map {map}: {what}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What failed, and for which entry.
        what: String,
        /// What the kernel says.
        source: libbpf_rs::Error,
    },
    /// A number is out of range.
    #[error("map {map}: {what} is out of range 0..{limit}{remedy}")]
    Range {
        /// Name of the map.
        map: &'static str,
        /// What was given.
        what: String,
        /// The first number that is not allowed.
        limit: u64,
        /// What to do about it; may be empty.
        remedy: &'static str,
    },
    /// Two devices have the same place in the table of ports.
    #[error(
        "devices {ifindex} and {held} (interface numbers) cannot both be ports: they share a slot of the \
         port table; create one of them again (`ip link del`, `ip link add`) so that it gets another number"
    )]
    SlotTaken {
        /// Interface number.
        ifindex: u32,
        /// Interface number of the device that has the place.
        held: u32,
    },
    /// Another XDP program is attached.
    #[error(
        "{ifname}: another XDP program is attached ({detail}): remove it (`ip link set dev {ifname} xdp off`, \
         or stop the program that put it there)"
    )]
    Busy {
        /// Name of the device.
        ifname: String,
        /// What is known of the other program.
        detail: String,
    },
    /// The device takes no program in this mode.
    #[error("{ifname}: cannot attach in {mode} mode: {source} ({hint})")]
    Attach {
        /// Name of the device.
        ifname: String,
        /// Name of the mode.
        mode: &'static str,
        /// What the kernel says.
        source: io::Error,
        /// What the error often means.
        hint: &'static str,
    },
    /// The tc programs cannot be loaded or attached.
    #[error(
        "{ifname}: tc mode cannot be had ({step}): {source}; it takes Linux 6.6 or later, set dataplane.mode to \"auto\""
    )]
    Tc {
        /// Name of the device.
        ifname: String,
        /// What was being done.
        step: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// A pin cannot be made, opened or removed.
    #[error("{what} {path}: {source}", path = path.display())]
    Pin {
        /// What failed.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The kernel did not run the program on a frame.
    #[error("test run: {source}")]
    TestRun {
        /// What the kernel says.
        source: io::Error,
    },
}
