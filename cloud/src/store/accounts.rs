//! Accounts, users, access keys, policies.

use serde_json::Value;

use super::secrets::{DIGITS, MIXED};
use super::{Result, Store, Tx};
use crate::args;
use crate::repeated;
use crate::time::now_ms;

/// An access key as it is stored.
#[derive(Clone, Debug)]
pub struct AccessKey {
    pub uid: i64,
    /// Empty for the account itself.
    pub user: String,
    pub secret: String,
    pub active: bool,
    /// Requests with this time stamp (milliseconds since 1970) and earlier ones are refused.
    pub nonce_floor: i64,
    /// The policy documents of the user; an account has none.
    pub policies: Vec<Value>,
}

pub struct NewKey {
    pub id: String,
    pub secret: String,
}

impl Store {
    /// The key, with its secret in clear.
    pub async fn access_key(&self, id: &str) -> anyhow::Result<Option<AccessKey>> {
        let mut tx = self.read().await?;
        let sql = "SELECT uid, user_name, secret, status, nonce_floor FROM access_keys WHERE id = $1";
        let found = tx
            .row(sql, args![id], |row| {
                let active = row.text(3)? == "Active";
                Ok((row.int(0)?, row.string(1)?, row.string(2)?, active, row.int(4)?))
            })
            .await?;
        let key = match found {
            None => None,
            Some((uid, user, sealed, active, nonce_floor)) => {
                let mut policies = Vec::new();
                if !user.is_empty() {
                    let sql = "SELECT document FROM policies WHERE uid = $1 AND user_name = $2";
                    for text in tx.texts(sql, args![uid, &user]).await? {
                        policies.push(serde_json::from_str(&text)?);
                    }
                }
                let secret = self.cipher.open(&sealed)?;
                Some(AccessKey { uid, user, secret, active, nonce_floor, policies })
            }
        };
        tx.rollback().await?;
        Ok(key)
    }

    /// A key for the account `account` (made if it is new) or for one of its users.
    pub async fn create_key(&self, account: &str, user: &str) -> anyhow::Result<NewKey> {
        let id = format!("LTAI{}", self.cipher.token(MIXED, 20)?);
        let secret = self.cipher.token(MIXED, 30)?;
        repeated!(async {
            let mut tx = self.write().await?;
            let uid = match account_uid(&mut tx, account).await? {
                Some(uid) => uid,
                None => {
                    let uid: i64 = format!("1{}", self.cipher.token(DIGITS, 15)?).parse()?;
                    let sql = "INSERT INTO accounts (uid, name, created) VALUES ($1, $2, $3)";
                    tx.execute(sql, args![uid, account, now_ms()]).await?;
                    uid
                }
            };
            let sql = "INSERT INTO access_keys (id, uid, user_name, secret, status, created)
                 VALUES ($1, $2, $3, $4, 'Active', $5)";
            tx.execute(sql, args![&id, uid, user, self.cipher.seal(&secret)?, now_ms()]).await?;
            Ok::<(), anyhow::Error>(tx.commit().await?)
        })?;
        Ok(NewKey { id, secret })
    }

    /// False if there is no such key.
    pub async fn set_key_status(&self, id: &str, status: &str) -> anyhow::Result<bool> {
        let sql = "UPDATE access_keys SET status = $1 WHERE id = $2";
        Ok(self.change(sql, args![status, id]).await? > 0)
    }

    pub async fn delete_key(&self, id: &str) -> anyhow::Result<bool> {
        Ok(self.change("DELETE FROM access_keys WHERE id = $1", args![id]).await? > 0)
    }

    /// Key id, account, user, status.
    pub async fn keys(&self) -> anyhow::Result<Vec<(String, String, String, String)>> {
        let sql = "SELECT k.id, a.name, k.user_name, k.status FROM access_keys k
             JOIN accounts a ON a.uid = k.uid ORDER BY a.name, k.user_name, k.created";
        let mut tx = self.read().await?;
        let rows = tx
            .query(sql, Vec::new(), |r| Ok((r.string(0)?, r.string(1)?, r.string(2)?, r.string(3)?)))
            .await?;
        tx.rollback().await?;
        Ok(rows)
    }

    /// Gives a user of an account a policy; one of the same name is replaced.
    pub async fn put_policy(
        &self,
        account: &str,
        user: &str,
        name: &str,
        document: &Value,
    ) -> anyhow::Result<()> {
        repeated!(async {
            let mut tx = self.write().await?;
            let uid = account_uid(&mut tx, account).await?;
            let uid = uid.ok_or_else(|| anyhow::anyhow!("no account {account}"))?;
            let sql = "INSERT INTO policies (uid, user_name, name, document) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (uid, user_name, name) DO UPDATE SET document = excluded.document";
            tx.execute(sql, args![uid, user, name, document.to_string()]).await?;
            Ok::<(), anyhow::Error>(tx.commit().await?)
        })
    }
}

async fn account_uid(tx: &mut Tx, name: &str) -> Result<Option<i64>> {
    tx.row("SELECT uid FROM accounts WHERE name = $1", args![name], |row| row.int(0)).await
}
