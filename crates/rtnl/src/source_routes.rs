//! [`SourceRoutes`]: default routes for what the machine itself says from an address.
//!
//! The kernel's own sockets answer by the routing table, whichever line a question came by. A rule for each address of a line
//! sends them by the line's router: first `main` without its default routes (`suppress_prefixlength 0`), then a table that
//! has the default route of that line alone. Rules and routes bear a protocol number of their own, by which those of an earlier
//! process are found.

use crate::error::{Error, Result};
use crate::socket::Requester;
use crate::wire::{self, octets, request, u8_at, u32_at};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_sys::protocols::NETLINK_ROUTE;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The protocol number of rules and routes made here (`/etc/iproute2/rt_protos` leaves it free).
pub const PROTOCOL: u8 = 0x5A;
/// Tables are numbered from here on.
pub const FIRST_TABLE: u32 = 0x5A00;
/// Priority of the rule that asks `main` without its default routes; the next one asks the table. Right before the rule for
/// `main` (32,766), so that rules of the operator come first.
const PRIORITY: u32 = 32_764;

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
const TABLE_MAIN: u32 = 254;

/// Where packets of the machine's own from an address go that no route of `main` but the default one leads on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceRoute {
    /// The address.
    pub from: IpAddr,
    /// The number of the line, from 0: it has a table.
    pub line: u8,
    /// The interface.
    pub ifindex: u32,
    /// The router; `None`: all is on the link.
    pub via: Option<IpAddr>,
}

/// A rule that is in force: address, priority, table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    from: IpAddr,
    priority: u32,
    table: u32,
}

impl Rule {
    /// Both rules of an address.
    fn pair(r: &SourceRoute) -> [Rule; 2] {
        let table = FIRST_TABLE + u32::from(r.line);
        [
            Rule { from: r.from, priority: PRIORITY, table: TABLE_MAIN },
            Rule { from: r.from, priority: PRIORITY + 1, table },
        ]
    }
}

/// Keeps rules and routes as they are wanted, in the network namespace in which it was opened. Needs `CAP_NET_ADMIN`.
pub struct SourceRoutes {
    requester: Requester,
    rules: BTreeSet<Rule>,
    /// Whether the kernel has rules for IPv4, IPv6 (`CONFIG_IP_MULTIPLE_TABLES`, `CONFIG_IPV6_MULTIPLE_TABLES`).
    has_rules: [bool; 2],
    /// Routes as they were last set.
    routes: BTreeSet<(bool, u8, u32, Option<IpAddr>)>,
}

impl SourceRoutes {
    /// Finds the rules of an earlier process.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read.
    pub fn open() -> Result<SourceRoutes> {
        let mut requester = Requester::open(NETLINK_ROUTE)?;
        let (rules, has_rules) = read_rules(&mut requester)?;
        Ok(SourceRoutes { requester, rules, has_rules, routes: BTreeSet::new() })
    }

    /// Reads again which rules there are. True: somebody else has removed some; the next [`set`](SourceRoutes::set) makes them
    /// again, with their routes, which may have gone as well.
    ///
    /// # Errors
    /// [`Error`] if the kernel cannot be read.
    pub fn reread(&mut self) -> Result<bool> {
        let (rules, _) = read_rules(&mut self.requester)?;
        let lacks_some = !self.rules.is_subset(&rules);
        self.rules = rules;
        if lacks_some {
            self.routes.clear();
        }
        Ok(lacks_some)
    }

    /// Removes all, of earlier processes too, and default routes to which no rule leads any more.
    ///
    /// # Errors
    /// [`Error`]: as of [`set`](SourceRoutes::set).
    pub fn remove_all(&mut self) -> Result<()> {
        self.set(&BTreeSet::new())?;
        let has_rules = self.has_rules;
        for v6 in [false, true].into_iter().filter(|v6| has_rules[usize::from(*v6)]) {
            for line in 0..=u32::from(u8::MAX) {
                self.remove_route(v6, FIRST_TABLE + line, None)?;
            }
        }
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Makes these the only ones. Routes are set before the rules that lead to them, and rules that are not wanted go last.
    ///
    /// # Errors
    /// [`Error`]: no privilege, no such interface, a router that is not on the link, a kernel without rules for the family,
    /// or another refusal of the kernel. What could not be set is tried again with the next call.
    pub fn set(&mut self, wanted: &BTreeSet<SourceRoute>) -> Result<()> {
        let mut failed = Ok(());
        // Without rules the kernel has one table, and would put a route for another one there.
        let (wanted, without): (BTreeSet<SourceRoute>, BTreeSet<SourceRoute>) =
            wanted.iter().copied().partition(|r| self.has_rules[usize::from(r.from.is_ipv6())]);
        if let Some(r) = without.first() {
            let source = std::io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
            failed = Err(Error::neighbor("add a rule for", r.from, r.ifindex, source));
        }
        let routes: BTreeSet<_> =
            wanted.iter().map(|r| (r.from.is_ipv6(), r.line, r.ifindex, r.via)).collect();
        // The kernel removes routes with their link: what is wanted again is set again.
        self.routes.retain(|r| routes.contains(r));
        for &route in routes.difference(&self.routes.clone()) {
            let (v6, line, ifindex, via) = route;
            match self.requester.change(
                "set a default route",
                via,
                ifindex,
                |seq| default_route(v6, line, ifindex, via, seq),
                &[],
            ) {
                Ok(()) => {
                    self.routes.insert(route);
                }
                Err(e) => failed = Err(e),
            }
        }
        let usable = |r: &&SourceRoute| self.routes.contains(&(r.from.is_ipv6(), r.line, r.ifindex, r.via));
        let rules: BTreeSet<Rule> = wanted.iter().filter(usable).flat_map(Rule::pair).collect();
        for &rule in rules.difference(&self.rules.clone()) {
            let add = |seq| rule_message(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, &rule, seq);
            match self.requester.change("add a rule for", Some(rule.from), 0, add, &[libc::EEXIST]) {
                Ok(()) => {
                    self.rules.insert(rule);
                }
                Err(e) => failed = Err(e),
            }
        }
        for rule in self.rules.clone().difference(&rules) {
            let delete = |seq| rule_message(RTM_DELRULE, 0, rule, seq);
            match self.requester.change("remove the rule for", Some(rule.from), 0, delete, &[libc::ENOENT]) {
                Ok(()) => {
                    self.rules.remove(rule);
                    self.remove_route_behind(rule)?;
                }
                Err(e) => failed = Err(e),
            }
        }
        failed
    }

    /// Empties the table of a rule that is gone, unless another one leads there.
    fn remove_route_behind(&mut self, gone: &Rule) -> Result<()> {
        let v6 = gone.from.is_ipv6();
        if gone.table == TABLE_MAIN
            || self.rules.iter().any(|r| r.table == gone.table && r.from.is_ipv6() == v6)
        {
            return Ok(());
        }
        self.remove_route(v6, gone.table, Some(gone.from))
    }

    /// Removes the default route of a table, if it is one of ours.
    fn remove_route(&mut self, v6: bool, table: u32, of: Option<IpAddr>) -> Result<()> {
        let delete = |seq| {
            let table = vec![(libc::RTA_TABLE, table.to_ne_bytes().to_vec())];
            let head = route_header(v6, libc::RT_SCOPE_NOWHERE, PROTOCOL, 0);
            request(RTM_DELROUTE, NLM_F_ACK, &head, &table, seq)
        };
        self.requester.change("remove the default route for", of, 0, delete, &[libc::ESRCH, libc::ENOENT])
    }

    /// The links have changed: routes may have gone with them.
    pub fn forget_routes(&mut self) {
        self.routes.clear();
    }
}

/// The rules with the protocol number above, and which families have rules at all.
fn read_rules(requester: &mut Requester) -> Result<(BTreeSet<Rule>, [bool; 2])> {
    let (mut rules, mut has_rules) = (BTreeSet::new(), [true; 2]);
    for v6 in [false, true] {
        let dump = |seq| request(RTM_GETRULE, NLM_F_DUMP, &rule_header(v6, 0), &[], seq);
        match requester.request("rules", dump, |message| rules.extend(own_rule(message)))? {
            Ok(()) => {}
            Err(e) if is_without_rules(&e) => has_rules[usize::from(v6)] = false,
            Err(source) => return Err(Error::Dump { what: "rules", source }),
        }
    }
    Ok((rules, has_rules))
}

/// What a kernel without policy routing says when its rules are asked for: of one family, or of both.
fn is_without_rules(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}

/// struct fib_rule_hdr: family, lengths of destination and source, tos, table, two reserved bytes, action, flags.
fn rule_header(v6: bool, src_len: u8) -> [u8; 12] {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET } as u8;
    [family, 0, src_len, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0]
}

fn rule_message(kind: u16, flags: u16, rule: &Rule, seq: u32) -> Vec<u8> {
    let from = octets(rule.from);
    let mut attributes = vec![
        (FRA_SRC, from.clone()),
        (FRA_PRIORITY, rule.priority.to_ne_bytes().to_vec()),
        (FRA_TABLE, rule.table.to_ne_bytes().to_vec()),
        (FRA_PROTOCOL, vec![PROTOCOL]),
    ];
    if rule.table == TABLE_MAIN {
        attributes.push((FRA_SUPPRESS_PREFIXLEN, 0u32.to_ne_bytes().to_vec()));
    }
    request(
        kind,
        NLM_F_ACK | flags,
        &rule_header(rule.from.is_ipv6(), from.len() as u8 * 8),
        &attributes,
        seq,
    )
}

/// struct rtmsg of a default route: family, dst len, src len, tos, table, protocol, scope, type, flags.
fn route_header(v6: bool, scope: u8, protocol: u8, kind: u8) -> [u8; 12] {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET } as u8;
    [family, 0, 0, 0, 0, protocol, scope, kind, 0, 0, 0, 0]
}

fn default_route(v6: bool, line: u8, ifindex: u32, via: Option<IpAddr>, seq: u32) -> Vec<u8> {
    let scope = if via.is_some() || v6 { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    let head = route_header(v6, scope, PROTOCOL, libc::RTN_UNICAST);
    let mut attributes = vec![
        (libc::RTA_TABLE, (FIRST_TABLE + u32::from(line)).to_ne_bytes().to_vec()),
        (libc::RTA_OIF, ifindex.to_ne_bytes().to_vec()),
    ];
    if let Some(via) = via {
        attributes.push((libc::RTA_GATEWAY, octets(via)));
    }
    request(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &head, &attributes, seq)
}

/// A rule with the protocol number above.
fn own_rule(message: wire::Message<'_>) -> Option<Rule> {
    if message.kind != RTM_NEWRULE {
        return None;
    }
    let head = message.payload.get(..12)?;
    let (mut from, mut priority, mut table, mut protocol) = (None, 0, u32::from(head[4]), 0);
    for (kind, value) in wire::attributes(message.payload.get(12..)?) {
        match kind {
            FRA_SRC => from = wire::ip(value),
            FRA_PRIORITY => priority = u32_at(value, 0)?,
            FRA_TABLE => table = u32_at(value, 0)?,
            FRA_PROTOCOL => protocol = u8_at(value, 0)?,
            _ => {}
        }
    }
    (protocol == PROTOCOL).then_some(Rule { from: from?, priority, table })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error as IoError;

    #[test]
    fn a_kernel_without_rules_gets_no_routes_for_them() {
        for code in [libc::EAFNOSUPPORT, libc::EOPNOTSUPP] {
            assert!(is_without_rules(&IoError::from_raw_os_error(code)));
        }
        assert!(!is_without_rules(&IoError::from_raw_os_error(libc::EPERM)));

        let Ok(requester) = Requester::open(NETLINK_ROUTE) else { panic!("no netlink") };
        let mut one = SourceRoutes {
            requester,
            rules: BTreeSet::new(),
            has_rules: [false; 2],
            routes: BTreeSet::new(),
        };
        for from in ["203.0.113.2", "2001:db8:a::2"] {
            // An interface that there is, so that the kernel would take a request.
            let from: IpAddr = from.parse().unwrap();
            let wanted = BTreeSet::from([SourceRoute { from, line: 0, ifindex: 1, via: None }]);
            let error = one.set(&wanted).unwrap_err().to_string();
            assert!(error.contains(&from.to_string()), "{error}");
            assert!(one.routes.is_empty() && one.is_empty());
        }
        one.set(&BTreeSet::new()).unwrap();
    }
}
