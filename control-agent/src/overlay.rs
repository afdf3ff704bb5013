//! The tunnels of a cloud connect network: ESP with keys agreed by the gateways (docs/tunnels-keys.md). The cloud says who
//! is a member, what each may announce, and which member is the hub; the devices sign where their tunnels end and by which
//! key. What is wrong with one device or block costs that one alone, and is named.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use sag_model::config::MAX_TUNNELS;
use sag_model::control::{TunnelPeer, TunnelPeers};
use sag_southbound::{Announcement, Endpoint, Line, MAX_LINES};

use self::device::device_name;
pub use self::device::{device_to, tunnel_to};
use self::pairs::{Pair, pairs};
use crate::desired::{Ccn, Member, Peer};
use crate::peers::Peers;
use crate::trust::Trust;

mod device;
mod pairs;

/// This end of the tunnels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalEndpoint {
    /// IPv4 addresses by device, with their networks.
    pub addresses: Vec<(String, Ipv4Net)>,
    /// The cloud, if its endpoint is an address.
    pub cloud: Option<Ipv4Addr>,
    /// Devices that frames can pass.
    pub running: BTreeSet<String>,
    /// Devices by which no other member of the network was reached.
    pub unfit: BTreeSet<String>,
    /// Tunnels whose far end has answered, and that lose little.
    pub fit: BTreeSet<String>,
    /// The instance and serial number of this device.
    pub gateway: String,
    pub sn: String,
    /// Forward error correction of what is sent.
    pub fec: bool,
    pub trust: Trust,
    pub known: Peers,
    /// Why nobody can be recognised; empty: `known` is what is known.
    pub unreadable: String,
    /// Seconds since 1970.
    pub now: i64,
}

/// What of this gateway's own no member of the network may touch.
#[derive(Debug, Clone, Default)]
pub struct Own {
    /// Where the tunnels end on this side, to devices that do not announce lines.
    pub local: Option<Ipv4Addr>,
    /// The lines to the Internet, at each of which tunnels end.
    pub lines: Vec<Line>,
    /// Every address of the gateway.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Networks, and what they are.
    pub networks: Vec<(Ipv4Net, String)>,
    /// The cloud, if its endpoint is an address. The machine itself goes by the routes of the tunnels, whose keys come from
    /// there.
    pub cloud: Option<Ipv4Addr>,
    /// Those of `networks` in which no tunnel can end: behind the ports to the branch.
    pub inside: Vec<(Ipv4Net, String)>,
    /// Those of `networks` that are reached by a leased line: a tunnel to the very same one may stand in for it.
    pub backed_up: BTreeSet<Ipv4Net>,
}

/// A tunnel to another device.
#[derive(Debug, Clone, PartialEq)]
pub struct Tunnel {
    pub name: String,
    /// The kernel's device of it.
    pub device: String,
    pub local: Ipv4Addr,
    pub remote: Ipv4Addr,
    /// What tells it apart from others to the same device; both ends call it the same.
    pub link: String,
    /// There are others to the same device, by other lines.
    pub several: bool,
    pub gateway: String,
    pub peer: Peer,
    pub endpoint: Endpoint,
    /// What is reached through it, and on whose behalf.
    pub blocks: Vec<(String, String)>,
    /// Those of `blocks` to which no leased line leads.
    pub unshared: Vec<Ipv4Net>,
    /// Preference among devices of one member, and among tunnels to one device.
    pub metric: i64,
    /// Share among tunnels of one metric.
    pub weight: i64,
}

/// What the network comes to on this gateway.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub tunnels: Vec<Tunnel>,
    /// What has no tunnel or route, and why.
    pub refused: Vec<String>,
    /// What else the operator should know.
    pub notices: Vec<String>,
}

/// What the gateway's own rules have refused of an earlier plan: serial numbers of devices, and blocks with their gateway,
/// with the reason.
#[derive(Debug, Clone, Default)]
pub struct Excluded {
    pub devices: BTreeMap<String, String>,
    pub blocks: BTreeMap<(String, String), String>,
}

/// The most characters of a name that the gateway accepts.
const MAX_NAME: usize = 64;

/// Metrics of the tunnels to one device of a member: behind those to the device before.
const METRICS: i64 = 10_000;
/// What is added to the metric of a tunnel whose far end does not answer, or that loses much, where another is better.
const UNFIT: i64 = 10_000_000;

/// Text of others as it may stand in a log line.
fn shown(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { format!("{:?}", text.chars().take(40).collect::<String>()) }
}

/// Whether it is made like a serial number or an identifier.
fn is_plain(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
}

/// Disjoint blocks of others, by their first address.
#[derive(Default)]
struct Blocks(BTreeMap<Ipv4Addr, (Ipv4Net, String)>);

impl Blocks {
    /// The block that has addresses in common with this one, and its gateway.
    fn meets(&self, block: Ipv4Net) -> Option<&(Ipv4Net, String)> {
        let (_, last) = self.0.range(..=block.broadcast()).next_back()?;
        (last.0.broadcast() >= block.network()).then_some(last)
    }

    fn insert(&mut self, block: Ipv4Net, gateway: &str) {
        self.0.insert(block.network(), (block, gateway.to_owned()));
    }
}

/// The tunnels and routes of this gateway in its network.
pub fn plan(ccn: &Ccn, end: &LocalEndpoint, own: &Own, excluded: &Excluded) -> Plan {
    let mut p = Planner { end, own, excluded, plan: Plan::default(), taken: HashMap::new() };
    let others: Vec<&Member> = ccn.members.iter().filter(|m| m.gateway != end.gateway).collect();
    let mut blocks = Blocks::default();
    let accepted: Vec<Vec<String>> = others.iter().map(|m| p.blocks(m, &mut blocks)).collect();
    let through = p.through(ccn, &others);
    let candidates = p.candidates(&through, &blocks);
    let all = p.tunnels(&candidates, &blocks);
    for (n, t) in all {
        let (member, peer, endpoint, place) = &candidates[n];
        let is_hub = member.gateway == ccn.hub;
        let reached = others.iter().zip(&accepted).filter(|(m, _)| is_hub || m.gateway == member.gateway);
        let routes = reached.flat_map(|(m, blocks)| blocks.iter().map(|b| (b.clone(), m.gateway.clone())));
        let blocks: Vec<_> = routes.collect();
        let leased = |b: &Ipv4Net| own.backed_up.iter().any(|l| l.contains(b) || b.contains(l));
        let unshared = blocks.iter().filter_map(|(b, _)| b.parse().ok()).filter(|b| !leased(b)).collect();
        p.plan.tunnels.push(Tunnel {
            device: device_name(&t.name),
            name: t.name,
            local: t.local,
            remote: t.remote,
            link: t.link,
            several: t.several,
            gateway: member.gateway.clone(),
            peer: (*peer).clone(),
            endpoint: endpoint.clone(),
            blocks,
            unshared,
            metric: place * METRICS + t.metric,
            weight: t.weight,
        });
    }
    p.plan
}

/// A device with its member, and its place among the member's devices.
type Candidate<'a> = (&'a Member, &'a Peer, Endpoint, i64);

/// A tunnel to a device, by a line of each end.
#[derive(Debug, Clone)]
struct ByLine {
    name: String,
    local: Ipv4Addr,
    remote: Ipv4Addr,
    link: String,
    several: bool,
    metric: i64,
    weight: i64,
}

struct Planner<'a> {
    end: &'a LocalEndpoint,
    own: &'a Own,
    excluded: &'a Excluded,
    plan: Plan,
    /// Addresses with their devices.
    taken: HashMap<IpAddr, String>,
}

impl Planner<'_> {
    fn refuse_device(&mut self, member: &Member, peer: &Peer, why: &str) {
        let (sn, gateway) = (shown(&peer.sn), shown(&member.gateway));
        self.plan.refused.push(format!("device {sn} of gateway {gateway} has no tunnel: {why}"));
    }

    /// Blocks of a member that are routed: private ones that touch nothing of this gateway's own and no other member's.
    fn blocks(&mut self, member: &Member, all: &mut Blocks) -> Vec<String> {
        let mut out = Vec::new();
        for text in &member.blocks {
            match self.block(text, member, all) {
                Ok(block) => {
                    all.insert(block, &member.gateway);
                    out.push(block.to_string());
                }
                Err(why) => {
                    let (block, gateway) = (shown(text), shown(&member.gateway));
                    self.plan
                        .refused
                        .push(format!("block {block} of gateway {gateway} is not routed: {why}"));
                }
            }
        }
        out
    }

    fn block(&self, text: &str, member: &Member, all: &Blocks) -> Result<Ipv4Net, String> {
        let block = text.parse::<Ipv4Net>().map_err(|_| "it is no IPv4 block".to_owned())?.trunc();
        if block.prefix_len() == 0 {
            return Err("a member must not announce the default route".into());
        }
        if !is_private(block) {
            return Err("it is not private (RFC 1918)".into());
        }
        let stands_in = |own: &Ipv4Net| *own == block && self.own.backed_up.contains(own);
        let meets = |own: &Ipv4Net| (own.contains(&block) || block.contains(own)) && !stands_in(own);
        if let Some((net, what)) = self.own.networks.iter().find(|(net, _)| meets(net)) {
            return Err(format!("it overlaps with {what} {net}"));
        }
        if let Some(cloud) = self.own.cloud.filter(|a| block.contains(a)) {
            return Err(format!(
                "the cloud is in it, at {cloud}, and without the cloud the tunnel has no keys"
            ));
        }
        if let Some((other, gateway)) = all.meets(block) {
            return Err(format!("it overlaps with the block {other} of gateway {}", shown(gateway)));
        }
        match self.excluded.blocks.get(&(member.gateway.clone(), block.to_string())) {
            Some(why) => Err(why.clone()),
            None => Ok(block),
        }
    }

    /// The members to which there are tunnels: the hub alone, or all.
    fn through<'a>(&mut self, ccn: &Ccn, others: &[&'a Member]) -> Vec<&'a Member> {
        if ccn.hub == self.end.gateway {
            return others.to_vec();
        }
        if ccn.hub.is_empty() {
            if others.iter().any(|m| m.devices.iter().any(|d| d.pop)) {
                self.plan.notices.push(format!(
                    "network {}: this cloud repeats what a member says of itself and not what the owner of the network \
                     says, so no member is taken for the hub; update sag-cloud",
                    ccn.id
                ));
            }
            return others.to_vec();
        }
        let hub: Vec<&Member> = others.iter().copied().filter(|m| m.gateway == ccn.hub).collect();
        if !hub.iter().any(|m| !m.devices.is_empty()) {
            let hub = shown(&ccn.hub);
            self.plan
                .notices
                .push(format!("network {}: its hub {hub} has not announced a device yet", ccn.id));
        }
        hub
    }

    /// The devices that get a tunnel. One that keeps its address comes before one that takes another's.
    fn candidates<'a>(&mut self, members: &[&'a Member], blocks: &Blocks) -> Vec<Candidate<'a>> {
        let mut all: Vec<(&Member, &Peer, i64)> = Vec::new();
        for m in members {
            all.extend((0..).zip(&m.devices).map(|(n, d)| (*m, d, n)));
        }
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.sort_by_key(|n| !self.keeps_address(all[*n].1));
        let mut accepted: BTreeMap<usize, Endpoint> = BTreeMap::new();
        for n in order {
            let (member, peer, _) = all[n];
            let found = self.device(member, peer, blocks).and_then(|endpoint| {
                let room = accepted.len() < MAX_TUNNELS;
                room.then_some(endpoint)
                    .ok_or_else(|| format!("{MAX_TUNNELS} devices have one, which is the limit"))
            });
            match found {
                Ok(endpoint) => {
                    self.taken.insert(endpoint.address, peer.sn.clone());
                    accepted.insert(n, endpoint);
                }
                Err(why) => self.refuse_device(member, peer, &why),
            }
        }
        let device = |(n, endpoint): (usize, Endpoint)| (all[n].0, all[n].1, endpoint, all[n].2);
        accepted.into_iter().map(device).collect()
    }

    fn keeps_address(&self, peer: &Peer) -> bool {
        let has = |address: &str| {
            peer.address == address || peer.lines.iter().take(MAX_LINES).any(|l| l.address == address)
        };
        self.end.known.0.get(&peer.sn).is_some_and(|known| has(&known.address))
    }

    /// The tunnels to the devices, by their places. Every device has its first one before others have their second.
    fn tunnels(&mut self, devices: &[Candidate<'_>], blocks: &Blocks) -> Vec<(usize, ByLine)> {
        let mut all: Vec<Vec<ByLine>> = devices.iter().map(|d| self.by_lines(d, blocks)).collect();
        let mut room = MAX_TUNNELS;
        for n in 0..all.iter().map(Vec::len).max().unwrap_or(0) {
            for of_device in &mut all {
                if n < of_device.len() {
                    match room.checked_sub(1) {
                        Some(left) => room = left,
                        None => of_device.truncate(n),
                    }
                }
            }
        }
        for of_device in &mut all {
            self.rank(of_device);
        }
        (0..).zip(all).flat_map(|(n, of_device)| of_device.into_iter().map(move |t| (n, t))).collect()
    }

    /// The tunnels to a device: one by each pair of lines, if both ends have announced theirs, else one.
    fn by_lines(&mut self, (member, peer, endpoint, _): &Candidate<'_>, blocks: &Blocks) -> Vec<ByLine> {
        let before = self.end.sn < peer.sn;
        let own = self.own;
        let planned = pairs(own.lines.len(), endpoint.lines.len(), before);
        let mut out = Vec::new();
        for pair in &planned {
            let Pair { own: here, theirs: there } = *pair;
            let (here, there) = (&own.lines[here], &endpoint.lines[there]);
            if let Err(why) = self.reachable(there.address, blocks, Some(&peer.sn)) {
                let (sn, gateway) = (shown(&peer.sn), shown(&member.gateway));
                let refused =
                    format!("line {} of device {sn} of gateway {gateway} is not used: {why}", there.name);
                if !self.plan.refused.contains(&refused) {
                    self.plan.refused.push(refused);
                }
                continue;
            }
            let (IpAddr::V4(local), IpAddr::V4(remote)) = (here.address, there.address) else { continue };
            self.taken.insert(there.address, peer.sn.clone());
            let first = pair.is_first();
            out.push(ByLine {
                name: pairs::tunnel_name(&peer.sn, (!first).then_some((here, there))),
                local,
                remote,
                link: if first { String::new() } else { pairs::link(here, there, before) },
                several: planned.len() > 1,
                metric: pairs::priority(here, there),
                weight: pairs::weight(here, there),
            });
        }
        if let (true, Some(local), IpAddr::V4(remote)) = (planned.is_empty(), own.local, endpoint.address) {
            out.push(ByLine {
                name: pairs::tunnel_name(&peer.sn, None),
                local,
                remote,
                link: String::new(),
                several: false,
                metric: 0,
                weight: 100,
            });
        }
        out
    }

    /// The order of the tunnels to one device: by priority, and those behind that do not get through.
    fn rank(&self, tunnels: &mut [ByLine]) {
        let best = tunnels.iter().map(|t| t.metric).min().unwrap_or(0);
        let one_is_fit = tunnels.iter().any(|t| self.end.fit.contains(&t.name));
        for t in tunnels.iter_mut() {
            t.metric = (t.metric - best).min(METRICS - 1);
            if one_is_fit && !self.end.fit.contains(&t.name) {
                t.metric += UNFIT;
            }
        }
    }

    fn device(&self, member: &Member, peer: &Peer, blocks: &Blocks) -> Result<Endpoint, String> {
        if !is_plain(&peer.sn) {
            return Err("its serial number is not made of letters, digits, \"-\" and \"_\"".into());
        }
        if peer.sn == self.end.sn {
            return Err("it has the serial number of this device".into());
        }
        if !self.end.unreadable.is_empty() {
            return Err(format!("it cannot be recognised: {}", self.end.unreadable));
        }
        if let Some(why) = self.excluded.devices.get(&peer.sn) {
            return Err(why.clone());
        }
        let announced = Announcement {
            address: peer.address.clone(),
            epoch: Some(peer.epoch),
            public_key: peer.public_key.clone(),
            pop: None,
            identity: peer.identity.clone(),
            signature: peer.signature.clone(),
            lines: peer.lines.clone(),
            lines_signature: peer.lines_signature.clone(),
        };
        let endpoint = announced.check(&member.gateway, &peer.sn).map_err(|e| e.to_string())?;
        self.trusted(member, peer, &endpoint)?;
        self.reachable(endpoint.address, blocks, None)?;
        Ok(endpoint)
    }

    /// Whether it is the device that it was before, with a key that is not older.
    fn trusted(&self, member: &Member, peer: &Peer, new: &Endpoint) -> Result<(), String> {
        let known = self.end.known.0.get(&peer.sn);
        self.end.trust.recognise(&peer.sn, known, new.identity)?;
        // The epochs of whoever was there before the device began to sign say nothing.
        let known = known.filter(|k| !k.fingerprint.is_empty() || new.identity.is_none());
        match known {
            None if self.end.known.0.contains_key(&peer.sn) => Ok(()),
            None => self.end.known.has_room(&member.gateway, self.end.now),
            Some(known) if new.epoch < known.epoch => {
                Err(format!("its epoch {} is behind {}, which it has announced", new.epoch, known.epoch))
            }
            Some(known) if new.epoch == known.epoch && known.public_key != hex::encode(new.public_key) => {
                Err(format!("it has another key with the same epoch {}", new.epoch))
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether a tunnel to an address can be that of a device, which `has` other addresses already.
    fn reachable(&self, address: IpAddr, blocks: &Blocks, has: Option<&str>) -> Result<(), String> {
        let IpAddr::V4(v4) = address else {
            return Err(format!("its address {address} is of another IP version than this end's"));
        };
        if self.own.local == Some(v4) || self.own.addresses.contains(&v4) {
            return Err(format!("its address {address} is one of this gateway"));
        }
        if let Some(other) = self.taken.get(&address).filter(|sn| has != Some(sn.as_str())) {
            return Err(format!("its address {address} is that of device {}", shown(other)));
        }
        if let Some((net, what)) = self.own.inside.iter().find(|(net, _)| net.contains(&v4)) {
            return Err(format!("its address {address} is inside of {what} {net}"));
        }
        if let Some((block, gateway)) = blocks.meets(Ipv4Net::from(v4)) {
            return Err(format!(
                "its address {address} is inside of the block {block} of gateway {}",
                shown(gateway)
            ));
        }
        Ok(())
    }
}

/// The blocks that the API grants (RFC 1918).
fn is_private(block: Ipv4Net) -> bool {
    let least = match block.addr().octets() {
        [10, ..] => 8,
        [172, 16..=31, ..] => 12,
        [192, 168, ..] => 16,
        _ => return false,
    };
    block.prefix_len() >= least
}

/// A peer's public key, for the gateway.
pub fn peer_key(t: &Tunnel) -> TunnelPeers {
    let peer = TunnelPeer {
        tunnel: t.name.clone(),
        gateway: t.peer.sn.clone(),
        epoch: t.endpoint.epoch,
        public_key: hex::encode(t.endpoint.public_key),
        link: t.link.clone(),
    };
    TunnelPeers { peers: vec![peer] }
}

#[cfg(test)]
mod tests;
