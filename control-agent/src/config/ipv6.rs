//! What the device's own file says of IPv6 on WAN ports: `[[ipv6.wan]]`. The API has no words for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use serde::Deserialize;

use super::{ConfigError, Wiring, wrong};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawIpv6 {
    wan: Vec<RawWan>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWan {
    port: String,
    #[serde(default = "by_dhcp")]
    address: String,
    gateway: Option<Ipv6Addr>,
    prefix_length: Option<u8>,
    #[serde(default)]
    lans: BTreeMap<String, u32>,
}

fn by_dhcp() -> String {
    "dhcp".to_owned()
}

/// What the device's own file says of IPv6.
#[derive(Debug, Clone, Default)]
pub struct Ipv6Config {
    pub wans: Vec<Wan6>,
}

/// IPv6 on a WAN port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wan6 {
    pub port: String,
    pub device: String,
    pub address: Wan6Address,
    /// The length of the prefix that is asked for; none: the provider's choice.
    pub prefix_length: Option<u8>,
    /// Which LAN ports get a network of 64 bits out of the delegated prefix, and which one.
    pub lans: BTreeMap<String, u32>,
}

/// How a WAN port gets its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wan6Address {
    /// By router advertisements alone (RFC 4862).
    Ra,
    /// By DHCPv6 (RFC 8415).
    Dhcp,
    /// This one.
    Static { address: Ipv6Net, gateway: Option<Ipv6Addr> },
}

impl Wan6 {
    /// Whether it needs a DHCPv6 client: for its address or for a prefix.
    pub fn uses_dhcp(&self) -> bool {
        self.address == Wan6Address::Dhcp || !self.lans.is_empty()
    }
}

impl Ipv6Config {
    /// Whether any port needs a DHCPv6 client.
    pub fn uses_dhcp(&self) -> bool {
        self.wans.iter().any(Wan6::uses_dhcp)
    }

    /// Whether a LAN port gets networks out of delegated prefixes.
    pub fn delegates_to(&self, port: &str) -> bool {
        self.wans.iter().any(|w| w.lans.contains_key(port))
    }
}

/// Subnets of the shortest prefix that is asked for.
const MAX_SUBNET: u32 = 0xffff;

impl RawIpv6 {
    pub(super) fn validate(
        self,
        place: &str,
        ports: &BTreeMap<String, Wiring>,
    ) -> Result<Ipv6Config, ConfigError> {
        let mut wans: Vec<Wan6> = Vec::new();
        for raw in self.wan {
            let here = format!("{place}: ipv6.wan {}", raw.port);
            let no_port = |port: &str| {
                let remedy = "name a port of [ports]";
                wrong(&here, format!("there is no port {port}"), remedy)
            };
            let device = ports.get(&raw.port).ok_or_else(|| no_port(&raw.port))?.device.clone();
            if wans.iter().any(|w| w.port == raw.port || w.device == device) {
                return Err(wrong(here, "another entry has this port", "name each once"));
            }
            let address = match raw.address.as_str() {
                "ra" => Wan6Address::Ra,
                "dhcp" => Wan6Address::Dhcp,
                text => match text.parse::<Ipv6Net>() {
                    Ok(address) => Wan6Address::Static { address, gateway: raw.gateway },
                    Err(_) => {
                        let remedy = "use \"ra\", \"dhcp\", or an address as in \"2001:db8::2/64\"";
                        return Err(wrong(here, format!("address {text:?}"), remedy));
                    }
                },
            };
            if raw.gateway.is_some() && !matches!(address, Wan6Address::Static { .. }) {
                let remedy = "leave it out: routers make themselves known";
                return Err(wrong(here, "gateway without a fixed address", remedy));
            }
            if raw.prefix_length.is_some_and(|l| !(16..=64).contains(&l)) {
                return Err(wrong(here, "prefix_length is out of range", "use 16..64"));
            }
            if raw.prefix_length.is_some() && raw.lans.is_empty() {
                let remedy = "name LAN ports in lans, as in lans = { \"1\" = 0 }";
                return Err(wrong(here, "prefix_length, and no port has a use for the prefix", remedy));
            }
            let subnets_of = |l: u8| u32::try_from((1u64 << (64 - l)) - 1).unwrap_or(u32::MAX);
            let room = raw.prefix_length.map_or(MAX_SUBNET, |l| MAX_SUBNET.min(subnets_of(l)));
            let mut subnets = BTreeSet::new();
            for (port, subnet) in &raw.lans {
                if !ports.contains_key(port) || *port == raw.port {
                    return Err(no_port(port));
                }
                if *subnet > room {
                    let problem = format!("lans: subnet {subnet} of port {port} is out of range");
                    return Err(wrong(here, problem, format!("use 0..{room}")));
                }
                if !subnets.insert(*subnet) {
                    let problem = format!("lans: two ports have subnet {subnet}");
                    return Err(wrong(here, problem, "give each its own"));
                }
            }
            let (prefix_length, lans) = (raw.prefix_length, raw.lans);
            wans.push(Wan6 { port: raw.port, device, address, prefix_length, lans });
        }
        Ok(Ipv6Config { wans })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{BASE, INLINE, load};
    use super::*;

    #[test]
    fn what_the_file_says_of_ipv6() {
        let with = |more: &str| {
            load(
                &format!("{BASE}{INLINE}[ports]\n\"0\" = \"wan\"\n\"1\" = \"lan\"\n\"4\" = \"lan2\"\n{more}"),
                0o600,
                &[],
            )
        };
        assert!(with("").expect("none").ipv6.wans.is_empty());
        let c = with("[[ipv6.wan]]\nport = \"0\"\nprefix_length = 56\nlans = { \"1\" = 0, \"4\" = 255 }\n");
        let c = c.expect("right").ipv6;
        assert_eq!((c.wans[0].address.clone(), c.wans[0].device.as_str()), (Wan6Address::Dhcp, "wan"));
        assert!(c.uses_dhcp() && c.delegates_to("4") && !c.delegates_to("0"));
        let c = with("[[ipv6.wan]]\nport = \"0\"\naddress = \"2001:db8::2/64\"\ngateway = \"fe80::1\"\n");
        assert!(!c.expect("right").ipv6.uses_dhcp());
        let c = with("[[ipv6.wan]]\nport = \"0\"\naddress = \"ra\"\nlans = { \"1\" = 3 }\n");
        assert!(c.expect("right").ipv6.uses_dhcp(), "for the prefix");
        for (wrong, why) in [
            ("port = \"7\"\n", "there is no port 7"),
            ("port = \"0\"\naddress = \"slaac\"\n", "address \"slaac\"; use \"ra\""),
            ("port = \"0\"\naddress = \"192.0.2.1/24\"\n", "use \"ra\""),
            ("port = \"0\"\ngateway = \"fe80::1\"\n", "gateway without a fixed address"),
            ("port = \"0\"\nprefix_length = 65\nlans = { \"1\" = 0 }\n", "use 16..64"),
            ("port = \"0\"\nprefix_length = 56\n", "no port has a use"),
            ("port = \"0\"\nprefix_length = 56\nlans = { \"1\" = 256 }\n", "use 0..255"),
            ("port = \"0\"\nlans = { \"1\" = 65536 }\n", "use 0..65535"),
            ("port = \"0\"\nlans = { \"1\" = 2, \"4\" = 2 }\n", "two ports have subnet 2"),
            ("port = \"0\"\nlans = { \"0\" = 2 }\n", "there is no port 0"),
            ("port = \"0\"\n[[ipv6.wan]]\nport = \"0\"\n", "another entry"),
            ("port = \"0\"\nunknown = 1\n", "unknown field"),
        ] {
            let e = with(&format!("[[ipv6.wan]]\n{wrong}")).expect_err(wrong);
            assert!(e.contains(why), "{wrong}: {e}");
        }
    }
}
