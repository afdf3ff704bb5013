//! What the device's own file says of BGP, OSPF and VRRP: `[routing]`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::Ipv6Net;
use sag_frr::Key;
use serde::Deserialize;

use super::{ConfigError, private, wrong};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRouting {
    mode: Option<RoutingMode>,
    dir: Option<PathBuf>,
    bfd: bool,
    max_prefixes: Option<u32>,
    vrrp_priority: Option<u8>,
    virtual_mac: bool,
    vrrp_ipv6: Vec<Ipv6Net>,
    neighbor: Vec<RawNeighbor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNeighbor {
    address: IpAddr,
    remote_as: Option<u32>,
    key_file: Option<PathBuf>,
    hops: Option<u8>,
}

/// Whether BGP and OSPF can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoutingMode {
    /// Where FRR is installed.
    Auto,
    Off,
}

/// What the device's own file says of BGP and OSPF.
#[derive(Debug, Clone)]
pub struct Routing {
    pub mode: RoutingMode,
    /// Where the routing service is.
    pub dir: PathBuf,
    /// Neighbors are watched by BFD, too.
    pub bfd: bool,
    /// Prefixes that a neighbor of BGP may announce of each family.
    pub max_prefixes: u32,
    /// Who has more of two devices has their virtual address.
    pub vrrp_priority: u8,
    /// The virtual address has an Ethernet address of its own.
    pub virtual_mac: bool,
    /// Addresses of IPv6 that move with it, a link-local one first.
    pub vrrp_ipv6: Vec<Ipv6Net>,
    pub neighbors: Vec<LocalNeighbor>,
}

/// A neighbor of BGP beside those of the cloud, or the key of one of those.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalNeighbor {
    pub address: IpAddr,
    /// None: only a key for a neighbor of the cloud.
    pub remote_as: Option<u32>,
    pub key: Option<Key>,
    pub hops: u8,
}

/// Prefixes of a neighbor, unless the file says otherwise.
const MAX_PREFIXES: u32 = 10_000;
/// The default of VRRP.
const VRRP_PRIORITY: u8 = 100;

impl RawRouting {
    pub(super) fn validate(self, place: &str, sn: &str) -> Result<Routing, ConfigError> {
        let mut neighbors = Vec::new();
        for n in self.neighbor {
            let here = format!("{place}: routing.neighbor {}", n.address);
            if n.remote_as == Some(0) || n.hops == Some(0) {
                return Err(wrong(here, "remote_as and hops begin with 1", "leave it out, or name another"));
            }
            if n.remote_as.is_none() && n.key_file.is_none() {
                let remedy = "name remote_as for a new neighbor, key_file for one of the cloud";
                return Err(wrong(here, "it says nothing", remedy));
            }
            let key = n.key_file.map(|file| neighbor_key(&file)).transpose()?;
            let (remote_as, hops) = (n.remote_as, n.hops.unwrap_or(1));
            neighbors.push(LocalNeighbor { address: n.address, remote_as, key, hops });
        }
        let max_prefixes = self.max_prefixes.unwrap_or(MAX_PREFIXES);
        if max_prefixes == 0 {
            let here = format!("{place}: routing.max_prefixes");
            return Err(wrong(here, "0 is no bound", "use 1..4294967295"));
        }
        let vrrp_priority = self.vrrp_priority.unwrap_or(VRRP_PRIORITY);
        if !(1..=254).contains(&vrrp_priority) {
            let here = format!("{place}: routing.vrrp_priority");
            return Err(wrong(here, format!("{vrrp_priority} is reserved (RFC 5798)"), "use 1..254"));
        }
        virtual_ipv6(&self.vrrp_ipv6, self.virtual_mac, place)?;
        Ok(Routing {
            mode: self.mode.unwrap_or(RoutingMode::Auto),
            dir: self.dir.unwrap_or_else(|| Path::new(sag_frr::PLACE).join(sn)),
            bfd: self.bfd,
            max_prefixes,
            vrrp_priority,
            virtual_mac: self.virtual_mac,
            vrrp_ipv6: self.vrrp_ipv6,
            neighbors,
        })
    }
}

/// RFC 5798 section 5.2.9: the first one is link-local. Hosts get it by advertisements of the others' networks.
fn virtual_ipv6(addresses: &[Ipv6Net], virtual_mac: bool, place: &str) -> Result<(), ConfigError> {
    let here = format!("{place}: routing.vrrp_ipv6");
    let Some((first, others)) = addresses.split_first() else { return Ok(()) };
    let is_host =
        |a: &Ipv6Net| !a.addr().is_multicast() && !a.addr().is_loopback() && !a.addr().is_unspecified();
    if !first.addr().is_unicast_link_local() || others.iter().any(|a| a.addr().is_unicast_link_local()) {
        let remedy = "begin with one link-local address, as in [\"fe80::6/64\", \"2001:db8:1::6/64\"]";
        return Err(wrong(here, "the first one, and no other, is to be link-local", remedy));
    }
    if others.is_empty() || others.iter().any(|a| a.prefix_len() != 64 || !is_host(a)) {
        let remedy = "name an address with 64 bits of network in each network of the port";
        return Err(wrong(here, "hosts have no network that they could live in", remedy));
    }
    if !virtual_mac {
        let remedy = "set virtual_mac = true";
        return Err(wrong(here, "a router of IPv6 that moves needs an Ethernet address of its own", remedy));
    }
    Ok(())
}

/// The first line of the file.
fn neighbor_key(file: &Path) -> Result<Key, ConfigError> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| wrong(file.display(), e.to_string(), "key_file must be readable"))?;
    private(file)?;
    let key = text.lines().next().unwrap_or_default();
    let fits = (1..=80).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    if !fits {
        let remedy = "the first line is the key: 1..80 letters, digits and punctuation of ASCII";
        return Err(wrong(file.display(), "no key in it", remedy));
    }
    Ok(Key::new(key))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{BASE, INLINE, load};
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_the_file_says_of_routing() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("key");
        std::fs::write(&file, "s3cr3t\n").expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
        let with = |more: &str| load(&format!("{BASE}{INLINE}{more}"), 0o600, &[]);
        let plain = with("").expect("defaults").routing;
        assert_eq!((plain.mode, plain.bfd, plain.max_prefixes), (RoutingMode::Auto, false, MAX_PREFIXES));
        assert!(!plain.virtual_mac && plain.vrrp_ipv6.is_empty());
        let v6 = with("[routing]\nvirtual_mac = true\nvrrp_ipv6 = [\"fe80::6/64\", \"2001:db8::6/64\"]\n");
        assert_eq!(v6.expect("right").routing.vrrp_ipv6.len(), 2);
        assert_eq!(plain.dir, Path::new("/run/sag-routing/sn1"));
        let set = with(&format!(
            "[routing]\nmode = \"off\"\nbfd = true\nmax_prefixes = 7\n[[routing.neighbor]]\n\
             address = \"2001:db8::1\"\nremote_as = 65002\nkey_file = {file:?}\nhops = 2\n"
        ));
        let set = set.expect("read");
        assert!(!format!("{set:?}").contains("s3cr3t"), "keys are not printed");
        let n = &set.routing.neighbors[0];
        assert_eq!((n.remote_as, n.hops, n.key.as_ref().map(Key::expose)), (Some(65002), 2, Some("s3cr3t")));
        assert_eq!((set.routing.mode, set.routing.max_prefixes), (RoutingMode::Off, 7));
        for (wrong, why) in [
            ("[[routing.neighbor]]\naddress = \"192.0.2.1\"\n", "says nothing"),
            ("[[routing.neighbor]]\naddress = \"192.0.2.1\"\nremote_as = 0\n", "begin with 1"),
            ("[routing]\nmax_prefixes = 0\n", "no bound"),
            ("[routing]\nvrrp_priority = 255\n", "reserved"),
            ("[routing]\nvrrp_ipv6 = [\"fe80::6/64\", \"2001:db8::6/64\"]\n", "set virtual_mac"),
            ("[routing]\nvirtual_mac = true\nvrrp_ipv6 = [\"2001:db8::6/64\"]\n", "link-local"),
            ("[routing]\nvirtual_mac = true\nvrrp_ipv6 = [\"fe80::6/64\"]\n", "no network"),
            (
                "[routing]\nvirtual_mac = true\nvrrp_ipv6 = [\"fe80::6/64\", \"2001:db8::6/128\"]\n",
                "no network",
            ),
            ("[routing]\nvirtual_mac = true\nvrrp_ipv6 = [\"fe80::6/64\", \"fe80::7/64\"]\n", "no other"),
            ("[routing]\nunknown = 0\n", "unknown field"),
        ] {
            let e = with(wrong).expect_err(wrong);
            assert!(e.contains(why), "{e}");
        }
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("mode");
        let open = format!("[[routing.neighbor]]\naddress = \"192.0.2.1\"\nkey_file = {file:?}\n");
        assert!(with(&open).expect_err("open").contains("chmod 600"));
    }
}
