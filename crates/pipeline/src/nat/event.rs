//! Events for the operator: collected by a worker, fetched by its shell.

use super::pool::Endpoint;
use sag_packet::Family;
use std::net::{IpAddr, Ipv4Addr};

/// What was given back with a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Released {
    /// The binding was given back with its last session.
    pub binding: bool,
    pub inside: Option<Endpoint>,
    /// So was its port block.
    pub block: Option<u16>,
}

/// Both tuples of a session: as its first packet came, and as it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionTuple {
    pub proto: u8,
    pub src: IpAddr,
    pub sport: u16,
    pub dst: IpAddr,
    pub dport: u16,
    pub nat_src: IpAddr,
    pub nat_sport: u16,
    pub nat_dst: IpAddr,
    pub nat_dport: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Created {
        family: Family,
        number: u32,
        tuple: SessionTuple,
    },
    Ended {
        family: Family,
        number: u32,
        tuple: SessionTuple,
        packets: [u64; 2],
        bytes: [u64; 2],
    },
    BlockAllocated {
        host: Ipv4Addr,
        external: Ipv4Addr,
        first: u16,
        last: u16,
    },
    BlockReleased {
        host: Ipv4Addr,
        external: Ipv4Addr,
        first: u16,
        last: u16,
    },
    /// A pool's ports are used up to the warning mark.
    PoolLow {
        external: Ipv4Addr,
        protocol: &'static str,
        used: u32,
        capacity: u64,
    },
    PoolExhausted {
        external: Ipv4Addr,
        protocol: &'static str,
    },
    /// A host has used its share of sessions up to the warning mark.
    HostLow {
        host: Ipv4Addr,
        sessions: u64,
        limit: u64,
    },
    HostRefused {
        host: Ipv4Addr,
        limit: u64,
    },
    /// The session table is full: unanswered sessions make room.
    TableFull {
        capacity: u32,
    },
}

/// Events of one worker until its shell fetches them. Bounded: what does not fit is counted.
#[derive(Debug)]
pub struct Events {
    list: Vec<Event>,
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
    pub fn push(&mut self, e: Event) {
        if self.list.len() < ROOM {
            self.list.push(e);
        } else {
            self.lost += 1;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Takes what has come since the last call.
    pub fn drain(&mut self) -> impl Iterator<Item = Event> + '_ {
        self.list.drain(..)
    }
}
