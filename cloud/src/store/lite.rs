//! Connections to SQLite that only read. Statements run in the thread of the caller: with WAL a reader waits for
//! nobody, and what a describe call asks for is in memory.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Statement};

use super::Count;
use super::conn::{Arg, Row};

/// Statements that a connection keeps prepared; there are fewer in all.
const PREPARED: usize = 256;
/// Connections that are kept for the next call.
const IDLE: usize = 8;

/// The readers of one database file.
pub struct Readers {
    path: String,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    /// `None` if others cannot open the database by its path, as one in memory.
    pub fn open(path: &str) -> Option<Arc<Readers>> {
        let readers = Readers { path: path.to_owned(), idle: Mutex::default() };
        let first = readers.connect().ok()?;
        readers.keep(first);
        Some(Arc::new(readers))
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags)?;
        conn.busy_timeout(std::time::Duration::from_secs(10))?;
        conn.set_prepared_statement_cache_capacity(PREPARED);
        Ok(conn)
    }

    fn keep(&self, conn: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(conn);
        }
    }

    /// A transaction; it begins with its first statement.
    pub fn begin(self: &Arc<Readers>, count: Count) -> sqlx::Result<Reader> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let conn = match idle {
            Some(conn) => conn,
            None => self.connect().map_err(failure)?,
        };
        Ok(Reader { conn: Some(Mutex::new(conn)), begun: false, home: self.clone(), count })
    }
}

/// A transaction that only reads: all of it sees one state of the database.
pub struct Reader {
    /// The lock is never taken: it lets calls that hold a reader move between threads.
    conn: Option<Mutex<Connection>>,
    begun: bool,
    home: Arc<Readers>,
    count: Count,
}

impl Reader {
    pub fn rows(&mut self, sql: &str, args: &[Arg]) -> sqlx::Result<Vec<Row>> {
        let gone = || sqlx::Error::PoolClosed;
        let conn = self.conn.as_mut().ok_or_else(gone)?.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !self.begun {
            self.count.add(1);
            conn.prepare_cached("BEGIN").and_then(|mut s| s.execute([])).map_err(failure)?;
            self.begun = true;
        }
        let mut statement = conn.prepare_cached(sql).map_err(failure)?;
        read(&mut statement, args).map_err(failure)
    }

    pub fn end(mut self) -> sqlx::Result<()> {
        self.finish().map_err(failure)
    }

    fn finish(&mut self) -> rusqlite::Result<()> {
        let Some(conn) = self.conn.take() else { return Ok(()) };
        let conn = conn.into_inner().unwrap_or_else(PoisonError::into_inner);
        if self.begun {
            self.count.add(1);
            conn.prepare_cached("ROLLBACK").and_then(|mut s| s.execute([]))?;
        }
        self.home.keep(conn);
        Ok(())
    }
}

impl Drop for Reader {
    /// A connection whose transaction does not end is closed.
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!(%error, "cannot end a read");
        }
    }
}

fn read(statement: &mut Statement<'_>, args: &[Arg]) -> rusqlite::Result<Vec<Row>> {
    // SQLite numbers `$N` in the order in which they appear.
    for place in 1..=statement.parameter_count() {
        let name = statement.parameter_name(place).and_then(|n| n.get(1..)?.parse::<usize>().ok());
        let arg = name.and_then(|n| args.get(n.checked_sub(1)?));
        match arg {
            Some(Arg::Int(v)) => statement.raw_bind_parameter(place, *v)?,
            Some(Arg::Text(v)) => statement.raw_bind_parameter(place, v)?,
            None => return Err(rusqlite::Error::InvalidParameterCount(place, args.len())),
        }
    }
    let columns = statement.column_count();
    let mut rows = statement.raw_query();
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let mut cells = Vec::with_capacity(columns);
        for i in 0..columns {
            cells.push(match row.get_ref(i)? {
                ValueRef::Integer(v) => Arg::Int(v),
                ValueRef::Text(_) => Arg::Text(row.get(i)?),
                other => {
                    return Err(rusqlite::Error::InvalidColumnType(i, String::new(), other.data_type()));
                }
            });
        }
        out.push(Row::lite(cells));
    }
    Ok(out)
}

fn failure(e: rusqlite::Error) -> sqlx::Error {
    sqlx::Error::AnyDriverError(Box::new(e))
}
