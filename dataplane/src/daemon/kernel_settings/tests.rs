use super::keeper::{Keeper, Order};
use super::rules::{FORWARDING4, FORWARDING6, GRO, HARDWARE_GRO, KEYS, Place, Target};
use super::sysctl::{Key, Sysctl};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The kernel's settings in a directory. What the kernel itself changes in turn is not imitated.
struct Machine {
    dir: tempfile::TempDir,
    names: BTreeMap<u32, String>,
}

impl Machine {
    fn new(devices: &[(u32, &str)]) -> Machine {
        let m = Machine { dir: tempfile::tempdir().unwrap(), names: BTreeMap::new() };
        devices.iter().fold(m, |mut m, (ifindex, name)| {
            m.plug(*ifindex, name);
            m
        })
    }

    /// A device with the kernel's defaults, and the reverse path filter as distributions have it.
    fn plug(&mut self, ifindex: u32, name: &str) {
        self.names.insert(ifindex, name.to_owned());
        for name in [name, "all"] {
            for key in KEYS {
                let on = ["accept_ra", "accept_redirects", "send_redirects"].contains(&key.leaf);
                let strict = key == RP && name != "all";
                let default = i32::from(on || strict);
                std::fs::create_dir_all(self.path(key, name).parent().unwrap()).unwrap();
                std::fs::write(self.path(key, name), format!("{default}\n")).unwrap();
            }
        }
    }

    fn path(&self, key: Key, name: &str) -> PathBuf {
        self.dir.path().join(key.family).join("conf").join(name).join(key.leaf)
    }

    fn sysctl(&self) -> Sysctl {
        Sysctl::at(self.dir.path())
    }

    fn get(&self, key: Key, name: &str) -> i32 {
        self.sysctl().read(key, name).unwrap()
    }

    fn set(&self, key: Key, name: &str, value: i32) {
        self.sysctl().write(key, name, value).unwrap();
    }

    /// Every setting of every device.
    fn all(&self) -> Vec<(String, i32)> {
        let names = self.names.values().map(String::as_str).chain(["all"]);
        names.flat_map(|n| KEYS.map(|k| (k.name(n), self.get(k, n)))).collect()
    }

    fn keeper(&self) -> Keeper {
        Keeper::open(self.sysctl(), &self.dir.path().join("record"))
    }

    fn keep(&self, keeper: &mut Keeper, targets: &[Target]) -> super::Report {
        let order = Order { targets: targets.to_vec(), write: true, pass_to_kernel: false };
        keeper.keep(&order, &|i| self.names.get(&i).cloned())
    }

    fn put_back(&self) -> usize {
        self.keeper().put_back(&|i| self.names.get(&i).cloned())
    }

    fn has_record(&self) -> bool {
        self.dir.path().join("record").exists()
    }
}

const RA: Key = Key::v6("accept_ra");
const RP: Key = Key::v4("rp_filter");

fn port(ifindex: u32, name: &str, lan: bool) -> Target {
    Target { ifindex, name: name.to_owned(), lan, place: Place::Port, master: None }
}

#[test]
fn ports_are_a_routers_and_all_is_put_back() {
    let m = Machine::new(&[(2, "lan"), (3, "wan"), (4, "other")]);
    m.set(FORWARDING4, "lan", 1);
    m.set(FORWARDING4, "wan", 1);
    let before = m.all();
    let ports = [port(2, "lan", true), port(3, "wan", false)];
    let report = m.keep(&mut m.keeper(), &ports);
    assert_eq!(report.warnings, Vec::<String>::new());
    for name in ["lan", "wan"] {
        assert_eq!(
            (m.get(FORWARDING4, name), m.get(FORWARDING6, name), m.get(RP, name)),
            (0, 1, 2),
            "{name}"
        );
        assert_eq!(m.get(Key::v4("accept_redirects"), name) + m.get(Key::v6("accept_redirects"), name), 0);
    }
    assert_eq!(m.get(Key::v4("accept_redirects"), "all"), 0, "or it would count for the ports");
    // What the provider's router says goes on to count; what a host of the branch says does not.
    assert_eq!((m.get(RA, "lan"), m.get(RA, "wan"), m.get(RA, "other")), (0, 2, 1));
    assert_eq!((m.get(FORWARDING6, "other"), m.get(RP, "other")), (0, 1));
    let of = |leaf| (m.get(Key::v4(leaf), "lan"), m.get(Key::v4(leaf), "wan"));
    assert_eq!((of("promote_secondaries"), of("arp_announce"), of("arp_ignore")), ((0, 1), (2, 0), (0, 0)));
    let row = |name: &str| report.settings[&2].iter().find(|r| r.name == name).unwrap().clone();
    let forwarding = row("net.ipv4.conf.lan.forwarding");
    assert_eq!((forwarding.value, forwarding.wanted, forwarding.before), (0, Some(0), Some(1)));
    assert!(m.put_back() > 10);
    assert_eq!(m.all(), before);
    assert!(!m.has_record());
    assert_eq!(m.put_back(), 0);
}

#[test]
fn a_card_below_a_port_hands_over_packets_as_they_arrive() {
    let m = Machine::new(&[(2, "bond0"), (3, "eth0"), (4, "eth1")]);
    for (key, name) in [(GRO, "eth0"), (HARDWARE_GRO, "eth0"), (GRO, "eth1"), (GRO, "bond0")] {
        m.set(key, name, 1);
    }
    let before = m.all();
    let card = Target { place: Place::Below, ..port(3, "eth0", true) };
    let mut keeper = m.keeper();
    let report = m.keep(&mut keeper, &[port(2, "bond0", true), card.clone()]);
    assert_eq!((m.get(GRO, "eth0"), m.get(HARDWARE_GRO, "eth0")), (0, 0));
    assert_eq!((m.get(GRO, "eth1"), m.get(GRO, "bond0")), (1, 1), "of no port, and of the port itself");
    let names: Vec<_> = report.settings[&3].iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["ethtool.eth0.rx-gro", "ethtool.eth0.rx-gro-hw"]);
    // Nothing else of the card is a port's, whatever leads around the gateway there.
    m.set(FORWARDING4, "eth0", 1);
    let warnings = m.keep(&mut keeper, &[port(2, "bond0", true), card.clone()]).warnings;
    assert!(warnings.iter().any(|w| w.contains("forwarding is 1 for eth0")), "{warnings:?}");
    assert_eq!(m.get(FORWARDING4, "eth0"), 1);
    m.set(FORWARDING4, "eth0", 0);
    // The card has left the bond.
    m.keep(&mut keeper, &[port(2, "bond0", true)]);
    assert_eq!((m.get(GRO, "eth0"), m.get(HARDWARE_GRO, "eth0")), (1, 1));
    m.keep(&mut keeper, &[port(2, "bond0", true), card]);
    m.put_back();
    assert_eq!(m.all(), before);
}

fn link(ifindex: u32, kind: &str, parent: Option<u32>, master: Option<u32>) -> sag_rtnl::Link {
    let kind = (!kind.is_empty()).then(|| kind.to_owned());
    sag_rtnl::Link { kind, parent, master, ..sag_rtnl::Link::new(ifindex, &format!("dev{ifindex}")) }
}

#[test]
fn devices_below_a_port_are_found_through_all_layers() {
    let mut t = sag_rtnl::Tables::default();
    for l in [
        // A VLAN of a bond of two cards, with a macvlan device above it.
        link(1, "", None, Some(3)),
        link(2, "", None, Some(3)),
        link(3, "bond", None, None),
        link(4, "vlan", Some(3), None),
        link(5, "macvlan", Some(4), None),
        // A veth pair of which one end is in a bridge; a card with a VRF.
        link(6, "veth", Some(7), Some(8)),
        link(7, "veth", Some(6), None),
        link(8, "bridge", None, None),
        link(9, "", None, Some(10)),
        link(10, "vrf", None, None),
    ] {
        t.insert_link(l);
    }
    let below = |ifindex| {
        let mut found: Vec<_> = super::below(&t, ifindex).iter().map(|l| l.ifindex).collect();
        found.sort_unstable();
        found
    };
    assert_eq!(below(5), [1, 2, 3, 4]);
    assert_eq!(below(3), [1, 2]);
    assert_eq!(below(8), [6]);
    for none in [1, 7, 10, 99] {
        assert_eq!(below(none), Vec::<u32>::new(), "{none}");
    }
}

#[test]
fn what_was_before_the_first_start_survives_crashes() {
    let m = Machine::new(&[(2, "lan")]);
    m.set(RP, "lan", 1);
    let before = m.all();
    // Each is a daemon that is killed.
    for _ in 0..3 {
        m.keep(&mut m.keeper(), &[port(2, "lan", true)]);
        assert_eq!(m.get(RP, "lan"), 2);
    }
    // Killed between the record and the first setting.
    m.set(RP, "lan", 1);
    m.keep(&mut m.keeper(), &[port(2, "lan", true)]);
    m.put_back();
    assert_eq!(m.all(), before);
}

#[test]
fn what_others_change_is_changed_back_while_it_runs_and_stays_afterwards() {
    let m = Machine::new(&[(2, "lan")]);
    let mut keeper = m.keeper();
    let ports = [port(2, "lan", true)];
    m.keep(&mut keeper, &ports);
    m.set(FORWARDING4, "lan", 1);
    m.keep(&mut keeper, &ports);
    assert_eq!(m.get(FORWARDING4, "lan"), 0);
    // Twice, and the second time it is something else.
    let redirects = Key::v6("accept_redirects");
    m.set(redirects, "lan", 1);
    m.keep(&mut keeper, &ports);
    m.set(redirects, "lan", 2);
    m.keep(&mut keeper, &ports);
    assert_eq!(m.get(redirects, "lan"), 0);
    // The daemon is away, and an administrator decides. What others have said last is put back.
    m.set(Key::v4("accept_redirects"), "lan", 1);
    m.put_back();
    assert_eq!((m.get(redirects, "lan"), m.get(FORWARDING4, "lan"), m.get(RA, "lan")), (2, 1, 1));
    assert_eq!(m.get(Key::v4("accept_redirects"), "lan"), 1);
}

#[test]
fn devices_come_and_go() {
    let mut m = Machine::new(&[(2, "lan"), (3, "wan")]);
    let mut keeper = m.keeper();
    let ports = [port(2, "lan", true), port(3, "wan", false)];
    m.keep(&mut keeper, &ports);
    // No port any more: as before at once. The others stay.
    m.keep(&mut keeper, &ports[..1]);
    assert_eq!((m.get(RP, "wan"), m.get(RA, "wan"), m.get(FORWARDING6, "wan")), (1, 1, 0));
    assert_eq!(m.get(RP, "lan"), 2);
    // The same name, another device: what its predecessor had does not count.
    m.names.remove(&2);
    m.plug(7, "lan");
    m.keep(&mut keeper, &[port(7, "lan", true)]);
    assert_eq!(m.get(RP, "lan"), 2);
    // Renamed while it is a port.
    for family in ["ipv4", "ipv6", "ethtool"] {
        let conf = m.dir.path().join(family).join("conf");
        std::fs::rename(conf.join("lan"), conf.join("in")).unwrap();
    }
    m.names.insert(7, "in".to_owned());
    m.put_back();
    for key in KEYS {
        assert_eq!(m.get(key, "in"), m.get(key, "wan"), "{key:?}: as the kernel makes devices");
    }
}

#[test]
fn router_advertisements_of_a_provider_count_as_they_did() {
    // (accept_ra, forwarding) before; accept_ra as a router's.
    for (ra, forwarding, want) in [(0, 0, 0), (1, 0, 2), (1, 1, 0), (2, 0, 2), (2, 1, 2)] {
        let m = Machine::new(&[(3, "wan")]);
        m.set(RA, "wan", ra);
        m.set(FORWARDING6, "wan", forwarding);
        let before = m.all();
        for _ in 0..2 {
            m.keep(&mut m.keeper(), &[port(3, "wan", false)]);
            assert_eq!(m.get(RA, "wan"), want, "accept_ra {ra}, forwarding {forwarding}");
        }
        m.put_back();
        assert_eq!(m.all(), before);
    }
}

#[test]
fn the_reverse_path_filter_is_loose_only_where_it_is_strict() {
    let m = Machine::new(&[(2, "lan"), (5, "vrrp.1")]);
    let above = Target { place: Place::Above, ..port(5, "vrrp.1", true) };
    // (of the device, of all) before; of the device and of a macvlan device above it as a router's.
    for (device, all, want) in [(0, 0, 0), (0, 1, 2), (1, 0, 2), (1, 1, 2), (2, 1, 2), (0, 2, 0)] {
        m.set(RP, "lan", device);
        m.set(RP, "vrrp.1", device);
        m.set(RP, "all", all);
        let mut keeper = m.keeper();
        let ports = [port(2, "lan", true), above.clone()];
        m.keep(&mut keeper, &ports);
        assert_eq!((m.get(RP, "lan"), m.get(RP, "vrrp.1")), (want, device), "{device}, all {all}");
        let arp = |leaf, name| m.get(Key::v4(leaf), name);
        assert_eq!(
            (arp("arp_ignore", "vrrp.1"), arp("arp_announce", "vrrp.1"), arp("arp_ignore", "lan")),
            (1, 0, 0)
        );
        // Nobody needs it any more.
        m.set(RP, "all", 0);
        m.keep(&mut keeper, &ports);
        assert_eq!(m.get(RP, "lan"), if device == 1 { 2 } else { device }, "{device}, all {all}");
        m.put_back();
        assert_eq!(m.get(RP, "lan"), device);
    }
}

#[test]
fn what_leads_around_the_gateway_is_named() {
    let m = Machine::new(&[(2, "lan"), (4, "docker0")]);
    for name in ["docker0", "lan"] {
        m.set(FORWARDING4, name, 1);
    }
    m.set(FORWARDING6, "all", 1);
    std::fs::write(m.path(Key::v4("mc_forwarding"), "lan"), "1\n").unwrap();
    let mpls = m.dir.path().join("mpls/conf/lan");
    std::fs::create_dir_all(&mpls).unwrap();
    std::fs::write(mpls.join("input"), "1\n").unwrap();
    let bridged = Target { master: Some("br0".to_owned()), ..port(2, "lan", true) };
    let says = |warnings: &[String], words: &[&str]| {
        let found = warnings.iter().any(|w| words.iter().all(|word| w.contains(word)));
        assert!(found, "{words:?} in {warnings:#?}");
    };
    let mut keeper = m.keeper();
    let order = Order { targets: vec![bridged.clone()], write: false, pass_to_kernel: false };
    let kept = keeper.keep(&order, &|_| None).warnings;
    says(&kept, &["\"keep\"", "net.ipv4.conf.lan.forwarding = 1", "net.ipv6.conf.lan.accept_ra = 1"]);
    says(&kept, &["forwarding is 1 for lan:"]);
    assert_eq!(m.get(FORWARDING4, "lan"), 1, "looked at only");
    assert!(!m.has_record());
    let warnings = m.keep(&mut keeper, &[bridged]).warnings;
    says(&warnings, &["forwarding is 1 for docker0:"]);
    says(&warnings, &["net.ipv6.conf.all.forwarding"]);
    says(&warnings, &["net.ipv4.conf.lan.mc_forwarding"]);
    says(&warnings, &["net.mpls.conf.lan.input"]);
    says(&warnings, &["lan is a member of br0"]);
    assert_eq!(warnings.len(), 5, "{warnings:#?}");
    // They go with their cause.
    m.set(FORWARDING4, "docker0", 0);
    m.set(FORWARDING6, "all", 0);
    assert_eq!(m.keep(&mut keeper, &[port(2, "lan", true)]).warnings.len(), 2);
    // The kernel is to forward while no worker runs: its forwarding is as it was.
    assert_eq!(m.get(FORWARDING4, "lan"), 0);
    let order = Order { targets: vec![port(2, "lan", true)], write: true, pass_to_kernel: true };
    keeper.keep(&order, &|i| m.names.get(&i).cloned());
    assert_eq!(m.get(FORWARDING4, "lan"), 1);
}

#[test]
fn a_record_of_others_is_not_written_back() {
    let m = Machine::new(&[(2, "lan")]);
    let record = m.dir.path().join("record");
    m.set(RP, "lan", 2);
    let before = m.all();
    for text in ["", "netns 1\n2 ipv4 rp_filter 0 2\n", "2 ipv4 rp_filter 0 2\n"] {
        std::fs::write(&record, text).unwrap();
        assert_eq!(m.put_back(), 0, "{text:?}");
    }
    // Words that are no settings of ours, and lines that are cut.
    m.keep(&mut m.keeper(), &[port(2, "lan", true)]);
    let mut text = std::fs::read_to_string(&record).unwrap();
    text += "2 ipv4 ../../core/x 1 2\n2 ipv4 rp_filter\nx\n";
    std::fs::write(&record, text).unwrap();
    m.put_back();
    assert_eq!(m.all(), before);
}
