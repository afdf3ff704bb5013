//! `sag-vcpe check`: the whole validation, and what the ACL analysis finds, each with a packet that
//! proves it.

use crate::config_file;
use sag_acl::analysis::{self, Finding as Found, Kind, Limits};
use sag_acl::{Addr, Key, Rule};
use sag_compile::{FamilyRules, Problem, accepts, class_of, compile_rule, dnat_to_self, port_addresses};
use sag_model::config::{Acl, AclRule, Config, protocol_name};
use sag_model::control::Finding;
use sag_pipeline::policy::Class;
use sag_rtnl::Mirror;
use sag_text::escape_lines;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::ExitCode;

pub fn check(path: &Path) -> ExitCode {
    match config_file::load(path) {
        Ok((checked, _)) => {
            for w in &checked.warnings {
                eprintln!("warning: {}", escape_lines(&w.to_string()));
            }
            let c = &checked.config;
            if let Some(w) = config_file::exposed_keys(path, c) {
                eprintln!("warning: {}", escape_lines(&w));
            }
            if let Some(problems) = forwards_to_this_machine(c) {
                eprintln!("{}", escape_lines(&problems));
                return ExitCode::FAILURE;
            }
            for f in findings(c) {
                eprintln!("warning: {}", escape_lines(&f.text));
            }
            let rules: usize = c.acls.iter().map(|a| a.rules.len()).sum();
            println!(
                "{}: valid ({} ports, {} routes, {} ACLs with {rules} rules)",
                path.display(),
                c.ports.len(),
                c.routes.len(),
                c.acls.len()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", escape_lines(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

/// Port forwards to addresses that this machine has on the ports of the configuration, which the kernel alone knows. On
/// another machine than the gateway there are no such devices.
fn forwards_to_this_machine(config: &Config) -> Option<String> {
    let mirror = Mirror::open().ok()?;
    let own = port_addresses(config, mirror.tables());
    let to_self = dnat_to_self(config, |vrf, addr| own.contains(&(vrf.map(str::to_owned), addr)));
    let text = |(id, addr): (&str, Ipv4Addr)| Problem::DnatToSelf { id: id.into(), addr }.to_string();
    let texts: Vec<_> = to_self.into_iter().map(text).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

type Named<'c> = (&'c Acl, &'c AclRule);

/// What is odd about the bound ACLs. Where the analysis had to stop short, a last finding says so.
pub fn findings(config: &Config) -> Vec<Finding> {
    let mut rules: Vec<Named<'_>> =
        config.acls.iter().flat_map(|a| a.rules.iter().map(move |r| (a, r))).collect();
    rules.sort_by_key(|(_, r)| r.priority);
    let default = accepts(config.dataplane.acl_default);
    let mut out = Vec::new();
    for class in Class::ALL {
        let of_class: Vec<_> = rules.iter().copied().filter(|(_, r)| class_of(r) == class).collect();
        out.extend(of_vrfs(&of_class, default));
    }
    out
}

/// Findings of a class: a rule that names a VRF is looked at among those that packets from there meet. One that names none
/// is shadowed if it is so by others that name none, and redundant if no VRF needs it.
fn of_vrfs(rules: &[Named<'_>], default: bool) -> Vec<Finding> {
    let vrfs: BTreeSet<&str> = rules.iter().filter_map(|(_, r)| r.vrf.as_deref()).collect();
    let of = |vrf: Option<&str>| {
        let met: Vec<_> =
            rules.iter().copied().filter(|(_, r)| r.vrf.is_none() || r.vrf.as_deref() == vrf).collect();
        met_together(&met, default)
    };
    let each: Vec<_> = vrfs.iter().map(|vrf| (*vrf, of(Some(vrf)))).collect();
    let dead = |found: &[Finding], rule: &str| {
        found.iter().any(|f| f.rule == rule && matches!(&*f.kind, "unmatchable" | "shadowed" | "redundant"))
    };
    let mut out = of(None);
    out.retain(|f| f.kind != "redundant" || each.iter().all(|(_, found)| dead(found, &f.rule)));
    for (vrf, found) in each {
        let names_it = |id: &str| rules.iter().any(|(_, r)| r.id == id && r.vrf.as_deref() == Some(vrf));
        let is_about = |f: &Finding| match &*f.kind {
            "incomplete" => !out.contains(f),
            "conflict" => names_it(&f.rule) || f.by.iter().any(|by| names_it(by)),
            _ => names_it(&f.rule),
        };
        let about: Vec<_> = found.into_iter().filter(is_about).collect();
        out.extend(about);
    }
    out
}

/// Findings about rules of a class that the same packets meet.
fn met_together(rules: &[Named<'_>], default: bool) -> Vec<Finding> {
    let mut out = Vec::new();
    let v4 = rules.iter().flat_map(|n| match compile_rule(n.1) {
        Some(FamilyRules::V4(parts)) => parts.into_iter().map(|r| (*n, r)).collect(),
        _ => Vec::new(),
    });
    family(v4.collect(), default, |a: u32| IpAddr::V4(Ipv4Addr::from_bits(a)), &mut out);
    let v6 = rules.iter().flat_map(|n| match compile_rule(n.1) {
        Some(FamilyRules::V6(parts)) => parts.into_iter().map(|r| (*n, r)).collect(),
        _ => Vec::new(),
    });
    family(v6.collect(), default, |a: u128| IpAddr::V6(Ipv6Addr::from_bits(a)), &mut out);
    out
}

fn family<A: Addr>(
    rules: Vec<(Named<'_>, Rule<A>)>,
    default: bool,
    show: impl Fn(A) -> IpAddr,
    out: &mut Vec<Finding>,
) {
    let input: Vec<_> = rules.iter().map(|((_, r), rule)| (*rule, accepts(r.policy))).collect();
    let report = analysis::findings(&input, &default, Limits::default());
    let name = |i: u32| rules.get(i as usize).map_or_else(String::new, |((_, r), _)| r.id.clone());
    let complete = report.is_complete();
    let unexamined = report.unexamined;
    for f in &of_whole_rules(&rules, report.findings) {
        let Some(((acl, rule), _)) = rules.get(f.rule as usize) else { continue };
        let witness = f.witness.as_ref().map(|k| packet(k, &show));
        let shown = witness.clone().unwrap_or_default();
        let (kind, by, text) = match f.kind {
            Kind::Unmatchable => (
                "unmatchable",
                vec![],
                "restricts ports of a protocol that has none: it matches nothing".to_owned(),
            ),
            Kind::Shadowed { by, alone: true } => (
                "shadowed",
                vec![name(by)],
                format!("never matches: rule {} answers all of its packets first, such as {shown}", name(by)),
            ),
            Kind::Shadowed { by, alone: false } => (
                "shadowed",
                vec![name(by)],
                format!(
                    "never matches: earlier rules answer all of its packets, rule {} for one {shown}",
                    name(by)
                ),
            ),
            Kind::Redundant { by: Some(by) } => (
                "redundant",
                vec![name(by)],
                format!("changes nothing: without it rule {} would say the same of {shown}", name(by)),
            ),
            Kind::Redundant { by: None } => (
                "redundant",
                vec![],
                format!("changes nothing: without it acl_default would say the same of {shown}"),
            ),
            Kind::Conflict { with, others } => {
                let more = if others > 0 { format!(" (and {others} more)") } else { String::new() };
                let text = format!(
                    "and rule {}{more} overlap with another verdict, so their order decides, as of {shown}",
                    name(with)
                );
                ("conflict", vec![name(with)], text)
            }
        };
        let text = format!("acl {} rule {}: {text}", acl.id, rule.id);
        out.push(Finding {
            kind: kind.to_owned(),
            acl: acl.id.clone(),
            rule: rule.id.clone(),
            by,
            witness,
            text,
        });
    }
    if !complete {
        out.push(Finding {
            kind: "incomplete".to_owned(),
            text: format!(
                "the analysis of {} ACL rules was cut short: {} of them may have findings that are not listed",
                rules.len(),
                unexamined
            ),
            ..Finding::default()
        });
    }
}

/// Of rules that are several by their groups, what holds for the rule as a whole: it is shadowed or redundant if all of
/// its parts are, and one conflict stands for all.
fn of_whole_rules<A: Addr>(rules: &[(Named<'_>, Rule<A>)], found: Vec<Found<A>>) -> Vec<Found<A>> {
    let id = |i: u32| rules.get(i as usize).map(|((_, r), _)| r.id.as_str());
    let mut parts: HashMap<&str, usize> = HashMap::new();
    for ((_, rule), _) in rules {
        *parts.entry(&rule.id).or_default() += 1;
    }
    // Parts that are shadowed, that are shadowed or redundant, and conflicts so far.
    let mut dead: HashMap<&str, [usize; 2]> = HashMap::new();
    for f in &found {
        let Some(counts) = id(f.rule).map(|id| dead.entry(id).or_default()) else { continue };
        match f.kind {
            Kind::Unmatchable | Kind::Shadowed { .. } => counts.iter_mut().for_each(|n| *n += 1),
            Kind::Redundant { .. } => counts[1] += 1,
            Kind::Conflict { .. } => {}
        }
    }
    let policy = |i: u32| rules.get(i as usize).map(|((_, r), _)| r.policy);
    let mut reported = HashSet::new();
    let whole = |mut f: Found<A>| {
        let id = id(f.rule)?;
        let (all, counts) = (parts.get(id).copied().unwrap_or(0), dead.get(id).copied().unwrap_or_default());
        let holds = match f.kind {
            Kind::Shadowed { by, .. } if counts[0] < all => {
                // A part that never matches: the order decides about it, unless both say the same.
                let differs = policy(by) != policy(f.rule);
                f.kind = Kind::Conflict { with: by, others: 0 };
                differs
            }
            Kind::Unmatchable | Kind::Shadowed { .. } => counts[0] == all,
            Kind::Redundant { .. } => counts[1] == all && counts[0] < all,
            Kind::Conflict { .. } => true,
        };
        (holds && reported.insert((id, std::mem::discriminant(&f.kind)))).then_some(f)
    };
    found.into_iter().filter_map(whole).collect()
}

/// `tcp 192.0.2.7:1024 > 198.51.100.1:80`
fn packet<A: Addr>(k: &Key<A>, show: &impl Fn(A) -> IpAddr) -> String {
    let proto = protocol_name(Some(k.proto()));
    let end = |a: A, port: u16| match (show(a), k.has_ports()) {
        (IpAddr::V6(a), true) => format!("[{a}]:{port}"),
        (a, true) => format!("{a}:{port}"),
        (a, false) => a.to_string(),
    };
    let mut text = format!("{proto} {} > {}", end(k.src(), k.sport()), end(k.dst(), k.dport()));
    // What most rules do not look at goes without saying.
    if let Some(flags) = k.tcp_flags().filter(|f| *f != 0) {
        text += &format!(" flags {flags:#04x}");
    }
    if let Some((kind, code)) = k.icmp() {
        text += &format!(" type {kind} code {code}");
    }
    if k.dscp() != 0 {
        text += &format!(" dscp {}", k.dscp());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_model::config;

    fn config_of(rules: &[(&str, &str, &str, &str, u32)]) -> Config {
        let mut text = "[[port]]\nname='0'\ndevice='a'\nrole='lan'\n[[port]]\nname='1'\ndevice='b'\nrole='wan'\n[[group]]\nid='pair'\nnetworks=['192.0.2.8/32','198.51.100.9/32']\n[[acl]]\nid='x'\n".to_owned();
        for (id, policy, source, ports, priority) in rules {
            text += &format!(
                "[[acl.rule]]\nid='{id}'\ndirection='out'\ntype='WAN'\npolicy='{policy}'\nip_protocol='tcp'\nsource_cidr='{source}'\ndest_cidr='0.0.0.0/0'\nsource_port_range='-1/-1'\ndest_port_range='{ports}'\npriority={priority}\n"
            );
        }
        config::parse(&text, "t").unwrap().config
    }

    #[test]
    fn findings_name_rules_and_carry_a_packet() {
        let c = config_of(&[
            ("wide", "drop", "192.0.2.0/24", "80/90", 1),
            ("dead", "accept", "192.0.2.7/32", "85/85", 2),
            ("cross", "accept", "192.0.2.0/25", "90/100", 3),
            ("same", "accept", "198.51.100.0/24", "1/9", 4),
        ]);
        let f = findings(&c);
        let of = |rule: &str| f.iter().find(|f| f.rule == rule).unwrap_or_else(|| panic!("{rule}: {f:#?}"));
        assert_eq!(
            (of("dead").kind.as_str(), of("dead").by.as_slice()),
            ("shadowed", &["wide".to_owned()][..])
        );
        assert!(of("dead").witness.as_ref().unwrap().contains("> "), "{:?}", of("dead"));
        assert!(of("dead").text.contains("tcp 192.0.2.7:"));
        assert_eq!(of("cross").kind, "conflict");
        assert_eq!(of("same").kind, "redundant");
        assert!(f.iter().all(|f| f.rule != "wide"));
    }

    /// Rules of VRFs meet what comes from there: one of another VRF shadows nothing, and one for all is needed as long as a VRF
    /// needs it.
    #[test]
    fn findings_are_about_what_a_vrf_meets() {
        let mut c = config_of(&[
            ("a", "drop", "192.0.2.0/24", "80/80", 1),
            ("b", "accept", "192.0.2.0/24", "80/80", 2),
            ("all", "drop", "192.0.2.0/25", "80/80", 3),
            ("b-again", "drop", "192.0.2.7/32", "80/80", 4),
            ("rest", "accept", "192.0.2.0/24", "1/100", 5),
        ]);
        let mut name = |rule: usize, vrf: &str| c.acls[0].rules[rule].vrf = Some(vrf.into());
        name(0, "a");
        name(1, "b");
        name(3, "b");
        let found = findings(&c);
        let of: Vec<_> = found.iter().map(|f| (&*f.rule, &*f.kind, f.by.join(","))).collect();
        // What comes from b never gets as far as "all", but what comes from elsewhere does; a's rule is not in b's way. Without
        // "rest" the default says the same in every VRF.
        let want = [("rest", "redundant", ""), ("b-again", "shadowed", "b")];
        assert_eq!(of, want.map(|(rule, kind, by)| (rule, kind, by.to_owned())));
    }

    /// A rule with groups is shadowed if all of its parts are, and has one finding of a kind.
    #[test]
    fn findings_are_about_whole_rules() {
        let mut c = config_of(&[
            ("first", "drop", "192.0.2.0/24", "80/80", 1),
            ("half", "accept", "@pair", "80/80", 2),
            ("all", "drop", "@pair", "80/80", 3),
        ]);
        let kinds = |c: &Config, rule: &str| -> Vec<String> {
            findings(c).into_iter().filter(|f| f.rule == rule).map(|f| f.kind).collect()
        };
        assert_eq!(kinds(&c, "half"), ["conflict"]);
        assert_eq!(kinds(&c, "all"), ["shadowed"]);
        c.acls[0].rules.remove(1);
        assert_eq!(kinds(&c, "all"), Vec::<String>::new(), "one part of it is shadowed, the other is not");
    }
}
