//! Protocol, ports and message of a datagram, which its later fragments do not carry, and what they share otherwise.

use sag_packet::Parsed;

/// What a first fragment says of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlowPorts {
    /// IP protocol.
    pub proto: u8,
    /// Source port in host order, or the identifier of an ICMP query.
    pub sport: u16,
    /// Destination port in host order.
    pub dport: u16,
    /// TCP flags or ICMP message ([`Parsed::message`]).
    pub message: u16,
    /// The identification of an IPv4 datagram whose source is translated.
    pub new_id: u16,
}

impl FlowPorts {
    /// Of a parsed packet, with the identification that it gets with another source.
    pub fn of(p: &Parsed, new_id: u16) -> FlowPorts {
        FlowPorts { proto: p.proto, sport: p.sport, dport: p.dport, message: p.message, new_id }
    }

    /// Gives protocol, ports and message to a fragment that does not carry them.
    pub fn give(self, p: &mut Parsed) {
        (p.proto, p.sport, p.dport, p.message) = (self.proto, self.sport, self.dport, self.message);
    }
}
