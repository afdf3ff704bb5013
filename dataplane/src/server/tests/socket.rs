//! The control socket and the metrics endpoint, as their clients see them.

use super::Fake;
use crate::server::client::Client as OneClient;
use crate::server::counts::Ended;
use crate::server::metrics::Clients;
use crate::server::{
    LimitedRule, MetricsServer, MetricsSnapshot, NextHopUse, PortMappingUse, Roles, Server, TOKENS,
};
use mio::{Events, Poll, Token, Waker};
use sag_model::config::NatBehavior;
use sag_model::control::{
    Access, CarCounters, DropRow, FileState, Ha, HaTotals, HeaviestHost, MAX_REQUEST, Nat, NatPool,
    NatTotals, Port, PortPunt, PortUse, RepairCount, SessionTotals, SynCookieRow, Tunnel, TunnelFec,
    TunnelKeys, Worker,
};
use sag_model::{DropReason, Role};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const BASE: Token = Token(100);

/// Groups that do not exist: the user of the test is the administrator.
fn roles() -> Roles {
    Roles::new("sag-no-such-group", "sag-no-such-group")
}

/// A server in a thread, as the daemon's control thread drives it.
struct Running {
    dir: tempfile::TempDir,
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Fake>>,
}

impl Running {
    fn start(mut fake: Fake) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::bind(&dir.path().join("run/vcpe.sock"), roles()).unwrap();
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        server.register(poll.registry(), BASE).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut events = Events::with_capacity(16);
            while !stopping.load(Ordering::Acquire) {
                poll.poll(&mut events, None).unwrap();
                for event in &events {
                    if server.owns(event.token()) {
                        server.handle(poll.registry(), event.token(), &mut fake);
                    }
                }
            }
            fake
        });
        Running { dir, waker, stop, thread: Some(thread) }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("run/vcpe.sock")
    }

    fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client(BufReader::new(stream))
    }

    fn finish(mut self) -> Fake {
        self.stop.store(true, Ordering::Release);
        self.waker.wake().unwrap();
        self.thread.take().unwrap().join().unwrap()
    }
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, id: u64, op: &str) -> Value {
        self.send(&format!("{{\"v\":1,\"id\":{id},\"op\":\"{op}\"}}\n"));
        self.receive()
    }
}

#[test]
fn answers_come_in_order_whatever_the_pieces() {
    let server = Running::start(Fake::default());
    let mut client = server.connect();
    assert_eq!(client.ask(1, "status")["ok"]["version"], "1.2.3");
    client.send("rubbish\n\n  \n{\"v\":1,\"id\":2,\"op\":\"por");
    assert_eq!(client.receive()["err"]["code"], "BadRequest");
    client.send("ts\"}\n{\"v\":1,\"id\":3,\"op\":\"drops\"}\n");
    assert_eq!(client.receive()["id"], 2);
    assert_eq!(client.receive()["ok"]["drops"][0]["reason"], "acl-denied");
    // More than one turn's worth at once.
    let many: String = (0..500).map(|n| format!("{{\"v\":1,\"id\":{n},\"op\":\"ports\"}}\n")).collect();
    client.send(&many);
    for n in 0..500 {
        assert_eq!(client.receive()["id"], n);
    }
    assert_eq!(server.finish().asked.len(), 503);
}

#[test]
fn a_client_that_only_sends_is_answered_after_its_end() {
    let server = Running::start(Fake::default());
    let mut client = server.connect();
    client.send("{\"v\":1,\"id\":1,\"op\":\"status\"}\nunfinished");
    client.0.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.receive()["id"], 1);
    let mut rest = Vec::new();
    client.0.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    server.finish();
}

#[test]
fn one_who_does_not_read_holds_nobody_up() {
    let server = Running::start(Fake { listed: 5000, ..Fake::default() });
    let mut slow = server.connect();
    let lines: String = (0..20).map(|n| format!("{{\"v\":1,\"id\":{n},\"op\":\"sessions\"}}\n")).collect();
    slow.send(&lines);
    let mut quick = server.connect();
    assert_eq!(quick.ask(9, "status")["id"], 9);
    for n in 0..20 {
        let answer = slow.receive();
        assert_eq!(answer["id"], n);
        assert_eq!(answer["ok"]["sessions"].as_array().unwrap().len(), 5000);
    }
    // Gone in the middle of an answer.
    slow.send(&lines);
    slow.receive();
    drop(slow);
    assert_eq!(quick.ask(10, "status")["id"], 10);
    server.finish();
}

#[test]
fn who_keeps_the_server_waiting_has_to_go() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut client = OneClient::new(mio::net::UnixStream::from_std(ours), Access::Admin, 0);
    let mut fake = Fake { listed: 5000, ..Fake::default() };
    let after = |seconds| Instant::now() + Duration::from_secs(seconds);
    client.run(true, &mut fake);
    assert_eq!(client.overdue(after(3600)), None, "who is silent may stay");
    theirs.write_all(b"{\"v\":1,\"id\":1,").unwrap();
    client.run(true, &mut fake);
    assert_eq!((client.overdue(after(50)), client.overdue(after(70))), (None, Some(Ended::HalfRequest)));
    theirs.write_all(b"\"op\":\"status\"}\n").unwrap();
    client.run(true, &mut fake);
    assert_eq!(client.overdue(after(3600)), None);
    theirs.write_all(b"{\"v\":1,\"id\":1,\"op\":\"sessions\"}\n").unwrap();
    client.run(true, &mut fake);
    assert!(client.unread() > 0);
    assert_eq!((client.overdue(after(20)), client.overdue(after(40))), (None, Some(Ended::Unread)));
}

#[test]
fn more_clients_than_places_send_the_quietest_away() {
    let server = Running::start(Fake::default());
    let mut first = server.connect();
    assert_eq!(first.ask(1, "status")["id"], 1);
    let mut others: Vec<Client> = (0..TOKENS - 1).map(|_| server.connect()).collect();
    for (n, c) in others.iter_mut().enumerate() {
        assert_eq!(c.ask(n as u64, "status")["id"], n);
    }
    let mut rest = Vec::new();
    first.0.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    server.finish();
}

#[test]
fn a_large_configuration_arrives_and_a_large_anything_else_does_not() {
    let server = Running::start(Fake::default());
    let mut client = server.connect();
    let padding = "# padding\\n".repeat(5 * MAX_REQUEST / 11);
    client.send(&format!(
        "{{\"v\":1,\"id\":1,\"op\":\"config-apply\",\"name\":\"big.toml\",\"text\":\"{padding}\"}}\n"
    ));
    assert_eq!(client.receive()["ok"]["epoch"], 2);
    client.send(&format!("{{\"v\":1,\"id\":2,\"op\":\"status\",\"x\":\"{padding}\"}}\n"));
    let answer = client.receive();
    assert_eq!((&answer["id"], &answer["err"]["code"]), (&Value::from(0), &Value::from("TooLarge")));
    assert_eq!(
        client.ask(3, "config-show")["ok"]["text"].as_str().unwrap().len(),
        padding.len() - padding.len() / 11
    );
    server.finish();
}

#[test]
fn the_socket_file_is_private_replaced_when_stale_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/vcpe.sock");
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    let server = Server::bind(&path, roles()).unwrap();
    assert_eq!(mode(&path), 0o660);
    let error = Server::bind(&path, roles()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains("another sag-vcpe"), "{error}");
    drop(server);
    assert!(!path.exists());

    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a socket that its owner left behind");
    let server = Server::bind(&path, roles()).unwrap();
    // Somebody else's socket of that name is not removed.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "not ours").unwrap();
    drop(server);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "not ours");

    let error = Server::bind(&path, roles()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("dataplane.control"), "{error}");
    let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let error = Server::bind(&dir.path().join("x".repeat(200)), roles()).unwrap_err();
    assert!(error.to_string().contains("cannot listen"), "{error}");
}

fn snapshot() -> MetricsSnapshot {
    let mut lan = Port::new("0", "eth1", Role::Lan);
    (lan.up, lan.rx_packets, lan.rx_bytes, lan.tx_packets, lan.tx_bytes) = (true, 10, 1000, u64::MAX, 2000);
    (lan.fast, lan.held, lan.forwarded, lan.to_kernel, lan.originated) = (4, 1, 5, 2, 3);
    let wan = Port::new("a \"b\"", "eth0", Role::Wan);
    MetricsSnapshot {
        version: "1.2.3".into(),
        uptime_s: 60,
        config_epoch: 7,
        ports: vec![lan, wan],
        drops: vec![DropRow::new("0", DropReason::NoRoute, 11), DropRow::new("0", DropReason::AclDenied, 12)],
        punts: vec![PortPunt { port: "0".into(), reason: "miss".into(), packets: 6 }],
        sessions: SessionTotals {
            ipv4: 20,
            ipv6: 2,
            capacity_ipv4: 1024,
            capacity_ipv6: 128,
            created: 99,
            evicted: 4,
            evicted_established: 1,
            heaviest: vec![HeaviestHost {
                family: 6,
                host: "2001:db8:1::/64".into(),
                vrf: None,
                sessions: 900,
            }],
            memory_bytes: 65_536,
        },
        next_hops: NextHopUse { used: 21, capacity: 32_767, incomplete: 5 },
        nat: Nat {
            entries: Vec::new(),
            pools: vec![NatPool {
                address: "203.0.113.2".parse().unwrap(),
                source: String::new(),
                mapping: NatBehavior::EndpointIndependent,
                filtering: NatBehavior::AddressDependent,
                tcp: PortUse { used: 7, capacity: 64_512, peak: 9 },
                udp: PortUse::default(),
                icmp: PortUse::default(),
                exhausted: 13,
                filtered: 14,
                warned: false,
            }],
            totals: NatTotals {
                bindings: 15,
                hosts: 16,
                host_limit_hits: 17,
                log_lost: 18,
                ..NatTotals::default()
            },
        },
        workers: vec![Worker { id: 0, cpu: Some(1), batches: 3, packets: 30, busy_percent: 12.5 }],
        cars: vec![CarCounters { car: "qoscar-1".into(), passed_bytes: 5, dropped_bytes: 6 }],
        tunnels: vec![Tunnel {
            name: "pop1".into(),
            kind: "vxlan".into(),
            state: "up".into(),
            local: "192.0.2.1".parse().unwrap(),
            remote: "192.0.2.2".parse().unwrap(),
            port: None,
            mtu: 1450,
            mtu_configured: None,
            path_mtu_learned: None,
            icmp_refused: 0,
            overhead: 50,
            remote_mac: None,
            rx_packets: 31,
            rx_bytes: 32,
            tx_packets: 33,
            tx_bytes: 34,
            path_mtu: 1500,
            path_search: None,
            rtt_us: Some(12_500),
            jitter_us: Some(250),
            loss_percent: Some(1.5),
            esp: Some(TunnelKeys { keepalives: 40, ..TunnelKeys::default() }),
            fec: Some(TunnelFec {
                repairs_sent: 36,
                overhead_bytes: 37,
                recovered: 38,
                unrecoverable: 39,
                ..TunnelFec::default()
            }),
            drops: 35,
            device: None,
        }],
        repairs: vec![RepairCount { kind: "pin".into(), count: 31 }],
        pins_missing: 32,
        files: vec![FileState { file: "NAT log".into(), errors: 33, failing: true }],
        syn_cookies: vec![SynCookieRow {
            id: "syn-1".into(),
            active: true,
            syns: 51,
            sent: 52,
            accepted: 53,
            refused: 54,
            ..SynCookieRow::default()
        }],
        port_mappings: PortMappingUse { mappings: 61, granted: 62, refused: 63 },
        limited_rules: vec![LimitedRule { rule: "a/r".into(), sessions: 64, refused: 65 }],
        ha: Ha {
            configured: true,
            linked: true,
            in_sync: true,
            totals: HaTotals { sent: 66, bytes_received: 67, installed: 68, ..HaTotals::default() },
            ..Ha::default()
        },
        endpoint: Clients::default(),
        control: Clients { open: 41, ended: vec![("unread", 42)] },
    }
}

fn http(server: &MetricsServer, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Samples by name and labels; comment lines apart.
fn samples(body: &str) -> (BTreeMap<&str, f64>, Vec<&str>) {
    let (comments, samples): (Vec<&str>, Vec<&str>) = body.lines().partition(|l| l.starts_with('#'));
    let split = |line: &&'_ str| line.rfind(' ').unwrap();
    let values = samples.iter().map(|l| (&l[..split(l)], l[split(l) + 1..].parse().unwrap())).collect();
    (values, comments)
}

#[test]
fn metrics_have_the_names_of_the_contract() {
    let server = MetricsServer::start("127.0.0.1:0", snapshot).unwrap().unwrap();
    let (head, body) = http(&server, "GET /metrics HTTP/1.1");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    let (have, comments) = samples(&body);
    for (name, value) in [
        (r#"sag_port_rx_packets_total{port="0"}"#, 10.0),
        (r#"sag_port_tx_packets_total{port="0"}"#, u64::MAX as f64),
        (r#"sag_port_rx_bytes_total{port="0"}"#, 1000.0),
        (r#"sag_port_tx_bytes_total{port="0"}"#, 2000.0),
        (r#"sag_port_rx_packets_total{port="a \"b\""}"#, 0.0),
        (r#"sag_port_forwarded_packets_total{port="0"}"#, 5.0),
        (r#"sag_port_to_kernel_packets_total{port="0"}"#, 2.0),
        (r#"sag_port_originated_packets_total{port="0"}"#, 3.0),
        (r#"sag_port_held_packets{port="0"}"#, 1.0),
        (r#"sag_port_up{port="0"}"#, 1.0),
        (r#"sag_port_up{port="a \"b\""}"#, 0.0),
        (r#"sag_drops_total{port="0",reason="no-route"}"#, 11.0),
        (r#"sag_drops_total{port="0",reason="acl-denied"}"#, 12.0),
        (r#"sag_sessions{family="ipv4"}"#, 20.0),
        (r#"sag_sessions{family="ipv6"}"#, 2.0),
        (r#"sag_sessions_capacity{family="ipv4"}"#, 1024.0),
        ("sag_next_hops", 21.0),
        ("sag_next_hops_capacity", 32_767.0),
        ("sag_neighbors_incomplete", 5.0),
        ("sag_sessions_created_total", 99.0),
        ("sag_sessions_memory_bytes", 65_536.0),
        ("sag_sessions_evicted_total", 4.0),
        ("sag_sessions_evicted_established_total", 1.0),
        (r#"sag_sessions_heaviest_host{family="ipv6"}"#, 900.0),
        ("sag_port_mappings", 61.0),
        (r#"sag_port_mapping_requests_total{outcome="granted"}"#, 62.0),
        (r#"sag_port_mapping_requests_total{outcome="refused"}"#, 63.0),
        ("sag_ha_linked", 1.0),
        (r#"sag_ha_in_sync{side="this"}"#, 1.0),
        (r#"sag_ha_in_sync{side="peer"}"#, 0.0),
        (r#"sag_ha_messages_total{direction="sent"}"#, 66.0),
        (r#"sag_ha_bytes_total{direction="received"}"#, 67.0),
        (r#"sag_ha_sessions_total{event="installed"}"#, 68.0),
        (r#"sag_acl_rule_sessions{rule="a/r"}"#, 64.0),
        (r#"sag_acl_rule_refused_total{rule="a/r"}"#, 65.0),
        (r#"sag_syn_cookies_active{service="syn-1"}"#, 1.0),
        (r#"sag_syn_cookies_syns_total{service="syn-1"}"#, 51.0),
        (r#"sag_syn_cookies_total{service="syn-1",outcome="sent"}"#, 52.0),
        (r#"sag_syn_cookies_total{service="syn-1",outcome="accepted"}"#, 53.0),
        (r#"sag_syn_cookies_total{service="syn-1",outcome="refused"}"#, 54.0),
        (r#"sag_nat_ports_used{address="203.0.113.2",protocol="tcp"}"#, 7.0),
        (r#"sag_nat_ports_capacity{address="203.0.113.2",protocol="tcp"}"#, 64_512.0),
        (r#"sag_nat_exhausted_total{address="203.0.113.2"}"#, 13.0),
        (r#"sag_nat_filtered_total{address="203.0.113.2"}"#, 14.0),
        ("sag_nat_bindings", 15.0),
        ("sag_nat_hosts", 16.0),
        ("sag_nat_host_limit_hits_total", 17.0),
        ("sag_nat_hairpinned_total", 0.0),
        ("sag_nat_uncounted_total", 0.0),
        ("sag_nat_log_lost_total", 18.0),
        ("sag_xdp_repairs_total{kind=\"pin\"}", 31.0),
        ("sag_pins_missing", 32.0),
        ("sag_file_errors_total{file=\"NAT log\"}", 33.0),
        ("sag_file_failing{file=\"NAT log\"}", 1.0),
        (r#"sag_fastpath_packets_total{port="0"}"#, 4.0),
        (r#"sag_punted_packets_total{port="0",reason="miss"}"#, 6.0),
        (r#"sag_car_passed_bytes_total{car="qoscar-1"}"#, 5.0),
        (r#"sag_car_dropped_bytes_total{car="qoscar-1"}"#, 6.0),
        ("sag_config_epoch", 7.0),
        (r#"sag_tunnel_up{tunnel="pop1"}"#, 1.0),
        (r#"sag_tunnel_state{tunnel="pop1",state="up"}"#, 1.0),
        (r#"sag_tunnel_state{tunnel="pop1",state="down"}"#, 0.0),
        (r#"sag_tunnel_rtt_seconds{tunnel="pop1"}"#, 0.0125),
        (r#"sag_tunnel_jitter_seconds{tunnel="pop1"}"#, 0.00025),
        (r#"sag_tunnel_loss_ratio{tunnel="pop1"}"#, 0.015),
        (r#"sag_tunnel_path_mtu_bytes{tunnel="pop1"}"#, 1500.0),
        (r#"sag_tunnel_keepalives_total{tunnel="pop1"}"#, 40.0),
        (r#"sag_tunnel_fec_repairs_total{tunnel="pop1"}"#, 36.0),
        (r#"sag_tunnel_fec_overhead_bytes_total{tunnel="pop1"}"#, 37.0),
        (r#"sag_tunnel_fec_recovered_packets_total{tunnel="pop1"}"#, 38.0),
        (r#"sag_tunnel_fec_unrecoverable_windows_total{tunnel="pop1"}"#, 39.0),
        (r#"sag_tunnel_rx_packets_total{tunnel="pop1"}"#, 31.0),
        (r#"sag_tunnel_tx_bytes_total{tunnel="pop1"}"#, 34.0),
        (r#"sag_tunnel_drops_total{tunnel="pop1"}"#, 35.0),
        (r#"sag_tunnel_mtu_bytes{tunnel="pop1"}"#, 1450.0),
        (r#"sag_build_info{version="1.2.3"}"#, 1.0),
        ("sag_uptime_seconds", 60.0),
        (r#"sag_clients{interface="control"}"#, 41.0),
        (r#"sag_clients{interface="metrics"}"#, 1.0),
        (r#"sag_clients_ended_total{interface="control",reason="unread"}"#, 42.0),
        (r#"sag_clients_ended_total{interface="metrics",reason="source"}"#, 0.0),
        (r#"sag_worker_packets_total{worker="0"}"#, 30.0),
        (r#"sag_worker_batches_total{worker="0"}"#, 3.0),
        (r#"sag_worker_busy_ratio{worker="0"}"#, 0.125),
    ] {
        assert_eq!(have.get(name), Some(&value), "{name} in\n{body}");
    }
    assert!(comments.contains(&"# TYPE sag_drops_total counter"), "{body}");
    assert!(comments.contains(&"# TYPE sag_config_epoch gauge"), "{body}");
    assert!(comments.contains(&"# HELP sag_drops_total Packets dropped"), "{body}");
    assert!(!body.contains("# EOF"), "{body}");
}

#[test]
fn open_metrics_on_request_and_nothing_else_is_served() {
    let server = MetricsServer::start("127.0.0.1:0", snapshot).unwrap().unwrap();
    let accept =
        "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let (head, body) = http(&server, accept);
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(body.contains("# TYPE sag_drops counter\n") && body.ends_with("# EOF\n"), "{body}");
    assert!(body.contains("sag_drops_total{port=\"0\",reason=\"no-route\"} 11\n"), "{body}");
    assert_eq!(http(&server, "GET /healthz HTTP/1.1").1, "ok\n");
    assert!(http(&server, "GET / HTTP/1.1").0.starts_with("HTTP/1.1 404"));
    assert!(http(&server, "POST /metrics HTTP/1.1").0.starts_with("HTTP/1.1 405"));
    let address = server.address();
    drop(server);
    // A connection may still wait in the closing listener's backlog, but nobody answers.
    let error = MetricsServer::start(&format!("{address}x"), snapshot).unwrap_err();
    assert!(error.to_string().contains("dataplane.metrics"), "{error}");
    assert!(MetricsServer::start("", snapshot).unwrap().is_none());
}

#[test]
fn scrapers_that_do_nothing_hold_nobody_up() {
    let server = MetricsServer::start("127.0.0.1:0", snapshot).unwrap().unwrap();
    let idle: Vec<TcpStream> = (0..200)
        .map(|n| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            // Silent, or in the middle of a head.
            stream.write_all(if n % 2 == 0 { b"" } else { b"GET /metrics HTTP/1.1\r\nHost: x" }).unwrap();
            stream
        })
        .collect();
    let (_, body) = http(&server, "GET /metrics HTTP/1.1");
    let (have, _) = samples(&body);
    assert!(have[r#"sag_clients{interface="metrics"}"#] <= 32.0, "{body}");
    assert!(have[r#"sag_clients_ended_total{interface="metrics",reason="source"}"#] >= 168.0, "{body}");
    drop(idle);
}
