//! What surrounds the daemon: the log, the machine's requirements, the lock, and the removal of what was loaded.

use super::{devices, kernel_settings, tunnel_devices};
use crate::config_file;
use anyhow::{Context, Result, anyhow, bail};
use sag_bpf::LoadError;
use sag_model::config::{Config, Dataplane};
use sag_rtnl::{ConfigRoutes, SourceRoutes};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
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

/// The machine's memory in bytes.
pub fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
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
