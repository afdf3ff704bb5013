//! Protocol and ports of a datagram, which its later fragments do not carry.

use sag_packet::Parsed;

/// What a first fragment says of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowPorts {
    pub proto: u8,
    pub sport: u16,
    pub dport: u16,
}

impl FlowPorts {
    pub fn of(p: &Parsed) -> FlowPorts {
        FlowPorts { proto: p.proto, sport: p.sport, dport: p.dport }
    }

    pub fn give(self, p: &mut Parsed) {
        (p.proto, p.sport, p.dport) = (self.proto, self.sport, self.dport);
    }
}
