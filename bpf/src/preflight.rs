//! What the machine must offer, checked before anything is touched.

use crate::pins;
use crate::sys;
use std::fs;
use std::path::Path;

/// Something that the machine lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is missing.
    pub name: &'static str,
    /// What was seen.
    pub found: String,
    /// What to do about it.
    pub remedy: String,
    /// Without it the gateway does not run; otherwise it runs, but worse.
    pub required: bool,
}

/// Oldest kernel that has all that the program uses.
const MIN_KERNEL: (u32, u32) = (5, 15);

// Bits of linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_SYS_ADMIN: u32 = 21;
/// Arithmetic on packet pointers, which the verifier allows nobody else.
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Checks kernel, BTF, BPF file system, capabilities, AF_XDP and JIT. Empty: all there.
pub fn preflight(pin_dir: &Path) -> Vec<Missing> {
    [kernel(), btf(), bpffs(pin_dir), capabilities(), af_xdp(), jit()].into_iter().flatten().collect()
}

fn missing(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Option<Missing> {
    Some(Missing { name, found: found.into(), remedy: remedy.into(), required: true })
}

fn kernel() -> Option<Missing> {
    let release = sys::kernel_release().unwrap_or_default();
    if parse_release(&release).is_some_and(|v| v >= MIN_KERNEL) {
        return None;
    }
    missing(
        "kernel",
        if release.is_empty() { "unknown version".to_owned() } else { release },
        format!("boot Linux {}.{} or later", MIN_KERNEL.0, MIN_KERNEL.1),
    )
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether the kernel is older than a version. One that does not say counts as old.
pub fn kernel_before(major: u32, minor: u32) -> bool {
    let release = sys::kernel_release().unwrap_or_default();
    parse_release(&release).is_none_or(|v| v < (major, minor))
}

fn btf() -> Option<Missing> {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        return None;
    }
    missing(
        "BTF",
        format!("{path} is not there"),
        "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian 12 and Ubuntu 24.04 kernels are)",
    )
}

fn bpffs(pin_dir: &Path) -> Option<Missing> {
    match pins::on_bpffs(pin_dir) {
        Ok(true) => None,
        // Opening the gateway mounts the file system at its usual place.
        Ok(false) if pin_dir.starts_with("/sys/fs/bpf") && can_mount_bpffs() => None,
        Ok(false) => missing(
            "BPF file system",
            format!("{} is on another file system", pin_dir.display()),
            "`mount -t bpf bpf /sys/fs/bpf`, and dataplane.pin_dir below it",
        ),
        Err(e) => missing("BPF file system", e.to_string(), "check dataplane.pin_dir"),
    }
}

fn can_mount_bpffs() -> bool {
    Path::new("/sys/fs/bpf").exists()
        && fs::read_to_string("/proc/filesystems").is_ok_and(|t| t.lines().any(|l| l.ends_with("\tbpf")))
}

fn capabilities() -> Option<Missing> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lacking = lacking_capabilities(effective_capabilities(&status)?);
    if lacking.is_empty() {
        return None;
    }
    missing(
        "privilege",
        format!("not effective: {}", lacking.join(", ")),
        "run as root, or give the service these capabilities (systemd: AmbientCapabilities=)",
    )
}

/// `None`: no /proc, nothing to say.
fn effective_capabilities(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

fn lacking_capabilities(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective >> bit & 1 == 1;
    if has(CAP_SYS_ADMIN) && has(CAP_NET_ADMIN) && has(CAP_NET_RAW) {
        return Vec::new();
    }
    [
        ("CAP_BPF", CAP_BPF),
        ("CAP_PERFMON", CAP_PERFMON),
        ("CAP_NET_ADMIN", CAP_NET_ADMIN),
        ("CAP_NET_RAW", CAP_NET_RAW),
    ]
    .into_iter()
    .filter(|(_, bit)| !has(*bit))
    .map(|(name, _)| name)
    .collect()
}

fn af_xdp() -> Option<Missing> {
    let e = sys::af_xdp_socket().err()?;
    let remedy = match e.raw_os_error() {
        Some(libc::EAFNOSUPPORT) => "boot a kernel built with CONFIG_XDP_SOCKETS=y",
        Some(libc::EPERM) => "run with CAP_NET_RAW",
        _ => "check the limit on open files",
    };
    missing("AF_XDP", e.to_string(), remedy)
}

fn jit() -> Option<Missing> {
    // Kernels with the JIT always on may not show the switch, and network namespaces hide it.
    let value = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok()?;
    if value.trim() != "0" {
        return None;
    }
    Some(Missing {
        name: "BPF JIT",
        found: "net.core.bpf_jit_enable is 0: the program is interpreted".to_owned(),
        remedy: "`sysctl -w net.core.bpf_jit_enable=1`".to_owned(),
        required: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases() {
        assert_eq!(parse_release("6.18.44-fc"), Some((6, 18)));
        assert_eq!(parse_release("5.15.0-91-generic"), Some((5, 15)));
        assert_eq!(parse_release("5.4"), Some((5, 4)));
        assert!(parse_release("5.4").unwrap() < MIN_KERNEL);
        assert_eq!(parse_release("weird"), None);
    }

    #[test]
    fn capability_bits() {
        let root = effective_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n").unwrap();
        assert!(lacking_capabilities(root).is_empty());
        assert_eq!(lacking_capabilities(0), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN", "CAP_NET_RAW"]);
        let service = 1u64 << CAP_BPF | 1 << CAP_PERFMON | 1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW;
        assert!(lacking_capabilities(service).is_empty());
        assert_eq!(lacking_capabilities(service & !(1 << CAP_NET_RAW)), ["CAP_NET_RAW"]);
    }

    #[test]
    fn a_plain_directory_is_no_place_for_pins() {
        let dir = tempfile::tempdir().unwrap();
        let m = bpffs(&dir.path().join("sag")).unwrap();
        assert!(m.required && m.remedy.contains("mount -t bpf"));
    }
}
