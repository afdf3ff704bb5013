//! `[nat]`.

use crate::config::keys::{Nat, RawConfig, RawNat, ReadNat};
use crate::config::report::{Path, Place, Report};
use crate::config::scope::{Opt, Scope};
use crate::config::types::{NatBehavior, NatLog};
use crate::config::value::{one_of, quote};

pub(super) fn nat(raw: Option<&RawNat>, config: &RawConfig, report: &mut Report<'_>) -> Option<Nat> {
    let absent = RawNat::default();
    let raw = raw.unwrap_or(&absent);
    let dependent = dependent_mapping(config, report);
    let mut s = Scope::new(report, Path::ROOT.key("nat"), &raw.span);
    let read = raw.read(&mut s);
    port_block(&mut s, raw, &read, dependent);
    if let (Some(NatLog::Blocks), Some(at)) = (read.log, &raw.log)
        && raw.port_block.is_none()
        && !s.is_mistyped("port_block")
    {
        let remedy = "set port_block, or write \"sessions\"";
        s.error(&at.span(), "log", "\"blocks\": there are no port blocks to log", remedy, "");
    }
    log_file(&mut s, raw, &read);
    read.finish()
}

/// The first source NAT whose mapping depends on the remote endpoint: which it is, and where.
fn dependent_mapping(config: &RawConfig, report: &Report<'_>) -> Option<(String, Place)> {
    let depends = |v: &Opt<String>| {
        let word = v.as_ref().map(|v| one_of(v.get_ref(), NatBehavior::WORDS));
        matches!(word, Some(Ok(NatBehavior::AddressDependent | NatBehavior::AddressAndPortDependent)))
    };
    let snat = || {
        config.snat.iter().enumerate().find(|(_, e)| depends(&e.mapping)).and_then(|(i, e)| {
            let implied = format!("snat-{}", i + 1);
            let id = e.id.as_ref().map_or(&implied, |id| id.get_ref());
            let path = Path::ROOT.item("snat", i);
            let place = report.place(&e.mapping.as_ref()?.span(), &path.key("mapping"));
            Some((format!("snat {}", quote(id)), place))
        })
    };
    let port = config.port.iter().enumerate().find(|(_, p)| depends(&p.snat_mapping)).and_then(|(i, p)| {
        let name = p.name.as_ref().map_or("", |n| n.get_ref().as_str());
        let path = Path::ROOT.item("port", i);
        let place = report.place(&p.snat_mapping.as_ref()?.span(), &path.key("snat_mapping"));
        Some((format!("port {}", quote(name)), place))
    });
    port.or_else(snat)
}

/// Blocks must fit into the range of ports, and go with endpoint-independent mapping only.
fn port_block(s: &mut Scope<'_, '_>, raw: &RawNat, read: &ReadNat, dependent: Option<(String, Place)>) {
    let (Some(Some(size)), Some(at)) = (read.port_block, &raw.port_block) else {
        return;
    };
    if let Some(range) = read.port_range
        && range.count() < u32::from(size)
    {
        let count = range.count();
        let problem = format!("port_range \"{range}\" holds {count} ports, which is less than one block");
        let remedy = format!("write a number of at most {count}, or widen port_range");
        s.error(&at.span(), "port_block", problem, remedy, "");
    }
    if let Some((who, place)) = dependent {
        let problem = format!("{who} has another mapping than endpoint-independent, {place}");
        s.error(&at.span(), "port_block", problem, "change that mapping, or remove port_block", "");
    }
}

/// A log needs a file.
fn log_file(s: &mut Scope<'_, '_>, raw: &RawNat, read: &ReadNat) {
    match (&raw.log_file, read.log) {
        (None, Some(NatLog::Sessions | NatLog::Blocks)) => {
            s.missing("log_file", "write the path of the file to log to", "");
        }
        (Some(at), Some(NatLog::Off)) => {
            s.warn(&at.span(), "log_file", "has no effect without a log", "set log or remove it");
        }
        _ => {}
    }
}
