//! Ports outside that hosts ask for, by PCP (RFC 6887) and NAT-PMP (RFC 6886): the sockets at which they ask, and what
//! the control thread does with their requests. [`sag_pcp`] has the protocols.

mod gateway_nat;

use super::core::Daemon;
use crate::server::PortMappingUse;
use gateway_nat::GatewayNat;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use sag_compile::{PortBinding, VrfNumbers};
use sag_model::config::Config;
use sag_model::control::{IpProto, NatMapping, NatMappingKind, NatMappings};
use sag_model::{Nanos, PortIdx, VrfNo};
use sag_pcp::{CLIENT_PORT, Filter, Host, Limits, MAX_MESSAGE, Mapping, SERVER_PORT, Server};
use sag_pipeline::nat::{Events, NatState, Random};
use sag_pipeline::snapshot::Snapshot;
use sag_rtnl::Tables;
use sag_xsk::sys;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsFd;
use std::time::Duration;

/// Datagrams that are taken between two rounds of housekeeping; more wait, and the kernel drops what has no room. So hosts
/// that flood the port cannot keep the control thread from its other work.
const BUDGET: u32 = 64;

/// Where hosts ask: an address of a port, on one device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    port: PortIdx,
    address: Ipv4Addr,
    device: String,
}

/// The sockets at which hosts ask, and what they were given.
pub struct PortMapping {
    server: Server,
    sockets: BTreeMap<Place, UdpSocket>,
    /// Places where no socket can be opened, and why: it is in the log.
    failed: BTreeMap<Place, String>,
    registry: Option<(Registry, Token)>,
    /// Datagrams that may still be taken in this round.
    budget: u32,
    /// The budget is used up, and nobody wakes the thread for what is left.
    paused: bool,
    random: Random,
    answered: u64,
    refused: u64,
    limits: Limits,
    external_ports: std::ops::RangeInclusive<u16>,
}

fn since_boot() -> Duration {
    Duration::from_nanos(sys::now())
}

impl PortMapping {
    pub fn new() -> PortMapping {
        PortMapping {
            server: Server::new(since_boot()),
            sockets: BTreeMap::new(),
            failed: BTreeMap::new(),
            registry: None,
            budget: BUDGET,
            paused: false,
            random: Random::new(sys::now()),
            answered: 0,
            refused: 0,
            limits: Limits::default(),
            external_ports: 1024..=u16::MAX,
        }
    }

    /// Has requests wake the control thread, by this token.
    pub fn wake_by(&mut self, registry: Registry, token: Token) {
        self.registry = Some((registry, token));
    }

    fn nat<'d>(
        external_ports: &std::ops::RangeInclusive<u16>,
        random: &'d mut Random,
        (snapshot, state): (&'d Snapshot, &'d NatState),
        links: Vec<PortIdx>,
        events: &'d mut Events,
    ) -> GatewayNat<'d> {
        let range = external_ports.clone();
        GatewayNat { snapshot, state, links, range, random, now: Nanos(sys::now()), events }
    }

    /// Brings the sockets in line with the ports that may ask, ends what is over or would be mapped otherwise now, and tells
    /// hosts what they have not asked for.
    fn update(
        &mut self,
        (config, bindings, tables): (&Config, &[PortBinding], &Tables),
        nat: (&Snapshot, &NatState),
        events: &mut Events,
    ) {
        let c = &config.port_mapping;
        self.limits = Limits {
            nat_pmp: c.nat_pmp,
            third_party: c.third_party,
            of_host: c.host_mappings.into(),
            total: c.mappings.into(),
            lifetime: c.min_lifetime..=c.max_lifetime,
            tcp_idle: config.timeouts.tcp_established,
        };
        self.external_ports = c.external_ports.first..=c.external_ports.last;
        let asking: Vec<_> = config.ports().filter(|(_, p)| p.port_mapping).map(|(idx, _)| idx).collect();
        let wanted = places(bindings, tables, &asking);
        self.open(wanted);
        let now = since_boot();
        let mut nat = Self::nat(&self.external_ports, &mut self.random, nat, asking, events);
        self.server.expire(&mut nat, now);
        self.server.revise(&mut nat, now);
        if self.sockets.is_empty() {
            return;
        }
        let group = SocketAddr::from((Ipv4Addr::new(224, 0, 0, 1), CLIENT_PORT));
        for message in self.server.announcements(&self.limits, now) {
            for (place, socket) in &self.sockets {
                if let Err(error) = socket.send_to(&message, group) {
                    tracing::debug!(%error, device = place.device, "an announcement to hosts was not sent");
                }
            }
        }
    }

    fn open(&mut self, wanted: BTreeSet<Place>) {
        self.sockets.retain(|place, _| wanted.contains(place));
        self.failed.retain(|place, _| wanted.contains(place));
        for place in wanted {
            if self.sockets.contains_key(&place) {
                continue;
            }
            match open_socket(&place) {
                Ok(mut socket) => {
                    if let Some((registry, token)) = &self.registry
                        && let Err(error) = registry.register(&mut socket, *token, Interest::READABLE)
                    {
                        tracing::warn!(%error, "requests for ports wait for the next round");
                    }
                    let Place { address, device, .. } = &place;
                    tracing::info!(%address, device, "hosts may ask for ports outside (PCP, NAT-PMP)");
                    self.failed.remove(&place);
                    self.sockets.insert(place, socket);
                }
                Err(error) => {
                    let error = error.to_string();
                    if self.failed.get(&place) != Some(&error) {
                        let Place { address, device, .. } = &place;
                        tracing::warn!(%error, %address, device, "hosts cannot ask for ports outside here; trying again");
                    }
                    self.failed.insert(place, error);
                }
            }
        }
    }

    /// Answers what has come.
    fn serve(&mut self, nat: (&Snapshot, &NatState), events: &mut Events) {
        let mut buffer = [0; MAX_MESSAGE + 1];
        let now = since_boot();
        let mut used_up = false;
        for (place, socket) in &self.sockets {
            loop {
                if self.budget == 0 {
                    used_up = true;
                    break;
                }
                let (n, from) = match socket.recv_from(&mut buffer) {
                    Ok(got) => got,
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    // What there was has been read; or a host has refused an answer, which is of no concern.
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => {
                        self.budget -= 1;
                        continue;
                    }
                };
                self.budget -= 1;
                let (SocketAddr::V4(from), Some(message)) = (from, buffer.get(..n)) else { continue };
                let mut nat =
                    Self::nat(&self.external_ports, &mut self.random, nat, vec![place.port], events);
                let realm = nat.snapshot.vrf_of(place.port, None).get();
                let host = Host { realm, address: *from.ip() };
                let Some(answer) = self.server.answer(&mut nat, &self.limits, host, message, now) else {
                    continue;
                };
                self.answered += 1;
                // The result code of both protocols.
                self.refused += u64::from(answer.get(3).is_some_and(|code| *code != 0));
                if let Err(error) = socket.send_to(&answer, from.into()) {
                    tracing::debug!(%error, %from, "an answer about ports was not sent");
                }
            }
        }
        if used_up && !self.paused {
            self.paused = true;
            self.each_registered(|registry, _, socket| registry.deregister(socket));
        }
    }

    /// A new round: more may be taken.
    fn begin_round(&mut self) {
        self.budget = BUDGET;
        if std::mem::take(&mut self.paused) {
            self.each_registered(|registry, token, socket| {
                match registry.register(socket, token, Interest::READABLE) {
                    // A socket that was opened meanwhile.
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
                    done => done,
                }
            });
        }
    }

    fn each_registered(&mut self, f: impl Fn(&Registry, Token, &mut UdpSocket) -> io::Result<()>) {
        let Some((registry, token)) = &self.registry else { return };
        for socket in self.sockets.values_mut() {
            if let Err(error) = f(registry, *token, socket) {
                tracing::debug!(%error, "requests for ports wait for the next round");
            }
        }
    }

    /// How often each binding is held for hosts that have asked.
    pub fn holds(&self) -> HashMap<u32, u32> {
        let mut out = HashMap::new();
        self.server.holds().for_each(|hold| *out.entry(hold).or_default() += 1);
        out
    }

    pub fn usage(&self) -> PortMappingUse {
        PortMappingUse {
            mappings: self.server.mappings().count(),
            granted: self.answered.saturating_sub(self.refused),
            refused: self.refused,
        }
    }

    pub fn report(&self, vrfs: &VrfNumbers) -> NatMappings {
        let now = since_boot();
        NatMappings {
            mappings: self.server.mappings().map(|m| row(m, vrfs, now)).collect(),
            answered: self.answered,
            refused: self.refused,
        }
    }
}

fn row(m: &Mapping, vrfs: &VrfNumbers, now: Duration) -> NatMapping {
    let peer = |p: &SocketAddrV4| format!("{}/32:{}", p.ip(), p.port());
    let filter = |f: &Filter| match f.port {
        Some(port) => format!("{}/{}:{port}", f.address, f.prefix_len),
        None => format!("{}/{}", f.address, f.prefix_len),
    };
    NatMapping {
        kind: match m.peer {
            Some(_) => NatMappingKind::Peer,
            None if m.nat_pmp => NatMappingKind::NatPmp,
            None => NatMappingKind::Map,
        },
        protocol: IpProto(m.inside.protocol.number()),
        inside: m.inside.host.address,
        vrf: VrfNo::new(m.inside.host.realm).and_then(|no| vrfs.name(no)).map(str::to_owned),
        inside_port: m.inside.port,
        outside: *m.external.ip(),
        outside_port: m.external.port(),
        remote: m.peer.iter().map(peer).chain(m.filters.iter().map(filter)).collect(),
        lifetime: m.expires.saturating_sub(now).as_secs(),
    }
}

/// Every IPv4 address that the kernel has on the ports that may ask.
fn places(bindings: &[PortBinding], tables: &Tables, asking: &[PortIdx]) -> BTreeSet<Place> {
    let mut out = BTreeSet::new();
    for b in bindings.iter().filter(|b| asking.contains(&b.idx)) {
        let Some(link) = b.l3_ifindex.and_then(|i| tables.link(i)) else { continue };
        for &(address, _) in &b.port.addrs4 {
            out.insert(Place { port: b.idx, address, device: link.name.clone() });
        }
    }
    out
}

/// Only what arrives by the device itself is heard, whatever its destination address. The device comes first: ports of two VRFs
/// may have the same address.
fn open_socket(place: &Place) -> io::Result<UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    sys::bind_to_device(socket.as_fd(), &place.device)?;
    net::bind(&socket, &SocketAddrV4::new(place.address, SERVER_PORT))?;
    Ok(UdpSocket::from_std(socket.into()))
}

impl Daemon {
    /// Sockets, lifetimes and addresses of what hosts have asked for.
    pub(super) fn update_port_mapping(&mut self) {
        let kernel = (&self.running.config, &*self.publisher.bindings, self.kernel.tables());
        let nat = (&*self.publisher.snapshot, &*self.flows.tables.nat);
        let mut events = Events::default();
        self.port_mapping.update(kernel, nat, &mut events);
        self.telemetry.journal.journal.take(&mut events);
    }

    /// Answers hosts that ask for ports.
    pub(super) fn answer_port_requests(&mut self) {
        let nat = (&*self.publisher.snapshot, &*self.flows.tables.nat);
        let mut events = Events::default();
        self.port_mapping.serve(nat, &mut events);
        self.telemetry.journal.journal.take(&mut events);
    }

    /// What has waited for the next round of housekeeping.
    pub(super) fn resume_port_requests(&mut self) {
        self.port_mapping.begin_round();
        self.answer_port_requests();
    }
}
