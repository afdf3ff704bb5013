//! Several workers over one table.

use sag_pipeline::nat::NatState;
use sag_pipeline::table::{FlowTable, Grace};
use sag_pipeline::testkit::*;
use sag_pipeline::worker::Tables;
use std::sync::Arc;
use std::time::Duration;

const HOST: &str = "192.168.1.10";
const FAR: &str = "198.51.100.7";

fn tables(sessions: u32, grace: Arc<Grace>) -> Arc<Tables> {
    Arc::new(Tables {
        v4: FlowTable::private(sessions, grace.clone()),
        v6: FlowTable::private(sessions, grace),
        nat: Arc::new(NatState::private(sessions)),
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
