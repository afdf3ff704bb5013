//! What a gateway publishes to the other members of its network, and who is in it at all; what happens at its end.

use super::*;
use crate::store::{devices, objects};

/// What the others reach through a gateway.
async fn blocks_of(world: &World, seen_by: &Branch, of: &Branch) -> Value {
    let ccn = world.pull(seen_by).await.1;
    let members = ccn["Members"].as_array().cloned().unwrap_or_default();
    members
        .into_iter()
        .find(|m| m["SmartAGId"] == of.sag.as_str())
        .map_or(Value::Null, |m| m.get("CidrBlocks").cloned().unwrap_or(json!([])))
}

async fn two_branches(world: &World, more: &[(&str, &str)]) -> (String, Branch, Branch) {
    let made = world.call(OWNER, Op::CreateCloudConnectNetwork, &[&[("Name", "net")], more].concat()).await;
    let ccn = made.expect("made")["CcnId"].as_str().expect("an id").to_owned();
    let a = world.branch(OWNER, "10.1.0.0/24,10.5.0.0/16").await;
    let b = world.branch(OWNER, "10.2.0.0/24").await;
    world.bind(&ccn, &a).await;
    world.bind(&ccn, &b).await;
    (ccn, a, b)
}

/// Words of DescribeRouteDistributionStrategies: document 000, lines 22306 to 22323.
#[tokio::test]
async fn local_strategies_publish_to_the_other_members() {
    let world = World::new().await;
    let (_, a, b) = two_branches(&world, &[]).await;
    let check = [
        ("SmartAGId", a.sag.as_str()),
        ("Name", "line"),
        ("Type", "ICMP_ECHO"),
        ("DstIpAddr", "10.5.0.1"),
        ("SrcIpAddr", "10.1.0.1"),
    ];
    let check = world.call(OWNER, Op::CreateHealthCheck, &check).await.expect("made");
    let check = check["InstanceId"].as_str().expect("an id").to_owned();
    let route = [
        ("SmartAGId", a.sag.as_str()),
        ("SourceType", "local"),
        ("RouteSource", "STATIC"),
        ("DestCidrBlock", "10.5.0.0/16"),
    ];
    let set = async |strategy: &str| {
        let more = [("RouteDistribution", strategy), ("HcInstanceId", check.as_str())];
        world
            .call(OWNER, Op::ModifyRouteDistributionStrategy, &[&route[..], &more].concat())
            .await
            .expect("set");
    };
    let shown = async || {
        let list = [("SmartAGId", a.sag.as_str()), ("SourceType", "local")];
        let answer = world.call(OWNER, Op::DescribeRouteDistributionStrategies, &list).await.expect("listed");
        let rows = answer["Strategies"]["Strategy"].as_array().cloned().expect("rows");
        let row = rows.into_iter().find(|r| r["DestCidrBlock"] == "10.5.0.0/16").expect("the route");
        let text = |name: &str| row[name].as_str().expect("a word").to_owned();
        (text("StrategyPublishStatus"), text("Status"))
    };
    let verdict = async |status: &str| {
        let state = json!({"HealthChecks": [{"HcInstanceId": check, "Status": status}]}).to_string();
        world.agent(&a, Action::ReportState, &[("State", &state)]).await.expect("reported");
    };
    let (both, one) = (json!(["10.1.0.0/24", "10.5.0.0/16"]), json!(["10.1.0.0/24"]));
    assert_eq!(blocks_of(&world, &b, &a).await, both);
    assert_eq!(shown().await, ("publish".into(), "normal".into()));
    set("no_publish").await;
    assert_eq!(blocks_of(&world, &b, &a).await, one);
    assert_eq!(shown().await, ("not_publish".into(), "normal".into()));
    set("publish_and_revoke_on_health_fail").await;
    assert_eq!(blocks_of(&world, &b, &a).await, both, "nothing is measured yet");
    let revision = world.pull(&b).await.0;
    verdict("ok").await;
    assert_eq!(world.pull(&b).await.0, revision, "nothing is another for b");
    verdict("failed").await;
    assert!(world.pull(&b).await.0 > revision, "b is told");
    assert_eq!(blocks_of(&world, &b, &a).await, one);
    assert_eq!(shown().await, ("not_publish".into(), "revoked".into()));
    verdict("ok").await;
    assert_eq!(blocks_of(&world, &b, &a).await, both);
    set("no_publish_and_publish_on_health_fail").await;
    assert_eq!(blocks_of(&world, &b, &a).await, one);
    verdict("failed").await;
    assert_eq!(blocks_of(&world, &b, &a).await, both);
    world.call(OWNER, Op::DeleteRouteDistributionStrategy, &route).await.expect("deleted");
    assert_eq!((blocks_of(&world, &b, &a).await, shown().await.0), (both, "publish".to_owned()));
}

/// Whether the gateways of a network reach each other: document 000, line 11378.
#[tokio::test]
async fn interworking_disabled_keeps_members_apart() {
    let world = World::new().await;
    let (ccn, a, b) = two_branches(&world, &[]).await;
    world.report(&a, &a.announcement("203.0.113.1", world.start, 7)).await;
    assert_eq!(world.pull(&b).await.1["Members"][0]["Devices"].as_array().map(Vec::len), Some(1));
    let set = async |status: &str| {
        let pairs = [("CcnId", ccn.as_str()), ("InterworkingStatus", status)];
        world.call(OWNER, Op::ModifyCloudConnectNetwork, &pairs).await.expect("set");
    };
    let before = world.pull(&b).await.0;
    set("disable").await;
    let (revision, network) = world.pull(&b).await;
    let members = network.get("Members").and_then(Value::as_array);
    assert!(revision > before && members.is_none_or(Vec::is_empty), "{network}");
    assert_eq!(network["InterworkingStatus"], "disable");
    let list = [("SmartAGId", a.sag.as_str()), ("SourceType", "local")];
    let rows = world.call(OWNER, Op::DescribeRouteDistributionStrategies, &list).await.expect("listed");
    assert_eq!(rows["Strategies"]["Strategy"][0]["StrategyPublishStatus"], "not_publish", "nobody gets it");
    set("enable").await;
    assert_eq!(world.pull(&b).await.1["Members"].as_array().map(Vec::len), Some(1));
}

/// SnatCidrBlock: document 000, line 11207.
#[tokio::test]
async fn addresses_of_the_snat_block_are_reached() {
    let world = World::new().await;
    let blocks = [("CidrBlock", "172.16.0.0/16"), ("SnatCidrBlock", "172.16.9.0/24")];
    let (_, a, b) = two_branches(&world, &blocks).await;
    let add = async |of: &Branch, block: &str, ip: &str| {
        let pairs = [("SmartAGId", of.sag.as_str()), ("CidrBlock", block), ("SnatIp", ip)];
        let made = world.call(OWNER, Op::AddSnatEntry, &pairs).await.expect("added");
        made["InstanceId"].as_str().expect("an id").to_owned()
    };
    let entry = add(&a, "10.1.0.0/24", "172.16.9.7").await;
    add(&a, "10.5.0.0/16", "192.0.2.1").await;
    add(&b, "10.2.0.0/24", "172.16.9.7").await;
    let with = json!(["10.1.0.0/24", "10.5.0.0/16", "172.16.9.7/32"]);
    assert_eq!(blocks_of(&world, &b, &a).await, with);
    assert_eq!(blocks_of(&world, &a, &b).await, json!(["10.2.0.0/24"]), "the address is a's");
    let gone = [("SmartAGId", a.sag.as_str()), ("InstanceId", &entry)];
    world.call(OWNER, Op::DeleteSnatEntry, &gone).await.expect("deleted");
    assert_eq!(blocks_of(&world, &a, &b).await, json!(["10.2.0.0/24", "172.16.9.7/32"]));
}

/// An expired gateway is not frozen, and can be renewed.
#[tokio::test]
async fn the_agent_of_an_expired_gateway_goes_on() {
    let world = World::new().await;
    let a = world.branch(OWNER, "10.1.0.0/24").await;
    let mut tx = world.agents.store.write().await.expect("a transaction");
    let mut gw = objects::get::<Gateway>(&mut tx, &a.sag).await.expect("read").expect("there");
    gw.body.end_time = 1;
    objects::put(&mut tx, &gw).await.expect("written");
    devices::bump_revision(&mut tx, &a.sag, 5).await.expect("written");
    tx.commit().await.expect("committed");
    let id = ("SmartAGId", a.sag.as_str());
    let snat = [id, ("CidrBlock", "10.1.0.0/24"), ("SnatIp", "192.0.2.1")];
    let refused = world.call(OWNER, Op::AddSnatEntry, &snat).await.map_err(|e| e.code.into_owned());
    assert_eq!(refused.err().as_deref(), Some("SmartAccessGatewayInArrears"));
    let (revision, _) = world.pull(&a).await;
    world.report(&a, &Value::Null).await;
    let result = [("Revision", revision.to_string()), ("Success", "true".to_owned())];
    let result: Vec<(&str, &str)> = result.iter().map(|(k, v)| (*k, v.as_str())).collect();
    world.agent(&a, Action::ReportResult, &result).await.expect("taken");
    for (period, good) in [("0", false), ("37", false), ("12", true)] {
        let done = world.call(OWNER, Op::RenewSmartAccessGateway, &[id, ("Period", period)]).await;
        assert_eq!(done.is_ok(), good, "{period}");
    }
    assert!(world.call(OTHER, Op::RenewSmartAccessGateway, &[id, ("Period", "1")]).await.is_err());
    world.call(OWNER, Op::AddSnatEntry, &snat).await.expect("added");
    let row = world.call(OWNER, Op::DescribeSmartAccessGatewayAttribute, &[id]).await.expect("described");
    let end = row["EndTime"].as_i64().expect("a time");
    let year = crate::time::months_later(now_ms(), 12);
    assert!((year - end).abs() < 60_000, "{end}");
}
