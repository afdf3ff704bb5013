//! Nonces of requests, for as long as their time stamps are accepted.

use super::{Result, Tx};
use crate::args;
use crate::error::ApiError;
use crate::time::now_ms;

/// Clock difference that is still accepted, either way.
pub const WINDOW_MS: i64 = 15 * 60 * 1000;

/// Writes the nonce of an access key down.
///
/// # Errors
/// `SignatureNonceUsed` if it is there already.
pub async fn keep(tx: &mut Tx, (key, nonce): (&str, &str)) -> crate::error::Result<()> {
    let sql = "INSERT INTO nonces (key_id, nonce, expires) VALUES ($1, $2, $3)
         ON CONFLICT (key_id, nonce) DO NOTHING";
    let expires = now_ms() + 2 * WINDOW_MS;
    if tx.execute(sql, args![key, nonce, expires]).await? == 0 { Err(used()) } else { Ok(()) }
}

/// The refusal of a nonce that was used before.
pub fn used() -> ApiError {
    ApiError::new(400, "SignatureNonceUsed", "The signature nonce was used already.")
        .with_hint("Sign every request with a new nonce, retries too.")
}

/// Forgets those whose time is over.
pub async fn remove_expired(tx: &mut Tx, now: i64) -> Result<()> {
    tx.execute("DELETE FROM nonces WHERE expires < $1", args![now]).await.map(|_| ())
}
