//! The classifier against the linear scan, on generated and on random rule sets.

use std::fmt::Debug;

use proptest::prelude::*;
use sag_acl::generate::{self, FromV4, Hostile, Rng, Style};
use sag_acl::{
    AddrFamily, Classifier, HeaderMatch, IcmpMatch, Key, NO_MATCH, PortRange, Prefix, Rule, TcpFlags, linear,
};

/// Every kind of lookup must give the linear scan's result.
fn check<A: FromV4 + AddrFamily>(rules: &[Rule<A>], keys: &[Key<A>], what: &dyn Debug) {
    let classifier = Classifier::build(rules);
    let mut found = vec![7; keys.len()];
    classifier.classify_batch(keys, &mut found);
    for (key, found) in keys.iter().zip(found) {
        let expected = linear(rules, key);
        assert_eq!(classifier.classify(key), expected, "{what:?}, {key:?}");
        assert_eq!(found, expected.unwrap_or(NO_MATCH), "batch, {what:?}, {key:?}");
    }
}

fn keys_for<A: FromV4>(rules: &[Rule<A>], count: usize, seed: u64) -> Vec<Key<A>> {
    let mut keys = generate::trace(rules, count, seed);
    keys.extend(generate::corners(rules, count, seed));
    keys
}

fn styles<A: FromV4 + AddrFamily>() {
    for style in Style::ALL {
        for (count, seed) in [(1, 1), (2, 2), (7, 3), (9, 4), (64, 5), (257, 6), (1000, 7), (5000, 8)] {
            let rules = generate::rules::<A>(style, count, seed);
            assert_eq!(rules.len(), count);
            check(&rules, &keys_for(&rules, 1500, seed), &(style, count));
        }
    }
}

#[test]
fn generated_sets_v4() {
    styles::<u32>();
}

#[test]
fn generated_sets_v6() {
    styles::<u128>();
}

fn hostile<A: FromV4 + AddrFamily>() {
    for kind in Hostile::ALL {
        for count in [30, 400, 3000] {
            let rules = kind.rules::<A>(count, 9);
            check(&rules, &keys_for(&rules, 500, 10), &(kind, count));
        }
    }
}

#[test]
fn hostile_sets_v4() {
    hostile::<u32>();
}

#[test]
fn hostile_sets_v6() {
    hostile::<u128>();
}

/// Small numbers in every field, so that random rules overlap and keys hit them.
fn small_rule<A: FromV4>() -> impl Strategy<Value = Rule<A>> {
    let prefix = || {
        (0u32..8, 0u32..4, prop_oneof![Just(0u8), 1u8..=32])
            .prop_map(|(high, low, len)| A::translate(high << 29 | low, len))
    };
    let ports = || {
        prop_oneof![
            Just(PortRange::ANY),
            (0u16..20).prop_map(PortRange::single),
            (0u16..20, 0u16..20).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap()),
            any::<(u16, u16)>().prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap()),
            Just(PortRange::new(1024, u16::MAX).unwrap()),
        ]
    };
    let proto = prop_oneof![Just(None), Just(Some(6)), Just(Some(17)), Just(Some(1)), any::<Option<u8>>()];
    (proto, prefix(), prefix(), ports(), ports(), header()).prop_map(
        |(proto, src, dst, sport, dport, header)| {
            // Flags and messages make sense with their protocol; a few rules have them with another one.
            let proto = match header {
                HeaderMatch { tcp_flags: Some(_), .. } if proto != Some(17) => Some(6),
                HeaderMatch { icmp: Some(_), .. } if proto != Some(17) => Some(1),
                _ => proto,
            };
            Rule { proto, src, dst, sport, dport, header }
        },
    )
}

/// What a rule asks of the header: mostly nothing, else few values, so that rules and keys meet.
fn header() -> impl Strategy<Value = HeaderMatch> {
    let flags = (any::<u8>(), any::<u8>()).prop_map(|(mask, set)| TcpFlags { mask, set: set & mask });
    let flags = prop_oneof![flags, Just(TcpFlags { mask: 0x12, set: 0x02 })];
    let icmp = (0u8..10, prop::option::of(0u8..3)).prop_map(|(kind, code)| IcmpMatch { kind, code });
    prop_oneof![
        4 => Just(HeaderMatch::ANY),
        1 => (0u8..4).prop_map(|d| HeaderMatch { dscp: Some(d), ..HeaderMatch::ANY }),
        1 => flags.prop_map(|f| HeaderMatch { tcp_flags: Some(f), ..HeaderMatch::ANY }),
        1 => (icmp, prop::option::of(0u8..4))
            .prop_map(|(m, dscp)| HeaderMatch { icmp: Some(m), dscp, tcp_flags: None }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn random_sets_v4(rules in prop::collection::vec(small_rule::<u32>(), 0..300), seed: u64) {
        check(&rules, &keys_for(&rules, 150, seed), &"small");
    }

    #[test]
    fn random_sets_v6(rules in prop::collection::vec(small_rule::<u128>(), 0..300), seed: u64) {
        check(&rules, &keys_for(&rules, 150, seed), &"small");
    }
}

#[test]
fn no_rules_match_nothing() {
    let classifier = Classifier::<u32>::build(&[]);
    let keys = generate::trace(&[], 100, 1);
    let mut found = vec![0; 100];
    classifier.classify_batch(&keys, &mut found);
    assert!(found.iter().all(|&f| f == NO_MATCH));
    assert_eq!(classifier.classify(&keys[0]), None);
}

#[test]
fn batch_of_any_length_and_short_output() {
    let rules = generate::rules::<u32>(Style::Fw, 300, 1);
    let classifier = Classifier::build(&rules);
    let keys = generate::trace(&rules, 100, 1);
    for n in 0..=100 {
        let mut found = vec![1234; 100];
        classifier.classify_batch(&keys, &mut found[..n]);
        for (i, f) in found.iter().enumerate() {
            let expected = if i < n { linear(&rules, &keys[i]).unwrap_or(NO_MATCH) } else { 1234 };
            assert_eq!(*f, expected);
        }
    }
}

#[test]
fn rules_that_restrict_ports_match_only_packets_with_ports() {
    let port = Rule { dport: PortRange::new(0, 80).unwrap(), ..Rule::<u32>::ANY };
    let icmp_port = Rule { proto: Some(1), ..port };
    let rules = [icmp_port, port, Rule { proto: Some(1), ..Rule::ANY }];
    let classifier = Classifier::build(&rules);
    for proto in 0..=255u8 {
        let key = Key::new(proto, 1, 2, 0, 0);
        let expected = match proto {
            6 | 17 | 132 | 136 => Some(1),
            1 => Some(2),
            _ => None,
        };
        assert_eq!(classifier.classify(&key), expected, "protocol {proto}");
        assert_eq!(linear(&rules, &key), expected);
        let fragment = Key::without_ports(proto, 1, 2);
        let expected = (proto == 1).then_some(2);
        assert_eq!(classifier.classify(&fragment), expected, "fragment of protocol {proto}");
        assert_eq!(linear(&rules, &fragment), expected);
    }
}

#[test]
fn prefixes_and_ranges_are_checked() {
    assert!(Prefix::new(0u32, 33).is_err());
    assert!(Prefix::new(0u128, 129).is_err());
    assert!(PortRange::new(2, 1).is_err());
    let p = Prefix::new(0xc0a8_01ffu32, 24).unwrap();
    assert_eq!((p.first(), p.last()), (0xc0a8_0100, 0xc0a8_01ff));
    assert!(Prefix::ANY.contains(Rng::new(1).next() as u32));
}

#[test]
fn a_rule_asks_for_dscp_flags_and_messages() {
    let [syn, rst] = [0x02, 0x04];
    let rule = |proto, header| Rule::<u32> { proto: Some(proto), header, ..Rule::ANY };
    let any = HeaderMatch::ANY;
    let rules = [
        rule(6, HeaderMatch { tcp_flags: Some(TcpFlags { mask: 0x12, set: syn }), ..any }),
        rule(6, HeaderMatch { dscp: Some(46), ..any }),
        rule(1, HeaderMatch { icmp: Some(IcmpMatch { kind: 3, code: Some(4) }), ..any }),
        rule(1, HeaderMatch { icmp: Some(IcmpMatch { kind: 8, code: None }), ..any }),
        rule(58, HeaderMatch { icmp: Some(IcmpMatch { kind: 0, code: None }), ..any }),
        // Neither is possible.
        rule(17, HeaderMatch { tcp_flags: Some(TcpFlags { mask: 2, set: 2 }), ..any }),
        rule(6, HeaderMatch { icmp: Some(IcmpMatch { kind: 8, code: None }), ..any }),
    ];
    let classifier = Classifier::build(&rules);
    let tcp = Key::new(6, 1, 2, 3, 4);
    let icmp = Key::without_ports(1, 1, 2);
    let cases = [
        (tcp.with_tcp_flags(syn), Some(0)),
        (tcp.with_tcp_flags(syn | 0x10), None),
        (tcp.with_tcp_flags(syn | rst).with_dscp(46), Some(0)),
        (tcp.with_tcp_flags(0x10).with_dscp(46), Some(1)),
        (tcp.with_tcp_flags(0x10).with_dscp(47), None),
        (icmp.with_icmp(3, 4), Some(2)),
        (icmp.with_icmp(3, 3), None),
        (icmp.with_icmp(8, 200), Some(3)),
        // A later fragment does not say; echo reply is type 0.
        (icmp, None),
        (icmp.with_icmp(0, 0), None),
        (Key::without_ports(58, 1, 2), None),
        (Key::without_ports(58, 1, 2).with_icmp(0, 0), Some(4)),
        (Key::new(17, 1, 2, 3, 4).with_tcp_flags(syn).with_icmp(8, 0), None),
    ];
    for (key, expected) in cases {
        assert_eq!(classifier.classify(&key), expected, "{key:?}");
        assert_eq!(linear(&rules, &key), expected, "{key:?}");
    }
}
