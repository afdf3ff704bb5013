//! Nonces of requests, for as long as their time stamps are accepted.

use super::{Result, Store, Tx};
use crate::args;
use crate::error::ApiError;
use crate::repeated;

/// Clock difference that is still accepted, either way.
pub const WINDOW_MS: i64 = 15 * 60 * 1000;
/// A nonce is kept for so much longer than its time stamp is accepted: clocks of several processes differ.
const RESERVE_MS: i64 = 60 * 1000;
/// Rows of one key, from which on its window gets shorter.
const OF_A_KEY: i64 = 500_000;

/// A nonce, with the key and the time stamp that were signed with it.
#[derive(Clone, Copy, Debug)]
pub struct SignedNonce<'a> {
    pub key: &'a str,
    pub nonce: &'a str,
    /// Milliseconds since 1970.
    pub at_ms: i64,
}

/// Writes the nonce of an access key down.
///
/// # Errors
/// `SignatureNonceUsed` if it is there already.
pub async fn keep(tx: &mut Tx, n: SignedNonce<'_>) -> crate::error::Result<()> {
    let sql = "INSERT INTO nonces (key_id, nonce, expires) VALUES ($1, $2, $3)
         ON CONFLICT (key_id, nonce) DO NOTHING";
    let expires = n.at_ms + WINDOW_MS + RESERVE_MS;
    if tx.execute(sql, args![n.key, n.nonce, expires]).await? == 0 { Err(used()) } else { Ok(()) }
}

/// The refusal of a nonce that was used before.
pub fn used() -> ApiError {
    ApiError::new(400, "SignatureNonceUsed", "The signature nonce was used already.")
        .with_hint("Sign every request with a new nonce, retries too.")
}

/// The refusal of a request that is older than the nonces that are still known.
pub fn forgotten() -> ApiError {
    ApiError::new(
        400,
        "InvalidTimeStamp.Expired",
        "This key has sent so many newer requests that a time stamp of this age is not accepted.",
    )
    .with_hint("Set the clock of the client, and sign requests when they are sent.")
}

impl Store {
    /// Forgets nonces and tokens whose time is over. Of a key with very many nonces the earlier half goes too, once
    /// requests of that age are refused.
    ///
    /// # Errors
    /// The database fails.
    pub async fn remove_expired(&self, now: i64) -> Result<()> {
        self.remove_expired_of(now, OF_A_KEY).await
    }

    async fn remove_expired_of(&self, now: i64, of_a_key: i64) -> Result<()> {
        repeated!(self.remove_old(now))?;
        let mut tx = self.read().await?;
        let sql = "SELECT key_id FROM nonces GROUP BY key_id HAVING COUNT(*) > $1";
        let busy = tx.texts(sql, args![of_a_key]).await?;
        tx.rollback().await?;
        for key in busy {
            repeated!(self.remove_half(&key, of_a_key / 2))?;
        }
        Ok(())
    }

    async fn remove_old(&self, now: i64) -> Result<()> {
        let mut tx = self.write().await?;
        // The clock may be ahead for a moment, or be set back: what it accepts again is not new.
        let sql = "UPDATE access_keys SET nonce_floor =
             (SELECT MAX(n.expires) - $1 FROM nonces n WHERE n.key_id = access_keys.id AND n.expires < $2)
             WHERE nonce_floor <
             (SELECT MAX(n.expires) - $1 FROM nonces n WHERE n.key_id = access_keys.id AND n.expires < $2)";
        tx.execute(sql, args![WINDOW_MS + RESERVE_MS, now]).await?;
        tx.execute("DELETE FROM nonces WHERE expires < $1", args![now]).await?;
        // Refused since an earlier round, in every process.
        let sql = "DELETE FROM nonces WHERE expires <=
             (SELECT k.nonce_floor + $1 FROM access_keys k WHERE k.id = nonces.key_id AND k.nonce_floor > 0)";
        tx.execute(sql, args![WINDOW_MS + RESERVE_MS]).await?;
        super::tokens::remove_expired(&mut tx, now).await?;
        tx.commit().await
    }

    /// Refuses requests of the key `key` that are as old as all but the latest `kept`.
    async fn remove_half(&self, key: &str, kept: i64) -> Result<()> {
        let mut tx = self.write().await?;
        let sql = "SELECT expires FROM nonces WHERE key_id = $1 ORDER BY expires DESC LIMIT 1 OFFSET $2";
        if let Some(expires) = tx.row(sql, args![key, kept], |row| row.int(0)).await? {
            let sql = "UPDATE access_keys SET nonce_floor = $1 WHERE id = $2 AND nonce_floor < $1";
            tx.execute(sql, args![expires - WINDOW_MS - RESERVE_MS, key]).await?;
        }
        tx.commit().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nonces_of_a_busy_key_are_bounded_and_those_of_others_stay() {
        let dir = tempfile::tempdir().expect("dir");
        let url = format!("sqlite://{}/t.db", dir.path().display());
        let store = Store::open(&url, None, 2).await.expect("opens");
        let busy = store.create_key("main", "").await.expect("makes").id;
        let quiet = store.create_key("main", "").await.expect("makes").id;
        let mut tx = store.write().await.expect("begins");
        for i in 0..100 {
            let nonce = format!("n{i}");
            keep(&mut tx, SignedNonce { key: &busy, nonce: &nonce, at_ms: i * 1000 }).await.expect("new");
        }
        for i in 0..10 {
            let nonce = format!("n{i}");
            keep(&mut tx, SignedNonce { key: &quiet, nonce: &nonce, at_ms: i * 1000 }).await.expect("new");
        }
        tx.commit().await.expect("commits");
        let rows = async || {
            let mut tx = store.read().await.expect("begins");
            let sql = "SELECT key_id FROM nonces";
            let all = tx.texts(sql, Vec::new()).await.expect("reads");
            [&busy, &quiet].map(|key| all.iter().filter(|k| *k == key).count())
        };
        store.remove_expired_of(100_000, 50).await.expect("removes");
        assert_eq!(rows().await, [100, 10], "first their time stamps are refused");
        let floor = store.access_key(&busy).await.expect("reads").expect("there").nonce_floor;
        assert_eq!(floor, 74_000);
        store.remove_expired_of(100_000, 50).await.expect("removes");
        assert_eq!(rows().await, [25, 10]);
        assert_eq!(store.access_key(&quiet).await.expect("reads").expect("there").nonce_floor, 0);
        store.remove_expired_of(WINDOW_MS + RESERVE_MS + 200_000, 50).await.expect("removes");
        assert_eq!(rows().await, [0, 0]);
        let floor = store.access_key(&quiet).await.expect("reads").expect("there").nonce_floor;
        assert_eq!(floor, 9_000, "a clock that is set back makes none of them new");
    }
}
