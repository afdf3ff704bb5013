//! `[[acl]]` and the five-tuple that ACL rules and QoS policies share.

use super::group::Groups;
use super::{Names, Seen};
use crate::config::keys::{Acl, AclRule, RawAcl, RawAclRule};
use crate::config::report::{Path, Report};
use crate::config::schema::{Key, Network, Ports, Protocol, Text};
use crate::config::scope::{Opt, Scope};
use crate::config::types::{FiveTuple, IcmpMatch, MAX_PARTS, MAX_RULE_PARTS, Policy, PortMatch};
use crate::config::value::{self, ICMP, ICMPV6, TCP, UDP, quote};

pub(super) fn acls(raw: &[RawAcl], (names, groups): (&Names, &Groups), report: &mut Report<'_>) -> Vec<Acl> {
    let mut acl_ids = Seen::new();
    let mut rule_ids = Seen::new();
    let mut out = Vec::with_capacity(raw.len());
    let (mut count, mut parts) = (0, 0);
    for (i, a) in raw.iter().enumerate() {
        let path = Path::ROOT.item("acl", i);
        let mut s = Scope::new(report, path, &a.span);
        let id = s.id(&a.id, "acl", i);
        if let Some(id) = &id {
            unique_id(&mut s, &a.id, id, &mut acl_ids);
        }
        let read = a.read(&mut s);
        let mut rules = Vec::with_capacity(a.rule.len());
        for (j, r) in a.rule.iter().enumerate() {
            let mut s = Scope::new(s.report, path.item("rule", j), &r.span);
            let rule = rule(r, &mut s, count, &mut rule_ids, (names, groups));
            count_parts(&mut s, &mut parts, rule.as_ref().map(|r| &r.tuple));
            rules.extend(rule);
            count += 1;
        }
        out.extend(id.and_then(|id| read.finish(id, rules)));
    }
    out
}

/// Counts the rules without groups that one with groups stands for; reports the one with which they are too many.
pub(super) fn count_parts(s: &mut Scope<'_, '_>, parts: &mut usize, tuple: Option<&FiveTuple>) {
    let before = *parts;
    *parts += tuple.map(FiveTuple::parts).filter(|n| *n > 1).unwrap_or(0);
    if *parts > MAX_PARTS && before <= MAX_PARTS {
        let problem =
            format!("with their groups, those up to here stand for {parts} rules, more than {MAX_PARTS}");
        let at = s.span.clone();
        s.error(&at, "source_cidr", problem, "name fewer or larger networks", "");
    }
}

/// Reports an identifier that was used before.
pub(super) fn unique_id(s: &mut Scope<'_, '_>, raw: &Opt<String>, id: &str, seen: &mut Seen<String>) {
    let at = s.id_span(raw);
    if let Some(first) = seen.repeated(id.to_owned(), s.place(&at, "id")) {
        match raw {
            Some(_) => s.repeated(&at, "id", quote(id), &first, ""),
            None => {
                let problem = format!("the implied {} is taken by {first}", quote(id));
                s.error(&at, "id", problem, "give this entry an id of its own", "");
            }
        }
    }
}

fn rule(
    raw: &RawAclRule,
    s: &mut Scope<'_, '_>,
    n: usize,
    ids: &mut Seen<String>,
    (names, groups): (&Names, &Groups),
) -> Option<AclRule> {
    let id = s.id(&raw.id, "acr", n);
    if let Some(id) = &id {
        unique_id(s, &raw.id, id, ids);
    }
    let read = raw.read(s);
    let vrf = names.check_rule_vrf(s, &raw.vrf);
    if let (Some(prefix), Some(false)) = (&raw.log_prefix, read.log) {
        s.warn(
            &prefix.span(),
            "log_prefix",
            "has no meaning without log = true",
            "add it, or remove log_prefix",
        );
    }
    let limits = [
        ("max_sessions", raw.max_sessions.as_ref().map(|v| v.span())),
        ("max_sessions_per_source", raw.max_sessions_per_source.as_ref().map(|v| v.span())),
    ];
    for (key, at) in limits {
        if let (Some(at), Some(Policy::Drop)) = (at, read.policy) {
            let remedy = format!("write policy = \"accept\", or remove {key}");
            s.error(&at, key, "a rule that drops has no sessions", remedy, "");
        }
    }
    if let (Some(at), None) = (&raw.source_prefix_len, &raw.max_sessions_per_source) {
        s.warn(
            &at.span(),
            "source_prefix_len",
            "has no meaning without max_sessions_per_source",
            "add it, or remove source_prefix_len",
        );
    }
    let kind = AclRule::KEYS.r#type.read(s, &raw.r#type);
    const KEYS: FiveTupleKeys = FiveTupleKeys {
        protocol: AclRule::KEYS.ip_protocol,
        source: AclRule::KEYS.source_cidr,
        dest: AclRule::KEYS.dest_cidr,
        source_ports: AclRule::KEYS.source_port_range,
        dest_ports: AclRule::KEYS.dest_port_range,
    };
    let fields = FiveTupleRaw {
        protocol: &raw.ip_protocol,
        source: &raw.source_cidr,
        dest: &raw.dest_cidr,
        source_ports: &raw.source_port_range,
        dest_ports: &raw.dest_port_range,
    };
    let tuple = five_tuple(s, &fields, &KEYS, groups);
    if let (Some(at), Some(Some(len)), Some(false)) =
        (&raw.source_prefix_len, read.source_prefix_len, tuple.as_ref().map(|t| t.is_ipv6()))
        && len > 32
    {
        s.error(
            &at.span(),
            "source_prefix_len",
            "addresses of IPv4 have 32 bits",
            "write a number from 1 to 32",
            "",
        );
    }
    let header = header(raw, s, tuple.as_ref());
    vrf?;
    read.finish(id?, kind?, tuple?, header?)
}

/// What the rule asks of the ICMP message; that it asks for nothing which its protocol has not. `tuple`: if that is
/// right.
fn header(raw: &RawAclRule, s: &mut Scope<'_, '_>, tuple: Option<&FiveTuple>) -> Option<Option<IcmpMatch>> {
    let Some(tuple) = tuple else { return Some(None) };
    let mut of_protocol = |key: &str, at: Option<std::ops::Range<usize>>, wanted: u8, word: &str| {
        let Some(at) = at.filter(|_| tuple.protocol != Some(wanted)) else { return true };
        let name = value::protocol_name(tuple.protocol);
        let problem = format!("packets of ip_protocol \"{name}\" have none");
        s.error(
            &at,
            key,
            problem,
            format!("write ip_protocol \"{word}\", or remove {key}"),
            "InvalidParameter",
        );
        false
    };
    let v6 = tuple.is_ipv6();
    let icmp = if v6 { ICMPV6 } else { ICMP };
    let flags_fit = of_protocol("tcp_flags", raw.tcp_flags.as_ref().map(|v| v.span()), TCP, "tcp");
    let messages_fit = of_protocol("icmp_type", raw.icmp_type.as_ref().map(|v| v.span()), icmp, "icmp");
    if let (None, Some(code)) = (&raw.icmp_type, &raw.icmp_code) {
        s.error(
            &code.span(),
            "icmp_code",
            "has no icmp_type to go with",
            "add icmp_type",
            "InvalidParameter",
        );
        return None;
    }
    let Some(kind) = &raw.icmp_type else { return flags_fit.then_some(None) };
    let kind = s.parse("icmp_type", kind, "InvalidParameter", |t| value::icmp_type_number(&t.0, v6))?;
    let code = match &raw.icmp_code {
        None => None,
        Some(code) => {
            Some(s.parse("icmp_code", code, "InvalidParameter", |t| value::icmp_code_number(&t.0, kind, v6))?)
        }
    };
    (flags_fit && messages_fit).then_some(Some(IcmpMatch { kind, code }))
}

/// The declarations of the keys of a five-tuple.
pub(super) struct FiveTupleKeys {
    pub protocol: Key<Protocol>,
    pub source: Key<Network>,
    pub dest: Key<Network>,
    pub source_ports: Key<Ports>,
    pub dest_ports: Key<Ports>,
}

/// Their values in the file.
pub(super) struct FiveTupleRaw<'r> {
    pub protocol: &'r Opt<Text>,
    pub source: &'r Opt<String>,
    pub dest: &'r Opt<String>,
    pub source_ports: &'r Opt<String>,
    pub dest_ports: &'r Opt<String>,
}

pub(super) fn five_tuple(
    s: &mut Scope<'_, '_>,
    raw: &FiveTupleRaw<'_>,
    keys: &FiveTupleKeys,
    groups: &Groups,
) -> Option<FiveTuple> {
    let source = groups.networks(s, &keys.source, raw.source);
    let dest = groups.networks(s, &keys.dest, raw.dest);
    let ipv6 = source.as_ref().or(dest.as_ref()).is_some_and(|n| n.is_ipv6());
    if let (Some(source), Some(dest), Some(at)) = (&source, &dest, raw.dest)
        && source.is_ipv6() != dest.is_ipv6()
    {
        let any = if ipv6 { "::/0" } else { "0.0.0.0/0" };
        let problem = format!("{}: is of another IP version than source_cidr", quote(at.get_ref()));
        let remedy = format!("write both in one version; any is \"{any}\"");
        s.error(&at.span(), keys.dest.info.name, problem, remedy, keys.dest.info.code());
    }
    let info = &keys.protocol.info;
    let at = keys.protocol.need(s, raw.protocol);
    let protocol = at.and_then(|v| s.parse(info.name, v, info.code(), |t| value::protocol(&t.0, ipv6)));
    if let (Some(Some(ICMPV6)), false, Some(at)) = (protocol, ipv6, at) {
        let remedy = "write \"icmp\", or IPv6 networks";
        s.warn(&at.span(), info.name, "ICMPv6 does not occur in IPv4 packets", remedy);
    }
    let source_ports = ports(s, &keys.source_ports, raw.source_ports, protocol, groups);
    let dest_ports = ports(s, &keys.dest_ports, raw.dest_ports, protocol, groups);
    let tuple = FiveTuple {
        protocol: protocol?,
        source: source?,
        dest: dest?,
        source_ports: source_ports?,
        dest_ports: dest_ports?,
    };
    if let (true, Some(at)) = (tuple.parts() > MAX_RULE_PARTS, raw.source) {
        let problem =
            format!("its groups make {} rules of this one, more than {MAX_RULE_PARTS}", tuple.parts());
        let remedy = "name fewer or larger networks and ranges, or a group on one side only";
        s.error(&at.span(), keys.source.info.name, problem, remedy, "");
        return None;
    }
    Some(tuple)
}

/// `protocol` is `None` where it was wrong itself.
fn ports(
    s: &mut Scope<'_, '_>,
    key: &Key<Ports>,
    v: &Opt<String>,
    protocol: Option<Option<u8>>,
    groups: &Groups,
) -> Option<PortMatch> {
    let range = groups.ports(s, key, v)?;
    if let (Some(protocol), Some(v)) = (protocol, v)
        && range != PortMatch::ANY
        && !matches!(protocol, Some(TCP | UDP))
    {
        let name = value::protocol_name(protocol);
        let problem = format!("{}: ports of ip_protocol \"{name}\" cannot be matched", quote(v.get_ref()));
        let remedy = "write \"-1/-1\", or ip_protocol \"tcp\" or \"udp\"";
        s.error(&v.span(), key.info.name, problem, remedy, key.info.code());
    }
    Some(range)
}
