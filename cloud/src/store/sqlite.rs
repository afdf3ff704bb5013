//! SQLite. Statements run in the thread of the caller: with WAL a reader waits for nobody, what a call looks for is in
//! memory, and handing each statement to another thread costs more than the statement. Only the end of a change, which
//! waits for the disk, runs in a thread for blocking work.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, Statement};
use tokio::sync::OwnedMutexGuard;

use super::{Arg, Count, Error, Result, private};

/// Statements that a connection keeps prepared; there are fewer in all.
const PREPARED: usize = 256;
/// Connections for reading that are kept for the next call.
const IDLE: usize = 8;
/// How long a change waits for another process that writes.
const BUSY: Duration = Duration::from_secs(10);

/// One database file.
pub struct Database {
    path: String,
    readers: Mutex<Vec<Connection>>,
    writer: Mutex<Option<Connection>>,
    /// SQLite has one writer; waiting here is fair, waiting in SQLite is not.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Why the last change could not be written, if that was the disk's fault.
    trouble: Mutex<Option<String>>,
}

impl Database {
    /// Opens the file; makes it if it is not there.
    pub fn open(path: &str) -> Result<Arc<Database>> {
        // Without a file: a database in memory. SQLite gives its log and its index the permissions of the file.
        if !path.is_empty() && !path.starts_with(':') {
            private::claim(Path::new(path), "the database").map_err(Error::File)?;
            for beside in ["-wal", "-shm", "-journal"] {
                private::narrow(Path::new(&format!("{path}{beside}")), "the log of the database");
            }
        }
        let db = Database {
            path: path.to_owned(),
            readers: Mutex::default(),
            writer: Mutex::default(),
            turn: Arc::default(),
            trouble: Mutex::default(),
        };
        let writer = db.connect_writer()?;
        db.put_back(writer, true);
        Ok(Arc::new(db))
    }

    fn connect_writer(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags)?;
        conn.busy_timeout(BUSY)?;
        // FULL: a commit is on the disk before it is acknowledged.
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
        // From here on `begin` waits, without holding a thread.
        conn.busy_timeout(Duration::ZERO)?;
        conn.set_prepared_statement_cache_capacity(PREPARED);
        Ok(conn)
    }

    fn connect_reader(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags)?;
        conn.busy_timeout(BUSY)?;
        conn.set_prepared_statement_cache_capacity(PREPARED);
        Ok(conn)
    }

    fn put_back(&self, conn: Connection, writes: bool) {
        if writes {
            *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(conn);
            return;
        }
        let mut idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(conn);
        }
    }

    /// Logs once that changes cannot be written, and once that they can again.
    fn note<T>(&self, written: &Result<T>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match written {
            Ok(_) if trouble.take().is_some() => {
                tracing::info!(event = "database-written", path = self.path, "can be written again");
            }
            Err(error) if error.is_disk() => {
                let why = error.to_string();
                if trouble.as_ref() != Some(&why) {
                    tracing::error!(
                        event = "database-failed",
                        path = self.path,
                        why,
                        "cannot be written: calls that change something are refused until it can"
                    );
                    *trouble = Some(why);
                }
            }
            _ => {}
        }
    }

    /// A transaction that only reads; it begins with its first statement.
    pub fn read(self: &Arc<Database>, count: Count) -> Result<Session> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let conn = idle.map_or_else(|| self.connect_reader(), Ok)?;
        Ok(Session { conn: Some(Mutex::new(conn)), begun: false, home: self.clone(), turn: None, count })
    }

    /// A transaction that changes something.
    pub async fn write(self: &Arc<Database>, count: Count) -> Result<Session> {
        let turn = self.turn.clone().lock_owned().await;
        let idle = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let conn = idle.map_or_else(|| self.connect_writer(), Ok);
        if conn.is_err() {
            self.note(&conn);
        }
        let conn = conn?;
        let mut session = Session {
            conn: Some(Mutex::new(conn)),
            begun: false,
            home: self.clone(),
            turn: Some(turn),
            count,
        };
        let start = Instant::now();
        loop {
            match session.begin("BEGIN IMMEDIATE") {
                Err(Error::Sqlite(e)) if is_busy(&e) && start.elapsed() < BUSY => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Err(error) => {
                    // One that was opened while the disk was read-only stays so.
                    session.conn = None;
                    let failed = Err(error);
                    self.note(&failed);
                    return failed;
                }
                Ok(()) => return Ok(session),
            }
        }
    }
}

fn is_busy(e: &rusqlite::Error) -> bool {
    e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}

/// A transaction: all of it sees one state of the database.
pub struct Session {
    /// The lock is never taken: it lets calls that hold a session move between threads.
    conn: Option<Mutex<Connection>>,
    begun: bool,
    home: Arc<Database>,
    /// The right to write.
    turn: Option<OwnedMutexGuard<()>>,
    count: Count,
}

impl Session {
    fn begin(&mut self, how: &str) -> Result<()> {
        self.count.add(1);
        self.conn()?.prepare_cached(how)?.execute([])?;
        self.begun = true;
        Ok(())
    }

    fn conn(&mut self) -> Result<&mut Connection> {
        let conn = self.conn.as_mut().ok_or(Error::Over)?;
        Ok(conn.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// All rows of a statement, each as `read` makes it.
    pub fn query<T>(
        &mut self,
        sql: &str,
        args: &[Arg],
        read: &mut dyn FnMut(&rusqlite::Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        if !self.begun {
            self.begin("BEGIN")?;
        }
        let mut statement = self.conn()?.prepare_cached(sql)?;
        bind(&mut statement, args)?;
        let mut rows = statement.raw_query();
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            out.push(read(row)?);
        }
        Ok(out)
    }

    /// Runs a statement that changes something; returns how many rows it changed.
    pub fn execute(&mut self, sql: &str, args: &[Arg]) -> Result<u64> {
        if self.turn.is_none() {
            return Err(Error::ReadOnly);
        }
        let home = self.home.clone();
        let mut statement = self.conn()?.prepare_cached(sql)?;
        bind(&mut statement, args)?;
        let done = statement.raw_execute().map(|rows| rows as u64).map_err(Error::from);
        // Whether it can be written shows at the end of the change.
        if done.is_err() {
            home.note(&done);
        }
        done
    }

    /// Keeps the changes. Runs to its end even if the caller goes away.
    pub async fn commit(mut self) -> Result<()> {
        if self.turn.is_none() {
            return self.finish("ROLLBACK");
        }
        let home = self.home.clone();
        let done = tokio::task::spawn_blocking(move || self.finish("COMMIT")).await;
        let done = done.unwrap_or(Err(Error::Over));
        home.note(&done);
        done
    }

    pub fn rollback(mut self) -> Result<()> {
        self.finish("ROLLBACK")
    }

    fn finish(&mut self, how: &str) -> Result<()> {
        let Some(conn) = self.conn.take() else { return Ok(()) };
        let conn = conn.into_inner().unwrap_or_else(PoisonError::into_inner);
        // After some failures, of a full disk among them, SQLite has rolled back by itself.
        let over = how == "ROLLBACK" && conn.is_autocommit();
        if self.begun && !over {
            self.count.add(1);
            conn.prepare_cached(how).and_then(|mut s| s.execute([]))?;
        }
        self.home.put_back(conn, self.turn.is_some());
        Ok(())
    }
}

impl Drop for Session {
    /// A connection whose transaction does not end is closed.
    fn drop(&mut self) {
        if let Err(error) = self.finish("ROLLBACK") {
            tracing::warn!(%error, "cannot end a transaction");
        }
    }
}

/// SQLite numbers `$N` in the order in which they appear.
fn bind(statement: &mut Statement<'_>, args: &[Arg]) -> Result<()> {
    for place in 1..=statement.parameter_count() {
        let number = statement.parameter_name(place).and_then(|n| n.get(1..)?.parse::<usize>().ok());
        match number.and_then(|n| args.get(n.checked_sub(1)?)) {
            Some(Arg::Null) => statement.raw_bind_parameter(place, None::<i64>)?,
            Some(Arg::Int(v)) => statement.raw_bind_parameter(place, *v)?,
            Some(Arg::Real(v)) => statement.raw_bind_parameter(place, *v)?,
            Some(Arg::Text(v)) => statement.raw_bind_parameter(place, v)?,
            None => return Err(rusqlite::Error::InvalidParameterCount(place, args.len()).into()),
        }
    }
    Ok(())
}
