//! Port ranges.

use super::{Fault, fault, quote};
use crate::config::types::{MIN_NAT_PORT, PortRange};

/// `first/last`, each 1..=65535, or `-1/-1`.
pub(crate) fn port_range(text: &str) -> Result<PortRange, Fault> {
    const FORM: &str = "write first/last with ports 1..65535, as in \"80/443\", or \"-1/-1\" for any";
    match text.split_once('/') {
        Some(("-1", "-1")) => Ok(PortRange::ANY),
        Some((first, last)) if first == "-1" || last == "-1" => {
            fault(format!("{}: only one end is -1", quote(text)), FORM)
        }
        _ => some_ports(text, FORM),
    }
}

/// One port or `first/last`, each 1..=65535; `form` as in [`some_ports`].
pub(crate) fn ports(text: &str, form: &str) -> Result<PortRange, Fault> {
    match port_number(text) {
        Some(port) => Ok(PortRange::single(port)),
        None => some_ports(text, form),
    }
}

/// `first/last`, each 1..=65535; `form` is the remedy for what looks like something else.
pub(crate) fn some_ports(text: &str, form: &str) -> Result<PortRange, Fault> {
    let quoted = quote(text);
    let Some((first, last)) = text.split_once('/') else {
        if let Some(port) = port_number(text) {
            return fault(format!("{quoted}: is a single port"), format!("write \"{port}/{port}\""));
        }
        return match text.split_once('-').and_then(|(a, b)| Some((port_number(a)?, port_number(b)?))) {
            Some((a, b)) => {
                fault(format!("{quoted}: uses \"-\" as the separator"), format!("write \"{a}/{b}\""))
            }
            None => fault(format!("{quoted}: is not a port range"), form),
        };
    };
    match (port_number(first), port_number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(PortRange { first, last }),
        (Some(first), Some(last)) => fault(
            format!("{quoted}: first port is above the last"),
            format!("write it as \"{last}/{first}\""),
        ),
        _ => fault(format!("{quoted}: is not a port range"), form),
    }
}

/// One port or `first/last` of a group.
pub(crate) fn group_ports(text: &str) -> Result<PortRange, Fault> {
    ports(text, "write a port or first/last with ports 1..65535, as in \"53\" or \"80/443\"")
}

/// 1..=65535 in plain digits.
pub(crate) fn port_number(text: &str) -> Option<u16> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|p| *p != 0)
}

/// Outside ports of source NAT: `first/last` from 1024 up.
pub(crate) fn nat_port_range(text: &str) -> Result<PortRange, Fault> {
    const FORM: &str = "write first/last with ports 1024..65535, as in \"1024/65535\"";
    let range = some_ports(text, FORM)?;
    if range.first < MIN_NAT_PORT {
        return fault(format!("{}: begins below {MIN_NAT_PORT}", quote(text)), FORM);
    }
    Ok(range)
}
