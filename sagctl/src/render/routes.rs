use super::Page;
use crate::page::Paint;
use crate::table::{Cell, Column, Table};
use crate::units::exact;
use sag_model::control::{NextHop, Route, Routes};

pub fn routes(answer: &Routes, page: &Page) -> String {
    if answer.routes.is_empty() {
        return "no route\n".into();
    }
    let mut table = Table::new([
        Column::text("DESTINATION"),
        Column::text("TYPE"),
        Column::text("VIA"),
        Column::text("PORT"),
        Column::text("DEVICE"),
        Column::text("NEIGHBOUR"),
        Column::text("MAC").rank(2),
        Column::number("WEIGHT").rank(4),
        Column::number("METRIC").rank(3),
        Column::text("FROM").rank(1),
    ]);
    for r in &answer.routes {
        let mut hops = r.next_hops.iter();
        table.row(row(r, hops.next(), true));
        for hop in hops {
            table.row(row(r, Some(hop), false));
        }
    }
    let mut out = table.render(page);
    let shown = answer.routes.len() as u64;
    if answer.total > shown {
        out.push_str(&format!("{} of {} routes", exact(shown), exact(answer.total)));
        if let Some(next) = &answer.next {
            out.push_str(&format!("; more: --after {next}"));
        }
        out.push('\n');
    }
    out
}

/// Lines of further next hops leave the columns of the route blank.
fn row(r: &Route, hop: Option<&NextHop>, first: bool) -> [Cell; 10] {
    let head = |text: String| Cell::from(if first { text } else { String::new() });
    let from = if r.source == "config" { r.source.clone() } else { r.protocol.clone() };
    let hop_text = |f: fn(&NextHop) -> String| Cell::from(hop.map(f).unwrap_or_default());
    let state = hop.map_or("", |h| h.state.as_str());
    [
        head(match &r.vrf {
            Some(vrf) => format!("{} vrf {vrf}", r.destination),
            None => r.destination.to_string(),
        }),
        head(r.kind.clone()),
        hop_text(|h| h.via.map_or("on link".into(), |a| a.to_string())),
        hop_text(|h| h.port.clone().unwrap_or_else(|| "-".into())),
        hop_text(|h| h.device.clone()),
        Cell::from(state).paint(if matches!(state, "failed" | "incomplete") {
            Paint::Bad
        } else {
            Paint::Plain
        }),
        hop_text(|h| h.mac.map_or(String::new(), |m| m.to_string())),
        hop_text(|h| h.weight.to_string()),
        head(r.metric.to_string()),
        head(from),
    ]
}
