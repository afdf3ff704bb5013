//! A transaction, whichever database it is on, and the few things that statements need of it.
//!
//! Changes go through the pool of sqlx. So do reads on PostgreSQL. Reads on SQLite use a connection of their own in the
//! thread of the caller ([`lite`](super::lite)): handing each statement to another thread costs more than the statement.

use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, Row as _, Transaction};
use tokio::sync::OwnedMutexGuard;

use super::Count;
use super::lite::Reader;

/// The value of a place in a statement.
#[derive(Clone, Debug)]
pub enum Arg {
    Int(i64),
    Text(String),
}

impl From<i64> for Arg {
    fn from(v: i64) -> Arg {
        Arg::Int(v)
    }
}

impl From<&str> for Arg {
    fn from(v: &str) -> Arg {
        Arg::Text(v.to_owned())
    }
}

/// The values of the places of a statement.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::conn::Arg::from($value)),*] };
}

/// A row of an answer, read by the number of the column.
pub struct Row(Cells);

enum Cells {
    Any(AnyRow),
    Lite(Vec<Arg>),
}

impl Row {
    pub(super) fn lite(cells: Vec<Arg>) -> Row {
        Row(Cells::Lite(cells))
    }

    pub fn int(&self, column: usize) -> sqlx::Result<i64> {
        match &self.0 {
            Cells::Any(row) => row.try_get(column),
            Cells::Lite(cells) => match cells.get(column) {
                Some(Arg::Int(v)) => Ok(*v),
                _ => Err(sqlx::Error::ColumnNotFound(format!("number {column}"))),
            },
        }
    }

    pub fn text(&self, column: usize) -> sqlx::Result<&str> {
        match &self.0 {
            Cells::Any(row) => row.try_get(column),
            Cells::Lite(cells) => match cells.get(column) {
                Some(Arg::Text(v)) => Ok(v),
                _ => Err(sqlx::Error::ColumnNotFound(format!("text {column}"))),
            },
        }
    }

    pub fn string(&self, column: usize) -> sqlx::Result<String> {
        self.text(column).map(str::to_owned)
    }
}

pub struct Tx {
    inner: Inner,
    count: Count,
}

enum Inner {
    /// A transaction of the pool and, for changes on SQLite, the right to write.
    Pool(Transaction<'static, Any>, #[allow(dead_code)] Option<OwnedMutexGuard<()>>),
    Lite(Reader),
}

impl Tx {
    pub(super) fn pool(
        inner: Transaction<'static, Any>,
        writer: Option<OwnedMutexGuard<()>>,
        count: Count,
    ) -> Tx {
        count.add(1);
        Tx { inner: Inner::Pool(inner, writer), count }
    }

    pub(super) fn lite(reader: Reader, count: Count) -> Tx {
        Tx { inner: Inner::Lite(reader), count }
    }

    /// All rows of a statement with the places `$1`, `$2`, ...
    pub async fn rows(&mut self, sql: &str, args: Vec<Arg>) -> sqlx::Result<Vec<Row>> {
        self.count.add(1);
        let inner = match &mut self.inner {
            Inner::Lite(reader) => return reader.rows(sql, &args),
            Inner::Pool(inner, _) => inner,
        };
        let mut query = sqlx::query(sql);
        for arg in args {
            query = match arg {
                Arg::Int(v) => query.bind(v),
                Arg::Text(v) => query.bind(v),
            };
        }
        let rows = query.fetch_all(&mut **inner).await?;
        Ok(rows.into_iter().map(|r| Row(Cells::Any(r))).collect())
    }

    /// The first row, if there is one.
    pub async fn row(&mut self, sql: &str, args: Vec<Arg>) -> sqlx::Result<Option<Row>> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// The first column of all rows.
    pub async fn texts(&mut self, sql: &str, args: Vec<Arg>) -> sqlx::Result<Vec<String>> {
        self.rows(sql, args).await?.iter().map(|r| r.string(0)).collect()
    }

    /// For statements that change something; a transaction that only reads on SQLite has no such connection.
    pub fn writer(&mut self) -> sqlx::Result<&mut AnyConnection> {
        self.count.add(1);
        match &mut self.inner {
            Inner::Pool(inner, _) => Ok(inner),
            Inner::Lite(_) => Err(sqlx::Error::Protocol("a change in a transaction that only reads".into())),
        }
    }

    pub async fn commit(self) -> sqlx::Result<()> {
        self.end(true).await
    }

    pub async fn rollback(self) -> sqlx::Result<()> {
        self.end(false).await
    }

    async fn end(self, keep: bool) -> sqlx::Result<()> {
        match self.inner {
            Inner::Pool(inner, _writer) => {
                self.count.add(1);
                if keep { inner.commit().await } else { inner.rollback().await }
            }
            Inner::Lite(reader) => reader.end(),
        }
    }
}
