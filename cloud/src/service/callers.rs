//! Access keys that were used lately, with what their requests are checked against.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::caller::Caller;
use crate::store::Store;

/// A key is looked up again after this time: so long a disabled key or an old policy may still count, in every process.
pub const FRESH: Duration = Duration::from_secs(1);
/// From here on keys that were not used for that time are forgotten.
const MANY: usize = 1024;

#[derive(Default)]
pub struct Callers {
    known: Mutex<HashMap<String, (Instant, Arc<Caller>)>>,
}

impl Callers {
    pub async fn get(
        &self,
        store: &Store,
        key_id: &str,
        now: Instant,
    ) -> anyhow::Result<Option<Arc<Caller>>> {
        let fresh = |at: &Instant| now.saturating_duration_since(*at) < FRESH;
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, caller)) = known.get(key_id).filter(|(at, _)| fresh(at)) {
                return Ok(Some(caller.clone()));
            }
        }
        // An unknown key is never remembered, so a new one counts at once.
        let found = Caller::load(store, key_id).await?.map(Arc::new);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &found {
            Some(caller) => {
                if known.len() >= MANY {
                    known.retain(|_, (at, _)| fresh(at));
                }
                known.insert(key_id.to_owned(), (now, caller.clone()));
            }
            None => {
                known.remove(key_id);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_counts_as_it_was_for_a_second_at_most() {
        let dir = tempfile::tempdir().expect("dir");
        let url = format!("sqlite://{}/t.db", dir.path().display());
        let store = Store::open(&url, None, 2).await.expect("opens");
        let callers = Callers::default();
        let start = Instant::now();
        let active = async |id: &str, after: Duration| {
            callers.get(&store, id, start + after).await.expect("reads").map(|c| c.active)
        };
        assert_eq!(active("nobody", Duration::ZERO).await, None);
        let key = store.create_key("main", "").await.expect("makes").id;
        assert_eq!(active(&key, Duration::ZERO).await, Some(true));
        let before = store.statements.get();
        assert_eq!(active(&key, FRESH / 2).await, Some(true));
        assert_eq!(store.statements.get(), before, "known without a statement");
        assert!(store.set_key_status(&key, "Inactive").await.expect("sets"));
        assert_eq!(active(&key, FRESH).await, Some(false));
        assert!(store.delete_key(&key).await.expect("deletes"));
        assert_eq!(active(&key, 2 * FRESH).await, None);
        assert_eq!(active(&key, FRESH).await, None, "forgotten");
    }

    #[tokio::test]
    async fn keys_that_are_not_used_are_forgotten_at_the_bound() {
        let dir = tempfile::tempdir().expect("dir");
        let url = format!("sqlite://{}/t.db", dir.path().display());
        let store = Store::open(&url, None, 2).await.expect("opens");
        let callers = Callers::default();
        let start = Instant::now();
        let key = store.create_key("main", "").await.expect("makes").id;
        let caller = callers.get(&store, &key, start).await.expect("reads").expect("active");
        let remembered = || callers.known.lock().expect("no panic").len();
        for n in remembered()..MANY {
            callers.known.lock().expect("no panic").insert(format!("key {n}"), (start, caller.clone()));
        }
        let another = store.create_key("main", "").await.expect("makes").id;
        assert!(callers.get(&store, &another, start + FRESH / 2).await.expect("reads").is_some());
        assert_eq!(remembered(), MANY + 1, "all are in use");
        assert!(callers.get(&store, &key, start + FRESH).await.expect("reads").is_some());
        assert_eq!(remembered(), 2);
    }
}
