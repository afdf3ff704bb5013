//! Storage: SQLite or PostgreSQL behind one URL, the same tables and statements on both.

pub mod accounts;
pub mod audit;
pub mod objects;
pub mod schema;
pub mod secrets;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::Context as _;
use sqlx::any::AnyPoolOptions;
use sqlx::{Any, AnyConnection, AnyPool, Executor as _, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

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
}

/// A transaction and, on SQLite, the right to write.
pub struct Tx {
    inner: Transaction<'static, Any>,
    _writer: Option<OwnedMutexGuard<()>>,
}

impl Tx {
    pub fn conn(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }

    pub async fn commit(self) -> sqlx::Result<()> {
        self.inner.commit().await
    }

    pub async fn rollback(self) -> sqlx::Result<()> {
        self.inner.rollback().await
    }
}

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
            .after_connect(move |conn, _| {
                Box::pin(async move {
                    if backend == Backend::Sqlite {
                        // FULL: a commit is on the disk before it is acknowledged.
                        conn.execute("PRAGMA busy_timeout = 10000").await?;
                        conn.execute("PRAGMA journal_mode = WAL").await?;
                        conn.execute("PRAGMA synchronous = FULL").await?;
                    }
                    Ok(())
                })
            })
            .connect(&full)
            .await
            .with_context(|| format!("cannot open the {backend:?} database"))?;
        let store = Store { pool, backend, cipher: Arc::new(cipher), writer: Arc::default() };
        store.migrate().await.context("cannot prepare the tables")?;
        Ok(store)
    }

    pub async fn read(&self) -> sqlx::Result<Tx> {
        let begin = match self.backend {
            Backend::Sqlite => "BEGIN",
            Backend::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        Ok(Tx { inner: self.begin(begin).await?, _writer: None })
    }

    /// Runs to its end even if the caller goes away (a client that hangs up): a connection given back in the
    /// middle of its BEGIN would be in a transaction of which its pool knows nothing.
    pub async fn begin(&self, how: &'static str) -> sqlx::Result<Transaction<'static, Any>> {
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
                Ok(Tx { inner, _writer: Some(guard) })
            }
            Backend::Postgres => {
                let inner = self.begin("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
                Ok(Tx { inner, _writer: None })
            }
        }
    }

    async fn migrate(&self) -> sqlx::Result<()> {
        let mut tx = match self.backend {
            Backend::Sqlite => self.write().await?,
            Backend::Postgres => {
                let mut inner = self.begin("BEGIN").await?;
                // Several processes may start at once.
                (&mut *inner).execute("SELECT pg_advisory_xact_lock(7351)").await?;
                Tx { inner, _writer: None }
            }
        };
        tx.conn().execute("CREATE TABLE IF NOT EXISTS migrations (version BIGINT PRIMARY KEY)").await?;
        let done: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM migrations")
            .fetch_one(tx.conn())
            .await?;
        for (i, statements) in schema::MIGRATIONS.iter().enumerate().skip(done as usize) {
            for s in statements.iter() {
                tx.conn().execute(*s).await?;
            }
            sqlx::query("INSERT INTO migrations (version) VALUES ($1)")
                .bind(i as i64 + 1)
                .execute(tx.conn())
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
