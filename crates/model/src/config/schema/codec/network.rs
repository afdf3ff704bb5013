//! Addresses and networks.

use super::Codec;
use crate::config::schema::info::KeyInfo;
use crate::config::types::AddressRange;
use crate::config::types::PortRange;
use crate::config::value::{self, Fault, fault, quote};
use crate::ids::MacAddr;
use ipnet::IpNet;
use std::net::SocketAddr;
use toml::Spanned;

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

/// IPv4 addresses, ranges and prefixes of them.
pub(crate) struct AddressRanges;

impl Codec for AddressRanges {
    type Value = Vec<AddressRange>;
    type Raw = Vec<Spanned<String>>;
    const KIND: &'static str = "list of addresses";
    const OPTIONAL: bool = true;

    fn parse(raw: &Self::Raw, _: &KeyInfo) -> Result<Vec<AddressRange>, Fault> {
        raw.iter().map(|item| value::address_range(item.get_ref())).collect()
    }

    fn write(value: &Vec<AddressRange>) -> Option<Self::Raw> {
        let list: Vec<_> = value.iter().map(|a| Spanned::new(0..0, a.to_string())).collect();
        if list.is_empty() { None } else { Some(list) }
    }

    fn absent() -> Option<Vec<AddressRange>> {
        Some(Vec::new())
    }
}

/// Ports and ranges of ports; the validation reads them one by one.
pub(crate) struct PortList;

impl Codec for PortList {
    type Value = Vec<PortRange>;
    type Raw = Vec<Spanned<String>>;
    const KIND: &'static str = "list of ranges";

    fn parse(raw: &Self::Raw, _: &KeyInfo) -> Result<Vec<PortRange>, Fault> {
        raw.iter().map(|item| value::group_ports(item.get_ref())).collect()
    }

    fn write(value: &Vec<PortRange>) -> Option<Self::Raw> {
        let list: Vec<_> =
            value.iter().map(|r| Spanned::new(0..0, format!("{}/{}", r.first, r.last))).collect();
        if list.is_empty() { None } else { Some(list) }
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
