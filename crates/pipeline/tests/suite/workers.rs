//! Several workers over one table.

use sag_model::DropReason;
use sag_pipeline::nat::NatState;
use sag_pipeline::table::{FlowTable, Grace};
use sag_pipeline::worker::Tables;
use sag_testkit::*;
use std::sync::Arc;
use std::time::Duration;

const HOST: &str = "192.168.1.10";
const FAR: &str = "198.51.100.7";

fn tables(sessions: u32, grace: Arc<Grace>) -> Arc<Tables> {
    Arc::new(Tables {
        v4: FlowTable::private(sessions, grace.clone()),
        v6: FlowTable::private(sessions, grace),
        nat: Arc::new(NatState::private(sessions)),
        first_fragments: Default::default(),
    })
}

#[test]
fn each_direction_on_a_worker_of_its_own() {
    use sag_pipeline::policy::Class;
    let t = tables(100, Grace::immediate());
    let net = || {
        let mut n = Net::branch();
        n.acl = Acl::new(true).rule(Class::InWan, false, "* * * * *");
        n
    };
    let mut a = Rig::over(net(), t.clone(), 0, 2);
    let mut b = Rig::over(net(), t.clone(), 1, 2);
    let (ask, answer) = (Pkt::udp(HOST, FAR, 1, 2), Pkt::udp(FAR, HOST, 2, 1).into_port(WAN));
    for _ in 0..4 {
        assert!(a.send(&ask).is_tx());
        assert!(b.send(&answer).is_tx());
    }
    assert_eq!(t.v4.live(), 1);
    assert_eq!(a.pipe.counters.sessions_created.get() + b.pipe.counters.sessions_created.get(), 1);
    // One of them ends it, whoever's share it is in.
    a.wait(Duration::from_secs(400));
    b.wait(Duration::from_secs(400));
    assert_eq!(t.v4.live(), 0);
    assert_eq!(a.pipe.counters.sessions_ended.get() + b.pipe.counters.sessions_ended.get(), 1);
}

#[test]
fn the_shares_of_the_sweep_cover_all_and_overlap_nowhere() {
    let t = tables(2000, Grace::immediate());
    let mut rigs: Vec<_> = (0..3).map(|w| Rig::over(Net::branch(), t.clone(), w, 3)).collect();
    for i in 0..2000 {
        assert!(rigs[usize::from(i % 3)].send(&Pkt::udp(HOST, FAR, i, 53)).is_tx());
    }
    for rig in &mut rigs {
        rig.wait(Duration::from_secs(301));
        rig.wait(Duration::from_millis(100));
    }
    assert_eq!(t.v4.live(), 0);
    let ended: Vec<_> = rigs.iter().map(|r| r.pipe.counters.sessions_ended.get()).collect();
    assert_eq!(ended.iter().sum::<u64>(), 2000);
    assert!(ended.iter().all(|n| n.abs_diff(667) < 70), "{ended:?}");
}

#[test]
fn racing_for_the_same_flows() {
    // No reuse while others may still look: the grace period never ends here.
    let t = tables(50_000, Arc::new(Grace::default()));
    let flows = 3000u16;
    std::thread::scope(|s| {
        for worker in 0..4 {
            let t = t.clone();
            s.spawn(move || {
                let mut rig = Rig::over(Net::branch(), t, worker, 4);
                for round in 0..3 {
                    for i in 0..flows {
                        let p = match worker % 2 {
                            0 => Pkt::udp(HOST, FAR, i, 53),
                            _ => Pkt::udp(FAR, HOST, 53, i).into_port(WAN),
                        };
                        let out = rig.send(&p);
                        assert!(out.is_tx(), "round {round}: {out:?}");
                    }
                }
            });
        }
    });
    assert_eq!(t.v4.live(), u32::from(flows), "one session a flow, whoever was first");
}

/// A datagram in three pieces, the middle and last of which come to another worker, before its first and after.
#[test]
fn fragments_of_one_datagram_at_several_workers() {
    let behind_nat = || {
        use sag_pipeline::nat::Behavior::EndpointIndependent;
        let mut n = Net::branch();
        n.wan_snat(WAN, EndpointIndependent, EndpointIndependent);
        n
    };
    let t = tables(100, Grace::immediate());
    let mut a = Rig::over(behind_nat(), t.clone(), 0, 2);
    let mut b = Rig::over(behind_nat(), t.clone(), 1, 2);
    for whole in [
        Pkt::udp(HOST, FAR, 4000, 53).payload(100),
        Pkt::udp("2001:db8:1::10", "2001:db8:99::7", 4000, 53).payload(100),
    ] {
        let of = |at| whole.fragment(at, 48);
        assert_eq!(b.send(&of(48)), Outcome::Held);
        let first = a.send(&of(0));
        b.poll();
        let sent = std::mem::take(&mut b.sent.frames);
        assert_eq!(sent.len(), 1, "released by what the other worker has seen");
        let last = b.send(&of(96));
        assert!(last.is_tx(), "and what comes later does not wait");
        if whole.src.is_ipv4() {
            let ids = [first.frame(), &sent[0].1, last.frame()].map(|f| [f[18], f[19]]);
            assert!(
                ids == [ids[0]; 3] && ids[0] != whole.id.to_be_bytes(),
                "one number, and a new one: {ids:x?}"
            );
        }
        let before = t.v4.live() + t.v6.live();
        assert_eq!(
            a.send(&of(0)),
            Outcome::Drop(DropReason::FragmentOverlap),
            "each worker looks at its own"
        );
        assert_eq!(before, t.v4.live() + t.v6.live());
    }
    assert_eq!((t.v4.live(), t.v6.live()), (1, 1), "each datagram is one flow");
    // Another datagram's first says nothing.
    let (one, other) = (
        Pkt::udp(HOST, "198.51.100.9", 1, 2).payload(100),
        Pkt::udp(HOST, "198.51.100.8", 1, 2).payload(100),
    );
    assert!(a.send(&one.fragment(0, 48)).is_tx());
    assert_eq!(b.send(&other.fragment(48, 48)), Outcome::Held);
    b.wait(Duration::from_secs(3));
    assert_eq!(b.pipe.counters.port(LAN).dropped(), 1, "it waits for its own in vain");
}
