//! NAT64 in a worker (RFC 6146, RFC 7915): which packets of IPv4 belong to a session in the table of IPv6, new sessions
//! with what they hold, and the translation of a packet.

use super::parts::Sessions;
use super::session_create::{NatRefs, NewSession, not_created};
use super::{BatchEntry, Env, Pipeline, Verdict};
use crate::family::{self, FlowFamily};
use crate::nat::{Behavior, Endpoint, Nat64, NatProtocol, NatState, Released, Snat, is_number};
use crate::session::{self, NAT_FILTER_ENTRY, NAT_HOST};
use crate::snapshot::Snapshot;
use crate::stages::{Nat64Context, New64, Session64, Target64};
use crate::tables::SharedTable;
use sag_model::DropReason;
use sag_model::flow::{FlowRecord6, RecordNo};
use sag_packet::nat64::{self, Ends4, Ends6, MIN_MTU6, Untranslatable, length_in_v4, length_in_v6};
use sag_packet::parse::{Family, Fragment, L4, Parsed};
use sag_packet::proto::ICMPV6;
use sag_packet::rewrite::{self, FrameMut};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;

/// Where and to whom a new session goes: endpoints as they leave.
type Leaving = ((IpAddr, u16), (IpAddr, u16));

/// What the session of a record is to a packet of it.
pub(super) fn session64<R: SharedTable>(
    table: &crate::table::FlowTable<R>,
    no: RecordNo,
) -> Option<Session64> {
    let (r, first) = (table.record(no), table.record(RecordNo::forward(no.session())));
    if !r.crosses() {
        return None;
    }
    let (key, to) = (r.key(), r.translated());
    let (came, leaves) = (R::tuple(&key), R::tuple(&to));
    let of_v6 = came.src.is_ipv6();
    let sides6 = if of_v6 { (came.src, came.dst) } else { (leaves.src, leaves.dst) };
    let dport6 = R::raw_ports(if of_v6 { &key } else { &to }).1;
    let (old, new) = (R::tuple(&first.key()), R::tuple(&first.translated()));
    Some(Session64 {
        sides6,
        dport6,
        to: leaves.dst,
        old: (old.src, old.dst),
        new: (new.src, new.dst),
        sport: R::raw_ports(&first.key()).0,
        proto: old.proto,
        reply: no.direction() == 1,
        to_vrf: R::vrf(&table.record(no.peer()).key()),
    })
}

/// Why a packet that cannot be translated is dropped.
pub(super) const fn reason(why: Untranslatable) -> DropReason {
    match why {
        Untranslatable::Checksum => DropReason::IcmpBadChecksum,
        Untranslatable::Kind | Untranslatable::SegmentsLeft { .. } => DropReason::Nat64Untranslatable,
        Untranslatable::Room => DropReason::FrameTooBig,
    }
}

/// Bytes of a packet in the family in which it leaves, and the most of them that leave in one piece where the next hop
/// takes `mtu`.
#[inline]
pub(super) fn length_and_limit(p: &Parsed, to: &IpAddr, mtu: u16) -> (u16, u16) {
    match (p.family, to) {
        (Family::V6, IpAddr::V4(_)) => (length_in_v4(p), mtu),
        (Family::V4, IpAddr::V6(_)) if p.dont_fragment => (length_in_v6(p), mtu),
        (Family::V4, IpAddr::V6(_)) => (length_in_v6(p), mtu.min(MIN_MTU6)),
        _ => (p.ip_len, mtu),
    }
}

impl Pipeline {
    /// A packet of IPv4 for which its own table has no session, if it belongs to NAT64: as the table of IPv6 knows it.
    pub(super) fn as_nat64(&self, snap: &Snapshot, s: &BatchEntry, frame: &[u8]) -> Option<BatchEntry> {
        if !snap.nat.has_nat64() || s.p.family != Family::V4 || s.found.is_some() {
            return None;
        }
        let table = &self.tables.v6;
        if let L4::IcmpError { .. } = s.p.l4 {
            let quote = family::quoted::<FlowRecord6>(&s.p, frame, s.zone)?;
            let no = table.find(&quote.answers, table.hash(&quote.answers))?;
            return table.record(no).suits(Family::V4).then_some(*s);
        }
        let found = self.find_nat64(s);
        if found.is_none() {
            self.is_inbound64(snap, s).then_some(())?;
        }
        let hash = table.hash(&FlowRecord6::flow_key(&s.p, frame, s.zone));
        Some(BatchEntry { found, hash, ..*s })
    }

    fn find_nat64(&self, s: &BatchEntry) -> Option<RecordNo> {
        let table = &self.tables.v6;
        let key = family::key_of_v4(&s.p.key4(s.zone));
        table.find(&key, table.hash(&key)).filter(|no| table.record(*no).suits(Family::V4))
    }

    /// Whether a packet of no session is for a port that an IPv6 host has outside.
    fn is_inbound64(&self, snap: &Snapshot, s: &BatchEntry) -> bool {
        let Some(protocol) = NatProtocol::of(s.p.proto).filter(|p| *p != NatProtocol::Icmp) else {
            return false;
        };
        let external = snap.nat.externals.get(&s.p.dst4().to_bits());
        let source = external.and_then(|e| snap.nat.source(e.source?));
        let inside = source.and_then(|s_| s_.pool.inside(protocol, s.p.ports().1));
        // An external address of one VRF may be a host's in another.
        let crosses = |to: Endpoint| {
            let (from, host) = ((s.zone.vrf(), s.p.src4().into()), self.tables.nat.host6(to.addr));
            host.is_some_and(|host| snap.may_cross(from, (to.vrf, host.into())))
        };
        inside.is_some_and(|(inside, _)| is_number(inside.addr) && crosses(inside))
    }

    /// What of a packet is NAT64's. `no`: its record, or that of the answers to the packet which it quotes.
    pub(super) fn nat64_context<R: SharedTable>(&self, s: &BatchEntry, no: Option<RecordNo>) -> Nat64Context {
        match no {
            Some(no) => {
                session64(R::table(&self.tables), no).map_or(Nat64Context::None, Nat64Context::Session)
            }
            None if R::FAMILY != s.p.family => Nat64Context::Inbound,
            None => Nat64Context::None,
        }
    }

    /// The shortcut of established flows, for a packet of IPv4 without a session in its own table.
    #[inline(never)]
    pub(super) fn established64(
        &self,
        env: &Env<'_>,
        s: &BatchEntry,
        f: &mut FrameMut<'_>,
        verdict: &mut Verdict,
    ) -> bool {
        match self.find_nat64(s) {
            Some(no) => self.established::<FlowRecord6>(env.snap, env.now, s, no, f, verdict),
            None => false,
        }
    }

    /// Makes a packet of a record, or an error about one, one of the other family.
    ///
    /// `mtu`: what the next hop takes.
    pub(super) fn cross<R: SharedTable>(
        &self,
        snap: &Snapshot,
        s: &BatchEntry,
        (no, is_error): (RecordNo, bool),
        f: &mut FrameMut<'_>,
        mtu: u16,
    ) -> Result<BatchEntry, DropReason> {
        let to = R::table(&self.tables).record(no).translated();
        let (addrs, (sport, dport)) = (R::tuple(&to), R::raw_ports(&to));
        let ports = (sport.to_be(), dport.to_be());
        // What is quoted went the other way.
        let back = (ports.1, ports.0);
        let here = snap.port(s.ingress).map_or(mtu, |p| p.mtu);
        let p = match (s.p.family, addrs.src, addrs.dst) {
            (Family::V6, IpAddr::V4(src), IpAddr::V4(dst)) if is_error => {
                let (outer, quoted) = (Ends4 { src, dst, ports }, Ends4 { src: dst, dst: src, ports: back });
                let mtu = mtu.min(here.saturating_sub(20));
                nat64::error_to_v4(
                    f,
                    &s.p,
                    &outer,
                    &quoted,
                    (mtu, self.tables.nat.identifications.next(Some(dst))),
                )
            }
            (Family::V6, IpAddr::V4(src), IpAddr::V4(dst)) => {
                let whole = s.p.fragment == Fragment::Whole;
                let id = if whole { self.tables.nat.identifications.next(Some(dst)) } else { s.new_id };
                let p = nat64::to_v4(f, &s.p, &Ends4 { src, dst, ports }, id);
                if let (Ok(p), false) = (&p, whole) {
                    // Hosts behind the address may share the low half of that of IPv6 (RFC 6864 section 5.3.1).
                    rewrite::set_identification(f.bytes_mut(), p, id);
                }
                p
            }
            (Family::V4, IpAddr::V6(src), IpAddr::V6(dst)) if is_error => {
                // A router that has no address behind the prefix speaks with that of the session's far end.
                let router = snap.nat.nat64(src).filter(|n| n.may_embed(s.p.src4()));
                let router = router.map_or(src, |n| n.prefix.embed(s.p.src4()));
                let (outer, quoted) =
                    (Ends6 { src: router, dst, ports }, Ends6 { src: dst, dst: src, ports: back });
                nat64::error_to_v6(f, &s.p, &outer, &quoted, mtu.min(here.saturating_add(20)))
            }
            (Family::V4, IpAddr::V6(src), IpAddr::V6(dst)) => {
                nat64::to_v6(f, &s.p, &Ends6 { src, dst, ports })
            }
            (Family::V6, IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (outer, quoted) = (Ends6 { src, dst, ports }, Ends6 { src: dst, dst: src, ports: back });
                if is_error {
                    nat64::error_readdressed(f, &s.p, &outer, &quoted)
                } else {
                    nat64::readdressed(f, &s.p, &outer)
                }
            }
            _ => Err(Untranslatable::Kind),
        };
        Ok(BatchEntry { p: p.map_err(reason)?, ..*s })
    }

    /// A session that an IPv6 host begins with one of IPv4, or the other way, or with another of IPv6 by its external
    /// address.
    pub(super) fn create_nat64<R: SharedTable>(
        &mut self,
        first: &NewSession<'_>,
        key: &R::Key,
        new: &New64,
    ) -> Result<RecordNo, DropReason> {
        let NewSession { snap, s, frame, .. } = *first;
        let by = snap.nat.nat64.get(usize::from(new.entry)).ok_or(DropReason::NatNoAddress)?;
        let (sport, dport) = s.p.ports();
        let mut refs = NatRefs::default();
        let (to, called) = match (new.target, s.p.dst(frame)) {
            (Target64::V4(addr), _) => ((addr.into(), dport), Some(addr)),
            (Target64::Host { host, inside, binding }, dst) => {
                let nat = &self.tables.nat;
                // Whose the port is was found without holding it.
                let holds = nat.host6_session_shares(inside.addr);
                let same = holds == Some(host) && nat.share(binding, inside);
                if !same {
                    if holds.is_some() {
                        nat.host6_session_ended(inside.addr);
                    }
                    return Err(DropReason::NatFiltered);
                }
                refs.bindings[1] = binding.0;
                let called = match dst {
                    IpAddr::V6(dst) => by.prefix.extract(dst),
                    IpAddr::V4(_) => None,
                };
                ((host.into(), inside.port), called)
            }
        };
        let made = match (s.p.src(frame), new.snat, called) {
            (IpAddr::V4(src), ..) => {
                let from = (by.prefix.embed(src).into(), sport);
                self.create_leaving::<R>(first, key, (from, to), &refs)
            }
            (IpAddr::V6(_), Some(snat), Some(called)) => {
                let called = Endpoint::new(called, dport);
                self.lease_nat64::<R>(first, key, (&snat, called, to.0), &mut refs).and_then(|port| {
                    let from = match to.0 {
                        IpAddr::V4(_) => snat.addr.into(),
                        IpAddr::V6(_) => by.prefix.embed(snat.addr).into(),
                    };
                    self.create_leaving::<R>(first, key, ((from, port), to), &refs)
                })
            }
            _ => Err(DropReason::NatNoAddress),
        };
        match made {
            Ok(_) => self.count_nat64(by, new),
            Err(_) => give_back(&self.tables.nat, snap, &mut self.sessions, &refs, called),
        }
        made
    }

    fn count_nat64(&self, by: &Nat64, new: &New64) {
        by.hits.sessions.fetch_add(1, Ordering::Relaxed);
        if let (Target64::Host { .. }, Some(_)) = (new.target, new.snat) {
            self.tables.nat.totals.hairpinned.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn create_leaving<R: SharedTable>(
        &mut self,
        first: &NewSession<'_>,
        key: &R::Key,
        (from, to): Leaving,
        refs: &NatRefs,
    ) -> Result<RecordNo, DropReason> {
        let new = R::with_endpoints64(key, from, to);
        self.create::<R>(first, (key, &new), *refs).map_err(not_created)
    }

    /// The external port of an IPv6 host, which the session holds from now on as it counts for the host.
    fn lease_nat64<R: SharedTable>(
        &mut self,
        first: &NewSession<'_>,
        key: &R::Key,
        (snat, called, to): (&Snat, Endpoint, IpAddr),
        refs: &mut NatRefs,
    ) -> Result<u16, DropReason> {
        let NewSession { snap, s, frame, .. } = *first;
        let protocol = match s.p.proto {
            ICMPV6 => Some(NatProtocol::Icmp),
            proto => NatProtocol::of(proto),
        };
        let source = snat.source.and_then(|no| snap.nat.source(no)).filter(|s| s.pool.has_slots());
        let (Some(protocol), Some(source)) = (protocol, source) else { return Err(DropReason::NatNoAddress) };
        let IpAddr::V6(host) = s.p.src(frame) else { return Err(DropReason::NatNoAddress) };
        let number = self.tables.nat.host6_session_started(host).ok_or(DropReason::SnatExhausted)?;
        let inside = Endpoint { addr: number, port: s.p.ports().0, vrf: s.zone.vrf() };
        if let Err(reason) = self.count_host(snap, inside, refs) {
            self.tables.nat.host6_session_ended(number);
            return Err(reason);
        }
        let external = source.pool.addr();
        let lease = self.lease_port::<R>(first, key, (source, protocol), (inside, called));
        let lease = match lease {
            Ok(lease) => lease,
            Err(reason) => {
                if refs.flags & NAT_HOST != 0 {
                    self.tables.nat.host_session_ended(inside.host());
                    refs.flags &= !NAT_HOST;
                }
                self.tables.nat.host6_session_ended(number);
                return Err(reason);
            }
        };
        // From here on the binding says which host it is of.
        refs.bindings[0] = lease.binding.0;
        self.report_lease(snap, external, protocol, inside, &lease, source);
        if snap.tunnels.takes(external.into(), called.addr.into(), (s.p.proto, lease.port)) {
            // Its answers would be a tunnel's packets.
            return Err(DropReason::SnatExhausted);
        }
        // Hosts inside answer whatever the filter says.
        if source.filtering == Behavior::AddressDependent
            && to.is_ipv4()
            && protocol != NatProtocol::Icmp
            && self.tables.nat.add_filter_entry(lease.binding, called.addr)
        {
            refs.flags |= NAT_FILTER_ENTRY;
        }
        Ok(lease.port)
    }

    /// What a session that was not made would have held.
    pub(super) fn give_back_nat64<R: SharedTable>(&mut self, snap: &Snapshot, new: &R::Key, refs: &NatRefs) {
        let remote = match R::tuple(new).dst {
            IpAddr::V4(addr) => Some(addr),
            IpAddr::V6(_) => None,
        };
        give_back(&self.tables.nat, snap, &mut self.sessions, refs, remote);
    }
}

fn give_back(
    nat: &NatState,
    snap: &Snapshot,
    sessions: &mut Sessions,
    refs: &NatRefs,
    remote: Option<Ipv4Addr>,
) {
    nat.end_nat64(refs.bindings, refs.flags, remote, |binding, released: Released| {
        session::report_released(nat, snap, &mut sessions.events, binding, released);
    });
}
