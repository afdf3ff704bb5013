//! `[[dnat]]`.

use super::acl::unique_id;
use super::group::Groups;
use super::{Names, Seen};
use crate::config::keys::{DNAT_PORTS, Dnat, RawDnat};
use crate::config::report::{Path, Place, Report, Span};
use crate::config::schema::{Key, Protocol, Text};
use crate::config::scope::{Opt, Scope};
use crate::config::types::{DnatService, DnatType, PortRange};
use crate::config::value::{self, TCP, UDP, fault, quote};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use toml::Spanned;

const BAD: &str = "IllegalParam";
const MISSING: &str = "MissingParam";

/// Type, external address and protocol.
type Service = (DnatType, Option<Ipv4Addr>, Option<u8>);

/// An entry's id and where it claims something.
type Claim = (String, Place);

/// What DNAT answers for at the outside.
pub(super) struct External {
    /// Last port and claim by first port; ranges of one service do not overlap.
    services: HashMap<Service, BTreeMap<u16, (u16, Claim)>>,
    /// Addresses that are forwarded as a whole.
    pub addresses: HashMap<Ipv4Addr, Claim>,
}

/// The entries, and what source NAT may not use beside them.
pub(super) fn dnat(
    raw: &[RawDnat],
    names: &Names,
    groups: &Groups,
    report: &mut Report<'_>,
) -> (Vec<Dnat>, External) {
    let mut external = External { services: HashMap::new(), addresses: HashMap::new() };
    let mut ids = Seen::new();
    let mut out = Vec::with_capacity(raw.len());
    for (i, d) in raw.iter().enumerate() {
        let mut s = Scope::new(report, Path::ROOT.item("dnat", i), &d.span);
        out.extend(entry(d, &mut s, (i, names), &mut ids, (groups, &mut external)));
    }
    (out, external)
}

/// Refuses to forward to an address of the gateway itself, as far as the file has them: what its own sockets answer passes
/// no translation.
pub(super) fn not_to_self(
    raw: &[RawDnat],
    own: &HashMap<(Option<String>, IpAddr), String>,
    report: &mut Report<'_>,
) {
    for (i, d) in raw.iter().enumerate() {
        let Some(at) = &d.internal_ip else { continue };
        let Some((addr, of)) = at.get_ref().parse().ok().and_then(|a: IpAddr| {
            let vrf = d.vrf.as_ref().map(|v| v.get_ref().clone());
            Some((a, own.get(&(vrf, a))?))
        }) else {
            continue;
        };
        let mut s = Scope::new(report, Path::ROOT.item("dnat", i), &d.span);
        let problem = format!("{addr} is the gateway's own address, of {of}");
        let remedy = "have the service listen on the external address, or forward to a host in the branch";
        s.error(&at.span(), "internal_ip", problem, remedy, BAD);
    }
}

fn entry(
    raw: &RawDnat,
    s: &mut Scope<'_, '_>,
    (n, names): (usize, &Names),
    ids: &mut Seen<String>,
    (groups, external): (&Groups, &mut External),
) -> Option<Dnat> {
    let id = s.id(&raw.id, "fwd", n);
    if let Some(id) = &id {
        unique_id(s, &raw.id, id, ids);
    }
    let kind = Dnat::KEYS.r#type.read(s, &raw.r#type);
    let external_ip = external_ip(raw, s, kind);
    let read = raw.read(s);
    let vrf = names.check_vrf(s, &raw.vrf);
    let service = service(raw, s, groups);
    let (id, kind, external_ip, service) = (id?, kind?, external_ip?, service?);
    duplicates(raw, s, &id, (kind, external_ip), &service, external);
    // A pool goes without ports that are forwarded, but not without all of them.
    if let (Some(ip), Some(at), DnatService::Any) = (external_ip, &raw.external_ip, &service) {
        let place = s.place(&at.span(), "external_ip");
        external.addresses.entry(ip).or_insert_with(|| (id.clone(), place));
    }
    vrf?;
    read.finish(id, kind, external_ip, service)
}

/// Refuses what another entry forwards already. An entry for all protocols goes beside others.
fn duplicates(
    raw: &RawDnat,
    s: &mut Scope<'_, '_>,
    id: &str,
    (kind, ip): (DnatType, Option<Ipv4Addr>),
    service: &DnatService,
    external: &mut External,
) {
    let (protocol, ranges): (_, Vec<PortRange>) = match service {
        DnatService::Any => (None, vec![PortRange::ANY]),
        DnatService::Port { protocol, external, .. } => (Some(*protocol), vec![*external]),
        DnatService::Group { protocol, ports } => (Some(*protocol), ports.merged.clone()),
    };
    let at = raw.external_port.as_ref().map_or_else(|| s.span.clone(), |v| v.span());
    let place = s.place(&at, "external_port");
    let taken = external.services.entry((kind, ip, protocol)).or_default();
    for range in &ranges {
        // Ranges in the map are disjoint: the one that begins last before our end also ends last.
        let before = taken.range(..=range.last).next_back().filter(|(_, (last, _))| *last >= range.first);
        if let Some((_, (_, (owner, first)))) = before {
            let what = match service {
                DnatService::Any => "same external address".to_owned(),
                DnatService::Port { .. } if range.count() == 1 => {
                    "same external address, protocol and port".to_owned()
                }
                _ => "same external address and protocol and some of the ports".to_owned(),
            };
            let problem =
                format!("dnat {} and dnat {}, {first}, forward the {what}", quote(id), quote(owner));
            s.error(&at, "external_port", problem, "remove or change one of the two", "DuplicatedDnatEntry");
            return;
        }
    }
    taken.extend(ranges.iter().map(|r| (r.first, (r.last, (id.to_owned(), place.clone())))));
}

fn external_ip(raw: &RawDnat, s: &mut Scope<'_, '_>, kind: Option<DnatType>) -> Option<Option<Ipv4Addr>> {
    if let Some(v) = raw.external_ip.as_ref().filter(|v| !v.get_ref().is_empty()) {
        return s.parse("external_ip", v, BAD, |t| value::ipv4(t)).map(Some);
    }
    match kind? {
        DnatType::Internet => Some(None),
        DnatType::Intranet => {
            let remedy = "write the address that the other sites use; only type \"Internet\" can do without";
            let at = raw.external_ip.as_ref().map_or_else(|| s.span.clone(), |v| v.span());
            s.error(&at, "external_ip", "is missing", remedy, MISSING);
            None
        }
    }
}

fn service(raw: &RawDnat, s: &mut Scope<'_, '_>, groups: &Groups) -> Option<DnatService> {
    let at = Dnat::KEYS.ip_protocol.need(s, &raw.ip_protocol)?;
    let protocol = s.parse("ip_protocol", at, BAD, |t| match t.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Some(TCP)),
        "udp" => Ok(Some(UDP)),
        "any" => Ok(None),
        _ => fault(format!("{}: cannot be forwarded", quote(t)), "write \"tcp\", \"udp\" or \"any\""),
    })?;
    if let Some(named) = raw.external_port.as_ref().filter(|v| v.get_ref().0.starts_with('@')) {
        return group(raw, s, groups, named, protocol);
    }
    let external = ports(s, &Dnat::KEYS.external_port, &raw.external_port, protocol);
    let internal = ports(s, &Dnat::KEYS.internal_port, &raw.internal_port, protocol);
    match (protocol, external?, internal?) {
        (Some(protocol), Some(external), Some(internal)) => {
            let at = raw.internal_port.as_ref().map_or_else(|| s.span.clone(), |v| v.span());
            same_length(s, &at, external, internal)?;
            Some(DnatService::Port { protocol, external, internal })
        }
        _ => Some(DnatService::Any),
    }
}

/// The ports of a group, which stay as they are.
fn group(
    raw: &RawDnat,
    s: &mut Scope<'_, '_>,
    groups: &Groups,
    named: &Spanned<Text>,
    protocol: Option<u8>,
) -> Option<DnatService> {
    let name = Spanned::new(named.span(), named.get_ref().0.clone());
    let ports = groups.port_group(s, "external_port", &name);
    if let Some(internal) = raw.internal_port.as_ref().filter(|v| v.get_ref().0 != *name.get_ref()) {
        let problem = format!("{}: the ports of a group stay as they are", quote(&internal.get_ref().0));
        let remedy = format!("remove it, or write {} here as well", quote(name.get_ref()));
        s.error(&internal.span(), "internal_port", problem, remedy, BAD);
        return None;
    }
    let Some(protocol) = protocol else {
        let remedy = "name the protocol, or remove external_port";
        s.error(&named.span(), "external_port", "ip_protocol \"any\" forwards all ports", remedy, BAD);
        return None;
    };
    Some(DnatService::Group { protocol, ports: ports? })
}

/// `Some(None)` is "any", which goes with the protocol "any" and nothing else.
fn ports(
    s: &mut Scope<'_, '_>,
    key: &Key<Protocol>,
    v: &Opt<Text>,
    protocol: Option<u8>,
) -> Option<Option<PortRange>> {
    if protocol.is_none() && v.is_none() {
        return Some(None);
    }
    let v = key.need(s, v)?;
    s.parse(key.info.name, v, BAD, |Text(t)| {
        let any = t.eq_ignore_ascii_case("any");
        match protocol {
            None if any => Ok(None),
            None => fault(
                format!("{}: ip_protocol \"any\" forwards all ports", quote(t)),
                "write \"any\", or name the protocol",
            ),
            Some(_) if any => fault("\"any\": goes with ip_protocol \"any\" only", DNAT_PORTS),
            Some(_) => value::ports(t, DNAT_PORTS).map(Some),
        }
    })
}

fn same_length(s: &mut Scope<'_, '_>, at: &Span, external: PortRange, internal: PortRange) -> Option<()> {
    let (from, to) = (external.count(), internal.count());
    if from == to {
        return Some(());
    }
    let ports = |n: u32| if n == 1 { "1 port".to_owned() } else { format!("{n} ports") };
    let problem = format!("holds {}, but external_port holds {}", ports(to), ports(from));
    let end = u32::from(internal.first) + from - 1;
    let remedy = match (u16::try_from(end), from) {
        (Ok(_), 1) => format!("write \"{}\", or a range on both sides", internal.first),
        (Ok(end), _) => format!("write \"{}/{end}\", or change external_port", internal.first),
        (Err(_), _) => "write as many ports on both sides".to_owned(),
    };
    s.error(at, "internal_port", problem, remedy, BAD);
    None
}
