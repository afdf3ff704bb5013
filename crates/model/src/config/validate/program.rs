//! `[dataplane]`, `[timeouts]` and `[bandwidth]`: nothing concerns several of their keys.

use crate::config::keys::{Bandwidth, Dataplane, RawBandwidth, RawDataplane, RawTimeouts, Timeouts};
use crate::config::report::{Path, Report};
use crate::config::scope::Scope;

pub(super) fn dataplane(raw: Option<&RawDataplane>, report: &mut Report<'_>) -> Option<Dataplane> {
    let absent = RawDataplane::default();
    let raw = raw.unwrap_or(&absent);
    raw.read(&mut Scope::new(report, Path::ROOT.key("dataplane"), &raw.span)).finish()
}

pub(super) fn timeouts(raw: Option<&RawTimeouts>, report: &mut Report<'_>) -> Option<Timeouts> {
    let absent = RawTimeouts::default();
    let raw = raw.unwrap_or(&absent);
    raw.read(&mut Scope::new(report, Path::ROOT.key("timeouts"), &raw.span)).finish()
}

pub(super) fn bandwidth(raw: Option<&RawBandwidth>, report: &mut Report<'_>) -> Option<Bandwidth> {
    let absent = RawBandwidth::default();
    let raw = raw.unwrap_or(&absent);
    raw.read(&mut Scope::new(report, Path::ROOT.key("bandwidth"), &raw.span)).finish()
}
