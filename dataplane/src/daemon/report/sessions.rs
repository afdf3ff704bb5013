//! Sessions as the operator sees them: one pass over the tables; rows are written only for those that are shown.

use crate::daemon::view::View;
use sag_model::Nanos;
use sag_model::control::{self, IpProto, SessionFacts};
use sag_model::flow::{FlowRecord4, FlowRecord6, RecordNo};
use sag_model::time::{TICK_SHIFT, Tick};
use sag_packet::parse::Family;
use sag_pipeline::ids::RuleSlot;
use sag_pipeline::policy::Tuple;
use sag_pipeline::session::{self, State};
use sag_pipeline::tables::SharedTable;
use sag_xsk::sys;
use std::sync::atomic::Ordering;

impl View<'_> {
    /// Calls `f` with every live session.
    pub fn each_session(&self, mut f: impl FnMut(SessionRef, &SessionFacts<'_>)) {
        let now = Nanos(sys::now()).tick();
        self.each_of::<FlowRecord4>(now, &mut f);
        self.each_of::<FlowRecord6>(now, &mut f);
    }

    fn each_of<R: SharedTable>(&self, now: Tick, f: &mut impl FnMut(SessionRef, &SessionFacts<'_>)) {
        let table = R::table(&self.flows.tables);
        for n in 1..table.used() {
            let meta = table.meta(n);
            let Some(state) = session::state_of(table, n).filter(|s| *s != State::Denied) else { continue };
            let (a, b) = (table.record(RecordNo::forward(n)), table.record(RecordNo::reverse(n)));
            let t = R::tuple(&a.key());
            let (sport, dport) = shown_ports(&t, a.key_ports());
            let ports = meta.ports.load(Ordering::Relaxed);
            let rule = RuleSlot::from_word(meta.rule.load(Ordering::Relaxed))
                .and_then(|s| self.publisher.snapshot.acl.name(s));
            let replies = b.packets().load(Ordering::Relaxed);
            let age_s = seconds(now.since(Tick(meta.created.load(Ordering::Relaxed))));
            let new = session::tuples(table, n);
            let (new_src, new_dst) = ((new.nat_src, new.nat_sport), (new.nat_dst, new.nat_dport));
            let nat_src = (new_src != (new.src, new.sport)).then_some(new_src);
            let nat_dst = (new_dst != (new.dst, new.dport)).then_some(new_dst);
            let facts = SessionFacts {
                proto: IpProto(t.proto),
                src: t.src,
                sport,
                dst: t.dst,
                dport,
                nat_src: nat_src.map(|(a, _)| a),
                nat_sport: nat_src.map(|(_, p)| p),
                nat_dst: nat_dst.map(|(a, _)| a),
                nat_dport: nat_dst.map(|(_, p)| p),
                state: shown_state(state, replies),
                age_s,
                idle_s: seconds(session::idle(table, n, now)),
                packets: a.packets().load(Ordering::Relaxed),
                bytes: a.bytes().load(Ordering::Relaxed),
                reply_packets: replies,
                reply_bytes: b.bytes().load(Ordering::Relaxed),
                in_port: self.port_name(ports as u8),
                out_port: self.port_name((ports >> 8) as u8),
                rule,
                vrf: self.compiler.vrfs.name(R::vrf(&a.key())),
                to_vrf: self.compiler.vrfs.name(R::vrf(&b.key())),
            };
            f(SessionRef { family: R::FAMILY, number: n, age_s }, &facts);
        }
    }

    /// The rows of these sessions, in their order.
    pub fn session_rows(&self, selected: &[SessionRef]) -> Vec<control::Session> {
        let mut rows: Vec<Option<control::Session>> = vec![None; selected.len()];
        self.each_session(|r, s| {
            if let Some(i) = selected.iter().position(|s| s.family == r.family && s.number == r.number) {
                rows[i] = Some(control::Session {
                    family: if r.family == Family::V4 { 4 } else { 6 },
                    proto: s.proto,
                    src: s.src,
                    sport: s.sport,
                    dst: s.dst,
                    dport: s.dport,
                    nat_src: s.nat_src,
                    nat_sport: s.nat_sport,
                    nat_dst: s.nat_dst,
                    nat_dport: s.nat_dport,
                    state: s.state.to_owned(),
                    age_s: r.age_s,
                    idle_s: s.idle_s,
                    packets: s.packets,
                    bytes: s.bytes,
                    reply_packets: s.reply_packets,
                    reply_bytes: s.reply_bytes,
                    in_port: s.in_port.to_owned(),
                    out_port: s.out_port.to_owned(),
                    rule: s.rule.map(str::to_owned),
                    vrf: s.vrf.map(str::to_owned),
                    to_vrf: s.to_vrf.map(str::to_owned),
                });
            }
        });
        rows.into_iter().flatten().collect()
    }
}

/// A session's place, to find it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionRef {
    pub family: Family,
    pub number: u32,
    pub age_s: u64,
}

/// Ports of a record's key as they stand in it; ICMP echo carries its identifier there.
trait KeyPorts {
    fn key_ports(&self) -> (u16, u16);
}

impl<R: SharedTable> KeyPorts for R {
    fn key_ports(&self) -> (u16, u16) {
        R::raw_ports(&self.key())
    }
}

fn shown_ports(t: &Tuple, raw: (u16, u16)) -> (u16, u16) {
    if t.sport != 0 || t.dport != 0 { (t.sport, t.dport) } else { raw }
}

fn shown_state(state: State, replies: u64) -> &'static str {
    match state {
        State::Udp | State::Icmp | State::Other if replies == 0 => "unreplied",
        State::Udp | State::Icmp | State::Other => "replied",
        tcp => tcp.name(),
    }
}

/// Whole seconds in a number of ticks; a stamp a little ahead of the clock counts as 0.
pub const fn seconds(ticks: u32) -> u64 {
    let ticks = if ticks > u32::MAX / 2 { 0 } else { ticks };
    ((ticks as u64) << TICK_SHIFT) / 1_000_000_000
}
