//! What a router's port needs of the kernel, setting by setting, and which settings let traffic around the gateway.

use super::sysctl::{Key, Sysctl};
use crate::daemon::devices::is_pair_end;

/// A device whose settings are the gateway's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub ifindex: u32,
    pub name: String,
    /// Routers of the branch itself: what they advertise is none of the gateway's business.
    pub lan: bool,
    pub place: Place,
    /// The bridge or bond that has enslaved the device.
    pub master: Option<String>,
}

/// Where a device is, seen from a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The interface with the port's addresses.
    Port,
    /// A macvlan device above it.
    Above,
    /// The card that a port's device gets its frames from: of a VLAN or macvlan device, or a member of a bridge or bond.
    Below,
}

impl Target {
    /// Whether a setting of the device is the gateway's business.
    pub fn has(&self, key: Key) -> bool {
        key.is_offload() == (self.place == Place::Below)
    }
}

/// What is wanted, in the order in which it is written: whoever learns routes by router advertisements must be told to go
/// on (`accept_ra` 2) before the first device becomes a router's, or the kernel forgets them (`rt6_purge_dflt_routers`).
pub const KEYS: [Key; 14] = [
    GRO,
    HARDWARE_GRO,
    ACCEPT_RA,
    RP_FILTER,
    REDIRECTS4,
    SEND_REDIRECTS,
    SOURCE_ROUTE,
    PROXY_ARP,
    PROMOTE,
    ARP_ANNOUNCE,
    ARP_IGNORE,
    REDIRECTS6,
    FORWARDING4,
    FORWARDING6,
];

pub const GRO: Key = Key::offload("rx-gro");
pub const HARDWARE_GRO: Key = Key::offload("rx-gro-hw");
pub const ACCEPT_RA: Key = Key::v6("accept_ra");
pub const RP_FILTER: Key = Key::v4("rp_filter");
pub const REDIRECTS4: Key = Key::v4("accept_redirects");
pub const SEND_REDIRECTS: Key = Key::v4("send_redirects");
pub const SOURCE_ROUTE: Key = Key::v4("accept_source_route");
pub const PROXY_ARP: Key = Key::v4("proxy_arp");
/// Requests by ARP name an address of the device itself (2).
pub const ARP_ANNOUNCE: Key = Key::v4("arp_announce");
/// ARP is answered for addresses of the device itself alone (1).
pub const ARP_IGNORE: Key = Key::v4("arp_ignore");
/// Other addresses of a network stay when its first one is removed.
pub const PROMOTE: Key = Key::v4("promote_secondaries");
pub const REDIRECTS6: Key = Key::v6("accept_redirects");
pub const FORWARDING4: Key = Key::v4("forwarding");
pub const FORWARDING6: Key = Key::v6("forwarding");

/// What a key of a port is to be, given what was there before the gateway (`None`: it is left as it is).
///
/// - IPv4 `forwarding` off keeps the kernel from forwarding what arrives on the port, whatever `ip_forward` says of others.
/// - IPv6 `forwarding` on makes a device a router's (RFC 4861 6.2): its neighbor advertisements have the router flag. The
///   kernel forwards only if it is on for `all` too.
/// - `rp_filter` loose where it is strict, by itself or by `all` (the greater one counts): answers to the box itself may come
///   by another line than the route says. Loose is not needed where there is none, and drops all that comes to a device
///   without an address, such as a macvlan device of VRRP.
/// - Receive offloads of a card below a port would merge the segments of a TCP connection into packets that are longer than
///   any worker takes. On a card that is a port itself the kernel does not merge while an XDP program is there.
pub fn wanted(
    key: Key,
    t: &Target,
    pass_to_kernel: bool,
    rp_filter_all: i32,
    before: &dyn Fn(Key) -> Option<i32>,
) -> Option<i32> {
    if !t.has(key) {
        return None;
    }
    Some(match key {
        FORWARDING4 if pass_to_kernel => return None,
        FORWARDING6 => 1,
        RP_FILTER if t.place == Place::Above || before(RP_FILTER)?.max(rp_filter_all) != 1 => return None,
        RP_FILTER => 2,
        // dhcpcd does not start without it, and may not write here itself.
        PROMOTE if t.lan || t.place != Place::Port => return None,
        PROMOTE => 1,
        // Hosts would take the port's Ethernet address for that of a virtual router whose address is on a macvlan device, or
        // that of another such device.
        ARP_ANNOUNCE if !t.lan || t.place != Place::Port => return None,
        ARP_ANNOUNCE => 2,
        ARP_IGNORE if t.place != Place::Above => return None,
        ARP_IGNORE => 1,
        ACCEPT_RA if t.lan => 0,
        ACCEPT_RA => {
            // A router accepts none unless this is 2.
            let accepted = match before(ACCEPT_RA)? {
                1 => before(FORWARDING6) == Some(0),
                value => value == 2,
            };
            if accepted { 2 } else { 0 }
        }
        _ => 0,
    })
}

/// Settings with which the kernel forwards around the gateway, each as a line for the operator.
pub fn bypasses(s: &Sysctl, targets: &[Target]) -> Vec<String> {
    let mut found = Vec::new();
    let ports: Vec<_> = targets.iter().filter(|t| t.place != Place::Below).collect();
    let ours = |name: &str| ports.iter().any(|t| t.name == name);
    let forwards = |d: &String| s.read(FORWARDING4, d).is_some_and(|v| v != 0);
    // What the end of a pair receives is tc's: nothing of it gets as far as the kernel's forwarding.
    let forwarding: Vec<_> = s.devices().into_iter().filter(|d| forwards(d) && !is_pair_end(d)).collect();
    for (of_ports, what) in [(true, "leaves to it or cannot take"), (false, "never sees, by the ports too")] {
        let names: Vec<&str> =
            forwarding.iter().filter(|d| ours(d) == of_ports).map(String::as_str).collect();
        if !names.is_empty() {
            let names = names.join(", ");
            found.push(format!(
                "net.ipv4.conf.DEVICE.forwarding is 1 for {names}: the kernel forwards what XDP {what}, past ACL and NAT"
            ));
        }
    }
    if s.read(FORWARDING6, "all").is_some_and(|v| v != 0) {
        found.push(
            "net.ipv6.conf.all.forwarding is 1: the kernel forwards IPv6 that XDP never sees, from devices that are no \
             ports, past the ACL; the gateway needs 0"
                .to_owned(),
        );
    }
    for t in ports {
        for key in [Key::v4("mc_forwarding"), Key::v6("mc_forwarding")] {
            if s.read(key, &t.name).is_some_and(|v| v != 0) {
                let name = key.name(&t.name);
                found.push(format!(
                    "{name} is 1: the kernel routes multicast past the ACL (a routing daemon does that)"
                ));
            }
        }
        for key in [Key::v6("seg6_enabled"), Key::v6("rpl_seg_enabled"), Key::v6("force_forwarding")] {
            if s.read(key, &t.name).is_some_and(|v| v != 0) {
                let name = key.name(&t.name);
                found.push(format!(
                    "{name} is 1: the kernel forwards IPv6 that XDP leaves to it, past the ACL"
                ));
            }
        }
        if s.mpls_input(&t.name) {
            found.push(format!("net.mpls.conf.{}.input is 1: the kernel forwards MPLS past the ACL", t.name));
        }
        if let Some(master) = &t.master {
            found.push(format!(
                "{} is a member of {master}: what is not for the port itself goes there, past the gateway",
                t.name
            ));
        }
    }
    if s.read(PROXY_ARP, "all").is_some_and(|v| v != 0) {
        found.push(
            "net.ipv4.conf.all.proxy_arp is 1: the kernel answers ARP for others on ports, too".to_owned(),
        );
    }
    found
}
