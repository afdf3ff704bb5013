//! NAT keepalives (RFC 3948 2.3, 4): when a tunnel that sends ESP in UDP has been silent for so long that NAT
//! might forget it.

use super::Tunnel;
use sag_model::Nanos;

const SECOND: u64 = 1_000_000_000;

/// One tunnel's silence, watched by the worker that probes the far ends.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keepalive {
    /// Nanoseconds of silence; 0: not begun.
    after: u64,
    /// What had been sent at the last look: SPI and next sequence number.
    sent: (u32, u64),
    due: u64,
}

impl Keepalive {
    /// Whether one is to be sent now. Call it often; without keys, or in a tunnel without UDP, it never is.
    pub fn poll(&mut self, t: &Tunnel, now: Nanos) -> bool {
        let after = u64::from(t.keepalive) * SECOND;
        let sent = t.esp.load().outbound(t.no).map(|sa| (sa.spi(), sa.next_sequence()));
        let (Some(sent), true) = (sent, after != 0 && t.in_udp()) else {
            *self = Keepalive::default();
            return false;
        };
        // New keys are no packet.
        let other = self.sent.0 == sent.0 && self.sent.1 != sent.1;
        self.sent = sent;
        if other || self.after != after {
            (self.after, self.due) = (after, now.0 + after);
        }
        now.0 >= self.due
    }

    /// One has been sent, or could not be: then soon again.
    pub fn said(&mut self, ok: bool, now: Nanos) {
        self.due = now.0 + if ok { self.after } else { self.after.min(SECOND) };
    }
}
