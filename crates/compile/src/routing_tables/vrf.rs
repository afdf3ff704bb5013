//! The prefixes of a VRF.

use crate::problem::Problem;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sag_fib::{Fib, FibAddr, Limits, Table, TableError};
use std::net::{Ipv4Addr, Ipv6Addr};

/// All of IPv4, and all of IPv6.
pub(super) const FAMILIES: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
];

/// Prefixes of IPv4 and of IPv6 with the numbers of their ways.
pub(super) type Prefixes = (Vec<(u32, u8, u32)>, Vec<(u128, u8, u32)>);

fn v4((addr, len, no): (u32, u8, u32)) -> Option<(IpNet, u32)> {
    Some((IpNet::V4(Ipv4Net::new(Ipv4Addr::from_bits(addr), len).ok()?), no))
}

fn v6((addr, len, no): (u128, u8, u32)) -> Option<(IpNet, u32)> {
    Some((IpNet::V6(Ipv6Net::new(Ipv6Addr::from_bits(addr), len).ok()?), no))
}

/// The prefixes of a VRF.
#[derive(Debug, Default)]
pub(super) struct VrfTables {
    v4: Table<u32>,
    v6: Table<u128>,
}

impl VrfTables {
    /// A table of these prefixes, which come with the numbers of their ways.
    pub fn of(prefixes: &Prefixes, problems: &mut Vec<Problem>) -> VrfTables {
        VrfTables { v4: build(&prefixes.0, problems), v6: build(&prefixes.1, problems) }
    }

    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// What lookups read.
    pub fn fibs(&self) -> (Fib<u32>, Fib<u128>) {
        (self.v4.snapshot(), self.v6.snapshot())
    }

    pub fn get(&self, dst: &IpNet) -> Option<u32> {
        match dst {
            IpNet::V4(n) => self.v4.get(n.addr().to_bits(), n.prefix_len()),
            IpNet::V6(n) => self.v6.get(n.addr().to_bits(), n.prefix_len()),
        }
    }

    pub fn set(&mut self, dst: &IpNet, no: Option<u32>) -> Result<(), TableError> {
        let (len, added) = (dst.prefix_len(), no.is_some());
        let done = match (dst, no) {
            (IpNet::V4(n), Some(no)) => self.v4.insert(n.addr().to_bits(), len, no)?,
            (IpNet::V6(n), Some(no)) => self.v6.insert(n.addr().to_bits(), len, no)?,
            (IpNet::V4(n), None) => self.v4.remove(n.addr().to_bits(), len),
            (IpNet::V6(n), None) => self.v6.remove(n.addr().to_bits(), len),
        };
        debug_assert!(added || done.is_some(), "{dst} is there");
        Ok(())
    }

    pub fn longest(&self, dst: &IpNet) -> Option<(u8, u32)> {
        match dst {
            IpNet::V4(n) => self.v4.longest(n.addr().to_bits(), n.prefix_len()).map(|(_, len, no)| (len, no)),
            IpNet::V6(n) => self.v6.longest(n.addr().to_bits(), n.prefix_len()).map(|(_, len, no)| (len, no)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (IpNet, u32)> + '_ {
        FAMILIES.into_iter().flat_map(|net| self.within(net))
    }

    /// The prefixes within one, or all, IPv4 first; of these those behind another one.
    pub fn select(
        &self,
        within: Option<IpNet>,
        after: Option<IpNet>,
    ) -> impl Iterator<Item = (IpNet, u32)> + '_ {
        let nets = within.map_or(FAMILIES.to_vec(), |net| vec![net]);
        nets.into_iter().flat_map(move |net| match after {
            Some(after) => self.within_after(net, after),
            None => self.within(net),
        })
    }

    fn within_after(&self, net: IpNet, after: IpNet) -> Box<dyn Iterator<Item = (IpNet, u32)> + '_> {
        match (net, after) {
            (IpNet::V4(n), IpNet::V4(a)) => {
                let key = |n: Ipv4Net| (n.network().to_bits(), n.prefix_len());
                Box::new(self.v4.within_after(key(n), key(a)).filter_map(v4))
            }
            (IpNet::V6(n), IpNet::V6(a)) => {
                let key = |n: Ipv6Net| (n.network().to_bits(), n.prefix_len());
                Box::new(self.v6.within_after(key(n), key(a)).filter_map(v6))
            }
            (IpNet::V4(_), IpNet::V6(_)) => Box::new(std::iter::empty()),
            (IpNet::V6(_), IpNet::V4(_)) => self.within(net),
        }
    }

    pub fn within(&self, net: IpNet) -> Box<dyn Iterator<Item = (IpNet, u32)> + '_> {
        match net {
            IpNet::V4(n) => Box::new(self.v4.within(n.addr().to_bits(), n.prefix_len()).filter_map(v4)),
            IpNet::V6(n) => Box::new(self.v6.within(n.addr().to_bits(), n.prefix_len()).filter_map(v6)),
        }
    }
}

/// A table of prefixes, of so many as it takes.
fn build<A: FibAddr>(prefixes: &[(A, u8, u32)], problems: &mut Vec<Problem>) -> Table<A> {
    let limit = Limits::MAX.routes;
    let build = |count: usize| Table::build(prefixes.iter().take(count).copied());
    build(usize::MAX)
        .or_else(|_| {
            problems.push(Problem::TooManyRoutes { limit });
            build(limit)
        })
        // There are as many now as there may be.
        .unwrap_or_default()
}
