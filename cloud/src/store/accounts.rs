//! Accounts, users, access keys, policies.

use serde_json::Value;

use super::secrets::{DIGITS, MIXED};
use super::{Store, Tx};
use crate::args;
use crate::proto::policy::Policy;
use crate::proto::sign::Keys;
use crate::proto::time::now_ms;

/// Who makes a call.
#[derive(Clone, Debug)]
pub struct Caller {
    pub uid: i64,
    /// Empty for the account itself.
    pub user: String,
    pub key_id: String,
    /// What the requests are signed with.
    pub keys: Keys,
    pub active: bool,
    /// The policies of a user; an account may do everything with its own resources.
    pub policies: Vec<Policy>,
}

pub struct NewKey {
    pub id: String,
    pub secret: String,
}

impl Store {
    pub async fn caller(&self, key_id: &str) -> anyhow::Result<Option<Caller>> {
        let mut tx = self.read().await?;
        let sql = "SELECT uid, user_name, secret, status FROM access_keys WHERE id = $1";
        let caller = match tx.row(sql, args![key_id]).await? {
            None => None,
            Some(row) => {
                let (uid, user) = (row.int(0)?, row.string(1)?);
                let mut policies = Vec::new();
                if !user.is_empty() {
                    let sql = "SELECT document FROM policies WHERE uid = $1 AND user_name = $2";
                    for text in tx.texts(sql, args![uid, user.as_str()]).await? {
                        policies.push(Policy::new(&serde_json::from_str(&text)?));
                    }
                }
                let keys = Keys::new(&self.cipher.open(row.text(2)?)?);
                let active = row.text(3)? == "Active";
                Some(Caller { uid, user, key_id: key_id.to_owned(), keys, active, policies })
            }
        };
        tx.rollback().await?;
        Ok(caller)
    }

    /// A key for the account `account` (made if it is new) or for one of its users.
    pub async fn create_key(&self, account: &str, user: &str) -> anyhow::Result<NewKey> {
        let id = format!("LTAI{}", self.cipher.token(MIXED, 20)?);
        let secret = self.cipher.token(MIXED, 30)?;
        let mut tx = self.write().await?;
        let uid = match account_uid(&mut tx, account).await? {
            Some(uid) => uid,
            None => {
                let uid: i64 = format!("1{}", self.cipher.token(DIGITS, 15)?).parse()?;
                sqlx::query("INSERT INTO accounts (uid, name, created) VALUES ($1, $2, $3)")
                    .bind(uid)
                    .bind(account.to_owned())
                    .bind(now_ms())
                    .execute(tx.writer()?)
                    .await?;
                uid
            }
        };
        sqlx::query(
            "INSERT INTO access_keys (id, uid, user_name, secret, status, created)
             VALUES ($1, $2, $3, $4, 'Active', $5)",
        )
        .bind(id.clone())
        .bind(uid)
        .bind(user.to_owned())
        .bind(self.cipher.seal(&secret)?)
        .bind(now_ms())
        .execute(tx.writer()?)
        .await?;
        tx.commit().await?;
        Ok(NewKey { id, secret })
    }

    /// False if there is no such key.
    pub async fn set_key_status(&self, id: &str, status: &str) -> anyhow::Result<bool> {
        let mut tx = self.write().await?;
        let done = sqlx::query("UPDATE access_keys SET status = $1 WHERE id = $2")
            .bind(status.to_owned())
            .bind(id.to_owned())
            .execute(tx.writer()?)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    pub async fn delete_key(&self, id: &str) -> anyhow::Result<bool> {
        let mut tx = self.write().await?;
        let done = sqlx::query("DELETE FROM access_keys WHERE id = $1")
            .bind(id.to_owned())
            .execute(tx.writer()?)
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// Key id, account, user, status.
    pub async fn keys(&self) -> anyhow::Result<Vec<(String, String, String, String)>> {
        let sql = "SELECT k.id, a.name, k.user_name, k.status FROM access_keys k
             JOIN accounts a ON a.uid = k.uid ORDER BY a.name, k.user_name, k.created";
        let mut tx = self.read().await?;
        let rows = tx.rows(sql, Vec::new()).await?;
        tx.rollback().await?;
        rows.iter().map(|r| Ok((r.string(0)?, r.string(1)?, r.string(2)?, r.string(3)?))).collect()
    }

    pub async fn put_policy(
        &self,
        account: &str,
        user: &str,
        name: &str,
        document: &Value,
    ) -> anyhow::Result<()> {
        crate::proto::policy::check(document)?;
        let mut tx = self.write().await?;
        let uid =
            account_uid(&mut tx, account).await?.ok_or_else(|| anyhow::anyhow!("no account {account}"))?;
        sqlx::query(
            "INSERT INTO policies (uid, user_name, name, document) VALUES ($1, $2, $3, $4)
             ON CONFLICT (uid, user_name, name) DO UPDATE SET document = excluded.document",
        )
        .bind(uid)
        .bind(user.to_owned())
        .bind(name.to_owned())
        .bind(document.to_string())
        .execute(tx.writer()?)
        .await?;
        tx.commit().await?;
        Ok(())
    }
}

async fn account_uid(tx: &mut Tx, name: &str) -> sqlx::Result<Option<i64>> {
    let row = tx.row("SELECT uid FROM accounts WHERE name = $1", args![name]).await?;
    row.map(|r| r.int(0)).transpose()
}
