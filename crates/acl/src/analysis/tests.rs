//! Findings are proved by their witnesses, and on small sets by asking about every kind of packet.

use proptest::prelude::*;

use super::*;
use crate::generate::{self, FromV4, Style};
use crate::rule::{HeaderMatch, IcmpMatch, PortRange, Prefix, TcpFlags, linear};

type Policy<A> = Vec<(Rule<A>, bool)>;

fn bare<A: Addr>(policy: &[(Rule<A>, bool)]) -> Vec<Rule<A>> {
    policy.iter().map(|(rule, _)| *rule).collect()
}

/// What the finding says must be true of its witness.
fn prove<A: Addr>(policy: &[(Rule<A>, bool)], default: bool, finding: &Finding<A>) {
    let rules = bare(policy);
    let rule = rules[finding.rule as usize];
    let Some(witness) = finding.witness else {
        assert_eq!(finding.kind, Kind::Unmatchable);
        assert!(rule.is_unmatchable());
        return;
    };
    assert!(rule.matches(&witness), "{finding:?}");
    let verdict = |id: Option<u32>| id.map_or(default, |id| policy[id as usize].1);
    match finding.kind {
        Kind::Unmatchable => panic!("an unmatchable rule has a witness: {finding:?}"),
        Kind::Shadowed { by, .. } => {
            assert!(by < finding.rule);
            assert_eq!(linear(&rules, &witness), Some(by), "{finding:?}");
        }
        Kind::Redundant { by } => {
            assert_eq!(linear(&rules, &witness), Some(finding.rule), "{finding:?}");
            let rest = &rules[finding.rule as usize + 1..];
            let next = linear(rest, &witness).map(|id| id + finding.rule + 1);
            assert_eq!(next, by, "{finding:?}");
            assert_eq!(verdict(next), verdict(Some(finding.rule)));
        }
        Kind::Conflict { with, .. } => {
            assert!(with < finding.rule);
            assert!(rules[with as usize].matches(&witness), "{finding:?}");
            assert_ne!(verdict(Some(with)), verdict(Some(finding.rule)));
        }
    }
}

/// A packet for every combination of fields that the rules distinguish.
fn every_kind_of_packet(rules: &[Rule<u32>]) -> Vec<Key<u32>> {
    let mut addresses = [vec![0u32], vec![0u32]];
    let mut ports = [vec![0u16], vec![0u16]];
    for r in rules {
        for (list, prefix) in addresses.iter_mut().zip([r.src, r.dst]) {
            list.push(prefix.first());
            list.extend(prefix.last().checked_add(1));
        }
        for (list, range) in ports.iter_mut().zip([r.sport, r.dport]) {
            list.push(range.lo());
            list.extend(range.hi().checked_add(1));
        }
    }
    addresses.iter_mut().for_each(|l| {
        l.sort_unstable();
        l.dedup();
    });
    ports.iter_mut().for_each(|l| {
        l.sort_unstable();
        l.dedup();
    });
    let mut keys = Vec::new();
    for &src in &addresses[0] {
        for &dst in &addresses[1] {
            for proto in [1, 6, 17, 47] {
                keys.push(Key::without_ports(proto, src, dst));
            }
            for &sport in &ports[0] {
                for &dport in &ports[1] {
                    for proto in [6, 17, 132, 136] {
                        keys.push(Key::new(proto, src, dst, sport, dport));
                    }
                }
            }
        }
    }
    // What the rules ask of the header, and what they do not.
    let asked = |of: fn(&HeaderMatch) -> bool| rules.iter().any(|r| of(&r.header));
    type Way = fn(Key<u32>) -> Key<u32>;
    let mut each = |of: fn(&HeaderMatch) -> bool, ways: &[Way]| {
        if asked(of) {
            keys = keys.iter().flat_map(|k| ways.iter().map(|way| way(*k))).collect();
        }
    };
    each(|h| h.dscp.is_some(), &[|k| k, |k| k.with_dscp(1)]);
    let flags: [Way; 4] =
        [|k| k, |k| k.with_tcp_flags(2), |k| k.with_tcp_flags(0x10), |k| k.with_tcp_flags(0x12)];
    each(|h| h.tcp_flags.is_some(), &flags);
    each(|h| h.icmp.is_some(), &[|k| k, |k| k.with_icmp(8, 0), |k| k.with_icmp(8, 1), |k| k.with_icmp(9, 1)]);
    keys
}

fn small_header() -> impl Strategy<Value = HeaderMatch> {
    let flags = |mask, set| HeaderMatch { tcp_flags: Some(TcpFlags { mask, set }), ..HeaderMatch::ANY };
    let icmp = |code| HeaderMatch { icmp: Some(IcmpMatch { kind: 8, code }), ..HeaderMatch::ANY };
    prop_oneof![
        6 => Just(HeaderMatch::ANY),
        1 => Just(HeaderMatch { dscp: Some(1), ..HeaderMatch::ANY }),
        1 => Just(flags(0x12, 0x02)),
        1 => Just(flags(0x10, 0x10)),
        1 => Just(icmp(None)),
        1 => Just(icmp(Some(1))),
    ]
}

fn small_policy() -> impl Strategy<Value = Policy<u32>> {
    let prefix = || {
        prop_oneof![
            2 => Just(Prefix::ANY),
            3 => (0u32..4, 1u8..3).prop_map(|(high, len)| Prefix::new(high << 30, len).unwrap()),
        ]
    };
    let ports = || {
        prop_oneof![
            3 => Just(PortRange::ANY),
            1 => (0u16..3).prop_map(|n| PortRange::new(n * 20_000, n * 20_000 + 25_535).unwrap()),
            1 => Just(PortRange::new(0, 29_999).unwrap()),
            1 => Just(PortRange::new(20_000, u16::MAX).unwrap()),
        ]
    };
    let proto = prop_oneof![3 => Just(None), 3 => Just(Some(6u8)), 1 => Just(Some(17)), 1 => Just(Some(1))];
    let rule = (proto, prefix(), prefix(), ports(), ports(), small_header())
        .prop_map(|(proto, src, dst, sport, dport, header)| Rule { proto, src, dst, sport, dport, header });
    prop::collection::vec((rule, any::<bool>()), 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_missed_and_nothing_made_up(policy in small_policy(), default: bool) {
        let report = findings(&policy, &default, Limits::default());
        prop_assert!(report.is_complete());
        report.findings.iter().for_each(|f| prove(&policy, default, f));
        let rules = bare(&policy);
        let keys = every_kind_of_packet(&rules);
        let verdicts = |policy: &Policy<u32>| -> Vec<bool> {
            let rules = bare(policy);
            keys.iter().map(|k| linear(&rules, k).map_or(default, |id| policy[id as usize].1)).collect()
        };
        let answered: std::collections::HashSet<_> = keys.iter().filter_map(|k| linear(&rules, k)).collect();
        let before = verdicts(&policy);
        for id in 0..rules.len() {
            let said = |f: fn(&Kind) -> bool| {
                report.findings.iter().any(|x| x.rule == id as u32 && f(&x.kind))
            };
            let live = answered.contains(&(id as u32));
            let dead = said(|k| matches!(k, Kind::Shadowed { .. } | Kind::Unmatchable));
            prop_assert_eq!(dead, !live, "rule {}", id);
            let mut without = policy.clone();
            without.remove(id);
            let same = verdicts(&without) == before;
            prop_assert_eq!(said(|k| matches!(k, Kind::Redundant { .. })), live && same, "rule {}", id);
        }
    }
}

fn rule(dst: &str, len: u8, dport: PortRange) -> Rule<u32> {
    let dst: std::net::Ipv4Addr = dst.parse().unwrap();
    Rule { proto: Some(6), dst: Prefix::new(dst.into(), len).unwrap(), dport, ..Rule::ANY }
}

#[test]
fn halves_shadow_the_whole_together() {
    let ports = PortRange::new(1, 99).unwrap();
    let policy = vec![
        (rule("192.0.2.0", 25, ports), true),
        (rule("192.0.2.128", 25, ports), false),
        (rule("192.0.2.0", 24, ports), true),
    ];
    let report = findings(&policy, &true, Limits::default());
    let found = report.findings.iter().find(|f| f.rule == 2).unwrap();
    assert_eq!(found.kind, Kind::Shadowed { by: 0, alone: false });
    prove(&policy, true, found);
}

#[test]
fn crossing_rules_conflict_and_nested_ones_do_not() {
    let all = PortRange::ANY;
    let policy = vec![
        (rule("192.0.2.0", 24, PortRange::new(0, 100).unwrap()), true),
        (rule("192.0.2.0", 28, PortRange::new(50, 200).unwrap()), false),
        (rule("192.0.0.0", 16, all), false),
    ];
    let report = findings(&policy, &true, Limits::default());
    let conflicts: Vec<_> =
        report.findings.iter().filter(|f| matches!(f.kind, Kind::Conflict { .. })).collect();
    assert_eq!(conflicts.len(), 1);
    assert_eq!((conflicts[0].rule, conflicts[0].kind), (1, Kind::Conflict { with: 0, others: 0 }));
    prove(&policy, true, conflicts[0]);
}

fn generated<A: FromV4>() {
    for style in Style::ALL {
        let rules = generate::rules::<A>(style, 2000, 3);
        let policy: Policy<A> = rules.into_iter().enumerate().map(|(i, r)| (r, i % 3 == 0)).collect();
        let report = findings(&policy, &true, Limits::default());
        assert!(!report.findings.is_empty());
        report.findings.iter().for_each(|f| prove(&policy, true, f));
    }
}

#[test]
fn generated_sets_v4() {
    generated::<u32>();
}

#[test]
fn generated_sets_v6() {
    generated::<u128>();
}

#[test]
fn a_limit_is_never_silent() {
    let rules = generate::rules::<u32>(Style::Fw, 3000, 3);
    let policy: Policy<u32> = rules.into_iter().enumerate().map(|(i, r)| (r, i % 2 == 0)).collect();
    let few = findings(&policy, &true, Limits { findings: 10, ..Limits::default() });
    assert!(!few.is_complete() && few.findings.len() <= 12);
    let hurried = findings(&policy, &true, Limits { work: 10_000, ..Limits::default() });
    assert!(!hurried.is_complete());
    hurried.findings.iter().for_each(|f| prove(&policy, true, f));
}
