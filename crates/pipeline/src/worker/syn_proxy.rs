//! Connections that the gateway opens for clients with a SYN cookie (RFC 4987 3.6). The packet that acknowledges a cookie
//! becomes the SYN that its sender had sent, and goes through all stages as such; from the server's answer on, sequence
//! numbers are translated between what the cookie said and what the server says.

use super::new_connection::{numbers, tcp_numbers};
use super::{BatchEntry, Env, Pipeline, touch};
use crate::originate::{self, Emit, IcmpResult, LINK_ROOM};
use crate::session;
use crate::snapshot::Snapshot;
use crate::stages;
use crate::syn_cookie::{Client, Proxied};
use crate::table::State;
use crate::tables::SharedTable;
use sag_model::flow::{FlowRecord4, FlowRecord6, RecordNo};
use sag_model::{DropReason, MacAddr, Nanos, PortIdx, VrfNo, Zone};
use sag_packet::parse::{self, Family, Fragment, L4, NetworkLayer, Parsed};
use sag_packet::proto::*;
use sag_packet::rewrite::FrameMut;
use sag_packet::segment::{self, Offer, Segment};
use std::time::Duration;

/// Connections of a worker whose server has not answered yet.
const WAITING: usize = 1024;
/// SYNs to the server after the first one, each after twice the time of the one before.
const REPEATS: u32 = 3;
/// When the first of them is sent (RFC 6298 2.1).
const FIRST_REPEAT: Duration = Duration::from_secs(1);
/// How often the list is looked through.
const INTERVAL: Duration = Duration::from_millis(100);
const TTL: u8 = 64;

/// A packet that acknowledges a cookie: what its sender's SYN said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opening {
    cookie: u32,
    isn: u32,
    /// In bytes, as in a SYN.
    window: u16,
    offer: Offer,
}

/// Connections whose server has not answered yet.
#[derive(Debug)]
pub(super) struct SynProxy {
    waiting: Vec<Waiting>,
    due: Nanos,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    family: Family,
    session: u32,
    opening: Opening,
    due: Nanos,
    repeats: u32,
}

impl SynProxy {
    pub fn new() -> SynProxy {
        SynProxy { waiting: Vec::with_capacity(WAITING), due: Nanos::ZERO }
    }

    /// Whether SYNs wait for an answer, which are repeated.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn ended(&mut self, family: Family, session: u32) {
        self.waiting.retain(|w| w.family != family || w.session != session);
    }
}

impl Pipeline {
    /// If a packet of no session acknowledges a cookie, it becomes the SYN of its sender, whose acknowledgment number is the
    /// cookie: so it is known again if it has to wait for its next hop. Such a SYN from outside proves as much.
    pub(super) fn accept_cookie(
        &self,
        snap: &Snapshot,
        s: &mut BatchEntry,
        f: &mut FrameMut<'_>,
    ) -> Result<Option<Opening>, DropReason> {
        let L4::Tcp { flags } = s.p.l4 else { return Ok(None) };
        let begins = flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN;
        let acknowledges = flags & (TCP_SYN | TCP_RST | TCP_ACK) == TCP_ACK;
        let plain = s.p.fragment == Fragment::Whole && !s.p.options && s.tunnel.is_none();
        if s.found.is_some() || s.zone != Zone::Wan.into() || !plain || !(begins || acknowledges) {
            return Ok(None);
        }
        let frame = f.bytes();
        let (sport, dport) = s.p.ports();
        let (from, to) = ((s.p.src(frame), sport), (s.p.dst(frame), dport));
        let (Some(service), Some(header)) = (snap.syn_cookies.service(to), Header::read(&s.p, frame)) else {
            return Ok(None);
        };
        let check = |isn, cookie| {
            let offer = snap.syn_cookies.check(&Client { from, to, isn }, cookie)?;
            let scale = if begins { 0 } else { offer.window_scale.unwrap_or(0) };
            Some(Opening { cookie, isn, window: segment::rescale(header.window, scale, 0), offer })
        };
        let found = if begins {
            check(header.seq, header.ack)
        } else {
            let cookie = header.ack.wrapping_sub(1);
            // A probe of the zero window repeats the last octet before it (RFC 9293 3.8.6.1).
            check(header.seq.wrapping_sub(1), cookie).or_else(|| check(header.seq, cookie))
        };
        let Some(opening) = found else {
            let refused = acknowledges && snap.syn_cookies.is_active(service);
            return if refused { Err(DropReason::SynCookieInvalid) } else { Ok(None) };
        };
        if self.syn_proxy.waiting.len() >= WAITING {
            return Err(DropReason::SynProxyWait);
        }
        if acknowledges {
            let options = opening.offer.options();
            let syn = Segment {
                from,
                to,
                seq: opening.isn,
                ack: opening.cookie,
                flags: TCP_SYN,
                window: opening.window,
                options: &options,
                ttl: s.p.ttl,
            };
            s.p = replace(f, &s.p, &syn).ok_or(DropReason::FrameTooBig)?;
        }
        Ok(Some(opening))
    }

    /// What is remembered of the session of a packet that was opened with a cookie. As long as its server has not answered,
    /// nothing but the answer passes, and a reset.
    pub(super) fn check_proxied<R: SharedTable>(
        &self,
        s: &BatchEntry,
        no: RecordNo,
        frame: &[u8],
    ) -> Result<Option<Proxied>, DropReason> {
        let table = R::table(&self.tables);
        let Some(p) = table.proxied(no.session()) else { return Ok(None) };
        let L4::Tcp { flags } = s.p.l4 else { return Ok(Some(p)) };
        let reply = no.direction() == 1;
        let syn_ack = reply && flags & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK;
        if syn_ack
            && p.cookie().is_none()
            && numbers(table, s, no, frame)
                .is_some_and(|n| session::is_accepted(table.meta(no.session()), &n))
        {
            // A new connection of the same ports, to the server itself.
            table.set_proxied(no.session(), None);
            return Ok(None);
        }
        match p.cookie() {
            Some(_) if flags & TCP_RST == 0 && !syn_ack => Err(DropReason::SynProxyWait),
            _ => Ok(Some(p)),
        }
    }

    /// The session of a SYN that a client's packet has become is there. False: it is another's.
    pub(super) fn begin_proxied<R: SharedTable>(
        &mut self,
        now: Nanos,
        s: &BatchEntry,
        no: RecordNo,
        opening: &Opening,
        f: &mut FrameMut<'_>,
    ) -> bool {
        let table = R::table(&self.tables);
        if no.direction() == 1 || table.proxied(no.session()).is_some() {
            return false;
        }
        let Opening { cookie, window, offer, .. } = *opening;
        table.set_proxied(no.session(), Some(Proxied::waiting(cookie, window, offer.window_scale)));
        segment::clear_acknowledgment(f.bytes_mut(), &s.p);
        self.syn_proxy.waiting.push(Waiting {
            family: R::FAMILY,
            session: no.session(),
            opening: *opening,
            due: now + FIRST_REPEAT,
            repeats: 0,
        });
        true
    }

    /// The server's answer to a client's connection. Its SYN is acknowledged for the client, which has had one already and
    /// gets the window. What the packet is then.
    pub(super) fn proxied_answer<R: SharedTable>(
        &mut self,
        env: &Env<'_>,
        s: &BatchEntry,
        (no, p): (RecordNo, Proxied),
        f: &mut FrameMut<'_>,
        emit: &mut impl Emit,
    ) -> Option<BatchEntry> {
        let L4::Tcp { flags } = s.p.l4 else { return None };
        let h = Header::read(&s.p, f.bytes())?;
        if flags & TCP_RST != 0 {
            if let Some(cookie) = p.cookie() {
                // It resets what the client has: a connection that begins behind the cookie (RFC 9293 3.10.7.4).
                let by = cookie.wrapping_add(1).wrapping_sub(h.seq);
                segment::add_sequence(f.bytes_mut(), &s.p, by);
                self.syn_proxy.ended(R::FAMILY, no.session());
            }
            return None;
        }
        if flags & TCP_SYN == 0 {
            return None;
        }
        let offer = Offer::read(f.bytes().get(usize::from(s.p.l4_at)..)?);
        let open = match p.cookie() {
            Some(_) => p.open(h.seq, offer.window_scale),
            None => p,
        };
        let table = R::table(&self.tables);
        table.set_proxied(no.session(), Some(open));
        session::note_isn(table.meta(no.session()), 1, h.seq.wrapping_add(open.by()));
        self.syn_proxy.ended(R::FAMILY, no.session());
        let frame = f.bytes();
        let (sport, dport) = s.p.ports();
        let (server, client) = ((s.p.src(frame), sport), (s.p.dst(frame), dport));
        let near = Self::sender(s, frame);
        let scale = open.server_scale().and(open.client_scale()).unwrap_or(0);
        let ack = Segment {
            from: client,
            to: server,
            seq: h.ack,
            ack: h.seq.wrapping_add(1),
            flags: TCP_ACK,
            window: segment::rescale(open.window(), 0, scale),
            options: &[],
            ttl: TTL,
        };
        if self.send_segment(env.snap, (s.zone.vrf(), &ack), near, emit) {
            // The client's packet completes the handshake, as in a connection of its own.
            touch(R::table(&self.tables).record(no.peer()), env.now, (IPV4_LEN + TCP_LEN) as u16);
        }
        let window_update = Segment {
            from: server,
            to: client,
            seq: h.seq.wrapping_add(1),
            ack: h.ack,
            flags: TCP_ACK,
            window: segment::rescale(h.window, 0, open.server_scale().unwrap_or(0)),
            options: &[],
            ttl: s.p.ttl,
        };
        let p = replace(f, &s.p, &window_update)?;
        Some(BatchEntry { p, ..*s })
    }

    /// Translates sequence numbers and windows of a packet, or of what an ICMP error quotes.
    pub(super) fn translate_numbers(
        &self,
        p: Proxied,
        (reply, is_error): (bool, bool),
        f: &mut FrameMut<'_>,
        packet: &Parsed,
    ) {
        let (frame, by) = (f.bytes_mut(), p.by());
        match (reply, is_error) {
            // To the server, about a packet of its own.
            (false, true) => segment::add_quoted_sequence(frame, packet, by.wrapping_neg()),
            // The client's numbers are the same on both sides.
            (true, true) => {}
            (true, false) => segment::add_sequence(frame, packet, by),
            (false, false) => segment::add_acknowledgment(frame, packet, by.wrapping_neg()),
        }
        if let (false, L4::Tcp { flags }, Some((from, to))) = (is_error, packet.l4, p.rescaling(reply))
            && flags & TCP_SYN == 0
            && let Some(window) = segment::window(frame, packet)
        {
            segment::set_window(frame, packet, segment::rescale(window, from, to));
        }
    }

    /// Repeats SYNs that their servers have not answered, and gives up.
    pub(super) fn poll_syn_proxy(&mut self, snap: &Snapshot, now: Nanos, emit: &mut impl Emit) {
        if self.syn_proxy.waiting.is_empty() || now < self.syn_proxy.due {
            return;
        }
        self.syn_proxy.due = now + INTERVAL;
        let mut waiting = std::mem::take(&mut self.syn_proxy.waiting);
        waiting.retain_mut(|w| {
            now < w.due
                || match w.family {
                    Family::V4 => self.repeat_syn::<FlowRecord4>(snap, now, w, emit),
                    Family::V6 => self.repeat_syn::<FlowRecord6>(snap, now, w, emit),
                }
        });
        self.syn_proxy.waiting = waiting;
    }

    /// False: that is over.
    fn repeat_syn<R: SharedTable>(
        &mut self,
        snap: &Snapshot,
        now: Nanos,
        w: &mut Waiting,
        emit: &mut impl Emit,
    ) -> bool {
        let table = R::table(&self.tables);
        let Opening { cookie, isn, window, offer } = w.opening;
        if State::of(table.meta(w.session)) != Some(State::TcpSyn)
            || table.proxied(w.session).and_then(Proxied::cookie) != Some(cookie)
        {
            return false;
        }
        let r = table.record(RecordNo::forward(w.session));
        if w.repeats == REPEATS {
            let t = R::tuple(&r.key());
            let reset = Segment {
                from: (t.dst, t.dport),
                to: (t.src, t.sport),
                seq: cookie.wrapping_add(1),
                ack: isn.wrapping_add(1),
                flags: TCP_RST | TCP_ACK,
                window: 0,
                options: &[],
                ttl: TTL,
            };
            self.send_segment(snap, (R::vrf(&r.key()), &reset), None, emit);
            self.end::<R>(snap, w.session);
            return false;
        }
        let t = R::tuple(&r.translated());
        let options = offer.options();
        let syn = Segment {
            from: (t.src, t.sport),
            to: (t.dst, t.dport),
            seq: isn,
            ack: 0,
            flags: TCP_SYN,
            window,
            options: &options,
            ttl: TTL,
        };
        let vrf = R::vrf(&table.record(RecordNo::reverse(w.session)).key());
        self.send_segment(snap, (vrf, &syn), None, emit);
        w.repeats += 1;
        w.due = now + FIRST_REPEAT * (1 << w.repeats);
        true
    }

    /// Where the sender of a frame is, and its link address, if it did not come by a tunnel.
    pub(super) fn sender(s: &BatchEntry, frame: &[u8]) -> Option<(PortIdx, MacAddr)> {
        let mac = frame.get(6..12).and_then(|m| m.first_chunk()).map(|m| MacAddr(*m));
        mac.filter(|_| s.tunnel.is_none()).map(|mac| (s.ingress, mac))
    }

    /// Sends a segment that the gateway makes, in a VRF. `near`: where its receiver is, if that has just sent something.
    pub(super) fn send_segment(
        &mut self,
        snap: &Snapshot,
        (vrf, segment): (VrfNo, &Segment<'_>),
        near: Option<(PortIdx, MacAddr)>,
        emit: &mut impl Emit,
    ) -> bool {
        let Some(path) = originate::reply_path(snap, (vrf, segment.to.0), near) else { return false };
        let scratch = &mut self.buffers.scratch;
        let Some(len) = scratch.get_mut(LINK_ROOM..).and_then(|b| segment.write(b)) else { return false };
        let family = if segment.to.0.is_ipv4() { Family::V4 } else { Family::V6 };
        match originate::push_headers(snap, &path, family, len, scratch) {
            IcmpResult::Ready { port, start, len } if emit.emit(port, &scratch[start..start + len]) => {
                let out = self.counters.port(port);
                out.tx_packets.add(1);
                out.tx_bytes.add(len as u64);
                out.originated.add(1);
                true
            }
            _ => false,
        }
    }
}

/// Numbers of a TCP header.
pub(super) struct Header {
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
}

impl Header {
    pub fn read(p: &Parsed, frame: &[u8]) -> Option<Header> {
        let h: &[u8; TCP_LEN] = frame.get(usize::from(p.l4_at)..)?.first_chunk()?;
        let (seq, _) = tcp_numbers(p, frame)?;
        Some(Header {
            seq,
            ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
            window: u16::from_be_bytes([h[14], h[15]]),
        })
    }
}

/// Puts a segment in the place of a frame's packet. `None`: the buffer is too small.
fn replace(f: &mut FrameMut<'_>, p: &Parsed, segment: &Segment<'_>) -> Option<Parsed> {
    let l3 = usize::from(p.l3);
    let header = if p.family == Family::V4 { IPV4_LEN } else { IPV6_LEN };
    let len = l3 + header + TCP_LEN + segment.options.len();
    if len > f.len() {
        f.extend(len - f.len()).ok()?;
    }
    f.cut(len);
    segment.write(f.bytes_mut().get_mut(l3..)?)?;
    match parse::parse(f.bytes(), stages::ethertype(p.family), l3) {
        Ok(NetworkLayer::Ip(p)) => Some(p),
        _ => None,
    }
}
