//! Storage: SQLite or PostgreSQL behind one URL, the same tables and statements on both.
//!
//! This is the only layer with SQL in it. It knows objects by their [`Kind`] and by the columns that lists filter and
//! sort by; what an object is made of is the business of the layer above.

pub mod accounts;
pub mod audit;
pub mod devices;
mod error;
pub mod gateways;
mod kind;
pub mod links;
pub mod nonces;
pub mod objects;
pub mod offers;
#[cfg(feature = "postgres")]
mod postgres;
pub mod private;
mod repeat;
mod schema;
pub mod secrets;
mod sqlite;
pub mod tokens;
mod tx;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;

pub use error::{Error, Result};
pub use kind::{Kind, Link};
pub use repeat::{Attempts, Conflict};
pub use tx::{Arg, Row, Tx};

use crate::repeated;
use secrets::Cipher;

/// A database, and the key of the secrets in it.
#[derive(Clone)]
pub struct Store {
    database: Database,
    pub cipher: Arc<Cipher>,
    pub statements: Count,
}

#[derive(Clone)]
enum Database {
    Sqlite(Arc<sqlite::Database>),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Database),
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

impl Store {
    /// Opens `sqlite:///path` or `postgres://user:password@host/name` and brings its tables up to date.
    ///
    /// # Errors
    /// A URL of another kind, a database that cannot be reached, a key file that cannot be read.
    pub async fn open(url: &str, key_file: Option<&str>, connections: u32) -> anyhow::Result<Store> {
        let (database, key) = if let Some(file) = sqlite_file(url) {
            let key = key_file.map_or_else(|| format!("{file}.key"), str::to_owned);
            let opened = sqlite::Database::open(file).context("cannot open the SQLite database")?;
            (Database::Sqlite(opened), key)
        } else {
            anyhow::ensure!(
                url.starts_with("postgres:") || url.starts_with("postgresql:"),
                "--db takes sqlite:// or postgres:// URLs"
            );
            let key = key_file.context("PostgreSQL needs --key-file, the same for all processes")?;
            (open_postgres(url, connections).await?, key.to_owned())
        };
        let missing = !Path::new(&key).exists();
        let cipher = Arc::new(Cipher::load(&key)?);
        let store = Store { database, cipher, statements: Count::default() };
        store.migrate().await.context("cannot prepare the tables")?;
        if !store.opens_what_is_sealed().await? {
            // A key that was made only now opens nothing: what is sealed from now on could be opened by it alone, and the
            // rest by none when the old one comes back.
            if missing {
                std::fs::remove_file(&key).with_context(|| format!("cannot remove {key}"))?;
                anyhow::bail!(
                    "the key file {key} is missing, and secrets in the database are sealed by it; put it back. If it is \
                     lost, make a new one (openssl rand -hex 32) and new access keys"
                );
            }
            tracing::warn!(key, "secrets in the database are sealed by another key: they cannot be read");
        }
        Ok(store)
    }

    /// Whether the key is the one by which an access key is sealed, if there is one.
    async fn opens_what_is_sealed(&self) -> Result<bool> {
        let mut tx = self.read().await?;
        let sealed =
            tx.row("SELECT secret FROM access_keys LIMIT 1", Vec::new(), |row| row.string(0)).await?;
        tx.commit().await?;
        Ok(sealed.is_none_or(|s| self.cipher.open(&s).is_ok()))
    }

    /// A transaction that sees one state of the database. On PostgreSQL it may write the nonce of its request.
    pub async fn read(&self) -> Result<Tx> {
        match &self.database {
            Database::Sqlite(db) => Ok(Tx::sqlite(db.read(self.statements.clone())?, &self.statements)),
            #[cfg(feature = "postgres")]
            Database::Postgres(db) => Ok(Tx::postgres(db.read().await?, &self.statements)),
        }
    }

    /// A transaction that may change everything. SQLite has one writer at a time; others wait here for their turn.
    pub async fn write(&self) -> Result<Tx> {
        match &self.database {
            Database::Sqlite(db) => {
                Ok(Tx::sqlite(db.write(self.statements.clone()).await?, &self.statements))
            }
            #[cfg(feature = "postgres")]
            Database::Postgres(db) => Ok(Tx::postgres(db.write().await?, &self.statements)),
        }
    }

    /// Carries out one statement in a transaction of its own; how many rows it has changed.
    async fn change(&self, sql: &str, args: Vec<Arg>) -> Result<u64> {
        repeated!(async {
            let mut tx = self.write().await?;
            let rows = tx.execute(sql, args.clone()).await?;
            tx.commit().await.map(|()| rows)
        })
    }

    /// Whether other processes may use the database at the same time.
    pub fn shared(&self) -> bool {
        !matches!(self.database, Database::Sqlite(_))
    }

    /// Whether the database answers.
    pub async fn ready(&self) -> bool {
        let answer = async {
            let mut tx = self.read().await?;
            tx.row("SELECT 1", Vec::new(), |_| Ok(())).await?;
            tx.rollback().await
        };
        answer.await.is_ok()
    }

    async fn migrate(&self) -> Result<()> {
        let mut tx = match &self.database {
            Database::Sqlite(_) => self.write().await?,
            #[cfg(feature = "postgres")]
            Database::Postgres(db) => Tx::postgres(db.migrate().await?, &self.statements),
        };
        schema::migrate(&mut tx).await?;
        tx.commit().await
    }
}

#[cfg(feature = "postgres")]
async fn open_postgres(url: &str, connections: u32) -> anyhow::Result<Database> {
    let opened = postgres::Database::open(url, connections).await;
    Ok(Database::Postgres(opened.context("cannot open the PostgreSQL database")?))
}

#[cfg(not(feature = "postgres"))]
async fn open_postgres(_: &str, _: u32) -> anyhow::Result<Database> {
    anyhow::bail!("this program was built without PostgreSQL")
}

/// The file of an SQLite database.
pub fn sqlite_file(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("sqlite:")?.trim_start_matches("//");
    rest.split('?').next()
}
