//! How a type is written in the file.

use super::info::KeyInfo;
use super::read::{Scalar, Text};
use crate::Dscp;
use crate::config::types::{Mbps, OuterDscp, PortRange, Secret, Timestamp};
use crate::config::value::{self, Fault, fault, quote};
use crate::ids::{MacAddr, VlanId};
use crate::words::Words;
use ipnet::IpNet;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use toml::Spanned;

/// The form of a value in the file. A type that has one form only is its own codec.
pub(crate) trait Codec {
    /// What other crates read.
    type Value;
    /// What TOML has.
    type Raw: Scalar;
    /// The type in the words of the reference.
    const KIND: &'static str;
    /// The words, if the value is one.
    const WORDS: &'static [&'static str] = &[];
    /// Whether the key may be absent without a default.
    const OPTIONAL: bool = false;

    /// The value, or what is wrong with it.
    fn parse(raw: &Self::Raw, key: &KeyInfo) -> Result<Self::Value, Fault>;

    /// As the file writes it; `None`: the key is left out.
    fn write(value: &Self::Value) -> Option<Self::Raw>;

    /// The value of an absent key without a default; `None`: the key is required.
    fn absent() -> Option<Self::Value> {
        None
    }

    /// A warning about a value that is accepted.
    fn remark(_raw: &Self::Raw, _value: &Self::Value, _key: &KeyInfo) -> Option<Fault> {
        None
    }
}

/// A number within the key's range, or what is wrong with it.
fn in_range<N: TryFrom<i64>>(n: i64, key: &KeyInfo) -> Result<N, Fault> {
    let (least, greatest) = key.range.unwrap_or((i64::MIN, i64::MAX));
    match N::try_from(n) {
        Ok(value) if (least..=greatest).contains(&n) => Ok(value),
        _ => {
            let shown = match n {
                i64::MAX | i64::MIN => "the number".to_owned(),
                n => n.to_string(),
            };
            let remedy = match key.remedies.0 {
                "" => format!("write a number from {least} to {greatest}"),
                remedy => remedy.to_owned(),
            };
            fault(format!("{shown} is out of range"), remedy)
        }
    }
}

/// A warning about a number below what an RFC advises.
fn below_advised(n: i64, key: &KeyInfo) -> Option<Fault> {
    let (least, rfc) = key.advised.filter(|(least, _)| n < *least)?;
    let unit = key.unit;
    Some(Fault {
        problem: format!("{n} {unit} is shorter than {rfc} allows"),
        remedy: format!("sessions in use may break; {least} {unit} is the least"),
    })
}

macro_rules! numbers {
    ($($ty:ty),*) => { $(
        impl Codec for $ty {
            type Value = $ty;
            type Raw = i64;
            const KIND: &'static str = "integer";

            fn parse(raw: &i64, key: &KeyInfo) -> Result<$ty, Fault> {
                in_range(*raw, key)
            }

            fn write(value: &$ty) -> Option<i64> {
                Some(i64::from(*value))
            }

            fn remark(raw: &i64, _: &$ty, key: &KeyInfo) -> Option<Fault> {
                below_advised(*raw, key)
            }
        }
    )* };
}

numbers!(u8, u16, u32, i64);

/// A number in range, or 0.
pub(crate) struct OrZero<N>(PhantomData<N>);

impl<N: TryFrom<i64> + Into<i64> + Copy> Codec for OrZero<N> {
    type Value = N;
    type Raw = i64;
    const KIND: &'static str = "integer";

    fn parse(raw: &i64, key: &KeyInfo) -> Result<N, Fault> {
        match N::try_from(*raw) {
            Ok(zero) if *raw == 0 => Ok(zero),
            _ => in_range(*raw, key),
        }
    }

    fn write(value: &N) -> Option<i64> {
        Some((*value).into())
    }
}

/// A number in range, or 0 for none.
pub(crate) struct ZeroIsNone<N>(PhantomData<N>);

impl<N: TryFrom<i64> + Into<i64> + Copy> Codec for ZeroIsNone<N> {
    type Value = Option<N>;
    type Raw = i64;
    const KIND: &'static str = "integer";

    fn parse(raw: &i64, key: &KeyInfo) -> Result<Option<N>, Fault> {
        if *raw == 0 { Ok(None) } else { in_range(*raw, key).map(Some) }
    }

    fn write(value: &Option<N>) -> Option<i64> {
        Some(value.map_or(0, Into::into))
    }
}

/// 0 is unlimited.
impl Codec for Option<Mbps> {
    type Value = Option<Mbps>;
    type Raw = i64;
    const KIND: &'static str = "integer";

    fn parse(raw: &i64, key: &KeyInfo) -> Result<Option<Mbps>, Fault> {
        let n: u32 = in_range(*raw, key)?;
        Ok((n > 0).then_some(Mbps(n)))
    }

    fn write(value: &Option<Mbps>) -> Option<i64> {
        Some(value.map_or(0, |m| i64::from(m.0)))
    }
}

impl Codec for bool {
    type Value = bool;
    type Raw = bool;
    const KIND: &'static str = "boolean";

    fn parse(raw: &bool, _: &KeyInfo) -> Result<bool, Fault> {
        Ok(*raw)
    }

    fn write(value: &bool) -> Option<bool> {
        Some(*value)
    }
}

impl<W: Words> Codec for W {
    type Value = W;
    type Raw = String;
    const KIND: &'static str = "word";
    const WORDS: &'static [&'static str] = W::NAMES;

    fn parse(raw: &String, _: &KeyInfo) -> Result<W, Fault> {
        value::one_of(raw, W::WORDS)
    }

    fn write(value: &W) -> Option<String> {
        Some(value.word().to_owned())
    }
}

impl<C: Codec> Codec for Option<C> {
    type Value = Option<C::Value>;
    type Raw = C::Raw;
    const KIND: &'static str = C::KIND;
    const WORDS: &'static [&'static str] = C::WORDS;
    const OPTIONAL: bool = true;

    fn parse(raw: &C::Raw, key: &KeyInfo) -> Result<Option<C::Value>, Fault> {
        C::parse(raw, key).map(Some)
    }

    fn write(value: &Option<C::Value>) -> Option<C::Raw> {
        value.as_ref().and_then(C::write)
    }

    fn absent() -> Option<Option<C::Value>> {
        Some(None)
    }

    fn remark(raw: &C::Raw, value: &Option<C::Value>, key: &KeyInfo) -> Option<Fault> {
        value.as_ref().and_then(|v| C::remark(raw, v, key))
    }
}

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
    /// Collector of flow records.
    Collector: SocketAddr, "string", value::collector;
}

/// The address of one interface.
impl Codec for MacAddr {
    type Value = MacAddr;
    type Raw = String;
    const KIND: &'static str = "Ethernet address";

    fn parse(raw: &String, _: &KeyInfo) -> Result<MacAddr, Fault> {
        value::unicast_mac(raw)
    }

    fn write(value: &MacAddr) -> Option<String> {
        Some(value.to_string())
    }
}

/// A network; host bits are cut off with a warning.
pub(crate) struct Network;

impl Codec for Network {
    type Value = IpNet;
    type Raw = String;
    const KIND: &'static str = "CIDR";

    fn parse(raw: &String, _: &KeyInfo) -> Result<IpNet, Fault> {
        value::network(raw).map(|net| net.trunc())
    }

    fn write(value: &IpNet) -> Option<String> {
        Some(value.to_string())
    }

    fn remark(raw: &String, value: &IpNet, _: &KeyInfo) -> Option<Fault> {
        let written = value::network(raw).ok()?;
        (written != *value).then(|| Fault {
            problem: format!("{}: has bits set below the prefix", quote(raw)),
            remedy: format!("it is read as \"{value}\""),
        })
    }
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

/// A path; a relative one is accepted with a warning.
impl Codec for PathBuf {
    type Value = PathBuf;
    type Raw = String;
    const KIND: &'static str = "path";

    fn parse(raw: &String, _: &KeyInfo) -> Result<PathBuf, Fault> {
        if raw.is_empty() || raw.contains('\0') {
            return fault(
                format!("{}: is not a path", quote(raw)),
                "write an absolute path, or leave the key out",
            );
        }
        Ok(PathBuf::from(raw))
    }

    fn write(value: &PathBuf) -> Option<String> {
        // Paths come from the text of a file, so nothing is lost here.
        Some(value.to_string_lossy().into_owned())
    }

    fn remark(raw: &String, value: &PathBuf, _: &KeyInfo) -> Option<Fault> {
        (!value.is_absolute()).then(|| Fault {
            problem: format!("{}: depends on the directory that the program is started in", quote(raw)),
            remedy: "write an absolute path".to_owned(),
        })
    }
}

/// Path of a Unix socket.
pub(crate) struct SocketPath;

impl Codec for SocketPath {
    type Value = PathBuf;
    type Raw = String;
    const KIND: &'static str = "path";

    fn parse(raw: &String, key: &KeyInfo) -> Result<PathBuf, Fault> {
        /// `sun_path` of unix(7) less its terminator.
        const MAX: usize = 107;
        let path = PathBuf::parse(raw, key)?;
        if raw.len() > MAX {
            return fault(
                format!("{}: is {} bytes long", quote(raw), raw.len()),
                format!("a Unix socket's path has at most {MAX}"),
            );
        }
        Ok(path)
    }

    fn write(value: &PathBuf) -> Option<String> {
        <PathBuf as Codec>::write(value)
    }

    fn remark(raw: &String, value: &PathBuf, key: &KeyInfo) -> Option<Fault> {
        <PathBuf as Codec>::remark(raw, value, key)
    }
}

/// Where Prometheus finds the metrics; the empty string is nowhere.
pub(crate) struct MetricsAddress;

impl Codec for MetricsAddress {
    type Value = Option<SocketAddr>;
    type Raw = String;
    const KIND: &'static str = "string";

    fn parse(raw: &String, _: &KeyInfo) -> Result<Option<SocketAddr>, Fault> {
        if raw.is_empty() {
            return Ok(None);
        }
        raw.parse().map(Some).or_else(|_| {
            fault(
                format!("{}: is not an address and port", quote(raw)),
                "write it as in \"127.0.0.1:9477\" or \"[::1]:9477\", or \"\" to turn metrics off",
            )
        })
    }

    fn write(value: &Option<SocketAddr>) -> Option<String> {
        Some(value.map(|a| a.to_string()).unwrap_or_default())
    }
}

impl Codec for VlanId {
    type Value = VlanId;
    type Raw = i64;
    const KIND: &'static str = "integer";

    fn parse(raw: &i64, _: &KeyInfo) -> Result<VlanId, Fault> {
        match u16::try_from(*raw).ok().and_then(VlanId::new) {
            Some(v) => Ok(v),
            None if *raw == 0 => fault("0 is the untagged device", "leave the key out for untagged traffic"),
            None => fault("is out of range", "write a number from 1 to 4094"),
        }
    }

    fn write(value: &VlanId) -> Option<i64> {
        Some(i64::from(value.get()))
    }
}

/// Size of a port block.
pub(crate) struct BlockSize;

impl Codec for BlockSize {
    type Value = u16;
    type Raw = i64;
    const KIND: &'static str = "integer";

    fn parse(raw: &i64, _: &KeyInfo) -> Result<u16, Fault> {
        match u16::try_from(*raw) {
            Ok(n) if (64..=4096).contains(&n) && n.is_power_of_two() => Ok(n),
            _ => fault("is not the size of a block", "write 64, 128, 256, 512, 1024, 2048 or 4096"),
        }
    }

    fn write(value: &u16) -> Option<i64> {
        Some(i64::from(*value))
    }
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

/// Addresses with prefix lengths; the validation reads them one by one.
pub(crate) struct List;

impl Codec for List {
    type Value = Vec<IpNet>;
    type Raw = Vec<Spanned<String>>;
    const KIND: &'static str = "list of CIDR";

    fn parse(raw: &Self::Raw, _: &KeyInfo) -> Result<Vec<IpNet>, Fault> {
        raw.iter().map(|item| value::network(item.get_ref())).collect()
    }

    fn write(value: &Vec<IpNet>) -> Option<Self::Raw> {
        let list: Vec<_> = value.iter().map(|a| Spanned::new(0..0, a.to_string())).collect();
        if list.is_empty() { None } else { Some(list) }
    }
}

/// Key material in hexadecimal; the validation reads it, because its length depends on the cipher. It is never
/// written from here: [`super::super::show`] decides whether to mask it.
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
