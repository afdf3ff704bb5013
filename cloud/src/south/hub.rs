//! Wakes the agents that wait for a change.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Agents;
use crate::store::{devices, nonces, tokens};
use crate::time::{now_ms, now_us};

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
pub async fn follow(agents: Arc<Agents>) {
    let mut told: BTreeSet<(i64, String)> = BTreeSet::new();
    let mut from = now_us();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let found = async {
            let mut tx = agents.store.read().await?;
            let rows = devices::changed_since(&mut tx, from - SLACK_US).await?;
            tx.rollback().await.map(|()| rows)
        };
        match found.await {
            Ok(rows) => {
                let fresh: Vec<String> = rows
                    .into_iter()
                    .filter(|(sn, at)| told.insert((*at, sn.clone())))
                    .map(|(sn, _)| sn)
                    .collect();
                agents.hub.wake(&fresh);
                from = now_us();
                told.retain(|(at, _)| *at >= from - 2 * SLACK_US);
            }
            Err(e) => tracing::warn!(error = %e, "cannot look for changes"),
        }
    }
}

/// Removes what has expired, now and then.
pub async fn clean(agents: Arc<Agents>) {
    loop {
        let done = async {
            let mut tx = agents.store.write().await?;
            nonces::remove_expired(&mut tx, now_ms()).await?;
            tokens::remove_expired(&mut tx, now_ms()).await?;
            tx.commit().await
        };
        if let Err(e) = done.await {
            tracing::warn!(error = %e, "cannot clean up");
        }
        agents.hub.sweep();
        tokio::time::sleep(Duration::from_secs(300)).await;
    }
}
