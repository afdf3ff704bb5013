//! What the subcommands share: the database that they open, and how they print.

use std::io::Write as _;

use clap::Args;
use sag_cloud::store::{Store, sqlite_file};

#[derive(Args)]
pub struct Database {
    /// sqlite:///path/to/cloud.db or postgres://user:password@host/name
    #[arg(long)]
    pub db: String,
    /// The key of the stored secrets; made if missing. Default for SQLite: beside the database
    #[arg(long)]
    pub key_file: Option<String>,
}

/// Opens the database, and makes it if there is none.
pub async fn open(db: &Database, connections: u32) -> anyhow::Result<Store> {
    Store::open(&db.db, db.key_file.as_deref(), connections).await
}

/// The database of a command that only reads: it makes none.
pub async fn open_existing(db: &Database) -> anyhow::Result<Store> {
    if let Some(file) = sqlite_file(&db.db) {
        anyhow::ensure!(std::path::Path::new(file).exists(), "there is no database {file}");
    }
    open(db, 1).await
}

/// An object in a line.
pub fn json_line(value: &serde_json::Value) -> String {
    sag_text::escape_json(&value.to_string()).into_owned()
}

/// Prints the lines, until nobody reads them any more.
pub fn print_lines(mut lines: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let written = lines.try_for_each(|line| writeln!(out, "{line}"));
    match written.and_then(|()| out.flush()) {
        // The reader of the pipe has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}
