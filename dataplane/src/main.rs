//! `sag-vcpe`: the packet path of the gateway, from one TOML file.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod check;
mod config_file;
mod daemon;
mod esp;
mod files;
mod replay;
mod server;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use sag_manual::Manual;
use std::path::PathBuf;
use std::process::ExitCode;

/// Packet-forwarding gateway (vCPE): ACL, sessions, routes; XDP fast path and AF_XDP workers.
#[derive(Debug, Parser)]
#[command(name = "sag-vcpe", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway in the foreground. SIGHUP reads the file again; SIGTERM ends the daemon and
    /// leaves the XDP program in place.
    Run {
        /// Configuration file
        #[arg(long)]
        config: PathBuf,
        /// Remove the XDP program and the pinned maps at exit
        #[arg(long)]
        detach_on_exit: bool,
    },
    /// Validate a configuration file: exit 0, or 1 with file, line and reason
    Check {
        #[arg(long)]
        config: PathBuf,
    },
    /// Run a capture file through the pipeline; needs no privilege and no kernel
    Replay(replay::Args),
    /// Remove XDP programs, links and pinned maps
    Unload {
        /// Takes the pin directory from this file; without it, the default one
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Man pages and completions, for packages
    #[command(hide = true)]
    Manual(Manual),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done: Result<ExitCode> = match cli.command {
        Command::Run { config, detach_on_exit } => {
            daemon::run(&config, detach_on_exit).map(|()| ExitCode::SUCCESS)
        }
        Command::Check { config } => Ok(check::check(&config)),
        Command::Replay(args) => replay::replay(&args).map(|()| ExitCode::SUCCESS),
        Command::Unload { config } => daemon::unload(config.as_deref()).map(|()| ExitCode::SUCCESS),
        Command::Manual(manual) => {
            manual.write(Cli::command()).map(|()| ExitCode::SUCCESS).map_err(anyhow::Error::from)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("sag-vcpe: {}", sag_text::escape_lines(&format!("{error:#}")));
        ExitCode::FAILURE
    })
}
