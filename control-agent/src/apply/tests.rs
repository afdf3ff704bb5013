use std::path::Path;

use super::*;
use sag_model::control::{
    ConfigApplied, ConfigShow, DeviationsKept, Error, ErrorCode, Op, PublicKey, Rekeyed, Request, Response,
    Status,
};
use serde::Serialize;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::Mutex;

const FILE: &str = "[dataplane]\nflows = 65536\n[[port]]\nname = \"0\"\ndevice = \"eth0\"\nrole = \"wan\"\n\
    [[port]]\nname = \"1\"\ndevice = \"eth1\"\nrole = \"lan\"\n";

#[derive(Default)]
struct Gateway {
    pid: u32,
    epoch: u32,
    text: String,
    applied: Vec<String>,
    refuse: bool,
    /// Peers with keys, by tunnel.
    keyed: Vec<String>,
    /// The tunnel whose keys it refuses.
    unkeyable: String,
    key_epoch: u64,
    deviations: Vec<String>,
    deviations_unknown: bool,
}

/// A gateway as far as the agent knows it.
fn fake(dir: &Path) -> Arc<Mutex<Gateway>> {
    let gateway = Arc::new(Mutex::new(Gateway { pid: 1, epoch: 1, text: FILE.into(), ..Gateway::default() }));
    let listener = UnixListener::bind(dir.join("vcpe.sock")).expect("socket");
    let shared = gateway.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream, &mut shared.lock().expect("gateway"));
        }
    });
    gateway
}

fn serve(stream: UnixStream, g: &mut Gateway) {
    let mut line = String::new();
    if BufReader::new(&stream).read_line(&mut line).is_err() || line.is_empty() {
        return;
    }
    let request: Request = serde_json::from_str(&line).expect("request");
    match request.op {
        Op::Status => say(&stream, Ok(Status { pid: g.pid, config_epoch: g.epoch, ..Status::default() })),
        Op::ConfigShow => {
            let config = sag_model::config::parse(&g.text, "t").expect("right").config;
            let text = config.to_toml(sag_model::config::Secrets::Masked).expect("written");
            say(&stream, Ok(ConfigShow { text, epoch: g.epoch, ..ConfigShow::default() }))
        }
        Op::ConfigApply(_) if g.refuse => {
            say::<ConfigApplied>(&stream, Err(Error::invalid_config("qos[0]: floors exceed the link")))
        }
        Op::ConfigApply(c) => {
            g.epoch += 1;
            g.text.clone_from(&c.text);
            g.applied.push(c.name);
            say(&stream, Ok(ConfigApplied { epoch: g.epoch, changed: true, warnings: vec![] }));
        }
        Op::ConfigDeviations(_) if g.deviations_unknown => {
            say::<DeviationsKept>(&stream, Err(Error::new(ErrorCode::UnknownOp, "unknown operation", "")))
        }
        Op::ConfigDeviations(d) => {
            g.deviations = d.deviations.iter().map(ToString::to_string).collect();
            say(&stream, Ok(DeviationsKept { kept: 1 }));
        }
        Op::TunnelsKey(q) => {
            if g.key_epoch == 0 || q.renew {
                g.key_epoch = q.epoch.unwrap_or(1_700_000_000);
            }
            let key = PublicKey { gateway: q.gateway, epoch: g.key_epoch, public_key: "09".repeat(32) };
            say(&stream, Ok(key));
        }
        Op::TunnelsPeers(p) => {
            let names: Vec<String> = p.peers.iter().map(|p| p.tunnel.clone()).collect();
            match names.contains(&g.unkeyable) {
                true => say::<Rekeyed>(&stream, Err(Error::new(ErrorCode::BadRequest, "no key", "another"))),
                false => {
                    g.keyed.extend(names.clone());
                    say(&stream, Ok(Rekeyed { tunnels: names }));
                }
            }
        }
        other => panic!("unexpected {other:?}"),
    }
}

fn say<T: Serialize>(mut stream: &UnixStream, answer: Result<T, Error>) {
    let mut line = serde_json::to_vec(&Response::new(1, answer)).expect("answer");
    line.push(b'\n');
    stream.write_all(&line).expect("sent");
}

fn config(dir: &Path) -> Arc<Config> {
    let text = format!(
        "endpoint = \"127.0.0.1:1\"\nregion_id = \"r\"\nsmart_ag_id = \"s\"\nsmart_ag_sn = \"n\"\n\
         state_dir = {:?}\nvcpe_socket = {:?}\nvcpe_config = {:?}\n[routing]\nmode = \"off\"\n[lan]\nmode = \"off\"\n",
        dir.join("state"),
        dir.join("vcpe.sock"),
        dir.join("vcpe.toml"),
    );
    let file = dir.join("agent.toml");
    std::fs::write(&file, text).expect("written");
    files::make_dir(&dir.join("state")).expect("made");
    Arc::new(Config::load(&file, |_| Some("key".into())).expect("config"))
}

fn wish(up: i64, revision: i64) -> LastGood {
    LastGood { revision: Some(revision), desired: Desired { up_bandwidth: Some(up), ..Desired::default() } }
}

/// In the environment of a test that has a network of its own.
const INSIDE: &str = "SAG_TEST_NETWORK";

/// Without the kernel, but in a network of its own: what is applied would be set on this machine in earnest.
fn applier(dir: &Path) -> Applier {
    let config = config(dir);
    // Without FRR.
    let routing = Routing::new(&config, None, || {});
    let mut a = Applier::new(config, routing);
    if std::env::var_os(INSIDE).is_none() {
        a.system = None;
    }
    a
}

/// Runs a test of this module again, in a network namespace with the devices of [`FILE`]. True: this is that run.
fn in_a_network_of_its_own(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let can =
        |how: &&str| Command::new("unshare").args([how, "true"]).output().is_ok_and(|o| o.status.success());
    let Some(how) = ["-n", "-rn"].into_iter().find(can) else {
        eprintln!("SKIP: no network namespaces here");
        return false;
    };
    let run = "ip link add eth0 type veth peer name eth1 && ip link set eth0 up && ip link set eth1 up &&
        exec \"$0\" --exact \"$1\" --nocapture";
    let out = Command::new("unshare")
        .args([how, "sh", "-c", run])
        .arg(std::env::current_exe().expect("path"))
        .arg(format!("apply::tests::{test}"))
        .env(INSIDE, "1")
        .output()
        .expect("run");
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
    false
}

#[test]
fn applied_once_saved_and_reconciled() {
    let dir = tempfile::tempdir().expect("dir");
    let gateway = fake(dir.path());
    let mut a = applier(dir.path());
    let health = Verdicts::new();
    assert_eq!(a.apply(wish(5, 7), &health), Ok(true));
    assert_eq!(a.apply(wish(5, 7), &health), Ok(false), "the same again is nothing to do");
    assert_eq!(gateway.lock().expect("gateway").applied, ["cloud revision 7"]);
    assert_eq!(a.last_good(), Some(wish(5, 7)));
    let written = std::fs::read_to_string(dir.path().join("vcpe.toml")).expect("written");
    assert_eq!(written, gateway.lock().expect("gateway").text);
    assert!(written.contains("internet_up = 5") && written.contains("flows = 65536"));

    // Somebody else applied something.
    gateway.lock().expect("gateway").epoch = 40;
    gateway.lock().expect("gateway").text = FILE.into();
    a.reconcile(&health).expect("applied");
    assert!(gateway.lock().expect("gateway").text.contains("internet_up = 5"));
    // The gateway was restarted and begins with its own file.
    let restarted = Gateway { pid: 2, epoch: 1, text: FILE.replace("65536", "1024"), ..Gateway::default() };
    *gateway.lock().expect("gateway") = restarted;
    a.reconcile(&health).expect("applied");
    let text = gateway.lock().expect("gateway").text.clone();
    assert!(
        text.contains("internet_up = 5") && text.contains("flows = 1024"),
        "its own sections are the new ones"
    );
    let before = gateway.lock().expect("gateway").applied.len();
    a.reconcile(&health).expect("quiet");
    // Its epoch moved by itself, or it was restarted with the agent's file.
    gateway.lock().expect("gateway").epoch += 3;
    gateway.lock().expect("gateway").pid = 3;
    a.reconcile(&health).expect("quiet");
    assert_eq!(gateway.lock().expect("gateway").applied.len(), before, "nothing differs, nothing done");
}

#[test]
fn a_refusal_leaves_the_last_good_one() {
    let dir = tempfile::tempdir().expect("dir");
    let gateway = fake(dir.path());
    let mut a = applier(dir.path());
    let health = Verdicts::new();
    a.apply(wish(5, 1), &health).expect("applied");
    gateway.lock().expect("gateway").refuse = true;
    let Err(Fault::Refused(why)) = a.apply(wish(6, 2), &health) else { panic!("not refused") };
    assert!(why.contains("floors exceed the link"), "{why}");
    gateway.lock().expect("gateway").refuse = false;
    // A document without a port does not reach the gateway.
    let bad = Desired {
        roles: [("0".to_owned(), sag_southbound::PortRole::Unknown("DMZ".into()))].into(),
        ..Desired::default()
    };
    let applied = gateway.lock().expect("gateway").applied.len();
    let no_port = Base::default();
    a.base = Some((1, no_port));
    let refused = a.apply(LastGood { revision: Some(3), desired: bad }, &health);
    assert!(matches!(&refused, Err(Fault::Refused(why)) if why.contains("no port")), "{refused:?}");
    a.base = None;
    assert_eq!(gateway.lock().expect("gateway").applied.len(), applied);
    assert_eq!(a.last_good(), Some(wish(5, 1)));
    a.reconcile(&health).expect("the old one is in force");
    assert!(gateway.lock().expect("gateway").text.contains("internet_up = 5"));
    // An older revision is accepted like a newer one.
    assert_eq!(a.apply(wish(4, 1), &health), Ok(true));
    assert_eq!(a.last_good(), Some(wish(4, 1)));
}

#[test]
fn the_gateway_shows_what_is_not_in_force_for_as_long_as_that_is_so() {
    let dir = tempfile::tempdir().expect("dir");
    let gateway = fake(dir.path());
    let shown = || gateway.lock().expect("gateway").deviations.clone();
    gateway.lock().expect("gateway").deviations = vec!["of an earlier agent".into()];
    let mut a = applier(dir.path());
    let health = Verdicts::new();
    a.apply(wish(5, 1), &health).expect("applied");
    assert_eq!(shown(), Vec::<String>::new());
    let unknown = sag_southbound::PortRole::Unknown("DMZ".into());
    let odd = Desired { roles: [("1".to_owned(), unknown)].into(), ..Desired::default() };
    let odd = LastGood { revision: Some(2), desired: odd };
    a.apply(odd, &health).expect("applied");
    assert!(matches!(&shown()[..], [one] if one.starts_with("port 1 is left out: ") && one.contains("DMZ")));
    // A gateway that was restarted, or whose document was another one in between, is told again.
    for change in [|g: &mut Gateway| g.pid += 1, |g: &mut Gateway| g.epoch += 2] {
        let mut g = gateway.lock().expect("gateway");
        g.deviations.clear();
        change(&mut g);
        drop(g);
        a.reconcile(&health).expect("quiet");
        assert_eq!(shown().len(), 1);
    }
    // One that does not know the message is no obstacle.
    gateway.lock().expect("gateway").deviations_unknown = true;
    a.apply(wish(6, 3), &health).expect("applied");
    gateway.lock().expect("gateway").deviations_unknown = false;
    a.apply(wish(7, 4), &health).expect("applied");
    assert_eq!(shown(), Vec::<String>::new());
}

#[test]
fn without_a_gateway_it_waits() {
    let dir = tempfile::tempdir().expect("dir");
    let mut a = applier(dir.path());
    assert!(matches!(a.apply(wish(5, 1), &Verdicts::new()), Err(Fault::Unavailable(_))));
    assert_eq!(a.last_good(), None);
    std::fs::write(a.last_good_file(), b"{half").expect("written");
    assert_eq!(a.last_good(), None, "a damaged file is no configuration");
    // And no obstacle.
    let _gateway = fake(dir.path());
    assert_eq!(a.apply(wish(5, 1), &Verdicts::new()), Ok(true));
    assert_eq!(a.last_good(), Some(wish(5, 1)));
}

/// A network with two other members.
fn in_network() -> LastGood {
    use crate::desired::{Ccn, Member, Peer, Wan};
    use sag_southbound::AddressMode;
    let member = |n: u8| Member {
        gateway: format!("sag-{n}"),
        blocks: vec![format!("10.{n}.0.0/16")],
        devices: vec![Peer {
            sn: format!("sn{n}"),
            address: format!("203.0.113.{n}"),
            epoch: 7,
            public_key: "09".repeat(32),
            ..Peer::default()
        }],
    };
    let wan = Wan {
        ip_type: Some(AddressMode::Static),
        ip: "203.0.113.1".into(),
        mask: "255.255.255.0".into(),
        gateway: "203.0.113.254".into(),
        ..Wan::default()
    };
    let desired = Desired {
        wans: [("0".to_owned(), wan)].into(),
        roles: [("0".to_owned(), sag_southbound::PortRole::Wan)].into(),
        ccn: Some(Ccn { id: "ccn-1".into(), hub: String::new(), members: vec![member(2), member(3)] }),
        ..Desired::default()
    };
    LastGood { revision: Some(1), desired }
}

fn compiled(a: &mut Applier) -> Compiled {
    let good = in_network();
    let endpoint = a.endpoint(&good.desired, 1).expect("answers").expect("an end");
    let base = Base::from_toml(FILE).expect("base");
    compile(&good.desired, &base, &BTreeMap::new(), &Verdicts::new(), Some(&endpoint)).expect("compiles")
}

#[test]
fn a_key_that_the_gateway_refuses_costs_that_tunnel_alone() {
    if !in_a_network_of_its_own("a_key_that_the_gateway_refuses_costs_that_tunnel_alone") {
        return;
    }
    let dir = tempfile::tempdir().expect("dir");
    let gateway = fake(dir.path());
    let mut a = applier(dir.path());
    let c = compiled(&mut a);
    gateway.lock().expect("gateway").unkeyable = "ccn-sn2".into();
    a.exchange_keys(&c, 1).expect("the other one has keys");
    assert_eq!(gateway.lock().expect("gateway").keyed, ["ccn-sn3"]);
    assert!(
        a.unkeyed["ccn-sn2"].contains("device sn2 of gateway sag-2 has no keys: no key"),
        "{:?}",
        a.unkeyed
    );
    // It is tried again, and the other one is left alone.
    a.exchange_keys(&c, 1).expect("as before");
    gateway.lock().expect("gateway").unkeyable = String::new();
    a.exchange_keys(&c, 1).expect("both");
    assert_eq!(gateway.lock().expect("gateway").keyed, ["ccn-sn3", "ccn-sn2"]);
    assert!(a.unkeyed.is_empty());
    // Who is trusted is written down, and a damaged list makes no tunnels to whoever comes.
    a.remember_peers(&c);
    assert_eq!(a.peers.load().expect("read").0.len(), 2);
    std::fs::write(dir.path().join("state/peers.json"), b"{half").expect("written");
    let c = compiled(&mut a);
    assert!(c.tunnels.is_empty() && c.refused[0].contains("peers.json"), "{:?}", c.refused);
}

#[test]
fn who_is_locked_has_no_tunnels_and_says_why() {
    if !in_a_network_of_its_own("who_is_locked_has_no_tunnels_and_says_why") {
        return;
    }
    let dir = tempfile::tempdir().expect("dir");
    let gateway = fake(dir.path());
    let mut a = applier(dir.path());
    let health = Verdicts::new();
    let tunnels = |text: &str| text.matches("[[tunnel]]").count();
    let in_force = || tunnels(&gateway.lock().expect("gateway").text);
    a.apply(in_network(), &health).expect("applied");
    assert_eq!((in_force(), a.network_notices().len()), (2, 0));
    // Without the cloud for too long, then back, then locked by it.
    a.silent = true;
    a.reconcile(&health).expect("applied");
    assert_eq!(in_force(), 0);
    assert!(a.network_notices()[0].contains("has left it"));
    assert_eq!(a.last_good(), Some(in_network()), "what is desired stays as it is");
    a.silent = false;
    a.reconcile(&health).expect("applied");
    assert_eq!((in_force(), a.network_notices().len()), (2, 0));
    let mut locked = in_network();
    locked.desired.locked = true;
    a.apply(locked, &health).expect("applied");
    assert_eq!(in_force(), 0);
    assert!(a.network_notices()[0].contains("UnlockSmartAccessGateway"));
    assert!(gateway.lock().expect("gateway").text.contains("device = \"eth1\""), "the branch goes on");
}

#[test]
fn a_key_of_a_wrong_clock_is_replaced() {
    let dir = tempfile::tempdir().expect("dir");
    let gateway = fake(dir.path());
    let mut a = applier(dir.path());
    let now = a.now().unsigned_abs();
    let accepted = |epoch| Some(Acceptance { epoch: Some(epoch), problem: String::new() });
    for (made, known, least) in
        [(u64::MAX, 0, now), (now + 10 * EPOCH_AHEAD, now, now), (5, now + 50, now + 51)]
    {
        gateway.lock().expect("gateway").key_epoch = made;
        (a.acceptance, a.renewed) = (None, None);
        assert_eq!(a.own_key().expect("a key").epoch, made, "the cloud has said nothing yet");
        a.acceptance = accepted(known);
        let epoch = a.own_key().expect("a key").epoch;
        assert!((least..least + 60).contains(&epoch), "{made} becomes {epoch}");
        // Two devices with one serial number do not outbid each other all the time.
        a.acceptance = accepted(epoch + 5);
        assert_eq!(a.own_key().expect("a key").epoch, epoch);
    }
}
