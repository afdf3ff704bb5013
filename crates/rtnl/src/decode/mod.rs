//! Kernel messages into events of the mirror.
//!
//! Only the attributes that the mirror needs are read, one by one, straight from the bytes: a full
//! parse of a message (as `netlink-packet-route` offers it) fails as a whole when one attribute of a
//! newer kernel looks unfamiliar, and a lost link message would take a port down.

mod iface;
mod route;

#[cfg(test)]
mod tests;

use crate::route::{NexthopObject, PROTOCOL_CONFIG, Route};
use crate::types::{Address, Link, Neighbor};
use crate::wire::Message;
use std::net::IpAddr;

const RTM_NEWNETCONF: u16 = 80;

/// A change of the kernel's tables, or one entry of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Link(Link),
    LinkGone(u32),
    Address(Address),
    AddressGone(Address),
    Neighbor(Neighbor),
    NeighborGone(u32, IpAddr),
    Route {
        route: Route,
        /// It takes the place of the route under the same key.
        replace: bool,
        /// It stands behind the routes under the same key.
        append: bool,
    },
    RouteGone(Route),
    Nexthop(NexthopObject),
    NexthopGone(u32),
    /// A setting of a device, or of all of them, has another value.
    Setting,
}

/// The message is of a kind that the mirror follows, but a field that must be there is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// `Ok(None)` for what the mirror does not follow: other message types, families and tables, and the routes that the
/// gateway itself has taken from its configuration.
pub(crate) fn decode(message: Message<'_>) -> Result<Option<Event>, Malformed> {
    let bytes = message.payload;
    match message.kind {
        libc::RTM_NEWLINK => iface::link(bytes, false),
        libc::RTM_DELLINK => iface::link(bytes, true),
        libc::RTM_NEWADDR => iface::address(bytes, false),
        libc::RTM_DELADDR => iface::address(bytes, true),
        libc::RTM_NEWNEIGH => iface::neighbor(bytes, false),
        libc::RTM_DELNEIGH => iface::neighbor(bytes, true),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE if is_from_config(bytes) => Ok(None),
        libc::RTM_NEWROUTE => route::route(bytes, message.flags, false),
        libc::RTM_DELROUTE => route::route(bytes, message.flags, true),
        route::RTM_NEWNEXTHOP => route::nexthop_object(bytes, false),
        route::RTM_DELNEXTHOP => route::nexthop_object(bytes, true),
        RTM_NEWNETCONF => Ok(Some(Event::Setting)),
        _ => Ok(None),
    }
}

/// The protocol of struct rtmsg.
fn is_from_config(bytes: &[u8]) -> bool {
    bytes.get(5) == Some(&PROTOCOL_CONFIG)
}

/// A route that the gateway has taken from its configuration.
pub(crate) fn config_route(message: Message<'_>) -> Option<Route> {
    let ours = message.kind == libc::RTM_NEWROUTE && is_from_config(message.payload);
    match route::route(message.payload, message.flags, false) {
        Ok(Some(Event::Route { route, .. })) if ours => Some(route),
        _ => None,
    }
}
