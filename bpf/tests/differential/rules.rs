//! Which differences between the XDP program and the Rust pipeline are meant, each with its reason.

use sag_bpf::PuntReason;
use sag_model::flow::{Action, FLOW_PUNT_ALL, FlowAct, FlowRecord4, FlowRecord6, IngressId, RecordNo};
use sag_model::{DropReason, VrfNo};
use sag_packet::parse::{self, Family, Fragment, L4, NetworkLayer, Parsed};
use sag_packet::proto::*;
use sag_pipeline::snapshot::{NextHop, Snapshot};
use sag_pipeline::stages;
use sag_pipeline::tables::SharedTable;
use sag_testkit::{Outcome, Rig};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering::Relaxed;

/// What the Rust parser makes of a frame.
pub struct Look {
    pub vlan: u16,
    pub tagged: bool,
    pub ethertype: u16,
    pub l3: usize,
    pub seen: Result<NetworkLayer, DropReason>,
}

pub fn look(frame: &[u8]) -> Option<Look> {
    let (vlan, ethertype, l3) = parse::link(frame).ok()?;
    let seen = parse::parse(frame, ethertype, l3);
    Some(Look { vlan, tagged: l3 > ETH_LEN, ethertype, l3, seen })
}

/// Whether a reason to punt holds. `Err` says what does not.
pub fn punt(rig: &Rig, dev: u8, frame: &[u8], why: PuntReason, record: u32) -> Result<(), String> {
    let look = look(frame).ok_or("no link header")?;
    let ip = &frame[look.l3..];
    let v6 = look.ethertype == ETHERTYPE_IPV6;
    let first_next = ip.get(6).copied().filter(|_| v6);
    let holds = |is: bool| if is { Ok(()) } else { Err(format!("{why:?} does not hold")) };
    let long = !v6 && ip.first().is_some_and(|b| b & 0x0F > 5);
    match (why, look.seen.is_err()) {
        (PuntReason::Malformed, bad) => return holds(bad && record == 0),
        // XDP looks neither into options and extension headers nor behind them, nor sums up a header
        // with options: that the packet is malformed is the worker's to find.
        (PuntReason::Options, true) => {
            let ext = |n| matches!(n, HOP_BY_HOP | ROUTING | DEST_OPTIONS);
            return holds(long || first_next.is_some_and(ext));
        }
        (PuntReason::Fragment, true) => {
            let part = !v6 && ip.get(6..8).is_some_and(|w| (w[0] & 0x3F, w[1]) != (0, 0));
            return holds(part || first_next == Some(FRAGMENT));
        }
        (PuntReason::Icmp, true) => return holds(long && ip.get(9) == Some(&ICMP)),
        (PuntReason::Ingress, true) => return holds(long),
        _ => {}
    }
    let Ok(NetworkLayer::Ip(p)) = look.seen else {
        return Err(format!("punted as {why:?}, but {:?}", look.seen));
    };
    match p.family {
        Family::V4 => judged::<FlowRecord4>(rig, dev, look.vlan, frame, &p, why, record, first_next),
        Family::V6 => judged::<FlowRecord6>(rig, dev, look.vlan, frame, &p, why, record, first_next),
    }
}

#[allow(clippy::too_many_arguments)]
fn judged<R: SharedTable>(
    rig: &Rig,
    dev: u8,
    vlan: u16,
    frame: &[u8],
    p: &Parsed,
    why: PuntReason,
    record: u32,
    first_next: Option<u8>,
) -> Result<(), String> {
    let (snap, table) = (&rig.snap, R::table(&rig.pipe.tables));
    let port = snap.ingress.port(dev, vlan).and_then(|i| snap.port(i)).ok_or("no such port")?;
    let key = R::flow_key(p, frame, port.side());
    let found = table.find(&key, table.hash(&key));
    if record != 0 && found != Some(RecordNo(record)) {
        return Err(format!("record {record} noted, {found:?} found"));
    }
    let opens = matches!(p.l4, L4::Tcp { flags } if flags & (TCP_SYN | TCP_ACK) == TCP_SYN);
    if why == PuntReason::Ingress || why == PuntReason::TcpFlags && opens {
        // The worker looks for the session by itself: it does not take the packet past the flood guard.
        let concerned = |no: RecordNo| {
            let r = table.record(no);
            let drops = Action::from_word(r.action().load(Relaxed)).act == FlowAct::Drop;
            let ingress = snap.ingress.port(dev, vlan).map(IngressId::port);
            !drops
                && (why == PuntReason::TcpFlags
                    || r.ingress() != IngressId::NONE && Some(r.ingress()) != ingress)
        };
        let holds = record == 0 && found.is_some_and(concerned);
        return if holds {
            Ok(())
        } else {
            Err(format!("{why:?} does not hold: record {record}, found {found:?}"))
        };
    }
    let r = table.record(RecordNo(record));
    let action = Action::from_word(r.action().load(Relaxed));
    let nh = snap.nexthops.get(usize::from(action.nexthop)).map(NextHop::load);
    let holds = match why {
        PuntReason::Miss => found.is_none() && p.fragment == Fragment::Whole && !p.options,
        PuntReason::Epoch => r.epoch().load(Relaxed) != snap.epoch,
        PuntReason::NextHop => nh.is_none_or(|nh| !nh.valid() || nh.generation != action.nh_gen),
        PuntReason::TcpFlags => {
            matches!(p.l4, L4::Tcp { flags } if flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK) != TCP_ACK)
        }
        PuntReason::Fragment => p.fragment != Fragment::Whole || first_next == Some(FRAGMENT),
        PuntReason::Options => p.options,
        PuntReason::Ttl => p.ttl <= 1,
        PuntReason::Mtu => nh.is_some_and(|nh| p.ip_len > nh.mtu),
        PuntReason::Icmp => matches!(p.l4, L4::IcmpError { .. } | L4::IcmpOther { .. }),
        PuntReason::Malformed | PuntReason::Ingress | PuntReason::Cookie | PuntReason::Checksum => false,
        PuntReason::Flow => action.act != FlowAct::Forward || action.flags & FLOW_PUNT_ALL != 0,
    };
    // These are for packets with a record alone.
    let of_record = matches!(
        why,
        PuntReason::Epoch
            | PuntReason::NextHop
            | PuntReason::TcpFlags
            | PuntReason::Ttl
            | PuntReason::Mtu
            | PuntReason::Flow
    );
    if holds && of_record == (of_record && record != 0) {
        Ok(())
    } else {
        Err(format!("{why:?} does not hold: {p:?}, record {record} {action:?}, next hop {nh:?}"))
    }
}

/// Why XDP may give a packet to the kernel that the pipeline would not.
pub fn kernel(snap: &Snapshot, dev: u8, frame: &[u8], rust: &Outcome) -> Option<&'static str> {
    if *rust == Outcome::Kernel {
        return Some("both");
    }
    if let [0x81, 0, a, b] = frame.get(ETH_LEN - 2..ETH_LEN + 2)?
        && let vlan @ 1.. = u16::from_be_bytes([*a, *b]) & 0x0FFF
        && snap.ingress.port(dev, vlan).is_none()
    {
        return Some("a tag that no port claims: the kernel may");
    }
    let look = look(frame)?;
    let ip = &frame[look.l3..];
    let dst = match look.ethertype {
        ETHERTYPE_IPV6 => {
            ip.get(24..).and_then(|a| a.first_chunk::<16>()).map(|a| IpAddr::V6(Ipv6Addr::from(*a)))
        }
        _ => ip.get(16..).and_then(|a| a.first_chunk::<4>()).map(|a| IpAddr::V4(Ipv4Addr::from(*a))),
    }?;
    let port = snap.ingress.port(dev, look.vlan).and_then(|i| snap.port(i));
    let vrf = port.map_or(VrfNo::DEFAULT, |p| p.vrf);
    let own = stages::local_destination(snap, vrf, dst).is_err();
    match rust {
        Outcome::Drop(_) if own && look.seen.is_err() => {
            Some("malformed, for this box: its kernel counts it")
        }
        // Not the answer to a query: it needs no mapping.
        _ if own && matches!(look.seen, Ok(NetworkLayer::Ip(Parsed { l4: L4::IcmpOther { .. }, .. }))) => {
            Some("ICMP without identifier, for this box")
        }
        _ => None,
    }
}
