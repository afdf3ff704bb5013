//! Events for the operator: collected by a worker, fetched by its shell.

use super::pool::Endpoint;
use crate::policy::RuleLogged;
use sag_model::{DropReason, MacAddr, VrfNo};
use sag_packet::Family;
use std::net::{IpAddr, Ipv4Addr};

/// What was given back with a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Released {
    /// The binding was given back with its last session.
    pub binding: bool,
    /// Inside endpoint of the binding, if it was given back.
    pub inside: Option<Endpoint>,
    /// So was its port block.
    pub block: Option<u16>,
}

/// Both tuples of a session: as its first packet came, and as it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionTuple {
    /// IP protocol.
    pub proto: u8,
    /// Source address of the first packet as it came.
    pub src: IpAddr,
    /// Its source port, in host order.
    pub sport: u16,
    /// Destination address of the first packet as it came.
    pub dst: IpAddr,
    /// Its destination port.
    pub dport: u16,
    /// Source address of the first packet as it left.
    pub nat_src: IpAddr,
    /// Its source port.
    pub nat_sport: u16,
    /// Destination address of the first packet as it left.
    pub nat_dst: IpAddr,
    /// Its destination port.
    pub nat_dport: u16,
    /// VRF from which the first packet came (`ingressVRFID` of IPFIX).
    pub vrf: VrfNo,
    /// VRF to which it went (`egressVRFID`).
    pub to_vrf: VrfNo,
}

/// What an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A rule that logs has judged a packet.
    Rule(RuleLogged),
    /// A translated session has begun.
    Created {
        /// Address family of the session.
        family: Family,
        /// Number of the session in its family's table.
        number: u32,
        /// Its addresses and ports.
        tuple: SessionTuple,
    },
    /// A translated session has ended.
    Ended {
        /// Address family of the session.
        family: Family,
        /// Number of the session in its family's table.
        number: u32,
        /// Its addresses and ports.
        tuple: SessionTuple,
        /// Packets from the initiator, and towards it.
        packets: [u64; 2],
        /// IP bytes from the initiator, and towards it.
        bytes: [u64; 2],
    },
    /// A host got a block of ports.
    BlockAllocated {
        /// The inside host.
        host: IpAddr,
        /// Its VRF.
        vrf: VrfNo,
        /// The external address.
        external: Ipv4Addr,
        /// First port of the block.
        first: u16,
        /// Last port of the block.
        last: u16,
    },
    /// A host's block of ports was given back.
    BlockReleased {
        /// The inside host.
        host: IpAddr,
        /// Its VRF.
        vrf: VrfNo,
        /// The external address.
        external: Ipv4Addr,
        /// First port of the block.
        first: u16,
        /// Last port of the block.
        last: u16,
    },
    /// A pool's ports are used up to the warning mark.
    PoolLow {
        /// The external address.
        external: Ipv4Addr,
        /// `tcp`, `udp` or `icmp`.
        protocol: &'static str,
        /// Ports in use.
        used: u32,
        /// Ports that can be allocated.
        capacity: u64,
    },
    /// A session was refused because a pool has no free port.
    PoolExhausted {
        /// The external address.
        external: Ipv4Addr,
        /// `tcp`, `udp` or `icmp`.
        protocol: &'static str,
    },
    /// A host has used its share of sessions up to the warning mark.
    HostLow {
        /// The inside host.
        host: IpAddr,
        /// Its VRF.
        vrf: VrfNo,
        /// Its sessions.
        sessions: u64,
        /// How many it may have.
        limit: u64,
    },
    /// A session was refused because its host has as many as it may.
    HostRefused {
        /// The inside host.
        host: IpAddr,
        /// Its VRF.
        vrf: VrfNo,
        /// How many sessions it may have.
        limit: u64,
    },
    /// The peer of a VXLAN tunnel speaks from another Ethernet address than until now.
    TunnelPeerMac {
        /// Number of the tunnel.
        tunnel: u8,
        /// The address until now.
        old: MacAddr,
        /// The address from now on.
        new: MacAddr,
    },
    /// A session was refused because the session table is full and no session may make room.
    TableFull {
        /// Sessions that the table can hold.
        capacity: u32,
    },
    /// A session table fills up: it has passed a mark.
    TableFilling {
        /// Of this family.
        family: Family,
        /// The mark.
        percent: u8,
        /// Sessions in the table.
        sessions: u32,
        /// Sessions that it can hold.
        capacity: u32,
        /// Who has begun most of them, if anybody has many: address, length of its prefix, sessions.
        heaviest: Option<(IpAddr, u8, u32)>,
        /// VRF of the heaviest; an IPv6 network counts in all VRFs together.
        heaviest_vrf: Option<VrfNo>,
    },
    /// A session was refused because its host has its share, and none of its sessions may make room.
    HostOverShare {
        /// The host.
        host: IpAddr,
        /// Its VRF.
        vrf: VrfNo,
        /// Length of the prefix that counts as one host.
        prefix: u8,
        /// Which share.
        reason: DropReason,
    },
}

/// Events of one worker until its shell fetches them. Bounded: what does not fit is counted.
#[derive(Debug)]
pub struct Events {
    list: Vec<Event>,
    /// Events that did not fit.
    pub lost: u64,
}

/// Events between two fetches.
const ROOM: usize = 8192;

impl Default for Events {
    fn default() -> Events {
        Events { list: Vec::with_capacity(ROOM), lost: 0 }
    }
}

impl Events {
    /// Appends an event, or counts it as lost.
    pub fn push(&mut self, e: Event) {
        if self.list.len() < ROOM {
            self.list.push(e);
        } else {
            self.lost += 1;
        }
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Takes what has come since the last call.
    pub fn drain(&mut self) -> impl Iterator<Item = Event> + '_ {
        self.list.drain(..)
    }
}
