//! What surrounds the daemon: the log, the machine's requirements, the lock, and the removal of what was loaded.

use super::{devices, kernel_settings, tunnel_devices};
use crate::config_file;
use anyhow::{Context, Result, anyhow, bail};
use sag_bpf::LoadError;
use sag_model::config::{Config, Dataplane};
use sag_rtnl::{ConfigRoutes, SourceRoutes};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Starts the log on standard error.
pub fn start_logging(filter: &str) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .with_context(|| format!("dataplane.log: {filter:?} is no log filter (try \"info\")"))?;
    sag_text::log::start(filter, false).map_err(|e| anyhow!("cannot start logging: {e}"))
}

/// Names everything that the machine lacks before anything is touched.
pub fn preflight(config: &Config) -> Result<()> {
    let missing = sag_bpf::preflight(&config.dataplane.pin_dir);
    for m in missing.iter().filter(|m| !m.required) {
        tracing::warn!("{}: {}; {}", m.name, m.found, m.remedy);
    }
    let required: Vec<_> = missing
        .iter()
        .filter(|m| m.required)
        .map(|m| format!("{}: {}; {}", m.name, m.found, m.remedy))
        .collect();
    if required.is_empty() {
        Ok(())
    } else {
        bail!("this machine cannot run the gateway:\n  {}", required.join("\n  "))
    }
}

/// The lock file of a pin directory. Its folder is made if it is missing.
pub fn lock_file(d: &Dataplane) -> Result<PathBuf> {
    let name = d.pin_dir.to_string_lossy().trim_matches('/').replace('/', "-");
    let dir = Path::new("/run/sag");
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.join(format!("{name}.lock")))
}

/// The memory in bytes that the daemon may have: the machine's, or less where its control group has a limit. As it was
/// when first asked for: later the files of control groups may be out of reach.
pub fn memory() -> u64 {
    static MEMORY: OnceLock<u64> = OnceLock::new();
    *MEMORY.get_or_init(|| {
        let info = rustix::system::sysinfo();
        let machine = info.totalram.saturating_mul(info.mem_unit.into());
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        control_group_limit(&groups, Path::new("/sys/fs/cgroup")).map_or(machine, |limit| limit.min(machine))
    })
}

/// The least limit of memory that the control groups of a process and those above them have. `groups` is its
/// `/proc/PID/cgroup` (cgroups(7)), of version 2 or 1.
fn control_group_limit(groups: &str, root: &Path) -> Option<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = match (id, controllers) {
            ("0", "") => (root.to_path_buf(), "memory.max"),
            (_, c) if c.split(',').any(|c| c == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        // A container may see its own group as the root: what is not there has no limit.
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let limit = std::fs::read_to_string(root.join(group).join(file));
            limits.extend(limit.ok().and_then(|text| text.trim().parse::<u64>().ok()));
        }
    }
    limits.into_iter().min()
}

/// The file of the highest ESP numbers received, which outlives a daemon that is killed.
pub fn esp_words_file(d: &Dataplane) -> Result<PathBuf> {
    Ok(lock_file(d)?.with_extension("esp"))
}

/// The file of the kernel's settings as they were before the gateway.
pub fn settings_file(d: &Dataplane) -> Result<PathBuf> {
    Ok(lock_file(d)?.with_extension("sysctl"))
}

/// Tries for two seconds: a predecessor that was killed holds its lock until the kernel has closed its sockets.
pub fn retry_while_locked<T>(mut attempt: impl FnMut() -> Result<T, LoadError>) -> Result<T, LoadError> {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        match attempt() {
            Err(LoadError::AlreadyRunning { .. }) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            done => return done,
        }
    }
}

/// `sag-vcpe unload`.
pub fn unload(path: Option<&Path>) -> Result<()> {
    let dataplane = match path {
        Some(p) => config_file::load(p)?.0.config.dataplane,
        None => Dataplane::default(),
    };
    remove(&dataplane)
}

/// Removes programs, links and maps, and puts the kernel's settings back.
pub fn remove(d: &Dataplane) -> Result<()> {
    let lock = lock_file(d)?;
    match retry_while_locked(|| sag_bpf::unload(&d.pin_dir, &lock))? {
        true => println!("removed programs, links and maps of {}", d.pin_dir.display()),
        false => println!("nothing is loaded in {}", d.pin_dir.display()),
    }
    match kernel_settings::put_back_recorded(&settings_file(d)?) {
        0 => {}
        n => println!("put back {n} settings of the kernel"),
    }
    match devices::remove_pairs().context("cannot remove the devices of ports in tc mode (netlink)")? {
        0 => {}
        n => println!("removed {n} pairs of devices of ports in tc mode"),
    }
    match tunnel_devices::remove_all().context("cannot remove the devices of tunnels (netlink)")? {
        0 => {}
        n => println!("removed {n} devices of tunnels"),
    }
    let mut routes = ConfigRoutes::open().context("cannot read the kernel's routes (netlink)")?;
    if !routes.list()?.is_empty() {
        routes.set(&BTreeSet::new()).context("cannot remove the configuration's routes")?;
        println!("removed the routes of the configuration from the kernel's table");
    }
    remove_source_routes()
}

/// Removes the rules by which the kernel answers by the line of the question.
fn remove_source_routes() -> Result<()> {
    let mut routes = SourceRoutes::open().context("cannot read the kernel's rules (netlink)")?;
    let had_some = !routes.is_empty();
    routes.remove_all().context("cannot remove the kernel's rules for answers of the box itself")?;
    if had_some {
        println!("removed the rules for answers of the box itself");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of control groups in which these files say so.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let file = root.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        root
    }

    #[test]
    fn memory_is_what_the_control_groups_leave() {
        let own = "0::/system.slice/sag-vcpe.service\n";
        let limit = |files: &[(&str, &str)], groups: &str| control_group_limit(groups, tree(files).path());
        assert_eq!(limit(&[("system.slice/sag-vcpe.service/memory.max", "max\n")], own), None);
        assert_eq!(
            limit(&[("system.slice/sag-vcpe.service/memory.max", "536870912\n")], own),
            Some(512 << 20)
        );
        let above =
            [("system.slice/sag-vcpe.service/memory.max", "max\n"), ("system.slice/memory.max", "4096\n")];
        assert_eq!(limit(&above, own), Some(4096), "a group above it has less");
        assert_eq!(limit(&[("memory.max", "8192\n")], own), Some(8192), "in a container of its own");
        let first = "5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n";
        assert_eq!(limit(&[("memory/a/memory.limit_in_bytes", "1024\n")], first), Some(1024), "version 1");
        assert_eq!(limit(&[("cpu/a/memory.limit_in_bytes", "1024\n")], first), None);
        assert_eq!(limit(&[], "nonsense\n:\n"), None);
    }
}
