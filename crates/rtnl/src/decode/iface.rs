//! Links, addresses, neighbours.

use super::{Event, Malformed};
use crate::types::{Address, Link, Neighbor, NeighborState, Scope};
use crate::wire::{attributes, ip, mac, text, u8_at, u16_at, u32_at};
use sag_model::MacAddr;

// Attribute numbers that libc does not name on every target.
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VRF_TABLE: u16 = 1;
const NDA_FLAGS_EXT: u16 = 15;
const NTF_EXT_LEARNED: u8 = 1 << 4;
const NTF_EXT_MANAGED: u32 = 1 << 0;

pub(super) fn link(bytes: &[u8], gone: bool) -> Result<Option<Event>, Malformed> {
    // struct ifinfomsg: family, pad, type, index, flags, change.
    let head = bytes.get(..16).ok_or(Malformed)?;
    // Bridges report their ports under their own family: leaving a bridge is not vanishing.
    if u8_at(head, 0) != Some(libc::AF_UNSPEC as u8) {
        return Ok(None);
    }
    let ifindex = u32_at(head, 4).ok_or(Malformed)?;
    if gone {
        return Ok(Some(Event::LinkGone(ifindex)));
    }
    let flags = u32_at(head, 8).ok_or(Malformed)?;
    let has = |flag: i32| flags & flag as u32 != 0;
    let up = has(libc::IFF_UP);
    let mut link = Link {
        mtu: 0,
        up,
        running: up && has(libc::IFF_RUNNING) && has(libc::IFF_LOWER_UP),
        loopback: has(libc::IFF_LOOPBACK),
        ..Link::new(ifindex, "")
    };
    let mut elsewhere = false;
    for (kind, value) in attributes(&bytes[16..]) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_ADDRESS => link.mac = mac(value).map(MacAddr),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0).ok_or(Malformed)?,
            libc::IFLA_LINK => link.parent = u32_at(value, 0).filter(|&i| i != 0 && i != ifindex),
            libc::IFLA_LINK_NETNSID => elsewhere = true,
            libc::IFLA_MASTER => link.master = u32_at(value, 0).filter(|&i| i != 0),
            libc::IFLA_NUM_RX_QUEUES => link.rx_queues = u32_at(value, 0).ok_or(Malformed)?,
            libc::IFLA_NUM_TX_QUEUES => link.tx_queues = u32_at(value, 0).ok_or(Malformed)?,
            libc::IFLA_LINKINFO => link_info(value, &mut link),
            _ => {}
        }
    }
    if elsewhere {
        link.parent = None;
    }
    if link.name.is_empty() {
        return Err(Malformed);
    }
    Ok(Some(Event::Link(link)))
}

fn link_info(bytes: &[u8], link: &mut Link) {
    let mut data = None;
    for (kind, value) in attributes(bytes) {
        match kind {
            libc::IFLA_INFO_KIND => link.kind = Some(text(value)),
            libc::IFLA_INFO_DATA => data = Some(value),
            _ => {}
        }
    }
    let of_kind = |kind: &str, attribute: u16| {
        let data = data.filter(|_| link.kind.as_deref() == Some(kind))?;
        attributes(data).find(|a| a.0 == attribute).map(|a| a.1)
    };
    let vlan = of_kind("vlan", IFLA_VLAN_ID).and_then(|id| u16_at(id, 0));
    let vrf_table = of_kind("vrf", IFLA_VRF_TABLE).and_then(|table| u32_at(table, 0));
    (link.vlan, link.vrf_table) = (vlan, vrf_table);
}

pub(super) fn address(bytes: &[u8], gone: bool) -> Result<Option<Event>, Malformed> {
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let head = bytes.get(..8).ok_or(Malformed)?;
    let family = i32::from(head[0]);
    if family != libc::AF_INET && family != libc::AF_INET6 {
        return Ok(None);
    }
    let ifindex = u32_at(head, 4).ok_or(Malformed)?;
    let mut flags = u32::from(head[2]);
    let (mut local, mut remote) = (None, None);
    for (kind, value) in attributes(&bytes[8..]) {
        match kind {
            libc::IFA_LOCAL => local = ip(value),
            libc::IFA_ADDRESS => remote = ip(value),
            // The header has room for the first eight flags only.
            libc::IFA_FLAGS => flags = u32_at(value, 0).ok_or(Malformed)?,
            _ => {}
        }
    }
    let addr = local.or(remote).ok_or(Malformed)?;
    let bits = if addr.is_ipv4() { 32 } else { 128 };
    if addr.is_ipv4() != (family == libc::AF_INET) || head[1] > bits {
        return Err(Malformed);
    }
    let has = |flag: u32| flags & flag != 0;
    let address = Address {
        ifindex,
        addr,
        prefix_len: head[1],
        scope: Scope::from(head[3]),
        secondary: has(libc::IFA_F_SECONDARY),
        peer: remote.filter(|r| *r != addr && r.is_ipv4() == addr.is_ipv4()),
        tentative: has(libc::IFA_F_TENTATIVE) && !has(libc::IFA_F_OPTIMISTIC),
        duplicate: has(libc::IFA_F_DADFAILED),
        deprecated: has(libc::IFA_F_DEPRECATED),
    };
    Ok(Some(if gone { Event::AddressGone(address) } else { Event::Address(address) }))
}

pub(super) fn neighbor(bytes: &[u8], gone: bool) -> Result<Option<Event>, Malformed> {
    // struct ndmsg: family, pad, index, state, flags, type.
    let head = bytes.get(..12).ok_or(Malformed)?;
    let family = i32::from(head[0]);
    let flags = head[10];
    // AF_BRIDGE entries are MAC tables; proxy entries are addresses that we answer for.
    if (family != libc::AF_INET && family != libc::AF_INET6) || flags & libc::NTF_PROXY != 0 {
        return Ok(None);
    }
    let ifindex = u32_at(head, 4).ok_or(Malformed)?;
    let state = u16_at(head, 8).ok_or(Malformed)?;
    let (mut dst, mut lladdr, mut ext_flags) = (None, None, 0);
    for (kind, value) in attributes(&bytes[12..]) {
        match kind {
            libc::NDA_DST => dst = ip(value),
            libc::NDA_LLADDR => lladdr = mac(value).map(MacAddr),
            NDA_FLAGS_EXT => ext_flags = u32_at(value, 0).ok_or(Malformed)?,
            _ => {}
        }
    }
    let ip = dst.filter(|d| d.is_ipv4() == (family == libc::AF_INET)).ok_or(Malformed)?;
    if gone {
        return Ok(Some(Event::NeighborGone(ifindex, ip)));
    }
    Ok(Some(Event::Neighbor(Neighbor {
        ifindex,
        ip,
        mac: lladdr,
        state: NeighborState::from(state),
        router: flags & libc::NTF_ROUTER != 0,
        ext_learned: flags & NTF_EXT_LEARNED != 0,
        managed: ext_flags & NTF_EXT_MANAGED != 0,
    })))
}
