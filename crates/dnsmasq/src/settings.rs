//! What the LANs are served with, as the agent says it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::Ipv4Net;

/// What the LANs are served with. Nothing: no daemon runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The LAN ports.
    pub ports: Vec<Port>,
    /// The DNS forwarder of all LAN ports.
    pub dns: Option<Dns>,
    /// The domain of the DHCP clients (option 15); empty: none.
    pub domain: String,
    /// Addresses of certain clients.
    pub reservations: Vec<Reservation>,
    /// Whether an address is pinged before it is offered (RFC 2131 section 2.2), which takes three seconds.
    pub ping: bool,
    /// Source ports of queries to DNS servers; none: any.
    pub local_ports: Option<(u16, u16)>,
    /// An address that this gateway or another one has.
    pub virtual_router: Option<VirtualRouter>,
}

/// An address of a LAN port that one of two gateways has (RFC 5798): its hosts go by that one, and none gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualRouter {
    /// The network device of the port.
    pub device: String,
    /// The address.
    pub address: Ipv4Addr,
    /// The device above that one which has it, if it has an Ethernet address of its own.
    pub by: Option<String>,
}

impl Settings {
    /// Whether there is nothing to do.
    pub fn is_off(&self) -> bool {
        self.dns.is_none() && self.ports.iter().all(|p| p.serves.is_none() && !p.is_advertised())
    }
}

/// A LAN port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its network device.
    pub device: String,
    /// How its hosts get IPv4 addresses; none: not by us.
    pub serves: Option<Serves>,
    /// Whether the IPv6 networks of the device are advertised to its hosts (RFC 4861), which make their addresses themselves
    /// (RFC 4862) and may ask for DNS servers (RFC 8415 stateless DHCP, RFC 8106).
    pub advertises: bool,
    /// A device above the port's by which its networks are advertised, as a virtual router's.
    pub advertises_by: Option<String>,
}

impl Port {
    /// Whether hosts of the port get router advertisements.
    pub fn is_advertised(&self) -> bool {
        self.advertises || self.advertises_by.is_some()
    }
}

/// How hosts get IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serves {
    /// Of this range.
    Range(Range),
    /// By servers elsewhere.
    Relay {
        /// The port's own address.
        local: Ipv4Addr,
        /// The servers.
        servers: Vec<Ipv4Addr>,
    },
}

/// Addresses that are leased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The port's network.
    pub network: Ipv4Net,
    /// The first address.
    pub first: Ipv4Addr,
    /// The last one.
    pub last: Ipv4Addr,
    /// How long an address is leased, in minutes.
    pub minutes: u32,
}

impl Range {
    /// First and last address of what is left of it without this one.
    pub(crate) fn without(&self, address: Option<Ipv4Addr>) -> Vec<(Ipv4Addr, Ipv4Addr)> {
        let Some(address) = address.filter(|a| (self.first..=self.last).contains(a)) else {
            return vec![(self.first, self.last)];
        };
        let number = u32::from(address);
        let parts = [
            (self.first < address).then(|| (self.first, Ipv4Addr::from(number.wrapping_sub(1)))),
            (address < self.last).then(|| (Ipv4Addr::from(number.wrapping_add(1)), self.last)),
        ];
        parts.into_iter().flatten().collect()
    }

    /// Addresses of the network of a port; those that are not given are the first and the last one that a host can have. The
    /// daemon leaves out the port's own.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(
        port: Ipv4Net,
        first: Option<Ipv4Addr>,
        last: Option<Ipv4Addr>,
        minutes: u32,
    ) -> Result<Range, String> {
        let network = port.trunc();
        if network.prefix_len() > 30 {
            return Err(format!("{network} has no room for clients"));
        }
        let (lowest, highest) = (u32::from(network.network()) + 1, u32::from(network.broadcast()) - 1);
        let first = first.unwrap_or(Ipv4Addr::from(lowest));
        let last = last.unwrap_or(Ipv4Addr::from(highest));
        if let Some(out) = [first, last].iter().find(|a| !(lowest..=highest).contains(&u32::from(**a))) {
            return Err(format!("{out} is no address of a host in {network}"));
        }
        if first > last {
            return Err(format!("{first} is above {last}"));
        }
        if first == last && first == port.addr() {
            return Err(format!("{first} is the port's own, and there is no other"));
        }
        Ok(Range { network, first, last, minutes })
    }
}

/// A DNS forwarder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Servers of all other names.
    pub upstream: Upstream,
    /// Domains with servers of their own.
    pub forwards: Vec<Forward>,
}

/// Where names are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// These servers.
    Servers(Vec<IpAddr>),
    /// Those of a file in the form of resolv.conf(5), whenever it changes.
    File(PathBuf),
}

/// A device that does not exist: queries by it get the answer REFUSED, and leave by no other way.
pub const NOWHERE: &str = "no-way";

/// A domain with servers of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Whose it is, for messages.
    pub id: String,
    /// The domain with all names below it; with `*.` in front only those.
    pub domain: String,
    /// The servers.
    pub servers: Vec<IpAddr>,
    /// The device by which they are reached; none: as the kernel routes. While there is no such device, or it carries
    /// nothing, the domain's names have no answer.
    pub device: Option<String>,
}

/// The address of a certain client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Its Ethernet address.
    pub mac: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its name; empty: what it says itself.
    pub name: String,
}

/// Whether this is an Ethernet address with colons.
pub fn is_mac(text: &str) -> bool {
    let octet = |o: &str| o.len() == 2 && o.bytes().all(|b| b.is_ascii_hexdigit());
    text.split(':').count() == 6 && text.split(':').all(octet)
}

/// Whether this is a name of hosts or domains: labels of letters, digits, `-` and `_` (RFC 1123 section 2.1, RFC 2181
/// section 11).
pub fn is_name(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Whether this can stand in a line of the configuration and is nothing but a device.
pub(crate) fn is_device(text: &str) -> bool {
    (1..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(port: &str, first: &str, last: &str) -> Result<String, String> {
        let address = |t: &str| (!t.is_empty()).then(|| t.parse().expect("address"));
        let r = Range::new(port.parse().expect("net"), address(first), address(last), 60)?;
        Ok(format!("{}-{} of {}", r.first, r.last, r.network))
    }

    #[test]
    fn ranges_are_within_the_network_of_the_port() {
        let whole = Ok("10.1.0.1-10.1.255.254 of 10.1.0.0/16".to_owned());
        assert_eq!(range("10.1.2.3/16", "", ""), whole);
        let part = Ok("192.0.2.10-192.0.2.20 of 192.0.2.0/26".to_owned());
        assert_eq!(range("192.0.2.1/26", "192.0.2.10", "192.0.2.20"), part);
        for (port, first, last, why) in [
            ("192.0.2.1/26", "192.0.2.70", "", "192.0.2.70 is no address of a host"),
            ("192.0.2.1/26", "", "192.0.2.63", "192.0.2.63 is no address of a host"),
            ("192.0.2.1/26", "192.0.2.20", "192.0.2.10", "192.0.2.20 is above 192.0.2.10"),
            ("192.0.2.1/26", "192.0.2.1", "192.0.2.1", "the port's own"),
            ("192.0.2.1/31", "", "", "no room"),
            ("192.0.2.1/32", "", "", "no room"),
        ] {
            let e = range(port, first, last).expect_err(port);
            assert!(e.contains(why), "{e}");
        }
        assert!(range("0.0.0.1/0", "", "").is_ok());
    }

    #[test]
    fn words_of_others_are_nothing_but_words() {
        assert!(is_mac("02:00:00:aB:0c:01") && is_name("a-1.example") && is_device("eth0.100"));
        for not in ["", "02:00:00:ab:0c", "02:00:00:ab:0c:01:02", "02-00-00-ab-0c-01", "0200:00:ab:0c:1:02"] {
            assert!(!is_mac(not), "{not}");
        }
        for not in ["", ".", "a..b", "-a", "a b", "a/b", "a\nserver=192.0.2.1", "a,b", "é", "a#"] {
            assert!(!is_name(not) && !is_device(&format!("{not}/")), "{not}");
        }
        assert!(!is_device("an-interface-name") && !is_device("a,b") && !is_device("a b"));
    }
}
