//! What routers on the way say of the path of outer packets.

use super::{End, Tunnel, Tunnels};
use sag_model::Nanos;
use sag_model::config::OuterDf;
use sag_packet::encap::{self, ENTROPY_FIRST};
use sag_packet::proto::*;
use sag_packet::{Family, L4, Parsed};
use std::net::IpAddr;

/// What an ICMP error quotes of the packet inside the outer one.
#[derive(Debug, Clone, Copy)]
pub struct QuotedInside<'f> {
    /// Its family.
    pub family: Family,
    /// As much of it as is quoted, from its IP header on.
    pub packet: &'f [u8],
    /// Source port of the outer UDP header, which has the flow's entropy.
    pub entropy: Option<u16>,
}

/// What shows that the quoted packet was sent.
#[derive(Debug, Clone, Copy)]
enum Evidence<'f> {
    /// Its sequence number was used just now.
    Sequence,
    /// It is of a flow through the tunnel, if there is such a flow.
    Inside(QuotedInside<'f>),
    /// The quote is too short to say. RFC 1812 4.3.2.3 and RFC 4443 2.4 c ask routers for more.
    Nothing,
}

/// A router on the way says that an outer packet was too big (RFC 1191, RFC 8201), or somebody who wants the tunnel to
/// be slow does. A tunnel whose peer answers probes of the path's size takes it for a hint and probes. Another one
/// believes it if it quotes a packet that the tunnel has sent (RFC 5927 4.1): of a flow that `is_sent` knows to go
/// through it, or under one of the last sequence numbers.
pub fn learn_path_mtu(
    tunnels: &Tunnels,
    p: &Parsed,
    frame: &[u8],
    now: Nanos,
    is_sent: impl FnOnce(&Tunnel, QuotedInside<'_>) -> bool,
) {
    let too_big = matches!(
        (p.family, p.l4),
        (Family::V4, L4::IcmpError { kind: 3, code: 4 }) | (Family::V6, L4::IcmpError { kind: 2, .. })
    );
    let at = usize::from(p.l4_at);
    let end = usize::from(p.l3) + usize::from(p.ip_len);
    if let (true, Some(message)) = (too_big, frame.get(at..end))
        && let Some((t, mtu, evidence)) = quoted(tunnels, p.family, message)
    {
        let believed = match evidence {
            _ if t.state.probes_sizes() => {
                t.state.set_hint(mtu);
                return;
            }
            Evidence::Sequence => true,
            Evidence::Inside(inside) => is_sent(t, inside),
            Evidence::Nothing => false,
        };
        if believed {
            t.state.learn(mtu, now);
        } else {
            t.state.refuse_error();
        }
    }
}

fn quoted<'s, 'f>(
    tunnels: &'s Tunnels,
    family: Family,
    message: &'f [u8],
) -> Option<(&'s Tunnel, u16, Evidence<'f>)> {
    let word = |at: usize| message.get(at..)?.first_chunk().map(|w| u32::from_be_bytes(*w));
    // IPv4 has it in 16 bits (RFC 1191 4); a router that does not say is of no use.
    let mtu = match family {
        Family::V4 => word(4)? & 0xFFFF,
        Family::V6 => word(4)?,
    };
    let mtu = u16::try_from(mtu).ok().filter(|m| *m != 0)?;
    let quote = message.get(8..)?;
    let (local, remote, next, data, len): (IpAddr, IpAddr, u8, &[u8], u16) = match family {
        Family::V4 => {
            let h: &[u8; IPV4_LEN] = quote.first_chunk()?;
            let a = |at: usize| IpAddr::from([h[at], h[at + 1], h[at + 2], h[at + 3]]);
            (a(12), a(16), h[9], quote.get(IPV4_LEN..).filter(|_| h[0] == 0x45)?, be(h, 2))
        }
        Family::V6 => {
            let h: &[u8; IPV6_LEN] = quote.first_chunk()?;
            let a = |at: usize| h.get(at..)?.first_chunk::<16>().map(|a| IpAddr::from(*a));
            (a(8)?, a(24)?, h[6], quote.get(IPV6_LEN..)?, be(h, 4).saturating_add(IPV6_LEN as u16))
        }
    };
    if mtu >= len {
        return None;
    }
    // A packet that may be split is not too big for anybody.
    let whole = |t: &&Tunnel| family == Family::V6 || t.df != OuterDf::Clear;
    let by_keys = |t: &&Tunnel| t.local == local && t.remote_now() == remote && t.quotes_esp(next, data);
    if let Some(t) = tunnels.iter().find(by_keys) {
        let evidence = if t.quotes_recent(next, data) { Evidence::Sequence } else { Evidence::Nothing };
        return Some((t, mtu, evidence)).filter(|(t, ..)| whole(t));
    }
    let (proto, port) = match next {
        UDP => (UDP, data.get(2..4).map(|b| be(b, 0))?),
        IPIP | IPV6_IN_IP => (IPIP, 0),
        other => (other, 0),
    };
    let list = tunnels.at(&End { local, remote, proto, port })?;
    // As far as the quote goes: the first eight bytes are promised (RFC 792).
    let fits = |t: &&Tunnel| match proto {
        UDP => {
            let vni = data.get(UDP_LEN..).and_then(encap::vxlan);
            data.get(..2).is_some_and(|b| be(b, 0) >= ENTROPY_FIRST) && vni.is_none_or(|v| t.id() == Some(v))
        }
        GRE => data.first_chunk::<8>().is_some_and(|d| encap::gre_quote_matches(d, t.id())),
        _ => true,
    };
    let t = list.iter().filter_map(|(_, no)| tunnels.get(*no)).find(fits)?;
    let evidence = inside(next, data).map_or(Evidence::Nothing, Evidence::Inside);
    Some((t, mtu, evidence)).filter(|(t, ..)| whole(t))
}

/// The packet inside, behind the tunnel's header at the front of `data`.
fn inside(next: u8, data: &[u8]) -> Option<QuotedInside<'_>> {
    let (at, ethertype, entropy) = match next {
        UDP => {
            let eth = UDP_LEN + encap::VXLAN_LEN;
            (eth + ETH_LEN, be(data, eth + ETH_LEN - 2), Some(be(data, 0)))
        }
        GRE => (encap::gre_quote_len(data)?, be(data, 2), None),
        IPIP => (0, ETHERTYPE_IPV4, None),
        IPV6_IN_IP => (0, ETHERTYPE_IPV6, None),
        _ => return None,
    };
    let family = super::family_of(ethertype)?;
    Some(QuotedInside { family, packet: data.get(at..).filter(|d| !d.is_empty())?, entropy })
}

fn be(b: &[u8], at: usize) -> u16 {
    match b.get(at..) {
        Some(&[hi, lo, ..]) => u16::from_be_bytes([hi, lo]),
        _ => 0,
    }
}
