use super::{Before, Page};
use crate::table::{Cell, Column, Table};
use crate::units::{bytes, count as number, exact, si, span};
use sag_model::control::{Flushed, IpProto, Session, Sessions, Top, TopGroup, TopRow};
use std::net::IpAddr;

pub fn sessions(answer: &Sessions, page: &Page) -> String {
    if answer.sessions.is_empty() {
        return "no session\n".into();
    }
    let mut table = Table::new([
        Column::text("PROTO"),
        Column::text("SOURCE").cut_last(),
        Column::text("DESTINATION").cut_last(),
        Column::text("STATE").rank(2),
        Column::number("AGE").rank(5),
        Column::number("IDLE"),
        Column::number("PACKETS").rank(3),
        Column::number("BYTES"),
        Column::text("PORTS").rank(1),
        Column::text("RULE").rank(4),
    ]);
    for s in &answer.sessions {
        table.row([
            s.proto.to_string().into(),
            endpoint(s.proto, s.src, s.sport).into(),
            endpoint(s.proto, s.dst, s.dport).into(),
            s.state.as_str().into(),
            span(s.age_s).into(),
            span(s.idle_s).into(),
            number(s.packets.saturating_add(s.reply_packets)).into(),
            bytes(s.bytes.saturating_add(s.reply_bytes)).into(),
            format!("{}>{}", at_vrf(&s.in_port, &s.vrf), at_vrf(&s.out_port, &s.to_vrf)).into(),
            Cell::from(s.rule.as_deref().unwrap_or("-")),
        ]);
        let [source, destination] = translated(s);
        if source.is_some() || destination.is_some() {
            let mut below = vec![Cell::from(""); table.width()];
            for (at, text) in [(1, source), (2, destination)] {
                if let (Some(cell), Some(text)) = (below.get_mut(at), text) {
                    *cell = Cell::from(format!("as {text}"));
                }
            }
            table.row(below);
        }
    }
    let shown = answer.sessions.len() as u64;
    let mut out = table.render(page);
    if answer.total > shown {
        out.push_str(&format!("{} of {} sessions (--limit for more)\n", exact(shown), exact(answer.total)));
    }
    out
}

/// A port with its VRF, if that is not the default one.
fn at_vrf(port: &str, vrf: &Option<String>) -> String {
    match vrf {
        Some(vrf) => format!("{port}@{vrf}"),
        None => port.to_owned(),
    }
}

fn endpoint(proto: IpProto, address: IpAddr, port: u16) -> String {
    match (proto.has_ports(), address) {
        (true, IpAddr::V4(a)) => format!("{a}:{port}"),
        (true, IpAddr::V6(a)) => format!("[{a}]:{port}"),
        (false, a) => a.to_string(),
    }
}

/// Source and destination after translation.
fn translated(s: &Session) -> [Option<String>; 2] {
    let side = |address: Option<IpAddr>, port: Option<u16>, plain: u16| {
        address.map(|a| endpoint(s.proto, a, port.unwrap_or(plain)))
    };
    [side(s.nat_src, s.nat_sport, s.sport), side(s.nat_dst, s.nat_dport, s.dport)]
}

pub fn count(answer: &Sessions) -> String {
    format!("{}\n", answer.total)
}

pub fn flushed(answer: &Flushed) -> String {
    let s = if answer.flushed == 1 { "" } else { "s" };
    format!("{} session{s} flushed\n", exact(answer.flushed))
}

pub fn top(answer: &Top, before: Option<Before<'_, Top>>, page: &Page) -> String {
    if answer.rows.is_empty() {
        return "no session\n".into();
    }
    let title = match answer.group {
        TopGroup::Src => "SOURCE",
        TopGroup::Dst => "DESTINATION",
        TopGroup::Service => "SERVICE",
        TopGroup::Session => "SESSION",
    };
    let mut columns = vec![
        Column::text(title).cut(),
        Column::number("SESSIONS").rank(1),
        Column::number("PACKETS"),
        Column::number("BYTES"),
        Column::number("REPLY PACKETS").rank(2),
        Column::number("REPLY BYTES"),
    ];
    if before.is_some() {
        columns.extend([Column::number("BIT/S"), Column::number("REPLY BIT/S")]);
    }
    let mut table = Table::new(columns);
    for r in &answer.rows {
        let mut cells: Vec<Cell> = vec![
            r.key.as_str().into(),
            number(r.sessions).into(),
            number(r.packets).into(),
            bytes(r.bytes).into(),
            number(r.reply_packets).into(),
            bytes(r.reply_bytes).into(),
        ];
        if let Some(b) = &before {
            let then = b.then.rows.iter().find(|t| t.key == r.key);
            // A row that was not on the previous list has no rates.
            let rate = |f: fn(&TopRow) -> u64| then.map_or("-".into(), |t| si(b.rate(f(t), f(r)) * 8.0));
            cells.extend([Cell::from(rate(|r| r.bytes)), Cell::from(rate(|r| r.reply_bytes))]);
        }
        table.row(cells);
    }
    let mut out = table.render(page);
    let shown = answer.rows.len() as u64;
    if answer.total > shown {
        out.push_str(&format!("{} of {} (--limit for more)\n", exact(shown), exact(answer.total)));
    }
    out
}
