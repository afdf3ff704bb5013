//! What sessions of NAT64 hold: bindings, which name IPv6 hosts by numbers, and these numbers.

use super::{NAT_FILTER_ENTRY, NAT_HOST};
use crate::nat::{BindingNo, NatState, Released, is_number};
use std::net::Ipv4Addr;

impl NatState {
    /// What a session of NAT64 held comes back: its bindings, and what it counts for its hosts. `remote`: the IPv4 host to
    /// which the IPv6 host has sent, if it was the first.
    pub(crate) fn end_nat64(
        &self,
        bindings: [u32; 2],
        flags: u32,
        remote: Option<Ipv4Addr>,
        mut released: impl FnMut(BindingNo, Released),
    ) {
        if let (true, Some(remote)) = (flags & NAT_FILTER_ENTRY != 0, remote) {
            self.remove_filter_entry(BindingNo(bindings[0]), remote);
        }
        for (b, source) in bindings.into_iter().zip([true, false]).filter(|(b, _)| *b != 0) {
            let binding = BindingNo(b);
            let Some(inside) = self.inside_of(binding) else { continue };
            if source && flags & NAT_HOST != 0 {
                self.host_session_ended(inside.host());
            }
            released(binding, self.release(binding));
            if is_number(inside.addr) {
                self.host6_session_ended(inside.addr);
            }
        }
    }
}
