//! How the LANs are served now.

use sag_daemons::State;
use serde::{Deserialize, Serialize};

use crate::leases::Lease;
use crate::settings::{Port, Serves, Settings, Upstream};

/// How the LANs are served now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Why nothing can be served; empty: it can.
    pub unable: String,
    /// The daemon; absent: none is needed.
    pub daemon: Option<State>,
    /// The LAN ports.
    pub ports: Vec<PortStatus>,
    /// Leases of all ports, by address.
    pub leases: Vec<Lease>,
    /// Whether names are looked up for the LANs.
    pub forwards: bool,
    /// The DNS servers of names in no domain of their own.
    pub servers: Vec<String>,
    /// The file that they are from; empty: the cloud has set them.
    pub servers_file: String,
    /// Domains with servers of their own.
    pub domains: Vec<Domain>,
    /// What is not in force.
    pub problems: Vec<Problem>,
}

/// How a port is served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortStatus {
    /// Name of the port.
    pub port: String,
    /// Its network device.
    pub device: String,
    /// `server`, `relay` or empty: no addresses are given.
    pub dhcp: String,
    /// The addresses of the server, `first-last`; the servers of a relay.
    pub addresses: String,
    /// Minutes of a lease.
    pub lease: Option<u32>,
    /// Leases of the port.
    pub leases: Option<usize>,
    /// Addresses of the range.
    pub room: Option<u64>,
    /// Whether its IPv6 networks are advertised.
    pub advertises: bool,
}

/// A domain with servers of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Domain {
    /// The domain.
    pub domain: String,
    /// Its servers.
    pub servers: Vec<String>,
    /// The device by which they are reached; empty: as the kernel routes.
    pub device: String,
}

/// What is not in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Problem {
    /// The member of the device document that it is in: `Lan`, `Dns` or `DnsForwards`.
    pub section: String,
    /// Which it is, for people.
    pub object: String,
    /// Why.
    pub reason: String,
}

impl Problem {
    /// One that is not in force, and why.
    pub fn new(section: &str, object: impl Into<String>, reason: impl Into<String>) -> Problem {
        Problem { section: section.to_owned(), object: object.into(), reason: reason.into() }
    }
}

/// Everything that the settings want, as problems for this reason.
pub(crate) fn all_of(settings: &Settings, reason: &str) -> Vec<Problem> {
    let ports = settings.ports.iter().filter_map(|p| {
        let what = match p.serves {
            Some(Serves::Range(_)) => "DHCP server",
            Some(Serves::Relay { .. }) => "DHCP relay",
            None if p.is_advertised() => "router advertisements",
            None => return None,
        };
        Some(Problem::new("Lan", format!("{what} of port {}", p.name), reason))
    });
    let dns = settings.dns.iter().flat_map(|dns| {
        let own = matches!(dns.upstream, Upstream::Servers(_));
        let servers = own.then(|| Problem::new("Dns", "DNS servers", reason));
        let domains = dns.forwards.iter();
        let domains =
            domains.map(|f| Problem::new("DnsForwards", format!("DNS servers of {}", f.domain), reason));
        servers.into_iter().chain(domains)
    });
    ports.chain(dns).collect()
}

impl PortStatus {
    pub(crate) fn new(port: &Port, leases: &[Lease]) -> PortStatus {
        let mut out = PortStatus {
            port: port.name.clone(),
            device: port.device.clone(),
            advertises: port.is_advertised(),
            ..PortStatus::default()
        };
        match &port.serves {
            Some(Serves::Range(r)) => {
                out.dhcp = "server".to_owned();
                out.addresses = format!("{}-{}", r.first, r.last);
                out.lease = Some(r.minutes);
                out.leases = Some(leases.iter().filter(|l| l.port == port.name).count());
                out.room = Some(u64::from(u32::from(r.last)) - u64::from(u32::from(r.first)) + 1);
            }
            Some(Serves::Relay { servers, .. }) => {
                out.dhcp = "relay".to_owned();
                out.addresses = servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            }
            None => {}
        }
        out
    }
}

impl Status {
    /// What the settings say of names.
    pub(crate) fn with_dns(mut self, settings: &Settings) -> Status {
        let Some(dns) = &settings.dns else { return self };
        let texts = |servers: &[std::net::IpAddr]| servers.iter().map(ToString::to_string).collect();
        self.forwards = true;
        match &dns.upstream {
            Upstream::Servers(servers) => self.servers = texts(servers),
            Upstream::File(path) => self.servers_file = path.display().to_string(),
        }
        let domain = |f: &crate::settings::Forward| Domain {
            domain: f.domain.clone(),
            servers: texts(&f.servers),
            device: f.device.clone().unwrap_or_default(),
        };
        self.domains = dns.forwards.iter().map(domain).collect();
        self
    }
}
