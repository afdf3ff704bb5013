use serde_json::json;

use super::objects::{self, Filter, Object};
use super::{Backend, Store};
use crate::args;
use crate::proto::sign::Keys;

async fn open(dir: &tempfile::TempDir) -> Store {
    let url = format!("sqlite://{}/t.db", dir.path().display());
    Store::open(&url, None, 4).await.expect("opens")
}

fn object(id: &str, seq: i64) -> Object {
    Object {
        kind: "k".into(),
        id: id.into(),
        uid: 7,
        region: "r".into(),
        parent: "p".into(),
        name: id.into(),
        seq,
        body: json!({"Id": id}).as_object().cloned().unwrap_or_default(),
    }
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(&dir).await;
    assert_eq!(store.backend, Backend::Sqlite);
    let mut tx = store.write().await.expect("begins");
    objects::put(&mut tx, &object("a", 1)).await.expect("puts");
    tx.rollback().await.expect("rolls back");
    let mut tx = store.write().await.expect("begins");
    objects::put(&mut tx, &object("b", 2)).await.expect("puts");
    tx.commit().await.expect("commits");
    // What was committed is there after opening again; the tables are made only once.
    drop(store);
    let store = open(&dir).await;
    let mut tx = store.read().await.expect("begins");
    let all = objects::list(&mut tx, "k", &Filter::default(), None).await.expect("lists");
    assert_eq!(all.iter().map(|o| o.id.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn filters_pages_and_links() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(&dir).await;
    let mut tx = store.write().await.expect("begins");
    for (i, id) in ["a", "b", "c"].into_iter().enumerate() {
        objects::put(&mut tx, &object(id, i as i64)).await.expect("puts");
    }
    let ids = |rows: Vec<Object>| rows.into_iter().map(|o| o.id).collect::<Vec<_>>();
    let some = Filter { ids: Some(vec!["c".into(), "a".into()]), ..Filter::default() };
    let none = Filter { ids: Some(Vec::new()), ..Filter::default() };
    let other = Filter { uid: Some(8), ..Filter::default() };
    let conn = &mut tx;
    assert_eq!(ids(objects::list(conn, "k", &some, None).await.expect("lists")), ["a", "c"]);
    assert_eq!(objects::count(conn, "k", &none).await.expect("counts"), 0);
    assert_eq!(objects::count(conn, "k", &other).await.expect("counts"), 0);
    let page = objects::list(conn, "k", &Filter::default(), Some((2, 1))).await.expect("lists");
    assert_eq!(ids(page), ["b", "c"]);
    objects::link(conn, "acl", "gw", "x", 1).await.expect("links");
    assert_eq!(objects::links_to(conn, "acl", "x").await.expect("links"), ["gw"]);
    assert!(objects::link(conn, "acl", "gw", "x", 2).await.is_err());
    assert!(objects::unlink(conn, "acl", "gw", "x").await.expect("unlinks"));
    assert!(!objects::unlink(conn, "acl", "gw", "x").await.expect("unlinks"));
}

#[tokio::test]
async fn a_read_sees_one_state_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(&dir).await;
    let mut read = store.read().await.expect("begins");
    let none = Filter::default();
    assert_eq!(objects::count(&mut read, "k", &none).await.expect("counts"), 0);
    let mut tx = store.write().await.expect("begins");
    objects::put(&mut tx, &object("a", 1)).await.expect("puts");
    objects::link(&mut tx, "acl", "gw1", "a", 1).await.expect("links");
    objects::link(&mut tx, "acl", "gw2", "a", 2).await.expect("links");
    tx.commit().await.expect("commits");
    assert_eq!(objects::count(&mut read, "k", &none).await.expect("counts"), 0, "the state of its beginning");
    assert!(objects::put(&mut read, &object("b", 1)).await.is_err());
    read.rollback().await.expect("ends");
    let mut read = store.read().await.expect("begins");
    assert_eq!(objects::count(&mut read, "k", &none).await.expect("counts"), 1);
    let counts = objects::count_links_to(&mut read, "acl", &["a", "b"]).await.expect("counts");
    assert_eq!((counts.get("a"), counts.get("b")), (Some(&2), None));
    let all = objects::all_links_to(&mut read, "acl", &["a", "b"]).await.expect("lists");
    assert_eq!(all.get("a").map(Vec::as_slice), Some(&["gw1".to_owned(), "gw2".to_owned()][..]));
    // Places go by their numbers, whatever their order in the statement.
    let row = read.row("SELECT $2, $1, $2", args![7, "x"]).await.expect("reads").expect("a row");
    assert_eq!((row.text(0).ok(), row.int(1).ok(), row.text(2).ok()), (Some("x"), Some(7), Some("x")));
    assert!(row.text(1).is_err() && row.int(0).is_err() && row.int(3).is_err());
    assert!(read.rows("SELECT $2", args![7]).await.is_err());
    assert!(read.rows("SELEC", Vec::new()).await.is_err());
    // It does nothing before its first statement.
    let before = store.statements.get();
    store.read().await.expect("begins").rollback().await.expect("ends");
    assert_eq!(store.statements.get(), before);
}

#[tokio::test]
async fn keys_are_kept_sealed() {
    let dir = tempfile::tempdir().expect("dir");
    let store = open(&dir).await;
    let key = store.create_key("main", "").await.expect("makes");
    let user = store.create_key("main", "reader").await.expect("makes");
    let caller = store.caller(&key.id).await.expect("reads").expect("is there");
    let reader = store.caller(&user.id).await.expect("reads").expect("is there");
    assert!(caller.keys.same(&Keys::new(&key.secret)) && !caller.keys.same(&reader.keys));
    assert_eq!((caller.uid, caller.user.as_str()), (reader.uid, ""));
    let stored: String = sqlx::query_scalar("SELECT secret FROM access_keys WHERE id = $1")
        .bind(key.id.clone())
        .fetch_one(&store.pool)
        .await
        .expect("reads");
    assert!(!stored.contains(&key.secret));
    assert!(store.set_key_status(&key.id, "Inactive").await.expect("sets"));
    assert!(!store.caller(&key.id).await.expect("reads").expect("is there").active);
    assert!(store.delete_key(&key.id).await.expect("deletes"));
    assert!(store.caller(&key.id).await.expect("reads").is_none());
}

/// Whoever called goes away: not one of the connections is left in a transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_given_up_at_any_moment_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/cloud.db", dir.path().display());
    let store = Store::open(&url, None, 3).await.unwrap();
    for round in 0..400u64 {
        let patience = std::time::Duration::from_micros(round * 7 % 300);
        let _ = tokio::time::timeout(patience, async {
            let mut tx = if round % 3 == 0 { store.read().await? } else { store.write().await? };
            tx.rows("SELECT COUNT(*) FROM migrations", Vec::new()).await?;
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
