use super::*;
use crate::settings::{Dns, Forward, NOWHERE, Port, Range, Reservation, Upstream};
use std::time::{Duration, Instant};

/// Refuses what has the word `refuse` in it; else it runs until it is ended, and notes what it is told.
/// What was started without a terminal (nohup) has HUP ignored, which a shell cannot undo by itself.
const FAKE: &str = r#"#!/usr/bin/env -S --default-signal=HUP sh
for last; do :; done
conf=${last#--conf-file=}
if [ "$1" = --test ]; then
    grep -q domain=refuse "$conf" && { echo "bad option at line 7" >&2; exit 1; }
    exit 0
fi
[ -e "$0.broken" ] && exit 2
echo start >> "$0.log"
trap 'echo hup >> "$0.log"' HUP
pid=$(sed -n s/^pid-file=//p "$conf")
echo $$ > "$pid"
while :; do sleep 0.02; done
"#;

struct Bed {
    dir: tempfile::TempDir,
    service: Service,
}

impl Bed {
    fn new() -> Bed {
        let dir = tempfile::tempdir().expect("dir");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("mode");
        let program = dir.path().join("dnsmasq");
        fs::write(&program, FAKE).expect("written");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("mode");
        let places = Places { run: dir.path().join("run"), leases: dir.path().join("leases") };
        Bed { service: Service::new(Ok(program), places, "1"), dir }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("dnsmasq.log")).unwrap_or_default().replace('\n', " ")
    }

    fn within(&mut self, what: &str, mut holds: impl FnMut(&mut Bed) -> bool) {
        let until = Instant::now() + Duration::from_secs(5);
        while !holds(self) {
            assert!(Instant::now() < until, "{what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn settings() -> Settings {
    let range = Range::new("10.1.0.1/24".parse().expect("net"), None, None, 60).expect("range");
    Settings {
        ports: vec![Port {
            name: "1".into(),
            device: "lan-a".into(),
            serves: Some(Serves::Range(range)),
            advertises: false,
            advertises_by: None,
        }],
        ..Settings::default()
    }
}

fn with_server(address: &str) -> Settings {
    let upstream = Upstream::Servers(vec![address.parse().expect("address")]);
    Settings { dns: Some(Dns { upstream, forwards: Vec::new() }), ..settings() }
}

#[test]
fn it_starts_anew_only_for_what_cannot_be_read_again() {
    let mut bed = Bed::new();
    bed.service.set(settings());
    assert_eq!(bed.log(), "start ");
    bed.service.set(settings());
    bed.service.set(with_server("192.0.2.1"));
    assert_eq!(bed.log(), "start start ", "the forwarder is new");
    bed.service.set(with_server("192.0.2.2"));
    bed.within("other servers are read again", |b| b.log() == "start start hup ");
    let printer = Reservation {
        mac: "02:00:00:00:00:01".into(),
        address: "10.1.0.9".parse().expect("address"),
        name: String::new(),
    };
    bed.service.set(Settings { reservations: vec![printer], ..with_server("192.0.2.2") });
    bed.within("reservations are read again", |b| b.log() == "start start hup hup ");
    let hosts = fs::read_to_string(bed.dir.path().join("run/hosts.conf")).expect("a file");
    assert_eq!(hosts, "02:00:00:00:00:01,10.1.0.9\n");
    assert_eq!(bed.service.servers(), Some(vec!["192.0.2.2".parse().expect("address")]));
    // dnsmasq 2.90 goes on to send by the device that a server had when it reads that the server has none, or another.
    let by = |device: Option<&str>| {
        let mut it = with_server("192.0.2.2");
        let forwards = &mut it.dns.as_mut().expect("a forwarder").forwards;
        forwards.push(Forward {
            id: "f".into(),
            domain: "a.example".into(),
            servers: vec!["192.0.2.9".parse().expect("address")],
            device: device.map(Into::into),
        });
        it
    };
    bed.service.set(by(Some("wan")));
    bed.within("with a device", |b| b.log().ends_with(" start "));
    for (device, starts) in [(Some(NOWHERE), 4), (None, 5)] {
        bed.service.set(by(device));
        bed.within("another way", |b| b.log().matches("start").count() == starts);
    }
    bed.service.set(with_server("192.0.2.2"));
    bed.within("what has no device is read again", |b| b.log().ends_with(" hup "));
    bed.service.set(Settings::default());
    assert!(bed.service.status().daemon.is_none() && bed.service.servers().is_none());
    assert!(!bed.dir.path().join("run/dnsmasq.conf").exists());
}

#[test]
fn one_that_has_ended_comes_back_and_is_named_meanwhile() {
    let mut bed = Bed::new();
    bed.service.set(settings());
    let first = bed.service.status().daemon.and_then(|d| d.pid);
    assert!(first.is_some() && bed.service.problems().is_empty());
    assert!(bed.service.daemons.signal(NAME, Signal::KILL));
    bed.within("it comes back", |b| {
        b.service.tend();
        b.service.status().daemon.is_some_and(|d| d.pid.is_some() && d.pid != first)
    });
    assert_eq!(bed.service.status().daemon.map(|d| d.restarts), Some(1));
    // One that cannot start costs what it should do, by name, and is tried again.
    fs::write(bed.dir.path().join("dnsmasq.broken"), "").expect("written");
    bed.service.set(with_server("192.0.2.1"));
    let problems = bed.service.problems();
    let named: Vec<String> = problems.iter().map(|p| format!("{} {}", p.section, p.object)).collect();
    assert_eq!(named, ["Lan DHCP server of port 1", "Dns DNS servers"]);
    assert!(problems[0].reason.contains("code 2); another program has the port"), "{problems:?}");
    assert_eq!(bed.service.servers(), None);
    fs::remove_file(bed.dir.path().join("dnsmasq.broken")).expect("removed");
    bed.within("it starts", |b| {
        b.service.tend();
        b.service.problems().is_empty()
    });
}

#[test]
fn what_the_checker_refuses_leaves_what_runs() {
    let mut bed = Bed::new();
    bed.service.set(settings());
    let before = bed.service.status().daemon;
    bed.service.set(Settings { domain: "refuse".into(), ..settings() });
    bed.service.tend();
    let problems = bed.service.problems();
    assert!(problems[0].reason.contains("bad option at line 7"), "{problems:?}");
    assert_eq!((bed.service.status().daemon, bed.log().as_str()), (before, "start "));
    bed.service.set(settings());
    assert!(bed.service.problems().is_empty());
}

/// Files that the daemon cannot read are not taken for none.
#[test]
fn a_place_that_its_user_cannot_enter_is_named() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIP: only root's daemon becomes another user");
    }
    let mut bed = Bed::new();
    fs::set_permissions(bed.dir.path(), Permissions::from_mode(0o700)).expect("mode");
    bed.service.set(settings());
    let problems = bed.service.problems();
    assert!(problems[0].reason.contains("may not enter it; set [lan] dir"), "{problems:?}");
    assert_eq!(bed.log(), "");
    fs::set_permissions(bed.dir.path(), Permissions::from_mode(0o755)).expect("mode");
    assert!(!bed.service.tend() && bed.service.problems().is_empty());
    assert_eq!(bed.log(), "start ");
}

#[test]
fn without_the_program_everything_is_named() {
    let dir = tempfile::tempdir().expect("dir");
    let places = Places { run: dir.path().join("run"), leases: dir.path().join("leases") };
    let mut service = Service::new(Err(crate::not_installed()), places, "1");
    service.set(with_server("192.0.2.1"));
    assert!(service.tend() && !service.tend(), "once");
    assert!(!service.is_able());
    assert!(service.problems().iter().all(|p| p.reason == "not installed: dnsmasq-base"));
    assert_eq!(service.problems().len(), 2);
    assert_eq!(service.status().unable, "not installed: dnsmasq-base");
    service.set(Settings::default());
    assert!(service.problems().is_empty());
}

/// Whoever asks reads a file; it is there for as long as somebody is served.
#[test]
fn leases_and_state_are_written_down() {
    let mut bed = Bed::new();
    let file = bed.dir.path().join("run/status.json");
    bed.service.tend();
    assert!(!file.exists());
    fs::write(
        bed.dir.path().join("leases"),
        "0 02:00:00:00:00:01 10.1.0.9 pc *\n0 02:00:00:00:00:02 10.7.0.9 * *\n",
    )
    .expect("written");
    bed.service.set(settings());
    bed.service.tend();
    let read = |f: &Path| serde_json::from_slice::<Status>(&fs::read(f).expect("file")).expect("JSON");
    let status = read(&file);
    assert_eq!(status, bed.service.status());
    let ports: Vec<&str> = status.leases.iter().map(|l| l.port.as_str()).collect();
    assert_eq!((ports, status.ports[0].leases, status.ports[0].room), (vec!["1", ""], Some(1), Some(254)));
    assert_eq!(fs::metadata(&file).expect("file").permissions().mode() & 0o777, 0o640);
    bed.service.set(Settings::default());
    bed.service.tend();
    assert!(!file.exists());
    let run = bed.dir.path().join("run");
    assert!(run.exists());
    drop(bed.service);
    assert!(!run.exists());
}
