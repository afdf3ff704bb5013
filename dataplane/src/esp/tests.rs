//! Which associations are in use while keys change.

use super::agreement::MAX_DERIVED;
use super::*;
use sag_model::config::{self, Config};
use sag_pipeline::ids::TunnelNo;
use sag_tunnel::esp::{HEADROOM, Inner, SealError, TAILROOM};
use std::fs;
use std::time::Duration;

/// The first tunnel of a configuration, with number 1.
fn plan(config: Config) -> EspPlan {
    EspPlan {
        lifetime: Lifetime::default(),
        tunnels: vec![(TunnelNo::new(1).unwrap(), config.tunnels[0].clone())],
    }
}

fn config(tunnel: &str) -> Config {
    let ports = "[[port]]\nname = \"0\"\ndevice = \"eth0\"\nrole = \"wan\"\n";
    config::parse(&format!("{ports}{tunnel}"), "test.toml").unwrap().config
}

#[test]
fn the_configurations_keys_are_in_force_after_a_reload_whatever_their_spis() {
    let keyed = |spi: u32, key_in: char, key_out: char| {
        let key = |c: char| c.to_string().repeat(40);
        config(&format!(
            "[[tunnel]]\nname = \"t\"\nkind = \"esp\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n\
             spi_in = {spi}\nspi_out = {}\nkey_in = \"{}\"\nkey_out = \"{}\"\n",
            spi + 1,
            key(key_in),
            key(key_out)
        ))
    };
    let mut esp = EspKeys::default();
    let mut load = |config: Config| {
        esp.configure(&plan(config));
        let facts = esp.facts("t").unwrap();
        let sas = esp.associations.load();
        let _ = sas.outbound(TunnelNo::new(1).unwrap()).unwrap().reserve(5);
        (facts.spi_in, facts.spi_out, facts.sequence, facts.waits)
    };
    assert_eq!(load(keyed(0x1001, 'a', 'b')), (vec![0x1001], 0x1002, 1, false));
    // Other SPIs: both are received by, and sending waits for the peer.
    assert_eq!(load(keyed(0x2001, 'c', 'd')), (vec![0x1001, 0x2001], 0x1002, 6, true));
    // While that waits the file changes again.
    assert_eq!(load(keyed(0x3001, 'e', 'f')), (vec![0x3001], 0x3002, 1, false));
    // The same SPIs with one other key: the other direction's numbers go on.
    assert_eq!(load(keyed(0x3001, 'a', 'f')), (vec![0x3001], 0x3002, 6, false));
    assert_eq!(load(keyed(0x3001, 'a', 'b')), (vec![0x3001], 0x3002, 1, false));
}

const AGREED: &str = "[[tunnel]]\nname = \"t\"\nkind = \"esp\"\nkeying = \"agreed\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n";

/// The keys of two gateways with one tunnel between them whose keys are agreed.
fn agreeing() -> [EspKeys; 2] {
    std::array::from_fn(|_| {
        let mut esp = EspKeys::default();
        esp.configure(&plan(config(AGREED)));
        esp
    })
}

/// One packet by the association that one gateway sends by; whether the other can open it.
fn carries(from: &EspKeys, to: &EspKeys) -> bool {
    use sag_tunnel::esp::{HEADROOM, Inner, TAILROOM};
    let mut buf = vec![0u8; HEADROOM + 20 + TAILROOM];
    buf[HEADROOM] = 0x45;
    buf[HEADROOM + 3] = 20;
    let out = from.associations.load();
    let sealed = out
        .outbound(TunnelNo::new(1).unwrap())
        .unwrap()
        .seal(&mut buf, HEADROOM..HEADROOM + 20, Inner::V4)
        .unwrap();
    let spi = u32::from_be_bytes(buf[sealed.at.start..sealed.at.start + 4].try_into().unwrap());
    let known = to.facts("t").unwrap().spi_in.contains(&spi);
    known && to.opens(&mut buf[sealed.at.clone()], spi)
}

#[test]
fn keys_that_cross_on_their_way_leave_the_old_ones_in_use() {
    let [mut a, mut b] = agreeing();
    let (a1, b1) = (a.announce("a", false).unwrap(), b.announce("b", false).unwrap());
    assert!(a.accept_peer_key("t", &b1, "").unwrap() && b.accept_peer_key("t", &a1, "").unwrap());
    assert!(carries(&a, &b) && carries(&b, &a));
    // Both make new keys, and each learns the other's old one again before it hears of the new.
    let (a2, b2) = (a.announce("a", true).unwrap(), b.announce("b", true).unwrap());
    assert!(!a.accept_peer_key("t", &b1, "").unwrap() && !b.accept_peer_key("t", &a1, "").unwrap());
    let before = (a.facts("t").unwrap().spi_out, b.facts("t").unwrap().spi_out);
    for (who, news) in [(0, &b2), (1, &a2)] {
        let end = if who == 0 { &mut a } else { &mut b };
        assert!(end.accept_peer_key("t", news, "").unwrap());
        assert!(carries(&a, &b) && carries(&b, &a), "by the keys before");
        a.poll();
        b.poll();
    }
    assert_eq!((a.facts("t").unwrap().spi_out, b.facts("t").unwrap().spi_out), before);
    let (fa, fb) = (a.facts("t").unwrap(), b.facts("t").unwrap());
    assert!(fa.waits && fb.waits && fa.spi_in.len() == 3 && fb.spi_in.len() == 3);
}

/// Both ends lose a tunnel by a reload and get it back: each makes itself a new key and hears of the other's.
#[test]
fn a_tunnel_that_both_ends_have_made_anew_carries_as_soon_as_they_have_the_keys() {
    let [mut a, mut b] = agreeing();
    let (a1, b1) = (a.announce("a", false).unwrap(), b.announce("b", false).unwrap());
    assert!(a.accept_peer_key("t", &b1, "").unwrap() && b.accept_peer_key("t", &a1, "").unwrap());
    assert!(carries(&a, &b) && carries(&b, &a));
    let none = || EspPlan { lifetime: Lifetime::default(), tunnels: Vec::new() };
    for end in [&mut a, &mut b] {
        end.configure(&none());
        end.configure(&plan(config(AGREED)));
    }
    assert!(a.accept_peer_key("t", &b1, "").unwrap() && b.accept_peer_key("t", &a1, "").unwrap());
    let (a2, b2) = (a.announce("a", false).unwrap(), b.announce("b", false).unwrap());
    assert!(a2.epoch > a1.epoch && b2.epoch > b1.epoch, "numbers do not begin anew under the keys before");
    // A packet of each is lost: the other end has not heard of its key.
    assert!(!carries(&a, &b) && !carries(&b, &a));
    assert!(a.accept_peer_key("t", &b2, "").unwrap() && b.accept_peer_key("t", &a2, "").unwrap());
    assert!(carries(&a, &b) && carries(&b, &a), "and nobody waits");
    // Only one end loses it.
    a.configure(&none());
    a.configure(&plan(config(AGREED)));
    assert!(a.accept_peer_key("t", &b2, "").unwrap());
    let a3 = a.announce("a", false).unwrap();
    assert!(a3.epoch > a2.epoch && b.accept_peer_key("t", &a3, "").unwrap());
    assert!(carries(&a, &b) && carries(&b, &a));
}

#[test]
fn who_has_made_a_new_key_receives_by_it_before_the_peer_has_heard() {
    let [mut a, mut b] = agreeing();
    let (a1, b1) = (a.announce("a", false).unwrap(), b.announce("b", false).unwrap());
    assert!(a.accept_peer_key("t", &b1, "").unwrap() && b.accept_peer_key("t", &a1, "").unwrap());
    assert!(carries(&a, &b) && carries(&b, &a));
    let before = a.facts("t").unwrap().spi_out;
    let b2 = b.announce("b", true).unwrap();
    assert!(carries(&b, &a), "still by the keys before");
    assert!(a.accept_peer_key("t", &b2, "").unwrap());
    assert_ne!(a.facts("t").unwrap().spi_out, before, "the peer has the pair");
    assert!(carries(&a, &b));
    b.poll();
    assert!(carries(&b, &a) && !b.facts("t").unwrap().waits);
}

#[test]
fn a_new_key_is_made_after_half_of_the_bytes_and_not_again_before_it_is_used() {
    use sag_tunnel::keys::Lifetime;
    let [mut a, mut b] = agreeing();
    a.set_lifetime(Lifetime { time: u64::MAX, bytes: 2_000 });
    let (a1, b1) = (a.announce("a", false).unwrap(), b.announce("b", false).unwrap());
    assert!(a.accept_peer_key("t", &b1, "").unwrap() && b.accept_peer_key("t", &a1, "").unwrap());
    while a.facts("t").unwrap().bytes < 1_000 {
        assert_eq!(a.announce("a", false).unwrap(), a1);
        assert!(carries(&a, &b) && carries(&b, &a));
    }
    let a2 = a.announce("a", false).unwrap();
    assert_eq!(a2.epoch, a1.epoch + 1);
    // It is on its way to the peer: asked again and again, the gateway does not make another.
    assert_eq!(a.announce("a", false).unwrap(), a2);
    assert!(!a.accept_peer_key("t", &b1, "").unwrap());
    assert_eq!(a.announce("a", false).unwrap(), a2);
    assert!(carries(&a, &b) && a.facts("t").unwrap().waits);
    // The peer hears, and sends by it at once; then so do we.
    assert!(b.accept_peer_key("t", &a2, "").unwrap());
    assert!(carries(&b, &a));
    a.poll();
    let f = a.facts("t").unwrap();
    assert!(!f.waits && f.bytes == 0 && carries(&a, &b));
    assert_eq!(a.announce("a", false).unwrap(), a2);
}

/// Two gateways and the state directory of the first, whose daemon is ended in several ways.
struct Restarts {
    dir: tempfile::TempDir,
    near: EspKeys,
    far: EspKeys,
}

/// `key` is what the first gateway receives by, the next character what it sends by.
fn static_keys(key: char, far: bool, window: u32) -> (String, Config) {
    let hex = |c: char| c.to_string().repeat(40);
    let other = char::from(key as u8 + 1);
    let (i, o) = if far { (other, key) } else { (key, other) };
    let (si, so) = if far { (0x1002, 0x1001) } else { (0x1001, 0x1002) };
    let text = format!(
        "[[port]]\nname = \"0\"\ndevice = \"eth0\"\nrole = \"wan\"\n[[tunnel]]\nname = \"t\"\nkind = \"esp\"\n\
         local = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nreplay_window = {window}\n\
         spi_in = {si}\nspi_out = {so}\nkey_in = \"{}\"\nkey_out = \"{}\"\n",
        hex(i),
        hex(o)
    );
    let config = config::parse(&text, "test.toml").unwrap().config;
    (text, config)
}

impl Restarts {
    fn new() -> Restarts {
        let mut far = EspKeys::default();
        far.configure(&plan(static_keys('a', true, 1024).1));
        let mut out = Restarts { dir: tempfile::tempdir().unwrap(), near: EspKeys::default(), far };
        out.start('a', 1024);
        out
    }

    fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    fn file(&self) -> std::path::PathBuf {
        self.state().join("esp-sequence.json")
    }

    fn words(&self) -> std::path::PathBuf {
        self.dir.path().join("words")
    }

    /// A daemon begins with this key, after what the one before has handed over to be written is.
    fn start(&mut self, key: char, window: u32) {
        settle(&mut self.near);
        let mut esp = EspKeys::default();
        let (text, config) = static_keys(key, false, window);
        esp.load_numbers(&self.state(), Some(&self.words()));
        esp.configure(&plan(config));
        if self.state().is_dir() {
            fs::write(self.state().join("last-good.toml"), text).unwrap();
        }
        self.near = esp;
    }

    /// What one of the two sends.
    fn packet(from: &EspKeys) -> Result<Vec<u8>, SealError> {
        let mut buf = vec![0u8; HEADROOM + 20 + TAILROOM];
        (buf[HEADROOM], buf[HEADROOM + 3]) = (0x45, 20);
        let sas = from.associations.load();
        let at = sas.outbound(TunnelNo::new(1).unwrap()).unwrap().seal(
            &mut buf,
            HEADROOM..HEADROOM + 20,
            Inner::V4,
        )?;
        Ok(buf[at.at].to_vec())
    }

    fn why(&self) -> Option<String> {
        self.near.facts("t").unwrap().withheld
    }
}

fn receives(by: &EspKeys, packet: &[u8]) -> bool {
    let spi = u32::from_be_bytes(packet[..4].try_into().unwrap());
    by.opens(&mut packet.to_vec(), spi)
}

fn iv(packet: &[u8]) -> [u8; 8] {
    packet[8..16].try_into().unwrap()
}

/// Lets the thread that writes catch up.
fn settle(esp: &mut EspKeys) {
    for _ in 0..200 {
        esp.poll();
        if esp.numbers.is_idle() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("nothing is written");
}

#[test]
fn a_killed_daemon_neither_repeats_nor_accepts_a_number_again() {
    for shared_memory in [true, false] {
        let mut r = Restarts::new();
        let mut recorded = Vec::new();
        let mut ivs = std::collections::HashSet::new();
        for restart in 0..5 {
            for n in 0..100 {
                let packet = Restarts::packet(&r.far).unwrap();
                let fresh = receives(&r.near, &packet);
                // Behind a loss of power it costs as much as was reserved.
                assert!(fresh || (restart > 0 && !shared_memory), "{restart} {n}");
                recorded.push(packet);
                assert!(ivs.insert(iv(&Restarts::packet(&r.near).unwrap())));
                r.near.poll();
            }
            settle(&mut r.near);
            if !shared_memory {
                fs::remove_file(r.words()).unwrap();
            }
            r.start('a', 1024);
            assert_eq!(r.why(), None);
            for packet in &recorded {
                assert!(!receives(&r.near, packet), "a replay is received, shared memory: {shared_memory}");
            }
        }
        let all = recorded.len();
        let mut more = 0;
        while !receives(&r.near, &Restarts::packet(&r.far).unwrap()) {
            more += 1;
            assert!(more < 200_000 && !shared_memory, "{more} lost after {all}");
        }
    }
}

#[test]
fn a_daemon_that_ends_in_good_order_loses_nothing() {
    let mut r = Restarts::new();
    for _ in 0..4 {
        assert!(receives(&r.near, &Restarts::packet(&r.far).unwrap()));
        assert!(receives(&r.far, &Restarts::packet(&r.near).unwrap()));
        let next = r.near.facts("t").unwrap().sequence;
        r.near.finish();
        // The machine restarts as well.
        fs::remove_file(r.words()).unwrap();
        r.start('a', 1024);
        assert_eq!(r.near.facts("t").unwrap().sequence, next);
    }
}

#[test]
fn a_reload_keeps_numbers_and_window() {
    let mut r = Restarts::new();
    let recorded: Vec<_> = (0..50).map(|_| Restarts::packet(&r.far).unwrap()).collect();
    assert!(recorded.iter().all(|p| receives(&r.near, p)));
    let sent = iv(&Restarts::packet(&r.near).unwrap());
    // Another window makes other associations of the same keys; so does a tunnel that goes and comes back.
    r.near.configure(&plan(static_keys('a', false, 2048).1));
    assert!(recorded.iter().all(|p| !receives(&r.near, p)));
    assert!(iv(&Restarts::packet(&r.near).unwrap()) > sent);
    r.near.configure(&EspPlan::default());
    settle(&mut r.near);
    r.near.configure(&plan(static_keys('a', false, 2048).1));
    assert!(recorded.iter().all(|p| !receives(&r.near, p)));
    assert!(iv(&Restarts::packet(&r.near).unwrap()) > sent);
    assert!(receives(&r.near, &Restarts::packet(&r.far).unwrap()), "and nothing new is lost");
}

#[test]
fn without_its_record_a_key_is_withheld() {
    type Damage = fn(&Restarts);
    let damages: [(&str, Damage); 5] = [
        ("is missing", |r| fs::remove_file(r.file()).unwrap()),
        // The whole directory is gone; shared memory knows the association.
        ("is missing", |r| fs::remove_dir_all(r.state()).unwrap()),
        ("cannot be read", |r| {
            let text = fs::read(r.file()).unwrap();
            fs::write(r.file(), &text[..text.len() - 9]).unwrap();
        }),
        ("cannot be read", |r| fs::write(r.file(), "").unwrap()),
        ("is older", |r| {
            fs::rename(r.state().join("old"), r.file()).unwrap();
        }),
    ];
    for (text, damage) in damages {
        let mut r = Restarts::new();
        let first = Restarts::packet(&r.near).unwrap();
        let recorded = Restarts::packet(&r.far).unwrap();
        assert!(receives(&r.near, &recorded));
        settle(&mut r.near);
        fs::copy(r.file(), r.state().join("old")).unwrap();
        r.start('a', 1024);
        damage(&r);
        r.start('a', 1024);
        let why = r.why().unwrap();
        assert!(why.contains(text) && why.contains("sagctl tunnels confirm t"), "{why}");
        assert_eq!(Restarts::packet(&r.near), Err(SealError::Unreserved), "{text}");
        assert!(!receives(&r.near, &recorded), "what was received is lost as well");
        // The next start has a record again, in which this stands.
        r.start('a', 1024);
        assert!(r.why().is_some());
        assert_eq!(Restarts::packet(&r.near), Err(SealError::Unreserved), "{text}");
        // Another key is as good as new.
        r.start('c', 1024);
        assert_eq!(r.why(), None);
        assert!(Restarts::packet(&r.near).is_ok());
        // And the old one is not, until somebody answers for it.
        r.start('a', 1024);
        assert!(r.why().is_some());
        r.near.confirm("t").unwrap();
        assert_eq!(r.why(), None);
        assert_ne!(iv(&Restarts::packet(&r.near).unwrap()), iv(&first));
        assert!(receives(&r.near, &Restarts::packet(&r.far).unwrap()));
        assert!(matches!(r.near.confirm("t"), Err(InstallError::NothingWithheld(_))));
    }
}

#[test]
fn the_first_start_needs_no_confirmation() {
    let mut r = Restarts::new();
    assert_eq!(r.why(), None);
    // Neither does a key that the last configuration did not have, whatever became of the file.
    fs::remove_file(r.file()).unwrap();
    r.start('e', 1024);
    assert_eq!(r.why(), None);
    assert!(Restarts::packet(&r.near).is_ok());
}

#[test]
fn where_nothing_can_be_written_nothing_is_sent() {
    let mut esp = EspKeys::default();
    esp.load_numbers(Path::new("/proc/no/such/folder"), None);
    esp.configure(&plan(static_keys('a', false, 1024).1));
    let why = esp.facts("t").unwrap().withheld.unwrap();
    assert!(why.contains("cannot write /proc/no/such/folder/esp-sequence.json"), "{why}");
    assert_eq!(Restarts::packet(&esp), Err(SealError::Unreserved));
}

/// The directory cannot be written for a while: what is reserved is used, and no more.
#[test]
fn a_reserve_runs_out_by_name_and_comes_back() {
    let mut r = Restarts::new();
    let aside = r.dir.path().join("aside");
    fs::rename(r.state(), &aside).unwrap();
    fs::write(r.state(), "no directory").unwrap();
    let use_up = |esp: &EspKeys| {
        let sas = esp.associations.load();
        let sa = sas.outbound(TunnelNo::new(1).unwrap()).unwrap();
        while sa.next_sequence() < sa.reserved() {
            drop(sa.reserve(1 << 16));
        }
    };
    use_up(&r.near);
    for _ in 0..100 {
        r.near.poll();
        std::thread::sleep(Duration::from_millis(2));
    }
    use_up(&r.near);
    assert_eq!(Restarts::packet(&r.near), Err(SealError::Unreserved));
    let why = r.why().unwrap();
    assert!(why.contains("cannot write") && why.contains("goes on by itself"), "{why}");
    fs::remove_file(r.state()).unwrap();
    fs::rename(&aside, r.state()).unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    settle(&mut r.near);
    assert!(Restarts::packet(&r.near).is_ok());
    assert_eq!(r.why(), None);
}

#[test]
fn the_file_of_version_1_is_taken_over() {
    let mut r = Restarts::new();
    let Encap::Esp { manual: Some(k), .. } = static_keys('a', false, 1024).1.tunnels[0].encap.clone() else {
        panic!("manual keys")
    };
    settle(&mut r.near);
    let one = format!(
        r#"{{"t":{{"spi_out":4098,"next":16777300,"spi_in":4097,"top":99,"keys":{}}}}}"#,
        fingerprint_of(&k)
    );
    fs::write(r.file(), one).unwrap();
    r.start('a', 1024);
    assert_eq!((r.why(), r.near.facts("t").unwrap().sequence), (None, 16_777_300));
    let recorded: Vec<_> = (0..99).map(|_| Restarts::packet(&r.far).unwrap()).collect();
    assert!(recorded.iter().all(|p| !receives(&r.near, p)));
    assert!(receives(&r.near, &Restarts::packet(&r.far).unwrap()));
}

#[test]
fn a_key_in_use_is_not_installed_again() {
    let mut r = Restarts::new();
    let (a, b, c) = (vec![0xAA; 20], vec![0xBB; 20], vec![0xCC; 20]);
    for (i, o) in [(&a, &c), (&c, &b), (&b, &c), (&c, &a), (&c, &c)] {
        let (i, o) = (KeyMaterial { spi: 0x2001, bytes: i }, KeyMaterial { spi: 0x2002, bytes: o });
        let refused = r.near.install("t", &i, &o, Switchover::Now);
        assert!(matches!(refused, Err(InstallError::KeyInUse)), "{refused:?}");
    }
}

#[test]
fn a_peer_whose_clock_stands_still_is_agreed_with_after_its_restart() {
    let [mut a, mut b] = agreeing();
    let (a1, b1) = (a.announce("a", false).unwrap(), b.announce("b", false).unwrap());
    assert!(a.accept_peer_key("t", &b1, "").unwrap() && b.accept_peer_key("t", &a1, "").unwrap());
    assert!(carries(&a, &b) && carries(&b, &a));
    let before = a.facts("t").unwrap().spi_out;
    // The same epoch with another key.
    let [_, mut b] = agreeing();
    let b2 = Announcement { epoch: b1.epoch, ..b.announce("b", false).unwrap() };
    assert!(a.accept_peer_key("t", &b2, "").unwrap());
    assert_ne!(a.facts("t").unwrap().spi_out, before);
}

#[test]
fn derived_keys_are_installed_once() {
    let [mut a, mut b] = agreeing();
    let (a1, b1) = (a.announce("a", false).unwrap(), b.announce("b", false).unwrap());
    assert!(a.accept_peer_key("t", &b1, "").unwrap() && b.accept_peer_key("t", &a1, "").unwrap());
    let recorded = {
        let p = Restarts::packet(&b).unwrap();
        assert!(receives(&a, &p));
        p
    };
    let b2 = b.announce("b", true).unwrap();
    assert!(a.accept_peer_key("t", &b2, "").unwrap());
    // What the peer has replaced comes once more, from whoever carries it.
    assert!(matches!(a.accept_peer_key("t", &b1, ""), Err(InstallError::Superseded(_))));
    assert!(!receives(&a, &recorded));
    // A reload makes the tunnel anew: the gateway takes another key, so that no number is used again.
    let text = "[[tunnel]]\nname = \"t\"\nkind = \"esp\"\nkeying = \"agreed\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\nreplay_window = 2048\n";
    a.configure(&plan(config(text)));
    assert!(a.accept_peer_key("t", &b2, "").unwrap());
    let a2 = a.announce("a", false).unwrap();
    assert_eq!(a2.epoch, a1.epoch + 1);
    assert!(!receives(&a, &recorded));
    assert!(b.accept_peer_key("t", &a2, "").unwrap());
    assert!(carries(&a, &b));
    b.poll();
    assert!(carries(&b, &a));
}

/// A peer that announces one key after the other does not make the gateway keep without bound what it has derived; the
/// gateway's next key has room again.
#[test]
fn pairs_of_one_key_are_bounded() {
    let [mut a, mut b] = agreeing();
    a.announce("a", false).unwrap();
    let b1 = b.announce("b", false).unwrap();
    assert!(a.accept_peer_key("t", &b1, "").unwrap());
    a.derived.extend((0..).take(MAX_DERIVED - a.derived.len()));
    let [_, mut other] = agreeing();
    let b2 = Announcement { epoch: b1.epoch + 1, ..other.announce("b", false).unwrap() };
    assert!(matches!(a.accept_peer_key("t", &b2, ""), Err(InstallError::TooManyKeys(MAX_DERIVED))));
    assert_eq!(a.derived.len(), MAX_DERIVED);
    a.announce("a", true).unwrap();
    assert!(a.accept_peer_key("t", &b2, "").unwrap());
    assert_eq!(
        a.derived.len(),
        2,
        "with the peer's earlier key, which it goes on by at once, and with this one"
    );
}

#[test]
fn two_tunnels_do_not_derive_the_same_keys() {
    let tunnel = |name: &str, remote: &str| {
        format!(
            "[[tunnel]]\nname = \"{name}\"\nkind = \"esp\"\nkeying = \"agreed\"\nlocal = \"192.0.2.1\"\nremote = \"{remote}\"\n"
        )
    };
    let config = config(&(tunnel("t", "192.0.2.2") + &tunnel("u", "192.0.2.3")));
    let numbered = config.tunnels.iter().zip(1..).map(|(t, n)| (TunnelNo::new(n).unwrap(), t.clone()));
    let mut a = EspKeys::default();
    a.configure(&EspPlan { lifetime: Lifetime::default(), tunnels: numbered.collect() });
    a.announce("a", false).unwrap();
    let [_, mut b] = agreeing();
    let b1 = b.announce("b", false).unwrap();
    assert!(a.accept_peer_key("t", &b1, "").unwrap());
    assert!(matches!(a.accept_peer_key("u", &b1, ""), Err(InstallError::SameLink(t)) if t == "t"));
    assert!(a.accept_peer_key("u", &b1, "second").unwrap());
}

#[test]
fn epochs_go_up_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for _ in 0..3 {
        let mut esp = EspKeys::default();
        esp.load_numbers(dir.path(), None);
        let first = esp.announce("a", false).unwrap().epoch;
        assert!(first > last, "{first} after {last}");
        last = esp.announce("a", true).unwrap().epoch;
        settle(&mut esp);
    }
}
