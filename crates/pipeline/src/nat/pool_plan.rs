//! Which pool each external address has: chosen while a policy is compiled, made ready when it is published.

use super::pool::{POOL_WORDS, Pool};
use super::{NatState, POOLS};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// The port pools of a policy. Choosing them changes nothing that workers or XDP see; [`NatState::apply`] does.
#[derive(Debug, Default)]
pub struct PoolPlan {
    assigned: Vec<Assigned>,
    /// Ports of static forwards by external address, as the words of XDP's map. Other addresses have none.
    pub(super) forwarded: HashMap<Ipv4Addr, Vec<u64>>,
    /// Ports at which tunnels end, the same way.
    pub(super) tunnels: HashMap<Ipv4Addr, Vec<u64>>,
    /// IPv6 hosts are translated to IPv4.
    pub(super) hosts6: bool,
}

#[derive(Debug)]
struct Assigned {
    addr: Ipv4Addr,
    pool: Arc<Pool>,
    /// Sessions get ports of it.
    allocates: bool,
}

impl PoolPlan {
    /// The pool of an external address: the one that it has, one that has not been made yet, or that of an address that
    /// is out of use. `None`: all pools are in use by other addresses.
    pub(super) fn assign(&mut self, state: &NatState, addr: Ipv4Addr) -> Option<Arc<Pool>> {
        if let Some(known) = self.assigned.iter().find(|a| a.addr == addr) {
            return Some(known.pool.clone());
        }
        let is_free = |pool: &Arc<Pool>| !self.assigned.iter().any(|a| Arc::ptr_eq(&a.pool, pool));
        let known = || state.pools().find(|p| p.addr() == addr && is_free(p)).cloned();
        let new = || {
            let taken = |no: usize| {
                state.pools[no].get().is_some() || self.assigned.iter().any(|a| usize::from(a.pool.no) == no)
            };
            let no = (0..POOLS).find(|no| !taken(*no))?;
            let words = state.xdp_port_bitmap.get(no * POOL_WORDS..(no + 1) * POOL_WORDS).unwrap_or(&[]);
            Some(Arc::new(Pool::new(no as u8, addr, words)))
        };
        // No snapshot names it any more, and no session holds a port of it.
        let unused = || state.pools().find(|p| Arc::strong_count(p) == 1 && p.idle() && is_free(p)).cloned();
        let pool = known().or_else(new).or_else(unused)?;
        self.assigned.push(Assigned { addr, pool: pool.clone(), allocates: false });
        Some(pool)
    }

    /// Sessions get ports of this address.
    pub(super) fn allocates(&mut self, addr: Ipv4Addr) {
        self.assigned.iter_mut().filter(|a| a.addr == addr).for_each(|a| a.allocates = true);
    }
}

impl NatState {
    /// Makes the pools of a plan ready, and shows XDP which ports are forwarded. For the control thread, before a
    /// snapshot has the policy; plans are applied in the order in which they were made.
    pub fn apply(&self, plan: &PoolPlan) {
        if plan.hosts6 {
            self.make_hosts6();
        }
        for Assigned { addr, pool, allocates } in &plan.assigned {
            let place = &self.pools[usize::from(pool.no)];
            if place.get().is_none() {
                pool.clear_xdp_ports();
                // Nobody else sets it: plans are applied by one thread.
                let _ = place.set(pool.clone());
            } else if pool.addr() != *addr {
                pool.become_another(*addr);
            }
            if *allocates {
                pool.allocate_slots();
            }
        }
        let none = [0; POOL_WORDS];
        for pool in self.pools() {
            pool.fix(plan.forwarded.get(&pool.addr()).map_or(&none, |bits| bits));
            pool.leave_to_tunnels(plan.tunnels.get(&pool.addr()).map_or(&none, |bits| bits));
        }
    }
}
