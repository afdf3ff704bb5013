use super::{Before, Page};
use crate::page::Paint;
use crate::table::{Cell, Column, Table};
use crate::units::{bytes, count};
use sag_model::control::{Tunnel, TunnelDevice, TunnelFec, Tunnels};

pub fn tunnels(answer: &Tunnels, before: Option<Before<'_, Tunnels>>, page: &Page) -> String {
    if answer.tunnels.is_empty() {
        return "no tunnel is configured\n".into();
    }
    let mut table = Table::new([
        Column::text("TUNNEL").cut(),
        Column::text("KIND"),
        Column::text("STATE"),
        Column::text("LOCAL").rank(2),
        Column::text("REMOTE"),
        Column::text("PORT").rank(4).cut(),
        Column::number("MTU"),
        Column::text("FROM").rank(1),
        Column::number("PATH").rank(5),
        Column::number("RTT").rank(5),
        Column::number("JITTER").rank(5),
        Column::number("LOSS").rank(5),
        Column::number("KEYS").rank(5),
        Column::number(if before.is_some() { "IN/S" } else { "IN" }),
        Column::number(if before.is_some() { "BYTES/S" } else { "BYTES" }).rank(3),
        Column::number(if before.is_some() { "OUT/S" } else { "OUT" }),
        Column::number(if before.is_some() { "BYTES/S" } else { "BYTES" }).rank(3),
        Column::number("DROPS"),
    ]);
    for t in &answer.tunnels {
        let then = before.as_ref().and_then(|b| Some((b, b.then.tunnels.iter().find(|o| o.name == t.name)?)));
        let gained = |f: fn(&Tunnel) -> u64| match &then {
            Some((b, old)) => b.rate(f(old), f(t)).round() as u64,
            None => f(t),
        };
        table.row([
            t.name.as_str().into(),
            t.kind.as_str().into(),
            Cell::from(t.state.as_str()).paint(if t.state == "up" { Paint::Plain } else { Paint::Bad }),
            t.local.to_string().into(),
            t.remote.to_string().into(),
            t.port.as_deref().unwrap_or("-").into(),
            t.mtu.to_string().into(),
            origin(t).into(),
            t.path_mtu.to_string().into(),
            t.rtt_us.map_or("-".into(), ms).into(),
            t.jitter_us.map_or("-".into(), ms).into(),
            t.loss_percent.map_or("-".into(), |l| format!("{l} %")).into(),
            t.esp.as_ref().map_or("-".into(), |k| format!("{} s", k.age_in_s.min(k.age_out_s))).into(),
            count(gained(|t| t.rx_packets)).into(),
            bytes(gained(|t| t.rx_bytes)).into(),
            count(gained(|t| t.tx_packets)).into(),
            bytes(gained(|t| t.tx_bytes)).into(),
            Cell::from(count(t.drops)).paint(if t.drops > 0 { Paint::Bad } else { Paint::Plain }),
        ]);
    }
    table.render(page)
        + &withheld(answer)
        + &without_device(answer)
        + &dropped_by_device(answer)
        + &corrected(answer, before, page)
}

/// Tunnels that send nothing because of their keys.
fn withheld(answer: &Tunnels) -> String {
    let reasons = answer.tunnels.iter().filter_map(|t| Some((&t.name, t.esp.as_ref()?.withheld.as_ref()?)));
    reasons.map(|(name, why)| format!("\n{name} sends nothing: {why}\n")).collect()
}

/// Tunnels whose device is not as it should be.
fn without_device(answer: &Tunnels) -> String {
    let reasons = answer
        .tunnels
        .iter()
        .filter_map(|t| t.device.as_ref())
        .filter_map(|d| Some((d, d.problem.as_ref()?)));
    reasons.map(|(d, why)| format!("\ndevice {} is not as it should be: {why}\n", d.name)).collect()
}

/// What the machine itself has sent by devices, and was dropped.
fn dropped_by_device(answer: &Tunnels) -> String {
    let devices = answer.tunnels.iter().filter_map(|t| t.device.as_ref()).filter(|d| !d.drops.is_empty());
    let line = |d: &TunnelDevice| {
        let all: Vec<String> = d.drops.iter().map(|r| format!("{} {}", count(r.packets), r.reason)).collect();
        format!("\nof this machine's packets by device {} were dropped: {}\n", d.name, all.join(", "))
    };
    devices.map(line).collect()
}

/// Tunnels with error correction, if there are any.
fn corrected(answer: &Tunnels, before: Option<Before<'_, Tunnels>>, page: &Page) -> String {
    let mut rows = answer.tunnels.iter().filter_map(|t| Some((t, t.fec.as_ref()?))).peekable();
    if rows.peek().is_none() {
        return String::new();
    }
    let mut table = Table::new([
        Column::text("TUNNEL").cut(),
        Column::number("WINDOW"),
        Column::number("REPAIRS"),
        Column::number("DELAY").rank(1),
        Column::number(if before.is_some() { "SENT/S" } else { "SENT" }),
        Column::number(if before.is_some() { "OVERHEAD/S" } else { "OVERHEAD" }),
        Column::number(if before.is_some() { "RECOVERED/S" } else { "RECOVERED" }),
        Column::number("UNRECOVERABLE"),
    ]);
    for (t, f) in rows {
        let then = before.as_ref().and_then(|b| {
            let old = b.then.tunnels.iter().find(|o| o.name == t.name)?;
            Some((b, old.fec.as_ref()?))
        });
        let gained = |of: fn(&TunnelFec) -> u64| match &then {
            Some((b, old)) => b.rate(of(old), of(f)).round() as u64,
            None => of(f),
        };
        table.row([
            t.name.as_str().into(),
            f.window.to_string().into(),
            f.repairs.to_string().into(),
            format!("{} ms", f.delay_ms).into(),
            count(gained(|f| f.repairs_sent)).into(),
            bytes(gained(|f| f.overhead_bytes)).into(),
            count(gained(|f| f.recovered)).into(),
            Cell::from(count(f.unrecoverable)).paint(if f.unrecoverable > 0 {
                Paint::Bad
            } else {
                Paint::Plain
            }),
        ]);
    }
    format!("\nerror correction\n{}", table.render(page))
}

fn ms(us: u64) -> String {
    format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
}

pub fn rekeyed(answer: &sag_model::control::Rekeyed) -> String {
    match &answer.tunnels[..] {
        [] => "nothing new\n".into(),
        names => format!("new keys for {}\n", names.join(", ")),
    }
}

pub fn confirmed(answer: &sag_model::control::Rekeyed) -> String {
    format!("{} sends under its keys\n", answer.tunnels.join(", "))
}

/// The source of the MTU.
fn origin(t: &Tunnel) -> &'static str {
    match (t.path_mtu_learned, t.mtu_configured) {
        (_, Some(mtu)) if mtu == t.mtu => "config",
        (Some(_), _) => "learned",
        _ => "link",
    }
}
