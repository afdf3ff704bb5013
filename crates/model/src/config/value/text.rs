//! Names, log filters and key material.

use super::{Fault, fault, quote};

/// A name that logs, metrics and paths can contain: a plain alphabet stays readable there.
pub(crate) fn identifier(text: &str) -> Result<String, Fault> {
    const MAX: usize = 64;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if text.is_empty() || text.len() > MAX || !text.chars().all(plain) || text.starts_with('.') {
        return fault(
            format!("{}: cannot be a name", quote(text)),
            format!("use 1 to {MAX} letters, digits or \"-_.:\", not starting with \".\""),
        );
    }
    Ok(text.to_owned())
}

/// Levels of the log, also per module.
pub(crate) fn log_filter(text: &str) -> Result<String, Fault> {
    let level = |l: &str| {
        ["off", "error", "warn", "info", "debug", "trace"].iter().any(|w| w.eq_ignore_ascii_case(l))
    };
    let target =
        |t: &str| !t.is_empty() && t.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let right = text.split(',').all(|d| match d.split_once('=') {
        Some((t, l)) => target(t) && level(l),
        None => level(d),
    });
    if right {
        return Ok(text.to_owned());
    }
    fault(
        format!("{}: is not a log filter", quote(text)),
        "write error, warn, info, debug, trace or off, also per module as in \"info,sag_pipeline=debug\"",
    )
}

/// Bytes from hexadecimal digits; `None` unless it is exactly that.
pub(crate) fn hex(text: &str) -> Option<Vec<u8>> {
    ::hex::decode(text).ok()
}

/// Lower-case hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    ::hex::encode(bytes)
}
