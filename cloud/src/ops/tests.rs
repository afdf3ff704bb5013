//! A database that an older version made is answered from as before.

use std::sync::Arc;

use serde_json::Value;

use super::cx::Cx;
use crate::api::Op;
use crate::api::params::Params;
use crate::api::validate::validate;
use crate::domain::caller::{Caller, SigningKeys};
use crate::store::Store;

const DUMP: &str = include_str!("../../tests/data/version-2.sql");
/// The time of the dump, its key file, and what the older version answered.
const RECORD: &str = include_str!("../../tests/data/version-2.json");

#[tokio::test]
async fn an_older_database_gives_the_same_answers() {
    let record: Value = serde_json::from_str(RECORD).expect("JSON");
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("cloud.db");
    let db = rusqlite::Connection::open(&path).expect("opens");
    db.execute_batch(DUMP).expect("fills");
    drop(db);
    let key_file = dir.path().join("key");
    std::fs::write(&key_file, record["key_file"].as_str().expect("a key")).expect("writes");
    let url = format!("sqlite://{}", path.display());
    let store = Store::open(&url, key_file.to_str(), 2).await.expect("migrates");
    let mut tx = store.read().await.expect("begins");
    let uid = tx.row("SELECT uid FROM accounts", Vec::new(), |r| r.int(0)).await.expect("reads");
    tx.rollback().await.expect("ends");
    let caller = Arc::new(Caller {
        uid: uid.expect("an account"),
        user: String::new(),
        key_id: String::new(),
        keys: SigningKeys::new(""),
        active: true,
        nonce_floor: 0,
        policies: Vec::new(),
    });
    for row in record["answers"].as_array().expect("a list") {
        let op = Op::by_name(row["action"].as_str().expect("a name")).expect("an operation");
        let mut params = Params::default();
        params.set("RegionId", "cn-shanghai");
        for (name, value) in row["params"].as_object().expect("parameters") {
            params.set(name, value.as_str().expect("a text"));
        }
        validate(op, &mut params).expect("valid");
        let tx = store.read().await.expect("begins");
        let mut cx = Cx::new(op, params, caller.clone(), store.cipher.clone(), tx);
        cx.now = record["now"].as_i64().expect("a time");
        let answer = super::call(op, &mut cx, "id").await.expect("answers");
        let mut answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer.as_object_mut().expect("an object").remove("RequestId");
        assert_eq!(answer, row["answer"], "{}", op.name());
    }
}
