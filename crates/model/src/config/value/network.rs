//! Networks, addresses and devices.

use super::{Fault, fault, quote};
use crate::config::types::AddressRange;
use crate::ids::MacAddr;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Port of a collector that is given by address alone.
const NETFLOW_PORT: u16 = 9995;

/// A network as written, host bits and all.
pub(crate) fn network(text: &str) -> Result<IpNet, Fault> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Ok(net);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        let full = if ip.is_ipv4() { 32 } else { 128 };
        return fault(format!("{}: has no prefix length", quote(text)), format!("write \"{ip}/{full}\""));
    }
    fault(
        format!("{}: is not a CIDR block", quote(text)),
        "write address/prefix length, as in \"192.168.1.0/24\" or \"2001:db8::/32\"",
    )
}

pub(crate) fn address(text: &str) -> Result<IpAddr, Fault> {
    text.parse().or_else(|_| {
        let remedy = match text.parse::<IpNet>() {
            Ok(net) => format!("write the address alone: \"{}\"", net.addr()),
            Err(_) => "write it as in \"192.0.2.1\" or \"2001:db8::1\"".to_owned(),
        };
        fault(format!("{}: is not an IP address", quote(text)), remedy)
    })
}

/// An address that one host can have.
pub(crate) fn unicast(text: &str) -> Result<IpAddr, Fault> {
    let ip = address(text)?;
    let bad = match ip {
        IpAddr::V4(a) if a.is_broadcast() => Some("the broadcast address"),
        _ if ip.is_unspecified() => Some("the unspecified address"),
        _ if ip.is_multicast() => Some("a multicast address"),
        _ if ip.is_loopback() => Some("a loopback address"),
        _ => None,
    };
    match bad {
        Some(what) => fault(format!("{}: is {what}", quote(text)), "write the address of one host"),
        None => Ok(ip),
    }
}

/// An IPv4 address that one host can have.
pub(crate) fn ipv4(text: &str) -> Result<Ipv4Addr, Fault> {
    match unicast(text)? {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => {
            fault(format!("{}: is an IPv6 address", quote(text)), "NAT is for IPv4: write such an address")
        }
    }
}

/// IPv4 addresses of hosts: one, a prefix (all of its addresses), or first-last.
pub(crate) fn address_range(text: &str) -> Result<AddressRange, Fault> {
    if let Ok(net @ IpNet::V6(_)) = text.parse::<IpNet>() {
        return fault(format!("{net}: is an IPv6 network"), "NAT is for IPv4: write such addresses");
    }
    if let Ok(IpNet::V4(net)) = text.parse::<IpNet>() {
        let (first, last) = (net.network(), net.broadcast());
        ipv4(&first.to_string()).and_then(|_| ipv4(&last.to_string()))?;
        return Ok(AddressRange { first, last });
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (ipv4(first.trim())?, ipv4(last.trim())?);
    if first > last {
        return fault(format!("{}: ends before it begins", quote(text)), format!("write \"{last}-{first}\""));
    }
    Ok(AddressRange { first, last })
}

/// A host's address with the prefix length of its network.
pub(crate) fn interface_address(text: &str) -> Result<IpNet, Fault> {
    let net = network(text)?;
    unicast(&net.addr().to_string())?;
    if let IpNet::V4(n) = net
        && n.prefix_len() < 31
        && (n.addr() == n.network() || n.addr() == n.broadcast())
    {
        return fault(
            format!("{}: is the network's own or broadcast address", quote(text)),
            "write the port's address in that network, as in \"192.168.1.1/24\"",
        );
    }
    Ok(net)
}

/// Device names as the kernel's `dev_valid_name` accepts them.
pub(crate) fn network_device(text: &str) -> Result<String, Fault> {
    const MAX: usize = 15;
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > MAX || text == "." || text == ".." || text.chars().any(odd) {
        return fault(
            format!("{}: cannot be the name of a network device", quote(text)),
            format!("write a name of 1 to {MAX} bytes as `ip link` shows it"),
        );
    }
    Ok(text.to_owned())
}

/// The Ethernet address of one interface.
pub(crate) fn unicast_mac(text: &str) -> Result<MacAddr, Fault> {
    let form = "write six hex bytes as in \"02:00:00:00:00:01\"";
    match text.parse::<MacAddr>() {
        Err(_) => fault(format!("{}: is not an Ethernet address", quote(text)), form),
        Ok(m) if m.is_multicast() || m == MacAddr::ZERO => {
            fault(format!("{}: is not the address of one interface", quote(text)), form)
        }
        Ok(m) => Ok(m),
    }
}

/// One host's address with a port.
pub(crate) fn host_port(text: &str) -> Result<SocketAddr, Fault> {
    let remedy = "write it as in \"192.0.2.10:7788\" or \"[2001:db8::10]:7788\"";
    match text.parse::<SocketAddr>() {
        Ok(at) if at.ip().is_unspecified() || at.ip().is_multicast() || at.port() == 0 => {
            fault(format!("{}: is not the address of one host with a port", quote(text)), remedy)
        }
        Ok(at) => Ok(at),
        Err(_) => fault(format!("{}: is not an address and port", quote(text)), remedy),
    }
}

/// Address and port of a collector of flow records; 9995 where the port is left out.
pub(crate) fn collector(text: &str) -> Result<SocketAddr, Fault> {
    let parsed = text.parse().or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, NETFLOW_PORT)));
    match parsed {
        Ok(server) if server.ip().is_unspecified() || server.ip().is_multicast() => {
            fault(format!("{}: is not the address of one host", quote(text)), "write the collector's address")
        }
        Ok(server) => Ok(server),
        Err(_) => fault(
            format!("{}: is not an address and port", quote(text)),
            "write it as in \"192.0.2.10:9995\" or \"[2001:db8::10]:9995\"",
        ),
    }
}
