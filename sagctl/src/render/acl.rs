use super::Page;
use crate::page::{Paint, hang, paint, plain};
use crate::table::{Cell, Column, Table};
use crate::units::{bytes, count, span};
use sag_model::control::{AclReport, AclRule};

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

fn row(r: &AclRule) -> [Cell; 10] {
    let policy =
        Cell::from(r.policy.as_str()).paint(if r.policy == "drop" { Paint::Bad } else { Paint::Good });
    [
        r.priority.to_string().into(),
        r.id.as_str().into(),
        format!("{} {}", r.kind, r.direction).into(),
        policy,
        format!("{} {}", r.ip_protocol, r.header).trim_end().into(),
        side(&r.source_cidr, &r.source_port_range).into(),
        side(&r.dest_cidr, &r.dest_port_range).into(),
        count(r.hits).into(),
        bytes(r.bytes).into(),
        r.last_hit_s.map_or("never".into(), |s| format!("{} ago", span(s))).into(),
    ]
}

/// A prefix and, where they are restricted, its ports.
fn side(cidr: &str, ports: &str) -> String {
    match ports.split_once('/') {
        Some(("-1", _)) | None => cidr.to_owned(),
        Some((a, b)) if a == b => format!("{cidr} {a}"),
        Some((a, b)) => format!("{cidr} {a}-{b}"),
    }
}
