//! The service without daemons.

use super::*;

#[test]
fn users_are_found_by_name() {
    assert_eq!(user("root"), Some((0, 0)));
    assert_eq!(user("no-such-user-here"), None);
}

/// Of a service that is alone in its directory, and not confined.
fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_owned(),
        user: None,
        with_parent: false,
        sandbox: Mode::Off,
        version: "1".to_owned(),
    }
}

/// Who is neither root nor the agent's user may only look.
#[test]
fn settings_come_from_the_agent_alone() {
    let dir = tempfile::tempdir().expect("dir");
    let options = options(dir.path());
    let me = rustix::process::getuid().as_raw();
    for (setter, may) in [(Some(me), true), (Some(me + 1), me == 0)] {
        let mut service = Service::new(&Places::new(dir.path()), &options, setter);
        let call = |service: &mut Service, request: &[u8]| {
            let (mut mine, theirs) = UnixStream::pair().expect("pair");
            mine.write_all(request).expect("request");
            service.answer(theirs).expect("answered");
            let mut text = String::new();
            mine.read_to_string(&mut text).expect("answer");
            serde_json::from_str::<Result<Status, String>>(&text).expect("JSON")
        };
        assert_eq!(call(&mut service, b"\"Show\"\n").expect("status").version, "1");
        let set = call(&mut service, b"{\"Set\": {\"bfd\": true}}\n");
        assert_eq!(set.is_ok(), may);
        assert_eq!(service.wanted.bfd, may);
        assert!(call(&mut service, b"{\"Set\": 7}\n").expect_err("malformed").contains("cannot be read"));
    }
}

/// What a daemon refuses, though the checker takes it, costs its owner alone, until it changes.
#[test]
fn lines_that_a_daemon_refuses_are_left_out() {
    use crate::settings::{Bgp, Neighbor, Side};

    if !tools::installed(Path::new(FRR_DIR)).bgp {
        return eprintln!("SKIP: frr and frr-pythontools are not installed");
    }
    let dir = tempfile::tempdir().expect("dir");
    let options = options(dir.path());
    let neighbor = |address: &str, remote_as| Neighbor {
        port: "3".to_owned(),
        address: address.parse().expect("address"),
        remote_as,
        key: None,
        side: Side::Outside,
        hops: 1,
    };
    let bgp = |neighbors| Settings {
        bgp: Some(Bgp {
            router_id: "192.0.2.1".parse().expect("address"),
            local_as: 65001,
            hold_time: 9,
            keepalive: 3,
            max_prefixes: 10,
            neighbors,
            branch: Vec::new(),
            beyond: Vec::new(),
        }),
        ..Settings::default()
    };
    let mut service = Service::new(&Places::new(dir.path()), &options, None);
    let planned = |service: &mut Service, settings: &Settings| -> Vec<String> {
        service.set(settings.clone());
        service.plan(Forwarding::default());
        let (good, ..) = service.plan.as_ref().expect("a plan");
        good.bgp.iter().flat_map(|b| &b.neighbors).map(|n| n.address.to_string()).collect()
    };
    let (one, two) = (neighbor("192.0.2.8", 65002), neighbor("192.0.2.9", 65002));
    let both = bgp(vec![one.clone(), two.clone()]);
    assert_eq!(planned(&mut service, &both), ["192.0.2.8", "192.0.2.9"]);
    let refuse = |service: &mut Service, neighbor: &Neighbor| {
        let owner = Owner::Neighbor(neighbor.address);
        let lines = vec![(owner.clone(), "not this one".to_owned()), (owner, "nor this".to_owned())];
        service.failed(&ToolError::Lines(lines), &[]);
    };
    refuse(&mut service, &one);
    assert_eq!(planned(&mut service, &both), ["192.0.2.9"]);
    assert_eq!(service.refused.len(), 1);
    assert_eq!(service.refused[0].object, "BGP neighbor 192.0.2.8 of port 3");
    assert_eq!(service.refused[0].reason, "not this one");
    // One after the other: the first is not tried again for the second.
    refuse(&mut service, &two);
    assert!(planned(&mut service, &both).is_empty() && service.refused.len() == 2);
    let changed = bgp(vec![neighbor("192.0.2.8", 65003), two]);
    assert_eq!(planned(&mut service, &changed), ["192.0.2.8"]);
}
