use serde::{Deserialize, Serialize};

use super::objects::{self, Column, Columns, Entity, Filter, Stored};
use super::{Kind, Link, Store, links};
use crate::args;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Thing {
    name: String,
    priority: i64,
}

impl Entity for Thing {
    const KIND: Kind = Kind::AclRule;

    fn columns(&self) -> Columns<'_> {
        Columns { name: &self.name, priority: self.priority, ..Columns::default() }
    }
}

async fn open(dir: &tempfile::TempDir) -> Store {
    let url = format!("sqlite://{}/t.db", dir.path().display());
    Store::open(&url, None, 4).await.expect("opens")
}

fn thing(id: &str, seq: i64) -> Stored<Thing> {
    Stored {
        id: id.into(),
        uid: 7,
        region: "r".into(),
        parent: "p".into(),
        seq,
        body: Thing { name: id.into(), priority: -seq },
    }
}

fn ids(rows: Vec<Stored<Thing>>) -> Vec<String> {
    rows.into_iter().map(|o| o.id).collect()
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(&dir).await;
    assert!(!store.shared());
    let mut tx = store.write().await.expect("begins");
    objects::put(&mut tx, &thing("a", 1)).await.expect("puts");
    tx.rollback().await.expect("rolls back");
    let mut tx = store.write().await.expect("begins");
    objects::put(&mut tx, &thing("b", 2)).await.expect("puts");
    tx.commit().await.expect("commits");
    // What was committed is there after opening again; the tables are made only once.
    drop(store);
    let store = open(&dir).await;
    let mut tx = store.read().await.expect("begins");
    let all = objects::list_of(&mut tx, &Filter::default(), None).await.expect("lists");
    assert_eq!(ids(all), ["b"]);
}

#[tokio::test]
async fn only_the_owner_reads_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("dir");
    let path = |name: &str| dir.path().join(name);
    let mode = |name: &str| std::fs::metadata(path(name)).expect("is there").permissions().mode() & 0o777;
    let write = async || {
        let store = open(&dir).await;
        let mut tx = store.write().await.expect("begins");
        objects::put(&mut tx, &thing("a", 1)).await.expect("puts");
        tx.commit().await.expect("commits");
        store
    };
    let store = write().await;
    for name in ["t.db", "t.db-wal", "t.db-shm", "t.db.key"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    drop(store);
    // Files of an earlier version, or of another umask.
    for name in ["t.db", "t.db.key"] {
        std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(0o644)).expect("changes");
    }
    let _store = write().await;
    for name in ["t.db", "t.db-wal", "t.db-shm", "t.db.key"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
}

#[tokio::test]
async fn filters_orders_pages_and_links() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(&dir).await;
    let mut tx = store.write().await.expect("begins");
    for (i, id) in ["a", "b", "c"].into_iter().enumerate() {
        objects::put(&mut tx, &thing(id, i as i64)).await.expect("puts");
    }
    links::add(&mut tx, Link::Acl, "a", "x", 1).await.expect("links");
    let list = async |tx: &mut super::Tx, filter: Filter| {
        ids(objects::list_of(tx, &filter, None).await.expect("lists"))
    };
    let some = Filter::default().with_ids(Some(vec!["c".into(), "a".into()]));
    let none = Filter::default().with_ids(Some(Vec::new()));
    let x = ["x".to_owned()];
    assert_eq!(list(&mut tx, some).await, ["a", "c"]);
    assert_eq!(list(&mut tx, none).await, [""; 0]);
    assert_eq!(list(&mut tx, Filter::of(8)).await, [""; 0]);
    assert_eq!(list(&mut tx, Filter::under("p").with_id("b")).await, ["b"]);
    assert_eq!(list(&mut tx, Filter::of(7).equals(Column::Name, Some("b"))).await, ["b"]);
    assert_eq!(list(&mut tx, Filter::of(7).equals(Column::Name, None::<&str>)).await, ["a", "b", "c"]);
    assert_eq!(list(&mut tx, Filter::of(7).linked(Link::Acl, &x)).await, ["a"]);
    assert_eq!(list(&mut tx, Filter::of(7).linked(Link::Qos, &x)).await, [""; 0]);
    assert_eq!(list(&mut tx, Filter::of(7).not_linked(Link::Acl, &x)).await, ["b", "c"]);
    assert_eq!(list(&mut tx, Filter::of(7).has_links(Link::Acl, true)).await, ["a"]);
    assert_eq!(list(&mut tx, Filter::of(7).order_by(Column::Priority, false)).await, ["c", "b", "a"]);
    assert_eq!(list(&mut tx, Filter::of(7).order_by(Column::Priority, true)).await, ["a", "b", "c"]);
    let page = objects::list_of(&mut tx, &Filter::default(), Some((2, 1))).await.expect("lists");
    assert_eq!(ids(page), ["b", "c"]);
    assert_eq!(links::to(&mut tx, Link::Acl, "x").await.expect("links"), ["a"]);
    assert!(links::add(&mut tx, Link::Acl, "a", "x", 2).await.is_err());
    assert!(links::remove(&mut tx, Link::Acl, "a", "x").await.expect("unlinks"));
    assert!(!links::remove(&mut tx, Link::Acl, "a", "x").await.expect("unlinks"));
}

#[tokio::test]
async fn a_read_sees_one_state_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(&dir).await;
    let mut read = store.read().await.expect("begins");
    let none = Filter::default();
    assert_eq!(objects::count(&mut read, Kind::AclRule, &none).await.expect("counts"), 0);
    let mut tx = store.write().await.expect("begins");
    objects::put(&mut tx, &thing("a", 1)).await.expect("puts");
    links::add(&mut tx, Link::Acl, "gw1", "a", 1).await.expect("links");
    links::add(&mut tx, Link::Acl, "gw2", "a", 2).await.expect("links");
    tx.commit().await.expect("commits");
    let count = objects::count(&mut read, Kind::AclRule, &none).await.expect("counts");
    assert_eq!(count, 0, "the state of its beginning");
    assert!(objects::put(&mut read, &thing("b", 1)).await.is_err());
    read.rollback().await.expect("ends");
    let mut read = store.read().await.expect("begins");
    assert_eq!(objects::count(&mut read, Kind::AclRule, &none).await.expect("counts"), 1);
    let counts = links::count_to_each(&mut read, Link::Acl, &["a", "b"]).await.expect("counts");
    assert_eq!((counts.get("a"), counts.get("b")), (Some(&2), None));
    let all = links::to_each(&mut read, Link::Acl, &["a", "b"]).await.expect("lists");
    assert_eq!(all.get("a").map(Vec::as_slice), Some(&["gw1".to_owned(), "gw2".to_owned()][..]));
    // Places go by their numbers, whatever their order in the statement.
    let row = read
        .row("SELECT $2, $1, $2", args![7, "x"], |row| {
            assert!(row.text(1).is_err() && row.int(0).is_err() && row.int(3).is_err());
            Ok((row.string(0)?, row.int(1)?, row.string(2)?))
        })
        .await
        .expect("reads");
    assert_eq!(row, Some(("x".to_owned(), 7, "x".to_owned())));
    assert!(read.texts("SELECT $2", args![7]).await.is_err());
    assert!(read.texts("SELEC", Vec::new()).await.is_err());
    // It does nothing before its first statement.
    let before = store.statements.get();
    store.read().await.expect("begins").rollback().await.expect("ends");
    assert_eq!(store.statements.get(), before);
}

#[tokio::test]
async fn keys_are_sealed() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(&dir).await;
    let key = store.create_key("main", "").await.expect("makes");
    let user = store.create_key("main", "reader").await.expect("makes");
    let found = store.access_key(&key.id).await.expect("reads").expect("is there");
    let reader = store.access_key(&user.id).await.expect("reads").expect("is there");
    assert!(found.secret == key.secret && reader.secret == user.secret);
    assert_eq!((found.uid, found.user.as_str()), (reader.uid, ""));
    let mut tx = store.read().await.expect("begins");
    let stored =
        tx.texts("SELECT secret FROM access_keys WHERE id = $1", args![&key.id]).await.expect("reads");
    assert!(stored.len() == 1 && !stored[0].contains(&key.secret));
    tx.rollback().await.expect("ends");
    assert!(store.set_key_status(&key.id, "Inactive").await.expect("sets"));
    assert!(!store.access_key(&key.id).await.expect("reads").expect("is there").active);
    assert!(store.delete_key(&key.id).await.expect("deletes"));
    assert!(store.access_key(&key.id).await.expect("reads").is_none());
}

/// Whoever called goes away: not one of the connections is left in a transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_given_up_at_any_moment_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir).await;
    for round in 0..400u64 {
        let patience = std::time::Duration::from_micros(round * 7 % 300);
        let _ = tokio::time::timeout(patience, async {
            let mut tx = if round % 3 == 0 { store.read().await? } else { store.write().await? };
            tx.texts("SELECT 'x' FROM migrations", Vec::new()).await?;
            tx.commit().await
        })
        .await;
    }
    for _ in 0..6 {
        let (a, b) = tokio::join!(store.read(), store.write());
        a.unwrap().rollback().await.unwrap();
        b.unwrap().commit().await.unwrap();
    }
}

/// Another process may write at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_waits_for_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (open(&dir).await, open(&dir).await);
    let mut first = one.write().await.unwrap();
    objects::put(&mut first, &thing("a", 1)).await.unwrap();
    let second = tokio::spawn(async move {
        let mut second = other.write().await.unwrap();
        objects::put(&mut second, &thing("b", 2)).await.unwrap();
        second.commit().await.unwrap();
    });
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert!(!second.is_finished());
    first.commit().await.unwrap();
    second.await.unwrap();
    let mut read = one.read().await.unwrap();
    assert_eq!(objects::count(&mut read, Kind::AclRule, &Filter::default()).await.unwrap(), 2);
}

#[tokio::test]
async fn a_lost_key_file_is_not_replaced() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(&dir).await;
    let key = store.create_key("main", "").await.expect("makes");
    drop(store);
    let (file, aside) = (dir.path().join("t.db.key"), dir.path().join("aside"));
    std::fs::rename(&file, &aside).expect("renames");
    let url = format!("sqlite://{}/t.db", dir.path().display());
    for _ in 0..2 {
        let refused = Store::open(&url, None, 4).await.err().expect("refused").to_string();
        assert!(refused.contains("put it back") && !file.exists(), "{refused}");
    }
    // Who has really lost it makes another one.
    std::fs::write(&file, "ab".repeat(32)).expect("writes");
    assert!(open(&dir).await.access_key(&key.id).await.is_err());
    std::fs::rename(&aside, &file).expect("renames");
    let found = open(&dir).await.access_key(&key.id).await.expect("reads").expect("is there");
    assert!(found.secret == key.secret);
}
