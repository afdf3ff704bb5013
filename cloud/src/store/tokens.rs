//! Answers of calls with a `ClientToken`: a repeated call is answered as before.

use super::{Result, Tx};
use crate::args;

/// Bytes of a token; the documents allow 64.
pub const LONGEST: usize = 256;
/// Answers that an account has; earlier ones are forgotten before their time.
const OF_AN_ACCOUNT: i64 = 100_000;

/// The answer that the account got for this token.
pub async fn get(tx: &mut Tx, uid: i64, action: &str, token: &str) -> Result<Option<String>> {
    let sql = "SELECT answer FROM client_tokens WHERE uid = $1 AND action = $2 AND token = $3";
    tx.row(sql, args![uid, action, token], |row| row.string(0)).await
}

/// Keeps an answer until `expires` (milliseconds since 1970).
pub async fn put(tx: &mut Tx, uid: i64, action: &str, token: &str, answer: &str, expires: i64) -> Result<()> {
    let sql = "INSERT INTO client_tokens (uid, action, token, answer, expires) VALUES ($1, $2, $3, $4, $5)";
    tx.execute(sql, args![uid, action, token, answer, expires]).await.map(|_| ())
}

/// Forgets those whose time is over, and the earlier half of an account that has very many.
pub async fn remove_expired(tx: &mut Tx, now: i64) -> Result<()> {
    tx.execute("DELETE FROM client_tokens WHERE expires < $1", args![now]).await?;
    let sql = "SELECT uid FROM client_tokens GROUP BY uid HAVING COUNT(*) > $1";
    let busy = tx.query(sql, args![OF_AN_ACCOUNT], |row| row.int(0)).await?;
    for uid in busy {
        let sql = "SELECT expires FROM client_tokens WHERE uid = $1 ORDER BY expires DESC LIMIT 1 OFFSET $2";
        let Some(half) = tx.row(sql, args![uid, OF_AN_ACCOUNT / 2], |row| row.int(0)).await? else {
            continue;
        };
        tx.execute("DELETE FROM client_tokens WHERE uid = $1 AND expires <= $2", args![uid, half]).await?;
    }
    Ok(())
}
