//! `[[static_nat]]`.

use super::acl::unique_id;
use super::{Names, Seen, snat};
use crate::config::keys::{RawStaticNat, Snat, StaticNat};
use crate::config::report::{Path, Place, Report};
use crate::config::scope::Scope;
use crate::config::types::DnatType;
use crate::config::value::quote;
use crate::ids::PortIdx;
use ipnet::IpNet;

/// Entries of all kinds.
const MOST: usize = 256;
/// The longest IPv6 prefix (RFC 6296 section 3.7).
const LONGEST: u8 = 64;

/// Networks of the entries so far, and where they are.
#[derive(Default)]
struct Taken {
    internal: Vec<(Where, IpNet, Place)>,
    external: Vec<(IpNet, Place)>,
}

/// Where an entry holds: type and port, and the VRF of what is inside.
type Where = (DnatType, Option<PortIdx>, Option<String>);

pub(super) fn static_nat(
    raw: &[RawStaticNat],
    names: &Names,
    snats: &[Snat],
    report: &mut Report<'_>,
) -> Vec<StaticNat> {
    let (mut ids, mut taken) = (Seen::new(), Taken::default());
    let mut out = Vec::with_capacity(raw.len());
    for (i, e) in raw.iter().enumerate() {
        let mut s = Scope::new(report, Path::ROOT.item("static_nat", i), &e.span);
        if i == MOST {
            let (span, path) = (s.span.clone(), s.path);
            s.report.error(&span, &path, format!("is entry {}", i + 1), format!("write at most {MOST}"), "");
        }
        let id = s.id(&e.id, "static", i);
        if let Some(id) = &id {
            unique_id(&mut s, &e.id, id, &mut ids);
        }
        out.extend(entry(e, id, &mut s, names, (snats, &mut taken)));
    }
    out
}

fn entry(
    raw: &RawStaticNat,
    id: Option<String>,
    s: &mut Scope<'_, '_>,
    names: &Names,
    (snats, taken): (&[Snat], &mut Taken),
) -> Option<StaticNat> {
    let read = raw.read(s);
    let vrf = names.check_vrf(s, &raw.vrf);
    let port = snat::wan_port(s, &raw.port, names, read.r#type);
    let of = |s: &mut Scope<'_, '_>, key: &crate::config::schema::Key<_>, raw| {
        let at = key.need(s, raw)?;
        Some((key.read_present(s, at)?, at.span()))
    };
    let internal = of(s, &StaticNat::KEYS.internal, &raw.internal);
    let external = of(s, &StaticNat::KEYS.external, &raw.external);
    let ((internal, inside_at), (external, at)) = (internal?, external?);
    for (net, at, key) in [(internal, &inside_at, "internal"), (external, &at, "external")] {
        if net.addr().is_multicast() || net.addr().is_loopback() {
            s.error(at, key, format!("{net} is multicast or loopback"), "write a network of hosts", "");
        }
        if matches!(net, IpNet::V6(n) if n.prefix_len() > LONGEST) {
            let problem = format!("{net} is longer than {LONGEST} bits");
            s.error(at, key, problem, "IPv6 is translated by prefixes of at most 64 bits", "");
        }
    }
    match (internal, external) {
        (IpNet::V4(a), IpNet::V4(b)) if a.prefix_len() != b.prefix_len() => {
            let problem = format!("{external} and {internal} are not of one size");
            s.error(&at, "external", problem, format!("write a network of /{}", a.prefix_len()), "");
        }
        (IpNet::V4(_), IpNet::V4(_)) | (IpNet::V6(_), IpNet::V6(_)) => {}
        _ => {
            let problem = format!("{external} is of another IP version than {internal}");
            s.error(&at, "external", problem, "write a network of the same version", "");
        }
    }
    vrf?;
    let (kind, port) = (read.r#type?, port?);
    let at_side = (kind, port, read.vrf.clone().flatten());
    let place = s.place(&inside_at, "internal");
    let same = taken.internal.iter().find(|(of, net, _)| *of == at_side && *net == internal);
    if let Some((_, _, first)) = same {
        let first = first.clone();
        s.repeated(&inside_at, "internal", internal, &first, "");
    }
    taken.internal.push((at_side, internal, place));
    let place = s.place(&at, "external");
    let overlaps = |other: &IpNet| external.contains(other) || other.contains(&external);
    if let Some((net, first)) = taken.external.iter().find(|(net, _)| overlaps(net)) {
        let problem = format!("{external} overlaps with {net}, {first}");
        s.error(&at, "external", problem, "write networks that do not overlap", "");
    }
    if overlaps(&internal) {
        let problem = format!("{external} overlaps with {internal}");
        s.error(&at, "external", problem, "write networks that do not overlap", "");
    }
    let pooled = snats.iter().flat_map(|n| n.addresses().into_iter().map(move |a| (n, a)));
    if let Some((n, addr)) = pooled.into_iter().find(|(_, a)| external.contains(&std::net::IpAddr::V4(*a))) {
        let problem = format!("{external} has {addr} of snat {}", quote(&n.id));
        s.error(&at, "external", problem, "use another address for one of the two", "");
    }
    taken.external.push((external, place));
    read.finish(id?, port, internal, external)
}
