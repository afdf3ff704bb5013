//! Answers of calls with a `ClientToken`: a repeated call is answered as before.

use super::{Result, Tx};
use crate::args;

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

/// Forgets those whose time is over.
pub async fn remove_expired(tx: &mut Tx, now: i64) -> Result<()> {
    tx.execute("DELETE FROM client_tokens WHERE expires < $1", args![now]).await.map(|_| ())
}
