use super::Page;
use crate::page::{Paint, hang};
use crate::table::{Cell, Column, Table};
use crate::units::{count as number, exact, percent, span};
use sag_model::config::{DnatType, NatBehavior};
use sag_model::control::{
    Nat, NatBinding, NatBindings, NatEntry, NatMapping, NatMappings, NatPool, NatTotals, PortUse,
};
use std::net::{IpAddr, SocketAddr};

pub fn nat(answer: &Nat, page: &Page) -> String {
    if answer.entries.is_empty() && answer.pools.is_empty() {
        return "no NAT is configured\n".into();
    }
    let mut out = entries(&answer.entries).render(page);
    if !answer.pools.is_empty() {
        out.push('\n');
        out.push_str(&pools(&answer.pools).render(page));
    }
    out.push('\n');
    out.push_str(&totals(&answer.totals, page));
    out
}

fn entries(rows: &[NatEntry]) -> Table {
    let mut table = Table::new([
        Column::text("KIND"),
        Column::text("TYPE").rank(3),
        Column::text("ID").cut(),
        Column::text("PROTO").rank(2),
        Column::text("EXTERNAL").cut_last(),
        Column::text("INTERNAL").cut_last(),
        Column::text("MAPPING").rank(4),
        Column::text("FILTERING").rank(5),
        Column::number("SESSIONS"),
        Column::number("HITS").rank(1),
    ]);
    for e in rows {
        let external = if e.external.is_empty() {
            Cell::from("no address").paint(Paint::Bad)
        } else {
            Cell::from(e.external.as_str())
        };
        table.row([
            e.kind.as_str().into(),
            e.dnat_type.map_or("-", DnatType::as_str).into(),
            e.id.as_str().into(),
            e.protocol.as_str().into(),
            external,
            match &e.vrf {
                Some(vrf) => format!("{} vrf {vrf}", e.internal).into(),
                None => e.internal.as_str().into(),
            },
            e.mapping.map_or("-", short).into(),
            e.filtering.map_or("-", short).into(),
            number(e.sessions).into(),
            number(e.hits).into(),
        ]);
    }
    table
}

/// What the behaviour depends on.
fn short(behavior: NatBehavior) -> &'static str {
    match behavior {
        NatBehavior::EndpointIndependent => "independent",
        NatBehavior::AddressDependent => "address",
        NatBehavior::AddressAndPortDependent => "address+port",
    }
}

fn pools(rows: &[NatPool]) -> Table {
    let mut table = Table::new([
        Column::text("POOL"),
        Column::text("USED BY").cut(),
        Column::text("PROTO"),
        Column::number("USED"),
        Column::number("SHARE"),
        Column::number("PEAK").rank(1),
        Column::number("CAPACITY").rank(2),
        Column::number("EXHAUSTED"),
        Column::number("FILTERED").rank(3),
    ]);
    for p in rows {
        let bad = |yes: bool| if yes { Paint::Bad } else { Paint::Plain };
        let lines: [(&str, &PortUse); 3] = [("tcp", &p.tcp), ("udp", &p.udp), ("icmp", &p.icmp)];
        for (n, (proto, ports)) in lines.into_iter().enumerate() {
            // The address and what is counted for it as a whole stand once.
            let once = |text: String, paint: Paint| match n {
                0 => Cell::from(text).paint(paint),
                _ => Cell::from(""),
            };
            table.row([
                once(p.address.to_string(), bad(p.warned)),
                once(p.source.clone(), Paint::Plain),
                proto.into(),
                exact(ports.used.into()).into(),
                percent(ports.used.into(), ports.capacity.into()).into(),
                exact(ports.peak.into()).into(),
                exact(ports.capacity.into()).into(),
                once(number(p.exhausted), bad(p.exhausted > 0)),
                once(number(p.filtered), Paint::Plain),
            ]);
        }
    }
    table
}

fn totals(t: &NatTotals, page: &Page) -> String {
    let limit = match t.host_limit {
        Some(n) => {
            let limit = exact(n.into());
            format!("at most {limit} sessions a host, {} packets refused for it", exact(t.host_limit_hits))
        }
        None => "no limit of sessions a host".to_owned(),
    };
    let plural = |n: u64, what: &str| format!("{} {what}{}", exact(n), if n == 1 { "" } else { "s" });
    let uncounted = match t.uncounted {
        0 => String::new(),
        n => format!(" {} times no room to count a host or permit;", exact(n)),
    };
    let text = format!(
        "{} of {}; {limit};{uncounted} {} evicted; {} hairpinned; {} lost",
        plural(t.bindings, "binding"),
        plural(t.hosts, "host"),
        exact(t.evicted),
        plural(t.hairpinned, "session"),
        plural(t.log_lost, "log record"),
    );
    hang("", &text, page)
}

pub fn bindings(answer: &NatBindings, page: &Page) -> String {
    if answer.bindings.is_empty() {
        return "no binding\n".into();
    }
    // Of no use to a gateway that has no VRFs.
    let vrfs = answer.bindings.iter().any(|b| b.vrf.is_some());
    let mut columns = vec![
        Column::text("PROTO"),
        Column::text("INSIDE"),
        Column::text("OUTSIDE"),
        Column::text("MAPPING").rank(1),
        Column::number("SESSIONS"),
    ];
    if vrfs {
        columns.insert(1, Column::text("VRF"));
    }
    let mut table = Table::new(columns);
    for b in &answer.bindings {
        let mut cells = binding(b).to_vec();
        if vrfs {
            cells.insert(1, vrf(&b.vrf));
        }
        table.row(cells);
    }
    let mut out = table.render(page);
    let shown = answer.bindings.len() as u64;
    if answer.total > shown {
        out.push_str(&format!("{} of {} bindings (--limit for more)\n", exact(shown), exact(answer.total)));
    }
    out
}

fn binding(b: &NatBinding) -> [Cell; 5] {
    [
        b.protocol.to_string().into(),
        endpoint(b.inside, b.inside_port),
        endpoint(b.outside, b.outside_port),
        short(b.mapping).into(),
        exact(b.sessions).into(),
    ]
}

fn vrf(name: &Option<String>) -> Cell {
    name.as_deref().unwrap_or("-").into()
}

/// Identifiers of ICMP queries distinguish bindings as ports do.
fn endpoint(address: impl Into<IpAddr>, port: u16) -> Cell {
    SocketAddr::new(address.into(), port).to_string().into()
}

pub fn count(answer: &NatBindings) -> String {
    format!("{}\n", answer.total)
}

pub fn mappings(answer: &NatMappings, page: &Page) -> String {
    let asked =
        format!("{} requests answered, {} of them refused", exact(answer.answered), exact(answer.refused));
    if answer.mappings.is_empty() {
        return format!("no host has a port on request; {asked}\n");
    }
    let vrfs = answer.mappings.iter().any(|m| m.vrf.is_some());
    let mut columns = vec![
        Column::text("KIND"),
        Column::text("PROTO"),
        Column::text("INSIDE"),
        Column::text("OUTSIDE"),
        Column::text("FROM").cut_last(),
        Column::number("ENDS IN"),
    ];
    if vrfs {
        columns.insert(2, Column::text("VRF"));
    }
    let mut table = Table::new(columns);
    for m in &answer.mappings {
        let mut cells = mapping(m).to_vec();
        if vrfs {
            cells.insert(2, vrf(&m.vrf));
        }
        table.row(cells);
    }
    format!("{}\n{asked}\n", table.render(page))
}

fn mapping(m: &NatMapping) -> [Cell; 6] {
    let remote = if m.remote.is_empty() { "anyone".to_owned() } else { m.remote.join(" ") };
    [
        m.kind.as_str().into(),
        m.protocol.to_string().into(),
        endpoint(m.inside, m.inside_port),
        endpoint(m.outside, m.outside_port),
        remote.into(),
        span(m.lifetime).into(),
    ]
}
