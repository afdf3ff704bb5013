//! Rounds of ICMP echo requests, and the MTU of a path.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use crate::icmp::Echo;

/// A host, and the link of a link-local address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub address: IpAddr,
    pub scope: u32,
}

impl From<IpAddr> for Target {
    fn from(address: IpAddr) -> Target {
        Target { address, scope: 0 }
    }
}

/// How a round of requests goes.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub count: u16,
    pub timeout: Duration,
}

/// One round's outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Round {
    pub sent: u16,
    pub answered: u16,
    /// Mean of the answered ones, in milliseconds.
    pub rtt_ms: Option<f64>,
}

impl Round {
    pub fn loss_percent(&self) -> f64 {
        100.0 * f64::from(self.sent - self.answered) / f64::from(self.sent.max(1))
    }
}

/// Sends the requests of a round one after the other, each when the one before is answered or lost.
///
/// # Errors
/// There is no ICMP socket.
pub fn round(to: Target, plan: &Plan) -> io::Result<Round> {
    let echo = Echo::open(to.address, None)?.on_link(to.scope);
    let (mut answered, mut sum) = (0, 0.0);
    for seq in 0..plan.count {
        if let Some(rtt) = echo.round_trip(seq, plan.timeout)? {
            answered += 1;
            sum += rtt.as_secs_f64() * 1000.0;
        }
    }
    let rtt_ms = (answered > 0).then(|| sum / f64::from(answered));
    Ok(Round { sent: plan.count, answered, rtt_ms })
}

/// The path MTU to the host as the kernel knows it: that of the route, or what ICMP has taught it.
///
/// # Errors
/// There is no route.
pub fn path_mtu(to: IpAddr) -> io::Result<u32> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    // Nothing is sent.
    socket.connect((to, 9))?;
    let mtu = match to {
        IpAddr::V4(_) => rustix::net::sockopt::ip_mtu(&socket),
        IpAddr::V6(_) => rustix::net::sockopt::ipv6_mtu(&socket),
    };
    Ok(mtu?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_to_this_machine() {
        let plan = Plan { count: 2, timeout: Duration::from_millis(500) };
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().expect("an address");
            match round(address.into(), &plan) {
                Ok(round) if address.is_ipv4() => {
                    assert_eq!((round.sent, round.answered, round.loss_percent()), (2, 2, 0.0));
                }
                Ok(round) => assert!(round.answered == 2 || round.rtt_ms.is_none(), "a machine without IPv6"),
                Err(e) => println!("SKIP a_round_to_this_machine: {e}"),
            }
        }
    }

    #[test]
    fn the_path_to_this_machine_has_an_mtu() {
        let mtu = path_mtu(Ipv4Addr::LOCALHOST.into()).expect("an MTU");
        assert!(mtu >= 1280, "{mtu}");
    }
}
