//! `[dataplane]`, `[timeouts]` and `[bandwidth]`.

use super::scope::Scope;
use crate::config::raw::{RawBandwidth, RawDataplane, RawTimeouts};
use crate::config::read::Opt;
use crate::config::report::{Path, Report};
use crate::config::types::{Bandwidth, Dataplane, FailAction, Mbps, Policy, Timeouts, XdpMode, ZeroCopy};
use crate::config::value::{fault, quote};
use std::path::PathBuf;

/// Largest bandwidth in Mbit/s: 1 Tbit/s.
pub(super) const MAX_MBPS: i64 = 1_000_000;

/// Longest path of a Unix socket: `sun_path` of unix(7) less its terminator.
const MAX_SOCKET_PATH: usize = 107;

pub(super) fn dataplane(raw: Option<&RawDataplane>, report: &mut Report<'_>) -> Option<Dataplane> {
    let absent = RawDataplane::default();
    let raw = raw.unwrap_or(&absent);
    let default = Dataplane::default();
    let mut s = Scope::new(report, Path::ROOT.key("dataplane"), &raw.span);
    let workers = s.number_opt("workers", &raw.workers, 1..=64, "");
    let mode = s.word("mode", &raw.mode, XdpMode::WORDS, Some(default.mode), "");
    let zero_copy = s.word("zero_copy", &raw.zero_copy, ZeroCopy::WORDS, Some(default.zero_copy), "");
    let flows = s.number("flows", &raw.flows, 1_024..=8_388_608, default.flows, "");
    let state_dir = path(&mut s, "state_dir", &raw.state_dir, default.state_dir, usize::MAX);
    let pin_dir = path(&mut s, "pin_dir", &raw.pin_dir, default.pin_dir, usize::MAX);
    let control = path(&mut s, "control", &raw.control, default.control, MAX_SOCKET_PATH);
    let metrics = match &raw.metrics {
        Some(v) if v.get_ref().is_empty() => Some(None),
        Some(v) => s.parse("metrics", v, "", |t| {
            t.parse().map(Some).or_else(|_| {
                fault(
                    format!("{}: is not an address and port", quote(t)),
                    "write it as in \"127.0.0.1:9477\" or \"[::1]:9477\", or \"\" to turn metrics off",
                )
            })
        }),
        None => Some(default.metrics),
    };
    let log = match &raw.log {
        Some(v) => s.parse("log", v, "", |t| {
            if is_log_filter(t) {
                return Ok(t.clone());
            }
            fault(
                format!("{}: is not a log filter", quote(t)),
                "write error, warn, info, debug, trace or off, also per module as in \"info,sag_pipeline=debug\"",
            )
        }),
        None => Some(default.log),
    };
    let acl_default = s.word("acl_default", &raw.acl_default, Policy::WORDS, Some(default.acl_default), "");
    let fail_action =
        s.word("on_daemon_loss", &raw.on_daemon_loss, FailAction::WORDS, Some(default.fail_action), "");
    let icmp_rate = s.number("icmp_rate", &raw.icmp_rate, 0..=1_000_000, default.icmp_rate, "");
    let new_flow_rate =
        s.number("new_flow_rate", &raw.new_flow_rate, 0..=10_000_000, default.new_flow_rate, "");
    let revalidation_credit =
        s.number("rejudge_window", &raw.rejudge_window, 0..=1024, default.revalidation_credit, "");
    let rekey_time = s.number("rekey_time", &raw.rekey_time, 10..=86_400, default.rekey_time, "");
    let rekey_bytes = s.number("rekey_bytes", &raw.rekey_bytes, 1 << 20..=1 << 40, default.rekey_bytes, "");
    Some(Dataplane {
        workers: workers?,
        mode: mode?,
        zero_copy: zero_copy?,
        busy_poll: flag(&raw.busy_poll, default.busy_poll),
        fast_path: flag(&raw.fast_path, default.fast_path),
        flows: flows?,
        state_dir: state_dir?,
        pin_dir: pin_dir?,
        control: control?,
        metrics: metrics?,
        log: log?,
        acl_default: acl_default?,
        acl_stateful: flag(&raw.acl_stateful, default.acl_stateful),
        fail_action: fail_action?,
        icmp_rate: icmp_rate?,
        new_flow_rate: new_flow_rate?,
        revalidation_credit: revalidation_credit?,
        rekey_time: rekey_time?,
        rekey_bytes: rekey_bytes?,
    })
}

pub(super) fn flag(v: &Opt<bool>, default: bool) -> bool {
    v.as_ref().map_or(default, |v| *v.get_ref())
}

fn path(s: &mut Scope<'_, '_>, key: &str, v: &Opt<String>, default: PathBuf, max: usize) -> Option<PathBuf> {
    match v {
        Some(v) => absolute(s, key, v, max),
        None => Some(default),
    }
}

/// A path of at most `max` bytes; a relative one is taken with a warning.
pub(super) fn absolute(
    s: &mut Scope<'_, '_>,
    key: &str,
    v: &toml::Spanned<String>,
    max: usize,
) -> Option<PathBuf> {
    let path = s.parse(key, v, "", |t| {
        if t.is_empty() || t.contains('\0') {
            return fault(
                format!("{}: is not a path", quote(t)),
                "write an absolute path, or leave the key out",
            );
        }
        if t.len() > max {
            return fault(
                format!("{}: is {} bytes long", quote(t), t.len()),
                format!("a Unix socket's path has at most {max}"),
            );
        }
        Ok(PathBuf::from(t))
    })?;
    if !path.is_absolute() {
        let problem =
            format!("{}: depends on the directory that the program is started in", quote(v.get_ref()));
        s.warn(&v.span(), key, problem, "write an absolute path");
    }
    Some(path)
}

fn is_log_filter(text: &str) -> bool {
    let level = |l: &str| {
        ["off", "error", "warn", "info", "debug", "trace"].iter().any(|w| w.eq_ignore_ascii_case(l))
    };
    let target =
        |t: &str| !t.is_empty() && t.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    text.split(',').all(|d| match d.split_once('=') {
        Some((t, l)) => target(t) && level(l),
        None => level(d),
    })
}

pub(super) fn timeouts(raw: Option<&RawTimeouts>, report: &mut Report<'_>) -> Option<Timeouts> {
    let absent = RawTimeouts::default();
    let raw = raw.unwrap_or(&absent);
    let mut s = Scope::new(report, Path::ROOT.key("timeouts"), &raw.span);
    let d = Timeouts::default();
    // The last two arguments: what which RFC demands at least; 0 where the operator is free.
    let tcp_established =
        timeout(&mut s, "tcp_established", &raw.tcp_established, d.tcp_established, 7_440, "RFC 5382 REQ-5");
    let tcp_transitory =
        timeout(&mut s, "tcp_transitory", &raw.tcp_transitory, d.tcp_transitory, 240, "RFC 5382 REQ-5");
    let tcp_syn = timeout(&mut s, "tcp_syn", &raw.tcp_syn, d.tcp_syn, 0, "");
    let udp = timeout(&mut s, "udp", &raw.udp, d.udp, 120, "RFC 4787 REQ-5");
    let icmp = timeout(&mut s, "icmp", &raw.icmp, d.icmp, 60, "RFC 5508 REQ-2");
    let other = timeout(&mut s, "other", &raw.other, d.other, 0, "");
    Some(Timeouts {
        tcp_established: tcp_established?,
        tcp_transitory: tcp_transitory?,
        tcp_syn: tcp_syn?,
        udp: udp?,
        icmp: icmp?,
        other: other?,
    })
}

fn timeout(
    s: &mut Scope<'_, '_>,
    key: &str,
    v: &Opt<i64>,
    default: u32,
    least: u32,
    rfc: &str,
) -> Option<u32> {
    const WEEK: i64 = 604_800;
    let seconds: u32 = s.number(key, v, 1..=WEEK, default, "")?;
    if let Some(v) = v.as_ref().filter(|_| seconds < least) {
        let problem = format!("{seconds} s is shorter than {rfc} allows");
        s.warn(&v.span(), key, problem, format!("sessions in use may break; {least} s is the least"));
    }
    Some(seconds)
}

pub(super) fn bandwidth(raw: Option<&RawBandwidth>, report: &mut Report<'_>) -> Option<Bandwidth> {
    let absent = RawBandwidth::default();
    let raw = raw.unwrap_or(&absent);
    let mut s = Scope::new(report, Path::ROOT.key("bandwidth"), &raw.span);
    let ccn = mbps(&mut s, "ccn", &raw.ccn);
    let internet_up = mbps(&mut s, "internet_up", &raw.internet_up);
    let overhead = s.number("overhead", &raw.overhead, 0..=256, 0, "");
    Some(Bandwidth { ccn: ccn?, internet_up: internet_up?, overhead: overhead? })
}

/// `Some(None)` is unlimited.
pub(super) fn mbps(s: &mut Scope<'_, '_>, key: &str, v: &Opt<i64>) -> Option<Option<Mbps>> {
    let n: u32 = s.number(key, v, 0..=MAX_MBPS, 0, "")?;
    Some((n > 0).then_some(Mbps(n)))
}
