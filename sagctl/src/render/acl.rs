use super::Page;
use crate::page::{Paint, hang, paint, plain};
use crate::table::{Cell, Column, Table};
use crate::units::{bytes, count, span};
use sag_model::control::{AclReport, AclRule};
use std::net::IpAddr;

pub fn acl(report: &AclReport, page: &Page) -> String {
    let mut out = String::new();
    for acl in &report.acls {
        let s = if acl.rules.len() == 1 { "" } else { "s" };
        out.push_str(&format!("ACL {}, {} rule{s}\n", plain(&acl.id), acl.rules.len()));
        let mut table = Table::new([
            Column::number("PRIO"),
            Column::text("RULE").cut(),
            Column::text("TYPE"),
            Column::text("POLICY"),
            Column::text("PROTO"),
            Column::text("SOURCE").cut_last(),
            Column::text("DESTINATION").cut_last(),
            Column::number("HITS"),
            Column::number("BYTES").rank(2),
            Column::number("LAST HIT").rank(1),
        ]);
        for r in &acl.rules {
            table.row(row(r));
        }
        out.push_str(&table.render(page));
        acl.rules.iter().filter_map(sessions).for_each(|line| out.push_str(&line));
        out.push('\n');
    }
    if report.acls.is_empty() {
        out.push_str("no ACL is bound: everything is accepted\n");
    } else {
        out.push_str(&format!("no match: {}\n", plain(&report.default)));
    }
    for f in &report.findings {
        let mut text = f.text.clone();
        if let Some(w) = &f.witness {
            text.push_str(&format!(" (for example {w})"));
        }
        let lead = format!("{} {}/{}: ", f.kind, f.acl, f.rule);
        out.push_str(&paint(&hang(&lead, &text, page), Paint::Bad, page));
    }
    out
}

/// What rules have logged last.
pub fn log(report: &AclReport, page: &Page) -> String {
    let mut table = Table::new([
        Column::text("TIME"),
        Column::text("RULE").cut(),
        Column::text("VERDICT"),
        Column::text("PORT"),
        Column::text("PROTO"),
        Column::text("SOURCE"),
        Column::text("DESTINATION"),
        Column::number("BYTES").rank(1),
        Column::text("PREFIX").rank(2),
    ]);
    for e in &report.log {
        table.row([
            e.time.as_str().into(),
            e.rule.as_str().into(),
            Cell::from(e.verdict.as_str()).paint(if e.verdict == "drop" { Paint::Bad } else { Paint::Good }),
            e.port.as_str().into(),
            e.proto.as_str().into(),
            end(e.src, e.sport).into(),
            end(e.dst, e.dport).into(),
            e.bytes.to_string().into(),
            e.prefix.as_str().into(),
        ]);
    }
    let suppressed: u64 = report.acls.iter().flat_map(|a| &a.rules).filter_map(|r| r.log_suppressed).sum();
    let mut out = table.render(page);
    if suppressed > 0 {
        out.push_str(&format!("{} more came faster than the log takes them\n", count(suppressed)));
    }
    out
}

/// An address and, if it has one, its port.
fn end(addr: IpAddr, port: u16) -> String {
    match (addr, port) {
        (_, 0) => addr.to_string(),
        (IpAddr::V6(a), _) => format!("[{a}]:{port}"),
        (IpAddr::V4(a), _) => format!("{a}:{port}"),
    }
}

fn row(r: &AclRule) -> [Cell; 10] {
    let policy =
        Cell::from(r.policy.as_str()).paint(if r.policy == "drop" { Paint::Bad } else { Paint::Good });
    [
        r.priority.to_string().into(),
        r.id.as_str().into(),
        format!("{} {}", r.kind, r.direction).into(),
        policy,
        format!("{} {}", r.ip_protocol, r.header).trim_end().into(),
        match &r.vrf {
            Some(vrf) => format!("{} vrf {vrf}", side(&r.source_cidr, &r.source_port_range)).into(),
            None => side(&r.source_cidr, &r.source_port_range).into(),
        },
        side(&r.dest_cidr, &r.dest_port_range).into(),
        count(r.hits).into(),
        bytes(r.bytes).into(),
        r.last_hit_s.map_or("never".into(), |s| format!("{} ago", span(s))).into(),
    ]
}

/// What a rule with limits has.
fn sessions(r: &AclRule) -> Option<String> {
    let mut line = format!("rule {}: {}", plain(&r.id), count(r.sessions?.into()));
    if let Some(most) = r.max_sessions {
        line.push_str(&format!(" of {}", count(most.into())));
    }
    line.push_str(" sessions");
    if let Some(most) = r.max_sessions_per_source {
        line.push_str(&format!(", up to {} of a source", count(most.into())));
    }
    if let Some(refused) = r.refused.filter(|n| *n > 0) {
        line.push_str(&format!("; {} packets refused", count(refused)));
    }
    line.push('\n');
    Some(line)
}

/// A prefix and, where they are restricted, its ports.
fn side(cidr: &str, ports: &str) -> String {
    match ports.split_once('/') {
        None if ports.starts_with('@') => format!("{cidr} {ports}"),
        Some(("-1", _)) | None => cidr.to_owned(),
        Some((a, b)) if a == b => format!("{cidr} {a}"),
        Some((a, b)) => format!("{cidr} {a}-{b}"),
    }
}
