//! Resources as documents: one row each, found by kind and id, listed by owner or parent.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::conn::{Arg, Row, Tx};
use crate::args;
use crate::proto::error::Result;

/// A resource. `body` holds its fields under their names in the API.
#[derive(Clone, Debug)]
pub struct Object {
    pub kind: String,
    pub id: String,
    pub uid: i64,
    pub region: String,
    /// The resource that this one is part of, or empty.
    pub parent: String,
    pub name: String,
    pub seq: i64,
    pub body: Map<String, Value>,
}

impl Object {
    pub fn str(&self, field: &str) -> &str {
        self.body.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn int(&self, field: &str) -> i64 {
        self.body.get(field).and_then(Value::as_i64).unwrap_or_default()
    }

    pub fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.body.insert(field.to_owned(), value.into());
    }

    fn from_row(row: &Row) -> Result<Object> {
        Ok(Object {
            kind: row.string(0)?,
            id: row.string(1)?,
            uid: row.int(2)?,
            region: row.string(3)?,
            parent: row.string(4)?,
            name: row.string(5)?,
            seq: row.int(6)?,
            body: serde_json::from_str(row.text(7)?)?,
        })
    }
}

const COLUMNS: &str = "kind, id, uid, region, parent, name, seq, body";

/// What to list. Every field narrows the result.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub uid: Option<i64>,
    pub region: Option<String>,
    pub parent: Option<String>,
    pub name: Option<String>,
    pub ids: Option<Vec<String>>,
}

impl Filter {
    fn sql(&self, kind: &str) -> (String, Vec<Arg>) {
        let mut args = vec![Arg::Text(kind.to_owned())];
        let mut sql = String::from(" WHERE kind = $1");
        let mut add = |column: &str, arg: Arg| {
            args.push(arg);
            sql.push_str(&format!(" AND {column} = ${}", args.len()));
        };
        if let Some(v) = self.uid {
            add("uid", Arg::Int(v));
        }
        for (column, v) in [("region", &self.region), ("parent", &self.parent), ("name", &self.name)] {
            if let Some(v) = v {
                add(column, Arg::Text(v.clone()));
            }
        }
        if let Some(ids) = &self.ids {
            let none = ids.is_empty();
            let marks = if none { "''".to_owned() } else { marks(args.len() + 1, ids.len()) };
            sql.push_str(&format!(" AND id IN ({marks})"));
            args.extend(ids.iter().cloned().map(Arg::Text));
        }
        (sql, args)
    }
}

pub async fn get(tx: &mut Tx, kind: &str, id: &str) -> Result<Option<Object>> {
    let sql = format!("SELECT {COLUMNS} FROM objects WHERE kind = $1 AND id = $2");
    let row = tx.row(&sql, args![kind, id]).await?;
    row.as_ref().map(Object::from_row).transpose()
}

pub async fn put(tx: &mut Tx, o: &Object) -> Result<()> {
    sqlx::query(
        "INSERT INTO objects (kind, id, uid, region, parent, name, seq, body)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (kind, id) DO UPDATE SET name = excluded.name, parent = excluded.parent,
             body = excluded.body",
    )
    .bind(o.kind.clone())
    .bind(o.id.clone())
    .bind(o.uid)
    .bind(o.region.clone())
    .bind(o.parent.clone())
    .bind(o.name.clone())
    .bind(o.seq)
    .bind(serde_json::to_string(&o.body)?)
    .execute(tx.writer()?)
    .await?;
    Ok(())
}

pub async fn delete(tx: &mut Tx, kind: &str, id: &str) -> Result<()> {
    sqlx::query("DELETE FROM objects WHERE kind = $1 AND id = $2")
        .bind(kind.to_owned())
        .bind(id.to_owned())
        .execute(tx.writer()?)
        .await?;
    Ok(())
}

pub async fn delete_children(tx: &mut Tx, kind: &str, parent: &str) -> Result<()> {
    sqlx::query("DELETE FROM objects WHERE kind = $1 AND parent = $2")
        .bind(kind.to_owned())
        .bind(parent.to_owned())
        .execute(tx.writer()?)
        .await?;
    Ok(())
}

pub async fn count(tx: &mut Tx, kind: &str, filter: &Filter) -> Result<i64> {
    let (place, args) = filter.sql(kind);
    let sql = format!("SELECT COUNT(*) FROM objects{place}");
    let row = tx.row(&sql, args).await?;
    Ok(row.map_or(Ok(0), |r| r.int(0))?)
}

/// In the order of creation; `limit` and `offset` cut out a page.
pub async fn list(tx: &mut Tx, kind: &str, filter: &Filter, page: Option<(i64, i64)>) -> Result<Vec<Object>> {
    let (place, args) = filter.sql(kind);
    let mut sql = format!("SELECT {COLUMNS} FROM objects{place} ORDER BY seq, id");
    if let Some((limit, offset)) = page {
        sql.push_str(&format!(" LIMIT {limit} OFFSET {offset}"));
    }
    let rows = tx.rows(&sql, args).await?;
    rows.iter().map(Object::from_row).collect()
}

pub async fn link(tx: &mut Tx, kind: &str, a: &str, b: &str, at: i64) -> Result<()> {
    sqlx::query("INSERT INTO links (kind, a, b, created) VALUES ($1, $2, $3, $4)")
        .bind(kind.to_owned())
        .bind(a.to_owned())
        .bind(b.to_owned())
        .bind(at)
        .execute(tx.writer()?)
        .await?;
    Ok(())
}

/// False if there was no such link.
pub async fn unlink(tx: &mut Tx, kind: &str, a: &str, b: &str) -> Result<bool> {
    let done = sqlx::query("DELETE FROM links WHERE kind = $1 AND a = $2 AND b = $3")
        .bind(kind.to_owned())
        .bind(a.to_owned())
        .bind(b.to_owned())
        .execute(tx.writer()?)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// What `a` links to, oldest first.
pub async fn links_from(tx: &mut Tx, kind: &str, a: &str) -> Result<Vec<String>> {
    let sql = "SELECT b FROM links WHERE kind = $1 AND a = $2 ORDER BY created, b";
    Ok(tx.texts(sql, args![kind, a]).await?)
}

/// What links to `b`, oldest first.
pub async fn links_to(tx: &mut Tx, kind: &str, b: &str) -> Result<Vec<String>> {
    let sql = "SELECT a FROM links WHERE kind = $1 AND b = $2 ORDER BY created, a";
    Ok(tx.texts(sql, args![kind, b]).await?)
}

/// How many link to each of the targets; those to which nothing links are left out.
pub async fn count_links_to(tx: &mut Tx, kind: &str, to: &[&str]) -> Result<HashMap<String, i64>> {
    let mut out = HashMap::new();
    for part in to.chunks(CHUNK) {
        let places = marks(2, part.len());
        let sql = format!("SELECT b, COUNT(*) FROM links WHERE kind = $1 AND b IN ({places}) GROUP BY b");
        let args = std::iter::once(kind).chain(part.iter().copied()).map(Arg::from).collect();
        for r in tx.rows(&sql, args).await? {
            out.insert(r.string(0)?, r.int(1)?);
        }
    }
    Ok(out)
}

/// What links to each of the targets, oldest first.
pub async fn all_links_to(tx: &mut Tx, kind: &str, to: &[&str]) -> Result<HashMap<String, Vec<String>>> {
    let mut out: HashMap<String, Vec<String>> = HashMap::new();
    for part in to.chunks(CHUNK) {
        let places = marks(2, part.len());
        let sql = format!("SELECT b, a FROM links WHERE kind = $1 AND b IN ({places}) ORDER BY created, a");
        let args = std::iter::once(kind).chain(part.iter().copied()).map(Arg::from).collect();
        for r in tx.rows(&sql, args).await? {
            out.entry(r.string(0)?).or_default().push(r.string(1)?);
        }
    }
    Ok(out)
}

/// `$1, $2, ...` for a list of values.
pub fn marks(from: usize, count: usize) -> String {
    (0..count).map(|i| format!("${}", from + i)).collect::<Vec<_>>().join(", ")
}

/// Kind and target of every link of a gateway.
pub type Links = Vec<(String, String)>;

/// The links of each of the gateways.
pub async fn all_links(tx: &mut Tx, of: &[&str]) -> Result<HashMap<String, Links>> {
    let mut out: HashMap<String, Links> = HashMap::new();
    for part in of.chunks(CHUNK) {
        let sql = format!(
            "SELECT a, kind, b FROM links WHERE kind IN ('acl', 'qos', 'ccn', 'flowlog', 'vbr')
             AND a IN ({}) ORDER BY created, b",
            marks(1, part.len())
        );
        for r in tx.rows(&sql, part.iter().map(|a| Arg::from(*a)).collect()).await? {
            out.entry(r.string(0)?).or_default().push((r.string(1)?, r.string(2)?));
        }
    }
    Ok(out)
}

/// Values in one statement; both databases take far more.
pub const CHUNK: usize = 500;
