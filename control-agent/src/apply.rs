//! Putting a configuration in force: compiled, handed to the gateway in one transaction, addresses
//! set, written to disk as the last good one. What fails leaves the one before in force.

mod deviations;
mod sessions;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use sag_model::Role;
use sag_model::control::{self, PublicKey};
use sag_rtnl::Scope;
use sag_southbound::{Acceptance, AnnouncedLine, Announcement, Deviation, EPOCH_AHEAD, IdentityKey};
use serde::{Deserialize, Serialize};

use crate::client::address_of;
use crate::clock::unix_now;
use crate::compile::{Base, Compiled, compile};
use crate::config::{Config, Dhcp};
use crate::crash;
use crate::desired::{Ccn, Desired};
use crate::dhcp::DhcpClients;
use crate::files::{self, Unwritten};
use crate::health::Verdict;
use crate::identity;
use crate::ipv6::Ipv6;
use crate::lan_services::LanServer;
use crate::lines::{Lines, Quality};
use crate::overlay::{LocalEndpoint, device_to, peer_key};
use crate::peers::{Peers, PeersFile};
use crate::routing::{self, Routing};
use crate::session_link::LinkKey;
use crate::status::NetworkStatus;
use crate::system::{Item, Reconciled, System, present};
use crate::vcpe::{Vcpe, VcpeError};

pub type Verdicts = BTreeMap<String, Verdict>;

#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The gateway does not answer: the same may succeed later.
    Unavailable(String),
    /// It cannot be put in force; what was before still is.
    Refused(String),
}

/// What boots the gateway when the cloud is out of reach.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastGood {
    pub revision: Option<i64>,
    pub desired: Desired,
}

/// What the gateway runs, and the process and epoch by which that is recognised.
#[derive(Debug, Clone)]
pub struct InForce {
    pub good: LastGood,
    pub compiled: Compiled,
    pid: u32,
    epoch: u32,
}

pub struct Applier {
    config: Arc<Config>,
    pub vcpe: Vcpe,
    pub system: Option<System>,
    dhcp: DhcpClients,
    pub routing: Routing,
    /// Neighbors that the machine has no device for.
    unreached: Vec<Deviation>,
    /// DHCP server, DNS forwarder.
    pub lan: LanServer,
    /// IPv6 of the WAN ports.
    ipv6: Ipv6,
    /// The gateway's own sections, and the process that showed them.
    base: Option<(u32, Base)>,
    pub current: Option<InForce>,
    /// The last good configuration could not be written down.
    unsaved: bool,
    unwritten: Unwritten,
    /// Addresses were changed since the main loop last reset this.
    pub moved: bool,
    /// Ports whose address could not be set, and why.
    addressless: BTreeMap<String, String>,
    /// This gateway's key, of the process that made it; no key: it has no tunnels.
    key: Option<(u32, Option<PublicKey>)>,
    /// The key by which others recognise this device, or why there is none.
    identity: Result<IdentityKey, String>,
    /// The key of the link by which sessions follow, or why there is none; it is made when the cloud wants that link.
    link_key: Option<Result<LinkKey, String>>,
    peers: PeersFile,
    /// The peers' keys that the gateway has, by tunnel.
    pushed: BTreeMap<String, Pushed>,
    /// Peers whose keys the gateway has refused, by tunnel, with the reason.
    unkeyed: BTreeMap<String, String>,
    /// What the cloud made of this device's last announcement.
    pub acceptance: Option<Acceptance>,
    /// Seconds to add to this machine's clock.
    pub clock_offset: i64,
    /// When a key was last made because of its epoch.
    renewed: Option<Instant>,
    /// What was last said of the network, so that it is logged once.
    said: BTreeSet<String>,
    status: NetworkStatus,
    /// What the tunnels show of the lines to the Internet, and of each other.
    lines: Lines,
    quality: Quality,
    /// The cloud has not been heard for longer than the device may be without it.
    pub silent: bool,
    /// The deviations that the gateway shows, and of which process and epoch.
    shown: Option<((u32, u32), Vec<control::Deviation>)>,
}

/// The first of the problems: a configuration of the cloud may have one for each entry.
fn joined(problems: &[String]) -> String {
    const SAID: usize = 20;
    let said = problems.iter().take(SAID).map(String::as_str).collect::<Vec<_>>().join("; ");
    match problems.len().checked_sub(SAID) {
        Some(more @ 1..) => format!("{said}; and {more} more"),
        _ => said,
    }
}

/// A key that the gateway has: of which process, by which own key, and which key of the peer.
#[derive(Debug, Clone, PartialEq)]
struct Pushed {
    pid: u32,
    own: u64,
    peer: (u64, [u8; 32]),
    link: String,
}

/// The least time between two keys that are made because of the epoch: two devices with one serial number would otherwise
/// outbid each other.
const RENEW_GAP: Duration = Duration::from_secs(60);

impl Applier {
    pub fn new(config: Arc<Config>, routing: Routing) -> Applier {
        let system = System::open(&config.state_dir)
            .map_err(|error| tracing::warn!(%error, "addresses of ports cannot be set"))
            .ok();
        let vcpe = Vcpe::new(&config.vcpe_socket);
        let dhcp = DhcpClients::new(config.dhcp_client, &config.state_dir);
        let lan = LanServer::new(&config);
        let ipv6 = Ipv6::new(config.clone());
        let identity = identity::load(&config.state_dir)
            .inspect_err(|error| tracing::error!(error, "this device has no identity"));
        let peers = PeersFile::new(&config.state_dir);
        let status = NetworkStatus::new(&config.state_dir);
        Applier {
            config,
            vcpe,
            system,
            dhcp,
            routing,
            unreached: Vec::new(),
            lan,
            ipv6,
            base: None,
            current: None,
            moved: false,
            addressless: BTreeMap::new(),
            unsaved: false,
            unwritten: Unwritten::default(),
            key: None,
            identity,
            link_key: None,
            peers,
            pushed: BTreeMap::new(),
            unkeyed: BTreeMap::new(),
            acceptance: None,
            clock_offset: 0,
            renewed: None,
            said: BTreeSet::new(),
            status,
            lines: Lines::default(),
            quality: Quality::default(),
            silent: false,
            shown: None,
        }
    }

    fn last_good_file(&self) -> PathBuf {
        self.config.state_dir.join("last-good.json")
    }

    pub fn last_good(&self) -> Option<LastGood> {
        let file = self.last_good_file();
        let text = std::fs::read(&file).ok()?;
        serde_json::from_slice(&text)
            .map_err(|error| tracing::warn!(file = %file.display(), %error, "the last good configuration is unreadable"))
            .ok()
    }

    /// The gateway's own sections: of `base_config`, or of what it ran when it started.
    fn base(&mut self, pid: u32) -> Result<Base, Fault> {
        if let Some(file) = &self.config.base_config {
            let wrong = |e: String| Fault::Refused(format!("base_config {}: {e}", file.display()));
            let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
            return Base::from_toml(&text).map_err(wrong);
        }
        if let Some((_, base)) = self.base.as_ref().filter(|(of, _)| *of == pid) {
            return Ok(base.clone());
        }
        let shown = self.vcpe.show().map_err(fault)?;
        let base = Base::from_running(&shown.text).map_err(Fault::Refused)?;
        self.base = Some((pid, base.clone()));
        Ok(base)
    }

    /// Puts a configuration in force; true if anything had to be done.
    pub fn apply(&mut self, good: LastGood, health: &Verdicts) -> Result<bool, Fault> {
        let status = self.vcpe.status().map_err(fault)?;
        let present = self.present_addresses()?;
        self.watch_lines(&present);
        let peers = self.session_peers(&good.desired);
        let present6 = self.present_ipv6_addresses()?;
        let base = self.base(status.pid)?.having(present, present6).beside(peers);
        let endpoint = self.endpoint(&good.desired, status.pid)?;
        let desired = self.within_lock(&good.desired);
        let compiled = compile(&desired, &base, &self.config.ports, health, endpoint.as_ref())
            .map_err(|problems| Fault::Refused(joined(&problems)))?;
        crash::point("compiled");
        let mark = (status.pid, status.config_epoch);
        let epoch = self.runs(&compiled, mark)?;
        let mut changed = epoch.is_none();
        let epoch = match epoch {
            Some(epoch) => epoch,
            None => {
                crash::point("before-apply");
                let name = match good.revision {
                    Some(r) => format!("cloud revision {r}"),
                    None => "cloud".to_owned(),
                };
                let applied = self.vcpe.apply(&compiled.text, &name).map_err(fault)?;
                crash::point("after-apply");
                // Tunnels that were not there before have no keys, whatever was handed over once.
                self.pushed.clear();
                applied.epoch
            }
        };
        if let Some(Ok(key)) = &mut self.link_key {
            key.is_new = false;
        }
        changed |= self.addresses(&compiled);
        self.learn_routes(&compiled, &good.desired, health);
        let tables = self.system.as_mut().and_then(|s| s.tables().ok());
        let routers = self.routing.virtual_routers();
        self.lan.set(&compiled.lan, &compiled.tunnels, &self.config, tables, routers);
        crash::point("after-addresses");
        self.exchange_keys(&compiled, status.pid)?;
        let known = self.current.as_ref().map(|c| &c.good);
        if known != Some(&good) {
            self.save(&good, &compiled);
        }
        self.remember_peers(&compiled);
        self.current = Some(InForce { good, compiled, pid: status.pid, epoch });
        self.tell_network();
        self.show_deviations((status.pid, epoch));
        Ok(changed)
    }

    /// What is to be put in force: of a device that is locked out of its network, without the other members.
    fn within_lock<'a>(&self, desired: &'a Desired) -> Cow<'a, Desired> {
        let mut out = Cow::Borrowed(desired);
        if (desired.locked || self.silent) && desired.ccn.is_some() {
            let ccn = &mut out.to_mut().ccn;
            *ccn = ccn.take().map(|ccn| Ccn { members: Vec::new(), ..ccn });
        }
        out
    }

    /// The epoch at which the gateway runs this very document already. Its epoch grows by itself too,
    /// with time windows and addresses, and a restarted one may have begun with our file.
    fn runs(&self, compiled: &Compiled, mark: (u32, u32)) -> Result<Option<u32>, Fault> {
        // Keys are masked in what the gateway shows.
        if matches!(&self.link_key, Some(Ok(key)) if key.is_new) {
            return Ok(None);
        }
        if let Some(c) = self.current.as_ref().filter(|c| (c.pid, c.epoch) == mark) {
            return Ok((c.compiled.text == compiled.text).then_some(c.epoch));
        }
        let shown = self.vcpe.show().map_err(fault)?;
        Ok((shown.text == compiled.shown).then_some(shown.epoch))
    }

    /// This end of tunnels, if the gateway is in a network and can make tunnels.
    fn endpoint(&mut self, desired: &Desired, pid: u32) -> Result<Option<LocalEndpoint>, Fault> {
        if desired.ccn.is_none() {
            return Ok(None);
        }
        // A gateway that cannot agree on keys refuses; the question is not repeated.
        if self.system.is_some() && !matches!(&self.key, Some((of, None)) if *of == pid) {
            let key = match self.own_key() {
                Ok(key) => Some(key),
                Err(VcpeError::Refused(_)) => None,
                Err(unavailable) => return Err(fault(unavailable)),
            };
            self.key = Some((pid, key));
        }
        if !matches!(&self.key, Some((_, Some(_)))) {
            return Ok(None);
        }
        // Who is trusted is not to be guessed: with a damaged list there are no tunnels, but everything else.
        let (known, unreadable) = match self.peers.load() {
            Ok(known) => (known, String::new()),
            Err(why) => (Peers::default(), why),
        };
        let Some(system) = &mut self.system else { return Ok(None) };
        let tables = system.tables().map_err(|e| Fault::Unavailable(e.to_string()))?;
        let running = |d: &String| tables.link_named(d).is_some_and(|l| l.running);
        let running = tables.links().map(|l| l.name.clone()).filter(running).collect();
        let now = Instant::now();
        Ok(Some(LocalEndpoint {
            addresses: addresses(present(tables)),
            running,
            unfit: self.lines.unfit(now),
            fit: self.quality.fit(now),
            gateway: self.config.smart_ag_id.clone(),
            sn: self.config.smart_ag_sn.clone(),
            cloud: address_of(&self.config.endpoint),
            fec: self.config.optimization,
            trust: self.config.trust.clone(),
            known,
            unreadable,
            now: self.now(),
        }))
    }

    /// Looks how the overlay gets through by each of several lines.
    fn watch_lines(&mut self, present: &[(String, Ipv4Net)]) {
        let Some(InForce { compiled, .. }) = &self.current else { return };
        let wans = compiled.ports.iter().filter(|(.., role)| *role == Role::Wan).count();
        let several = compiled.tunnels.iter().any(|t| t.several);
        if compiled.tunnels.is_empty() || (wans < 2 && !several) {
            return;
        }
        let Ok(seen) = self.vcpe.tunnels() else { return };
        let is = |t: &&control::Tunnel, several: bool| {
            compiled.tunnels.iter().any(|c| c.name == t.name && c.several == several)
        };
        let now = Instant::now();
        self.quality.note(seen.tunnels.iter().filter(|t| is(t, true)), now);
        let device = present.iter().find(|(_, a)| Some(a.addr()) == compiled.local).map(|(d, _)| d);
        let at_it = |t: &&control::Tunnel| Some(t.local) == compiled.local.map(IpAddr::V4) && is(t, false);
        if let Some(device) = device.filter(|_| wans > 1) {
            self.lines.note(device, seen.tunnels.iter().filter(at_it), now);
        }
    }

    /// IPv4 addresses of this machine, by device.
    fn present_addresses(&mut self) -> Result<Vec<(String, Ipv4Net)>, Fault> {
        let Some(system) = &mut self.system else { return Ok(Vec::new()) };
        let tables = system.tables().map_err(|e| Fault::Unavailable(e.to_string()))?;
        Ok(addresses(present(tables)))
    }

    /// Global IPv6 addresses of this machine, by device.
    fn present_ipv6_addresses(&mut self) -> Result<Vec<(String, Ipv6Addr)>, Fault> {
        let Some(system) = &mut self.system else { return Ok(Vec::new()) };
        let tables = system.tables().map_err(|e| Fault::Unavailable(e.to_string()))?;
        let all = tables.addresses().filter(|a| a.scope == Scope::Global && a.usable());
        let named = all.filter_map(|a| match (tables.link(a.ifindex), a.addr) {
            (Some(link), IpAddr::V6(ip)) => Some((link.name.clone(), ip)),
            _ => None,
        });
        Ok(named.collect())
    }

    /// The device by which packets to an address go into the network of the configuration in force.
    pub fn device_to(&mut self, dst: IpAddr) -> Option<String> {
        let current = self.current.as_ref().filter(|c| !c.compiled.tunnels.is_empty())?;
        let tables = self.system.as_mut()?.tables().ok()?;
        let running = |device: &str| tables.link_named(device).map(|l| l.running);
        device_to(dst, &current.compiled.tunnels, running)
    }

    /// Seconds since 1970, by the cloud's clock.
    fn now(&self) -> i64 {
        unix_now().saturating_add(self.clock_offset)
    }

    /// The gateway's key. One with an epoch that the cloud cannot accept is replaced: it was made while the clock was wrong.
    fn own_key(&mut self) -> Result<PublicKey, VcpeError> {
        let sn = &self.config.smart_ag_sn;
        let key = self.vcpe.public_key(sn)?;
        let clock = self.now().unsigned_abs();
        let accepted = self.acceptance.as_ref().and_then(|a| a.epoch).unwrap_or(0);
        let fits = key.epoch >= accepted && key.epoch <= clock.saturating_add(EPOCH_AHEAD);
        // Before the first answer of the cloud the clock may be wrong.
        let judged = self.acceptance.is_some();
        if fits || !judged || self.renewed.is_some_and(|at| at.elapsed() < RENEW_GAP) {
            return Ok(key);
        }
        self.renewed = Some(Instant::now());
        let epoch = clock.max(accepted.saturating_add(1));
        tracing::warn!(
            old = key.epoch,
            new = epoch,
            "the epoch of the gateway's key is behind what it has announced, or ahead of the clock: a new key"
        );
        self.vcpe.renew_key(sn, epoch)
    }

    /// Gives the gateway its peers' public keys, when they or its own have changed. A key that it refuses costs that tunnel.
    fn exchange_keys(&mut self, compiled: &Compiled, pid: u32) -> Result<(), Fault> {
        let Some((_, Some(own))) = &self.key else { return Ok(()) };
        let own = own.epoch;
        let has = |name: &String| compiled.tunnels.iter().any(|t| t.name == *name);
        self.pushed.retain(|name, _| has(name));
        self.unkeyed.retain(|name, _| has(name));
        let mut pushed = 0;
        for t in &compiled.tunnels {
            let peer = (t.endpoint.epoch, t.endpoint.public_key);
            let new = Pushed { pid, own, peer, link: t.link.clone() };
            if self.pushed.get(&t.name) == Some(&new) {
                continue;
            }
            match self.vcpe.set_peers(peer_key(t)) {
                Ok(_) => {
                    self.unkeyed.remove(&t.name);
                    self.pushed.insert(t.name.clone(), new);
                    pushed += 1;
                }
                Err(VcpeError::Refused(e)) => {
                    let why =
                        format!("device {} of gateway {} has no keys: {}", t.peer.sn, t.gateway, e.message);
                    self.unkeyed.insert(t.name.clone(), why);
                }
                Err(unavailable) => return Err(fault(unavailable)),
            }
        }
        if pushed > 0 {
            tracing::info!(tunnels = pushed, "keys of the network");
        }
        Ok(())
    }

    /// Writes down by which identities the devices with tunnels are recognised from now on.
    fn remember_peers(&mut self, compiled: &Compiled) {
        if compiled.tunnels.is_empty() && compiled.session_peer.is_none() {
            return;
        }
        let (now, gateway) = (self.now(), &self.config.smart_ag_id);
        let done = self.peers.change(|known| {
            for t in &compiled.tunnels {
                known.remember(&t.peer.sn, &t.gateway, &t.endpoint, now);
            }
            if let Some((sn, identity)) = &compiled.session_peer {
                known.remember_identity(sn, gateway, *identity, now);
            }
        });
        self.unwritten.note("identities of the network", self.peers.path(), done);
    }

    /// What the other members of the network have to know of this device.
    pub fn announcement(&self) -> Option<Announcement> {
        let compiled = &self.current.as_ref()?.compiled;
        let local = compiled.local?;
        let (_, key) = self.key.as_ref()?;
        let key = key.as_ref()?;
        let mut announced = Announcement {
            address: local.to_string(),
            epoch: Some(key.epoch),
            public_key: key.public_key.clone(),
            pop: Some(self.config.point_of_presence),
            lines: compiled.lines.iter().map(AnnouncedLine::from).collect(),
            ..Announcement::default()
        };
        let identity = self.identity.as_ref().ok()?;
        let signed = identity.sign(&mut announced, &self.config.smart_ag_id, &self.config.smart_ag_sn);
        signed.inspect_err(|error| tracing::debug!(%error, "nothing to announce")).ok()?;
        Some(announced)
    }

    /// An identity that could not be read or written down may be by now.
    fn retry_identity(&mut self) {
        if let Err(before) = &self.identity {
            let now = identity::load(&self.config.state_dir);
            if let Err(error) = &now
                && error != before
            {
                tracing::error!(error, "this device has no identity");
            }
            self.identity = now;
        }
    }

    /// What the operator should know of the network: refusals of the cloud, of the gateway, and of this program.
    pub fn network_notices(&self) -> Vec<String> {
        let Some(current) = &self.current else { return Vec::new() };
        let Some(ccn) = &current.good.desired.ccn else { return Vec::new() };
        let mut out = Vec::new();
        if let Err(why) = &self.identity {
            out.push(format!("network {}: this device cannot announce itself: {why}", ccn.id));
        }
        if let Some(why) = self.acceptance.as_ref().map(|a| &a.problem).filter(|why| !why.is_empty()) {
            let why: String = why.chars().take(400).collect();
            out.push(format!(
                "network {}: the other members do not get what this device announces: {why:?}",
                ccn.id
            ));
        }
        if current.good.desired.locked {
            out.push(format!(
                "network {}: this gateway is locked out, because it was offline for longer than \
                 SecurityLockThreshold; UnlockSmartAccessGateway ends that",
                ccn.id
            ));
        } else if self.silent {
            out.push(format!(
                "network {}: this device has left it, because it has been without the cloud for longer than \
                 SecurityLockThreshold",
                ccn.id
            ));
        }
        out.extend(self.unkeyed.values().cloned());
        out
    }

    /// Logs what is new, and writes down the state of the network and what is not in force for `sag-agent status`.
    fn tell_network(&mut self) {
        let notices = self.network_notices();
        let deviations: Vec<String> = self.deviations().iter().map(Deviation::to_string).collect();
        let Some(current) = &self.current else { return };
        let all = notices.iter().chain(&current.compiled.refused).chain(&deviations);
        let all: BTreeSet<String> = all.cloned().collect();
        for new in all.difference(&self.said) {
            tracing::warn!("{new}");
        }
        self.said = all;
        let identity = self.identity.as_ref().ok().map(IdentityKey::identity);
        let ccn = current.good.desired.ccn.as_ref();
        self.status.write(ccn, identity, &self.config, &current.compiled, (&notices, &deviations));
    }

    /// Sets the addresses of the ports; returns whether any is another than before. What cannot be set is named, and
    /// everything else is in force.
    fn addresses(&mut self, compiled: &Compiled) -> bool {
        let done = match &mut self.system {
            None => Err("no netlink, its address cannot be set".to_owned()),
            Some(system) => system.reconcile(&compiled.addresses).map_err(|e| e.to_string()),
        };
        let done = done.unwrap_or_else(|why| {
            let all = compiled.addresses.iter().map(|a| (a.port.clone(), why.clone()));
            Reconciled { changed: false, problems: all.collect() }
        });
        self.addressless = done.problems;
        if let Some(system) = &mut self.system
            && self.config.dhcp_client != Dhcp::Off
            && let Ok(tables) = system.tables()
        {
            let there = present(tables);
            // An address from elsewhere, or the client's own.
            let bare = |d: &&String| {
                !there.iter().any(|i| matches!(i, Item::Address { device, .. } if device == *d))
            };
            let devices: Vec<String> =
                compiled.dhcp.iter().filter(|d| self.dhcp.serves(d) || bare(d)).cloned().collect();
            self.dhcp.set(&devices);
        }
        self.moved |= done.changed;
        done.changed
    }

    /// Looks after the daemons of the ports; to be called once a second. True: something has begun or ended to be in force.
    pub fn tend_daemons(&mut self) -> bool {
        let lan = self.lan.tend();
        let Some(current) = &self.current else { return lan };
        let tables = self.system.as_mut().and_then(|s| s.tables().ok());
        self.ipv6.tend(tables, &current.compiled.ports) | lan
    }

    /// Has FRR do what the configuration says, with the networks that the machine has.
    fn learn_routes(&mut self, compiled: &Compiled, desired: &Desired, health: &Verdicts) {
        let Some(Ok(tables)) = self.system.as_mut().map(System::tables) else { return };
        let (settings, unreached) =
            routing::complete(compiled, desired, health, &self.config.routing, tables);
        self.unreached = unreached;
        self.routing.set(settings);
    }

    fn save(&mut self, good: &LastGood, compiled: &Compiled) {
        let text = serde_json::to_vec(good).unwrap_or_default();
        let file = self.last_good_file();
        let written = files::replace_with(&file, &text, || crash::point("during-save"));
        let mut saved = self.unwritten.note("last good configuration", &file, written);
        if let Some(file) = &self.config.vcpe_config {
            let written = files::replace(file, compiled.text.as_bytes());
            saved &= self.unwritten.note("configuration of the gateway's next start", file, written);
        }
        self.unsaved = !saved;
        crash::point("after-save");
    }

    /// Compares the gateway and the ports with the last good configuration, and applies it again where they differ.
    pub fn reconcile(&mut self, health: &Verdicts) -> Result<(), Fault> {
        let Some(current) = &self.current else { return Ok(()) };
        let good = current.good.clone();
        self.retry_identity();
        let Some(current) = &self.current else { return Ok(()) };
        if self.unsaved {
            let compiled = current.compiled.clone();
            self.save(&good, &compiled);
        }
        if self.apply(good, health)? {
            tracing::warn!(
                "the gateway did not run the last good configuration, or a health check or a line changed; put right"
            );
        }
        Ok(())
    }
}

fn addresses(items: Vec<Item>) -> Vec<(String, Ipv4Net)> {
    let address = |i: Item| match i {
        Item::Address { device, address } => Some((device, address)),
        Item::Default { .. } => None,
    };
    items.into_iter().filter_map(address).collect()
}

fn fault(e: VcpeError) -> Fault {
    use sag_model::control::ErrorCode;
    match e {
        VcpeError::Refused(e) if e.code == ErrorCode::Busy => Fault::Unavailable(e.message),
        VcpeError::Refused(e) => Fault::Refused(VcpeError::Refused(e).to_string()),
        unavailable => Fault::Unavailable(unavailable.to_string()),
    }
}

#[cfg(test)]
mod tests;
