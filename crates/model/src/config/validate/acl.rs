//! `[[acl]]` and the five-tuple that ACL rules and QoS policies share.

use super::Seen;
use super::scope::Scope;
use crate::config::raw::{RawAcl, RawAclRule};
use crate::config::read::{Opt, Text};
use crate::config::report::{Path, Report};
use crate::config::types::{Acl, AclRule, AclType, Direction, FiveTuple, Policy, PortRange};
use crate::config::value::{self, ICMPV6, TCP, UDP, quote};

pub(super) fn acls(raw: &[RawAcl], report: &mut Report<'_>) -> Vec<Acl> {
    let mut acl_ids = Seen::new();
    let mut rule_ids = Seen::new();
    let mut out = Vec::with_capacity(raw.len());
    let mut count = 0;
    for (i, a) in raw.iter().enumerate() {
        let path = Path::ROOT.item("acl", i);
        let mut s = Scope::new(report, path, &a.span);
        let id = s.id(&a.id, "acl", i);
        if let Some(id) = &id {
            unique_id(&mut s, &a.id, id, &mut acl_ids);
        }
        let name = s.label("name", &a.name, 128, "InvalidName");
        let mut rules = Vec::with_capacity(a.rule.len());
        for (j, r) in a.rule.iter().enumerate() {
            let mut s = Scope::new(s.report, path.item("rule", j), &r.span);
            rules.extend(rule(r, &mut s, count, &mut rule_ids));
            count += 1;
        }
        if let (Some(id), Some(name)) = (id, name) {
            out.push(Acl { id, name, rules });
        }
    }
    out
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

fn rule(raw: &RawAclRule, s: &mut Scope<'_, '_>, n: usize, ids: &mut Seen<String>) -> Option<AclRule> {
    const BAD: &str = "InvalidParameter";
    let id = s.id(&raw.id, "acr", n);
    if let Some(id) = &id {
        unique_id(s, &raw.id, id, ids);
    }
    let name = s.label("name", &raw.name, 128, "InvalidName");
    let description = s.label("description", &raw.description, 512, "InvalidDescription");
    let needed = |present: bool| if present { BAD } else { "MissingParameter" };
    let direction =
        s.word("direction", &raw.direction, Direction::WORDS, None, needed(raw.direction.is_some()));
    let policy = s.word("policy", &raw.policy, Policy::WORDS, None, needed(raw.policy.is_some()));
    let kind = s.word("type", &raw.r#type, AclType::WORDS, Some(AclType::Lan), "ACL.InvalidType");
    let priority = s.number("priority", &raw.priority, 1..=100, 1, BAD);
    let fields = TupleFields {
        protocol: &raw.ip_protocol,
        source: &raw.source_cidr,
        dest: &raw.dest_cidr,
        source_ports: &raw.source_port_range,
        dest_ports: &raw.dest_port_range,
    };
    let tuple = five_tuple(s, &fields, &ACL_CODES);
    Some(AclRule {
        id: id?,
        name: name?,
        description: description?,
        direction: direction?,
        kind: kind?,
        policy: policy?,
        tuple: tuple?,
        priority: priority?,
    })
}

/// The keys of a five-tuple.
pub(super) struct TupleFields<'r> {
    pub protocol: &'r Opt<Text>,
    pub source: &'r Opt<String>,
    pub dest: &'r Opt<String>,
    pub source_ports: &'r Opt<String>,
    pub dest_ports: &'r Opt<String>,
}

/// What the API calls a mistake in each key: (missing, invalid).
pub(super) struct TupleCodes {
    pub protocol: (&'static str, &'static str),
    pub source: (&'static str, &'static str),
    pub dest: (&'static str, &'static str),
    pub source_ports: &'static str,
    pub dest_ports: &'static str,
}

const ACL_CODES: TupleCodes = TupleCodes {
    protocol: ("MissingParameter", "NotSupportedProtocol"),
    source: ("MissingParameter", "InvalidParameter"),
    dest: ("MissingParameter", "InvalidParameter"),
    source_ports: "InvalidPortRange",
    dest_ports: "InvalidPortRange",
};

pub(super) fn five_tuple(
    s: &mut Scope<'_, '_>,
    raw: &TupleFields<'_>,
    codes: &TupleCodes,
) -> Option<FiveTuple> {
    const ANY: &str = "write a CIDR block; \"0.0.0.0/0\" or \"::/0\" is any";
    let source = s
        .need("source_cidr", raw.source, ANY, codes.source.0)
        .and_then(|v| s.network("source_cidr", v, codes.source.1));
    let at = s.need("dest_cidr", raw.dest, ANY, codes.dest.0);
    let dest = at.and_then(|v| s.network("dest_cidr", v, codes.dest.1));
    let ipv6 = source.or(dest).is_some_and(|n| n.addr().is_ipv6());
    if let (Some(source), Some(dest), Some(at)) = (source, dest, at)
        && source.addr().is_ipv4() != dest.addr().is_ipv4()
    {
        let any = if ipv6 { "::/0" } else { "0.0.0.0/0" };
        let problem = format!("{}: is of another IP version than source_cidr", quote(at.get_ref()));
        s.error(
            &at.span(),
            "dest_cidr",
            problem,
            format!("write both in one version; any is \"{any}\""),
            codes.dest.1,
        );
    }
    let at = s.need(
        "ip_protocol",
        raw.protocol,
        "write \"all\", \"tcp\", \"udp\", ... or a number",
        codes.protocol.0,
    );
    let protocol =
        at.and_then(|v| s.parse("ip_protocol", v, codes.protocol.1, |t| value::protocol(&t.0, ipv6)));
    if let (Some(Some(ICMPV6)), false, Some(at)) = (protocol, ipv6, at) {
        let remedy = "write \"icmp\", or IPv6 networks";
        s.warn(&at.span(), "ip_protocol", "ICMPv6 does not occur in IPv4 packets", remedy);
    }
    let source_ports = ports(s, "source_port_range", raw.source_ports, protocol, codes.source_ports);
    let dest_ports = ports(s, "dest_port_range", raw.dest_ports, protocol, codes.dest_ports);
    Some(FiveTuple {
        protocol: protocol?,
        source: source?,
        dest: dest?,
        source_ports: source_ports?,
        dest_ports: dest_ports?,
    })
}

/// `protocol` is `None` where it was wrong itself.
fn ports(
    s: &mut Scope<'_, '_>,
    key: &str,
    v: &Opt<String>,
    protocol: Option<Option<u8>>,
    code: &str,
) -> Option<PortRange> {
    let Some(v) = v else {
        return Some(PortRange::ANY);
    };
    let range = s.parse(key, v, code, |t| value::port_range(t))?;
    if let Some(protocol) = protocol
        && !range.is_any()
        && !matches!(protocol, Some(TCP | UDP))
    {
        let name = value::protocol_name(protocol);
        let problem = format!("{}: ports of ip_protocol \"{name}\" cannot be matched", quote(v.get_ref()));
        s.error(&v.span(), key, problem, "write \"-1/-1\", or ip_protocol \"tcp\" or \"udp\"", code);
    }
    Some(range)
}
