//! `[[syn_cookies]]`.

use super::Seen;
use super::acl::unique_id;
use crate::config::keys::{RawSynCookies, SynCookies};
use crate::config::report::{Path, Report};
use crate::config::scope::Scope;
use crate::flow::SYN_SERVICES;
use std::net::IpAddr;

pub(super) fn syn_cookies(raw: &[RawSynCookies], report: &mut Report<'_>) -> Vec<SynCookies> {
    let (mut ids, mut seen) = (Seen::new(), Seen::new());
    let mut out = Vec::with_capacity(raw.len());
    for (i, service) in raw.iter().enumerate() {
        let mut s = Scope::new(report, Path::ROOT.item("syn_cookies", i), &service.span);
        if i == SYN_SERVICES {
            let problem = format!("more than {SYN_SERVICES} services");
            s.error(&service.span, "port", problem, "protect the most important ones", "");
        }
        out.extend(entry(service, &mut s, i, &mut ids, &mut seen));
    }
    out
}

fn entry(
    raw: &RawSynCookies,
    s: &mut Scope<'_, '_>,
    n: usize,
    ids: &mut Seen<String>,
    seen: &mut Seen<(Option<IpAddr>, u16)>,
) -> Option<SynCookies> {
    let id = s.id(&raw.id, "syn", n);
    if let Some(id) = &id {
        unique_id(s, &raw.id, id, ids);
    }
    let read = raw.read(s);
    let (address, port, at) = (read.address?, read.port?, raw.port.as_ref()?);
    if let Some(first) = seen.repeated((address, port), s.place(&at.span(), "port")) {
        s.repeated(&at.span(), "port", port, &first, "");
    }
    read.finish(id?)
}
