//! Objects: one row each, found by kind and id, listed by owner or parent. The body is a document; what lists filter and
//! sort by stands in columns beside it.

use std::ops::{Deref, DerefMut};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Arg, Kind, Link, Result, Row, Tx};
use crate::args;

/// The type of the objects of one kind.
pub trait Entity: Serialize + DeserializeOwned + Send + Sync {
    const KIND: Kind;

    /// The values of the columns beside the body.
    fn columns(&self) -> Columns<'_>;
}

/// What lists filter and sort by. A kind leaves empty what it does not have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Columns<'a> {
    pub name: &'a str,
    /// What divides the kind: direction of an ACL rule, edition of a gateway, type of an entry.
    pub variant: &'a str,
    pub status: &'a str,
    /// Model of a gateway.
    pub model: &'a str,
    pub resource_group: &'a str,
    pub description: &'a str,
    /// Enterprise code of a gateway, mail address of a client account, serial number of a probe task's device.
    pub code: &'a str,
    pub priority: i64,
    /// Milliseconds since 1970.
    pub expires: i64,
}

/// A column that lists filter or sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Name,
    Variant,
    Status,
    Model,
    ResourceGroup,
    Description,
    Code,
    Priority,
    Expires,
}

impl Column {
    pub(super) fn sql(self) -> &'static str {
        match self {
            Column::Name => "name",
            Column::Variant => "variant",
            Column::Status => "status",
            Column::Model => "model",
            Column::ResourceGroup => "resource_group",
            Column::Description => "description",
            Column::Code => "code",
            Column::Priority => "priority",
            Column::Expires => "expires",
        }
    }
}

/// An object as it is stored. Its fields are those of the body.
#[derive(Clone, Debug)]
pub struct Stored<T> {
    pub id: String,
    /// The account that owns it.
    pub uid: i64,
    pub region: String,
    /// The object that this one is part of, or empty.
    pub parent: String,
    /// Its place in the order of creation.
    pub seq: i64,
    pub body: T,
}

impl<T> Deref for Stored<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.body
    }
}

impl<T> DerefMut for Stored<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.body
    }
}

impl<T: Entity> Stored<T> {
    fn from_row(row: &Row<'_>) -> Result<Stored<T>> {
        Ok(Stored {
            id: row.string(0)?,
            uid: row.int(1)?,
            region: row.string(2)?,
            parent: row.string(3)?,
            seq: row.int(4)?,
            body: serde_json::from_str(row.text(5)?)?,
        })
    }
}

/// Who owns an object, and where it is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub id: String,
    pub uid: i64,
    pub region: String,
    pub parent: String,
}

impl Identity {
    fn from_row(row: &Row<'_>) -> Result<Identity> {
        Ok(Identity { id: row.string(0)?, uid: row.int(1)?, region: row.string(2)?, parent: row.string(3)? })
    }
}

const IDENTITY: &str = "id, uid, region, parent";
const STORED: &str = "id, uid, region, parent, seq, body";

/// What to list. Every condition narrows the result.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub uid: Option<i64>,
    pub region: Option<String>,
    pub parent: Option<String>,
    pub ids: Option<Vec<String>>,
    conditions: Vec<(String, Vec<Arg>)>,
    order: Option<(Column, bool)>,
}

impl Filter {
    /// Parts of one object.
    pub fn under(parent: &str) -> Filter {
        Filter { parent: Some(parent.to_owned()), ..Filter::default() }
    }

    /// Parts of any of these objects.
    pub fn under_any(parents: &[String]) -> Filter {
        let (parents, args) = list(parents);
        Filter::default().condition(format!("parent IN ({parents})"), args)
    }

    /// What one account owns, in every region.
    pub fn of(uid: i64) -> Filter {
        Filter { uid: Some(uid), ..Filter::default() }
    }

    /// In this region; nothing is every region.
    pub fn in_region(self, region: Option<String>) -> Filter {
        Filter { region, ..self }
    }

    /// Adds a condition on columns of `objects`, with `?` in the places of the values.
    pub fn condition(mut self, sql: impl Into<String>, args: Vec<Arg>) -> Filter {
        self.conditions.push((sql.into(), args));
        self
    }

    /// The column has this value; no value is no condition.
    pub fn equals<V: Into<Arg>>(self, column: Column, value: Option<V>) -> Filter {
        match value {
            Some(v) => self.condition(format!("{} = ?", column.sql()), vec![v.into()]),
            None => self,
        }
    }

    /// The name has this text somewhere in it, in any case of letters; no text is no condition.
    pub fn name_contains(self, text: Option<String>) -> Filter {
        let Some(text) = text else { return self };
        let mut pattern = String::from("%");
        for c in text.chars() {
            if "%_!".contains(c) {
                pattern.push('!');
            }
            pattern.push(c);
        }
        pattern.push('%');
        let sql = format!("LOWER({}) LIKE LOWER(?) ESCAPE '!'", Column::Name.sql());
        self.condition(sql, vec![pattern.as_str().into()])
    }

    /// It is one of these objects; nothing is any object.
    pub fn with_ids(self, ids: Option<Vec<String>>) -> Filter {
        Filter { ids, ..self }
    }

    /// These objects alone, in the same order.
    pub fn only(&self, ids: Vec<String>) -> Filter {
        Filter { ids: Some(ids), order: self.order, ..Filter::default() }
    }

    /// It is this object.
    pub fn with_id(self, id: &str) -> Filter {
        self.condition("id = ?", args![id])
    }

    /// The gateway links to one of the targets.
    pub fn linked(self, link: Link, to: &[String]) -> Filter {
        let (targets, args) = list(to);
        let sql =
            format!("id IN (SELECT a FROM links WHERE kind = '{}' AND b IN ({targets}))", link.as_str());
        self.condition(sql, args)
    }

    /// The gateway links to none of the targets.
    pub fn not_linked(self, link: Link, to: &[String]) -> Filter {
        let (targets, args) = list(to);
        let sql =
            format!("id NOT IN (SELECT a FROM links WHERE kind = '{}' AND b IN ({targets}))", link.as_str());
        self.condition(sql, args)
    }

    /// Whether the gateway has links of this kind.
    pub fn has_links(self, link: Link, has: bool) -> Filter {
        let not = if has { "" } else { "NOT " };
        let sql =
            format!("{not}EXISTS (SELECT 1 FROM links WHERE kind = '{}' AND a = objects.id)", link.as_str());
        self.condition(sql, Vec::new())
    }

    /// By a column first, then in the order of creation; `descending` turns all of it round.
    pub fn order_by(mut self, column: Column, descending: bool) -> Filter {
        self.order = Some((column, descending));
        self
    }

    fn sql(&self, kind: Kind) -> (String, Vec<Arg>) {
        let mut args = args![kind.as_str()];
        let mut sql = String::from(" WHERE kind = $1");
        let mut add = |text: &str, values: Vec<Arg>| {
            sql.push_str(" AND ");
            let mut values = values.into_iter();
            for (i, part) in text.split('?').enumerate() {
                if i > 0 {
                    args.extend(values.next());
                    sql.push_str(&format!("${}", args.len()));
                }
                sql.push_str(part);
            }
        };
        if let Some(v) = self.uid {
            add("uid = ?", args![v]);
        }
        if let Some(v) = &self.region {
            add("region = ?", args![v]);
        }
        if let Some(v) = &self.parent {
            add("parent = ?", args![v]);
        }
        if let Some(ids) = &self.ids {
            let (places, values) = list(ids);
            add(&format!("id IN ({places})"), values);
        }
        for (text, values) in &self.conditions {
            add(text, values.clone());
        }
        (sql, args)
    }

    fn order(&self) -> String {
        match self.order {
            Some((column, false)) => format!("{}, seq, id", column.sql()),
            Some((column, true)) => format!("{} DESC, seq DESC, id DESC", column.sql()),
            None => "seq, id".to_owned(),
        }
    }
}

/// `?, ?` for the values; a list of nothing holds no identifier.
fn list(values: &[String]) -> (String, Vec<Arg>) {
    if values.is_empty() {
        return ("''".to_owned(), Vec::new());
    }
    (vec!["?"; values.len()].join(", "), values.iter().map(Arg::from).collect())
}

pub async fn get<T: Entity>(tx: &mut Tx, id: &str) -> Result<Option<Stored<T>>> {
    let sql = format!("SELECT {STORED} FROM objects WHERE kind = $1 AND id = $2");
    tx.row(&sql, args![T::KIND.as_str(), id], Stored::from_row).await
}

/// Adds the object, or replaces the body and the columns of the one that is there.
pub async fn put<T: Entity>(tx: &mut Tx, o: &Stored<T>) -> Result<()> {
    let sql = "INSERT INTO objects (kind, id, uid, region, parent, seq, body, name, variant, status, model,
             resource_group, description, code, priority, expires)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
         ON CONFLICT (kind, id) DO UPDATE SET parent = excluded.parent, body = excluded.body,
             name = excluded.name, variant = excluded.variant, status = excluded.status,
             model = excluded.model, resource_group = excluded.resource_group,
             description = excluded.description, code = excluded.code, priority = excluded.priority,
             expires = excluded.expires";
    let c = o.body.columns();
    let args = args![
        T::KIND.as_str(),
        &o.id,
        o.uid,
        &o.region,
        &o.parent,
        o.seq,
        serde_json::to_string(&o.body)?,
        c.name,
        c.variant,
        c.status,
        c.model,
        c.resource_group,
        c.description,
        c.code,
        c.priority,
        c.expires
    ];
    tx.execute(sql, args).await.map(|_| ())
}

pub async fn delete(tx: &mut Tx, kind: Kind, id: &str) -> Result<()> {
    tx.execute("DELETE FROM objects WHERE kind = $1 AND id = $2", args![kind.as_str(), id]).await.map(|_| ())
}

pub async fn delete_children(tx: &mut Tx, kind: Kind, parent: &str) -> Result<()> {
    let sql = "DELETE FROM objects WHERE kind = $1 AND parent = $2";
    tx.execute(sql, args![kind.as_str(), parent]).await.map(|_| ())
}

/// Of the parts of an object no more than so many are left; the oldest go.
pub async fn keep_newest(tx: &mut Tx, kind: Kind, parent: &str, most: i64) -> Result<()> {
    let sql = "DELETE FROM objects WHERE kind = $1 AND parent = $2 AND id NOT IN
         (SELECT id FROM objects WHERE kind = $1 AND parent = $2 ORDER BY seq DESC, id DESC LIMIT $3)";
    tx.execute(sql, args![kind.as_str(), parent, most]).await.map(|_| ())
}

pub async fn count(tx: &mut Tx, kind: Kind, filter: &Filter) -> Result<i64> {
    let (place, args) = filter.sql(kind);
    let sql = format!("SELECT COUNT(*) FROM objects{place}");
    Ok(tx.row(&sql, args, |row| row.int(0)).await?.unwrap_or_default())
}

/// What the filter lists, without the objects themselves, in its order.
pub async fn identities(tx: &mut Tx, kind: Kind, filter: &Filter) -> Result<Vec<Identity>> {
    let (sql, args) = select(IDENTITY, kind, filter, None);
    tx.query(&sql, args, Identity::from_row).await
}

/// Those of the objects that exist.
pub async fn identities_of(tx: &mut Tx, kind: Kind, ids: &[&str]) -> Result<Vec<Identity>> {
    let mut out = Vec::new();
    for part in ids.chunks(CHUNK) {
        let places = placeholders(2, part.len());
        let sql = format!("SELECT {IDENTITY} FROM objects WHERE kind = $1 AND id IN ({places})");
        let args = std::iter::once(kind.as_str()).chain(part.iter().copied()).map(Arg::from).collect();
        out.extend(tx.query(&sql, args, Identity::from_row).await?);
    }
    Ok(out)
}

/// In the order of the filter; `limit` and `offset` cut out a page.
pub async fn list_of<T: Entity>(
    tx: &mut Tx,
    filter: &Filter,
    page: Option<(i64, i64)>,
) -> Result<Vec<Stored<T>>> {
    let (sql, args) = select(STORED, T::KIND, filter, page);
    tx.query(&sql, args, Stored::from_row).await
}

/// A page in the order of the filter, and how many rows the whole list has.
pub async fn page_of<T: Entity>(
    tx: &mut Tx,
    filter: &Filter,
    (limit, offset): (i64, i64),
) -> Result<(i64, Vec<Stored<T>>)> {
    let (place, _) = filter.sql(T::KIND);
    let columns = format!("{STORED}, (SELECT COUNT(*) FROM objects{place})");
    let (sql, args) = select(&columns, T::KIND, filter, Some((limit, offset)));
    let mut total = 0;
    let rows = tx
        .query(&sql, args, |row| {
            total = row.int(6)?;
            Stored::from_row(row)
        })
        .await?;
    // A page behind the end has no row to say it.
    if rows.is_empty() && offset > 0 {
        total = count(tx, T::KIND, filter).await?;
    }
    Ok((total, rows))
}

fn select(columns: &str, kind: Kind, filter: &Filter, page: Option<(i64, i64)>) -> (String, Vec<Arg>) {
    let (place, args) = filter.sql(kind);
    let mut sql = format!("SELECT {columns} FROM objects{place} ORDER BY {}", filter.order());
    if let Some((limit, offset)) = page {
        sql.push_str(&format!(" LIMIT {limit} OFFSET {offset}"));
    }
    (sql, args)
}

/// `$1, $2, ...` for a list of values.
pub fn placeholders(from: usize, count: usize) -> String {
    (0..count).map(|i| format!("${}", from + i)).collect::<Vec<_>>().join(", ")
}

/// Values in one statement; both databases take far more.
pub const CHUNK: usize = 500;
