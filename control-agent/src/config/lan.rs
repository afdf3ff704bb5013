//! What the device's own file says of DHCP, DNS and router advertisements on LAN ports: `[lan]`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use sag_dnsmasq::{Reservation, is_mac, is_name};
use serde::Deserialize;

use super::{ConfigError, wrong};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLan {
    mode: Option<LanMode>,
    dir: Option<PathBuf>,
    domain: String,
    ping: Option<bool>,
    advertise: Vec<String>,
    reservation: Vec<RawReservation>,
    relay: Vec<Relay>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReservation {
    mac: String,
    address: Ipv4Addr,
    #[serde(default)]
    name: String,
}

/// Whether LANs can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LanMode {
    /// Where dnsmasq is installed.
    Auto,
    Off,
}

/// A port whose hosts get addresses by a DHCP server elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    pub port: String,
    pub server: Ipv4Addr,
}

/// What the device's own file says of services on LAN ports.
#[derive(Debug, Clone)]
pub struct LanConfig {
    pub mode: LanMode,
    /// Where dnsmasq's files are.
    pub dir: PathBuf,
    /// Of the DHCP clients; empty: none.
    pub domain: String,
    /// Whether an address is pinged before it is offered.
    pub ping: bool,
    /// Ports whose IPv6 networks are advertised.
    pub advertise: BTreeSet<String>,
    pub reservations: Vec<Reservation>,
    pub relays: Vec<Relay>,
}

/// Reservations, and relays, of one device.
const MOST: usize = 1000;

impl RawLan {
    pub(super) fn validate(self, place: &str, sn: &str) -> Result<LanConfig, ConfigError> {
        let at = |key: &str| format!("{place}: lan.{key}");
        if !self.domain.is_empty() && !is_name(&self.domain) {
            let remedy = "use a name such as \"branch.example\"";
            return Err(wrong(at("domain"), format!("{:?} is no domain", self.domain), remedy));
        }
        if self.reservation.len() > MOST || self.relay.len() > MOST {
            return Err(wrong(
                at("reservation, lan.relay"),
                "too many",
                format!("use at most {MOST} of each"),
            ));
        }
        let (mut macs, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        let mut reservations = Vec::new();
        for RawReservation { mac, address, name } in self.reservation {
            let here = at(&format!("reservation {mac}"));
            if !is_mac(&mac) {
                let remedy = "use six hexadecimal numbers, as in \"02:00:00:12:34:56\"";
                return Err(wrong(here, "it is no Ethernet address", remedy));
            }
            if !name.is_empty() && !is_name(&name) {
                return Err(wrong(
                    here,
                    format!("{name:?} is no name of a host"),
                    "use letters, digits and -",
                ));
            }
            if !macs.insert(mac.to_ascii_lowercase()) || !addresses.insert(address) {
                return Err(wrong(
                    here,
                    "another entry has this Ethernet address, or its address",
                    "name each once",
                ));
            }
            reservations.push(Reservation { mac, address, name });
        }
        Ok(LanConfig {
            mode: self.mode.unwrap_or(LanMode::Auto),
            dir: self.dir.unwrap_or_else(|| Path::new(sag_dnsmasq::PLACE).join(sn)),
            domain: self.domain,
            ping: self.ping.unwrap_or(true),
            advertise: self.advertise.into_iter().collect(),
            reservations,
            relays: self.relay,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{BASE, INLINE, load};
    use super::*;

    #[test]
    fn what_the_file_says_of_lans() {
        let with = |more: &str| load(&format!("{BASE}{INLINE}{more}"), 0o600, &[]);
        let plain = with("").expect("defaults").lan;
        assert_eq!((plain.mode, plain.ping, plain.advertise.len()), (LanMode::Auto, true, 0));
        assert_eq!(plain.dir, Path::new("/run/sag-lan/sn1"));
        let set = with(
            "[lan]\nmode = \"off\"\nping = false\ndomain = \"branch.example\"\nadvertise = [\"1\"]\n\
             [[lan.reservation]]\nmac = \"02:00:00:00:00:AB\"\naddress = \"10.1.0.9\"\nname = \"printer\"\n\
             [[lan.relay]]\nport = \"4\"\nserver = \"10.9.0.1\"\n",
        );
        let set = set.expect("read").lan;
        assert_eq!((set.mode, set.ping, set.domain.as_str()), (LanMode::Off, false, "branch.example"));
        assert_eq!((set.reservations[0].name.as_str(), set.relays[0].port.as_str()), ("printer", "4"));
        let twice = "[[lan.reservation]]\nmac = \"02:00:00:00:00:ab\"\naddress = \"10.1.0.9\"\n\
            [[lan.reservation]]\nmac = \"02:00:00:00:00:AB\"\naddress = \"10.1.0.10\"\n";
        for (wrong, why) in [
            ("[lan]\ndomain = \"a b\"\n", "is no domain"),
            ("[lan]\nunknown = 0\n", "unknown field"),
            ("[[lan.reservation]]\nmac = \"2:0:0:0:0:1\"\naddress = \"10.1.0.9\"\n", "no Ethernet address"),
            (
                "[[lan.reservation]]\nmac = \"02:00:00:00:00:ab\"\naddress = \"10.1.0.9\"\nname = \"a,b\"\n",
                "no name",
            ),
            (twice, "another entry"),
            ("[[lan.relay]]\nport = \"4\"\nserver = \"2001:db8::1\"\n", "invalid IPv4 address"),
        ] {
            let e = with(wrong).expect_err(wrong);
            assert!(e.contains(why), "{e}");
        }
    }
}
