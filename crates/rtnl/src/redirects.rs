//! [`Redirects`]: the kernel hands all that arrives on one device to another, by filters of its traffic control
//! (tc-matchall(8), tc-vlan(8), tc-mirred(8)). So an Ethernet device and one without link headers can be joined.

use crate::error::Result;
use crate::socket::Requester;
use crate::wire::{self, attribute_bytes, zero_terminated};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_sys::protocols::NETLINK_ROUTE;
use sag_model::MacAddr;

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
/// The queueing discipline that has filters and no queue.
const CLSACT: &str = "clsact";
const CLSACT_HANDLE: u32 = 0xFFFF_0000;
const CLSACT_PARENT: u32 = 0xFFFF_FFF1;
/// Its filters for what arrives.
const INGRESS: u32 = 0xFFFF_FFF2;
const ETH_P_ALL: u16 = 3;
const TCA_MATCHALL_ACT: u16 = 2;
const TCA_ACT_KIND: u16 = 1;
/// With the flag of nested attributes.
const TCA_ACT_OPTIONS: u16 = 2 | 1 << 15;
/// The next action follows.
const TC_ACT_PIPE: i32 = 3;
const TC_ACT_STOLEN: i32 = 4;
const TCA_VLAN_PARMS: u16 = 2;
const TCA_VLAN_PUSH_ETH_DST: u16 = 7;
const TCA_VLAN_PUSH_ETH_SRC: u16 = 8;
const TCA_VLAN_ACT_POP_ETH: i32 = 4;
const TCA_VLAN_ACT_PUSH_ETH: i32 = 5;
const TCA_MIRRED_PARMS: u16 = 2;
const TCA_EGRESS_REDIR: i32 = 1;

/// What becomes of the link header on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkHeader {
    /// The Ethernet header goes.
    Pop,
    /// An Ethernet header comes.
    Push {
        /// Who shall receive the frame.
        dst: MacAddr,
        /// Who sends it.
        src: MacAddr,
    },
}

/// Sets redirects in the network namespace in which it was opened. Needs `CAP_NET_ADMIN`.
pub struct Redirects {
    requester: Requester,
}

impl Redirects {
    /// Opens a netlink socket in the network namespace of the caller.
    ///
    /// # Errors
    /// [`crate::Error::Socket`].
    pub fn open() -> Result<Redirects> {
        Ok(Redirects { requester: Requester::open(NETLINK_ROUTE)? })
    }

    /// Whatever arrives on `from` leaves by `to`, from now on and in place of any filter that `from` has.
    ///
    /// # Errors
    /// [`crate::Error`]: no privilege, no such device, or a kernel without the filters (`cls_matchall`, `act_vlan`,
    /// `act_mirred`).
    pub fn set(&mut self, from: u32, to: u32, header: LinkHeader) -> Result<()> {
        self.clear(from)?;
        let qdisc = [(TCA_KIND, zero_terminated(CLSACT))];
        let head = head(from, CLSACT_HANDLE, CLSACT_PARENT, 0);
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let message = |seq| wire::request(RTM_NEWQDISC, flags, &head, &qdisc, seq);
        self.requester.change("add clsact to", None, from, message, &[])?;
        self.requester.change("add a redirect to", None, from, |seq| filter(from, to, header, seq), &[])
    }

    /// Removes the filters of a device.
    ///
    /// # Errors
    /// [`crate::Error`]: no privilege, or another refusal of the kernel.
    pub fn clear(&mut self, ifindex: u32) -> Result<()> {
        let list = [(TCA_KIND, zero_terminated(CLSACT))];
        let head = head(ifindex, CLSACT_HANDLE, CLSACT_PARENT, 0);
        let message = |seq| wire::request(RTM_DELQDISC, NLM_F_ACK, &head, &list, seq);
        let harmless = [libc::ENOENT, libc::EINVAL, libc::ENODEV];
        self.requester.change("remove clsact from", None, ifindex, message, &harmless)
    }
}

/// struct tcmsg: family, padding, interface, handle, parent, info.
fn head(ifindex: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut out = [0; 20];
    for (at, word) in [(4, ifindex), (8, handle), (12, parent), (16, info)] {
        out[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    out
}

fn filter(from: u32, to: u32, header: LinkHeader, seq: u32) -> Vec<u8> {
    let actions = attribute_bytes(&[(1, link_header(header)), (2, redirect(to))]);
    let options = attribute_bytes(&[(TCA_MATCHALL_ACT, actions)]);
    let list = [(TCA_KIND, zero_terminated("matchall")), (TCA_OPTIONS, options)];
    // Priority and protocol.
    let info = 1 << 16 | u32::from(ETH_P_ALL.to_be());
    let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    wire::request(RTM_NEWTFILTER, flags, &head(from, 0, INGRESS, info), &list, seq)
}

/// struct tc_gen: number, capabilities, what follows, references, bindings.
fn generic(then: i32) -> Vec<u8> {
    let mut out = vec![0; 20];
    out[8..12].copy_from_slice(&then.to_ne_bytes());
    out
}

fn action(kind: &str, options: &[(u16, Vec<u8>)]) -> Vec<u8> {
    attribute_bytes(&[(TCA_ACT_KIND, zero_terminated(kind)), (TCA_ACT_OPTIONS, attribute_bytes(options))])
}

fn link_header(header: LinkHeader) -> Vec<u8> {
    let mut parms = generic(TC_ACT_PIPE);
    match header {
        LinkHeader::Pop => {
            parms.extend(TCA_VLAN_ACT_POP_ETH.to_ne_bytes());
            action("vlan", &[(TCA_VLAN_PARMS, parms)])
        }
        LinkHeader::Push { dst, src } => {
            parms.extend(TCA_VLAN_ACT_PUSH_ETH.to_ne_bytes());
            let (dst, src) = (dst.0.to_vec(), src.0.to_vec());
            let list = [(TCA_VLAN_PARMS, parms), (TCA_VLAN_PUSH_ETH_DST, dst), (TCA_VLAN_PUSH_ETH_SRC, src)];
            action("vlan", &list)
        }
    }
}

fn redirect(to: u32) -> Vec<u8> {
    let mut parms = generic(TC_ACT_STOLEN);
    parms.extend(TCA_EGRESS_REDIR.to_ne_bytes());
    parms.extend(to.to_ne_bytes());
    action("mirred", &[(TCA_MIRRED_PARMS, parms)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nested attributes as tc(8) of iproute2 6.1 sends them for
    /// `tc filter add dev … ingress matchall action vlan pop_eth pipe action mirred egress redirect dev …` and
    /// `… action vlan push_eth dst_mac 02:00:00:00:00:01 src_mac 02:00:00:00:00:02 pipe action mirred …`, with its
    /// padding.
    const POP: &str = "680002003000010009000100766c616e00000000200002801c000200000000000000000003000000000000000000000004000000\
        340002000b0001006d69727265640000240002802000020000000000000000000400000000000000000000000100000004000000";
    const PUSH: &str = "800002004800010009000100766c616e00000000380002801c000200000000000000000003000000000000000000000005000000\
        0a000700020000000001000\
        00a0008000200000000020000340002000b0001006d69727265640000240002802000020000000000000000000400000000000000\
        000000000100000003000000";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
        digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()
    }

    #[test]
    fn filters_are_those_of_tc() {
        let push = LinkHeader::Push { dst: MacAddr([2, 0, 0, 0, 0, 1]), src: MacAddr([2, 0, 0, 0, 0, 2]) };
        for (header, to, want) in [(LinkHeader::Pop, 4, POP), (push, 3, PUSH)] {
            let message = filter(9, to, header, 1);
            let want = bytes(want);
            assert_eq!(message[message.len() - want.len()..], want, "{header:?}");
            // Netlink header, struct tcmsg, the kind with its padding, the head of the options.
            assert_eq!(message.len(), 16 + 20 + 16 + 4 + want.len());
            assert_eq!(message[20..24], 9u32.to_ne_bytes());
            assert_eq!(message[28..36], [0xF2, 0xFF, 0xFF, 0xFF, 0, 3, 1, 0], "little-endian");
        }
    }
}
