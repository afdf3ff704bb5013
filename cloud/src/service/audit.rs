//! What the audit log gets of a call.

use std::net::SocketAddr;

use serde_json::json;

use crate::api::Op;
use crate::api::params::Params;
use crate::domain::caller::Caller;
use crate::error::Result;
use crate::store::audit::{self, Record};
use crate::store::{Store, Tx};
use crate::time::now_ms;

/// Parameters that are not written in clear.
const SECRETS: [&str; 3] = ["Password", "Md5Key", "SecretKey"];

/// A call that changes something, with its result.
pub struct Entry<'a> {
    pub op: Op,
    pub caller: &'a Caller,
    pub params: &'a Params,
    pub request_id: &'a str,
    pub peer: SocketAddr,
    pub code: &'a str,
}

impl Entry<'_> {
    /// Writes the entry in the transaction of the call.
    pub async fn write(&self, tx: &mut Tx) -> Result<()> {
        let mut params = json!({});
        for (k, v) in self.params.iter().filter(|(k, _)| !k.starts_with("Signature")) {
            params[k] = if SECRETS.contains(&k) { "****".into() } else { v.into() };
        }
        let record = Record {
            request_id: self.request_id,
            at: now_ms(),
            uid: self.caller.uid,
            user: &self.caller.user,
            key_id: &self.caller.key_id,
            source: &self.peer.ip().to_string(),
            action: self.op.name(),
            params: &params.to_string(),
            code: self.code,
        };
        Ok(audit::write(tx, record).await?)
    }

    /// Writes the entry in a transaction of its own.
    pub async fn write_alone(&self, store: &Store) -> Result<()> {
        let mut tx = store.write().await?;
        self.write(&mut tx).await?;
        Ok(tx.commit().await?)
    }
}
