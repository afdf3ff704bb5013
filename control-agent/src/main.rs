//! `sag-agent run --config agent.toml`.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::{CommandFactory, Parser, Subcommand};
use sag_agent::compile::Base;
use sag_agent::config::Config;
use sag_agent::peers::PeersFile;
use sag_agent::{agent, crash, preview, routing, routing_keeper, status};
use sag_frr::service;
use sag_manual::Manual;

#[derive(Parser)]
#[command(name = "sag-agent", version, about = "The control agent of a sag-vcpe gateway")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs in the foreground; logs to stderr.
    Run {
        #[arg(long, default_value = "/etc/sag/agent.toml")]
        config: PathBuf,
    },
    /// Reads the configuration and the key, and says what is wrong with them.
    Check {
        #[arg(long, default_value = "/etc/sag/agent.toml")]
        config: PathBuf,
    },
    /// The identity of this device, its network, the far ends of its tunnels, and what was refused.
    Status {
        #[arg(long, default_value = "/etc/sag/agent.toml")]
        config: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// What this version would do with a device document (`Config` of PullSmartAGConfig), as JSON: nothing is changed.
    Preview {
        /// The document, or several; standard input if it is `-`.
        document: PathBuf,
        /// Configuration of a gateway: also what that would get, and what of the document would be left out.
        #[arg(long)]
        gateway: Option<PathBuf>,
    },
    /// Runs FRR's daemons for the agent, as root: what sag-routing.service does
    RoutingDaemons {
        #[arg(long, default_value = "/etc/sag/agent.toml")]
        config: PathBuf,
        /// The agent's user, who may set something beside root
        #[arg(long)]
        user: Option<String>,
        /// End with the standard input
        #[arg(long, hide = true)]
        with_parent: bool,
        /// Start it again when it ends by itself, until the standard input ends
        #[arg(long, hide = true, conflicts_with_all = ["user", "with_parent"])]
        keep: bool,
    },
    /// Whom this device trusts.
    #[command(subcommand)]
    Peers(PeersCommand),
    /// Steps at which SAG_AGENT_CRASH_AT ends the process; none in a release build.
    #[command(hide = true)]
    CrashPoints,
    /// Man pages and completions, for packages.
    #[command(hide = true)]
    Manual(Manual),
}

#[derive(Subcommand)]
enum PeersCommand {
    /// Recognise a device by this fingerprint from now on: it was replaced, or its operator has read the fingerprint out.
    Accept {
        /// Serial number of the device.
        sn: String,
        /// What `sag-agent status` prints on that device.
        fingerprint: String,
        #[arg(long, default_value = "/etc/sag/agent.toml")]
        config: PathBuf,
    },
    /// Forget a device: the next identity that announces itself by its serial number is trusted.
    Forget {
        /// Serial number of the device.
        sn: String,
        #[arg(long, default_value = "/etc/sag/agent.toml")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("sag-agent: {}", sag_text::escape(&format!("{e:#}")));
            ExitCode::from(1)
        }
    }
}

fn run(cli: Cli) -> Result<u8> {
    match cli.command {
        Command::Run { config } => {
            let config = load(&config)?;
            logging(&config.log)?;
            agent::run(config)
        }
        Command::Check { config } => {
            load(&config)?;
            println!("{}: ok", config.display());
            Ok(0)
        }
        Command::RoutingDaemons { config, user, with_parent, keep } => {
            let config = load(&config)?;
            logging(&config.log)?;
            if keep {
                return routing_keeper::keep(&config).map(|()| 0);
            }
            let options = service::Options {
                dir: config.routing.dir.clone(),
                user,
                with_parent,
                sandbox: config.sandbox,
                version: sag_agent::VERSION.to_owned(),
            };
            service::run(&options, &|| routing::sessions(&config.vcpe_socket))?;
            Ok(0)
        }
        Command::Status { config, json } => {
            print!("{}", status::report(&load(&config)?, json)?);
            Ok(0)
        }
        Command::Preview { document, gateway } => {
            let base = gateway.map(|file| base(&file)).transpose()?;
            let mut out = std::io::stdout().lock();
            match document.to_str() {
                Some("-") => preview::previews(std::io::stdin().lock(), base.as_ref(), &mut out)?,
                _ => {
                    let file =
                        std::fs::File::open(&document).with_context(|| document.display().to_string())?;
                    preview::previews(std::io::BufReader::new(file), base.as_ref(), &mut out)?;
                }
            }
            Ok(0)
        }
        Command::Peers(PeersCommand::Accept { sn, fingerprint, config }) => {
            PeersFile::new(&load(&config)?.state_dir).accept(&sn, &fingerprint)?;
            println!("device {sn} is recognised by {fingerprint}");
            Ok(0)
        }
        Command::Peers(PeersCommand::Forget { sn, config }) => {
            PeersFile::new(&load(&config)?.state_dir).forget(&sn)?;
            println!("device {sn} is forgotten");
            Ok(0)
        }
        Command::CrashPoints => {
            for step in crash::steps() {
                println!("{step}");
            }
            Ok(0)
        }
        Command::Manual(manual) => manual.write(Cli::command()).map(|()| 0).context("man pages"),
    }
}

/// A gateway's own part of its configuration.
fn base(path: &Path) -> Result<Base> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    Base::from_toml(&text).map_err(|e| anyhow!("{}: {e}", path.display()))
}

fn load(path: &Path) -> Result<Config> {
    Config::load(path, |name| std::env::var(name).ok()).map_err(|e| anyhow!("{e}"))
}

fn logging(filter: &str) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .with_context(|| format!("log = {filter:?} is no log filter (try \"info\")"))?;
    sag_text::log::start(filter, false).map_err(|e| anyhow!("cannot start logging: {e}"))
}
