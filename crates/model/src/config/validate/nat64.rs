//! `[[nat64]]`.

use super::Seen;
use super::acl::unique_id;
use super::dnat::External;
use crate::config::keys::{Nat64, RawNat64};
use crate::config::report::{Path, Place, Report};
use crate::config::scope::Scope;
use crate::config::types::MAX_NAT_ADDRESSES;
use crate::config::value::quote;
use ipnet::IpNet;

/// Entries at most: every packet of IPv6 that begins a session is compared with them.
const MOST: usize = 8;
/// Bits 64 to 71 of addresses of a prefix are zero (RFC 6052 section 2.2).
const RESERVED: u128 = 0xFF << 56;

pub(super) fn nat64(raw: &[RawNat64], external: &External, report: &mut Report<'_>) -> Vec<Nat64> {
    let (mut ids, mut taken) = (Seen::new(), Vec::new());
    let mut out = Vec::with_capacity(raw.len());
    for (i, e) in raw.iter().enumerate() {
        let mut s = Scope::new(report, Path::ROOT.item("nat64", i), &e.span);
        if i == MOST {
            let (span, path) = (s.span.clone(), s.path);
            s.report.error(&span, &path, format!("is entry {}", i + 1), format!("write at most {MOST}"), "");
        }
        let id = s.id(&e.id, "nat64", i);
        if let Some(id) = &id {
            unique_id(&mut s, &e.id, id, &mut ids);
        }
        out.extend(entry(e, id, &mut s, external, &mut taken));
    }
    out
}

fn entry(
    raw: &RawNat64,
    id: Option<String>,
    s: &mut Scope<'_, '_>,
    external: &External,
    taken: &mut Vec<(IpNet, Place)>,
) -> Option<Nat64> {
    let read = raw.read(s);
    let (prefix, snat_ip, pool) = (read.prefix?, read.snat_ip?, read.pool.as_ref()?);
    let at = raw.prefix.as_ref().map_or_else(|| s.span.clone(), |v| v.span());
    let network = prefix.unwrap_or(IpNet::V6(Nat64::WELL_KNOWN));
    match network {
        IpNet::V6(n) if !Nat64::LENGTHS.contains(&n.prefix_len()) => {
            let problem = format!("{n} has {} bits", n.prefix_len());
            s.error(&at, "prefix", problem, "write a prefix of 32, 40, 48, 56, 64 or 96 bits (RFC 6052)", "");
        }
        IpNet::V6(n) if n.network().to_bits() & RESERVED != 0 => {
            let remedy = "write one whose bits 64 to 71 are zero (RFC 6052)";
            s.error(&at, "prefix", format!("{n} has other bits set"), remedy, "");
        }
        IpNet::V6(_) => {}
        IpNet::V4(n) => s.error(&at, "prefix", format!("{n} is an IPv4 network"), "write one of IPv6", ""),
    }
    let overlaps = |(other, _): &&(IpNet, Place)| network.contains(other) || other.contains(&network);
    if let Some((other, first)) = taken.iter().find(overlaps) {
        let problem = format!("{network} overlaps with {other}, {first}");
        s.error(&at, "prefix", problem, "write prefixes that do not overlap", "");
    }
    taken.push((network, s.place(&at, "prefix")));
    let many: u64 = pool.iter().map(|r| r.count()).sum();
    if let (true, Some(at)) = (many > MAX_NAT_ADDRESSES as u64, &raw.pool) {
        let problem = format!("holds {many} addresses");
        s.error(&at.span(), "pool", problem, format!("write at most {MAX_NAT_ADDRESSES}"), "");
        return None;
    }
    let own = raw.snat_ip.as_ref().map(|v| v.span());
    let of_pool = raw.pool.as_ref().map(|v| v.span());
    let addresses = snat_ip.into_iter().map(|a| ("snat_ip", &own, a));
    let addresses = addresses.chain(pool.iter().flat_map(|r| r.addresses()).map(|a| ("pool", &of_pool, a)));
    for (key, at, addr) in addresses {
        let (Some((owner, place)), Some(at)) = (external.addresses.get(&addr), at) else { continue };
        let problem = format!("{addr} is also the external address of dnat {}, {place}", quote(owner));
        s.error(at, key, problem, "use another address for one of the two", "");
    }
    read.finish(id?)
}
