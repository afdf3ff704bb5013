//! Requests byte by byte, and their answers.

use super::*;
use crate::bytes::{address_at, u16_at, u32_at};
use crate::nat::Held;
use proptest::prelude::*;
use std::collections::HashMap;

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
const NONCE: [u8; 12] = *b"twelve bytes";
const OTHER: [u8; 12] = *b"other bytes!";

/// A NAT of one address whose ports 1024 to 1087 can be had.
#[derive(Debug, Default)]
struct Fake {
    address: Option<Ipv4Addr>,
    held: HashMap<u16, (Inside, u32)>,
    admitted: HashMap<u16, Admission>,
    no_lists: bool,
}

impl Fake {
    fn up() -> Fake {
        Fake { address: Some(OUTSIDE), ..Fake::default() }
    }
}

impl Nat for Fake {
    fn external(&self, _: Host) -> Option<Ipv4Addr> {
        self.address
    }

    fn permits(&self, host: Host) -> bool {
        host.address.octets()[..3] == HOST.octets()[..3]
    }

    fn may_keep(&self, host: Host) -> bool {
        self.permits(host)
    }

    fn hold(&mut self, want: &Want) -> Result<Held, Refusal> {
        let address = self.address.ok_or(Refusal::NoAddress)?;
        let known = self.held.iter().find(|(_, (i, _))| *i == want.inside).map(|(p, _)| *p);
        let free = |p: &u16| (1024..1088).contains(p) && !self.held.contains_key(p);
        let port = match (known, want.port.filter(free)) {
            (Some(p), _) | (None, Some(p)) => p,
            _ if want.only => return Err(Refusal::NotThatPort),
            _ => (1024..1088).find(free).ok_or(Refusal::Exhausted)?,
        };
        if want.only && want.port.is_some_and(|p| p != port) {
            return Err(Refusal::NotThatPort);
        }
        self.held.entry(port).or_insert((want.inside, 0)).1 += 1;
        Ok(Held { external: SocketAddrV4::new(address, port), hold: Some(port.into()) })
    }

    fn is_current(&self, _: &Inside, held: &Held) -> bool {
        self.address == Some(*held.external.ip())
    }

    fn admit(&mut self, hold: u32, who: &Admission) -> Result<(), Refusal> {
        if who.peers.len() > 4 {
            return Err(Refusal::TooManyPeers);
        }
        if self.no_lists && !who.peers.is_empty() {
            return Err(Refusal::Exhausted);
        }
        self.admitted.insert(hold as u16, who.clone());
        Ok(())
    }

    fn release(&mut self, hold: u32) {
        let port = hold as u16;
        let (_, n) = self.held.get_mut(&port).expect("it was held");
        *n -= 1;
        self.admitted.remove(&port);
        if *n == 0 {
            self.held.remove(&port);
        }
    }
}

struct Rig {
    server: Server,
    nat: Fake,
    limits: Limits,
    now: u64,
}

impl Rig {
    fn new() -> Rig {
        let mut r = Rig {
            server: Server::new(Duration::ZERO),
            nat: Fake::up(),
            limits: Limits { of_host: 4, total: 6, ..Limits::default() },
            now: 10,
        };
        r.revise();
        r
    }

    fn now(&self) -> Duration {
        Duration::from_secs(self.now)
    }

    fn ask_from(&mut self, address: Ipv4Addr, message: &[u8]) -> Option<Vec<u8>> {
        self.ask_in(0, address, message)
    }

    fn ask_in(&mut self, realm: u8, address: Ipv4Addr, message: &[u8]) -> Option<Vec<u8>> {
        let now = self.now();
        let from = Host { realm, address };
        let answer = self.server.answer(&mut self.nat, &self.limits, from, message, now);
        self.check();
        answer
    }

    /// The NAT holds what the mappings say, and admits whom they admit.
    fn check(&self) {
        let mut held: HashMap<u16, u32> = HashMap::new();
        for h in self.server.holds() {
            *held.entry(h as u16).or_default() += 1;
        }
        assert_eq!(held, self.nat.held.iter().map(|(p, (_, n))| (*p, *n)).collect());
        for (port, (inside, _)) in &self.nat.held {
            let wanted = self.server.table.admission(*inside).expect("a mapping holds it");
            let got = &self.nat.admitted[port];
            assert!(
                *got == wanted || (self.nat.no_lists && *got == Admission::default()),
                "{got:?} {wanted:?}"
            );
        }
    }

    /// Result code, lifetime and the whole answer to a PCP request.
    fn pcp(&mut self, message: &[u8]) -> (u8, u32, Vec<u8>) {
        let answer = self.ask_from(HOST, message).expect("an answer");
        assert_eq!((answer[0], answer[1] & 0x80, answer.len() % 4), (2, 0x80, 0));
        assert_eq!(u32_at(&answer, 8), Some(self.now as u32 - self.server.epoch.as_secs() as u32));
        (answer[3], u32_at(&answer, 4).unwrap(), answer)
    }

    /// The external port that MAP gives.
    #[track_caller]
    fn mapped(&mut self, m: &Req) -> u16 {
        let (code, _, answer) = self.pcp(&m.bytes());
        assert_eq!(code, 0, "{m:?}");
        assert_eq!(address_at(&answer, 44), Some(OUTSIDE.into()));
        assert_eq!(answer[24..42], m.bytes()[24..42], "nonce, protocol and port inside are repeated");
        u16_at(&answer, 42).unwrap()
    }

    #[track_caller]
    fn refused(&mut self, m: &[u8], code: ResultCode) {
        let (got, lifetime, answer) = self.pcp(m);
        assert_eq!(got, code as u8);
        assert_eq!(lifetime, code.lifetime());
        // All of it that fits is repeated, but for the header.
        let n = m.len().min(1100);
        if n >= 24 {
            assert_eq!(answer[24..n], m[24..n]);
        }
    }

    fn revise(&mut self) {
        let now = self.now();
        self.server.revise(&mut self.nat, now);
        self.check();
    }
}

/// A request of PCP.
#[derive(Debug, Clone)]
struct Req {
    opcode: u8,
    lifetime: u32,
    client: Ipv4Addr,
    nonce: [u8; 12],
    protocol: u8,
    port: u16,
    wanted: (Ipv4Addr, u16),
    peer: (Ipv4Addr, u16),
    options: Vec<u8>,
}

fn map(port: u16, wanted: u16) -> Req {
    Req {
        opcode: 1,
        lifetime: 3600,
        client: HOST,
        nonce: NONCE,
        protocol: 17,
        port,
        wanted: (Ipv4Addr::UNSPECIFIED, wanted),
        peer: (Ipv4Addr::UNSPECIFIED, 0),
        options: Vec::new(),
    }
}

fn peer(port: u16, remote: Ipv4Addr, remote_port: u16) -> Req {
    Req { opcode: 2, peer: (remote, remote_port), ..map(port, 0) }
}

fn v6(a: Ipv4Addr) -> [u8; 16] {
    a.to_ipv6_mapped().octets()
}

impl Req {
    fn option(mut self, code: u8, data: &[u8]) -> Req {
        self.options.extend([code, 0]);
        self.options.extend((data.len() as u16).to_be_bytes());
        self.options.extend(data);
        self.options.resize(self.options.len().next_multiple_of(4), 0);
        self
    }

    fn filter(self, prefix: Ipv4Addr, len: u8, port: u16) -> Req {
        let mut data = vec![0, len];
        data.extend(port.to_be_bytes());
        data.extend(v6(prefix));
        self.option(3, &data)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![2, self.opcode, 0, 0];
        out.extend(self.lifetime.to_be_bytes());
        out.extend(v6(self.client));
        if self.opcode != 0 {
            out.extend(self.nonce);
            out.extend([self.protocol, 0, 0, 0]);
            out.extend(self.port.to_be_bytes());
            out.extend(self.wanted.1.to_be_bytes());
            out.extend(v6(self.wanted.0));
        }
        if self.opcode == 2 {
            out.extend(self.peer.1.to_be_bytes());
            out.extend([0, 0]);
            out.extend(v6(self.peer.0));
        }
        out.extend(&self.options);
        out
    }
}

#[test]
fn a_port_is_mapped_renewed_and_given_back() {
    let mut r = Rig::new();
    assert_eq!(r.mapped(&map(4000, 1030)), 1030);
    assert!(r.nat.admitted[&1030].anyone);
    // Taken: another host gets another one, unless no other will do.
    let other = Req { client: Ipv4Addr::new(192, 168, 1, 11), ..map(4000, 1030) };
    let answer = r.ask_from(other.client, &other.bytes()).unwrap();
    assert_eq!((answer[3], u16_at(&answer, 42)), (0, Some(1024)));
    let only = map(4001, 1030).option(2, &[]);
    r.refused(&only.bytes(), ResultCode::CannotProvideExternal);
    let elsewhere = Req { wanted: (Ipv4Addr::new(203, 0, 113, 9), 1031), ..map(4001, 0) };
    r.refused(&elsewhere.clone().option(2, &[]).bytes(), ResultCode::CannotProvideExternal);
    assert_eq!(r.mapped(&elsewhere), 1031, "without the option another address will do");
    // Lifetimes are bounded; the same request again is a renewal with the same port.
    for (asked, given) in [(1, 120), (3600, 3600), (u32::MAX, 86_400)] {
        let (code, lifetime, answer) = r.pcp(&Req { lifetime: asked, ..map(4000, 1050) }.bytes());
        assert_eq!((code, lifetime, u16_at(&answer, 42)), (0, given, Some(1030)));
    }
    assert_eq!(r.server.mappings().count(), 3);
    // What is not renewed ends; what is given back is free.
    r.now += 4000;
    let now = r.now();
    r.server.expire(&mut r.nat, now);
    r.check();
    assert_eq!(r.server.mappings().map(|m| m.inside.port).collect::<Vec<_>>(), [4000]);
    let (code, lifetime, _) = r.pcp(&Req { lifetime: 0, ..map(4000, 1030) }.bytes());
    assert_eq!((code, lifetime, r.server.mappings().count()), (0, 0, 0));
    // To give back what one does not have is no error.
    assert_eq!(r.pcp(&Req { lifetime: 0, ..map(4000, 1030) }.bytes()).0, 0);
}

#[test]
fn a_mapping_is_its_nonces() {
    let mut r = Rig::new();
    r.mapped(&map(4000, 1030));
    r.now += 600;
    for lifetime in [0, 3600] {
        let (code, left, _) = r.pcp(&Req { nonce: OTHER, lifetime, ..map(4000, 1030) }.bytes());
        assert_eq!((code, left), (ResultCode::NotAuthorized as u8, 3000), "for as long as the mapping lasts");
    }
    // Nor is it of who speaks NAT-PMP, which has none.
    let pmp = [0, 1, 0, 0, 0x0F, 0xA0, 4, 6, 0, 0, 0, 0];
    assert_eq!(r.ask_from(HOST, &pmp).unwrap()[2..4], [0, 2]);
    // All at once: those with the nonce.
    r.mapped(&Req { nonce: OTHER, ..map(4001, 0) });
    r.mapped(&Req { protocol: 6, ..map(4002, 0) });
    let all = Req { lifetime: 0, protocol: 17, nonce: OTHER, ..map(0, 0) };
    assert_eq!(r.pcp(&all.bytes()).0, 0);
    assert_eq!(r.server.mappings().map(|m| m.inside.port).collect::<Vec<_>>(), [4002, 4000]);
    assert_eq!(r.pcp(&all.bytes()).0, ResultCode::NotAuthorized as u8, "none of them has it");
    assert_eq!(r.pcp(&Req { protocol: 0, nonce: NONCE, ..all }.bytes()).0, 0);
    assert_eq!(r.server.mappings().count(), 0);
}

#[test]
fn filters_and_peers_say_who_is_admitted() {
    let mut r = Rig::new();
    let near = Ipv4Addr::new(198, 51, 100, 0);
    assert_eq!(r.mapped(&map(4000, 1030).filter(near, 120, 53)), 1030);
    let filter = Filter { address: near, prefix_len: 24, port: Some(53) };
    let only = Admission { anyone: false, peers: vec![filter], exclusive: true };
    assert_eq!(r.nat.admitted[&1030], only);
    // More are added, the same one once; too many are refused and change nothing.
    r.mapped(&map(4000, 1030).filter(near, 120, 53).filter(HOST, 128, 0));
    assert_eq!(r.nat.admitted[&1030].peers.len(), 2);
    let many = (1..4).fold(map(4000, 1030), |m, port| m.filter(near, 128, port));
    r.refused(&many.bytes(), ResultCode::ExcessiveRemotePeers);
    assert_eq!(r.nat.admitted[&1030].peers.len(), 2);
    // A prefix of length 0 removes those that there are.
    r.mapped(&map(4000, 1030).filter(near, 0, 0));
    assert!(r.nat.admitted[&1030].anyone);
    // PEER shares the port and admits one more.
    let remote = Ipv4Addr::new(198, 51, 100, 7);
    let (code, _, answer) = r.pcp(&peer(4000, remote, 99).bytes());
    assert_eq!((code, u16_at(&answer, 42), u16_at(&answer, 60)), (0, Some(1030), Some(99)));
    assert_eq!(address_at(&answer, 64), Some(remote.into()));
    r.pcp(&Req { lifetime: 0, ..map(4000, 0) }.bytes());
    let peers = vec![Filter { address: remote, prefix_len: 32, port: Some(99) }];
    assert_eq!(r.nat.admitted[&1030], Admission { anyone: false, peers, exclusive: false });
    // TCP connections end when they are idle for long: no longer promise.
    let (_, lifetime, _) = r.pcp(&Req { protocol: 6, lifetime: 80_000, ..peer(4000, remote, 99) }.bytes());
    assert_eq!(lifetime, r.limits.tcp_idle);
    // Without room to write them down there is no mapping, and what is left admits nobody in particular.
    r.nat.no_lists = true;
    r.refused(&map(4005, 0).filter(near, 120, 0).bytes(), ResultCode::NoResources);
    r.mapped(&map(4000, 0));
    r.pcp(&Req { lifetime: 0, ..map(4000, 0) }.bytes());
    assert_eq!(r.nat.admitted[&1030], Admission::default());
}

#[test]
fn malformed_requests_get_their_codes() {
    use ResultCode::*;
    let mut r = Rig::new();
    let good = map(4000, 1030);
    // What cannot be told from an answer, or has no header of any version, gets none.
    for silent in [&[][..], &[2], &[0], &[2, 0x81, 0, 0], &[0, 0x80]] {
        assert_eq!(r.ask_from(HOST, silent), None);
    }
    for version in [1, 3, 255] {
        let (code, _, answer) = r.pcp(&[&[version], &good.bytes()[1..]].concat());
        assert_eq!((code, answer.len()), (UnsuppVersion as u8, 60));
    }
    for n in 2..60 {
        r.refused(&good.bytes()[..n], MalformedRequest);
    }
    r.refused(&[good.bytes(), vec![0; 1101 - 60]].concat(), MalformedRequest);
    r.refused(&[good.bytes(), vec![0; 2048]].concat()[..1104], MalformedRequest);
    let long = r.ask_from(HOST, &[good.bytes(), vec![7; 3000]].concat()).unwrap();
    assert_eq!((long.len(), long[3]), (1100, MalformedRequest as u8));
    r.refused(&Req { client: Ipv4Addr::new(192, 168, 1, 11), ..good.clone() }.bytes(), AddressMismatch);
    for opcode in [3, 0x7F] {
        r.refused(&Req { opcode, ..good.clone() }.bytes(), UnsuppOpcode);
    }
    for protocol in [1, 132, 255] {
        r.refused(&Req { protocol, ..good.clone() }.bytes(), UnsuppProtocol);
    }
    r.refused(&Req { protocol: 0, ..good.clone() }.bytes(), MalformedRequest);
    r.refused(&Req { protocol: 0, port: 0, ..good.clone() }.bytes(), UnsuppProtocol);
    r.refused(&Req { port: 0, ..good.clone() }.bytes(), UnsuppProtocol);
    let remote = Ipv4Addr::new(198, 51, 100, 7);
    r.refused(&peer(4000, remote, 0).bytes(), MalformedRequest);
    r.refused(&peer(0, remote, 9).bytes(), MalformedRequest);
    let mut v6_peer = peer(4000, remote, 9).bytes();
    v6_peer[64] = 0x20;
    r.refused(&v6_peer, MalformedRequest);
    // Options: unknown ones that must be processed, unknown ones that need not be, wrong lengths, twice, where they
    // have no place, beyond the end.
    r.refused(&good.clone().option(4, &[]).bytes(), UnsuppOption);
    r.refused(&good.clone().option(1, &v6(HOST)).bytes(), UnsuppOption);
    r.refused(&good.clone().option(1, &[0; 4]).bytes(), MalformedOption);
    r.refused(&good.clone().option(2, &[0; 4]).bytes(), MalformedOption);
    r.refused(&good.clone().option(2, &[]).option(2, &[]).bytes(), MalformedOption);
    r.refused(&Req { lifetime: 0, ..good.clone() }.option(2, &[]).bytes(), MalformedOption);
    r.refused(&good.clone().filter(remote, 95, 0).bytes(), MalformedOption);
    r.refused(&good.clone().filter(remote, 129, 0).bytes(), MalformedOption);
    r.refused(&good.clone().option(3, &[0; 16]).bytes(), MalformedOption);
    r.refused(&peer(4000, remote, 9).option(2, &[]).bytes(), MalformedRequest);
    r.refused(&[good.bytes(), vec![2, 0, 0, 8]].concat(), MalformedOption);
    assert_eq!(r.server.mappings().count(), 0, "none of these has made one");
    let with = good.clone().option(200, &[1, 2, 3]).option(2, &[]);
    let (code, _, answer) = r.pcp(&with.bytes());
    assert_eq!(
        (code, &answer[60..]),
        (0, &[2, 0, 0, 0][..]),
        "the answer has the options that were processed"
    );
    // Announcements are answered.
    assert_eq!(r.pcp(&Req { opcode: 0, ..good }.bytes()).0, 0);
}

/// Hosts of two realms are two hosts, whatever their addresses and nonces.
#[test]
fn realms_are_apart() {
    let mut r = Rig::new();
    r.limits.third_party = true;
    let port = |answer: Option<Vec<u8>>| u16_at(&answer.unwrap(), 42).unwrap();
    let ask = map(4000, 1030).bytes();
    assert_eq!([0, 1, 0, 1].map(|realm| port(r.ask_in(realm, HOST, &ask))), [1030, 1024, 1030, 1024]);
    let other = Ipv4Addr::new(192, 168, 1, 99);
    r.ask_in(1, HOST, &map(4001, 1031).option(1, &v6(other)).bytes()).unwrap();
    let all: Vec<_> = r.server.mappings().map(|m| (m.inside.host.realm, m.inside.host.address)).collect();
    assert_eq!(all, [(0, HOST), (1, HOST), (1, other)], "for another of the same realm");
    // Who ends all of its own leaves those of the other realm.
    let end = Req { lifetime: 0, ..map(0, 0) };
    r.ask_in(1, HOST, &end.bytes()).unwrap();
    assert_eq!(r.server.mappings().map(|m| m.inside.host.realm).collect::<Vec<_>>(), [0, 1]);
    // Each has as many as a host may have.
    for n in 0..3 {
        r.ask_in(0, HOST, &map(5000 + n, 0).bytes()).unwrap();
    }
    assert_eq!(r.ask_in(0, HOST, &map(6000, 0).bytes()).unwrap()[3], ResultCode::UserExQuota as u8);
}

#[test]
fn others_may_be_asked_for_if_that_is_allowed() {
    let mut r = Rig::new();
    let other = Ipv4Addr::new(192, 168, 1, 99);
    r.limits.third_party = true;
    assert_eq!(r.mapped(&map(4000, 1030).option(1, &v6(other))), 1030);
    assert_eq!(r.server.mappings().next().unwrap().inside.host.address, other);
    r.refused(&map(4000, 0).option(1, &v6(HOST)).bytes(), ResultCode::MalformedRequest);
    r.refused(&map(4000, 0).option(1, &v6(OUTSIDE)).bytes(), ResultCode::NotAuthorized);
    // One that is not where the request came from is refused, too.
    let stranger = Ipv4Addr::new(10, 0, 0, 1);
    let answer = r.ask_from(stranger, &Req { client: stranger, ..map(1, 0) }.bytes()).unwrap();
    assert_eq!(answer[3], ResultCode::NotAuthorized as u8);
}

#[test]
fn there_are_so_many_for_a_host_and_in_all() {
    let mut r = Rig::new();
    for port in 1..=4 {
        r.mapped(&map(port, 0));
    }
    r.refused(&map(5, 0).bytes(), ResultCode::UserExQuota);
    r.mapped(&map(4, 0));
    for (last, code) in [(11, 0), (12, 0), (13, ResultCode::NoResources as u8)] {
        let host = Ipv4Addr::new(192, 168, 1, last);
        let answer = r.ask_from(host, &Req { client: host, ..map(4000, 0) }.bytes()).unwrap();
        assert_eq!(answer[3], code, "{host}");
    }
    // NAT-PMP has one word for both.
    assert_eq!(r.ask_from(HOST, &[0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 9, 9]).unwrap()[2..4], [0, 4]);
}

#[test]
fn nat_pmp_maps_and_names_the_address() {
    let mut r = Rig::new();
    r.now = 0x0102;
    assert_eq!(r.ask_from(HOST, &[0, 0]), Some(vec![0, 128, 0, 0, 0, 0, 1, 2, 203, 0, 113, 2]));
    let ask = |port: u16, wanted: u16, lifetime: u32| {
        [&[0, 2, 0, 0][..], &port.to_be_bytes(), &wanted.to_be_bytes(), &lifetime.to_be_bytes()].concat()
    };
    let head = [0, 130, 0, 0, 0, 0, 1, 2];
    let answer = |port: u16, given: u16, lifetime: u32| {
        Some([&head[..], &port.to_be_bytes(), &given.to_be_bytes(), &lifetime.to_be_bytes()].concat())
    };
    assert_eq!(r.ask_from(HOST, &ask(80, 1040, 7200)), answer(80, 1040, 7200));
    assert_eq!(r.ask_from(HOST, &ask(81, 1040, 7200)), answer(81, 1024, 7200));
    assert_eq!(r.ask_from(HOST, &ask(80, 0, 0)), answer(80, 0, 0));
    assert_eq!(r.ask_from(HOST, &ask(0, 0, 0)), answer(0, 0, 0), "all TCP ports");
    assert_eq!(r.server.mappings().count(), 0);
    // What it has made may be taken over by PCP, which gives it a nonce.
    r.ask_from(HOST, &ask(80, 1040, 7200));
    assert_eq!(r.mapped(&Req { protocol: 6, ..map(80, 0) }), 1040);
    assert_eq!(r.ask_from(HOST, &ask(80, 1040, 7200)).unwrap()[2..4], [0, 2]);
    // Too short, unknown, without an address, and where it is not spoken.
    assert_eq!(r.ask_from(HOST, &ask(80, 0, 0)[..11]), None);
    assert_eq!(r.ask_from(HOST, &[0, 9]).unwrap()[..4], [0, 137, 0, 5]);
    r.nat.address = None;
    assert_eq!(r.ask_from(HOST, &[0, 0]), Some(vec![0, 128, 0, 3, 0, 0, 1, 2, 0, 0, 0, 0]));
    assert_eq!(r.ask_from(HOST, &ask(90, 0, 9)).unwrap()[2..4], [0, 3]);
    r.limits.nat_pmp = false;
    assert_eq!(r.ask_from(HOST, &[0, 0]).unwrap()[..4], [0, 128, 0, 1]);
}

#[test]
fn another_address_ends_mappings_and_is_announced() {
    let mut r = Rig::new();
    let due = |r: &mut Rig| {
        let now = r.now();
        r.server.announcements(&r.limits, now)
    };
    assert_eq!(due(&mut r).len(), 2, "at the start");
    r.now += 1000;
    let mut said = 0;
    while !due(&mut r).is_empty() {
        (said, r.now) = (said + 1, r.now + 1000);
    }
    assert_eq!(said, 9, "ten times in all");
    r.mapped(&map(4000, 1030));
    r.nat.address = None;
    r.revise();
    assert_eq!(r.server.mappings().count(), 0);
    assert_eq!(due(&mut r).len(), 0, "there is nothing to ask for");
    r.refused(&map(4000, 1030).bytes(), ResultCode::NetworkFailure);
    // When there is one again, hosts hear that their mappings are gone, once.
    r.nat.address = Some(OUTSIDE);
    r.revise();
    assert_eq!(due(&mut r)[0][..12], [2, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "the epoch begins anew");
    r.revise();
    assert_eq!(due(&mut r).len(), 0);
    r.nat.address = Some(Ipv4Addr::new(203, 0, 113, 3));
    r.revise();
    let now = due(&mut r);
    assert_eq!(now[0], [&[2, 128, 0, 0][..], &[0; 20]].concat(), "an epoch of 0");
    assert_eq!(now[1], [0, 128, 0, 0, 0, 0, 0, 0, 203, 0, 113, 3]);
    r.mapped_elsewhere();
    let now = r.now();
    r.server.clear(&mut r.nat);
    r.server.expire(&mut r.nat, now);
    r.check();
    assert_eq!(r.server.mappings().count(), 0);
}

impl Rig {
    fn mapped_elsewhere(&mut self) {
        let (code, _, answer) = self.pcp(&map(4000, 1030).bytes());
        assert_eq!((code, address_at(&answer, 44)), (0, Some(Ipv4Addr::new(203, 0, 113, 3).into())));
    }
}

proptest! {
    /// Whatever comes: no panic, and the NAT holds what the mappings say.
    #[test]
    fn nothing_that_comes_confuses_it(
        requests in prop::collection::vec(
            (any::<u8>(), 0..6u16, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), 0..80usize),
            1..40,
        )
    ) {
        let mut r = Rig::new();
        for (kind, port, changes, cut) in requests {
            let near = Ipv4Addr::new(198, 51, 100, 7);
            let mut m = match kind % 5 {
                0 => map(port, 1030).bytes(),
                1 => peer(port, near, 9).bytes(),
                2 => map(port, 0).filter(near, 128, 0).option(2, &[]).bytes(),
                3 => Req { lifetime: 0, ..map(port, 0) }.bytes(),
                _ => vec![0, 1 + kind / 128, 0, 0, 0, port as u8, 4, 6, 0, 0, 0, kind],
            };
            for (at, to) in changes {
                let at = at.index(m.len());
                m[at] = to;
            }
            if cut < 20 {
                m.truncate(m.len().saturating_sub(cut));
            }
            r.now += 1;
            if let Some(answer) = r.ask_from(HOST, &m) {
                prop_assert!(answer.len() <= 1100 && answer[1] & 0x80 != 0);
            }
        }
    }

    #[test]
    fn noise_is_survived(noise in prop::collection::vec(any::<u8>(), 0..1300), version in 0..4u8, opcode in 0..4u8) {
        let mut r = Rig::new();
        r.ask_from(HOST, &noise);
        let mut m = noise;
        if m.len() > 24 {
            (m[0], m[1]) = (version, opcode);
            m[8..24].copy_from_slice(&v6(HOST));
        }
        r.ask_from(HOST, &m);
    }
}
