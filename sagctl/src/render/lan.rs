use super::Page;
use crate::page::{Paint, hang, paint};
use crate::table::{Cell, Column, Table};
use crate::units::{exact, span};
use sag_dnsmasq::{Problem, Status};

/// How LAN ports give addresses, the leases, and what is not in force. `now`: seconds since 1970.
pub fn dhcp(status: &Status, now: u64, page: &Page) -> String {
    let mut out = daemon(status, page);
    part(&mut out, ports(status, page));
    part(&mut out, leases(status, now, page));
    part(&mut out, problems(status, |p| p.section == "Lan", page));
    if out.is_empty() { "no LAN port gives addresses\n".to_owned() } else { out }
}

/// Which DNS servers are asked, and what is not in force.
pub fn dns(status: &Status, page: &Page) -> String {
    let mut out = daemon(status, page);
    if status.forwards {
        let file = &status.servers_file;
        let from = match file.is_empty() {
            true => format!("{} (set by the cloud)", status.servers.join(", ")),
            false => format!("those of {file}"),
        };
        part(&mut out, hang("servers: ", &from, page));
        let mut table = Table::new([
            Column::text("DOMAIN").cut_last(),
            Column::text("SERVERS"),
            Column::text("BY").rank(1),
        ]);
        for d in &status.domains {
            table.row([Cell::from(d.domain.as_str()), d.servers.join(" ").into(), d.device.as_str().into()]);
        }
        if !status.domains.is_empty() {
            part(&mut out, table.render(page));
        }
    }
    part(&mut out, problems(status, |p| p.section != "Lan", page));
    if out.is_empty() { "no names are looked up for the LANs\n".to_owned() } else { out }
}

/// Adds a part behind an empty line.
fn part(out: &mut String, text: String) {
    if !out.is_empty() && !text.is_empty() {
        out.push('\n');
    }
    out.push_str(&text);
}

fn daemon(status: &Status, page: &Page) -> String {
    if !status.unable.is_empty() {
        return paint(&hang("dnsmasq: ", &status.unable, page), Paint::Bad, page);
    }
    let Some(d) = &status.daemon else { return String::new() };
    let again = match d.restarts {
        0 => String::new(),
        n => format!(", started again {} times", exact(n)),
    };
    let why = if d.problem.is_empty() { String::new() } else { format!(": {}", d.problem) };
    match d.pid {
        Some(pid) => hang("dnsmasq: ", &format!("runs (process {pid}{again}){why}"), page),
        None => paint(&hang("dnsmasq: ", &format!("does not run{again}{why}"), page), Paint::Bad, page),
    }
}

fn ports(status: &Status, page: &Page) -> String {
    let mut table = Table::new([
        Column::text("PORT"),
        Column::text("DEVICE").rank(2),
        Column::text("DHCP"),
        Column::text("ADDRESSES").cut_last(),
        Column::number("LEASED"),
        Column::number("OF").rank(1),
        Column::number("FOR").rank(2),
        Column::text("IPV6").rank(3),
    ]);
    let text = |n: Option<String>| n.unwrap_or_default();
    for p in &status.ports {
        let dhcp = if p.dhcp.is_empty() { Cell::from("-").paint(Paint::Dim) } else { p.dhcp.as_str().into() };
        table.row([
            Cell::from(p.port.as_str()),
            p.device.as_str().into(),
            dhcp,
            p.addresses.as_str().into(),
            text(p.leases.map(|n| exact(n as u64))).into(),
            text(p.room.map(exact)).into(),
            text(p.lease.map(|m| span(u64::from(m) * 60))).into(),
            if p.advertises { "advertised" } else { "" }.into(),
        ]);
    }
    if status.ports.is_empty() { String::new() } else { table.render(page) }
}

fn leases(status: &Status, now: u64, page: &Page) -> String {
    let mut table = Table::new([
        Column::text("ADDRESS"),
        Column::text("ETHERNET"),
        Column::text("NAME").cut_last(),
        Column::text("PORT").rank(2),
        Column::number("FOR").rank(1),
    ]);
    for l in &status.leases {
        let left = match l.expires {
            0 => "ever".to_owned(),
            end => span(end.saturating_sub(now)),
        };
        table.row([
            Cell::from(l.address.to_string()),
            l.mac.as_str().into(),
            l.name.as_str().into(),
            l.port.as_str().into(),
            left.into(),
        ]);
    }
    if status.leases.is_empty() { String::new() } else { table.render(page) }
}

fn problems(status: &Status, which: impl Fn(&&Problem) -> bool, page: &Page) -> String {
    let line = |p: &Problem| hang("problem: ", &format!("{}: {}", p.object, p.reason), page);
    status.problems.iter().filter(which).map(|p| paint(&line(p), Paint::Bad, page)).collect()
}
