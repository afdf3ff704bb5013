use super::*;
use sag_southbound::IdentityKey;

mod lines;

const NOW: i64 = 1_800_000_000;

fn key() -> IdentityKey {
    IdentityKey::from_pkcs8(&IdentityKey::generate().expect("made")).expect("a key")
}

/// Gateway `sag-N` with block 10.N.0.0/16 and the device `snN` at 203.0.113.N.
fn member(n: u8) -> Member {
    let peer = Peer {
        sn: format!("sn{n}"),
        address: format!("203.0.113.{n}"),
        epoch: 700,
        public_key: format!("{n:02x}").repeat(32),
        ..Peer::default()
    };
    Member { gateway: format!("sag-{n}"), blocks: vec![format!("10.{n}.0.0/16")], devices: vec![peer] }
}

fn sign(member: &mut Member, key: &IdentityKey) {
    for p in &mut member.devices {
        let mut a = Announcement {
            address: p.address.clone(),
            epoch: Some(p.epoch),
            public_key: p.public_key.clone(),
            lines: p.lines.clone(),
            ..Announcement::default()
        };
        key.sign(&mut a, &member.gateway, &p.sn).expect("signed");
        (p.identity, p.signature, p.lines_signature) = (a.identity, a.signature, a.lines_signature);
    }
}

fn network(members: Vec<Member>) -> Ccn {
    Ccn { id: "ccn-1".into(), hub: String::new(), members }
}

fn end() -> LocalEndpoint {
    LocalEndpoint { gateway: "sag-1".into(), sn: "sn1".into(), now: NOW, ..LocalEndpoint::default() }
}

/// This gateway: 203.0.113.1 outside, 10.1.0.0/24 inside.
fn own() -> Own {
    let lan = ("10.1.0.0/24".parse().expect("a block"), "the network of port 1".to_owned());
    Own {
        local: Some("203.0.113.1".parse().expect("an address")),
        addresses: ["203.0.113.1", "10.1.0.1"].map(|a| a.parse().expect("an address")).into(),
        networks: vec![
            lan.clone(),
            ("10.1.0.0/16".parse().expect("a block"), "this gateway's block".to_owned()),
        ],
        inside: vec![lan],
        ..Own::default()
    }
}

fn planned(ccn: &Ccn, end: &LocalEndpoint) -> Plan {
    plan(ccn, end, &own(), &Excluded::default())
}

fn names(p: &Plan) -> Vec<(&str, Vec<&str>)> {
    p.tunnels.iter().map(|t| (t.name.as_str(), t.blocks.iter().map(|(b, _)| b.as_str()).collect())).collect()
}

#[test]
fn by_the_hub_or_to_each_other() {
    let mut ccn = network(vec![member(2), member(3), member(9)]);
    let mesh = planned(&ccn, &end());
    let direct = vec![
        ("ccn-sn2", vec!["10.2.0.0/16"]),
        ("ccn-sn3", vec!["10.3.0.0/16"]),
        ("ccn-sn9", vec!["10.9.0.0/16"]),
    ];
    assert_eq!((names(&mesh), mesh.refused.len()), (direct.clone(), 0));
    ccn.hub = "sag-9".into();
    assert_eq!(
        names(&planned(&ccn, &end())),
        [("ccn-sn9", vec!["10.2.0.0/16", "10.3.0.0/16", "10.9.0.0/16"])]
    );
    ccn.hub = "sag-1".into();
    assert_eq!(names(&planned(&ccn, &end())), direct, "the hub itself has a tunnel to each");
    // The hub is the owner's word: without it no member gets the others' traffic, whoever says what of himself.
    ccn.hub = String::new();
    ccn.members[1].devices[0].pop = true;
    let p = planned(&ccn, &end());
    assert_eq!(names(&p), direct);
    assert!(p.notices[0].contains("update sag-cloud"), "{:?}", p.notices);
    // A hub that is not there is no reason to go round it.
    ccn.hub = "sag-77".into();
    let p = planned(&ccn, &end());
    assert!(p.tunnels.is_empty() && p.notices[0].contains("sag-77"), "{:?}", p.notices);
}

/// One device that is not in order costs its own tunnel, and is named.
#[test]
fn a_bad_peer_costs_its_own_tunnel() {
    let with = |change: &dyn Fn(&mut Peer)| {
        let mut bad = member(3);
        change(&mut bad.devices[0]);
        bad
    };
    let key = |text: &str| text.to_owned();
    type Case<'a> = (&'a dyn Fn(&mut Peer), &'a str);
    let cases: [Case<'_>; 17] = [
        (&|p| p.address = "127.0.0.1".into(), "loopback"),
        (&|p| p.address = "0.0.0.0".into(), "unspecified"),
        (&|p| p.address = "224.0.0.9".into(), "multicast"),
        (&|p| p.address = "255.255.255.255".into(), "broadcast"),
        (&|p| p.address = "169.254.1.1".into(), "link-local"),
        (&|p| p.address = "203.0.113.1".into(), "is one of this gateway"),
        (&|p| p.address = "10.1.0.1".into(), "is one of this gateway"),
        (&|p| p.address = "10.1.0.77".into(), "inside of the network of port 1"),
        (&|p| p.address = "10.2.0.77".into(), "inside of the block 10.2.0.0/16 of gateway sag-2"),
        (&|p| p.address = "203.0.113.2".into(), "that of device sn2"),
        (&|p| p.address = "2001:db8::3".into(), "another IP version"),
        (&|p| p.address = "x\ny".into(), "not an IP address"),
        (&|p| p.public_key = key("ab"), "64 hexadecimal digits"),
        (&|p| p.public_key = "00".repeat(32), "low order"),
        (&|p| p.sn = "sn1".into(), "serial number of this device"),
        (&|p| p.sn = "x\ny".into(), "serial number is not made of"),
        (&|p| p.signature = "ab".repeat(64), "identity"),
    ];
    for (change, why) in cases {
        let p = planned(&network(vec![member(2), with(change), member(4)]), &end());
        assert_eq!(names(&p), [("ccn-sn2", vec!["10.2.0.0/16"]), ("ccn-sn4", vec!["10.4.0.0/16"])], "{why}");
        assert_eq!(p.refused.len(), 1, "{:?}", p.refused);
        let said = &p.refused[0];
        assert!(
            said.starts_with("device ") && said.contains("of gateway sag-3") && said.contains(why),
            "{said}"
        );
        assert!(!said.contains('\n'), "{said:?}");
    }
}

#[test]
fn a_serial_number_of_any_length_makes_a_name_that_the_gateway_accepts() {
    let mut bad = member(3);
    bad.devices[0].sn = "S".repeat(64);
    let mut other = member(4);
    other.devices[0].sn = format!("{}T", "S".repeat(63));
    let p = planned(&network(vec![bad, other]), &end());
    assert!(p.refused.is_empty(), "{:?}", p.refused);
    let [one, two] = [&p.tunnels[0].name, &p.tunnels[1].name];
    assert!(one != two && one.len() <= 64 && one.starts_with("ccn-SSSS"), "{one} {two}");
}

/// Names of devices are short, and what a member calls itself takes no other member's.
#[test]
fn a_serial_number_of_any_length_makes_a_device_of_its_own() {
    let name = |sn: &str| device_name(&super::pairs::tunnel_name(sn, None));
    assert_eq!((name("sn3"), name("a-b_c6789AB")), ("ccn-sn3".to_owned(), "ccn-a-b_c6789AB".to_owned()));
    let hashed: Vec<String> = ["sage62x0123456789", "S", "a/b", "a.b", "sn\n"]
        .map(|sn| if sn == "S" { "S".repeat(64) } else { sn.to_owned() })
        .iter()
        .map(|sn| name(sn))
        .collect();
    for n in &hashed {
        assert!(n.len() == 15 && n.starts_with("ccn") && n.bytes().all(|b| b.is_ascii_alphanumeric()), "{n}");
        assert_ne!(name(&n[3..]), *n, "a serial number that is made like another one's hash");
        assert_ne!(name(&n[4..]), *n);
    }
    assert_eq!(hashed.iter().collect::<BTreeSet<_>>().len(), hashed.len());
    // Tunnels to one device by several lines have a device each.
    let by_lines = ["ccn-sn3", "ccn-sn3:0:3", "ccn-sn3:3:0", "ccn-sn3:3:3"].map(device_name);
    assert_eq!(by_lines[0], "ccn-sn3");
    assert_eq!(BTreeSet::from_iter(&by_lines).len(), 4);
    assert!(by_lines[1..].iter().all(|n| n.len() == 15 && !n.contains([':', '-'])), "{by_lines:?}");
}

#[test]
fn a_block_with_the_cloud_in_it_is_not_routed() {
    let own = Own { cloud: Some("10.3.7.7".parse().expect("an address")), ..own() };
    let p = plan(&network(vec![member(2), member(3)]), &end(), &own, &Excluded::default());
    assert_eq!(names(&p), [("ccn-sn2", vec!["10.2.0.0/16"]), ("ccn-sn3", vec![])]);
    assert!(p.refused[0].contains("10.3.0.0/16") && p.refused[0].contains("the cloud"), "{:?}", p.refused);
}

/// Of a member with two devices the first that has a carrier.
#[test]
fn packets_into_the_network_go_by_the_device_of_a_tunnel() {
    let mut two = member(2);
    let second = Peer { sn: "sn20".into(), address: "203.0.113.20".into(), ..two.devices[0].clone() };
    two.devices.push(second);
    let p = planned(&network(vec![two, member(3)]), &end());
    let by = |dst: &str, running: &dyn Fn(&str) -> Option<bool>| {
        device_to(dst.parse().expect("an address"), &p.tunnels, running).unwrap_or_default()
    };
    assert_eq!(by("10.2.9.9", &|_| Some(true)), "ccn-sn2");
    assert_eq!(by("10.2.9.9", &|d| Some(d != "ccn-sn2")), "ccn-sn20");
    assert_eq!(by("10.2.9.9", &|_| Some(false)), "ccn-sn2", "the first, until one is up");
    assert_eq!(by("10.2.9.9", &|d| (d == "ccn-sn20").then_some(false)), "ccn-sn20", "the kernel has it");
    assert_eq!(by("10.3.0.1", &|_| Some(true)), "ccn-sn3");
    for elsewhere in ["10.4.0.1", "192.0.2.1", "2001:db8::1"] {
        assert_eq!(by(elsewhere, &|_| Some(true)), "");
    }
    // A leased line leads there, too.
    let leased: Ipv4Net = "10.3.0.0/16".parse().expect("a block");
    let mut own = own();
    own.networks.push((leased, "the static route by port 3 to".to_owned()));
    own.backed_up.insert(leased);
    let p = plan(&network(vec![member(2), member(3)]), &end(), &own, &Excluded::default());
    let by = |dst: &str| device_to(dst.parse().expect("an address"), &p.tunnels, |_| Some(true));
    assert_eq!((by("10.3.0.1"), by("10.2.0.1")), (None, Some("ccn-sn2".to_owned())));
}

#[test]
fn who_has_an_address_keeps_it() {
    let mut thief = member(2);
    thief.devices[0].address = "203.0.113.3".into();
    let ccn = network(vec![thief, member(3)]);
    let mut local = end();
    let endpoint = planned(&network(vec![member(3)]), &local).tunnels[0].endpoint.clone();
    local.known.remember("sn3", "sag-3", &endpoint, NOW);
    let p = planned(&ccn, &local);
    assert_eq!(names(&p), [("ccn-sn3", vec!["10.3.0.0/16"])]);
    assert!(p.refused[0].contains("that of device sn3"), "{:?}", p.refused);
}

#[test]
fn a_block_that_is_not_the_peers_is_not_routed() {
    for (block, why) in [
        ("0.0.0.0/0", "default route"),
        ("0.0.0.0/1", "not private"),
        ("8.8.8.0/24", "not private"),
        ("10.0.0.0/7", "not private"),
        ("172.16.0.0/11", "not private"),
        ("10.1.0.0/25", "overlaps with the network of port 1 10.1.0.0/24"),
        ("10.1.9.0/24", "overlaps with this gateway's block"),
        ("10.0.0.0/8", "overlaps with the network of port 1"),
        ("10.2.0.0/24", "overlaps with the block 10.2.0.0/16 of gateway sag-2"),
        ("10.2.0.0/15", "overlaps with the block 10.2.0.0/16 of gateway sag-2"),
        ("10.5.0.0/33", "no IPv4 block"),
        ("2001:db8::/32", "no IPv4 block"),
        ("\n", "no IPv4 block"),
    ] {
        let mut bad = member(3);
        bad.blocks = vec![block.into(), "10.30.0.0/16".into(), "10.30.1.0/24".into()];
        let p = planned(&network(vec![member(2), bad]), &end());
        assert_eq!(
            names(&p),
            [("ccn-sn2", vec!["10.2.0.0/16"]), ("ccn-sn3", vec!["10.30.0.0/16"])],
            "{block}"
        );
        assert!(p.refused[0].contains("of gateway sag-3") && p.refused[0].contains(why), "{:?}", p.refused);
        assert!(
            p.refused[1].contains("10.30.1.0/24") && p.refused[1].contains("10.30.0.0/16"),
            "{:?}",
            p.refused
        );
    }
}

/// Neither another account nor the cloud can take a device's place once it is known.
#[test]
fn an_identity_that_is_known_cannot_be_replaced() {
    let (owner, thief) = (key(), key());
    let (mut good, mut local) = (member(3), end());
    sign(&mut good, &owner);
    let p = planned(&network(vec![good.clone()]), &local);
    let first = p.tunnels[0].endpoint.clone();
    assert_eq!(first.identity, Some(owner.identity()));
    local.known.remember("sn3", "sag-3", &first, NOW);
    let refused = |m: Member, local: &LocalEndpoint, why: &str| {
        let p = planned(&network(vec![member(2), m]), local);
        assert_eq!(names(&p), [("ccn-sn2", vec!["10.2.0.0/16"])], "{why}");
        assert!(p.refused[0].contains("device sn3") && p.refused[0].contains(why), "{why}: {:?}", p.refused);
    };
    let changed = |change: fn(&mut Peer)| {
        let mut m = member(3);
        change(&mut m.devices[0]);
        m
    };
    // Another identity, with a command to accept it that names the right one.
    let mut stolen = changed(|p| p.epoch = 800);
    sign(&mut stolen, &thief);
    refused(stolen.clone(), &local, &format!("peers accept sn3 {}", thief.identity()));
    // Unsigned, as before version 1.2.
    refused(changed(|p| p.epoch = 800), &local, "not signed");
    // An older key, and another key with the same number, both of the right identity.
    let mut old = changed(|p| p.epoch = 699);
    sign(&mut old, &owner);
    refused(old, &local, "behind 700");
    let mut same = changed(|p| p.public_key = "77".repeat(32));
    sign(&mut same, &owner);
    refused(same, &local, "same epoch");
    // The announcement of the device in another instance.
    let mut moved = good.clone();
    moved.gateway = "sag-8".into();
    refused(moved, &local, "signature");
    // The operator has compared fingerprints.
    let known = local.known.0.get_mut("sn3").expect("known");
    (known.fingerprint, known.epoch, known.public_key) = (thief.identity().fingerprint(), 0, String::new());
    assert_eq!(planned(&network(vec![stolen]), &local).tunnels.len(), 1);
    refused(good, &local, "its identity is");
}

#[test]
fn the_operator_can_list_whom_to_trust() {
    let (owner, thief) = (key(), key());
    let (mut good, mut bad, mut local) = (member(3), member(3), end());
    sign(&mut good, &owner);
    sign(&mut bad, &thief);
    local.trust.listed.insert("sn3".into(), owner.identity().fingerprint());
    let tunnels = |m: &Member, local: &LocalEndpoint| {
        let p = planned(&network(vec![m.clone(), member(4)]), local);
        (p.tunnels.len(), p.refused.join(" "))
    };
    assert_eq!(tunnels(&good, &local).0, 2);
    let (some, why) = tunnels(&bad, &local);
    assert!(some == 1 && why.contains("[peers] of agent.toml names another one"), "{why}");
    assert_eq!(tunnels(&member(3), &local).0, 1, "unsigned");
    local.trust.only_listed = true;
    let (some, why) = tunnels(&good, &local);
    assert!(some == 1 && why.contains("device sn4") && why.contains("not listed"), "{why}");
}

#[test]
fn more_devices_than_tunnels_are_no_reason_to_refuse_everything() {
    let mut members: Vec<Member> = Vec::new();
    for n in 0..MAX_TUNNELS + 5 {
        let mut m = member(2);
        m.gateway = format!("sag-{n}x");
        m.blocks.clear();
        m.devices[0].sn = format!("sn-{n}");
        m.devices[0].address = format!("198.51.{}.{}", n / 200, 1 + n % 200);
        members.push(m);
    }
    let p = planned(&network(members), &end());
    assert_eq!((p.tunnels.len(), p.refused.len()), (MAX_TUNNELS, 5));
    assert!(p.refused[0].contains("limit"), "{}", p.refused[0]);
}
