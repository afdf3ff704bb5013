//! A database that an older version made is answered from as before.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::cx::Cx;
use crate::api::Op;
use crate::api::params::Params;
use crate::api::validate::validate;
use crate::domain::access::Access;
use crate::domain::caller::Caller;
use crate::domain::network::Network;
use crate::domain::policy::Context;
use crate::store::Store;
use crate::time::now_ms;

const DUMP: &str = include_str!("../../tests/data/version-2.sql");
/// The time of the dump, its key file, and what the older version answered.
const RECORD: &str = include_str!("../../tests/data/version-2.json");

/// The older database with more in it, opened by this version.
async fn migrated(dir: &tempfile::TempDir, more: &str) -> Store {
    let record: Value = serde_json::from_str(RECORD).expect("JSON");
    let path = dir.path().join("cloud.db");
    let db = rusqlite::Connection::open(&path).expect("opens");
    db.execute_batch(DUMP).expect("fills");
    db.execute_batch(more).expect("fills");
    drop(db);
    let key_file = dir.path().join("key");
    std::fs::write(&key_file, record["key_file"].as_str().expect("a key")).expect("writes");
    let url = format!("sqlite://{}", path.display());
    Store::open(&url, key_file.to_str(), 2).await.expect("migrates")
}

#[tokio::test]
async fn an_older_database_gives_the_same_answers() {
    let record: Value = serde_json::from_str(RECORD).expect("JSON");
    let dir = tempfile::tempdir().expect("dir");
    let store = migrated(&dir, "").await;
    let mut tx = store.read().await.expect("begins");
    let uid = tx.row("SELECT uid FROM accounts", Vec::new(), |r| r.int(0)).await.expect("reads");
    tx.rollback().await.expect("ends");
    let caller = Caller::account(uid.expect("an account"));
    let call = Context { source: Ipv4Addr::LOCALHOST.into(), now: now_ms() };
    for row in record["answers"].as_array().expect("a list") {
        let op = Op::by_name(row["action"].as_str().expect("a name")).expect("an operation");
        let mut params = Params::default();
        params.set("RegionId", "cn-shanghai");
        for (name, value) in row["params"].as_object().expect("parameters") {
            params.set(name, value.as_str().expect("a text"));
        }
        validate(op, &mut params).expect("valid");
        let tx = store.read().await.expect("begins");
        let region = params.get("RegionId");
        let access = Access::new(&caller, (op.name(), Some(op)), &call, region).expect("an account");
        let mut cx = Cx::new(op, params, access, store.cipher.clone(), tx);
        cx.now = record["now"].as_i64().expect("a time");
        let answer = super::call(op, &mut cx, "id").await.expect("answers");
        let mut answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer.as_object_mut().expect("an object").remove("RequestId");
        assert_eq!(answer, row["answer"], "{}", op.name());
    }
}

/// Networks go on as they are, as far as that was right: the hub is a member of the owner's account, another account's
/// member keeps the blocks that it has, and what was announced out of order is not handed out.
#[tokio::test]
async fn networks_of_an_older_database_go_on() {
    const OWN: &str = "sag-7mdwdym88i186t7m72";
    const CCN: &str = "ccn-1teqorsji47xb90ue8";
    let overlay = |address: &str| {
        let key = "09".repeat(32);
        format!(r#"{{"Overlay":{{"Address":"{address}","Epoch":5,"PublicKey":"{key}","Pop":true}}}}"#)
    };
    let more = format!(
        r#"INSERT INTO objects VALUES ('gateway', 'sag-x', 77, 'cn-shanghai', '', '', 1,
               '{{"SmartAGId":"sag-x","SmartAGUid":77,"CidrBlock":"172.16.9.0/24","Status":"Active"}}');
           INSERT INTO links VALUES ('ccn', 'sag-x', '{CCN}', 1);
           INSERT INTO devices VALUES ('snx', 77, 'sag-x', 1, 0, '', 1, 1, '{{}}', '{stolen}');
           INSERT INTO objects VALUES ('gateway', 'sag-y', 77, 'cn-shanghai', '', '', 1,
               '{{"SmartAGId":"sag-y","SmartAGUid":77,"CidrBlock":"","Status":"Active"}}');
           INSERT INTO links VALUES ('ccn', 'sag-y', '{CCN}', 2);
           INSERT INTO devices VALUES ('sny', 77, 'sag-y', 1, 0, '', 1, 1, '{{}}', '{bad}');
           UPDATE devices SET report = '{good}' WHERE sn = (SELECT MIN(sn) FROM devices WHERE sag = '{OWN}');"#,
        stolen = overlay("198.51.100.1"),
        bad = overlay("127.0.0.1"),
        good = overlay("198.51.100.1"),
    );
    let dir = tempfile::tempdir().expect("dir");
    let store = migrated(&dir, &more).await;
    let mut tx = store.read().await.expect("begins");
    let network = Network::by_id(&mut tx, CCN).await.expect("reads").expect("a network");
    assert_eq!(network.hub(), Some(OWN), "others were members before, and of another account");
    let member = |id: &str| network.member(id).expect("a member");
    assert_eq!(member(OWN).granted, None);
    assert_eq!(member("sag-x").granted.as_deref().map(<[_]>::len), Some(1));
    assert_eq!(member("sag-x").blocks.len(), 1);
    let first = |id: &str| member(id).devices.iter().find(|d| d.announced.hub_capable).expect("a device");
    assert!(first(OWN).endpoint().is_some());
    assert!(first("sag-x").conflict.contains("198.51.100.1"), "the owner's device has the address");
    assert!(first("sag-y").endpoint().is_none() && first("sag-y").announced.announcement.is_none());
}
