//! Spellings of single values: networks, addresses, port ranges, protocols, times, keys.

mod network;
mod ports;
mod protocol;
mod text;
mod time;

pub(crate) use network::{
    address_range, collector, host_port, interface_address, ipv4, network, network_device, unicast,
    unicast_mac,
};
pub(crate) use ports::{group_ports, nat_port_range, port_range, ports};
pub use protocol::protocol_name;
pub(crate) use protocol::{
    ICMP, ICMPV6, TCP, UDP, dscp, icmp_code_number, icmp_type_number, outer_dscp, protocol, tcp_flags_match,
};
pub(crate) use text::{hex, identifier, log_filter, to_hex};
pub(crate) use time::timestamp;

/// Why a value was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub problem: String,
    pub remedy: String,
}

pub(crate) fn fault<T>(problem: impl Into<String>, remedy: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { problem: problem.into(), remedy: remedy.into() })
}

/// The value in quotes, shortened if someone pasted a book.
pub(crate) fn quote(text: &str) -> String {
    const SHOWN: usize = 60;
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(SHOWN).collect();
    format!("{head:?}...")
}

/// `"a", "b" or "c"`.
pub(crate) fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|w| format!("\"{w}\"")).collect();
    match quoted.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => quoted.concat(),
    }
}

/// The word that the text is.
pub(crate) fn one_of<W: Copy>(text: &str, words: &[(&str, W)]) -> Result<W, Fault> {
    if let Some((_, w)) = words.iter().find(|(w, _)| *w == text) {
        return Ok(*w);
    }
    // The API distinguishes case; whoever mixes it up sees the spelling.
    let remedy = match words.iter().find(|(w, _)| w.eq_ignore_ascii_case(text)) {
        Some((w, _)) => format!("case counts: write \"{w}\""),
        None => format!("write {}", alternatives(&words.iter().map(|(w, _)| *w).collect::<Vec<_>>())),
    };
    fault(format!("{}: is not a known word", quote(text)), remedy)
}
