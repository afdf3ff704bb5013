//! A virtual address of a LAN port by [keepalived](https://www.keepalived.org), which speaks VRRP version 3 (RFC 5798) with
//! the other device of the instance: `keepalived.conf` made whole, read by keepalived's own checker, and applied by its own
//! reload, which keeps the state of a master.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use sag_daemons::{Signal, Supervisor, Unit};

use crate::settings::{DEVICE4, DEVICE6, Vrrp};
use crate::status::{Daemon, Problem, VrrpState};
use crate::tools::{self, KEEPALIVED, Places};

/// Its name.
const NAME: &str = "keepalived";
/// Its instances, and the group in which they move together.
const INSTANCE: &str = "sag";
const INSTANCE6: &str = "sag6";
const GROUP: &str = "sag";
/// Seconds between advertisements: a backup takes over after three and a little more.
const INTERVAL: &str = "1";
/// How long keepalived needs at its start to remove an address that it does not have any more.
const SWEEP: Duration = Duration::from_millis(500);
/// What is read of its notices at once.
const NOTICES: usize = 4096;
/// The pause after a configuration that could not be used.
const RETRY: Duration = Duration::from_secs(5);

/// keepalived, as far as it is needed.
pub(crate) struct Keepalived {
    places: Places,
    supervisor: Supervisor,
    notices: Option<File>,
    /// The part of a notice that has come.
    partial: String,
    /// What it has been told.
    applied: Option<Vrrp>,
    state: String,
    /// Why this device may not have the address, and what its file says of that.
    obstacle: Option<&'static str>,
    noted: Option<bool>,
    problem: Option<Problem>,
    retry_at: Instant,
}

/// What is wrong with the settings themselves.
fn fault(vrrp: &Vrrp) -> Option<String> {
    if vrrp.router == 0 {
        return Some("router 0 is none (RFC 5798); use 1..255".to_owned());
    }
    if vrrp.priority == 0 || vrrp.priority == 255 {
        return Some(format!("vrrp_priority {}; use 1..254", vrrp.priority));
    }
    let word = |b: u8| b.is_ascii_alphanumeric() || b"._-@:".contains(&b);
    let is_device = (1..=15).contains(&vrrp.device.len()) && vrrp.device.bytes().all(word);
    if !is_device || vrrp.device.starts_with('-') {
        return Some(format!("{:?} is no network device", vrrp.device));
    }
    let a = vrrp.address;
    if a.is_unspecified() || a.is_loopback() || a.is_multicast() || a.is_broadcast() {
        return Some(format!("VirtualIp {a} is no address of a host"));
    }
    let first = vrrp.ipv6.first()?;
    if !first.addr().is_unicast_link_local() || !vrrp.virtual_mac {
        return Some(
            "vrrp_ipv6 begins with a link-local address and needs virtual_mac (RFC 5798 5.2.9)".to_owned(),
        );
    }
    None
}

/// The whole file. Both devices begin as backups, and one of equal priority does not take back what the other has. Virtual
/// routers of both families move together.
fn render(vrrp: &Vrrp, places: &Places) -> String {
    let (notices, fault) = (fifo(places), fault_file(places));
    let mut out = format!(
        "global_defs {{\n    vrrp_version 3\n    router_id sag\n    vrrp_notify_fifo {}\n}}\n\
         vrrp_track_file fault {{\n    file {}\n    weight 0\n}}\n",
        notices.display(),
        fault.display()
    );
    let tracks = "    track_file {\n        fault\n    }\n";
    let alone = vrrp.ipv6.is_empty();
    if !alone {
        out.push_str(&format!(
            "vrrp_sync_group {GROUP} {{\n    group {{\n        {INSTANCE}\n        {INSTANCE6}\n    }}\n{tracks}}}\n"
        ));
    }
    let tracks = if alone { tracks } else { "" };
    let device = vrrp.virtual_mac.then_some(DEVICE4);
    out.push_str(&instance(vrrp, INSTANCE, device, &[format!("{}/32", vrrp.address)], tracks));
    if !alone {
        // The network is on the port's device. Hosts are told of it on this one, from the first address.
        let addresses = vrrp.ipv6.iter().map(|a| match a.addr().is_unicast_link_local() {
            true => a.to_string(),
            false => format!("{a} noprefixroute"),
        });
        out.push_str(&instance(vrrp, INSTANCE6, Some(DEVICE6), &addresses.collect::<Vec<_>>(), tracks));
    }
    out
}

fn instance(vrrp: &Vrrp, name: &str, own: Option<&str>, addresses: &[String], tracks: &str) -> String {
    let Vrrp { device, router, priority, .. } = vrrp;
    let own = own.map(|own| format!("    use_vmac {own}\n")).unwrap_or_default();
    let addresses: String = addresses.iter().map(|a| format!("        {a}\n")).collect();
    format!(
        "vrrp_instance {name} {{\n    state BACKUP\n    interface {device}\n{own}    virtual_router_id {router}\n    \
         priority {priority}\n    advert_int {INTERVAL}\n{tracks}    virtual_ipaddress {{\n{addresses}    }}\n}}\n"
    )
}

fn fifo(places: &Places) -> std::path::PathBuf {
    places.own.join("vrrp.fifo")
}

/// Has 1 where the device may not have the address, and 0 otherwise.
fn fault_file(places: &Places) -> std::path::PathBuf {
    places.own.join("vrrp.fault")
}

fn unit(places: &Places) -> Unit {
    let (file, run) = (places.own.join("keepalived.conf"), &places.own);
    let (pid_file, child) = (run.join("keepalived.pid"), run.join("keepalived-vrrp.pid"));
    let mut args: Vec<std::ffi::OsString> = ["-n", "-l", "-D", "-P", "-f"].map(Into::into).to_vec();
    args.push(file.clone().into());
    args.extend(["-p".into(), pid_file.clone().into(), "-r".into(), child.clone().into()]);
    Unit { name: NAME, program: KEEPALIVED.into(), args, ready: vec![child], pid_file, mark: file.into() }
}

impl Keepalived {
    pub(crate) fn new(places: &Places) -> Keepalived {
        Keepalived {
            places: places.clone(),
            supervisor: Supervisor::default(),
            notices: None,
            partial: String::new(),
            applied: None,
            state: String::new(),
            obstacle: None,
            noted: None,
            problem: None,
            retry_at: Instant::now(),
        }
    }

    /// Ends what an earlier service left behind that was killed: keepalived takes its address away at its end, and one that
    /// was killed, too, at the start of the next one.
    pub(crate) fn end_leftover(&mut self) {
        let unit = unit(&self.places);
        unit.end_leftover();
        let conf = self.places.own.join("keepalived.conf");
        if conf.exists() {
            self.notices = open(&fifo(&self.places)).ok();
            if self.supervisor.start_if_due(&unit) {
                std::thread::sleep(SWEEP);
            }
        }
        self.end();
    }

    /// One round: what shall be is compared with what is. `obstacle`: why this device may not have the address.
    pub(crate) fn round(&mut self, wanted: Option<&Vrrp>, obstacle: Option<&'static str>) {
        let Some(vrrp) = wanted else {
            if self.applied.is_some() || self.problem.is_some() {
                self.end();
            }
            return;
        };
        if self.supervisor.notice_end(NAME) {
            self.state.clear();
        }
        let is_new = self.applied.as_ref() != Some(vrrp);
        if is_new && Instant::now() < self.retry_at && self.problem.is_some() {
            return;
        }
        let prepared = self.note(obstacle).and_then(|()| if is_new { self.prepare(vrrp) } else { Ok(()) });
        if let Err(why) = prepared {
            let object = format!("virtual address {} on port {}", vrrp.address, vrrp.port);
            tracing::warn!("{object}: {why}");
            // An address that the settings do not name any more is not held.
            self.end();
            self.problem = Some(Problem { section: "Ha".to_owned(), object, reason: why });
            self.retry_at = Instant::now() + RETRY;
            return;
        }
        if is_new {
            self.problem = None;
            if self.supervisor.signal(NAME, Signal::HUP) {
                tracing::info!(address = %vrrp.address, "keepalived reads its configuration again");
            }
            self.applied = Some(vrrp.clone());
        }
        self.supervisor.start_if_due(&unit(&self.places));
        self.read_notices();
    }

    /// Writes where keepalived looks for it whether this device may have the address.
    fn note(&mut self, obstacle: Option<&'static str>) -> Result<(), String> {
        if self.obstacle != obstacle {
            self.obstacle = obstacle;
            match obstacle {
                Some(why) => tracing::warn!("this device does not take the virtual address: {why}"),
                None => tracing::info!("this device may have the virtual address"),
            }
        }
        let is_fault = obstacle.is_some();
        if self.noted != Some(is_fault) {
            let text = if is_fault { "1\n" } else { "0\n" };
            std::fs::write(fault_file(&self.places), text).map_err(|e| format!("vrrp.fault: {e}"))?;
            self.noted = Some(is_fault);
        }
        Ok(())
    }

    /// Writes the configuration, has it checked, and opens what keepalived says its state on.
    fn prepare(&mut self, vrrp: &Vrrp) -> Result<(), String> {
        if !Path::new(KEEPALIVED).exists() {
            return Err("not installed: keepalived".to_owned());
        }
        if let Some(why) = fault(vrrp) {
            return Err(why);
        }
        let said = |e: io::Error| format!("keepalived.conf: {e}");
        if self.notices.is_none() {
            self.notices = Some(open(&fifo(&self.places)).map_err(said)?);
        }
        let path = self.places.own.join("keepalived.conf");
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            let _ = std::fs::remove_file(&new);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(render(vrrp, &self.places).as_bytes())
        };
        write().map_err(said)?;
        tools::check_keepalived(&new).map_err(|e| e.to_string())?;
        std::fs::rename(&new, &path).map_err(said)
    }

    fn read_notices(&mut self) {
        let Some(notices) = &mut self.notices else { return };
        let mut bytes = [0; NOTICES];
        // Nothing to read, or no writer now: the next round looks again.
        let Ok(n @ 1..) = notices.read(&mut bytes) else { return };
        self.partial.push_str(&String::from_utf8_lossy(&bytes[..n]));
        while let Some((line, rest)) = self.partial.split_once('\n') {
            if let Some(state) = state_of(line) {
                tracing::info!(state, "virtual address");
                state.clone_into(&mut self.state);
            }
            self.partial = rest.to_owned();
        }
        // Lines are short; who writes without an end is not listened to.
        if self.partial.len() > NOTICES {
            self.partial.clear();
        }
    }

    /// Ends keepalived, which takes its address away, and forgets everything.
    pub(crate) fn end(&mut self) {
        self.supervisor.end(NAME);
        (self.applied, self.problem, self.notices) = (None, None, None);
        (self.obstacle, self.noted) = (None, None);
        self.state.clear();
        self.partial.clear();
        for file in ["keepalived.conf", "keepalived.new", "vrrp.fifo", "vrrp.fault"] {
            let _ = std::fs::remove_file(self.places.own.join(file));
        }
    }

    /// Whether this device has the address.
    pub(crate) fn is_master(&self) -> bool {
        self.state() == "MASTER"
    }

    /// What it has said last. One that hangs has the address, perhaps, and so has the other device by now.
    fn state(&self) -> &str {
        if self.supervisor.hangs(NAME) { "" } else { &self.state }
    }

    pub(crate) fn daemon(&self) -> Option<Daemon> {
        self.applied.as_ref().map(|_| self.supervisor.state(NAME))
    }

    pub(crate) fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    pub(crate) fn status(&self) -> Option<VrrpState> {
        let vrrp = self.applied.as_ref()?;
        Some(VrrpState {
            port: vrrp.port.clone(),
            device: vrrp.device.clone(),
            address: vrrp.address.to_string(),
            router: vrrp.router,
            priority: vrrp.priority,
            state: self.state().to_owned(),
            obstacle: self.obstacle.unwrap_or_default().to_owned(),
        })
    }
}

/// Opens the pipe, which is made first, for reading: keepalived opens it for writing.
fn open(path: &Path) -> io::Result<File> {
    let _ = std::fs::remove_file(path);
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)
}

/// Reads `INSTANCE "sag" MASTER 100`.
fn state_of(line: &str) -> Option<&str> {
    let mut words = line.strip_prefix("INSTANCE \"sag\" ")?.split(' ');
    words.next().filter(|w| ["MASTER", "BACKUP", "FAULT", "STOP"].contains(w))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vrrp() -> Vrrp {
        Vrrp {
            port: "1".to_owned(),
            device: "lan-a".to_owned(),
            address: "192.0.2.6".parse().expect("address"),
            router: 6,
            priority: 100,
            virtual_mac: false,
            ipv6: Vec::new(),
        }
    }

    fn both_families() -> Vrrp {
        let ipv6 = ["fe80::6/64", "2001:db8:1::6/64"].map(|a| a.parse().expect("address")).to_vec();
        Vrrp { virtual_mac: true, ipv6, ..vrrp() }
    }

    #[test]
    fn virtual_routers_of_both_families_move_together() {
        let places = Places::new(Path::new("/run/x"));
        let one = render(&Vrrp { virtual_mac: true, ..vrrp() }, &places);
        assert!(
            one.contains("    use_vmac sag-vrrp4\n") && !one.contains("sag6") && !one.contains("sync_group")
        );
        let text = render(&both_families(), &places);
        let group = "vrrp_sync_group sag {\n    group {\n        sag\n        sag6\n    }\n    track_file {\n        fault\n    }\n}\n";
        assert!(text.contains(group), "{text}");
        assert_eq!(text.matches("        fault\n").count(), 1, "the group is held back, not one of them");
        let six = text.split("vrrp_instance sag6").nth(1).expect("an instance of IPv6");
        assert!(six.contains("    use_vmac sag-vrrp6\n"), "{six}");
        assert!(six.contains("        fe80::6/64\n        2001:db8:1::6/64 noprefixroute\n"), "{six}");
        assert!(!render(&vrrp(), &places).contains("use_vmac"));
        assert_eq!(fault(&both_families()), None);
        let wrong = [
            Vrrp { virtual_mac: false, ..both_families() },
            Vrrp { ipv6: both_families().ipv6[1..].to_vec(), ..both_families() },
        ];
        assert!(wrong.iter().all(|v| fault(v).is_some_and(|why| why.contains("vrrp_ipv6"))));
    }

    #[test]
    fn the_file_is_made_of_the_settings_alone() {
        let places = Places::new(Path::new("/run/x"));
        let text = render(&vrrp(), &places);
        for line in ["interface lan-a", "virtual_router_id 6", "priority 100", "192.0.2.6/32", "state BACKUP"]
        {
            assert!(text.contains(&format!("    {line}\n")), "{line} in {text}");
        }
        assert!(text.contains("vrrp_notify_fifo /run/x/vrrp.fifo\n"));
        assert!(
            text.contains("    file /run/x/vrrp.fault\n    weight 0\n") && text.contains("        fault\n")
        );
        assert_eq!(fault(&vrrp()), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |change: fn(&mut Vrrp)| {
            let mut v = vrrp();
            change(&mut v);
            fault(&v).unwrap_or_default()
        };
        assert!(with(|v| v.router = 0).contains("1..255"));
        assert!(with(|v| v.priority = 255).contains("1..254"));
        assert!(with(|v| v.device = "lan a {".to_owned()).contains("no network device"));
        assert!(with(|v| v.address = "224.0.0.1".parse().expect("address")).contains("no address of a host"));
    }

    #[test]
    fn states_are_read_from_notices() {
        assert_eq!(state_of("INSTANCE \"sag\" MASTER 100"), Some("MASTER"));
        assert_eq!(state_of("INSTANCE \"other\" MASTER 100"), None);
        assert_eq!(state_of("GROUP \"sag\" MASTER 100"), None);
        assert_eq!(state_of("INSTANCE \"sag\" NONSENSE 100"), None);
    }

    /// keepalived reads 1 while the device may not have the address, and 0 when it may.
    #[test]
    fn an_obstacle_is_noted_for_keepalived() {
        let dir = tempfile::tempdir().expect("dir");
        let places = Places::new(dir.path());
        let mut k = Keepalived::new(&places);
        k.applied = Some(vrrp());
        for (obstacle, text) in [(None, "0\n"), (Some("not yet"), "1\n"), (None, "0\n")] {
            k.note(obstacle).expect("noted");
            assert_eq!(std::fs::read_to_string(fault_file(&places)).expect("file"), text);
            assert_eq!(k.status().expect("status").obstacle, obstacle.unwrap_or_default());
        }
        k.end();
        assert!(!fault_file(&places).exists());
    }

    /// In two parts, as a pipe may give them.
    #[test]
    fn notices_come_in_parts() {
        let dir = tempfile::tempdir().expect("dir");
        let places = Places::new(dir.path());
        let mut k = Keepalived::new(&places);
        k.notices = Some(open(&fifo(&places)).expect("pipe"));
        let mut other = OpenOptions::new().write(true).open(fifo(&places)).expect("writer");
        k.applied = Some(vrrp());
        for (part, state) in [
            ("INSTANCE \"sag\" BACK", ""),
            ("UP 100\nINST", "BACKUP"),
            ("ANCE \"sag\" MASTER 100\n", "MASTER"),
        ] {
            other.write_all(part.as_bytes()).expect("written");
            k.read_notices();
            assert_eq!(k.status().expect("status").state, state);
        }
    }

    /// keepalived's own checker takes what is made, and refuses what it does not know.
    #[test]
    fn the_checker_takes_it() {
        if !Path::new(KEEPALIVED).exists() {
            return eprintln!("SKIP: keepalived is not installed");
        }
        let dir = tempfile::tempdir().expect("dir");
        let places = Places::new(dir.path());
        let file = dir.path().join("keepalived.conf");
        let devices = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        let mut names = devices.filter_map(|d| d.file_name().into_string().ok());
        // VRRP needs multicast (IFF_MULTICAST, not IFF_LOOPBACK).
        let has_multicast = |name: &String| {
            let flags = std::fs::read_to_string(format!("/sys/class/net/{name}/flags")).unwrap_or_default();
            let bits = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap_or(0);
            bits & 0x1008 == 0x1000
        };
        let Some(device) = names.find(has_multicast) else {
            return eprintln!("SKIP: this machine has no network device for it");
        };
        let both = Vrrp { device: device.clone(), ..both_families() };
        let vrrp = Vrrp { device, ..vrrp() };
        for settings in [&vrrp, &Vrrp { virtual_mac: true, ..vrrp.clone() }, &both] {
            std::fs::write(&file, render(settings, &places)).expect("written");
            assert_eq!(tools::check_keepalived(&file).map_err(|e| e.to_string()), Ok(()));
        }
        std::fs::write(&file, render(&vrrp, &places).replace("advert_int", "bogus_word")).expect("written");
        let refused = tools::check_keepalived(&file).expect_err("unknown word").to_string();
        assert!(refused.contains("bogus_word"), "{refused}");
    }
}
