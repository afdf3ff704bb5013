//! `[[snat]]` and `[[dnat]]`.

use super::Seen;
use super::acl::unique_id;
use super::scope::Scope;
use crate::config::raw::{RawDnat, RawSnat};
use crate::config::read::{Opt, Text};
use crate::config::report::{Path, Place, Report};
use crate::config::types::{Dnat, DnatService, DnatType, Snat};
use crate::config::value::{self, Fault, TCP, UDP, fault, quote};
use ipnet::{IpNet, Ipv4Net};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

pub(super) fn nat(snat: &[RawSnat], dnat: &[RawDnat], report: &mut Report<'_>) -> (Vec<Snat>, Vec<Dnat>) {
    let mut external = External { services: Seen::new(), addresses: HashMap::new() };
    let mut ids = Seen::new();
    let mut entries = Vec::with_capacity(dnat.len());
    for (i, d) in dnat.iter().enumerate() {
        let mut s = Scope::new(report, Path::ROOT.item("dnat", i), &d.span);
        entries.extend(dnat_entry(d, &mut s, i, &mut ids, &mut external));
    }
    let mut ids = Seen::new();
    let mut blocks = Seen::new();
    let mut out = Vec::with_capacity(snat.len());
    for (i, e) in snat.iter().enumerate() {
        let mut s = Scope::new(report, Path::ROOT.item("snat", i), &e.span);
        out.extend(snat_entry(e, &mut s, i, &mut ids, &mut blocks, &external));
    }
    (out, entries)
}

/// Type, external address, protocol and port; no two entries may agree in it.
type ExternalKey = (DnatType, Option<Ipv4Addr>, Option<(u8, u16)>);

/// What DNAT answers for at the outside.
struct External {
    services: Seen<ExternalKey>,
    addresses: HashMap<Ipv4Addr, Place>,
}

fn ipv4(text: &str) -> Result<Ipv4Addr, Fault> {
    match value::unicast(text)? {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => {
            fault(format!("{}: is an IPv6 address", quote(text)), "NAT is for IPv4: write such an address")
        }
    }
}

fn snat_entry(
    raw: &RawSnat,
    s: &mut Scope<'_, '_>,
    n: usize,
    ids: &mut Seen<String>,
    blocks: &mut Seen<Ipv4Net>,
    external: &External,
) -> Option<Snat> {
    let id = s.id(&raw.id, "snat", n);
    if let Some(id) = &id {
        unique_id(s, &raw.id, id, ids);
    }
    let at = s.need("cidr_block", &raw.cidr_block, "write the CIDR block to translate", "MissingParameter");
    let cidr_block = at.and_then(|at| match s.network("cidr_block", at, "InvalidParameter")? {
        IpNet::V4(net) => {
            if let Some(first) = blocks.repeated(net, s.place(&at.span(), "cidr_block")) {
                s.repeated(&at.span(), "cidr_block", net, &first, "SNAT.CidrConfigExist");
            }
            Some(net)
        }
        IpNet::V6(_) => {
            let problem = format!("{}: is an IPv6 network", quote(at.get_ref()));
            s.error(
                &at.span(),
                "cidr_block",
                problem,
                "NAT is for IPv4: write such a network",
                "InvalidParameter",
            );
            None
        }
    });
    let at = s.need("snat_ip", &raw.snat_ip, "write the address to translate to", "MissingParameter");
    let snat_ip = at.and_then(|at| {
        let ip = s.parse("snat_ip", at, "InvalidParameter", |t| ipv4(t))?;
        if let Some(place) = external.addresses.get(&ip) {
            let problem = format!("{ip} is also the external address of {place}");
            s.error(
                &at.span(),
                "snat_ip",
                problem,
                "use another address for one of the two",
                "SNAT.SnatDnatIpConflict",
            );
        }
        Some(ip)
    });
    Some(Snat { id: id?, cidr_block: cidr_block?, snat_ip: snat_ip? })
}

fn dnat_entry(
    raw: &RawDnat,
    s: &mut Scope<'_, '_>,
    n: usize,
    ids: &mut Seen<String>,
    external: &mut External,
) -> Option<Dnat> {
    let id = s.id(&raw.id, "fwd", n);
    if let Some(id) = &id {
        unique_id(s, &raw.id, id, ids);
    }
    let kind = s.word("type", &raw.r#type, DnatType::WORDS, Some(DnatType::Intranet), "IllegalParam");
    let external_ip = external_ip(raw, s, kind);
    let internal_ip = s
        .need("internal_ip", &raw.internal_ip, "write the address of the server", "MissingParam")
        .and_then(|v| s.parse("internal_ip", v, "IllegalParam", |t| ipv4(t)));
    let service = service(raw, s);
    let (kind, external_ip, service) = (kind?, external_ip?, service?);

    let key = match service {
        DnatService::Any => None,
        DnatService::Port { protocol, external, .. } => Some((protocol, external)),
    };
    let at = raw.external_port.as_ref().map_or_else(|| s.span.clone(), |v| v.span());
    let place = s.place(&at, "external_port");
    if let Some(first) = external.services.repeated((kind, external_ip, key), place) {
        let problem = format!("the same external address, protocol and port are forwarded by {first}");
        s.error(&at, "external_port", problem, "remove or change one of the two", "DuplicatedDnatEntry");
    }
    if let (Some(ip), Some(at)) = (external_ip, &raw.external_ip) {
        let place = s.place(&at.span(), "external_ip");
        external.addresses.entry(ip).or_insert(place);
    }
    Some(Dnat { id: id?, kind, external_ip, internal_ip: internal_ip?, service })
}

fn external_ip(raw: &RawDnat, s: &mut Scope<'_, '_>, kind: Option<DnatType>) -> Option<Option<Ipv4Addr>> {
    if let Some(v) = raw.external_ip.as_ref().filter(|v| !v.get_ref().is_empty()) {
        return s.parse("external_ip", v, "IllegalParam", |t| ipv4(t)).map(Some);
    }
    match kind? {
        DnatType::Internet => Some(None),
        DnatType::Intranet => {
            let remedy = "write the address that the other sites use; only type \"Internet\" can do without";
            let at = raw.external_ip.as_ref().map_or_else(|| s.span.clone(), |v| v.span());
            s.error(&at, "external_ip", "is missing", remedy, "MissingParam");
            None
        }
    }
}

fn service(raw: &RawDnat, s: &mut Scope<'_, '_>) -> Option<DnatService> {
    let at = s.need("ip_protocol", &raw.ip_protocol, "write \"tcp\", \"udp\" or \"any\"", "MissingParam")?;
    let protocol = s.parse("ip_protocol", at, "IllegalParam", |t| match t.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Some(TCP)),
        "udp" => Ok(Some(UDP)),
        "any" => Ok(None),
        _ => fault(format!("{}: cannot be forwarded", quote(t)), "write \"tcp\", \"udp\" or \"any\""),
    })?;
    let external = port(s, "external_port", &raw.external_port, protocol);
    let internal = port(s, "internal_port", &raw.internal_port, protocol);
    match (protocol, external?, internal?) {
        (Some(protocol), Some(external), Some(internal)) => {
            Some(DnatService::Port { protocol, external, internal })
        }
        _ => Some(DnatService::Any),
    }
}

/// `Some(None)` is "any", which goes with the protocol "any" and nothing else.
fn port(s: &mut Scope<'_, '_>, key: &str, v: &Opt<Text>, protocol: Option<u8>) -> Option<Option<u16>> {
    const NUMBER: &str = "write a port from 1 to 65535";
    if protocol.is_none() && v.is_none() {
        return Some(None);
    }
    let v = s.need(key, v, NUMBER, "MissingParam")?;
    s.parse(key, v, "IllegalParam", |Text(t)| {
        let any = t.eq_ignore_ascii_case("any");
        match (protocol, value::port_number(t)) {
            (None, _) if any => Ok(None),
            (None, _) => fault(
                format!("{}: ip_protocol \"any\" forwards all ports", quote(t)),
                "write \"any\", or name the protocol",
            ),
            (Some(_), Some(port)) => Ok(Some(port)),
            (Some(_), None) if any => fault("\"any\": goes with ip_protocol \"any\" only", NUMBER),
            (Some(_), None) => fault(format!("{}: is not a port", quote(t)), NUMBER),
        }
    })
}
