//! Answers of calls with a `ClientToken`: a repeated call is answered as before.

use super::{Result, Tx};
use crate::args;

/// Bytes of a token; the documents allow 64.
pub const LONGEST: usize = 256;
/// Answers that an account has; earlier ones are forgotten before their time.
const OF_AN_ACCOUNT: i64 = 100_000;

/// What is kept of the first call with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The fingerprint of its parameters; older versions kept none.
    pub request: Option<String>,
    /// JSON.
    pub answer: String,
}

impl Stored {
    /// The column has the answer, which is an object, and in front of it the fingerprint.
    fn written(&self) -> String {
        format!("{}{}", self.request.as_deref().unwrap_or_default(), self.answer)
    }

    fn read(mut text: String) -> Stored {
        let answer = text.split_off(text.find('{').unwrap_or_default());
        Stored { request: Some(text).filter(|t| !t.is_empty()), answer }
    }
}

/// What the account got for this token.
pub async fn get(tx: &mut Tx, uid: i64, action: &str, token: &str) -> Result<Option<Stored>> {
    let sql = "SELECT answer FROM client_tokens WHERE uid = $1 AND action = $2 AND token = $3";
    let text = tx.row(sql, args![uid, action, token], |row| row.string(0)).await?;
    Ok(text.map(Stored::read))
}

/// Keeps an answer until `expires` (milliseconds since 1970).
pub async fn put(
    tx: &mut Tx,
    uid: i64,
    action: &str,
    token: &str,
    stored: &Stored,
    expires: i64,
) -> Result<()> {
    let sql = "INSERT INTO client_tokens (uid, action, token, answer, expires) VALUES ($1, $2, $3, $4, $5)";
    tx.execute(sql, args![uid, action, token, stored.written(), expires]).await.map(|_| ())
}

/// Forgets those whose time is over, and the earlier half of an account that has very many.
pub async fn remove_expired(tx: &mut Tx, now: i64) -> Result<()> {
    remove_expired_of(tx, now, OF_AN_ACCOUNT).await
}

async fn remove_expired_of(tx: &mut Tx, now: i64, of_an_account: i64) -> Result<()> {
    tx.execute("DELETE FROM client_tokens WHERE expires < $1", args![now]).await?;
    let sql = "SELECT uid FROM client_tokens GROUP BY uid HAVING COUNT(*) > $1";
    let busy = tx.query(sql, args![of_an_account], |row| row.int(0)).await?;
    for uid in busy {
        let sql = "SELECT expires FROM client_tokens WHERE uid = $1 ORDER BY expires DESC LIMIT 1 OFFSET $2";
        let Some(half) = tx.row(sql, args![uid, of_an_account / 2], |row| row.int(0)).await? else {
            continue;
        };
        tx.execute("DELETE FROM client_tokens WHERE uid = $1 AND expires <= $2", args![uid, half]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    #[test]
    fn answers_of_older_versions_have_no_fingerprint() {
        for request in [None, Some("0a1b".to_owned())] {
            let stored = Stored { request, answer: "{\"A\":{}}".to_owned() };
            assert_eq!(Stored::read(stored.written()), stored);
        }
    }

    #[tokio::test]
    async fn answers_of_a_busy_account_are_bounded_and_those_of_others_stay() {
        let dir = tempfile::tempdir().expect("dir");
        let url = format!("sqlite://{}/t.db", dir.path().display());
        let store = Store::open(&url, None, 2).await.expect("opens");
        let mut tx = store.write().await.expect("begins");
        let empty = Stored { request: None, answer: "{}".to_owned() };
        for (uid, count) in [(1, 101), (2, 10)] {
            for i in 0..count {
                put(&mut tx, uid, "A", &format!("t{i}"), &empty, 1000 + i).await.expect("new");
            }
        }
        remove_expired_of(&mut tx, 1001, 100).await.expect("removes");
        let has = async |tx: &mut Tx, uid, i: i64| {
            get(tx, uid, "A", &format!("t{i}")).await.expect("reads").is_some()
        };
        assert!(!has(&mut tx, 1, 0).await && !has(&mut tx, 2, 0).await, "their time is over");
        assert!(has(&mut tx, 1, 1).await, "one hundred are within the bound");
        put(&mut tx, 1, "A", "one more", &empty, 2000).await.expect("new");
        remove_expired_of(&mut tx, 1001, 100).await.expect("removes");
        let mut left = 0;
        for i in 0..101 {
            left += i64::from(has(&mut tx, 1, i).await);
        }
        assert_eq!(left, 49, "the later half, with the latest");
        assert!(has(&mut tx, 1, 100).await && !has(&mut tx, 1, 51).await);
        for i in 1..10 {
            assert!(has(&mut tx, 2, i).await, "of the other account: {i}");
        }
    }
}
