//! Requests for ports, against a NAT that counts what is held.

use sag_pcp::{Admission, Held, Host, Inside, Limits, MAX_MESSAGE, Nat, Refusal, Server, Want};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

/// The host that asks in the corpus.
const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);

/// Endpoints inside by their port, and how often each is held.
#[derive(Default)]
struct Counting {
    held: HashMap<u16, (Inside, u32)>,
}

impl Nat for Counting {
    fn external(&self, _: Host) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::new(203, 0, 113, 2))
    }

    fn permits(&self, host: Host) -> bool {
        host.address.is_private()
    }

    fn may_keep(&self, host: Host) -> bool {
        self.permits(host)
    }

    fn hold(&mut self, want: &Want) -> Result<Held, Refusal> {
        let address = self.external(want.inside.host).ok_or(Refusal::NoAddress)?;
        let known = self.held.iter().find(|(_, (inside, _))| *inside == want.inside).map(|(port, _)| *port);
        let free = |port: &u16| !self.held.contains_key(port);
        let port = known.or(want.port.filter(free)).or((1024..1040).find(free)).ok_or(Refusal::Exhausted)?;
        self.held.entry(port).or_insert((want.inside, 0)).1 += 1;
        Ok(Held { external: SocketAddrV4::new(address, port), hold: Some(port.into()) })
    }

    fn is_current(&self, inside: &Inside, held: &Held) -> bool {
        self.held.get(&held.external.port()).is_some_and(|(known, _)| known == inside)
    }

    fn admit(&mut self, hold: u32, who: &Admission) -> Result<(), Refusal> {
        assert!(self.held.contains_key(&(hold as u16)), "a port that is not held");
        if who.peers.len() > 8 { Err(Refusal::TooManyPeers) } else { Ok(()) }
    }

    fn release(&mut self, hold: u32) {
        let port = hold as u16;
        let count = self.held.get_mut(&port).map(|(_, n)| {
            *n -= 1;
            *n
        });
        assert!(count.is_some(), "a port that is not held");
        if count == Some(0) {
            self.held.remove(&port);
        }
    }
}

/// Messages, each behind a byte for its length in words of 4 bytes. Time passes with an empty one.
pub fn ask(data: &[u8]) {
    let (mut server, mut nat) = (Server::new(Duration::ZERO), Counting::default());
    let limits = Limits { of_host: 8, total: 12, third_party: true, ..Limits::default() };
    let (mut now, mut rest) = (Duration::ZERO, data);
    while let Some((&words, tail)) = rest.split_first() {
        let (message, tail) = tail.split_at((usize::from(words) * 4).min(tail.len()));
        rest = tail;
        now += Duration::from_secs(if words == 0 { 100 } else { 1 });
        let from = Host { realm: words & 1, address: HOST };
        if let Some(answer) = server.answer(&mut nat, &limits, from, message, now) {
            assert!(answer.len() <= MAX_MESSAGE && answer[1] & 0x80 != 0);
        }
        server.expire(&mut nat, now);
        server.revise(&mut nat, now);
        let held: u32 = nat.held.values().map(|(_, n)| n).sum();
        assert_eq!(held as usize, server.holds().count(), "what is held and what is mapped");
        assert!(server.mappings().count() <= limits.total);
    }
    server.clear(&mut nat);
    assert!(nat.held.is_empty(), "ports that are never given back");
}
