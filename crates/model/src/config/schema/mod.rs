//! How a key is declared, and what follows from the declaration.
//!
//! A key is one entry of a [`table!`](table) in [`super::keys`]: its meaning is the doc comment, then come name, Rust
//! type, default and [`KeyInfo`] (range, unit, source, ...). A [`Codec`] knows how the type is written in the file.
//! From these follow the reading with its errors, the default, `config show`, the reference in the manual, the
//! commented example, the names in differences, and which changes need a restart.

mod codec;
mod info;
mod key;
mod read;
mod table;

pub(crate) use codec::{
    AddressRanges, BlockSize, Codec, Collector, Flags, HexKey, HostPort, Identifier, Ipv4Unicast, Label,
    List, LogFilter, MetricsAddress, NatPortRange, Network, NetworkDevice, OrZero, PortList, Ports, Protocol,
    SocketPath, Spelled, Unicast, ZeroIsNone,
};
pub use info::{KeyInfo, Section};
pub(crate) use info::{SECRET_MASK, key};
pub(crate) use key::{Key, rendered};
pub(crate) use read::{RawTable, Tables, Text, key_name, reject_unknown, take, take_table};
pub(crate) use table::{codec, sections, table};
