//! What the audit log gets of a call.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;

use super::limit::Limiter;
use crate::api::Op;
use crate::api::params::Params;
use crate::domain::caller::Caller;
use crate::error::{ApiError, Result};
use crate::repeated;
use crate::store::audit::{self, Record};
use crate::store::{Store, Tx};
use crate::time::now_ms;

/// Parameters that are not written in clear.
const SECRETS: [&str; 3] = ["Password", "Md5Key", "SecretKey"];
/// Characters of a value, and bytes of all parameters, that an entry has. Callers may send parameters that no operation
/// knows, of any length.
const VALUE: usize = 512;
const PARAMETERS: usize = 16 * 1024;
/// Entries of refused calls a second that a key gets.
const REFUSED: u32 = 10;

/// Bounds how fast refused calls fill the audit log: a key in the wrong hands, or of a broken program, must not write a
/// row to the disk for each attempt.
pub struct Refusals {
    limiter: Limiter,
    /// Entries that were not written.
    pub left_out: Arc<AtomicU64>,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals { limiter: Limiter::new(REFUSED), left_out: Arc::default() }
    }
}

impl Refusals {
    /// Whether this refused call gets an entry.
    pub fn allow(&self, key: &str, now: Instant) -> bool {
        let allowed = self.limiter.allow(key, now);
        if !allowed {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        allowed
    }

    pub fn sweep(&self, now: Instant) {
        self.limiter.sweep(now);
    }
}

/// A call that changes something, with its result.
pub struct Entry<'a> {
    pub op: Op,
    pub caller: &'a Caller,
    pub params: &'a Params,
    /// The names of the objects that it was about.
    pub resources: &'a [String],
    pub request_id: &'a str,
    pub peer: SocketAddr,
    pub code: &'a str,
}

impl Entry<'_> {
    /// Writes the entry in the transaction of the call.
    pub async fn write(&self, tx: &mut Tx) -> Result<()> {
        let record = Record {
            request_id: self.request_id,
            at: now_ms(),
            uid: self.caller.uid,
            user: &self.caller.user,
            key_id: &self.caller.key_id,
            source: &self.peer.ip().to_string(),
            action: self.op.name(),
            params: &parameters(self.params),
            resources: &self.resources.join(" "),
            code: self.code,
        };
        Ok(audit::write(tx, record).await?)
    }

    /// Writes the entry in a transaction of its own.
    pub async fn write_alone(&self, store: &Store) -> Result<()> {
        repeated!(async {
            let mut tx = store.write().await?;
            self.write(&mut tx).await?;
            Ok::<(), ApiError>(tx.commit().await?)
        })
    }
}

/// The parameters as JSON: without secrets, long values cut, and no more than [`PARAMETERS`].
fn parameters(params: &Params) -> String {
    let mut out = json!({});
    let (mut bytes, mut left_out) = (0, 0);
    for (k, v) in params.iter().filter(|(k, _)| !k.starts_with("Signature")) {
        bytes += k.len() + v.len().min(VALUE);
        if bytes > PARAMETERS || k.len() > VALUE {
            left_out += 1;
        } else if SECRETS.contains(&k) {
            out[k] = "****".into();
        } else {
            out[k] = match v.char_indices().nth(VALUE) {
                Some((end, _)) => format!("{}… ({} bytes)", &v[..end], v.len()).into(),
                None => v.into(),
            };
        }
    }
    if left_out > 0 {
        out["…"] = format!("{left_out} more parameters").into();
    }
    out.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_entry_is_small_whatever_was_sent() {
        let mut params = Params::default();
        params.set("Name", "x");
        params.set("Password", "hunter2");
        params.set("Signature", "s");
        assert_eq!(parameters(&params), r#"{"Name":"x","Password":"****"}"#);
        params.set("Description", &"é".repeat(100_000));
        params.set(&"k".repeat(100_000), "v");
        (0..1000).for_each(|n| params.set(&format!("Z{n}"), &"z".repeat(300)));
        let text = parameters(&params);
        assert!(text.len() < 4 * PARAMETERS, "{}", text.len());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(value["Description"].as_str().unwrap().ends_with("… (200000 bytes)"));
        assert!(value["…"].as_str().unwrap().ends_with("more parameters"));
    }

    #[test]
    fn refused_calls_fill_the_log_slowly() {
        let (r, t) = (Refusals::default(), Instant::now());
        assert_eq!((0..1000).filter(|_| r.allow("k", t)).count(), 10);
        assert!(r.allow("other", t) && r.allow("k", t + Duration::from_millis(100)));
        assert_eq!(r.left_out.load(Ordering::Relaxed), 990);
    }
}
