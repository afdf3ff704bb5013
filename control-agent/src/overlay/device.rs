//! Devices of the kernel for the tunnels, by which the machine itself uses them.

use std::net::IpAddr;

use ipnet::Ipv4Net;

use super::Tunnel;

/// The most bytes of a device's name (`IFNAMSIZ`, less the end).
const MAX_DEVICE: usize = 15;

/// The name of the tunnel's device: that of the tunnel, if the kernel takes it; else a hash of it, without the hyphen, so
/// that no serial number makes the name of another's device.
pub(super) fn device_name(tunnel: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if tunnel.len() <= MAX_DEVICE && tunnel.bytes().all(plain) {
        return tunnel.to_owned();
    }
    format!("ccn{}", &crate::sign::hash_hex(tunnel.as_bytes())[..MAX_DEVICE - 3])
}

/// The device by which packets to an address go into the network, whether there is a route or not: that of the first tunnel
/// that is up, else of the first. Not where a leased line leads, too: there the kernel's route is the way. `running` says of
/// a device whether it has a carrier; `None`: there is none.
pub fn device_to(dst: IpAddr, tunnels: &[Tunnel], running: impl Fn(&str) -> Option<bool>) -> Option<String> {
    let IpAddr::V4(dst) = dst else { return None };
    first(tunnels.iter().filter(|t| t.unshared.iter().any(|b| b.contains(&dst))), running)
}

/// The same, wherever else the kernel's routes may lead.
pub fn tunnel_to(dst: IpAddr, tunnels: &[Tunnel], running: impl Fn(&str) -> Option<bool>) -> Option<String> {
    let IpAddr::V4(dst) = dst else { return None };
    let is_in = |block: &str| block.parse::<Ipv4Net>().is_ok_and(|b| b.contains(&dst));
    first(tunnels.iter().filter(|t| t.blocks.iter().any(|(block, _)| is_in(block))), running)
}

fn first<'a>(
    tunnels: impl Iterator<Item = &'a Tunnel>,
    running: impl Fn(&str) -> Option<bool>,
) -> Option<String> {
    let there = tunnels.filter_map(|t| Some((!running(&t.device)?, t.metric, &t.device)));
    there.min().map(|(.., device)| device.clone())
}
