//! Random stories. The seed of one that fails is in the name of its thread; run it
//! again with `SAG_STORY_SEED=n`, or many more with `SAG_STORIES=n`.

use sag_model::DropReason;
use sag_testkit::{StoryCounts, run_story};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().unwrap_or_else(|_| panic!("{name}={v} is not a number")))
}

#[test]
fn invariants_hold_in_every_story() {
    let one = number("SAG_STORY_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..number("SAG_STORIES").unwrap_or(140),
    };
    let mut all = StoryCounts::default();
    for seed in seeds {
        let story =
            std::thread::Builder::new().name(format!("story {seed}")).spawn(move || run_story(seed, 30));
        all += story.unwrap().join().unwrap_or_else(|_| panic!("story {seed} failed"));
    }
    if one.is_some() {
        return;
    }
    // The stories are about something: every reason that the pipeline itself gives came up.
    assert!(all.forwarded > 5_000 && all.made > 1_000 && all.sessions > 1_000, "{all:?}");
    assert!(all.translated > 400, "{all:?}");
    let others = [
        DropReason::FragmentOverlap,
        DropReason::FragmentTableFull,
        DropReason::NeighborQueueFull,
        DropReason::TxRingFull,
        DropReason::NoFrame,
        DropReason::RxRingFull,
        DropReason::NoWorker,
        DropReason::FrameTooBig,
        DropReason::SendFailed,
        DropReason::TunnelSource,
    ];
    let of_nat = [
        DropReason::SnatExhausted,
        DropReason::SnatHostLimit,
        DropReason::NatFiltered,
        DropReason::TcpOutOfWindow,
        DropReason::IcmpUnmatched,
        DropReason::NatNoAddress,
        DropReason::NatNoSession,
        DropReason::NatProtocol,
    ];
    let never: Vec<_> = DropReason::ALL
        .iter()
        .filter(|r| (**r as u8) < DropReason::SnatExhausted as u8 || of_nat.contains(r))
        .filter(|r| !others.contains(r))
        .filter(|r| all.drops[r.index()] == 0)
        .collect();
    assert!(never.is_empty(), "never seen: {never:?}");
}
