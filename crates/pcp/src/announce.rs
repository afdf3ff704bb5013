//! What hosts are told without having asked: that mappings are gone, so that they ask for them again (RFC 6887
//! section 14.1, RFC 6886 section 3.2.1).

use crate::nat_pmp;
use crate::pcp::Answer;
use std::net::Ipv4Addr;
use std::time::Duration;

/// The UDP port at which hosts hear of it, at the group of all hosts (224.0.0.1).
pub const CLIENT_PORT: u16 = 5350;

/// Ten times, each time after twice the time.
const TIMES: u32 = 10;
const FIRST: Duration = Duration::from_millis(250);

/// Announcements that are still to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announcing {
    left: u32,
    next: Duration,
    gap: Duration,
}

impl Announcing {
    pub(crate) fn begin(now: Duration) -> Announcing {
        Announcing { left: TIMES, next: now, gap: FIRST }
    }

    /// Whether one is due.
    pub(crate) fn is_due(&mut self, now: Duration) -> bool {
        let due = self.left > 0 && now >= self.next;
        if due {
            self.left -= 1;
            self.next = now + self.gap;
            self.gap *= 2;
        }
        due
    }
}

/// One of each protocol.
pub(crate) fn messages(external: Option<Ipv4Addr>, epoch: u32, with_nat_pmp: bool) -> Vec<Vec<u8>> {
    let pcp = Answer { opcode: 0, lifetime: 0, epoch, options: &[] }.write(&[]);
    let address = (with_nat_pmp && external.is_some()).then(|| nat_pmp::address(external, epoch));
    [Some(pcp), address].into_iter().flatten().collect()
}
