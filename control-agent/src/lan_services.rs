//! DHCP server and relay, DNS forwarder and router advertisements on LAN ports: what the cloud and the device's own file
//! say, as settings of dnsmasq, which the agent runs.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use sag_dnsmasq::{
    Dns, Forward, NOWHERE, Places, Port, Problem, Reservation, Serves, Service, Settings, Upstream,
    VirtualRouter,
};
use sag_rtnl::{Scope, Tables};
use sag_southbound::{Capability, Deviation, Effect};

use crate::compile::LanServices;
use crate::config::{Config, LanMode};
use crate::dns;
use crate::overlay::{Tunnel, tunnel_to};

/// The agent's side of dnsmasq.
pub struct LanServer {
    service: Service,
    /// What of the device's own file has no effect.
    unmatched: Vec<Problem>,
}

/// Routers of LAN ports that this gateway or another one is (RFC 5798).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualRouters {
    pub ipv4: Option<VirtualRouter>,
    /// The port that has one of IPv6, and whether it is this device.
    pub ipv6: Option<(String, bool)>,
}

/// Whether the agent runs dnsmasq when it is needed.
pub fn may_run(config: &Config) -> bool {
    config.lan.mode != LanMode::Off && sag_dnsmasq::program().is_some()
}

/// Makes the directory of its files, for which the agent has no right later.
pub fn make_place(config: &Config) {
    if may_run(config)
        && let Err(error) = std::fs::create_dir_all(&config.lan.dir)
    {
        tracing::warn!(dir = %config.lan.dir.display(), %error, "LANs cannot be served");
    }
}

impl LanServer {
    pub fn new(config: &Config) -> LanServer {
        let program = match config.lan.mode {
            LanMode::Auto => sag_dnsmasq::program().ok_or_else(sag_dnsmasq::not_installed),
            LanMode::Off => Err("agent.toml says [lan] mode = \"off\"".to_owned()),
        };
        let places = Places { run: config.lan.dir.clone(), leases: config.state_dir.join("leases") };
        LanServer { service: Service::new(program, places, crate::VERSION), unmatched: Vec::new() }
    }

    /// What the device can do.
    pub fn capabilities(&self) -> Vec<Capability> {
        let all = [Capability::Dns, Capability::DhcpServer];
        all.into_iter().filter(|_| self.service.is_able()).collect()
    }

    /// Has the LANs be served as the configuration says.
    pub fn set(
        &mut self,
        compiled: &LanServices,
        tunnels: &[Tunnel],
        config: &Config,
        tables: Option<&Tables>,
        routers: VirtualRouters,
    ) {
        let (mut settings, unmatched) = complete(compiled, tunnels, config, tables, routers.ipv6);
        if !settings.is_off() {
            settings.virtual_router = routers.ipv4;
        }
        self.unmatched = unmatched;
        self.service.set(settings);
    }

    /// Looks after the daemon; true: something has begun or ended to be in force.
    pub fn tend(&mut self) -> bool {
        self.service.tend()
    }

    /// The DNS servers that the cloud has set and that are in use.
    pub fn servers(&self) -> Option<Vec<IpAddr>> {
        self.service.servers()
    }

    /// What is not in force.
    pub fn deviations(&self) -> Vec<Deviation> {
        let all = self.unmatched.iter().cloned().chain(self.service.problems());
        let deviation = |p: Problem| Deviation {
            section: p.section,
            object: p.object,
            effect: Some(Effect::LeftOut),
            reason: p.reason,
        };
        all.map(deviation).collect()
    }
}

/// What the cloud says, with what the device's own file and the machine add.
fn complete(
    compiled: &LanServices,
    tunnels: &[Tunnel],
    config: &Config,
    tables: Option<&Tables>,
    router: Option<(String, bool)>,
) -> (Settings, Vec<Problem>) {
    let local = &config.lan;
    let mut ports = compiled.ports.clone();
    let mut unmatched = Vec::new();
    for p in &mut ports {
        // Hosts have the virtual router, if there is one, for their only router.
        let (wanted, virtual_one) =
            (local.advertise.contains(&p.name), router.as_ref().filter(|r| r.0 == p.name));
        p.advertises = wanted && virtual_one.is_none() || config.ipv6.delegates_to(&p.name);
        let is_master = virtual_one.is_some_and(|(_, is_master)| *is_master);
        p.advertises_by = (wanted && is_master).then(|| sag_frr::DEVICE6.to_owned());
    }
    let no_port = |what: &str, port: &str| {
        let why = "there is no LAN port of this name; correct [lan] of agent.toml";
        Problem::new("Lan", format!("{what} of port {port}"), why)
    };
    let known = |name: &str| compiled.ports.iter().any(|p| p.name == name);
    unmatched
        .extend(local.advertise.iter().filter(|n| !known(n)).map(|n| no_port("router advertisements", n)));
    for relay in &local.relays {
        let Some(port) = ports.iter_mut().find(|p| p.name == relay.port) else {
            unmatched.push(no_port("DHCP relay", &relay.port));
            continue;
        };
        if let Some(Serves::Relay { servers, .. }) = &mut port.serves {
            servers.push(relay.server);
            continue;
        }
        // The port has no two ways of giving addresses; as with roles, the device's own file wins.
        if port.serves.is_some() {
            let why = "agent.toml has the port relay requests to other servers";
            unmatched.push(Problem::new("Lan", format!("DHCP server of port {}", port.name), why));
        }
        match tables.and_then(|t| address_of(t, &port.device)) {
            Some(local) => port.serves = Some(Serves::Relay { local, servers: vec![relay.server] }),
            None => {
                port.serves = None;
                let object = format!("DHCP relay of port {}", port.name);
                let problem = Problem::new("Lan", object, "the port has no IPv4 address");
                if !unmatched.contains(&problem) {
                    unmatched.push(problem);
                }
            }
        }
    }
    if let Some(tables) = tables {
        unmatched.extend(own_servers(compiled, tables));
    }
    unmatched.extend(homeless(&local.reservations, &ports));
    let serves_hosts = ports.iter().any(|p| p.is_advertised() || matches!(p.serves, Some(Serves::Range(_))));
    let upstream = || match compiled.servers.is_empty() {
        true => Upstream::File(dns::file(&config.resolv_conf)),
        false => Upstream::Servers(compiled.servers.clone()),
    };
    // Hosts that get addresses need names, too.
    let is_needed = serves_hosts || !compiled.servers.is_empty() || !compiled.forwards.is_empty();
    let forwards = compiled.forwards.iter();
    let forwards = forwards.flat_map(|f| match compiled.tunnelled.contains(&f.id) {
        true => by_tunnels(f, tunnels, tables, &mut unmatched),
        false => vec![f.clone()],
    });
    let forwards = forwards.collect();
    let settings = Settings {
        ports,
        dns: is_needed.then(|| Dns { upstream: upstream(), forwards }),
        domain: local.domain.clone(),
        reservations: local.reservations.clone(),
        ping: local.ping,
        local_ports: local_ports(Path::new("/proc/sys/net/ipv4/ip_local_port_range")),
        virtual_router: None,
    };
    (if settings.is_off() { Settings::default() } else { settings }, unmatched)
}

/// DNS servers that are this machine itself: dnsmasq leaves them out, or it would ask itself.
fn own_servers(compiled: &LanServices, tables: &Tables) -> Vec<Problem> {
    let of = |section: &str, object: &str, servers: &[IpAddr]| -> Vec<Problem> {
        let own = servers.iter().filter(|s| tables.addresses().any(|a| a.addr == **s));
        let why = |s: &IpAddr| format!("{s} is an address of the gateway itself; name another server");
        own.map(|s| Problem::new(section, object, why(s))).collect()
    };
    let mut out = of("Dns", "DNS servers", &compiled.servers);
    for f in &compiled.forwards {
        out.extend(of("DnsForwards", &format!("DNS servers of {}", f.domain), &f.servers));
    }
    out
}

/// Reservations that no host can get, while any port has a DHCP server.
fn homeless(reservations: &[Reservation], ports: &[Port]) -> Vec<Problem> {
    let network = |p: &Port| match &p.serves {
        Some(Serves::Range(range)) => Some(range.network),
        _ => None,
    };
    let networks: Vec<_> = ports.iter().filter_map(network).collect();
    let has_none =
        |r: &&Reservation| !networks.is_empty() && !networks.iter().any(|n| n.contains(&r.address));
    let why = |r: &Reservation| {
        format!("{} is in no network of a port with a DHCP server; correct [lan] of agent.toml", r.address)
    };
    let problem = |r: &Reservation| Problem::new("Lan", format!("reservation for {}", r.mac), why(r));
    reservations.iter().filter(has_none).map(problem).collect()
}

/// The domain with each of its servers by the tunnel that leads there now. Where none does, its names are refused: by
/// another way others would see the queries.
fn by_tunnels(
    f: &Forward,
    tunnels: &[Tunnel],
    tables: Option<&Tables>,
    unmatched: &mut Vec<Problem>,
) -> Vec<Forward> {
    let running = |device: &str| tables?.link_named(device).map(|l| l.running);
    let by_tunnel = |server: &IpAddr| {
        let found = match tunnel_to(*server, tunnels, running) {
            // Without an address of its own a query would have one that the far end does not take.
            Some(device) if tables.and_then(|t| address_of(t, &device)).is_none() => Err(format!(
                "the gateway has no address in its blocks, so no server answers by tunnel device {device}"
            )),
            Some(device) => Ok(device),
            None => Err(format!("no tunnel of the network leads to {server}")),
        };
        let device = found.unwrap_or_else(|why| {
            let why = format!("{why}; its names are not looked up by another way, others would see them");
            unmatched.push(Problem::new("DnsForwards", format!("DNS servers of {}", f.domain), why));
            NOWHERE.to_owned()
        });
        Forward { servers: vec![*server], device: Some(device), ..f.clone() }
    };
    f.servers.iter().map(by_tunnel).collect()
}

/// The first IPv4 address of a device.
fn address_of(tables: &Tables, device: &str) -> Option<Ipv4Addr> {
    let link = tables.link_named(device)?;
    let own = tables.addresses_of(link.ifindex).filter(|a| a.scope == Scope::Global && !a.secondary);
    own.filter_map(|a| if let IpAddr::V4(ip) = a.addr { Some(ip) } else { None }).min()
}

/// The ports from which the kernel sends: NAT's may be kept apart from these.
fn local_ports(file: &Path) -> Option<(u16, u16)> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut words = text.split_ascii_whitespace().map(str::parse);
    let (first, last): (u16, u16) = (words.next()?.ok()?, words.next()?.ok()?);
    (first >= 1024 && first < last).then_some((first, last))
}

#[cfg(test)]
#[path = "lan_services_tests.rs"]
mod tests;
