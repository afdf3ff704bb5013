//! What the devices of other accounts report, and what reaches the members of a network of it.

use std::sync::atomic::{AtomicU64, Ordering};

use sag_southbound::IdentityKey;
use serde_json::{Value, json};

use super::*;
use crate::api::validate::validate;
use crate::domain::caller::Caller;
use crate::domain::policy::Context;
use crate::ops;

/// The owner of the network, and somebody else.
const OWNER: i64 = 1_000_000_000_000_001;
const OTHER: i64 = 2_000_000_000_000_002;

const ORDER: [(&str, &str); 19] = [
    ("Period", "1"),
    ("AutoPay", "false"),
    ("ReceiverCountry", "China"),
    ("ReceiverState", "Zhejiang"),
    ("ReceiverCity", "Hangzhou"),
    ("ReceiverDistrict", "Xihu"),
    ("ReceiverTown", "Zhuantang"),
    ("ReceiverZip", "310000"),
    ("ReceiverMobile", "18800000000"),
    ("ReceiverName", "Li"),
    ("ReceiverEmail", "li@example.com"),
    ("BuyerMessage", "none"),
    ("ReceiverAddress", "1"),
    ("ChargeType", "PREPAY"),
    ("HardWareSpec", "sag-vcpe"),
    ("HaType", "warm_backup"),
    ("MaxBandWidth", "50"),
    ("Name", "branch"),
    ("Description", "test"),
];

struct World {
    agents: Arc<Agents>,
    nonces: AtomicU64,
    /// Seconds since 1970, the first epoch of every device.
    start: u64,
    _dir: tempfile::TempDir,
}

/// A gateway with its first device.
struct Branch {
    uid: i64,
    sag: String,
    sn: String,
    key: IdentityKey,
}

fn access(uid: i64, action: &str, op: Option<Op>, region: Option<&str>) -> Access {
    let caller = Caller::account(uid);
    let context = Context { source: std::net::Ipv4Addr::LOCALHOST.into(), now: now_ms() };
    Access::new(&caller, (action, op), &context, region).expect("an account")
}

fn given(pairs: &[(&str, &str)]) -> Params {
    let mut params = Params::default();
    params.set("RegionId", "cn-shanghai");
    for (name, value) in pairs {
        params.set(name, value);
    }
    params
}

impl World {
    async fn new() -> World {
        let dir = tempfile::tempdir().expect("dir");
        let url = format!("sqlite://{}", dir.path().join("cloud.db").display());
        let store = Store::open(&url, None, 2).await.expect("opens");
        let start = now_ms().unsigned_abs() / 1000;
        World { agents: Arc::new(Agents::new(store, 1000)), nonces: AtomicU64::new(0), start, _dir: dir }
    }

    async fn call(&self, uid: i64, op: Op, pairs: &[(&str, &str)]) -> Result<Value> {
        let mut params = given(pairs);
        validate(op, &mut params)?;
        let store = &self.agents.store;
        let tx = store.write().await?;
        let access = access(uid, op.name(), Some(op), params.get("RegionId"));
        let mut cx = Cx::new(op, params, access, store.cipher.clone(), tx);
        let done = ops::call(op, &mut cx, "id").await;
        let Finished { tx, changed, .. } = cx.into_parts();
        let answer = self.agents.conclude(tx, &changed, done).await?;
        Ok(serde_json::from_str(&answer)?)
    }

    async fn agent(&self, b: &Branch, action: Action, more: &[(&str, &str)]) -> Result<Value> {
        let mut pairs = vec![("SmartAGId", b.sag.as_str()), ("SmartAGSn", b.sn.as_str())];
        pairs.extend(more);
        let nonce = self.nonces.fetch_add(1, Ordering::Relaxed).to_string();
        let nonce = SignedNonce { key: "key", nonce: &nonce, at_ms: now_ms() };
        let access = access(b.uid, action.name(), None, None);
        let source = std::net::Ipv4Addr::new(198, 51, 100, 7).into();
        call(&self.agents, action.name(), access, given(&pairs), (nonce, source)).await
    }

    async fn branch(&self, uid: i64, blocks: &str) -> Branch {
        let made = self.call(uid, Op::CreateSmartAccessGateway, &ORDER).await.expect("made");
        let sag = made["SmartAGId"].as_str().expect("an id").to_owned();
        let id = ("SmartAGId", sag.as_str());
        self.call(uid, Op::ActivateSmartAccessGateway, &[id]).await.expect("activated");
        let set = [id, ("CidrBlock", blocks), ("RoutingStrategy", "static")];
        self.call(uid, Op::ModifySmartAccessGateway, &set).await.expect("set");
        let row = self.call(uid, Op::DescribeSmartAccessGatewayAttribute, &[id]).await.expect("described");
        let sn = row["Devices"]["Device"][0]["SerialNumber"].as_str().expect("a number").to_owned();
        let key = IdentityKey::from_pkcs8(&IdentityKey::generate().expect("made")).expect("a key");
        Branch { uid, sag, sn, key }
    }

    async fn bind(&self, ccn: &str, b: &Branch) {
        let (ccn, id, uid) = (("CcnId", ccn), ("SmartAGId", b.sag.as_str()), b.uid.to_string());
        if b.uid != OWNER {
            let grant = [id, ("CcnInstanceId", ccn.1), ("CcnUid", &OWNER.to_string())];
            self.call(b.uid, Op::GrantSagInstanceToCcn, &grant).await.expect("granted");
        }
        let bind = [ccn, id, ("SmartAGUid", &uid)];
        self.call(OWNER, Op::BindSmartAccessGateway, &bind).await.expect("bound");
    }

    async fn report(&self, b: &Branch, overlay: &Value) -> Value {
        let state = json!({"ProtocolVersion": "1.2", "Overlay": overlay}).to_string();
        let answer = self.agent(b, Action::ReportState, &[("State", &state)]).await.expect("reported");
        answer["Overlay"].clone()
    }

    /// The revision, and the network as the device sees it.
    async fn pull(&self, b: &Branch) -> (i64, Value) {
        let answer = self.agent(b, Action::Pull, &[("Revision", "0")]).await.expect("pulled");
        (answer["Revision"].as_i64().expect("a number"), answer["Config"]["Ccn"].clone())
    }
}

impl Branch {
    /// What an honest agent of this device reports.
    fn announcement(&self, address: &str, epoch: u64, key: u8) -> Value {
        let mut a = Announcement {
            address: address.into(),
            epoch: Some(epoch),
            public_key: format!("{key:02x}").repeat(32),
            pop: Some(false),
            ..Announcement::default()
        };
        self.key.sign(&mut a, &self.sag, &self.sn).expect("signed");
        serde_json::to_value(a).expect("JSON")
    }
}

/// Two members of the owner, and one of another account that has announced itself in order.
async fn network(world: &World) -> (String, Branch, Branch, Branch) {
    let made = world.call(OWNER, Op::CreateCloudConnectNetwork, &[("Name", "net")]).await.expect("made");
    let ccn = made["CcnId"].as_str().expect("an id").to_owned();
    let a = world.branch(OWNER, "10.1.0.0/16").await;
    let b = world.branch(OWNER, "10.2.0.0/16").await;
    let x = world.branch(OTHER, "10.9.0.0/16").await;
    for (n, one) in [&a, &b, &x].into_iter().enumerate() {
        world.bind(&ccn, one).await;
        let address = format!("198.51.100.{}", n + 1);
        let answer = world.report(one, &one.announcement(&address, world.start, 9)).await;
        assert_eq!(answer, json!({"Epoch": answer["Epoch"]}), "accepted");
    }
    (ccn, a, b, x)
}

/// The attack: a member of another account takes the network over, or has the others' configurations refused.
#[tokio::test]
async fn a_hostile_member_costs_the_others_nothing() {
    let world = World::new().await;
    let (_, a, b, x) = network(&world).await;
    let before = [world.pull(&a).await, world.pull(&b).await];
    let devices = |view: &Value| -> Vec<(String, String)> {
        let members = view["Members"].as_array().expect("members");
        let all = members.iter().flat_map(|m| m["Devices"].as_array().cloned().unwrap_or_default());
        let text = |v: &Value| v.as_str().expect("a text").to_owned();
        all.map(|d| (text(&d["SmartAGSn"]), text(&d["Address"]))).collect()
    };
    assert_eq!(
        devices(&before[0].1),
        [(b.sn.clone(), "198.51.100.2".into()), (x.sn.clone(), "198.51.100.3".into())]
    );
    let good = x.announcement("198.51.100.3", world.start, 9);
    let with = |change: &[(&str, Value)]| {
        let mut it = good.clone();
        for (name, value) in change {
            it[*name] = value.clone();
        }
        it
    };
    let later = world.start + 1;
    let reports = [
        // To be the hub: a word of its own, without and with a signature.
        (with(&[("Pop", json!(true))]), ""),
        (with(&[("Address", json!("127.0.0.1"))]), "loopback"),
        (x.announcement("198.51.100.3", u64::MAX, 8), "ahead of the cloud's clock"),
        (x.announcement("198.51.100.3", 1, 8), "behind"),
        (with(&[("PublicKey", json!("not hex at all"))]), "64 hexadecimal digits"),
        (with(&[("PublicKey", json!("00".repeat(32)))]), "low order"),
        (with(&[("Epoch", json!(later))]), "signature"),
        (with(&[("Identity", json!("")), ("Signature", json!("")), ("Epoch", json!(later))]), "not signed"),
        (a.announcement("198.51.100.3", later, 8), "signature"),
        (json!({}), "not an IP address"),
    ];
    for (report, why) in reports {
        let answer = world.report(&x, &report).await;
        let problem = answer["Problem"].as_str().unwrap_or_default();
        assert!(problem.contains(why) && problem.is_empty() == why.is_empty(), "{report}: {problem}");
        assert_eq!([world.pull(&a).await, world.pull(&b).await], before, "{report}");
    }
    // The address of another member, in order and signed: the other one stays, and the thief has no tunnel.
    let answer = world.report(&x, &x.announcement("198.51.100.2", later, 8)).await;
    let problem = answer["Problem"].as_str().expect("a problem");
    assert!(problem.contains(&format!("198.51.100.2 is that of device {}", b.sn)), "{problem}");
    let (_, view) = world.pull(&a).await;
    assert_eq!(devices(&view), [(b.sn.clone(), "198.51.100.2".to_owned())]);
    assert_eq!(world.pull(&b).await.1["Members"][0]["Devices"][0]["Address"], "198.51.100.1");
    // An address inside of a block of the owner.
    let answer = world.report(&x, &x.announcement("10.1.0.7", later + 1, 8)).await;
    assert!(answer["Problem"].as_str().expect("a problem").contains("10.1.0.0/16"), "{answer}");
    // Back in order: it is a member as before.
    let answer = world.report(&x, &x.announcement("198.51.100.3", later + 2, 8)).await;
    assert!(answer.get("Problem").is_none(), "{answer}");
    assert_eq!(devices(&world.pull(&a).await.1).len(), 2);
    assert!(!world.pull(&a).await.1.to_string().contains("Pop"));
}

/// However often a member changes what it announces, the others are woken a bounded number of times.
#[tokio::test]
async fn changes_of_a_member_wake_the_others_within_bounds() {
    let world = World::new().await;
    let (_, a, _, x) = network(&world).await;
    let (before, _) = world.pull(&a).await;
    for n in 0..100u64 {
        world.report(&x, &x.announcement(&format!("198.51.100.{}", 10 + n % 2), world.start + n, 8)).await;
    }
    // Blocks that it takes and gives away wake nobody.
    for n in 0..20 {
        let blocks = ["10.9.0.0/16", "10.9.1.0/24"][n % 2];
        let set = [("SmartAGId", x.sag.as_str()), ("CidrBlock", blocks)];
        world.call(OTHER, Op::ModifySmartAccessGateway, &set).await.expect("set");
    }
    let (after, _) = world.pull(&a).await;
    assert!(after - before <= 12, "{}", after - before);
}

#[tokio::test]
async fn only_the_owner_of_the_network_says_which_member_is_the_hub() {
    let world = World::new().await;
    let (ccn, a, b, x) = network(&world).await;
    let hub = |sag: &str, on: &str| {
        vec![
            ("CcnId".to_owned(), ccn.clone()),
            ("SmartAGId".to_owned(), sag.to_owned()),
            ("Hub".to_owned(), on.to_owned()),
        ]
    };
    let set = async |uid: i64, sag: &str, on: &str| {
        let pairs = hub(sag, on);
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        world.call(uid, Op::ModifyCloudConnectNetworkMember, &pairs).await.map_err(|e| e.code.into_owned())
    };
    assert_eq!(set(OTHER, &x.sag, "true").await, Err("InvalidId.CCN".to_owned()));
    assert_eq!(set(OWNER, &b.sag, "true").await, Err("CCN.HubNotAble".to_owned()));
    assert_eq!(set(OWNER, "sag-nobody", "true").await, Err("SmartAccessGatewayNotBind".to_owned()));
    let able = |one: &Branch, address: &str| {
        let mut it = one.announcement(address, world.start + 1, 8);
        it["Pop"] = true.into();
        it
    };
    world.report(&b, &able(&b, "198.51.100.2")).await;
    world.report(&x, &able(&x, "198.51.100.3")).await;
    assert!(world.pull(&a).await.1.get("HubSmartAGId").is_none(), "to be able makes no hub");
    set(OWNER, &b.sag, "true").await.expect("set");
    let (revision, view) = world.pull(&a).await;
    assert_eq!(view["HubSmartAGId"], b.sag);
    let pops: Vec<&Value> =
        view["Members"].as_array().expect("members").iter().map(|m| &m["Devices"][0]["Pop"]).collect();
    assert_eq!(pops, [&json!(true), &Value::Null], "agents before 1.2 see the owner's word too");
    assert_eq!(world.pull(&b).await.1["HubSmartAGId"], b.sag, "the hub knows it");
    assert_eq!(set(OWNER, &x.sag, "true").await, Err("CCN.HubExists".to_owned()));
    assert_eq!(set(OWNER, &x.sag, "false").await.map(|_| ()), Ok(()), "it is none");
    let described =
        world.call(OWNER, Op::DescribeCloudConnectNetworkMembers, &[("CcnId", &ccn)]).await.expect("rows");
    assert_eq!((&described["HubSmartAGId"], &described["TotalCount"]), (&json!(b.sag), &json!(3)));
    let rows = &described["Members"]["Member"];
    assert_eq!(
        (&rows[1]["Hub"], &rows[2]["Hub"], &rows[2]["GrantedCidrBlock"]),
        (&json!(true), &json!(false), &json!("10.9.0.0/16"))
    );
    let device = &rows[1]["Devices"]["Device"][0];
    assert_eq!(
        (&device["Fingerprint"], &device["HubCapable"]),
        (&json!(b.key.identity().fingerprint()), &json!(true))
    );
    // The hub leaves: it is none any more, and the others know at once.
    let gone = [("CcnId", ccn.as_str()), ("SmartAGId", b.sag.as_str())];
    world.call(OWNER, Op::UnbindSmartAccessGateway, &gone).await.expect("unbound");
    let (after, view) = world.pull(&a).await;
    assert!(after > revision && view.get("HubSmartAGId").is_none(), "{view}");
    world.bind(&ccn, &b).await;
    assert!(world.pull(&a).await.1.get("HubSmartAGId").is_none());
}

/// A gateway that was offline for too long is out of its network until its owner unlocks it.
#[tokio::test]
async fn who_was_offline_for_too_long_is_locked_until_unlocked() {
    let world = World::new().await;
    let (_, a, b, x) = network(&world).await;
    let members = async |one: &Branch| world.pull(one).await.1["Members"].as_array().map_or(0, Vec::len);
    let heard_after = async |hours: i64| {
        let mut tx = world.agents.store.write().await.expect("begins");
        let sns =
            lock::after_silence(&mut tx, &b.sag, now_ms() + hours * 3_600_000).await.expect("looked at");
        tx.commit().await.expect("ends");
        sns
    };
    let id = ("SmartAGId", b.sag.as_str());
    assert_eq!(heard_after(99).await, Vec::<String>::new(), "without a threshold it may be away");
    let set = [id, ("SecurityLockThreshold", "7200")];
    world.call(OWNER, Op::ModifySmartAccessGateway, &set).await.expect("set");
    assert_eq!(heard_after(2).await, Vec::<String>::new(), "it is offline after a minute");
    let (revision, _) = world.pull(&a).await;
    let woken = heard_after(3).await;
    assert!([&a, &b, &x].iter().all(|one| woken.contains(&one.sn)), "{woken:?}");
    assert!(world.pull(&a).await.0 > revision);
    assert_eq!((members(&a).await, members(&b).await, members(&x).await), (1, 0, 1));
    let locked = async || {
        let answer = world.agent(&b, Action::Pull, &[("Revision", "0")]).await.expect("pulled");
        answer["Config"]["Gateway"]["Locked"].clone()
    };
    // It is heard again, and that alone changes nothing.
    world.report(&b, &b.announcement("198.51.100.2", world.start, 9)).await;
    assert_eq!((locked().await, members(&a).await), (json!(true), 1));
    let refused = world.call(OTHER, Op::UnlockSmartAccessGateway, &[id]).await;
    assert!(refused.is_err() && locked().await == json!(true));
    world.call(OWNER, Op::UnlockSmartAccessGateway, &[id]).await.expect("unlocked");
    assert_eq!((members(&a).await, members(&b).await, members(&x).await), (2, 2, 2));
    assert_eq!(locked().await, json!(false));
}

#[tokio::test]
async fn a_member_announces_what_was_granted_to_it() {
    let world = World::new().await;
    let (ccn, a, _, x) = network(&world).await;
    let set = async |uid: i64, sag: &str, blocks: &str| {
        let pairs = [("SmartAGId", sag), ("CidrBlock", blocks)];
        world
            .call(uid, Op::ModifySmartAccessGateway, &pairs)
            .await
            .map(|_| ())
            .map_err(|e| e.code.into_owned())
    };
    let blocks = async || {
        let (_, view) = world.pull(&a).await;
        let of = view["Members"]
            .as_array()
            .expect("members")
            .iter()
            .find(|m| m["SmartAGId"] == x.sag.as_str())
            .cloned();
        of.expect("a member")["CidrBlocks"].clone()
    };
    let refused = Err("SAG.InvalidCidr.NoBelongCcnCidr".to_owned());
    for hostile in ["10.0.0.0/8", "10.8.0.0/16", "10.9.0.0/16,192.168.0.0/16"] {
        assert_eq!(set(OTHER, &x.sag, hostile).await, refused, "{hostile}");
    }
    assert_eq!(set(OTHER, &x.sag, "0.0.0.0/0").await, Err("SAG.InvalidCidr".to_owned()));
    assert_eq!(set(OTHER, &x.sag, "10.9.1.0/24,10.9.2.0/24").await, Ok(()));
    assert_eq!(blocks().await, json!(["10.9.1.0/24", "10.9.2.0/24"]));
    let grant = async |uid: i64, sag: &str, text: &str| {
        let pairs = [("CcnId", ccn.as_str()), ("SmartAGId", sag), ("CidrBlock", text)];
        let done = world.call(uid, Op::ModifyCloudConnectNetworkMember, &pairs).await;
        done.map(|_| ()).map_err(|e| e.code.into_owned())
    };
    assert_eq!(grant(OTHER, &x.sag, "10.0.0.0/8").await, Err("InvalidId.CCN".to_owned()));
    assert_eq!(grant(OWNER, &x.sag, "10.1.0.0/24").await, Err("CidrConflict".to_owned()));
    assert_eq!(grant(OWNER, &x.sag, "8.8.8.0/24").await, Err("CCN.InvalidCidr".to_owned()));
    assert_eq!(grant(OWNER, &a.sag, "10.1.0.0/24").await, Err("CCN.OwnMember".to_owned()));
    // What is taken away is announced no more, although the gateway still has it.
    assert_eq!(grant(OWNER, &x.sag, "10.9.1.0/24").await, Ok(()));
    assert_eq!(blocks().await, json!(["10.9.1.0/24"]));
    assert_eq!(grant(OWNER, &x.sag, "none").await, Ok(()));
    assert_eq!(blocks().await, json!([]));
    assert_eq!(grant(OWNER, &x.sag, "10.8.0.0/15").await, Ok(()));
    assert_eq!(set(OTHER, &x.sag, "10.8.0.0/16").await, Ok(()));
    assert_eq!(blocks().await, json!(["10.8.0.0/16"]));
    // The owner's own gateways need no grant, but cannot cut off another member's tunnels.
    assert_eq!(set(OWNER, &a.sag, "10.1.0.0/16,10.3.0.0/16").await, Ok(()));
    world.report(&x, &x.announcement("10.77.0.1", world.start + 3, 8)).await;
    assert_eq!(set(OWNER, &a.sag, "10.77.0.0/16").await, Err("SAG.CidrOverlap".to_owned()));
}

#[tokio::test]
async fn a_lost_identity_begins_again_by_the_word_of_the_gateways_owner() {
    let world = World::new().await;
    let (_, a, _, mut x) = network(&world).await;
    let before = world.pull(&a).await;
    x.key = IdentityKey::from_pkcs8(&IdentityKey::generate().expect("made")).expect("a key");
    let replaced = x.announcement("198.51.100.3", world.start + 1, 7);
    let answer = world.report(&x, &replaced).await;
    assert!(answer["Problem"].as_str().expect("a problem").contains("ClearSagCipher"), "{answer}");
    assert_eq!(world.pull(&a).await, before);
    let clear = [("SagId", x.sag.as_str()), ("SnNumber", x.sn.as_str())];
    assert!(world.call(OWNER, Op::ClearSagCipher, &clear).await.is_err(), "not by another account");
    world.call(OTHER, Op::ClearSagCipher, &clear).await.expect("cleared");
    assert_eq!(world.pull(&a).await.1, before.1, "until then it stays as it is");
    let answer = world.report(&x, &replaced).await;
    assert!(answer.get("Problem").is_none(), "{answer}");
    assert!(world.pull(&a).await.1.to_string().contains(&x.key.identity().to_hex()));
}

/// What of a revision is not in force is told at once, and until it is.
#[tokio::test]
async fn deviations_are_shown_until_they_are_gone() {
    let world = World::new().await;
    let b = world.branch(OWNER, "10.1.0.0/24").await;
    let device = [("SmartAGId", b.sag.as_str()), ("SmartAGSn", b.sn.as_str())];
    let task = async |op: Op| {
        let answer = world.call(OWNER, op, &device).await.expect("answered");
        let task = &answer["TaskStates"][0];
        let text = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
        (text("State"), text("ErrorMessage"))
    };
    let put = [device[0], device[1], ("Snat", "ENABLE")];
    world.call(OWNER, Op::ModifySagWanSnat, &put).await.expect("set");
    let revision = world.pull(&b).await.0.to_string();
    let odd = json!([{"Section": "StaticRoutes", "Object": "static route 10.5.0.0/16 by port 5", "Effect": "left-out",
        "Reason": "port 5 has no network device here"}]);
    let result = |deviations: String| {
        [("Revision", revision.clone()), ("Success", "true".to_owned()), ("Deviations", deviations)]
    };
    let say = async |deviations: String| {
        let pairs = result(deviations);
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (*k, v.as_str())).collect();
        world.agent(&b, Action::ReportResult, &pairs).await
    };
    say(odd.to_string()).await.expect("taken");
    let (state, why) = task(Op::DescribeSagStaticRouteList).await;
    assert_eq!(state, "HardwareError");
    assert!(why.contains("10.5.0.0/16 by port 5 is left out: port 5 has no"), "{why}");
    assert_eq!(task(Op::DescribeSagWanSnat).await.0, "Succeed", "the rest is in force");
    // The next report says the same, and the one after it that it is over.
    for (deviations, expected) in [(odd.clone(), "HardwareError"), (json!([]), "Succeed")] {
        let state = json!({"ProtocolVersion": "1.3", "Deviations": deviations}).to_string();
        world.agent(&b, Action::ReportState, &[("State", &state)]).await.expect("taken");
        assert_eq!(task(Op::DescribeSagStaticRouteList).await.0, expected);
    }
    assert!(say("[7]".to_owned()).await.is_err());
    // More than anybody needs is cut.
    say(Value::Array(vec![odd[0].clone(); 2 * super::MAX_DEVIATIONS]).to_string()).await.expect("taken");
    let mut tx = world.agents.store.read().await.expect("a transaction");
    let kept = Device::by_sn(&mut tx, &b.sn).await.expect("read").expect("there").state.deviations;
    assert_eq!(kept.map(|d| d.len()), Some(super::MAX_DEVIATIONS));
    tx.rollback().await.expect("ended");
}

/// What a device has said that it cannot do is refused when the call is made.
#[tokio::test]
async fn what_a_device_cannot_do_is_refused_by_the_call() {
    let world = World::new().await;
    let b = world.branch(OWNER, "10.1.0.0/24").await;
    let text = |v: &Value, name: &str| v[name].as_str().expect("a text").to_owned();
    let acl = text(&world.call(OWNER, Op::CreateACL, &[("Name", "apps")]).await.expect("made"), "AclId");
    let qos = text(&world.call(OWNER, Op::CreateQos, &[("QosName", "apps")]).await.expect("made"), "QosId");
    let packets = [
        ("SourceCidr", "10.0.0.0/8"),
        ("DestCidr", "0.0.0.0/0"),
        ("IpProtocol", "ALL"),
        ("SourcePortRange", "-1/-1"),
        ("DestPortRange", "-1/-1"),
        ("Priority", "1"),
        ("DpiSignatureIds.1", "1"),
    ];
    let rule = async || {
        let more = [("AclId", acl.as_str()), ("Direction", "out"), ("Policy", "drop")];
        world
            .call(OWNER, Op::AddACLRule, &[&packets[..], &more].concat())
            .await
            .map_err(|e| e.code.into_owned())
    };
    let policy = async || {
        let more = [("QosId", qos.as_str())];
        world
            .call(OWNER, Op::CreateQosPolicy, &[&packets[..], &more].concat())
            .await
            .map_err(|e| e.code.into_owned())
    };
    let bind = async |op: Op, name: &str, id: &str| {
        let pairs = [("SmartAGId", b.sag.as_str()), (name, id)];
        world.call(OWNER, op, &pairs).await.map(|_| ()).map_err(|e| e.code.into_owned())
    };
    let route = async |port: &str| {
        let pairs = [
            ("SmartAGId", b.sag.as_str()),
            ("SmartAGSn", &b.sn),
            ("PortName", port),
            ("DestinationCidr", "10.5.0.0/16"),
            ("NextHop", "10.9.0.2"),
        ];
        world.call(OWNER, Op::CreateSagStaticRoute, &pairs).await.map(|_| ()).map_err(|e| e.code.into_owned())
    };
    let refused = || Err("FeatureNotSupport".to_owned());
    rule().await.expect("nobody uses the list");
    policy().await.expect("nobody uses it");
    let state = json!({"Capabilities": ["Acl", "Qos"], "WiredPorts": ["0", "1"]}).to_string();
    world.agent(&b, Action::ReportState, &[("State", &state)]).await.expect("reported");
    assert_eq!(bind(Op::AssociateACL, "AclId", &acl).await, refused());
    assert_eq!(bind(Op::AssociateQos, "QosId", &qos).await, refused());
    assert_eq!(route("3").await, Err("Sag.PortNotExist".to_owned()));
    assert_eq!(route("1").await, Ok(()));
    let able = json!({"Capabilities": ["Acl", "Qos", "Dpi"], "WiredPorts": ["0", "1", "3"]}).to_string();
    world.agent(&b, Action::ReportState, &[("State", &able)]).await.expect("reported");
    assert_eq!(bind(Op::AssociateACL, "AclId", &acl).await, Ok(()));
    assert_eq!(bind(Op::AssociateQos, "QosId", &qos).await, Ok(()));
    assert_eq!(route("3").await, Ok(()));
    world.agent(&b, Action::ReportState, &[("State", &state)]).await.expect("reported");
    assert_eq!(rule().await.map(|_| ()), refused());
    assert_eq!(policy().await.map(|_| ()), refused());
}

mod publication;
mod session_links;
