//! Accounts, users, access keys, policies.

use serde_json::Value;
use sqlx::AnyConnection;
use sqlx::Row as _;

use super::Store;
use super::secrets::{DIGITS, MIXED};
use crate::proto::time::now_ms;

/// Who makes a call.
#[derive(Clone, Debug)]
pub struct Caller {
    pub uid: i64,
    /// Empty for the account itself.
    pub user: String,
    pub key_id: String,
    pub secret: String,
    pub active: bool,
    /// The policies of a user; an account may do everything with its own resources.
    pub policies: Vec<Value>,
}

pub struct NewKey {
    pub id: String,
    pub secret: String,
}

impl Store {
    pub async fn caller(&self, key_id: &str) -> anyhow::Result<Option<Caller>> {
        let row = sqlx::query("SELECT uid, user_name, secret, status FROM access_keys WHERE id = $1")
            .bind(key_id.to_owned())
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let uid: i64 = row.try_get(0)?;
        let user: String = row.try_get(1)?;
        let mut policies = Vec::new();
        if !user.is_empty() {
            let rows = sqlx::query("SELECT document FROM policies WHERE uid = $1 AND user_name = $2")
                .bind(uid)
                .bind(user.clone())
                .fetch_all(&self.pool)
                .await?;
            for r in rows {
                policies.push(serde_json::from_str(r.try_get::<&str, _>(0)?)?);
            }
        }
        Ok(Some(Caller {
            uid,
            user,
            key_id: key_id.to_owned(),
            secret: self.cipher.open(row.try_get(2)?)?,
            active: row.try_get::<&str, _>(3)? == "Active",
            policies,
        }))
    }

    /// A key for the account `account` (made if it is new) or for one of its users.
    pub async fn create_key(&self, account: &str, user: &str) -> anyhow::Result<NewKey> {
        let id = format!("LTAI{}", self.cipher.token(MIXED, 20)?);
        let secret = self.cipher.token(MIXED, 30)?;
        let mut tx = self.write().await?;
        let uid = match account_uid(tx.conn(), account).await? {
            Some(uid) => uid,
            None => {
                let uid: i64 = format!("1{}", self.cipher.token(DIGITS, 15)?).parse()?;
                sqlx::query("INSERT INTO accounts (uid, name, created) VALUES ($1, $2, $3)")
                    .bind(uid)
                    .bind(account.to_owned())
                    .bind(now_ms())
                    .execute(tx.conn())
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
        .execute(tx.conn())
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
            .execute(tx.conn())
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    pub async fn delete_key(&self, id: &str) -> anyhow::Result<bool> {
        let mut tx = self.write().await?;
        let done = sqlx::query("DELETE FROM access_keys WHERE id = $1")
            .bind(id.to_owned())
            .execute(tx.conn())
            .await?;
        tx.commit().await?;
        Ok(done.rows_affected() > 0)
    }

    /// Key id, account, user, status.
    pub async fn keys(&self) -> anyhow::Result<Vec<(String, String, String, String)>> {
        let rows = sqlx::query(
            "SELECT k.id, a.name, k.user_name, k.status FROM access_keys k
             JOIN accounts a ON a.uid = k.uid ORDER BY a.name, k.user_name, k.created",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|r| Ok((r.try_get(0)?, r.try_get(1)?, r.try_get(2)?, r.try_get(3)?))).collect()
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
            account_uid(tx.conn(), account).await?.ok_or_else(|| anyhow::anyhow!("no account {account}"))?;
        sqlx::query(
            "INSERT INTO policies (uid, user_name, name, document) VALUES ($1, $2, $3, $4)
             ON CONFLICT (uid, user_name, name) DO UPDATE SET document = excluded.document",
        )
        .bind(uid)
        .bind(user.to_owned())
        .bind(name.to_owned())
        .bind(document.to_string())
        .execute(tx.conn())
        .await?;
        tx.commit().await?;
        Ok(())
    }
}

async fn account_uid(conn: &mut AnyConnection, name: &str) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar("SELECT uid FROM accounts WHERE name = $1")
        .bind(name.to_owned())
        .fetch_optional(conn)
        .await
}
