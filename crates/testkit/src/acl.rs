//! ACLs in a few words.

use ipnet::IpNet;
use sag_acl::{HeaderMatch, IcmpMatch, Rule, TcpFlags};
use sag_compile::{FamilyRules, compile_tuple};
use sag_model::VrfNo;
use sag_model::config::{FiveTuple, NetworkMatch, PortMatch, PortRange, tcp_flags};
use sag_pipeline::policy::{
    AclSet, Class, PerSource, RuleList, RuleLists, RuleLog, RuleStats, SessionLimit, Verdict,
};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Rules of an ACL in the order in which they are tried.
#[derive(Debug, Clone, Default)]
pub struct Acl {
    rules: Vec<(Class, String, bool, Option<VrfNo>)>,
    /// Verdict where no rule matches.
    pub default_accept: bool,
    stats: HashMap<String, (u32, Arc<RuleStats>)>,
    logging: Vec<String>,
    limits: HashMap<String, RuleLimits>,
}

/// How many sessions that a rule has admitted may live at a time.
#[derive(Debug, Clone, Copy, Default)]
pub struct RuleLimits {
    /// In all.
    pub most: Option<u32>,
    /// Of one source.
    pub per_source: Option<u32>,
    /// Addresses of one network of this length are one source.
    pub prefix_len: Option<u8>,
}

impl Acl {
    /// Without rules.
    pub fn new(default_accept: bool) -> Acl {
        Acl { default_accept, ..Acl::default() }
    }

    /// Adds a rule: `proto|* source/len|* dest/len|* source ports lo-hi|* dest ports lo-hi|*`, and what else of the header
    /// must match: `dscp=N`, `flags=syn/syn,ack`, `icmp=TYPE` or `icmp=TYPE/CODE`. The text is also the name of its
    /// counters.
    pub fn rule(mut self, class: Class, accept: bool, text: &str) -> Acl {
        self.rules.push((class, text.to_owned(), accept, None));
        self
    }

    /// The same for packets from one VRF.
    pub fn rule_of(mut self, vrf: VrfNo, class: Class, accept: bool, text: &str) -> Acl {
        self.rules.push((class, text.to_owned(), accept, Some(vrf)));
        self
    }

    /// The rule of this text logs what it judges.
    pub fn logging(mut self, text: &str) -> Acl {
        self.logging.push(text.to_owned());
        self
    }

    /// The rule of this text has limits.
    pub fn limited(mut self, text: &str, limits: RuleLimits) -> Acl {
        self.limits.insert(text.to_owned(), limits);
        self
    }

    /// Sessions that count for a rule's limit, and of one source.
    pub fn limited_sessions(&self, text: &str, src: &str) -> Option<(u32, u64)> {
        let limit = self.stats.get(text)?.1.limit.as_ref()?;
        Some((limit.live(), limit.of_source(src.parse().expect("address")).unwrap_or(0)))
    }

    /// The same ACL without its rules, but with their counters.
    pub fn cleared(mut self) -> Acl {
        self.rules.clear();
        self
    }

    /// (packets, bytes) of a rule.
    pub fn hits(&self, text: &str) -> (u64, u64) {
        use std::sync::atomic::Ordering::Relaxed;
        self.stats.get(text).map_or((0, 0), |(_, s)| (s.packets.load(Relaxed), s.bytes.load(Relaxed)))
    }

    /// The rules as the pipeline tries them. A rule without addresses is one of both families and has one counter,
    /// which a configuration cannot say; each half of it is compiled as a rule of a configuration.
    pub(crate) fn build(&mut self) -> AclSet {
        if self.rules.is_empty() && self.default_accept {
            return AclSet::unbound(self.shared_stats());
        }
        let named: BTreeSet<VrfNo> = self.rules.iter().filter_map(|r| r.3).collect();
        let lists = self.lists(None);
        let of_vrfs: Vec<_> = named.into_iter().map(|vrf| (vrf, self.lists(Some(vrf)))).collect();
        AclSet::new(self.default_accept, lists, self.shared_stats()).with_vrfs(of_vrfs)
    }

    /// The rules for packets from a VRF; `None`: from one that no rule names.
    fn lists(&mut self, vrf: Option<VrfNo>) -> RuleLists {
        let mut v4: [Vec<_>; 4] = Default::default();
        let mut v6: [Vec<_>; 4] = Default::default();
        for (class, text, accept, _) in self.rules.iter().filter(|r| r.3.is_none() || r.3 == vrf) {
            let next = self.stats.len() as u32;
            let name = text.clone();
            let log = self.logging.contains(text).then(RuleLog::default);
            let limit = self.limits.get(text).map(|l| {
                let per_source = l.per_source.map(|most| PerSource::new(most, l.prefix_len, 7));
                SessionLimit::new(l.most, per_source)
            });
            let (slot, _) = self
                .stats
                .entry(text.clone())
                .or_insert_with(|| (next, Arc::new(RuleStats { name, log, limit, ..RuleStats::default() })));
            let verdict = Verdict { accept: *accept, slot: *slot };
            let header = header(text);
            for tuple in tuples(text) {
                match compile_tuple(&tuple).expect("addresses of one family") {
                    FamilyRules::V4(rules) => {
                        let rules = rules.into_iter().map(|r| (Rule { header, ..r }, verdict.clone()));
                        v4[*class as usize].extend(rules);
                    }
                    FamilyRules::V6(rules) => {
                        let rules = rules.into_iter().map(|r| (Rule { header, ..r }, verdict.clone()));
                        v6[*class as usize].extend(rules);
                    }
                }
            }
        }
        std::array::from_fn(|i| Some(Arc::new(RuleList::build(&v4[i], &v6[i]))))
    }

    fn shared_stats(&self) -> Vec<Arc<RuleStats>> {
        let mut stats: Vec<_> = self.stats.values().cloned().collect();
        stats.sort_by_key(|s| s.0);
        stats.into_iter().map(|s| s.1).collect()
    }
}

/// What a rule of text asks of the header beyond the five-tuple.
fn header(text: &str) -> HeaderMatch {
    text.split_whitespace().skip(5).fold(HeaderMatch::ANY, |header, field| {
        let number = |text: &str| text.parse().expect("a number");
        match field.split_once('=') {
            Some(("dscp", n)) => HeaderMatch { dscp: Some(number(n)), ..header },
            Some(("icmp", n)) => {
                let (kind, code) =
                    n.split_once('/').map_or((n, None), |(kind, code)| (kind, Some(number(code))));
                HeaderMatch { icmp: Some(IcmpMatch { kind: number(kind), code }), ..header }
            }
            Some(("flags", n)) => {
                let (set, mask) = n.split_once('/').expect("a slash");
                let flags = |list| tcp_flags(list).expect("flags");
                HeaderMatch { tcp_flags: Some(TcpFlags { mask: flags(mask), set: flags(set) }), ..header }
            }
            _ => panic!("no field of a header: {field}"),
        }
    })
}

/// What a rule of text matches: one tuple for each address family that it is about.
fn tuples(text: &str) -> Vec<FiveTuple> {
    let f: Vec<&str> = text.split_whitespace().collect();
    let [protocol, source, dest, source_ports, dest_ports, ..] = f[..] else { panic!("five fields: {text}") };
    let ports = |s: &str| match s.split_once('-') {
        None => PortRange::ANY,
        Some((first, last)) => {
            PortRange { first: first.parse().expect("port"), last: last.parse().expect("port") }
        }
    };
    let of_family = |any: &str| {
        let any: IpNet = any.parse().expect("a network");
        let network = |s: &str| {
            let net = if s == "*" { any } else { s.parse().expect("a network") };
            (net.addr().is_ipv4() == any.addr().is_ipv4()).then_some(net.trunc())
        };
        Some(FiveTuple {
            protocol: (protocol != "*").then(|| protocol.parse().expect("protocol number")),
            source: NetworkMatch::One(network(source)?),
            dest: NetworkMatch::One(network(dest)?),
            source_ports: PortMatch::Range(ports(source_ports)),
            dest_ports: PortMatch::Range(ports(dest_ports)),
        })
    };
    ["0.0.0.0/0", "::/0"].into_iter().filter_map(of_family).collect()
}
