//! Which connection of its five-tuple a TCP segment belongs to: hosts that lose their state, use a port again, or begin
//! from the other side.

use sag_model::DropReason;
use sag_model::flow::{FlowRecord4, FlowRecord6};
use sag_packet::proto::*;
use sag_pipeline::nat::Behavior;
use sag_pipeline::policy::Class;
use sag_pipeline::session::{self, State};
use sag_testkit::*;
use std::time::Duration;

const SYN: u8 = TCP_SYN;
const SYNACK: u8 = TCP_SYN | TCP_ACK;
const ACK: u8 = TCP_ACK;
const FIN: u8 = TCP_FIN | TCP_ACK;
const RST: u8 = TCP_RST;
const REFUSAL: u8 = TCP_RST | TCP_ACK;

/// First numbers of the client and the server, of a connection and of the next one.
const C: u32 = 0x1111_2222;
const S: u32 = 0x5555_6666;
const C2: u32 = 0xAAAA_0001;
const S2: u32 = 0xEEEE_0001;

/// From the client, flags, sequence number, what it acknowledges.
type Segment = (bool, u8, u32, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setup {
    V4,
    Nat,
    V6,
}

const NETS: [Setup; 3] = [Setup::V4, Setup::Nat, Setup::V6];

/// A client of the LAN and a server on the Internet.
struct Hosts {
    rig: Rig,
    net: Setup,
}

impl Hosts {
    fn new(net: Setup, acl: Acl) -> Hosts {
        let mut n = Net::branch();
        if net == Setup::Nat {
            n.wan_snat(WAN, Behavior::EndpointIndependent, Behavior::AddressDependent);
        }
        n.acl = acl;
        Hosts { rig: Rig::new(n), net }
    }

    /// Nobody outside may begin a connection.
    fn closed(net: Setup) -> Hosts {
        Hosts::new(net, Acl::new(true).rule(Class::InWan, false, IN))
    }

    fn segment(&self, up: bool, flags: u8, seq: u32, ack: u32) -> Pkt {
        let (client, server) = match self.net {
            Setup::V6 => ("2001:db8:1::10", "2001:db8:99::7"),
            _ => ("192.168.1.10", "198.51.100.7"),
        };
        let outside = if self.net == Setup::Nat { "203.0.113.2" } else { client };
        let mut p = match up {
            true => Pkt::tcp(client, server, 40_000, 80, flags),
            false => Pkt::tcp(server, outside, 80, 40_000, flags).into_port(WAN),
        };
        p.l4[4..8].copy_from_slice(&seq.to_be_bytes());
        p.l4[8..12].copy_from_slice(&(if flags & ACK != 0 { ack } else { 0 }).to_be_bytes());
        p.fix_l4();
        p
    }

    /// From the client.
    fn up(&mut self, flags: u8, seq: u32, ack: u32) -> Outcome {
        let p = self.segment(true, flags, seq, ack);
        self.rig.send(&p)
    }

    /// From the server.
    fn down(&mut self, flags: u8, seq: u32, ack: u32) -> Outcome {
        let p = self.segment(false, flags, seq, ack);
        self.rig.send(&p)
    }

    #[track_caller]
    fn pass(&mut self, segments: &[Segment]) {
        for &(up, flags, seq, ack) in segments {
            let got = if up { self.up(flags, seq, ack) } else { self.down(flags, seq, ack) };
            assert!(got.is_tx(), "{:?}: up {up}, flags {flags:#x}, seq {seq:#x}: {got:?}", self.net);
        }
    }

    /// The only session's state; `None`: there is no session, or there are several.
    fn state(&self) -> Option<State> {
        let t = &self.rig.pipe.tables;
        match self.net {
            Setup::V6 => {
                let mut live = (1..t.v6.used()).filter_map(|n| session::state_of(&t.v6, n));
                live.next().filter(|_| live.next().is_none())
            }
            _ => {
                let mut live = (1..t.v4.used()).filter_map(|n| session::state_of(&t.v4, n));
                live.next().filter(|_| live.next().is_none())
            }
        }
    }

    /// A daemon that takes the table over knows no numbers.
    fn restart(&mut self) {
        let (tick, tables) = (self.rig.now.tick().0, self.rig.pipe.tables.clone());
        for n in 1..tables.v4.used() {
            tables.v4.meta(n).ports.fetch_and(0xFFFF, std::sync::atomic::Ordering::Relaxed);
        }
        for n in 1..tables.v6.used() {
            tables.v6.meta(n).ports.fetch_and(0xFFFF, std::sync::atomic::Ordering::Relaxed);
        }
        session::take_over::<FlowRecord4>(&tables.v4, tick, &Default::default());
        session::take_over::<FlowRecord6>(&tables.v6, tick, &Default::default());
    }

    fn made(&self) -> u64 {
        self.rig.pipe.counters.sessions_created.get()
    }
}

const IN: &str = "6 * * * *";
const HANDSHAKE: [Segment; 3] = [(true, SYN, C, 0), (false, SYNACK, S, C + 1), (true, ACK, C + 1, S + 1)];
const SECOND: [Segment; 3] = [(true, SYN, C2, 0), (false, SYNACK, S2, C2 + 1), (true, ACK, C2 + 1, S2 + 1)];
const DATA: [Segment; 2] = [(true, ACK, C + 1, S + 1), (false, ACK, S + 1, C + 8)];
/// A new SYN, to which the server answers by the old connection's numbers, and the client with an RST of them.
const CHALLENGE: [Segment; 3] = [(true, SYN, C2, 0), (false, ACK, S + 8, C + 8), (true, RST, C + 8, 0)];

/// Ways in which a connection can stand when one of its hosts loses its state.
fn stands() -> Vec<(&'static str, Vec<Segment>)> {
    let open = [&HANDSHAKE[..], &DATA].concat();
    let and = |more: &[Segment]| [&open[..], more].concat();
    vec![
        ("established", open.clone()),
        ("half open", HANDSHAKE[..2].to_vec()),
        ("closed by the client", and(&[(true, FIN, C + 8, S + 8), (false, ACK, S + 8, C + 9)])),
        ("closed by the server", and(&[(false, FIN, S + 8, C + 8), (true, ACK, C + 8, S + 9)])),
        ("last ACK", and(&[(true, FIN, C + 8, S + 8), (false, FIN, S + 8, C + 9)])),
        (
            "time wait",
            and(&[(false, FIN, S + 8, C + 8), (true, FIN, C + 8, S + 9), (false, ACK, S + 9, C + 9)]),
        ),
    ]
}

#[test]
fn a_client_that_lost_its_state_connects_again() {
    for net in NETS {
        for restart in [false, true] {
            for (name, before) in stands() {
                let mut h = Hosts::closed(net);
                h.pass(&before);
                if restart {
                    h.restart();
                }
                // The challenge may be lost a few times before it has an effect.
                h.pass(&[CHALLENGE[0], CHALLENGE[0], CHALLENGE[1], CHALLENGE[0], CHALLENGE[1]]);
                h.pass(&CHALLENGE[2..]);
                h.pass(&SECOND);
                assert_eq!(h.state(), Some(State::TcpOpen), "{net:?}, {name}, restart {restart}");
                assert_eq!(h.made(), 2, "{net:?}, {name}, restart {restart}: a session of its own");
                // The numbers are the new ones.
                assert!(h.down(RST, S2 + 1, 0).is_tx());
                assert_eq!(h.state(), Some(State::TcpReset));
            }
        }
    }
}

#[test]
fn the_challenge_of_a_connection_that_the_gateway_does_not_know() {
    for net in NETS {
        let mut h = Hosts::closed(net);
        for _ in 0..3 {
            h.pass(&CHALLENGE);
            assert_eq!(h.state(), Some(State::TcpSyn), "the attempt goes on");
        }
        // What was acknowledged may be reset, and nothing else.
        let far = Outcome::Drop(DropReason::TcpOutOfWindow);
        assert_eq!(h.up(RST, C + 0x100_0000, 0), far);
        h.pass(&SECOND);
        assert_eq!((h.state(), h.made()), (Some(State::TcpOpen), 1));
    }
}

/// RFC 9293, figure 9.
#[test]
fn an_old_duplicate_syn() {
    for net in NETS {
        let mut h = Hosts::closed(net);
        h.pass(&[(true, SYN, C2, 0), (false, SYNACK, S, C + 1), (true, RST, C + 1, 0)]);
        assert_eq!(h.state(), Some(State::TcpSyn));
        h.pass(&SECOND[1..]);
        assert_eq!((h.state(), h.made()), (Some(State::TcpOpen), 1));
        // The duplicate comes when the connection is there: it changes nothing.
        h.pass(&[
            (true, SYN, C, 0),
            (false, ACK, S2 + 1, C2 + 1),
            (false, SYNACK, S, C + 9),
            (true, RST, C2 + 1, 0),
        ]);
        assert_eq!(h.state(), Some(State::TcpReset));
    }
}

#[test]
fn refused_after_the_port_was_used_before() {
    for net in NETS {
        for (name, before) in stands() {
            let mut h = Hosts::closed(net);
            h.pass(&before);
            for seq in [C2, C2 + 5] {
                h.pass(&[(true, SYN, seq, 0)]);
                let blind = h.down(REFUSAL, 0, C2 + 0x100_0000);
                assert_eq!(blind, Outcome::Drop(DropReason::TcpOutOfWindow), "{net:?}, {name}");
                h.pass(&[(false, REFUSAL, 0, seq + 1)]);
            }
            // And then accepted.
            h.pass(&SECOND);
            assert_eq!(h.state(), Some(State::TcpOpen), "{net:?}, {name}");
        }
    }
}

#[test]
fn a_syn_of_the_other_side_is_judged_anew() {
    let over = |last: &[Segment]| [&HANDSHAKE[..], &DATA, last].concat();
    let mut all = stands();
    all.push(("reset by the client", over(&[(true, RST, C + 8, 0)])));
    all.push(("reset by the server", over(&[(false, RST, S + 8, 0)])));
    all.push(("refused", vec![(true, SYN, C, 0), (false, REFUSAL, 0, C + 1)]));
    all.push(("picked up", vec![(true, ACK, C, S)]));
    for net in NETS {
        for restart in [false, true] {
            for (name, before) in &all {
                let context = format!("{net:?}, {name}, restart {restart}");
                let mut h = Hosts::closed(net);
                h.pass(before);
                if restart {
                    h.restart();
                }
                let was = h.state();
                for flags in [SYN, TCP_SYN | TCP_FIN, TCP_SYN | 0x08] {
                    for seq in [S2, 0] {
                        let got = h.down(flags, seq, 0);
                        assert_eq!(got, Outcome::Drop(DropReason::AclDenied), "{context}");
                    }
                }
                assert_eq!((h.state(), h.made()), (was, 1), "{context}: nothing has changed");
                // What belongs to the connection still passes.
                h.pass(&[(false, ACK, S + 8, C + 8), (true, ACK, C + 8, S + 8)]);

                // Where the rules admit it, it is a session of its own, from outside.
                let mut h = Hosts::new(
                    net,
                    Acl::new(false).rule(Class::InWan, true, IN).rule(Class::OutWan, true, "6 * * * *"),
                );
                h.pass(before);
                let before = h.rig.net.acl.hits(IN).0;
                h.pass(&[(false, SYN, S2, 0), (false, SYN, S2, 0)]);
                match was {
                    Some(State::TcpClosed | State::TcpReset | State::TcpRefused) => {
                        h.pass(&[(true, SYNACK, C2, S2 + 1), (false, ACK, S2 + 1, C2 + 1)]);
                        assert_eq!((h.state(), h.made()), (Some(State::TcpOpen), 2), "{context}");
                    }
                    _ => {
                        // The client says that it knows nothing of it, and the server then resets what it had.
                        h.pass(&[(true, ACK, C + 8, S + 8), (false, RST, S + 8, 0), (false, SYN, S2, 0)]);
                        h.pass(&[(true, SYNACK, C2, S2 + 1), (false, ACK, S2 + 1, C2 + 1)]);
                        assert_eq!((h.state(), h.made()), (Some(State::TcpOpen), 2), "{context}");
                    }
                }
                h.rig.wait(Duration::from_secs(10));
                assert!(h.rig.net.acl.hits(IN).0 > before, "{context}: by a rule of its own");
            }
        }
    }
}

/// Both open at once: the same connection, which the rules have admitted.
#[test]
fn a_syn_from_both_sides() {
    for net in NETS {
        let mut h = Hosts::closed(net);
        h.pass(&[(true, SYN, C, 0), (false, SYN, S, 0), (false, SYN, S, 0), (true, SYN, C, 0)]);
        h.pass(&[(true, SYNACK, C, S + 1), (false, SYNACK, S, C + 1), (true, ACK, C + 1, S + 1)]);
        assert_eq!((h.state(), h.made()), (Some(State::TcpOpen), 1));
        assert_eq!(h.down(SYN, S2, 0), Outcome::Drop(DropReason::AclDenied));
    }
}

#[test]
fn both_have_forgotten_the_connection() {
    for net in NETS {
        for (name, before) in stands() {
            // The client connects again, and the server takes it as a new one.
            let mut h = Hosts::closed(net);
            h.pass(&before);
            h.pass(&SECOND);
            assert_eq!(h.state(), Some(State::TcpOpen), "{net:?}, {name}");
            assert_eq!(h.down(RST, S + 8, 0), Outcome::Drop(DropReason::TcpOutOfWindow), "{net:?}, {name}");
            h.pass(&[(true, FIN, C2 + 1, S2 + 1), (false, FIN, S2 + 1, C2 + 2)]);
            assert_eq!(h.state(), Some(State::TcpClosed));
            // The server connects, and the client takes it as a new one.
            let mut h = Hosts::new(net, Acl::new(true));
            h.pass(&before);
            h.pass(&[(false, SYN, S2, 0)]);
            if h.made() == 1 {
                assert_eq!(h.up(SYNACK, C2, S2 + 1), Outcome::Drop(DropReason::TcpOutOfWindow));
                h.pass(&[(false, SYN, S2, 0)]);
            }
            h.pass(&[(true, SYNACK, C2, S2 + 1), (false, ACK, S2 + 1, C2 + 1)]);
            assert_eq!((h.state(), h.made()), (Some(State::TcpOpen), 2), "{net:?}, {name}");
        }
    }
}

/// What is not the connection's changes neither its numbers nor its state.
#[test]
fn forged_segments() {
    for net in NETS {
        let mut h = Hosts::closed(net);
        h.pass(&HANDSHAKE);
        h.pass(&DATA);
        // A SYN+ACK, a FIN, a SYN and its refusal, all of numbers that nobody has.
        h.pass(&[(false, SYNACK, S2, C2), (false, FIN, S2, C2), (true, FIN, C2, S2)]);
        assert_eq!(h.state(), Some(State::TcpOpen), "{net:?}");
        h.pass(&[(true, SYN, C2, 0), (false, REFUSAL, 0, C2 + 1)]);
        assert_eq!(h.state(), Some(State::TcpOpen), "{net:?}");
        for seq in [S2, S2 + 1, 0, C2] {
            assert_eq!(h.down(RST, seq, 0), Outcome::Drop(DropReason::TcpOutOfWindow), "{net:?}");
        }
        h.pass(&DATA);
        h.pass(&[(false, RST, S + 8, 0)]);
        assert_eq!(h.state(), Some(State::TcpReset), "{net:?}");
    }
}

/// A SYN of somebody else, as if both opened at once: the server's own answer counts.
#[test]
fn a_forged_second_half_of_an_open() {
    for net in NETS {
        let mut h = Hosts::closed(net);
        h.pass(&[(true, SYN, C, 0), (false, SYN, S2, 0), (false, SYNACK, S, C + 1)]);
        assert_eq!(h.down(RST, S2 + 1, 0), Outcome::Drop(DropReason::TcpOutOfWindow), "{net:?}");
        h.pass(&[(true, ACK, C + 1, S + 1), (false, RST, S + 1, 0)]);
        assert_eq!((h.state(), h.made()), (Some(State::TcpReset), 1), "{net:?}");
    }
}

/// A new connection of a port keeps the mapping that the port has.
#[test]
fn the_mapping_stays_when_the_port_is_used_again() {
    let mut h = Hosts::closed(Setup::Nat);
    // Somebody else has the port outside.
    let other = Pkt::tcp("192.168.1.11", "198.51.100.8", 40_000, 80, SYN);
    assert!(h.rig.send(&other).is_tx());
    let source = |o: &Outcome| ends4(o.frame()).0;
    let first = source(&h.up(SYN, C, 0));
    assert_ne!(first.port, 40_000);
    for n in 1..20 {
        let refusal = h.segment(false, REFUSAL, 0, C + n);
        let refusal = refusal.between(end("198.51.100.7", 80), first);
        assert!(h.rig.send(&refusal).is_tx());
        assert_eq!(source(&h.up(SYN, C + n, 0)), first);
        assert_eq!(h.made(), 2 + u64::from(n));
    }
    h.rig.wait(Duration::from_secs(300));
    let nat = &h.rig.pipe.tables.nat;
    assert_eq!(nat.totals.bindings.load(std::sync::atomic::Ordering::Relaxed), 0, "none is left over");
}
