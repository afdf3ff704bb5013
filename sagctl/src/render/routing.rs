use super::Page;
use crate::page::{Paint, hang, paint};
use crate::table::{Cell, Column, Table};
use crate::units::{exact, span};
use sag_frr::Status;
use std::fmt::Write as _;

/// Daemons, the virtual address, lines by PPPoE, neighbors, routes by their source, and what is not in force.
pub fn routing(status: &Status, page: &Page) -> String {
    let mut out = String::new();
    if status.daemons.is_empty() && status.pppoe.is_empty() {
        out.push_str("no routing protocol is in use\n");
    }
    let parts = [
        daemons(status, page),
        virtual_address(status, page),
        lines(status, page),
        neighbors(status, page),
        routes(status, page),
    ];
    for part in parts.into_iter().flatten() {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&part);
    }
    if !status.problems.is_empty() {
        out.push('\n');
    }
    for p in &status.problems {
        out.push_str(&paint(
            &hang("problem: ", &format!("{}: {}", p.object, p.reason), page),
            Paint::Bad,
            page,
        ));
    }
    let missing = &status.installed.missing;
    if !missing.is_empty() {
        out.push_str(&hang("missing packages: ", &missing.join(", "), page));
    }
    out
}

fn daemons(status: &Status, page: &Page) -> Option<String> {
    let mut table = Table::new([
        Column::text("DAEMON"),
        Column::number("PID"),
        Column::number("RESTARTS"),
        Column::text("PROBLEM").cut_last(),
    ]);
    for d in &status.daemons {
        let pid = d.pid.map_or(Cell::from("-").paint(Paint::Bad), |p| Cell::from(p.to_string()));
        table.row([Cell::from(d.name.as_str()), pid, exact(d.restarts).into(), d.problem.as_str().into()]);
    }
    (!status.daemons.is_empty()).then(|| table.render(page))
}

fn virtual_address(status: &Status, page: &Page) -> Option<String> {
    let mut table = Table::new([
        Column::text("VIRTUAL ADDRESS"),
        Column::text("STATE"),
        Column::text("PORT"),
        Column::text("DEVICE"),
        Column::number("ROUTER"),
        Column::number("PRIORITY"),
    ]);
    let v = status.vrrp.as_ref()?;
    let state = if v.state.is_empty() { "not known yet" } else { &v.state };
    table.row([
        Cell::from(v.address.as_str()),
        Cell::from(state).paint(if v.is_master() { Paint::Good } else { Paint::Plain }),
        v.port.as_str().into(),
        v.device.as_str().into(),
        v.router.to_string().into(),
        v.priority.to_string().into(),
    ]);
    let mut text = table.render(page);
    if !v.obstacle.is_empty() {
        let _ = writeln!(text, "it may not have the address: {}", v.obstacle);
    }
    Some(text)
}

fn lines(status: &Status, page: &Page) -> Option<String> {
    let mut table = Table::new([
        Column::text("PPPOE"),
        Column::text("STATE"),
        Column::number("FOR").rank(1),
        Column::text("ADDRESS"),
        Column::text("PEER").rank(2),
        Column::number("MTU").rank(3),
        Column::text("DEVICE").rank(4),
        Column::number("SESSIONS").rank(5),
        Column::number("NEXT ATTEMPT").rank(6),
    ]);
    for l in &status.pppoe {
        let state = match (l.up, l.next_attempt) {
            (true, _) => Cell::from("up").paint(Paint::Good),
            (false, Some(_)) => Cell::from("waits").paint(Paint::Bad),
            (false, None) => Cell::from("down").paint(Paint::Bad),
        };
        table.row([
            Cell::from(format!("port {}", l.port)),
            state,
            l.since.map_or_else(String::new, span).into(),
            l.address.as_str().into(),
            l.peer.as_str().into(),
            l.mtu.map_or_else(String::new, |m| m.to_string()).into(),
            format!("{} over {}", l.device, l.ethernet).into(),
            exact(l.sessions).into(),
            l.next_attempt.map_or_else(String::new, span).into(),
        ]);
    }
    (!status.pppoe.is_empty()).then(|| table.render(page))
}

fn neighbors(status: &Status, page: &Page) -> Option<String> {
    let mut table = Table::new([
        Column::text("NEIGHBOUR"),
        Column::text("PROTOCOL"),
        Column::text("STATE").cut_last(),
        Column::number("FOR").rank(1),
        Column::number("AS").rank(2),
        Column::number("RECEIVED").rank(2),
        Column::number("SENT").rank(3),
        Column::text("DEVICE").rank(4),
        Column::text("ROUTER ID").rank(5),
        Column::text("BFD").rank(6),
    ]);
    let number = |n: Option<u64>| n.map_or_else(String::new, exact);
    for n in &status.neighbors {
        let state = Cell::from(n.state.as_str()).paint(if n.up { Paint::Good } else { Paint::Bad });
        table.row([
            Cell::from(n.address.as_str()),
            n.protocol.as_str().into(),
            state,
            n.since.map_or_else(String::new, span).into(),
            n.remote_as.map_or_else(String::new, |a| a.to_string()).into(),
            number(n.received).into(),
            number(n.sent).into(),
            n.device.as_str().into(),
            n.router_id.as_str().into(),
            n.bfd.as_str().into(),
        ]);
    }
    (!status.neighbors.is_empty()).then(|| table.render(page))
}

fn routes(status: &Status, page: &Page) -> Option<String> {
    let mut table = Table::new([
        Column::text("ROUTES FROM"),
        Column::text("FAMILY"),
        Column::number("KNOWN"),
        Column::number("IN THE KERNEL"),
    ]);
    for r in &status.routes {
        let family = format!("IPv{}", r.family);
        table.row([
            Cell::from(r.source.as_str()),
            family.into(),
            exact(r.known).into(),
            exact(r.installed).into(),
        ]);
    }
    (!status.routes.is_empty()).then(|| table.render(page))
}
