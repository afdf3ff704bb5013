//! The daemon's files, made whole from the settings.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use crate::leases::MAX_LEASES;
use crate::settings::{
    Dns, NOWHERE, Range, Serves, Settings, Upstream, VirtualRouter, is_device, is_mac, is_name,
};
use crate::status::Problem;

/// An address that no host has (RFC 1112, 4), in the place of servers that are not to be asked.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(240, 0, 0, 1));
/// Names that are remembered, and queries that wait for an answer.
const CACHE: u32 = 4096;
const QUERIES: u32 = 1000;
/// Milliseconds after which a query that is not answered is sent again, to all servers, and for how long.
const RETRY: &str = "1000,6000";
/// The longest lifetimes of a network that is advertised, ND_PREFERRED_LIMIT of RFC 9096 section 4: hosts forget one that
/// is gone without a word. Those of the device's address are shorter where it lasts no longer.
const ADVERTISED: &str = "45m";
/// Seconds between advertisements, so that a network of a lease of minutes is renewed in time, and how long this is a
/// router without them.
const INTERVAL: u32 = 60;
const LIFETIME: u32 = 1800;

/// The files. The last two are read again while the daemon runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) main: String,
    pub(crate) servers: String,
    pub(crate) hosts: String,
}

/// Where the daemon's files are.
pub(crate) struct Files<'a> {
    pub(crate) servers: &'a Path,
    pub(crate) hosts: &'a Path,
    pub(crate) leases: &'a Path,
    pub(crate) pid: &'a Path,
}

/// What of the settings can stand in the files, and what cannot.
pub(crate) fn checked(settings: &Settings) -> (Settings, Vec<Problem>) {
    let (mut good, mut problems) = (settings.clone(), Vec::new());
    good.ports.retain(|p| {
        let fits = is_device(&p.device);
        if !fits {
            let why = format!("{:?} has characters that dnsmasq takes for others", p.device);
            problems.push(Problem::new("Lan", format!("port {}", p.name), why));
        }
        fits
    });
    if let Some(dns) = &mut good.dns {
        dns.forwards.retain(|f| {
            let why = if !is_name(f.domain.strip_prefix("*.").unwrap_or(&f.domain)) {
                "it is no name of a domain"
            } else if f.servers.is_empty() {
                "it has no DNS server"
            } else if f.device.as_deref().is_some_and(|d| !is_device(d)) {
                "its device has characters that dnsmasq takes for others"
            } else {
                return true;
            };
            problems.push(Problem::new("DnsForwards", format!("DNS servers of {}", f.domain), why));
            false
        });
    }
    good.reservations.retain(|r| is_mac(&r.mac) && (r.name.is_empty() || is_name(&r.name)));
    if !is_name(&good.domain) {
        good.domain.clear();
    }
    (good, problems)
}

/// Makes the files; the settings are [`checked`].
pub(crate) fn render(settings: &Settings, files: &Files<'_>) -> Rendered {
    let mut out =
        String::from("# Written by sag-agent for the LAN ports of the gateway; changes are lost.\n");
    let mut line = |text: &str| {
        out.push_str(text);
        out.push('\n');
    };
    line("keep-in-foreground");
    line("log-facility=-");
    line(&format!("pid-file={}", files.pid.display()));
    // The machine's own names are no business of its LANs.
    line("no-hosts");
    // On addresses that come later too, and on the devices of LAN ports alone.
    line("bind-dynamic");
    line("except-interface=lo");
    for p in &settings.ports {
        line(&format!("interface={}", p.device));
        if let Some(by) = &p.advertises_by {
            line(&format!("interface={by}"));
        }
    }
    // Hosts ask the virtual address for names, which is on a device of its own then. Broadcasts come to both.
    if let Some(by) = settings.virtual_router.as_ref().and_then(|r| r.by.as_ref()) {
        line(&format!("interface={by}"));
    }
    names(settings, files, &mut line);
    addresses(settings, files, &mut line);
    advertisements(settings, files, &mut line);
    let hosts = settings.reservations.iter().fold(String::new(), |mut out, r| {
        let name = if r.name.is_empty() { String::new() } else { format!(",{}", r.name) };
        let _ = writeln!(out, "{},{}{name}", r.mac.to_ascii_lowercase(), r.address);
        out
    });
    Rendered { main: out, servers: settings.dns.as_ref().map(servers).unwrap_or_default(), hosts }
}

fn names(settings: &Settings, files: &Files<'_>, line: &mut impl FnMut(&str)) {
    let Some(dns) = &settings.dns else { return line("port=0") };
    match &dns.upstream {
        Upstream::Servers(_) => line("no-resolv"),
        Upstream::File(path) => line(&format!("resolv-file={}", path.display())),
    }
    line(&format!("servers-file={}", files.servers.display()));
    line("domain-needed");
    line(&format!("cache-size={CACHE}"));
    line(&format!("dns-forward-max={QUERIES}"));
    line(&format!("fast-dns-retry={RETRY}"));
    if let Some((first, last)) = settings.local_ports {
        line(&format!("min-port={first}"));
        line(&format!("max-port={last}"));
    }
}

fn servers(dns: &Dns) -> String {
    let mut out = String::new();
    if let Upstream::Servers(servers) = &dns.upstream {
        for server in servers {
            let _ = writeln!(out, "server={server}");
        }
    }
    for f in &dns.forwards {
        let by = f.device.as_ref().map_or_else(String::new, |d| format!("@{d}"));
        for server in &f.servers {
            // One of the machine's own addresses would be left out, and the domain be asked of the other servers.
            let server = if f.device.as_deref() == Some(NOWHERE) { NOBODY } else { *server };
            let _ = writeln!(out, "server=/{}/{server}{by}", f.domain.to_ascii_lowercase());
        }
    }
    out
}

fn addresses(settings: &Settings, files: &Files<'_>, line: &mut impl FnMut(&str)) {
    if settings.ports.iter().all(|p| p.serves.is_none()) {
        return;
    }
    line("dhcp-authoritative");
    line("quiet-dhcp");
    line(&format!("dhcp-leasefile={}", files.leases.display()));
    line(&format!("dhcp-lease-max={MAX_LEASES}"));
    line(&format!("dhcp-hostsfile={}", files.hosts.display()));
    // A host of this name would get the others' settings of proxies (CERT VU#598349).
    line("dhcp-name-match=set:wpad,wpad");
    line("dhcp-ignore-names=tag:wpad");
    if !settings.ping {
        line("no-ping");
    }
    if !settings.domain.is_empty() {
        line(&format!("domain={}", settings.domain));
    }
    for p in &settings.ports {
        match &p.serves {
            Some(Serves::Range(range)) => range_of(settings, &p.device, range, line),
            Some(Serves::Relay { local, servers }) => {
                for server in servers {
                    line(&format!("dhcp-relay={local},{server}"));
                }
            }
            None => line(&format!("no-dhcpv4-interface={}", p.device)),
        }
        if let Some(by) = &p.advertises_by {
            line(&format!("no-dhcpv4-interface={by}"));
        }
    }
    if let Some(by) = settings.virtual_router.as_ref().and_then(|r| r.by.as_ref()) {
        line(&format!("no-dhcpv4-interface={by}"));
    }
}

/// The range of a port, whose hosts go by the virtual address if it has one: the port's own goes with this gateway.
fn range_of(settings: &Settings, device: &str, range: &Range, line: &mut impl FnMut(&str)) {
    let of_port = |v: &&VirtualRouter| v.device == device && range.network.contains(&v.address);
    let router = settings.virtual_router.as_ref().filter(of_port).map(|v| v.address);
    let parts = range.without(router);
    if parts.is_empty() {
        return line(&format!("no-dhcpv4-interface={device}"));
    }
    for (first, last) in parts {
        let (mask, minutes) = (range.network.netmask(), range.minutes);
        line(&format!("dhcp-range={first},{last},{mask},{minutes}m"));
    }
    // A request has the name of its device as a tag.
    if let Some(router) = router {
        line(&format!("dhcp-option=tag:{device},option:router,{router}"));
        if settings.dns.is_some() {
            line(&format!("dhcp-option=tag:{device},option:dns-server,{router}"));
        }
    }
}

fn advertisements(settings: &Settings, files: &Files<'_>, line: &mut impl FnMut(&str)) {
    if settings.ports.iter().all(|p| !p.is_advertised()) {
        return;
    }
    if settings.ports.iter().all(|p| p.serves.is_none()) {
        // It has one all the same, and not where it would have it by itself.
        line(&format!("dhcp-leasefile={}", files.leases.display()));
    }
    line("enable-ra");
    line("quiet-ra");
    line("quiet-dhcp6");
    if let Some(by) = settings.virtual_router.as_ref().and_then(|r| r.by.as_ref()) {
        line(&format!("no-dhcpv6-interface={by}"));
    }
    for p in &settings.ports {
        if !p.advertises {
            line(&format!("no-dhcpv6-interface={}", p.device));
        }
        for by in p.advertises.then_some(&p.device).into_iter().chain(&p.advertises_by) {
            line(&format!("ra-param={by},{INTERVAL},{LIFETIME}"));
            line(&format!("dhcp-range=::,constructor:{by},ra-stateless,64,{ADVERTISED}"));
        }
    }
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
