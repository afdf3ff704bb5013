//! `frr.conf`, whole, made of the settings. Each line remembers whose it is, so that what FRR refuses costs its owner
//! alone.
//!
//! Nothing is copied as it came: numbers and addresses are typed, and names and keys are checked for characters that could
//! end a word or a line ([`checked`]).

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::settings::{Authentication, Bgp, Key, Neighbor, Ospf, Settings, Side};
use crate::status::Problem;

/// Longest key of TCP MD5 signatures that Linux takes (`TCP_MD5SIG_MAXKEYLEN`).
const MAX_TCP_KEY: usize = 80;
/// Longest key of OSPF (RFC 2328, D.3), and longest password (D.2).
const MAX_OSPF_KEY: usize = 16;
const MAX_OSPF_PASSWORD: usize = 8;

/// Defaults of FRR (`frr defaults traditional`): seconds between signs of life and until a neighbor is lost.
const OSPF_HELLO: u16 = 10;
const OSPF_DEAD: u16 = 40;
const OSPF_RETRANSMIT: u16 = 5;
const BGP_TIMERS: (u16, u16) = (60, 180);

/// Whose line it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Bgp,
    Ospf,
    Neighbor(IpAddr),
    /// A port of OSPF, by its device.
    Interface(String),
}

/// The configuration of all daemons.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rendered {
    lines: Vec<(String, Option<Owner>)>,
}

impl Rendered {
    pub(crate) fn text(&self) -> String {
        self.lines.iter().flat_map(|(line, _)| [line.as_str(), "\n"]).collect()
    }

    /// Whose the line of this number is, counted from 1.
    pub(crate) fn owner(&self, line: usize) -> Option<&Owner> {
        self.lines.get(line.checked_sub(1)?)?.1.as_ref()
    }

    /// All that is of this owner.
    pub(crate) fn lines_of(&self, owner: &Owner) -> Vec<String> {
        let own = self.lines.iter().filter(|(_, of)| of.as_ref() == Some(owner));
        own.map(|(line, _)| line.clone()).collect()
    }

    fn line(&mut self, owner: Option<&Owner>, text: impl Display) {
        self.lines.push((text.to_string(), owner.cloned()));
    }
}

impl Owner {
    /// With the section of the device document that it comes from.
    pub(crate) fn problem(&self, of: &Settings, reason: impl Into<String>) -> Problem {
        let (section, object) = match self {
            Owner::Bgp => ("Bgp", "BGP".to_owned()),
            Owner::Ospf => ("Ospf", "OSPF".to_owned()),
            Owner::Neighbor(address) => {
                let neighbors = of.bgp.iter().flat_map(|b| &b.neighbors);
                let port = neighbors.clone().find(|n| n.address == *address).map_or("", |n| &n.port);
                match port {
                    "" => ("", format!("BGP neighbor {address} of the device's own file")),
                    port => ("PortProtocols", format!("BGP neighbor {address} of port {port}")),
                }
            }
            Owner::Interface(device) => {
                let all = of.ospf.iter().flat_map(|o| &o.interfaces);
                let port = all.clone().find(|i| i.device == *device).map_or(device.as_str(), |i| &i.port);
                ("PortProtocols", format!("OSPF on port {port}"))
            }
        };
        Problem { section: section.to_owned(), object, reason: reason.into() }
    }

    /// Takes it out of the settings.
    pub(crate) fn remove_from(&self, settings: &mut Settings) {
        match self {
            Owner::Bgp => settings.bgp = None,
            Owner::Ospf => settings.ospf = None,
            Owner::Neighbor(address) => {
                if let Some(bgp) = &mut settings.bgp {
                    bgp.neighbors.retain(|n| n.address != *address);
                }
            }
            Owner::Interface(device) => {
                if let Some(ospf) = &mut settings.ospf {
                    ospf.interfaces.retain(|i| i.device != *device);
                    ospf.passive.retain(|d| d != device);
                }
            }
        }
    }
}

/// The settings without what cannot be put in force, and why.
pub(crate) fn checked(settings: &Settings) -> (Settings, Vec<Problem>) {
    let mut good = settings.clone();
    let mut problems = Vec::new();
    for (owner, why) in faults(settings) {
        problems.push(owner.problem(settings, why));
        owner.remove_from(&mut good);
    }
    (good, problems)
}

fn faults(settings: &Settings) -> Vec<(Owner, String)> {
    let mut out = Vec::new();
    if let Some(bgp) = &settings.bgp {
        if let Some(why) = bgp_fault(bgp) {
            out.push((Owner::Bgp, why));
        }
        let mut seen = BTreeSet::new();
        for n in &bgp.neighbors {
            if let Some(why) = neighbor_fault(n) {
                out.push((Owner::Neighbor(n.address), why));
            } else if !seen.insert(n.address) {
                out.push((Owner::Neighbor(n.address), "two neighbors have this address".to_owned()));
            }
        }
    }
    if let Some(ospf) = &settings.ospf {
        if let Some(why) = ospf_fault(ospf) {
            out.push((Owner::Ospf, why));
        }
        let devices = ospf.interfaces.iter().map(|i| &i.device).chain(&ospf.passive);
        let wrong = devices.filter(|d| !is_device(d));
        out.extend(wrong.map(|d| (Owner::Interface(d.clone()), format!("{d:?} is no network device"))));
    }
    out
}

fn bgp_fault(bgp: &Bgp) -> Option<String> {
    if bgp.local_as == 0 {
        return Some("LocalAs 0 is reserved (RFC 7607); use 1..4294967295".to_owned());
    }
    if bgp.router_id.is_unspecified() {
        return Some("RouterId 0.0.0.0 is none (RFC 6286)".to_owned());
    }
    (bgp.hold_time < 3).then(|| format!("HoldTime {}; use 3..65535 s", bgp.hold_time))
}

fn neighbor_fault(n: &Neighbor) -> Option<String> {
    if n.remote_as == 0 {
        return Some("RemoteAs 0 is reserved (RFC 7607); use 1..4294967295".to_owned());
    }
    let own = n.address.is_unspecified() || n.address.is_loopback() || n.address.is_multicast();
    if own || matches!(n.address, IpAddr::V4(a) if a.is_broadcast()) {
        return Some(format!("{} is the address of no neighbor", n.address));
    }
    if matches!(n.address, IpAddr::V6(a) if a.is_unicast_link_local()) {
        return Some(format!(
            "{} is link-local; use an address of the neighbor in a network of the port",
            n.address
        ));
    }
    n.key.as_ref().and_then(|k| key_fault("the key", k, MAX_TCP_KEY))
}

fn ospf_fault(ospf: &Ospf) -> Option<String> {
    if ospf.router_id.is_unspecified() {
        return Some("RouterId 0.0.0.0 is none (RFC 2328)".to_owned());
    }
    if ospf.hello == 0 || ospf.dead <= ospf.hello {
        let (hello, dead) = (ospf.hello, ospf.dead);
        return Some(format!(
            "DeadTime {dead} must be above HelloTime {hello}: neighbors would be lost between two"
        ));
    }
    match &ospf.authentication {
        Authentication::None => None,
        Authentication::Password(key) => key_fault("Password", key, MAX_OSPF_PASSWORD),
        Authentication::Md5 { key, .. } => key_fault("Md5Key", key, MAX_OSPF_KEY),
    }
}

fn key_fault(name: &str, key: &Key, most: usize) -> Option<String> {
    let text = key.expose();
    if text.is_empty() || text.len() > most {
        return Some(format!("{name} has {} characters; use 1..{most}", text.len()));
    }
    let plain = text.bytes().all(|b| b.is_ascii_graphic());
    (!plain).then(|| format!("{name} has other characters than letters, digits and punctuation of ASCII"))
}

/// Names as Linux takes them, less what means something to FRR.
fn is_device(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b"._-@:".contains(&b);
    (1..=15).contains(&name.len()) && name.bytes().all(word) && !name.starts_with('-')
}

/// What of the machine's own settings FRR's configuration has to repeat: without that its reload would change it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Forwarding {
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
}

/// The whole file.
pub(crate) fn render(settings: &Settings, forwarding: Forwarding) -> Rendered {
    let mut out = Rendered::default();
    out.line(None, "frr defaults traditional");
    out.line(None, "log stdout notifications");
    if !forwarding.ipv4 {
        out.line(None, "no ip forwarding");
    }
    if !forwarding.ipv6 {
        out.line(None, "no ipv6 forwarding");
    }
    if let Some(ospf) = &settings.ospf {
        ospf_lines(&mut out, ospf, settings.bfd);
    }
    if let Some(bgp) = &settings.bgp {
        bgp_lines(&mut out, bgp, settings.bfd);
    }
    out
}

/// Prefix lists of one name, a list for each family.
fn prefix_lists(out: &mut Rendered, owner: &Owner, name: &str, nets: &[IpNet], longer: bool) {
    for (n, net) in nets.iter().enumerate() {
        let (word, most) = if net.addr().is_ipv4() { ("ip", 32) } else { ("ipv6", 128) };
        let net = net.trunc();
        let le = if longer && net.prefix_len() < most { format!(" le {most}") } else { String::new() };
        out.line(Some(owner), format_args!("{word} prefix-list {name} seq {} permit {net}{le}", 5 * (n + 1)));
    }
}

/// Entries of a route map for the lists of these names: one for each list that is not empty. A list that is not there
/// would match nothing in one version of FRR and everything in another.
struct Entries<'a> {
    map: &'a str,
    verdict: &'a str,
    own_only: bool,
    next: u32,
}

impl Entries<'_> {
    fn matching(&mut self, out: &mut Rendered, list: &str, nets: &[IpNet]) {
        for (word, v4) in [("ip", true), ("ipv6", false)] {
            if !nets.iter().any(|n| n.addr().is_ipv4() == v4) {
                continue;
            }
            out.line(
                Some(&Owner::Bgp),
                format_args!("route-map {} {} {}", self.map, self.verdict, self.next),
            );
            if self.own_only {
                out.line(Some(&Owner::Bgp), " match as-path sag-own");
            }
            out.line(Some(&Owner::Bgp), format_args!(" match {word} address prefix-list {list}"));
            out.line(Some(&Owner::Bgp), "exit");
            self.next += 10;
        }
    }

    fn last(&self, out: &mut Rendered, verdict: &str) {
        out.line(Some(&Owner::Bgp), format_args!("route-map {} {verdict} {}", self.map, self.next));
        out.line(Some(&Owner::Bgp), "exit");
    }
}

fn entries<'a>(map: &'a str, verdict: &'a str, own_only: bool) -> Entries<'a> {
    Entries { map, verdict, own_only, next: 10 }
}

/// What is announced is named, prefix by prefix, and only if it began here: the gateway is no transit between its
/// neighbors, and its default routes stay its own.
fn policy(out: &mut Rendered, bgp: &Bgp) {
    let owner = Owner::Bgp;
    out.line(Some(&owner), "bgp as-path access-list sag-own seq 5 permit ^$");
    prefix_lists(out, &owner, "sag-branch", &bgp.branch, false);
    prefix_lists(out, &owner, "sag-beyond", &bgp.beyond, false);
    prefix_lists(out, &owner, "sag-inside", &bgp.branch, true);
    let mut outside = entries("sag-outside-out", "permit", true);
    outside.matching(out, "sag-branch", &bgp.branch);
    outside.last(out, "deny");
    let mut inside = entries("sag-inside-out", "permit", true);
    inside.matching(out, "sag-branch", &bgp.branch);
    inside.matching(out, "sag-beyond", &bgp.beyond);
    inside.last(out, "deny");
    let mut received = entries("sag-outside-in", "deny", false);
    received.matching(out, "sag-inside", &bgp.branch);
    received.last(out, "permit");
    entries("sag-inside-in", "permit", false).last(out, "permit");
}

fn bgp_lines(out: &mut Rendered, bgp: &Bgp, bfd: bool) {
    let owner = Owner::Bgp;
    // The default is five seconds, in which what is new would not be announced.
    out.line(Some(&owner), "bgp route-map delay-timer 1");
    policy(out, bgp);
    out.line(Some(&owner), format_args!("router bgp {}", bgp.local_as));
    out.line(Some(&owner), format_args!(" bgp router-id {}", bgp.router_id));
    out.line(Some(&owner), " bgp log-neighbor-changes");
    out.line(Some(&owner), " no bgp default ipv4-unicast");
    // Networks are announced because the settings say so, not because the kernel has a route of that very length.
    out.line(Some(&owner), " no bgp network import-check");
    if (bgp.keepalive, bgp.hold_time) != BGP_TIMERS {
        out.line(Some(&owner), format_args!(" timers bgp {} {}", bgp.keepalive, bgp.hold_time));
    }
    for n in &bgp.neighbors {
        let (owner, address) = (Owner::Neighbor(n.address), n.address);
        let mut line =
            |text: &dyn Display| out.line(Some(&owner), format_args!(" neighbor {address} {text}"));
        line(&format_args!("remote-as {}", n.remote_as));
        if bfd {
            line(&"bfd");
        }
        if let Some(key) = &n.key {
            line(&format_args!("password {}", key.expose()));
        }
        // With its own AS there is no bound.
        if n.hops > 1 && n.remote_as != bgp.local_as {
            line(&format_args!("ebgp-multihop {}", n.hops));
        }
        // The default is two minutes.
        line(&"timers connect 3");
    }
    for (family, v4) in [("ipv4", true), ("ipv6", false)] {
        address_family(out, bgp, family, v4);
    }
    out.line(Some(&owner), "exit");
}

fn address_family(out: &mut Rendered, bgp: &Bgp, family: &str, v4: bool) {
    let owner = Owner::Bgp;
    let neighbors: Vec<&Neighbor> = bgp.neighbors.iter().filter(|n| n.address.is_ipv4() == v4).collect();
    if neighbors.is_empty() {
        return;
    }
    out.line(Some(&owner), " !");
    out.line(Some(&owner), format_args!(" address-family {family} unicast"));
    let mut nets: Vec<IpNet> = bgp.branch.iter().chain(&bgp.beyond).map(IpNet::trunc).collect();
    nets.retain(|n| n.addr().is_ipv4() == v4);
    nets.sort();
    nets.dedup();
    for net in nets {
        out.line(Some(&owner), format_args!("  network {net}"));
    }
    for n in neighbors {
        let owner = Owner::Neighbor(n.address);
        let side = match n.side {
            Side::Inside => "inside",
            Side::Outside => "outside",
        };
        let most = bgp.max_prefixes;
        for text in [
            "activate".to_owned(),
            format!("maximum-prefix {most} restart 1"),
            format!("route-map sag-{side}-in in"),
            format!("route-map sag-{side}-out out"),
        ] {
            out.line(Some(&owner), format_args!("  neighbor {} {text}", n.address));
        }
    }
    out.line(Some(&owner), " exit-address-family");
}

/// OSPF begins on the device with the line of the area, so everything else comes before: FRR waits as long for another
/// designated router as the dead interval is at that moment, and would speak without a key until it has one. A passive
/// device has it all, too, so that nothing but the word changes when its port begins to speak.
fn ospf_interface(out: &mut Rendered, ospf: &Ospf, device: &str, bfd: bool, passive: bool) {
    let owner = Owner::Interface(device.to_owned());
    let mut line = |text: &dyn Display| out.line(Some(&owner), text);
    line(&format_args!("interface {device}"));
    match &ospf.authentication {
        Authentication::None => {}
        Authentication::Password(key) => {
            line(&" ip ospf authentication");
            line(&format_args!(" ip ospf authentication-key {}", key.expose()));
        }
        Authentication::Md5 { id, key } => {
            line(&" ip ospf authentication message-digest");
            line(&format_args!(" ip ospf message-digest-key {id} md5 {}", key.expose()));
        }
    }
    if bfd {
        line(&" ip ospf bfd");
    }
    // FRR does not show its defaults, and its reload would set them again each time.
    if ospf.dead != OSPF_DEAD {
        line(&format_args!(" ip ospf dead-interval {}", ospf.dead));
    }
    if ospf.hello != OSPF_HELLO {
        line(&format_args!(" ip ospf hello-interval {}", ospf.hello));
    }
    // The first description of the database is lost when the neighbor is not ready yet; who wants to be fast with the
    // hellos does not want to wait for five seconds then.
    if ospf.hello < OSPF_RETRANSMIT {
        line(&format_args!(" ip ospf retransmit-interval {}", ospf.hello));
    }
    if passive {
        line(&" ip ospf passive");
    }
    line(&format_args!(" ip ospf area {}", ospf.area));
    line(&"exit");
}

fn ospf_lines(out: &mut Rendered, ospf: &Ospf, bfd: bool) {
    let owner = Owner::Ospf;
    for i in &ospf.interfaces {
        ospf_interface(out, ospf, &i.device, bfd, false);
    }
    for device in &ospf.passive {
        ospf_interface(out, ospf, device, false, true);
    }
    let beyond: Vec<IpNet> = ospf.beyond.iter().map(|n| IpNet::V4(*n)).collect();
    if !beyond.is_empty() {
        prefix_lists(out, &owner, "sag-ospf", &beyond, false);
        out.line(Some(&owner), "route-map sag-ospf permit 10");
        out.line(Some(&owner), " match ip address prefix-list sag-ospf");
        out.line(Some(&owner), "exit");
    }
    out.line(Some(&owner), "router ospf");
    out.line(Some(&owner), format_args!(" ospf router-id {}", ospf.router_id));
    out.line(Some(&owner), " log-adjacency-changes");
    // By default five seconds pass between two versions of what is announced. Neighbors take one a second (RFC 2328,
    // MinLSArrival).
    out.line(Some(&owner), " timers throttle lsa all 1000");
    if !beyond.is_empty() {
        out.line(Some(&owner), " redistribute kernel route-map sag-ospf");
    }
    out.line(Some(&owner), "exit");
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
