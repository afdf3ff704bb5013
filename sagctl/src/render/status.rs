use super::{Before, Page, warnings};
use crate::page::{Paint, paint, plain};
use crate::table::{Column, Table};
use crate::units::{bytes, count, exact, percent, si, span};
use sag_model::control::Status;

pub fn status(s: &Status, before: Option<Before<'_, Status>>, page: &Page) -> String {
    let mut out = format!("sag-vcpe {}, pid {}, up {}\n", plain(&s.version), s.pid, span(s.uptime_s));
    let mut line = |name: &str, text: String| {
        out.push_str(&paint(&format!("{name:<10}"), Paint::Dim, page));
        out.push_str(&text);
        out.push('\n');
    };
    let file = plain(&s.config_file);
    line("config", format!("{file}, epoch {}, applied {}", s.config_epoch, plain(&s.config_applied)));
    let t = &s.sessions;
    line(
        "sessions",
        format!(
            "IPv4 {} of {}, IPv6 {} of {}",
            exact(t.ipv4),
            exact(t.capacity_ipv4),
            exact(t.ipv6),
            exact(t.capacity_ipv6)
        ),
    );
    let created = match &before {
        Some(b) => format!(", {} a second", si(b.rate(b.then.sessions.created, t.created))),
        None => String::new(),
    };
    line(
        "",
        format!(
            "{} created{created}, {} evicted, table of {}",
            exact(t.created),
            exact(t.evicted),
            bytes(t.memory_bytes)
        ),
    );
    for h in &t.heaviest {
        let vrf = h.vrf.as_ref().map(|name| format!(" vrf {name}")).unwrap_or_default();
        line("", format!("most of IPv{}: {}{vrf} with {}", h.family, h.host, exact(h.sessions)));
    }
    let all = s.fastpath_packets.saturating_add(s.punted_packets);
    let share = |n: u64, then: fn(&Status) -> u64| {
        let rate = before.as_ref().map(|b| format!(", {} a second", si(b.rate(then(b.then), n))));
        format!("{} packets ({}){}", exact(n), percent(n, all), rate.unwrap_or_default())
    };
    line("fast path", share(s.fastpath_packets, |s| s.fastpath_packets));
    line("punted", share(s.punted_packets, |s| s.punted_packets));

    if !s.workers.is_empty() {
        let mut table = Table::new([
            Column::number("WORKER"),
            Column::number("CPU"),
            Column::number("PACKETS"),
            Column::number("BATCHES"),
            Column::number("PER BATCH"),
            Column::number("BUSY"),
        ]);
        for w in &s.workers {
            let per_batch = if w.batches == 0 { 0.0 } else { w.packets as f64 / w.batches as f64 };
            let cpu = w.cpu.map_or("-".into(), |c| c.to_string());
            let busy = format!("{:.1}%", w.busy_percent);
            table.row([
                w.id.to_string().into(),
                cpu.into(),
                count(w.packets).into(),
                count(w.batches).into(),
                format!("{per_batch:.1}").into(),
                busy.into(),
            ]);
        }
        out.push('\n');
        out.push_str(&table.render(page));
    }
    let mut punts = s.punts.iter().filter(|p| p.packets > 0).peekable();
    if punts.peek().is_some() {
        let mut table =
            Table::new([Column::text("PUNTED BECAUSE"), Column::number("PACKETS"), Column::number("SHARE")]);
        for p in punts {
            let share = percent(p.packets, s.punted_packets);
            table.row([p.reason.as_str().into(), exact(p.packets).into(), share.into()]);
        }
        out.push('\n');
        out.push_str(&table.render(page));
    }
    if !s.syn_cookies.is_empty() {
        let mut table = Table::new([
            Column::text("SYN COOKIES"),
            Column::text("SERVICE"),
            Column::text("MODE"),
            Column::text("ACTIVE"),
            Column::number("SYNS"),
            Column::number("SENT"),
            Column::number("ACCEPTED"),
            Column::number("REFUSED"),
        ]);
        for c in &s.syn_cookies {
            let service = match c.address {
                None => format!("wan:{}", c.port),
                Some(addr) => std::net::SocketAddr::new(addr, c.port).to_string(),
            };
            table.row([
                c.id.as_str().into(),
                service.into(),
                c.mode.as_str().into(),
                if c.active { "yes" } else { "no" }.into(),
                exact(c.syns).into(),
                exact(c.sent).into(),
                exact(c.accepted).into(),
                exact(c.refused).into(),
            ]);
        }
        out.push('\n');
        out.push_str(&table.render(page));
    }
    let deviations = s.deviations.iter().map(|d| format!("of the cloud's configuration: {d}"));
    let worth_a_look: Vec<String> = s.warnings.iter().cloned().chain(deviations).collect();
    if !worth_a_look.is_empty() {
        out.push('\n');
        out.push_str(&warnings(&worth_a_look, page));
    }
    out
}
