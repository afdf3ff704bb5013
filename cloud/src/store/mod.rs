//! Storage: SQLite or PostgreSQL behind one URL, the same tables and statements on both.

pub mod accounts;
pub mod audit;
pub mod conn;
mod lite;
pub mod objects;
pub mod schema;
pub mod secrets;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyPool, Connection as _, Executor as _, Transaction};
use tokio::sync::Mutex;

pub use conn::Tx;
use lite::Readers;
use secrets::Cipher;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

#[derive(Clone)]
pub struct Store {
    pub pool: AnyPool,
    pub backend: Backend,
    pub cipher: Arc<Cipher>,
    /// SQLite has one writer; waiting here is fair, waiting in SQLite is not.
    writer: Arc<Mutex<()>>,
    /// SQLite in a file: what only reads goes this way.
    readers: Option<Arc<Readers>>,
    pub statements: Count,
}

/// Statements that were sent to the database.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A change on PostgreSQL, on the disk as the server's own setting says.
const CHANGE: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL synchronous_commit TO DEFAULT";
const MIGRATION: &str = "BEGIN; SET LOCAL synchronous_commit TO DEFAULT";
/// A connection that has rested for longer is tried before it is used.
const RESTED: Duration = Duration::from_secs(1);

impl Store {
    pub async fn open(url: &str, key_file: Option<&str>, connections: u32) -> anyhow::Result<Store> {
        sqlx::any::install_default_drivers();
        let backend = match url.split(':').next() {
            Some("sqlite") => Backend::Sqlite,
            Some("postgres" | "postgresql") => Backend::Postgres,
            _ => anyhow::bail!("--db takes sqlite:// or postgres:// URLs"),
        };
        let mut full = url.to_owned();
        if backend == Backend::Sqlite && !url.contains("mode=") {
            full.push_str(if url.contains('?') { "&mode=rwc" } else { "?mode=rwc" });
        }
        let cipher = Cipher::load(&key_path(url, backend, key_file)?)?;
        let pool = AnyPoolOptions::new()
            .max_connections(connections)
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move { Ok(meta.idle_for < RESTED || conn.ping().await.is_ok()) })
            })
            .after_connect(move |conn, _| {
                Box::pin(async move {
                    if backend == Backend::Sqlite {
                        // FULL: a commit is on the disk before it is acknowledged.
                        conn.execute("PRAGMA busy_timeout = 10000").await?;
                        conn.execute("PRAGMA journal_mode = WAL").await?;
                        conn.execute("PRAGMA synchronous = FULL").await?;
                    } else {
                        // Of a read only its nonce is kept; `write` turns this back.
                        conn.execute("SET synchronous_commit TO OFF").await?;
                    }
                    Ok(())
                })
            })
            .connect(&full)
            .await
            .with_context(|| format!("cannot open the {backend:?} database"))?;
        let mut store = Store {
            pool,
            backend,
            cipher: Arc::new(cipher),
            writer: Arc::default(),
            readers: None,
            statements: Count::default(),
        };
        store.migrate().await.context("cannot prepare the tables")?;
        store.readers = sqlite_file(url).filter(|f| Path::new(f).is_file()).and_then(Readers::open);
        Ok(store)
    }

    /// A transaction that sees one state of the database. On PostgreSQL it may write the nonce of its request.
    pub async fn read(&self) -> sqlx::Result<Tx> {
        if let Some(readers) = &self.readers {
            return Ok(Tx::lite(readers.begin(self.statements.clone())?, self.statements.clone()));
        }
        let begin = match self.backend {
            Backend::Sqlite => "BEGIN",
            Backend::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ",
        };
        Ok(Tx::pool(self.begin(begin).await?, None, self.statements.clone()))
    }

    /// Whether other processes may use the database at the same time.
    pub fn shared(&self) -> bool {
        self.backend == Backend::Postgres
    }

    /// Runs to its end even if the caller goes away (a client that hangs up): a connection given back in the
    /// middle of its BEGIN would be in a transaction of which its pool knows nothing.
    async fn begin(&self, how: &'static str) -> sqlx::Result<Transaction<'static, Any>> {
        let pool = self.pool.clone();
        match tokio::spawn(async move { pool.begin_with(how).await }).await {
            Ok(begun) => begun,
            Err(_) => Err(sqlx::Error::WorkerCrashed),
        }
    }

    pub async fn write(&self) -> sqlx::Result<Tx> {
        match self.backend {
            Backend::Sqlite => {
                let guard = self.writer.clone().lock_owned().await;
                let inner = self.begin("BEGIN IMMEDIATE").await?;
                Ok(Tx::pool(inner, Some(guard), self.statements.clone()))
            }
            Backend::Postgres => {
                let inner = self.begin(CHANGE).await?;
                Ok(Tx::pool(inner, None, self.statements.clone()))
            }
        }
    }

    async fn migrate(&self) -> sqlx::Result<()> {
        let mut tx = match self.backend {
            Backend::Sqlite => self.write().await?,
            Backend::Postgres => {
                let mut inner = self.begin(MIGRATION).await?;
                // Several processes may start at once.
                (&mut *inner).execute("SELECT pg_advisory_xact_lock(7351)").await?;
                Tx::pool(inner, None, self.statements.clone())
            }
        };
        tx.writer()?.execute("CREATE TABLE IF NOT EXISTS migrations (version BIGINT PRIMARY KEY)").await?;
        let done: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM migrations")
            .fetch_one(tx.writer()?)
            .await?;
        for (i, statements) in schema::MIGRATIONS.iter().enumerate().skip(done as usize) {
            for s in statements.iter() {
                tx.writer()?.execute(*s).await?;
            }
            sqlx::query("INSERT INTO migrations (version) VALUES ($1)")
                .bind(i as i64 + 1)
                .execute(tx.writer()?)
                .await?;
        }
        tx.commit().await
    }
}

/// The file of an SQLite database.
pub fn sqlite_file(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("sqlite:")?.trim_start_matches("//");
    rest.split('?').next()
}

/// Beside the SQLite file unless the caller says otherwise.
fn key_path(url: &str, backend: Backend, given: Option<&str>) -> anyhow::Result<String> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    match backend {
        Backend::Sqlite => {
            let path = sqlite_file(url).unwrap_or_default();
            Ok(format!("{path}.key"))
        }
        Backend::Postgres => anyhow::bail!("PostgreSQL needs --key-file, the same for all processes"),
    }
}
