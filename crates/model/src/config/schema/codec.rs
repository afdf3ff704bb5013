//! How a type is written in the file.

mod network;
mod number;
mod path;
mod text;

pub(crate) use network::{AddressRanges, List, MetricsAddress, Network, PortList};
pub(crate) use number::{BlockSize, OrZero, ZeroIsNone};
pub(crate) use path::SocketPath;
pub(crate) use text::{
    Collector, Flags, HexKey, HostPort, Identifier, Ipv4Unicast, Label, LogFilter, NatPortRange,
    NetworkDevice, Ports, Protocol, Spelled, Unicast,
};

use super::info::KeyInfo;
use super::read::Scalar;
use crate::config::value::{self, Fault};
use crate::words::Words;

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
