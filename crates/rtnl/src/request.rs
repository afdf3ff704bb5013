//! The bytes of the requests that the mirror sends.

use ipnet::Ipv4Net;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use sag_model::MacAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const RTM_GETNEXTHOP: u16 = 106;

fn bytes(message: RouteNetlinkMessage, flags: u16, seq: u32) -> Vec<u8> {
    let mut packet = NetlinkMessage::from(message);
    packet.header.flags = NLM_F_REQUEST | flags;
    packet.header.sequence_number = seq;
    packet.finalize();
    let mut out = vec![0; packet.buffer_len()];
    packet.serialize(&mut out);
    out
}

fn family(v4: bool) -> AddressFamily {
    if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

pub(crate) fn dump_links(seq: u32) -> Vec<u8> {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    bytes(RouteNetlinkMessage::GetLink(message), NLM_F_DUMP, seq)
}

pub(crate) fn dump_addresses(v4: bool, seq: u32) -> Vec<u8> {
    let mut message = AddressMessage::default();
    message.header.family = family(v4);
    bytes(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP, seq)
}

pub(crate) fn dump_routes(v4: bool, seq: u32) -> Vec<u8> {
    let mut message = RouteMessage::default();
    message.header.address_family = family(v4);
    bytes(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP, seq)
}

pub(crate) fn dump_neighbors(v4: bool, seq: u32) -> Vec<u8> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(v4);
    bytes(RouteNetlinkMessage::GetNeighbour(message), NLM_F_DUMP, seq)
}

/// Written by hand: `netlink-packet-route` has no nexthop messages.
pub(crate) fn dump_nexthops(seq: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    out.extend_from_slice(&24u32.to_ne_bytes());
    out.extend_from_slice(&RTM_GETNEXTHOP.to_ne_bytes());
    out.extend_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    out.extend_from_slice(&seq.to_ne_bytes());
    // Port number of the sender (the kernel knows it), then an empty struct nhmsg.
    out.extend_from_slice(&[0; 12]);
    out
}

/// Requests one link. The kernel answers under its configuration lock, hence after every change that
/// it has begun to announce.
pub(crate) fn get_link(ifindex: u32, seq: u32) -> Vec<u8> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    bytes(RouteNetlinkMessage::GetLink(message), NLM_F_ACK, seq)
}

/// Flags of a neighbour entry to request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NeighborFlags {
    /// The kernel shall keep it resolved by itself.
    pub managed: bool,
    /// Flags that the entry has already and would lose otherwise.
    pub ext_learned: bool,
    pub router: bool,
}

/// Creates a neighbour entry if there is none and has the kernel use it as if it had a packet to send.
pub(crate) fn use_neighbor(ifindex: u32, ip: IpAddr, flags: NeighborFlags, seq: u32) -> Vec<u8> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip.is_ipv4());
    message.header.ifindex = ifindex;
    message.header.state = NeighbourState::None;
    message.header.flags = NeighbourFlags::Use;
    message.header.flags.set(NeighbourFlags::ExtLearned, flags.ext_learned);
    message.header.flags.set(NeighbourFlags::Router, flags.router);
    message.attributes.push(NeighbourAttribute::Destination(ip.into()));
    if flags.managed {
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    }
    bytes(RouteNetlinkMessage::NewNeighbour(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, seq)
}

/// Removes a neighbour entry.
pub(crate) fn delete_neighbor(ifindex: u32, ip: IpAddr, seq: u32) -> Vec<u8> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip.is_ipv4());
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(ip.into()));
    bytes(RouteNetlinkMessage::DelNeighbour(message), NLM_F_ACK, seq)
}

/// Asks for one neighbour entry.
pub(crate) fn get_neighbor(ifindex: u32, ip: IpAddr, seq: u32) -> Vec<u8> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip.is_ipv4());
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(ip.into()));
    bytes(RouteNetlinkMessage::GetNeighbour(message), NLM_F_ACK, seq)
}

/// Adds (or replaces) or removes an IPv4 address.
pub(crate) fn set_address(ifindex: u32, address: Ipv4Net, add: bool, seq: u32) -> Vec<u8> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = address.prefix_len();
    message.header.index = ifindex;
    message.attributes.push(AddressAttribute::Local(IpAddr::V4(address.addr())));
    message.attributes.push(AddressAttribute::Address(IpAddr::V4(address.addr())));
    if add && address.prefix_len() < 31 {
        message.attributes.push(AddressAttribute::Broadcast(address.broadcast()));
    }
    if add {
        bytes(RouteNetlinkMessage::NewAddress(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, seq)
    } else {
        bytes(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK, seq)
    }
}

/// Adds (or replaces) or removes an IPv4 point-to-point address.
pub(crate) fn set_peer_address(
    ifindex: u32,
    local: Ipv4Addr,
    peer: Ipv4Addr,
    add: bool,
    seq: u32,
) -> Vec<u8> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 32;
    message.header.index = ifindex;
    message.attributes.push(AddressAttribute::Local(IpAddr::V4(local)));
    message.attributes.push(AddressAttribute::Address(IpAddr::V4(peer)));
    if add {
        bytes(RouteNetlinkMessage::NewAddress(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, seq)
    } else {
        bytes(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK, seq)
    }
}

/// Adds or removes an IPv6 link-local address, of which no duplicate is looked for.
pub(crate) fn set_link_local(ifindex: u32, address: Ipv6Addr, add: bool, seq: u32) -> Vec<u8> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet6;
    message.header.prefix_len = 64;
    message.header.index = ifindex;
    message.attributes.push(AddressAttribute::Address(IpAddr::V6(address)));
    if add {
        message.header.scope = AddressScope::Link;
        message.header.flags = AddressHeaderFlags::Nodad;
        bytes(RouteNetlinkMessage::NewAddress(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, seq)
    } else {
        bytes(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK, seq)
    }
}

/// Adds a neighbour entry that needs no resolution, if there is none.
pub(crate) fn permanent_neighbor(ifindex: u32, ip: IpAddr, mac: MacAddr, seq: u32) -> Vec<u8> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip.is_ipv4());
    message.header.ifindex = ifindex;
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(ip.into()));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    bytes(RouteNetlinkMessage::NewNeighbour(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, seq)
}

/// Adds or removes an IPv4 default route.
pub(crate) fn set_default(ifindex: u32, gateway: Ipv4Addr, metric: u32, add: bool, seq: u32) -> Vec<u8> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.attributes.push(RouteAttribute::Oif(ifindex));
    message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    message.attributes.push(RouteAttribute::Priority(metric));
    if add {
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = RouteScope::Universe;
        bytes(RouteNetlinkMessage::NewRoute(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, seq)
    } else {
        message.header.scope = RouteScope::NoWhere;
        bytes(RouteNetlinkMessage::DelRoute(message), NLM_F_ACK, seq)
    }
}
