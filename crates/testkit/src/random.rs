//! Random gateways, packets and events from a seed. Addresses and ports come from small sets, so
//! that flows meet again, answers find their sessions and rules match.

use crate::*;
use sag_model::MacAddr;
use sag_model::config::ReversePath;
use sag_packet::proto::*;
use sag_pipeline::nat::{Behavior, Kind};
use sag_pipeline::policy::Class;
use sag_pipeline::snapshot::{Member, Route};
use std::time::Duration;

/// A seeded generator (splitmix64).
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
    /// The last gateway has NAT: many packets are about that.
    nat: bool,
}

/// Addresses of WAN ports and of NAT entries; the first is also in [`ODD4`].
const EXTERNAL4: [&str; 4] = ["203.0.113.2", "203.0.113.2", "203.0.113.77", "203.0.113.50"];
const BEHAVIORS: [(Behavior, Behavior); 6] = [
    (Behavior::EndpointIndependent, Behavior::AddressDependent),
    (Behavior::EndpointIndependent, Behavior::EndpointIndependent),
    (Behavior::EndpointIndependent, Behavior::AddressAndPortDependent),
    (Behavior::AddressDependent, Behavior::AddressDependent),
    (Behavior::AddressAndPortDependent, Behavior::AddressDependent),
    (Behavior::AddressAndPortDependent, Behavior::AddressAndPortDependent),
];
const MODES: [ReversePath; 4] =
    [ReversePath::Strict, ReversePath::Feasible, ReversePath::Loose, ReversePath::Off];
const HOSTS4: [&str; 9] = [
    "192.168.1.10",
    "192.168.1.11",
    "192.168.2.10",
    "192.168.1.77",
    "198.51.100.7",
    "198.51.100.8",
    "100.64.3.4",
    "10.20.3.4",
    "203.0.113.1",
];
const ODD4: [&str; 9] = [
    "192.168.1.1",
    "203.0.113.2",
    "192.168.1.255",
    "255.255.255.255",
    "224.0.0.5",
    "127.0.0.1",
    "0.0.0.0",
    "169.254.1.1",
    "241.0.0.1",
];
const HOSTS6: [&str; 7] = [
    "2001:db8:1::10",
    "2001:db8:1::11",
    "2001:db8:4::10",
    "2001:db8:1::77",
    "2001:db8:99::7",
    "2001:db8:64::8",
    "2001:db8:20::4",
];
const ODD6: [&str; 6] = ["2001:db8:1::1", "ff02::1", "::1", "::", "fe80::10", "fe80::1"];
const PORTS: [u16; 5] = [0, 53, 80, 1000, 65535];
const MTUS: [u16; 8] = [20, 68, 576, 1280, 1400, 1500, 1500, 9000];
const SIZES: [usize; 10] = [0, 1, 7, 8, 16, 40, 100, 1000, 1472, 2500];
const RULES: [&str; 8] = [
    "* * * * *",
    "17 * * * *",
    "17 * * * 53-80",
    "6 192.168.1.0/24 * * *",
    "6 * * 1000-65535 80-80",
    "1 * * * *",
    "* 2001:db8:1::/64 * * *",
    "* * 198.51.100.0/24 * *",
];

impl Rng {
    /// From a seed.
    pub fn new(seed: u64) -> Rng {
        Rng { state: seed, nat: false }
    }

    /// From here on many packets are about NAT.
    pub fn about_nat(&mut self) {
        self.nat = true;
    }

    /// 64 random bits.
    pub fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A gateway that differs from [`Net::branch`] here and there.
    pub fn net(&mut self) -> Net {
        let mut n = Net::branch();
        n.options.acl_stateful = !self.once_in(4);
        n.options.promiscuous = self.once_in(8);
        n.options.icmp_rate = self.pick(&[0, 10, 1000, 1_000_000]);
        for i in 0..self.below(4) {
            let to = self.pick(&["198.51.100.0/24", "100.64.0.0/10", "2001:db8:64::/48", "198.51.100.8/32"]);
            let v6 = to.contains(':');
            let member = |d: &mut Rng| Member {
                port: d.pick(&[WAN, LINE, LAN2, PortIdx(60)]),
                via: match v6 {
                    true => d.pick(&[None, Some("2001:db8:2::1"), Some("2001:db8:3::1"), Some("fe80::9")]),
                    false => d.pick(&[None, Some("203.0.113.1"), Some("192.0.2.1"), Some("203.0.113.9")]),
                }
                .map(|a| a.parse().expect("address")),
                weight: d.pick(&[0, 1, 2, 65535]),
                mtu: d.pick(&[0, 0, 1300, 600]),
                tunnel: None,
                source: None,
            };
            let route = match self.below(8) {
                0 => Route::Blackhole,
                1 => Route::Unreachable,
                2 => Route::Prohibit,
                3 => Route::NotOurs,
                4 if i > 0 => Route::Local,
                _ => Route::Via((0..self.below(4)).map(|_| member(self)).collect()),
            };
            n.route(to, route);
        }
        if self.once_in(8) {
            n.ports.iter_mut().for_each(|p| p.reverse_path = self.pick(&MODES));
        }
        for _ in 0..self.below(4) {
            self.event(&mut n);
        }
        self.nat = self.once_in(2);
        if self.nat {
            n.nat.limits.port_block = self.once_in(4).then_some(64);
            let last = self.pick(&[u16::MAX, u16::MAX, 1151]);
            n.nat.limits.range = 1024..=last;
            let (mapping, filtering) = BEHAVIORS[self.below(2)];
            n.wan_snat(WAN, mapping, filtering);
            for _ in 0..self.below(4) {
                self.nat(&mut n);
            }
        }
        n
    }

    /// Another thing of NAT changes. To be followed by a commit: translations are evaluated again by epochs.
    pub fn nat(&mut self, n: &mut Net) {
        let (mut mapping, filtering) = self.pick(&BEHAVIORS);
        if n.nat.limits.port_block.is_some() {
            mapping = Behavior::EndpointIndependent;
        }
        match self.below(10) {
            0..3 => {
                n.nat.wan.clear();
                n.wan_snat(WAN, mapping, filtering);
            }
            3 => n.nat.wan.clear(),
            4 => {
                n.nat.pools.clear();
                n.snat("192.168.0.0/16", "192.0.2.77", mapping, filtering);
            }
            5 if self.once_in(2) => n.nat.drops_unsolicited ^= true,
            5 => n.nat.hairpin ^= true,
            6 => n.nat.limits.host_sessions = self.pick(&[None, Some(2), Some(20)]),
            7 => {
                let addr = self.pick(&[Some("203.0.113.2"), Some("203.0.113.77"), None]);
                let own = addr.map(|a| (a.parse().expect("address"), 24));
                n.ports[WAN.index()].addrs4 = own.into_iter().collect();
            }
            _ => {
                n.nat.dnat.clear();
                (0..5).for_each(|entry| self.forward(n, entry));
            }
        }
    }

    /// Perhaps one of a few static entries, which do not contradict each other.
    fn forward(&mut self, n: &mut Net, entry: usize) {
        if self.once_in(2) {
            return;
        }
        let to = self.pick(&["192.168.1.10", "192.168.1.11", "192.168.2.10"]);
        match entry {
            0 => n.dnat(Kind::Internet, "", to, Some((TCP, 80, 80, 1000))),
            1 => n.dnat(Kind::Internet, "", to, Some((UDP, 53, 80, 53))),
            2 => n.dnat(Kind::Internet, "203.0.113.50", to, None),
            3 => n.dnat(Kind::Intranet, "192.0.2.50", to, None),
            _ => n.dnat(Kind::Internet, "203.0.113.50", to, Some((TCP, 1000, 1001, 80))),
        };
    }

    /// Something happens to the gateway.
    pub fn event(&mut self, n: &mut Net) {
        let port = self.pick(&[LAN, WAN, LINE, LAN2]);
        match self.below(7) {
            6 => n.ports[port.index()].reverse_path = self.pick(&MODES),
            0 => n.ports[port.index()].up ^= true,
            1 => n.set_mtu(port, self.pick(&MTUS)),
            2 => {
                for ip in ["203.0.113.1", "2001:db8:2::1"] {
                    n.unresolve(WAN, ip);
                }
            }
            3 => {
                n.neighbor(WAN, "203.0.113.1");
                n.neighbor(WAN, "2001:db8:2::1");
                n.neighbor(LAN, "192.168.1.77");
            }
            _ => {
                let mut acl = std::mem::take(&mut n.acl).cleared();
                acl.default_accept = !self.once_in(3);
                for _ in 0..self.below(5) {
                    let accept = self.once_in(2);
                    acl = acl.rule(self.pick(&Class::ALL), accept, self.pick(&RULES));
                }
                n.acl = acl;
            }
        }
    }

    /// Time between two batches: mostly none, sometimes long.
    pub fn pause(&mut self) -> Duration {
        match self.below(8) {
            0 => Duration::from_secs(self.below(400) as u64),
            1 | 2 => Duration::from_millis(self.below(4000) as u64),
            _ => Duration::from_micros(self.below(100) as u64),
        }
    }

    /// A well-formed packet: forwarded, refused or for the kernel, but not malformed.
    pub fn pkt(&mut self) -> Pkt {
        let mut p = self.whole(true);
        if self.once_in(6) {
            p = p.padded(self.below(40));
        }
        if p.l4.len() > 16 && self.once_in(6) {
            let at = self.below(p.l4.len() / 8) * 8;
            let len = (1 + self.below(8)) * 24;
            p = p.fragment(at, len);
        }
        // Mostly from where its source lives, so that answers come from where they are expected.
        let home = match p.src.to_string() {
            s if s.starts_with("192.168.2.") || s.starts_with("2001:db8:4:") => LAN2,
            s if s.starts_with("192.168.") || s.starts_with("2001:db8:1:") => LAN,
            s if s.starts_with("10.") || s.starts_with("2001:db8:20:") => LINE,
            _ => WAN,
        };
        let port = if self.once_in(20) { self.pick(&[LAN, LAN2, WAN, LINE]) } else { home };
        p = p.into_port(port);
        match self.below(40) {
            0 => p.dmac = MacAddr([0xFF; 6]),
            1 => p.dmac = MacAddr([2, 1, 1, 1, 1, 1]),
            2 => p.tag = Some(self.roll() as u16),
            _ => {}
        }
        p
    }

    /// Between the LAN and the Internet, or inside by an external address.
    fn talk(&mut self) -> Pkt {
        let inside = self.pick(&["192.168.1.10", "192.168.1.11", "192.168.2.10"]);
        let far = self.pick(&["198.51.100.7", "198.51.100.8"]);
        let (src, dst) = match self.below(5) {
            0 | 1 => (inside, far),
            2 | 3 => (far, self.pick(&EXTERNAL4)),
            _ => (inside, self.pick(&EXTERNAL4)),
        };
        let (a, b) = (self.pick(&[0, 53, 80, 1000]), self.pick(&[0, 53, 80, 1000]));
        let flags = self.pick(&[TCP_SYN, TCP_SYN, TCP_SYN | TCP_ACK, TCP_ACK, TCP_FIN | TCP_ACK, TCP_RST]);
        if self.once_in(8) {
            // One connection again and again, so that its resets find it.
            let p = Pkt::tcp("192.168.1.10", "198.51.100.7", 1000, 80, flags);
            return if self.once_in(4) { self.renumbered(p) } else { p };
        }
        let p = match self.below(8) {
            0..4 => Pkt::udp(src, dst, a, b),
            4..7 => Pkt::tcp(src, dst, a, b, flags),
            _ => Pkt::echo(src, dst, a, src == far),
        };
        let p = p.payload(self.pick(&SIZES));
        if self.once_in(8) { self.renumbered(p) } else { p }
    }

    /// A segment far from its connection's numbers.
    fn renumbered(&mut self, mut p: Pkt) -> Pkt {
        if p.proto == TCP && p.l4.len() >= 20 {
            p.l4[4..8].copy_from_slice(&(self.roll() as u32).to_be_bytes());
            p.fix_l4();
        }
        p
    }

    fn whole(&mut self, may_quote: bool) -> Pkt {
        if self.nat && self.once_in(2) {
            return self.talk();
        }
        let v6 = self.once_in(3);
        let addr = |d: &mut Rng| match (v6, d.once_in(12)) {
            (false, false) => d.pick(&HOSTS4),
            (false, true) => d.pick(&ODD4),
            (true, false) => d.pick(&HOSTS6),
            (true, true) => d.pick(&ODD6),
        };
        let (src, mut dst) = (addr(self), addr(self));
        if !v6 && self.once_in(5) {
            dst = self.pick(&EXTERNAL4);
        }
        let (a, b) = (self.pick(&PORTS), self.pick(&PORTS));
        let mut p = match self.below(10) {
            0..=3 => Pkt::udp(src, dst, a, b).payload(self.pick(&SIZES)),
            4..=6 => Pkt::tcp(src, dst, a, b, self.roll() as u8).payload(self.pick(&SIZES)),
            7 => Pkt::echo(src, dst, a, self.once_in(2)),
            8 if may_quote => {
                let mut about = self.whole(false);
                if about.src.is_ipv4() && self.once_in(3) {
                    // As it is after translation.
                    about.src = self.pick(&EXTERNAL4).parse().expect("address");
                    about.fix_l4();
                }
                let mut quote = about.ip();
                quote.truncate(self.pick(&[28, 60, 100, 1000]));
                let kind = self.pick(&[1, 2, 3, 4, 5, 11, 12, 13, 133, 200]);
                let (from, to) = (about.dst.to_string(), about.src.to_string());
                return Pkt::icmp(&from, &to, kind, self.below(16) as u8, self.roll() as u32, &quote);
            }
            _ => {
                let proto = self.pick(&[47, 50, 89, 132, UDP_LITE, ICMP, ICMPV6, 255]);
                Pkt::new(src, dst, proto, vec![8; self.pick(&SIZES)])
            }
        };
        if self.once_in(12) {
            p = self.renumbered(p);
        }
        p.ttl = self.pick(&[0, 1, 2, 64, 64, 64, 64, 64, 64, 255]);
        p.tos = self.roll() as u8;
        p.id = self.below(4) as u16;
        if self.once_in(3) {
            p.frag = 0x4000;
        }
        if self.once_in(8) {
            match v6 {
                false => {
                    p.options = self
                        .pick(&[&[1u8, 1, 1, 1][..], &[148, 4, 0, 0], &[7, 3, 4, 0], &[131, 3, 4, 0]])
                        .into()
                }
                true => {
                    let kind = self.pick(&[HOP_BY_HOP, DEST_OPTIONS, ROUTING]);
                    p.ext.push((kind, vec![0, 1, 4, 0, 0, 0, 0]));
                }
            }
        }
        p
    }

    /// A frame and the device it arrives on: a packet, often spoilt, sometimes noise.
    pub fn frame(&mut self) -> (u8, Vec<u8>) {
        let p = self.pkt();
        let dev = match p.dmac {
            m if m == GATEWAY_MACS[WAN.index()] => DEV_WAN,
            m if m == GATEWAY_MACS[LINE.index()] => DEV_LINE,
            _ if self.once_in(30) => self.pick(&[DEV_WAN, 7]),
            _ => DEV_LAN,
        };
        let mut f = p.build();
        match self.below(12) {
            0 | 1 => self.spoil(&mut f),
            2 => {
                // Noise behind a link header that leads to a parser.
                f.truncate(14);
                let n = self.below(200);
                f.extend((0..n).map(|_| self.roll() as u8));
                if let Some(b) = f.get_mut(14) {
                    *b = self.pick(&[0x45, 0x46, 0x60, 0x4F]);
                }
            }
            _ => {}
        }
        (dev, f)
    }

    /// Changes some bytes, the length, or both.
    pub fn spoil(&mut self, f: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            if f.is_empty() {
                return;
            }
            let near = self.below(f.len().min(80));
            match self.below(6) {
                0 => f.truncate(near),
                1 => f.extend((0..self.below(64)).map(|i| i as u8)),
                2 => f[near] ^= 1 << self.below(8),
                3 => f[near] = self.pick(&[0, 1, 0x7F, 0x80, 0xFF]),
                4 => {
                    f.remove(near);
                }
                _ => f.insert(near, self.roll() as u8),
            }
        }
        // Half of them pass the header checksum, to get further.
        if self.once_in(2) && f.len() >= 34 && f[12..14] == [8, 0] {
            let end = (14 + usize::from(f[14] & 15) * 4).clamp(26, f.len());
            f[24..26].fill(0);
            let c = checksum(&[&f[14..end]]);
            f[24..26].copy_from_slice(&c.to_be_bytes());
        }
    }
}
