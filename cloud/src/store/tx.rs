//! A transaction, whichever database it is on.

use rusqlite::types::ValueRef;

use super::{Count, Error, Result, sqlite};

#[cfg(feature = "postgres")]
use super::postgres;

/// The value of a place in a statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
}

impl From<i64> for Arg {
    fn from(v: i64) -> Arg {
        Arg::Int(v)
    }
}

impl From<Option<f64>> for Arg {
    fn from(v: Option<f64>) -> Arg {
        v.map_or(Arg::Null, Arg::Real)
    }
}

impl From<&str> for Arg {
    fn from(v: &str) -> Arg {
        Arg::Text(v.to_owned())
    }
}

impl From<String> for Arg {
    fn from(v: String) -> Arg {
        Arg::Text(v)
    }
}

impl From<&String> for Arg {
    fn from(v: &String) -> Arg {
        Arg::Text(v.clone())
    }
}

/// The values of the places `$1`, `$2`, ... of a statement.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::Arg::from($value)),*] };
}

/// A row of an answer, read by the number of the column.
pub enum Row<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    #[cfg(feature = "postgres")]
    Postgres(&'a sqlx::postgres::PgRow),
}

impl Row<'_> {
    /// # Errors
    /// The column has no number.
    pub fn int(&self, column: usize) -> Result<i64> {
        match self {
            Row::Sqlite(row) => row.get_ref(column)?.as_i64().map_err(|_| Error::Column(column)),
            #[cfg(feature = "postgres")]
            Row::Postgres(row) => Ok(sqlx::Row::try_get(*row, column)?),
        }
    }

    /// # Errors
    /// The column has no text.
    pub fn text(&self, column: usize) -> Result<&str> {
        match self {
            Row::Sqlite(row) => row.get_ref(column)?.as_str().map_err(|_| Error::Column(column)),
            #[cfg(feature = "postgres")]
            Row::Postgres(row) => Ok(sqlx::Row::try_get(*row, column)?),
        }
    }

    /// # Errors
    /// The column has no text.
    pub fn string(&self, column: usize) -> Result<String> {
        self.text(column).map(str::to_owned)
    }

    /// A number with a fraction, or nothing.
    ///
    /// # Errors
    /// The column has something else.
    pub fn real(&self, column: usize) -> Result<Option<f64>> {
        match self {
            Row::Sqlite(row) => match row.get_ref(column)? {
                ValueRef::Null => Ok(None),
                ValueRef::Real(v) => Ok(Some(v)),
                ValueRef::Integer(v) => Ok(Some(v as f64)),
                _ => Err(Error::Column(column)),
            },
            #[cfg(feature = "postgres")]
            Row::Postgres(row) => Ok(sqlx::Row::try_get(*row, column)?),
        }
    }
}

/// A transaction. One that is dropped without its end has changed nothing.
pub struct Tx {
    inner: Inner,
    count: Count,
}

enum Inner {
    Sqlite(sqlite::Session),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Session),
}

impl Tx {
    pub(super) fn sqlite(session: sqlite::Session, count: &Count) -> Tx {
        Tx { inner: Inner::Sqlite(session), count: count.clone() }
    }

    #[cfg(feature = "postgres")]
    pub(super) fn postgres(session: postgres::Session, count: &Count) -> Tx {
        count.add(1);
        Tx { inner: Inner::Postgres(session), count: count.clone() }
    }

    /// All rows of a statement with the places `$1`, `$2`, ..., each as `read` makes it.
    pub async fn query<T>(
        &mut self,
        sql: &str,
        args: Vec<Arg>,
        mut read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.count.add(1);
        match &mut self.inner {
            Inner::Sqlite(session) => session.query(sql, &args, &mut |row| read(&Row::Sqlite(row))),
            #[cfg(feature = "postgres")]
            Inner::Postgres(session) => {
                let rows = session.query(sql, args).await?;
                rows.iter().map(|row| read(&Row::Postgres(row))).collect()
            }
        }
    }

    /// The first row, if there is one.
    pub async fn row<T>(
        &mut self,
        sql: &str,
        args: Vec<Arg>,
        read: impl FnMut(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        Ok(self.query(sql, args, read).await?.into_iter().next())
    }

    /// The first column of all rows.
    pub async fn texts(&mut self, sql: &str, args: Vec<Arg>) -> Result<Vec<String>> {
        self.query(sql, args, |row| row.string(0)).await
    }

    /// Runs a statement that changes something; returns how many rows it changed.
    ///
    /// # Errors
    /// The transaction only reads, or the database refuses.
    pub async fn execute(&mut self, sql: &str, args: Vec<Arg>) -> Result<u64> {
        self.count.add(1);
        match &mut self.inner {
            Inner::Sqlite(session) => session.execute(sql, &args),
            #[cfg(feature = "postgres")]
            Inner::Postgres(session) => session.execute(sql, args).await,
        }
    }

    /// Keeps what was changed; it is on the disk when this returns.
    pub async fn commit(self) -> Result<()> {
        match self.inner {
            Inner::Sqlite(session) => session.commit().await,
            #[cfg(feature = "postgres")]
            Inner::Postgres(session) => {
                self.count.add(1);
                session.commit().await
            }
        }
    }

    /// Ends a transaction that only reads, or undoes one that changes.
    pub async fn rollback(self) -> Result<()> {
        match self.inner {
            Inner::Sqlite(session) => session.rollback(),
            #[cfg(feature = "postgres")]
            Inner::Postgres(session) => {
                self.count.add(1);
                session.rollback().await
            }
        }
    }
}
