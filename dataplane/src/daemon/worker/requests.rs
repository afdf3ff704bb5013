//! Requests for next hops, on their way to the control thread.

use super::FromWorker;
use crossbeam_channel::Sender;
use sag_pipeline::snapshot::NeighborKey;

/// Requests are not sent while so many messages wait for the control thread.
const MAX_MESSAGES: usize = 1024;

/// Hands requests for next hops to the control thread. While that has not read what it has, they stay with the worker, whose
/// room for them is bounded: packets wait for them, so nobody would ask again. True: something was handed over.
pub(super) fn hand_over(outbox: &Sender<FromWorker>, requests: impl FnOnce() -> Vec<NeighborKey>) -> bool {
    if outbox.len() >= MAX_MESSAGES {
        return false;
    }
    let next_hops = requests();
    !next_hops.is_empty() && outbox.send(FromWorker::Resolve(next_hops)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sag_model::PortIdx;
    use std::net::IpAddr;

    #[test]
    fn requests_stay_with_the_worker_while_the_control_thread_is_busy() {
        let (outbox, inbox) = crossbeam_channel::unbounded();
        let one = |n: u32| (PortIdx(0), IpAddr::V4(n.into()));
        assert!(!hand_over(&outbox, Vec::new), "nothing to say");
        for n in 0..3 * MAX_MESSAGES as u32 {
            let mut taken = false;
            let sent = hand_over(&outbox, || {
                taken = true;
                vec![one(n)]
            });
            assert_eq!((sent, taken), ((n as usize) < MAX_MESSAGES, sent), "{n}");
        }
        assert_eq!(outbox.len(), MAX_MESSAGES);
        assert!(matches!(inbox.try_recv(), Ok(FromWorker::Resolve(all)) if all == [one(0)]));
        assert!(hand_over(&outbox, || vec![one(7)]), "it has read one");
    }
}
