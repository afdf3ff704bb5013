//! Ports that the gateway's own sockets hold: NAT must not give them to sessions on an address that it shares with the
//! gateway, or answers to the gateway would go inside. Read once a second, since the kernel announces no new sockets; from
//! /proc/net if it has no `sock_diag`.

use sag_packet::proto::{TCP, UDP};
use sag_pipeline::nat::POOL_WORDS;
use sag_rtnl::{OwnSocket, SocketReader};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// States of TCP sockets that hold no port, as /proc/net spells them: those that wait out a closed connection, closed ones,
/// and requests, whose port is the listener's.
const IDLE: [&str; 3] = ["06", "07", "0C"];

/// One bit a port, TCP then UDP.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PortBits(Box<[u64]>);

impl Default for PortBits {
    fn default() -> PortBits {
        PortBits(vec![0; POOL_WORDS].into())
    }
}

impl PortBits {
    fn set(&mut self, s: &OwnSocket) {
        let (base, port) = (if s.protocol == UDP { POOL_WORDS / 2 } else { 0 }, s.local.port());
        self.0[base + usize::from(port) / 64] |= 1 << (port % 64);
    }
}

/// The ports that sockets hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnPorts {
    /// On all addresses.
    any: PortBits,
    /// On one IPv4 address.
    of: BTreeMap<Ipv4Addr, PortBits>,
    /// UDP ports on which whoever sends is heard.
    open_udp: PortBits,
    /// Connected sockets with addresses of IPv4.
    pub connected: BTreeSet<OwnSocket>,
}

impl OwnPorts {
    /// Those of this process's network namespace. What cannot be read adds nothing.
    pub fn now(reader: Option<&mut SocketReader>) -> OwnPorts {
        let mut out = OwnPorts::default();
        let read = reader.map(|r| [TCP, UDP].map(|protocol| r.read(protocol, |s| out.add(&s))));
        if !matches!(read, Some([Ok(()), Ok(())])) {
            out.read(Path::new("/proc/self/net"));
        }
        out
    }

    fn add(&mut self, s: &OwnSocket) {
        match s.local.ip() {
            a if a.is_loopback() => return,
            a if a.is_unspecified() => self.any.set(s),
            IpAddr::V4(a) => self.of.entry(a).or_default().set(s),
            // Of an address that NAT does not share.
            IpAddr::V6(_) => return,
        }
        match s.remote {
            None if s.protocol == UDP => self.open_udp.set(s),
            Some(_) if s.local.is_ipv4() => {
                self.connected.insert(*s);
            }
            _ => {}
        }
    }

    fn read(&mut self, dir: &Path) {
        for (name, protocol) in [("tcp", TCP), ("tcp6", TCP), ("udp", UDP), ("udp6", UDP)] {
            let Ok(text) = std::fs::read_to_string(dir.join(name)) else { continue };
            for socket in text.lines().skip(1).filter_map(|l| parse(l, protocol)) {
                self.add(&socket);
            }
        }
    }

    /// The ports that are taken on an address, as a pool reserves them.
    pub fn on(&self, addr: Ipv4Addr) -> Vec<u64> {
        let of = self.of.get(&addr);
        let word = |(i, any): (usize, &u64)| any | of.and_then(|o| o.0.get(i)).copied().unwrap_or(0);
        self.any.0.iter().enumerate().map(word).collect()
    }

    /// UDP ports on which whoever sends is heard that are also among `other`.
    pub fn open_udp_of(&self, other: &[u64]) -> Vec<u16> {
        let half = POOL_WORDS / 2;
        let both = self.open_udp.0.iter().zip(other).skip(half).enumerate();
        both.flat_map(|(i, (a, b))| {
            (0..64).filter(move |bit| (a & b) >> bit & 1 == 1).map(move |bit| (i * 64 + bit) as u16)
        })
        .collect()
    }
}

/// A line `  0: 0100007F:0016 00000000:0000 0A ...`, if its socket holds a port.
fn parse(line: &str, protocol: u8) -> Option<OwnSocket> {
    let mut f = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (f.next()?, f.next()?, f.next()?);
    if protocol == TCP && IDLE.contains(&state) {
        return None;
    }
    let end = |text: &str| {
        let (addr, port) = text.rsplit_once(':')?;
        Some((address(addr)?, u16::from_str_radix(port, 16).ok()?))
    };
    Some(OwnSocket::new(protocol, end(local)?, end(remote)?)).filter(|s| s.local.port() != 0)
}

/// Words of 32 bits in the machine's order, as hexadecimal digits.
fn address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let digits = text.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(words: &[u64]) -> Vec<usize> {
        (0..words.len() * 64).filter(|i| words[i / 64] >> (i % 64) & 1 == 1).collect()
    }

    #[test]
    fn lines_of_the_kernel() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        let dir = std::env::temp_dir().join(format!("sag-own-ports-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let tail = "00000000:00000000 00:00000000 00000000 0 0 1";
        let ten = |last: u8| format!("{:08X}", u32::from_ne_bytes([10, 0, 0, last]));
        let (own, far) = (ten(1), ten(9));
        let tcp = [
            format!("   0: 00000000:0016 00000000:0000 0A {tail}"),
            // One's own, and one that is of no concern outside.
            format!("   1: {own}:1F90 {far}:0050 01 {tail}"),
            format!("   2: 0100007F:1F91 0100007F:C350 01 {tail}"),
            format!("   3: {own}:1F92 {far}:0050 06 {tail}"),
        ];
        std::fs::write(dir.join("tcp"), format!("{head}\n{}\n", tcp.join("\n"))).unwrap();
        let (mapped, none) = (format!("0000000000000000FFFF0000{own}"), "0".repeat(32));
        let udp =
            format!(" 100: {none}:0035 {none}:0000 07 {tail}\n 101: {mapped}:0036 {none}:0000 07 {tail}");
        std::fs::write(dir.join("udp6"), format!("{head}\n{udp}\nnonsense\n")).unwrap();
        let mut l = OwnPorts::default();
        l.read(&dir);
        std::fs::remove_dir_all(&dir).unwrap();
        let half = 65536;
        assert_eq!(bits(&l.on("10.0.0.2".parse().unwrap())), [0x16, half + 0x35]);
        assert_eq!(bits(&l.on("10.0.0.1".parse().unwrap())), [0x16, 0x1F90, half + 0x35, half + 0x36]);
        let connected: Vec<_> = l.connected.iter().map(|s| (s.protocol, s.local.to_string())).collect();
        assert_eq!(connected.first(), Some(&(TCP, "10.0.0.1:8080".into())));
        let mut forwards = vec![0u64; POOL_WORDS];
        forwards[POOL_WORDS / 2] = 1 << 0x35 | 1 << 0x37;
        assert_eq!(l.open_udp_of(&forwards), [0x35]);
    }

    #[test]
    fn both_ways_see_the_same() {
        let open = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = |a: std::io::Result<std::net::SocketAddr>| usize::from(a.unwrap().port());
        let mut reader = SocketReader::open().unwrap();
        for ports in [OwnPorts::now(Some(&mut reader)), OwnPorts::now(None)] {
            let seen = bits(&ports.on("192.0.2.1".parse().unwrap()));
            assert!(seen.contains(&port(listener.local_addr())));
            assert!(seen.contains(&(65536 + port(open.local_addr()))));
        }
    }
}
