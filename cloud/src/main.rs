//! The `sag-cloud` command.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

mod cert;
mod confine;
mod offer_commands;
mod shared;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, CommandFactory, Parser, Subcommand};
use offer_commands::{AccessPointCommand, VersionCommand};
use sag_cloud::api::Op;
use sag_cloud::domain::policy;
use sag_cloud::service::{App, Origins, Settings, Tls, admin, clean, devices, serve};
use sag_cloud::south::hub;
use sag_cloud::store::{audit, private};
use sag_cloud::time::{now_ms, stamp};
use sag_http::{Limits, raise_descriptor_limit};
use sag_manual::Manual;
use sag_sandbox::{Mode, Supervisor};
use shared::{Database, json_line, open, open_existing, print_lines};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Calls of a connection of HTTP/2 at a time (RFC 9113 recommends no fewer).
const STREAMS: u32 = 100;

#[derive(Parser)]
#[command(name = "sag-cloud", version, about = "The cloud API of sag-vcpe")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Serve {
    #[arg(long, default_value = "127.0.0.1:8180")]
    listen: SocketAddr,
    #[command(flatten)]
    db: Database,
    /// Certificate chain (PEM); turns TLS on
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<String>,
    /// Private key (PEM)
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<String>,
    /// Requests a second for each access key; 0 is no limit
    #[arg(long, default_value_t = 5000)]
    rate_limit: u32,
    /// Bytes of a request body
    #[arg(long, default_value_t = 1024 * 1024)]
    max_body: usize,
    /// Connections at a time, waiting agents included
    #[arg(long, default_value_t = 4096)]
    max_connections: usize,
    /// Connections of one IPv4 address or IPv6 /64 at a time; 0 is no limit of its own
    #[arg(long, default_value_t = 1024)]
    max_connections_per_source: usize,
    /// Bytes of request bodies and answers in memory, of all connections together
    #[arg(long, default_value_t = 64 * 1024 * 1024)]
    max_buffered: usize,
    /// Days for which the audit log keeps an entry; 0 is for ever
    #[arg(long, default_value_t = 365)]
    audit_days: u32,
    /// Entries that the audit log keeps of each account; of refused calls a tenth as many; 0 is all
    #[arg(long, default_value_t = 1_000_000)]
    audit_entries: u32,
    /// An origin whose web pages may call the API from a browser (CORS): https://console.example.com, or * for all; may
    /// be given several times
    #[arg(long)]
    cors_origin: Vec<String>,
    /// Database connections
    #[arg(long, default_value_t = 8)]
    connections: u32,
    /// Logs as JSON lines
    #[arg(long)]
    log_json: bool,
    /// Keep the program to the files and system calls that it needs: enforce, log (unexpected system calls are only
    /// logged by the kernel) or off
    #[arg(long, default_value_t = Mode::Enforce)]
    sandbox: Mode,
}

/// Descriptors beside connections: the listener, the runtime, files that are read; and those of a database connection
/// (SQLite: the file, its log, and the index of that).
const OTHER_DESCRIPTORS: usize = 64;
const OF_A_DATABASE: usize = 3;

impl Serve {
    /// The bounds, as far as the descriptors of the process go.
    fn settings(&self) -> Settings {
        // SQLite opens a connection for each read that runs: one for each thread, and some that rest.
        let databases = self.connections.max(32) as usize;
        let reserve = OTHER_DESCRIPTORS + OF_A_DATABASE * databases;
        let descriptors = raise_descriptor_limit(self.max_connections + reserve);
        let wanted = Limits {
            connections: self.max_connections,
            per_source: self.max_connections_per_source,
            buffered: self.max_buffered,
            streams: STREAMS,
            ..Limits::default()
        };
        let limits = wanted.fit(descriptors, reserve);
        if limits.connections < self.max_connections {
            tracing::warn!(
                connections = limits.connections,
                descriptors,
                "fewer connections than --max-connections, because the process may not have more descriptors. \
                 Remedy: LimitNOFILE= of the unit, or ulimit -n"
            );
        }
        Settings {
            rate_limit: self.rate_limit,
            max_body: self.max_body,
            limits,
            retention: audit::Retention { days: self.audit_days, entries: self.audit_entries },
            origins: Origins::new(self.cors_origin.clone()),
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Man pages and completions, for packages
    #[command(hide = true)]
    Manual(Manual),
    /// Serve the API
    Serve(Serve),
    /// Manage access keys
    #[command(subcommand)]
    AccessKey(KeyCommand),
    /// Extend the time of a gateway, or of all, in the name of the owner
    Renew(Renew),
    /// The members of a cloud connect network, in the name of its owner
    #[command(subcommand)]
    Network(NetworkCommand),
    /// The access points that are offered to every account
    #[command(subcommand)]
    AccessPoints(AccessPointCommand),
    /// The versions of devices' software that are offered to every account
    #[command(subcommand)]
    Versions(VersionCommand),
    /// Print the audit log: every changing call, oldest first
    Audit {
        #[command(flatten)]
        db: Database,
        /// From when: 2026-11-22T05:00:00Z, 2026-11-22, or so long ago: 15m, 2h, 7d
        #[arg(long)]
        since: Option<String>,
        /// An action, such as CreateACL; * stands for any text: 'Create*'
        #[arg(long, default_value = "")]
        action: String,
        /// An account by its name
        #[arg(long, default_value = "")]
        account: String,
        /// The latest so many; 0 is all
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Print the devices: whether they have their configuration, and how their commands went
    Devices {
        #[command(flatten)]
        db: Database,
        /// One device by its serial number, SmartAGSn
        #[arg(long)]
        device: Option<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Make a certificate for a test bed, and the authority that clients are to trust
    Cert {
        /// A host name or an address of the server; may be given several times
        #[arg(long = "name", required = true)]
        names: Vec<String>,
        /// The folder for ca.pem, server.pem and server-key.pem
        #[arg(long)]
        out: PathBuf,
        /// For how long it is good
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// Give a user of an account a policy
    Policy {
        #[arg(long)]
        account: String,
        #[arg(long)]
        user: String,
        /// The name of the policy; an old one of the same name is replaced
        #[arg(long)]
        name: String,
        /// A policy document (JSON)
        #[arg(long)]
        file: PathBuf,
        #[command(flatten)]
        db: Database,
    },
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Make a key for an account (made if new) or one of its users; prints it once
    Create {
        /// The account
        #[arg(long)]
        name: String,
        /// A user of the account: may do only what his policies allow
        #[arg(long, default_value = "")]
        user: String,
        #[command(flatten)]
        db: Database,
    },
    /// List the keys, without secrets
    List {
        #[command(flatten)]
        db: Database,
    },
    /// Turn a key off
    Disable {
        #[arg(long)]
        id: String,
        #[command(flatten)]
        db: Database,
    },
    /// Turn a key on again
    Enable {
        #[arg(long)]
        id: String,
        #[command(flatten)]
        db: Database,
    },
    /// Remove a key
    Delete {
        #[arg(long)]
        id: String,
        #[command(flatten)]
        db: Database,
    },
}

#[derive(Args)]
struct Renew {
    /// The gateway, SmartAGId
    #[arg(long, required_unless_present = "all", conflicts_with = "all")]
    gateway: Option<String>,
    /// Every gateway of every account
    #[arg(long)]
    all: bool,
    /// Calendar months, 1..36, from the end of its time, or from now on if that is over
    #[arg(long)]
    months: u32,
    #[command(flatten)]
    db: Database,
}

#[derive(Subcommand)]
enum NetworkCommand {
    /// Print the members with what they may and do announce, as JSON
    Members {
        /// The network, CcnId
        #[arg(long)]
        network: String,
        #[command(flatten)]
        db: Database,
    },
    /// Say whether a member is the hub, or which blocks another account's gateway may announce
    Member {
        /// The network, CcnId
        #[arg(long)]
        network: String,
        /// The member, SmartAGId
        #[arg(long)]
        gateway: String,
        /// Whether it is the hub: all other members reach each other through it
        #[arg(long)]
        hub: Option<bool>,
        /// Blocks separated by commas, or none
        #[arg(long)]
        cidr_block: Option<String>,
        #[command(flatten)]
        db: Database,
    },
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    if let Command::Serve(options) = &command {
        // Before there are other threads.
        if let Err(e) = logging(options.log_json) {
            eprintln!("error: {e:#}");
            return ExitCode::FAILURE;
        }
        let needs = confine::Needs {
            listen: options.listen,
            db: &options.db.db,
            key_file: options.db.key_file.as_deref(),
            tls: [options.tls_cert.as_deref(), options.tls_key.as_deref()],
        };
        confine::confine(options.sandbox, &needs);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => {
            eprintln!("error: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {}", sag_text::escape_lines(&format!("{e:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Manual(manual) => manual.write(Cli::command()).context("man pages"),
        Command::Serve(options) => run_server(options).await,
        Command::AccessKey(k) => keys(k).await,
        Command::Network(n) => network(n).await,
        Command::Renew(r) => renew(r).await,
        Command::AccessPoints(command) => offer_commands::access_points(command).await,
        Command::Versions(command) => offer_commands::versions(command).await,
        Command::Audit { db, since, action, account, limit, json } => {
            let since = since.map_or(Ok(0), |s| audit::moment(&s, now_ms())).context("--since")?;
            let query = audit::Query { since, action, account, limit };
            let entries = open_existing(&db).await?.audit(&query).await?;
            print_lines(entries.iter().map(|e| if json { json_line(&e.json()) } else { e.line() }))
        }
        Command::Devices { db, device, json } => {
            let found = devices::list(&open_existing(&db).await?, device.as_deref()).await?;
            if let Some(sn) = device.filter(|_| found.is_empty()) {
                anyhow::bail!("there is no device {sn}");
            }
            let now = now_ms();
            let line = |d| if json { json_line(&devices::json(d, now)) } else { devices::lines(d, now) };
            print_lines(found.iter().map(line))
        }
        Command::Cert { names, out, days } => {
            let [authority, certificate, key] = cert::write(&names, &out, days)?;
            println!("clients trust   {}", authority.display());
            println!("--tls-cert      {}", certificate.display());
            println!("--tls-key       {}", key.display());
            Ok(())
        }
        Command::Policy { account, user, name, file, db } => {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let document = serde_json::from_str(&text).context("the policy is not JSON")?;
            for warning in policy::check(&document)? {
                eprintln!("warning: {warning}");
            }
            open(&db, 1).await?.put_policy(&account, &user, &name, &document).await
        }
    }
}

async fn run_server(options: Serve) -> anyhow::Result<()> {
    let tls = match (&options.tls_cert, &options.tls_key) {
        (Some(cert), Some(key)) => {
            private::warn_if_open(std::path::Path::new(key), "the private key of the server");
            Some(Tls::load(cert, key)?)
        }
        _ => None,
    };
    let store = open(&options.db, options.connections).await?;
    let shared = store.shared();
    let app = App::new(store, options.settings());
    let listen = options.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    tracing::info!(%address, tls = tls.is_some(), connections = app.settings.limits.connections, "serving");
    if shared {
        tokio::spawn(hub::follow(app.agents.clone()));
    }
    tokio::spawn(clean(app.clone()));
    tokio::spawn(supervise());
    serve(app, listener, tls, stop_signal()?).await
}

async fn renew(r: Renew) -> anyhow::Result<()> {
    let gateways = match r.gateway {
        Some(id) => vec![id],
        None => admin::gateways(&open(&r.db, 1).await?).await?,
    };
    for id in gateways {
        let pairs = [("SmartAGId", id.clone()), ("Period", r.months.to_string())];
        let answer = admin::on_gateway(open(&r.db, 1).await?, Op::RenewSmartAccessGateway, &pairs).await?;
        let end = answer["EndTime"].as_i64().map(stamp).unwrap_or_default();
        println!("{id}\t{end}Z");
    }
    Ok(())
}

async fn network(command: NetworkCommand) -> anyhow::Result<()> {
    let (op, db, pairs) = match command {
        NetworkCommand::Members { network, db } => {
            let pairs = vec![("CcnId", network), ("PageSize", "100".to_owned())];
            (Op::DescribeCloudConnectNetworkMembers, db, pairs)
        }
        NetworkCommand::Member { network, gateway, hub, cidr_block, db } => {
            let mut pairs = vec![("CcnId", network), ("SmartAGId", gateway)];
            pairs.extend(hub.map(|hub| ("Hub", hub.to_string())));
            pairs.extend(cidr_block.map(|blocks| ("CidrBlock", blocks)));
            (Op::ModifyCloudConnectNetworkMember, db, pairs)
        }
    };
    let answer = admin::on_network(open(&db, 1).await?, op, &pairs).await?;
    if op == Op::DescribeCloudConnectNetworkMembers {
        println!("{answer:#}");
    }
    Ok(())
}

async fn keys(command: KeyCommand) -> anyhow::Result<()> {
    let (id, found) = match command {
        KeyCommand::Create { name, user, db } => {
            let key = open(&db, 1).await?.create_key(&name, &user).await?;
            println!("AccessKeyId: {}\nAccessKeySecret: {}", key.id, key.secret);
            return Ok(());
        }
        KeyCommand::List { db } => {
            for (id, account, user, status) in open(&db, 1).await?.keys().await? {
                let [id, account, user, status] =
                    [id, account, user, status].map(|t| sag_text::escape(&t).into_owned());
                println!("{id}\t{account}\t{user}\t{status}");
            }
            return Ok(());
        }
        KeyCommand::Disable { id, db } => {
            let found = open(&db, 1).await?.set_key_status(&id, "Inactive").await?;
            (id, found)
        }
        KeyCommand::Enable { id, db } => {
            let found = open(&db, 1).await?.set_key_status(&id, "Active").await?;
            (id, found)
        }
        KeyCommand::Delete { id, db } => {
            let found = open(&db, 1).await?.delete_key(&id).await?;
            (id, found)
        }
    };
    anyhow::ensure!(found, "no access key {id}");
    Ok(())
}

/// Tells the service manager that the program serves, and goes on serving.
async fn supervise() {
    let mut supervisor = Supervisor::new();
    supervisor.ready();
    let Some(every) = supervisor.interval() else { return };
    loop {
        supervisor.alive();
        tokio::time::sleep(every).await;
    }
}

fn logging(json: bool) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    sag_text::log::start(filter, json).map_err(|e| anyhow::anyhow!("cannot start logging: {e}"))
}

/// Turns true at SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let (tx, rx) = watch::channel(false);
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tx.send_replace(true);
        // The receiver lives as long as the server.
        tx.closed().await;
    });
    Ok(rx)
}
