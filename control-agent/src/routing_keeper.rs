//! A routing service without a unit of the machine: a process that starts it, and again when it ends by itself. The agent has
//! given up by then what it would need for that.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sag_frr::service;
use sag_sandbox::Program;

use crate::config::Config;

/// Pauses before a service that has ended is started again; one that has run for a minute has had no failure.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const STEADY: Duration = Duration::from_secs(60);

/// Keeps the service until it ends in order: its standard input, which is that of this process, has ended.
///
/// # Errors
/// It cannot be started at all.
pub fn keep(config: &Config) -> Result<()> {
    let program = std::env::current_exe().context("the program of this process")?;
    // Files are the service's own choice, by a configuration that it reads anew.
    sag_sandbox::confine_process(config.sandbox, Program::Routing, service::capabilities());
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let ended = run_once(&program, &config.file)?;
        if ended.success() {
            return Ok(());
        }
        failures = if began.elapsed() >= STEADY { 0 } else { failures + 1 };
        let pause = pause_after(failures);
        tracing::warn!(status = %ended, ?pause, "the routing service has ended, and is started again");
        std::thread::sleep(pause);
    }
}

fn run_once(program: &Path, config: &Path) -> Result<std::process::ExitStatus> {
    let mut command = Command::new(program);
    command.args(["routing-daemons", "--with-parent", "--config"]).arg(config);
    command.status().with_context(|| program.display().to_string())
}

/// Twice as long each time.
fn pause_after(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        assert_eq!(pause_after(0), FIRST_PAUSE);
        assert_eq!(pause_after(2), 4 * FIRST_PAUSE);
        assert_eq!(pause_after(u32::MAX), LONGEST_PAUSE);
    }
}
