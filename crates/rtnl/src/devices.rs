//! [`DeviceEditor`]: devices that this program has made, their state and their addresses.
//!
//! An alias (`ip link set … alias`) says whose a device is, and the protocol number of an address (`IFA_PROTO`, Linux
//! 5.18) who has set it, so both are found again by the next process.

use crate::error::{Error, Result};
use crate::route::PROTOCOL_CONFIG;
use crate::socket::Requester;
use crate::wire::{self, attributes, ip, mac, text, u8_at, u32_at};
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_sys::protocols::NETLINK_ROUTE;
use sag_model::MacAddr;
use std::net::IpAddr;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFLA_IFALIAS: u16 = 20;
const IFLA_CARRIER: u16 = 33;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_EUI64: u8 = 0;
const ADDR_GEN_MODE_NONE: u8 = 1;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_PROTO: u16 = 11;

/// A device as far as its owner keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The interface.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// What `ip link set … alias` says; empty: nothing.
    pub alias: String,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddr>,
    /// IP bytes that it carries.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// It has a carrier.
    pub carrier: bool,
}

/// What is to change of a device; `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceChange<'c> {
    /// The alias.
    pub alias: Option<&'c str>,
    /// The MTU.
    pub mtu: Option<u32>,
    /// Up or down.
    pub up: Option<bool>,
    /// The carrier of a device that a program plays.
    pub carrier: Option<bool>,
    /// Whether the kernel gives the device a link-local address when it comes up.
    pub link_local: Option<bool>,
}

/// Changes devices in the network namespace in which it was opened. Needs `CAP_NET_ADMIN`.
pub struct DeviceEditor {
    requester: Requester,
}

impl DeviceEditor {
    /// Opens a netlink socket in the network namespace of the caller.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<DeviceEditor> {
        Ok(DeviceEditor { requester: Requester::open(NETLINK_ROUTE)? })
    }

    /// All devices.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read.
    pub fn devices(&mut self) -> Result<Vec<Device>> {
        let mut out = Vec::new();
        let mask = [(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS.to_ne_bytes().to_vec())];
        let dump = |seq| wire::request(RTM_GETLINK, NLM_F_DUMP, &link_header(0, None), &mask, seq);
        self.requester
            .request("links", dump, |message| out.extend(device(message)))?
            .map_err(|source| Error::Dump { what: "links", source })?;
        Ok(out)
    }

    /// Changes a device.
    ///
    /// # Errors
    /// [`Error`]: no privilege, no such device, or another refusal of the kernel.
    pub fn change(&mut self, ifindex: u32, change: &DeviceChange<'_>) -> Result<()> {
        let mut list = Vec::new();
        if let Some(alias) = change.alias {
            list.push((IFLA_IFALIAS, alias.as_bytes().to_vec()));
        }
        if let Some(mtu) = change.mtu {
            list.push((libc::IFLA_MTU, mtu.to_ne_bytes().to_vec()));
        }
        if let Some(carrier) = change.carrier {
            list.push((IFLA_CARRIER, vec![u8::from(carrier)]));
        }
        if let Some(makes) = change.link_local {
            let mode = if makes { ADDR_GEN_MODE_EUI64 } else { ADDR_GEN_MODE_NONE };
            let inet6 = wire::attribute_bytes(&[(IFLA_INET6_ADDR_GEN_MODE, vec![mode])]);
            list.push((IFLA_AF_SPEC, wire::attribute_bytes(&[(libc::AF_INET6 as u16, inet6)])));
        }
        let head = link_header(ifindex, change.up);
        let message = |seq| wire::request(RTM_NEWLINK, NLM_F_ACK, &head, &list, seq);
        self.requester.change("change device", None, ifindex, message, &[])
    }

    /// Makes a pair of Ethernet devices, each of which receives what the other sends (veth(4)); both are down.
    ///
    /// # Errors
    /// [`Error`]: no privilege, a device has that name already, or the kernel has no veth.
    pub fn add_veth(&mut self, name: &str, peer: &str) -> Result<()> {
        let named = |name: &str| (libc::IFLA_IFNAME, wire::zero_terminated(name));
        let mut other = link_header(0, None).to_vec();
        other.extend(wire::attribute_bytes(&[named(peer)]));
        let data = wire::attribute_bytes(&[(VETH_INFO_PEER, other)]);
        let info = wire::attribute_bytes(&[(IFLA_INFO_KIND, b"veth".to_vec()), (IFLA_INFO_DATA, data)]);
        let list = [named(name), (IFLA_LINKINFO, info)];
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let message = |seq| wire::request(RTM_NEWLINK, flags, &link_header(0, None), &list, seq);
        self.requester.change("add a pair of devices", None, 0, message, &[])
    }

    /// Deletes a device.
    ///
    /// # Errors
    /// [`Error`]: no privilege, or another refusal of the kernel.
    pub fn delete(&mut self, ifindex: u32) -> Result<()> {
        let head = link_header(ifindex, None);
        let message = |seq| wire::request(RTM_DELLINK, NLM_F_ACK, &head, &[], seq);
        self.requester.change("delete device", None, ifindex, message, &[libc::ENODEV])
    }

    /// The addresses of all devices that bear [`PROTOCOL_CONFIG`], or any (`false`).
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read.
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpNet, bool)>> {
        let mut out = Vec::new();
        let dump = |seq| wire::request(RTM_GETADDR, NLM_F_DUMP, &[0; 8], &[], seq);
        self.requester
            .request("addresses", dump, |message| out.extend(address(message)))?
            .map_err(|source| Error::Dump { what: "addresses", source })?;
        Ok(out)
    }

    /// The two ends of each point-to-point address of a device: this one and the other.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read.
    pub fn point_to_point(&mut self, ifindex: u32) -> Result<Vec<(IpAddr, IpAddr)>> {
        let mut out = Vec::new();
        let dump = |seq| wire::request(RTM_GETADDR, NLM_F_DUMP, &[0; 8], &[], seq);
        self.requester
            .request("addresses", dump, |message| {
                out.extend(
                    ends(message).filter(|(of, ..)| *of == ifindex).map(|(_, here, there)| (here, there)),
                );
            })?
            .map_err(|source| Error::Dump { what: "addresses", source })?;
        Ok(out)
    }

    /// Adds an address with its network.
    ///
    /// # Errors
    /// [`Error`]: no privilege, no such device, or another refusal of the kernel.
    pub fn add_address(&mut self, ifindex: u32, net: IpNet) -> Result<()> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let message = |seq| address_message(RTM_NEWADDR, flags, ifindex, net, seq);
        self.requester.change("add address", Some(net.addr()), ifindex, message, &[])
    }

    /// Removes an address.
    ///
    /// # Errors
    /// [`Error`]: no privilege, or another refusal of the kernel.
    pub fn remove_address(&mut self, ifindex: u32, net: IpNet) -> Result<()> {
        let message = |seq| address_message(RTM_DELADDR, NLM_F_ACK, ifindex, net, seq);
        let harmless = [libc::EADDRNOTAVAIL, libc::ENODEV];
        self.requester.change("remove address", Some(net.addr()), ifindex, message, &harmless)
    }
}

/// struct ifinfomsg: family, pad, type, index, flags, change.
fn link_header(ifindex: u32, up: Option<bool>) -> [u8; 16] {
    let mut head = [0; 16];
    head[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    if let Some(up) = up {
        let bit = libc::IFF_UP as u32;
        head[8..12].copy_from_slice(&if up { bit } else { 0 }.to_ne_bytes());
        head[12..].copy_from_slice(&bit.to_ne_bytes());
    }
    head
}

fn device(message: wire::Message<'_>) -> Option<Device> {
    let head = message.payload.get(..16).filter(|_| message.kind == RTM_NEWLINK)?;
    let flags = u32_at(head, 8)?;
    let mut out = Device {
        ifindex: u32_at(head, 4)?,
        name: String::new(),
        alias: String::new(),
        mac: None,
        mtu: 0,
        up: flags & libc::IFF_UP as u32 != 0,
        carrier: false,
    };
    for (kind, value) in attributes(message.payload.get(16..)?) {
        match kind {
            libc::IFLA_IFNAME => out.name = text(value),
            IFLA_IFALIAS => out.alias = text(value),
            libc::IFLA_ADDRESS => out.mac = mac(value).map(MacAddr),
            libc::IFLA_MTU => out.mtu = u32_at(value, 0)?,
            IFLA_CARRIER => out.carrier = u8_at(value, 0)? != 0,
            _ => {}
        }
    }
    Some(out)
}

/// struct ifaddrmsg: family, prefix length, flags, scope, index.
fn address(message: wire::Message<'_>) -> Option<(u32, IpNet, bool)> {
    let head = message.payload.get(..8).filter(|_| message.kind == RTM_NEWADDR)?;
    let (mut local, mut addr, mut own) = (None, None, false);
    for (kind, value) in attributes(message.payload.get(8..)?) {
        match kind {
            libc::IFA_LOCAL => local = ip(value),
            libc::IFA_ADDRESS => addr = ip(value),
            IFA_PROTO => own = u8_at(value, 0) == Some(PROTOCOL_CONFIG),
            _ => {}
        }
    }
    let net = IpNet::new(local.or(addr)?, head[1]).ok()?;
    Some((u32_at(head, 4)?, net, own))
}

/// Interface and ends of a point-to-point address.
fn ends(message: wire::Message<'_>) -> Option<(u32, IpAddr, IpAddr)> {
    let head = message.payload.get(..8).filter(|_| message.kind == RTM_NEWADDR)?;
    let (mut here, mut there) = (None, None);
    for (kind, value) in attributes(message.payload.get(8..)?) {
        match kind {
            libc::IFA_LOCAL => here = ip(value),
            libc::IFA_ADDRESS => there = ip(value),
            _ => {}
        }
    }
    let (here, there) = (here?, there?);
    (here != there).then_some((u32_at(head, 4)?, here, there))
}

fn address_message(kind: u16, flags: u16, ifindex: u32, net: IpNet, seq: u32) -> Vec<u8> {
    let family = if net.addr().is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u8;
    let mut head = [family, net.prefix_len(), 0, 0, 0, 0, 0, 0];
    head[4..].copy_from_slice(&ifindex.to_ne_bytes());
    let octets = wire::octets(net.addr());
    let mut list = vec![(libc::IFA_LOCAL, octets.clone()), (libc::IFA_ADDRESS, octets)];
    if kind == RTM_NEWADDR {
        list.push((IFA_PROTO, vec![PROTOCOL_CONFIG]));
    }
    wire::request(kind, flags, &head, &list, seq)
}
