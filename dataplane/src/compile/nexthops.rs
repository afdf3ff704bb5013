//! Next hops: a number for each (port, address) that packets are handed to, for the daemon's life,
//! and the shared record behind it.

use super::PortBinding;
use sag_model::config::Config;
use sag_model::flow::{NH_VALID, NextHopRecord};
use sag_model::{MacAddr, PortIdx};
use sag_pipeline::snapshot::{NeighborMap, NextHop, NhIdx};
use sag_rtnl::Tables;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::Range;

#[derive(Debug)]
pub struct NextHops {
    records: &'static [NextHopRecord],
    by_key: NeighborMap,
    next: usize,
    end: usize,
    /// Where an earlier daemon's records are, which flows of its epoch still use.
    predecessor: Option<Range<usize>>,
    /// Addresses made up for unknown neighbours (replay).
    invent: bool,
}

impl NextHops {
    /// Over shared records; number 0 is not used. One daemon uses one half of them, so that the
    /// records of its predecessor, which begin at `last`, stand until all flows have been judged anew.
    /// What is left in its own half is of an earlier one that had no time to end it: flows that still
    /// use it resolve their route anew.
    pub fn new(records: &'static [NextHopRecord], last: u32) -> NextHops {
        let half = records.len() / 2;
        let (next, end, predecessor) = match last {
            1 => (half, records.len(), 1..half),
            _ => (1, half, half..records.len()),
        };
        end_all(records.get(next..end));
        NextHops {
            records,
            by_key: NeighborMap::default(),
            next,
            end,
            predecessor: Some(predecessor),
            invent: false,
        }
    }

    /// Over memory of its own; unknown neighbours get an address derived from theirs.
    pub fn inventing(count: usize) -> NextHops {
        let records: &'static [NextHopRecord] =
            Vec::leak((0..count.min(usize::from(NhIdx::MAX))).map(|_| NextHopRecord::default()).collect());
        NextHops {
            records,
            by_key: NeighborMap::default(),
            next: 1,
            end: records.len(),
            predecessor: None,
            invent: true,
        }
    }

    pub fn map(&self) -> &NeighborMap {
        &self.by_key
    }

    pub fn records(&self) -> &'static [NextHopRecord] {
        self.records
    }

    pub fn get(&self, port: PortIdx, ip: IpAddr) -> Option<NextHop> {
        let idx = *self.by_key.get(&(port, ip))?;
        self.records.get(usize::from(idx)).map(NextHop::load)
    }

    /// The number of a next hop, new if need be. `None`: all numbers are taken.
    pub fn number(&mut self, port: PortIdx, ip: IpAddr) -> Option<NhIdx> {
        if let Some(&n) = self.by_key.get(&(port, ip)) {
            return Some(n);
        }
        if self.next >= self.end {
            return None;
        }
        let n = NhIdx::try_from(self.next).ok()?;
        self.next += 1;
        self.by_key.insert((port, ip), n);
        Some(n)
    }

    /// Brings all records in line with the kernel's neighbours and the ports.
    pub fn refresh(&mut self, config: &Config, tables: &Tables, bindings: &[PortBinding]) {
        let mut macs: BTreeMap<(PortIdx, IpAddr), MacAddr> = BTreeMap::new();
        let by_l3: HashMap<u32, PortIdx> =
            bindings.iter().filter(|b| b.ours()).filter_map(|b| Some((b.l3_ifindex?, b.idx))).collect();
        for n in tables.neighbors().filter(|n| n.usable()) {
            if let (Some(&port), Some(mac)) = (by_l3.get(&n.ifindex), n.mac)
                && !n.ip.is_multicast()
                && !mac.is_multicast()
            {
                macs.insert((port, n.ip), mac);
            }
        }
        for n in &config.neighbors {
            macs.insert((n.port, n.address), n.mac);
        }
        for &(port, ip) in macs.keys() {
            self.number(port, ip);
        }
        for (&(port, ip), &idx) in &self.by_key {
            let invented = || self.invent.then(|| invented_mac(ip));
            let mac = macs.get(&(port, ip)).copied().or_else(invented);
            let Some(record) = self.records.get(usize::from(idx)) else { continue };
            let old = NextHop::load(record);
            let binding = bindings.iter().find(|b| b.idx == port && b.ours());
            let new = match (binding, mac) {
                (Some(b), Some(dmac)) => NextHop {
                    dmac,
                    smac: b.port.mac,
                    vlan: b.port.vlan,
                    mtu: b.port.mtu,
                    ifindex: b.port.ifindex,
                    dev: b.port.dev,
                    port,
                    generation: old.generation,
                    flags: if b.port.up { NH_VALID } else { 0 },
                },
                _ => NextHop { flags: 0, port, ..old },
            };
            if new != old {
                new.store(record);
            }
        }
    }

    /// Ends the records of an earlier daemon. To be called when no flow of its epoch is left.
    pub fn forget_predecessor(&mut self) {
        end_all(self.predecessor.take().and_then(|range| self.records.get(range)));
    }

    /// Where the records of this daemon begin.
    pub fn first(&self) -> u32 {
        if self.end == self.records.len() { (self.records.len() / 2) as u32 } else { 1 }
    }

    /// Makes flows over next hops of a port resolve their route anew.
    pub fn bump(&self, mut concerns: impl FnMut(PortIdx, IpAddr) -> bool) -> usize {
        let mut n = 0;
        for (&(port, ip), &idx) in &self.by_key {
            if concerns(port, ip)
                && let Some(record) = self.records.get(usize::from(idx))
            {
                let old = NextHop::load(record);
                NextHop { generation: old.generation.wrapping_add(1), ..old }.store(record);
                n += 1;
            }
        }
        n
    }
}

/// Nobody uses these any more; who still does asks a worker.
fn end_all(records: Option<&[NextHopRecord]>) {
    for r in records.into_iter().flatten() {
        let old = NextHop::load(r);
        if old.ifindex != 0 || old.generation != 0 {
            NextHop { generation: old.generation.wrapping_add(1), flags: 0, ..old }.store(r);
        }
    }
}

/// 02:00 and the last four bytes of the address: recognisable in a capture.
fn invented_mac(ip: IpAddr) -> MacAddr {
    let tail = match ip {
        IpAddr::V4(a) => a.octets(),
        IpAddr::V6(a) => {
            let o = a.octets();
            [o[12], o[13], o[14], o[15]]
        }
    };
    MacAddr([0x02, 0x00, tail[0], tail[1], tail[2], tail[3]])
}
