//! Wakes the agents that wait for a change.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::Agents;
use crate::store::devices;
use crate::time::now_us;

/// Polls of one device at a time: an agent that loses its connection leaves some behind.
const OF_A_DEVICE: u64 = 4;

/// Who waits. Only devices for which somebody waits have an entry, so serial numbers that somebody makes up leave
/// nothing behind.
#[derive(Default)]
pub struct Hub {
    waiters: Mutex<HashMap<String, Arc<Waiting>>>,
    /// Polls that wait, by account.
    polls: Mutex<HashMap<i64, usize>>,
}

#[derive(Default)]
struct Waiting {
    notify: Notify,
    /// Polls that have begun to wait.
    begun: AtomicU64,
    /// Those that still do; changed under the lock of the table.
    waiters: AtomicUsize,
}

impl Hub {
    /// Begins to listen for changes of a device.
    pub fn waiter(&self, sn: &str) -> Waiter<'_> {
        let device = {
            let mut all = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            let device = all.entry(sn.to_owned()).or_default();
            device.waiters.fetch_add(1, Ordering::Relaxed);
            device.clone()
        };
        let number = device.begun.fetch_add(1, Ordering::Relaxed);
        if number >= OF_A_DEVICE {
            // The oldest looks, and goes.
            device.notify.notify_waiters();
        }
        Waiter { hub: self, sn: sn.to_owned(), device, number }
    }

    pub fn wake<'a>(&self, sns: impl IntoIterator<Item = &'a String>) {
        let all = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        for sn in sns {
            if let Some(w) = all.get(sn) {
                w.notify.notify_waiters();
            }
        }
    }

    /// A place to wait, unless the account has as many as it may.
    pub fn poll(&self, uid: i64, most: usize) -> Option<Poll<'_>> {
        let mut all = self.polls.lock().unwrap_or_else(PoisonError::into_inner);
        let n = all.entry(uid).or_default();
        if *n >= most {
            return None;
        }
        *n += 1;
        Some(Poll { hub: self, uid })
    }

    /// Devices for which somebody waits.
    pub fn devices(&self) -> usize {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// A poll that listens for changes of a device.
pub struct Waiter<'a> {
    hub: &'a Hub,
    sn: String,
    device: Arc<Waiting>,
    number: u64,
}

impl Waiter<'_> {
    /// The next change. Changes count from the moment at which this is called, or enabled.
    pub fn notified(&self) -> Notified<'_> {
        self.device.notify.notified()
    }

    /// Whether enough newer polls of the device wait.
    pub fn superseded(&self) -> bool {
        self.device.begun.load(Ordering::Relaxed) > self.number + OF_A_DEVICE
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut all = self.hub.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if self.device.waiters.fetch_sub(1, Ordering::Relaxed) == 1 {
            all.remove(&self.sn);
        }
    }
}

/// A place among the polls of an account.
pub struct Poll<'a> {
    hub: &'a Hub,
    uid: i64,
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        let mut all = self.hub.polls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = all.get_mut(&self.uid) {
            *n -= 1;
            if *n == 0 {
                all.remove(&self.uid);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_devices_that_nobody_waits_for() {
        let hub = Hub::default();
        for n in 0..1000 {
            drop(hub.waiter(&format!("made-up-{n}")));
        }
        assert_eq!(hub.devices(), 0);
        let (a, b) = (hub.waiter("sn"), hub.waiter("sn"));
        drop(a);
        assert_eq!(hub.devices(), 1);
        drop(b);
        assert_eq!(hub.devices(), 0);
    }

    #[test]
    fn the_latest_polls_of_a_device_wait() {
        let hub = Hub::default();
        let polls: Vec<_> = (0..6).map(|_| hub.waiter("sn")).collect();
        let over: Vec<bool> = polls.iter().map(Waiter::superseded).collect();
        assert_eq!(over, [true, true, false, false, false, false]);
    }

    #[test]
    fn an_account_has_so_many_polls() {
        let hub = Hub::default();
        let polls: Vec<_> = (0..3).filter_map(|_| hub.poll(1, 2)).collect();
        assert_eq!(polls.len(), 2);
        assert!(hub.poll(2, 2).is_some());
        drop(polls);
        assert!(hub.poll(1, 2).is_some() && hub.polls.lock().unwrap().is_empty());
    }
}
