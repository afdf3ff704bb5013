//! `[[snat]]`.

use super::Seen;
use super::acl::unique_id;
use super::dnat::{External, ipv4};
use super::scope::Scope;
use crate::config::raw::RawSnat;
use crate::config::read::Opt;
use crate::config::report::{Path, Place, Report};
use crate::config::types::{NatBehavior, NatBehaviors, Snat};
use crate::config::value::quote;
use ipnet::{IpNet, Ipv4Net};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use toml::Spanned;

const BAD: &str = "InvalidParameter";
const MISSING: &str = "MissingParameter";

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
    let at = s.need("cidr_block", &raw.cidr_block, "write the CIDR block to translate", MISSING);
    let cidr_block = at.and_then(|at| cidr_block(s, at, &mut taken.blocks));
    let at = s.need("snat_ip", &raw.snat_ip, "write the address to translate to", MISSING);
    let snat_ip = at.and_then(|at| Some((at, s.parse("snat_ip", at, BAD, |t| ipv4(t))?)));
    let behavior = behaviors(s, ("mapping", &raw.mapping), ("filtering", &raw.filtering), BAD);
    let (id, (at, snat_ip)) = (id?, snat_ip?);
    if let Some((owner, place)) = external.addresses.get(&snat_ip) {
        let problem = format!(
            "{snat_ip} of snat {} is also the external address of dnat {}, {place}",
            quote(&id),
            quote(owner)
        );
        let remedy = "use another address for one of the two";
        s.error(&at.span(), "snat_ip", problem, remedy, "SNAT.SnatDnatIpConflict");
    }
    let behavior = behavior?;
    one_pool(s, &id, at, snat_ip, behavior, &mut taken.pools);
    Some(Snat { id, cidr_block: cidr_block?, snat_ip, behavior })
}

fn cidr_block(s: &mut Scope<'_, '_>, at: &Spanned<String>, blocks: &mut Seen<Ipv4Net>) -> Option<Ipv4Net> {
    match s.network("cidr_block", at, BAD)? {
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
    let (owner, wanted, first) = pools.entry(ip).or_insert_with(|| (id.to_owned(), behavior, place));
    if *wanted != behavior {
        let problem = format!(
            "snat {} and snat {}, {first}, share {ip} but differ: {behavior} against {wanted}",
            quote(id),
            quote(owner)
        );
        let remedy = "give both the same mapping and filtering, or an address each";
        s.error(&at.span(), "snat_ip", problem, remedy, BAD);
    }
}

/// The keys of the two behaviours, by which name ever.
pub(super) fn behaviors(
    s: &mut Scope<'_, '_>,
    (mapping_key, mapping): (&str, &Opt<String>),
    (filtering_key, filtering): (&str, &Opt<String>),
    code: &str,
) -> Option<NatBehaviors> {
    let d = NatBehaviors::default();
    let mapping = s.word(mapping_key, mapping, NatBehavior::WORDS, Some(d.mapping), code);
    let filtering = s.word(filtering_key, filtering, NatBehavior::WORDS, Some(d.filtering), code);
    Some(NatBehaviors { mapping: mapping?, filtering: filtering? })
}
