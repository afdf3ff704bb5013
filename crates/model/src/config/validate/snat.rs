//! `[[snat]]`.

use super::Seen;
use super::acl::unique_id;
use super::dnat::External;
use crate::config::keys::{RawSnat, Snat};
use crate::config::report::{Path, Place, Report};
use crate::config::scope::Scope;
use crate::config::types::NatBehaviors;
use crate::config::value::quote;
use ipnet::{IpNet, Ipv4Net};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use toml::Spanned;

const BAD: &str = "InvalidParameter";

/// What earlier entries took.
struct Taken {
    ids: Seen<String>,
    blocks: Seen<Ipv4Net>,
    pools: HashMap<Ipv4Addr, (String, NatBehaviors, Place)>,
}

pub(super) fn snat(raw: &[RawSnat], external: &External, report: &mut Report<'_>) -> Vec<Snat> {
    let mut taken = Taken { ids: Seen::new(), blocks: Seen::new(), pools: HashMap::new() };
    let mut out = Vec::with_capacity(raw.len());
    for (i, e) in raw.iter().enumerate() {
        let mut s = Scope::new(report, Path::ROOT.item("snat", i), &e.span);
        out.extend(entry(e, &mut s, i, &mut taken, external));
    }
    out
}

fn entry(
    raw: &RawSnat,
    s: &mut Scope<'_, '_>,
    n: usize,
    taken: &mut Taken,
    external: &External,
) -> Option<Snat> {
    let id = s.id(&raw.id, "snat", n);
    if let Some(id) = &id {
        unique_id(s, &raw.id, id, &mut taken.ids);
    }
    let at = Snat::KEYS.cidr_block.need(s, &raw.cidr_block);
    let cidr_block = at.and_then(|at| cidr_block(s, at, &mut taken.blocks));
    let read = raw.read(s);
    let mapping = Snat::KEYS.mapping.read(s, &raw.mapping);
    let filtering = Snat::KEYS.filtering.read(s, &raw.filtering);
    let (id, snat_ip, at) = (id?, read.snat_ip?, raw.snat_ip.as_ref()?);
    if let Some((owner, place)) = external.addresses.get(&snat_ip) {
        let problem = format!(
            "{snat_ip} of snat {} is also the external address of dnat {}, {place}",
            quote(&id),
            quote(owner)
        );
        let remedy = "use another address for one of the two";
        s.error(&at.span(), "snat_ip", problem, remedy, "SNAT.SnatDnatIpConflict");
    }
    let behavior = NatBehaviors { mapping: mapping?, filtering: filtering? };
    one_pool(s, &id, at, snat_ip, behavior, &mut taken.pools);
    read.finish(id, cidr_block?, behavior)
}

fn cidr_block(s: &mut Scope<'_, '_>, at: &Spanned<String>, blocks: &mut Seen<Ipv4Net>) -> Option<Ipv4Net> {
    match Snat::KEYS.cidr_block.read_present(s, at)? {
        IpNet::V4(net) => {
            if let Some(first) = blocks.repeated(net, s.place(&at.span(), "cidr_block")) {
                s.repeated(&at.span(), "cidr_block", net, &first, "SNAT.CidrConfigExist");
            }
            Some(net)
        }
        IpNet::V6(_) => {
            let problem = format!("{}: is an IPv6 network", quote(at.get_ref()));
            s.error(&at.span(), "cidr_block", problem, "NAT is for IPv4: write such a network", BAD);
            None
        }
    }
}

/// Entries of one address draw from one pool of ports, which has one behaviour.
fn one_pool(
    s: &mut Scope<'_, '_>,
    id: &str,
    at: &Spanned<String>,
    ip: Ipv4Addr,
    behavior: NatBehaviors,
    pools: &mut HashMap<Ipv4Addr, (String, NatBehaviors, Place)>,
) {
    let place = s.place(&at.span(), "snat_ip");
    let (owner, theirs, first) = pools.entry(ip).or_insert_with(|| (id.to_owned(), behavior, place));
    if *theirs != behavior {
        let problem = format!(
            "snat {} and snat {}, {first}, share {ip} but differ: {behavior} against {theirs}",
            quote(id),
            quote(owner)
        );
        let remedy = "give both the same mapping and filtering, or an address each";
        s.error(&at.span(), "snat_ip", problem, remedy, BAD);
    }
}
