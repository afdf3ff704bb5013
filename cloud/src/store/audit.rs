//! The audit log: who changed what, from where, with what result.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Result, Store, Tx};
use crate::args;
use crate::time::{self, stamp};

/// What a query of the audit log asks for. Empty text and 0 leave a condition out.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Milliseconds since 1970.
    pub since: i64,
    /// An action; `*` stands for any text.
    pub action: String,
    /// The name of an account.
    pub account: String,
    /// The latest so many.
    pub limit: u32,
}

/// A call that changed something, or was refused.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Milliseconds since 1970.
    pub at: i64,
    pub request_id: String,
    pub account: String,
    pub user: String,
    pub key_id: String,
    pub source: String,
    pub action: String,
    pub params: Value,
    /// The names of the objects that the call was about, as policies have them.
    pub resources: Vec<String>,
    pub code: String,
}

impl Entry {
    /// One line of text, whatever the caller sent; parameters are last, because they may be long.
    pub fn line(&self) -> String {
        let who = match self.user.as_str() {
            "" => self.account.clone(),
            user => format!("{}/{user}", self.account),
        };
        let line = format!(
            "{}  {who}  {}  {}  {}  {}  {}  {}  {}",
            stamp(self.at),
            self.key_id,
            self.source,
            self.action,
            self.code,
            self.request_id,
            if self.resources.is_empty() { "-".to_owned() } else { self.resources.join(",") },
            self.params
        );
        sag_text::escape(&line).into_owned()
    }

    pub fn json(&self) -> Value {
        json!({
            "Time": stamp(self.at).replace(' ', "T") + "Z",
            "TimeMs": self.at,
            "RequestId": self.request_id,
            "Account": self.account,
            "User": self.user,
            "AccessKeyId": self.key_id,
            "Source": self.source,
            "Action": self.action,
            "Resources": self.resources,
            "Params": self.params,
            "Code": self.code,
        })
    }
}

/// What is written of a call.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub request_id: &'a str,
    pub at: i64,
    pub uid: i64,
    pub user: &'a str,
    pub key_id: &'a str,
    pub source: &'a str,
    pub action: &'a str,
    /// The parameters as JSON, without secrets.
    pub params: &'a str,
    /// The names of the objects, with blanks between them.
    pub resources: &'a str,
    pub code: &'a str,
}

/// Writes a call into the log.
pub async fn write(tx: &mut Tx, r: Record<'_>) -> Result<()> {
    let sql = "INSERT INTO audit
             (request_id, at, uid, user_name, key_id, source, action, params, resources, code, refused)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    let refused = i64::from(r.code != "OK");
    let args = args![
        r.request_id,
        r.at,
        r.uid,
        r.user,
        r.key_id,
        r.source,
        r.action,
        r.params,
        r.resources,
        r.code,
        refused
    ];
    tx.execute(sql, args).await.map(|_| ())
}

/// A moment as people write it, in milliseconds since 1970: `2026-11-22T05:00:00Z`, `2026-11-22`, or so long before
/// `now`: `90s`, `15m`, `2h`, `7d`.
pub fn moment(text: &str, now: i64) -> anyhow::Result<i64> {
    let wrong = || {
        format!(
            "{text:?} is no time: use 2026-11-22T05:00:00Z, 2026-11-22, or a duration such as 15m, 2h, 7d"
        )
    };
    let unit = match text.as_bytes().last() {
        Some(b's') => 1_000,
        Some(b'm') => 60_000,
        Some(b'h') => 3_600_000,
        Some(b'd') => 86_400_000,
        _ => {
            let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
            return time::parse(&full).map(|s| s * 1000).with_context(wrong);
        }
    };
    let count: u32 = text[..text.len() - 1].parse().ok().with_context(wrong)?;
    Ok(now.saturating_sub(i64::from(count) * unit))
}

/// `Create*` as a pattern of LIKE, with `\` as its escape.
fn like(pattern: &str) -> String {
    if pattern.is_empty() {
        return "%".into();
    }
    let mut out = String::with_capacity(pattern.len());
    for c in pattern.chars() {
        match c {
            '*' => out.push('%'),
            '%' | '_' | '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

/// How long entries are kept, and how many of each account. 0 is without end.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub days: u32,
    /// Of calls that were carried out; of refused ones a tenth as many.
    pub entries: u32,
}

/// Entries that are removed in one transaction: others may write in between.
const AT_ONCE: i64 = 1000;

impl Store {
    /// Removes entries that are older than wanted or more than wanted; returns how many.
    ///
    /// # Errors
    /// The database fails.
    pub async fn prune_audit(&self, keep: &Retention, now: i64) -> Result<u64> {
        let mut removed = 0;
        if keep.days > 0 {
            let before = now - i64::from(keep.days) * 86_400_000;
            let sql = "DELETE FROM audit WHERE request_id IN
                 (SELECT request_id FROM audit WHERE at < $1 ORDER BY at LIMIT $2)";
            while self.remove(sql, args![before, AT_ONCE], &mut removed).await? {}
        }
        if keep.entries == 0 {
            return Ok(removed);
        }
        let mut tx = self.read().await?;
        let sql = "SELECT uid, refused, COUNT(*) FROM audit GROUP BY uid, refused";
        let counts = tx.query(sql, Vec::new(), |row| Ok((row.int(0)?, row.int(1)?, row.int(2)?))).await?;
        tx.rollback().await?;
        for (uid, refused, have) in counts {
            let most = i64::from(if refused == 0 { keep.entries } else { (keep.entries / 10).max(1) });
            let mut surplus = have - most;
            while surplus > 0 {
                let sql = "DELETE FROM audit WHERE request_id IN
                     (SELECT request_id FROM audit WHERE uid = $1 AND refused = $2 ORDER BY at LIMIT $3)";
                let some = surplus.min(AT_ONCE);
                self.remove(sql, args![uid, refused, some], &mut removed).await?;
                surplus -= some;
            }
        }
        Ok(removed)
    }

    /// Whether there may be more to remove.
    async fn remove(&self, sql: &str, args: Vec<super::Arg>, removed: &mut u64) -> Result<bool> {
        let rows = self.change(sql, args).await?;
        *removed += rows;
        Ok(rows >= AT_ONCE as u64)
    }

    /// The latest entries that fit, oldest first.
    pub async fn audit(&self, query: &Query) -> anyhow::Result<Vec<Entry>> {
        let sql =
            "SELECT l.at, l.request_id, COALESCE(a.name, ''), l.user_name, l.key_id, l.source, l.action,
                    l.params, l.resources, l.code
             FROM audit l LEFT JOIN accounts a ON a.uid = l.uid
             WHERE l.at >= $1 AND l.action LIKE $2 ESCAPE '\\' AND ($3 = '' OR a.name = $3)
             ORDER BY l.at DESC, l.request_id LIMIT $4";
        let limit = if query.limit == 0 { i64::MAX } else { i64::from(query.limit) };
        let args = args![query.since, like(&query.action), &query.account, limit];
        let mut tx = self.read().await?;
        let mut entries = tx
            .query(sql, args, |r| {
                Ok(Entry {
                    at: r.int(0)?,
                    request_id: r.string(1)?,
                    account: r.string(2)?,
                    user: r.string(3)?,
                    key_id: r.string(4)?,
                    source: r.string(5)?,
                    action: r.string(6)?,
                    params: serde_json::from_str(r.text(7)?)?,
                    resources: r.text(8)?.split_whitespace().map(str::to_owned).collect(),
                    code: r.string(9)?,
                })
            })
            .await?;
        tx.rollback().await?;
        entries.reverse();
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fill(store: &Store) {
        let mut tx = store.write().await.expect("begins");
        for (i, action) in ["CreateACL", "CreateQos", "DeleteACL", "CreateACL"].into_iter().enumerate() {
            let sql =
                "INSERT INTO audit (request_id, at, uid, user_name, key_id, source, action, params, code)
                 SELECT $1, $2, uid, '', 'k', '192.0.2.1', $3, '{\"Name\":\"x\"}', 'OK' FROM accounts
                 WHERE name = $4";
            let account = if i == 2 { "other" } else { "main" };
            let args = args![format!("r{i}"), 1000 * i as i64, action, account];
            tx.execute(sql, args).await.expect("writes");
        }
        tx.commit().await.expect("commits");
    }

    #[tokio::test]
    async fn the_log_is_asked_by_time_action_and_account() {
        let dir = tempfile::tempdir().expect("dir");
        let url = format!("sqlite://{}/t.db", dir.path().display());
        let store = Store::open(&url, None, 2).await.expect("opens");
        for name in ["main", "other"] {
            store.create_key(name, "").await.expect("makes");
        }
        fill(&store).await;
        let ids = async |query: Query| -> Vec<String> {
            store.audit(&query).await.expect("reads").into_iter().map(|e| e.request_id).collect()
        };
        assert_eq!(ids(Query::default()).await, ["r0", "r1", "r2", "r3"]);
        assert_eq!(
            ids(Query { limit: 2, ..Query::default() }).await,
            ["r2", "r3"],
            "the latest, oldest first"
        );
        assert_eq!(ids(Query { since: 1000, ..Query::default() }).await, ["r1", "r2", "r3"]);
        let action = |a: &str| Query { action: a.into(), ..Query::default() };
        assert_eq!(ids(action("CreateACL")).await, ["r0", "r3"]);
        assert_eq!(ids(action("Create*")).await, ["r0", "r1", "r3"]);
        assert_eq!(ids(action("Create_CL")).await, [""; 0], "no wildcards but the star");
        let account = |a: &str| Query { account: a.into(), ..Query::default() };
        assert_eq!(ids(account("other")).await, ["r2"]);
        assert_eq!(ids(account("o*")).await, [""; 0]);
        let entry = &store.audit(&action("DeleteACL")).await.expect("reads")[0];
        assert_eq!(
            entry.line(),
            "1970-01-01 00:00:02  other  k  192.0.2.1  DeleteACL  OK  r2  -  {\"Name\":\"x\"}"
        );
        assert_eq!(entry.json()["Time"], "1970-01-01T00:00:02Z");
        assert_eq!(entry.json()["Params"]["Name"], "x");
    }

    #[tokio::test]
    async fn old_and_surplus_entries_go_each_account_its_own() {
        let dir = tempfile::tempdir().expect("dir");
        let url = format!("sqlite://{}/t.db", dir.path().display());
        let store = Store::open(&url, None, 2).await.expect("opens");
        let day = 86_400_000;
        let mut tx = store.write().await.expect("begins");
        let mut add = async |uid: i64, code: &str, at: i64| {
            let request_id = format!("{uid}-{code}-{at}");
            let entry = Record {
                request_id: &request_id,
                at,
                uid,
                user: "",
                key_id: "k",
                source: "s",
                action: "a",
                params: "{}",
                resources: "",
                code,
            };
            write(&mut tx, entry).await.expect("writes");
        };
        for i in 0..2500 {
            add(1, "OK", i).await;
            add(1, "Forbidden", 10 * day + i).await;
            if i < 30 {
                add(2, "OK", 10 * day + i).await;
            }
        }
        tx.commit().await.expect("commits");
        let counts = async || -> Vec<(i64, i64, i64, i64)> {
            let mut tx = store.read().await.expect("begins");
            let sql = "SELECT uid, refused, COUNT(*), MIN(at) FROM audit GROUP BY uid, refused ORDER BY uid, refused";
            tx.query(sql, Vec::new(), |r| Ok((r.int(0)?, r.int(1)?, r.int(2)?, r.int(3)?)))
                .await
                .expect("reads")
        };
        let forever = Retention { days: 0, entries: 0 };
        assert_eq!(store.prune_audit(&forever, 11 * day).await.expect("prunes"), 0);
        let some = Retention { days: 0, entries: 1000 };
        assert_eq!(store.prune_audit(&some, 11 * day).await.expect("prunes"), 1500 + 2400);
        let left = [(1, 0, 1000, 1500), (1, 1, 100, 10 * day + 2400), (2, 0, 30, 10 * day)];
        assert_eq!(counts().await, left, "the latest stay; refused ones push out no others");
        let week = Retention { days: 7, entries: 0 };
        assert_eq!(store.prune_audit(&week, 11 * day).await.expect("prunes"), 1000);
        assert_eq!(counts().await, left[1..]);
    }

    #[test]
    fn moments() {
        let now = 1_795_323_600_000;
        assert_eq!(moment("2026-11-22T05:00:00Z", 0).ok(), Some(now));
        assert_eq!(moment("2026-11-22", 0).ok(), Some(now - 5 * 3_600_000));
        assert_eq!(moment("2h", now).ok(), Some(now - 7_200_000));
        assert_eq!(moment("7d", now).ok(), Some(now - 7 * 86_400_000));
        for bad in ["", "h", "yesterday", "-1h", "1w", "2026-13-01", "é"] {
            assert!(moment(bad, now).is_err(), "{bad}");
        }
    }
}
