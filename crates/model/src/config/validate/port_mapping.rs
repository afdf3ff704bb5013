//! `[port_mapping]`, and `port_mapping` of `[[port]]`.

use crate::config::keys::{PortMapping, RawConfig, RawPort, RawPortMapping};
use crate::config::report::{Path, Report};
use crate::config::scope::{Opt, Scope};
use crate::config::types::NatBehavior;
use crate::config::value::one_of;
use crate::ids::Role;

pub(super) fn port_mapping(
    raw: Option<&RawPortMapping>,
    config: &RawConfig,
    report: &mut Report<'_>,
) -> Option<PortMapping> {
    ports(config, report);
    let absent = RawPortMapping::default();
    let raw = raw.unwrap_or(&absent);
    let mut s = Scope::new(report, Path::ROOT.key("port_mapping"), &raw.span);
    let read = raw.read(&mut s);
    if let (Some(least), Some(most)) = (read.min_lifetime, read.max_lifetime)
        && least > most
    {
        let (key, at) = match (&raw.min_lifetime, &raw.max_lifetime) {
            (Some(at), _) => ("min_lifetime", at.span()),
            (None, Some(at)) => ("max_lifetime", at.span()),
            (None, None) => ("min_lifetime", raw.span.clone()),
        };
        let problem = format!("the shortest lifetime, {least} s, is above the longest, {most} s");
        s.error(&at, key, problem, "write the smaller number for min_lifetime", "");
    }
    read.finish()
}

/// Hosts of LAN ports alone may ask, and a port outside must be the same for all remote endpoints (RFC 6887 11.3).
fn ports(config: &RawConfig, report: &mut Report<'_>) {
    let asks = |p: &RawPort| p.port_mapping.as_ref().filter(|v| *v.get_ref()).map(|v| v.span());
    let translates = |p: &RawPort| p.snat.as_ref().is_some_and(|v| *v.get_ref());
    let role = |p: &RawPort| p.role.as_ref().and_then(|r| one_of(r.get_ref(), Role::WORDS).ok());
    for (i, p) in config.port.iter().enumerate() {
        if let (Some(at), Some(role)) = (asks(p), role(p))
            && role != Role::Lan
        {
            let path = Path::ROOT.item("port", i);
            let problem = format!("only hosts of a lan port may ask for ports outside; this one is {role}");
            report.error(&at, &path.key("port_mapping"), problem, "remove the key", "Sag.PortRoleInvalid");
        }
    }
    let Some((first, at)) = config.port.iter().enumerate().find_map(|(i, p)| Some((i, asks(p)?))) else {
        return;
    };
    if !config.port.iter().any(translates) {
        let path = Path::ROOT.item("port", first);
        let problem = "there is no wan port with source NAT, so no host gets a port";
        report.warn(
            &at,
            &path.key("port_mapping"),
            problem,
            "set snat = true at a wan port, or remove the key",
        );
    }
    let depends = |v: &Opt<String>| {
        let word = v.as_ref().and_then(|v| one_of(v.get_ref(), NatBehavior::WORDS).ok());
        word.is_some_and(|w| w != NatBehavior::EndpointIndependent)
    };
    for (i, p) in config.port.iter().enumerate().filter(|(_, p)| translates(p) && depends(&p.snat_mapping)) {
        let Some(v) = &p.snat_mapping else { continue };
        let problem =
            "hosts may ask for ports outside, which are the same for all remote endpoints, see port_mapping";
        let remedy = "write \"endpoint-independent\", or remove port_mapping from the lan ports";
        report.error(&v.span(), &Path::ROOT.item("port", i).key("snat_mapping"), problem, remedy, "");
    }
}
