//! BGP, OSPF, the virtual address of two devices and lines by PPPoE: what FRR, keepalived and pppd shall do goes to the
//! routing service, and what it says of it comes back, in a thread of its own.
//!
//! The service ([`sag_frr::service`]) is the one of the machine (`sag-routing.service`), or one that an agent which runs as
//! root starts before it gives its privileges up; that one ends with the agent.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use sag_dnsmasq::VirtualRouter;
use sag_frr::{Client, Neighbor, Problem, Sessions, Settings, Side, Status, Vrrp};
use sag_model::Role;
use sag_rtnl::{Link, Scope, Tables};
use sag_southbound::{Capability, Deviation, Effect, RouteNeighbor};

use crate::compile::{Compiled, announced};
use crate::config::{Config, Routing as Local, RoutingMode};
use crate::desired::Desired;
use crate::health::Verdict;
use crate::lan_services::VirtualRouters;
use crate::vcpe::{Vcpe, VcpeError};

/// How often the service is asked while it has something to do, and while not.
const BUSY: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(10);
/// How long a service has until its end, when the agent ends.
const END: Duration = Duration::from_secs(6);
/// Neighbors of one report.
const MAX_NEIGHBORS: usize = 256;

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    wanted: Settings,
    /// Counts changes of `wanted`.
    revision: u64,
    status: Status,
    /// Why the service does not answer.
    silence: Option<String>,
}

/// The agent's side of the routing service.
pub struct Routing {
    dir: PathBuf,
    is_off: bool,
    shared: Arc<Shared>,
    /// Ends when its standard input does.
    service: Option<Child>,
}

/// Starts the routing service, where FRR is installed, this process is root, and the machine has no service that runs.
pub fn start_service(config: &Config) -> Option<Child> {
    if config.routing.mode == RoutingMode::Off {
        return None;
    }
    let installed = sag_frr::installed();
    if !installed.missing.is_empty() {
        let missing = installed.missing.join(" ");
        tracing::info!(missing, "BGP and OSPF cannot be used: packages are not installed");
    }
    if !installed.bgp && !installed.ospf && !installed.vrrp && !sag_frr::has_pppd() {
        return None;
    }
    if Client::new(&config.routing.dir).show().is_ok() || !rustix::process::geteuid().is_root() {
        return None;
    }
    let started = std::env::current_exe().and_then(|program| {
        let mut command = Command::new(program);
        command.args(["routing-daemons", "--keep", "--config"]).arg(&config.file);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()
    });
    started.inspect_err(|error| tracing::error!(%error, "cannot start the routing service")).ok()
}

/// How long the gateway has for an answer about its sessions.
const ANSWER: Duration = Duration::from_millis(500);

/// What the gateway says of sessions that follow to the other device; none: it does not answer.
pub fn sessions(socket: &Path) -> Option<Sessions> {
    match Vcpe::with_timeout(socket, ANSWER).ha() {
        Ok(ha) => Some(Sessions { follow: ha.configured, ready: ha.ready }),
        // One of another version, where none follow.
        Err(VcpeError::Refused(_)) => Some(Sessions { follow: false, ready: true }),
        Err(VcpeError::Unavailable { .. }) => None,
    }
}

impl Routing {
    /// `changed` is called when neighbors, daemons or problems are others than before.
    pub fn new(config: &Config, service: Option<Child>, changed: impl Fn() + Send + 'static) -> Routing {
        let shared = Arc::<Shared>::default();
        let is_off = config.routing.mode == RoutingMode::Off;
        if !is_off {
            let (shared, client) = (shared.clone(), Client::new(&config.routing.dir));
            let spawned = std::thread::Builder::new()
                .name("routing".into())
                .spawn(move || follow(&shared, &client, &changed));
            if let Err(error) = spawned {
                tracing::error!(%error, "cannot start the thread for BGP and OSPF");
            }
        }
        Routing { dir: config.routing.dir.clone(), is_off, shared, service }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has FRR do this from now on.
    pub fn set(&self, settings: Settings) {
        let mut state = self.state();
        // The first time it is news that nothing is wanted: an earlier service may have left something.
        if state.wanted != settings || state.revision == 0 {
            state.wanted = settings;
            state.revision += 1;
            self.shared.changed.notify_one();
        }
    }

    /// What the device can do.
    pub fn capabilities(&self) -> Vec<Capability> {
        let there = !self.is_off && (self.service.is_some() || Client::new(&self.dir).is_there());
        let installed = sag_frr::installed();
        let of = [
            (Capability::Bgp, installed.bgp),
            (Capability::Ospf, installed.ospf),
            (Capability::Vrrp, installed.vrrp),
            // What the kernel can, the service knows.
            (Capability::Pppoe, self.state().status.installed.pppoe),
        ];
        of.into_iter().filter(|(_, has)| there && *has).map(|(capability, _)| capability).collect()
    }

    /// What the service has said last.
    pub fn status(&self) -> Status {
        self.state().status.clone()
    }

    /// What of the settings is not in force.
    pub fn deviations(&self) -> Vec<Deviation> {
        let state = self.state();
        let protocols = match &state.wanted {
            w if w.bgp.is_some() => Some("Bgp"),
            w if w.ospf.is_some() => Some("Ospf"),
            w if w.vrrp.is_some() => Some("Ha"),
            _ => None,
        };
        let of_service = |section: &str, object: String, reason: String| Deviation {
            section: section.to_owned(),
            object,
            effect: Some(Effect::LeftOut),
            reason,
        };
        if !self.is_off && state.silence.is_none() {
            return self.of_status(&state, protocols.unwrap_or("Wan"));
        }
        let why = |missing: Vec<String>| match &state.silence {
            _ if self.is_off => "it is off: routing.mode in agent.toml".to_owned(),
            Some(why) if missing.is_empty() => format!("{why}; start sag-routing.service"),
            _ => format!("not installed: {}", missing.join(", ")),
        };
        let mut out = Vec::new();
        if let Some(section) = protocols {
            let installed = sag_frr::installed();
            let missing = match section {
                "Ha" if installed.vrrp => Vec::new(),
                "Ha" => vec!["keepalived".to_owned()],
                _ => installed.missing,
            };
            out.push(of_service(section, "dynamic routing".to_owned(), why(missing)));
        }
        for line in &state.wanted.pppoe {
            let missing = if sag_frr::has_pppd() { Vec::new() } else { vec!["ppp".to_owned()] };
            out.push(of_service("Wan", format!("PPPoE on port {}", line.port), why(missing)));
        }
        out
    }

    /// What the service says is not in force.
    fn of_status(&self, state: &State, section: &str) -> Vec<Deviation> {
        let mut out = Vec::new();
        if state.wanted.is_idle() {
            return out;
        }
        let of_service = |reason: String| Deviation {
            section: section.to_owned(),
            object: "dynamic routing".to_owned(),
            effect: Some(Effect::LeftOut),
            reason,
        };
        // The service says the same a moment later, and until then nothing is in force that is wrong in itself.
        let told = &state.status.problems;
        let mut known = sag_frr::unusable(&state.wanted);
        known.retain(|k| !told.iter().any(|p| p.object == k.object));
        out.extend(told.iter().chain(&known).map(|p| deviation(p, section)));
        let daemons = state.status.daemons.iter().filter(|d| !d.is_well());
        out.extend(daemons.map(|d| {
            let why = if d.problem.is_empty() { "it does not run yet" } else { &d.problem };
            let mut of_daemon = of_service(format!("{}: {why}", d.name));
            if d.name == "keepalived" {
                (of_daemon.section, of_daemon.object) = ("Ha".to_owned(), "virtual address".to_owned());
            }
            of_daemon
        }));
        out
    }

    /// The virtual address, with its device, if keepalived sees to it that a device has it.
    fn virtual_router(&self) -> Option<VirtualRouter> {
        let state = self.state();
        let vrrp = state.wanted.vrrp.as_ref()?;
        let has_service = !self.is_off && (self.service.is_some() || Client::new(&self.dir).is_there());
        let by = vrrp.virtual_mac.then(|| sag_frr::DEVICE4.to_owned());
        let (device, address) = (vrrp.device.clone(), vrrp.address);
        (has_service && sag_frr::installed().vrrp).then_some(VirtualRouter { device, address, by })
    }

    /// Whether this device forwards for its branch: the other one does while that has their virtual address.
    pub fn is_active(&self) -> bool {
        let state = self.state();
        state.wanted.vrrp.is_none() || state.status.vrrp.as_ref().is_some_and(sag_frr::VrrpState::is_master)
    }

    /// The routers of LAN ports that this device or another one is.
    pub fn virtual_routers(&self) -> VirtualRouters {
        VirtualRouters { ipv4: self.virtual_router(), ipv6: self.virtual_router6() }
    }

    /// The LAN port that has a virtual router of IPv6, and whether it is this device now.
    fn virtual_router6(&self) -> Option<(String, bool)> {
        let state = self.state();
        let vrrp = state.wanted.vrrp.as_ref().filter(|v| !v.ipv6.is_empty())?;
        Some((vrrp.port.clone(), state.status.vrrp.as_ref().is_some_and(sag_frr::VrrpState::is_master)))
    }

    /// Neighbors for the state report.
    pub fn neighbors(&self, compiled: Option<&Compiled>) -> Vec<RouteNeighbor> {
        let state = self.state();
        let port_of = |n: &sag_frr::NeighborState| {
            let bgp = state.wanted.bgp.iter().flat_map(|b| &b.neighbors);
            let by_address = bgp.clone().find(|w| w.address.to_string() == n.address).map(|w| w.port.clone());
            let mut ports = compiled.iter().flat_map(|c| &c.ports);
            by_address.or_else(|| ports.find(|(_, d, _)| *d == n.device).map(|(name, ..)| name.clone()))
        };
        let row = |n: &sag_frr::NeighborState| RouteNeighbor {
            protocol: n.protocol.clone(),
            port_name: port_of(n).unwrap_or_default(),
            address: n.address.clone(),
            router_id: n.router_id.clone(),
            remote_as: n.remote_as.map(i64::from),
            state: n.state.clone(),
            up: Some(n.up),
            received: n.received,
        };
        state.status.neighbors.iter().take(MAX_NEIGHBORS).map(row).collect()
    }
}

impl Drop for Routing {
    fn drop(&mut self) {
        let Some(mut service) = self.service.take() else { return };
        drop(service.stdin.take());
        let until = Instant::now() + END;
        while matches!(service.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn deviation(p: &Problem, section: &str) -> Deviation {
    Deviation {
        section: if p.section.is_empty() { section } else { &p.section }.to_owned(),
        object: p.object.clone(),
        effect: Some(Effect::LeftOut),
        reason: p.reason.clone(),
    }
}

/// What somebody waits for to change: times and counts change all the while.
fn outline(status: &Status, silence: &Option<String>) -> impl PartialEq + use<> {
    let neighbors: Vec<_> =
        status.neighbors.iter().map(|n| (n.address.clone(), n.device.clone(), n.state.clone())).collect();
    let lines: Vec<_> = status.pppoe.iter().map(|l| (l.port.clone(), l.up, l.address.clone())).collect();
    let (daemons, problems) = (status.daemons.clone(), status.problems.clone());
    let pppoe = status.installed.pppoe;
    (neighbors, daemons, problems, status.vrrp.clone(), lines, pppoe, silence.clone())
}

fn follow(shared: &Shared, client: &Client, changed: &impl Fn()) {
    let mut known = None;
    let mut told = 0;
    let mut asked = false;
    loop {
        let (wanted, revision) = {
            let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            // One that has just been started answers in a moment.
            let pause = if state.wanted.is_idle() && asked { IDLE } else { BUSY };
            let (state, _) = shared
                .changed
                .wait_timeout_while(state, pause, |s| s.revision == told)
                .unwrap_or_else(PoisonError::into_inner);
            (state.wanted.clone(), state.revision)
        };
        let is_off = wanted.is_idle();
        // A service that has been started anew knows nothing; to the others it is no news. As long as nothing is known of
        // what it shall do, it is asked what it can.
        let said = if revision == 0 { client.show() } else { client.set(wanted) };
        asked |= said.is_ok();
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        match said {
            Ok(status) => (state.status, state.silence, told) = (status, None, revision),
            Err(error) => {
                let why = error.to_string();
                if !is_off && state.silence.as_ref() != Some(&why) {
                    tracing::warn!("{why}");
                }
                (state.status, state.silence, told) = (Status::default(), Some(why), revision);
            }
        }
        let now = outline(&state.status, &state.silence);
        drop(state);
        if known.as_ref() != Some(&now) {
            known = Some(now);
            changed();
        }
    }
}

/// What the machine adds to what the cloud says: the networks of its LAN ports, and neighbors, keys and bounds of its own
/// file. What cannot work for want of a device comes back as deviations.
pub fn complete(
    compiled: &Compiled,
    desired: &Desired,
    health: &BTreeMap<String, Verdict>,
    local: &Local,
    tables: &Tables,
) -> (Settings, Vec<Deviation>) {
    let mut out = compiled.routing.clone();
    let mut deviations = Vec::new();
    out.bfd = local.bfd;
    if let Some(vrrp) = &mut out.vrrp {
        vrrp.priority = local.vrrp_priority;
        vrrp.virtual_mac = local.virtual_mac;
        vrrp.ipv6.clone_from(&local.vrrp_ipv6);
        deviations.extend(unfit_ipv6(vrrp, tables));
        if let Some(why) = unfit_address(vrrp, tables) {
            deviations.push(Deviation {
                section: "Ha".to_owned(),
                object: format!("virtual address {} on port {}", vrrp.address, vrrp.port),
                effect: Some(Effect::LeftOut),
                reason: why,
            });
            out.vrrp = None;
        }
    }
    if let Some(bgp) = &mut out.bgp {
        bgp.max_prefixes = local.max_prefixes;
        bgp.branch.extend(lan_networks(compiled, tables).filter(|n| announced(desired, health, n)));
        bgp.branch.sort();
        bgp.branch.dedup();
        add_local(&mut bgp.neighbors, compiled, local, tables);
        bgp.neighbors.retain(|n| {
            let is_own = tables.addresses().any(|a| a.addr == n.address);
            if is_own {
                deviations.push(own_address(n));
            }
            !is_own
        });
        for n in &bgp.neighbors {
            deviations.extend(without_device(n, compiled, tables));
        }
    }
    (out, deviations)
}

/// Hosts must be in the networks of the virtual addresses of IPv6, which the port has; else only IPv4 moves.
fn unfit_ipv6(vrrp: &mut Vrrp, tables: &Tables) -> Option<Deviation> {
    let link = tables.link_named(&vrrp.device)?;
    let nets: Vec<IpNet> = networks(tables, link).collect();
    let mut global = vrrp.ipv6.iter().skip(1);
    let alien = *global.find(|a| !nets.contains(&IpNet::V6(a.trunc())))?;
    vrrp.ipv6.clear();
    Some(Deviation {
        section: "Ha".to_owned(),
        object: format!("virtual addresses of IPv6 on port {}", vrrp.port),
        effect: Some(Effect::LeftOut),
        reason: format!("{alien} is in no network of the port; correct [routing] vrrp_ipv6 of agent.toml"),
    })
}

/// Hosts of the port's network must be able to take the address for a router's, and no device may have it for its own.
fn unfit_address(vrrp: &Vrrp, tables: &Tables) -> Option<String> {
    let address = IpAddr::V4(vrrp.address);
    let link = tables.link_named(&vrrp.device)?;
    let mut nets = networks(tables, link).filter(|n| n.prefix_len() < n.max_prefix_len());
    if !nets.any(|n| n.contains(&address)) {
        return Some("it is in no network of the port; choose another VirtualIp".to_owned());
    }
    // keepalived's own has no network.
    let own = |a: &sag_rtnl::Address| a.addr == address && a.subnet().is_some_and(|n| n.prefix_len() < 32);
    let is_own = tables.addresses().any(own);
    is_own.then(|| "the device itself has this address; choose another VirtualIp".to_owned())
}

/// Networks of LAN ports whose link is up.
fn lan_networks<'a>(compiled: &'a Compiled, tables: &'a Tables) -> impl Iterator<Item = IpNet> + 'a {
    let lans = compiled.ports.iter().filter(|(_, _, role)| *role == Role::Lan);
    let links = lans.filter_map(|(_, device, _)| tables.link_named(device)).filter(|l| l.running);
    links.flat_map(|l| networks(tables, l))
}

fn networks<'a>(tables: &'a Tables, link: &'a Link) -> impl Iterator<Item = IpNet> + 'a {
    let own = tables.addresses().filter(|a| a.ifindex == link.ifindex && a.scope == Scope::Global);
    let all = own.filter_map(sag_rtnl::Address::subnet).map(|n| n.trunc());
    // The virtual address of two devices is in the network that is announced already.
    all.filter(|n| n.prefix_len() < n.max_prefix_len())
}

/// Neighbors of agent.toml: those that the cloud names too get their key from there.
fn add_local(neighbors: &mut Vec<Neighbor>, compiled: &Compiled, local: &Local, tables: &Tables) {
    for l in &local.neighbors {
        let found = neighbors.iter_mut().find(|n| n.address == l.address);
        match (found, l.remote_as) {
            (Some(n), _) => (n.key, n.hops) = (l.key.clone(), l.hops),
            (None, Some(remote_as)) => neighbors.push(Neighbor {
                port: String::new(),
                address: l.address,
                remote_as,
                key: l.key.clone(),
                side: side(l.address, compiled, tables),
                hops: l.hops,
            }),
            // A key for a neighbor that the cloud does not name now.
            (None, None) => {}
        }
    }
}

/// The device does not speak to itself.
fn own_address(n: &Neighbor) -> Deviation {
    Deviation {
        section: if n.port.is_empty() { "Bgp" } else { "PortProtocols" }.to_owned(),
        object: match n.port.as_str() {
            "" => format!("BGP neighbor {} of agent.toml", n.address),
            port => format!("BGP neighbor {} of port {port}", n.address),
        },
        effect: Some(Effect::LeftOut),
        reason: "the device itself has this address; name that of the neighbor".to_owned(),
    }
}

/// Inside is who is in the network of a LAN port.
fn side(address: IpAddr, compiled: &Compiled, tables: &Tables) -> Side {
    match lan_networks(compiled, tables).any(|n| n.contains(&address)) {
        true => Side::Inside,
        false => Side::Outside,
    }
}

/// A leased line's VLAN reaches the kernel, and so FRR, by a VLAN device on it.
fn without_device(n: &Neighbor, compiled: &Compiled, tables: &Tables) -> Option<Deviation> {
    let (_, vlan) = n.port.split_once('.')?;
    let vlan: u16 = vlan.parse().ok()?;
    let (_, device, _) = compiled.ports.iter().find(|(name, ..)| *name == n.port)?;
    let parent = tables.link_named(device)?;
    let is_there = tables.links().any(|l| l.parent == Some(parent.ifindex) && l.vlan == Some(vlan));
    let remedy = format!("ip link add link {device} name {device}.{vlan} type vlan id {vlan}");
    (!is_there).then(|| Deviation {
        section: "PortProtocols".to_owned(),
        object: format!("BGP neighbor {} of port {}", n.address, n.port),
        effect: Some(Effect::Partial),
        reason: format!("the kernel has no device for VLAN {vlan} of {device}; {remedy}"),
    })
}

#[cfg(test)]
#[path = "routing_tests.rs"]
mod tests;
