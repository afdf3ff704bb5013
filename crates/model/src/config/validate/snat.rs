//! `[[snat]]`.

use super::acl::unique_id;
use super::dnat::External;
use super::group::Groups;
use super::{Names, Seen};
use crate::config::keys::{RawSnat, Snat};
use crate::config::report::{Path, Place, Report, Span};
use crate::config::scope::{Opt, Scope};
use crate::config::types::{DnatType, MAX_NAT_ADDRESSES, NatBehaviors, NetworkMatch};
use crate::config::value::quote;
use crate::ids::{PortIdx, Role};
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use toml::Spanned;

const BAD: &str = "InvalidParameter";

/// What earlier entries took.
struct Taken {
    ids: Seen<String>,
    blocks: Seen<(DnatType, Option<PortIdx>, IpNet)>,
    pools: HashMap<Ipv4Addr, (String, NatBehaviors, Place)>,
}

pub(super) fn snat(
    raw: &[RawSnat],
    names: &Names,
    (groups, external): (&Groups, &External),
    report: &mut Report<'_>,
) -> Vec<Snat> {
    let mut taken = Taken { ids: Seen::new(), blocks: Seen::new(), pools: HashMap::new() };
    let mut out = Vec::with_capacity(raw.len());
    for (i, e) in raw.iter().enumerate() {
        let mut s = Scope::new(report, Path::ROOT.item("snat", i), &e.span);
        out.extend(entry(e, &mut s, i, &mut taken, (names, groups, external)));
    }
    out
}

fn entry(
    raw: &RawSnat,
    s: &mut Scope<'_, '_>,
    n: usize,
    taken: &mut Taken,
    (names, groups, external): (&Names, &Groups, &External),
) -> Option<Snat> {
    let id = s.id(&raw.id, "snat", n);
    if let Some(id) = &id {
        unique_id(s, &raw.id, id, &mut taken.ids);
    }
    let at = Snat::KEYS.cidr_block.need(s, &raw.cidr_block);
    let read = raw.read(s);
    let port = wan_port(s, &raw.port, names, read.r#type);
    let scope = (read.r#type.unwrap_or(DnatType::Intranet), port.flatten());
    let cidr_block = at.and_then(|at| cidr_block(s, at, (groups, scope), &mut taken.blocks));
    let mapping = Snat::KEYS.mapping.read(s, &raw.mapping);
    let filtering = Snat::KEYS.filtering.read(s, &raw.filtering);
    let (id, port, snat_ip, pool) = (id?, port?, read.snat_ip?, read.pool.as_ref()?);
    if snat_ip.is_none() && pool.is_empty() {
        s.missing("snat_ip", "write the address to translate to, or a pool of them", "MissingParameter");
        return None;
    }
    let many: u64 = pool.iter().map(|r| r.count()).sum();
    if let (true, Some(at)) = (many > MAX_NAT_ADDRESSES as u64, &raw.pool) {
        let problem = format!("holds {many} addresses");
        let remedy = format!("write at most {MAX_NAT_ADDRESSES}, those of all entries together");
        s.error(&at.span(), "pool", problem, remedy, BAD);
        return None;
    }
    let own = raw.snat_ip.as_ref().map(|v| v.span());
    let of_pool = raw.pool.as_ref().map(|v| v.span());
    let addresses = snat_ip.into_iter().map(|a| ("snat_ip", &own, a));
    let addresses = addresses.chain(pool.iter().flat_map(|r| r.addresses()).map(|a| ("pool", &of_pool, a)));
    let addresses: Vec<_> = addresses.filter_map(|(key, at, addr)| Some((key, at.as_ref()?, addr))).collect();
    for (key, at, addr) in &addresses {
        if let Some((owner, place)) = external.addresses.get(addr) {
            let problem = format!(
                "{addr} of snat {} is forwarded as a whole by dnat {}, {place}",
                quote(&id),
                quote(owner)
            );
            let remedy = "use another address for one of the two, or forward single ports";
            s.error(at, key, problem, remedy, "SNAT.SnatDnatIpConflict");
        }
    }
    let behavior = NatBehaviors { mapping: mapping?, filtering: filtering? };
    for (key, at, addr) in addresses {
        one_pool(s, &id, (key, at), addr, behavior, &mut taken.pools);
    }
    if taken.pools.len() > MAX_NAT_ADDRESSES
        && let Some(at) = own.or(of_pool)
    {
        let key = if raw.snat_ip.is_some() { "snat_ip" } else { "pool" };
        let problem = format!("with it the entries have {} addresses", taken.pools.len());
        s.error(&at, key, problem, format!("write at most {MAX_NAT_ADDRESSES} in all"), BAD);
    }
    read.finish(id, port, cidr_block?, behavior)
}

/// The one WAN port of an entry; `None`: the report says why.
pub(super) fn wan_port(
    s: &mut Scope<'_, '_>,
    raw: &Opt<String>,
    names: &Names,
    kind: Option<DnatType>,
) -> Option<Option<PortIdx>> {
    let Some(at) = raw else { return Some(None) };
    let port = names.port(s, "port", raw)?;
    if names.role(at.get_ref()).is_some_and(|role| role != Role::Wan) {
        let problem = format!("{}: is no port of role \"wan\"", quote(at.get_ref()));
        s.error(&at.span(), "port", problem, "name a WAN port", BAD);
        return None;
    }
    if kind == Some(DnatType::Intranet) {
        let remedy = "write type = \"Internet\", or remove port";
        s.error(&at.span(), "port", "goes with type \"Internet\" only", remedy, BAD);
        return None;
    }
    Some(Some(port))
}

fn cidr_block(
    s: &mut Scope<'_, '_>,
    at: &Spanned<String>,
    (groups, (kind, port)): (&Groups, (DnatType, Option<PortIdx>)),
    blocks: &mut Seen<(DnatType, Option<PortIdx>, IpNet)>,
) -> Option<NetworkMatch> {
    let named = groups.networks(s, &Snat::KEYS.cidr_block, &Some(at.clone()))?;
    if named.is_ipv6() {
        let problem = format!("{}: is an IPv6 network", quote(at.get_ref()));
        s.error(&at.span(), "cidr_block", problem, "NAT is for IPv4: write such a network", BAD);
        return None;
    }
    for net in named.networks() {
        if let Some(first) = blocks.repeated((kind, port, *net), s.place(&at.span(), "cidr_block")) {
            s.repeated(&at.span(), "cidr_block", net, &first, "SNAT.CidrConfigExist");
        }
    }
    Some(named)
}

/// Entries of one address draw from one pool of ports, which has one behaviour.
fn one_pool(
    s: &mut Scope<'_, '_>,
    id: &str,
    (key, at): (&str, &Span),
    ip: Ipv4Addr,
    behavior: NatBehaviors,
    pools: &mut HashMap<Ipv4Addr, (String, NatBehaviors, Place)>,
) {
    let place = s.place(at, key);
    let (owner, theirs, first) = pools.entry(ip).or_insert_with(|| (id.to_owned(), behavior, place));
    if *theirs != behavior {
        let problem = format!(
            "snat {} and snat {}, {first}, share {ip} but differ: {behavior} against {theirs}",
            quote(id),
            quote(owner)
        );
        let remedy = "give both the same mapping and filtering, or an address each";
        s.error(at, key, problem, remedy, BAD);
    }
}
