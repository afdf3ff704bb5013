//! IPv6 of the provider, as the device's own file says it: addresses of WAN ports, and prefixes that are delegated to the
//! gateway, out of which LAN ports get networks (RFC 8415, RFC 7084, RFC 9096).

mod client;
mod delegation;
mod lease;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ipnet::Ipv6Net;
use sag_model::Role;
use sag_rtnl::{LeasedEditor, LeasedRoute, Lifetimes, Tables};
use sag_southbound::{Deviation, Effect};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Wan6, Wan6Address};
use crate::files::{self, Unwritten};
use client::{Client, News};
use delegation::Delegations;

/// Lifetimes of an address in the kernel that differ by so much are set anew.
const TOLERANCE: u32 = 3;

/// What outlives the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    delegations: Delegations,
    /// Addresses that the agent has set, by device: kernels before Linux 5.18 keep no mark of them.
    addresses: BTreeSet<(String, Ipv6Net)>,
    /// Addresses of WAN ports that DHCPv6 clients have set, by device.
    leased: BTreeSet<(String, Ipv6Net)>,
}

/// IPv6 of the WAN ports, and of the LAN ports by it.
pub struct Ipv6 {
    config: Arc<Config>,
    editor: Option<LeasedEditor>,
    clients: BTreeMap<String, Client>,
    record: Record,
    written: Record,
    file: PathBuf,
    unwritten: Unwritten,
    /// Seconds since 1970 when the agent started; later ones are counted, since the clock may be set.
    epoch: u64,
    started: Instant,
    deviations: Vec<Deviation>,
}

impl Ipv6 {
    /// Ends what an earlier process has left and is not wanted any more.
    pub fn new(config: Arc<Config>) -> Ipv6 {
        let file = config.state_dir.join("ipv6.json");
        let record: Record =
            std::fs::read(&file).ok().and_then(|t| serde_json::from_slice(&t).ok()).unwrap_or_default();
        let editor = LeasedEditor::open()
            .map_err(|error| tracing::warn!(%error, "IPv6 addresses of ports cannot be set"))
            .ok();
        let it = Ipv6 {
            editor,
            clients: BTreeMap::new(),
            written: record.clone(),
            record,
            file,
            unwritten: Unwritten::default(),
            epoch: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            started: Instant::now(),
            deviations: Vec::new(),
            config,
        };
        let wanted = it.config.ipv6.wans.iter().filter(|w| w.uses_dhcp()).map(|w| w.device.clone());
        let wanted: Vec<String> = wanted.collect();
        client::retire_others(&it.config.state_dir, &wanted);
        it
    }

    fn now(&self) -> u64 {
        self.epoch.saturating_add(self.started.elapsed().as_secs())
    }

    /// Brings everything to what it shall be; to be called once a second. `roles` has the ports in force, as (name, device,
    /// role). True: something has begun or ended to be in force.
    pub fn tend(&mut self, tables: Option<&Tables>, roles: &[(String, String, Role)]) -> bool {
        let before = std::mem::take(&mut self.deviations);
        let config = self.config.clone();
        let mut wans: Vec<Wan6> = Vec::new();
        for wan in &config.ipv6.wans {
            match obstacle(wan, roles) {
                None => {
                    if let Some(why) = deaf(wan) {
                        self.deviate("Wan", &wan.port, Effect::Partial, why);
                    }
                    wans.push(wan.clone());
                }
                Some(why) => self.deviate("Wan", &wan.port, Effect::LeftOut, why),
            }
        }
        self.run_clients(&wans);
        if let Some(tables) = tables {
            self.set(&wans, tables, roles);
        }
        self.save();
        before != self.deviations
    }

    /// What is not in force.
    pub fn deviations(&self) -> &[Deviation] {
        &self.deviations
    }

    fn deviate(&mut self, section: &str, port: &str, effect: Effect, reason: String) {
        let object = format!("IPv6 of port {port}");
        self.deviations.push(Deviation { section: section.to_owned(), object, effect: Some(effect), reason });
    }

    fn run_clients(&mut self, wans: &[Wan6]) {
        let wanted: BTreeSet<&String> = wans.iter().filter(|w| w.uses_dhcp()).map(|w| &w.device).collect();
        self.clients.retain(|device, _| wanted.contains(device));
        let now = self.now();
        for wan in wans.iter().filter(|w| w.uses_dhcp()) {
            let Some(program) = client::program() else {
                let why = "dhcpcd, which speaks DHCPv6, is not installed; install dhcpcd-base".to_owned();
                self.deviate("Wan", &wan.port, Effect::LeftOut, why);
                continue;
            };
            let fresh = || Client::new(wan, &self.config.state_dir);
            let client = self.clients.entry(wan.device.clone()).or_insert_with(fresh);
            client.tend(program);
            let problem = client.problem.clone();
            match client.news() {
                News::None => {}
                News::Lease(lease, age) => {
                    let at = now.saturating_sub(age);
                    self.record.leased.retain(|(device, _)| *device != wan.device);
                    let addresses = lease.addresses.iter().filter_map(|(ip, _)| Ipv6Net::new(*ip, 128).ok());
                    self.record.leased.extend(addresses.map(|address| (wan.device.clone(), address)));
                    self.record.delegations.renew(&wan.port, &lease, at);
                }
                News::Lost => self.record.delegations.renew(&wan.port, &lease::Lease::default(), now),
            }
            if !problem.is_empty() {
                self.deviate("Wan", &wan.port, Effect::Partial, problem);
            } else if !wan.lans.is_empty() && !self.record.delegations.is_preferred(&wan.port, now) {
                let why = "the provider has delegated no prefix, or not renewed it".to_owned();
                self.deviate("Wan", &wan.port, Effect::Partial, why);
            }
        }
    }

    /// Gives the devices their addresses, and the kernel the routes that go with them.
    fn set(&mut self, wans: &[Wan6], tables: &Tables, roles: &[(String, String, Role)]) {
        let now = self.now();
        let delegating = wans.iter().filter(|w| !w.lans.is_empty()).map(|w| w.port.clone()).collect();
        let over = self.record.delegations.expire(now, &delegating);
        let (lans, problems) = self.record.delegations.addresses(wans, now);
        for (port, why) in problems {
            self.deviate("Lan", &port, Effect::LeftOut, why);
        }
        let mut wanted: BTreeMap<(String, Ipv6Net), (String, Lifetimes)> = BTreeMap::new();
        for (lan, lifetimes) in lans {
            let device = |(name, _, role): &&(String, String, Role)| *name == lan.port && *role == Role::Lan;
            match roles.iter().find(device) {
                Some((_, device, _)) => {
                    wanted.insert((device.clone(), lan.address), (lan.port, lifetimes));
                }
                None => {
                    let why =
                        "the port is no LAN port, so it gets no network of a delegated prefix".to_owned();
                    self.deviate("Lan", &lan.port, Effect::LeftOut, why);
                }
            }
        }
        let mut routes: BTreeSet<LeasedRoute> =
            self.record.delegations.prefixes().map(LeasedRoute::Unreachable).collect();
        for wan in wans {
            if let Wan6Address::Static { address, gateway } = wan.address {
                wanted.insert((wan.device.clone(), address), (wan.port.clone(), Lifetimes::FOREVER));
                let link = tables.link_named(&wan.device).filter(|l| l.up);
                if let Some((gateway, link)) = gateway.zip(link) {
                    routes.insert(LeasedRoute::Default { ifindex: link.ifindex, gateway });
                }
            }
        }
        if let Err(error) = self.edit(&wanted, &routes, &over, tables) {
            self.deviate("Wan", "all", Effect::Partial, error.to_string());
        }
    }

    fn edit(
        &mut self,
        wanted: &BTreeMap<(String, Ipv6Net), (String, Lifetimes)>,
        routes: &BTreeSet<LeasedRoute>,
        over: &[Ipv6Net],
        tables: &Tables,
    ) -> sag_rtnl::Result<()> {
        let Some(editor) = &mut self.editor else { return Ok(()) };
        let name = |ifindex: u32| tables.link(ifindex).map(|l| l.name.clone()).unwrap_or_default();
        let there: BTreeMap<(String, Ipv6Net), _> =
            editor.addresses()?.into_iter().map(|a| ((name(a.ifindex), a.address), a)).collect();
        for (key, a) in &there {
            let left = self.record.leased.contains(key) && !self.clients.contains_key(&key.0);
            let ours = a.own || left || self.record.addresses.contains(key);
            if ours && !wanted.contains_key(key) {
                tracing::info!(device = key.0, address = %key.1, "IPv6 address removed");
                editor.remove_address(a.ifindex, key.1)?;
            }
        }
        self.record.leased.retain(|(device, _)| self.clients.contains_key(device));
        // Written down before it is set, so that a crash forgets nothing.
        let keys: BTreeSet<(String, Ipv6Net)> = wanted.keys().cloned().collect();
        if self.record.addresses != keys {
            self.record.addresses = keys;
            self.save();
        }
        let mut problems = Vec::new();
        let Some(editor) = &mut self.editor else { return Ok(()) };
        for (key, (port, lifetimes)) in wanted {
            let (device, address) = key;
            let Some(link) = tables.link_named(device) else {
                let why = format!("no network device {device}; correct [ports] of agent.toml");
                problems.push((port.clone(), why));
                continue;
            };
            let has = there.get(key).map(|a| a.lifetimes);
            if has.is_some_and(|has| is_near(has, *lifetimes)) || !link.up {
                continue;
            }
            if has.is_none() {
                tracing::info!(device, %address, ?lifetimes, "IPv6 address");
            }
            if let Err(error) = editor.set_address(link.ifindex, *address, *lifetimes) {
                problems.push((port.clone(), error.to_string()));
            }
        }
        for prefix in over {
            editor.remove_unreachable_of_dhcp(*prefix)?;
        }
        let (_, refused) = editor.set_routes(routes)?;
        for (route, error) in refused {
            tracing::debug!(?route, %error, "the kernel refuses a route");
        }
        for (port, why) in problems {
            let is_wan = self.config.ipv6.wans.iter().any(|w| w.port == port);
            self.deviate(if is_wan { "Wan" } else { "Lan" }, &port, Effect::Partial, why);
        }
        Ok(())
    }

    fn save(&mut self) {
        if self.written == self.record {
            return;
        }
        let text = serde_json::to_vec(&self.record).unwrap_or_default();
        if self.unwritten.note("delegated prefixes", &self.file, files::replace(&self.file, &text)) {
            self.written = self.record.clone();
        }
    }
}

/// Why the entry of a port cannot be in force.
fn obstacle(wan: &Wan6, roles: &[(String, String, Role)]) -> Option<String> {
    match roles.iter().find(|(name, ..)| *name == wan.port) {
        Some((_, device, Role::Wan)) if *device != wan.device => {
            Some(format!("the line has its addresses on {device} (PPPoE), where no IPv6 is asked for"))
        }
        Some((_, _, Role::Wan)) => None,
        Some(_) => Some("the port is no WAN port; correct [[ipv6.wan]] of agent.toml".to_owned()),
        None => Some("the port has no role yet".to_owned()),
    }
}

/// Why the kernel hears of no router on a port whose router makes itself known.
fn deaf(wan: &Wan6) -> Option<String> {
    if matches!(wan.address, Wan6Address::Static { .. }) {
        return None;
    }
    let setting = |leaf: &str| {
        let file = format!("/proc/sys/net/ipv6/conf/{}/{leaf}", wan.device);
        std::fs::read_to_string(file).ok()?.trim().parse::<i32>().ok()
    };
    let (accepts, forwards) = (setting("accept_ra")?, setting("forwarding")?);
    let hears = accepts == 2 || accepts == 1 && forwards == 0;
    let name = format!("net.ipv6.conf.{}.accept_ra", wan.device);
    (!hears)
        .then(|| format!("{name} is {accepts}, so there is no default route by advertisements; set it to 2"))
}

/// Whether the kernel's lifetimes need not be set anew. What is deprecated is so exactly.
fn is_near(has: Lifetimes, wants: Lifetimes) -> bool {
    (has.preferred == 0) == (wants.preferred == 0)
        && has.preferred.abs_diff(wants.preferred) <= TOLERANCE
        && has.valid.abs_diff(wants.valid) <= TOLERANCE
}
