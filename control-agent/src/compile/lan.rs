//! What LAN ports are served with, as far as the cloud's configuration says it: DHCP servers, DNS servers. What the machine
//! and the device's own file add is in [`crate::lan_services`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use sag_dnsmasq::{Forward, NOWHERE, Port, Range, Serves, is_name};
use sag_model::Role;
use sag_southbound::{AddressMode, Effect};

use super::Compiler;
use super::isolation::deviation;
use crate::desired::{DnsForward, Lan};

/// Minutes of a lease, and where the cloud does not say.
const LEASE: std::ops::RangeInclusive<u32> = 1..=43_200;
const DEFAULT_LEASE: u32 = 60;

/// OutboundPortType of servers that are reached by a tunnel.
const TUNNEL: &str = "Tunnel";

/// What LAN ports are served with, as far as the cloud says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LanServices {
    /// Every LAN port.
    pub ports: Vec<Port>,
    /// DNS servers of the device; none: those of the machine.
    pub servers: Vec<IpAddr>,
    /// Domains with DNS servers of their own.
    pub forwards: Vec<Forward>,
    /// Identifiers of those whose servers are reached by tunnels.
    pub tunnelled: BTreeSet<String>,
}

impl Compiler<'_> {
    pub(super) fn lan_services(&mut self) -> LanServices {
        let lans: Vec<(String, String)> = self
            .ports
            .iter()
            .filter(|(_, _, role)| *role == Role::Lan)
            .map(|(name, device, _)| (name.clone(), device.clone()))
            .collect();
        let mut ports = Vec::new();
        for (name, device) in lans {
            let serves = self.range(&name).map(Serves::Range);
            ports.push(Port { name, device, serves, advertises: false, advertises_by: None });
        }
        let tunnelled = self.desired.dns_forwards.iter().filter(|f| f.by == TUNNEL).map(|f| f.id.clone());
        let tunnelled = tunnelled.collect();
        LanServices { ports, servers: self.dns_servers(), forwards: self.dns_forwards(), tunnelled }
    }

    /// The addresses that a LAN port of IPType DHCP leases.
    fn range(&mut self, name: &str) -> Option<Range> {
        let desired = self.desired;
        let lan = desired.lans.get(name)?;
        match &lan.ip_type {
            Some(AddressMode::Dhcp) => {}
            Some(AddressMode::Unknown(word)) => {
                let why = format!("IPType {word:?} is unknown to this version, so no addresses are given");
                let why = format!("{why}; update sag-agent");
                self.deviations.push(deviation("Lan", format!("port {name}"), Effect::Partial, why));
                return None;
            }
            _ => return None,
        }
        let object = || format!("DHCP server of port {name}");
        let range = lease(lan).and_then(|minutes| range(lan, &desired.blocks, minutes));
        match range {
            Ok(range) => Some(range),
            Err(why) => {
                self.deviations.push(deviation("Lan", object(), Effect::LeftOut, why));
                None
            }
        }
    }

    fn dns_servers(&mut self) -> Vec<IpAddr> {
        let Some(dns) = &self.desired.dns else { return Vec::new() };
        let (servers, wrong) = addresses([&dns.master, &dns.slave]);
        for text in wrong {
            let why = format!("{text:?} is no address");
            self.deviations.push(deviation("Dns", "DNS servers", Effect::Partial, why));
        }
        servers
    }

    fn dns_forwards(&mut self) -> Vec<Forward> {
        let desired = self.desired;
        let mut out: Vec<Forward> = Vec::new();
        for f in &desired.dns_forwards {
            match self.dns_forward(f) {
                Ok(forward) => out.push(forward),
                Err(why) => {
                    let object = format!("DNS servers of {}", f.domain);
                    let effect = if is_domain(f) { Effect::Stricter } else { Effect::LeftOut };
                    self.deviations.push(deviation("DnsForwards", object, effect, why));
                    out.extend(is_domain(f).then(|| refused(f)));
                }
            }
        }
        out
    }

    /// Names of a domain must not be asked by another way, or of other servers, than is said: they are refused then.
    fn dns_forward(&self, f: &DnsForward) -> Result<Forward, String> {
        if !is_domain(f) {
            return Err("it is no name of a domain".to_owned());
        }
        let (servers, wrong) = addresses([&f.master, &f.slave]);
        if let Some(text) = wrong.first() {
            return Err(format!("{text:?} is no address"));
        }
        if servers.is_empty() {
            return Err("it has no DNS server".to_owned());
        }
        let device = match f.by.as_str() {
            "" => None,
            "PhysicalPort" if f.port.is_empty() => None,
            "PhysicalPort" => {
                let port = self.ports.iter().find(|(name, ..)| *name == f.port);
                let Some((_, device, _)) = port else {
                    return Err(format!("port {} has no network device or no role", f.port));
                };
                Some(device.clone())
            }
            // Which tunnel it is depends on the server, and on what the tunnels are like.
            TUNNEL => Some(NOWHERE.to_owned()),
            word => {
                return Err(format!(
                    "OutboundPortType {word:?} is unknown to this version; update sag-agent"
                ));
            }
        };
        Ok(Forward { id: f.id.clone(), domain: f.domain.clone(), servers, device })
    }
}

fn is_domain(f: &DnsForward) -> bool {
    is_name(f.domain.strip_prefix("*.").unwrap_or(&f.domain))
}

/// A domain whose names are asked of nobody.
fn refused(f: &DnsForward) -> Forward {
    let (id, domain, device) = (f.id.clone(), f.domain.clone(), Some(NOWHERE.to_owned()));
    // No host has this address (RFC 1112, 4).
    Forward { id, domain, servers: vec![Ipv4Addr::new(240, 0, 0, 1).into()], device }
}

fn lease(lan: &Lan) -> Result<u32, String> {
    if lan.lease.is_empty() {
        return Ok(DEFAULT_LEASE);
    }
    let minutes = lan.lease.parse().ok().filter(|m| LEASE.contains(m));
    minutes.ok_or_else(|| format!("Lease {:?} is not 1..43200 minutes", lan.lease))
}

/// Without a beginning and an end it is what the first block of the branch has in the port's network, or all of that.
fn range(lan: &Lan, blocks: &[String], minutes: u32) -> Result<Range, String> {
    let address = |key: &str, text: &str| {
        let none = || format!("{key} {text:?} is no address");
        if text.is_empty() { Ok(None) } else { text.parse::<Ipv4Addr>().map(Some).map_err(|_| none()) }
    };
    let (ip, mask) = (address("IP", &lan.ip)?, address("Mask", &lan.mask)?);
    let port = ip.zip(mask).and_then(|(ip, mask)| Ipv4Net::with_netmask(ip, mask).ok());
    let port = port.ok_or("the port has no address and mask")?;
    let (mut first, mut last) = (address("StartIp", &lan.start_ip)?, address("EndIp", &lan.end_ip)?);
    let block = blocks.first().and_then(|b| b.parse::<Ipv4Net>().ok()).map(|b| b.trunc());
    if let (None, None, Some(block)) = (first, last, block)
        && block != port.trunc()
        && port.trunc().contains(&block)
    {
        let within = Range::new(port, None, None, minutes)?;
        first = Some(within.first.max(block.network()));
        last = Some(within.last.min(block.broadcast()));
    }
    Range::new(port, first, last, minutes)
}

/// The addresses, each once, and the texts that are none.
fn addresses<const N: usize>(texts: [&String; N]) -> (Vec<IpAddr>, Vec<String>) {
    let (mut out, mut wrong) = (Vec::new(), Vec::new());
    for text in texts.into_iter().filter(|t| !t.is_empty()) {
        match text.parse() {
            Ok(address) if out.contains(&address) => {}
            Ok(address) => out.push(address),
            Err(_) => wrong.push(text.clone()),
        }
    }
    (out, wrong)
}

#[cfg(test)]
#[path = "lan_tests.rs"]
mod tests;
