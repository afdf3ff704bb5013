//! Values that are text in the file, or read as text.

use super::Codec;
use crate::Dscp;
use crate::config::schema::info::KeyInfo;
use crate::config::schema::read::Text;
use crate::config::types::{OuterDscp, PortRange, Secret, TcpFlags, Timestamp};
use crate::config::value::{self, Fault, fault, quote};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Codecs of values that are text in the file and are written by `to_string`.
macro_rules! text_codecs {
    ($( $(#[$meta:meta])* $name:ident: $ty:ty, $kind:literal, $parse:expr; )*) => { $(
        $(#[$meta])*
        pub(crate) struct $name;

        impl Codec for $name {
            type Value = $ty;
            type Raw = String;
            const KIND: &'static str = $kind;

            fn parse(raw: &String, _: &KeyInfo) -> Result<$ty, Fault> {
                let parse: fn(&str) -> Result<$ty, Fault> = $parse;
                parse(raw)
            }

            fn write(value: &$ty) -> Option<String> {
                Some(value.to_string())
            }
        }
    )* };
}

text_codecs! {
    /// A name in logs, metrics and paths: letters, digits and `-_.:`.
    Identifier: String, "name", value::identifier;
    /// A Linux network device.
    NetworkDevice: String, "string", value::network_device;
    /// An address that one host can have.
    Unicast: IpAddr, "IP address", value::unicast;
    /// An IPv4 address that one host can have.
    Ipv4Unicast: Ipv4Addr, "IP address", value::ipv4;
    /// What the program logs.
    LogFilter: String, "string", value::log_filter;
    /// Outside ports of source NAT.
    NatPortRange: PortRange, "range", value::nat_port_range;
    /// Ports as the cloud API writes them.
    Ports: PortRange, "range", value::port_range;
    /// TCP flags that a rule looks at.
    Flags: TcpFlags, "flags", value::tcp_flags_match;
    /// Collector of flow records.
    Collector: SocketAddr, "string", value::collector;
    /// One host's address with a port.
    HostPort: SocketAddr, "string", value::host_port;
}

/// Codecs of values that read naturally as a number, a date or text.
macro_rules! loose_text_codecs {
    ($( $ty:ty, $kind:literal, $parse:expr; )*) => { $(
        impl Codec for $ty {
            type Value = $ty;
            type Raw = Text;
            const KIND: &'static str = $kind;

            fn parse(raw: &Text, _: &KeyInfo) -> Result<$ty, Fault> {
                $parse(&raw.0)
            }

            fn write(value: &$ty) -> Option<Text> {
                Some(Text(value.to_string()))
            }
        }
    )* };
}

loose_text_codecs! {
    Dscp, "DSCP", value::dscp;
    Timestamp, "time", value::timestamp;
    OuterDscp, "word or integer", value::outer_dscp;
}

/// Free text for people, of at most so many characters.
pub(crate) struct Label<const MAX: usize>;

impl<const MAX: usize> Codec for Label<MAX> {
    type Value = Option<String>;
    type Raw = String;
    const KIND: &'static str = "string";

    fn parse(raw: &String, _: &KeyInfo) -> Result<Option<String>, Fault> {
        if raw.is_empty() || raw.chars().count() > MAX || raw.chars().any(char::is_control) {
            return fault(
                format!("{}: is not fit to be shown", quote(raw)),
                format!("use 1 to {MAX} characters on one line, or leave the key out"),
            );
        }
        Ok(Some(raw.clone()))
    }

    fn write(value: &Option<String>) -> Option<String> {
        value.clone()
    }

    fn absent() -> Option<Option<String>> {
        Some(None)
    }
}

/// A value that the validation reads itself, because it depends on other keys: text as it is written.
pub(crate) struct Spelled;

impl Codec for Spelled {
    type Value = String;
    type Raw = String;
    const KIND: &'static str = "string";

    fn parse(raw: &String, _: &KeyInfo) -> Result<String, Fault> {
        Ok(raw.clone())
    }

    fn write(value: &String) -> Option<String> {
        Some(value.clone())
    }
}

/// An IP protocol, or a port where a word may stand for all of them: the validation reads it, because it depends on
/// other keys.
pub(crate) struct Protocol;

impl Codec for Protocol {
    type Value = String;
    type Raw = Text;
    const KIND: &'static str = "name or number";

    fn parse(raw: &Text, _: &KeyInfo) -> Result<String, Fault> {
        Ok(raw.0.clone())
    }

    fn write(value: &String) -> Option<Text> {
        Some(Text(value.clone()))
    }
}

/// Key material in hexadecimal; the validation reads it, because its length depends on the cipher. It is never
/// written from here: `config::show` decides whether to mask it.
pub(crate) struct HexKey;

impl Codec for HexKey {
    type Value = Secret;
    type Raw = String;
    const KIND: &'static str = "hex";

    fn parse(raw: &String, _: &KeyInfo) -> Result<Secret, Fault> {
        match value::hex(raw) {
            Some(bytes) => Ok(Secret::new(bytes)),
            None => fault("is not made of pairs of hex digits", "write hex digits"),
        }
    }

    fn write(_: &Secret) -> Option<String> {
        None
    }
}
