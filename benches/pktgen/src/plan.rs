//! What is sent: flows, addresses, sizes. The words of `struct pg_plan`.

use crate::outer::Outer;
use crate::units::{FCS, Sizes};
use anyhow::{Result, bail};
use clap::Args;
use sag_model::MacAddr;
use serde::Deserialize;
use std::net::IpAddr;

pub const MAX_FLOWS: u64 = 1 << 22;
/// Longest frame without FCS.
pub const MAX_FRAME: usize = 1514;
/// Headers and payload of the shortest frame, without FCS.
const LEAST4: u32 = 60;
const LEAST6: u32 = 80;

#[derive(Debug, Clone, Args)]
pub struct Traffic {
    /// Flows at most, 1 to 4194304; UDP. Flow n is from endpoint n % ENDPOINTS to remote n / ENDPOINTS
    #[arg(long, default_value_t = 10_000)]
    pub flows: u64,
    /// Inside endpoints, 1 to 60000: endpoint e has address SRC + e % SOURCES and port SPORT + e
    #[arg(long, default_value_t = 50_000)]
    pub endpoints: u64,
    /// Source addresses, a power of two up to 65536
    #[arg(long, default_value_t = 256)]
    pub sources: u64,
    /// First source address; an IPv6 address makes IPv6 traffic
    #[arg(long, default_value = "10.0.1.0")]
    pub src: IpAddr,
    /// First destination address: remote r has address DST + r
    #[arg(long, default_value = "198.51.100.1")]
    pub dst: IpAddr,
    /// First source port
    #[arg(long, default_value_t = 1024)]
    pub sport: u16,
    /// Destination port
    #[arg(long, default_value_t = 53)]
    pub dport: u16,
    /// Frame sizes in bytes with FCS, 64 to 1518, that take turns: 64 | 64,512 | imix (7:4:1 of 64, 570,
    /// 1518). IPv6 frames have 84 at least
    #[arg(long, default_value = "64")]
    pub size: Sizes,
    /// Ethernet address that frames go to: the gateway's
    #[arg(long, default_value = "02:00:00:00:00:01")]
    pub dst_mac: MacAddr,
    /// Ethernet address that frames come from
    #[arg(long, default_value = "02:00:01:02:03:04")]
    pub src_mac: MacAddr,
    #[command(flatten)]
    pub outer: Outer,
}

/// The order in which flows send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Flow after flow.
    Ascending,
    /// All of them, in an order that no cache likes.
    #[default]
    Shuffled,
}

impl Traffic {
    pub fn check(&self) -> Result<()> {
        if !(1..=MAX_FLOWS).contains(&self.flows) {
            bail!("--flows {}: 1 to {MAX_FLOWS}", self.flows);
        }
        if !(1..=60_000).contains(&self.endpoints) || self.endpoints + u64::from(self.sport) > 65_536 {
            bail!("--endpoints {} from --sport {}: 1 to 60000, within the ports", self.endpoints, self.sport);
        }
        if !self.sources.is_power_of_two() || self.sources > 65_536 {
            bail!("--sources {}: a power of two up to 65536", self.sources);
        }
        if self.src.is_ipv6() != self.dst.is_ipv6() {
            bail!("--src {} and --dst {} are of two IP versions", self.src, self.dst);
        }
        if self.outer.encap.is_some() && self.ip6() {
            bail!("--encap is for IPv4 traffic");
        }
        if let Some(long) = self.lengths().into_iter().find(|&n| n as usize > MAX_FRAME) {
            bail!("frames of {long} bytes: {MAX_FRAME} at most, tunnel headers of --encap included");
        }
        Ok(())
    }

    pub fn ip6(&self) -> bool {
        self.src.is_ipv6()
    }

    /// Lengths in memory: without FCS, and with room for headers and payload.
    pub fn lengths(&self) -> Vec<u32> {
        let least = if self.ip6() { LEAST6 } else { LEAST4 };
        let outer = self.outer.header().len() as u32;
        self.size.0.iter().map(|s| (s - FCS).max(least) + outer).collect()
    }

    /// From a flow to the next one: coprime with the flows, so that all get their turn.
    fn stride(flows: u64, order: Order) -> u64 {
        match order {
            Order::Ascending => 1,
            Order::Shuffled => {
                let gcd = |mut a: u64, mut b: u64| {
                    while b != 0 {
                        (a, b) = (b, a % b);
                    }
                    a
                };
                [7919, 7907, 7901].into_iter().find(|s| gcd(*s, flows) == 1).unwrap_or(1) % flows.max(1)
            }
        }
    }

    /// The words of `struct pg_plan`.
    pub fn words(&self, t: &Pace) -> [u64; 21] {
        let (src, src6) = halves(self.src);
        let (dst, dst6) = halves(self.dst);
        let stride = Self::stride(t.flows, t.order);
        let n = self.endpoints;
        [
            mac(self.dst_mac),
            mac(self.src_mac),
            src,
            dst,
            src6[0],
            src6[1],
            dst6[0],
            dst6[1],
            self.sport.into(),
            self.dport.into(),
            n,
            self.sources - 1,
            stride % n,
            stride / n,
            t.flows % n,
            t.flows / n,
            t.frames,
            t.interval,
            t.window,
            t.outside.map_or(0, |a| u32::from_ne_bytes(a.octets()).into()),
            t.cpus,
        ]
    }
}

/// What changes from one trial to the next.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub flows: u64,
    pub order: Order,
    pub frames: u64,
    /// Between frames, 2^-10 ns.
    pub interval: u64,
    pub window: u64,
    pub outside: Option<std::net::Ipv4Addr>,
    pub cpus: u64,
}

fn mac(MacAddr([a, b, c, d, e, f]): MacAddr) -> u64 {
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

/// The last 32 bits as a number, and the first 96 of an IPv6 address as they are on the wire.
fn halves(a: IpAddr) -> (u64, [u64; 2]) {
    match a {
        IpAddr::V4(a) => (u32::from(a).into(), [0; 2]),
        IpAddr::V6(a) => {
            let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, c @ ..] = a.octets();
            let first = u64::from_ne_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
            (u32::from_be_bytes(c).into(), [first, u32::from_ne_bytes([b0, b1, b2, b3]).into()])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_flow_gets_its_turn() {
        for flows in [1, 2, 7919, 10_000, 7919 * 7907, 1 << 20, 1_000_000] {
            let stride = Traffic::stride(flows, Order::Shuffled);
            assert!(stride < flows.max(2), "{flows}");
            if flows < 100_000 {
                let seen: HashSet<u64> = (0..flows).map(|i| i * stride % flows).collect();
                assert_eq!(seen.len() as u64, flows);
            }
        }
    }

    #[test]
    fn addresses() {
        let (low, high) = halves("2001:db8:1:2:3:4:a0b0:c0d0".parse().unwrap());
        assert_eq!(low, 0xa0b0_c0d0);
        assert_eq!(high[0].to_ne_bytes(), [0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2]);
        assert_eq!(halves("10.0.1.0".parse().unwrap()), (0x0a00_0100, [0; 2]));
    }
}
