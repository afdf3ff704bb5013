//! Links from gateways to other objects. In a link, `a` is the gateway.

use std::collections::HashMap;

use super::objects::{CHUNK, placeholders};
use super::{Arg, Link, Result, Tx};
use crate::args;

/// Adds a link; `at` (microseconds since 1970) is its place in the order of the links.
///
/// # Errors
/// There is such a link already.
pub async fn add(tx: &mut Tx, link: Link, a: &str, b: &str, at: i64) -> Result<()> {
    let sql = "INSERT INTO links (kind, a, b, created) VALUES ($1, $2, $3, $4)";
    tx.execute(sql, args![link.as_str(), a, b, at]).await.map(|_| ())
}

/// False if there was no such link.
pub async fn remove(tx: &mut Tx, link: Link, a: &str, b: &str) -> Result<bool> {
    let sql = "DELETE FROM links WHERE kind = $1 AND a = $2 AND b = $3";
    Ok(tx.execute(sql, args![link.as_str(), a, b]).await? > 0)
}

/// Removes every link of a gateway.
pub async fn remove_from(tx: &mut Tx, a: &str) -> Result<()> {
    tx.execute("DELETE FROM links WHERE a = $1", args![a]).await.map(|_| ())
}

/// What `a` links to, oldest first.
pub async fn from(tx: &mut Tx, link: Link, a: &str) -> Result<Vec<String>> {
    let sql = "SELECT b FROM links WHERE kind = $1 AND a = $2 ORDER BY created, b";
    tx.texts(sql, args![link.as_str(), a]).await
}

/// What links to `b`, oldest first.
pub async fn to(tx: &mut Tx, link: Link, b: &str) -> Result<Vec<String>> {
    let sql = "SELECT a FROM links WHERE kind = $1 AND b = $2 ORDER BY created, a";
    tx.texts(sql, args![link.as_str(), b]).await
}

fn chunk(link: Link, ids: &[&str]) -> Vec<Arg> {
    std::iter::once(link.as_str()).chain(ids.iter().copied()).map(Arg::from).collect()
}

/// How many link to each of the targets; those to which nothing links are left out.
pub async fn count_to_each(tx: &mut Tx, link: Link, to: &[&str]) -> Result<HashMap<String, i64>> {
    let mut out = HashMap::new();
    for part in to.chunks(CHUNK) {
        let places = placeholders(2, part.len());
        let sql = format!("SELECT b, COUNT(*) FROM links WHERE kind = $1 AND b IN ({places}) GROUP BY b");
        out.extend(tx.query(&sql, chunk(link, part), |r| Ok((r.string(0)?, r.int(1)?))).await?);
    }
    Ok(out)
}

/// What links to each of the targets, oldest first; those to which nothing links are left out.
pub async fn to_each(tx: &mut Tx, link: Link, to: &[&str]) -> Result<HashMap<String, Vec<String>>> {
    let mut out: HashMap<String, Vec<String>> = HashMap::new();
    for part in to.chunks(CHUNK) {
        let places = placeholders(2, part.len());
        let sql = format!("SELECT b, a FROM links WHERE kind = $1 AND b IN ({places}) ORDER BY created, a");
        for (b, a) in tx.query(&sql, chunk(link, part), |r| Ok((r.string(0)?, r.string(1)?))).await? {
            out.entry(b).or_default().push(a);
        }
    }
    Ok(out)
}

/// Every link of one gateway, with its target; grants are not among them.
#[derive(Clone, Debug, Default)]
pub struct Links(Vec<(Link, String)>);

impl Links {
    /// The targets of one kind, oldest first.
    pub fn ids(&self, link: Link) -> Vec<&str> {
        self.0.iter().filter(|(l, _)| *l == link).map(|(_, id)| id.as_str()).collect()
    }

    /// Leaves out some targets.
    pub fn retain(&mut self, keep: impl Fn(Link, &str) -> bool) {
        self.0.retain(|(link, id)| keep(*link, id));
    }

    /// The oldest target of one kind.
    pub fn first(&self, link: Link) -> Option<&str> {
        self.0.iter().find(|(l, _)| *l == link).map(|(_, id)| id.as_str())
    }
}

/// The links of each of the gateways.
pub async fn from_each(tx: &mut Tx, of: &[&str]) -> Result<HashMap<String, Links>> {
    let mut out: HashMap<String, Links> = HashMap::new();
    for part in of.chunks(CHUNK) {
        let sql = format!(
            "SELECT a, kind, b FROM links WHERE kind IN ('acl', 'qos', 'ccn', 'flowlog', 'vbr')
             AND a IN ({}) ORDER BY created, b",
            placeholders(1, part.len())
        );
        let args = part.iter().map(|a| Arg::from(*a)).collect();
        let rows = tx.query(&sql, args, |r| Ok((r.string(0)?, Link::from_stored(r.text(1)?)?, r.string(2)?)));
        for (a, link, b) in rows.await? {
            out.entry(a).or_default().0.push((link, b));
        }
    }
    Ok(out)
}
