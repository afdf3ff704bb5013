//! The link by which sessions follow from one device of an instance to the other.

use super::*;
use sag_southbound::SessionLink;

fn link(b: &Branch, address: &str) -> Value {
    let address = address.parse().expect("an address");
    let link = SessionLink::signed(&b.key, address, &[9; 32], &b.sag, &b.sn).expect("signed");
    serde_json::to_value(link).expect("JSON")
}

#[tokio::test]
async fn each_device_gets_the_other_ones_end() {
    let world = World::new().await;
    let a = world.branch(OWNER, "10.1.0.0/16").await;
    let id = ("SmartAGId", a.sag.as_str());
    let row = world.call(OWNER, Op::DescribeSmartAccessGatewayAttribute, &[id]).await.expect("described");
    let sn = row["Devices"]["Device"][1]["SerialNumber"].as_str().expect("a number").to_owned();
    let key = IdentityKey::from_pkcs8(&IdentityKey::generate().expect("made")).expect("a key");
    let b = Branch { uid: OWNER, sag: a.sag.clone(), sn, key };
    let ha = async |d: &Branch, mode: &str| {
        let more = [("Mode", mode), ("PortName", "1"), ("VirtualIp", "10.1.0.1")];
        let of = [id, ("SmartAGSn", d.sn.as_str())];
        world.call(OWNER, Op::ModifySagHa, &[&of[..], &more].concat()).await.expect("set");
    };
    let report = async |d: &Branch, link: Option<Value>| {
        let state = match link {
            Some(link) => json!({"SessionLink": link}),
            None => json!({}),
        };
        world.agent(d, Action::ReportState, &[("State", &state.to_string())]).await.expect("reported");
    };
    let seen = async |d: &Branch| {
        let answer = world.agent(d, Action::Pull, &[("Revision", "0")]).await.expect("pulled");
        let peers = answer["Config"]["SessionPeers"].clone();
        (answer["Revision"].as_i64().expect("a number"), peers)
    };
    report(&a, Some(link(&a, "10.1.0.2"))).await;
    assert_eq!(seen(&b).await.1, json!([]), "no device has a virtual address");
    ha(&a, "STATIC").await;
    assert_eq!(seen(&b).await.1, json!([]), "one has none");
    ha(&b, "STATIC").await;
    let (before, peers) = seen(&b).await;
    assert_eq!(peers, json!([{"SmartAGSn": a.sn, "SessionLink": link(&a, "10.1.0.2")}]));
    assert_eq!(seen(&a).await.1, json!([]), "it does not hear of itself");
    // The same again is no news; another address is.
    report(&a, Some(link(&a, "10.1.0.2"))).await;
    assert_eq!(seen(&b).await.0, before);
    report(&a, Some(link(&a, "10.1.0.4"))).await;
    let (after, peers) = seen(&b).await;
    assert!(after > before);
    assert_eq!(peers[0]["SessionLink"]["Address"], "10.1.0.4");
    // What another device has signed is not passed on.
    report(&a, Some(link(&b, "10.1.0.5"))).await;
    assert_eq!(seen(&b).await.1, json!([]));
    report(&a, Some(link(&a, "10.1.0.2"))).await;
    // NONE at either takes it away at both.
    report(&b, Some(link(&b, "10.1.0.3"))).await;
    let (before, peers) = seen(&a).await;
    assert_eq!(peers[0]["SmartAGSn"], b.sn);
    ha(&b, "NONE").await;
    let (after, peers) = seen(&a).await;
    assert!(after > before && peers == json!([]), "{peers}");
    assert_eq!(seen(&b).await.1, json!([]));
}
