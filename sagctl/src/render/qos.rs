use super::{Before, Page};
use crate::page::Paint;
use crate::table::{Cell, Column, Table};
use crate::units::bytes;
use sag_model::control::{Qos, QosCar, QosCounters, QosLink, QosPolicy};

/// The gateway measures the rates itself, over a second: so an earlier answer is not needed.
pub fn qos(answer: &Qos, _: Option<Before<'_, Qos>>, page: &Page) -> String {
    let tables = [
        (!answer.links.is_empty()).then(|| links(&answer.links)),
        (!answer.cars.is_empty()).then(|| cars(&answer.cars)),
        (!answer.policies.is_empty()).then(|| policies(&answer.policies)),
    ];
    let text: Vec<String> = tables.into_iter().flatten().map(|t| t.render(page)).collect();
    if text.is_empty() {
        "no bandwidth is limited and no QoS is configured\n".into()
    } else {
        text.join("\n")
    }
}

/// Bit/s as in the configuration: Mbit/s, with as much behind the point as counts.
fn mbps(bps: u64) -> String {
    let n = bps as f64 / 1e6;
    let places = match bps {
        0 => 0,
        1..10_000_000 => 2,
        10_000_000..100_000_000 => 1,
        _ => 0,
    };
    format!("{n:.places$}")
}

fn dropped(n: u64) -> Cell {
    Cell::from(bytes(n)).paint(if n > 0 { Paint::Bad } else { Paint::Plain })
}

fn links(rows: &[QosLink]) -> Table {
    let mut table = Table::new([
        Column::text("LINK").cut(),
        Column::text("DIR"),
        Column::number("MBIT/S"),
        Column::number("MEASURED"),
        Column::number("PASSED"),
        Column::number("DROPPED"),
    ]);
    for l in rows {
        table.row([
            l.link.as_str().into(),
            l.direction.as_str().into(),
            mbps(l.limit_bps).into(),
            mbps(l.counters.rate_bps).into(),
            bytes(l.counters.passed_bytes).into(),
            dropped(l.counters.over_link_bytes),
        ]);
    }
    table
}

/// A line for each direction with traffic, and one for a CAR without any.
/// CIR and PIR are the committed and the peak rate (`MinBandwidth`, `MaxBandwidth` of the API).
fn cars(rows: &[QosCar]) -> Table {
    let mut table = Table::new([
        Column::text("CAR").cut(),
        Column::number("PRIO"),
        Column::number("CIR"),
        Column::number("PIR"),
        Column::text("DIR"),
        Column::number("MEASURED"),
        Column::number("PASSED"),
        Column::number("OVER PIR"),
        Column::number("OVER LINK").rank(1),
        Column::text("LIMIT").rank(2),
        Column::text("QOS").rank(3).cut(),
    ]);
    for c in rows {
        let used = |n: &QosCounters| n.passed_bytes + n.dropped_bytes() > 0;
        let directions: Vec<_> =
            [("up", &c.up), ("down", &c.down)].into_iter().filter(|(_, n)| used(n)).collect();
        let directions = if directions.is_empty() { vec![("-", &c.up)] } else { directions };
        for (i, (direction, n)) in directions.into_iter().enumerate() {
            let once = |text: String| if i == 0 { text } else { String::new() };
            table.row([
                once(c.id.clone()).into(),
                once(c.priority.to_string()).into(),
                once(mbps(c.floor_bps)).into(),
                once(c.ceiling_bps.map_or("-".to_owned(), mbps)).into(),
                direction.into(),
                mbps(n.rate_bps).into(),
                bytes(n.passed_bytes).into(),
                dropped(n.over_ceiling_bytes),
                dropped(n.over_link_bytes),
                once(limit(c)).into(),
                once(c.qos.clone()).into(),
            ]);
        }
    }
    table
}

/// The kind of the limit, and what the CAR marks packets with.
fn limit(c: &QosCar) -> String {
    match c.remark_dscp {
        Some(dscp) => format!("{}, marks {dscp}", c.limit),
        None => c.limit.clone(),
    }
}

fn policies(rows: &[QosPolicy]) -> Table {
    let mut table = Table::new([
        Column::text("POLICY").cut(),
        Column::text("CAR").cut(),
        Column::text("PROTO"),
        Column::text("SOURCE").cut_last(),
        Column::text("DEST").cut_last(),
        Column::text("NOW"),
        Column::text("FROM").rank(1),
        Column::text("UNTIL").rank(2),
    ]);
    for p in rows {
        let side = |cidr: &str, ports: &str| match ports {
            "-1/-1" => cidr.to_owned(),
            ports => format!("{cidr} {ports}"),
        };
        let proto = match p.dscp {
            Some(dscp) => format!("{} {dscp}", p.ip_protocol),
            None => p.ip_protocol.clone(),
        };
        table.row([
            p.id.as_str().into(),
            p.car.as_str().into(),
            proto.into(),
            match &p.vrf {
                Some(vrf) => format!("{} vrf {vrf}", side(&p.source_cidr, &p.source_port_range)).into(),
                None => side(&p.source_cidr, &p.source_port_range).into(),
            },
            side(&p.dest_cidr, &p.dest_port_range).into(),
            if p.active { "matches" } else { "waits" }.into(),
            p.start_time.as_deref().unwrap_or("-").into(),
            p.end_time.as_deref().unwrap_or("-").into(),
        ]);
    }
    table
}
