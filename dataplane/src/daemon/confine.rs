//! What the daemon gives up once its programs and maps are loaded: capabilities, files, system calls.

use sag_bpf::kernel_before;
use sag_model::config::{Config, Sandbox};
use sag_sandbox::{CapabilitySet, Mode, Profile, Program, directories_to};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Confines this thread and those that it starts in capabilities and system calls. Attaching to devices, sockets, netlink,
/// pins and reloads still work; mounting a BPF file system, loading kernel modules and running programs do not.
pub fn process(config: &Config) {
    sag_sandbox::confine_process(mode(config), Program::Gateway, capabilities(config));
}

/// Confines this thread and those that it starts from now on, which are the workers, in files.
pub fn files(config: &Config, config_file: &Path) {
    let d = &config.dataplane;
    if let Some(dir) = d.control.parent() {
        // A rule is of a directory that is there. The server says if it cannot be made.
        let _ = std::fs::create_dir_all(dir);
    }
    // The lock is taken again where the daemon removes everything at its end.
    let write = d.control.parent().map(Path::to_owned).into_iter().chain(["/run/sag".into()]).collect();
    let mut entries: Vec<PathBuf> = d.pin_dir.parent().map(Path::to_owned).into_iter().collect();
    entries.extend(above_mount(&d.pin_dir));
    let mut read = directories_to(config_file);
    read.extend(config.ha.iter().filter_map(|ha| ha.key_file.as_ref()).flat_map(|file| directories_to(file)));
    let profile =
        Profile { program: Program::Gateway, capabilities: capabilities(config), read, write, entries };
    sag_sandbox::confine_files(mode(config), &profile);
}

fn mode(config: &Config) -> Mode {
    match config.dataplane.sandbox {
        Sandbox::Enforce => Mode::Enforce,
        Sandbox::Log => Mode::Log,
        Sandbox::Off => Mode::Off,
    }
}

/// BPF and AF_XDP for devices that come later, netlink; rings are locked memory; and pins, logs and state may be in
/// directories of other users, as /sys/fs/bpf is where the daemon has one of its own.
fn capabilities(config: &Config) -> CapabilitySet {
    let mut keep = CapabilitySet::NET_ADMIN
        | CapabilitySet::NET_RAW
        | CapabilitySet::BPF
        | CapabilitySet::PERFMON
        | CapabilitySet::IPC_LOCK
        | CapabilitySet::DAC_OVERRIDE;
    // Memory of maps and frames was accounted otherwise; and CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON.
    let bpf = CapabilitySet::BPF | CapabilitySet::PERFMON;
    if kernel_before(5, 19) || !sag_sandbox::permitted().contains(bpf) {
        keep |= CapabilitySet::SYS_ADMIN;
    }
    // The listener is opened when the daemon forwards.
    if config.dataplane.metrics.is_some_and(|a| a.port() < 1024) {
        keep |= CapabilitySet::NET_BIND_SERVICE;
    }
    keep
}

/// The directory above the file system that a path is on: what is below it stays permitted when the file system is unmounted and
/// mounted again.
fn above_mount(path: &Path) -> Option<PathBuf> {
    let device = |p: &Path| std::fs::metadata(p).ok().map(|m| m.dev());
    let of = device(path)?;
    let above = path.ancestors().find(|p| device(p).is_some_and(|d| d != of))?;
    above.parent().is_some().then(|| above.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_a_file_system() {
        // The root itself is never permitted.
        assert_eq!(above_mount(Path::new("/none/of/this")), None);
        if let Some(above) = above_mount(Path::new("/sys/fs/bpf")) {
            assert_eq!(above, Path::new("/sys/fs"));
        }
    }
}
