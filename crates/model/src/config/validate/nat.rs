//! `[nat]`.

use super::dataplane::{absolute, flag};
use super::scope::{Scope, one_of};
use crate::config::raw::{RawConfig, RawNat};
use crate::config::read::Opt;
use crate::config::report::{Path, Place, Report};
use crate::config::types::{Nat, NatBehavior, NatLog, PortRange};
use crate::config::value::{fault, quote, some_ports};
use std::path::PathBuf;
use toml::Spanned;

/// Sessions of a host: as many as there can be records.
const MAX_SESSIONS: i64 = 8_388_608;

pub(super) fn nat(raw: Option<&RawNat>, config: &RawConfig, report: &mut Report<'_>) -> Option<Nat> {
    let absent = RawNat::default();
    let raw = raw.unwrap_or(&absent);
    let dependent = dependent_mapping(config, report);
    let d = Nat::default();
    let mut s = Scope::new(report, Path::ROOT.key("nat"), &raw.span);
    let port_range = port_range(&mut s, &raw.port_range, d.port_range);
    let host_sessions: Option<u32> =
        s.number("host_sessions", &raw.host_sessions, 0..=MAX_SESSIONS, d.host_sessions.unwrap_or(0), "");
    let warn_percent = s.number("warn_percent", &raw.warn_percent, 1..=100, d.warn_percent, "");
    let port_block = port_block(&mut s, &raw.port_block, port_range, dependent);
    let log = s.word("log", &raw.log, NatLog::WORDS, Some(d.log), "");
    if let (Some(NatLog::Blocks), Some(at)) = (log, &raw.log)
        && raw.port_block.is_none()
        && !s.is_mistyped("port_block")
    {
        let remedy = "set port_block, or write \"sessions\"";
        s.error(&at.span(), "log", "\"blocks\": there are no port blocks to tell of", remedy, "");
    }
    let log_file = log_file(&mut s, &raw.log_file, log);
    Some(Nat {
        port_range: port_range?,
        host_sessions: host_sessions.map(|n| (n > 0).then_some(n))?,
        warn_percent: warn_percent?,
        port_block: port_block?,
        log: log?,
        log_file: log_file?,
        hairpin: flag(&raw.hairpin, d.hairpin),
    })
}

fn port_range(s: &mut Scope<'_, '_>, v: &Opt<String>, default: PortRange) -> Option<PortRange> {
    const FORM: &str = "write first/last with ports 1024..65535, as in \"1024/65535\"";
    let Some(v) = v else {
        return Some(default);
    };
    s.parse("port_range", v, "", |t| {
        let range = some_ports(t, FORM)?;
        if range.first < Nat::MIN_PORT {
            return fault(format!("{}: begins below {}", quote(t), Nat::MIN_PORT), FORM);
        }
        Ok(range)
    })
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

/// `Some(None)` is off.
fn port_block(
    s: &mut Scope<'_, '_>,
    v: &Opt<i64>,
    range: Option<PortRange>,
    dependent: Option<(String, Place)>,
) -> Option<Option<u16>> {
    let Some(v) = v else {
        return Some(None);
    };
    let size = s.parse("port_block", v, "", |n| match u16::try_from(*n) {
        Ok(n) if (64..=4096).contains(&n) && n.is_power_of_two() => Ok(n),
        _ => fault("is not the size of a block", "write 64, 128, 256, 512, 1024, 2048 or 4096"),
    })?;
    if let Some(range) = range {
        let count = range.count();
        if count < u32::from(size) {
            let problem = format!("port_range \"{range}\" holds {count} ports, which is less than one block");
            let remedy = format!("write a number of at most {count}, or widen port_range");
            s.error(&v.span(), "port_block", problem, remedy, "");
        }
    }
    if let Some((who, place)) = dependent {
        let problem = format!("{who} has another mapping than endpoint-independent, {place}");
        s.error(&v.span(), "port_block", problem, "change that mapping, or remove port_block", "");
    }
    Some(Some(size))
}

/// A log needs a file.
fn log_file(s: &mut Scope<'_, '_>, v: &Opt<String>, log: Option<NatLog>) -> Option<Option<PathBuf>> {
    match (v, log?) {
        (None, NatLog::Off) => Some(None),
        (None, _) => {
            s.missing("log_file", "write the path of the file to log to", "");
            None
        }
        (Some(v), NatLog::Off) => {
            let path = path(s, v)?;
            s.warn(&v.span(), "log_file", "has no effect without a log", "set log or remove it");
            Some(Some(path))
        }
        (Some(v), _) => path(s, v).map(Some),
    }
}

fn path(s: &mut Scope<'_, '_>, v: &Spanned<String>) -> Option<PathBuf> {
    absolute(s, "log_file", v, usize::MAX)
}
