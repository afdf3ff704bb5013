//! PostgreSQL, by a pool of connections.

use std::time::Duration;

use sqlx::postgres::{PgPoolOptions, PgRow};
use sqlx::{Connection as _, Executor as _, PgPool, Postgres, Transaction};

use super::{Arg, Result};

/// A change, on the disk as the server's own setting says.
const CHANGE: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL synchronous_commit TO DEFAULT";
const READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ";
const MIGRATION: &str = "BEGIN; SET LOCAL synchronous_commit TO DEFAULT";
/// A connection that has rested for longer is tried before it is used.
const RESTED: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct Database {
    pool: PgPool,
}

impl Database {
    pub async fn open(url: &str, connections: u32) -> Result<Database> {
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .test_before_acquire(false)
            .before_acquire(|conn, meta| {
                Box::pin(async move { Ok(meta.idle_for < RESTED || conn.ping().await.is_ok()) })
            })
            .after_connect(|conn, _| {
                Box::pin(async move {
                    // Of a read only its nonce is kept; a change turns this back.
                    conn.execute("SET synchronous_commit TO OFF").await?;
                    Ok(())
                })
            })
            .connect(url)
            .await?;
        Ok(Database { pool })
    }

    pub async fn read(&self) -> Result<Session> {
        self.begin(READ).await
    }

    pub async fn write(&self) -> Result<Session> {
        self.begin(CHANGE).await
    }

    /// A transaction that only one process is in at a time: several may start at once.
    pub async fn migrate(&self) -> Result<Session> {
        let mut session = self.begin(MIGRATION).await?;
        (&mut *session.0).execute("SELECT pg_advisory_xact_lock(7351)").await?;
        Ok(session)
    }

    /// Runs to its end even if the caller goes away (a client that hangs up): a connection given back in the
    /// middle of its BEGIN would be in a transaction of which its pool knows nothing.
    async fn begin(&self, how: &'static str) -> Result<Session> {
        let pool = self.pool.clone();
        match tokio::spawn(async move { pool.begin_with(how).await }).await {
            Ok(begun) => Ok(Session(begun?)),
            Err(_) => Err(sqlx::Error::WorkerCrashed.into()),
        }
    }
}

/// A transaction.
pub struct Session(Transaction<'static, Postgres>);

impl Session {
    pub async fn query(&mut self, sql: &str, args: Vec<Arg>) -> Result<Vec<PgRow>> {
        Ok(bound(sql, args).fetch_all(&mut *self.0).await?)
    }

    pub async fn execute(&mut self, sql: &str, args: Vec<Arg>) -> Result<u64> {
        Ok(bound(sql, args).execute(&mut *self.0).await?.rows_affected())
    }

    pub async fn commit(self) -> Result<()> {
        Ok(self.0.commit().await?)
    }

    pub async fn rollback(self) -> Result<()> {
        Ok(self.0.rollback().await?)
    }
}

type Query<'q> = sqlx::query::Query<'q, Postgres, sqlx::postgres::PgArguments>;

fn bound(sql: &str, args: Vec<Arg>) -> Query<'_> {
    args.into_iter().fold(sqlx::query(sql), |query, arg| match arg {
        // Columns that may be empty are numbers with a fraction.
        Arg::Null => query.bind(None::<f64>),
        Arg::Int(v) => query.bind(v),
        Arg::Real(v) => query.bind(v),
        Arg::Text(v) => query.bind(v),
    })
}
