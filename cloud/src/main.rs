//! The `sag-cloud` command.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use sag_cloud::domain::policy;
use sag_cloud::service::{App, serve, tls};
use sag_cloud::south::hub;
use sag_cloud::store::{Store, audit, sqlite_file};
use sag_cloud::time::now_ms;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[derive(Parser)]
#[command(name = "sag-cloud", version, about = "The cloud API of sag-vcpe")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Database {
    /// sqlite:///path/to/cloud.db or postgres://user:password@host/name
    #[arg(long)]
    db: String,
    /// The key of the stored secrets; made if missing. Default for SQLite: beside the database
    #[arg(long)]
    key_file: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API
    Serve {
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
        /// Database connections
        #[arg(long, default_value_t = 8)]
        connections: u32,
        /// Logs as JSON lines
        #[arg(long)]
        log_json: bool,
    },
    /// Manage access keys
    #[command(subcommand)]
    AccessKey(KeyCommand),
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

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => {
            eprintln!("error: cannot start: {e}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(Cli::parse().command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn open(db: &Database, connections: u32) -> anyhow::Result<Store> {
    Store::open(&db.db, db.key_file.as_deref(), connections).await
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve { listen, db, tls_cert, tls_key, rate_limit, max_body, connections, log_json } => {
            logging(log_json);
            let acceptor = match (tls_cert, tls_key) {
                (Some(c), Some(k)) => Some(tls(&c, &k)?),
                _ => None,
            };
            let store = open(&db, connections).await?;
            let shared = store.shared();
            let app = App::new(store, rate_limit, max_body);
            let listener =
                TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
            let address = listener.local_addr()?;
            tracing::info!(%address, tls = acceptor.is_some(), "serving");
            if shared {
                tokio::spawn(hub::follow(app.agents.clone()));
            }
            tokio::spawn(hub::clean(app.agents.clone()));
            serve(app, listener, acceptor, stop_signal()?).await
        }
        Command::AccessKey(k) => keys(k).await,
        Command::Audit { db, since, action, account, limit, json } => {
            let since = since.map_or(Ok(0), |s| audit::moment(&s, now_ms())).context("--since")?;
            // A reader makes no database.
            if let Some(file) = sqlite_file(&db.db) {
                anyhow::ensure!(std::path::Path::new(file).exists(), "there is no database {file}");
            }
            let query = audit::Query { since, action, account, limit };
            print_audit(&open(&db, 1).await?.audit(&query).await?, json)
        }
        Command::Policy { account, user, name, file, db } => {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let document = serde_json::from_str(&text).context("the policy is not JSON")?;
            policy::check(&document)?;
            open(&db, 1).await?.put_policy(&account, &user, &name, &document).await
        }
    }
}

fn print_audit(entries: &[audit::Entry], json: bool) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let written = entries.iter().try_for_each(|e| match json {
        true => writeln!(out, "{}", e.json()),
        false => writeln!(out, "{}", e.line()),
    });
    match written.and_then(|()| out.flush()) {
        // The reader of the pipe has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
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

fn logging(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !plain);
    if json { logs.json().init() } else { logs.init() }
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
