//! Wakes the agents that wait for a change.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::proto::server::App;
use crate::proto::time::now_us;

#[derive(Default)]
pub struct Hub {
    waiters: Mutex<HashMap<String, Arc<Notify>>>,
}

impl Hub {
    pub fn waiter(&self, sn: &str) -> Arc<Notify> {
        let mut all = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(sn.to_owned()).or_default().clone()
    }

    pub fn wake<'a>(&self, sns: impl IntoIterator<Item = &'a String>) {
        let all = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        for sn in sns {
            if let Some(w) = all.get(sn) {
                w.notify_waiters();
            }
        }
    }

    /// Forgets devices for which nobody waits.
    pub fn sweep(&self) {
        let mut all = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, w| Arc::strong_count(w) > 1);
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Commits may become visible out of the order of their time stamps.
const SLACK_US: i64 = 2_000_000;

/// Follows the changes that other processes make in a shared database.
pub async fn follow(app: Arc<App>) {
    let mut told: BTreeSet<(i64, String)> = BTreeSet::new();
    let mut from = now_us();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let found: sqlx::Result<Vec<(String, i64)>> =
            sqlx::query_as("SELECT sn, changed FROM devices WHERE changed >= $1")
                .bind(from - SLACK_US)
                .fetch_all(&app.store.pool)
                .await;
        match found {
            Ok(rows) => {
                let fresh: Vec<String> = rows
                    .into_iter()
                    .filter(|(sn, at)| told.insert((*at, sn.clone())))
                    .map(|(sn, _)| sn)
                    .collect();
                app.hub.wake(&fresh);
                from = now_us();
                told.retain(|(at, _)| *at >= from - 2 * SLACK_US);
            }
            Err(e) => tracing::warn!(error = %e, "cannot look for changes"),
        }
    }
}

/// Removes what has expired, now and then.
pub async fn clean(app: Arc<App>) {
    loop {
        let now = crate::proto::time::now_ms();
        for sql in ["DELETE FROM nonces WHERE expires < $1", "DELETE FROM client_tokens WHERE expires < $1"] {
            let done = async {
                let mut tx = app.store.write().await?;
                sqlx::query(sql).bind(now).execute(tx.writer()?).await?;
                tx.commit().await
            };
            if let Err(e) = done.await {
                tracing::warn!(error = %e, "cannot clean up");
            }
        }
        app.hub.sweep();
        tokio::time::sleep(Duration::from_secs(300)).await;
    }
}
