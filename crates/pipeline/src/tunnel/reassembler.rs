//! Outer packets that came in fragments are put together: what is inside cannot be read before. A
//! few at a time, in memory taken at the start.

use crate::fragments::{DatagramKey, Span};
use sag_model::{DropReason, Nanos, PortIdx};
use sag_packet::checksum;
use sag_packet::parse::{Family, Parsed};
use sag_packet::proto::*;
use std::time::Duration;

/// Datagrams put together at one time; the oldest makes room.
const PLACES: usize = 32;
/// Bytes of an outer packet; a larger one is dropped.
const ROOM: usize = 4096 - 256;
/// Time for all fragments.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Units of eight bytes, a bit each.
const WORDS: usize = ROOM.div_ceil(8 * 64);

#[derive(Debug)]
struct Place {
    key: Option<DatagramKey>,
    since: Nanos,
    /// Where fragments of it that wait are accounted for.
    held: u32,
    ingress: PortIdx,
    seen: [u64; WORDS],
    bytes_seen: usize,
    /// Length of the data, once the last fragment has come.
    total: Option<usize>,
    /// The first fragment's IP header, and where its data begins in `data`.
    header: [u8; IPV6_LEN],
    header_len: usize,
    proto: u8,
    data: Box<[u8]>,
}

/// What became of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It waits for others.
    Waits,
    /// The packet is whole: so many of its fragments, this one apart, had waited.
    Whole {
        /// IP bytes of the packet.
        len: usize,
        /// Its fragments that had waited.
        waited: u32,
    },
    /// The fragment is dropped for this reason.
    Refused(DropReason),
}

/// Packets that waited and will wait no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenUp {
    /// The port by which their first one came.
    pub ingress: PortIdx,
    /// How many.
    pub packets: u32,
}

/// Puts outer packets together that arrived in fragments (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Debug)]
pub struct Reassembler {
    places: Vec<Place>,
    waiting: u32,
}

impl Default for Reassembler {
    fn default() -> Reassembler {
        let place = || Place {
            key: None,
            since: Nanos::ZERO,
            held: 0,
            ingress: PortIdx(0),
            seen: [0; WORDS],
            bytes_seen: 0,
            total: None,
            header: [0; IPV6_LEN],
            header_len: 0,
            proto: 0,
            data: vec![0; ROOM].into_boxed_slice(),
        };
        Reassembler { places: (0..PLACES).map(|_| place()).collect(), waiting: 0 }
    }
}

impl Reassembler {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Gives up one that has waited too long, if there is one.
    pub fn overdue(&mut self, now: Nanos) -> Option<GivenUp> {
        let late = |p: &Place| p.key.is_some() && now - p.since > TIMEOUT;
        let at = self.places.iter().position(late)?;
        Some(self.give_up(at))
    }

    fn give_up(&mut self, at: usize) -> GivenUp {
        let p = &mut self.places[at];
        let gone = GivenUp { ingress: p.ingress, packets: p.held };
        self.waiting -= p.held;
        p.key = None;
        p.held = 0;
        gone
    }

    /// Takes the data of a fragment in. A packet that is whole is written to `out`, at its front.
    /// `lost` receives what made room for it or contradicts it.
    pub fn put(
        &mut self,
        p: &Parsed,
        frame: &[u8],
        key: DatagramKey,
        (ingress, now): (PortIdx, Nanos),
        out: &mut [u8],
        mut lost: impl FnMut(GivenUp),
    ) -> Put {
        let Some(span) = Span::of(p, frame) else { return Put::Refused(DropReason::FragmentOverlap) };
        let (start, end) = (usize::from(span.start), usize::from(span.end));
        let data_at = usize::from(p.l4_at);
        let Some(data) = frame.get(data_at..data_at + (end - start)).filter(|_| end <= ROOM) else {
            return Put::Refused(DropReason::FrameTooBig);
        };
        let at = match self.places.iter().position(|p| p.key == Some(key)) {
            Some(at) => at,
            None => {
                let free = self.places.iter().position(|p| p.key.is_none());
                let at = free.or_else(|| (0..PLACES).min_by_key(|i| self.places[*i].since)).unwrap_or(0);
                if free.is_none() {
                    lost(self.give_up(at));
                }
                let p = &mut self.places[at];
                (p.key, p.since, p.ingress, p.held) = (Some(key), now, ingress, 0);
                (p.seen, p.bytes_seen, p.total, p.header_len) = ([0; WORDS], 0, None, 0);
                at
            }
        };
        let place = &mut self.places[at];
        let units = start / 8..end.div_ceil(8);
        let taken = units.clone().any(|u| place.seen[u / 64] >> (u % 64) & 1 != 0);
        let beyond = place.total.is_some_and(|t| end > t || (span.last && end != t));
        if taken || beyond {
            // RFC 5722: the whole datagram goes.
            lost(self.give_up(at));
            return Put::Refused(DropReason::FragmentOverlap);
        }
        place.data[start..end].copy_from_slice(data);
        units.for_each(|u| place.seen[u / 64] |= 1 << (u % 64));
        place.bytes_seen += end - start;
        if span.last {
            place.total = Some(end);
        }
        if span.is_first() {
            let l3 = usize::from(p.l3);
            let n = if p.family == Family::V4 { IPV4_LEN } else { IPV6_LEN };
            if let Some(h) = frame.get(l3..l3 + n) {
                place.header[..n].copy_from_slice(h);
                (place.header_len, place.proto) = (n, p.proto);
            }
        }
        if place.total != Some(place.bytes_seen) || place.header_len == 0 {
            place.held += 1;
            self.waiting += 1;
            return Put::Waits;
        }
        let (n, len) = (place.header_len, place.header_len + place.bytes_seen);
        let written = out.get_mut(..len).map(|out| {
            out[..n].copy_from_slice(&place.header[..n]);
            out[n..].copy_from_slice(&place.data[..len - n]);
            fix_checksums(out, place.proto);
        });
        let waited = self.give_up(at).packets;
        match written {
            Some(()) => Put::Whole { len, waited },
            None => Put::Refused(DropReason::FrameTooBig),
        }
    }
}

/// Makes the header of a whole packet from that of its first fragment, options and extensions left out.
fn fix_checksums(packet: &mut [u8], proto: u8) {
    let len = packet.len();
    if packet[0] >> 4 == 4 {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[6..8].fill(0);
        packet[10..12].fill(0);
        let check = checksum::finish(checksum::sum(&packet[..IPV4_LEN]));
        packet[10..12].copy_from_slice(&check.to_ne_bytes());
    } else {
        packet[4..6].copy_from_slice(&((len - IPV6_LEN) as u16).to_be_bytes());
        packet[6] = proto;
    }
}
