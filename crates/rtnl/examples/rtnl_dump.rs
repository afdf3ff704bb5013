//! Shows the mirror of the network namespace it runs in.
//!
//! `rtnl_dump` prints all tables; `rtnl_dump watch` goes on printing what changes;
//! `rtnl_dump resolve DEVICE IP` and `rtnl_dump manage DEVICE IP` ask for a neighbour and watch it.

#![forbid(unsafe_code)]

use mio::{Events, Interest, Poll, Token};
use sag_rtnl::{Mirror, RouteRef, Tables};
use std::error::Error;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let start = Instant::now();
    let mut mirror = Mirror::open()?;
    let opened = start.elapsed();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            print_all(mirror.tables());
            println!("read in {opened:?}");
            Ok(())
        }
        ["watch"] => watch(mirror),
        [what @ ("resolve" | "manage"), device, ip] => {
            let ip: IpAddr = ip.parse()?;
            let link = mirror.tables().link_named(device).ok_or_else(|| format!("no device {device}"))?;
            let ifindex = link.ifindex;
            match what {
                "resolve" => mirror.resolve(ifindex, ip)?,
                _ => mirror.manage(ifindex, ip)?,
            }
            watch(mirror)
        }
        _ => Err("usage: rtnl_dump [watch | resolve DEVICE IP | manage DEVICE IP]".into()),
    }
}

fn watch(mut mirror: Mirror) -> Result<(), Box<dyn Error>> {
    let mut poll = Poll::new()?;
    poll.registry().register(&mut mirror, Token(0), Interest::READABLE)?;
    let mut events = Events::with_capacity(4);
    loop {
        let changes = mirror.poll()?;
        if changes.resynced {
            println!("notifications were lost, all tables read again");
        }
        if changes.links {
            print_links(mirror.tables());
        }
        if changes.addrs {
            print_addresses(mirror.tables());
        }
        for prefix in &changes.prefixes {
            let mut none = true;
            for route in mirror.tables().routes_sorted().filter(|r| r.dst == *prefix) {
                print_route(mirror.tables(), route);
                none = false;
            }
            if none {
                println!("route {prefix} gone");
            }
        }
        for (ifindex, ip) in &changes.neighbors {
            print_neighbor(mirror.tables(), *ifindex, *ip);
        }
        if !changes.more {
            match poll.poll(&mut events, Some(Duration::from_secs(1))) {
                // Stopped and continued.
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => other?,
            }
        }
    }
}

fn name(tables: &Tables, ifindex: u32) -> String {
    tables.link(ifindex).map_or_else(|| format!("#{ifindex}"), |l| l.name.clone())
}

fn print_links(tables: &Tables) {
    for l in tables.links() {
        let state = match (l.up, l.running) {
            (false, _) => "down",
            (true, false) => "no carrier",
            (true, true) => "running",
        };
        let mac = l.mac.map_or_else(|| "-".to_owned(), |m| m.to_string());
        let kind = l.kind.as_deref().unwrap_or("-");
        let parent = l.parent.map_or_else(String::new, |p| format!(" on {}", name(tables, p)));
        let master = l.master.map_or_else(String::new, |m| format!(" in {}", name(tables, m)));
        println!(
            "link {} {} {kind}{parent}{master} {mac} mtu {} {state} queues {}/{}",
            l.ifindex, l.name, l.mtu, l.rx_queues, l.tx_queues
        );
    }
}

fn print_addresses(tables: &Tables) {
    for a in tables.addresses() {
        let peer = a.peer.map_or_else(String::new, |p| format!(" peer {p}"));
        let state = match (a.tentative, a.duplicate, a.secondary) {
            (_, true, _) => " duplicate",
            (true, ..) => " tentative",
            (.., true) => " secondary",
            _ => "",
        };
        println!(
            "address {} {}/{}{peer} {:?}{state}",
            name(tables, a.ifindex),
            a.addr,
            a.prefix_len,
            a.scope
        );
    }
}

fn print_route(tables: &Tables, route: RouteRef<'_>) {
    print!("route {} {} {:?} metric {}", route.dst, tables.kind_of(route), route.table, route.priority);
    print!(" proto {}", route.protocol);
    if let Some(id) = route.nexthop_id {
        print!(" object {id}");
    }
    for hop in tables.nexthops_of(route).iter() {
        let gateway = hop.gateway.map_or_else(String::new, |g| format!("{g} "));
        let dead = if hop.dead { " dead" } else { "" };
        let linkdown = if hop.linkdown { " linkdown" } else { "" };
        print!(" via {gateway}{} weight {}{dead}{linkdown}", name(tables, hop.ifindex), hop.weight);
    }
    if let Some(mtu) = route.mtu {
        print!(" mtu {mtu}");
    }
    println!();
}

fn print_neighbor(tables: &Tables, ifindex: u32, ip: IpAddr) {
    match tables.neighbor(ifindex, ip) {
        None => println!("neighbour {ip} {} gone", name(tables, ifindex)),
        Some(n) => {
            let mac = n.mac.map_or_else(|| "-".to_owned(), |m| m.to_string());
            let managed = if n.managed { " managed" } else { "" };
            println!("neighbour {ip} {} {mac} {}{managed}", name(tables, ifindex), n.state);
        }
    }
}

fn print_all(tables: &Tables) {
    print_links(tables);
    print_addresses(tables);
    for route in tables.routes_sorted() {
        print_route(tables, route);
    }
    for n in tables.neighbors() {
        print_neighbor(tables, n.ifindex, n.ip);
    }
    println!(
        "{} links, {} addresses, {} routes, {} nexthop objects, {} neighbours",
        tables.links().len(),
        tables.addresses().len(),
        tables.route_count(),
        tables.nexthop_objects().len(),
        tables.neighbors().len()
    );
}
