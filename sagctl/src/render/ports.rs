use super::{Before, Page};
use crate::page::{Paint, hang, plain};
use crate::table::{Cell, Column, Table};
use crate::units::{bytes, count, exact, percent, si};
use sag_model::control::{Drops, Port, Ports};
use std::collections::BTreeMap;

pub fn ports(now: &Ports, before: Option<Before<'_, Ports>>, page: &Page) -> String {
    if now.ports.is_empty() {
        return "no ports configured\n".into();
    }
    match before {
        Some(before) => rates(now, &before, page),
        None => format!("{}\n{}\n{}", links(now, page), accounting(now, page), details(now, page)),
    }
}

fn name(p: &Port) -> Cell {
    p.name.as_str().into()
}

fn link(p: &Port) -> Cell {
    match p.up {
        true => Cell::from("up").paint(Paint::Good),
        false => Cell::from("down").paint(Paint::Bad),
    }
}

fn links(now: &Ports, page: &Page) -> String {
    let mut table = Table::new([
        Column::text("PORT"),
        Column::text("DEVICE"),
        Column::text("ROLE"),
        Column::text("LINK"),
        Column::number("MTU").rank(2),
        Column::text("XDP"),
        Column::text("AF_XDP"),
        Column::number("QUEUES").rank(3),
        Column::text("MAC").rank(1),
    ]);
    for p in &now.ports {
        let device = match p.vlan {
            Some(v) => format!("{}.{}", p.device, v.get()),
            None => p.device.clone(),
        };
        table.row([
            name(p),
            device.into(),
            p.role.to_string().into(),
            link(p),
            p.mtu.to_string().into(),
            p.xdp_mode.as_str().into(),
            p.xsk_mode.as_str().into(),
            p.queues.to_string().into(),
            p.mac.map_or("-".into(), |m| m.to_string()).into(),
        ]);
    }
    table.render(page)
}

/// Received packets by what became of them; the columns add up to the received count.
fn accounting(now: &Ports, page: &Page) -> String {
    let mut table = Table::new([
        Column::text("PORT"),
        Column::number("RECEIVED"),
        Column::number("RX BYTES").rank(2),
        Column::number("FORWARDED"),
        Column::number("KERNEL"),
        Column::number("HELD"),
        Column::number("DROPPED"),
        Column::number("IN XDP"),
        Column::number("SENT"),
        Column::number("TX BYTES").rank(1),
        Column::number("OWN").rank(3),
    ]);
    for p in &now.ports {
        table.row([
            name(p),
            count(p.rx_packets).into(),
            bytes(p.rx_bytes).into(),
            count(p.forwarded).into(),
            count(p.to_kernel).into(),
            count(p.held).into(),
            dropped(p.dropped, count(p.dropped)),
            percent(p.fast, p.fast.saturating_add(p.punted)).into(),
            count(p.tx_packets).into(),
            bytes(p.tx_bytes).into(),
            count(p.originated).into(),
        ]);
    }
    table.render(page)
}

fn dropped(n: u64, text: String) -> Cell {
    Cell::from(text).paint(if n > 0 { Paint::Bad } else { Paint::Plain })
}

/// Settings of the kernel, by device: `net.ipv4.conf.eth0: forwarding 0 (before: 1), …`.
fn kernel_settings(p: &Port, page: &Page) -> String {
    let mut by_device: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for s in &p.kernel_settings {
        let Some((device, leaf)) = s.name.rsplit_once('.') else { continue };
        let before = s.before.map(|b| format!(" (before: {b})")).unwrap_or_default();
        let wanted = s.wanted.filter(|w| *w != s.value).map(|w| format!(" (a router's: {w})"));
        by_device.entry(device).or_default().push(format!(
            "{leaf} {}{before}{}",
            s.value,
            wanted.unwrap_or_default()
        ));
    }
    let lines =
        by_device.iter().map(|(device, words)| hang("  ", &format!("{device}: {}", words.join(", ")), page));
    lines.collect()
}

/// Frames that XDP has sent and the device has not taken.
fn lost(p: &Port, page: &Page) -> String {
    let mut out = String::new();
    if p.tx_lost > 0 {
        let text = format!(
            "{} frames that XDP sent by {} were lost there (sagctl status says why)",
            exact(p.tx_lost),
            p.device
        );
        out += &hang("  ", &text, page);
    }
    if !p.driver_losses.is_empty() {
        let counters: Vec<_> =
            p.driver_losses.iter().map(|(name, n)| format!("{} {}", plain(name), exact(*n))).collect();
        out += &hang("  ", &format!("the driver of {} counts: {}", p.device, counters.join(", ")), page);
    }
    out
}

/// What does not fit a table: addresses, capabilities, settings of the kernel.
fn details(now: &Ports, page: &Page) -> String {
    let line = |p: &Port| {
        let addresses: Vec<String> = p.addresses.iter().map(ToString::to_string).collect();
        let addresses = if addresses.is_empty() { "no address".to_owned() } else { addresses.join(" ") };
        let lead = format!("port {}: ", p.name);
        hang(&lead, &format!("{addresses}; {}", p.capability), page)
            + &lost(p, page)
            + &kernel_settings(p, page)
    };
    now.ports.iter().map(line).collect()
}

fn rates(now: &Ports, before: &Before<'_, Ports>, page: &Page) -> String {
    let mut table = Table::new([
        Column::text("PORT"),
        Column::text("DEVICE").rank(1),
        Column::text("LINK"),
        Column::number("RX PACKET/S"),
        Column::number("RX BIT/S"),
        Column::number("TX PACKET/S"),
        Column::number("TX BIT/S"),
        Column::number("DROP/S"),
        Column::number("IN XDP"),
    ]);
    for p in &now.ports {
        let Some(then) = before.then.ports.iter().find(|t| t.name == p.name) else { continue };
        let rate = |field: fn(&Port) -> u64| before.rate(field(then), field(p));
        let fast = p.fast.saturating_sub(then.fast);
        let punted = p.punted.saturating_sub(then.punted);
        table.row([
            name(p),
            p.device.as_str().into(),
            link(p),
            si(rate(|p| p.rx_packets)).into(),
            si(rate(|p| p.rx_bytes) * 8.0).into(),
            si(rate(|p| p.tx_packets)).into(),
            si(rate(|p| p.tx_bytes) * 8.0).into(),
            dropped(p.dropped.saturating_sub(then.dropped), si(rate(|p| p.dropped))),
            percent(fast, fast.saturating_add(punted)).into(),
        ]);
    }
    table.render(page)
}

pub fn drops(now: &Drops, before: Option<Before<'_, Drops>>, page: &Page) -> String {
    let mut rows: Vec<_> = now.drops.iter().filter(|d| d.packets > 0).collect();
    if rows.is_empty() {
        return "nothing was dropped\n".into();
    }
    rows.sort_by_key(|d| (&d.port, std::cmp::Reverse(d.packets)));
    let mut columns = vec![
        Column::text("PORT"),
        Column::text("REASON"),
        Column::number("PACKETS"),
        Column::text("MEANS").cut().rank(1),
    ];
    if before.is_some() {
        columns.insert(3, Column::number("A SECOND"));
    }
    let mut table = Table::new(columns);
    for d in rows {
        let mut cells: Vec<Cell> = vec![
            d.port.as_str().into(),
            d.reason.as_str().into(),
            exact(d.packets).into(),
            d.text.as_str().into(),
        ];
        if let Some(b) = &before {
            let then = b.then.drops.iter().find(|t| t.port == d.port && t.reason == d.reason);
            let rate = b.rate(then.map_or(0, |t| t.packets), d.packets);
            cells.insert(3, Cell::from(si(rate)).paint(if rate > 0.0 { Paint::Bad } else { Paint::Plain }));
        }
        table.row(cells);
    }
    table.render(page)
}
